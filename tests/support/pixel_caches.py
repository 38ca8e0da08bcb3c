"""Pixel caches of given pixels."""

from pathlib import Path

import numpy as np

from kit.data.pixel_cache import Filling, PixelCache


def pixel_cache(file: Path, pixels: np.ndarray, key: str = "0123456789abcdef") -> PixelCache:
    """Write the cache of these pixels, uint8 [rows, height, width, channels], and return it."""
    filling = Filling(file, key, pixels.shape)
    for row, image in enumerate(pixels):
        filling(row, image)
    return filling.done()
