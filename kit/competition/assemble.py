"""The rows of the train or the test set: several files of one kind, tables joined to them, and the long form."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from kit.competition.config import BETWEEN, CompetitionConfig, JoinConfig
from kit.competition.headers import plainly_named
from kit.competition.images_config import Images, PixelsConfig
from kit.competition.labels import split_labels
from kit.competition.tables import DIFFERING, LabelLists, need_columns, need_unique, read_table
from kit.competition.templates import fields_of_images, image_sources, pixel_columns
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.data.sources import Source

Side = Literal["train", "test"]


@dataclass(frozen=True)
class Rows:
    """The rows of one side of a competition.

    Attributes
    ----------
    table
        Every cell as text.
    files
        The files they come from, and how many rows each gave; none where they come from no table.
    where
        What to call them in a message.
    """

    table: pd.DataFrame
    files: tuple[tuple[Path, int], ...]
    where: str

    def images(self, folder: Path, images: Images, key: str) -> list[Source]:
        """Return the image of each row; see `image_sources`."""
        if not isinstance(images, PixelsConfig) or not self.files:
            return image_sources(folder, self.table, images, key, None)
        found: list[Source] = []
        for file, count in self.files:
            part = self.table.iloc[len(found) : len(found) + count]
            found += image_sources(folder, part, images, key, file)
        return found


def read_rows(folder: Path, config: CompetitionConfig, side: Side, remarks: list[str]) -> Rows:
    """Read the tables of a side: their files one after the other, and what is joined to them.

    Rows count from 1 where the config says that there are no ids. Those of a long form are as they stand.

    Parameters
    ----------
    folder : Path
        The competition's.
    config : CompetitionConfig
        Names at least one file of this side.
    side : str
        train or test.
    remarks : list of str
        Takes lines about columns that are read under other names.
    """
    key, files = f"competition.{side}", config.files(side)
    images = config.train_images if side == "train" else config.test_images
    paths = [inside(folder, name, _at(key, place, files)) for place, name in enumerate(files)]
    tables = [
        named_as_in_config(_read(path, config, images, _at(key, place, files), key), config, path, remarks)
        for place, path in enumerate(paths)
    ]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        _need_same_columns(path, table, paths[0], tables[0], key)
    table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    where = some(paths, 3)
    if config.id is None:
        if config.id_column in table.columns:
            raise KitError(f"competition.id: is null, but {where} has a column {config.id_column!r}; name it")
        table.insert(0, config.id_column, [str(row + 1) for row in range(len(table))])
    counts = tuple((path, len(each)) for path, each in zip(paths, tables, strict=True))
    return Rows(with_joins(folder, table, config, side, remarks), counts, where)


def with_joins(
    folder: Path, table: pd.DataFrame, config: CompetitionConfig, side: Side, remarks: list[str]
) -> pd.DataFrame:
    """Return the rows with the columns of the tables that the config joins to them.

    Parameters
    ----------
    folder : Path
        The competition's.
    table : DataFrame
        Every cell as text.
    config : CompetitionConfig
        Says which tables.
    side : str
        train: each row has to be found in each table. test: only tables with whose column it can be found are
        joined, it keeps what columns it has, and what is not found is empty.
    remarks : list of str
        Takes lines about columns that are read under other names.
    """
    joins = config.join or ()
    for place, join in enumerate(joins):
        key = f"competition.join[{place}]" if len(joins) > 1 else "competition.join"
        if side == "test" and join.on not in table.columns:
            continue
        path = inside(folder, join.table, f"{key}.table")
        further = read_table(path, f"{key}.table", reader=config.tables)
        table = _joined(table, path, named_as_in_config(further, config, path, remarks), join, side, key, remarks)
    return table


def one_row_an_id(table: pd.DataFrame, id_column: str, label: str | None) -> pd.DataFrame:
    """Return a long form as a table with a row for each id, in the order of their first appearance.

    Parameters
    ----------
    table : DataFrame
        Every cell as text.
    id_column : str
        Of the rows that belong together.
    label : str or None
        The column of labels: the cell holds all of the id, each once and in the order of their first appearance,
        with `BETWEEN` between them. An empty cell is no label.

    Returns
    -------
    DataFrame
        Without the columns that differ between the rows of an id, which its attributes name.
    """
    codes, _ = pd.factorize(table[id_column])
    first = np.unique(codes, return_index=True)[1]
    kept: list[str] = []
    differing: list[str] = []
    for name in table.columns:
        cells = pd.factorize(table[name])[0]
        same = name == label or bool((cells == cells[first][codes]).all())
        (kept if same else differing).append(name)
    made = table.iloc[first][kept].reset_index(drop=True)
    if label is not None:
        labels: list[dict[str, None]] = [{} for _ in range(len(first))]
        for code, cell in zip(codes.tolist(), table[label].tolist(), strict=True):
            labels[code].update(dict.fromkeys(split_labels(cell, BETWEEN)))
        made[label] = [BETWEEN.join(each) for each in labels]
    made.attrs[DIFFERING] = tuple(differing)
    return made


def _read(path: Path, config: CompetitionConfig, images: Images, key: str, side_key: str) -> pd.DataFrame:
    """A table without its pixels."""
    pixels = pixel_columns(path, images, f"{side_key}_images") if path.is_file() else []
    lists = LabelLists(config.label, config.cell_separator) if isinstance(config.label, str) else None
    # One column of pixels tells how many rows there are where nothing else does.
    return read_table(path, key, pixels[1:], config.tables, lists)


def named_as_in_config(
    table: pd.DataFrame, config: CompetitionConfig, path: Path, remarks: list[str]
) -> pd.DataFrame:
    """Return a table with its columns called as the config calls them, as `remarks` are told."""
    labels = config.label if isinstance(config.label, tuple) else (config.label,)
    wanted = [config.id_column, *fields_of_images(config.train_images), *fields_of_images(config.test_images)]
    wanted += [join.on for join in config.join or ()] + list(filter(None, [config.weight]))
    table, told = plainly_named(table, list(dict.fromkeys(wanted)), str(path), labels)
    remarks += [line for line in told if line not in remarks]
    return table


def _at(key: str, place: int, files: Sequence[str]) -> str:
    return f"{key}[{place}]" if len(files) > 1 else key


def _need_same_columns(path: Path, table: pd.DataFrame, first: Path, other: pd.DataFrame, key: str) -> None:
    here, there = set(table.columns), set(other.columns)
    if here != there:
        said = [f"{some(sorted(here - there), 5)} only in {path.name}"] if here - there else []
        said += [f"{some(sorted(there - here), 5)} only in {first.name}"] if there - here else []
        raise KitError(
            f"{key}: {path} and {first} have other columns ({'; '.join(said)}); rows one after the other need the "
            "same ones"
        )


def _joined(
    table: pd.DataFrame,
    path: Path,
    further: pd.DataFrame,
    join: JoinConfig,
    side: Side,
    key: str,
    remarks: list[str],
) -> pd.DataFrame:
    need_columns(further, {f"{key}.on": join.on}, path)
    need_columns(table, {f"{key}.on": join.on}, "the train table")
    need_unique(further[join.on], f"{key}.table: {path}, column {join.on!r}")
    keys = table[join.on]
    at = pd.Index(_plain(further[join.on])).get_indexer(pd.Index(_plain(keys)))
    if side == "train" and (at < 0).any():
        lost = keys[at < 0]
        raise KitError(
            f"{key}: {path} has no row for {len(lost)} of {len(keys)} rows of the train table ({join.on} "
            f"{some(map(repr, lost.unique()), 5)}); {path.name} has {some(map(repr, further[join.on]), 3)}"
        )
    if (at < 0).any():
        lost = keys[at < 0]
        remarks.append(
            f"{key}: {path} has no row for {len(lost)} of {len(keys)} test rows ({join.on} "
            f"{some(map(repr, lost.unique()), 3)}); their cells are empty"
        )
    columns = {}
    for name in further.columns.drop(join.on):
        cells = np.append(further[name].to_numpy(dtype=object), "")[at]  # not found is -1, the last
        if name not in table.columns:
            columns[name] = cells
        elif side == "train" and not name.startswith("Unnamed: ") and (cells != table[name].to_numpy()).any():
            raise KitError(
                f"{key}: {path} and the train table both have a column {name!r}, and they differ; take it out of "
                "one of them"
            )
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)


def _plain(cells: pd.Series) -> list[str]:
    """The texts in one Unicode form: a name typed by hand and the same name of a file on macOS are equal."""
    return [cell if cell.isascii() else unicodedata.normalize("NFC", cell) for cell in cells]
