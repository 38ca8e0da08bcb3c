"""Processes from outside: who is left of them, and waiting for what they do."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def until(met: Callable[[], object], seconds: float = 300) -> None:
    """Wait until something is so; it is a failure where that takes too long."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "that never came"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def of_session(session: int) -> list[int]:
    """The living processes of a session, but its first one."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if entry.isdigit() and int(fields[3]) == session and int(entry) != session and fields[0] != "Z":
            found.append(int(entry))
    return found
