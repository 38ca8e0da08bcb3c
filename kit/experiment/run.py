"""Policies × seeds × folds: training what is not there yet, pooling, submitting."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kit.core.errors import KitError, Say, ignore, some
from kit.core.notebook import ShownAsTables
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.core.stopping import telling
from kit.experiment.budget import as_told
from kit.experiment.config import ExperimentConfig
from kit.experiment.curves import are_drawn, draw_curves
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.nothing_due import all_is_there
from kit.experiment.options import RunOptions
from kit.experiment.pool import PolicyResult, damaged_pooled, pool_policy, submission_file
from kit.experiment.prepare import run_keys
from kit.experiment.shared_folder import writing
from kit.experiment.views import asked_views, gave_up
from kit.model.imports import explain_broken_imports

if TYPE_CHECKING:  # where nothing trains, torch is not waited for
    from kit.experiment.runner import Runner


@dataclass(frozen=True)
class ExperimentResult(ShownAsTables):
    """What `run` made.

    Attributes
    ----------
    folder : Path
        runs/<experiment>.
    trained : int
        Runs that this process trained now.
    kept : int
        Runs that were finished before, or that other processes trained meanwhile.
    policies : dict of str to PolicyResult
        By name; policies of which no run is finished have none.
    left : int
        Runs that are not finished, as the time did not suffice.
    given_up : tuple of str
        What a budget of time gave up, in words: views, seeds, folds.
    """

    folder: Path
    trained: int
    kept: int
    policies: dict[str, PolicyResult]
    left: int = 0
    given_up: tuple[str, ...] = ()

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a row a policy: its pooled out-of-fold score, the mean of its runs', rule and submission."""
        each = {name: outcome.scores for name, outcome in self.policies.items()}
        rows = [
            {
                "policy": name,
                scores.metric: scores.oof,
                "mean of runs": sum(run.score for run in scores.runs) / len(scores.runs),
                "runs": len(scores.runs),
                "rows": scores.oof_rows,
                "of": scores.train_rows,
                "decided by": scores.rule["said"],
                "submission": str(self.policies[name].submission),
            }
            for name, scores in each.items()
        ]
        return {f"{self.folder.name}, out of fold": pd.DataFrame(rows)}

    def remarks(self) -> list[str]:
        """Return how many runs were trained."""
        left = f", {self.left} are left" if self.left else ""
        given_up = [f"given up for want of time: {'; '.join(self.given_up)}"] if self.given_up else []
        line = f"{self.trained} runs were trained, {self.kept} were there{left}; all else is in {self.folder}"
        return [line, *given_up]


def run(
    experiment: ExperimentConfig,
    options: RunOptions | str | Path | None = None,
    *,
    output: str | Path | None = None,
    say: Say = ignore,
) -> ExperimentResult:
    """Train every policy × seed × fold that is not there yet, pool them and write the submissions.

    Parameters
    ----------
    experiment : ExperimentConfig
    options : RunOptions or path, optional
        Where the runs go and how they are executed; a folder alone is the one that holds runs/, submissions/ and
        cache/. Left out: the current one.
    output : path, optional
        That folder, by its name.
    say : callable
        Takes lines about what happens.

    Returns
    -------
    ExperimentResult

    Raises
    ------
    KitError
        Before any training, for everything in the config or the data that cannot work.
    """
    options = RunOptions.of(options, output)
    keys = options.chosen(run_keys(experiment))
    if there := all_is_there(experiment, options, keys, say):
        with there:
            return _pooled_as_it_is(experiment, there.loaded, options.dirs, keys, say)
    explain_broken_imports()
    from kit.experiment.runner import Runner

    with Runner.set_up(experiment, options, say, keys) as runner:
        return train_and_pool(experiment, runner, keys=keys)


@telling("while runs were pooled; they are kept, and the same command pools them")
def train_and_pool(
    experiment: ExperimentConfig, runner: "Runner", tolerant: bool = False, keys: Sequence[RunKey] | None = None
) -> ExperimentResult:
    """Do what `run` does with a runner that is set up, perhaps for more policies than those of `experiment`.

    `tolerant` as in `Runner.train`; `keys` are the runs to train, all where they are left out.
    """
    from kit.experiment.predict_anew import has_time_for_views, predict_anew

    keys, budget = run_keys(experiment) if keys is None else keys, runner.budget
    loaded, folder = runner.loaded, runner.loaded.folder

    def hand_in() -> dict[str, PolicyResult]:
        with writing(folder, f"pools {experiment.name}", runner.say) if runner.main else nullcontext():
            return _pool_policies(experiment, loaded, runner.dirs, runner.main, runner.say)

    def draw() -> None:
        _draw(experiment, folder, runner.say)

    def hand_in_and_draw() -> None:
        hand_in()
        budget.draw(draw)

    trained = runner.train(keys, tolerant=tolerant, hand_in=hand_in_and_draw)
    views = has_time_for_views(experiment.policies, loaded, len(runner.data.test), budget)
    if not views:
        runner.say(
            f"the time does not suffice to predict runs anew in {asked_views(experiment)}: they stay as they were "
            "predicted, out of fold and on test rows alike; the next run does it"
        )
    for policy in experiment.policies:
        predict_anew(folder.runs(policy), loaded, runner.data, runner.say, budget=budget, views=views)
    results = hand_in()
    if runner.main and results and not are_drawn(folder, _policies_in(folder)):
        budget.draw(draw)
    lacking = runner.due(keys, tolerant) if budget.limited else []
    kept = len(keys) - trained.here - trained.left
    given_up = _given_up(experiment, folder, keys, lacking)
    return ExperimentResult(folder.path, trained.here, kept, results, trained.left, given_up)


@telling("while runs were pooled; they are kept, and the same command pools them")
def _pooled_as_it_is(
    experiment: ExperimentConfig, loaded: LoadedExperiment, dirs: OutputDirs, keys: Sequence[RunKey], say: Say
) -> ExperimentResult:
    """Do what `train_and_pool` does where all runs are finished, and predicted as the config asks for."""
    folder = loaded.folder
    say(f"{len(keys)} of {len(keys)} runs are finished already")
    with writing(folder, f"pools {experiment.name}", say):
        results = _pool_policies(experiment, loaded, dirs, write=True, say=say)
    if not are_drawn(folder, _policies_in(folder)):
        _draw(experiment, folder, say)
    return ExperimentResult(
        folder.path, 0, len(keys), results, given_up=_given_up(experiment, folder, keys, lacking=())
    )


def _draw(experiment: ExperimentConfig, folder: ExperimentDir, say: Say) -> None:
    with writing(folder, f"draws the curves of {experiment.name}", say):
        draw_curves(folder, experiment.scoring.title, _policies_in(folder))


def _given_up(
    experiment: ExperimentConfig, folder: ExperimentDir, keys: Sequence[RunKey], lacking: Sequence[RunKey]
) -> tuple[str, ...]:
    """What a budget gave up, in words: the runs that lack, and the views of those that are there."""
    asked = asked_views(experiment).form()
    without = [key for key in keys if (run := folder.run(key)).finished and gave_up(run.record, asked)]
    return tuple(as_told(lacking, keys, len(without)))


def pool(experiment: ExperimentConfig, output: str | Path = ".", say: Say = ignore) -> ExperimentResult:
    """Pool the finished runs that are there and write the submissions, without training anything.

    Parameters
    ----------
    experiment : ExperimentConfig
    output : path
        Holds runs/ and submissions/.
    say : callable
        Takes a line where another process that writes there is waited for.

    Raises
    ------
    KitError
        Where there is no finished run, or where they are of another config or other data.
    """
    dirs = OutputDirs.at(output)
    folder = ExperimentDir(dirs.runs / experiment.name)
    loaded = LoadedExperiment.open(experiment, folder, dirs)
    finished = [run for policy in experiment.policies for run in folder.finished(policy)]
    seen = loaded.test_digest
    if strange := [run for run in finished if run.record.test != seen]:
        raise KitError(
            f"{len(strange)} runs predicted another test set than the one in {loaded.competition.folder}; the "
            "command `python -m kit run` predicts it anew with their weights"
        )
    if not finished:
        raise KitError(f"{folder.path} holds no finished run of {some(experiment.policies)}")
    if not folder.config.is_file():
        raise KitError(f"{folder.config} does not exist; bring it along with the runs it belongs to")
    with writing(folder, f"pools {experiment.name}", say):
        results = _pool_policies(experiment, loaded, dirs, write=True)
        draw_curves(folder, experiment.scoring.title, _policies_in(folder))
    return ExperimentResult(folder.path, 0, len(finished), results)


def _policies_in(folder: ExperimentDir) -> Sequence[str]:
    """The policies of the experiment in the folder, beginning with the one that it began with."""
    stored = stored_experiment(folder)
    return tuple(stored.policies) if stored else ()


def _pool_policies(
    experiment: ExperimentConfig, loaded: LoadedExperiment, dirs: OutputDirs, write: bool, say: Say = ignore
) -> dict[str, PolicyResult]:
    """Each policy with finished runs, pooled; without those that have not predicted the test set that is there."""
    results = {}
    for policy in experiment.policies:
        if runs := [run for run in loaded.folder.finished(policy) if run.record.test == loaded.test_digest]:
            file = submission_file(loaded, policy, dirs)
            for path in damaged_pooled(policy, loaded.folder):
                say(f"{path} is damaged; it is written anew")
            results[policy] = pool_policy(policy, runs, experiment.scoring, loaded, file, write)
    return results
