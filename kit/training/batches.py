"""The batches of a training, in their order: which samples fill an update, and their pixels."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import torch

from kit.core.errors import KitError
from kit.data.config import DataConfig
from kit.data.device.batches import batches_for
from kit.data.loading import BatchPlan
from kit.data.workers import ALONE, Workers
from kit.training.config import TrainingConfig
from kit.training.fold_data import FoldData

Batch = tuple[torch.Tensor, torch.Tensor]  # pixels uint8 [batch, side, side, channels], and targets


class Together(Protocol):
    """Processes that train together, like accelerate's PartialState: how many, and which of them this one is."""

    @property
    def num_processes(self) -> int: ...
    @property
    def process_index(self) -> int: ...


def batches_of(training: TrainingConfig, n_rows: int, seed: int, processes: Together) -> BatchPlan:
    """Return the batches of a training on `n_rows` rows, those of this one of the processes that share them.

    Raises
    ------
    KitError
        Where the rows do not fill one update.
    """
    count, rank = processes.num_processes, processes.process_index
    plan = BatchPlan(seed, training.epochs, n_rows, training.batch_size, training.accumulate, count, rank)
    if not plan.steps_per_epoch:
        raise KitError(
            f"training.batch_size: one update takes {plan.samples_per_update} samples (batch_size "
            f"{training.batch_size} × accumulate {training.accumulate} × {count} devices), but only "
            f"{n_rows} rows train; lower batch_size"
        )
    return plan


@dataclass(frozen=True)
class FoldBatches:
    """The augmented micro-batches of the rows of a fold that train.

    Attributes
    ----------
    fold : FoldData
    data : DataConfig
        How images are augmented.
    plan : BatchPlan
        Which samples each micro-batch holds.
    device : device
        Where they are trained on, and augmented where `data.augment_on` says so.
    """

    fold: FoldData
    data: DataConfig
    plan: BatchPlan
    device: torch.device

    def after(self, first: int, workers: Workers) -> Generator[Batch, None, None]:
        """Yield those of the updates from number `first` on, prepared by `workers`."""
        return self._of(self.plan, first, workers)

    def first_ones(self, count: int) -> Iterator[Batch]:
        """Yield the first of the training, of its first epoch at most; this process prepares them."""
        return islice(self._of(replace(self.plan, epochs=1), 0, ALONE), count)

    def _of(self, plan: BatchPlan, first: int, workers: Workers) -> Generator[Batch, None, None]:
        rows = self.fold.train_rows
        targets, images = self.fold.targets[rows], self.fold.images
        return batches_for(self.device, images, rows, targets, self.data, plan, first, workers)
