"""Intervals and tests of differences over folds × seeds: pure functions, each with its source."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MOST_SEEDS = 100  # more are not proposed
_ROUNDING = 1e-12  # scores lie in [0, 1]: smaller differences are rounding


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
class VarianceParts:
    """Variances of differences: between folds, beyond seed noise; and of seeds within a fold."""

    between: float
    within: float


def corrected_interval(
    differences: Sequence[float] | np.ndarray, folds: Sequence[int] | np.ndarray, ratio: float, level: float = 0.95
) -> Interval | None:
    """Return the confidence interval and test of a mean difference over folds, corrected for overlapping training
    sets.

    Parameters
    ----------
    differences : sequence of float
        [runs].
    folds : sequence of int
        [runs], which fold each is of.
    ratio : float
        Held-out rows / training rows.
    level : float
        Of the interval.

    Returns
    -------
    Interval or None
        None where there are fewer than two folds, and where all folds have the same difference other than 0: F
        counts rows, so ties happen, and tell nothing of the variance. If all runs are alike, the interval is a
        point.

    Notes
    -----
    Seeds are averaged within each fold; then, with d the mean and S² the variance (K − 1) of the K fold means, (d
    − expected difference) / sqrt(S² (1 / K + ratio)) is taken for Student's t with K − 1 degrees of freedom. Seeds
    are averaged first since they do not draw the partition anew: K · R runs are not that many repetitions.

    References
    ----------
    Nadeau & Bengio 2003, Inference for the generalization error, Machine Learning 52, whose heuristic it is that
    two folds correlate by held-out / all rows.
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
    return at_level(Interval(difference, difference, difference, p, error, df), level)


def at_level(interval: Interval, level: float) -> Interval:
    """The interval with the limits of this level."""
    from scipy.special import stdtrit

    reach = float(stdtrit(interval.df, (1 + level) / 2)) * interval.standard_error
    return replace(interval, low=interval.difference - reach, high=interval.difference + reach)


def holm(p: Sequence[float]) -> np.ndarray:
    """Return p values adjusted for being several, in their order: float64 [tests] in [0, 1].

    The i-th smallest of m is multiplied by m − i + 1, and none is less than a smaller one's.

    References
    ----------
    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(adjusted, 1)


def smallest_detectable(
    standard_error: float, df: int, level: float = 0.95, power: float = 0.8, comparisons: int = 1
) -> float:
    """Return the difference that would be found significant with a chance of `power`.

    It is (t[1 − α/2m] + t[power]) · SE. α = 1 − level; m: comparisons, by Bonferroni; both quantiles are of
    Student's t with df degrees of freedom.

    References
    ----------
    Bloom 1995, Minimum detectable effects, Evaluation Review 19.
    """
    from scipy.special import stdtrit

    quantiles = stdtrit(df, [1 - (1 - level) / (2 * comparisons), power])
    return float(quantiles.sum() * standard_error)


def variance_parts(differences: Sequence[float] | np.ndarray, folds: Sequence[int] | np.ndarray) -> VarianceParts:
    """Return the variance between folds beyond seed noise, and that of seeds within a fold.

    Shapes as in `corrected_interval`. What all folds share shows in neither part. `within` is nan where no fold
    has two seeds, and `between` then holds both; `between` is nan with one fold.

    Notes
    -----
    One-way random effects, by analysis of variance, with any number of seeds a fold: within = MSW, between =
    max(0, (MSB − MSW) / n₀), n₀ = (N − Σ n² / N) / (K − 1).

    References
    ----------
    Searle, Casella & McCulloch 1992, Variance Components, section 3.6.
    """
    values = np.asarray(differences, dtype=np.float64)
    means, counts, where = _by_fold(values, folds)
    runs, number = len(values), len(counts)
    within = float(np.sum((values - means[where]) ** 2) / (runs - number)) if runs > number else math.nan
    if number < 2:
        return VarianceParts(math.nan, within)
    square = np.sum(counts * (means - values.mean()) ** 2) / (number - 1)
    size = (runs - np.sum(counts**2) / runs) / (number - 1)
    return VarianceParts(float(max(0, (square - np.nan_to_num(within)) / size)), within)


def seeds_to_decide(
    difference: float,
    parts: VarianceParts,
    n_folds: int,
    ratio: float,
    level: float,
    comparisons: int,
    margin: float,
    most: int = MOST_SEEDS,
) -> int | None:
    """Return the fewest seeds a fold with which `compare` would decide, if difference and variances stay.

    None where `within` is not known (one seed a fold), and where no number of seeds up to `most` would do.

    Notes
    -----
    With R seeds a fold the standard error is sqrt((between + within / R) (1 / K + ratio)); decided: significant
    with Bonferroni's correction for `comparisons`, or equivalent within `margin`.
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


def _by_fold(
    differences: Sequence[float] | np.ndarray, folds: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and number of runs of each fold, and which of them each run belongs to."""
    _, where, counts = np.unique(np.asarray(folds), return_inverse=True, return_counts=True)
    return np.bincount(where, weights=np.asarray(differences, dtype=np.float64)) / counts, counts, where
