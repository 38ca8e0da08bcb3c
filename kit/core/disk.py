"""What is said where a file cannot be written: the disk is full, the folder is read-only, the name is too long.

Libraries tell it in kinds of their own: safetensors by a SafetensorError, torch by a RuntimeError that names no
cause, numpy by an OSError without a number. All are recognised here, and in this one place become a NotWritten.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.core.errors import KitError, NotWritten

AGAIN = "the same command goes on from what is there"
GO_ON = f"make room, and {AGAIN}"

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_OF_WRITES = (*FULL, errno.EFBIG, errno.EROFS, errno.EIO)  # whatever file they name, one was being written

# How libraries tell that the bytes did not go through, without the number of an error.
_CUT_SHORT = re.compile(
    r"PytorchStreamWriter failed|unexpected pos \d+ vs|basic_ios::clear|\d+ requested and \d+ written"
)
_NUMBER = re.compile(r"\b(?:os error|errno)[ =]+(\d+)", re.IGNORECASE)
_TEXTS = {os.strerror(number): number for number in _OF_WRITES}


@contextmanager
def writing(path: Path, draft: Path | None = None, size: int | None = None) -> Iterator[None]:
    """Turn what goes wrong while a file is written into a NotWritten, whichever library writes it.

    Parameters
    ----------
    path : Path
        The file, or the folder, as the user knows it.
    draft : Path, optional
        What is written before it takes that place, and is removed where that fails.
    size : int, optional
        How many bytes it takes, where that is known before.

    Raises
    ------
    NotWritten
        With the file, what was needed, what is free, and how to go on. Errors of another kind pass as they are.
    """
    try:
        yield
    except KitError:
        raise
    except Exception as error:
        if not _is_ours(error, path, draft):
            raise
        raise NotWritten(_told(error, path, draft, size)) from error


def number_of(error: BaseException | None) -> int | None:
    """Return the number (errno) of the failed write that an error tells of; None where it tells of none.

    Looked for in the error itself, in its text, and in those that it was raised from.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _OF_WRITES:
            return error.errno
        for text, number in _TEXTS.items():
            if text in str(error):
                return number
        if (stated := _NUMBER.search(str(error))) and int(stated[1]) in _OF_WRITES:
            return int(stated[1])
        error = error.__cause__ or error.__context__
    return None


def reason_of(number: int | None) -> str:
    """Return in words why a file could not be written, by the number of the error."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EROFS: "it lies on a disk that is read-only",
        errno.EFBIG: "the file grows larger than the system allows (see `ulimit -f`)",
        errno.EACCES: "you are not allowed to write there",
        errno.EPERM: "you are not allowed to write there",
        errno.ENAMETOOLONG: "its name is longer than the file system allows",
        errno.EIO: "the disk itself fails (input/output error)",
        errno.ENOENT: "its folder is not there any more",
        errno.ENOTDIR: "a part of its path is a file, not a folder",
        errno.EEXIST: "a part of its path is a file, not a folder",  # as mkdir says it
    } | ({errno.EDQUOT: "your share of the disk (its quota) is used up"} if hasattr(errno, "EDQUOT") else {})
    if number is None:
        return "not all bytes could be written"
    return reasons.get(number) or os.strerror(number)


def remedy_of(number: int | None) -> str:
    """Return what to do where a file could not be written, by the number of the error."""
    if number is None or number in FULL:
        return GO_ON
    remedies = {
        errno.EFBIG: f"raise that limit, and {AGAIN}",
        errno.ENAMETOOLONG: "give the experiment, the policy or the folder a shorter name",
        errno.EIO: f"copy what is there to a sound disk; there, {AGAIN}",
    }
    return remedies.get(number) or f"mend that, or name a folder that can be written; {AGAIN}"


def in_bytes(size: float) -> str:
    """Return a number of bytes for people, like 12.3 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def _is_ours(error: Exception, path: Path, draft: Path | None) -> bool:
    """Whether an error tells that this file could not be written, rather than of another or of something else."""
    if number_of(error) is not None or _CUT_SHORT.search(str(error)):
        return True
    if not isinstance(error, OSError) or error.errno is None:
        return False
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    places = [Path(os.path.abspath(place)) for place in (path, draft) if place is not None]
    # That of a temporary file which could not be made is known from the error alone.
    return any(
        named in (place, *place.parents)
        or named.is_relative_to(place)
        or (named.parent == place.parent and named.name.startswith(f".{place.name}."))
        for place in places
        for named in (Path(os.path.abspath(name)) for name in names)
    )


def _told(error: Exception, path: Path, draft: Path | None, size: int | None) -> str:
    number = number_of(error) or getattr(error, "errno", None)
    free = _free(path.parent)
    if number is None and free is not None and free[0] < 1 << 20:  # torch and numpy do not tell what is the matter
        number = errno.ENOSPC
    wrong = f"{path} could not be written: {reason_of(number)}"
    if number is None:
        return f"{wrong} ({' '.join(str(error).split())[:150]}); see whether its disk is full; {GO_ON}"
    if number not in FULL or free is None:
        return f"{wrong}; {remedy_of(number)}"
    written = _size(draft or path)
    if number == errno.ENOSPC and free[1] == 0 and free[0] > max(size or 0, 1 << 20):
        return f"{wrong} (all its inodes are used up: no further file fits); {GO_ON}"
    needed = in_bytes(size) if size else f"more than {in_bytes(written)}"
    return f"{wrong}; it needs {needed}, and {in_bytes(free[0] + (written if draft else 0))} are free; {GO_ON}"


def _free(folder: Path) -> tuple[int, int | None] | None:
    """Bytes, and files (None where that is not told), for which there is room; None where nobody can tell."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        state = os.statvfs(folder) if hasattr(os, "statvfs") else None
    except OSError:
        return None
    return free, state.f_favail if state and state.f_files else None


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where it is not there."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    except OSError:
        return 0
