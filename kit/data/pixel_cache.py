"""A file of raw pixels with a hash of each image, so that what is read is what was written.

The file is an array in numpy's format, behind it the hashes of its images, and last a digest of all but pixels.
The hashes are BLAKE2b (RFC 7693) of 16 bytes, keyed with the cache's key and salted with the row, so that neither
another cache nor another row is taken for the right one. They are looked at image by image, when one is read for
the first time by a process and its forks: a cache of 20 GB is never read as a whole.
"""

import errno
import io
import math
import mmap
import os
import shutil
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.errors import Damaged, KitError

HASH = 16  # bytes
DIGEST = 32  # bytes
UNREAD, WHOLE, SPOILT = 0, 1, 2  # what this process knows of a row
COUNT = 8  # bytes of the number of damaged images, before the states of the rows
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no room, none for this user, a larger file than may be
BINARY: int = getattr(os, "O_BINARY", 0)  # of Windows alone
_seeking = threading.Lock()


class NoRoom(KitError):
    """A cache of pixels that its disk cannot hold; the text says how much is lacking."""


@dataclass
class PixelCache:
    """The pixels of n images in a file; opened anew in each process that it is sent to.

    Attributes
    ----------
    file : Path
        As `Filling` has written it.
    key : str
        What the pixels depend on, as hexadecimal digits.
    shape : tuple of int
        Rows, height, width, channels.
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    _opened: "_Opened | None" = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def open(self) -> "PixelCache":
        """Open the file, here and in forks that begin later; return the cache itself.

        Raises
        ------
        Damaged
            Where the file has another size or layout, or where its hashes are not those that were written.
        OSError
            Where it is not there or cannot be read.
        """
        self._opened = self._opened or _Opened(self.file, self.key, self.shape)
        return self

    def read(self, row: int) -> np.ndarray | None:
        """Return the pixels of an image, uint8 [height, width, channels]; None where they are damaged.

        Raises
        ------
        Damaged, OSError
            As `open`, where the file is not open yet.
        """
        opened, row = self.open()._opened, range(self.shape[0])[row]
        assert opened is not None
        try:
            content = _read(opened.handle, opened.offset(row), opened.size)
        except OSError:  # a sector that the disk cannot read
            content = b""
        if opened.state[row] != WHOLE:
            if opened.hash_of(row, content) != opened.hashes[row].tobytes():
                return None
            opened.state[row] = WHOLE
        elif len(content) < opened.size:  # cut since it was checked
            opened.state[row] = SPOILT
            return None
        return np.frombuffer(content, dtype=np.uint8).reshape(self.shape[1:])

    def mend(self, row: int, pixels: np.ndarray) -> int | None:
        """Write pixels that were decoded anew in the place of damaged ones, where the file can be written.

        Returns
        -------
        int or None
            How many damaged images this process and its forks have met with this one; 0 where this one was met
            before, None where these are not the pixels that were written once.
        """
        opened, row = self.open()._opened, range(self.shape[0])[row]
        assert opened is not None
        content = np.ascontiguousarray(pixels).tobytes()
        if opened.hash_of(row, content) != opened.hashes[row].tobytes():
            return None
        with suppress(OSError):
            handle = os.open(self.file, os.O_RDWR | BINARY)
            try:
                _write(handle, opened.offset(row), content)
            finally:
                os.close(handle)
        if opened.state[row] == SPOILT:
            return 0
        opened.state[row] = SPOILT  # until it is read, and found to be whole
        opened.count[0] += 1
        return int(opened.count[0])

    def move(self, file: Path) -> None:
        """Give the file another name, in the place of what has it now."""
        self.file.replace(file)
        self.file = file

    def remove(self) -> None:
        """Remove the file."""
        self.file.unlink(missing_ok=True)


class _Opened:
    """A cache's file, open in this process, and what is known of its rows here and in forks."""

    def __init__(self, file: Path, key: str, shape: tuple[int, ...]):
        self.key, self.size, self._header = key.encode(), math.prod(shape[1:]), _header(shape)
        self.handle = os.open(file, os.O_RDONLY | BINARY)
        weakref.finalize(self, os.close, self.handle)
        behind, there = self.offset(shape[0]), os.fstat(self.handle).st_size
        whole = behind + HASH * shape[0] + DIGEST
        if there != whole:
            raise Damaged(f"{file} has {there:,} bytes instead of {whole:,}")
        hashes = _read(self.handle, behind, whole - behind)
        header = _read(self.handle, 0, len(self._header))
        if header != self._header or hashes[-DIGEST:] != _digest(self.key, header, hashes[:-DIGEST]):
            raise Damaged(f"{file} is not what was written")
        self.hashes = np.frombuffer(hashes, dtype=np.uint8, count=HASH * shape[0]).reshape(-1, HASH)
        # Shared with forks: each image is checked once, whoever reads it first, and the damaged ones are counted.
        shared = mmap.mmap(-1, COUNT + shape[0])
        self.count = np.frombuffer(shared, dtype=np.int64, count=1)
        self.state = np.frombuffer(shared, dtype=np.uint8, offset=COUNT)

    def offset(self, row: int) -> int:
        """Where the pixels of a row begin, in bytes."""
        return len(self._header) + row * self.size

    def hash_of(self, row: int, content: bytes) -> bytes:
        return _hash(self.key, row, content)


class Filling:
    """Writes a cache, image by image and from several threads, into space that is reserved first.

    Parameters
    ----------
    file : Path
        What is there is replaced.
    key, shape
        As for `PixelCache`.

    Raises
    ------
    NoRoom
        Where the disk has no space for all of it.
    """

    def __init__(self, file: Path, key: str, shape: tuple[int, ...]):
        self.file, self.shape, self._key, self._header = file, shape, key, _header(shape)
        self._hashes = np.zeros((shape[0], HASH), dtype=np.uint8)
        self._size = math.prod(shape[1:])
        self.bytes = len(self._header) + shape[0] * (self._size + HASH) + DIGEST
        file.unlink(missing_ok=True)
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
        try:
            self._reserve()
            self._write(0, self._header)
        except BaseException:
            self.give_up()
            raise

    def __call__(self, row: int, pixels: np.ndarray) -> None:
        """Write the pixels of an image; NoRoom as above, where space could not be reserved."""
        content = np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()
        self._write(len(self._header) + row * self._size, content)
        self._hashes[row] = np.frombuffer(_hash(self._key.encode(), row, content), dtype=np.uint8)

    def done(self) -> PixelCache:
        """Return the cache, on disk as a whole; images that were not written are damaged ones."""
        hashes = self._hashes.tobytes()
        digest = _digest(self._key.encode(), self._header, hashes)
        self._write(len(self._header) + self.shape[0] * self._size, hashes + digest)
        os.fsync(self._handle)
        self._close()
        return PixelCache(self.file, self._key, self.shape)

    def give_up(self) -> None:
        """Remove what was written."""
        self._close()
        self.file.unlink(missing_ok=True)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _reserve(self) -> None:
        """Take the space, so that a disk that fills up meanwhile takes none of it away."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._handle, 0, self.bytes)
                return
            except OSError as error:
                if error.errno in FULL:
                    raise self._no_room(error) from error
                # Else a file system that reserves none; a full disk is found when it is written to.
        os.ftruncate(self._handle, self.bytes)

    def _write(self, offset: int, content: bytes) -> None:
        try:
            _write(self._handle, offset, content)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._no_room(error) from error

    def _no_room(self, error: OSError) -> NoRoom:
        free = shutil.disk_usage(self.file.parent).free
        return NoRoom(
            f"{self.file} takes {in_gb(self.bytes)}, but the disk has {in_gb(free)} free ({error.strerror})"
        )


class Store:
    """Takes decoded pixels, and writes them to a file as long as its disk has room; without a file, nowhere.

    Attributes
    ----------
    full : str
        What there was no room for; "" where there was.
    """

    def __init__(self, filling: Filling | None = None, full: str = ""):
        self._filling, self.full = filling, full

    @classmethod
    def of(cls, file: Path, key: str, shape: tuple[int, ...]) -> "Store":
        """Return one with a file, as `Filling` makes it, unless the disk has no room."""
        try:
            return cls(Filling(file, key, shape))
        except NoRoom as error:
            return cls(full=str(error))

    def __call__(self, row: int, pixels: np.ndarray) -> None:
        """Take the pixels of an image; from several threads."""
        if self._filling and not self.full:
            try:
                self._filling(row, pixels)
            except NoRoom as error:
                self.full = str(error)

    def done(self) -> PixelCache | None:
        """Return the file as a cache; None where there is none, or had no room."""
        if self._filling is None or self.full:
            return None
        try:
            cache = self._filling.done().open()
        except NoRoom as error:
            self.full = str(error)
            return None
        self._filling = None
        return cache

    def give_up(self) -> None:
        """Remove the file, unless it is done."""
        if self._filling:
            self._filling.give_up()


WAYS_OUT = "make room, or go on with data.cache=false, a smaller data.size, or --cache DIR on another disk"


def in_gb(count: float) -> str:
    """Return a number of bytes in GB (10⁹ bytes), as people read it."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e9:.2g} GB"


def _header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file of uint8."""
    described = io.BytesIO()
    array = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(described, array)
    return described.getvalue()


def _hash(key: bytes, row: int, content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH, key=key, salt=row.to_bytes(8, "little")).digest()


def _digest(key: bytes, header: bytes, hashes: bytes) -> bytes:
    digest = blake2b(header, digest_size=DIGEST, key=key)
    digest.update(hashes)
    return digest.digest()


def _read(handle: int, offset: int, count: int) -> bytes:
    """Return so many bytes of a file, fewer where it ends before."""
    if hasattr(os, "pread"):
        content = os.pread(handle, count, offset)
        while content and len(content) < count:  # Linux reads 2 GB at a time
            more = os.pread(handle, count - len(content), offset + len(content))
            if not more:
                break
            content += more
        return content
    with _seeking:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, count)


def _write(handle: int, offset: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        if hasattr(os, "pwrite"):
            written = os.pwrite(handle, left, offset)
        else:
            with _seeking:
                os.lseek(handle, offset, os.SEEK_SET)
                written = os.write(handle, left)
        left, offset = left[written:], offset + written
