"""Policies × seeds × folds: training what is not there yet, pooling, submitting."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition, load_competition
from kit.core.errors import KitError, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.curves import draw_curves
from kit.experiment.fingerprint import stored_experiment, test_digest
from kit.experiment.loaded import fold_plan
from kit.experiment.pool import PolicyResult, pool_policy
from kit.experiment.prepare import Say, run_keys
from kit.experiment.runner import Runner, set_up
from kit.experiment.train_run import predict_test_anew


@dataclass(frozen=True)
class ExperimentResult:
    """What `run` made: the folder, how many runs were trained now and were there, results by policy.

    left  runs that were not begun, as the time would not have sufficed; policies of which none is finished have
          no results
    """

    folder: Path
    trained: int
    kept: int
    policies: dict[str, PolicyResult]
    left: int = 0


def run(
    experiment: ExperimentConfig,
    output: str | Path = ".",
    replace: bool = False,
    say: Say = lambda line: None,
    *,
    folds: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | Literal["auto"] = "auto",
    seconds: float | None = None,
) -> ExperimentResult:
    """Trains every policy × seed × fold that is not there yet, pools them and writes the submissions.

    output   the folder that holds runs/, submissions/ and cache/
    replace  starts anew where the experiment of this name was made from another config or other data
    say      takes lines about what happens
    folds    a fold plan to follow (CSV with columns id and fold), instead of one made here
    cache    the folder of decoded images, instead of output/cache
    jobs     runs side by side; auto: as many as there are GPUs, one a GPU
    seconds  from now, beyond which no run is to go: none is begun that would, judged by the slowest so far; the
             first always is. What is finished is pooled, and the same call trains the others

    Raises KitError, before any training, for everything in the config or the data that cannot work.
    """
    bench = set_up(experiment, output, replace, say, folds=folds, cache=cache, jobs=jobs, seconds=seconds)
    return train_and_pool(experiment, bench)


def train_and_pool(experiment: ExperimentConfig, bench: Runner, tolerant: bool = False) -> ExperimentResult:
    """`run` on a bench that is set up, perhaps for more policies than those of `experiment`; `tolerant` as in
    `Runner.train`."""
    keys = run_keys(experiment)
    due = len(bench.due(keys, tolerant))
    left = bench.train(keys, tolerant=tolerant)
    prepared, folder = bench.prepared, bench.folder
    for policy in experiment.policies:
        predict_test_anew(policy, prepared, folder, bench.say)
    first = _first_policy(folder)
    results = {
        policy: _pool(
            policy, first, experiment, prepared.competition, prepared.plan, folder, bench.dirs, bench.main
        )
        for policy in experiment.policies
        if any(run.finished for run in folder.runs(policy))
    }
    if bench.main and (due or not folder.curves.is_file()):
        draw_curves(folder, experiment.scoring.title, tuple(stored_experiment(folder).policies))
    return ExperimentResult(folder.path, due - left, len(keys) - due, results, left)


def pool(experiment: ExperimentConfig, output: str | Path = ".") -> ExperimentResult:
    """Pools the finished runs that are there and writes the submissions, without training anything.

    Raises KitError where there is none, or where they are of another config or other data.
    """
    dirs = OutputDirs(Path(output).expanduser())
    folder = ExperimentDir(dirs.runs / experiment.name)
    competition = load_competition(experiment.competition)
    plan, reason = fold_plan(experiment, folder, competition, dirs)
    if reason:
        raise KitError(f"{folder.path} was made from {reason}, so it is not pooled with this config and data")
    finished = {policy: [run for run in folder.runs(policy) if run.finished] for policy in experiment.policies}
    seen = test_digest(competition)
    if strange := [run for runs in finished.values() for run in runs if run.read()["test"] != seen]:
        raise KitError(
            f"{len(strange)} runs predicted another test set than the one in {competition.folder}; the command "
            "`python -m kit run` predicts it anew with their weights"
        )
    if not any(finished.values()):
        raise KitError(f"{folder.path} holds no finished run of {some(experiment.policies)}")
    if not folder.config.is_file():
        raise KitError(f"{folder.config} does not exist; bring it along with the runs it belongs to")
    first = _first_policy(folder)
    results = {
        policy: _pool(policy, first, experiment, competition, plan, folder, dirs, write=True)
        for policy, runs in finished.items()
        if runs
    }
    draw_curves(folder, experiment.scoring.title, tuple(stored_experiment(folder).policies))
    return ExperimentResult(folder.path, 0, sum(map(len, finished.values())), results)


def _first_policy(folder: ExperimentDir) -> str:
    """The policy that the experiment began with."""
    return next(iter(stored_experiment(folder).policies))


def _pool(
    policy: str,
    first: str,
    experiment: ExperimentConfig,
    competition: Competition,
    plan: FoldPlan,
    folder: ExperimentDir,
    dirs: OutputDirs,
    write: bool,
) -> PolicyResult:
    """Its submission is <experiment> for the policy it began with, <experiment>+<policy> (no name holds a +) for
    later ones."""
    name = experiment.name if policy == first else f"{experiment.name}+{policy}"
    return pool_policy(policy, experiment, competition, plan, folder, dirs.submissions / f"{name}.csv", write)
