"""Reading tables as Kaggle gives them, or with a reader of the user's own, every cell as text."""

import csv
import json
from collections.abc import Sequence
from datetime import datetime, time
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kit.competition import formats
from kit.competition.config import TablesConfig
from kit.competition.formats import Dialect, dialect_of, format_of, is_table, too_many_cells
from kit.competition.spelling import shown
from kit.core.errors import KitError, some
from kit.core.files import first_overlong_line


class LabelLists(NamedTuple):
    """The column whose cells may be lists of labels, and what then stands between them in the text."""

    column: str
    separator: str | None


def read_table(
    path: Path,
    key: str,
    without: Sequence[str] = (),
    reader: TablesConfig | None = None,
    lists: LabelLists | None = None,
) -> pd.DataFrame:
    """Read a table with every cell as text, so that the ids 007 and 7 differ and a label NA is a label.

    The file's ending tells its format: CSV (with commas, semicolons, tabs or bars; also compressed), .tsv,
    .parquet, .json or .jsonl.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        The place in the config that names it, for messages.
    without : sequence of str
        Columns to leave out.
    reader : TablesConfig, optional
        The user's own, which reads the file.
    lists : LabelLists, optional
        A column in which lists are labels, which become text; in other columns of JSON and parquet they become
        JSON.

    Returns
    -------
    DataFrame
        An empty cell is "". Numbers of a parquet or JSON file, or of a reader, become text as a CSV file has them,
        3.0 as 3, dates without a time of day as 2024-05-31; what is missing is an empty cell.

    Raises
    ------
    KitError
        Where the file is no such table.
    """
    if reader:
        table = _read_own(path, key, reader, lists)
        return table.drop(columns=[name for name in without if name in table])
    _need_file(path, key)
    if format_of(path) != "csv":
        columns = formats.read_columns(path, key, without)
        rows = len(next(iter(columns.values()), ()))
        return _as_table(columns, rows, f"{key}: {path}: column", lists, nested=True)
    dialect, left_out = dialect_of(path, key), set(without)
    kept = (lambda name: name not in left_out) if left_out else None
    table = formats.read_csv(path, key, dialect, usecols=kept).fillna("")  # of short lines
    if left_out and dialect.plain and (line := _first_overlong_line(path, key)):
        raise too_many_cells(path, key, line)
    return table


def read_submission(path: Path, key: str) -> pd.DataFrame:
    """Read a CSV file with commas in UTF-8, which is what Kaggle takes, every cell as text.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        What it is, for messages.
    """
    _need_file(path, key)
    return formats.read_csv(path, key, Dialect()).fillna("")


def column_names(path: Path, key: str, reader: TablesConfig | None = None) -> list[str]:
    """Return the column names of a table; `key` is the place in the config that names it."""
    if reader:
        return list(_read_own(path, key, reader).columns)
    _need_file(path, key)
    if format_of(path) != "csv":
        return list(formats.read_columns(path, key))
    return list(formats.read_csv(path, key, dialect_of(path, key), nrows=0).columns)


def need_plain_csv(path: Path, key: str) -> None:
    """Fail unless a table is a CSV file with commas, the one in which pixels may stand."""
    _need_file(path, key)
    if format_of(path) != "csv" or path.suffix.lower() in formats.COMPRESSED or not dialect_of(path, key).plain:
        raise KitError(f"{key}: pixels can be read from CSV files with commas in UTF-8 only; {path} is none")


def _need_file(path: Path, key: str) -> None:
    if path.is_dir():
        raise KitError(f"{key}: {path} is a folder; give a CSV file")
    _need_there(path, key)


def _need_there(path: Path, key: str) -> None:
    if not path.exists():
        raise KitError(f"{key}: {path} does not exist{_siblings(path)}")


def _read_own(path: Path, key: str, reader: TablesConfig, lists: LabelLists | None = None) -> pd.DataFrame:
    """Return what the user's reader gives, every cell as text."""
    _need_there(path, key)
    try:
        function = reader.function
    except KitError as error:
        raise KitError(f"competition.tables: {error}") from error
    place = f"{key}: {path}"
    try:
        table = reader.code.call(function, path)
    except KitError as error:
        raise KitError(f"{place}: {error}") from error
    if not isinstance(table, pd.DataFrame):
        raise KitError(f"{place}: {reader.name} gives {type(table).__name__}; a pandas DataFrame is needed")
    if isinstance(table.columns, pd.MultiIndex):
        raise KitError(f"{place}: {reader.name} gives columns of several levels; one name a column is needed")
    names = [str(name) for name in table.columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise KitError(f"{place}: {reader.name} gives the column {twice[0]!r} more than once")
    columns = {name: table.iloc[:, at].array for at, name in enumerate(names)}
    return _as_table(columns, len(table), f"{place}: {reader.name} gives in column", lists)


def _as_table(
    columns: formats.Columns, rows: int, place: str, lists: LabelLists | None, nested: bool = False
) -> pd.DataFrame:
    """Return columns as text; `nested`: lists and objects in them become JSON."""
    texts = {}
    for name, cells in columns.items():
        where = f"{place} {name!r}"
        if lists and name == lists.column:
            cells = _joined(cells, lists.separator, where)
        elif nested:
            cells = [json.dumps(cell, default=str) if isinstance(cell, list | dict) else cell for cell in cells]
        texts[name] = _as_text(cells, where)
    return pd.DataFrame(texts, index=range(rows), columns=list(columns), dtype=str)


def _joined(cells: Sequence[Any], separator: str | None, place: str) -> Sequence[Any]:
    """The cells of which those that are lists of labels are their text."""
    kinds = (list, tuple, set, frozenset, np.ndarray)
    if not any(isinstance(cell, kinds) for cell in cells):
        return cells
    made = []
    for row, cell in enumerate(cells):
        if not isinstance(cell, kinds):
            made.append(cell)
            continue
        labels = _as_text(list(cell), place)
        if separator is None:
            raise KitError(
                f"{place} holds lists (row {row + 1}: {some(labels, 3)}); if a row may have several labels, set "
                "competition.separator, which then stands between them where labels are handed in as text"
            )
        if odd := [label for label in labels if separator in label]:
            raise KitError(
                f"{place}, row {row + 1}: {odd[0]!r} holds {separator!r}, which is to stand between labels; set "
                "competition.separator to what is part of none"
            )
        made.append(separator.join(labels))
    return made


def _as_text(column: Sequence[Any], place: str) -> list[str]:
    """Return the cells as a CSV file has them; dates show their time of day where any of them has one."""
    cells = [None if _is_missing(cell) else cell for cell in getattr(column, "array", column)]
    days = all(cell.time() == time() for cell in cells if isinstance(cell, datetime))
    made = []
    for row, cell in enumerate(cells):
        if cell is None:
            made.append("")
        elif isinstance(cell, str | bool | np.bool_ | Integral | Decimal):
            made.append(str(cell))
        elif isinstance(cell, Real):
            whole = float(cell).is_integer() and abs(float(cell)) < 2**53
            made.append(str(int(float(cell))) if whole else str(cell))
        elif isinstance(cell, datetime):
            made.append(str(cell.date() if days else cell))
        elif hasattr(cell, "isoformat"):  # a date, or a time of day
            made.append(cell.isoformat())
        else:
            raise KitError(f"{place}, row {row + 1}, {type(cell).__name__}; text, numbers or dates are needed")
    return made


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, Real) and cell != cell)


def _first_overlong_line(path: Path, key: str) -> int | None:
    try:
        return first_overlong_line(path)
    except csv.Error as error:
        raise KitError(f"{key}: {path} is not a CSV table in UTF-8: {error}") from error


def need_columns(table: pd.DataFrame, columns: dict[str, str], path: Path | str) -> None:
    """Fail unless each of `columns` (key in the config → column name) is in the table."""
    for key, column in columns.items():
        if column not in table.columns:
            there = list(table.columns)
            raise KitError(
                f"{key}: {path} has no column {column!r}; it has {some(shown(there))}{delimiter_hint(there)}"
                f"{left_out_hint(table, column)}"
            )


DIFFERING = "columns that differ within an id"  # in the attributes of a table that was in long form


def left_out_hint(table: pd.DataFrame, column: str) -> str:
    """Return a hint for a message where a long form has left the column out, else ""."""
    if column not in table.attrs.get(DIFFERING, ()):
        return ""
    return f"; {column!r} differs between the rows of one id, which long_form makes one row"


def delimiter_hint(columns: Sequence[str]) -> str:
    """Return a hint for a message where the only column name seems to be several, else ""."""
    for mark, name in {";": "semicolons", "\t": "tabs", "|": "bars"}.items():
        if len(columns) == 1 and mark in columns[0]:
            return f"; its cells are separated by {name}, where commas are expected"
    return ""


def need_unique(values: pd.Series, what: str, hint: str = "") -> None:
    """Fail on an empty or repeated id; `what` names the table, and `hint` what may be meant, for messages."""
    if (empty := values == "").any():
        rows = (np.flatnonzero(empty) + 1).tolist()
        raise KitError(f"{what}: no id in {len(rows)} rows (row {some(rows, 5)}); every row needs one")
    repeated = values[values.duplicated()].unique()
    if len(repeated):
        raise KitError(
            f"{what}: {len(repeated)} ids stand there twice ({some(repeated, 5)}); ids must be unique{hint}"
        )


def _siblings(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does the folder {path.parent}"
    tables = sorted(file.name for file in path.parent.iterdir() if is_table(file) and file.suffix != ".txt")
    return f"; tables in that folder: {some(tables)}" if tables else "; that folder holds no table"
