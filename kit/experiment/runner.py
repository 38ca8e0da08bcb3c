"""An experiment that is set up, and its runs trained: one by one, or several at a time."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState

from kit.core.claims import Claim
from kit.core.collector import passing_over_what_is_there
from kit.core.devices import kind_in_words
from kit.core.errors import Say, ignore
from kit.core.files import need_writable
from kit.core.paths import OutputDirs
from kit.core.progress import beside
from kit.core.runs import ExperimentDir, RunKey, RunRecord
from kit.core.settings import fingerprint
from kit.core.stopping import OUT_OF_TIME, Stopped, need_go_on, telling
from kit.experiment.budget_plan import Plan
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.head_run import forget, train_head
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.mps import sharing_gpus
from kit.experiment.options import RunOptions
from kit.experiment.parallel import run_parallel
from kit.experiment.prepare import TrainingData, check, decode
from kit.experiment.prior import hand_in_prior
from kit.experiment.run_clock import RunClock
from kit.experiment.settle import settle
from kit.experiment.shared_folder import claim_training, tidy
from kit.experiment.side_by_side import Sharing, SideBySide, sharing_workers
from kit.experiment.soup.average import make_soup
from kit.experiment.timekeeping import Budget
from kit.experiment.train_run import counted, nothing, train_run, trained_on
from kit.experiment.turns import Turns
from kit.training.batches import Together, batches_of
from kit.training.device import agreed, computing_with, make_accelerator, process_state, resolve_precision

if TYPE_CHECKING:
    from kit.experiment.cluster.runs import ClusterRuns


@dataclass(frozen=True)
class Trained:
    """What became of runs that were due.

    Attributes
    ----------
    here : int
        How many this process trained.
    left : int
        How many are left for want of time.
    """

    here: int
    left: int


@dataclass(frozen=True)
class Runner:
    """Executes the runs of an experiment that is ready to train, beside other processes that may do the same.

    As a context manager it tells others, at the end, that this process no longer works in the folder.

    Attributes
    ----------
    loaded : LoadedExperiment
    data : TrainingData
    dirs : OutputDirs
    state : PartialState
        Of the processes that train together under torchrun.
    sharing : SideBySide
        How many runs train side by side, and with how many threads.
    budget : Budget
        How much time there is.
    say : callable
        Takes lines about what happens.
    member : Claim or None
        Says to others that this process works in the folder; of the process that writes.
    cluster : ClusterRuns or None
        Carries out the runs, in place of this machine.
    """

    loaded: LoadedExperiment
    data: TrainingData
    dirs: OutputDirs
    state: PartialState
    sharing: SideBySide
    budget: Budget
    say: Say
    member: Claim | None = None
    cluster: "ClusterRuns | None" = None

    @classmethod
    def set_up(
        cls,
        config: ExperimentConfig,
        options: RunOptions | str | Path = ".",
        say: Say = ignore,
        keys: Sequence[RunKey] | None = None,
    ) -> "Runner":
        """Check everything that can be wrong, prepare the data, write config and fold plan; nothing is trained.

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
        options.need_cluster(state.num_processes)
        options.need_able(config, state.num_processes)
        if not main:
            say = ignore
        if main:
            tidy(folder, dirs, say)
        replace, plan, member = options.replace and main, options.fold_file, None
        with state.main_process_first():
            while True:
                checked = check(config, folder, dirs, replace, say, plan, keys)
                if budget.limited and main:  # before what may take long
                    hand_in_prior(checked.loaded, dirs, say)
                loaded, data = decode(checked, dirs, replace, say, main, lambda: budget.over)
                if not main or (member := settle(loaded, data.train, dirs, replace, plan, say)):
                    break
        loaded = dataclasses.replace(loaded, differs=None)
        cluster = None
        if options.on is not None:
            from kit.experiment.cluster.runs import ClusterRuns

            try:
                cluster = ClusterRuns(config, options, say)
            except BaseException:
                if member:
                    member.release()
                raise
        sharing = SideBySide(options.jobs, options.threads)
        return cls(loaded, data, dirs, state, sharing, budget, say, member, cluster)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        forget()
        try:
            if self.cluster:
                self.cluster.close()
        finally:
            if self.member:
                self.member.release()

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
    ) -> Trained:
        """Train those of the runs that are not finished yet, and wait for those that other processes train.

        Parameters
        ----------
        keys : sequence of RunKey
        what : str
            What they are for, told beside their number.
        tolerant : bool
            A training that diverges is told and left at that, now and the next time.
        hand_in : callable, optional
            Hands in what is finished; called once the first run is, where there is a budget.
        """
        with passing_over_what_is_there():
            return self._train(keys, what, tolerant, hand_in)

    def _train(
        self, keys: Sequence[RunKey], what: str, tolerant: bool, hand_in: Callable[[], object] | None
    ) -> Trained:
        due = self.due(keys, tolerant)
        runs = f"{what} runs" if what else "runs"
        if len(due) < len(keys):
            self.say(f"{len(keys) - len(due)} of {len(keys)} {runs} are finished already")
        shared = self._shared(due)
        plan = self._plan(due, keys, shared.jobs)
        turns = Turns(due, self.loaded.folder, self._settled(tolerant), plan, self.say, hand_in)
        if due:
            many = f"1 {runs.removesuffix('s')}" if len(due) == 1 else f"{len(due)} {runs}"
            self.say(self._announcement(many, shared))
            self._tell_of_extra(due)
            if self.main:
                turns.tell()
            self._tell_of_others(keys)
        here = 0
        train: Callable[[Turns, bool], int] = self._one_by_one
        if self.cluster:
            train = partial(self.cluster.train, self.loaded, len(due))
        elif shared.jobs > 1:
            train = partial(self._side_by_side, shared=shared)
        with beside(plan.note), computing_with(shared.threads):
            while due:
                here += train(turns, tolerant)
                if not agreed(self.main and self._waited(turns)):
                    break
        if self.state.num_processes == 1:
            need_go_on("when these runs were trained; the same command goes on from there")
        return Trained(here, len(self.due(due, tolerant)))

    def _shared(self, due: Sequence[RunKey]) -> Sharing:
        """How many runs go side by side, with how many threads each."""
        config = self.loaded.config
        if config.features or config.soup:  # each takes all cores; heads wait for the same features
            return Sharing(1, self.sharing.threads)
        if not self.cluster:
            return self.sharing.share(due, self.loaded, self.data, self.state, self.say)
        if due:
            self.cluster.prepare(self.loaded, self.data)
        return Sharing(max(1, min(self.cluster.room, len(due))), None)

    @property
    def _together(self) -> Together:
        """The processes that train each run."""
        return self.cluster.together if self.cluster else self.state

    def kinds(self) -> set[str]:
        """Return the kinds of device, in words, that runs are trained on from now on."""
        if self.cluster:
            self.cluster.prepare(self.loaded, self.data)
            return self.cluster.kinds
        config = self.loaded.config
        told = trained_on(config, make_accelerator(config.training))
        return {kind_in_words(RunRecord(policy="", seed=0, fold=0, **told))}

    def _tell_of_others(self, keys: Sequence[RunKey]) -> None:
        """Say where runs that are there were trained by another number of processes, which took other batches."""
        now = self._together.num_processes
        runs = [self.loaded.folder.run(key) for key in keys]
        then = Counter(run.record.processes for run in runs if run.finished)
        for processes, count in then.items():
            if processes != now:
                training = self.loaded.config.training
                batch = training.batch_size * training.accumulate
                self.say(
                    f"{count} of the runs that are there were trained on {processes} devices together, these are "
                    f"on {now}: one took {processes * batch} images an update, the other takes {now * batch}"
                )

    def _waited(self, turns: Turns) -> bool:
        """Wait for the runs that other processes train, as `Turns.wait` does."""
        with telling("while it waited for other processes; the same command waits on"):
            return turns.wait()

    def _one_by_one(self, turns: Turns, tolerant: bool) -> int:
        """Train in this process what nobody else trains; how many."""
        trained = 0
        while True:
            taken = turns.take() if self.main else None
            key = agreed(taken[0] if taken else None)
            if key is None:
                return trained
            with taken[1] if taken else nullcontext():
                if self.state.num_processes == 1:  # several agree on it in the run
                    need_go_on(f"before {key}; the same command begins it")
                need = taken[1].need if taken else nothing
                clock = RunClock(turns.plan, key, self.say)
                trained += train_within(key, self.loaded, self.data, self.say, tolerant, clock, need)

    def _side_by_side(self, turns: Turns, tolerant: bool, shared: Sharing) -> int:
        """Train in processes of their own what nobody else trains; how many."""
        jobs, threads, on_gpu = shared.jobs, shared.threads, self.state.device.type == "cuda"
        data, trained = sharing_workers(self.data, jobs, on_gpu), 0
        tasks = ((key, self.loaded, data, tolerant, turns.plan) for key in turns)
        together = on_gpu and jobs > torch.cuda.device_count()
        with sharing_gpus(self.say) if together else nullcontext():
            for key, done in run_parallel(_train_aside, tasks, jobs, name=itemgetter(0), threads=threads):
                trained += bool(done)
                if done is None:
                    turns.give_back(key)
        return trained

    def _plan(self, due: Sequence[RunKey], keys: Sequence[RunKey], jobs: int) -> Plan:
        """What to train of `due` in the time that is left."""
        training, seed = self.loaded.config.training, self.loaded.config.seeds[0]
        plan = Plan.of(
            self.budget,
            due,
            keys,
            self.loaded,
            lambda rows: batches_of(training, rows, seed, self._together),
            len(self.data.test),
        )
        return dataclasses.replace(plan, jobs=jobs)

    def due(self, keys: Sequence[RunKey], tolerant: bool = False) -> list[RunKey]:
        """Return those of the runs that `train` would train: the same in processes that train together."""
        settled = self._settled(tolerant)
        return agreed([key for key in keys if not settled(key)])

    def _settled(self, tolerant: bool) -> Callable[[RunKey], bool]:
        return partial(is_settled, self.loaded, tolerant)

    def within(self, fold: int, folder: ExperimentDir) -> "Runner":
        """Return a runner for trainings that see nothing of a fold, in a folder of their own."""
        folds = dataclasses.replace(self.loaded.folds, unused=fold)
        depends_on = self.loaded.depends_on | {"folds": folds.digest}
        loaded = dataclasses.replace(self.loaded, folder=folder, folds=folds, depends_on=depends_on)
        return dataclasses.replace(self, loaded=loaded)

    def _tell_of_extra(self, due: Sequence[RunKey]) -> None:
        """Say which extra rows are left out where a fold is unused: more than the experiment told."""
        loaded, unused = self.loaded, self.loaded.folds.unused
        if loaded.extra and unused is not None:
            for line in loaded.extra.told(loaded.folds, sorted({key.fold for key in due})):
                self.say(f"without fold {unused}: {line}")

    def _announcement(self, runs: str, shared: Sharing) -> str:
        config = self.loaded.config
        extra = f", {len(self.loaded.competition.extra)} extra" if self.loaded.competition.extra else ""
        rows = f"{len(self.data.train)} training{extra} and {len(self.data.test)} test rows"
        if self.cluster:
            return f"{config.name}: {runs} of {config.model.name} on the cluster; {rows}"
        precision = resolve_precision(config.training.precision, config.training.device == "cpu")
        if precision == "fp32" and self.state.device.type == "cuda":  # torch would round convolutions
            precision = "fp32 without TF32"
        how = f"{shared.jobs * self.state.num_processes} × {self.state.device.type}, {precision}"
        if self.state.device.type == "cpu" and shared.threads is not None:
            how += f", {counted(shared.threads)} each"
        what = "heads over features of " if config.features else "means of the weights of " if config.soup else ""
        return f"{config.name}: {runs} of {what}{config.model.name} on {how}; {rows}"


def is_settled(loaded: LoadedExperiment, tolerant: bool, key: RunKey) -> bool:
    """Whether a run is finished; with `tolerant`, also where this very training was tried and diverged."""
    run = loaded.folder.run(key)
    if run.finished:
        return True
    return tolerant and run.diverged and run.record.fingerprint == fingerprint(loaded.dependencies(key))


def train_within(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    tolerant: bool,
    clock: RunClock,
    need: Callable[[], None],
) -> bool:
    """`train_run` within the budget; where that ends, it is told where the run stopped, and it is False."""
    try:
        if loaded.config.features:
            train_head(key, loaded, data, say, clock, need)
        elif loaded.config.soup:
            make_soup(key, loaded, data, say, clock, need)
        else:
            train_run(key, loaded, data, say, tolerant, clock, need)
    except Stopped as stopped:
        if stopped.code != OUT_OF_TIME:
            raise
        say(str(stopped))
        return False
    return True


def _train_aside(task: tuple[RunKey, LoadedExperiment, TrainingData, bool, Plan]) -> tuple[RunKey, bool | None]:
    """`train_within`, in a process of its own (see `run_parallel`); None where another process was faster."""
    key, loaded, data, tolerant, plan = task
    settled, run = partial(is_settled, loaded, tolerant), loaded.folder.run(key)
    if (mine := claim_training(run, key, settled, _print, surely=True)) is None:
        return key, None
    with mine, beside(plan.note):
        return key, train_within(key, loaded, data, _print, tolerant, RunClock(plan, key, _print), mine.need)


def _print(line: str) -> None:
    print(line, flush=True)
