"""Which runs are trained, how many at a time, and until when."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

from kit.core.errors import KitError, Say, ignore
from kit.core.files import need_writable
from kit.core.paths import OutputDirs
from kit.core.progress import beside
from kit.core.runs import ExperimentDir, RunKey
from kit.core.settings import fingerprint
from kit.core.stopping import OUT_OF_TIME, Stopped
from kit.data.loading import worker_count
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.parallel import run_parallel
from kit.experiment.prepare import TrainingData, check, decode
from kit.experiment.prior import hand_in_prior
from kit.experiment.timekeeping import Budget, Plan, RunClock
from kit.experiment.train_run import train_run
from kit.training.device import process_state, resolve_precision
from kit.training.trainer import batches_of


@dataclass(frozen=True)
class Runner:
    """Executes the runs of an experiment that is ready to train.

    Attributes
    ----------
    loaded : LoadedExperiment
    data : TrainingData
    dirs : OutputDirs
    state : PartialState
        Of the processes that train together under torchrun.
    jobs : int or "auto"
        Runs side by side; auto: one on each GPU.
    budget : Budget
        How much time there is.
    say : callable
        Takes lines about what happens.
    """

    loaded: LoadedExperiment
    data: TrainingData
    dirs: OutputDirs
    state: PartialState
    jobs: int | Literal["auto"]
    budget: Budget
    say: Say

    @classmethod
    def set_up(
        cls,
        config: ExperimentConfig,
        options: RunOptions | str | Path = ".",
        say: Say = ignore,
        keys: Sequence[RunKey] | None = None,
    ) -> "Runner":
        """Check everything that can be wrong, and prepare the data; nothing is trained.

        `keys` as in `prepare`.

        Raises
        ------
        KitError
            For everything in the config, the data or the options that cannot work.
        """
        options = RunOptions.of(options)
        dirs = options.dirs
        for path in (dirs.runs, dirs.cache, dirs.submissions):
            need_writable(path)
        folder = ExperimentDir(dirs.runs / config.name)
        state = process_state(config.training)
        main = state.is_main_process
        budget = options.limit(config.budget, state.num_processes)
        if not main:
            say = ignore
        with state.main_process_first():
            replace = options.replace and main
            checked = check(config, folder, dirs, replace, say, options.fold_file, keys)
            if budget.limited:  # before what may take long
                hand_in_prior(checked.loaded, dirs, say)
            loaded, data = decode(checked, dirs, replace, say, main, lambda: budget.over)
        return cls(loaded, data, dirs, state, options.jobs, budget, say)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.state.is_main_process

    def train(
        self,
        keys: Sequence[RunKey],
        what: str = "",
        tolerant: bool = False,
        hand_in: Callable[[], object] | None = None,
    ) -> int:
        """Train those of the runs that are not finished yet.

        Parameters
        ----------
        keys : sequence of RunKey
        what : str
            What they are for, told beside their number.
        tolerant : bool
            A training that diverges is told and left at that, now and the next time.
        hand_in : callable, optional
            Hands in what is finished; called once the first run is, where there is a budget.

        Returns
        -------
        int
            How many are left for want of time.
        """
        config = self.loaded.config
        due = self.due(keys, tolerant)
        runs = f"{what} runs" if what else "runs"
        if len(due) < len(keys):
            self.say(f"{len(keys) - len(due)} of {len(keys)} {runs} are finished already")
        jobs = _jobs_at_a_time(self.jobs, config, self.state.num_processes, len(due))
        if due:
            self.say(
                self._announcement(f"1 {runs.removesuffix('s')}" if len(due) == 1 else f"{len(due)} {runs}", jobs)
            )
        self.state.wait_for_everyone()  # nobody begins to write before all have seen what is due
        plan = self._plan(due, keys, jobs)
        with beside(plan.note):
            begun = plan.begin(self.say, hand_in)
            if jobs > 1:
                data = _sharing_cores(self.data, jobs, self.state.device.type == "cuda")
                tasks = ((key, self.loaded, data, tolerant, plan) for key in begun)
                for _ in run_parallel(_train_aside, tasks, jobs):
                    pass
            else:
                for key in begun:
                    _train(key, self.loaded, self.data, self.say, tolerant, plan)
        return len(self.due(due, tolerant))

    def _plan(self, due: Sequence[RunKey], keys: Sequence[RunKey], jobs: int) -> Plan:
        """What to train of `due` in the time that is left."""
        training, seed = self.loaded.config.training, self.loaded.config.seeds[0]
        plan = Plan.of(
            self.budget,
            due,
            keys,
            self.loaded,
            lambda rows: batches_of(training, rows, seed, self.state),
            len(self.data.test),
        )
        return dataclasses.replace(plan, jobs=jobs)

    def due(self, keys: Sequence[RunKey], tolerant: bool = False) -> list[RunKey]:
        """Return those of the runs that `train` would train."""
        folder = self.loaded.folder
        return [key for key in keys if not (folder.run(key).finished or (tolerant and self._diverged(key)))]

    def within(self, fold: int, folder: ExperimentDir) -> "Runner":
        """Return a runner for trainings that see nothing of a fold, in a folder of their own."""
        folds = dataclasses.replace(self.loaded.folds, unused=fold)
        depends_on = self.loaded.depends_on | {"folds": folds.digest}
        loaded = dataclasses.replace(self.loaded, folder=folder, folds=folds, depends_on=depends_on)
        return dataclasses.replace(self, loaded=loaded)

    def _diverged(self, key: RunKey) -> bool:
        """Whether this very training was tried and diverged."""
        run = self.loaded.folder.run(key)
        return run.diverged and run.record.fingerprint == fingerprint(self.loaded.dependencies(key))

    def _announcement(self, runs: str, jobs: int) -> str:
        config = self.loaded.config
        precision = resolve_precision(config.training.precision, config.training.device == "cpu")
        if precision == "fp32" and self.state.device.type == "cuda":  # torch would round convolutions
            precision = "fp32 without TF32"
        how = f"{jobs * self.state.num_processes} × {self.state.device.type}, {precision}"
        rows = f"{len(self.data.train)} training and {len(self.data.test)} test rows"
        return f"{config.name}: {runs} of {config.model.name} on {how}; {rows}"


def _jobs_at_a_time(wanted: int | Literal["auto"], experiment: ExperimentConfig, processes: int, due: int) -> int:
    """How many runs to train at a time."""
    if processes > 1:
        if wanted not in ("auto", 1):
            raise KitError("--jobs: torchrun shares out every run already; use one of the two")
        return 1
    if wanted == "auto":
        wanted = torch.cuda.device_count() if experiment.training.device == "auto" else 1
    return max(1, min(wanted, due))


def _sharing_cores(data: TrainingData, jobs: int, on_gpu: bool) -> TrainingData:
    """For one of so many runs side by side: where the number of data workers is `auto`, its share of them."""
    recipe = data.recipe
    workers = worker_count(recipe.data.workers, on_gpu, jobs)
    config = recipe.data.model_copy(update={"workers": workers})
    return dataclasses.replace(data, recipe=dataclasses.replace(recipe, data=config))


def _train(
    key: RunKey, loaded: LoadedExperiment, data: TrainingData, say: Say, tolerant: bool, plan: Plan
) -> None:
    """`train_run` within the budget; where that ends, it is told where the run stopped."""
    try:
        train_run(key, loaded, data, say, tolerant, RunClock(plan, key, say))
    except Stopped as stopped:
        if stopped.code != OUT_OF_TIME:
            raise
        say(str(stopped))


def _train_aside(task: tuple[RunKey, LoadedExperiment, TrainingData, bool, Plan]) -> None:
    """`train_run`, in a process of its own (see `run_parallel`)."""
    key, loaded, data, tolerant, plan = task
    with beside(plan.note):
        _train(key, loaded, data, lambda line: print(line, flush=True), tolerant, plan)
