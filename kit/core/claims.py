"""Claims: one process at a time works on a thing on disk, of this machine or of others that share the folder.

A claim on `folder/thing` is a file `folder/thing.N.claim`; the highest N counts. It comes to be by exclusive
creation alone, which holds on local disks and on NFS without any lock, and it dies with its owner: on the same
machine its process is looked for; a claim of another machine is dead when its heartbeat has not changed for a
minute (`PATIENCE`) by the clock of the one that looks, so that clocks of machines are never compared. Who takes a
dead claim over makes the next N, which one alone can do, and looks again whether what it took for dead still is.
An owner that was taken for dead, like a laptop that slept, finds that out by itself (`Claim.need`).
"""

import errno
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from kit.core.errors import KitError, Say, ignore
from kit.core.owner import Owner

HEARTBEAT = 10.0  # seconds between two beats of a claim
LINE_AFTER = 1.0  # seconds of waiting before a line is said: most claims are short
PATIENCE = 60.0  # seconds without a beat after which a claim of another machine is dead
LINKLESS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Holder:
    """Who holds a claim, as its file says.

    Attributes
    ----------
    owner : Owner or None
        None where the file is still being written, or is damaged.
    what : str
        What it does, like "trains uniform seed 0 fold 1".
    since : str
        When it began, in ISO 8601 by the clock of its machine, for people alone.
    """

    owner: Owner | None
    what: str = ""
    since: str = ""

    def __str__(self) -> str:
        since = f", since {self.since}" if self.since else ""
        return f"{self.owner or 'a process'} ({self.what or 'at work'}{since})"


class Claim:
    """A claim that this process holds; as a context manager it is given up at the end.

    Attributes
    ----------
    after : Holder or None
        Who died with the thing in its hands, where the claim was taken over.
    """

    def __init__(self, path: Path, number: int, content: dict[str, Any], after: Holder | None = None):
        self.path, self.number, self.after, self._content = path, number, after, content
        self._pid, self.lost, self._released = os.getpid(), False, False
        self._writing = threading.Lock()  # a beat must not write the file anew that a release removes

    @property
    def file(self) -> Path:
        """The file that is the claim."""
        return _file(self.path, self.number)

    def need(self) -> None:
        """Raise KitError where another process has taken this one for dead and works in its place."""
        newest = max(_numbers(self.path), default=0)
        if self.lost or newest > self.number or not self._is_mine:
            self._lose()
            other = f" by {_read(_file(self.path, newest))[0]}" if newest > self.number else ""
            raise KitError(
                f"{self.path}: this process was not heard of for {PATIENCE:.0f} s and was taken for dead, and its "
                f"work was taken over{other}; it stops here"
            )

    def beat(self) -> None:
        """Let others see that the owner lives; a claim that was taken over is left alone."""
        if self.lost or os.getpid() != self._pid:
            return
        with (
            self._writing,
            suppress(OSError),
        ):  # a disk that is full or away for a while: the next beat may succeed
            if self._released:
                return
            if max(_numbers(self.path), default=0) != self.number or not self._is_mine:
                self._lose()
                return
            self._content["beat"] += 1
            draft = _draft(self.path, self._content)
            try:
                os.replace(draft, self.file)
            finally:
                draft.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the claim up; not in a fork, which has only a copy."""
        if os.getpid() != self._pid:
            return
        _beating.discard(self)
        with self._writing, suppress(OSError):
            self._released = True
            if not self.lost and self._is_mine:
                self.file.unlink(missing_ok=True)

    @property
    def _is_mine(self) -> bool:
        """Whether the file is this claim: after others took it over and gave it up, it may be a new one's."""
        return _token(self.file) == self._content["token"]

    def _lose(self) -> None:
        """Note that it was taken over; what is left of it does not stand in the way."""
        self.lost = True
        if self._is_mine:
            with suppress(OSError):
                self.file.unlink(missing_ok=True)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim(path: Path, what: str) -> Claim | None:
    """Claim a thing on disk, unless a living process holds it.

    Parameters
    ----------
    path : Path
        The thing, which need not be there; its folder is made.
    what : str
        What is done to it, for those that wait: "trains uniform seed 0 fold 1".

    Returns
    -------
    Claim or None
        None where another holds it, or may hold it: a claim of another machine counts for a minute after its last
        beat that this process has seen.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    there = _numbers(path)
    if _held(path) is not None:
        return None
    content = {**asdict(Owner.mine()), "what": what, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    content |= {"token": secrets.token_hex(8), "beat": 0}
    after = _read(_file(path, there[-1]))[0] if there else None
    made = Claim(path, max(there, default=0) + 1, content, after)
    try:
        if not _made_of_draft(made, content):
            return None
    except FileNotFoundError:  # the folder was taken away, perhaps for another in its place
        return None
    # Meanwhile all that was seen may have been given up, and another have begun from nothing.
    *before, newest = _numbers(path)
    if newest != made.number or any(_lives(_file(path, number)) is not False for number in before):
        made.file.unlink(missing_ok=True)
        return None
    for number in before:
        _file(path, number).unlink(missing_ok=True)
    _beating.add(made)
    return made


@contextmanager
def holding(
    path: Path, what: str, say: Say = ignore, tick: float = 0.2, expired: Callable[[], bool] = lambda: False
) -> Iterator[Claim]:
    """Hold a claim while the context is open, waiting until it can be had.

    Parameters
    ----------
    path, what
        As for `claim`.
    say : callable
        Takes a line that says for whom it waits.
    tick : float
        Seconds between two looks.
    expired : callable
        Asked while it waits; once it is true, that is given up.

    Raises
    ------
    TimeoutError
        Where the waiting was given up.
    RuntimeError
        Where this very thread holds it already: it would wait for itself.
    """
    path, told, began = Path(path), "", time.monotonic()
    while (made := claim(path, what)) is None:
        if _beating.holds_here(path):
            raise RuntimeError(f"{path} is claimed twice by one thread")
        holder = holder_of(path)
        if holder and str(holder.owner) != told and time.monotonic() - began > LINE_AFTER:
            told = str(holder.owner)
            say(f"waits for {holder}")
        if expired():
            raise TimeoutError(f"{path} is claimed by {holder}")
        time.sleep(tick)
    with made:
        yield made


def holder_of(path: Path) -> Holder | None:
    """Return who holds a claim on a thing and lives, or may live; None where nobody does."""
    number = _held(Path(path))
    return None if number is None else _read(_file(Path(path), number))[0]


def living_holder(path: Path, say: Say = ignore) -> Holder | None:
    """Return who holds a claim on a thing and lives for certain; else None. To find out may take a minute."""
    told = False
    while True:
        number = _held(Path(path))
        if number is None or _lives(_file(Path(path), number)):
            return None if number is None else _read(_file(Path(path), number))[0]
        if not told:
            say(f"looks whether {holder_of(path)} still lives")
            told = True
        time.sleep(0.5)


def dead_claims(folder: Path) -> list[Path]:
    """Return the files of claims in a folder whose owners are known to be dead."""
    return [file for file in sorted(Path(folder).glob("*.claim")) if _lives(file) is False]


def claimed(folder: Path, pattern: str) -> list[Path]:
    """Return the things below a folder, of paths like `pattern`, on which there are claims, living or dead."""
    files = sorted(Path(folder).glob(f"{pattern}.*.claim"))
    return list(dict.fromkeys(file.with_name(file.name.rsplit(".", 2)[0]) for file in files))


class _Beating:
    """The claims that this process holds, and the thread that lets their hearts beat."""

    def __init__(self) -> None:
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._claims: dict[Claim, int] = {}  # with the thread that made each
        self._thread: threading.Thread | None = None

    def add(self, made: Claim) -> None:
        self._own()
        with self._lock:
            self._claims[made] = threading.get_ident()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()

    def discard(self, made: Claim) -> None:
        self._own()
        with self._lock:
            self._claims.pop(made, None)

    def holds_here(self, path: Path) -> bool:
        """Whether this very thread holds a claim on the path."""
        self._own()
        with self._lock:
            return any(each.path == path and at == threading.get_ident() for each, at in self._claims.items())

    def _own(self) -> None:
        """In a fork, begin anew: neither the claims nor the thread are the fork's."""
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]

    def _run(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            with self._lock:
                claims = list(self._claims)
                if not claims:
                    self._thread = None
                    return
            for each in claims:
                each.beat()


_beating = _Beating()
_seen: dict[Path, tuple[bytes, float, bool]] = {}  # a foreign claim → content, since when, whether it ever changed


def _lives(file: Path) -> bool | None:
    """Whether the owner of a claim lives; None where that is not known yet."""
    holder, content = _read(file)
    if content is None:
        _seen.pop(file, None)
        return False
    if holder.owner and (alive := holder.owner.alive) is not None:
        return alive
    now = time.monotonic()
    before, since, beats = _seen.get(file, (content, now, False))
    if content != before:
        since, beats = now, True
    _seen[file] = content, since, beats
    if now - since > PATIENCE:
        return False
    return True if beats else None


def _read(file: Path) -> tuple[Holder, bytes | None]:
    """Return what a claim says, and its bytes; None where there is no such file."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return Holder(None), None
    except OSError as error:  # over NFS, or for want of open files: nothing is known of it
        return Holder(None), str(error.errno).encode()
    try:
        said = json.loads(content)
        owner = Owner(str(said["place"]), int(said["pid"]), int(said["started"]), str(said["host"]))
        return Holder(owner, str(said["what"]), str(said["since"])), content
    except (ValueError, KeyError, TypeError):
        return Holder(None), content


def _held(path: Path) -> int | None:
    """The number of the newest claim whose owner is not known to be dead; None where there is none."""
    return next((number for number in reversed(_numbers(path)) if _lives(_file(path, number)) is not False), None)


def _token(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_bytes())["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}.claim")


def _numbers(path: Path) -> list[int]:
    """The numbers of the claims on a path, living or dead."""
    form = re.compile(re.escape(path.name) + r"\.(\d+)\.claim")
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in map(form.fullmatch, names) if match)


def _draft(path: Path, content: dict[str, Any]) -> Path:
    """Write a claim's content beside it, under a name that no other process uses."""
    draft = path.with_name(f".{path.name}.{Owner.mine().tag}.{threading.get_ident()}.tmp")
    try:
        draft.write_text(json.dumps(content), encoding="utf-8")
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _made_of_draft(made: Claim, content: dict[str, Any]) -> bool:
    """Write a draft and make the claim's file of it; False where that is there already."""
    draft = _draft(made.path, content)
    try:
        return _made(draft, made.file, content)
    finally:
        draft.unlink(missing_ok=True)


def _made(draft: Path, file: Path, content: dict[str, Any]) -> bool:
    """Make the claim's file with the draft's content; False where it is there already."""
    try:
        os.link(draft, file)
    except FileExistsError:
        # Over NFS an answer may be lost and the call repeated: a second name of the draft tells that it was made.
        return draft.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in LINKLESS:
            raise
        try:
            with open(file, "x", encoding="utf-8") as exclusive:
                exclusive.write(json.dumps(content))
        except FileExistsError:
            return False
    return True
