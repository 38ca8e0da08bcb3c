"""Processes that this one starts: which signals reach them, and that none outlives it."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kit.core import stopping

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
POLL_SECONDS = 1.0
MASKS = hasattr(signal, "pthread_sigmask")  # not on Windows
SIGNALS = [number for number in (signal.SIGINT, signal.SIGTERM, stopping.SAVE) if number is not None]


@contextmanager
def starting() -> Iterator[None]:
    """Start processes within, which begin with the signals of `kit.core.stopping` held back, by inheritance.

    What is sent to all processes of a terminal or of a job does not end them before they have taken care of it, by
    `help_parent` or `work_for_parent`. Nor is this process torn from what it does within: Python would drop an
    interruption in the functions that it calls around a fork.
    """
    if not MASKS:
        with stopping.whole():
            yield
        return
    with stopping.whole():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def help_parent(worker: int = 0) -> None:
    """Begin a process that prepares something for its parent: it ends when the parent says so, or has ended.

    Signals that were sent to all processes are the parent's matter: SIGTERM counts where it comes from the parent.

    Parameters
    ----------
    worker : int
        Its number, which torch's loaders tell.
    """
    if MASKS:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent(hears=MASKS)


def work_for_parent() -> None:
    """Begin a process that works by itself for its parent, and stops where the parent passes on that it should."""
    stopping.handle_in_child()
    _end_with_parent(hears=False)
    if MASKS:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_with_parent(hears: bool) -> None:
    """End this process when its parent has ended, however it did.

    On Linux the kernel does it at once: with the thread that started this process, which is the one that works
    with it. A thread sees to it everywhere. With `hears` that takes the parent's SIGTERM, too.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(_starter(), hears), daemon=True, name="end with parent").start()


def _watch(starter: int, hears: bool) -> None:
    parent = multiprocessing.parent_process()
    listens = hears and hasattr(signal, "sigtimedwait")  # not on macOS
    if hears and not listens:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # torch's own handler looks at who sent it
    while (parent is None or parent.is_alive()) and (not MASKS or os.getppid() == starter):
        if not listens:
            time.sleep(POLL_SECONDS)
            continue
        heard = signal.sigtimedwait([signal.SIGTERM], POLL_SECONDS)
        if heard and parent and heard.si_pid == parent.pid:
            os._exit(0)
    os._exit(1)


def _starter() -> int:
    """The number that the starter of this process has while it lives: a fork server's, or the parent's."""
    parent = multiprocessing.parent_process()
    served = multiprocessing.get_start_method(allow_none=True) == "forkserver"
    return os.getppid() if parent is None or served else parent.pid or os.getppid()
