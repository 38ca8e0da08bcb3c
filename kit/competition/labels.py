"""Label formats: from what the label columns say to class names and targets, and back."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd

from kit.competition.lists import ListStyle, items_of, style_of
from kit.competition.spelling import Spelling, classes_of, stripped, truth
from kit.core.errors import KitError, some


@dataclass(frozen=True)
class SingleLabel:
    """The label format of a competition in which each row has one class.

    Attributes
    ----------
    classes
        The labels as text, numbers in the order of their values.
    """

    classes: tuple[str, ...]

    multilabel = False

    @classmethod
    def of(cls, labels: pd.Series) -> "SingleLabel":
        """Return the format whose classes are the labels of these rows; texts that are one label are one class."""
        return cls(classes_of(label_counts(labels)))

    def with_classes(self, classes: Sequence[str]) -> "SingleLabel":
        """Return this format with other classes, in the order stated."""
        return SingleLabel(tuple(classes))

    def split(self, cell: str) -> list[str]:
        """Return the label of a cell."""
        return [cell]

    def encode(self, labels: Sequence[str], what: str) -> np.ndarray:
        """Turn labels into class indices, int64 [rows].

        Which texts are one label, `kit.competition.spelling.Spelling` says.

        Parameters
        ----------
        labels : sequence of str
            One for each row.
        what : str
            Where they stand, for messages.

        Raises
        ------
        KitError
            Names the labels that are no class.
        """
        index = _known_index(self.classes, labels, what)
        return np.array([index[text] for text in labels], dtype=np.int64)

    def unknown(self, labels: Collection[str]) -> list[str]:
        """Return those of `labels` that are no class, however spelt, each once."""
        return _unknown(labels, _index(self.classes, labels))

    def decode(self, indices: np.ndarray) -> list[str]:
        """Turn class indices [rows] into labels as the classes are spelt."""
        return [self.classes[index] for index in np.asarray(indices).tolist()]


@dataclass(frozen=True)
class MultiLabel:
    """The label format of a competition in which a row may have any number of classes.

    Attributes
    ----------
    classes
        The labels as text, numbers in the order of their values.
    separator
        Between the labels of a cell.
    may_be_empty
        Whether a row may have no label at all.
    style
        How lists are written, where each cell is one; the separator then stands in no cell.
    """

    classes: tuple[str, ...]
    separator: str = " "
    may_be_empty: bool = True
    style: ListStyle | None = None

    multilabel = True

    @classmethod
    def of(cls, cells: pd.Series, separator: str) -> "MultiLabel":
        """Return the format whose classes are the labels of these cells; rows may be empty if a cell is.

        Where every cell that is not empty is a list, the labels are its items.
        """
        different = cells.unique()
        form = cls((), separator, style=style_of(different))
        classes = classes_of(label_counts(cells, form))
        return replace(form, classes=classes, may_be_empty=not all(map(form.split, different)))

    def with_classes(self, classes: Sequence[str]) -> "MultiLabel":
        """Return this format with other classes, in the order stated."""
        return replace(self, classes=tuple(classes))

    def split(self, cell: str) -> list[str]:
        """Return the labels of a cell: a list's items, where cells are lists, else what the separator parts."""
        items = items_of(cell) if self.style else None
        return split_labels(cell, self.separator) if items is None else items

    def encode(self, cells: Sequence[str], what: str) -> np.ndarray:
        """Turn cells into which classes each row has, bool [rows, classes].

        Parameters
        ----------
        cells : sequence of str
            One for each row, with any number of labels.
        what : str
            Where they stand, for messages.

        Raises
        ------
        KitError
            Names the labels that are no class.
        """
        split = [self.split(cell) for cell in cells]
        labels = [label for each in split for label in each]
        index = _known_index(self.classes, labels, what)
        encoded = np.zeros((len(split), len(self.classes)), dtype=bool)
        rows = np.repeat(np.arange(len(split)), [len(each) for each in split])
        encoded[rows, np.array([index[label] for label in labels], dtype=np.int64)] = True
        return encoded

    def unknown(self, labels: Collection[str]) -> list[str]:
        """Return those of `labels` that are no class, however spelt, each once."""
        return _unknown(labels, _index(self.classes, labels))

    def decode(self, rows: np.ndarray) -> list[str]:
        """Turn bool [rows, classes] into a cell for each row, its labels in the order of the classes."""
        # Ten times as fast as np.nonzero of a table of few labels.
        row, place = np.divmod(np.flatnonzero(rows), max(1, len(self.classes)))
        labels = [self.classes[index] for index in place.tolist()]
        ends = np.cumsum(np.bincount(row, minlength=len(rows))).tolist()
        join = self.style.write if self.style else self.separator.join
        return [join(labels[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


Labels = SingleLabel | MultiLabel


def extended(labels: Labels, targets: np.ndarray, classes: Sequence[str]) -> tuple[Labels, np.ndarray]:
    """Return a label format with further classes, which no row has, and its targets."""
    if targets.ndim == 2:
        targets = np.pad(targets, ((0, 0), (0, len(classes))))
    return labels.with_classes([*labels.classes, *classes]), targets


def split_labels(cell: str, separator: str) -> list[str]:
    """Return the labels of a cell, without the spaces around them."""
    return [label for part in cell.split(separator) if (label := stripped(part))]


def label_counts(cells: pd.Series, labels: "Labels | None" = None) -> dict[str, int]:
    """Return how often each label stands in cells, in the order of the first of each.

    Parameters
    ----------
    cells : Series
        Every cell as text.
    labels : SingleLabel or MultiLabel, optional
        Parts the cells; left out: a cell is a label.
    """
    counts: dict[str, int] = {}
    codes, texts = pd.factorize(cells)
    for cell, number in zip(texts, np.bincount(codes, minlength=len(texts)).tolist(), strict=True):
        for label in labels.split(cell) if labels else (cell,):
            counts[label] = counts.get(label, 0) + number
    return counts


def encode_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> np.ndarray:
    """Turn columns of 0 and 1, or False and True, into bool [rows, columns]; KitError names other cells."""
    encoded = np.zeros((len(table), len(columns)), dtype=bool)
    for place, column in enumerate(columns):
        cells = table[column].tolist()
        value_of = {text: truth(text) for text in dict.fromkeys(cells)}
        if None in value_of.values():
            odd = [f"{text!r} in row {row + 1}" for row, text in enumerate(cells) if value_of[text] is None]
            raise KitError(f"{what}: column {column!r} has to hold 0 or 1; it has {some(odd, 5)}")
        encoded[:, place] = [bool(value_of[text]) for text in cells]
    return encoded


@lru_cache(maxsize=8)
def spelling_of(classes: tuple[str, ...]) -> Spelling:
    """Return what says which texts are one of these classes."""
    return Spelling(classes, apart=True)


def _index(classes: Sequence[str], labels: Iterable[str]) -> dict[str, int]:
    """The place of each of `labels` that is a class, however spelt."""
    spelling = spelling_of(tuple(classes))
    places = {text: spelling.place(text) for text in dict.fromkeys(labels)}
    return {text: place for text, place in places.items() if place is not None}


def _unknown(labels: Iterable[str], index: Mapping[str, int]) -> list[str]:
    return [text for text in dict.fromkeys(labels) if text not in index]


def _known_index(classes: Sequence[str], labels: Sequence[str], what: str) -> dict[str, int]:
    """The place of each label; KitError that names those that are no class."""
    index = _index(classes, labels)
    if unknown := _unknown(labels, index):
        raise KitError(
            f"{what}: {some(map(repr, unknown), 5)} {'is' if len(unknown) == 1 else 'are'} no class; "
            f"the classes are {some(classes, 12)}"
        )
    return index
