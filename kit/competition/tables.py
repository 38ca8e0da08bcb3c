"""Reading tables as Kaggle gives them, or with a reader of the user's own, every cell as text."""

import csv
import warnings
from collections.abc import Sequence
from datetime import datetime, time
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.config import TablesConfig
from kit.competition.spelling import shown
from kit.core.errors import KitError, some
from kit.core.files import first_overlong_line


def read_table(
    path: Path, key: str, without: Sequence[str] = (), reader: TablesConfig | None = None
) -> pd.DataFrame:
    """Read a CSV file with every cell as text, so that the ids 007 and 7 differ and a label NA is a label.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        The place in the config that names it, for messages.
    without : sequence of str
        Columns to leave out.
    reader : TablesConfig, optional
        The user's own, which reads the file. Its numbers become text as a CSV file has them, 3.0 as 3, dates
        without a time of day as 2024-05-31; what is missing is an empty cell.

    Returns
    -------
    DataFrame
        An empty cell is "".

    Raises
    ------
    KitError
        Where the file is no such table.
    """
    if reader:
        table = _read_own(path, key, reader)
        return table.drop(columns=[name for name in without if name in table])
    left_out = set(without)
    columns = (lambda name: name not in left_out) if left_out else None
    table = _read(path, key, usecols=columns).fillna("")  # of short lines
    if left_out and (line := _first_overlong_line(path, key)):
        raise _too_many_cells(path, key, line)
    return table


def column_names(path: Path, key: str, reader: TablesConfig | None = None) -> list[str]:
    """Return the column names of a table; `key` is the place in the config that names it."""
    if reader:
        return list(_read_own(path, key, reader).columns)
    return list(_read(path, key, nrows=0).columns)


def _read(path: Path, key: str, **options: Any) -> pd.DataFrame:
    if path.is_dir():
        raise KitError(f"{key}: {path} is a folder; give a CSV file")
    _need_there(path, key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # it cuts a first line that is too long
            # Without index_col the first column is the index of a table whose lines have a cell too many.
            return pd.read_csv(
                path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False, **options
            )
    except pd.errors.ParserWarning:
        raise _too_many_cells(path, key, 2) from None
    except pd.errors.EmptyDataError:
        raise KitError(f"{key}: {path} is empty; a table needs at least a line of column names") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise KitError(f"{key}: {path} is not a CSV table in UTF-8: {' '.join(str(error).split())}") from error


def _need_there(path: Path, key: str) -> None:
    if not path.exists():
        raise KitError(f"{key}: {path} does not exist{_siblings(path)}")


def _read_own(path: Path, key: str, reader: TablesConfig) -> pd.DataFrame:
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
    place = f"{place}: {reader.name} gives in column"
    columns = {name: _as_text(table.iloc[:, at], f"{place} {name!r}") for at, name in enumerate(names)}
    return pd.DataFrame(columns, index=range(len(table)), columns=names, dtype=str)


def _as_text(column: pd.Series, place: str) -> list[str]:
    """Return the cells as a CSV file has them; dates show their time of day where any of them has one."""
    cells = [None if _is_missing(cell) else cell for cell in column.array]
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


def _too_many_cells(path: Path, key: str, line: int) -> KitError:
    return KitError(f"{key}: {path} has more cells in line {line} than there are column names")


def need_columns(table: pd.DataFrame, columns: dict[str, str], path: Path) -> None:
    """Fail unless each of `columns` (key in the config → column name) is in the table."""
    for key, column in columns.items():
        if column not in table.columns:
            there = list(table.columns)
            raise KitError(
                f"{key}: {path} has no column {column!r}; it has {some(shown(there))}{delimiter_hint(there)}"
            )


def delimiter_hint(columns: Sequence[str]) -> str:
    """Return a hint for a message where the only column name seems to be several, else ""."""
    for mark, name in {";": "semicolons", "\t": "tabs", "|": "bars"}.items():
        if len(columns) == 1 and mark in columns[0]:
            return f"; its cells are separated by {name}, where commas are expected"
    return ""


def need_unique(values: pd.Series, what: str) -> None:
    """Fail on an empty or repeated id; `what` names the table, for messages."""
    if (empty := values == "").any():
        rows = (np.flatnonzero(empty) + 1).tolist()
        raise KitError(f"{what}: no id in {len(rows)} rows (row {some(rows, 5)}); every row needs one")
    repeated = values[values.duplicated()].unique()
    if len(repeated):
        raise KitError(f"{what}: {len(repeated)} ids stand there twice ({some(repeated, 5)}); ids must be unique")


def _siblings(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does the folder {path.parent}"
    tables = sorted(file.name for file in path.parent.glob("*.csv"))
    return f"; tables in that folder: {some(tables)}" if tables else "; that folder holds no .csv file"
