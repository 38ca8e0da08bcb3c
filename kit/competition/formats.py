"""The formats of tables: CSV in its dialects, parquet and JSON, told by a file's ending."""

import bz2
import csv
import gzip
import io
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import pandas as pd

from kit.competition.json_tables import json_columns
from kit.core.errors import KitError, some
from kit.core.files import write_bytes

Format = Literal["csv", "parquet", "json"]
Columns = Mapping[str, Sequence[Any]]

ENDINGS: dict[str, Format] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
TABBED = (".tsv", ".tab")
LINES = (".jsonl", ".ndjson")
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Dialect:
    """How a file of separated values is written.

    Attributes
    ----------
    delimiter
        Between its cells.
    encoding
        Of its text.
    skipped
        Lines before that of the column names: Excel's `sep=;`.
    """

    delimiter: str = ","
    encoding: str = "utf-8-sig"
    skipped: int = 0

    @property
    def plain(self) -> bool:
        """Whether it is that of Kaggle's files."""
        return self == Dialect()


def format_of(path: Path) -> Format:
    """Return the format that a file's ending tells, before one that says how it is compressed; else CSV."""
    return ENDINGS.get(_ending(path), "csv")


def is_table(path: Path) -> bool:
    """Return whether a file's ending is one of a table that is read without code of the user's."""
    return _ending(path) in ENDINGS


def dialect_of(path: Path, key: str) -> Dialect:
    """Return how a file of separated values is written.

    Cells are separated by commas, or by tabs where the ending says so; where that makes one column, by what makes
    several of the line of column names.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        The place in the config that names it, for messages.
    """
    with opened(path, key) as file:
        encoding = _encoding(file.read(4))
    usual = "\t" if _ending(path) in TABBED else ","
    try:
        first = _first_record(path, key, encoding, usual)
        if len(first) == 1 and first[0].lower().startswith("sep=") and len(first[0]) == 5:
            return Dialect(first[0][4], encoding, 1)
        if len(first) == 2 and first[0].lower() == "sep=" and not first[1]:
            return Dialect(usual, encoding, 1)
        if len(_without_end(first)) > 1:
            return Dialect(usual, encoding)
        others = [mark for mark in DELIMITERS if mark != usual]
        columns = {mark: len(_without_end(_first_record(path, key, encoding, mark))) for mark in others}
    except (UnicodeError, csv.Error):  # pandas says what it is
        return Dialect(usual, encoding)
    most = max(columns, key=columns.__getitem__)
    return Dialect(most if columns[most] > 1 else usual, encoding)


def read_csv(path: Path, key: str, dialect: Dialect, **options: Any) -> pd.DataFrame:
    """Read a file of separated values as text; `options` are further ones of pandas.read_csv."""
    with opened(path, key) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # it cuts a first line that is too long
                # Without index_col the first column is the index of a table whose lines have a cell too many.
                table: pd.DataFrame = pd.read_csv(
                    file,
                    sep=dialect.delimiter,
                    encoding=dialect.encoding,
                    skiprows=dialect.skipped,
                    dtype=str,
                    keep_default_na=False,
                    index_col=False,
                    **options,
                )
                return table
        except pd.errors.ParserWarning:
            raise too_many_cells(path, key, 2 + dialect.skipped) from None
        except pd.errors.EmptyDataError:
            raise KitError(f"{key}: {path} is empty; a table needs at least a line of column names") from None
        except (pd.errors.ParserError, UnicodeError) as error:
            kind = "CSV table in UTF-8" if dialect.encoding == "utf-8-sig" else "CSV table in UTF-16"
            said = "a spreadsheet; set competition.tables=pandas:read_excel" if _ending(path) in SHEETS else None
            said = said or f"not a {kind}: {' '.join(str(error).split())}"
            raise KitError(f"{key}: {path} is {said}") from error


def too_many_cells(path: Path, key: str, line: int) -> KitError:
    """Return the error of a line with more cells than there are column names."""
    return KitError(f"{key}: {path} has more cells in line {line} than there are column names")


def read_columns(path: Path, key: str, without: Collection[str] = ()) -> Columns:
    """Read a parquet or a JSON file.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        The place in the config that names it, for messages.
    without : collection of str
        Columns to leave out.

    Returns
    -------
    mapping of str to sequence
        The cells of each column, as the file has them; None is a missing one.
    """
    if format_of(path) == "parquet":
        return _parquet_columns(path, key, set(without))
    with opened(path, key) as file:
        columns = json_columns(file.read(), f"{key}: {path}", lines=_ending(path) in LINES)
    return {name: cells for name, cells in columns.items() if name not in without}


def write_like(path: Path, table: pd.DataFrame) -> None:
    """Write a table, every cell as text, in the format that the file's ending tells."""
    if format_of(path) == "parquet":
        content = io.BytesIO()
        table.reset_index(drop=True).to_parquet(content, index=False)
        return write_bytes(path, content.getvalue())
    if format_of(path) == "json":
        text = table.to_json(orient="records", lines=_ending(path) in LINES, force_ascii=False)
    else:
        delimiter = "\t" if _ending(path) in TABBED else ","
        text = table.to_csv(index=False, lineterminator="\n", sep=delimiter)
    return write_bytes(path, _compressed(path, text.encode()))


@contextmanager
def opened(path: Path, key: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed as its ending says; of a zip archive the one table in it."""
    try:
        with _open(path, key) as file:
            yield file
    except (OSError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        if path.suffix.lower() not in COMPRESSED:
            raise
        raise KitError(f"{key}: {path} is a damaged archive: {' '.join(str(error).split())}") from error


def _open(path: Path, key: str) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return cast("IO[bytes]", gzip.open(path, "rb"))
        case ".bz2":
            return cast("IO[bytes]", bz2.open(path, "rb"))
        case ".xz":
            return cast("IO[bytes]", lzma.open(path, "rb"))
        case ".zip":
            archive = zipfile.ZipFile(path)
            return archive.open(_member(archive, path, key))
    return path.open("rb")


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    tables = [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
    if len(tables) != 1:
        raise KitError(
            f"{key}: {path} holds {len(tables)} files ({some(tables, 5)}); one table is needed: unpack it"
        )
    return tables[0]


def _compressed(path: Path, content: bytes) -> bytes:
    match path.suffix.lower():
        case ".gz":
            return gzip.compress(content, mtime=0)
        case ".bz2":
            return bz2.compress(content)
        case ".xz":
            return lzma.compress(content)
        case ".zip":
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(path.stem, content)
            return file.getvalue()
    return content


def _ending(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return name.suffix.lower()


def _encoding(beginning: bytes) -> str:
    return "utf-16" if beginning[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _first_record(path: Path, key: str, encoding: str, delimiter: str) -> list[str]:
    """The cells of the first line that says something."""
    with opened(path, key) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        return next((row for row in csv.reader(text, delimiter=delimiter) if row), [""])


def _without_end(names: list[str]) -> list[str]:
    """Without an empty name at the end, which a delimiter there makes."""
    return names[:-1] if len(names) > 1 and not names[-1].strip() else names


def _parquet_columns(path: Path, key: str, without: set[str]) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = [field.name for field in file.schema_arrow if _is_cell(field)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise KitError(f"{key}: {path} has the column {twice[0]!r} more than once")
            table = file.read([name for name in names if name not in without])
    except (pa.ArrowException, OSError) as error:
        raise KitError(f"{key}: {path} is no parquet file: {' '.join(str(error).split())}") from error
    return {name: _cells(table.column(name)) for name in table.column_names}


def _is_cell(field: Any) -> bool:
    """Whether a column of a parquet file may be text of a table: no bytes, and not the rows' numbers in pandas."""
    import pyarrow as pa

    kind = field.type
    data = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind)
    return not data and not field.name.startswith("__index_level_")


def _cells(column: Any) -> Sequence[Any]:
    import pyarrow as pa

    if pa.types.is_floating(column.type) and column.type.bit_width < 64:
        return list(column.to_numpy())  # .1 in 32 bits is written .1
    cells: list[Any] = column.to_pylist()
    return cells
