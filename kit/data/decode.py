"""Decoding: from a file, several files or a row of a table to uint8 pixels of the size that is kept."""

import csv
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from kit.core.errors import KitError
from kit.core.files import first_overlong_line
from kit.core.zips import MemberError
from kit.data.config import DataConfig, DecoderConfig
from kit.data.deep import DeepError, as_eight_bits, is_deep, unread_tiff
from kit.data.jpeg import decode_part, jpeg_pixels, part_of
from kit.data.reading import USUAL, Note, Reading, orientation_of, unnoticed, upright
from kit.data.resizing import BY_TORCH, Picture, Resizing
from kit.data.sources import Channels, File, Member, PixelRow, PixelTable, Source, on_disk, opened_file, readable

if TYPE_CHECKING:
    import pandas as pd

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class DecodeError(Exception):
    """An image that cannot be decoded; the text says what is wrong with its file."""


@dataclass(frozen=True)
class Decoder:
    """Decodes an image to uint8 [side, side, channels]: EXIF rotation applied, converted, resized.

    Attributes
    ----------
    side
        Of the square, in pixels.
    channels
        Of the pixels; an image in several files has to have as many.
    resize, interpolation
        As in `DataConfig`.
    reading
        How its files are read.
    """

    side: int
    channels: int
    resize: str
    interpolation: str
    reading: Reading = USUAL

    version = 3  # to be raised when the same file would give other pixels: the cache depends on it

    @classmethod
    def of(cls, config: DataConfig) -> "Decoder":
        """Return the decoder that the config asks for; KitError where one of the user's own cannot be loaded."""
        load_decoder(config.decoder)
        return cls(config.stored_size, config.channels, config.resize, config.interpolation, Reading.of(config))

    def settings(self) -> dict[str, Any]:
        """Return all that decides the pixels of a file, as plain values: for caches."""
        stated = {name: value for name, value in vars(self).items() if name != "reading"}
        return stated | reading_settings(self.reading) | ({"decode": "fast"} if self.reading.fast else {})

    def __call__(self, source: Source, note: Note = unnoticed) -> np.ndarray:
        """Decode one image; raises DecodeError where that cannot be done.

        Parameters
        ----------
        source : Source
        note : callable
            Takes what is noticed on the way: "transparent" (pixels that were composited), "beyond" (values beyond
            the levels), "assumed" (levels that were not known), "thin" (padding would have left nothing of it).
        """
        own = self.reading.own
        if isinstance(source, Channels):
            return self._stacked(_channels(source, self._reduce_to, self.reading, note), note)
        if own and isinstance(source, File | Member):
            pixels = _read_own(self.reading, source, note)
            if isinstance(pixels, np.ndarray) and pixels.shape[2] == self.channels:
                return self._stacked([Image.fromarray(channel) for channel in np.moveaxis(pixels, 2, 0)], note)
            if isinstance(pixels, np.ndarray) and pixels.shape[2] not in MODES:
                raise DecodeError(
                    f"{own.name} gives {pixels.shape[2]} channels, but data.channels is {self.channels}"
                )
            image = _as_image(pixels)
        else:
            image = open_image(source, self._reduce_to, self.reading, note)
        if self.channels != 4:
            image = self.reading.flat(image, note)
        if self.channels not in MODES:
            return self._stacked([_in_mode(image, "L")] * self.channels, note)
        return self._pixels(_in_mode(image, MODES[self.channels]), note)

    def again(self, source: Source) -> np.ndarray:
        """Decode an image that was decoded before: the same pixels, a JPEG in less time where that is wanted.

        It is known to be whole then, which OpenCV does not see of all damaged files.
        """
        whole = self._jpeg_pixels(source)
        return self(source) if whole is None else self._pixels(whole)

    def _stacked(self, channels: Sequence[Image.Image], note: Note) -> np.ndarray:
        return np.concatenate([self._pixels(channel, note) for channel in channels], axis=2)

    def _jpeg_pixels(self, source: Source) -> np.ndarray | None:
        """Return the pixels of a JPEG where they are wanted fast, and can be had faster than by Pillow."""
        mode = MODES.get(self.channels, "")
        if not self.reading.fast or self.reading.own or mode not in BY_TORCH or not isinstance(source, File):
            return None
        self.reading.set_limits()
        return jpeg_pixels(source, mode, self._wants_whole)

    def _wants_whole(self, size: tuple[int, int]) -> bool:
        """Return whether all pixels of a JPEG are wanted, and torch resizes them."""
        return part_of(size, 2 * self.side) == 1 and self._resizing.is_by_torch(size)

    def _pixels(self, picture: Picture, note: Note = unnoticed) -> np.ndarray:
        return self._resizing(picture, note).reshape(self.side, self.side, -1)

    @property
    def _resizing(self) -> Resizing:
        return Resizing(self.side, self.resize, self.interpolation, self.reading.fast)

    @property
    def _reduce_to(self) -> int | None:
        """Pixels a side that are enough of a JPEG; None: all, of which `nearest` takes some as they are."""
        return None if self.reading.fast and self.interpolation == "nearest" else 2 * self.side


def reading_settings(reading: Reading) -> dict[str, Any]:
    """Return what decides the pixels of a file where a reading is not as usual, as plain values: for caches."""
    stated: dict[str, Any] = {}
    if reading.background != USUAL.background:
        stated["background"] = reading.background
    if reading.levels != USUAL.levels:
        stated["levels"] = reading.levels
    return stated | ({"own": identity_of(reading.own)} if reading.own else {})


def try_decoder(config: DataConfig, source: Source) -> None:
    """Decode an image with the decoder of the user's own, where there is one, before all of them are.

    Raises
    ------
    KitError
        Where it cannot be loaded, gives no pixels of this image, or others the second time.
    """
    if config.decoder is None:
        return
    decoder = Decoder.of(config)
    try:
        first, second = decoder(source), decoder(source)
    except DecodeError as error:
        raise KitError(f"data.decoder: {source}: {error}") from error
    if not np.array_equal(first, second):
        raise KitError(
            f"data.decoder: {config.decoder.name} gives other pixels of {source} the second time, so that no "
            "training could be repeated; random changes belong in data.augment"
        )


def load_decoder(own: DecoderConfig | None) -> None:
    """Load the user's own decoder, before threads ask for it; KitError with its place in the config."""
    try:
        _ = own and own.function
    except KitError as error:
        raise KitError(f"data.decoder: {error}") from error


def identity_of(own: DecoderConfig) -> dict[str, Any]:
    """Return what tells a decoder of the user's own from any other: its name, its options, its code's digest."""
    return own.canonical() | {"code": own.code.digest()}


def open_image(
    source: Source, reduce_to: int | None = None, reading: Reading = USUAL, note: Note = unnoticed
) -> Image.Image:
    """Read a whole image, upright, with 8 bits a channel, in grey, colour, or with its transparency.

    Parameters
    ----------
    source : Source
        Of several files that are channels, the mean is read.
    reduce_to : int, optional
        A large JPEG may be decoded at a fraction of its size, not below so many pixels a side.
    reading : Reading
        Who reads the files, and how. Where code of the user's own gives what is neither grey nor colour, the mean
        of the channels is taken.
    note : callable
        As in `Decoder`.

    Raises
    ------
    DecodeError
        Says what is wrong with the file.
    """
    try:
        if isinstance(source, PixelRow):
            return _image_of(source)
        if isinstance(source, Channels):
            grey = [np.asarray(channel) for channel in _channels(source, reduce_to, reading, note)]
            return _mean_of(np.stack(grey, axis=2))
        if reading.own:
            return _as_image(_read_own(reading, source, note))
        if isinstance(source, Member):
            inside = source.container.name
            raise DecodeError(
                f"{inside} is a file; data.decoder has to name code of yours that finds images in it"
            )
        return _read_file(source, reduce_to, reading, note)
    except (DecodeError, KitError):
        raise
    except Exception as error:  # PIL's plugins raise what they like on a broken file
        raise DecodeError(reading.reason(error)) from error


def _read_file(file: File, reduce_to: int | None, reading: Reading, note: Note) -> Image.Image:
    reading.set_limits()
    try:
        opened = Image.open(readable(file))
    except UnidentifiedImageError as error:
        with opened_file(file) as content:
            raise DecodeError(unread_tiff(content.read(8), content) or reading.reason(error)) from error
    with opened as image:
        if reduce_to and reading.fast:
            decode_part(image, reduce_to)
        elif reduce_to:
            image.draft(None, (reduce_to, reduce_to))
        return _upright(image, reading, note)


def _upright(image: Image.Image, reading: Reading, note: Note) -> Image.Image:
    """Return an image as it is to be looked at, with 8 bits a channel, and loaded for good."""
    grey_steps = _grey_steps(image)
    deep = as_eight_bits(image, reading.levels, note) if is_deep(image) else image
    image.load()
    orientation = orientation_of(image)
    if grey_steps and isinstance(grey := image.info.get("transparency"), int):
        image.info["transparency"] = min(255, grey * grey_steps)
    if orientation != 1:
        return _eight_bit(upright(deep, orientation))
    # A JPEG is whole once it is loaded; to copy a large one takes a quarter of the time, most of it for memory.
    return _eight_bit(deep.copy() if deep is image and image.format != "JPEG" else deep)


def _grey_steps(image: Image.Image) -> int | None:
    """Return how far apart the greys of a PNG of 1, 2 or 4 bits are, by which its transparent grey is stated."""
    if not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile:
        return None
    return {"1": 255, "L;2": 85, "L;4": 17}.get(str(image.tile[0][3]))


def _read_own(reading: Reading, source: File | Member, note: Note = unnoticed) -> Image.Image | np.ndarray:
    """Return what the user's decoder gives: an image, upright, of 8 bits; or uint8 [height, width, channels]."""
    own = reading.own
    assert own
    function = own.function
    reading.set_limits()
    try:
        with on_disk(source) as path:
            try:
                made = function(path)
            except Exception as error:
                raise DecodeError(f"{own.name}: {own.code.fault(error)}") from error
            if isinstance(made, Image.Image):  # may be read from the path only now
                return _upright(made, reading, note)
    except DeepError as error:
        raise DecodeError(f"{own.name}: {error}") from error
    except MemberError as error:
        raise DecodeError(str(error)) from error
    if isinstance(made, np.ndarray) and made.dtype == np.uint8 and made.ndim in (2, 3) and made.size:
        return made.reshape(*made.shape[:2], -1)
    found = f"{made.dtype} {list(made.shape)}" if isinstance(made, np.ndarray) else type(made).__name__
    raise DecodeError(
        f"{own.name} gives {found}; uint8 from 0 to 255, [height, width] or [height, width, channels], or a PIL "
        "image is needed"
    )


def _as_image(pixels: Image.Image | np.ndarray) -> Image.Image:
    """Return an image of pixels [height, width, channels]; the mean where they are neither grey nor colour."""
    if isinstance(pixels, Image.Image):
        return pixels
    if pixels.shape[2] not in MODES:
        return _mean_of(pixels)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _mean_of(channels: np.ndarray) -> Image.Image:
    """Return the mean of grey channels, uint8 [height, width, channels], rounded down."""
    total = channels.sum(axis=2, dtype=np.uint32)
    return Image.fromarray((total // channels.shape[2]).astype(np.uint8))


def _channels(source: Channels, reduce_to: int | None, reading: Reading, note: Note) -> list[Image.Image]:
    """Read the channels of an image, grey; DecodeError where they are of different sizes.

    Channels that are stored as coloured files (a green one for the green channel) have all in one colour, of which
    the usual weights would keep a tenth to a half: a file in colour is turned to grey by its brightest colour.
    """
    channels = []
    for file in source.files:
        image = reading.flat(open_image(file, reduce_to, reading, note), note)
        if image.mode != "L":
            image = Image.fromarray(np.asarray(image.convert("RGB")).max(axis=2))
        channels.append(image)
    if len({channel.size for channel in channels}) > 1:
        sizes = ", ".join(f"{width} × {height}" for width, height in (channel.size for channel in channels))
        raise DecodeError(f"channels of different sizes: {sizes}")
    return channels


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode; itself where it has it, which `convert` copies."""
    return image if image.mode == mode else image.convert(mode)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return an image in L, RGB or RGBA."""
    if image.mode in ("L", "RGB", "RGBA") and "transparency" not in image.info:
        return image
    return image.convert(_eight_bit_mode(image))


def _eight_bit_mode(image: Image.Image) -> str:
    """The mode to convert to what is neither grey nor colour of 8 bits: a palette, black and white, CMYK …"""
    if image.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode == "1" else "RGB"


_reading = threading.Lock()  # threads that ask at the same time wait for one that reads


def _image_of(source: PixelRow) -> Image.Image:
    with _reading:
        pixels, whole, fault = _parsed(source.table, source.table.path.stat().st_mtime_ns)
    if fault:
        raise DecodeError(fault)
    if not whole[source.row]:
        raise DecodeError("pixels are whole numbers from 0 to 255")
    return Image.fromarray(pixels[source.row])


@lru_cache(maxsize=4)
def _parsed(table: PixelTable, changed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Read all images of a table, once in each process.

    A fault is returned and not raised, so that it is kept: else each row would read the table anew.

    Returns
    -------
    ndarray
        uint8 [rows, height, width].
    ndarray
        bool [rows]: which rows hold nothing but grey levels.
    str
        What is wrong with the table as a whole; "" where nothing is.
    """
    nothing = np.zeros((0, table.height, table.width), dtype=np.uint8), np.zeros(0, dtype=bool)
    try:
        if line := first_overlong_line(table.path):
            return *nothing, f"more cells in line {line} than there are column names"
        parts = [_grey_levels(frame, table.columns) for frame in _frames(table)]
    except (OSError, ValueError, KeyError, csv.Error) as error:  # no CSV table, or without one of the columns
        return *nothing, USUAL.reason(error)
    pixels, whole = (np.concatenate(each) for each in zip(*parts, strict=True))
    return pixels.reshape(-1, table.height, table.width), whole, ""


def _frames(table: PixelTable) -> Iterator["pd.DataFrame"]:
    """Read the pixels of a table, some rows at a time: as numbers the whole table takes 20 times its images."""
    import pandas as pd

    wanted = set(table.columns)
    yield from pd.read_csv(
        table.path,
        usecols=lambda name: name in wanted,
        index_col=False,
        encoding="utf-8-sig",
        low_memory=False,
        chunksize=4096,
    )


def _grey_levels(frame: "pd.DataFrame", columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the grey levels, uint8 [rows, columns], and which rows hold nothing else, bool [rows]."""
    import pandas as pd

    pixels = np.zeros((len(frame), len(columns)), dtype=np.uint8)
    whole = np.ones(len(frame), dtype=bool)
    for place, name in enumerate(columns):
        levels = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        fine = (levels >= 0) & (levels <= 255) & (levels == np.floor(levels))
        pixels[fine, place] = levels[fine]
        whole &= fine
    return pixels, whole
