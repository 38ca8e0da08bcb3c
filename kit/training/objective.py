"""What a training minimises: the loss, what rows and classes count in it, and what mixes a batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kit.data.loading import BatchPlan
from kit.training.class_weights import class_offsets, class_weights
from kit.training.config import TrainingConfig
from kit.training.fold_data import FoldData
from kit.training.loss import Mix, build_loss, build_mix, row_weights
from kit.training.sampler import Sampler

# Network inputs, targets, and what each image counts; None: all alike.
Samples = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


@dataclass
class Objective:
    """The loss of an update, in the parts in which micro-batches and processes see it.

    Attributes
    ----------
    plan : BatchPlan
        Which samples each micro-batch of this process holds.
    loss : Module
        What `kit.training.loss.build_loss` gives.
    mix : callable or None
        Mixes a batch.
    of_rows : ndarray or None
        What the data says that each row that trains counts, float64 [rows]; None: all alike.
    row_weights : ndarray or None
        The same with class weights, where they count: see `kit.training.loss.row_weights`.
    """

    plan: BatchPlan
    loss: nn.Module
    mix: Mix | None
    of_rows: np.ndarray | None
    row_weights: np.ndarray | None

    @classmethod
    def of(
        cls, config: TrainingConfig, fold: FoldData, sampler: Sampler, plan: BatchPlan, device: torch.device
    ) -> "Objective":
        """Make that of a fold's rows, its loss on the device."""
        weighs, several, targets = fold.weights is not None, fold.multilabel, fold.targets[fold.train_rows]
        of_rows = fold.weights[fold.train_rows] if fold.weights is not None else None
        counted = sampler.counted(of_rows)
        weights = class_weights(config, fold.classes, targets, counted, several)
        offsets = class_offsets(config, len(fold.classes), targets, counted, several)
        loss = build_loss(config, weights, several, weighs, offsets).to(device)
        mix = build_mix(config, len(fold.classes), several, weighs or fold.has_shares)
        return cls(plan, loss, mix, of_rows, row_weights(config, weights, targets, of_rows, several))

    def mean_weight(self, step: int) -> float:
        """Return the mean weight of the samples of an update, in all its parts and processes."""
        return 1.0 if self.row_weights is None else float(self.row_weights[self.plan.samples(step)].mean())

    def samples(self, step: int, part: int, inputs: torch.Tensor, targets: torch.Tensor) -> Samples:
        """Return a micro-batch of this process as the loss takes it: weighed and mixed.

        Parameters
        ----------
        step, part : int
            Of which update it is, and which of its micro-batches.
        inputs, targets : Tensor
            On the device.
        """
        weights = self._weights_of(step, part, targets.device)
        return self.mix(inputs, targets, weights) if self.mix else (inputs, targets, weights)

    def value(self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Return the mean loss of a micro-batch, to be divided by the mean weight of its update."""
        return self.loss(logits, targets, *(() if weights is None else (weights,)))

    def _weights_of(self, step: int, part: int, device: torch.device) -> torch.Tensor | None:
        """Return what each image of a micro-batch of this process counts, float32 [batch]; None: all alike."""
        if self.of_rows is None:
            return None
        weights = torch.from_numpy(self.of_rows[self.plan.samples(step)[part, self.plan.rank]])
        return weights.float().to(device, non_blocking=True)
