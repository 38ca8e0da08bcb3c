"""Predictions that another tool has made, as a member of a blend.

DIR/
  oof.csv    id, fold, and a column for each class: what the model that left a row's fold out predicts of it; a
             fold may have any name
  test.csv   id and the same columns; with a column fold what each fold's models predict, else the mean of all
Both may be Parquet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.folds import EARLIEST, FoldPlan
from kit.competition.load import Competition
from kit.competition.spelling import Spelling
from kit.competition.tables import read_table
from kit.core.errors import KitError, some
from kit.core.runs import RunRecord, predictions
from kit.core.whole import digest

SUM = 1e-3  # by which the probabilities of a row may miss 1, where it has one label


@dataclass(frozen=True)
class FoldOfFiles:
    """What the files say of one fold, read as the predictions of a run are."""

    record: RunRecord
    oof: Path
    test: Path
    held_out: pd.DataFrame
    of_test: pd.DataFrame

    def read_oof(self) -> pd.DataFrame:
        """Return the predictions of the held-out rows."""
        return self.held_out

    def read_test(self) -> pd.DataFrame:
        """Return the predictions of the test rows."""
        return self.of_test


@dataclass(frozen=True)
class FilesMember:
    """A folder with out-of-fold and test predictions.

    Attributes
    ----------
    title : str
        The folder's name.
    oof, test : Path
        The files.
    runs : sequence of FoldOfFiles
        What they hold, a fold each; empty before `read`.
    """

    title: str
    oof: Path
    test: Path
    runs: Sequence[FoldOfFiles] = ()

    @classmethod
    def of(cls, name: str) -> "FilesMember | None":
        """Return the member of a folder; None where `name` is no folder with such files.

        Raises
        ------
        KitError
            Where the folder lacks one of the two.
        """
        folder = Path(name).expanduser()
        oof, test = _file(folder, "oof"), _file(folder, "test")
        if oof and test:
            return cls(folder.resolve().name, oof, test)
        if oof or test:
            lacking = "test" if oof else "oof"
            raise KitError(
                f"blend: {folder} has no {lacking}.csv; predictions of another tool are oof.csv and test.csv"
            )
        return None

    def read(self, competition: Competition, plan: FoldPlan) -> "FilesMember":
        """Return the member with what its files hold.

        Raises
        ------
        KitError
            Where they are of other rows, classes or folds, or hold what is no probability.
        """
        oof, folds = _predictions(self.oof, competition, needs_fold=True)
        test, of_fold = _predictions(self.test, competition)
        assert folds is not None, "it was needed"
        ours = _folds(self.oof, oof.index, folds, plan)
        if of_fold is not None and set(of_fold) != set(ours):
            raise KitError(f"blend: {self.test}: column fold names other folds than {self.oof.name}")
        runs = []
        for theirs, number in sorted(ours.items(), key=lambda pair: pair[1]):
            record = RunRecord(policy=self.title, seed=0, fold=number, unread=[])
            mine = test if of_fold is None else test[(of_fold == theirs).to_numpy()]
            _need_rows(self.test, mine.index, competition.test_ids, "test rows")
            runs.append(FoldOfFiles(record, self.oof, self.test, oof[(folds == theirs).to_numpy()], mine))
        return replace(self, runs=runs)

    @property
    def folds(self) -> set[int]:
        """The folds of the plan that they hold."""
        return {run.record.fold for run in self.runs}

    @cached_property
    def source(self) -> dict[str, Any]:
        """What blend.json says of where the predictions came from."""
        return {"files": {file.name: digest(file) for file in (self.oof, self.test)}}


def _file(folder: Path, part: str) -> Path | None:
    names = [folder / f"{part}{ending}" for ending in (".csv", ".parquet")]
    return next((file for file in names if file.is_file()), None)


def _predictions(
    file: Path, competition: Competition, needs_fold: bool = False
) -> tuple[pd.DataFrame, pd.Series | None]:
    """The probabilities, indexed by id, in the order of the classes, and the column fold, as text."""
    table = read_table(file, "blend")
    spelling = Spelling(competition.classes)
    place = {name: spelling.place(name) for name in table.columns if name not in ("id", "fold")}
    lacking = [name for at, name in enumerate(competition.classes) if at not in place.values()]
    needed = ["id", *["fold"] * needs_fold]
    wanted = [name for name in needed if name not in table.columns] + lacking
    if wanted:
        why = "; fold tells which model left the row out" if "fold" in wanted else ""
        raise KitError(f"blend: {file} has no column {some(map(repr, wanted), 5)}{why}")
    if odd := [name for name, at in place.items() if at is None]:
        raise KitError(f"blend: {file} has columns that are no class ({some(odd, 5)}); remove them")
    if twice := [name for name, at in place.items() if list(place.values()).count(at) > 1]:
        raise KitError(f"blend: {file}: columns {some(map(repr, twice), 5)} are one class; leave one of them")
    columns = sorted(place, key=lambda name: place[name] or 0)
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if (bad := np.flatnonzero(~((values >= 0) & (values <= 1)).all(axis=1))).size:
        rows = some(table["id"].iloc[bad].tolist(), 3)
        raise KitError(
            f"blend: {file} holds what is no probability (row {rows}); give values from 0 to 1, of a softmax or a "
            "sigmoid"
        )
    if not competition.label_format.multilabel:
        sums = values.sum(axis=1, keepdims=True)
        if (bad := np.flatnonzero(np.abs(sums[:, 0] - 1) > SUM)).size:
            rows = some(table["id"].iloc[bad].tolist(), 3)
            raise KitError(f"blend: {file}: the probabilities of a row do not sum to 1 (row {rows})")
        values = values / sums
    folds = table.get("fold")
    apart = ["id"] if needs_fold or folds is None else ["id", "fold"]
    if (again := table["id"][table.duplicated(apart)]).size:
        raise KitError(f"blend: {file} has {some(again.tolist(), 3)} twice")
    return predictions(table["id"].tolist(), values, competition.classes), folds


def _folds(file: Path, ids: pd.Index, folds: pd.Series, plan: FoldPlan) -> dict[str, int]:
    """Their name of each fold → its number in the plan; KitError where they dealt the rows otherwise."""
    ours = dict(zip(plan.ids, plan.fold.tolist(), strict=True))
    if odd := [name for name in ids if ours.get(name, EARLIEST) == EARLIEST]:
        raise KitError(f"blend: {file} predicts rows that no fold holds out ({some(odd, 3)}); remove them")
    pairs = pd.DataFrame({"theirs": folds.to_numpy(), "ours": [ours[name] for name in ids]}, index=ids)
    if (mixed := pairs.groupby("theirs")["ours"].nunique().loc[lambda counts: counts > 1]).size:
        raise KitError(
            f"blend: {file}: fold {mixed.index[0]!r} holds out rows of several folds of the experiments, so a row "
            "may have been trained on by one member and held out by another; train by their folds.csv"
        )
    number = pairs.drop_duplicates().set_index("theirs")["ours"]
    if not number.is_unique:
        raise KitError(f"blend: {file} splits a fold of the experiments; train by their folds.csv")
    for fold in number:
        wanted = [plan.ids[row] for row in plan.validation_rows(fold)]
        _need_rows(file, pairs.index[pairs["ours"] == fold], wanted, f"rows of fold {fold}")
    return {str(theirs): int(fold) for theirs, fold in number.items()}


def _need_rows(file: Path, there: pd.Index, wanted: Sequence[str], what: str) -> None:
    odd = there.symmetric_difference(pd.Index(wanted)).tolist()
    if len(there) != len(wanted) or odd:
        raise KitError(f"blend: {file} is of other {what} than the competition (not both have {some(odd, 3)})")
