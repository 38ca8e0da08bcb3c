"""Reading extra tables: rows that train and are never held out, with their labels, weights and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.assemble import one_row_an_id
from kit.competition.config import CompetitionConfig, ExtraConfig
from kit.competition.extra import EVERY, ExtraRows, ExtraTable
from kit.competition.headers import plainly_named
from kit.competition.image_files import with_names_on_disk
from kit.competition.images_config import PixelsConfig
from kit.competition.labels import Labels, MultiLabel, encode_columns, spelling_of
from kit.competition.sides import need_files
from kit.competition.tables import LabelLists, need_columns, read_table
from kit.competition.templates import fields_of_images, image_sources, pixel_columns
from kit.competition.train_labels import encode_labels
from kit.core.errors import KitError, some
from kit.core.paths import data_folder, inside
from kit.data.sources import Source

SUM = 1e-3  # by which the shares of a row with one label may miss 1


@dataclass(frozen=True)
class Side:
    """What extra rows may take of the competition: the rows of one side by id, with their images."""

    table: pd.DataFrame
    ids: list[str]
    images: list[Source]


def extra_rows(
    config: CompetitionConfig, folder: Path, labels: Labels, sides: Mapping[str, Side], remarks: list[str]
) -> ExtraRows | None:
    """Read the extra tables and find their images; None where the config names none.

    Parameters
    ----------
    config : CompetitionConfig
    folder : Path
        The competition's.
    labels : SingleLabel or MultiLabel
        The competition's; classes are those of the train table alone.
    sides : mapping of str to Side
        The competition's own rows: train and test.
    remarks : list of str
        Takes lines about columns that are read under other names.

    Raises
    ------
    KitError
        For what cannot be read, a label that is no class, a weight or a share that is none, an image that is not
        there, and an id that stands there twice.
    """
    tables = []
    for place, each in enumerate(config.extra or ()):
        key = f"competition.extra[{place}]" if len(config.extra or ()) > 1 else "competition.extra"
        tables.append(_Reader(config, each, folder, labels, sides, key, remarks).read())
    return ExtraRows(tuple(tables)) if tables else None


def extra_folder(extra: ExtraConfig, folder: Path, key: str = "competition.extra") -> Path:
    """Return the folder of an extra table: its own, or `folder`, the competition's."""
    if extra.path is None:
        return folder
    if (found := data_folder(extra.path, extra.slug)) is None:
        beside = f", and {extra.slug} is not mounted" if extra.slug else ""
        raise KitError(f"{key}.path: {extra.path} is no folder{beside}; give the one that holds {extra.table}")
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads one extra table."""

    config: CompetitionConfig
    extra: ExtraConfig
    folder: Path
    labels: Labels
    sides: Mapping[str, Side]
    key: str
    remarks: list[str]

    def read(self) -> ExtraTable:
        extra = self.extra
        root = extra_folder(extra, self.folder, self.key)
        path = inside(root, extra.table, f"{self.key}.table")
        table, where = self._table(path), str(path)
        id_column = self._id_column(table, where)
        if table.empty:
            raise KitError(f"{self.key}.table: {where} has no rows")
        fold = self._folds(table, where)
        self._need_unique(table[id_column], fold, where)
        targets, weights = self._targets(table, where), self._weights(table, where)
        side, beside = (self.sides[extra.side] if extra.side else None), tuple[str, ...]()
        if side is None:
            images = image_sources(root, table, extra.images, f"{self.key}.images", path)
            images = with_names_on_disk(root, images)
            need_files(root, images, extra.images, f"{self.key}.images")
        else:
            rows = self._rows_of(side, table[id_column], where)
            images, root = [side.images[row] for row in rows], self.folder
            beside = tuple(name for name in side.table.columns if name not in table.columns)
            table = pd.concat([table, side.table.iloc[rows][list(beside)].reset_index(drop=True)], axis=1)
        made = ExtraTable(
            name=extra.table,
            key=self.key,
            where=where,
            root=root,
            ids=table[id_column].tolist(),
            sources=images,
            image=np.arange(len(table)),
            targets=targets,
            weights=weights,
            fold=fold,
            cells=table,
            beside=beside,
            source=extra.source,
        )
        return self._ordered(made)

    def _table(self, path: Path) -> pd.DataFrame:
        """The rows as they stand, every cell as text, without pixels."""
        extra, label, key = self.extra, self._label, f"{self.key}.table"
        pixels: list[str] = []
        if isinstance(extra.images, PixelsConfig) and path.is_file():
            pixels = pixel_columns(path, extra.images, f"{self.key}.images")
        lists = LabelLists(label, self.config.cell_separator) if isinstance(label, str) else None
        table = read_table(path, key, pixels[1:], self.config.tables, lists)
        weight = [extra.weight] if isinstance(extra.weight, str) else []
        fields = [] if extra.side else fields_of_images(extra.images)
        wanted = [self._id or "id", *weight, *filter(None, [extra.fold]), *fields]
        named = (label,) if isinstance(label, str) else label
        table, told = plainly_named(table, list(dict.fromkeys(wanted)), str(path), named)
        self.remarks.extend(line for line in told if line not in self.remarks)
        if self.config.long_form and isinstance(label, str) and label in table.columns and not extra.fold:
            need_columns(table, {f"{self.key}.id": self._id or "id"}, path)
            table = one_row_an_id(table, self._id or "id", label)
        return table

    @property
    def _id(self) -> str | None:
        return self.extra.id or self.config.id

    @property
    def _label(self) -> str | tuple[str, ...]:
        """Column of labels, or a column for each class."""
        if self.extra.shares:
            return self.labels.classes
        return self.extra.label or self.config.label

    def _id_column(self, table: pd.DataFrame, where: str) -> str:
        if self._id is None:
            if self.config.id_column in table.columns:
                raise KitError(f"{self.key}.id: {where} has a column {self.config.id_column!r}; name it")
            table.insert(0, self.config.id_column, [str(row + 1) for row in range(len(table))])
        column = self._id or self.config.id_column
        need_columns(table, {f"{self.key}.id": column}, where)
        return column

    def _need_unique(self, ids: pd.Series, fold: np.ndarray, where: str) -> None:
        """Refuse an id that is empty, or there twice for the models of one fold."""
        if (empty := np.flatnonzero(ids == "")).size:
            raise KitError(f"{self.key}.id: {where}: no id in {len(empty)} rows (row {some(empty + 1, 5)})")
        rows = pd.DataFrame({"id": ids.to_numpy(), "fold": fold})
        twice = ids[rows.duplicated().to_numpy()].unique()
        if len(twice):
            told = f"{self.key}.id: {where}: {len(twice)} ids stand there twice"
            if self.extra.fold:
                raise KitError(f"{told} for one fold ({some(twice, 5)}); leave each once")
            raise KitError(f"{told} ({some(twice, 5)}); once each, or once a fold with a column in fold")
        everywhere = rows[rows["fold"] == EVERY]["id"]
        if (both := rows[(rows["fold"] != EVERY) & rows["id"].isin(everywhere)]["id"].unique()).size:
            raise KitError(
                f"{self.key}.fold: {where}: {some(both, 5)} stand there for all folds (-1) and for one more"
            )

    def _folds(self, table: pd.DataFrame, where: str) -> np.ndarray:
        if self.extra.fold is None:
            return np.full(len(table), EVERY, dtype=np.int64)
        need_columns(table, {f"{self.key}.fold": self.extra.fold}, where)
        values = numbers_in(table[self.extra.fold], f"{self.key}.fold: {where}", "the number of a fold")
        if (odd := np.flatnonzero((values != np.round(values)) | (values < EVERY))).size:
            raise KitError(
                f"{self.key}.fold: {where}: column {self.extra.fold!r} has to hold the number of a fold; it has "
                f"{table[self.extra.fold].iloc[odd[0]]!r} in row {odd[0] + 1}"
            )
        return values.astype(np.int64)

    def _weights(self, table: pd.DataFrame, where: str) -> np.ndarray:
        if not isinstance(self.extra.weight, str):
            return np.full(len(table), self.extra.weight, dtype=np.float64)
        need_columns(table, {f"{self.key}.weight": self.extra.weight}, where)
        return weights_in(table[self.extra.weight], f"{self.key}.weight: {where}")

    def _targets(self, table: pd.DataFrame, where: str) -> np.ndarray:
        if self.extra.shares:
            return self._shares(table, where)
        label, key = self._label, f"{self.key}.label"
        if isinstance(label, tuple):
            return self._columns(table, label, key, where)
        need_columns(table, {key: label}, where)
        what = f"{key}: {where}"
        try:
            if isinstance(self.labels, MultiLabel):
                as_named = table[[label]].set_axis(["label"], axis=1)
                config = self.config.model_copy(update={"label": "label"})
                return encode_labels(as_named, config, self.labels, what)
            return self.labels.encode(table[label].tolist(), what)
        except KitError as error:
            raise KitError(
                f"{error}, as in the train table; leave such rows out, or spell labels as there"
            ) from error

    def _columns(self, table: pd.DataFrame, columns: Sequence[str], key: str, where: str) -> np.ndarray:
        """Labels from 0/1 columns, each of which is called as its class."""
        places = self._classes_of(columns, key)
        for column in columns:
            need_columns(table, {key: column}, where)
        there = encode_columns(table, columns, f"{key}: {where}")
        targets = np.zeros((len(table), len(self.labels.classes)), dtype=bool)
        targets[:, places] = there
        if self.labels.multilabel:
            return targets
        if (odd := np.flatnonzero(targets.sum(axis=1) != 1)).size:
            raise KitError(
                f"{key}: {where}: {len(odd)} rows have no label or several (row {some(odd + 1, 5)}); a row has one"
            )
        return targets.argmax(axis=1).astype(np.int64)

    def _classes_of(self, columns: Sequence[str], key: str) -> list[int]:
        """The class of each column; KitError for one that is called as no class."""
        spelling = spelling_of(tuple(self.labels.classes))
        places = {column: spelling.place(column) for column in columns}
        if odd := [column for column, place in places.items() if place is None]:
            raise KitError(
                f"{key}: {some(map(repr, odd), 5)} {'is' if len(odd) == 1 else 'are'} no class; the classes are "
                f"{some(self.labels.classes, 12)}"
            )
        return [place for place in places.values() if place is not None]

    def _shares(self, table: pd.DataFrame, where: str) -> np.ndarray:
        """Shares of classes, float32 [rows, classes]; of rows with one label they sum to 1."""
        key, classes = f"{self.key}.shares", self.labels.classes
        weight = self.extra.weight if isinstance(self.extra.weight, str) else None
        if both := [name for name in (self._id, self.extra.fold, weight) if name in classes]:
            raise KitError(f"{key}: column {both[0]!r} is that of a class; call the other one otherwise")
        for name in classes:
            need_columns(table, {key: name}, where)
        shares = np.empty((len(table), len(classes)))
        for place, name in enumerate(classes):
            shares[:, place] = numbers_in(table[name], f"{key}: {where}", "a share from 0 to 1")
        if (beyond := np.argwhere((shares < 0) | (shares > 1))).size:
            row, place = beyond[0]
            raise KitError(
                f"{key}: {where}: column {classes[place]!r} has to hold a share from 0 to 1; it has "
                f"{shares[row, place]:g} in row {row + 1}"
            )
        if not self.labels.multilabel:
            sums = shares.sum(axis=1)
            if (odd := np.flatnonzero(np.abs(sums - 1) > SUM)).size:
                raise KitError(
                    f"{key}: {where}: the shares of a row have to sum to 1, as it has one label; in row "
                    f"{odd[0] + 1} they sum to {sums[odd[0]]:g}"
                )
            shares /= sums[:, None]
        return shares.astype(np.float32)

    def _rows_of(self, side: Side, ids: pd.Series, where: str) -> list[int]:
        """The rows of the competition that have these ids; KitError for an id that is of none."""
        place = {name: at for at, name in enumerate(side.ids)}
        if lost := [name for name in ids if name not in place]:
            raise KitError(
                f"{self.key}.images: {where}: {len(lost)} of {len(ids)} ids are of no {self.extra.images} row of "
                f"the competition ({some(dict.fromkeys(lost), 5)})"
            )
        return [place[name] for name in ids]

    def _ordered(self, made: ExtraTable) -> ExtraTable:
        """The same with its rows ordered by id and fold, so that a file's order decides nothing; images once."""
        ids = np.array(made.ids, dtype=object)
        order = np.lexsort((made.fold, ids.astype(str)))
        names, first, image = np.unique(ids[order].astype(str), return_index=True, return_inverse=True)
        sources = [made.sources[row] for row in order]
        unlike = [names[which] for row, which in enumerate(image) if sources[row] != sources[first[which]]]
        if unlike:
            raise KitError(f"{made.key}.images: {made.where}: rows of one id have different images ({unlike[0]})")
        return replace(
            made,
            ids=names.tolist(),
            sources=[sources[row] for row in first],
            image=image.astype(np.int64),
            targets=made.targets[order],
            weights=made.weights[order],
            fold=made.fold[order],
            cells=made.cells.iloc[order].reset_index(drop=True),
        )


def weights_in(cells: pd.Series, what: str) -> np.ndarray:
    """Return the weights in a column, float64 [rows]; KitError where one is below 0, or all are 0."""
    weights = numbers_in(cells, what, "a weight, 0 or more")
    if (odd := np.flatnonzero(weights < 0)).size:
        raise KitError(
            f"{what}: column {cells.name!r} has to hold a weight, 0 or more; it has {cells.iloc[odd[0]]!r} in row "
            f"{odd[0] + 1}"
        )
    if not weights.any():
        raise KitError(f"{what}: column {cells.name!r} holds nothing but 0, so that no row would train")
    return weights


def numbers_in(cells: pd.Series, what: str, expected: str) -> np.ndarray:
    """Return the numbers in a column, float64 [rows]; KitError names a cell that holds none."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    if (odd := np.flatnonzero(~np.isfinite(values))).size:
        raise KitError(
            f"{what}: column {cells.name!r} has to hold {expected}; it has {cells.iloc[odd[0]]!r} in row "
            f"{odd[0] + 1}"
        )
    return values
