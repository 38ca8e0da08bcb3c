"""Where an image's pixels come from: a file, one inside a zip, several as its channels, a part, a table's row."""

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from kit.core.disk import writing
from kit.core.zips import ZipMember

File = Path | ZipMember  # a file on disk, or inside a zip archive


@dataclass(frozen=True)
class Channels:
    """An image whose channels are grey files of their own."""

    files: tuple[File, ...]

    def __str__(self) -> str:
        return f"{self.files[0]} and {len(self.files) - 1} more"


@dataclass(frozen=True)
class PixelTable:
    """A CSV file with an image in each row: grey levels 0 to 255, a column for each pixel.

    Attributes
    ----------
    path
        The file.
    columns
        Those that hold pixels: the image's rows one after the other.
    height, width
        Of each image, in pixels.
    """

    path: Path
    columns: tuple[str, ...]
    height: int
    width: int


@dataclass(frozen=True)
class PixelRow:
    """An image in one row of a table; rows count from 0, below the column names."""

    table: PixelTable
    row: int

    def __str__(self) -> str:
        return f"row {self.row + 1} of {self.table.path}"


@dataclass(frozen=True)
class Member:
    """An image in a file that holds several.

    Attributes
    ----------
    container
        The file.
    name
        What the image is called in it, with "/" between the parts of a name.
    """

    container: Path
    name: str

    @property
    def path(self) -> Path:
        """The path that it would have if the file were a folder."""
        return self.container / self.name

    def __str__(self) -> str:
        return str(self.path)


Source = File | Channels | Member | PixelRow
_FEW = 32  # files of one folder that are asked for one by one; for more of them the folder is listed once


def in_container(files: Iterable[File], root: Path) -> list[File | Member]:
    """Return files as they are, and those whose path leads into a file below `root` as members of it."""
    container_of: dict[str, Path | None] = {}
    found: list[File | Member] = []
    for file in files:
        if isinstance(file, ZipMember):
            found.append(file)
            continue
        name = str(file).rpartition(os.sep)[0]
        if name not in container_of:
            folder = file.parent
            above = [folder, *folder.parents] if folder != root and not folder.is_dir() else []
            below = [each for each in above if each.is_relative_to(root) and each != root]
            container_of[name] = next((each for each in below if is_there(each)), None)
        container = container_of[name]
        found.append(Member(container, file.relative_to(container).as_posix()) if container else file)
    return found


def readable(file: File) -> Path | io.BytesIO:
    """Return what a library reads a file from: its path, or of one inside a zip its content.

    Raises
    ------
    MemberError
        Where the content is damaged, encrypted, or packed in an unknown way.
    """
    return io.BytesIO(file.read()) if isinstance(file, ZipMember) else file


def opened_file(file: File) -> IO[bytes]:
    """Open a file for reading; errors as those of `readable`."""
    return io.BytesIO(file.read()) if isinstance(file, ZipMember) else open(file, "rb")


def first_bytes(file: File, count: int) -> bytes:
    """Return the first bytes of a file, fewer where it is shorter; of one inside a zip no more is unpacked."""
    if isinstance(file, ZipMember):
        return file.read_first(count)
    with opened_file(file) as opened:
        return opened.read(count)


@contextmanager
def on_disk(file: File | Member) -> Iterator[Path]:
    """Give a file its path on disk: one inside a zip is written for so long to a temporary folder, by its name."""
    if not isinstance(file, ZipMember):
        yield file.path if isinstance(file, Member) else file
        return
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        path = Path(folder) / file.name.rpartition("/")[2]
        content = file.read()
        with writing(path, size=len(content)):
            path.write_bytes(content)
        yield path


def files_of(source: Source) -> tuple[File, ...]:
    """Return the files that an image is read from."""
    if isinstance(source, Channels):
        return source.files
    if isinstance(source, Member):
        return (source.container,)
    return (source.table.path,) if isinstance(source, PixelRow) else (source,)


def digest_of(sources: Sequence[Source], line_of: Callable[[File], str]) -> str:
    """Return a digest, in hexadecimal, of which images these are.

    It is of what `line_of` says of each file, asked once, of names in a file, and of rows and layout of tables.
    """
    digest = sha256()
    lines: dict[File, str] = {}
    layouts: dict[int, str] = {}  # by the table's identity: a table of many columns is slow to compare
    for source in sources:
        place = ""
        if isinstance(source, PixelRow):
            table = source.table
            if id(table) not in layouts:
                layout = f"{table.columns} {table.height} {table.width}"
                layouts[id(table)] = sha256(layout.encode()).hexdigest()
            place = f"\t{source.row}\t{layouts[id(table)]}"
        elif isinstance(source, Member):
            place = f"\t{source.name}"
        for file in files_of(source):
            if file not in lines:
                lines[file] = line_of(file)
            digest.update(f"{lines[file]}{place}\n".encode())
    return digest.hexdigest()


def files_key(sources: Sequence[Source]) -> str:
    """Return a digest of path, size and time of change of the images' files, for caches on this machine.

    Of a file inside a zip it is of those of the archive, and of name and CRC-32.
    """
    archives: dict[Path, str] = {}

    def stamp(file: File) -> str:
        if isinstance(file, Path):
            return _stamp(file)
        if file.archive not in archives:
            archives[file.archive] = _stamp(file.archive)
        return f"{archives[file.archive]}\t{file.name}\t{file.entry.crc if file.entry else None}"

    key = digest_of(sources, stamp)
    # Files that are channels are other images than the same files one by one.
    joined = sorted({len(source.files) for source in sources if isinstance(source, Channels)})
    return sha256(f"{key} {joined}".encode()).hexdigest() if joined else key


def _stamp(file: Path) -> str:
    try:
        stat = file.stat()
        return f"{file.resolve()}\t{stat.st_size}\t{stat.st_mtime_ns}"
    except (OSError, ValueError):  # not there, or no name of a file at all
        return str(file)


def missing_files(sources: Iterable[Source]) -> list[File]:
    """Return the files that are not there, each once."""
    files = {key_of(file): file for source in sources for file in files_of(source)}
    listed = _listed(key for key in files if isinstance(key, str))
    # What a listing does not have may be there all the same, on a disk that takes A.png for a.png.
    return [file for key, file in files.items() if key not in listed and not is_there(file)]


def key_of(source: Source) -> Source | str:
    """Return what tells an image, or a file, from others: of a file on disk its path as text.

    The text is what a path keeps; its own hash takes a million paths seconds to make.
    """
    return str(source) if isinstance(source, Path) else source


def _listed(paths: Iterable[str]) -> set[str]:
    """Return those of the paths that the listings of their folders have, of folders with more than a few of them.

    A folder is listed once: to ask for a million files one by one takes far longer where a disk is on a network.
    """
    asked: dict[str, list[str]] = {}
    for path in paths:
        asked.setdefault(path.rpartition(os.sep)[0], []).append(path)
    there: set[str] = set()
    for folder, names in asked.items():
        if len(names) > _FEW:
            there |= _files_in(names[0].removesuffix(names[0].rpartition(os.sep)[2]), folder)
    return there


def _files_in(beginning: str, folder: str) -> set[str]:
    """Return the paths of the files in a folder, links to files with them; none where it cannot be listed."""
    try:
        with os.scandir(folder or beginning or os.curdir) as entries:
            return {beginning + entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return set()


def is_there(file: File) -> bool:
    """Return whether a file exists."""
    if isinstance(file, ZipMember):
        return file.entry is not None
    try:
        return file.is_file()
    except OSError:  # a name longer than the file system takes
        return False
