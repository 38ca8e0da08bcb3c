"""The manifest of an experiment: what its files are that belong to no single run.

runs/<experiment>/manifest.json holds the SHA-256 of experiment.yaml, folds.csv, the user's own code, each policy's
pooled predictions and scores, and of comparison.json; run.json says the same of a run's files. An experiment
of an earlier version has no manifest, and its files are read without a check.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from kit.core.claims import holding
from kit.core.errors import Damaged, Say, ignore
from kit.core.files import as_record, read_object, write_json
from kit.core.whole import digest, is_whole, need_sealed, need_whole, sealed

NAME = "manifest.json"
REMEDY = "python -m kit run or compare writes it anew"


class _Manifest(BaseModel):
    files: dict[str, str] = {}


@contextmanager
def noting(folder: Path, *paths: Path, say: Say = ignore) -> Iterator[None]:
    """Hold the manifest while files that it names are written within, and note what they are then.

    Before, it forgets them: who is killed in between leaves files that are not checked, not files that seem to be
    damaged. One process at a time writes.

    Parameters
    ----------
    folder : Path
        The experiment's.
    *paths : Path
        The files, below it; those that are not there afterwards are forgotten.
    say : callable
        Takes a line where another process is waited for.

    Raises
    ------
    Damaged
        Where the manifest is not what was written.
    """
    names = [path.relative_to(folder).as_posix() for path in paths]
    with holding(folder / ".manifest", "writes what all runs share", say):
        before = listed(folder)
        others = {name: known for name, known in before.items() if name not in names}
        if others != before:
            _write(folder, others)
        yield
        _write(folder, others | {name: digest(folder / name) for name in names if (folder / name).is_file()})


def listed(folder: Path) -> dict[str, str]:
    """Return path relative to the folder → SHA-256; none where there is no manifest.

    Raises
    ------
    Damaged
        Where the manifest is not what was written.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return {}
    content = read_object(path, REMEDY)
    need_sealed(content, path, REMEDY)
    return as_record(content, _Manifest, path, REMEDY).files


def need_listed(folder: Path, path: Path, remedy: str) -> None:
    """Raise Damaged where a file below the folder is there, and not what the manifest says.

    Parameters
    ----------
    folder : Path
        The experiment's.
    path : Path
    remedy : str
        What the user can do, as a clause.
    """
    name = path.relative_to(folder).as_posix()
    if not path.is_file() or (expected := listed(folder).get(name)) is None or is_whole(path, expected):
        return
    if (now := listed(folder).get(name)) is not None:  # another process may have written it meanwhile
        need_whole(path, now, remedy)


def damaged(folder: Path) -> list[Path]:
    """Return the files that the manifest names and that are missing or not what it says."""
    return [path for name, known in listed(folder).items() if not is_whole(path := Path(folder) / name, known)]


def mend(folder: Path, say: Say) -> None:
    """Remove a damaged manifest, as a command does that writes all that it names anew, and say so."""
    try:
        listed(folder)
    except Damaged:
        say(f"{folder / NAME} is damaged; it is written anew")
        (folder / NAME).unlink(missing_ok=True)


def _write(folder: Path, files: dict[str, str]) -> None:
    write_json(folder / NAME, sealed({"files": dict(sorted(files.items()))}))
