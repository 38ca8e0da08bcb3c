"""Where an image's pixels come from: a file, several files as its channels, or a row of a table."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Channels:
    """An image in several grey files, one a channel."""

    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.files[0]} and {len(self.files) - 1} more"


@dataclass(frozen=True)
class PixelTable:
    """A CSV file with an image a row: one column a pixel, grey levels 0 to 255, the image's rows one after the
    other."""

    path: Path
    columns: tuple[str, ...]
    height: int
    width: int


@dataclass(frozen=True)
class PixelRow:
    """The image in one row of a table, counted from 0 below the column names."""

    table: PixelTable
    row: int

    def __str__(self) -> str:
        return f"row {self.row + 1} of {self.table.path}"


Source = Path | Channels | PixelRow


def files_of(source: Source) -> tuple[Path, ...]:
    """The files that an image is read from."""
    if isinstance(source, Channels):
        return source.files
    return (source.table.path,) if isinstance(source, PixelRow) else (source,)


def missing(sources: Iterable[Source]) -> list[Path]:
    """The files that are not there, each once."""
    there: dict[Path, bool] = {}
    for source in sources:
        for file in files_of(source):
            if file not in there:
                there[file] = is_file(file)
    return [file for file, is_there in there.items() if not is_there]


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False
