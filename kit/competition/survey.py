"""What a folder holds: its tables, and the images in it and in its zips."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from kit.competition.formats import is_table
from kit.competition.image_files import is_hidden
from kit.competition.tables import column_names, read_table
from kit.core.errors import KitError
from kit.core.zips import zip_directory

DICOM = frozenset({".dcm", ".dicom"})  # images that Pillow does not read
NO_IMAGES = frozenset({".pdf", ".ps", ".eps", ".h5", ".hdf", ".mpg", ".mpeg", ".emf", ".wmf", ".bufr", ".grib"})
FEWEST_PIXELS = 64  # columns with numbered names, from which on they are pixels


@dataclass(frozen=True)
class NumberedColumns:
    """Columns of one name with numbers behind it, in which pixels may stand."""

    pattern: str
    count: int


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes
    ----------
    folder
        The folder.
    tables
        Name of each table's file below the folder → its rows, every cell as text; of pixels the first column.
    pixels
        Tables in which pixels may stand.
    images
        Paths of the images below the folder, with "/" between their parts, in order; train.zip/a.jpg is inside
        a zip.
    unread
        A line about each file that seemed to be a table or a zip and cannot be read.
    """

    folder: Path
    tables: dict[str, pd.DataFrame]
    pixels: dict[str, NumberedColumns]
    images: tuple[str, ...]
    unread: tuple[str, ...]

    @cached_property
    def places(self) -> dict[str, int]:
        """Each folder in which images lie, "" for the folder itself, and how many."""
        counts: dict[str, int] = {}
        for image in self.images:
            place = image.rpartition("/")[0]
            counts[place] = counts.get(place, 0) + 1
        return counts


def survey(folder: Path) -> Survey:
    """Look at a folder, as a competition gives it.

    Hidden files are left out, and tables deeper than one folder.

    Raises
    ------
    KitError
        Where it is no folder.
    """
    if not folder.is_dir():
        raise KitError(f"{folder} is a file; give the folder it is in" if folder.exists() else _no_folder(folder))
    images: list[str] = []
    unread: list[str] = []
    tables: dict[str, pd.DataFrame] = {}
    pixels: dict[str, NumberedColumns] = {}
    for name in _files(folder):
        path = folder / name
        if is_image(name):
            images.append(name)
        elif is_table(path) and path.suffix.lower() != ".txt" and name.count("/") < 2:
            try:
                tables[name] = _read(path, name, pixels)
            except KitError as error:
                unread.append(str(error))
        elif path.suffix.lower() == ".zip":
            try:
                images += [f"{name}/{member}" for member in _images_in(path, name)]
            except KitError as error:
                unread.append(str(error))
    return Survey(folder, tables, pixels, tuple(sorted(images)), tuple(unread))


def is_image(name: str) -> bool:
    """Return whether a file's ending is that of an image."""
    from PIL import Image

    ending = os.path.splitext(name)[1].lower()
    return ending in DICOM or (ending in Image.registered_extensions() and ending not in NO_IMAGES)


def words_in(name: str) -> list[str]:
    """Return the words of a name in small letters: train and metadata of TrainMetadata.csv."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def is_of(side: str, name: str) -> bool:
    """Return whether a word of a name begins with train or test."""
    return any(word.startswith(side) for word in words_in(name))


def _no_folder(folder: Path) -> str:
    there = folder.parent
    names = sorted(path.name for path in there.iterdir() if path.is_dir()) if there.is_dir() else []
    seen = [name for name in names if not is_hidden(name)]
    return f"{folder} does not exist" + (f"; folders there: {', '.join(seen[:10])}" if seen else "")


def _files(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        below = Path(place).relative_to(folder)
        yield from ((below / name).as_posix() for name in sorted(files) if not is_hidden(name))


def _images_in(path: Path, name: str) -> list[str]:
    members = zip_directory(path, name).entries
    return [member for member in members if is_image(member) and not any(map(is_hidden, member.split("/")))]


def _read(path: Path, name: str, pixels: dict[str, NumberedColumns]) -> pd.DataFrame:
    """A table, of whose pixels only the first column counts; `pixels` takes which they are."""
    columns = column_names(path, name)
    numbered: dict[str, list[str]] = {}
    for column in columns:
        if match := re.fullmatch(r"(.*?\D)\d+", column):
            numbered.setdefault(match[1], []).append(column)
    stem, many = max(numbered.items(), key=lambda each: len(each[1]), default=("", []))
    if len(many) < FEWEST_PIXELS:
        return read_table(path, name)
    pixels[name] = NumberedColumns(f"{stem}*", len(many))
    return read_table(path, name, many[1:]).drop(columns=many[0])
