"""Batches for a device: gathered there where images stay there, else from the loader; augmented there or here."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.device.ahead import ahead
from kit.data.device.augment import DeviceAugmentation, augments_on_device
from kit.data.device.resident import ResidentImages, places_of, resident, to_device
from kit.data.images import ImageSet
from kit.data.loading import BatchPlan, Visits, sample_seed, training_batches
from kit.data.workers import ALONE, Workers


class AsStored:
    """In the place of an augmentation: leaves pixels as they are stored, for the device to augment."""

    def __init__(self, config: DataConfig):
        self.pixels_bytes = config.stored_size**2 * config.channels

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """Return the pixels."""
        return pixels


def batches_for(
    device: torch.device,
    images: ImageSet,
    rows: np.ndarray,
    targets: np.ndarray,
    config: DataConfig,
    plan: BatchPlan,
    first_step: int = 0,
    workers: Workers = ALONE,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate over the micro-batches of a training, augmented where `config.augment_on` says.

    Parameters
    ----------
    device : device
        Where they are trained on.
    config : DataConfig
        How they are augmented.
    images, rows, targets, plan, first_step, workers
        As `kit.data.loading.training_batches` takes them.

    Yields
    ------
    tuple of Tensor
        As there. Where the device augments they are there, and on a GPU always; whether images stay there changes
        no bit.
    """
    if not augments_on_device(config, device):
        loaded = training_batches(images, rows, targets, Augmentation(config), plan, first_step, workers)
        return ahead(loaded, device)
    there = resident(images, device, config.device_memory)
    if there:
        stored = _gathered(there, places_of(images, rows), targets, plan.micro_batches(first_step))
    else:
        loaded = training_batches(images, rows, targets, AsStored(config), plan, first_step, workers)
        stored = ahead(loaded, device)
    seeds = (_seeds(images, rows, plan.seed, visits) for visits in plan.micro_batches(first_step))
    return _augmented(stored, seeds, DeviceAugmentation(config), device)


def plain_batches_there(
    device: torch.device, images: ImageSet, rows: Sequence[int], size: int, batch: int, config: DataConfig
) -> Iterator[torch.Tensor] | None:
    """Iterate over batches as `kit.data.loading.plain_batches` does, of images that stay on the device.

    None where they do not, as they do wherever the device augments and they fit.
    """
    there = resident(images, device, config.device_memory) if augments_on_device(config, device) else None
    return there.batches(places_of(images, rows), size, batch) if there else None


def _gathered(
    there: ResidentImages, places: np.ndarray, targets: np.ndarray, micro_batches: Iterator[Visits]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the stored pixels and the targets of each micro-batch."""
    for visits in micro_batches:
        samples = [sample for _, sample, _ in visits]
        yield there.of(places[samples]), to_device(targets[samples], there.device)


def _seeds(images: ImageSet, rows: np.ndarray, seed: int, visits: Visits) -> np.ndarray:
    """Return the seed of each sample of a micro-batch, uint64: the one that the CPU augments it by."""
    each = [sample_seed(seed, epoch, images.ids[rows[sample]], before) for epoch, sample, before in visits]
    return np.array(each, dtype=np.uint64)


def _augmented(
    stored: Iterator[tuple[torch.Tensor, torch.Tensor]],
    seeds: Iterator[np.ndarray],
    augmentation: DeviceAugmentation,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for pixels, targets in stored:
        yield augmentation(pixels, to_device(augmentation.draw(next(seeds)), device)), targets
