"""Extra rows: they train and are never held out (competition.extra)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from kit.data.sources import Source

EVERY = -1  # the fold of a row that trains the models of all folds
FOLD_PLAN = "fold_plan"  # the column that tells the digest of the plan whose folds a table names


@dataclass(frozen=True)
class ExtraTable:
    """The rows of one extra table, ordered by id and fold.

    Attributes
    ----------
    name
        The file, as the config names it.
    key
        The place in the config, for messages.
    where
        The file, for messages.
    root
        The folder that its images lie below.
    ids
        Of the images, each once.
    sources
        Where their pixels come from, aligned with `ids`.
    image
        Which of `ids` each row has, int64 [rows].
    targets
        Class indices, int64 [rows]; where a row may have several labels, bool [rows, classes]; shares of classes,
        float32 [rows, classes].
    weights
        What each row counts in the loss, float64 [rows].
    fold
        The fold whose models alone train on a row, int64 [rows]; `EVERY`: all.
    cells
        The table as text, aligned with the rows.
    beside
        Those of its columns that are the competition's, whose rows the images are of.
    source
        Where the labels came from, as the config says; None: it does not.
    """

    name: str
    key: str
    where: str
    root: Path
    ids: list[str]
    sources: list[Source]
    image: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    fold: np.ndarray
    cells: pd.DataFrame
    beside: tuple[str, ...] = ()
    source: str | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def has_shares(self) -> bool:
        """Whether its labels are shares of classes."""
        return self.targets.dtype == np.float32

    def summary(self) -> str:
        """Return how many rows there are, and what they count, in words."""
        low, high = self.weights.min(), self.weights.max()
        weights = f"weight {low:g}" if low == high else f"weights {low:g} to {high:g}"
        images = "" if len(self.ids) == len(self) else f" of {len(self.ids)} images"
        source = f", labels from {self.source}" if self.source else ""
        return f"{len(self)} extra rows{images} of {self.name} ({weights}{source})"


@dataclass(frozen=True)
class ExtraRows:
    """The rows of all extra tables, one table after the other.

    Attributes
    ----------
    tables
        As the config lists them.
    """

    tables: tuple[ExtraTable, ...]

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    @cached_property
    def ids(self) -> list[str]:
        """The name of each image: its table's and its id, as ids may be those of training rows, too."""
        return [f"{table.name}: {name}" for table in self.tables for name in table.ids]

    @cached_property
    def sources(self) -> list[Source]:
        """Where the pixels of each image come from, aligned with `ids`."""
        return [source for table in self.tables for source in table.sources]

    @cached_property
    def image(self) -> np.ndarray:
        """Which image each row has, int64 [rows]."""
        before = np.cumsum([0, *(len(table.ids) for table in self.tables)])
        return np.concatenate([table.image + start for table, start in zip(self.tables, before, strict=False)])

    @cached_property
    def weights(self) -> np.ndarray:
        """What each row counts in the loss, float64 [rows]."""
        return np.concatenate([table.weights for table in self.tables])

    @cached_property
    def fold(self) -> np.ndarray:
        """The fold whose models alone train on a row, int64 [rows]; `EVERY`: all."""
        return np.concatenate([table.fold for table in self.tables])

    @property
    def has_shares(self) -> bool:
        """Whether labels of some rows are shares of classes."""
        return any(table.has_shares for table in self.tables)

    def targets(self, classes: int) -> np.ndarray:
        """Return the labels: as those of the competition's rows; float32 [rows, classes] where some are shares."""
        each = [table.targets for table in self.tables]
        return np.concatenate([as_shares(part, classes) for part in each] if self.has_shares else each)

    def in_fold(self, fold: int) -> np.ndarray:
        """Tell of each row whether it is there for models of this fold, bool [rows]; a weight of 0 is nothing."""
        return ((self.fold == EVERY) | (self.fold == fold)) & (self.weights > 0)


def as_shares(targets: np.ndarray, classes: int) -> np.ndarray:
    """Return targets of any kind as shares of classes, float32 [rows, classes]."""
    if targets.ndim == 2:
        return targets.astype(np.float32)
    shares = np.zeros((len(targets), classes), dtype=np.float32)
    shares[np.arange(len(targets)), targets] = 1
    return shares
