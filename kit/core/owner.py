"""Who a process is: on which machine, which process, begun when; and whether it still lives."""

import os
import platform
import re
import uuid
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process that owns something on disk.

    Attributes
    ----------
    place : str
        16 hexadecimal digits of the machine, its boot, and the namespace in which its processes are numbered.
    pid : int
        Its number there.
    started : int
        When it began, in the system's ticks since the boot: numbers of processes are used again.
    host : str
        The machine's name, for people.
    """

    place: str
    pid: int
    started: int
    host: str = ""

    @classmethod
    def mine(cls) -> "Owner":
        """Return the owner that this process is."""
        return _mine(os.getpid())

    @classmethod
    def of_tag(cls, tag: str) -> "Owner | None":
        """Return the owner whose `tag` this is; None where it is no tag."""
        parts = re.fullmatch(r"([0-9a-f]{16})-(\d+)-(\d+)", tag)
        return cls(parts[1], int(parts[2]), int(parts[3])) if parts else None

    @property
    def tag(self) -> str:
        """The owner in the characters of file names, without the name of its machine."""
        return f"{self.place}-{self.pid}-{self.started}"

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None where that cannot be known from here: another machine or container."""
        if self.place != _place():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'a machine'}"


@cache
def _mine(pid: int) -> Owner:
    """Of this process; by its number, as a fork would find its parent in the cache."""
    return Owner(_place(), pid, _started(pid) or 0, platform.node())


@cache
def _place() -> str:
    """Of this process: numbers of processes mean the same where the place is the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux
        boot, space = f"{uuid.getnode():x}", platform.node()
    return sha256(f"{boot} {space}".encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When the process of this number began; None where there is none, or only what is left of one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return _started_elsewhere(pid)
    except OSError:  # hidden from this user
        return None
    fields = stat.rpartition(b")")[2].split()  # behind the name, which may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _started_elsewhere(pid: int) -> int | None:
    import psutil  # accelerate brings it

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(100 * process.create_time())
    except psutil.Error:
        return None
