"""The process on a node from which tasks are forked: each is fresh, and none pays for imports.

A worker of Ray starts it (`kit.experiment.cluster.agent`) and sends it a line for each task; when the worker ends,
it ends, and its children with it. It computes nothing itself, so that nothing of CUDA or of OpenMP is begun.
"""

import base64
import fcntl
import importlib
import io
import json
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from kit.core import progress, stopping
from kit.core.children import starting, work_for_parent
from kit.core.errors import KitError
from kit.experiment.cluster.site import Site

LOOK_SECONDS = 0.02  # between two looks at the children
PATIENCE_SECONDS = 30.0  # for the other processes of a task, once one of them is gone


def serve(events: int) -> None:
    """Carry out the tasks that come on standard input, one after the other.

    Parameters
    ----------
    events : int
        The descriptor of the pipe that takes what happens, a JSON object a line.
    """
    for number in (signal.SIGINT, signal.SIGTERM, stopping.SAVE):  # the worker passes on what is asked
        if number is not None:
            signal.signal(number, signal.SIG_IGN)
    commands = _Commands()
    while (line := commands.next(None)) is not None:
        if line.startswith("{"):
            errand = json.loads(line)
            _preload(errand["task"].partition(":")[0])
            _write(events, {"ended": _carry_out(errand, events, commands)})


@cache
def _preload(module: str) -> None:
    """Import what the tasks of a module need; what is not there is told by the task that needs it.

    That is what its `PRELOAD` names; torch, where it has none.
    """
    with suppress(Exception):
        for name in getattr(importlib.import_module(module), "PRELOAD", ("torch",)):
            importlib.import_module(name)


class _Commands:
    """Lines on standard input."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []

    def next(self, seconds: float | None) -> str | None:
        """Return the next line; "" where none comes in time, None where the worker has ended."""
        while not self._lines:
            if not select.select([0], [], [], seconds)[0]:
                return ""
            part = os.read(0, 1 << 20)
            if not part:
                return None
            *whole, self._rest = (self._rest + part).split(b"\n")
            self._lines += [line.decode() for line in whole]
        return self._lines.pop(0)


def _carry_out(errand: dict[str, Any], events: int, commands: _Commands) -> dict[str, Any]:
    """Fork the processes of a task, pass on what they are asked, and return how they ended.

    That is the exit `code`: of the first that ended badly, and where one was `killed` by a signal that is not of
    this process, its own: what the others raise is then that they miss it.
    """
    port = _free_port() if errand["processes"] > 1 else 0
    sys.stdout.flush()
    children: dict[int, int] = {}  # pid → rank
    with starting(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of threads, which libraries start as they are imported
        for rank in range(errand["processes"]):
            if (pid := os.fork()) == 0:
                _child(errand, rank, port, events)
            children[pid] = rank
    codes: list[int] = []
    killed, until, ended = 0, None, False
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in children:
            del children[pid]
            codes.append(code := os.waitstatus_to_exitcode(status))
            # Once the others are asked to stop they may also end by a library's signal, but none kills them.
            if not killed and not ended and (code == -signal.SIGKILL or (code < 0 and until is None)):
                killed = code
            continue
        if until is None and any(codes):  # not before all were seen that had ended by then
            until = time.monotonic() + PATIENCE_SECONDS
            _signal(children, signal.SIGTERM)
        if until is not None and time.monotonic() > until:
            ended = True
            _signal(children, signal.SIGKILL)
        line = commands.next(LOOK_SECONDS)
        if line is None:
            _signal(children, signal.SIGKILL)
            os._exit(1)
        if line in ("stop", "save"):
            _signal(children, signal.SIGTERM if line == "stop" or stopping.SAVE is None else stopping.SAVE)
    return {"code": killed or next((code for code in codes if code != 0), 0), "killed": killed != 0}


def _signal(children: dict[int, int], number: int) -> None:
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _child(errand: dict[str, Any], rank: int, port: int, events: int) -> NoReturn:
    """Carry out a task in its process, which ends with it."""
    code = 1
    try:
        work_for_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["CUDA_VISIBLE_DEVICES"] = errand["visible"]
        if (size := errand["processes"]) > 1:
            stated = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            stated |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in stated.items()})
        _set_threads(errand["site"]["threads"])
        code = _do(errand, rank, lambda event: _write(events, event))
    except BaseException:  # what is told of on standard error: a fault of this file's
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _do(errand: dict[str, Any], rank: int, tell: Callable[[dict[str, Any]], None]) -> int:
    """Call the task, write down what it makes or tell what it raises, and return the exit code."""
    folder = Path(errand["folder"])
    site = dict(errand["site"])
    site["now"] = site.pop("ahead") + time.monotonic()
    for name in ("parcel", "output", "cache"):
        site[name] = Path(site[name])

    def say(line: str) -> None:
        tell({"say": line})

    try:
        with stopping.told(), _reporting(tell if rank == 0 else None):
            stopping.look()
            module, _, name = errand["task"].partition(":")
            item = pickle.loads((folder / "item").read_bytes())
            made = getattr(importlib.import_module(module), name)(Site(**site, say=say), item)
            if rank == 0:
                (folder / "made").write_bytes(pickle.dumps(made))
    except Exception as error:
        tell({"raised": base64.b64encode(_pickled(error)).decode()})
        return 1
    return 0


class _KnownThere(pickle.Unpickler):
    """Reads what holds nothing but objects of Python and of the kit, which the driver can read as well."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in {"kit", *sys.stdlib_module_names}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module} may not be known there")


def _pickled(error: Exception) -> bytes:
    """Return an error as a pickle that the driver can read; a fault of the program with where it happened.

    One of another kind, as own code or a library raises it, becomes an error with its words.
    """
    where = "".join(traceback.format_exception(error))
    if not isinstance(error, KitError):
        error.add_note(where)
    with suppress(Exception):
        content = pickle.dumps(error)
        if type(_KnownThere(io.BytesIO(content)).load()) is type(error):
            return content
    if isinstance(error, KitError):
        return pickle.dumps(KitError(str(error)))
    plain = RuntimeError(f"{type(error).__qualname__}: {error}")
    plain.add_note(where)
    return pickle.dumps(plain)


def _reporting(tell: Callable[[dict[str, Any]], None] | None) -> AbstractContextManager[None]:
    """Let progress be told instead of shown."""

    def report(title: str, done: int, total: int, note: str, speed: float) -> None:
        if tell is not None:
            tell({"progress": {"done": done, "total": total, "speed": speed}})

    return progress.reporting_to(report)


def _set_threads(threads: int) -> None:
    """Let torch compute with as many threads, where it is there."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)


def _write(events: int, event: dict[str, Any]) -> None:
    """Write a line whole, whatever the other processes of the task write."""
    content = json.dumps(event).encode() + b"\n"
    if len(content) <= select.PIPE_BUF:  # the system keeps it whole
        os.write(events, content)
        return
    with open(__file__, "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while content:
            content = content[os.write(events, content) :]


if __name__ == "__main__":
    serve(int(sys.argv[1]))
