"""Augmentation with albumentations; the draws of a sample depend on (seed, epoch, id) alone."""

import os
import random
import warnings
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.data.config import DataConfig

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or its import asks the network for a newer version
import albumentations as A
import cv2

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
        Where a transform is unknown or gives pixels that training cannot take.
    """

    def __init__(self, config: DataConfig):
        steps = PRESETS[config.augment] if isinstance(config.augment, str) else config.augment
        _try_out(steps, config)
        transforms = [_transform(step, f"data.augment[{place}]") for place, step in enumerate(steps)]
        if config.stored_size > config.size:  # a transform that cuts to `size` leaves nothing to crop
            crop = A.RandomCrop if steps else A.CenterCrop
            transforms.append(crop(config.size, config.size))
        self._compose = A.Compose(transforms) if transforms else None

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """Augment one image; the same seed gives the same pixels."""
        if self._compose is None:
            return pixels
        # One generator shared by all transforms: `set_random_seed` would give each its own with the same
        # seed, and then a flip and a rotation of equal probability always come together.
        generator = np.random.Generator(np.random.Philox(seed))
        self._compose.set_random_state(generator, random.Random(seed))
        return self._compose(image=pixels)["image"]


def centre_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """Cut out what evaluation sees: the middle `size` × `size` pixels of [..., side, side, channels]."""
    start = (pixels.shape[-2] - size) // 2
    return pixels[..., start : start + size, start : start + size, :]


def _transform(step: str | dict[str, dict], place: str) -> A.BasicTransform:
    """Build one transform; `place` is its key in the config, for messages."""
    if isinstance(step, str):
        step = {step: {}}
    if len(step) != 1:
        raise KitError(f"{place}: one transform an entry, like {{HorizontalFlip: {{p: 0.5}}}}; got {sorted(step)}")
    ((name, arguments),) = step.items()
    kind = getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
        raise KitError(f"{place}: {name!r} is no transform of albumentations {A.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it only warns of an argument it does not know
        try:
            return kind(**{key: _tuple(value) for key, value in arguments.items()})
        except (TypeError, ValueError, NotImplementedError, UserWarning) as error:
            raise KitError(f"{place}: {name}: {' '.join(str(error).split())[:200]}") from error


def _tuple(value: Any) -> Any:
    """Turn YAML's lists into the tuples that albumentations wants."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _try_out(steps: list, config: DataConfig) -> None:
    """Run every transform once on noise, so that a list that does not fit fails before the training."""
    side = config.stored_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, config.channels), dtype=np.uint8)
    for number, step in enumerate(steps):
        place = f"data.augment[{number}]"
        transform = _transform(step, place)
        always, transform.p = transform.p == 1, 1.0
        before = noise
        try:
            noise = transform(image=noise)["image"]
        except Exception as error:  # transforms raise what they like on pixels they cannot take
            shape = " × ".join(map(str, noise.shape))
            raise KitError(f"{place}: fails on a {shape} image: {' '.join(str(error).split())[:200]}") from error
        if noise.dtype != np.uint8 or not (noise.shape == before.shape or always):
            _refuse(place, noise, before.shape)
    allowed = ((config.size, config.size, config.channels), (side, side, config.channels))
    if noise.shape not in allowed:
        _refuse("data.augment", noise, allowed[0])


def _refuse(place: str, seen: np.ndarray, wanted: tuple[int, ...]) -> None:
    raise KitError(
        f"{place}: gives {seen.dtype} {tuple(seen.shape)}, but training needs uint8 {wanted}; leave out "
        "Normalize, ToTensorV2 and transforms that change the size"
    )
