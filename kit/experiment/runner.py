"""Runs executed: set up from the command's options, trained one after the other or side by side, written down."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import PartialState

from kit.core.errors import KitError
from kit.core.files import need_writable
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.core.settings import fingerprint
from kit.data.loading import worker_count
from kit.experiment.config import ExperimentConfig
from kit.experiment.parallel import side_by_side
from kit.experiment.prepare import Prepared, Say, prepare
from kit.experiment.train_run import _execute
from kit.training.device import process_state, resolve_precision

MARGIN = 1.3  # a run may take this much longer than the slowest before it


@dataclass(frozen=True)
class Runner:
    """An experiment that is ready to train.

    jobs      runs side by side; auto: one on each GPU
    deadline  of time.monotonic, beyond which no run is to go
    """

    prepared: Prepared
    folder: ExperimentDir
    dirs: OutputDirs
    state: PartialState
    jobs: int | Literal["auto"]
    deadline: float
    say: Say

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.state.is_main_process

    def train(self, keys: Sequence[RunKey], what: str = "", tolerant: bool = False) -> int:
        """Trains those of the runs that are not finished yet; returns how many are left for want of time.

        what      they are for, told beside their number
        tolerant  a training that diverges is told and left at that, now and the next time
        """
        experiment, folder = self.prepared.experiment, self.folder
        due = self.due(keys, tolerant)
        runs = f"{what} runs" if what else "runs"
        if len(due) < len(keys):
            self.say(f"{len(keys) - len(due)} of {len(keys)} {runs} are finished already")
        jobs = _side_by_side(self.jobs, experiment, self.state.num_processes, len(due))
        if due:
            self.say(
                self._announcement(f"1 {runs.removesuffix('s')}" if len(due) == 1 else f"{len(due)} {runs}", jobs)
            )
        self.state.wait_for_everyone()  # nobody begins to write before all have seen what is due
        begun = _in_time(due, folder, self.deadline)
        if jobs > 1:
            sharing = _sharing_cores(self.prepared, jobs, self.state.device.type == "cuda")
            tasks = ((key, sharing, folder.run(key), tolerant) for key in begun)
            for _ in side_by_side(_execute_aside, tasks, jobs):
                pass
        else:
            for key in begun:
                _execute(key, self.prepared, folder.run(key), self.say, tolerant)
        return len(self.due(due, tolerant))

    def due(self, keys: Sequence[RunKey], tolerant: bool = False) -> list[RunKey]:
        """Those of the runs that `train` would train."""
        return [key for key in keys if not (self.folder.run(key).finished or (tolerant and self._diverged(key)))]

    def within(self, fold: int, folder: ExperimentDir) -> "Runner":
        """For trainings that see nothing of a fold, in a folder of their own."""
        plan = dataclasses.replace(self.prepared.plan, unused=fold)
        depends_on = self.prepared.depends_on | {"folds": plan.digest}
        return dataclasses.replace(
            self, prepared=dataclasses.replace(self.prepared, plan=plan, depends_on=depends_on), folder=folder
        )

    def _diverged(self, key: RunKey) -> bool:
        """Whether this very training was tried and diverged."""
        run = self.folder.run(key)
        return run.diverged and run.read()["fingerprint"] == fingerprint(self.prepared.dependencies(key))

    def _announcement(self, runs: str, jobs: int) -> str:
        experiment, prepared = self.prepared.experiment, self.prepared
        precision = resolve_precision(experiment.training.precision, experiment.training.device == "cpu")
        how = f"{jobs * self.state.num_processes} × {self.state.device.type}, {precision}"
        rows = f"{len(prepared.train)} training and {len(prepared.test)} test rows"
        return f"{experiment.name}: {runs} of {experiment.model.name} on {how}; {rows}"


def set_up(
    experiment: ExperimentConfig,
    output: str | Path = ".",
    replace: bool = False,
    say: Say = lambda line: None,
    *,
    folds: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | Literal["auto"] = "auto",
    seconds: float | None = None,
) -> Runner:
    """Checks everything that can be wrong, and prepares the data. Arguments: see `kit.experiment.run.run`."""
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    dirs = OutputDirs(Path(output).expanduser(), Path(cache).expanduser() if cache else None)
    for path in (dirs.runs, dirs.cache, dirs.submissions):
        need_writable(path)
    folder = ExperimentDir(dirs.runs / experiment.name)
    state = process_state(experiment.training)
    main = state.is_main_process
    if seconds is not None and state.num_processes > 1:
        raise KitError("--seconds: each of torchrun's processes would go by its own clock; use one of the two")
    if not main:
        say = lambda line: None  # noqa: E731
    with state.main_process_first():
        plan = Path(folds).expanduser() if folds else None
        prepared = prepare(experiment, folder, dirs, replace and main, say, shown=main, folds=plan)
    return Runner(prepared, folder, dirs, state, jobs, deadline, say)


def _side_by_side(wanted: int | str, experiment: ExperimentConfig, processes: int, due: int) -> int:
    """How many runs to train at a time."""
    if processes > 1:
        if wanted not in ("auto", 1):
            raise KitError("--jobs: torchrun shares out every run already; use one of the two")
        return 1
    if wanted == "auto":
        wanted = torch.cuda.device_count() if experiment.training.device == "auto" else 1
    return max(1, min(wanted, due))


def _in_time(due: Sequence[RunKey], folder: ExperimentDir, deadline: float) -> Iterator[RunKey]:
    """The runs, as one after the other is asked for, until a further one would go beyond the deadline
    (of time.monotonic); the first in any case."""
    begun: dict[RunKey, float] = {}  # of those that may be under way
    slowest = 0.0
    for key in due:
        now = time.monotonic()
        # One that is under way takes at least as long as it has taken already.
        slowest = max([slowest, *(now - then for then in begun.values())])
        if key != due[0] and now + MARGIN * slowest > deadline:
            return
        begun = {other: then for other, then in begun.items() if not folder.run(other).finished} | {key: now}
        yield key


def _sharing_cores(prepared: Prepared, jobs: int, on_gpu: bool) -> Prepared:
    """For one of so many runs side by side: where the number of data workers is `auto`, its share of them."""
    workers = worker_count(prepared.recipe.data.workers, on_gpu, jobs)
    data = prepared.recipe.data.model_copy(update={"workers": workers})
    return dataclasses.replace(prepared, recipe=dataclasses.replace(prepared.recipe, data=data))


def _execute_aside(task: tuple[RunKey, Prepared, RunDir, bool]) -> None:
    """`_execute`, in a process of its own (see `side_by_side`)."""
    key, prepared, run, tolerant = task
    _execute(key, prepared, run, lambda line: print(line, flush=True), tolerant)
