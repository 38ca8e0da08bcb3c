"""Sets of images: decoded once into a file of raw pixels where that fits, else on demand."""

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kit.core.claims import holding
from kit.core.errors import Damaged, KitError, Say, ignore, some, tell
from kit.core.files import sha256 as file_sha256
from kit.core.owner import Owner
from kit.core.stopping import OUT_OF_TIME, Stopped
from kit.core.zips import ZipMember
from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder
from kit.data.deep import FULL
from kit.data.kept import keep_json, kept_json
from kit.data.pixel_cache import WAYS_OUT, PixelCache, Store, in_gb
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

    Safe to send to worker processes: the pixels on disk are opened anew in each. What is damaged there is decoded
    anew, and told.

    Attributes
    ----------
    ids
        The name of each image.
    sources
        Where the pixels of each come from, aligned with `ids`.
    decoder
        Decodes an image where there is no cache.
    cache
        The pixels on disk, uint8 [rows, side, side, channels]; None: images are decoded on demand.
    noticed
        What was noticed of how many images when they were decoded: "one value" (all pixels are the same), and what
        `Decoder` notes.
    """

    ids: list[str]
    sources: list[Source]
    decoder: Decoder
    cache: PixelCache | None = None
    noticed: dict[str, Noticed] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> np.ndarray:
        if self.cache is None:
            try:
                return self.decoder.again(self.sources[row])
            except DecodeError as error:  # it could be decoded before
                raise KitError(f"{self.sources[row]} cannot be read any more: {error}") from error
        try:
            pixels = self.cache.read(row)
        except (OSError, Damaged) as error:  # in a process that opens it anew
            raise KitError(f"{error}, and it was whole before; the next start decodes the images anew") from error
        return self._mended(row, self.cache) if pixels is None else pixels

    def _mended(self, row: int, cache: PixelCache) -> np.ndarray:
        """Return the pixels of an image that are damaged in the cache, from its source, and write them back."""
        name, file, source = self.ids[row], cache.file, self.sources[row]
        try:
            pixels = self.decoder(source)
        except DecodeError as error:
            raise KitError(
                f"{file}: the pixels of image {name} are damaged (the disk or memory may be at fault), and "
                f"{source} cannot be read any more: {error}; bring it back"
            ) from error
        damaged = cache.mend(row, pixels)
        if damaged is None:
            raise KitError(
                f"{file}: the pixels of image {name} are damaged (the disk or memory may be at fault), and "
                f"{source} gives others than before (it, or Pillow, has changed); remove the cache file, it is "
                "made anew"
            )
        if damaged in (1, 10, 100) or (damaged and damaged % 1000 == 0):
            tell(
                f"{file}: the pixels of image {name} were damaged and are decoded anew ({damaged} so far); the "
                "disk or memory may be at fault"
            )
        return pixels

    @cached_property
    def key(self) -> str:
        """`cache_key`, of the files as they were when it was first asked for: that is when they are opened."""
        return cache_key(self)

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
    say: Say = ignore,
    what: str = "decodes images",
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
    say : callable
        Takes a line where a cache is made anew, another process is waited for, or the disk has no room.
    what : str
        What this is for, told to other processes that wait for it.
    expired : callable
        Asked before each image; no further one is decoded once it is true.

    Raises
    ------
    Stopped
        Where not all could be decoded before that.
    KitError
        Names every file that cannot be decoded.
    """
    readable = open_readable(ids, sources, config, cache_folder, report, say, what, expired)
    images, broken = readable.images, list(readable.broken.values())
    need_all(readable)
    if broken:
        if images.cache:
            images.cache.remove()
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
            images.cache.remove()
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
    say: Say = ignore,
    what: str = "decodes images",
    expired: Callable[[], bool] = lambda: False,
) -> ReadableImages:
    """Open the images of `sources`, and tell which of them can be decoded.

    That is found in the pass that fills the cache, which one process makes: others wait for it, and use what is
    there then. Parameters are those of `open_images`, and:

    Parameters
    ----------
    expired : callable
        Asked before each image, and while another process is waited for; no further one is decoded once it is
        true.
    """
    images = ImageSet(list(ids), list(sources), Decoder.of(config))
    if not len(images):
        return ReadableImages(images, [], {})
    everything = ReadableImages(images, list(range(len(images))), {})
    place = _Place.of(images, cache_folder)
    if place.holds(images, config):
        return everything
    try:
        with holding(place.pixels, what, say, expired=expired):
            if place.holds(images, config, say):  # by the process that was waited for
                return everything
            return _decoded(images, place, config, report, say, expired)
    except TimeoutError:
        return ReadableImages(images, [], {})


def kept_images(
    ids: Sequence[str], sources: Sequence[Source], config: DataConfig, cache_folder: Path
) -> ImageSet | None:
    """Return the images as `open_readable` does where all of them were decoded before; None where it would decode.

    Parameters are those of `open_images`.
    """
    images = ImageSet(list(ids), list(sources), Decoder.of(config))
    there = not len(images) or _Place.of(images, cache_folder).holds(images, config)
    return images if there else None


@dataclass(frozen=True)
class _Place:
    """Where the pixels of an image set are kept, and what was noticed of them.

    That is written down once all of them could be decoded, and before the cache is whole.
    """

    key: str
    pixels: Path
    notices: Path

    @classmethod
    def of(cls, images: ImageSet, folder: Path) -> "_Place":
        key = images.key
        return cls(key, folder / f"pixels-{key}.npy", folder / f"checked-{key}.json")

    @property
    def part(self) -> Path:
        """The file of this process alone, before all images are in it."""
        return self.pixels.with_name(f"part-{self.key}-{Owner.mine().tag}.npy")

    def holds(self, images: ImageSet, config: DataConfig, say: Say = ignore) -> bool:
        """Whether no image has to be decoded now; the images take what is there."""
        known = kept_json(self.notices, say)
        if known is None:
            return False
        images.noticed = {name: Noticed(count, tuple(first)) for name, (count, first) in known.items()}
        if config.cache:
            try:
                images.cache = PixelCache(self.pixels, self.key, _shape(images)).open()
                return True
            except FileNotFoundError:
                pass
            except (OSError, Damaged) as error:
                say(f"{error}: damaged, or of an earlier version; the images are decoded anew")
        return not _wants_cache(images, config, self.pixels)


def _shape(images: ImageSet) -> tuple[int, ...]:
    return len(images), images.decoder.side, images.decoder.side, images.decoder.channels


def _decoded(
    images: ImageSet, place: _Place, config: DataConfig, report: Report, say: Say, expired: Callable[[], bool]
) -> ReadableImages:
    """Decode all images, into the cache where it is wanted; there, those that cannot be decoded are damaged."""
    store = Store()
    if _wants_cache(images, config, place.pixels):
        place.pixels.unlink(missing_ok=True)  # damaged: its space is needed
        store = Store.of(place.part, place.key, _shape(images))
    images.noticed = {}
    try:
        rows, broken = _for_each(images, store, report, expired)
        images.cache = store.done()
    finally:
        store.give_up()
    if store.full:
        if config.cache is True:
            raise KitError(f"data.cache: {store.full}; {WAYS_OUT}")
        say(f"No pixel cache: {store.full}")
    if len(rows) == len(images):
        keep_json(place.notices, {name: [each.count, each.first] for name, each in images.noticed.items()})
        if images.cache:
            images.cache.move(place.pixels)
    return ReadableImages(images, rows, broken)


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


def _wants_cache(images: ImageSet, config: DataConfig, file: Path) -> bool:
    """Whether there is to be a cache; in place of the file that is there, if any."""
    if config.cache is False:
        return False
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = math.prod(_shape(images)), shutil.disk_usage(folder).free
    if file.exists():
        free += file.stat().st_size
    if config.cache is True and needed > free:
        raise KitError(
            f"data.cache: the pixels take {in_gb(needed)}, but {folder} has {in_gb(free)} free; {WAYS_OUT}"
        )
    return config.cache is True or needed <= min(config.cache_gb * 1e9, free / 2)


def cache_key(images: ImageSet) -> str:
    """Return a key that depends on all that the decoder does, and on the files, for caches on this machine."""
    settings = json.dumps([Decoder.version, images.decoder.settings()], sort_keys=True)
    return sha256((settings + files_key(images.sources)).encode()).hexdigest()[:16]


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
