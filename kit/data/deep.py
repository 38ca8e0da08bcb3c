"""Files with more than 8 bits: which they are, the values they hold, and how these become 8 bits."""

from typing import IO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from kit.data.reading import Note, orientation_of, unnoticed, upright

FULL = (0, 65535)  # of 16 bits
BITS_PER_SAMPLE, SAMPLES, PLANES_APART = 258, 277, 284  # tags of TIFF 6.0
OWN = "data.decoder can name code of your own that reads it"


class DeepError(Exception):
    """A file with more than 8 bits that cannot be turned into 8; the text says why."""


def is_deep(image: Image.Image) -> bool:
    """Whether the file of an image that is open, and not yet loaded, holds more than 8 bits a value."""
    return image.mode[0] in "IF" or _has_deep_bands(image)


def _has_deep_bands(image: Image.Image) -> bool:
    """Whether it has several bands of more than 8 bits, of which Pillow keeps the upper 8."""
    if image.mode[0] in "IF" or not (isinstance(image, ImageFile.ImageFile) and image.tile):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(_bits(image.tag_v2.get(BITS_PER_SAMPLE, 8))) > 8
    return image.format == "PNG" and ";16" in str(image.tile[0][3])


def is_unsigned_16(image: Image.Image) -> bool:
    """Whether a deep image can hold nothing but whole numbers from 0 to 65535."""
    return image.mode.startswith("I;16") or image.mode[0] not in "IF"


def _bits(value: object) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (int(str(value)),)


def values_of(image: Image.Image) -> np.ndarray:
    """Return what a deep image that is open holds: [height, width] or [height, width, bands].

    Raises
    ------
    DeepError
        Where Pillow keeps the upper 8 bits alone and OpenCV reads no more.
    """
    return _bands(image) if _has_deep_bands(image) else np.asarray(image)


def _bands(image: Image.Image) -> np.ndarray:
    """Return all bits of several bands, read by OpenCV, and compared with the upper bits that Pillow reads."""
    import cv2

    _need_whole_pixels(image)
    orientation = orientation_of(image) if image.format == "TIFF" else 1  # Pillow applies it as it loads
    assert isinstance(image, ImageFile.ImageFile)
    assert image.fp is not None
    image.fp.seek(0)
    content = np.frombuffer(image.fp.read(), dtype=np.uint8)
    image.load()  # says what is broken
    upper = np.asarray(image)
    read = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype != np.uint16 or read.ndim != 3:
        raise DeepError(f"{_described(image)}, of which only 8 can be read; {OWN}")
    bands = read[:, :, [2, 1, 0, *range(3, read.shape[2])]][:, :, : upper.shape[2]].astype(np.uint16)
    for turned in (bands, _turned(bands, orientation)):
        if turned.shape == upper.shape and np.array_equal(turned // 256, upper):
            return turned
    raise DeepError(f"{_described(image)}, of which two libraries read different pixels; {OWN}")


def _turned(bands: np.ndarray, orientation: int) -> np.ndarray:
    layers = [upright(Image.fromarray(band.astype(np.int32)), orientation) for band in np.moveaxis(bands, 2, 0)]
    return np.stack([np.asarray(layer) for layer in layers], axis=2).astype(np.uint16)


def _need_whole_pixels(image: Image.Image) -> None:
    """Raise DeepError for what Pillow opens and does not decode as it is meant."""
    if image.mode not in ("RGB", "RGBA"):
        raise DeepError(f"{_described(image)}; {OWN}")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(PLANES_APART) == 2:
        raise DeepError(f"{_described(image)} in planes of their own; {OWN}")


def _described(image: Image.Image) -> str:
    bits = 16 if image.format == "PNG" else max(_bits(image.tag_v2.get(BITS_PER_SAMPLE)))  # type: ignore[attr-defined]
    return f"{image.format} {image.mode} of {bits} bits a band"


def as_eight_bits(image: Image.Image, levels: tuple[float, float] | None, note: Note = unnoticed) -> Image.Image:
    """Return a deep image with 8 bits a band, in grey, colour or, where the file has transparency, RGBA.

    Of whole numbers v the result is ⌊255 (v − low) / (high − low)⌋, of others it is rounded; what is beyond is
    clipped, what is no number becomes 0. Transparency goes from 0 to 65535, whatever the levels of colours are.

    Parameters
    ----------
    image : Image
        Open; Pillow's upper bits are taken of several bands whose levels are all 16 bits.
    levels : tuple of float or None
        The values that become 0 and 255; None: 0 and 65535 are taken, and that is noted as "assumed".
    note : callable
        Takes "assumed", and "beyond" where values are clipped.

    Raises
    ------
    DeepError
        For values beyond 16 bits, or that are no whole numbers, where no levels are known.
    """
    transparent = image.info.get("transparency")
    if _has_deep_bands(image) and levels in (None, FULL) and transparent is None:
        _need_whole_pixels(image)
        if levels is None:
            note("assumed")
        return image
    values = values_of(image)
    if levels is None:
        _need_sixteen_bits(values)
        note("assumed")
    colours = values[:, :, :3] if values.ndim == 3 else values
    pixels = _scaled(colours, levels or FULL, note)
    if transparent is not None:
        alpha = np.where((colours == np.array(transparent)).reshape(*colours.shape[:2], -1).all(axis=2), 0, 255)
    elif values.ndim == 3 and values.shape[2] == 4:
        alpha = values[:, :, 3] // 257
    else:
        return Image.fromarray(pixels)
    colour = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
    return Image.fromarray(np.dstack([colour, alpha.astype(np.uint8)]))


def _need_sixteen_bits(values: np.ndarray) -> None:
    if values.dtype.kind == "f":
        raise DeepError("pixels are floating-point numbers; state data.levels: [low, high]")
    if values.size and (values.min() < FULL[0] or values.max() > FULL[1]):
        raise DeepError("grey levels beyond 16 bits; state data.levels: [low, high]")


def _scaled(values: np.ndarray, levels: tuple[float, float], note: Note) -> np.ndarray:
    low, high = levels
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=np.inf, neginf=-np.inf)
    if values.size and (values.min() < low or values.max() > high):
        note("beyond")
    if values.dtype.kind != "f" and float(low).is_integer() and float(high).is_integer():
        clipped = np.clip(values.astype(np.int64), int(low), int(high)) - int(low)
        return (clipped * 255 // (int(high) - int(low))).astype(np.uint8)
    share = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return np.rint(share * 255).astype(np.uint8)


def unread_tiff(content: bytes, rest: IO[bytes]) -> str | None:
    """Say what a TIFF is that Pillow does not open; None where it is no TIFF."""
    if content[:4] not in (b"II*\0", b"MM\0*"):
        return None
    header = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
    try:
        rest.seek(header.next)
        header.load(rest)
        bits, samples = max(_bits(header.get(BITS_PER_SAMPLE, 1))), header.get(SAMPLES, 1)
    except Exception:  # whatever Pillow's reader makes of a broken header
        return None
    return f"a TIFF of {samples} × {bits} bits a pixel, which Pillow does not read; {OWN}"
