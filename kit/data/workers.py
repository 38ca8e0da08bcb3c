"""Data workers: how many there are, what they are told by, and what happens where one dies or hangs."""

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any, TypeVar

from torch.utils.data import DataLoader, get_worker_info

from kit.core.children import starting
from kit.core.errors import KitError, Say, ignore
from kit.core.processes import ending
from kit.data.shared_memory import PLACE, free_shared_memory, workers_that_fit

Batch = TypeVar("Batch")
LOOK = 5.0  # seconds between two looks at the workers while a batch is waited for
GONE = 2.0  # seconds that a worker takes to end, once it has let go
PATIENCE = 900.0  # seconds that a batch is waited for
MORE_ROOM = "docker run --shm-size=2g makes more"


@dataclass(frozen=True)
class Workers:
    """The processes that prepare batches.

    Attributes
    ----------
    count : int
        0: this process prepares them.
    pin : bool
        Whether batches lie in pinned memory, as a GPU wants.
    processes : int
        That train together on this machine, and share its memory.
    say : callable
        Takes a line where there are fewer, or where one dies.
    ahead : int
        Batches that each prepares before they are asked for.
    """

    count: int = 0
    pin: bool = False
    processes: int = 1
    say: Say = ignore
    ahead: int = 4

    def fitting(self, batch_bytes: int) -> "Workers":
        """Return as many as shared memory has room for, with batches of this size; fewer are said."""
        free = free_shared_memory()
        count, ahead = workers_that_fit(self.count, batch_bytes, free if free is None else free // self.processes)
        if count < self.count:
            need = (self.count * self.ahead + 2) * batch_bytes
            self.say(
                f"{PLACE} has {(free or 0) / 1e6:.0f} MB free, and the batches of {self.count} data workers "
                f"take up to {need / 1e6:.0f} MB; goes on with {count or 'none'} "
                f"({MORE_ROOM}, or lower data.workers)"
            )
        return replace(self, count=count, ahead=ahead)


ALONE = Workers()


class WorkerDied(Exception):
    """A data worker ended before its time: its exit code, None where it had no room to hand a batch over."""

    def __init__(self, exit_code: int | None):
        super().__init__(exit_code)
        self.exit_code = exit_code


class NoRoom(Exception):
    """What a worker returns in place of a batch that does not fit into shared memory."""


class Lives:
    """How often workers that died are made anew: once."""

    def __init__(self) -> None:
        self.left = 1

    def renew(self, workers: Workers, code: int | None, place: str) -> Workers:
        """Return the workers that go on after one died (see `WorkerDied`); none where shared memory was full.

        Raises
        ------
        KitError
            The second time.
        """
        full = code is None or -code == getattr(signal, "SIGBUS", None)  # what torch writes beyond its end
        how = f"found no room in {PLACE}" if code is None else ending(code)
        if not self.left:
            raise KitError(
                f"a data worker {how} (due: {place}), the second one; lower data.workers (there were "
                f"{workers.count}), 0 does without; set data.cache to true, or run fewer side by side (--jobs)"
            )
        self.left -= 1
        count = 0 if full else workers.count
        then = "goes on without data workers" if full else "they are started anew, once"
        workers.say(f"a data worker {how} (due: {place}); {then}")
        return replace(workers, count=count)


def steadily(
    make: Callable[[int, Workers], DataLoader],
    workers: Workers,
    place: Callable[[int], str],
    lives: Lives,
) -> Generator[Any, None, None]:
    """Yield the batches of a loader, which is made anew once where a worker dies.

    Parameters
    ----------
    make : callable
        Takes the number of a batch and the workers, and gives a loader of that batch and all after it.
    workers : Workers
    place : callable
        Takes the number of a batch, and says which it is.
    lives : Lives

    Raises
    ------
    KitError
        What a batch holds in its place; where workers die again; where no batch comes for a quarter of an hour.
    """
    done, died = 0, None
    batches = _begun(make(done, workers))
    while True:
        batch: Any = None
        try:
            batch = _next(batches, done, place)
        except StopIteration:
            return
        except WorkerDied as error:
            died = error.exit_code
        if batch is None:
            batches = iter(())  # ends the workers that are left
            workers = lives.renew(workers, died, place(done))
            batches = _begun(make(done, workers))
            continue
        if isinstance(batch, KitError):
            raise batch
        done += 1
        yield batch


def _begun(loader: DataLoader) -> Iterator[Any]:
    """Return an iterator whose dead workers are noticed where a batch is asked for, and nowhere else.

    torch has a handler of SIGCHLD raise an error for a dead worker, which strikes amid an update as well.
    """
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    with starting() if loader.num_workers else nullcontext():
        batches = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return batches


def _next(batches: Iterator[Batch], number: int, place: Callable[[int], str]) -> Batch:
    waited = 0.0
    while True:
        try:
            batch = next(batches)
            break
        except StopIteration:
            raise
        except Exception as error:
            if (code := _death(batches, error)) is not None:
                raise WorkerDied(code) from error
            if not str(error).startswith("DataLoader timed out"):
                raise
            waited += LOOK
            if waited >= PATIENCE:
                raise KitError(
                    f"no batch came from the data workers for {PATIENCE / 60:.0f} minutes (due: {place(number)}); "
                    "look whether the disk answers, or set data.workers to 0, which shows what hangs"
                ) from error
    if isinstance(batch, NoRoom):
        raise WorkerDied(None)
    return batch


def _death(batches: Iterator[Any], error: Exception) -> int | None:
    """The exit code of a worker that ended too early; None where all are well."""
    workers = getattr(batches, "_workers", ())
    if isinstance(error, OSError | EOFError):  # what it handed over is gone; its end may take a moment
        gone = wait([worker.sentinel for worker in workers], GONE)
        for worker in workers:
            if worker.sentinel in gone:
                worker.join(GONE)
    if died := [worker.exitcode for worker in workers if worker.exitcode]:
        return died[0]
    return 0 if "exited unexpectedly" in str(error) else None


def handed_over(batch: Any) -> Any:
    """Return a batch as its process hands it over: a worker puts it into shared memory, here and now.

    torch would do that in a thread, whose error is printed, and the batch would be waited for in vain.
    """
    if get_worker_info() is None or isinstance(batch, Exception):
        return batch
    try:
        for tensor in batch if isinstance(batch, tuple) else (batch,):
            tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        return NoRoom(str(error))
    return batch
