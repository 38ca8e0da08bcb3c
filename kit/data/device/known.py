"""Which of albumentations' transforms the device knows, by what they were made with."""

from collections.abc import Callable
from typing import Any

import albumentations as A
import cv2

from kit.data.affine import affine
from kit.data.config import DataConfig
from kit.data.device.steps import (
    ALL_EIGHT,
    MIRRORED,
    QUARTERS,
    TRANSPOSED,
    UPSIDE_DOWN,
    Affine,
    Blur,
    BrightnessContrast,
    DeviceStep,
    Holes,
    Turn,
    reach_of,
)
from kit.data.transforms import Step

MODES = {cv2.INTER_NEAREST: "nearest", cv2.INTER_LINEAR: "bilinear"}
BORDERS = {cv2.BORDER_CONSTANT: "zeros", cv2.BORDER_REPLICATE: "border", cv2.BORDER_REFLECT: "reflection"}


def known_step(step: Step, config: DataConfig) -> DeviceStep | None:
    """Return what does on the device what a transform does; None where nothing there does.

    Parameters
    ----------
    step : BasicTransform or BaseCompose
        As `kit.data.transforms.build_step` makes it: its attributes are its parameters, checked, with defaults.
    config : DataConfig
        For the size of images.
    """
    make = _KNOWN.get(type(step))  # not of a class that derives from it, which may do anything
    made = make(step) if make else None
    return made if made and reach_of(made) <= config.stored_size else None


def _turn(choices: tuple[tuple[bool, bool, bool], ...]) -> Callable[[Any], DeviceStep]:
    return lambda step: Turn(step.p, choices)


def _affine(step: Any) -> DeviceStep | None:
    usual = not (step.fit_output or step.balanced_scale) and _is_number(step.fill)
    if not usual or step.interpolation not in MODES or step.border_mode not in BORDERS:
        return None
    if min(min(step.scale[axis]) for axis in "xy") <= 0:  # nothing would be left of the image
        return None
    in_pixels = step.translate_px is not None
    translate = step.translate_px if in_pixels else step.translate_percent
    return Affine(
        p=step.p,
        scale=(step.scale["x"], step.scale["y"]),
        rotate=step.rotate,
        shear=(step.shear["x"], step.shear["y"]),
        translate=(translate["x"], translate["y"]),
        in_pixels=in_pixels,
        keep_ratio=step.keep_ratio,
        mode=MODES[step.interpolation],
        border=BORDERS[step.border_mode],
        fill=float(step.fill),
    )


def _brightness_contrast(step: Any) -> DeviceStep | None:
    if step.ensure_safe_range or not step.brightness_by_max:  # which go by the image's mean
        return None
    return BrightnessContrast(step.p, step.brightness_limit, step.contrast_limit)


def _blur(step: Any) -> DeviceStep | None:
    if step.blur_limit[0] < 1 or step.sigma_limit[0] <= 0:  # a width that goes by sigma
        return None
    return Blur(step.p, step.blur_limit, step.sigma_limit)


def _holes(step: Any) -> DeviceStep | None:
    if not _is_number(step.fill) or step.fill != int(step.fill):
        return None
    in_pixels = step.hole_height_range[1] >= 1  # as albumentations tells it, of both sides by this one
    if not in_pixels and step.hole_width_range[1] > 1:
        return None
    return Holes(
        step.p, step.num_holes_range, step.hole_height_range, step.hole_width_range, in_pixels, float(step.fill)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


_KNOWN: dict[type, Callable[[Any], DeviceStep | None]] = {
    A.HorizontalFlip: _turn(MIRRORED),
    A.VerticalFlip: _turn(UPSIDE_DOWN),
    A.Transpose: _turn(TRANSPOSED),
    A.RandomRotate90: _turn(QUARTERS),
    A.D4: _turn(ALL_EIGHT),
    A.Affine: _affine,
    affine(): _affine,  # what a config's Affine is made of
    A.RandomBrightnessContrast: _brightness_contrast,
    A.GaussianBlur: _blur,
    A.CoarseDropout: _holes,
}
NAMES = frozenset(kind.__name__ for kind in _KNOWN)
