"""Labels that models give to images without any: which rows are sure enough, and with which shares of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.extra import FOLD_PLAN
from kit.core.errors import KitError, some

SURE = 0.9  # from which confidence on hard labels are taken, where nothing else is said
DIGITS = 6  # of a share


@dataclass(frozen=True)
class PseudoOptions:
    """What is labelled with which models, which rows are taken, and how they count.

    Attributes
    ----------
    policy : str, optional
        Whose models label; left out: the policy that the experiment began with.
    at_least : float, optional
        Rows of this confidence or more, in (0, 1]: that of the most probable class; where a row may have several
        labels, that of the class which is least sure to be there or not.
    share : float, optional
        This share of each fold's rows, in (0, 1], the surest; of equally sure ones those with the lower id.
        Without either, hard labels are of confidence .9 or more, and soft ones of all rows.
    soft : bool
        Whether labels are the probabilities, and not the most probable class (of several labels: those from .5).
    weight : float
        What each row counts in the loss, beside 1 for a row of the train table.
    folder : path, optional
        Holds the images to label, at any depth; left out: those of the test rows.
    after : sequence of str
        The rounds that followed on the experiment, in their order; the last one's models label.
    name : str, optional
        Of the next round; left out: the first experiment's with -pseudo, -pseudo2 and so on.
    replace : bool
        Whether files of an earlier call may be written over.
    """

    policy: str | None = None
    at_least: float | None = None
    share: float | None = None
    soft: bool = False
    weight: float = 1.0
    folder: str | Path | None = None
    after: Sequence[str] = ()
    name: str | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        if self.at_least is not None and self.share is not None:
            raise KitError("--at-least, --share: both say which rows are taken; give one of the two")
        for name, value in (("--at-least", self.at_least), ("--share", self.share)):
            if value is not None and not 0 < value <= 1:
                raise KitError(f"{name} {value:g}: expected a number above 0, up to 1")
        if not 0 < self.weight < float("inf"):
            raise KitError(f"--weight {self.weight:g}: expected a number above 0")

    @property
    def threshold(self) -> float | None:
        """The confidence from which on rows are taken; None where it does not decide."""
        return SURE if self.at_least is None and self.share is None and not self.soft else self.at_least


@dataclass(frozen=True)
class FoldLabels:
    """What the models of one fold labelled.

    Attributes
    ----------
    fold : int
    models : int
        Whose mean it is: one a seed.
    rows : int
        With an image that could be read.
    labelled : int
        Of these, that are in the table.
    confidence : float, optional
        Their mean; None where there are none.
    classes : dict of str to int
        How many of them have which class by the hard label.
    """

    fold: int
    models: int
    rows: int
    labelled: int
    confidence: float | None
    classes: dict[str, int]


def confidence(probabilities: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return how sure each row is, float64 [rows], of probabilities [rows, classes].

    The largest of the row; where it may have several labels, the least of all classes' max(p, 1 − p).
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if multilabel:
        return np.maximum(probabilities, 1 - probabilities).min(axis=1)
    return probabilities.max(axis=1)


def hard_labels(probabilities: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return labels as shares of 0 and 1, float64 [rows, classes]: the most probable class, or all from .5 on.

    Not by the pooled decision rule: its thresholds were fitted on the true labels of all folds, and would carry
    some of a fold's own labels into what its models train on.
    """
    if multilabel:
        return (probabilities >= 0.5).astype(np.float64)
    return np.eye(probabilities.shape[1])[np.argmax(probabilities, axis=1)]


def labelled(predicted: pd.DataFrame, options: PseudoOptions, multilabel: bool) -> pd.DataFrame:
    """Return the shares of classes of the rows that are sure enough.

    Parameters
    ----------
    predicted : DataFrame
        Probabilities, a column a class, indexed by id.
    options : PseudoOptions
    multilabel : bool
        Whether a row may have several labels.

    Returns
    -------
    DataFrame
        Like `predicted`, of the rows that were taken, in its order.
    """
    probabilities = predicted.to_numpy(dtype=np.float64)
    sure = confidence(probabilities, multilabel)
    taken = np.ones(len(sure), dtype=bool)
    if options.share is not None:
        order = np.lexsort((predicted.index.to_numpy(dtype=str), -sure))
        taken[order[max(1, round(options.share * len(sure))) :]] = False
    elif options.threshold is not None:
        taken = sure >= options.threshold
    shares = np.round(probabilities, DIGITS) if options.soft else hard_labels(probabilities, multilabel)
    return pd.DataFrame(shares[taken], index=predicted.index[taken], columns=predicted.columns)


def summary(fold: int, models: int, predicted: pd.DataFrame, taken: pd.DataFrame, multilabel: bool) -> FoldLabels:
    """Return what is told of the labels of a fold: `taken` of `predicted`, as `labelled` returns it."""
    probabilities = predicted.loc[taken.index].to_numpy(dtype=np.float64)
    counts = hard_labels(probabilities, multilabel).sum(axis=0).astype(int)
    sure = float(confidence(probabilities, multilabel).mean()) if len(taken) else None
    classes = dict(zip(map(str, predicted.columns), counts.tolist(), strict=True))
    return FoldLabels(fold, models, len(predicted), len(taken), sure, classes)


@dataclass(frozen=True)
class Columns:
    """The names of a table's own columns, which are none of the classes'."""

    id: str
    fold: str
    weight: str

    @classmethod
    def beside(cls, classes: Sequence[str]) -> "Columns":
        """Return names that no class has; KitError where a class has that of the fold plan."""
        known = {name.strip().casefold() for name in classes}
        if FOLD_PLAN in known:
            raise KitError(
                f"competition.label: class {FOLD_PLAN!r} has the name of a column that labels need; rename it"
            )
        names = []
        for name in ("id", "fold", "weight"):
            while name in known:
                name += "_"
            names.append(name)
        return cls(*names)


def table_of(by_fold: Mapping[int, pd.DataFrame], weight: float, plan: str) -> pd.DataFrame:
    """Return the table of labels: id, fold, a share of each class, weight, and the digest of the fold plan.

    Parameters
    ----------
    by_fold : mapping of int to DataFrame
        The labels that each fold's models made, as `labelled` returns them.
    weight : float
        Of each row.
    plan : str
        `FoldPlan.digest`: the numbers of folds mean nothing under another plan.
    """
    classes = list(next(iter(by_fold.values())).columns)
    columns, parts = Columns.beside(classes), []
    for fold, shares in sorted(by_fold.items()):
        if strange := set(shares.columns) ^ set(classes):
            raise KitError(f"fold {fold}: not all folds' models know {some(sorted(strange), 5)}")
        part = shares[classes].reset_index(drop=True)
        part.insert(0, columns.id, shares.index.astype(str))
        part.insert(1, columns.fold, fold)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    table[columns.weight], table[FOLD_PLAN] = weight, plan
    return table
