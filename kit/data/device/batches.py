"""Batches for a device: gathered there where images stay there, else from the loader; augmented there or here."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch

from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.device.ahead import ahead
from kit.data.device.augment import DeviceAugmentation, augments_on_device
from kit.data.device.resident import ResidentImages, places_of, resident, resident_already, to_device
from kit.data.device.uniforms import SampleSeeds
from kit.data.images import ImageSet
from kit.data.loading import BatchPlan, Visits, training_batches
from kit.data.workers import ALONE, Workers


class AsStored(Augmentation):
    """Leaves pixels as they are stored, for the device to augment."""

    def __init__(self, config: DataConfig):
        self._build(config)

    def _build(self, config: DataConfig) -> None:
        self._config, self._compose = config, None

    @property
    def pixels_bytes(self) -> int:
        """Of an image that it gives."""
        return self._config.stored_size**2 * self._config.channels


def batches_for(
    device: torch.device,
    images: ImageSet,
    rows: np.ndarray,
    targets: np.ndarray,
    config: DataConfig,
    plan: BatchPlan,
    first_step: int = 0,
    workers: Workers = ALONE,
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
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
    seeds = SampleSeeds(plan.seed, [images.ids[row] for row in rows])
    each = (seeds(np.array(visits)) for visits in plan.micro_batches(first_step))
    return _augmented(stored, each, DeviceAugmentation(config), device)


def plain_batches_there(
    device: torch.device, images: ImageSet, rows: Sequence[int], size: int, batch: int, config: DataConfig
) -> Generator[torch.Tensor, None, None] | None:
    """Iterate over batches as `kit.data.loading.plain_batches` does, of images that stay on the device.

    None where they do not. They are put there where the device augments and all of them are asked for: of some,
    the others may be unreadable, or too many to be read for nothing.
    """
    if not augments_on_device(config, device):
        return None
    whole = len(rows) == len(images)
    there = resident(images, device, config.device_memory) if whole else resident_already(images, device)
    return there.batches(places_of(images, rows), size, batch) if there else None


def _gathered(
    there: ResidentImages, places: np.ndarray, targets: np.ndarray, micro_batches: Iterator[Visits]
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    """Yield the stored pixels and the targets of each micro-batch."""
    for visits in micro_batches:
        samples = [sample for _, sample, _ in visits]
        yield there.of(places[samples]), to_device(targets[samples], there.device)


def _augmented(
    stored: Generator[tuple[torch.Tensor, torch.Tensor], None, None],
    seeds: Iterator[np.ndarray],
    augmentation: DeviceAugmentation,
    device: torch.device,
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    with closing(stored):
        for pixels, targets in stored:
            yield augmentation(pixels, to_device(augmentation.draw(next(seeds)), device)), targets
