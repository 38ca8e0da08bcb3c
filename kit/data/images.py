"""A set of images by row: decoded once into a file of raw pixels where that fits, else on demand."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder
from kit.errors import KitError, some
from kit.files import atomic, write_text

Report = Callable[[int, int], None]  # images done, images in all


@dataclass
class ImageSet:
    """Images in the order of `ids`; `images[row]` is uint8 [side, side, channels].

    Safe to send to worker processes: the pixels on disk are opened anew in each.
    """

    ids: list[str]
    paths: list[Path]
    decoder: Decoder
    cache: Path | None = None
    _pixels: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> np.ndarray:
        if self.cache is None:
            return self.decoder(self.paths[row])
        if self._pixels is None:
            self._pixels = np.load(self.cache, mmap_mode="r")
        return self._pixels[row]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pixels": None}


def readable_rows(paths: Sequence[Path], config: DataConfig) -> list[int]:
    """The rows of `paths` whose image is there and can be decoded."""
    decoder = Decoder.of(config)

    def fits(path: Path) -> bool:
        try:
            decoder(path)
        except DecodeError:
            return False
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [row for row, fine in enumerate(pool.map(fits, paths)) if fine]


def open_images(
    ids: Sequence[str],
    paths: Sequence[Path],
    config: DataConfig,
    cache_folder: Path,
    report: Report = lambda done, total: None,
    known: bool = False,
) -> ImageSet:
    """The images of `paths`, every one checked before this returns, unless they are `known` to be readable.

    Raises KitError that names every file that cannot be decoded.
    """
    images = ImageSet(list(ids), list(paths), Decoder.of(config))
    if not len(images):
        return images
    key = _cache_key(images)
    target = cache_folder / f"pixels-{key}.npy"
    if (config.cache and target.exists()) or _wants_cache(images, config, cache_folder):
        if not target.exists():
            _fill(images, target, report)
        images.cache = target
    elif not known and not (checked := cache_folder / f"checked-{key}").exists():
        _for_each(images, lambda row, path: images.decoder(path), report)
        write_text(checked, f"{len(images)} images were decoded without a fault\n")
    return images


def content_digest(paths: Sequence[Path], root: Path) -> str:
    """A digest of which files these are: path below `root` and size in bytes, on any machine the same."""
    digest = sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _wants_cache(images: ImageSet, config: DataConfig, folder: Path) -> bool:
    if config.cache is False:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = len(images) * images.decoder.side**2 * images.decoder.channels, shutil.disk_usage(folder).free
    if config.cache is True and needed > free:
        raise KitError(
            f"data.cache: the pixels take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free"
        )
    return config.cache is True or needed <= min(config.cache_gb * 1e9, free / 2)


def _cache_key(images: ImageSet) -> str:
    """Depends on each file's path, size and time of change, and on all that the decoder does."""
    digest = sha256(json.dumps([Decoder.version, vars(images.decoder)], sort_keys=True).encode())
    for path in images.paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _fill(images: ImageSet, target: Path, report: Report) -> None:
    shape = (len(images), images.decoder.side, images.decoder.side, images.decoder.channels)
    with atomic(target) as temporary:
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def store(row: int, path: Path) -> None:
            pixels[row] = images.decoder(path)

        _for_each(images, store, report)
        pixels.flush()


def _for_each(images: ImageSet, action: Callable[[int, Path], None], report: Report) -> None:
    """Runs `action(row, path)` on every image, on all cores; then fails with all bad files at once."""

    def attempt(row: int) -> str | None:
        try:
            action(row, images.paths[row])
        except DecodeError as error:
            return f"{images.paths[row]} ({error})"
        return None

    bad = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(images), 10_000):  # a pool takes in all it is given at once
            rows = range(first, min(first + 10_000, len(images)))
            for row, problem in zip(rows, pool.map(attempt, rows), strict=True):
                bad += [problem] if problem else []
                report(row + 1, len(images))
    if bad:
        raise KitError(
            f"{len(bad)} of {len(images)} images cannot be read: {some(bad, 100)}; mend or remove them and "
            "their rows"
        )
