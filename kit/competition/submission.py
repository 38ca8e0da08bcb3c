"""Submissions: the sample's columns, ids and order; made, and checked for what Kaggle would refuse or misread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.labels import Labels, MultiLabel, SingleLabel, split_labels
from kit.errors import KitError, some
from kit.files import write_text

Kind = Literal["labels", "columns", "probabilities"]


@dataclass(frozen=True)
class SubmissionFormat:
    """What a submission of one test set has to look like.

    kind      labels: one column of one or several labels; columns: 0 or 1 for each class; probabilities: a
              number from 0 to 1 for each class. Where there is one column, of the second of two classes
    columns   in their order; `id` is the name of the one with the ids
    ids       in the sample submission's order
    labels    with the classes as they are handed in
    class_of  for columns and probabilities, the index of the class of each column that is none of ids
    ordered   whether the rows have to keep the order of `ids`
    """

    kind: Kind
    columns: tuple[str, ...]
    id: str
    ids: tuple[str, ...]
    labels: Labels
    class_of: dict[str, int]
    ordered: bool = False

    def make(self, predicted: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
        """The submission.

        predicted      a row for each of `ids`: class indices [rows], or bool [rows, classes]
        probabilities  float [rows, classes], used where the competition asks for them
        """
        table = pd.DataFrame({self.id: list(self.ids)}, dtype=object)
        if self.kind == "labels":
            (column,) = [name for name in self.columns if name != self.id]
            table[column] = pd.Series(self.labels.decode(predicted), dtype=object)
        elif self.kind == "probabilities":
            for column, place in self.class_of.items():
                table[column] = pd.Series([f"{value:.6g}" for value in probabilities[:, place]], dtype=object)
        else:
            chosen = predicted if self.labels.multilabel else _one_hot(predicted, len(self.labels.classes))
            for column, place in self.class_of.items():
                table[column] = pd.Series(np.where(chosen[:, place], "1", "0"), dtype=object)
        return table[list(self.columns)]

    def validate(self, submission: pd.DataFrame, what: str) -> None:
        """Raises KitError, a line for each thing that Kaggle would refuse or misread.

        submission  every cell as text
        what        the file's name, for the message
        """
        if list(submission.columns) != list(self.columns):
            raise KitError(f"{what}: {_wrong_columns(list(submission.columns), list(self.columns))}")
        faults = [*self._faults_of_ids(submission[self.id]), *self._faults_of_cells(submission)]
        if faults:
            raise KitError("\n".join(f"{what}: {fault}" for fault in faults))

    def read(self, submission: pd.DataFrame, what: str) -> np.ndarray:
        """What a valid submission says of each of `ids`: class indices, or bool [rows, classes]; of
        probabilities the most likely class, or those from .5 on."""
        self.validate(submission, what)
        table = submission.set_index(self.id).loc[list(self.ids)]
        if self.kind == "labels":
            return self.labels.encode(table.iloc[:, 0].tolist(), what)
        values = np.zeros((len(table), len(self.labels.classes)))
        for column, place in self.class_of.items():
            values[:, place] = table[column].astype(float)
        if self.labels.multilabel:
            return values >= 0.5
        if len(self.class_of) == 1:  # of the second of two classes
            return (values[:, 1] >= 0.5).astype(np.int64)
        return np.argmax(values, axis=1)

    def _faults_of_ids(self, given: pd.Series) -> list[str]:
        wanted, there = set(self.ids), set(given)
        faults = []
        if empty := int((given == "").sum()):
            rows = [row + 1 for row in range(len(given)) if given.iloc[row] == ""]
            faults.append(f"no id in {empty} rows (row {some(rows, 5)}); every row needs one")
        repeated = [name for name in given[given.duplicated()].unique() if name]
        if repeated:
            faults.append(f"{len(repeated)} ids stand there twice ({some(repeated, 5)}); ids must be unique")
        if lacking := [name for name in self.ids if name not in there]:
            faults.append(f"{len(lacking)} of {len(self.ids)} ids are missing ({some(lacking, 5)})")
        if extra := [name for name in given if name and name not in wanted]:
            faults.append(f"{len(extra)} ids are not in the test set ({some(extra, 5)})")
        if self.ordered and not faults and list(given) != list(self.ids):
            row = next(row for row, (one, other) in enumerate(zip(given, self.ids, strict=True)) if one != other)
            faults.append(
                f"the ids stand in another order than in the sample submission (first in row {row + 1}: "
                f"{given.iloc[row]} for {self.ids[row]})"
            )
        return faults

    def _faults_of_cells(self, submission: pd.DataFrame) -> list[str]:
        if self.kind == "labels":
            (column,) = [name for name in self.columns if name != self.id]
            return self._faults_of_labels(submission[column], submission[self.id])
        faults = []
        for column in self.class_of:
            faults += _faults_of_numbers(submission[column], submission[self.id], column, self.kind)
        if self.kind == "columns" and len(self.class_of) > 1 and not faults:
            chosen = sum(submission[column].astype(float) for column in self.class_of)
            allowed = (
                chosen == 1 if not self.labels.multilabel else chosen >= (0 if self.labels.may_be_empty else 1)
            )
            if not allowed.all():
                odd = submission.loc[~allowed, self.id]
                wanted = "at least one" if self.labels.multilabel else "exactly one"
                faults.append(f"{len(odd)} rows have not {wanted} 1 ({some(odd, 5)})")
        return faults

    def _faults_of_labels(self, cells: pd.Series, ids: pd.Series) -> list[str]:
        faults = []
        if not (self.labels.multilabel and self.labels.may_be_empty):
            empty = ids[(cells.str.strip() == "").to_numpy()]
            if len(empty):
                faults.append(f"no label for {len(empty)} ids ({some(empty, 5)})")
        several = isinstance(self.labels, MultiLabel)
        split = [split_labels(cell, self.labels.separator) if several else [cell] for cell in cells]
        if twice := [name for name, each in zip(ids, split, strict=True) if len(set(each)) < len(each)]:
            faults.append(f"{len(twice)} rows have a label twice ({some(twice, 5)})")
        known = {label: not label.strip() or self.labels.has(label) for each in split for label in each}
        unknown = [label for label, is_known in known.items() if not is_known]
        if unknown:
            rows = sum(any(not known[label] for label in each) for each in split)
            nan = "; NaN is what pandas writes for a missing value" if {"nan", "NaN"} & set(unknown) else ""
            faults.append(
                f"{some(map(repr, unknown), 5)} {'is' if len(unknown) == 1 else 'are'} no class (in {rows} rows); "
                f"the classes are {some(self.labels.classes, 12)}{nan}"
            )
        return faults


def submission_format(
    config: CompetitionConfig, sample: pd.DataFrame, labels: Labels, names: dict[str, str] | None = None
) -> SubmissionFormat:
    """The format that the sample submission (every cell as text) and the config ask for.

    names  class → name, where the config says to hand in names

    Raises KitError where the sample's columns are not those of these classes.
    """
    columns = list(sample.columns)
    id_name = id_column_of(columns, config.id)
    others = [name for name in columns if name != id_name]
    if config.submit_names and names:
        labels = labels.with_classes([names[name] for name in labels.classes])
    kind = _kind_of(config, sample[others])
    shared = {"columns": tuple(columns), "id": id_name, "ids": tuple(sample[id_name]), "labels": labels}
    if kind == "labels":
        if isinstance(labels, MultiLabel):
            _need_separable(labels)
        return SubmissionFormat("labels", **shared, class_of={}, ordered=config.ordered)
    if len(others) == 1 and not labels.multilabel and len(labels.classes) == 2:
        return SubmissionFormat(kind, **shared, class_of={others[0]: 1}, ordered=config.ordered)
    place_of = {name: place for place, name in enumerate(labels.classes)}
    beyond = [name for name in others if name not in place_of]
    lacking = [name for name in place_of if name not in others]
    if beyond or lacking:
        said = [f"it has {some(beyond, 5)}, which is no class"] if beyond else []
        said += [f"it lacks {some(lacking, 5)}"] if lacking else []
        raise KitError(
            "competition.sample_submission: with a column a class its columns have to be the classes: "
            f"{', and '.join(said)}"
        )
    return SubmissionFormat(
        kind, **shared, class_of={name: place_of[name] for name in others}, ordered=config.ordered
    )


def id_column_of(columns: Sequence[str], id_column: str | None) -> str:
    """The name of the column with the ids: the config's where it is there, else the first."""
    if len(columns) < 2:
        raise KitError(
            "competition.sample_submission: a submission has a column of ids and at least one more; this one has "
            f"{len(columns)}: {some(columns)}"
        )
    return id_column if id_column in columns else columns[0]


def labels_as_they_stand(config: CompetitionConfig, sample: pd.DataFrame, submission: pd.DataFrame) -> Labels:
    """A label format that takes whatever a submission says, for where the train table is not at hand."""
    others = [name for name in sample.columns if name != id_column_of(list(sample.columns), config.id)]
    if isinstance(config.label, tuple):
        return MultiLabel(config.label)
    if len(others) > 1:
        return MultiLabel(tuple(others)) if config.multilabel else SingleLabel(tuple(others))
    cells = submission[others[0]] if others[0] in submission else pd.Series(dtype=str)
    if config.classes:
        return MultiLabel(config.classes, config.separator) if config.separator else SingleLabel(config.classes)
    if config.separator:
        return MultiLabel(MultiLabel.of(cells, config.separator).classes, config.separator)
    return SingleLabel(tuple(label for label in cells.unique() if label))


def write_submission(submission: pd.DataFrame, path: Path) -> None:
    write_text(path, submission.to_csv(index=False, lineterminator="\n"))


def _kind_of(config: CompetitionConfig, cells: pd.DataFrame) -> Kind:
    if config.submission != "auto":
        if config.submission == "labels" and len(cells.columns) > 1:
            raise KitError(
                "competition.submission: labels stand in one column, but the sample submission has "
                f"{len(cells.columns)} beside the ids: {some(cells.columns)}"
            )
        return config.submission
    if len(cells.columns) == 1:
        return "labels"
    whole = {"0", "1", "0.0", "1.0", ""}
    return "columns" if all(set(cells[name]) <= whole for name in cells) else "probabilities"


def _need_separable(labels: MultiLabel) -> None:
    """Fails where a cell of these labels could not be read again."""
    if odd := [name for name in labels.classes if split_labels(name, labels.separator) != [name]]:
        raise KitError(
            f"competition.submission: {some(map(repr, odd), 5)} cannot stand in a cell with labels separated by "
            f"{labels.separator!r}; hand in labels without it, or set competition.separator"
        )


def _one_hot(indices: np.ndarray, count: int) -> np.ndarray:
    return np.arange(count) == np.asarray(indices)[:, None]


def _wrong_columns(given: list[str], wanted: list[str]) -> str:
    order = " (the same in another order)" if sorted(given) == sorted(wanted) else ""
    return f"the columns are {some(given)}; expected {some(wanted)}{order}"


def _faults_of_numbers(cells: pd.Series, ids: pd.Series, column: str, kind: Kind) -> list[str]:
    """What is wrong in a column of 0 and 1, or of probabilities."""
    empty, text, beyond = [], [], []
    for name, cell in zip(ids, cells, strict=True):
        try:
            value = float(cell) if cell.strip() and "_" not in cell else math.nan
        except ValueError:
            text.append(f"{name}: {cell!r}")
            continue
        if math.isnan(value):
            empty.append(name)
        elif not (value in (0, 1) if kind == "columns" else 0 <= value <= 1):
            beyond.append(f"{name}: {cell}")
    allowed = "0 or 1" if kind == "columns" else "from 0 to 1"
    faults = [f"column {column}: no value (NaN) for {len(empty)} ids ({some(empty, 5)})"] if empty else []
    faults += [f"column {column}: {len(text)} cells are no numbers ({some(text, 5)})"] if text else []
    return faults + (
        [f"column {column}: {len(beyond)} values are not {allowed} ({some(beyond, 5)})"] if beyond else []
    )
