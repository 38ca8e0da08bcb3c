"""The steps of an augmentation that the device knows: one pass over a batch, each sample with its own parameters.

Each does what albumentations' transform of the same name does, with the same ranges and borders. What is drawn
becomes parameters on the CPU, in float64; the device computes in float32, element by element, and gives uint8
after each step, as albumentations does. No result depends on the other samples of a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch.nn.functional import grid_sample, pad


class DeviceStep(Protocol):
    """A step: how many numbers it draws for a sample, which parameters they become, and what those do to pixels.

    Attributes
    ----------
    p : float
        The probability that it is applied to a sample.
    draws : int
        Numbers that it takes of each sample.
    """

    @property
    def p(self) -> float: ...
    @property
    def draws(self) -> int: ...

    def parameters(self, drawn: np.ndarray, side: int) -> np.ndarray:
        """Return the parameters [batch, parameters] of numbers from 0 to below 1, float64 [batch, draws]."""
        ...

    def apply(self, pixels: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Return what it makes of pixels, uint8 [batch, channels, side, side]; parameters are float32."""
        ...


Range = tuple[float, float]


def _within(drawn: np.ndarray, limits: Range) -> np.ndarray:
    """Numbers from 0 to below 1, spread over a range."""
    return limits[0] + drawn * (limits[1] - limits[0])


def _whole_within(drawn: np.ndarray, low: int | np.ndarray, high: int | np.ndarray) -> np.ndarray:
    """Whole numbers from `low` to `high`, both among them, each as likely; float64."""
    return low + np.floor(drawn * (high - low + 1))


def _of_image(values: torch.Tensor) -> torch.Tensor:
    """A value a sample, to be combined with pixels."""
    return values[:, None, None, None]


@dataclass(frozen=True)
class Turn:
    """One of some symmetries of the square, each as likely.

    HorizontalFlip, VerticalFlip, Transpose, RandomRotate90 and D4 are of this kind.

    Attributes
    ----------
    p : float
    choices : tuple of (bool, bool, bool)
        Whether rows and columns are swapped first; whether then rows, and columns, are reversed.
    """

    p: float
    choices: tuple[tuple[bool, bool, bool], ...]
    draws: ClassVar[int] = 1

    def parameters(self, drawn: np.ndarray, side: int) -> np.ndarray:
        """Which of the choices, as its three answers."""
        chosen = np.floor(drawn[:, 0] * len(self.choices)).astype(np.int64)
        return np.array(self.choices, dtype=np.float64)[chosen]

    def apply(self, pixels: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Swap, then reverse."""
        swaps, downs, acrosses = (any(answers) for answers in zip(*self.choices, strict=True))
        swapped, down, across = (_of_image(column) > 0 for column in parameters.unbind(1))
        if swaps:
            pixels = torch.where(swapped, pixels.transpose(2, 3), pixels)
        if downs:
            pixels = torch.where(down, pixels.flip(2), pixels)
        return torch.where(across, pixels.flip(3), pixels) if acrosses else pixels


@dataclass(frozen=True)
class Affine:
    """Scale, turn, shear and shift about the centre, in one pass.

    Attributes
    ----------
    p : float
    scale, shear : tuple of (float, float)
        Ranges for x and y; of shear in degrees.
    rotate : (float, float)
        In degrees, counter-clockwise.
    translate : tuple of (float, float)
        Ranges for x and y: shares of the side (what they come to is cut to whole pixels), or pixels.
    in_pixels : bool
        Whether `translate` is in pixels.
    keep_ratio : bool
        Whether y is scaled as x.
    mode : str
        bilinear or nearest.
    border : str
        What lies beyond the image, as torch calls it: zeros (`fill` in their place), border, reflection.
    fill : float
    """

    p: float
    scale: tuple[Range, Range]
    rotate: Range
    shear: tuple[Range, Range]
    translate: tuple[Range, Range]
    in_pixels: bool = False
    keep_ratio: bool = False
    mode: str = "bilinear"
    border: str = "zeros"
    fill: float = 0.0
    draws: ClassVar[int] = 7

    def parameters(self, drawn: np.ndarray, side: int) -> np.ndarray:
        """Return the map from places in the result to places in the image, by rows, [batch, 6].

        Places are from −1 to 1 between the outer edges of the pixels, so that the centre is 0.
        """
        shift = [self._shift(drawn[:, axis], self.translate[axis], side) for axis in (0, 1)]
        shear = [np.tan(np.deg2rad(-_within(drawn[:, 2 + axis], self.shear[axis]))) for axis in (0, 1)]
        scale = [_within(drawn[:, 4 + axis], self.scale[axis]) for axis in (0, 1)]
        scale = [scale[0], scale[0]] if self.keep_ratio else scale
        turn = np.deg2rad(_within(drawn[:, 6], self.rotate))
        return self.inverse(shift, shear, scale, turn, side)

    def _shift(self, drawn: np.ndarray, limits: Range, side: int) -> np.ndarray:
        if self.in_pixels:
            return _whole_within(drawn, int(limits[0]), int(limits[1]))
        return np.trunc(_within(drawn, limits) * side)

    @staticmethod
    def inverse(
        shift: Sequence[np.ndarray],
        shear: Sequence[np.ndarray],
        scale: Sequence[np.ndarray],
        turn: np.ndarray,
        side: int,
    ) -> np.ndarray:
        """Return the inverse of shift · shear · turn · scale [batch, 6]; `shear` is tangents, `turn` radians."""
        cos, sin = np.cos(turn), np.sin(turn)
        # shear · turn, then each column times its scale
        a, b = (cos - shear[0] * sin) * scale[0], (sin + shear[0] * cos) * scale[1]
        c, d = (shear[1] * cos - sin) * scale[0], (shear[1] * sin + cos) * scale[1]
        whole = a * d - b * c
        a, b, c, d = d / whole, -b / whole, -c / whole, a / whole
        x, y = (2 / side * each for each in shift)
        return np.stack([a, b, -(a * x + b * y), c, d, -(c * x + d * y)], axis=1)

    def apply(self, pixels: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Look up each pixel of the result between those of the image."""
        side = pixels.shape[-1]
        places = (torch.arange(side, device=pixels.device, dtype=torch.float32) * 2 + (1 - side)) / side
        rows, columns = places[None, :, None], places[None, None, :]
        a, b, x, c, d, y = (each[:, None, None] for each in parameters.unbind(1))
        # Not `affine_grid`: its product of matrices may round otherwise in another batch.
        grid = torch.stack([a * columns + b * rows + x, c * columns + d * rows + y], dim=3)
        values = pixels.float()
        if self.fill:
            values -= self.fill
        made = grid_sample(values, grid, mode=self.mode, padding_mode=self.border, align_corners=False)
        if self.fill:
            made += self.fill
        return _as_pixels(made)


@dataclass(frozen=True)
class BrightnessContrast:
    """Pixels times a number near 1, and plus a share of the range of values.

    Attributes
    ----------
    p : float
    brightness, contrast : (float, float)
        Ranges of the share, and of what is added to 1.
    """

    p: float
    brightness: Range
    contrast: Range
    draws: ClassVar[int] = 2

    def parameters(self, drawn: np.ndarray, side: int) -> np.ndarray:
        """Return factor and summand."""
        factor = 1 + _within(drawn[:, 0], self.contrast)
        return np.stack([factor, 255 * _within(drawn[:, 1], self.brightness)], axis=1)

    def apply(self, pixels: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Multiply and add, within 0 to 255; fractions are cut off, as by albumentations' table of values."""
        factor, summand = map(_of_image, parameters.unbind(1))
        return pixels.float().mul_(factor).add_(summand).clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Blur:
    """The mean of neighbours, weighted by a normal distribution; beyond its edge the image is mirrored.

    Attributes
    ----------
    p : float
    width : (int, int)
        Range of the pixels a side that are averaged; an even one becomes the next odd one.
    sigma : (float, float)
        Range of the standard deviation, in pixels.
    """

    p: float
    width: tuple[int, int]
    sigma: Range
    draws: ClassVar[int] = 2

    @property
    def most(self) -> int:
        """How far the widest reaches beyond a pixel."""
        return self.width[1] // 2

    def parameters(self, drawn: np.ndarray, side: int) -> np.ndarray:
        """Return the weights from the pixel itself outwards, [batch, most + 1]; 0 beyond the width."""
        sigma = _within(drawn[:, 0], self.sigma)[:, None]
        reach = _whole_within(drawn[:, 1], *self.width)[:, None] // 2
        away = np.arange(self.most + 1)
        weights = np.where(away <= reach, np.exp(-0.5 * (away / sigma) ** 2), 0.0)
        return weights / (2 * weights.sum(axis=1, keepdims=True) - weights[:, :1])

    def apply(self, pixels: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Average along rows, then along columns."""
        most, side = self.most, pixels.shape[-1]
        values = pixels.float()
        for dim in (2, 3):
            around = pad(values, (most, most, 0, 0) if dim == 3 else (0, 0, most, most), mode="reflect")
            values = values * _of_image(parameters[:, 0])
            for away in range(1, most + 1):
                both = around.narrow(dim, most - away, side) + around.narrow(dim, most + away, side)
                values += both.mul_(_of_image(parameters[:, away]))
        return _as_pixels(values)


@dataclass(frozen=True)
class Holes:
    """Rectangles of one value, anywhere in the image.

    Attributes
    ----------
    p : float
    number : (int, int)
        Range of their number.
    height, width : (float, float)
        Ranges of their sides: shares of the image's, cut to whole pixels, or pixels.
    in_pixels : bool
        Whether the sides are in pixels.
    fill : float
    """

    p: float
    number: tuple[int, int]
    height: Range
    width: Range
    in_pixels: bool = False
    fill: float = 0.0

    @property
    def draws(self) -> int:
        """One for the number, and four for each."""
        return 1 + 4 * self.number[1]

    def parameters(self, drawn: np.ndarray, side: int) -> np.ndarray:
        """Return top, bottom, left and right of each, [batch, 4 · number]; those beyond the number are empty."""
        each = drawn[:, 1:].reshape(len(drawn), self.number[1], 4)
        there = np.arange(self.number[1]) < _whole_within(drawn[:, :1], *self.number)
        edges = []
        for axis, limits in enumerate((self.height, self.width)):
            length = np.where(there, self._length(each[:, :, axis], limits, side), 0)
            first = _whole_within(each[:, :, 2 + axis], 0, side - length)
            edges += [first, first + length]
        return np.stack(edges, axis=2).reshape(len(drawn), -1)

    def _length(self, drawn: np.ndarray, limits: Range, side: int) -> np.ndarray:
        if self.in_pixels:
            return _whole_within(drawn, int(limits[0]), int(min(limits[1], side)))
        return np.floor(_within(drawn, limits) * side)

    def apply(self, pixels: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """Fill them."""
        places = torch.arange(pixels.shape[-1], device=pixels.device, dtype=torch.float32)
        top, bottom, left, right = parameters.view(len(pixels), -1, 4, 1).unbind(2)
        rows, columns = (places >= top) & (places < bottom), (places >= left) & (places < right)
        holes = (rows[:, :, :, None] & columns[:, :, None, :]).any(dim=1)
        return pixels.masked_fill(holes[:, None], self.fill)


def _as_pixels(values: torch.Tensor) -> torch.Tensor:
    """Values rounded to whole ones (halves to even), within 0 to 255; may change what it is given."""
    return values.round_().clamp_(0, 255).to(torch.uint8)


def reach_of(step: DeviceStep) -> int:
    """Return how large an image has to be for a step, in pixels a side."""
    return step.most + 1 if isinstance(step, Blur) else 1


MIRRORED: tuple[tuple[bool, bool, bool], ...] = ((False, False, True),)
UPSIDE_DOWN: tuple[tuple[bool, bool, bool], ...] = ((False, True, False),)
TRANSPOSED: tuple[tuple[bool, bool, bool], ...] = ((True, False, False),)
QUARTERS: tuple[tuple[bool, bool, bool], ...] = (
    (False, False, False),
    (True, True, False),  # counter-clockwise, like numpy's
    (False, True, True),
    (True, False, True),
)
ALL_EIGHT = (*QUARTERS, *MIRRORED, *UPSIDE_DOWN, *TRANSPOSED, (True, True, True))
