"""Augmentation on the device, of whole batches; the draws of a sample depend on (seed, epoch, id) alone."""

import numpy as np
import torch

from kit.core.errors import KitError
from kit.data.augment import centre_crop, steps_of
from kit.data.config import DataConfig
from kit.data.device.steps import DeviceStep
from kit.data.device.uniforms import uniforms


def augments_on_device(config: DataConfig, device: torch.device) -> bool:
    """Say whether images are augmented on the device that trains, and not by the CPU.

    That does not depend on how much memory the device has, so that `auto` means the same on each of a kind.

    Raises
    ------
    KitError
        Where `data.augment_on` asks for it, but a step of `data.augment` is not known there.
    """
    if config.augment_on == "cpu" or (config.augment_on == "auto" and device.type != "cuda"):
        return False
    lacking = [place for place, step in _built(config).items() if step is None]
    if lacking and config.augment_on == "device":
        raise KitError(
            f"data.augment_on: {', '.join(lacking)}: not known on the device, or not with these options; set "
            "data.augment_on to cpu, or take what docs/configuration.md says is known"
        )
    return not lacking


def _built(config: DataConfig) -> dict[str, DeviceStep | None]:
    """The steps of the augmentation by place and name, None for those that the device does not know."""
    from kit.data.device.known import NAMES, known_step  # albumentations: where nothing is augmented it is not
    from kit.data.transforms import build_step  # waited for

    built: dict[str, DeviceStep | None] = {}
    for number, step in enumerate(steps_of(config)):
        place = f"data.augment[{number}]"
        name = step if isinstance(step, str) else next(iter(step), "")
        known = known_step(build_step(step, place, config), config) if name in NAMES else None
        built[f"{place} ({name})"] = known
    return built


class DeviceAugmentation:
    """Turns batches of stored pixels into what training sees, on the device that they are on.

    The transforms are those of `kit.data.augment.Augmentation`, with the same probabilities and ranges, and the
    crop as there. Other numbers are drawn than by albumentations, and pixels between pixels are rounded otherwise:
    what a run gives is not what it gives with the other.

    Parameters
    ----------
    config : DataConfig
        All its steps have to be known on the device (see `augments_on_device`).
    """

    def __init__(self, config: DataConfig):
        self._side, self._size = config.stored_size, config.size
        self._steps = [(step, self._width(step)) for step in _built(config).values() if step is not None]
        self._crops = bool(self._steps) and self._side > self._size

    def _width(self, step: DeviceStep) -> int:
        """How many parameters a step has."""
        return step.parameters(np.zeros((1, step.draws)), self._side).shape[1]

    def draw(self, seeds: np.ndarray) -> np.ndarray:
        """Return what is to be done to each sample, float32 [batch, numbers], by its seed, uint64 [batch].

        Of each step whether it is applied, and its parameters; then the crop's first row and column.
        """
        drawn = uniforms(seeds, sum(1 + step.draws for step, _ in self._steps) + 2)
        numbers, at = [], 0
        for step, _ in self._steps:
            parameters = step.parameters(drawn[:, at + 1 : at + 1 + step.draws], self._side)
            numbers += [drawn[:, at : at + 1] < step.p, parameters]
            at += 1 + step.draws
        numbers.append(np.floor(drawn[:, at:] * (self._side - self._size + 1)))
        return np.concatenate(numbers, axis=1, dtype=np.float32)

    def __call__(self, pixels: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Augment a batch.

        Parameters
        ----------
        pixels : Tensor
            uint8 [batch, stored side, stored side, channels].
        drawn : Tensor
            What `draw` gives, on the same device.

        Returns
        -------
        Tensor
            uint8 [batch, size, size, channels].
        """
        images, at = pixels.permute(0, 3, 1, 2), 0
        for step, width in self._steps:
            made = step.apply(images, drawn[:, at + 1 : at + 1 + width])
            images = made if step.p >= 1 else torch.where(drawn[:, at, None, None, None] > 0, made, images)
            at += 1 + width
        images = images.permute(0, 2, 3, 1)
        return self._cut(images, drawn[:, at:]).contiguous()

    def _cut(self, images: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """The crop: of [batch, side, side, channels] the size that the network sees."""
        if not self._crops:
            return centre_crop(images, self._size)
        within = torch.arange(self._size, device=images.device)
        rows, columns = (each[:, None] + within for each in first.long().unbind(1))
        return images[
            torch.arange(len(images), device=images.device)[:, None, None], rows[:, :, None], columns[:, None]
        ]
