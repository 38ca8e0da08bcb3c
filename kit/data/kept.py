"""Small files of the cache folder: each ends with a digest, and counts only where that is right."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from kit.core.errors import Say, ignore
from kit.core.files import atomic

SEAL = 65  # bytes of a line end and a SHA-256 in hexadecimal
CHUNK = 1 << 20  # bytes


@contextmanager
def keeping(path: Path) -> Iterator[Path]:
    """Write a file that appears whole or not at all, with a digest of its content and name at its end.

    Yields
    ------
    Path
        A temporary file to be written to; of a format that minds nothing behind its end, as zip archives do not.
    """
    with atomic(path) as temporary:
        yield temporary
        seal = _seal(temporary, path.name, temporary.stat().st_size)
        with open(temporary, "ab") as file:
            file.write(seal)


def is_kept(path: Path, say: Say = ignore) -> bool:
    """Return whether a file is there as `keeping` wrote it, under this name; it is said where it is otherwise."""
    try:
        size = path.stat().st_size - SEAL
        with open(path, "rb") as file:
            file.seek(max(0, size))
            seal = file.read()
        if size >= 0 and seal == _seal(path, path.name, size):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        say(f"{path} cannot be read ({error.strerror}): it is made anew")
        return False
    say(f"{path} is damaged, or of an earlier version: it is made anew")
    return False


def keep_json(path: Path, value: Any) -> None:
    """Keep a value of JSON."""
    with keeping(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")


def kept_json(path: Path, say: Say = ignore) -> Any:
    """Return the value that `keep_json` kept; None where it is not there, or damaged, which is said."""
    return json.loads(path.read_bytes()[:-SEAL]) if is_kept(path, say) else None


def _seal(file: Path, name: str, size: int) -> bytes:
    """Return what ends a file whose content has so many bytes."""
    digest = sha256(f"{name}\n".encode())
    with open(file, "rb") as content:
        while size > 0 and (part := content.read(min(size, CHUNK))):
            digest.update(part)
            size -= len(part)
    return f"\n{digest.hexdigest()}".encode()
