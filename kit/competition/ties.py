"""Which extra rows may train a fold's model: not those that belong to a row that is held out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.duplicates import NEAR, HashedImages, duplicates_between
from kit.competition.extra import EVERY, FOLD_PLAN, ExtraRows, ExtraTable
from kit.competition.folds import FoldPlan, group_texts, groups_told
from kit.competition.folds_config import FoldsConfig
from kit.competition.headers import column_named
from kit.competition.moments import moments
from kit.competition.observations import Observations, observations_of
from kit.competition.templates import fields_of
from kit.core.errors import KitError, some

PICTURE, GROUP, OBSERVATION, LATE, OTHER = (
    "with the picture of a held-out row",
    "with the row group of one",
    "with the observation of one",
    "not earlier than all of them",
    "labelled by models that saw what is left out",
)


class SizedImages(HashedImages, Protocol):
    """What is compared of n images whose sizes and kinds are known."""

    @property
    def width(self) -> np.ndarray:
        """In pixels, int [n]."""
        ...

    @property
    def height(self) -> np.ndarray:
        """In pixels, int [n]."""
        ...

    @property
    def kinds(self) -> np.ndarray:
        """Format and mode, text [n]; what differs in its mode alone shows the same picture."""
        ...


@dataclass(frozen=True)
class Tie:
    """Extra rows and the training rows that each belongs with: those that have its code.

    Attributes
    ----------
    why
        In words that follow a number of rows.
    rows
        Extra rows, int64 [n]; one may be there several times.
    codes
        Of each of them, int64 [n].
    train
        The code of each training row, int64 [training rows]; −1: none.
    """

    why: str
    rows: np.ndarray
    codes: np.ndarray
    train: np.ndarray

    def left_out(self, held: np.ndarray) -> np.ndarray:
        """Return the extra rows that belong with training rows of which `held` is true, int64, ascending."""
        return np.unique(self.rows[np.isin(self.codes, self.train[held & (self.train >= 0)])])


@dataclass(frozen=True)
class ExtraPlan:
    """Which extra rows train which fold's model.

    Attributes
    ----------
    extra
        The rows.
    ties
        What they have to do with training rows.
    moment
        When each extra row is, as a rank among those of `moment_of_train`; None where time tells no folds.
    moment_of_train
        When each training row is.
    alike
        Near-identical images, where the config does not keep them apart; None: it does, or nobody can tell.
    ungrouped
        Lines about tables of whose rows nobody can tell the row group, or the observation.
    """

    extra: ExtraRows
    ties: tuple[Tie, ...] = ()
    moment: np.ndarray | None = None
    moment_of_train: np.ndarray | None = field(default=None, repr=False)
    alike: Tie | None = None
    ungrouped: tuple[str, ...] = ()

    def left_out(self, plan: FoldPlan, fold: int) -> dict[str, np.ndarray]:
        """Return the rows that may not train this fold's model though they are there for it, by why.

        Those that belong with a row that the fold holds out, or that is of the plan's unused fold. Where a fold is
        unused, no row with a fold of its own trains: the models that made its labels have seen rows of that fold,
        or of this one.
        """
        there = self.extra.in_fold(fold)
        held = (plan.fold == fold) | (plan.fold == plan.unused if plan.unused is not None else False)
        found = {tie.why: np.zeros(len(there), dtype=bool) for tie in self.ties}
        for tie in self.ties:
            found[tie.why][tie.left_out(held)] = True
        if plan.unused is not None:
            found[OTHER] = self.extra.fold != EVERY
        if self.moment is not None and self.moment_of_train is not None:
            found[LATE] = self.moment >= self.moment_of_train[held].min()
        return {why: np.flatnonzero(rows & there) for why, rows in found.items() if (rows & there).any()}

    def training_rows(self, plan: FoldPlan, fold: int) -> np.ndarray:
        """Return the extra rows that train this fold's model, int64, ascending."""
        trains = self.extra.in_fold(fold)
        for rows in self.left_out(plan, fold).values():
            trains[rows] = False
        return np.flatnonzero(trains)

    def told(self, plan: FoldPlan, folds: Iterable[int]) -> list[str]:
        """Return a line for each table: how many rows it has, how many are left out of which folds, and why."""
        out = {fold: self.left_out(plan, fold) for fold in folds}
        lines, start = [], 0
        for table in self.extra.tables:
            span, start = range(start, start + len(table)), start + len(table)
            without = [] if EVERY in table.fold else [fold for fold in out if fold not in table.fold]
            none = f"; none is there for fold {some(without)}" if without else ""
            lines.append(f"{table.summary()}{_left_out_in_words(out, span)}{none}")
        return [*lines, *self.ungrouped, *self._alike_in_words(plan, out)]

    def _alike_in_words(self, plan: FoldPlan, folds: Iterable[int]) -> list[str]:
        """A warning of rows that train though a row that is held out is nearly their picture."""
        if self.alike is None:
            return []
        near = [np.intersect1d(self.alike.left_out(plan.fold == f), self.training_rows(plan, f)) for f in folds]
        if not (count := len(np.unique(np.concatenate(near)))):
            return []
        return [
            f"competition.extra: {count} extra rows train though their fold holds out a near-identical picture, "
            f"which raises its score; folds.duplicates={NEAR} leaves them out"
        ]


def _left_out_in_words(out: Mapping[int, Mapping[str, np.ndarray]], span: range) -> str:
    """How many of a span of rows are left out: in all, of each fold, and for which reasons."""

    def within(rows: Iterable[np.ndarray]) -> set[int]:
        return {row for each in rows for row in each.tolist() if row in span}

    of_fold = {fold: within(by_why.values()) for fold, by_why in out.items()}
    left = set().union(*of_fold.values())
    if not left:
        return ""
    whys = dict.fromkeys(why for by_why in out.values() for why in by_why)
    counts = {why: len(within(by_why[why] for by_why in out.values() if why in by_why)) for why in whys}
    told = some([f"{len(rows)} in fold {fold}" for fold, rows in of_fold.items() if rows], 10)
    reasons = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    return f"; {len(left)} left out in some folds ({told}): {reasons}"


def plan_extra(
    extra: ExtraRows,
    train: pd.DataFrame,
    observations: Observations | None,
    config: CompetitionConfig,
    folds: FoldsConfig,
    hashed: Callable[[Literal["train", "extra"]], SizedImages],
) -> ExtraPlan:
    """Return which extra rows belong with which training rows.

    Equal pixels and near-identical ones where `folds.duplicates` says so; a common text of `folds.group`; a common
    observation. The latter two where an extra table has the columns.

    Parameters
    ----------
    extra : ExtraRows
    train : DataFrame
        The train table, every cell as text.
    observations : Observations, optional
        Those of the training rows.
    config : CompetitionConfig
    folds : FoldsConfig
    hashed : callable
        Returns what is compared of the images of the training rows, and of the extra images.

    Raises
    ------
    KitError
        Where `folds.time` tells the folds and an extra table does not have the column, for a cell of such a column
        that is empty, and for a fold that is none of `folds.k`.
    """
    for table in extra.tables:
        if (beyond := table.fold[table.fold >= folds.k]).size:
            raise KitError(f"{table.key}.fold: {table.where}: fold {beyond[0]}, but there are 0 to {folds.k - 1}")
    images = hashed("train"), hashed("extra")
    ties, alike = _picture_ties(extra, *images), _alike(extra, *images, folds)
    if alike and folds.duplicates != "none" and folds.duplicates != "exact":
        ties, alike = [*ties, alike], None
    ties += _text_ties(extra, train, observations, config, folds)
    ungrouped = tuple(_ungrouped(extra, observations, config, folds))
    if folds.time is None:
        return ExtraPlan(extra, tuple(ties), alike=alike, ungrouped=ungrouped)
    cells = train[column_named(train.columns, folds.time) or folds.time].tolist()
    for table in extra.tables:
        cells += _moments_of(table, folds.time)
    ranks = moments(cells, folds.time, folds.time_format)
    return ExtraPlan(extra, tuple(ties), ranks[len(train) :], ranks[: len(train)], alike, ungrouped)


def need_plan(extra: ExtraRows, plan: FoldPlan) -> None:
    """Raise KitError where rows are there for one fold each, and these are folds of another plan."""
    for table in extra.tables:
        if FOLD_PLAN not in table.cells.columns or not (table.fold != EVERY).any():
            continue
        if odd := sorted(set(table.cells[FOLD_PLAN]) - {plan.digest}):
            raise KitError(
                f"{table.key}.fold: {table.where} names folds of another plan ({some(odd, 3)}; this one is "
                f"{plan.digest}), so that models would be scored on rows whose labels they were taught; give the "
                "plan it was made with (--folds FILE), or make its labels anew"
            )


def _picture_ties(extra: ExtraRows, train: SizedImages, others: SizedImages) -> list[Tie]:
    """Rows with the very same pixels, in whatever mode they are stored."""
    rows = np.arange(len(extra))
    pixels = _coded(train.digests, others.digests)
    ties = [Tie(PICTURE, rows, pixels[1][extra.image], pixels[0])]
    looks = _coded(_looks(train), _looks(others))
    modes = [
        np.array([kind.rpartition(" ")[2] for kind in images.kinds], dtype=object) for images in (train, others)
    ]
    for mode in sorted(set(modes[1])):
        ours = np.flatnonzero(modes[1][extra.image] == mode)
        ties.append(Tie(PICTURE, ours, looks[1][extra.image[ours]], np.where(modes[0] == mode, -1, looks[0])))
    return ties


def _alike(extra: ExtraRows, train: SizedImages, others: SizedImages, folds: FoldsConfig) -> Tie | None:
    """Rows with near-identical pictures, by the bits that the config says, else by the audit's; None: unknown."""
    stated = folds.duplicates if isinstance(folds.duplicates, int) else None
    try:
        pairs = duplicates_between(train, others, NEAR if stated is None else stated)
    except KitError:  # too many
        if stated is None:
            return None
        raise
    ours, theirs = _coded(train.digests, others.digests)
    alike: dict[int, list[int]] = {}
    for row, image in pairs.tolist():
        alike.setdefault(int(theirs[image]), []).append(row)
    found = [(row, at) for row, code in enumerate(theirs[extra.image].tolist()) for at in alike.get(code, ())]
    near = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Tie(PICTURE, near[:, 0], ours[near[:, 1]], ours)


def _looks(images: SizedImages) -> np.ndarray:
    """What tells a picture whatever its mode, as text [n]: size, hash and thumbnail; "" of what says nothing."""
    told = [
        f"{width} {height} {code} {thumbnail.tobytes().hex()}" if says else ""
        for width, height, code, thumbnail, says in zip(
            images.width, images.height, images.hashes, images.thumbnails, images.comparable, strict=True
        )
    ]
    return np.array(told, dtype=object)


def _text_ties(
    extra: ExtraRows,
    train: pd.DataFrame,
    observations: Observations | None,
    config: CompetitionConfig,
    folds: FoldsConfig,
) -> list[Tie]:
    """Rows of one row group by its column, and rows of one observation."""
    ties, start = [], 0
    for table in extra.tables:
        rows, start = np.arange(start, start + len(table)), start + len(table)
        if (cells := _group_cells(table, config, folds)) is not None:
            texts = np.array([text or "" for text in groups_told(folds, cells)], dtype=object)
            codes = _coded(np.array(group_texts(folds, train), dtype=object), texts)
            ties.append(Tie(GROUP, rows, codes[1], codes[0]))
        there = {config.id_column, *table.cells.columns}
        if observations and config.predict_by and set(_fields_of_observations(config)) <= there:
            named = table.cells.assign(**{config.id_column: [table.ids[image] for image in table.image]})
            here = observations_of(named, config, table.where)
            assert here is not None, "the config has competition.predict_by"
            codes = _coded(np.array(observations.of, dtype=object), np.array(here.of, dtype=object))
            ties.append(Tie(OBSERVATION, rows, codes[1], codes[0]))
    return ties


def _fields_of_observations(config: CompetitionConfig) -> list[str]:
    """The columns that tell the observation of a row."""
    assert config.predict_by is not None, "only to be asked where observations are predicted"
    one = config.predict_by.column
    return [one] if one else list(fields_of(config.predict_by.rows)[0])


def _ungrouped(
    extra: ExtraRows, observations: Observations | None, config: CompetitionConfig, folds: FoldsConfig
) -> list[str]:
    """Say which tables lack a column that tells what belongs together among training rows."""
    lines = []
    for table in extra.tables:
        lacking = {}
        cells = _group_cells(table, config, folds)
        if folds.group and cells is None:
            lacking["folds.group"] = [folds.group]
        if cells is not None:
            odd = [cell for cell, text in zip(cells, groups_told(folds, cells), strict=True) if cell and not text]
            if odd:
                lines.append(
                    f"{table.key}: folds.group_pattern finds no row group in {len(odd)} of {len(table)} rows of "
                    f"{table.name} (column {folds.group!r}: {some(odd, 3)}): these train, but for those with a "
                    "held-out picture"
                )
        if observations and config.predict_by:
            there = {config.id_column, *table.cells.columns}
            lacking["competition.predict_by"] = [
                name for name in _fields_of_observations(config) if name not in there
            ]
        lines += [
            f"{table.key}: {table.name} has no column {some(map(repr, names))} ({key}), which would tell the rows "
            "that belong with held-out ones: these train, but for those with a held-out picture"
            for key, names in lacking.items()
            if names
        ]
    return lines


def _group_cells(table: ExtraTable, config: CompetitionConfig, folds: FoldsConfig) -> pd.Series | None:
    """Return the cells that tell the row group of each row, "" in one of a column beside that says nothing.

    None where the table has no such column. The ids are in whatever column the table has them in.

    Raises
    ------
    KitError
        Where a column of the table's own is empty in a row.
    """
    if folds.group is None:
        return None
    if folds.group == config.id_column:
        return pd.Series([table.ids[image] for image in table.image], dtype=object)
    if (column := column_named(table.cells.columns, folds.group)) is None:
        return None
    cells = table.cells[column].reset_index(drop=True)
    empty = cells.str.strip() == ""
    if column not in table.beside and empty.any():
        raise KitError(
            f"folds.group: {table.where}: column {column!r} is empty in {empty.sum()} rows; fill them in, or "
            "leave the column out"
        )
    return cells.mask(empty, "")


def _moments_of(table: ExtraTable, time: str) -> list[str]:
    """Return the texts that tell when each row is; KitError where one is missing."""
    column = column_named(table.cells.columns, time)
    if column is None:
        raise KitError(
            f"{table.key}: {table.where} has no column {time!r} (folds.time), without which nobody knows which "
            "rows are earlier than those held out"
        )
    if (table.cells[column].str.strip() == "").any():
        raise KitError(
            f"{table.key}: {table.where}: column {time!r} (folds.time) is empty in some rows; fill them in"
        )
    return table.cells[column].tolist()


def _coded(train: np.ndarray, extra: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each text, the same for equal texts of both sides, int64; −1 for an empty one."""
    codes = pd.factorize(np.concatenate([train, extra]).astype(object))[0].astype(np.int64)
    codes[np.concatenate([train, extra]) == ""] = -1
    return codes[: len(train)], codes[len(train) :]
