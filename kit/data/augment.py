"""Augmentation with albumentations and own code; the draws of a sample depend on (seed, epoch, id) alone."""

import os
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.core.own_code import OwnCode
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


class OwnTransform(A.ImageOnlyTransform):
    """A step of the user's own: a function of pixels and a source of random numbers, with probability p.

    Parameters
    ----------
    code : OwnCode
        Names it, for messages.
    function : callable
        `function(pixels, random)`, with uint8 [height, width, channels], which may be written to, and numpy's
        Generator.
    p : float
        The probability.
    place : str
        Its key in the config, for messages.
    """

    def __init__(self, code: OwnCode, function: Callable[..., np.ndarray], p: float, place: str):
        super().__init__(p=p)
        self.code, self.function, self.place = code, function, place

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        """Return the pixels that the user's function makes of `img`."""
        pixels = img if img.flags.writeable else img.copy()
        try:
            made = self.code.call(self.function, pixels, self.random_generator)
        except KitError as error:
            raise KitError(f"{self.place}: {error}") from error
        if not isinstance(made, np.ndarray):
            found = type(made).__name__
            raise KitError(f"{self.place}: {self.code.reference} gives {found}; an array of pixels is needed")
        if made.dtype != np.uint8 or not (made.shape == img.shape or self.p == 1):
            _refuse(f"{self.place}: {self.code.reference}", made, img.shape)
        return made


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
        _try_out(_steps(config), config)
        self._build(config)

    def __getstate__(self) -> DataConfig:
        return self._config  # another process makes its own: functions of the user's do not travel

    def __setstate__(self, config: DataConfig) -> None:
        self._build(config)

    def _build(self, config: DataConfig) -> None:
        self._config, steps = config, _steps(config)
        transforms = [_transform(step, f"data.augment[{place}]", config) for place, step in enumerate(steps)]
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
        try:
            return self._compose(image=pixels)["image"]
        except KitError:
            raise
        except Exception as error:
            for key, name in self._config.references():  # a class of the user's
                if (own := self._config.own(name)) and own.raised(error):
                    raise KitError(f"data.{key}: {name}: {own.fault(error)}") from error
            raise


def centre_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """Cut out what evaluation sees: the middle `size` × `size` pixels of [..., side, side, channels]."""
    start = (pixels.shape[-2] - size) // 2
    return pixels[..., start : start + size, start : start + size, :]


def _steps(config: DataConfig) -> list[Any]:
    return PRESETS[config.augment] if isinstance(config.augment, str) else config.augment


def _transform(step: str | dict[str, dict], place: str, config: DataConfig) -> A.BasicTransform:
    """Build one transform; `place` is its key in the config, for messages."""
    if isinstance(step, str):
        step = {step: {}}
    if len(step) != 1:
        raise KitError(f"{place}: one transform an entry, like {{HorizontalFlip: {{p: 0.5}}}}; got {sorted(step)}")
    ((name, arguments),) = step.items()
    if own := config.own(name):
        return _own_transform(own, arguments or {}, place)
    kind = getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
        raise KitError(f"{place}: {name!r} is no transform of albumentations {A.__version__}")
    return _made(kind, arguments, f"{place}: {name}")


def _own_transform(own: OwnCode, options: dict[str, Any], place: str) -> A.BasicTransform:
    """Build a transform of the user's own: a class of albumentations' kind, or a function."""
    try:
        target = own.load()
        if isinstance(target, type) and issubclass(target, A.BasicTransform):
            own.check_signature(target, options, ())
            return _made(target, options, f"{place}: {own.reference}")
        options = dict(options)
        p = options.pop("p", 1.0)
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            raise KitError(f"{own.reference}: p = {p!r}: expected a probability, 0 to 1")
        return OwnTransform(own, own.bind(options, ("pixels", "random")), float(p), place)
    except KitError as error:
        text = str(error)
        raise error if text.startswith(place) else KitError(f"{place}: {text}") from error


def _made(kind: type[A.BasicTransform], arguments: dict[str, Any], what: str) -> A.BasicTransform:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it only warns of an argument it does not know
        try:
            return kind(**{key: _tuple(value) for key, value in arguments.items()})
        except (TypeError, ValueError, NotImplementedError, UserWarning) as error:
            raise KitError(f"{what}: {' '.join(str(error).split())[:200]}") from error


def _tuple(value: Any) -> Any:
    """Turn YAML's lists into the tuples that albumentations wants."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _try_out(steps: list, config: DataConfig) -> None:
    """Run every transform once on noise, so that a list that does not fit fails before the training."""
    side = config.stored_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, config.channels), dtype=np.uint8)
    for number, step in enumerate(steps):
        place = f"data.augment[{number}]"
        transform = _transform(step, place, config)
        always, transform.p = transform.p == 1, 1.0
        before = noise
        try:
            noise = _applied(transform, before)
            again = _applied(transform, before)
        except KitError:
            raise
        except Exception as error:  # transforms raise what they like on pixels they cannot take
            shape = " × ".join(map(str, noise.shape))
            (name,) = [step] if isinstance(step, str) else step
            own = config.own(name)
            reason = f"{name}: {own.fault(error)}" if own else " ".join(str(error).split())[:200]
            raise KitError(f"{place}: fails on a {shape} image: {reason}") from error
        if noise.dtype != np.uint8 or not (noise.shape == before.shape or always):
            _refuse(place, noise, before.shape)
        if not np.array_equal(noise, again):
            raise KitError(
                f"{place}: gives other pixels for the same random numbers, so that no training could be repeated; "
                "draw them from the generator that it is given"
            )
    allowed = ((config.size, config.size, config.channels), (side, side, config.channels))
    if noise.shape not in allowed:
        _refuse("data.augment", noise, allowed[0])


def _applied(transform: A.BasicTransform, pixels: np.ndarray) -> np.ndarray:
    transform.set_random_state(np.random.Generator(np.random.Philox(0)), random.Random(0))
    return transform(image=pixels.copy())["image"]


def _refuse(place: str, seen: np.ndarray, wanted: tuple[int, ...]) -> None:
    raise KitError(
        f"{place}: gives {seen.dtype} {tuple(seen.shape)}, but training needs uint8 {wanted}; leave out "
        "Normalize, ToTensorV2 and transforms that change the size"
    )
