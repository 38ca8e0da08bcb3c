"""A program that was started is followed to its end: its lines, the memory of all that came of it, its time."""

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import psutil

SAMPLE_EVERY = 0.1  # seconds
SAMPLING_SHARE = 0.05  # of the time, at most: with many processes, or many pages, there are fewer samples
ENDING_TAKES = 10.0  # seconds at most, for killed processes to be gone


@dataclass(frozen=True)
class ProcessEnd:
    """How a program that was followed has ended.

    Attributes
    ----------
    seconds : float
        Wall clock.
    peak_memory : int
        Bytes: the largest sum over all processes among the samples.
    timed_out : bool
        Whether the time limit ended it.
    """

    seconds: float
    peak_memory: int
    timed_out: bool


def follow(
    process: subprocess.Popen[str],
    processes: "Processes",
    time_limit: float | None,
    on_line: Callable[[str], None],
) -> ProcessEnd:
    """Hand on the output and measure until the process ends or time is up; then nothing is left running.

    Parameters
    ----------
    process : Popen
        Its output is a pipe of text.
    processes : Processes
        The process and all that comes of it.
    time_limit : float or None
        Seconds; None for no limit.
    on_line : callable
        Takes each line of the output.
    """
    assert process.stdout is not None  # a pipe
    started = next_sample = time.monotonic()
    deadline = float("inf") if time_limit is None else started + time_limit
    output, peak = _Output(process.stdout), 0
    try:
        while process.poll() is None and (now := time.monotonic()) < deadline:
            if now >= next_sample:
                peak = max(peak, processes.memory())
                now, took = time.monotonic(), time.monotonic() - now
                next_sample = now + max(SAMPLE_EVERY, took / SAMPLING_SHARE)
            wait = max(0.0, min(next_sample, deadline) - now)
            if (line := output.next(wait)) is not None:
                on_line(line)
            elif output.closed:  # most likely the process is about to end
                with suppress(subprocess.TimeoutExpired):
                    process.wait(wait)
        timed_out = process.poll() is None
        seconds = time.monotonic() - started
    finally:
        processes.kill()
    for line in output.rest():
        on_line(line)
    return ProcessEnd(seconds, peak, timed_out)


class _Output:
    """The lines a process writes, read by a thread, since not every system can wait for a pipe with a limit."""

    def __init__(self, stream: IO[str]):
        self.closed = False
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                self._lines.put(line.removesuffix("\n"))
        self._lines.put(None)

    def next(self, timeout: float) -> str | None:
        """Return the next line; None where none came in `timeout` seconds, and at once when there are no more."""
        if self.closed:
            return None
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            return None
        self.closed = line is None
        return line

    def rest(self) -> Iterator[str]:
        """Yield what is left when all writers are gone."""
        self._reader.join(ENDING_TAKES)
        while (line := self.next(0.0)) is not None:
            yield line


class Processes:
    """A process and all that came of it.

    Parameters
    ----------
    root : Popen
        The process.
    mark : (str, str), optional
        A variable and its value, which nobody else's environment has.

    Notes
    -----
    A process that cut its ties (a daemon) is still known by `mark`; one that cut them at once and cleared its
    environment as well is lost. In namespaces none is, and no mark is needed: all that is inside ends with
    process 1.
    """

    def __init__(self, root: subprocess.Popen[str], mark: tuple[str, str] | None = None):
        self._root = root
        self._mark = mark
        self._known: dict[psutil.Process, None] = {}  # a set in order: parents before their children
        with suppress(psutil.Error):
            self._known[psutil.Process(root.pid)] = None

    def memory(self) -> int:
        """Return the bytes that all of them take together now."""
        self._look()
        return sum(map(_memory, self._known))

    def kill(self) -> None:
        """Kill until none is left; also what they start meanwhile.

        Parents go first: one that sees its children killed could say so among the script's lines.
        """
        give_up = time.monotonic() + ENDING_TAKES
        while time.monotonic() < give_up:
            self._look()
            self._look_for_mark()
            if not self._known:
                break
            for each in self._known:
                with suppress(psutil.Error):
                    each.kill()
            time.sleep(0.005)
        self._root.poll()

    def _look(self) -> None:
        """Find the descendants of those known, and forget the dead."""
        for each in list(self._known):
            with suppress(psutil.Error):
                self._known.update(dict.fromkeys(each.children(recursive=True)))
        self._known = dict.fromkeys(filter(_is_alive, self._known))

    def _look_for_mark(self) -> None:
        if self._mark is None:
            return
        name, value = self._mark
        for each in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if each.environ().get(name) == value and _is_alive(each):
                    self._known[each] = None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _memory(process: psutil.Process) -> int:
    try:
        with suppress(psutil.AccessDenied, AttributeError):
            return process.memory_full_info().pss
        return process.memory_info().rss
    except psutil.Error:  # it has just ended
        return 0
