"""Sets of images: decoded once into a file of raw pixels where that fits, else on demand."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kit.core.errors import KitError, some
from kit.core.files import atomic, write_text
from kit.core.files import sha256 as file_sha256
from kit.core.stopping import OUT_OF_TIME, Stopped
from kit.core.zips import ZipMember
from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder
from kit.data.deep import FULL
from kit.data.sources import File, PixelRow, Source, digest_of, files_key

T = TypeVar("T")
R = TypeVar("R")
Report = Callable[[int, int], None]  # images done, images in all
ONE_VALUE = "one value"


@dataclass(frozen=True)
class Noticed:
    """How many images of a set something was noticed of, and the rows of the first of them."""

    count: int
    first: tuple[int, ...]


@dataclass
class ImageSet:
    """Images in the order of their ids; `images[row]` is uint8 [side, side, channels].

    Safe to send to worker processes: the pixels on disk are opened anew in each.

    Attributes
    ----------
    ids
        The name of each image.
    sources
        Where the pixels of each come from, aligned with `ids`.
    decoder
        Decodes an image where there is no cache.
    cache
        The file of raw pixels, uint8 [rows, side, side, channels]; None: images are decoded on demand.
    noticed
        What was noticed of how many images when they were decoded: "one value" (all pixels are the same), and what
        `Decoder` notes.
    """

    ids: list[str]
    sources: list[Source]
    decoder: Decoder
    cache: Path | None = None
    noticed: dict[str, Noticed] = field(default_factory=dict)
    _pixels: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> np.ndarray:
        if self.cache is None:
            try:
                return self.decoder(self.sources[row])
            except DecodeError as error:  # it could be decoded before
                raise KitError(f"{self.sources[row]} cannot be read any more: {error}") from error
        if self._pixels is None:
            self._pixels = np.load(self.cache, mmap_mode="r")
        return self._pixels[row]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_pixels": None}

    def count(self, what: str) -> int:
        """Return of how many images this was noticed."""
        return self.noticed[what].count if what in self.noticed else 0

    def remarks(self, part: str) -> list[str]:
        """Return a line for each thing noticed that may spoil the pixels; `part` is train or test."""
        low, high = self.decoder.reading.levels or FULL
        words = {
            ONE_VALUE: "are one value once decoded",
            "beyond": f"hold values beyond the levels {low:g} to {high:g}, which are clipped (data.levels)",
            "assumed": f"have more than 8 bits of unknown range, {low:g} to {high:g} is taken; state data.levels",
        }
        return [
            f"{self.count(what)} of {len(self)} {part} images {words[what]} ({self._named(what)})"
            for what in words
            if self.count(what)
        ]

    def _named(self, what: str) -> str:
        seen = self.noticed[what]
        sources = [(self.ids[row], self.sources[row]) for row in seen.first]
        names = [source.name.rpartition("/")[2] if isinstance(source, File) else name for name, source in sources]
        return ", ".join([*names, "…"] if seen.count > len(names) else names)

    def read_otherwise(self) -> dict[str, Any]:
        """Return how these pixels differ from those of versions of the kit that left transparency out, took 0 to
        65535 for the levels of all deeper files, and left nothing of thin images; nothing where they do not."""
        reading = self.decoder.reading
        said: dict[str, Any] = {}
        if self.count("transparent") and reading.background:
            said["background"] = "#{:02x}{:02x}{:02x}".format(*reading.background)
        if reading.levels and reading.levels != FULL:
            said["levels"] = [int(level) if level.is_integer() else level for level in reading.levels]
        if self.count("thin"):
            said["thin"] = "a pixel"
        return said


@dataclass(frozen=True)
class ReadableImages:
    """What can be read of a set of images.

    Rows in neither `rows` nor `broken` were not reached in time.

    Attributes
    ----------
    images
        All of them; only those in `rows` are to be asked for.
    rows
        The rows of the images that can be decoded, ascending.
    broken
        Row → source and reason, of those that cannot.
    """

    images: ImageSet
    rows: list[int]
    broken: dict[int, str]


def open_images(
    ids: Sequence[str],
    sources: Sequence[Source],
    config: DataConfig,
    cache_folder: Path,
    report: Report = lambda done, total: None,
    expired: Callable[[], bool] = lambda: False,
) -> ImageSet:
    """Open the images of `sources`, every one checked before this returns.

    Parameters
    ----------
    ids, sources : sequence
        The name of each image, and where its pixels come from.
    config : DataConfig
        How images are decoded, and whether their pixels are kept in a file.
    cache_folder : Path
        Where that file is.
    report : callable
        Called as `report(done, total)` after each image.
    expired : callable
        Asked before each image; no further one is decoded once it is true.

    Raises
    ------
    Stopped
        Where not all could be decoded before that.
    KitError
        Names every file that cannot be decoded.
    """
    readable = open_readable(ids, sources, config, cache_folder, report, expired)
    images, broken = readable.images, list(readable.broken.values())
    need_all(readable)
    if broken:
        if images.cache:
            images.cache.unlink()
        raise KitError(
            f"{len(broken)} of {len(images)} images cannot be read: {some(broken, 100)}; mend or remove them and "
            "their rows"
        )
    return images


def need_all(readable: ReadableImages) -> None:
    """Raise Stopped where time was over before all images were decoded, and remove what was kept of them."""
    images, done = readable.images, len(readable.rows) + len(readable.broken)
    if done < len(images):
        if images.cache:
            images.cache.unlink()
        raise Stopped(
            f"budget: it was over after {done} of {len(images)} images were decoded, and nothing is trained; give "
            "more time",
            OUT_OF_TIME,
        )


def open_readable(
    ids: Sequence[str],
    sources: Sequence[Source],
    config: DataConfig,
    cache_folder: Path,
    report: Report = lambda done, total: None,
    expired: Callable[[], bool] = lambda: False,
) -> ReadableImages:
    """Open the images of `sources`, and tell which of them can be decoded.

    That is found in the pass that fills the cache. Parameters are those of `open_images`, and:

    Parameters
    ----------
    expired : callable
        Asked before each image; no further one is decoded once it is true.
    """
    images = ImageSet(list(ids), list(sources), Decoder.of(config))
    if not len(images):
        return ReadableImages(images, [], {})
    key = _cache_key(images)
    # What was noticed is written down once all of them could be decoded, and before the cache is whole.
    whole, checked = cache_folder / f"pixels-{key}.npy", cache_folder / f"checked-{key}.json"
    known = _stored_notices(checked)
    if config.cache and known is not None and whole.exists():
        images.cache, images.noticed = whole, known
        return ReadableImages(images, list(range(len(images))), {})
    if _wants_cache(images, config, cache_folder):
        images.cache = cache_folder / f"part-{key}-{os.getpid()}.npy"  # no other process may fill it further
        rows, broken = _fill(images, images.cache, report, expired)
    elif known is None:
        rows, broken = _for_each(images, lambda row, pixels: None, report, expired)
    else:
        images.noticed, rows, broken = known, list(range(len(images))), {}
    if len(rows) == len(images):
        _store_notices(images.noticed, checked)
        if images.cache:
            images.cache.replace(whole)
            images.cache = whole
    return ReadableImages(images, rows, broken)


def _stored_notices(path: Path) -> dict[str, Noticed] | None:
    """Read what an earlier pass has noticed; None where there was none."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {what: Noticed(int(count), tuple(first)) for what, (count, first) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _store_notices(noticed: dict[str, Noticed], path: Path) -> None:
    write_text(path, json.dumps({what: [each.count, each.first] for what, each in noticed.items()}))


def content_digest(sources: Sequence[Source], root: Path) -> str:
    """Return a digest of which files these are, the same on any machine.

    It is of each path below `root` and each size in bytes. Of tables it is of the content too: other pixels may
    well take as many bytes; of a file inside a zip of its CRC-32.
    """
    tables = {source.table.path for source in sources if isinstance(source, PixelRow)}

    def line_of(file: File) -> str:
        if isinstance(file, ZipMember):
            stated = f"\t{file.entry.size}\t{file.entry.crc}" if file.entry else ""
            return f"{file.archive.relative_to(root).as_posix()}/{file.name}{stated}"
        line = f"{file.relative_to(root).as_posix()}\t{file.stat().st_size}"
        return f"{line}\t{file_sha256(file)}" if file in tables else line

    return digest_of(sources, line_of)[:16]


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
    """A key that depends on all that the decoder does, and on the files."""
    settings = json.dumps([Decoder.version, images.decoder.settings()], sort_keys=True)
    return sha256((settings + files_key(images.sources)).encode()).hexdigest()[:16]


def _fill(
    images: ImageSet, target: Path, report: Report, expired: Callable[[], bool]
) -> tuple[list[int], dict[int, str]]:
    """Write the pixels of all images that can be decoded; those of others are black."""
    shape = (len(images), images.decoder.side, images.decoder.side, images.decoder.channels)
    with atomic(target) as temporary:
        pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def store(row: int, decoded: np.ndarray) -> None:
            pixels[row] = decoded

        rows, broken = _for_each(images, store, report, expired)
        pixels.flush()
    return rows, broken


def _for_each(
    images: ImageSet, action: Callable[[int, np.ndarray], object], report: Report, expired: Callable[[], bool]
) -> tuple[list[int], dict[int, str]]:
    """Decode every image and run `action(row, pixels)`, on all cores, until `expired()`.

    What is noticed of them is kept with the images. Returns the rows that were done, and source and reason by row
    where the image cannot be decoded.
    """
    done: list[int] = []
    broken: dict[int, str] = {}
    notes: list[tuple[str, int]] = []

    def attempt(row: int) -> None:
        if expired():
            return
        seen: set[str] = set()
        try:
            pixels = images.decoder(images.sources[row], seen.add)
        except DecodeError as error:
            broken[row] = f"{images.sources[row]} ({error})"
            return
        if is_one_value(pixels):
            seen.add(ONE_VALUE)
        action(row, pixels)
        notes.extend((what, row) for what in seen)
        done.append(row)

    map_in_threads(attempt, range(len(images)), report)
    for what in sorted({what for what, _ in notes}):
        rows = sorted(row for seen_of, row in notes if seen_of == what)
        images.noticed[what] = Noticed(len(rows), tuple(rows[:5]))
    return sorted(done), dict(sorted(broken.items()))


def is_one_value(pixels: np.ndarray) -> bool:
    """Whether all values of an image are the same, in all channels."""
    first = pixels.flat[0]
    return bool((pixels[0] == first).all() and (pixels == first).all())


def map_in_threads(action: Callable[[T], R], items: Sequence[T], report: Report) -> list[R]:
    """Return what `action` gives for each item, in their order; a thread for each core runs it."""
    results: list[R] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(items), 10_000):  # a pool takes in all it is given at once
            for result in pool.map(action, items[first : first + 10_000]):
                results.append(result)
                report(len(results), len(items))
    return results
