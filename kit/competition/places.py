"""Where the files lie that image templates name: in folders, inside zips, with one ending or another."""

import fnmatch
import os
import posixpath
import re
import string
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kit.competition.image_files import is_hidden
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.core.zips import ZipDirectory, zip_directory
from kit.data.sources import File

ANY = "\0"  # stands for a * that a template says, while its columns' texts may hold any character
ANY_ENDING = f".{ANY}"


class Listing(NamedTuple):
    """What lies in a folder: folders (and zips), files by name, and image files by name without ending."""

    folders: list[str]
    files: dict[str, str]
    stems: dict[str, list[str]]


class Places:
    """Finds files below a competition's folder; each folder is listed once, and each archive read once.

    Parameters
    ----------
    folder : Path
        The competition's.
    key : str
        The place in the config that holds the template, for messages.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self._archives: dict[str, ZipDirectory | None] = {}
        self._listings: dict[str, Listing] = {}
        self._expanded: dict[str, list[str]] = {}

    def find(self, relative: str) -> File:
        """Return the file of a filled template; where there is none, one that is not there.

        Parameters
        ----------
        relative : str
            Below the folder, with / between its parts and `ANY` for a * of the template.

        Raises
        ------
        KitError
            Where it leads out of the folder, an archive cannot be read, or two files differ in their ending alone.
        """
        if ANY not in relative:
            return self._file(relative, inside(self.folder, relative, self.key))
        inside(self.folder, relative.replace(ANY, "*"), self.key)
        parents, _, name = relative.rpartition("/")
        for place in self._places(parents):
            if found := self._name_in(place, name):
                return self._file(posixpath.join(place, found))
        return self._file(relative.replace(ANY, "*"))

    def archives(self, template: str) -> list[ZipDirectory]:
        """Return the archives that a template leads into, in the order of their names; none: it leads into none.

        Its part up to the archive's ending may hold * and columns, each of which stands for any text.
        """
        parts = template.split("/")
        for place, part in enumerate(parts[:-1], start=1):
            if part.lower().endswith(".zip"):
                pattern = re.sub(r"\{[^}]*\}", ANY, "/".join(parts[:place]))
                names = [*self._places(pattern)] if ANY in pattern else [pattern]
                if found := [archive for name in names if (archive := self._archive(name))]:
                    return found
        return []

    def _file(self, relative: str, path: Path | None = None) -> File:
        if ".zip/" in relative.lower():
            archive, name = self._split(relative)
            if archive:
                return archive.member(name)
        return path or self.folder / relative

    def _split(self, relative: str) -> tuple[ZipDirectory | None, str]:
        """The archive in a path, and the path inside it; (None, path) where it leads through none."""
        parts = relative.split("/")
        for place, part in enumerate(parts, start=1):
            if part.lower().endswith(".zip") and (archive := self._archive("/".join(parts[:place]))):
                return archive, posixpath.normpath("/".join(parts[place:])) if place < len(parts) else ""
        return None, relative

    def _archive(self, relative: str) -> ZipDirectory | None:
        if relative not in self._archives:
            path = self.folder / relative
            self._archives[relative] = zip_directory(path, self.key) if path.is_file() else None
        return self._archives[relative]

    def _places(self, parents: str) -> list[str]:
        """The folders that a path with `ANY` in it stands for, in order."""
        if parents not in self._expanded:
            places = [""]
            for part in parents.split("/") if parents else []:
                pattern = fnmatch.translate("".join("*" if each == ANY else _escaped(each) for each in part))
                places = [
                    posixpath.join(place, name)
                    for place in places
                    for name in ([part] if ANY not in part else self._listing(place).folders)
                    if ANY not in part or re.match(pattern, name)
                ]
            self._expanded[parents] = places
        return self._expanded[parents]

    def _name_in(self, place: str, name: str) -> str | None:
        """The name of the file in a folder, as it is spelt there."""
        listing = self._listing(place)
        if not name.endswith(ANY_ENDING):
            return listing.files.get(_one_form(name))
        found = listing.stems.get(_one_form(name.removesuffix(ANY_ENDING)), [])
        if len(found) > 1:
            raise KitError(
                f"{self.key}: {self.folder / place} holds {some(found, 5)}, and the template takes any ending; "
                "name the ending, or give several templates in their order, {first: [...]}"
            )
        return found[0] if found else None

    def _listing(self, place: str) -> Listing:
        if place not in self._listings:
            archive, name = self._split(place) if ".zip" in place.lower() else (None, place)
            self._listings |= _listings_of(archive, place, name) if archive else {}
            if place not in self._listings:
                self._listings[place] = _listing_of(self.folder / place)
        return self._listings[place]


def marked(template: str, key: str) -> str:
    """Return a template with `ANY` for each * in its own text; in a column's format a * is what it always is.

    KitError where one stands for part of a file's name.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise KitError(f"{key}: {template!r} is no template of text cells: {error}") from error
    if not any("*" in text for text, *_ in parts):
        return template
    text = "".join(
        text.replace("{", "{{").replace("}", "}}").replace("*", ANY)
        + (
            ""
            if name is None
            else f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
        )
        for text, name, spec, conversion in parts
    )
    if ANY in text.rpartition("/")[2].removesuffix(ANY_ENDING):
        raise KitError(
            f"{key}: {template!r}: a * stands for the name of a folder, as in images_*/{{id}}.png, or for the "
            "whole ending, as in {id}.*"
        )
    return text


@cache
def image_endings() -> frozenset[str]:
    """Return the endings that Pillow has for image files, in small letters, each with its dot."""
    from PIL import Image

    return frozenset(Image.registered_extensions())


def _one_form(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _escaped(character: str) -> str:
    return f"[{character}]" if character in "*?[" else character


def _listing_of(path: Path) -> Listing:
    """What lies in a folder on disk; nothing where there is none."""
    if not path.is_dir():
        return Listing([], {}, {})
    with os.scandir(path) as entries:
        names = [(entry.name, entry.is_dir()) for entry in entries]
    folders = [name for name, is_folder in names if is_folder or name.lower().endswith(".zip")]
    return _listing(folders, [name for name, is_folder in names if not is_folder])


def _listings_of(archive: ZipDirectory, place: str, inner: str) -> dict[str, Listing]:
    """What lies in an archive and in each folder inside it, by the path below the competition's folder."""
    root = place[: -len(inner)].rstrip("/") if inner else place
    folders: dict[str, set[str]] = {"": set()}
    files: dict[str, list[str]] = {}
    for entry in archive.entries:
        parent, _, name = entry.rpartition("/")
        files.setdefault(parent, []).append(name)
        while parent and parent not in folders:
            folders[parent] = set()
            parent = parent.rpartition("/")[0]
    for folder in list(folders):
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent].add(name)
    return {
        posixpath.join(root, folder) if folder else root: _listing(list(names), files.get(folder, []))
        for folder, names in folders.items()
    }


def _listing(folders: Sequence[str], files: Sequence[str]) -> Listing:
    stems: dict[str, list[str]] = {}
    for name in sorted(files):
        stem, ending = os.path.splitext(name)
        if ending.lower() in image_endings() and not is_hidden(name):
            stems.setdefault(_one_form(stem), []).append(name)
    shown = sorted(name for name in folders if not is_hidden(name))
    return Listing(shown, {_one_form(name): name for name in files}, stems)
