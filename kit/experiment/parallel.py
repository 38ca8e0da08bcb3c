"""Where runs execute: in this process, or side by side in processes with a device each."""

import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import cycle, islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from kit.core.errors import KitError
from kit.core.processes import GUARD, need_guard

Item = TypeVar("Item")
Made = TypeVar("Made")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_parallel(task: Callable[[Item], Made], items: Iterable[Item], jobs: int) -> Iterator[Made]:
    """Yield `task(item)` of every item, as they end, `jobs` of them at a time.

    A process takes the next item when it has done one.

    Parameters
    ----------
    task : callable
        A function at the top of a module; it runs in a fresh process, which sees one GPU only: the next one, in
        turn, of those that this process sees.
    items : iterable
    jobs : int

    Raises
    ------
    KitError
        Where the script that calls this would begin anew in each process (see `need_guard`), where a process sees
        another GPU than its own, and where one was ended from outside. The first error of a task is raised when
        those under way have ended; what had not begun is not begun.
    """
    need_guard("spawn")
    left = iter(items)
    with ProcessPoolExecutor(jobs, _OneGpuEach(_visible_gpus()), _begin) as pool:
        # No more than are under way: the pool would begin what it holds, even after an error.
        try:
            running = {pool.submit(_do, task, item) for item in islice(left, jobs)}
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                made = [future.result() for future in ended]
                running |= {pool.submit(_do, task, item) for item in islice(left, len(ended))}
                yield from made
        except BrokenProcessPool as error:
            raise KitError(
                "a process that trained was ended from outside, most likely for want of memory; run fewer at a "
                "time with --jobs 1"
            ) from error


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

    def start(self) -> None:
        stated = {} if self.gpu is None else {VISIBLE: self.gpu}
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

    def __init__(self, gpus: Sequence[str]):
        super().__init__()
        self._gpus = cycle(gpus or [None])

    def Process(self, *arguments: Any, **options: Any) -> _Process:  # type: ignore[override]
        process = _Process(*arguments, **options)
        process.gpu = next(self._gpus)
        return process


def _begin() -> None:
    """At the start of a process: its lines reach the output whole."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # unbuffered, a line and its end would be two writes
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
    # Several progress bars would draw over each other: lines instead.
    sys.stdout.isatty = lambda: False  # type: ignore[method-assign]  # of this process's own stream


def _do(task: Callable[[Item], Made], item: Item) -> Made:
    """Carry out a task in its process, which sees its GPU and no other."""
    _need_own_gpu(getattr(multiprocessing.current_process(), "gpu", None))
    return task(item)


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
