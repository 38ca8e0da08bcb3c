"""Whether one learning-rate policy beats another, from runs over folds × seeds. See docs/comparing.md.

One fixed partition into folds; a seed sets the initial weights, the order of the samples and the augmentation. Every
policy is trained on every fold × seed, so scores are compared in pairs: a difference is the F of a run on its
held-out rows less that of the baseline's run of the same fold and seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    interval             None with one fold only
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
    ratio: float,
    *,
    margin: float = 0.01,
    level: float = 0.95,
    power: float = 0.8,
    bootstraps: Mapping[str, Resampled] = {},
    metric: str = "F",
) -> list[Comparison]:
    """Each policy against the baseline over the runs that both have, the best difference first.

    scores      policy → (seed, fold) → F on the held-out rows
    ratio       held-out rows / training rows, mean over folds
    margin      of F; two policies whose difference surely lies within it are equivalent
    level       of the intervals and of the verdicts; these hold for all policies together
    power       chance with which `smallest_detectable` would have been found
    bootstraps  policy → its out-of-fold rows against the baseline's, shown where folds do not suffice
    metric      its name, for the sentences

    better, worse: the p of `corrected_interval`, adjusted by `holm`, is below 1 − level. equivalent: two one-sided
    tests at (1 − level) / policies compared (Schuirmann 1987, with Bonferroni's correction): the interval of level
    1 − 2 (1 − level) / policies lies within ±margin. One fold: always undecided.
    `KitError` where there is nothing to compare, or scores are not finite.
    """
    _check(scores, baseline)
    pairs = {policy: _paired(policy, scores, baseline) for policy in sorted(set(scores) - {baseline})}
    intervals = {policy: corrected_interval(pair.differences, pair.folds, ratio, level) for policy, pair in pairs.items()}
    tested = [policy for policy, interval in intervals.items() if interval is not None]
    adjusted = dict(zip(tested, map(float, holm([intervals[policy].p for policy in tested])), strict=True))
    comparisons = []
    for policy, pair in pairs.items():
        interval, p_holm = intervals[policy], adjusted.get(policy)
        parts = variance_parts(pair.differences, pair.folds)
        found, equivalence, detectable, needed = "undecided", None, None, None
        if interval is not None:
            both = 1 - 2 * (1 - level) / len(tested)
            equivalence = corrected_interval(pair.differences, pair.folds, ratio, both)
            detectable = smallest_detectable(interval.standard_error, interval.df, level, power, len(tested))
            if p_holm < 1 - level:
                found = "better" if interval.difference > 0 else "worse"
            elif -margin <= equivalence.low and equivalence.high <= margin:
                found = "equivalent"
            else:
                needed = _more_seeds(pair, interval, parts, ratio, level, len(tested), margin)
        difference = float(np.mean(_by_fold(pair.differences, pair.folds)[0]))
        told = _Told(
            policy, baseline, metric, difference, interval, p_holm, found, pair, parts, needed, detectable,
            bootstraps.get(policy), level, margin, power, equivalence, len(tested),
        )  # fmt: skip
        comparisons.append(
            Comparison(
                policy=policy,
                baseline=baseline,
                folds=sorted(set(pair.folds.tolist())),
                seeds=sorted(set(pair.seeds.tolist())),
                runs=len(pair.differences),
                score=float(np.mean(pair.first)),
                baseline_score=float(np.mean(pair.second)),
                difference=difference,
                interval=interval,
                p_holm=p_holm,
                smallest_detectable=detectable,
                bootstrap=bootstraps.get(policy),
                verdict=found,
                sentence=_sentence(told),
                seeds_to_decide=needed,
                by_run=pair.by_run(),
            )
        )
    return sorted(comparisons, key=lambda each: (-each.difference, each.policy))
