"""The fold plan: which rows are held out when; made once, hashed and reused by every policy (folds.csv)."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.duplicates import components
from kit.competition.folds_config import FoldsConfig
from kit.competition.headers import column_named
from kit.competition.moments import moments
from kit.competition.spelling import plain, shown
from kit.competition.stratify import stratify_groups
from kit.competition.tables import left_out_hint
from kit.core.errors import KitError, some
from kit.core.files import write_text

EARLIEST = -1  # the fold of rows that are never held out
LARGE = 20_000_000  # rows × classes, from which on iterative-stratification takes minutes to hours


class OtherRows(KitError):
    """A fold plan that is of other rows than the train table."""


@dataclass(frozen=True)
class FoldPlan:
    """Which rows are held out when.

    Attributes
    ----------
    ids
        Of the training rows.
    fold
        int64 [rows], aligned with `ids`; a row of fold f is predicted by the model that left f out. −1: never
        held out, so that it trains in every fold.
    groups
        int64 [rows]: the number of each row's row group, which is never in two folds; None: there are none.
    forward
        Whether a fold's model trains on earlier folds alone.
    unused
        A fold whose rows neither train nor are held out, as where rates are tuned within the other folds.
    """

    ids: list[str]
    fold: np.ndarray
    groups: np.ndarray | None = None
    forward: bool = False
    unused: int | None = None

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a model of this fold trains on, int64, ascending."""
        rows = self.fold < fold if self.forward else self.fold != fold
        return np.flatnonzero(rows if self.unused is None else rows & (self.fold != self.unused))

    def validation_rows(self, fold: int) -> np.ndarray:
        """Return the rows that this fold holds out, int64, ascending."""
        return np.flatnonzero(self.fold == fold)

    @property
    def digest(self) -> str:
        """A hash of which row is in which fold, whatever the order of the rows."""
        lines = sorted(f"{name}\t{fold}" for name, fold in zip(self.ids, self.fold, strict=True))
        unused = [] if self.unused is None else [f"unused {self.unused}"]
        return sha256("\n".join([*lines, *["forward"] * self.forward, *unused]).encode()).hexdigest()[:16]


def make_folds(
    ids: list[str],
    targets: np.ndarray,
    config: FoldsConfig,
    table: pd.DataFrame | None = None,
    joined: np.ndarray | None = None,
) -> FoldPlan:
    """Deal rows to folds as the config says; the same for any order of the rows.

    Stratified: scikit-learn's StratifiedKFold and StratifiedGroupKFold; with several labels a row
    iterative-stratification's MultilabelStratifiedKFold (Sechidis et al. 2011); with row groups, and beyond
    `LARGE`, `stratify_groups`, which is the same for row groups.

    Parameters
    ----------
    ids : list of str
        Of the training rows.
    targets : ndarray
        Class indices [rows], or bool [rows, classes].
    config : FoldsConfig
        How rows are dealt.
    table : DataFrame, optional
        The train table, where the config names a column of it.
    joined : ndarray, optional
        int64 [rows]: rows with the same number belong together, as their images are alike or they are of one
        observation.

    Raises
    ------
    KitError
        For a column that is not there, and for fewer row groups or moments than folds.
    """
    groups = row_groups(config, table, joined)
    if config.column:
        return FoldPlan(ids, _given(_column(table, config.column, "folds.column"), config), groups)
    if config.time:
        cells = _column(table, config.time, "folds.time")
        return FoldPlan(ids, _by_time(cells, config), groups, forward=True)
    if groups is not None and (count := len(np.unique(groups))) < config.k:
        there = "1 group" if count == 1 else f"{count} groups"
        raise KitError(f"folds: {there} cannot be dealt to {config.k} folds; lower folds.k")
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    fold = np.empty(len(ids), dtype=np.int64)
    sorted_groups = None if groups is None else _by_appearance(groups[order])
    fold[order] = _dealt(targets[order], sorted_groups, config)
    return FoldPlan(ids, fold, groups)


def row_groups(config: FoldsConfig, table: pd.DataFrame | None, joined: np.ndarray | None) -> np.ndarray | None:
    """Return the row group of each row, by the column that tells them and by what else joins rows.

    Parameters
    ----------
    config : FoldsConfig
        Names the column.
    table : DataFrame or None
        The train table.
    joined : ndarray or None
        int64 [rows]: rows with the same number belong together, as their images are alike or they are of one
        observation.

    Returns
    -------
    ndarray or None
        int64 [rows]; None where there are no row groups.
    """
    parts = []
    if config.group:
        parts.append(pd.factorize(np.array(group_texts(config, table), dtype=object))[0])
    if joined is not None:
        parts.append(joined)
    return join_groups(*parts) if parts else None


def join_groups(*parts: np.ndarray) -> np.ndarray:
    """Return the row groups that have together what any of the parts, int64 [rows] each, has together.

    Returns
    -------
    ndarray
        int64 [rows]: row groups are numbered in the order of their first rows.
    """
    rows = np.arange(len(parts[0]))
    first_of = [pd.Series(rows).groupby(part).transform("min").to_numpy() for part in parts]
    return components(len(rows), np.concatenate([np.stack([rows, first], axis=1) for first in first_of]))


def group_texts(config: FoldsConfig, table: pd.DataFrame | None) -> list[str]:
    """Return the text that tells the row group of each row, as `folds.group` and `folds.group_pattern` say.

    Raises
    ------
    KitError
        Where the column is not there or empty in a row, or the pattern finds nothing in a cell.
    """
    assert config.group is not None, "only to be asked where folds.group names a column"
    cells = _column(table, config.group, "folds.group")
    texts = groups_told(config, cells)
    if without := [cell for cell, text in zip(cells, texts, strict=True) if text is None]:
        raise KitError(
            f"folds.group_pattern: {config.group_pattern!r} finds nothing in {len(without)} of {len(cells)} cells "
            f"of column {config.group!r} ({some(without, 5)})"
        )
    return [text for text in texts if text is not None]


def groups_told(config: FoldsConfig, cells: pd.Series) -> list[str | None]:
    """Return the text that tells the row group of each cell; None where the pattern finds nothing in it."""
    if config.group_pattern is None:
        name_of = {cell: plain(cell) for cell in cells.unique()}  # a space more is no other group
        return [name_of[cell] for cell in cells]
    pattern = re.compile(config.group_pattern)
    found = [pattern.search(cell) for cell in cells]
    return [match[min(1, pattern.groups)] if match else None for match in found]


def check_folds(config: FoldsConfig, classes: tuple[str, ...], targets: np.ndarray) -> None:
    """Fail where a class has too few rows for the folds, or `folds.run` names a fold that is not there.

    Where classes are dealt evenly and one has a single row, a model either trains on it or is scored on it. Where
    rows may have several labels, or something else tells the folds, that is no error (see `rare_classes`).

    Parameters
    ----------
    config : FoldsConfig
        How rows are dealt.
    classes : tuple of str
        In the order of targets.
    targets : ndarray
        Class indices [rows], or bool [rows, classes].
    """
    if targets.ndim == 1 and config.stratify and not (config.time or config.column):
        counts = np.bincount(targets)
        alone = [classes[index] for index, count in enumerate(counts) if count == 1]
        if alone:
            what = f"class {alone[0]!r} has" if len(alone) == 1 else f"{len(alone)} of {len(counts)} classes have"
            named = "" if len(alone) == 1 else f" ({some(map(repr, alone), 5)})"
            raise KitError(
                f"folds: {what} a single row{named}, which {config.k} folds cannot both train on and score; set "
                "folds.stratify=false, which deals rows whatever their class, or remove such classes, merge them "
                "with others, or add images"
            )
        if config.k > (most := counts.max()):
            raise KitError(
                f"folds.k: {config.k} folds, but no class has more than {most} rows; lower k, or set "
                "folds.stratify=false, which deals rows whatever their class"
            )
    elif config.k > len(targets):
        raise KitError(f"folds.k: {config.k} folds, but only {len(targets)} rows; lower k")
    if (beyond := [fold for fold in config.chosen if fold >= config.k]) or not config.chosen:
        raise KitError(f"folds.run: there are folds 0 to {config.k - 1}; got {some(beyond) or 'none'}")


def check_plan(
    plan: FoldPlan,
    config: FoldsConfig,
    table: pd.DataFrame | None = None,
    observations: Sequence[str] | None = None,
) -> None:
    """Refuse a plan of which a fold is empty, trains on nothing, on its row groups or on what is not earlier.

    Parameters
    ----------
    plan : FoldPlan
        However it was made: dealt, read, or given.
    config : FoldsConfig
        Names the columns of row groups and of time.
    table : DataFrame, optional
        The train table.
    observations : sequence of str, optional
        The observation of each row, where several are predicted as one.

    Raises
    ------
    KitError
        A row group with rows that only train and others that are held out spans folds, too.
    """
    known: list[tuple[str, np.ndarray]] = []
    if config.group and table is not None:  # first, as its groups have names
        known.append(("groups", np.array(group_texts(config, table), dtype=object)))
    if observations is not None:
        known.append(("observations (competition.predict_by)", np.array(observations, dtype=object)))
    if plan.groups is not None:
        known.append(("groups", plan.groups))
    for what, groups in known:
        spans = pd.Series(plan.fold).groupby(groups).nunique()
        if len(spanning := spans[spans > 1]):
            raise KitError(
                f"folds: {len(spanning)} of {len(spans)} {what} span folds ({some(map(str, spanning.index), 5)}), "
                "so that models would be scored on what they have seen; make the plan anew"
            )
    for fold in range(config.k):
        if not len(plan.validation_rows(fold)):
            raise KitError(f"folds: fold {fold} holds no row; lower folds.k, or give another plan")
        if not len(plan.training_rows(fold)):
            raise KitError(f"folds: no row is there to train fold {fold} on; give another plan")
    if plan.forward and config.time and table is not None:
        _check_time(plan, config, _column(table, config.time, "folds.time"))


def _check_time(plan: FoldPlan, config: FoldsConfig, cells: pd.Series) -> None:
    """Refuse a plan in which a row is held out that is not later than all that its fold trains on."""
    assert config.time is not None, "only to be asked where folds.time names a column"
    when = moments(cells.tolist(), config.time, config.time_format)
    for fold in range(config.k):
        trains, held = plan.training_rows(fold), plan.validation_rows(fold)
        last = trains[np.argmax(when[trains])]
        if len(early := held[when[held] <= when[last]]):
            raise KitError(
                f"folds: {len(early)} of the {len(held)} rows that fold {fold} holds out are not later than all "
                f"that it trains on (row {plan.ids[early[0]]} of {cells[early[0]]!r}, row {plan.ids[last]} of "
                f"{cells[last]!r} trains); make the plan anew"
            )


def rare_classes(plan: FoldPlan, k: int, classes: tuple[str, ...], targets: np.ndarray) -> list[str]:
    """Return a line for each class that some fold holds none of, at most ten: its score rests on very little."""
    held = np.stack([_rows_of(targets[plan.validation_rows(fold)], len(classes)) for fold in range(k)])
    without, counts = (held == 0).sum(axis=0), _rows_of(targets, len(classes))
    rare = np.flatnonzero(without * counts)  # one without any row is never predicted, and of no fold
    lines = [
        f"class {classes[index]!r} has {counts[index]} {'row' if counts[index] == 1 else 'rows'}; "
        f"{without[index]} of {k} folds hold none of it"
        for index in rare[np.argsort(counts[rare], kind="stable")][:10]
    ]
    return lines + ([f"so it is with {len(rare) - 10} more classes"] if len(rare) > 10 else [])


def write_folds(plan: FoldPlan, path: Path) -> None:
    """Write the plan to `path`."""
    write_text(path, folds_text(plan))


def folds_text(plan: FoldPlan) -> str:
    """Return the plan as it stands in folds.csv."""
    columns = {"id": plan.ids, "fold": plan.fold} | ({} if plan.groups is None else {"group": plan.groups})
    return pd.DataFrame(columns).to_csv(index=False, lineterminator="\n")


def read_folds(path: Path, ids: list[str], forward: bool = False) -> FoldPlan:
    """Read the plan in `path`, aligned with `ids`.

    Parameters
    ----------
    path : Path
        A file that `write_folds` has written.
    ids : list of str
        Of the training rows.
    forward : bool
        Whether its folds follow one another in time (the config's folds.time).

    Raises
    ------
    KitError
        Where it is not there, no fold plan, or one of other rows.
    """
    if not path.is_file():
        raise KitError(f"{path} does not exist; it is the fold plan of the runs beside it")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")
        frame["fold"] = _whole_numbers(frame["fold"])
    except KeyError as error:
        raise KitError(f"{path} is no fold plan (columns id and fold): it has no column {error}") from error
    except ValueError as error:
        raise KitError(f"{path} is no fold plan (columns id and fold): {' '.join(str(error).split())}") from error
    if not frame.index.is_unique or set(frame.index) != set(ids):
        raise OtherRows(
            f"{path} is of other rows than the train table ({len(frame)} against {len(ids)}), or has one twice"
        )
    frame = frame.loc[ids]
    groups = pd.factorize(frame["group"])[0].astype(np.int64) if "group" in frame else None
    return FoldPlan(ids, frame["fold"].to_numpy(), groups, forward)


def _whole_numbers(cells: pd.Series) -> pd.Series:
    """Folds as int64, as −1.0 is what a table with gaps becomes; ValueError where one is no whole number."""
    numbers = pd.to_numeric(cells)
    whole = numbers.astype(np.int64)
    if (whole != numbers).any():
        raise ValueError(f"{some(cells[whole != numbers], 3)} is no whole number")
    return whole


def _dealt(targets: np.ndarray, groups: np.ndarray | None, config: FoldsConfig) -> np.ndarray:
    """Deal rows, which are in the order of their ids: the fold of each, int64 [rows]."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    several = targets.ndim == 2
    if config.stratify and several and (groups is not None or targets.size > LARGE):
        groups = np.arange(len(targets)) if groups is None else groups
        return stratify_groups(targets, groups, config.k, config.seed)
    shuffled = {"shuffle": True, "random_state": config.seed}
    if not config.stratify:
        splitter = KFold(config.k, **shuffled) if groups is None else GroupKFold(config.k, **shuffled)
    elif several:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

        splitter = MultilabelStratifiedKFold(config.k, **shuffled)
    else:
        splitter = (
            StratifiedKFold(config.k, **shuffled) if groups is None else StratifiedGroupKFold(config.k, **shuffled)
        )
    fold = np.empty(len(targets), dtype=np.int64)
    with warnings.catch_warnings():  # rare classes: see check_folds
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(targets)), targets, groups)):
            fold[held_out] = number
    return fold


def _given(cells: pd.Series, config: FoldsConfig) -> np.ndarray:
    """The folds in a column: its texts in order (numbers by value) are folds 0, 1, …; rows with −1 only train.

    −1 is of no fold by the convention of scikit-learn's PredefinedSplit.
    """
    there = cells.unique().tolist()
    value = dict(zip(there, pd.to_numeric(pd.Series(there, dtype=object), errors="coerce"), strict=True))
    texts = [text for text in there if value[text] != EARLIEST]
    numeric = not any(np.isnan(value[text]) for text in texts)
    known: dict[str, Any] = {text: value[text] if numeric else plain(text) for text in texts}  # 0 and 0.0 are one
    first = {key: text for text, key in reversed(known.items())}
    texts = [first[key] for key in sorted(first)]
    if len(texts) != config.k:
        what, most = f"folds.column: column {config.column!r} holds", 100
        beside = f", and {EARLIEST} for rows that only train" if len(texts) < len(there) else ""
        if not 2 <= len(texts) <= most:
            raise KitError(f"{what} {len(texts)} different texts{beside}; folds are 2 to {most}")
        raise KitError(
            f"{what} {len(texts)} folds ({some(texts, 8)}){beside}, but folds.k is {config.k}; set "
            f"folds.k={len(texts)}"
        )
    number = {known[text]: place for place, text in enumerate(texts)}
    place = {text: number[key] for text, key in known.items()}
    return cells.map(lambda text: place.get(text, EARLIEST)).to_numpy(dtype=np.int64)


def _by_time(cells: pd.Series, config: FoldsConfig) -> np.ndarray:
    """Folds of about equal size, one after the other in time (as scikit-learn's TimeSeriesSplit).

    The first of k + 1 spans only trains. Rows of the same moment are in one span.
    """
    assert config.time is not None, "only to be asked where folds.time names a column"
    k, rank = config.k, moments(cells.tolist(), config.time, config.time_format)
    counts = np.bincount(rank)
    # Each moment goes to the span in which its middle row lies.
    middle = np.cumsum(counts) - (counts + 1) / 2
    span = np.minimum((middle * (k + 1) / len(cells)).astype(np.int64), k)
    used = np.unique(span)
    if len(used) < k + 1:
        raise KitError(
            f"folds.time: column {config.time!r} has too few different moments ({len(counts)}) for {k} "
            "folds and an earlier span to train on; lower folds.k"
        )
    return span[rank] + EARLIEST


def _column(table: pd.DataFrame | None, column: str, key: str) -> pd.Series:
    """A column of the train table in which every cell says something."""
    named = None if table is None else column_named(table.columns, column)
    if table is None or named is None:
        has = "" if table is None else f"; it has {some(shown(table.columns))}{left_out_hint(table, column)}"
        raise KitError(f"{key}: the train table has no column {column!r}{has}")
    cells = table[named].reset_index(drop=True)
    if (empty := np.flatnonzero(cells.str.strip() == "")).size:
        raise KitError(
            f"{key}: column {column!r} is empty in {len(empty)} rows (row {some(empty + 1, 5)}); fill them in"
        )
    return cells


def _by_appearance(groups: np.ndarray) -> np.ndarray:
    """Number row groups as they first appear, so that the numbers do not depend on the order of the table."""
    return pd.factorize(groups)[0].astype(np.int64)


def _rows_of(targets: np.ndarray, classes: int) -> np.ndarray:
    """How many rows each class has, int64 [classes]."""
    return targets.sum(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=classes)
