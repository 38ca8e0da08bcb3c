"""Write files whole or not at all, read JSON records, and check names and tables from elsewhere."""

import csv
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kit.core.disk import writing
from kit.core.errors import Damaged, KitError
from kit.core.owner import Owner

Model = TypeVar("Model", bound=BaseModel)

# Characters that no file name from elsewhere may hold, as the inside of a regular expression's brackets.
UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"

# The names of devices, which Windows refuses in every folder.
DEVICES = r"(?i:con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])"


@contextmanager
def atomic(path: Path, size: int | None = None) -> Iterator[Path]:
    """Write a file so that it appears whole or not at all.

    On success the temporary file is flushed to disk and renamed to `path`. On an exception it is removed, and
    `path` is left as it was. Missing folders above `path` are made.

    Parameters
    ----------
    path : Path
        The file to write, or to replace.
    size : int, optional
        How many bytes it takes, where that is known before: told where the disk is full.

    Yields
    ------
    Path
        An empty temporary file beside `path`, with the same suffix, to be written to.

    Raises
    ------
    NotWritten
        Where the disk is full, read-only or broken, whichever library wrote.
    """
    path = Path(path)
    end = f".tmp{path.suffix}"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_beginning(path, end), suffix=end, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with writing(path, temporary, size):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; these are meant to be shared
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder so that it appears whole or not at all.

    On success the new folder takes the place of `path`, and what was there is removed. On an exception the new
    folder is removed, and `path` is left as it was. What was there is renamed before, and removed after, the new
    one takes its place, so that a kill at any moment leaves one of the two whole.

    Parameters
    ----------
    path : Path
        The folder to make, or to replace.

    Yields
    ------
    Path
        An empty folder beside `path`, to be filled.

    Raises
    ------
    NotWritten
        Where the disk is full, read-only or broken.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=_beginning(path, ".former"), suffix=".tmp", dir=path.parent))
    former = draft.with_suffix(".former")
    try:
        with writing(path, draft):
            yield draft
            draft.chmod(0o777 & ~_umask())
            if path.exists():
                os.replace(path, former)
            try:
                os.replace(draft, path)
            except BaseException:
                if former.exists():
                    os.replace(former, path)
                raise
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _beginning(path: Path, end: str) -> str:
    """Return how the name of a temporary file beside `path` begins; it tells whose it is, see `core.litter`."""
    tag = Owner.mine().tag
    left = max(1, 255 - len(f"..{tag}.12345678{end}".encode()))
    return f".{path.name.encode()[:left].decode(errors='ignore')}.{tag}."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` to a file at once, in UTF-8 with Unix line ends."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file at once."""
    with atomic(path, len(content)) as temporary:
        temporary.write_bytes(content)


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file, in UTF-8: all of it, or where that cannot be written, nothing.

    Raises
    ------
    NotWritten
        Where the disk is full, read-only or broken.
    """
    content = text.encode()
    with writing(path, size=len(content)), open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except BaseException:
            file.truncate(before)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` to a file at once, as indented JSON that ends with a line end."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Return what a text in JSON holds; ValueError where it is none, or lies too deep in itself to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("too many lists and objects in each other") from error


def read_json(path: Path, remedy: str) -> Any:
    """Return the content of a JSON file that the kit wrote.

    Parameters
    ----------
    path : Path
        The file, which is there.
    remedy : str
        What the user can do where the file is damaged, to stand at the end of the error's message.

    Returns
    -------
    object
        The parsed content, of whatever type it is.

    Raises
    ------
    Damaged
        Where the file cannot be read, is not text in UTF-8 or is not JSON.
    """
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # what is not UTF-8 and what is not JSON are both ValueErrors
        raise Damaged(f"{path} is damaged ({error}); {remedy}") from error


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object; Damaged as in `read_json`, and where it holds anything else."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise Damaged(f"{path} is damaged (it holds no object); {remedy}")
    return content


def read_record(path: Path, model: type[Model], remedy: str) -> Model:
    """Read a JSON file into a pydantic model.

    Parameters
    ----------
    path : Path
    model : type
        What the file is to hold.
    remedy : str
        What to do where it is damaged, as a clause.

    Raises
    ------
    Damaged
        Where it cannot be read, is no JSON, or holds something else than the model.
    """
    return as_record(read_json(path, remedy), model, path, remedy)


def as_record(content: Any, model: type[Model], path: Path, remedy: str) -> Model:
    """Return what a JSON file holds as a pydantic model; Damaged as in `read_record` where it is none."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise Damaged(f"{path} is damaged ({where}: {first['msg']}); {remedy}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def need_writable(folder: Path) -> None:
    """Make the folder and try to write there; raise KitError where that is not possible."""
    if reason := _refusal(folder):
        raise KitError(f"{folder} cannot be written ({reason}); give --output DIR that can")


def need_output(option: str, file: str | None, suffixes: tuple[str, ...]) -> None:
    """Check before work begins that the file which an option names can be written.

    Parameters
    ----------
    option : str
        The option's name, for the error's message.
    file : str or None
        What the option says; None where it was not given, which is fine.
    suffixes : tuple of str
        The endings that the file's name may have, each with its dot, in small letters.

    Raises
    ------
    KitError
        Where the name ends otherwise, is that of a folder, or its folder cannot be written.
    """
    if file is None:
        return
    path = Path(file)
    if path.suffix.lower() not in suffixes:
        raise KitError(f"{option} {file}: the name has to end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise KitError(f"{option} {file}: is a folder")
    if reason := _refusal(path.parent):
        raise KitError(f"{option} {file}: cannot be written ({reason})")


def _refusal(folder: Path) -> str | None:
    """Return why nothing can be written into the folder, which is made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except FileExistsError:
        return "a part of its path is a file, not a folder"
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__


def is_safe(name: str) -> bool:
    """Return whether a name from elsewhere is that of a file below a folder, on every system.

    Parameters
    ----------
    name : str
        A relative path with "/" between its parts.
    """
    if re.search(rf'[\\:<>"|?*{UNPRINTABLE}]', name) or len(name.encode()) > 1000:
        return False
    return all(
        part not in ("", ".", "..")
        and part == part.strip()
        and not part.endswith(".")
        and len(part.encode()) <= 255
        and not re.fullmatch(rf"{DEVICES}\s*(\..*)?", part)
        for part in name.split("/")
    )


def first_overlong_line(path: Path) -> int | None:
    """Return the number of the first line of a CSV table that has more cells than there are column names.

    pandas does not tell where it reads some of the columns only.

    Returns
    -------
    int or None
        Counted from 1; None where there is no such line.
    """
    names: int | None = None
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if '"' in line:  # a comma may be part of a cell
                break
            commas = line.count(",")
            if names is None:
                names = commas if line.strip() else None
            elif commas > names:
                return number
        else:
            return None
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        names = len(next((row for row in rows if row), []))
        return next((rows.line_num for row in rows if len(row) > names), None)
