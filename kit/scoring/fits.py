"""Decision rules fitted on rows with labels, on several sets of rows at once: all, and all but each fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kit.scoring.columns import MOST_FITS, NEVER, SortedColumn, bits_of, columns_of
from kit.scoring.config import ScoringConfig
from kit.scoring.offsets import best_offsets
from kit.scoring.rules import (
    FEWEST_ROWS,
    Argmax,
    ExpectedF,
    Half,
    Offsets,
    PositiveThreshold,
    Prevalence,
    Rule,
    Threshold,
    Thresholds,
)
from kit.scoring.thresholds import best_threshold_of_fits, best_thresholds, label_limits

_BLOCK = 4_000_000  # probabilities looked at at a time


@dataclass(frozen=True)
class FittedRule:
    """A rule, and what it does on all rows at hand.

    Attributes
    ----------
    rule : Rule
    thresholds : ndarray or None
        float64 [classes], where it decides by thresholds that depend on all rows at hand.
    """

    rule: Rule
    thresholds: np.ndarray | None = None

    def decide(self, probabilities: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the labels of all rows, or of some of all: bool [rows]."""
        if self.thresholds is not None and isinstance(self.rule, Prevalence):
            return self.rule.above(probabilities, self.thresholds, None if rows is None else np.flatnonzero(rows))
        return self.rule.decide(probabilities) if rows is None else self.rule.decide_among(probabilities, rows)


def fit_rules(
    names: Sequence[str], probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> dict[str, list[FittedRule]]:
    """Return the rules of these names, each fitted on several sets of rows.

    Parameters
    ----------
    names : sequence of str
        As `ScoringConfig.rules` has them.
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        int [rows] or bool [rows, classes].
    kept : ndarray
        bool [fits, rows], the rows of each.
    config : ScoringConfig

    Returns
    -------
    dict of str to list of FittedRule
        A rule for each of `kept`.
    """
    by_class = [name for name in names if _is_by_class(name, truth, config)]
    made = _fit_by_class(by_class, probabilities, truth, kept, config) if by_class else {}
    fits = _ONE_LABEL if truth.ndim == 1 else _SEVERAL_LABELS
    for name in names:
        if name not in made:
            made[name] = [FittedRule(rule) for rule in fits[name](probabilities, truth, kept, config)]
    return made


def shares_at(probabilities: np.ndarray, kept: np.ndarray, thresholds: Sequence[float]) -> list[float]:
    """Return, for each set of rows, the share of its probabilities that lie at or above its threshold."""
    found: dict[float, np.ndarray] = {}
    for threshold in thresholds:
        if threshold not in found:
            found[threshold] = _at_or_above(probabilities, threshold)
    sizes = (int(np.count_nonzero(rows)) * probabilities.shape[1] for rows in kept)
    return [
        int(found[threshold][rows].sum()) / size if size else 0.0
        for rows, threshold, size in zip(kept, thresholds, sizes, strict=True)
    ]


def _at_or_above(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return how many of each row's probabilities lie at or above a threshold, int64 [rows]."""
    least, step = probabilities.dtype.type(threshold), max(1, _BLOCK // max(1, probabilities.shape[1]))
    blocks = (probabilities[start : start + step] for start in range(0, len(probabilities), step))
    counts = [np.count_nonzero(block >= least, axis=1) for block in blocks]
    return np.concatenate(counts) if counts else np.zeros(0, dtype=np.int64)


def _is_by_class(name: str, truth: np.ndarray, config: ScoringConfig) -> bool:
    """Return whether a rule has a threshold for each class that its own probabilities and labels tell."""
    if truth.ndim == 1:
        return False
    return name == "prevalence" or (name == "thresholds" and config.average not in ("micro", "samples"))


def _fit_by_class(
    names: Sequence[str], probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> dict[str, list[FittedRule]]:
    """Fit the rules that tell a class's threshold by this class alone: each class is sorted once for all of it."""
    fits, classes = len(kept), probabilities.shape[1]
    best, best_shares, shares, at_shares, met = (np.zeros((fits, classes)) for _ in range(5))
    few = len(probabilities) < FEWEST_ROWS
    for start in range(0, fits, MOST_FITS - 1):
        part = range(start, min(start + MOST_FITS - 1, fits))
        # The last of the bits is that of all rows at hand.
        bits = bits_of(np.concatenate([kept[part], np.ones((1, len(truth)), dtype=bool)]))
        for index, (column, labels) in enumerate(columns_of(probabilities, truth)):
            whole = SortedColumn(column, labels, bits)
            everything = whole.of(len(part))
            for place, fit in enumerate(part):
                mine = whole.of(place)
                if "thresholds" in names:
                    best[fit, index], best_shares[fit, index] = mine.best(config)
                if "prevalence" in names:
                    share = mine.positive / mine.rows
                    own = mine.at_share(share) if share > 0 else NEVER
                    stays = few or own == NEVER or round(share * len(column)) == 0
                    shares[fit, index], at_shares[fit, index] = share, own
                    met[fit, index] = own if stays else everything.at_share(share)
    least, most = label_limits(truth, config)
    made: dict[str, list[FittedRule]] = {}
    for name in names:
        if name == "thresholds":
            pairs = zip(best.tolist(), best_shares.tolist(), strict=True)
            made[name] = [FittedRule(Thresholds(least, most, tuple(one), tuple(two))) for one, two in pairs]
        else:
            rows = zip(shares.tolist(), at_shares.tolist(), met, strict=True)
            made[name] = [FittedRule(Prevalence(least, most, tuple(a), tuple(b)), seen) for a, b, seen in rows]
    return made


def _argmax(_: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig) -> list[Rule]:
    return [Argmax()] * len(kept)


def _positive_threshold(
    probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> list[Rule]:
    thresholds = best_threshold_of_fits(probabilities, truth, kept, config)
    shares = shares_at(probabilities[:, 1:2], kept, thresholds)
    return [PositiveThreshold(*each) for each in zip(thresholds, shares, strict=True)]


def _offsets(probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig) -> list[Rule]:
    step = max(1, _BLOCK // probabilities.shape[1])
    blocks = (probabilities[start : start + step] for start in range(0, len(truth), step))
    sure = np.concatenate(
        [each.max(axis=1) / np.maximum(each.sum(axis=1, dtype=np.float64), 1e-12) for each in blocks]
    )
    return [
        Offsets(tuple(best_offsets(probabilities, truth, config, rows).tolist()), float(np.mean(sure[rows])))
        for rows in kept
    ]


def _half(probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig) -> list[Rule]:
    limits = label_limits(truth, config)
    return [Half(*limits, 0.5, share) for share in shares_at(probabilities, kept, [0.5] * len(kept))]


def _threshold(
    probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> list[Rule]:
    limits, thresholds = label_limits(truth, config), best_threshold_of_fits(probabilities, truth, kept, config)
    shares = shares_at(probabilities, kept, thresholds)
    return [Threshold(*limits, *each) for each in zip(thresholds, shares, strict=True)]


def _thresholds(
    probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> list[Rule]:
    limits, made = label_limits(truth, config), list[Rule]()
    for rows in kept:
        seen, labels = (probabilities, truth) if rows.all() else (probabilities[rows], truth[rows])
        thresholds = best_thresholds(seen, labels, config).astype(seen.dtype)
        counts = np.count_nonzero(seen >= thresholds, axis=0)
        made.append(
            Thresholds(*limits, tuple(thresholds.astype(float).tolist()), tuple((counts / len(seen)).tolist()))
        )
    return made


def _expected_f(
    probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> list[Rule]:
    return [ExpectedF(*label_limits(truth, config), config.beta, config.zero_division)] * len(kept)


_Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, ScoringConfig], list[Rule]]
_ONE_LABEL: dict[str, _Fit] = {"argmax": _argmax, "threshold": _positive_threshold, "offsets": _offsets}
_SEVERAL_LABELS: dict[str, _Fit] = {
    "half": _half,
    "threshold": _threshold,
    "expected_f": _expected_f,
    "thresholds": _thresholds,
}
