"""Peak rates tuned with the same budget for every policy: which trainings that takes, and what they choose."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kit.competition.load import Competition
from kit.competition.observations import Observations
from kit.core.errors import KitError, some
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.experiment.compare_config import TuneConfig
from kit.experiment.config import ExperimentConfig
from kit.lr import PolicyConfig
from kit.lr.profiles import Uniform
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import plain_rule
from kit.scoring.f1 import score

LONGEST = 80  # characters of a policy's name


@dataclass(frozen=True)
class Trial:
    """A training that tunes: `variant` is the policy at this rate, scored on `fold`.

    Attributes
    ----------
    within : int, optional
        The fold that is compared and of which this training sees nothing; None where whole folds tune.
    """

    policy: str
    rate: float
    variant: str
    seed: int
    fold: int
    within: int | None = None

    def run(self, folder: ExperimentDir) -> RunDir:
        """Return the directory of its run, in an experiment's folder."""
        return trial_folder(folder, self.within).run(RunKey(self.variant, self.seed, self.fold))

    def settled(self, folder: ExperimentDir) -> bool:
        """Whether it was trained to its end, or to where it diverged."""
        run = self.run(folder)
        return run.finished or run.diverged


@dataclass(frozen=True)
class ChosenRate:
    """The rate that trials chose, and the policy at it; `at_end`: it is the lowest or highest that was tried."""

    rate: float
    variant: str
    at_end: bool


def trial_folder(folder: ExperimentDir, within: int | None) -> ExperimentDir:
    """Where trials lie: those on whole folds are runs like any other."""
    return folder if within is None else ExperimentDir(folder.path / "tuning" / f"fold{within}")


def compared_folds(experiment: ExperimentConfig) -> tuple[int, ...]:
    """The folds on which tuned policies are compared: those that tuned no rate."""
    tune = experiment.compare.tune
    apart = tune.folds if tune and tune.folds != "nested" else ()
    return tuple(fold for fold in experiment.folds.chosen if fold not in apart)


def baseline_of(experiment: ExperimentConfig) -> str:
    """Return the policy that the others are compared with: the one that the config names, else the first."""
    return experiment.compare.baseline or next(iter(experiment.policies))


def check_tuning(experiment: ExperimentConfig) -> None:
    """KitError where the config names folds that cannot tune, or none are left to compare."""
    tune, folds = experiment.compare.tune, experiment.folds
    if tune is None:
        return
    if tune.folds == "nested":
        if folds.k < 3:
            raise KitError("compare.tune.folds: nested needs three folds or more; raise folds.k, or name a fold")
        if folds.time:
            raise KitError(
                "compare.tune.folds: nested is not for folds in the order of time; name folds that tune"
            )
        return
    if beyond := [fold for fold in tune.folds if fold not in folds.chosen]:
        raise KitError(
            f"compare.tune.folds: fold {some(beyond)} is not among those that are trained, {some(folds.chosen)}"
        )
    if not compared_folds(experiment):
        raise KitError(
            "compare.tune.folds: all folds tune, so none is left to compare policies on; name fewer, or nested"
        )


def at_rate(name: str, config: PolicyConfig, rate: float) -> tuple[str, PolicyConfig]:
    """Name and content of the policy at another peak rate; itself where the rate is its own."""
    if math.isclose(rate, config.build().peak, rel_tol=1e-9):
        return name, config
    return f"{name}-lr{rate:.12g}".replace("+", ""), config.at_peak(rate)  # names hold no +


def equalised(name: str, config: PolicyConfig) -> tuple[str, PolicyConfig]:
    """Name and content of the policy at the mean rate of a uniform one; itself where that changes nothing."""
    if config.equalise or all(isinstance(phase.profile, Uniform) for phase in config.build().phases):
        return name, config
    return f"{name}-equalised", config.model_copy(update={"equalise": True})


def to_equalise(experiment: ExperimentConfig) -> tuple[str, ...]:
    """The policies that the config wants compared with the mean rate of a uniform one, the baseline among them."""
    wanted = experiment.compare.equalise
    if wanted is False:
        return ()
    if wanted is not True and (unknown := [name for name in wanted if name not in experiment.policies]):
        raise KitError(f"compare.equalise: {some(unknown)} is not among the policies, {some(experiment.policies)}")
    names = [name for name in experiment.policies if wanted is True or name in wanted]
    if not set(names) - {experiment.compare.baseline}:
        raise KitError("compare.equalise: name a policy other than the baseline, or set true or false")
    return tuple(name for name in experiment.policies if name in names or name == experiment.compare.baseline)


def variants(experiment: ExperimentConfig) -> dict[str, PolicyConfig]:
    """Every policy that comparing trains beside those of the config, by name."""
    made: dict[str, PolicyConfig] = {}
    tune = experiment.compare.tune
    for name, config in experiment.policies.items():
        rates = tune.rates if tune else ()
        each = [at_rate(name, config, rate) for rate in rates]
        if name in to_equalise(experiment):
            each.append(equalised(name, config))
        for variant, content in each:
            taken = experiment.policies.get(variant) or made.get(variant) or content
            if taken.canonical() != content.canonical():
                raise KitError(f"policies.{variant}: this name is needed for {name} at another rate; rename it")
            if len(variant) > LONGEST:
                raise KitError(f"policies.{name}: the name is too long for {variant}; shorten it")
            made[variant] = content
    return {name: config for name, config in made.items() if name not in experiment.policies}


def trials(experiment: ExperimentConfig) -> list[Trial]:
    """All trainings that tune: as many for each policy. With the first seed alone."""
    tune = experiment.compare.tune
    if tune is None:
        return []
    if tune.folds == "nested":
        k = experiment.folds.k
        places: list[tuple[int, int | None]] = [((fold + 1) % k, fold) for fold in experiment.folds.chosen]
    else:
        places = [(fold, None) for fold in tune.folds]
    return [
        Trial(name, rate, at_rate(name, config, rate)[0], experiment.seeds[0], fold, within)
        for name, config in experiment.policies.items()
        for fold, within in places
        for rate in tune.rates
    ]


def trial_scores(
    each: Sequence[Trial], folder: ExperimentDir, competition: Competition, config: ScoringConfig
) -> dict[Trial, float | None]:
    """Return the score of each trial by the plain rule (the most likely class, or all from .5 on).

    None stands for a trial that diverged, at this rate: one that was begun anew with lower rates, too.
    """
    observations = competition.observations
    names = observations.of if observations else competition.ids
    truth = dict(zip(names, competition.targets, strict=True))
    return {trial: _plain_score(trial.run(folder), truth, observations, config) for trial in each}


def _plain_score(
    run: RunDir, truth: Mapping[str, np.ndarray], observations: Observations | None, config: ScoringConfig
) -> float | None:
    if not run.finished or run.record.factor != 1:
        return None
    frame = run.read_oof()
    frame = observations.pooled(frame) if observations else frame
    probabilities, rows = frame.to_numpy(), np.array([truth[name] for name in frame.index])
    predicted = plain_rule(probabilities, rows.ndim == 2, config).decide(probabilities)
    return score(rows, predicted, config, probabilities)


def choose_rates(
    scores: Mapping[Trial, float | None],
    experiment: ExperimentConfig,
    tune: TuneConfig,
) -> dict[str, dict[int, ChosenRate]]:
    """Return by policy and compared fold the rate with the best mean score, of equal ones the lower.

    A rate at which a trial diverged is not chosen; a policy to which that leaves none, for any fold, is left out.
    """
    best = {
        policy: {fold: _best(policy, fold, scores, tune) for fold in compared_folds(experiment)}
        for policy in experiment.policies
    }
    found = {
        policy: {fold: chosen for fold, chosen in by_fold.items() if chosen} for policy, by_fold in best.items()
    }
    return {policy: by_fold for policy, by_fold in found.items() if len(by_fold) == len(best[policy])}


def _best(policy: str, fold: int, scores: Mapping[Trial, float | None], tune: TuneConfig) -> ChosenRate | None:
    by_rate: dict[float, list[Trial]] = {rate: [] for rate in sorted(tune.rates)}
    for trial in scores:
        if trial.policy == policy and trial.within in (None, fold):
            by_rate[trial.rate].append(trial)
    means = {
        rate: np.mean([scores[trial] for trial in each])
        for rate, each in by_rate.items()
        if all(scores[trial] is not None for trial in each)
    }
    if not means:
        return None
    rate = max(means, key=lambda rate: (means[rate], -rate))
    return ChosenRate(rate, by_rate[rate][0].variant, rate in (min(by_rate), max(by_rate)))
