"""The log of what was handed in, submissions/log.csv: read, and written by one process at a time.

Beside it stands the digest of what the kit wrote (log.csv.sha256), so that a log which was changed since is told,
once: people may edit it. The digest is written first, with that of the log before, then the log, then the digest
alone: whenever that is interrupted, the log is one that is known.
"""

import csv
import io
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

from kit.core.claims import holding
from kit.core.errors import KitError, Say, some, tell
from kit.core.files import write_bytes, write_text
from kit.core.paths import OutputDirs

NAME = "log.csv"
WHAT = "writes the log of submissions"
MENDS = "mend it, bring it back from a copy, or move it away to begin a new one"


@dataclass(frozen=True)
class LogEntry:
    """One row of submissions/log.csv.

    Attributes
    ----------
    time : str
        When it was handed in, in ISO 8601.
    competition : str
        Kaggle's name of it.
    file : str
        The submission file, or owner/slug and version of the kernel.
    sha256 : str
        Of the file, or of what was pushed.
    experiment : str
        Its name, or the blend's.
    policy : str
        By the file's name; "" where it is not one that `kit run` gives.
    cv : str
        The pooled out-of-fold score of the experiment's policy, or of the blend.
    ref : str
        Kaggle's number of the submission; "" until it is known.
    status : str
        PENDING, COMPLETE, ERROR, REFUSED where Kaggle did not take it, or UNKNOWN from before it is sent until
        Kaggle's answer, and on where that was lost; BY HAND where Kaggle takes it on its page at most.
    public, private : str
        Kaggle's scores; "" until they are known.
    message : str
        What Kaggle shows beside it, in one line; "" in a log of an older kit.
    """

    time: str
    competition: str
    file: str
    sha256: str
    experiment: str = ""
    policy: str = ""
    cv: str = ""
    ref: str = ""
    status: str = ""
    public: str = ""
    private: str = ""
    message: str = ""


def read_log(dirs: OutputDirs, say: Say = tell) -> list[LogEntry]:
    """Return the rows of submissions/log.csv, oldest first.

    Parameters
    ----------
    dirs : OutputDirs
    say : callable
        Takes a line where the log was changed, or removed, since the kit wrote it; once, then it counts as it is.

    Raises
    ------
    KitError
        Where it is cut, empty, or no table of the kit's.
    """
    path = _path(dirs)
    rows, content = _rows_in(path)
    if _is_known(path, content):
        return rows
    try:
        with holding(path, WHAT, say):
            rows, content = _rows_in(path)
            if not _is_known(path, content):  # nor was it being written meanwhile
                _say_changed(path, rows, content, say)
                _stamp(path, rows, content)
    except OSError:  # where nothing can be written, it is said each time
        _say_changed(path, rows, content, say)
    return rows


def write_entry(
    entry: LogEntry,
    dirs: OutputDirs,
    before: LogEntry | None = None,
    say: Say = tell,
    check: Callable[[list[LogEntry]], None] = lambda rows: None,
) -> None:
    """Write the entry in the place of `before`, or of the row with its ref; at the end where there is neither.

    Another process that writes is waited for.

    Parameters
    ----------
    entry : LogEntry
    dirs : OutputDirs
    before : LogEntry, optional
        The row as it was read. Where another process has changed it meanwhile, it is found by what was handed in.
    say : callable
        Takes a line where another process is waited for, and as in `read_log`.
    check : callable
        Called with the rows before anything is written, while no other process can write; it may raise.
    """
    path = _path(dirs)
    with holding(path, WHAT, say):
        rows, content = _rows_in(path)
        if not _is_known(path, content):
            _say_changed(path, rows, content, say)
        check(rows)
        at = _place(entry, rows, before)
        rows[at : at + 1] = [entry]
        written = _as_csv(rows)
        _stamp(path, rows, written, content)
        write_bytes(path, written)
        _stamp(path, rows, written)


def _path(dirs: OutputDirs) -> Path:
    return dirs.submissions / NAME


def _place(entry: LogEntry, rows: list[LogEntry], before: LogEntry | None) -> int:
    """Return the number of the row that an entry replaces; that of a new row where it replaces none."""

    def is_same(row: LogEntry) -> bool:
        """Whether another process has given this row an end without a number, as this one is about to."""
        return bool(before) and not row.ref and _identity(row) == _identity(before or row)

    for fits in (lambda row: row == before, lambda row: bool(entry.ref) and row.ref == entry.ref, is_same):
        for at, row in enumerate(rows):
            if fits(row):
                return at
    return len(rows)


def _identity(row: LogEntry) -> tuple[str, ...]:
    return row.time, row.competition, row.file, row.sha256, row.message


def _rows_in(path: Path) -> tuple[list[LogEntry], bytes | None]:
    """Return the rows of a log and its bytes; no rows and None where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], None
    try:
        return _parsed(content), content
    except (ValueError, csv.Error) as error:  # among them what is not UTF-8
        raise KitError(f"{path} is damaged ({error}); {MENDS}") from error
    except KitError as error:
        raise KitError(f"{path} {error}") from None


def _parsed(content: bytes) -> list[LogEntry]:
    """Return the rows of a log; KitError, ValueError or csv.Error where it is none."""
    text = content.decode("utf-8-sig")  # Excel begins with a mark
    if not text.strip():
        raise ValueError("it is empty")
    if "\0" in text:
        raise ValueError("it holds zeros")
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(table)
    known = [field.name for field in fields(LogEntry) if field.name != "message"]
    if lacking := [name for name in known if name not in names]:
        raise KitError(f"has no column {some(lacking)}; it is not the kit's log: move it away")
    rows = []
    for cells in table:
        if cells and len(cells) != len(names):
            raise ValueError(f"line {table.line_num} has {len(cells)} cells, and its head {len(names)}")
        row = dict(zip(names, cells, strict=False))
        if row:
            rows.append(LogEntry(**{field.name: row.get(field.name, "") for field in fields(LogEntry)}))
    if not text.endswith(("\n", "\r")):
        raise ValueError("its last line has no end")
    return rows


def _as_csv(rows: list[LogEntry]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(LogEntry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    return text.getvalue().encode()


# The digest beside the log


def _stamps(path: Path) -> dict[str, int]:
    """Return the digests of what the log may be, each with its number of rows; none where nothing is known."""
    try:
        text = path.with_name(f"{NAME}.sha256").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    return {match[1]: int(match[2]) for match in re.finditer(r"(?m)^([0-9a-f]{64})  (\d+) rows$", text)}


def _is_known(path: Path, content: bytes | None) -> bool:
    """Whether a log is as the kit wrote it, or nothing is known of what it wrote."""
    stamps = _stamps(path)
    return not stamps or (content is not None and sha256(content).hexdigest() in stamps)


def _say_changed(path: Path, rows: list[LogEntry], content: bytes | None, say: Say) -> None:
    then = next(iter(_stamps(path).values()))
    what = f"was changed since the kit wrote it ({then} rows then, {len(rows)} now), and is taken as it is now"
    if content is None:
        what = f"is gone ({then} rows when the kit wrote it), and a new one begins"
    say(f"{path} {what}; where that was not you, bring it back from a copy")


def _stamp(path: Path, rows: list[LogEntry], content: bytes | None, former: bytes | None = None) -> None:
    """Write down which log is right, and which was before it is written."""
    stamp = path.with_name(f"{NAME}.sha256")
    if content is None:
        with suppress(FileNotFoundError):
            stamp.unlink()
        return
    lines = [f"{sha256(content).hexdigest()}  {len(rows)} rows\n"]
    if former is not None:
        lines.append(f"{sha256(former).hexdigest()}  {len(_parsed(former))} rows\n")
    write_text(stamp, "".join(lines))
