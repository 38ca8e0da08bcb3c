"""The range test of an experiment, all depth groups together or each in turn: `python -m kit find-lr`."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kit.core.errors import KitError, Say, ignore
from kit.core.files import write_text
from kit.core.notebook import ShownAsTables
from kit.core.progress import Progress
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.core.stopping import telling
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.prepare import TrainingData, prepare, run_keys
from kit.experiment.preview import preview_of
from kit.experiment.train_run import trainer_of
from kit.lr import Clock, Policy, PolicyGroup
from kit.lr.plots import draw_range_test
from kit.training.batches import batches_of
from kit.training.device import make_accelerator, process_state
from kit.training.memory import TRAIN_WITH_LESS, advising_on_memory
from kit.training.range_test import RangeTestResult, Sweep, range_test


@dataclass(frozen=True)
class RangeSearch:
    """What find-lr was asked: rates from `first` to `last` in `steps` updates (fastai's defaults)."""

    first: float = 1e-7
    last: float = 10.0
    steps: int = 100
    by_depth: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.first < self.last < math.inf:
            raise KitError(f"find-lr: --start {self.first:g} has to be above 0 and below --end {self.last:g}")
        if self.steps < 30:
            raise KitError(f"find-lr: --steps {self.steps}: at least 30 are needed to see a shape")


@dataclass(frozen=True)
class ReferenceRates:
    """A policy as it is where most is learned (the largest mean rate over parameters), its schedule taken out.

    Attributes
    ----------
    shape : ndarray
        float64 [groups], the rates there by the policy's `lr`.
    frozen : ndarray
        bool [groups].
    """

    shape: np.ndarray
    frozen: np.ndarray


@dataclass(frozen=True)
class FindLrResult(ShownAsTables):
    """A range test for each curve: `all` depth groups together, or one a depth group.

    Attributes
    ----------
    policy : str
        Whose profile it was.
    peak : float
        Its `lr`.
    groups : list of PolicyGroup
    base : ndarray
        float64 [groups], the rates of the depth groups under it.
    tests : dict of str to RangeTestResult
        By the name of the curve.
    """

    policy: str
    peak: float
    groups: list[PolicyGroup]
    base: np.ndarray
    tests: dict[str, RangeTestResult]

    @property
    def suggestions(self) -> dict[str, dict[str, float]]:
        """Curve → suggestion (valley, slide, minimum, steep) → rate."""
        return {name: test.suggestions() for name, test in self.tests.items()}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a row a curve: what it suggests, and whether the loss diverged and fell."""
        rows = [
            {"curve": name, **chosen, "diverged": self.tests[name].diverged, "fell": self.tests[name].fell}
            for name, chosen in self.suggestions.items()
        ]
        return {f"{self.policy}: peak rates by a range test": pd.DataFrame(rows)}

    def suggested_profile(self) -> tuple[float, dict[str, float]]:
        """Return, for `by_depth`, the largest rate, and each depth group's multiplier of it, 0 for those that are
        frozen.

        Of the four suggestions it takes `minimum`, a tenth of the rate from which on this depth group does harm:
        the others look for where the loss falls, and here it falls because all the other groups learn. A depth
        group that no rate harmed gets at most the highest of those that were.
        """
        rates = {name: test.suggestions()["minimum"] for name, test in self.tests.items()}
        known = [rates[name] for name, test in self.tests.items() if test.bounded]
        rates = {name: min(rate, max(known)) if known else rate for name, rate in rates.items()}
        top = max(rates.values())
        return top, {group.label: rates.get(group.label, 0.0) / top for group in self.groups}


@telling("while rates were tried; nothing is kept of that, the same command begins again")
def find_lr(
    experiment: ExperimentConfig,
    search: RangeSearch = RangeSearch(),
    options: RunOptions | str | Path = ".",
    say: Say = ignore,
) -> FindLrResult:
    """Run the range test on the first policy, seed and fold of an experiment.

    Nothing is kept of it but the pixel cache; each curve starts from the seed's initial weights and sees the same
    batches. Processes that torchrun started share each of the updates.

    Parameters
    ----------
    experiment : ExperimentConfig
    search : RangeSearch
    options : RunOptions or path
        On which cluster curves are measured, if on one; a folder alone is the one that holds cache/.
    say : callable
        Takes lines about what happens.

    Raises
    ------
    KitError
        For what `run` would refuse.
    """
    experiment.need_rates()
    options = RunOptions.of(options)
    state = process_state(experiment.training)
    main = state.is_main_process
    options.need_cluster(state.num_processes)
    if not main:
        say = ignore
    name, *others = experiment.policies
    if others:
        say(f"find-lr looks at one policy: {name} (choose with --policy)")
        experiment = experiment.model_copy(update={"policies": {name: experiment.policies[name]}})
    policy = _policy(experiment, name, search, say)
    with tempfile.TemporaryDirectory() as scratch:
        folder, dirs = ExperimentDir(Path(scratch) / "runs"), options.dirs
        with state.main_process_first():
            loaded, data = prepare(experiment, folder, dirs, say=say, shown=main, keys=())
        key = run_keys(experiment)[0]
        rows = len(loaded.training_rows(key.fold))
        groups, reference = _reference(loaded, key, policy, rows)
        alone = batches_of(experiment.training, rows, key.seed, state).steps_per_epoch
        per_epoch = max(1, alone // options.devices)
        training = experiment.training.model_copy(update={"epochs": math.ceil(search.steps / per_epoch)})
        data = replace(data, recipe=replace(data.recipe, training=training))
        sweeps = _sweeps(search, groups, reference, policy)
        if options.on is not None:
            tests = _on_cluster(sweeps, key, loaded, data, options, say)
        else:
            tests = {
                title: swept(title, sweep, key, loaded, data, Path(scratch), main)
                for title, sweep in sweeps.items()
            }
    return FindLrResult(name, policy.peak, groups, reference.shape * policy.peak, tests)


def _policy(experiment: ExperimentConfig, name: str, search: RangeSearch, say: Say) -> Policy:
    """The policy that is looked at; KitError where it has no one profile to look at by depth."""
    policy = experiment.policies[name].build()
    if search.by_depth and len(policy.phases) > 1:
        raise KitError(
            f"find-lr: --by-depth needs a policy of one phase, {name} has {len(policy.phases)}; take a plain one, "
            "like --policy uniform"
        )
    if policy.controller:
        say(f"The controller {policy.controller.name} is left out: the static rates are tested")
    return policy


def _on_cluster(
    sweeps: Mapping[str, Sweep],
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    options: RunOptions,
    say: Say,
) -> dict[str, RangeTestResult]:
    """The curves, in the order of `sweeps`; all on one kind of device, as they are read side by side."""
    from kit.experiment.cluster.runs import ClusterRuns
    from kit.experiment.cluster.sweep_there import Curve, sweep_there

    epochs = data.recipe.training.epochs
    with ClusterRuns(loaded.config, options, say) as cluster:
        cluster.prepare(loaded, data, loaded.folder.path.parent)
        workers = cluster.workers(loaded.config)
        curves = [Curve(title, sweep, key, epochs, workers) for title, sweep in sweeps.items()]
        made = dict(cluster.results(sweep_there, curves, str, lambda curve: key, len(curves)))
    return {title: made[title] for title in sweeps}


def swept(
    title: str,
    sweep: Sweep,
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    scratch: Path,
    shown: bool = True,
) -> RangeTestResult:
    """Return the range test of one curve; nothing is kept of what it writes below `scratch`.

    Raises
    ------
    KitError
        Where the training fails, or ends too early to suggest a rate; the message begins with the curve.
    """
    training, run = data.recipe.training, RunDir(scratch / "run")
    progress = Progress(f"find-lr {title}", sweep.count, shown=shown)
    try:
        with advising_on_memory(TRAIN_WITH_LESS), progress:
            trainer = trainer_of(key, loaded, data, run, make_accelerator(training), sweep)
            test = range_test(trainer, sweep, progress.update)
        test.suggestions()
    except KitError as error:
        raise KitError(f"find-lr {title}: {error}") from error
    return test


def _reference(
    loaded: LoadedExperiment, key: RunKey, policy: Policy, rows: int
) -> tuple[list[PolicyGroup], ReferenceRates]:
    seen = preview_of(loaded.config, key.policy, len(loaded.competition.classes), rows)
    matrix, groups = seen.matrix, seen.groups
    learning = np.where(matrix.frozen, 0.0, matrix.lr) @ [group.n_params for group in groups]
    step = int(learning.argmax())
    fraction = policy.fraction(Clock(step, len(matrix.lr), seen.steps_per_epoch))
    return groups, ReferenceRates(matrix.lr[step] / (fraction * policy.peak), matrix.frozen[step])


def _sweeps(
    search: RangeSearch, groups: Sequence[PolicyGroup], reference: ReferenceRates, policy: Policy
) -> dict[str, Sweep]:
    """By the name of the curve: `all`, or the group whose rate moves while the others keep their base rate."""
    sweep = partial(
        Sweep,
        search.first,
        search.last,
        search.steps,
        frozen=reference.frozen,
        train_norm=policy.train_norm,
    )
    if not search.by_depth:
        return {"all": sweep(reference.shape, np.zeros(len(groups)))}
    learning = [group for group in groups if not reference.frozen[group.index]]
    return {
        group.label: sweep(
            np.array([float(other is group) for other in groups]),
            np.where([other is group for other in groups], 0.0, reference.shape * policy.peak),
        )
        for group in learning
    }


def write_table(found: FindLrResult, path: str | Path) -> None:
    """A CSV with a row an update: the curve, the swept rate, the loss and the smoothed loss."""
    frame = pd.concat(
        pd.DataFrame({"curve": name, "lr": test.rates, "loss": test.losses, "smoothed": test.smoothed})
        for name, test in found.tests.items()
    )
    write_text(Path(path), frame.to_csv(index=False, lineterminator="\n"))


def draw(found: FindLrResult, path: str | Path) -> None:
    """The smoothed loss over the rate, with the suggestions."""
    curves = {name: (test.rates, test.smoothed) for name, test in found.tests.items()}
    marks: Mapping[str, Mapping[str, float]] = found.suggestions
    if "all" not in found.tests:
        marks = {name: {"minimum": chosen["minimum"]} for name, chosen in marks.items()}
    title = f"{found.policy}: " + (
        "all depth groups together" if "all" in found.tests else "a depth group at a time"
    )
    draw_range_test(curves, marks, title, Path(path))
