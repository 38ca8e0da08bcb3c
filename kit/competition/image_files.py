"""The image files that are there against those that rows name: hidden ones, unused ones, names spelt otherwise."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kit.competition.config import CompetitionConfig
from kit.competition.images_config import templates_of
from kit.core.errors import some
from kit.core.zips import ZipDirectory, ZipMember, zip_directory
from kit.data.sources import Channels, File, PixelRow, Source, files_of, key_of, missing_files

NOT_MEANT = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
OF_SYSTEMS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})


def is_hidden(name: str) -> bool:
    """Return whether a file or a folder of this name was made by a program for itself, and holds no images."""
    return name.startswith(".") or name in NOT_MEANT or name.lower() in OF_SYSTEMS


def first_folder(template: object) -> str:
    """Return the first folder of an image template, below the competition's, or its zip.

    "" where it begins with a column, or stands for several folders.
    """
    first, slash, _ = str(template).partition("/")
    return first if slash and not {"{", "*"} & set(first) else ""


def shared_images(train: Sequence[Source], test: Sequence[Source]) -> list[str]:
    """Return a line about the test images that are images of training rows as well, if there are some."""
    known = {key_of(image) for image in train if not isinstance(image, PixelRow)}
    both = [image for image in test if not isinstance(image, PixelRow) and key_of(image) in known]
    if not both:
        return []
    return [
        f"competition.test_images: {len(both)} of {len(test)} test images are the images of training rows, too "
        f"({some(map(str, both), 2)})"
    ]


def unused_files(
    folder: Path, config: CompetitionConfig, train: Sequence[Source], test: Sequence[Source]
) -> tuple[str, ...]:
    """Return a line about the files below the first folder of the images that are the image of no row.

    Of hidden folders it counts the images alone; below the competition's own folder, where tables lie, images too.
    Images in tables have no such folder.

    Parameters
    ----------
    folder : Path
        The competition's.
    config : CompetitionConfig
        Its templates; those of the test images count where the test rows are files.
    train, test : sequence of Source
        The images of all rows.

    Returns
    -------
    tuple of str
        A line for each folder in which there are such files.
    """
    sides = {"train_images": config.train_images}
    if config.test is None and config.sample_submission is None:
        sides["test_images"] = config.test_images
    folders: dict[str, str] = {}
    for key, images in sides.items():
        for template in templates_of(images):
            folders.setdefault(first_folder(template), key)
    places = {name: key for name, key in folders.items() if (folder / name).is_dir() or _is_zip(folder / name)}
    if not places:
        return ()
    used = {os.path.normpath(str(file)) for images in (train, test) for each in images for file in files_of(each)}
    archives = {each.archive for images in (train, test) for each in _members(images)}
    used |= set(map(os.path.normpath, archives))
    used |= {os.path.normpath(folder / name) for name in config.named_tables}
    lines = [_unused(folder / name, f"competition.{key}", used, not name) for name, key in places.items()]
    return tuple(line for line in lines if line)


def _members(images: Sequence[Source]) -> Iterator[ZipMember]:
    return (file for each in images for file in files_of(each) if isinstance(file, ZipMember))


def _unused(place: Path, key: str, used: set[str], images_only: bool) -> str:
    from PIL import Image

    known, endings, example, total = set(Image.registered_extensions()), Counter[str](), "", 0
    normal = os.path.normpath(place) == str(place)  # and so is what lies below it
    for path, hidden in _files_below(place):
        unused = (path if normal else os.path.normpath(path)) not in used
        ending = os.path.splitext(path)[1].lower() if unused or hidden or images_only else ""
        if (hidden or images_only) and ending not in known:
            continue
        total += 1
        if unused:
            endings[ending or "no ending"] += 1
            example = min(example, path) if example else path
    if not endings:
        return ""
    ordered = sorted(endings.items(), key=lambda each: (-each[1], each[0]))
    counts = some([f"{count} {ending}" for ending, count in ordered], 4)
    return (
        f"{key}: {endings.total()} of {total} files below {place} are the image of no row ({counts}; one of them "
        f"is {os.path.relpath(example, place)})"
    )


def _files_below(place: Path) -> Iterator[tuple[str, bool]]:
    """The path of each file that is not hidden itself, and whether a folder above it is; loops of links end."""
    if _is_zip(place):
        for entry in zip_directory(place, str(place)).entries:
            *above, name = entry.split("/")
            if not is_hidden(name):
                yield os.path.join(place, entry), any(map(is_hidden, above))
        return
    seen: set[tuple[int, int]] = set()
    hidden_below: dict[str, bool] = {str(place): False}
    for folder, folders, files in os.walk(place, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        hidden = hidden_below.pop(folder)
        hidden_below |= {os.path.join(folder, name): hidden or is_hidden(name) for name in folders}
        beginning = os.path.join(folder, "")
        yield from ((beginning + name, hidden) for name in files if not is_hidden(name))


def _is_zip(place: Path) -> bool:
    return place.suffix.lower() == ".zip" and place.is_file()


def with_names_on_disk(folder: Path, images: list[Source]) -> list[Source]:
    """Return the images with their files as the disk spells them, where that differs in Unicode form alone.

    macOS takes letters with their accents apart (NFD), a table has them mostly in one (NFC).

    Parameters
    ----------
    folder : Path
        The competition's.
    images : list of Source
        As the templates spell them.
    """
    if all(str(file).isascii() for image in images for file in files_of(image)):
        return images
    find = _finder(folder, lambda name: unicodedata.normalize("NFC", name))
    # Archives find their files in whatever form.
    lacking = [file for file in missing_files(images) if isinstance(file, Path)]
    found: dict[File, File] = {file: there for file in lacking if (there := find(file))}
    if not found:
        return images
    return [_with_files(image, found) for image in images]


def _with_files(image: Source, found: dict[File, File]) -> Source:
    if isinstance(image, Path):
        return found.get(image, image)
    if isinstance(image, Channels):
        return Channels(tuple(found.get(file, file) for file in image.files))
    return image


def spelling_hint(folder: Path, lacking: Sequence[File]) -> str:
    """Return a hint for a message where missing files are there with other capital letters or ending, else "".

    Of files missing in an archive it tells what the archive holds.
    """
    missing = [file for file in lacking if isinstance(file, Path)]
    if not missing and isinstance(lacking[0], ZipMember):
        return zip_hint(zip_directory(lacking[0].archive, str(folder)))
    find_letters = _finder(folder, lambda name: unicodedata.normalize("NFC", name).casefold())
    alike = [there for file in missing if (there := find_letters(file))]
    if alike:
        return (
            f"; {some(alike, 1).partition(' and ')[0]} is there: {len(alike)} of the names differ in capital and "
            "small letters only"
        )
    find_stem = _finder(folder, lambda name: unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold())
    other = [there for file in missing if (there := find_stem(file)) and there.is_file()]
    if other:
        return f"; {other[0]} is there: {len(other)} of the names differ in the ending only"
    return ""


def zip_hint(directory: ZipDirectory) -> str:
    """Return what an archive holds, for a message."""
    names = [name for name in directory.entries if not any(map(is_hidden, name.split("/")))]
    return f"; {directory.path} holds {some(names, 3)}" if names else f"; {directory.path} is empty"


def _finder(folder: Path, plain: Callable[[str], str]) -> Callable[[Path], Path | None]:
    """A function that finds a file below the folder whose parts are all one with what is there in plain letters.

    Each folder is listed once.
    """
    listed: dict[Path, dict[str, list[str]]] = {}

    def names_in(place: Path) -> dict[str, list[str]]:
        if place not in listed:
            listed[place] = {}
            for name in sorted(os.listdir(place)) if place.is_dir() else []:
                listed[place].setdefault(plain(name), []).append(name)
        return listed[place]

    def find(file: Path) -> Path | None:
        place = folder
        for part in file.relative_to(folder).parts:
            names = names_in(place).get(plain(part), [])
            if len(names) != 1 and part not in names:
                return None
            place /= part if part in names else names[0]
        return place

    return find
