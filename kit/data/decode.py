"""One image file → uint8 pixels at the size they are kept at."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kit.data.config import DataConfig

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class DecodeError(Exception):
    """A file that is no image, or a broken one."""


@dataclass(frozen=True)
class Decoder:
    """Reads an image as uint8 [side, side, channels]: EXIF rotation applied, converted, resized by PIL."""

    side: int
    channels: int
    resize: str
    interpolation: str

    version = 1  # to be raised when the same file would give other pixels: the cache depends on it

    @classmethod
    def of(cls, config: DataConfig) -> "Decoder":
        return cls(config.stored_size, config.channels, config.resize, config.interpolation)

    def __call__(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                image.draft(None, (2 * self.side, 2 * self.side))  # large JPEGs: decode at a fraction
                upright = _eight_bit(ImageOps.exif_transpose(image)).convert(MODES[self.channels])
        except Exception as error:  # PIL's plugins raise what they like on a broken file
            raise DecodeError(_reason(error)) from error
        pixels = np.asarray(self._fit(upright))
        return pixels.reshape(self.side, self.side, self.channels)

    def _fit(self, image: Image.Image) -> Image.Image:
        method = Image.Resampling[self.interpolation.upper()]
        square = (self.side, self.side)
        if self.resize == "crop":
            return ImageOps.fit(image, square, method)
        if self.resize == "pad":
            return ImageOps.pad(image, square, method)
        return image if image.size == square else image.resize(square, method)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits; PIL would cut everything above 255 to white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8))


def _reason(error: Exception) -> str:
    text = str(error)
    if "cannot identify image file" in text:
        return "no image"
    if "truncated" in text or "broken" in text.lower():
        return "truncated"
    return text.split("\n")[0][:80] or type(error).__name__
