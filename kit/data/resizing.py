"""To the square that is kept: squashed, cropped or padded; by Pillow or, faster, by torch."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from kit.data.jpeg import COVERED
from kit.data.reading import Note, unnoticed

Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Picture = Image.Image | np.ndarray  # an array is uint8 [height, width] or [height, width, 3]
BY_TORCH = ("L", "RGB")  # modes; Pillow weighs colours by their transparency


@dataclass(frozen=True)
class Resizing:
    """Makes an image a square.

    Attributes
    ----------
    side
        Of the square, in pixels.
    resize, interpolation
        As in `DataConfig`.
    fast
        Whether torch resizes where it can. Its filters are Pillow's with weights of 16 bits: one value in some
        hundred differs by 1, hardly one by 2; along the edges of a middle square more, since torch sees no pixels
        beyond. Pillow remains for nearest, for transparency, and for a square whose edges lie between pixels.
    """

    side: int
    resize: str
    interpolation: str
    fast: bool = False

    def __call__(self, picture: Picture, note: Note = unnoticed) -> np.ndarray:
        """Return the square, uint8 [side, side] or [side, side, channels].

        `note` takes "thin" where rounding would have left nothing of an image between bars.
        """
        size, square = _size(picture), (self.side, self.side)
        if self.resize == "crop":
            return self._resized(picture, square, middle_square(size))
        if self.resize == "pad":
            return self._padded(picture, note)
        return np.asarray(picture) if size == square else self._resized(picture, square, (0, 0, *size))

    def _padded(self, picture: Picture, note: Note) -> np.ndarray:
        """Return the whole image between black bars; of one that is long and thin a pixel at least is left."""
        size = _size(picture)
        width, height = inner_size(size, self.side)
        if not (width and height):
            note("thin")
            width, height = max(1, width), max(1, height)
        inner = self._resized(picture, (width, height), (0, 0, *size))
        if (width, height) == (self.side, self.side):
            return inner
        padded = np.zeros((self.side, self.side, *inner.shape[2:]), np.uint8)
        left, top = round((self.side - width) * 0.5), round((self.side - height) * 0.5)
        padded[top : top + height, left : left + width] = inner
        return padded

    def _resized(self, picture: Picture, size: Size, box: Box) -> np.ndarray:
        torch_can = self._torch_can(box)
        if isinstance(picture, Image.Image) and torch_can and picture.mode in BY_TORCH:
            picture = np.array(picture)
        if isinstance(picture, np.ndarray) and torch_can:
            left, top, right, bottom = map(int, box)
            part = np.ascontiguousarray(picture[top:bottom, left:right])  # else torch's threads copy it
            return resized_by_torch(part, size, self.interpolation)
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        return np.asarray(image.resize(size, Image.Resampling[self.interpolation.upper()], box))

    def is_by_torch(self, size: Size) -> bool:
        """Return whether torch resizes pictures of this size whose mode allows it."""
        return self._torch_can(middle_square(size) if self.resize == "crop" else (0, 0, *size))

    def _torch_can(self, box: Box) -> bool:
        return self.fast and self.interpolation != "nearest" and not any(edge % 1 for edge in box)


def _size(picture: Picture) -> tuple[float, float]:
    """Width and height; of a JPEG that is decoded at a part of its size those that it covers."""
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    return picture.info.get(COVERED, picture.size)


def middle_square(size: tuple[float, float]) -> Box:
    """Return the largest square amid an image; its edges may lie between pixels (as of `ImageOps.fit`)."""
    width, height = size
    short = min(size)
    left, top = (width - short) * 0.5, (height - short) * 0.5
    return left, top, left + short, top + short


def inner_size(size: tuple[float, float], side: int) -> Size:
    """Return width and height of a whole image in a square, as `ImageOps.pad`; 0 where rounding leaves nothing."""
    width, height = size
    if width > height:
        return side, round(height / width * side)
    return round(width / height * side), side


def resized_by_torch(pixels: np.ndarray, size: Size, interpolation: str) -> np.ndarray:
    """Resize pixels in this thread alone, with the filters of Pillow (antialiased).

    Parameters
    ----------
    pixels : ndarray
        uint8 [height, width] or [height, width, channels], that may be written to (and is not).
    size : tuple of int
        Width and height of the result.
    interpolation : str
        bicubic or bilinear.

    Returns
    -------
    ndarray
        uint8, with the dimensions that `pixels` has.
    """
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None]
    made = interpolate(planes, size[::-1], mode=interpolation, antialias=True)
    return made[0].permute(1, 2, 0).numpy().reshape(*size[::-1], *pixels.shape[2:])
