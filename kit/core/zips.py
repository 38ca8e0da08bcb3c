"""Files inside zip archives, read without unpacking the archive.

The archive's directory is read by `zipfile`, the content by what follows and not by `ZipFile.read`: a `ZipFile`
has one file position, so that threads wait for each other's disk and a fork would share it, and a process that
opens its own reads the directory again, .4 seconds and 60 MB for 100,000 files. A member that knows where its
bytes are is read by any thread of any process, in 6.2 µs against 8.4 (files of 3 kB, Python 3.11).
"""

import bz2
import os
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from kit.core.errors import KitError

ENCRYPTED = 0x1  # bits of the flags of an entry
IN_UTF8 = 0x800
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
SPARE = 64  # bytes read beyond the packed ones, as nobody knows before how long the local header's extra field is


class Entry(NamedTuple):
    """Where a file stands in an archive: byte of its header, sizes in bytes, CRC-32, method, flags."""

    offset: int
    packed: int
    size: int
    crc: int
    method: int
    flags: int


class MemberError(Exception):
    """A file in an archive that cannot be read; the text says why."""


@dataclass(frozen=True)
class ZipMember:
    """A file inside a zip archive.

    It knows where its bytes stand, so that no process has to read the archive's directory again.

    Attributes
    ----------
    archive
        The zip file.
    name
        Of the file inside it, with / between folders.
    entry
        Where it stands; None: the archive has no such file.
    """

    archive: Path
    name: str
    entry: Entry | None

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot; "" where it has none."""
        return os.path.splitext(self.name)[1]

    def read(self) -> bytes:
        """Return the content, checked against its size and CRC-32.

        Raises
        ------
        MemberError
            Where it is damaged, encrypted, or compressed in a way that is not read here.
        OSError
            Where the archive cannot be read.
        """
        entry = self._readable_entry()
        content = self._unpacked(entry, entry.packed, entry.size)
        if len(content) != entry.size:
            raise MemberError(f"damaged in the archive ({len(content)} bytes of {entry.size})")
        if zlib.crc32(content) != entry.crc:
            raise MemberError("damaged in the archive (other CRC-32)")
        return content

    def read_first(self, count: int) -> bytes:
        """Return the first bytes of the content, unchecked; errors as those of `read`."""
        entry = self._readable_entry()
        # A block of bzip2 cannot be unpacked in part; what deflate says before the first bytes takes 300 at most.
        packed = entry.packed if entry.method == zipfile.ZIP_BZIP2 else min(entry.packed, count + 1024)
        return self._unpacked(entry, packed, count)[:count]

    def _readable_entry(self) -> Entry:
        if self.entry is None:
            raise MemberError("the archive has no such file")
        if self.entry.flags & ENCRYPTED:
            raise MemberError("encrypted; unpack the archive with its password")
        if self.entry.method not in _UNPACK:
            named = _OTHERS.get(self.entry.method, "unknown")
            raise MemberError(
                f"packed with method {self.entry.method} ({named}), which is not read here; unpack it"
            )
        return self.entry

    def _unpacked(self, entry: Entry, packed: int, size: int) -> bytes:
        """Return what so many packed bytes hold, a byte more than `size` at most."""
        try:
            return _UNPACK[entry.method](_packed(self, entry.offset, packed), size)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:  # of the archive, not of bzip2
                raise
            raise MemberError(f"damaged in the archive ({error})") from error


class ZipDirectory:
    """What a zip archive holds.

    Attributes
    ----------
    path : Path
        The archive.
    entries : mapping of str to Entry
        Files by name, folders left out, in the archive's order; of two with one name the later.
    """

    def __init__(self, path: Path, entries: Mapping[str, Entry]) -> None:
        self.path = path
        self.entries = MappingProxyType(dict(entries))
        plain = {unicodedata.normalize("NFC", name): name for name in entries if not name.isascii()}
        self._by_form = plain  # macOS takes letters and their accents apart

    def member(self, name: str) -> ZipMember:
        """Return the file of this name, in whatever Unicode form; one without entry where there is none."""
        if name not in self.entries and not name.isascii():
            name = self._by_form.get(unicodedata.normalize("NFC", name), name)
        return ZipMember(self.path, name, self.entries.get(name))


def zip_directory(path: Path, key: str) -> ZipDirectory:
    """Return what an archive holds, read once in a process for as long as it does not change.

    Parameters
    ----------
    path : Path
        The zip file, which is there.
    key : str
        The place in the config that names it, for messages.

    Raises
    ------
    KitError
        Where it is no zip file, or cannot be read.
    """
    try:
        stat = path.stat()
        return _directory(path, stat.st_size, stat.st_mtime_ns)
    except zipfile.BadZipFile as error:
        raise KitError(f"{key}: {path} is no zip file, or was not downloaded whole ({error})") from error
    except OSError as error:
        raise KitError(f"{key}: {path} cannot be read ({error.strerror or error})") from error


@lru_cache(maxsize=64)
def _directory(path: Path, size: int, changed: int) -> ZipDirectory:
    """`size` and `changed` tell an archive from an earlier one at the same path."""
    with zipfile.ZipFile(path) as archive:
        return ZipDirectory(path, dict(_named(archive.infolist())))


def _named(infos: Iterable[zipfile.ZipInfo]) -> Iterator[tuple[str, Entry]]:
    for info in infos:
        if info.is_dir():
            continue
        name = info.filename.replace("\\", "/").removeprefix("./")
        if not info.flag_bits & IN_UTF8 and not name.isascii():
            with suppress(UnicodeError):  # macOS writes UTF-8 and does not say so
                name = name.encode("cp437").decode("utf-8")
        values = (info.header_offset, info.compress_size, info.file_size, info.CRC)
        yield name, Entry(*values, info.compress_type, info.flag_bits)


def _packed(member: ZipMember, offset: int, size: int) -> bytes:
    """Return the first bytes of a file as they stand in the archive."""
    with open(member.archive, "rb", buffering=0) as file:
        file.seek(offset)
        content = file.read(LOCAL_HEADER.size + len(member.name) + SPARE + size)
        if len(content) < LOCAL_HEADER.size:
            raise EOFError("the archive ends before it")
        signature, name_length, extra_length = LOCAL_HEADER.unpack_from(content)
        if signature != b"PK\x03\x04":
            raise EOFError("it does not stand where the archive's directory says")
        start = LOCAL_HEADER.size + name_length + extra_length
        while len(content) < start + size and (more := file.read(start + size - len(content))):
            content += more
    if len(content) < start + size:
        raise EOFError("the archive ends within it")
    return content[start : start + size]


def _inflate(packed: bytes, size: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)


def _unpack_bzip2(packed: bytes, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(packed, size + 1)


# How the content is made of the packed bytes and its size, by the number of the method. No more than a byte beyond
# the size is made, so that no archive can fill the memory.
_OTHERS = {9: "Deflate64", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}
_UNPACK: dict[int, Callable[[bytes, int], bytes]] = {
    zipfile.ZIP_STORED: lambda packed, size: packed,
    zipfile.ZIP_DEFLATED: _inflate,
    zipfile.ZIP_BZIP2: _unpack_bzip2,
}
