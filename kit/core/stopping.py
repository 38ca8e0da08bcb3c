"""What the user asks of a command by signals: to stop (SIGTERM, Ctrl-C), or to save and go on (SIGUSR1).

Where work can be saved (`deferred`), a first signal is only noted, and the work looks (`asked`) where it can stop
and go on later. Elsewhere it ends the command at once, as an exception; a second Ctrl-C does so everywhere.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from kit.core.errors import KitError

OUT_OF_TIME = 1  # the exit code of a command that its time limit stopped
SAVE = getattr(signal, "SIGUSR1", None)  # Windows has none
AGAIN_SECONDS = 0.05  # until an interruption that got lost is repeated


class Stopped(KitError):
    """Work that was stopped where it can go on; the message says where, and how.

    Attributes
    ----------
    code : int
        Exit code of the command: 128 and the number of the signal, or `OUT_OF_TIME`.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return Stopped, (str(self), self.code)


class Interrupted(KeyboardInterrupt):
    """A command that ends at once, wherever it is.

    Attributes
    ----------
    code : int
        As in `Stopped`.
    told : str
        What was interrupted and what is left of it; set on the way up, by what knows.
    """

    def __init__(self, code: int):
        super().__init__()
        self.code, self.told = code, ""


class _Wishes:
    """What was asked of this process; kept by the handlers in the main thread."""

    def __init__(self) -> None:
        self.code = 0
        self.save = False
        self.ctrl_c = 0
        self.deferring = 0
        self.listeners: list[Callable[[int], None]] = []
        self.lost = False
        self.idle = False
        self.stops = 0
        self.hook: Callable[[Any], Any] = sys.unraisablehook

    @property
    def at_once(self) -> bool:
        """Whether the command is to end here and now."""
        return self.ctrl_c > 1 or (self.code > 0 and not self.deferring)


_wishes = _Wishes()


def asked() -> int:
    """Return the exit code of the stop that was asked for; 0 where none was."""
    return _wishes.code


def at_once() -> bool:
    """Whether the command is ending at once, so that nothing may take long any more."""
    return _wishes.at_once


def save_asked() -> bool:
    """Whether a checkpoint was asked for since this was called last."""
    save, _wishes.save = _wishes.save, False
    return save


def look() -> None:
    """End the command where a stop was asked for, work cannot be saved here, and the interruption got lost.

    Libraries that suppress every exception lose it.
    """
    if _wishes.at_once:
        raise Interrupted(_wishes.code)


def need_go_on(where: str) -> None:
    """Raise Stopped where a stop was asked for; `where` says what is not begun and how to go on."""
    if _wishes.code:
        raise Stopped(f"stopped {where}", _wishes.code)


@contextmanager
def deferred() -> Iterator[None]:
    """Note a first signal only, within: for work that looks at `asked`, and for what must not be torn apart."""
    _wishes.deferring += 1
    try:
        yield
    finally:
        _wishes.deferring -= 1


@contextmanager
def whole() -> Iterator[None]:
    """Do what must not be torn apart, and end the command afterwards where that was asked for meanwhile."""
    with deferred():
        yield
    look()


@contextmanager
def telling(what: str | Callable[[], str]) -> Iterator[None]:
    """Say what an interruption within interrupts and what is left of it, as `while …; …`."""
    try:
        yield
    except Interrupted as error:
        error.told = error.told or (what if isinstance(what, str) else what())
        raise


@contextmanager
def idle() -> Iterator[None]:
    """Note a first stop only, within, until there is work; a second one ends the process, without an exception.

    There is nothing to save or to say, an exception would tear what is imported, and a process that ends takes its
    pool along, in which others may still save.
    """
    before, _wishes.idle = _wishes.idle, True
    try:
        yield
    finally:
        _wishes.idle = before


@contextmanager
def at_work() -> Iterator[None]:
    """Take signals within `idle` as outside of it."""
    before, _wishes.idle = _wishes.idle, False
    try:
        look()
        yield
    finally:
        _wishes.idle = before


@contextmanager
def listening(listener: Callable[[int], None]) -> Iterator[None]:
    """Call `listener` with the number of each signal that asks for something, in the handler."""
    _wishes.listeners.append(listener)
    try:
        yield
    finally:
        _wishes.listeners.remove(listener)


@contextmanager
def handled() -> Iterator[None]:
    """Take signals as this module says, in the main thread of a command; afterwards all is as it was."""
    global _wishes
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _wishes = _wishes, _Wishes()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, SAVE) if number is not None]
    handlers = {number: signal.signal(number, _handle) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, _repeat_lost
    _wishes.hook = hook
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _wishes = before


@contextmanager
def told() -> Iterator[None]:
    """Turn an interruption into the line and the exit code that the user gets: `Stopped`."""
    try:
        yield
    except KeyboardInterrupt as error:
        told, code = (error.told, error.code) if isinstance(error, Interrupted) else ("", 128 + signal.SIGINT)
        raise Stopped(f"interrupted {told}".strip(), code) from error


def handle_in_child() -> None:
    """Take signals in a process that works for another one, which passes on what it is asked.

    A Ctrl-C reaches all processes of a terminal; here it is left to the parent, which passes it on as SIGTERM.
    Where signals cannot be sent (Windows) it is taken.
    """
    passed_on = hasattr(signal, "pthread_sigmask")
    signal.signal(signal.SIGINT, signal.SIG_IGN if passed_on else _handle)
    signal.signal(signal.SIGTERM, _handle)
    if SAVE is not None:
        signal.signal(SAVE, _handle)
    sys.unraisablehook = _repeat_lost


def _handle(number: int, frame: FrameType | None) -> None:
    if _wishes.lost:  # the same once more
        _wishes.lost = False
        look()
        return
    if number == SAVE:
        _wishes.save = True
    else:
        _wishes.ctrl_c += number == signal.SIGINT
        _wishes.code = _wishes.code or 128 + number
    for listener in list(_wishes.listeners):
        listener(number)
    _wishes.stops += number != SAVE
    if _wishes.idle and _wishes.at_once:
        if _wishes.stops > 1:
            os._exit(_wishes.code)
        return
    if number != SAVE:
        look()


def _repeat_lost(unraisable: Any) -> None:
    """Repeat an interruption that was raised where Python drops exceptions: in `__del__`, in callbacks."""
    if not isinstance(unraisable.exc_value, Interrupted):
        if not _wishes.at_once:  # else something half-made is torn down, and says so
            _wishes.hook(unraisable)
        return
    import _thread

    returning = threading.Event()

    def again() -> None:
        returning.wait()  # what is raised in this very function is lost for good
        time.sleep(AGAIN_SECONDS)
        _wishes.lost = True
        _thread.interrupt_main(signal.SIGTERM)

    _thread.start_new_thread(again, ())  # `Thread.start` would wait for the thread, on a busy machine for long
    returning.set()
