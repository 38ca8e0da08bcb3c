"""The loss and how targets are prepared for it: weights of classes and rows, label smoothing, mixup and cutmix.

Targets are class indices int64 [batch], or, where an image may have several labels, bool [batch, classes]; where
labels of some rows are shares of classes, float32 [batch, classes].

An update sees its samples in parts: micro-batches, of several processes. Its loss is that of one batch of all of
them: each part gives the mean of its samples' weighted losses, so that the mean of parts of one size is the whole
update's, and the trainer divides by the mean weight of the update's samples (`row_weights`), which it knows
beforehand.
"""

from collections.abc import Callable

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch import nn

from kit.core.errors import KitError
from kit.training.config import TrainingConfig
from kit.training.loss_config import Asymmetric, Focal, LogitAdjusted, LossConfig
from kit.training.losses import (
    AsymmetricLoss,
    AsymmetricLossOfLabels,
    FocalLoss,
    FocalLossOfLabels,
    LogitAdjustedLoss,
)
from kit.training.own_loss import OwnLoss

# Takes inputs, targets, and the weights of the images or None; gives them mixed.
Mix = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
]


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy of logits and targets, the mean over images and classes.

    Parameters
    ----------
    smoothing : float
        A target y becomes y · (1 − smoothing) + smoothing / 2, as label smoothing over two classes.
    weights : Tensor, optional
        Of the positive targets of each class, float32 [classes].
    """

    def __init__(self, smoothing: float = 0.0, weights: torch.Tensor | None = None):
        super().__init__()
        self.smoothing = smoothing
        self.loss = nn.BCEWithLogitsLoss(pos_weight=weights)

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, of_rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of logits [batch, classes] and targets (bool, or shares from 0 to 1) of that shape.

        `of_rows`: what each image counts, [batch].
        """
        targets = targets.to(logits.dtype)
        if self.smoothing:
            targets = targets * (1 - self.smoothing) + self.smoothing / 2
        if of_rows is None:
            return self.loss(logits, targets)
        each = nn.functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.loss.pos_weight, reduction="none"
        )
        return (each.mean(dim=1) * of_rows).mean()


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy with weights of classes or rows: the mean over images of weight · loss.

    Parameters
    ----------
    weights : Tensor or None
        Of each class, float32 [classes].
    smoothing : float
        Label smoothing.

    Notes
    -----
    Of class indices torch's mean divides by the sum of the targets' weights; this one divides by the number of
    images, see the head of this file. Of shares of classes both divide by the number of images.
    """

    def __init__(self, weights: torch.Tensor | None, smoothing: float = 0.0):
        super().__init__()
        self.sum = nn.CrossEntropyLoss(weights, label_smoothing=smoothing, reduction="sum")

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, of_rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of logits [batch, classes] and targets: indices [batch], or shares [batch, classes].

        `of_rows`: what each image counts beside its class, [batch].
        """
        if of_rows is None:
            return self.sum(logits, targets) / len(logits)
        each = nn.functional.cross_entropy(
            *(logits, targets, self.sum.weight),
            label_smoothing=self.sum.label_smoothing,
            reduction="none",
        )
        return (each * of_rows).mean()


def build_loss(
    config: TrainingConfig,
    weights: torch.Tensor | None,
    multilabel: bool = False,
    weighs: bool = False,
    offsets: torch.Tensor | None = None,
) -> nn.Module:
    """Return the loss: by default cross-entropy, or binary cross-entropy where a row may have several labels.

    Parameters
    ----------
    config : TrainingConfig
        `label_smoothing` is not applied to mixed targets, which are smoothed when they are mixed; with several
        labels a row it is applied to them as well.
    weights : Tensor or None
        Of each class, float32 [classes].
    multilabel : bool
        Whether a row may have several labels.
    weighs : bool
        Whether rows have weights.
    offsets : Tensor, optional
        What `kit.training.class_weights.class_offsets` gives, for the loss that takes it.

    Returns
    -------
    Module
        Takes logits [batch, classes], as targets indices [batch] or shares [batch, classes], and with `weighs`
        what each image counts, [batch]; gives the mean over images, to be divided by the mean of the update's
        `row_weights`.

    Notes
    -----
    Without class weights cross-entropy's values are those of timm's LabelSmoothingCrossEntropy and
    SoftTargetCrossEntropy; timm's know no class weights. Mixed targets are smoothed by timm's Mixup.
    """
    smoothing = config.label_smoothing if multilabel or not config.mixes else 0.0
    match config.loss:
        case LossConfig():
            return OwnLoss(config.loss, weights)
        case Focal():
            return (FocalLossOfLabels if multilabel else FocalLoss)(config.loss, weights, smoothing)
        case Asymmetric():
            return (AsymmetricLossOfLabels if multilabel else AsymmetricLoss)(config.loss, weights, smoothing)
    loss = _cross_entropy(weights, smoothing, multilabel, weighs)
    if isinstance(config.loss, LogitAdjusted):
        assert offsets is not None
        return LogitAdjustedLoss(config.loss, loss, offsets)
    return loss


def _cross_entropy(weights: torch.Tensor | None, smoothing: float, multilabel: bool, weighs: bool) -> nn.Module:
    if multilabel:
        return BinaryCrossEntropy(smoothing, weights)
    if weights is None and not weighs:
        return nn.CrossEntropyLoss(label_smoothing=smoothing)
    return WeightedCrossEntropy(weights, smoothing)


def check_loss(
    config: TrainingConfig,
    weights: torch.Tensor | None,
    n_classes: int,
    multilabel: bool,
    shares: bool = False,
    weighs: bool = False,
) -> None:
    """Check, before any training, that the loss is for such targets; one of the user's own is tried.

    Parameters
    ----------
    config : TrainingConfig
    weights : Tensor or None
        Of each class, float32 [classes].
    n_classes : int
    multilabel : bool
        Whether a row may have several labels.
    shares : bool
        Whether labels of some rows are shares of classes.
    weighs : bool
        Whether rows have weights.

    Raises
    ------
    KitError
        Where it is not.
    """
    if isinstance(config.loss, LossConfig):
        OwnLoss(config.loss, weights).check(n_classes, multilabel, config.mixes, shares, weighs)
    elif config.loss:
        try:
            config.loss.check(multilabel, shares or config.mixes)
        except ValueError as error:
            raise KitError(f"training.{error}") from error


def row_weights(
    config: TrainingConfig,
    weights: torch.Tensor | None,
    targets: np.ndarray,
    of_rows: np.ndarray | None = None,
    multilabel: bool | None = None,
) -> np.ndarray | None:
    """Return what each row counts in the mean of an update's losses.

    Parameters
    ----------
    config : TrainingConfig
        Mixed targets are shares of classes, whose mean is over images.
    weights : Tensor or None
        Of each class, float32 [classes].
    targets : ndarray
        Of the rows that train: class indices int64 [rows], bool or float32 (shares) [rows, classes].
    of_rows : ndarray, optional
        What the data says that each row counts, float64 [rows].
    multilabel : bool, optional
        Whether a row may have several labels; left out: where there is a column a class.

    Returns
    -------
    ndarray or None
        float64 [rows]; None where each counts alike. A row with shares counts by the mean weight of its classes.
    """
    several = targets.ndim == 2 if multilabel is None else multilabel
    if weights is None or several or config.mixes:
        return of_rows
    of_classes = weights.double().numpy()
    counts = of_classes[targets] if targets.ndim == 1 else targets.astype(np.float64) @ of_classes
    return counts if of_rows is None else counts * of_rows


def build_mix(
    config: TrainingConfig, n_classes: int, multilabel: bool = False, matrix: bool = False
) -> Mix | None:
    """Return timm's mixup and cutmix of a batch, or None where both are off; it draws from numpy's generator.

    Parameters
    ----------
    config : TrainingConfig
    n_classes : int
    multilabel : bool
        Whether a row may have several labels: then the loss smooths them.
    matrix : bool
        Whether labels are shares of classes, or images have weights, neither of which timm's mixes.
    """
    if not config.mixes:
        return None
    alphas = {"mixup_alpha": config.mixup, "cutmix_alpha": config.cutmix}
    if multilabel or matrix:
        mixup = Mixup(**alphas, label_smoothing=0.0, num_classes=config.batch_size)
        return _mix_by_shares(mixup, n_classes, 0.0 if multilabel else config.label_smoothing)
    of_timm = Mixup(**alphas, label_smoothing=config.label_smoothing, num_classes=n_classes)
    return lambda inputs, targets, of_rows: (*of_timm(inputs, targets), of_rows)


def _mix_by_shares(mixup: Mixup, n_classes: int, smoothing: float) -> Mix:
    """Return timm's mixup for images with several labels, with shares of classes, or with weights.

    timm's own mixes class indices only: told that each image is a class of its own, it gives the share of each
    image in each mixed one, and labels and weights are mixed by these shares. An image's label counts by its share
    and its weight: cross-entropy becomes the sum of share · weight · cross-entropy of the image's own label.
    """

    def mix(
        inputs: torch.Tensor, targets: torch.Tensor, of_rows: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        inputs, shares = mixup(inputs, torch.arange(len(inputs), device=inputs.device))
        if targets.ndim == 1:
            targets = nn.functional.one_hot(targets, n_classes)
        mixed, shares = targets.float(), shares.float()
        if of_rows is None:
            mixed = shares @ mixed
        else:
            mixed, of_rows = shares @ (of_rows[:, None] * mixed), shares @ of_rows
            mixed = mixed / of_rows[:, None]
        if smoothing:
            mixed = mixed * (1 - smoothing) + smoothing / n_classes
        return inputs, mixed, of_rows

    return mix
