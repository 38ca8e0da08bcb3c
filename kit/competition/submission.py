"""Submissions: making them, and checking them for what Kaggle would refuse or misread."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.headers import column_named
from kit.competition.labels import Labels, MultiLabel, SingleLabel, label_counts, spelling_of, split_labels
from kit.competition.lists import items_of, style_of
from kit.competition.spelling import leading_zero, plain, respelt, shown, stripped, truth, truth_words
from kit.competition.tables import delimiter_hint
from kit.core.errors import KitError, some
from kit.core.files import write_text

Kind = Literal["labels", "columns", "probabilities"]
WHOLE = {"0", "1", "0.0", "1.0", ""}  # cells that ask for no probability, as True and False do


@dataclass(frozen=True)
class SubmissionFormat:
    """What a submission of one test set has to look like.

    Attributes
    ----------
    kind
        labels: one column of one or several labels; columns: 0 or 1 for each class; probabilities: a number from
        0 to 1 for each class. Where there is one column, of the second of two classes.
    columns
        In their order.
    id_column
        The one with the ids.
    ids
        In the sample submission's order.
    labels
        With the classes as they are handed in.
    class_of
        For columns and probabilities, the index of the class of each column but that of the ids.
    ordered
        Whether the rows have to keep the order of `ids`.
    words
        What is handed in for 0 and 1 in columns.
    accepted
        Spellings of labels that the sample submission has, though the classes are spelt otherwise.
    """

    kind: Kind
    columns: tuple[str, ...]
    id_column: str
    ids: tuple[str, ...]
    labels: Labels
    class_of: dict[str, int]
    ordered: bool = False
    words: tuple[str, str] = ("0", "1")
    accepted: frozenset[str] = frozenset()

    def make(self, predicted: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
        """Make a submission of predictions.

        Parameters
        ----------
        predicted : ndarray
            A row for each of `ids`: class indices [rows], or bool [rows, classes].
        probabilities : ndarray
            float [rows, classes], used where the competition asks for them.

        Returns
        -------
        DataFrame
            Every cell as text.
        """
        cells: dict[str, Sequence[str] | np.ndarray] = {self.id_column: list(self.ids)}
        if self.kind == "labels":
            (column,) = [name for name in self.columns if name != self.id_column]
            cells[column] = self.labels.decode(predicted)
        elif self.kind == "probabilities":
            for column, place in self.class_of.items():
                cells[column] = [f"{value:.6g}" for value in np.asarray(probabilities)[:, place].tolist()]
        else:
            chosen = predicted if self.labels.multilabel else _one_hot(predicted, len(self.labels.classes))
            digits = np.array(self.words, dtype=object)
            for column, place in self.class_of.items():
                cells[column] = digits[np.asarray(chosen)[:, place].astype(np.int64)]
        # All columns at once: added one by one, they are a frame in as many pieces.
        return pd.DataFrame({name: cells[name] for name in self.columns}, dtype=object)

    def validate(self, submission: pd.DataFrame, what: str) -> None:
        """Check a submission.

        Parameters
        ----------
        submission : DataFrame
            Every cell as text.
        what : str
            The file's name, for messages.

        Raises
        ------
        KitError
            A line for each thing that Kaggle would refuse or misread.
        """
        if list(submission.columns) != list(self.columns):
            raise KitError(f"{what}: {_wrong_columns(list(submission.columns), list(self.columns))}")
        faults = [*self._faults_of_ids(submission[self.id_column]), *self._faults_of_cells(submission)]
        if faults:
            raise KitError("\n".join(f"{what}: {fault}" for fault in faults))

    def read(self, submission: pd.DataFrame, what: str) -> np.ndarray:
        """Return what a valid submission says of each of `ids`.

        Parameters
        ----------
        submission, what
            As in `validate`.

        Returns
        -------
        ndarray
            Class indices [rows], or bool [rows, classes]; of probabilities the most likely class, or those from
            .5 on.
        """
        self.validate(submission, what)
        if self.kind == "labels":
            table = submission.set_index(self.id_column).loc[list(self.ids)]
            return self.labels.encode(table.iloc[:, 0].tolist(), what)
        values = self._table_of(submission)
        if self.labels.multilabel:
            return values >= 0.5
        if len(self.class_of) == 1:  # of the second of two classes
            return (values[:, 1] >= 0.5).astype(np.int64)
        return np.argmax(values, axis=1)

    def read_probabilities(self, submission: pd.DataFrame, what: str) -> np.ndarray:
        """Return the probabilities that a valid submission says of each of `ids`, float64 [rows, classes].

        Parameters
        ----------
        submission, what
            As in `validate`.

        Raises
        ------
        KitError
            As `validate`, and where the competition asks for labels.
        """
        self.validate(submission, what)
        if self.kind != "probabilities":
            raise KitError(
                f"{what}: holds labels, but the metric takes probabilities; set competition.submission: "
                "probabilities if it asks for them"
            )
        values = self._table_of(submission)
        if len(self.class_of) == 1:
            values[:, 0] = 1 - values[:, 1]
        return values

    def _table_of(self, submission: pd.DataFrame) -> np.ndarray:
        """Return the numbers of each of `ids`, float64 [rows, classes]; 0 of a class without a column."""
        table = submission.set_index(self.id_column).loc[list(self.ids)]
        values = np.zeros((len(table), len(self.labels.classes)))
        for column, place in self.class_of.items():
            values[:, place] = self._values(table[column])[0]
        return values

    def remarks(self, submission: pd.DataFrame) -> list[str]:
        """Return lines about labels in a valid submission that are spelt otherwise than the classes are."""
        if self.kind != "labels":
            return []
        (column,) = [name for name in self.columns if name != self.id_column]
        counts, spelling = label_counts(submission[column], self.labels), spelling_of(self.labels.classes)
        place_of = {text: spelling.place(text) for text in counts}
        odd = [
            f"{text!r} for {self.labels.classes[place]!r} (in {counts[text]})"
            for text, place in place_of.items()
            if place is not None and text != self.labels.classes[place]
        ]
        return [f"labels are spelt otherwise, which counts where text is compared: {some(odd, 5)}"] if odd else []

    def _faults_of_ids(self, given: pd.Series) -> list[str]:
        wanted, there = set(self.ids), set(given)
        faults = []
        if empty := int((given == "").sum()):
            rows = (np.flatnonzero(given == "") + 1).tolist()
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
            (column,) = [name for name in self.columns if name != self.id_column]
            return self._faults_of_labels(submission[column], submission[self.id_column])
        ids, chosen = submission[self.id_column], np.zeros(len(submission))
        faults: list[str] = []
        for column in self.class_of:
            values, is_text = self._values(submission[column])
            faults += _faults_of_numbers(values, is_text, ids, submission[column], self.kind)
            chosen += values
        if self.kind == "columns" and len(self.class_of) > 1 and not faults:
            several = isinstance(self.labels, MultiLabel)
            allowed = chosen >= self._fewest_labels if several else chosen == 1
            if not allowed.all():
                odd = ids[~allowed]
                wanted = "at least one" if several else "exactly one"
                faults.append(f"{len(odd)} rows have not {wanted} 1 ({some(odd, 5)})")
        return faults

    @property
    def _fewest_labels(self) -> int:
        """How many labels a row has at least."""
        return 0 if isinstance(self.labels, MultiLabel) and self.labels.may_be_empty else 1

    def _values(self, cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """The numbers in a column (see `_numbers`); one of True and False alone is of 1 and 0."""
        if (
            self.kind == "columns"
            and len(cells)
            and set(cells.map(plain).str.lower().unique()) <= {"true", "false"}
        ):
            cells = cells.map(lambda cell: str(truth(cell)))
        return _numbers(cells)

    def _faults_of_labels(self, cells: pd.Series, ids: pd.Series) -> list[str]:
        faults = []
        if self._fewest_labels:
            empty = ids[(cells.map(stripped) == "").to_numpy()]
            if len(empty):
                faults.append(f"no label for {len(empty)} ids ({some(empty, 5)}); pandas writes NaN so")
        split = [self.labels.split(cell) for cell in cells]
        if twice := [name for name, each in zip(ids, split, strict=True) if len(set(each)) < len(each)]:
            faults.append(f"{len(twice)} rows have a label twice ({some(twice, 5)})")
        if isinstance(self.labels, MultiLabel) and self.labels.style:
            plainly = [cell for cell in cells.unique() if stripped(cell) and items_of(cell) is None]
            if plainly:
                example = self.labels.style.write(self.labels.classes[:2])
                faults.append(f"cells are no lists, as in {example}: {some(map(repr, plainly), 5)}")
                return faults
        unknown = self._unknown(dict.fromkeys(label for each in split for label in each if stripped(label)))
        if unknown:
            odd = set(unknown)
            rows = sum(not odd.isdisjoint(each) for each in split)
            hint = "; NaN stands for a missing value" if {"nan", "NaN"} & odd else self._hint(unknown)
            faults.append(
                f"{some(map(repr, unknown), 5)} {'is' if len(unknown) == 1 else 'are'} no class (in {rows} rows); "
                f"the classes are {some(shown(self.labels.classes), 12)}{hint}"
            )
        return faults

    def _unknown(self, labels: Iterable[str]) -> list[str]:
        """Those of the labels that are no class as text; of numbers without zeros in front the value counts."""
        spelling, odd = spelling_of(self.labels.classes), []
        for label in labels:
            place = spelling.place(label)
            same = place is not None and (
                label == self.labels.classes[place]
                or label in self.accepted
                or (spelling.numeric and not leading_zero(self.labels.classes[place]))
            )
            odd += [] if same else [label]
        return odd

    def _hint(self, unknown: list[str]) -> str:
        """What is wrong with the spelling of labels, where nothing else is wrong."""
        if not self.labels.unknown(unknown):
            if spelling_of(self.labels.classes).numeric:
                return "; zeros in front count"
            spaces = {stripped(label) for label in unknown} <= set(self.labels.classes)
            return "; spaces around a label count" if spaces else "; they are written in another Unicode form"
        folded = {plain(name).casefold() for name in self.labels.classes}
        return "; case counts" if {plain(label).casefold() for label in unknown} <= folded else ""


def submission_format(
    config: CompetitionConfig, sample: pd.DataFrame, labels: Labels, names: dict[str, str] | None = None
) -> SubmissionFormat:
    """Return the format that the sample submission and the config ask for.

    Parameters
    ----------
    config : CompetitionConfig
        Of the competition.
    sample : DataFrame
        The sample submission, every cell as text.
    labels : SingleLabel or MultiLabel
        With the classes.
    names : dict, optional
        Class → name, where the config says to hand in names.

    Raises
    ------
    KitError
        Where the sample's columns are not those of these classes.
    """
    columns = list(sample.columns)
    id_column = id_column_of(columns, config.submitted_id)
    others = [name for name in columns if name != id_column]
    if config.submit_names and names:
        labels = labels.with_classes([names[name] for name in labels.classes])
    kind = _kind_of(config, sample[others], labels)
    if kind == "labels":
        labels = _as_in_sample(labels, sample[others[0]])
    return SubmissionFormat(
        kind=kind,
        columns=tuple(columns),
        id_column=id_column,
        ids=tuple(sample[id_column]),
        labels=labels,
        class_of={} if kind == "labels" else _class_of(others, labels, config),
        ordered=config.ordered,
        words=truth_words(pd.unique(sample[others].to_numpy().ravel())) if kind == "columns" else ("0", "1"),
        accepted=frozenset(label_counts(sample[others[0]], labels)) if kind == "labels" else frozenset(),
    )


def _as_in_sample(labels: Labels, cells: pd.Series) -> Labels:
    """The labels as they are handed in: lists where the sample has lists, True and False or 1 and 0 as it has."""
    if isinstance(labels, MultiLabel):
        labels = replace(labels, style=style_of(cells.unique()))
        _need_separable(labels)
        return labels
    told = [truth(name) for name in labels.classes]
    words = truth_words(cells.unique())
    if set(told) != {0, 1} or not len(cells) or None in map(truth, cells.unique()):
        return labels
    same = words == truth_words(labels.classes)
    return labels if same else labels.with_classes([words[int(value or 0)] for value in told])


def _class_of(others: list[str], labels: Labels, config: CompetitionConfig) -> dict[str, int]:
    """The index of the class of each column but that of the ids; KitError where they are not the classes."""
    if len(others) == 1 and not labels.multilabel and len(labels.classes) == 2:
        return {others[0]: 1}
    spelling = spelling_of(labels.classes)
    place_of = {name: place for name in others if (place := spelling.place(name)) is not None}
    for place in place_of.values():
        if len(several := [name for name in place_of if place_of[name] == place]) > 1:
            raise KitError(
                f"competition.sample_submission: the columns {some(map(repr, several), 5)} are of one class, "
                f"{labels.classes[place]!r}"
            )
    beyond = [name for name in others if name not in place_of]
    there = set(place_of.values())
    lacking = [name for place, name in enumerate(labels.classes) if place not in there]
    if beyond or lacking:
        said = [f"it has {some(shown(beyond), 5)}, which is no class"] if beyond else []
        said += [f"it lacks {some(shown(lacking), 5)}"] if lacking else []
        where = "sample_submission" if config.stated_columns is None else "submission.label"
        raise KitError(
            f"competition.{where}: with a column a class its columns have to be the classes: "
            f"{', and '.join(said)}"
            + ("; competition.label lists the classes" if isinstance(config.label, tuple) else "")
            + (_TO_ALLOW if beyond and not lacking and not isinstance(config.label, tuple) else "")
        )
    return place_of


_TO_ALLOW = "; where it has no training row, set competition.classes_without_rows=allowed"


def id_column_of(columns: Sequence[str], id_column: str | None) -> str:
    """Return the name of the column with the ids: the config's where it is there, else the first."""
    if len(columns) < 2:
        raise KitError(
            "competition.sample_submission: a submission has a column of ids and at least one more; this one has "
            f"{len(columns)}: {some(shown(columns))}"
        )
    named = None if id_column is None else column_named(columns, id_column)
    return columns[0] if named is None else named


def labels_from_submission(config: CompetitionConfig, sample: pd.DataFrame, submission: pd.DataFrame) -> Labels:
    """Return a label format that takes whatever a submission says, for where there is no train table."""
    others = [name for name in sample.columns if name != id_column_of(list(sample.columns), config.submitted_id)]
    if isinstance(config.label, tuple):
        return MultiLabel(config.label)
    if len(others) > 1:
        return MultiLabel(tuple(others)) if config.multilabel else SingleLabel(tuple(others))
    cells = submission[others[0]] if others[0] in submission else pd.Series(dtype=str)
    form: Labels = MultiLabel((), config.separator or " ") if config.multilabel else SingleLabel(())
    if config.classes:
        return form.with_classes(respelt(config.classes, label_counts(sample[others[0]], form)))
    if isinstance(form, MultiLabel):
        return MultiLabel(MultiLabel.of(cells, form.separator).classes, form.separator)
    return SingleLabel(tuple(label for label in cells.unique() if label))


def write_submission(submission: pd.DataFrame, path: Path) -> None:
    """Write a submission, every cell as text, to `path`."""
    write_text(path, submission.to_csv(index=False, lineterminator="\n"))


def _kind_of(config: CompetitionConfig, cells: pd.DataFrame, labels: Labels) -> Kind:
    """What the config says the sample's cells ask for, or what they look like."""
    if config.submission_kind != "auto":
        if config.submission_kind == "labels" and len(cells.columns) > 1:
            raise KitError(
                "competition.submission: labels stand in one column, but the sample submission has "
                f"{len(cells.columns)} beside the ids: {some(shown(cells.columns))}"
            )
        return config.submission_kind
    if len(cells.columns) == 1:
        two = not labels.multilabel and len(labels.classes) == 2
        return "probabilities" if two and _asks_for_probabilities(cells.iloc[:, 0], labels) else "labels"
    return "columns" if all(map(_is_whole, pd.unique(cells.to_numpy().ravel()))) else "probabilities"


def _is_whole(cell: str) -> bool:
    return cell in WHOLE or plain(cell).lower() in ("true", "false")


def _asks_for_probabilities(cells: pd.Series, labels: Labels) -> bool:
    """Whether all cells are numbers, and one of them lies between 0 and 1 and is no class."""
    values, is_text = _numbers(cells)
    between = [cell for cell, value in zip(cells, values, strict=True) if 0 < value < 1]
    return not is_text.any() and bool(labels.unknown(dict.fromkeys(between)))


def _need_separable(labels: MultiLabel) -> None:
    """Fail where a cell of these labels could not be read again."""
    if labels.style:
        if odd := [name for name in labels.classes if not labels.style.takes(name)]:
            raise KitError(
                f"competition.submission: {some(map(repr, odd), 5)} cannot stand in a list as the sample "
                f"submission has it, like {labels.style.write(['a', 'b'])}; hand in other labels"
            )
        return
    if odd := [name for name in labels.classes if split_labels(name, labels.separator) != [name]]:
        raise KitError(
            f"competition.submission: {some(map(repr, odd), 5)} cannot stand in a cell with labels separated by "
            f"{labels.separator!r}; hand in labels without it, or set competition.separator"
        )


def _one_hot(indices: np.ndarray, count: int) -> np.ndarray:
    return np.arange(count) == np.asarray(indices)[:, None]


def _wrong_columns(given: list[str], wanted: list[str]) -> str:
    hint = " (the same in another order)" if sorted(given) == sorted(wanted) else ""
    if "Unnamed: 0" in given:
        hint = " (write it with index=False)"
    return f"the columns are {some(shown(given))}; expected {some(shown(wanted))}{hint}{delimiter_hint(given)}"


def _numbers(cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Turn a column of texts into numbers.

    Returns
    -------
    ndarray
        float64 [rows]: NaN where a cell says nothing, or something that is no number.
    ndarray
        bool [rows]: where it says something that is no number.
    """
    import pyarrow as pa

    try:  # ten times as fast as Python, and the same for what it takes, but for nan(1)
        values = pa.array(cells, type=pa.large_string()).cast(pa.float64()).to_numpy()
        if not np.isnan(values).any():
            return values, np.zeros(len(cells), dtype=bool)
    except ValueError:
        pass
    texts = cells.tolist()
    number_of = {text: _number_or_text(text) for text in dict.fromkeys(texts)}
    numbers = [number_of[text] for text in texts]
    is_text = np.array([number is None for number in numbers])
    return np.array(numbers, dtype=np.float64), is_text  # None becomes NaN


def _number_or_text(cell: str) -> float | None:
    try:
        return float(cell) if cell.strip() and "_" not in cell else math.nan  # Python reads 1_0 as 10
    except ValueError:
        return None


def _faults_of_numbers(
    values: np.ndarray, is_text: np.ndarray, ids: pd.Series, cells: pd.Series, kind: Kind
) -> list[str]:
    """What is wrong in a column of 0 and 1, or of probabilities.

    `values` and `is_text` are what `_numbers` makes of its cells.
    """
    no_value = np.isnan(values) & ~is_text
    fine = (values == 0) | (values == 1) if kind == "columns" else (values >= 0) & (values <= 1)
    odd = ~(fine | is_text | no_value)
    if not (no_value.any() or is_text.any() or odd.any()):
        return []
    column, empty = cells.name, ids[no_value].tolist()
    text = [f"{name}: {cell!r}" for name, cell in zip(ids[is_text], cells[is_text], strict=True)]
    beyond = [f"{name}: {cell}" for name, cell in zip(ids[odd], cells[odd], strict=True)]
    allowed = "0 or 1" if kind == "columns" else "from 0 to 1"
    faults = [f"column {column}: no value (NaN) for {len(empty)} ids ({some(empty, 5)})"] if empty else []
    faults += [f"column {column}: {len(text)} cells are no numbers ({some(text, 5)})"] if text else []
    return faults + (
        [f"column {column}: {len(beyond)} values are not {allowed} ({some(beyond, 5)})"] if beyond else []
    )
