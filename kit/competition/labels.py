"""Label formats: what the label column says → class names and targets. One format so far: one label a row."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.errors import KitError, some


@dataclass(frozen=True)
class SingleLabel:
    """One class a row. `classes` are the labels as text, numbers in the order of their values."""

    classes: tuple[str, ...]

    @classmethod
    def of(cls, labels: pd.Series) -> "SingleLabel":
        names = list(labels.unique())
        spaced = [name for name in names if name != name.strip()]
        if twins := [name for name in spaced if name.strip() in names]:
            raise KitError(
                f"competition.label: labels differ in spaces only: {some(map(repr, twins), 5)} and the same "
                "without; make them one"
            )
        return cls(tuple(sorted(names, key=_order(names))))

    def encode(self, labels: Sequence[str], what: str) -> np.ndarray:
        """Class indices, int64 [rows]. `3`, `03` and `3.0` are one label where all classes are numbers.

        Raises KitError that names the labels that are no class; `what` says where they stand.
        """
        index = {name: place for place, name in enumerate(self.classes)}
        if None not in (numbers := [_number(name) for name in self.classes]):
            by_number = {number: place for place, number in enumerate(numbers)}
            if len(by_number) == len(self.classes):
                index = {text: by_number[_number(text)] for text in labels if _number(text) in by_number} | index
        unknown = [text for text in dict.fromkeys(labels) if text not in index]
        if unknown:
            raise KitError(
                f"{what}: {some(map(repr, unknown), 5)} {'is' if len(unknown) == 1 else 'are'} no class; "
                f"the classes are {some(self.classes, 12)}"
            )
        return np.array([index[text] for text in labels], dtype=np.int64)

    def has(self, label: str) -> bool:
        """Whether `label` is a class, maybe a number spelt otherwise."""
        try:
            return bool(self.encode([label], "").size)
        except KitError:
            return False

    def decode(self, indices: np.ndarray) -> list[str]:
        """Class indices [rows] → labels as the train table spells them."""
        return [self.classes[index] for index in indices]


def _order(labels: Iterable[str]):
    """Numbers sort by value, anything else as text."""
    return (lambda text: (_number(text), text)) if None not in map(_number, labels) else str


def _number(text: str) -> float | None:
    try:
        number = float("nan" if "_" in text else text)  # Python reads 1_0 as 10
    except ValueError:
        return None
    return number if math.isfinite(number) else None
