"""What a training takes: the rows of its fold, and the sections of the config that the loop needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.data.config import DataConfig
from kit.data.images import ImageSet
from kit.model.build import Normalisation
from kit.scoring.config import ScoringConfig
from kit.training.config import PredictionConfig, TrainingConfig


@dataclass(frozen=True)
class FoldData:
    """What one fold model trains on and is scored on.

    Attributes
    ----------
    images : ImageSet
        All training images of the competition.
    targets : ndarray
        Class index of each image, int64 [images]; where an image may have several labels, bool [images, classes].
    train_rows, valid_rows : ndarray
        Which rows of `images` train, and which are held out; int64.
    classes : sequence of str
        Their names, in the order of the columns of predictions.
    larger : ImageSet, optional
        The same images as they are kept for a larger prediction.size.
    """

    images: ImageSet
    targets: np.ndarray
    train_rows: np.ndarray
    valid_rows: np.ndarray
    classes: Sequence[str]
    larger: ImageSet | None = None

    @property
    def predicted_images(self) -> ImageSet:
        """The images as they are predicted."""
        return self.images if self.larger is None else self.larger

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.targets.ndim == 2

    @property
    def without_rows(self) -> list[int]:
        """The classes that no image has, in any fold, by their place."""
        several, number = self.multilabel, len(self.classes)
        counts = self.targets.sum(axis=0) if several else np.bincount(self.targets, minlength=number)
        return np.flatnonzero(counts == 0).tolist()


@dataclass(frozen=True)
class Recipe:
    """How to train: the sections of the config that the loop needs, and how pixels are normalised."""

    data: DataConfig
    training: TrainingConfig
    prediction: PredictionConfig
    scoring: ScoringConfig
    normalisation: Normalisation
