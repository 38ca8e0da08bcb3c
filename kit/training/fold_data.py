"""What a training takes: the rows of its fold, and the sections of the config that the loop needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kit.data.config import DataConfig
from kit.data.images import ImageSet
from kit.scoring.config import ScoringConfig
from kit.training.config import PredictionConfig, TrainingConfig

if TYPE_CHECKING:  # it brings torch, which reports and stored comparisons do not need
    from kit.model.build import Normalisation


@dataclass(frozen=True)
class FoldData:
    """What one fold model trains on and is scored on.

    Attributes
    ----------
    images : ImageSet
        All training images of the competition, and behind them those of extra rows.
    targets : ndarray
        Class index of each image, int64 [images]; where an image may have several labels, bool [images, classes];
        where labels of some are shares of classes, float32 [images, classes].
    train_rows, valid_rows : ndarray
        Which rows of `images` train, and which are held out; int64.
    classes : sequence of str
        Their names, in the order of the columns of predictions.
    weights : ndarray or None
        What each image counts in the loss, float64 [images]; None: each counts alike.
    truth : ndarray or None
        The labels of the competition's own images, which come first, int64 or bool; None: `targets` says them.
    own : int or None
        How many these are; None: all.
    larger : ImageSet, optional
        The same images as they are kept for a larger prediction.size.
    """

    images: ImageSet
    targets: np.ndarray
    train_rows: np.ndarray
    valid_rows: np.ndarray
    classes: Sequence[str]
    weights: np.ndarray | None = None
    truth: np.ndarray | None = None
    own: int | None = None
    larger: ImageSet | None = None

    @property
    def predicted_images(self) -> ImageSet:
        """The images as they are predicted."""
        return self.images if self.larger is None else self.larger

    @property
    def labels(self) -> np.ndarray:
        """The labels of the competition's own images, int64 [rows] or bool [rows, classes]."""
        return self.targets[: self.own] if self.truth is None else self.truth

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.ndim == 2

    @property
    def has_shares(self) -> bool:
        """Whether labels of some images are shares of classes."""
        return self.truth is not None

    @property
    def without_rows(self) -> list[int]:
        """The classes that no image of the competition's own has, in any fold, by their place."""
        labels, number = self.labels, len(self.classes)
        counts = labels.sum(axis=0) if self.multilabel else np.bincount(labels, minlength=number)
        return np.flatnonzero(counts == 0).tolist()


@dataclass(frozen=True)
class Recipe:
    """How to train: the sections of the config that the loop needs, and how pixels are normalised."""

    data: DataConfig
    training: TrainingConfig
    prediction: PredictionConfig
    scoring: ScoringConfig
    normalisation: "Normalisation"
