"""Augmentation with albumentations and own code; the draws of a sample depend on (seed, epoch, id) alone."""

import random
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np

from kit.core.errors import KitError
from kit.data.config import DataConfig

if TYPE_CHECKING:
    import torch

Pixels = TypeVar("Pixels", np.ndarray, "torch.Tensor")
cv2.setNumThreads(0)  # images are small; its threads would fight with the loop's and the workers'

PRESETS: dict[str, list[dict[str, dict[str, Any]]]] = {
    "none": [],
    "light": [
        {"HorizontalFlip": {"p": 0.5}},
        {"Affine": {"rotate": (-10, 10), "scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05), "p": 0.75}},
    ],
    "medium": [
        {"HorizontalFlip": {"p": 0.5}},
        {"Affine": {"rotate": (-20, 20), "scale": (0.8, 1.2), "translate_percent": (-0.1, 0.1), "p": 0.75}},
        {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.75}},
    ],
    "heavy": [
        {"HorizontalFlip": {"p": 0.5}},
        {"Affine": {"rotate": (-30, 30), "scale": (0.7, 1.3), "translate_percent": (-0.15, 0.15), "p": 0.9}},
        {"RandomBrightnessContrast": {"brightness_limit": 0.3, "contrast_limit": 0.3, "p": 0.9}},
        {"GaussianBlur": {"blur_limit": (3, 5), "p": 0.2}},
        {
            "CoarseDropout": {
                "num_holes_range": (1, 4),
                "hole_height_range": (0.1, 0.25),
                "hole_width_range": (0.1, 0.25),
                "p": 0.5,
            }
        },
    ],
}


class Augmentation:
    """Turns stored pixels into what training sees.

    Pixels are uint8 [side, side, channels] before and uint8 [size, size, channels] after. After the transforms a
    random crop of `size` is taken where images are kept larger; with `none` the centre, as in evaluation.

    Parameters
    ----------
    config : DataConfig
        Its `augment` names a preset or lists transforms; every one is tried out on noise.

    Raises
    ------
    KitError
        Where a transform is unknown or gives pixels that training cannot take, and where one of the user's own
        does not give the same pixels for the same random numbers.
    """

    def __init__(self, config: DataConfig):
        from kit.data.transforms import try_out

        try_out(steps_of(config), config)
        self._build(config)

    def __getstate__(self) -> DataConfig:
        return self._config  # another process makes its own: functions of the user's do not travel

    def __setstate__(self, config: DataConfig) -> None:
        self._build(config)

    def _build(self, config: DataConfig) -> None:
        from kit.data.transforms import composed  # albumentations: where nothing is augmented it is not waited for

        self._config, self._compose = config, composed(steps_of(config), config)
        self._drawing = threading.Lock()  # the generator is the transforms' from where it is set to the last draw

    @property
    def has_own_code(self) -> bool:
        """Whether a transform is the user's own."""
        return any(True for _ in self._config.references())

    @property
    def pixels_bytes(self) -> int:
        """Of an image that it gives."""
        return self._config.size**2 * self._config.channels

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """Augment one image; the same seed gives the same pixels."""
        if self._compose is None:
            return pixels
        # One generator shared by all transforms: `set_random_seed` would give each its own with the same
        # seed, and then a flip and a rotation of equal probability always come together.
        generator: Any = _Generator(seed) if isinstance(self._config.augment, str) else _generator(seed)
        try:
            with self._drawing:
                self._compose.set_random_state(generator, random.Random(seed))
                return self._compose(image=pixels)["image"]
        except KitError:
            raise
        except Exception as error:
            for key, name in self._config.references():  # a class of the user's
                if (own := self._config.own(name)) and own.raised(error):
                    raise KitError(f"data.{key}: {name}: {own.fault(error)}") from error
            raise


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


class _Generator:
    """numpy's generator, made when something asks it first: most of what the presets draw is Python's.

    Transforms of albumentations that are not in the presets, and own code, may need the real one.
    """

    _made: np.random.Generator

    def __init__(self, seed: int):
        self._seed = seed

    def __getattr__(self, name: str) -> Any:
        if name != "_made":
            return getattr(self._made, name)
        self._made = made = _generator(self._seed)
        return made


def centre_crop(pixels: Pixels, size: int) -> Pixels:
    """Cut out what evaluation sees: the middle `size` × `size` pixels of [..., side, side, channels]."""
    start = (pixels.shape[-2] - size) // 2
    return pixels[..., start : start + size, start : start + size, :]


def steps_of(config: DataConfig) -> list[Any]:
    """Return the steps of `data.augment`: a preset's, or those of a list."""
    return PRESETS[config.augment] if isinstance(config.augment, str) else config.augment
