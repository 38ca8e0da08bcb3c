"""Tasks for processes side by side. Every fresh process imports this module: it imports nothing large."""

import os
import signal
import time
from pathlib import Path

from kit.core import stopping
from kit.core.errors import KitError


def square(number: int) -> int:
    return number**2


def see(folder: Path) -> tuple[int, str | None, str | None]:
    """What a process sees, when it has met another one: its number, GPUs, OpenMP's way to wait."""
    (folder / str(os.getpid())).touch()
    _until(lambda: len(list(folder.iterdir())) == 2)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_WAIT_POLICY")


def shout(task: tuple[Path, int]) -> None:
    """Two of them, at once."""
    folder, number = task
    (folder / str(number)).touch()
    _until(lambda: len(list(folder.iterdir())) == 2)
    for _ in range(3000):
        print(f"{number} " + 60 * "x", flush=True)


def fail_or_go_on(task: tuple[Path, int]) -> None:
    """All say that they begin. 0 fails when 1 has begun; 1 ends half a second after that."""
    folder, number = task
    (folder / f"began{number}").touch()
    if number == 0:
        _until((folder / "began1").exists)
        raise KitError("the first: does not work; mend it")
    if number == 1:
        time.sleep(0.5)
        (folder / "ended1").touch()


def fail_otherwise(_) -> None:
    raise ZeroDivisionError("by zero")


def wait_for_a_stop(task: tuple[Path, int]) -> None:
    """A task that can stop and go on later."""
    folder, number = task
    with stopping.deferred():
        (folder / f"began{number}").touch()
        _until(stopping.asked)
    raise stopping.Stopped(f"{number} stopped", stopping.asked())


class Slow:
    """What takes long to arrive in another process, as a task does whose modules are imported there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return arrive, (self.folder,)


def arrive(folder: Path) -> Slow:
    (folder / f"began{os.getpid()}").touch()
    try:
        time.sleep(1)
    except BaseException as error:  # as an import that is torn would
        raise RecursionError("torn") from error
    return Slow(folder)


def nothing(task: Slow) -> None:
    pass


def wait_or_end_at_once(task: tuple[Path, int]) -> None:
    """Task 0 has nothing to do, so that its process is idle while the others wait for a stop."""
    if task[1]:
        wait_for_a_stop(task)


def go_on_for_ever(task: tuple[Path, int]) -> None:
    folder, number = task
    with stopping.deferred():
        (folder / f"began{number}").touch()
        time.sleep(600)


def kill_itself(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_beside_another(task: tuple[Path, str]) -> None:
    """`dies` ends when `waits` has begun, which would go on for a minute."""
    folder, name = task
    (folder / name).touch()
    if name == "dies":
        _until((folder / "waits").exists)
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def _until(met) -> None:
    deadline = time.monotonic() + 30
    while not met():
        if time.monotonic() > deadline:
            raise TimeoutError("the other process did not come")
        time.sleep(0.01)
