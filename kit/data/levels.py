"""The range of files with more than 8 bits, found once over all training images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from kit.core.files import parse_json, write_text
from kit.data.config import DataConfig
from kit.data.deep import FULL, is_deep, is_unsigned_16, values_of
from kit.data.images import Report, map_in_threads
from kit.data.reading import Reading
from kit.data.sources import File, PixelRow, Source, files_key, files_of, first_bytes, readable

VERSION = 1  # to be raised when the same files would give another range
EIGHT_BITS = frozenset({".jpg", ".jpeg", ".webp", ".gif", ".bmp"})  # endings of formats without deeper files
AT_ONCE = 64  # files that are read before it is asked whether that is enough


@dataclass(frozen=True)
class _Range:
    """The least and the largest value of a file, and whether all are whole numbers."""

    low: float
    high: float
    whole: bool


def with_levels(
    config: DataConfig,
    sources: Sequence[Source],
    cache_folder: Path,
    report: Report = lambda done, total: None,
) -> DataConfig:
    """Return the config with the levels of these images, if it leaves them open and a file has more than 8 bits.

    Of whole numbers they go from 0, or from the least value where that is below 0, to the smallest 2ᵇ − 1 that
    holds the largest; of floating-point numbers from the least to the largest finite value. The header of each
    file whose ending allows more than 8 bits is looked at; the values of those that have them are read once, and
    what was found is kept in the cache folder.

    Parameters
    ----------
    config : DataConfig
    sources : sequence of Source
        The training images: what they hold counts for test images, too.
    cache_folder : Path
        Where an earlier call on the same, unchanged files may have left its result.
    report : callable
        Called as `report(done, total)` while values are read.
    """
    if config.levels != "auto" or config.decoder:
        return config
    candidates = [
        file
        for source in sources
        if not isinstance(source, PixelRow)
        for file in files_of(source)
        if file.suffix.lower() not in EIGHT_BITS
    ]
    Reading.of(config).set_limits()
    looked = map_in_threads(_depth, candidates, lambda done, total: None)
    deep = [file for file, depth in zip(candidates, looked, strict=True) if depth]
    if not deep:
        return config
    path = cache_folder / f"levels-{sha256(f'{VERSION}{files_key(deep)}'.encode()).hexdigest()[:16]}.json"
    levels = _stored(path)
    if levels is None:
        levels = _levels(deep, all(depth == "unsigned 16" for depth in looked if depth), report)
        write_text(path, json.dumps(levels))
    return config.model_copy(update={"levels": levels}) if levels else config


def _depth(file: File) -> str:
    """Return "" for a file of 8 bits, or one that is no image; else what kind of deeper file it is."""
    try:
        head = first_bytes(file, 26)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):  # the byte of the depth is that of `IHDR` in the PNG standard
            return "unsigned 16" if len(head) > 24 and head[24] == 16 else ""
        with Image.open(readable(file)) as image:
            if not is_deep(image):
                return ""
            return "unsigned 16" if is_unsigned_16(image) else "other"
    except Exception:  # PIL's plugins raise what they like; what is wrong is told when it is decoded
        return ""


def _levels(files: Sequence[File], unsigned_16: bool, report: Report) -> tuple[float, float] | None:
    """Return the levels of files with more than 8 bits; None where none of them can be read."""
    found: list[_Range] = []
    for first in range(0, len(files), AT_ONCE):
        some = files[first : first + AT_ONCE]
        found += filter(None, map_in_threads(_range_of, some, lambda done, total: None))
        report(first + len(some), len(files))
        if unsigned_16 and any(each.high > FULL[1] // 2 for each in found):
            return FULL  # whatever the others hold
    if not found:
        return None
    low, high = min(each.low for each in found), max(each.high for each in found)
    if all(each.whole for each in found):
        low, high = min(0, int(low)), max(2 ** max(0, int(high)).bit_length() - 1, min(0, int(low)) + 1)
    return float(low), float(high) if high > low else float(low) + 1


def _range_of(file: File) -> _Range | None:
    try:
        with Image.open(readable(file)) as image:
            values = values_of(image)
    except Exception:  # told when it is decoded
        return None
    if values.ndim == 3:
        values = values[:, :, :3]  # without transparency
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return None
    return _Range(float(values.min()), float(values.max()), values.dtype.kind != "f")


def _stored(path: Path) -> tuple[float, float] | None:
    try:
        low, high = parse_json(path.read_text(encoding="utf-8"))
        return float(low), float(high)
    except (OSError, ValueError, TypeError):
        return None
