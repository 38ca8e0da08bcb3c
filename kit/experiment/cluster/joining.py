"""A cluster of Ray is started or joined."""

import ctypes
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kit.core import stopping
from kit.core.errors import KitError, Say, some

INSTALL = "pip install -r requirements-ray.txt"
CONNECT_SECONDS = 10.0
M_ARENA_MAX = -8  # of glibc's malloc.h
CHOICES = "ray (starts one here), auto (joins the one of this machine, or of RAY_ADDRESS) or ray://HOST:10001"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else the folder travels where the command is run by uv
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # tasks without a GPU are told so by the kit
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # each error is told once, by the kit
}


def need_ray(on: str) -> None:
    """Raise KitError where `on` names no cluster, Ray is not installed, or this copy of the kit is a kernel's."""
    host, _, port = on.removeprefix("ray://").rpartition(":")
    by_client = on.startswith("ray://") and host and port.isdecimal()
    if on not in ("ray", "auto") and not by_client:
        raise KitError(f"--on {on}: names no cluster; it takes {CHOICES}")
    if importlib.util.find_spec("ray") is None:
        raise KitError(f"--on {on}: Ray is not installed; {INSTALL}")
    if not importlib.util.find_spec("kit.experiment.cluster.cluster"):
        raise KitError(f"--on {on}: the kit of a kernel joins no cluster; run it where the whole kit is")


def join_ray(on: str, say: Say) -> bool:
    """Start or join a cluster, and say what it has.

    Parameters
    ----------
    on : str
        "ray" starts one on this machine; "auto" joins the one that runs here or that RAY_ADDRESS names; "ray://…"
        joins through Ray's client.
    say : callable

    Returns
    -------
    bool
        Whether it is to be left at the end: False where this process had joined it before.

    Raises
    ------
    KitError
        Where `on` names none, Ray is not installed, or nobody answers.
    """
    need_ray(on)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with stopping.telling("while a cluster was joined; the same command begins again"), _own_signals():
        import ray

        joined = ray.is_initialized()
        if joined and on != "auto":
            raise KitError(f"--on {on}: this process is in a cluster of Ray already; --on auto uses that one")
        address = {"ray": "local", "auto": "auto"}.get(on, on)
        if not joined:
            _need_answer(on)
        context: Any = None
        with _left_again(not joined):
            try:
                if not joined:
                    _share_arenas()
                    context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
                    stopping.look()  # Ray drops interruptions here and there
            except Exception as error:  # of many kinds, by what does not answer
                raise KitError(f"--on {on}: {_refused(on, error)}") from error
            say(_told(context))
    return not joined


def _share_arenas() -> None:
    """Let all threads take memory from one arena.

    glibc gives threads an arena each. What Ray's many threads free in theirs stays there in small pieces, and this
    process grows with every task: by about 80 kB with the usual arenas, 35 kB with one (benchmarks/cluster.py).
    """
    with suppress(OSError, AttributeError, TypeError):  # another library of C, or Windows, which has no such
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


@contextmanager
def _left_again(leave: bool) -> Iterator[None]:
    """Leave the cluster where something raises within."""
    try:
        yield
    except BaseException:
        leave_ray(leave)
        raise


def leave_ray(leave: bool) -> None:
    """Leave the cluster that this process is in, where it is to; what fails at that is nobody's matter."""
    if leave:
        import ray

        with suppress(Exception):
            ray.shutdown()


def _need_answer(on: str) -> None:
    """Raise KitError where nobody listens at the address of a cluster; Ray itself tries for minutes."""
    address = on
    if on == "auto":
        from ray._private.utils import read_ray_address

        address = os.environ.get("RAY_ADDRESS") or read_ray_address() or ""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise KitError(f"--on {on}: {_refused(on, error, f'at {host}:{port} ')}") from error


def _refused(on: str, error: Exception, where: str = "") -> str:
    """Return why a cluster could not be joined, and what to do."""
    why = some([str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__])
    if on == "ray":
        return f"Ray does not start here ({why})"
    if "ersion" in why:
        return f"{why}; install the cluster's versions of Python and Ray here"
    if on == "auto":
        return f"no cluster of Ray answers {where}({why}); start one with `ray start --head`, or give --on ray"
    return f"no cluster of Ray answers there ({why}); look whether it runs, and whether its port can be reached"


def _told(context: Any) -> str:
    import ray

    has = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    counted = [(nodes, "node"), (int(has.get("CPU", 0)), "core"), (int(has.get("GPU", 0)), "GPU")]
    line = "cluster: " + ", ".join(f"{number} {name}{'' if number == 1 else 's'}" for number, name in counted)
    dashboard = getattr(context, "dashboard_url", None)
    return line + (f"; dashboard at http://{dashboard}" if dashboard else "")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers of signals: Ray takes SIGTERM for itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
