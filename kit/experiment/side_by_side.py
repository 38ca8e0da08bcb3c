"""How many runs train side by side on this machine, and with how many threads each: stated, or measured."""

import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import psutil
import torch
from accelerate import PartialState

from kit.core import stopping
from kit.core.durations import in_words
from kit.core.errors import KitError, Say
from kit.core.processes import need_guard
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.data.device.resident import let_go
from kit.data.loading import worker_count
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.parallel import run_parallel
from kit.experiment.prepare import TrainingData
from kit.experiment.train_run import counted, trainer_of
from kit.training.batches import batches_of
from kit.training.device import computing_with, free_memory, make_accelerator

WORTH = 150.0  # seconds of work from which on measuring pays: it takes some twenty
UPDATES = 500  # fewer are not worth even the first look
GAIN = 1.05  # by how much more runs side by side have to be faster in sum
WARM_UP = 3  # updates before the clock runs
SECONDS = 4.0  # that are measured
MEETING = 120.0  # seconds that the processes of one measurement wait for each other
SAFE = 1.1  # times the memory that was measured: predictions and fragments take some more


@dataclass(frozen=True)
class Sharing:
    """How runs share a machine.

    Attributes
    ----------
    jobs : int
        Side by side.
    threads : int or None
        That torch computes with in each, on the CPU; None: as many as it takes by itself.
    """

    jobs: int
    threads: int | None = None


@dataclass(frozen=True)
class Measured:
    """What so many trainings side by side came to.

    Attributes
    ----------
    sharing : Sharing
    speed : float
        Images a second, of all together.
    memory : float
        Bytes that one takes: of the GPU, or of the machine.
    """

    sharing: Sharing
    speed: float
    memory: float

    def __str__(self) -> str:
        return f"{in_short(self.sharing)} {self.speed:.0f}"


def in_short(sharing: Sharing) -> str:
    """Return it in words: 2 × 1 thread."""
    return f"{sharing.jobs}" if sharing.threads is None else f"{sharing.jobs} × {counted(sharing.threads)}"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(cores: int, due: int) -> list[Sharing]:
    """Return the ways to share out cores: 1 run with all, 2 with half of them each, … at most `due`."""
    most, jobs = min(cores, due), [1]
    while jobs[-1] * 2 < most:
        jobs.append(jobs[-1] * 2)
    return [Sharing(number, max(1, cores // number)) for number in dict.fromkeys([*jobs, most])]


def seconds_of(measured: Measured, due: int, images: float) -> float:
    """Return how long `due` runs of so many images each take: rounds of as many as train at a time."""
    rounds = -(-due // measured.sharing.jobs)
    return rounds * images * measured.sharing.jobs / measured.speed


def choose(measured: Sequence[Measured], due: int, free: float) -> Measured:
    """Return what to train with: where all ends first, and of what hardly differs the fewest side by side.

    Parameters
    ----------
    measured : sequence of Measured
        Fewest side by side first; the first is taken where no other fits.
    due : int
        Runs to train.
    free : float
        Bytes that there are for all together.
    """
    best, *others = measured
    for each in others:
        fits = each.sharing.jobs * each.memory * SAFE <= free
        if fits and GAIN * seconds_of(each, due, 1.0) <= seconds_of(best, due, 1.0):
            best = each
    return best


def stated_threads(folder: ExperimentDir) -> int | None:
    """Return the threads that a run of the experiment was trained with on the CPU; None where none says so."""
    for run in folder.runs():
        try:
            record = run.record
        except KitError:  # told where it is read for what it holds
            continue
        if record.device == "cpu" and record.threads and record.status != "failed":
            return record.threads
    return None


def sharing_workers(data: TrainingData, jobs: int, on_gpu: bool) -> TrainingData:
    """For one of so many runs side by side: where the number of data workers is `auto`, its share of them."""
    recipe = data.recipe
    workers = worker_count(recipe.data.workers, on_gpu, jobs)
    config = recipe.data.model_copy(update={"workers": workers})
    return dataclasses.replace(data, recipe=dataclasses.replace(recipe, data=config))


@dataclass
class SideBySide:
    """Decides how runs share this machine.

    Attributes
    ----------
    jobs : int or "auto"
        As asked for. auto: one on each GPU, or one where the CPU computes; where the work that is due takes more
        than some minutes, as many as prove fastest in throwaway updates of the first run.
    threads : int or None
        As asked for.
    chosen : Sharing or None
        What was measured to be fastest; it holds for all that this command trains.
    """

    jobs: int | Literal["auto"] = "auto"
    threads: int | None = None
    chosen: Sharing | None = field(default=None, init=False)

    def share(
        self, due: Sequence[RunKey], loaded: LoadedExperiment, data: TrainingData, state: PartialState, say: Say
    ) -> Sharing:
        """Return how the runs that are due share the machine.

        Raises
        ------
        KitError
            Where so many are asked for that the GPU's memory does not suffice, and beside torchrun.
        """
        if state.num_processes > 1:
            if self.jobs not in ("auto", 1):
                raise KitError("--jobs: torchrun shares out every run already; use one of the two")
            return Sharing(1, self.threads)
        on_gpu = state.device.type == "cuda" and loaded.config.training.device != "cpu"
        gpus = torch.cuda.device_count() if on_gpu else 0
        stated = None if on_gpu else self._stated(loaded.folder, say)
        meter = Meter(due, loaded, data, state)
        if self.jobs != "auto":
            jobs = max(1, min(self.jobs, len(due)))
            if 0 < gpus < jobs:
                meter.need_memory(jobs, gpus)
            return Sharing(jobs, self.threads or stated or _share(jobs))
        usual = max(1, min(gpus or 1, len(due)))
        if self.chosen is None:
            if len(due) <= usual or not meter.pays(say):
                return Sharing(usual, self.threads or stated or _share(usual))
            if threads := None if on_gpu else self.threads or stated:  # one experiment, one number of threads
                self.chosen = _fitting(threads, say)
            else:
                self.chosen = meter.fastest(gpus, self.threads, say)
        return dataclasses.replace(self.chosen, jobs=max(1, min(self.chosen.jobs, len(due))))

    def _stated(self, folder: ExperimentDir, say: Say) -> int | None:
        """The threads of the runs that are there, where none are asked for and this machine has as many cores."""
        stated = None if self.threads else stated_threads(folder)
        if stated is None or stated == torch.get_num_threads():
            return stated
        if stated > cores():
            say(
                f"the runs that are there were trained with {counted(stated)} each, this machine has {cores()} "
                "cores: those trained here differ in the last bits"
            )
            return None
        say(f"trains with {counted(stated)} each, as the runs that are there; --threads takes another number")
        return stated


def _fitting(threads: int, say: Say) -> Sharing:
    """As many runs of so many threads as there are cores, and memory by what this process takes; it is told."""
    most = max(1, cores() // threads)
    jobs = max(1, min(most, int(_free(0) // _resident())))
    why = "" if jobs == most else f", as the memory holds no more than {jobs}"
    say(f"trains {in_short(Sharing(jobs, threads))} side by side{why} (--jobs takes another number)")
    return Sharing(jobs, threads)


def _share(jobs: int) -> int | None:
    """The share of the cores that one of so many runs gets; no more than torch takes (OMP_NUM_THREADS)."""
    return None if jobs == 1 else max(1, min(torch.get_num_threads(), cores() // jobs))


@dataclass(frozen=True)
class Meter:
    """Measures throwaway updates of the first run that is due."""

    due: Sequence[RunKey]
    loaded: LoadedExperiment
    data: TrainingData
    state: PartialState

    def pays(self, say: Say) -> bool:
        """Whether what is due takes so long that measuring pays, by a few updates in this process."""
        key, training = self.due[0], self.loaded.config.training
        rows = len(self.loaded.training_rows(key.fold))
        plan = batches_of(training, rows, key.seed, self.state)
        if len(self.due) * plan.total_steps < UPDATES:
            return False
        try:
            need_guard("spawn")  # else processes are only started where that is asked for
            speed = measure(Trial(key, self.loaded, self.data, None, None, 1, 0.5)).speed
        except stopping.Stopped:
            raise
        except KitError:  # a training that fails says so by itself
            return False
        seconds = len(self.due) * plan.total_steps * plan.samples_per_update / speed
        if seconds >= WORTH:
            many = f"{len(self.due)} runs one after the other take some {in_words(seconds)}"
            say(f"{many}: measures how many side by side are faster")
        return seconds >= WORTH

    def fastest(self, gpus: int, threads: int | None, say: Say) -> Sharing:
        """Measure, say what came of it, and return what is fastest."""
        free, usual = _free(gpus), max(1, gpus)
        measured: list[Measured] = []
        each = self._more_and_more(gpus, threads, free) if gpus else map(self.of, self._that_fit(free))
        try:
            measured.extend(each)  # one after the other: what was measured before one fails is kept
        except stopping.Stopped:
            raise
        except KitError as error:
            say(f"measured no further: {error}")
        if not measured:
            return Sharing(usual, threads or _share(usual))
        best = choose(measured, len(self.due), free)
        told = ", ".join(map(str, measured))
        say(f"images a second side by side: {told}; trains {in_short(best.sharing)} (--jobs takes another number)")
        return best.sharing

    def _that_fit(self, free: float) -> Iterator[Sharing]:
        """The ways to share out the cores, as far as the memory goes by what this process takes."""
        for sharing in shares(cores(), len(self.due)):
            if sharing.jobs == 1 or sharing.jobs * _resident() <= free:
                yield sharing

    def _more_and_more(self, gpus: int, threads: int | None, free: float) -> Iterator[Measured]:
        """One on each GPU, two, four, …: while memory suffices and all together grow faster."""
        jobs, before = gpus, 0.0
        while True:
            measured = self.of(Sharing(jobs, threads or _share(jobs)), gpus)
            yield measured
            jobs *= 2
            fits = jobs * measured.memory * SAFE <= free
            if not fits or jobs > len(self.due) or measured.speed < GAIN * before:
                return
            before = measured.speed

    def of(self, sharing: Sharing, gpus: int = 0) -> Measured:
        """Measure so many trainings side by side, in processes of their own."""
        before = _free(min(gpus, 1))
        data = sharing_workers(self.data, sharing.jobs, gpus > 0)
        with tempfile.TemporaryDirectory() as meeting:
            tasks = [
                Trial(self.due[0], self.loaded, data, sharing.threads, Path(meeting), sharing.jobs)
                for _ in range(sharing.jobs)
            ]
            made = list(run_parallel(measure, tasks, sharing.jobs, name=_named, threads=sharing.threads))
        taken = max(each.memory for each in made)
        if gpus:  # with the context of each process, which torch does not count
            on_one = -(-sharing.jobs // gpus)
            taken = max(taken, (before - min(each.free for each in made)) / on_one)
        return Measured(sharing, sum(each.speed for each in made), taken)

    def need_memory(self, jobs: int, gpus: int) -> None:
        """KitError where so many do not fit into the memory of the GPUs, by a few updates of one."""
        free = _free(1)
        memory = self.of(Sharing(1), gpus).memory
        fits = max(1, int(free // (SAFE * memory))) * gpus
        if jobs > fits:
            raise KitError(
                f"--jobs {jobs}: a training takes {memory / 2**30:.1f} GiB of a GPU, {free / 2**30:.1f} GiB are "
                f"free: take --jobs {fits} at most, or a smaller training.batch_size"
            )


def _named(trial: "Trial") -> str:
    return f"measuring {trial.of} side by side"


@dataclass(frozen=True)
class Trial:
    """Updates to be measured: those of a run, in one of `of` processes that meet in a folder before they begin."""

    key: RunKey
    loaded: LoadedExperiment
    data: TrainingData
    threads: int | None
    meeting: Path | None
    of: int
    seconds: float = SECONDS


@dataclass(frozen=True)
class Pace:
    """What one process measured: images a second, the bytes it takes, and those it left free on the GPU."""

    speed: float
    memory: float
    free: float


def measure(trial: Trial) -> Pace:
    """Make updates of a run that are thrown away, and return how fast they are."""
    training = trial.loaded.config.training
    with tempfile.TemporaryDirectory() as scratch, computing_with(trial.threads):
        accelerator = make_accelerator(training)
        run = RunDir(Path(scratch) / trial.key.place)
        with closing(trainer_of(trial.key, trial.loaded, trial.data, run, accelerator)) as trainer:
            on_gpu, images = trainer.device.type == "cuda", trainer.plan.samples_per_update
            wait = partial(torch.cuda.synchronize, trainer.device) if on_gpu else _go_on
            updates = trainer.updates()
            warm = len(list(islice(updates, min(WARM_UP, trainer.plan.total_steps - 1))))
            wait()
            _meet(trial)
            began, made = time.monotonic(), 0
            for done in updates:
                made = done + 1 - warm
                if time.monotonic() - began >= trial.seconds:
                    break
                _go_on()
            wait()
            taken = time.monotonic() - began
            memory = torch.cuda.max_memory_reserved(trainer.device) if on_gpu else _resident()
            free = torch.cuda.mem_get_info(trainer.device)[0] if on_gpu else 0
            updates.close()
        del trainer
    let_go()  # other processes may be those that train
    free_memory()
    return Pace(made * images / taken, memory, free)


def _go_on() -> None:
    stopping.need_go_on("while it was measured how many runs train side by side; nothing is lost")


def _meet(trial: Trial) -> None:
    """Wait until all processes of a measurement are ready, some time at most."""
    if trial.meeting is None:
        return
    (trial.meeting / str(os.getpid())).touch()
    until = time.monotonic() + MEETING
    while len(list(trial.meeting.iterdir())) < trial.of and time.monotonic() < until:
        _go_on()
        time.sleep(0.01)


def _free(gpus: int) -> float:
    """Bytes that are free: of all GPUs, going by the first; or of the machine."""
    return float(torch.cuda.mem_get_info(0)[0] * gpus) if gpus else float(psutil.virtual_memory().available)


def _resident() -> float:
    """Bytes that this process has taken at most."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().rss)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
