"""How far differences of scores would move with other rows: the bootstrap, computed from counts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kit.core.errors import KitError
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta, score

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_CELLS = 2**20  # units × resamples held at a time: 8 MB an array


@dataclass(frozen=True)
class BootstrapResult:
    """A difference on out-of-fold rows and its bootstrap interval: the two models are held fixed, the rows vary.

    Attributes
    ----------
    difference, low, high : float
        The difference of scores, and the ends of its interval.
    resamples : int
        How many were drawn.
    units : "rows" or "groups"
        What was drawn: rows, or row groups.
    rows : int, optional
        How many rows there were.
    """

    difference: float
    low: float
    high: float
    resamples: int
    units: Literal["rows", "groups"]
    rows: int | None = None


def bootstrap(
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray | tuple[np.ndarray, np.ndarray]],
    baseline: str,
    config: ScoringConfig,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, BootstrapResult]:
    """Return the percentile bootstrap of each score less the baseline's.

    It tells what other rows would give with the same models: not what other training rows or seeds would. Efron &
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. Memory, beside what is given: 12 bytes a label,
    true, predicted or hit, and a copy of the truth for a while. A metric of the user's own is called for each
    resample and policy: 2000 calls a policy, of a millisecond each, take two seconds.

    Parameters
    ----------
    truth : ndarray
        Labels of the out-of-fold rows, int [rows] or bool [rows, classes].
    predicted : mapping of str to ndarray or tuple
        By policy, labels in the form of `truth`; or these and probabilities [rows, classes], for a metric of them.
    baseline : str
        The policy that the others are compared with.
    config : ScoringConfig
        The metric.
    groups : ndarray, optional
        int [rows], the row group of each row; row groups are drawn whole. As many rows, or row groups, are drawn
        with replacement as there are, the same for all policies.

    Raises
    ------
    KitError
        Where there are no rows, or labels and row groups are not of the same rows.
    """
    probabilities = {name: each[1] for name, each in predicted.items() if isinstance(each, tuple)}
    labels = {name: each[0] if isinstance(each, tuple) else each for name, each in predicted.items()}
    _check_rows(truth, labels, groups)
    units = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    number = int(units.max()) + 1
    tables: _Resamples | _Tables
    if config.metric:
        tables = _Resamples(truth, labels, probabilities, units, config)
    else:
        tables = _Tables(truth, labels, units, config)
    parts = [tables.scores(weights) for weights in _draws(number, resamples, seed)]
    scores = {name: np.concatenate([part[name] for part in parts]) for name in labels}
    whole = {name: score(truth, each, config, probabilities.get(name)) for name, each in labels.items()}
    made = {}
    for name in predicted:
        if name != baseline:
            low, high = np.quantile(scores[name] - scores[baseline], [(1 - level) / 2, (1 + level) / 2]).tolist()
            kind: Literal["rows", "groups"] = "rows" if groups is None else "groups"
            made[name] = BootstrapResult(whole[name] - whole[baseline], low, high, resamples, kind, len(truth))
    return made


def interval_of(
    truth: np.ndarray,
    predicted: np.ndarray,
    config: ScoringConfig,
    groups: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the ends of the percentile bootstrap interval of one score; parameters as of `bootstrap`."""
    _check_rows(truth, {"it": predicted}, groups)
    units = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    tables: _Resamples | _Tables
    if config.metric:
        chances = {} if probabilities is None else {"it": probabilities}
        tables = _Resamples(truth, {"it": predicted}, chances, units, config)
    else:
        tables = _Tables(truth, {"it": predicted}, units, config)
    drawn = _draws(int(units.max()) + 1, resamples, 0)
    scores = np.concatenate([tables.scores(weights)["it"] for weights in drawn])
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _draws(number: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each unit is drawn, float [units, some of the resamples], until all are drawn."""
    generator, chunk = np.random.default_rng(seed), max(_CELLS // number, 1)
    for start in range(0, resamples, chunk):
        several = min(chunk, resamples - start)
        drawn = generator.integers(0, number, (several, number))
        drawn *= several
        drawn += np.arange(several)[:, None]
        yield np.bincount(drawn.ravel(), minlength=number * several).reshape(number, several).astype(np.float64)


class _Tables:
    """What the score is computed from, summed over each unit: sparse [classes, units], or float [units]."""

    def __init__(
        self, truth: np.ndarray, predicted: Mapping[str, np.ndarray], units: np.ndarray, config: ScoringConfig
    ) -> None:
        self.config, self.one_label = config, truth.ndim == 1
        self.by_row = config.average == "samples" and not self.one_label
        if self.by_row:  # F of each row is fixed: a resample's score is their mean
            self.rows = np.bincount(units)
            self.values = {
                name: np.bincount(units, weights=_f_of_rows(truth, labels, config))
                for name, labels in predicted.items()
            }
            return
        if self.one_label:
            classes = int(max(truth.max(), *(labels.max() for labels in predicted.values()), 1)) + 1
        else:
            classes = truth.shape[1]
        membership = _indicator(units, int(units.max()) + 1)
        true = _labels(truth, classes)
        self.positive = true @ membership
        self.chosen, self.hits = {}, {}
        for name, labels in predicted.items():
            chosen = _labels(labels, classes)
            self.chosen[name] = chosen @ membership
            self.hits[name] = true.multiply(chosen).tocsr() @ membership

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """weights float [units, resamples], how often each unit was drawn → each one's score [resamples]."""
        if self.by_row:
            return {name: values @ weights / (self.rows @ weights) for name, values in self.values.items()}
        positive = self.positive @ weights
        return {
            name: _score_of_counts(
                self.hits[name] @ weights, chosen @ weights, positive, self.one_label, self.config
            )
            for name, chosen in self.chosen.items()
        }


class _Resamples:
    """The predictions themselves, for a metric of the user's own, of which no counts are known."""

    def __init__(
        self,
        truth: np.ndarray,
        predicted: Mapping[str, np.ndarray],
        probabilities: Mapping[str, np.ndarray],
        units: np.ndarray,
        config: ScoringConfig,
    ) -> None:
        self.truth, self.predicted, self.probabilities = truth, predicted, probabilities
        self.units, self.config = units, config

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """weights float [units, resamples], how often each unit was drawn → each one's score [resamples]."""
        made = {name: np.empty(weights.shape[1]) for name in self.predicted}
        for place, times in enumerate(weights.T.astype(np.int64)):
            rows = np.repeat(np.arange(len(self.truth)), times[self.units])
            for name, labels in self.predicted.items():
                taken = self.probabilities[name][rows] if name in self.probabilities else None
                made[name][place] = score(self.truth[rows], labels[rows], self.config, taken)
        return made


def _score_of_counts(
    hits: np.ndarray, chosen: np.ndarray, positive: np.ndarray, one_label: bool, config: ScoringConfig
) -> np.ndarray:
    """`kit.scoring.f1.score` of counts [classes, resamples] → [resamples]."""
    if config.average == "micro":
        hit, picked, true = (each.sum(axis=0) for each in (hits, chosen, positive))
        return fbeta(hit, picked, true, config.beta, config.zero_division)
    values = fbeta(hits, chosen, positive, config.beta, config.zero_division)
    if one_label and config.average == "binary":
        return values[1]
    counted = (chosen + positive > 0 if one_label else np.ones_like(positive)).astype(np.float64)
    if config.average == "lowest":
        return np.where(counted > 0, values, np.inf).min(axis=0)
    if config.average == "weighted":  # without any label, all classes weigh the same
        counted = np.where(positive.sum(axis=0) > 0, positive, counted)
    return (values * counted).sum(axis=0) / counted.sum(axis=0)


def _f_of_rows(truth: np.ndarray, labels: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """F of each row; bool [rows, classes] → float [rows]."""
    hits, chosen, positive = (np.count_nonzero(each, axis=1) for each in (truth & labels, labels, truth))
    return fbeta(hits, chosen, positive, config.beta, config.zero_division)


def _labels(labels: np.ndarray, classes: int) -> "csr_matrix":
    """Labels, int [rows] or bool [rows, classes], as a sparse matrix [classes, rows] of ones."""
    if labels.ndim == 1:
        return _indicator(labels, classes).T.tocsr()
    from scipy import sparse

    return sparse.csr_matrix(labels, dtype=np.float64).T.tocsr()


def _indicator(which: np.ndarray, number: int) -> "csr_matrix":
    """Sparse [len(which), number] with a one a row, at `which`."""
    from scipy import sparse

    rows = np.arange(len(which) + 1)
    return sparse.csr_matrix((np.ones(len(which)), which, rows), shape=(len(which), number))


def _check_rows(truth: np.ndarray, predicted: Mapping[str, np.ndarray], groups: np.ndarray | None) -> None:
    if len(truth) == 0:
        raise KitError("bootstrap: there are no out-of-fold rows; train a fold first")
    for name, labels in predicted.items():
        if labels.shape != truth.shape:
            raise KitError(
                f"bootstrap: {name} has labels {list(labels.shape)}, the truth {list(truth.shape)}; "
                "they must be of the same rows and classes"
            )
    if groups is not None and len(groups) != len(truth):
        raise KitError(f"bootstrap: {len(groups)} groups for {len(truth)} rows; give one group a row")
