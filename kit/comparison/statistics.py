"""Whether one learning-rate policy beats another, from runs over folds × seeds. See docs/comparing.md.

One fixed partition into folds; a seed sets the initial weights, the order of the samples and the augmentation.
Every policy is trained on every fold × seed, so scores are compared in pairs: a difference is the F of a run on
its held-out rows less that of the baseline's run of the same fold and seed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from kit.comparison.bootstrap import BootstrapResult
from kit.comparison.intervals import (
    MOST_SEEDS,
    Interval,
    at_level,
    corrected_interval,
    holm,
    seeds_to_decide,
    smallest_detectable,
    variance_parts,
)
from kit.core.errors import KitError, some

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Scores = Mapping[str, Mapping[tuple[int, int], float]]


@dataclass(frozen=True)
class PairedComparison:
    """A policy against the baseline.

    Attributes
    ----------
    folds, seeds : list of int
        Of the runs that both have; `runs` is their number.
    score, baseline_score : float
        Mean F of the policy's runs, and of the baseline's.
    difference : float
        Mean over folds of the mean over seeds: positive where the policy is better.
    interval : Interval or None
        None with one fold only, and where all folds have the same difference.
    p_holm : float or None
        p adjusted for all policies compared; None where there is no interval.
    smallest_detectable : float or None
        The difference that this design would have found; None where there is no interval.
    bootstrap : BootstrapResult or None
        As it was given to `compare`.
    verdict : str
        better and worse: by `p_holm`; equivalent: surely within the margin; else undecided.
    sentence : str
        All this in words.
    seeds_to_decide : int or None
        Of an undecided comparison; None where not known, or where no number of seeds would do.
    by_run : list of dict
        Seed, fold and difference of each run.
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
    bootstrap: BootstrapResult | None
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
    bootstraps: Mapping[str, BootstrapResult] = {},
    metric: str = "F",
) -> list[PairedComparison]:
    """Compare each policy with the baseline over the runs that both have; the best difference comes first.

    Parameters
    ----------
    scores : mapping
        Policy → (seed, fold) → F on the held-out rows.
    baseline : str
        One of the policies in `scores`.
    ratio : float or mapping
        Held-out rows / training rows, of all folds or by fold; the mean over those compared counts.
    margin : float
        Of F; two policies whose difference surely lies within it are equivalent.
    level : float
        Of the intervals and of the verdicts; these hold for all policies together.
    power : float
        Chance with which `smallest_detectable` would have been found.
    bootstraps : mapping
        Policy → its out-of-fold rows against the baseline's, shown where folds do not suffice.
    metric : str
        Its name, for the sentences.

    Raises
    ------
    KitError
        Where there is nothing to compare, or scores are not finite.

    Notes
    -----
    better, worse: the p of `corrected_interval`, adjusted by `holm`, is below 1 − level. equivalent: two one-sided
    tests at (1 − level) / policies compared (Schuirmann 1987, with Bonferroni's correction): the interval of level
    1 − 2 (1 − level) / policies lies within ±margin. Without an interval: undecided.
    """
    _check(scores, baseline)
    pairs = {policy: _paired(policy, scores, baseline) for policy in sorted(set(scores) - {baseline})}
    intervals = {
        name: corrected_interval(pair.differences, pair.folds, pair.mean_of(ratio), level)
        for name, pair in pairs.items()
    }
    tested = {name: interval.p for name, interval in intervals.items() if interval is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())).tolist(), strict=True))
    design = _Design(ratio, margin, level, power, metric, len(tested))
    comparisons = [
        _comparison(pair, baseline, intervals[name], adjusted.get(name), bootstraps.get(name), design)
        for name, pair in pairs.items()
    ]
    return sorted(comparisons, key=lambda each: (-each.difference, each.policy))


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
        """The policy's score less the baseline's, of each run."""
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
    resampled: BootstrapResult | None,
    design: _Design,
) -> PairedComparison:
    differences, folds, seeds = pair.differences, pair.folds.tolist(), pair.seeds.tolist()
    mean = interval.difference if interval else float(differences.mean())
    verdict: Literal["better", "worse", "equivalent", "undecided"] = "undecided"
    needed, detectable, words = None, None, no_interval(pair, mean, resampled)
    if interval is not None and p_holm is not None:  # each interval has been tested
        level, tested = design.level, design.tested
        detectable = smallest_detectable(interval.standard_error, interval.df, level, design.power, tested)
        closer = at_level(interval, 1 - 2 * (1 - level) / tested)
        if p_holm < 1 - level:
            verdict = "better" if mean > 0 else "worse"
            words = significant(pair.policy, baseline, verdict, interval, p_holm, design)
        elif -design.margin <= closer.low and closer.high <= design.margin:
            verdict = "equivalent"
            words = equivalent(pair.policy, baseline, closer, design)
        else:
            parts = variance_parts(differences, folds)
            needed = seeds_to_decide(
                mean, parts, interval.df + 1, pair.mean_of(design.ratio), level, tested, design.margin
            )
            if needed is not None:  # with unequal numbers of seeds it may come out as what is there
                needed = max(needed, len(set(seeds)) + 1)
            words = undecided(interval, detectable, needed, not math.isnan(parts.within), design)
    return PairedComparison(
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


# Words


def significant(
    policy: str, baseline: str, verdict: str, interval: Interval, p_holm: float, design: _Design
) -> str:
    """Return the sentence of a difference that is significant."""
    p = "p < .001" if p_holm < 0.001 else f"p {_plain(p_holm)}"
    within = -design.margin <= interval.low and interval.high <= design.margin
    return (
        f"{policy} is {verdict} than {baseline} by {_plain(abs(interval.difference))} {design.metric} "
        f"({_percent(design.level)} interval {_span(interval)}, Holm {p})"
        + (f"; by less than the margin of {_plain(design.margin)}" if within else "")
    )


def equivalent(policy: str, baseline: str, closer: Interval, design: _Design) -> str:
    """Return the sentence of a difference that surely lies within the margin."""
    level = 1 - 2 * (1 - design.level) / design.tested
    return (
        f"{policy} and {baseline} are equivalent within {_plain(design.margin)} {design.metric}: "
        f"{signed(closer.difference)} ({_percent(level)} interval {_span(closer)})"
    )


def undecided(interval: Interval, detectable: float, needed: int | None, known: bool, design: _Design) -> str:
    """Return the sentence of a difference that is neither, and how many seeds may decide it."""
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
        f"undecided: {signed(interval.difference)} {design.metric} ({_percent(design.level)} interval "
        f"{_span(interval)}); {found}; {more}"
    )


def no_interval(pair: _Pair, mean: float, resampled: BootstrapResult | None) -> str:
    """Return the sentence of a difference without an interval, by the bootstrap where there is one."""
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
            f"; on {rows} and {models} the bootstrap gives {signed(resampled.difference)} "
            f"[{signed(resampled.low)}, {signed(resampled.high)}]"
        )
    return f"undecided: {signed(mean)}; {words}"


def _plain(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """With its sign, to three digits, without the 0 before the point."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("0.", ".", 1)


def _span(interval: Interval) -> str:
    return f"{signed(interval.low)} to {signed(interval.high)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _finite(value: Any) -> Any:
    """`value` with None for numbers that are not finite, however deep."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
