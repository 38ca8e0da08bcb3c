"""The loss and how targets are prepared for it: class weights, label smoothing, mixup and cutmix."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from timm.data import Mixup
from torch import nn

from kit.errors import KitError, some
from kit.training.config import TrainingConfig

Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def build_loss(config: TrainingConfig, weights: torch.Tensor | None) -> nn.CrossEntropyLoss:
    """Cross-entropy of logits [batch, classes] and targets: indices [batch], or shares [batch, classes].

    Without class weights its values are those of timm's LabelSmoothingCrossEntropy and
    SoftTargetCrossEntropy; timm's know no class weights. Mixed targets are smoothed by timm's Mixup.
    """
    mixed = config.mixup or config.cutmix
    return nn.CrossEntropyLoss(weights, label_smoothing=0.0 if mixed else config.label_smoothing)


def build_mix(config: TrainingConfig, n_classes: int) -> Mix | None:
    """timm's mixup and cutmix of a batch, or None where both are off. It draws from numpy's generator."""
    if not (config.mixup or config.cutmix):
        return None
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        label_smoothing=config.label_smoothing,
        num_classes=n_classes,
    )


def class_weights(config: TrainingConfig, classes: Sequence[str], targets: np.ndarray) -> torch.Tensor | None:
    """float32 [classes], or None. `balanced`: rows / (classes · rows of the class), as scikit-learn has it.

    targets  class indices of the rows that train
    """
    if config.class_weights == "none":
        return None
    if config.class_weights == "balanced":
        counts = np.bincount(targets, minlength=len(classes))
        present = counts > 0
        weights = np.zeros(len(classes))
        weights[present] = len(targets) / (present.sum() * counts[present])
        return torch.tensor(weights, dtype=torch.float32)
    unknown = sorted(set(config.class_weights) - set(classes))
    if unknown:
        raise KitError(
            f"training.class_weights: {some(map(repr, unknown))} is no class; they are {some(classes, 12)}"
        )
    return torch.tensor([config.class_weights.get(name, 1.0) for name in classes], dtype=torch.float32)
