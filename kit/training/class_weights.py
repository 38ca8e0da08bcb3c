"""What evens out how often classes are there: their weights in the loss, and offsets of their logits."""

from collections.abc import Sequence

import numpy as np
import torch

from kit.core.errors import KitError, some
from kit.training.config import TrainingConfig
from kit.training.loss_config import LogitAdjusted


def class_weights(
    config: TrainingConfig,
    classes: Sequence[str],
    targets: np.ndarray,
    of_rows: np.ndarray | None = None,
    multilabel: bool | None = None,
) -> torch.Tensor | None:
    """Return the weight of each class in the loss.

    Parameters
    ----------
    config : TrainingConfig
        What `class_weights` asks for.
    classes : sequence of str
        In the order of the columns of predictions.
    targets : ndarray
        Of the rows that train: class indices int64 [rows], bool or float32 (shares) [rows, classes].
    of_rows : ndarray, optional
        What each row counts, float64 [rows]: as so many rows.
    multilabel : bool, optional
        Whether a row may have several labels; left out: where there is a column a class.

    Returns
    -------
    Tensor or None
        float32 [classes]; None where the config asks for none. `balanced`, of class indices: rows / (classes ·
        rows of the class), as scikit-learn has it; with several labels a row the weight of a class's positive
        targets: rows without it / rows with it, 1 where all or none have it. A share counts as a part of a row.

    Raises
    ------
    KitError
        Where the config gives a weight to what is no class.
    """
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        several = targets.ndim == 2 if multilabel is None else multilabel
        return torch.tensor(_balanced(targets, len(classes), of_rows, several), dtype=torch.float32)
    unknown = sorted(set(config.class_weights) - set(classes))
    if unknown:
        raise KitError(
            f"training.class_weights: {some(map(repr, unknown))} is no class; they are {some(classes, 12)}"
        )
    return torch.tensor([config.class_weights.get(name, 1.0) for name in classes], dtype=torch.float32)


def class_offsets(
    config: TrainingConfig,
    n_classes: int,
    targets: np.ndarray,
    of_rows: np.ndarray | None = None,
    multilabel: bool | None = None,
) -> torch.Tensor | None:
    """Return what the loss `logit_adjusted` adds to logits, before it is multiplied by tau.

    Parameters
    ----------
    config : TrainingConfig
    n_classes : int
    targets, of_rows, multilabel
        As `class_weights` takes them.

    Returns
    -------
    Tensor or None
        float32 [classes]: log π of the frequencies π of the classes; with several labels a row log π/(1 − π), of
        a row to have the label. None for other losses. What is less than half a row counts as half a row.

    Notes
    -----
    Of several labels each is a problem of two classes, there or not, in which the log frequencies of Menon et al.
    differ by log π/(1 − π). It is also the class bias of Wu et al. (distribution-balanced loss, ECCV 2020, arXiv
    2007.09654).
    """
    if not isinstance(config.loss, LogitAdjusted):
        return None
    several = targets.ndim == 2 if multilabel is None else multilabel
    counts, rows = _counts(targets, n_classes, of_rows)
    least = rows / (2 * len(targets))  # half a row
    offsets = np.log(counts.clip(least) / rows)
    if several:
        offsets -= np.log((rows - counts).clip(least) / rows)
    return torch.tensor(offsets, dtype=torch.float32)


def _counts(targets: np.ndarray, n_classes: int, of_rows: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Return how many rows each class has, float64 [classes], and how many there are; by their weights."""
    rows = len(targets) if of_rows is None else float(of_rows.sum())
    if targets.ndim == 1:
        return np.bincount(targets, of_rows, minlength=n_classes), rows
    counts = targets.sum(axis=0, dtype=np.float64) if of_rows is None else of_rows @ targets
    return counts, rows


def _balanced(targets: np.ndarray, n_classes: int, of_rows: np.ndarray | None, several: bool) -> np.ndarray:
    counts, rows = _counts(targets, n_classes, of_rows)
    if several:
        without = ~targets if targets.dtype == bool else 1 - targets
        absent, _ = _counts(without, n_classes, of_rows)  # exactly 0 where all have it; rows − counts is rounded
        both = (counts > 0) & (absent > 0)  # else there is nothing to balance
        return np.where(both, absent / np.where(both, counts, 1), 1.0)
    there = counts > 0
    return np.where(there, rows / (there.sum() * np.where(there, counts, 1)), 0.0)
