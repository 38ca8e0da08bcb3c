"""Label formats: from what the label columns say to class names and targets, and back."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

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
        """Return the format whose classes are the labels of these rows."""
        names = list(labels.unique())
        known = set(names)
        if twins := [name for name in names if name != name.strip() and name.strip() in known]:
            raise KitError(
                f"competition.label: labels differ in spaces only: {some(map(repr, twins), 5)} and the same "
                "without; make them one"
            )
        return cls(tuple(sorted(names, key=_order(names))))

    def with_classes(self, classes: Sequence[str]) -> "SingleLabel":
        """Return this format with other classes, in the order stated."""
        return SingleLabel(tuple(classes))

    def encode(self, labels: Sequence[str], what: str) -> np.ndarray:
        """Turn labels into class indices, int64 [rows].

        `3`, `03` and `3.0` are one label where all classes are numbers.

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
        """Return those of `labels` that are no class, nor the number of one spelt otherwise, each once."""
        return _unknown(labels, _index(self.classes, labels))

    def decode(self, indices: np.ndarray) -> list[str]:
        """Turn class indices [rows] into labels as the train table spells them."""
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
    """

    classes: tuple[str, ...]
    separator: str = " "
    may_be_empty: bool = True

    multilabel = True

    @classmethod
    def of(cls, cells: pd.Series, separator: str) -> "MultiLabel":
        """Return the format whose classes are the labels of these cells; rows may be empty if a cell is."""
        split = [split_labels(cell, separator) for cell in cells.unique()]
        names = list(dict.fromkeys(label for labels in split for label in labels))
        return cls(tuple(sorted(names, key=_order(names))), separator, may_be_empty=not all(split))

    def with_classes(self, classes: Sequence[str]) -> "MultiLabel":
        """Return this format with other classes, in the order stated."""
        return replace(self, classes=tuple(classes))

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
        split = [split_labels(cell, self.separator) for cell in cells]
        labels = [label for each in split for label in each]
        index = _known_index(self.classes, labels, what)
        encoded = np.zeros((len(split), len(self.classes)), dtype=bool)
        rows = np.repeat(np.arange(len(split)), [len(each) for each in split])
        encoded[rows, np.array([index[label] for label in labels], dtype=np.int64)] = True
        return encoded

    def unknown(self, labels: Collection[str]) -> list[str]:
        """Return those of `labels` that are no class, nor the number of one spelt otherwise, each once."""
        return _unknown(labels, _index(self.classes, labels))

    def decode(self, rows: np.ndarray) -> list[str]:
        """Turn bool [rows, classes] into a cell for each row, its labels in the order of the classes."""
        # Ten times as fast as np.nonzero of a table of few labels.
        row, place = np.divmod(np.flatnonzero(rows), max(1, len(self.classes)))
        labels = [self.classes[index] for index in place.tolist()]
        ends = np.cumsum(np.bincount(row, minlength=len(rows))).tolist()
        return [self.separator.join(labels[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


Labels = SingleLabel | MultiLabel


def split_labels(cell: str, separator: str) -> list[str]:
    """Return the labels of a cell, without the spaces around them."""
    return [label for part in cell.split(separator) if (label := part.strip())]


def encode_columns(table: pd.DataFrame, columns: Sequence[str], what: str) -> np.ndarray:
    """Turn columns of 0 and 1 into bool [rows, columns]; KitError names the cells that are neither."""
    encoded = np.zeros((len(table), len(columns)), dtype=bool)
    for place, column in enumerate(columns):
        cells = table[column].tolist()
        number_of = {text: _number(text) for text in dict.fromkeys(cells)}
        if set(number_of.values()) - {0.0, 1.0}:
            odd = [f"{text!r} in row {row + 1}" for row, text in enumerate(cells) if number_of[text] not in (0, 1)]
            raise KitError(f"{what}: column {column!r} has to hold 0 or 1; it has {some(odd, 5)}")
        encoded[:, place] = [number_of[text] for text in cells]
    return encoded


def _index(classes: Sequence[str], labels: Iterable[str]) -> dict[str, int]:
    """The place of each of `labels` that is a class, or the same number as a class where all are numbers."""
    by_text, by_number = _places(tuple(classes))
    places = {
        text: by_text[text] if text in by_text else by_number.get(_number(text)) for text in dict.fromkeys(labels)
    }
    return {text: place for text, place in places.items() if place is not None}


@lru_cache(maxsize=8)
def _places(classes: tuple[str, ...]) -> tuple[dict[str, int], dict[float | None, int]]:
    """The place of each class by its text, and by its value where all are numbers and no two the same."""
    by_text = {name: place for place, name in enumerate(classes)}
    by_number = {_number(name): place for place, name in enumerate(classes)}
    return by_text, {} if None in by_number or len(by_number) < len(classes) else by_number


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


def _order(labels: Iterable[str]) -> Callable[[str], Any]:
    """The key by which labels sort: numbers by value, anything else as text."""
    return (lambda text: (_number(text), text)) if None not in map(_number, labels) else str


def _number(text: str) -> float | None:
    try:
        number = float("nan" if "_" in text else text)  # Python reads 1_0 as 10
    except ValueError:
        return None
    return number if math.isfinite(number) else None
