"""Whether one learning-rate policy beats another, from runs over folds × seeds. See docs/comparing.md.

One fixed partition into folds; a seed sets the initial weights, the order of the samples and the augmentation.
Every policy is trained on every fold × seed, so scores are compared in pairs: a difference is the F of a run on
its held-out rows less that of the baseline's run of the same fold and seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from kit.errors import KitError, some
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta, score

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Scores = Mapping[str, Mapping[tuple[int, int], float]]

MOST_SEEDS = 100  # more are not proposed
_ROUNDING = 1e-12  # scores lie in [0, 1]: smaller differences are rounding
_CELLS = 2**20  # units × resamples held at a time: 8 MB an array


@dataclass(frozen=True)
class Interval:
    """The mean difference over folds, its confidence interval, and the two-sided p of no difference."""

    difference: float
    low: float
    high: float
    p: float
    standard_error: float
    df: int


@dataclass(frozen=True)
class Resampled:
    """A difference on out-of-fold rows and its bootstrap interval: the two models are held fixed, the rows vary.

    units: what was drawn; rows: how many there were.
    """

    difference: float
    low: float
    high: float
    resamples: int
    units: Literal["rows", "groups"]
    rows: int | None = None


@dataclass(frozen=True)
class Parts:
    """Variances of differences: between folds, beyond seed noise; and of seeds within a fold."""

    between: float
    within: float


@dataclass(frozen=True)
class Comparison:
    """A policy against the baseline.

    folds, seeds         of the runs that both have; runs, their number
    score                mean F of the policy's runs; baseline_score, of the baseline's
    difference           mean over folds of the mean over seeds: positive where the policy is better
    interval             None with one fold only, and where all folds have the same difference
    p_holm               p adjusted for all policies compared; None where there is no interval
    smallest_detectable  difference that this design would have found; None where there is no interval
    bootstrap            as it was given to `compare`
    verdict              better and worse: by `p_holm`; equivalent: surely within the margin
    sentence             all this in words
    seeds_to_decide      of an undecided comparison; None where not known, or where no number of seeds would do
    by_run               seed, fold and difference of each run
    """

    policy: str
    baseline: str
    folds: list[int]
    seeds: list[int]
    runs: int
    score: float
    baseline_score: float
    difference: float
    interval: Interval | None
    p_holm: float | None
    smallest_detectable: float | None
    bootstrap: Resampled | None
    verdict: Verdict
    sentence: str
    seeds_to_decide: int | None
    by_run: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain values of JSON; numbers are finite or None."""
        return _finite(asdict(self))


def compare(
    scores: Scores,
    baseline: str,
    ratio: float | Mapping[int, float],
    *,
    margin: float = 0.01,
    level: float = 0.95,
    power: float = 0.8,
    bootstraps: Mapping[str, Resampled] = {},
    metric: str = "F",
) -> list[Comparison]:
    """Each policy against the baseline over the runs that both have, the best difference first.

    scores      policy → (seed, fold) → F on the held-out rows
    ratio       held-out rows / training rows, of all folds or by fold; the mean over those compared counts
    margin      of F; two policies whose difference surely lies within it are equivalent
    level       of the intervals and of the verdicts; these hold for all policies together
    power       chance with which `smallest_detectable` would have been found
    bootstraps  policy → its out-of-fold rows against the baseline's, shown where folds do not suffice
    metric      its name, for the sentences

    better, worse: the p of `corrected_interval`, adjusted by `holm`, is below 1 − level. equivalent: two one-sided
    tests at (1 − level) / policies compared (Schuirmann 1987, with Bonferroni's correction): the interval of level
    1 − 2 (1 − level) / policies lies within ±margin. Without an interval: undecided.
    `KitError` where there is nothing to compare, or scores are not finite.
    """
    _check(scores, baseline)
    pairs = {policy: _paired(policy, scores, baseline) for policy in sorted(set(scores) - {baseline})}
    intervals = {
        name: corrected_interval(pair.differences, pair.folds, pair.mean_of(ratio), level)
        for name, pair in pairs.items()
    }
    tested = [name for name, interval in intervals.items() if interval is not None]
    adjusted = dict(zip(tested, holm([intervals[name].p for name in tested]).tolist(), strict=True))
    design = _Design(ratio, margin, level, power, metric, len(tested))
    comparisons = [
        _comparison(pair, baseline, intervals[name], adjusted.get(name), bootstraps.get(name), design)
        for name, pair in pairs.items()
    ]
    return sorted(comparisons, key=lambda each: (-each.difference, each.policy))


def corrected_interval(differences, folds, ratio: float, level: float = 0.95) -> Interval | None:
    """Confidence interval and test of a mean difference over folds, corrected for training sets that overlap.

    differences float [runs]; folds int [runs], which fold each is of; ratio: held-out rows / training rows; level:
    of the interval. None where there are fewer than two folds.

    Seeds are averaged within each fold; then, with d the mean and S² the variance (K − 1) of the K fold means,
    (d − expected difference) / sqrt(S² (1 / K + ratio)) is taken for Student's t with K − 1 degrees of freedom:
    Nadeau & Bengio 2003, Inference for the generalization error, Machine Learning 52, whose heuristic it is that
    two folds correlate by held-out / all rows. Seeds are averaged first since they do not draw the partition anew:
    K · R runs are not that many repetitions. None, too, where all folds have the same difference other than 0: F
    counts rows, so ties happen, and tell nothing of the variance. If all runs are alike, the interval is a point.
    """
    from scipy.special import stdtr  # Student's t: df, then t or probability

    means = _by_fold(differences, folds)[0]
    if len(means) < 2:
        return None
    difference, df = float(np.mean(means)), len(means) - 1
    if np.ptp(means) <= _ROUNDING:
        alike = np.abs(np.asarray(differences)).max() <= _ROUNDING
        return Interval(0.0, 0.0, 0.0, 1.0, 0.0, df) if alike else None
    error = float(np.sqrt(np.var(means, ddof=1) * (1 / len(means) + ratio)))
    p = float(2 * stdtr(df, -abs(difference) / error))
    return _at(Interval(difference, difference, difference, p, error, df), level)


def bootstrap(
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    config: ScoringConfig,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Resampled:
    """The score of `second` less that of `first`: `bootstrap_many` of two."""
    pair = {"first": first, "second": second}
    return bootstrap_many(truth, pair, "first", config, groups, resamples, seed, level)["second"]


def bootstrap_many(
    truth: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    baseline: str,
    config: ScoringConfig,
    groups: np.ndarray | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Resampled]:
    """Percentile bootstrap (Efron & Tibshirani 1993, chapter 13) of each score less the baseline's.

    truth, and each of predicted: labels, int [rows] or bool [rows, classes], of out-of-fold rows; groups [rows]:
    rows that belong together, and are drawn together. As many rows, or groups, are drawn with replacement as there
    are, the same for all; `score` of those is computed from counts. It tells what other rows would give with the
    same models: not what other training rows or seeds would. `KitError` where there are no rows.

    Memory, beside what is given: 12 bytes a label, true, predicted or hit, and a copy of the truth for a while.
    """
    _check_rows(truth, predicted, groups)
    units = np.arange(len(truth)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    number = int(units.max()) + 1
    tables = _Tables(truth, predicted, units, config)
    generator = np.random.default_rng(seed)
    scores = {name: np.empty(resamples) for name in predicted}
    chunk = max(_CELLS // number, 1)
    for start in range(0, resamples, chunk):
        several = min(chunk, resamples - start)
        drawn = generator.integers(0, number, (several, number))
        drawn *= several
        drawn += np.arange(several)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=number * several).reshape(number, several)
        for name, values in tables.scores(weights.astype(np.float64)).items():
            scores[name][start : start + several] = values
    whole = {name: score(truth, labels, config) for name, labels in predicted.items()}
    made = {}
    for name in predicted:
        if name != baseline:
            low, high = np.quantile(scores[name] - scores[baseline], [(1 - level) / 2, (1 + level) / 2]).tolist()
            kind = "rows" if groups is None else "groups"
            made[name] = Resampled(whole[name] - whole[baseline], low, high, resamples, kind, len(truth))
    return made


def holm(p: Sequence[float]) -> np.ndarray:
    """p values adjusted for being several, in their order: [tests] in [0, 1].

    The i-th smallest of m is multiplied by m − i + 1, and none is less than a smaller one's. Holm 1979, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)


def smallest_detectable(
    standard_error: float, df: int, level: float = 0.95, power: float = 0.8, comparisons: int = 1
) -> float:
    """The difference that would be found significant with a chance of `power`: (t[1 − α/2m] + t[power]) · SE.

    α = 1 − level; m: comparisons, by Bonferroni; both quantiles are of Student's t with df degrees of freedom.
    Bloom 1995, Minimum detectable effects, Evaluation Review 19.
    """
    from scipy.special import stdtrit

    quantiles = stdtrit(df, [1 - (1 - level) / (2 * comparisons), power])
    return float(quantiles.sum() * standard_error)


def variance_parts(differences, folds) -> Parts:
    """Variance between folds beyond seed noise, and of seeds within a fold; shapes as in `corrected_interval`.

    One-way random effects, by analysis of variance, with any number of seeds a fold: within = MSW, between =
    max(0, (MSB − MSW) / n₀), n₀ = (N − Σ n² / N) / (K − 1). Searle, Casella & McCulloch 1992, Variance Components,
    section 3.6. What all folds share shows in neither. within is nan where no fold has two seeds, and between then
    holds both; between is nan with one fold.
    """
    values = np.asarray(differences, dtype=np.float64)
    means, counts, where = _by_fold(values, folds)
    runs, number = len(values), len(counts)
    within = float(np.sum((values - means[where]) ** 2) / (runs - number)) if runs > number else math.nan
    if number < 2:
        return Parts(math.nan, within)
    square = np.sum(counts * (means - values.mean()) ** 2) / (number - 1)
    size = (runs - np.sum(counts**2) / runs) / (number - 1)
    return Parts(float(max(0, (square - np.nan_to_num(within)) / size)), within)


def seeds_to_decide(
    difference: float,
    parts: Parts,
    n_folds: int,
    ratio: float,
    level: float,
    comparisons: int,
    margin: float,
    most: int = MOST_SEEDS,
) -> int | None:
    """Fewest seeds a fold with which `compare` would decide, should difference and variances stay as they are.

    With R seeds a fold the standard error is sqrt((between + within / R) (1 / K + ratio)); decided: significant
    with Bonferroni's correction for `comparisons`, or equivalent within `margin`. None where `within` is not known
    (one seed a fold), and where no number of seeds up to `most` would do.
    """
    from scipy.special import stdtrit

    if n_folds < 2 or math.isnan(parts.within) or math.isnan(parts.between):
        return None
    seeds = np.arange(1, most + 1)
    error = np.sqrt((parts.between + parts.within / seeds) * (1 / n_folds + ratio))
    share = (1 - level) / comparisons
    two_sided, one_sided = stdtrit(n_folds - 1, [1 - share / 2, 1 - share])
    decided = (abs(difference) > two_sided * error) | (abs(difference) + one_sided * error <= margin)
    return int(seeds[np.argmax(decided)]) if decided.any() else None


def _at(interval: Interval, level: float) -> Interval:
    """The interval with the limits of this level."""
    from scipy.special import stdtrit

    reach = float(stdtrit(interval.df, (1 + level) / 2)) * interval.standard_error
    return replace(interval, low=interval.difference - reach, high=interval.difference + reach)


def _by_fold(differences, folds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and number of runs of each fold, and which of them each run belongs to."""
    _, where, counts = np.unique(np.asarray(folds), return_inverse=True, return_counts=True)
    return np.bincount(where, weights=np.asarray(differences, dtype=np.float64)) / counts, counts, where


# the bootstrap's counts


class _Tables:
    """What the score is computed from, summed over each unit: sparse [classes, units], or float [units]."""

    def __init__(
        self, truth, predicted: Mapping[str, np.ndarray], units: np.ndarray, config: ScoringConfig
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


def _score_of_counts(hits, chosen, positive, one_label: bool, config: ScoringConfig) -> np.ndarray:
    """`kit.scoring.f1.score` of counts [classes, resamples] → [resamples]."""
    if config.average == "micro":
        sums = (each.sum(axis=0) for each in (hits, chosen, positive))
        return fbeta(*sums, config.beta, config.zero_division)
    values = fbeta(hits, chosen, positive, config.beta, config.zero_division)
    if one_label and config.average == "binary":
        return values[1]
    counted = (chosen + positive > 0 if one_label else np.ones_like(positive)).astype(np.float64)
    if config.average == "weighted":  # without any label, all classes weigh the same
        counted = np.where(positive.sum(axis=0) > 0, positive, counted)
    return (values * counted).sum(axis=0) / counted.sum(axis=0)


def _f_of_rows(truth: np.ndarray, labels: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """F of each row; bool [rows, classes] → float [rows]."""
    hits, chosen, positive = (np.count_nonzero(each, axis=1) for each in (truth & labels, labels, truth))
    return fbeta(hits, chosen, positive, config.beta, config.zero_division)


def _labels(labels: np.ndarray, classes: int):
    """Labels, int [rows] or bool [rows, classes], as a sparse matrix [classes, rows] of ones."""
    if labels.ndim == 1:
        return _indicator(labels, classes).T.tocsr()
    from scipy import sparse

    return sparse.csr_matrix(labels, dtype=np.float64).T.tocsr()


def _indicator(which: np.ndarray, number: int):
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


# pairs of runs, and words


@dataclass(frozen=True)
class _Pair:
    """The runs that a policy and the baseline share, by seed and fold: arrays [runs]."""

    policy: str
    seeds: np.ndarray
    folds: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        return self.first - self.second

    def mean_of(self, ratio: float | Mapping[int, float]) -> float:
        """Over the folds of these runs."""
        if not isinstance(ratio, Mapping):
            return ratio
        return float(np.mean([ratio[fold] for fold in sorted(set(self.folds.tolist()))]))


@dataclass(frozen=True)
class _Design:
    """What `compare` was asked for, and the number of policies whose p values stand together."""

    ratio: float | Mapping[int, float]
    margin: float
    level: float
    power: float
    metric: str
    tested: int


def _check(scores: Scores, baseline: str) -> None:
    if baseline not in scores:
        raise KitError(
            f"compare: baseline {baseline} is not among the policies ({some(scores)}); name one of them"
        )
    if len(scores) < 2:
        raise KitError(f"compare: {baseline} is the only policy; two or more are needed")
    for policy, runs in scores.items():
        for (seed, fold), value in runs.items():
            if not math.isfinite(value):
                raise KitError(
                    f"compare: {policy} has a score of {value} at seed {seed} fold {fold}; train that run again"
                )


def _paired(policy: str, scores: Scores, baseline: str) -> _Pair:
    shared = sorted(set(scores[policy]) & set(scores[baseline]))
    if not shared:
        raise KitError(
            f"compare: {policy} has {_runs(scores[policy])}; {baseline} has {_runs(scores[baseline])}; "
            "train both on the same folds and seeds (leave out --stored)"
        )
    seeds, folds = np.array(shared).T
    first, second = (np.array([float(scores[name][run]) for run in shared]) for name in (policy, baseline))
    return _Pair(policy, seeds, folds, first, second)


def _runs(runs: Iterable[tuple[int, int]]) -> str:
    return some([f"seed {seed} fold {fold}" for seed, fold in sorted(runs)]) or "no runs"


def _comparison(
    pair: _Pair,
    baseline: str,
    interval: Interval | None,
    p_holm: float | None,
    resampled: Resampled | None,
    design: _Design,
) -> Comparison:
    differences, folds, seeds = pair.differences, pair.folds.tolist(), pair.seeds.tolist()
    mean = interval.difference if interval else float(differences.mean())
    verdict, needed, detectable, words = "undecided", None, None, _no_interval(pair, mean, resampled)
    if interval is not None:
        level, tested = design.level, design.tested
        detectable = smallest_detectable(interval.standard_error, interval.df, level, design.power, tested)
        closer = _at(interval, 1 - 2 * (1 - level) / tested)
        if p_holm < 1 - level:
            verdict = "better" if mean > 0 else "worse"
            words = _significant(pair.policy, baseline, verdict, interval, p_holm, design)
        elif -design.margin <= closer.low and closer.high <= design.margin:
            verdict = "equivalent"
            words = _equivalent(pair.policy, baseline, closer, design)
        else:
            parts = variance_parts(differences, folds)
            needed = seeds_to_decide(
                mean, parts, interval.df + 1, pair.mean_of(design.ratio), level, tested, design.margin
            )
            if needed is not None:  # with unequal numbers of seeds it may come out as what is there
                needed = max(needed, len(set(seeds)) + 1)
            words = _undecided(interval, detectable, needed, not math.isnan(parts.within), design)
    return Comparison(
        policy=pair.policy,
        baseline=baseline,
        folds=sorted(set(folds)),
        seeds=sorted(set(seeds)),
        runs=len(folds),
        score=float(pair.first.mean()),
        baseline_score=float(pair.second.mean()),
        difference=mean,
        interval=interval,
        p_holm=p_holm,
        smallest_detectable=detectable,
        bootstrap=resampled,
        verdict=verdict,
        sentence=words,
        seeds_to_decide=needed,
        by_run=[
            {"seed": seed, "fold": fold, "difference": difference}
            for seed, fold, difference in zip(seeds, folds, differences.tolist(), strict=True)
        ],
    )


def _significant(
    policy: str, baseline: str, verdict: str, interval: Interval, p_holm: float, design: _Design
) -> str:
    p = "p < .001" if p_holm < 0.001 else f"p {_plain(p_holm)}"
    within = -design.margin <= interval.low and interval.high <= design.margin
    return (
        f"{policy} is {verdict} than {baseline} by {_plain(abs(interval.difference))} {design.metric} "
        f"({_percent(design.level)} interval {_span(interval)}, Holm {p})"
        + (f"; by less than the margin of {_plain(design.margin)}" if within else "")
    )


def _equivalent(policy: str, baseline: str, closer: Interval, design: _Design) -> str:
    level = 1 - 2 * (1 - design.level) / design.tested
    return (
        f"{policy} and {baseline} are equivalent within {_plain(design.margin)} {design.metric}: "
        f"{_signed(closer.difference)} ({_percent(level)} interval {_span(closer)})"
    )


def _undecided(interval: Interval, detectable: float, needed: int | None, known: bool, design: _Design) -> str:
    if needed is not None:
        more = f"about {needed} seeds a fold would decide it if the difference stays as it is"
    elif known:
        more = f"no number of seeds up to {MOST_SEEDS} would decide it: more folds or more rows would"
    else:
        more = "how many seeds would decide it takes two seeds a fold to tell"
    chance = _percent(design.power)
    found = (
        f"this design would have found a difference of {_plain(detectable)} with a chance of {chance}"
        if detectable <= 1
        else "this design could hardly find any difference: train more folds"
    )
    return (
        f"undecided: {_signed(interval.difference)} {design.metric} ({_percent(design.level)} interval "
        f"{_span(interval)}); {found}; {more}"
    )


def _no_interval(pair: _Pair, mean: float, resampled: Resampled | None) -> str:
    rows, models = "these held-out rows", "these two models"
    if resampled is not None and resampled.rows is not None:
        rows = f"these {resampled.rows:,} held-out rows"
    if len(set(pair.folds.tolist())) > 1:
        models = "these models"
        words = (
            "all folds have the same difference, so that no variance between folds can be estimated, and whether "
            "others would give the same cannot be concluded"
        )
    elif len(pair.seeds) == 1:
        words = (
            "one seed and one fold: whether another training or other training rows would give the same cannot be "
            "concluded"
        )
    else:
        models = "these models"
        words = (
            f"one fold and {len(pair.seeds)} seeds: it holds for these training and held-out rows only, and "
            "whether others would give the same cannot be concluded"
        )
    if resampled is not None:
        words += (
            f"; on {rows} and {models} the bootstrap gives {_signed(resampled.difference)} "
            f"[{_signed(resampled.low)}, {_signed(resampled.high)}]"
        )
    return f"undecided: {_signed(mean)}; {words}"


def _plain(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("0.", ".", 1)


def _span(interval: Interval) -> str:
    return f"{_signed(interval.low)} to {_signed(interval.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _finite(value: Any) -> Any:
    """`value` with None for numbers that are not finite, however deep."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
