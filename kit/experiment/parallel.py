"""Where runs execute: in this process, or side by side in processes with a device each."""

import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import TypeVar

from kit.core.errors import KitError

Item = TypeVar("Item")
Made = TypeVar("Made")


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
        Where a process was ended from outside. The first error of a task is raised when those under way have
        ended; what had not begun is not begun.
    """
    context = multiprocessing.get_context("spawn")  # CUDA cannot be forked
    devices, gpus = context.Queue(), _visible_gpus()
    for job in range(jobs):
        devices.put(gpus[job % len(gpus)] if gpus else None)
    left = iter(items)
    with ProcessPoolExecutor(jobs, context, _take_device, (devices,)) as pool:
        # No more than are under way: the pool would begin what it holds, even after an error.
        try:
            running = {pool.submit(task, item) for item in islice(left, jobs)}
            while running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                made = [future.result() for future in ended]
                running |= {pool.submit(task, item) for item in islice(left, len(ended))}
                yield from made
        except BrokenProcessPool as error:
            raise KitError(
                "a process that trained was ended from outside, most likely for want of memory; run fewer at a "
                f"time with --jobs 1{_advice_for_a_script()}"
            ) from error


def _visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _take_device(devices: "multiprocessing.Queue[str | None]") -> None:
    """At the start of a process, before it asks for GPUs: those but one are out of its sight, and its lines reach
    the output whole."""
    if (gpu := devices.get()) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if isinstance(sys.stdout, io.TextIOWrapper):  # unbuffered, a line and its end would be two writes
        sys.stdout.reconfigure(line_buffering=True, write_through=False)
    # Several progress bars would draw over each other: lines instead.
    sys.stdout.isatty = lambda: False  # type: ignore[method-assign]  # of this process's own stream
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # processes that share CPU cores must not spin


def _advice_for_a_script() -> str:
    """A fresh process imports the script that began it; if that trains as it is imported, it gets nowhere."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None:
        return ""
    return f'; what {Path(file).name} does has to stand below `if __name__ == "__main__":`'
