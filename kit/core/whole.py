"""Whether a file is what was written: SHA-256 of files, and records that carry their own."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from kit.core.errors import Damaged
from kit.core.files import sha256

_Mark = tuple[int, int, int, int]
_known: dict[str, tuple[_Mark, str]] = {}  # of files that this process has read


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read once a process as long as the file stays as it is.

    Whether it stayed so is told by inode, size and times, as `make` and `rsync` do.

    Parameters
    ----------
    path : Path
        A file that is there.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    real = os.path.realpath(path)
    status = os.stat(real)
    mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _known.get(real)
    if known is None or known[0] != mark:
        known = _known[real] = (mark, sha256(Path(real)))
    return known[1]


def is_whole(path: Path, expected: str) -> bool:
    """Return whether a file is there, can be read and has this SHA-256."""
    try:
        return Path(path).is_file() and digest(path) == expected
    except OSError as error:
        if error.errno == errno.EIO:  # a disk that fails; other errors say nothing of the file
            return False
        raise


def need_whole(path: Path, expected: str, remedy: str) -> None:
    """Raise Damaged where a file is missing, or is not what was written.

    Parameters
    ----------
    path : Path
    expected : str
        The SHA-256 of what was written.
    remedy : str
        What the user can do, as a clause.
    """
    if not Path(path).is_file():
        raise Damaged(f"{path} is missing; {remedy}")
    if not is_whole(path, expected):
        raise Damaged(f"{path} is damaged (its content is not what was written); {remedy}")


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file with its own SHA-256 under `digest`."""
    return {**content, "digest": _digest_of(content)}


def need_sealed(content: dict[str, Any], path: Path, remedy: str) -> None:
    """Raise Damaged where the content of a JSON file is not that of which its `digest` is."""
    if content.get("digest") != _digest_of(content):
        raise Damaged(f"{path} is damaged (its content is not what was written); {remedy}")


def _digest_of(content: dict[str, Any]) -> str:
    """Return the SHA-256 of all but `digest`, as JSON with sorted keys and without spaces."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
