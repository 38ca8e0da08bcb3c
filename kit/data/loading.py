"""Batches of uint8 pixels, in an order and with an augmentation that depend on counters alone."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from kit.core.seeds import derive
from kit.data.augment import Augmentation, centre
from kit.data.images import ImageSet


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of 0 … n − 1 in which `epoch` visits the samples."""
    return np.random.Generator(np.random.Philox(derive("order", seed, epoch))).permutation(n)


@dataclass(frozen=True)
class BatchPlan:
    """Which samples each micro-batch of this process holds. Incomplete updates are dropped.

    n           training samples
    batch       samples a micro-batch and process
    accumulate  micro-batches an update
    processes   processes that share an update; `rank` is this one's number
    """

    seed: int
    epochs: int
    n: int
    batch: int
    accumulate: int = 1
    processes: int = 1
    rank: int = 0

    @property
    def samples_per_update(self) -> int:
        return self.batch * self.accumulate * self.processes

    @property
    def steps_per_epoch(self) -> int:
        return self.n // self.samples_per_update

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def micro_batches(self, first_step: int = 0) -> Iterator[list[tuple[int, int]]]:
        """(epoch, sample) pairs of each micro-batch, from update `first_step` on to the last."""
        for step in range(first_step, self.total_steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if within == 0 or step == first_step:
                order = epoch_order(self.seed, epoch, self.n)
            update = order[within * self.samples_per_update :][: self.samples_per_update]
            for micro in update.reshape(self.accumulate, self.processes, self.batch):
                yield [(epoch, int(sample)) for sample in micro[self.rank]]


class _TrainingSamples(Dataset):
    """Augmented samples of the given rows: `__getitems__` takes (epoch, sample) pairs, gives a batch."""

    def __init__(
        self, images: ImageSet, rows: np.ndarray, targets: np.ndarray, augmentation: Augmentation, seed: int
    ):
        self.images, self.rows, self.targets = images, rows, targets
        self.augmentation, self.seed = augmentation, seed

    def __getitems__(self, pairs: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = np.stack([self._sample(epoch, self.rows[sample]) for epoch, sample in pairs])
        targets = self.targets[[sample for _, sample in pairs]]
        return torch.from_numpy(pixels), torch.from_numpy(targets)

    def _sample(self, epoch: int, row: int) -> np.ndarray:
        return self.augmentation(self.images[row], derive("augment", self.seed, epoch, self.images.ids[row]))


class _PlainSamples(Dataset):
    """Centre crops of the given rows, a batch of row positions at a time."""

    def __init__(self, images: ImageSet, size: int):
        self.images, self.size = images, size

    def __getitems__(self, rows: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.stack([centre(self.images[row], self.size) for row in rows]))


def training_batches(
    images: ImageSet,
    rows: np.ndarray,
    targets: np.ndarray,
    augmentation: Augmentation,
    plan: BatchPlan,
    first_step: int = 0,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Micro-batches of (uint8 [batch, size, size, channels], targets [batch]) from `first_step` on.

    rows     which images of the set train, int64 [n]
    targets  their labels, aligned with `rows`
    """
    samples = _TrainingSamples(images, rows, targets, augmentation, plan.seed)
    return iter(_loader(samples, plan.micro_batches(first_step), workers, pin))


def plain_batches(
    images: ImageSet, rows: Sequence[int], size: int, batch: int, workers: int = 0, pin: bool = False
) -> Iterator[torch.Tensor]:
    """Batches of uint8 [≤ batch, size, size, channels] in the order of `rows`, the last one smaller."""
    batches = [list(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    return iter(_loader(_PlainSamples(images, size), batches, workers, pin))


def _loader(samples: Dataset, batches, workers: int, pin: bool) -> DataLoader:
    return DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )


def _as_is(batch):
    return batch


def worker_count(setting: int | str, on_gpu: bool, processes: int = 1) -> int:
    """`auto` is none on a CPU, where workers would take the loop's cores, else a share of up to 8."""
    if setting != "auto":
        return int(setting)
    return max(1, min(8, (os.cpu_count() or 1) // processes)) if on_gpu else 0
