"""Hashes of images, to find those that are the same or nearly so; with each image's size and kind."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b, sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from kit.core.errors import Say, tell
from kit.data.decode import DecodeError, load_decoder, open_image, reading_settings
from kit.data.images import Report, map_in_threads
from kit.data.kept import is_kept, keeping
from kit.data.reading import USUAL, Reading
from kit.data.sources import Channels, PixelRow, Source, files_key, files_of, readable

VERSION = 2  # to be raised when the same image would give other hashes: the cache depends on it
SIDE = 16  # of the thumbnails, in pixels
FLAT = 2.0  # grey levels of contrast, below which hash and thumbnail show rounding and noise


@dataclass(frozen=True)
class ImageHashes:
    """The hashes of n images, aligned with the sources they were read from.

    Attributes
    ----------
    hashes
        uint64 [n]: perceptual hashes of 64 bits (imagehash.phash); of channels in several files, of their mean.
    digests
        text [n], of the decoded pixels: equal where size, mode and every pixel are; "" where unreadable.
    thumbnails
        uint8 [n, 16, 16]: grey, squashed.
    contrast
        float32 [n]: standard deviation of the thumbnail, in grey levels.
    width, height
        int32 [n]: in pixels, upright; 0 where unreadable.
    kinds
        text [n]: format and mode of the file, like `JPEG RGB`; `table L` for pixels in a table.
    faults
        text [n]: why an image cannot be read; "" where it can.
    one_value
        bool [n]: whether all values of an image are the same.
    """

    hashes: np.ndarray
    digests: np.ndarray
    thumbnails: np.ndarray
    contrast: np.ndarray
    width: np.ndarray
    height: np.ndarray
    kinds: np.ndarray
    faults: np.ndarray
    one_value: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def readable(self) -> np.ndarray:
        """Which images can be read, bool [n]."""
        return self.faults == ""

    @property
    def comparable(self) -> np.ndarray:
        """Which images are readable and not flat, bool [n]: a flat one is only like the very same pixels."""
        return self.readable & (self.contrast >= FLAT)


def hash_images(
    sources: Sequence[Source],
    cache_folder: Path,
    report: Report = lambda done, total: None,
    reading: Reading = USUAL,
    say: Say = tell,
) -> ImageHashes:
    """Hash each image, on all cores, and keep the result in the cache folder (400 bytes an image).

    An image that cannot be decoded is no error: its row says why.

    Parameters
    ----------
    sources : sequence of Source
        The images, in the order of the result.
    cache_folder : Path
        Where an earlier call on the same, unchanged files may have left its result.
    report : callable
        Called as `report(done, total)` after each image.
    reading : Reading
        How the files are read. What is transparent is looked at on the background; digests are of the pixels with
        their transparency.
    say : callable
        Takes a line where what was kept is damaged.
    """
    load_decoder(reading.own)
    path = cache_folder / f"looks-{_cache_key(sources, reading)}.npz"
    if (known := _stored(path, len(sources), say)) is not None:
        return known
    hashed = _gathered(map_in_threads(lambda source: _hash_image(source, reading), sources, report))
    with keeping(path) as temporary:
        np.savez(temporary, **{field.name: getattr(hashed, field.name) for field in fields(ImageHashes)})
    return hashed


def _hash_image(source: Source, reading: Reading) -> tuple:
    """Return the fields of one image, in the order of `ImageHashes`."""
    import imagehash

    try:
        image = open_image(source, reading=reading)
        kind = _kind(source, image.mode if reading.own else None)
        looked_at = image
        if image.mode == "RGBA" and not reading.keeps_alpha:
            looked_at = reading.flat(image).convert("RGB")
        grey = looked_at.convert("L")
        thumbnail = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        bits = np.packbits(imagehash.phash(grey).hash.ravel())
    except DecodeError as error:
        return 0, "", np.zeros((SIDE, SIDE), dtype=np.uint8), 0.0, 0, 0, "", str(error) or "unreadable", False
    digest = blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    number = int.from_bytes(bits.tobytes(), "big")
    one_value = len({*np.ravel(looked_at.getextrema()).tolist()}) == 1
    return number, digest.hexdigest(), thumbnail, thumbnail.std(), *image.size, kind, "", one_value


def _kind(source: Source, decoded: str | None) -> str:
    """Return format and mode; `decoded` is the mode that a decoder of the user's own gave."""
    if isinstance(source, PixelRow):
        return "table L"
    files = files_of(source)
    if decoded:
        kind = f"{files[0].suffix.lstrip('.').upper() or 'file'} {decoded}"
    else:
        # The pixels were read already: nothing can be wrong with it.
        with Image.open(readable(files[0])) as header:
            kind = f"{header.format} {header.mode}"
    return f"{len(files)} × {kind}" if isinstance(source, Channels) else kind


def _gathered(rows: list[tuple]) -> ImageHashes:
    """Put the fields of single images together, each in an array."""
    columns = list(zip(*rows, strict=True)) or [()] * len(fields(ImageHashes))
    hashes, digests, thumbnails, contrast, width, height, kinds, faults, one_value = columns
    return ImageHashes(
        hashes=np.array(hashes, dtype=np.uint64),
        digests=np.array(digests, dtype=str),
        thumbnails=np.array(thumbnails, dtype=np.uint8).reshape(-1, SIDE, SIDE),
        contrast=np.array(contrast, dtype=np.float32),
        width=np.array(width, dtype=np.int32),
        height=np.array(height, dtype=np.int32),
        kinds=np.array(kinds, dtype=str),
        faults=np.array(faults, dtype=str),
        one_value=np.array(one_value, dtype=bool),
    )


def _stored(path: Path, count: int, say: Say) -> ImageHashes | None:
    """Read what an earlier call has written; None where it has not, or where that cannot be read."""
    if not is_kept(path, say):
        return None
    try:
        with np.load(path) as stored:
            hashed = ImageHashes(**{field.name: stored[field.name] for field in fields(ImageHashes)})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return hashed if len(hashed) == count else None


def _cache_key(sources: Sequence[Source], reading: Reading) -> str:
    """A key that depends on each image, on path, size and time of change of its files, and on their reading."""
    settings = reading_settings(reading) | ({"alpha": True} if reading.keeps_alpha else {})
    own = f"\n{json.dumps(settings, sort_keys=True)}" if settings else ""
    return sha256(f"{VERSION}\n{files_key(sources)}{own}".encode()).hexdigest()[:16]
