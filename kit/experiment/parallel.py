"""Where runs execute: in this process, or side by side in processes with a device each."""

import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.sharedctypes import RawValue
from typing import Any, TypeVar

from kit.core import stopping
from kit.core.children import starting, work_for_parent
from kit.core.errors import KitError
from kit.core.processes import GUARD, ending, need_guard

Item = TypeVar("Item")
Made = TypeVar("Made")
VISIBLE = "CUDA_VISIBLE_DEVICES"
SENDS = hasattr(signal, "pthread_sigmask")  # on Windows, Ctrl-C reaches all, and nothing else can be sent
PATIENCE_SECONDS = 30.0  # for the other processes, when one was ended from outside
TERMINATED = (-15, 143)  # by the pool, once another process of it is gone; 143 where it heard of that
GONE = 10.0  # seconds that a process takes to end
LOOK_SECONDS = 1.0  # between two looks whether all processes are there


def run_parallel(
    task: Callable[[Item], Made],
    items: Iterable[Item],
    jobs: int,
    name: Callable[[Item], object] = str,
    threads: int | None = None,
) -> Iterator[Made]:
    """Yield `task(item)` of every item, as they end, `jobs` of them at a time.

    A process takes the next item when it has done one.

    Parameters
    ----------
    task : callable
        A function at the top of a module; it runs in a fresh process, which sees one GPU only: the next one, in
        turn, of those that this process sees.
    items : iterable
    jobs : int
    name : callable
        What an item is called, where its process ends before its time.
    threads : int, optional
        That a process computes with on the CPU; left out: as the environment says, else one a core.

    Raises
    ------
    KitError
        Where the script that calls this would begin anew in each process (see `need_guard`), where a process sees
        another GPU than its own, and where one was ended from outside. The first error of a task is raised when
        those under way have ended; what had not begun is not begun.
    Stopped
        Where that was asked for; a line of each task that was under way. A signal is passed on to the processes,
        and they are waited for; a second Ctrl-C ends them.
    """
    need_guard("spawn")
    children, names = _OneGpuEach(_visible_gpus(), threads), dict[int, str]()

    def numbered() -> Iterator[tuple[Item, int]]:
        for number, item in enumerate(items):
            names[number] = str(name(item))
            yield item, number

    with (
        children.ending(),
        stopping.deferred(),
        stopping.listening(children.pass_on),
        ProcessPoolExecutor(jobs, children, _begin) as pool,
        children.ending(),  # before the pool waits for them
    ):
        try:
            yield from _results(pool, children, task, numbered(), jobs)
        except BrokenProcessPool as error:
            line = children.told(names)
            children.end()
            stopping.need_go_on("before a run had written where it was; the same command goes on")
            raise KitError(line) from error


def _results(
    pool: ProcessPoolExecutor,
    children: "_OneGpuEach",
    task: Callable[[Item], Made],
    left: Iterator[tuple[Item, int]],
    jobs: int,
) -> Iterator[Made]:
    """Yield the results as they come; no more are given to the pool than are under way, as it would begin them."""
    stopped: list[stopping.Stopped] = []
    running: set[Future[Made]] = set()
    free = jobs
    while True:
        if not (stopped or stopping.asked()):
            taken = list(islice(left, free))  # which may take long; signals are heard meanwhile
            with starting():
                running |= {pool.submit(_do, task, item, number) for item, number in taken}
            if code := stopping.asked():  # meanwhile, when not all could be told
                children.pass_on(code - 128)
        if not running:
            break
        while not (ended := wait(running, LOOK_SECONDS, FIRST_COMPLETED).done):
            children.need_all()
        running -= ended
        stops = [error for future in ended if isinstance(error := future.exception(), stopping.Stopped)]
        stopped += stops
        free = len(ended)
        yield from [future.result() for future in ended if future.exception() not in stops]
    if stopped:
        lines = dict.fromkeys(str(each) for each in stopped)
        raise stopping.Stopped("\n".join(lines), stopping.asked() or stopped[0].code)
    stopping.need_go_on("when the runs that were under way had ended; the same command goes on from there")


def _visible_gpus() -> list[str]:
    """The names of the GPUs that this process can use."""
    import torch

    told, count = os.environ.get(VISIBLE), torch.cuda.device_count()
    if told is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in told.split(",") if name.strip()][:count]


class _Process(SpawnProcess):
    """A process that sees one GPU from its first line on: what it imports may ask for CUDA already."""

    gpu: str | None = None
    threads: int | None = None
    doing: Any = None  # a shared number: which of the items it is at; -1 where it is at none

    def run(self) -> None:
        with stopping.idle():
            super().run()

    def start(self) -> None:
        stated = {} if self.gpu is None else {VISIBLE: self.gpu}
        if self.threads is not None:
            stated["OMP_NUM_THREADS"] = str(self.threads)  # before anything is imported that counts cores
        before = os.environ.copy()
        os.environ.update(stated)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # processes that share CPU cores must not spin
        try:
            super().start()
        finally:
            for name in (*stated, "OMP_WAIT_POLICY"):
                if name in before:
                    os.environ[name] = before[name]
                else:
                    del os.environ[name]


class _OneGpuEach(SpawnContext):
    """Starts fresh processes, as CUDA cannot be forked; each gets the next of the GPUs, in turn."""

    def __init__(self, gpus: Sequence[str], threads: int | None = None):
        super().__init__()
        self._gpus, self._threads = cycle(gpus or [None]), threads
        self._processes: list[_Process] = []

    def Process(self, *arguments: Any, **options: Any) -> _Process:  # type: ignore[override]
        process = _Process(*arguments, **options)
        process.gpu, process.doing = next(self._gpus), RawValue("q", -1)
        process.threads = self._threads
        self._processes.append(process)
        return process

    def pass_on(self, number: int) -> None:
        """Ask the processes for what this one is asked for by a signal."""
        for process in self._processes if SENDS else ():
            if process.pid is not None and process.exitcode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number if number == stopping.SAVE else signal.SIGTERM)

    def need_all(self) -> None:
        """Raise BrokenProcessPool where a process has ended, and ask the others to stop.

        The pool does it as well, but not for processes that it started while it waited, until it is woken.
        """
        if any(process.pid is not None and process.exitcode is not None for process in self._processes):
            self.pass_on(signal.SIGTERM)
            raise BrokenProcessPool

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the processes where this one is interrupted within."""
        try:
            yield
        except stopping.Interrupted:
            self.kill()
            raise
        except KeyboardInterrupt:  # outside of a command, where Ctrl-C is not handled
            self.end()
            raise

    def end(self) -> None:
        """Let the processes that are left stop where they can go on; end those that take long."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until and any(process.is_alive() for process in self._processes):
            self.pass_on(signal.SIGTERM)
            time.sleep(0.2)
        self.kill()

    def kill(self) -> None:
        """End all processes at once."""
        for process in self._processes:
            if process.pid is not None and process.exitcode is None:
                process.kill()

    def told(self, names: Mapping[int, str]) -> str:
        """Say which process ended before its time, at what, how, and what to do."""
        until = time.monotonic() + GONE
        # Not by join: the pool waits for them as well, and of two only one is told the exit code, for both.
        begun = [process for process in self._processes if process.pid is not None]
        while any(process.exitcode is None for process in begun) and time.monotonic() < until:
            time.sleep(0.01)
        ended = [process for process in self._processes if process.exitcode]
        for process in sorted(ended, key=lambda each: each.exitcode in TERMINATED):
            number = process.doing.value
            what = f"{names[number]}: its process" if number in names else "a process that trains"
            advice = "run fewer at a time (--jobs 1), with fewer data.workers, or with data.cache true"
            return f"{what} {ending(process.exitcode or 0)}; {advice}; the same command goes on"
        return "a process that trains was ended from outside; the same command goes on"


def _begin() -> None:
    """At the start of a process: it takes signals from its parent, and its lines reach the output whole."""
    work_for_parent()
    if isinstance(sys.stdout, io.TextIOWrapper):  # unbuffered, a line and its end would be two writes
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
    # Several progress bars would draw over each other: lines instead.
    sys.stdout.isatty = lambda: False  # type: ignore[method-assign]  # of this process's own stream


def _do(task: Callable[[Item], Made], item: Item, number: int) -> Made:
    """Carry out a task in its process, which sees its GPU and no other."""
    process = multiprocessing.current_process()
    doing = getattr(process, "doing", None)
    with stopping.told(), stopping.at_work():
        _need_own_gpu(getattr(process, "gpu", None))
        if doing is not None:
            doing.value = number
        made = task(item)
        if doing is not None:
            doing.value = -1
        return made


def _need_own_gpu(gpu: str | None) -> None:
    """KitError where the process sees other GPUs than its own, as its script has changed which are visible."""
    torch = sys.modules.get("torch")  # without it nothing here has asked for CUDA yet
    if gpu is None:
        return
    if torch is None or not torch.cuda.is_initialized():
        os.environ[VISIBLE] = gpu
    if os.environ.get(VISIBLE) != gpu or (torch is not None and torch.cuda.device_count() != 1):
        raise KitError(
            f"the process that was given GPU {gpu} does not see that one alone; where the script sets {VISIBLE} "
            f"as it is imported, do that below {GUARD}, or train with --jobs 1"
        )
