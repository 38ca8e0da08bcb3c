"""Image templates: from a row of a table to its image, and from image files to the rows of a table."""

import fnmatch
import math
import os
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import pandas as pd

from kit.competition.image_files import is_hidden, zip_hint
from kit.competition.images_config import FirstConfig, Images, PixelsConfig, Template, templates_of
from kit.competition.places import ANY, Places, image_endings, marked
from kit.competition.spelling import plain, shown
from kit.competition.tables import column_names, left_out_hint, need_plain_csv
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.core.zips import zip_directory
from kit.data.sources import Channels, File, PixelRow, PixelTable, Source, in_container, missing_files


def image_sources(folder: Path, table: pd.DataFrame, images: Images, key: str, file: Path | None) -> list[Source]:
    """Return the image of each row; every file lies inside the folder, and a path may lead into a file.

    Parameters
    ----------
    folder : Path
        The competition's.
    table : DataFrame
        The rows, every cell as text.
    images : str, FirstConfig, tuple or PixelsConfig
        A template, several of which the first counts whose file is there, a template for each channel, or the
        table's columns of pixels.
    key : str
        The place in the config that says so, for messages.
    file : Path or None
        The table's, where the pixels may stand.
    """
    if isinstance(images, PixelsConfig):
        if file is None:
            raise KitError(f"{key}: the pixels stand in a table, but there is none")
        pixels = pixel_table(file, images, key)
        return [PixelRow(pixels, row) for row in range(len(table))]
    if isinstance(images, str | FirstConfig):
        return list(in_container(image_paths(folder, table, images, key), folder))
    channels = [image_paths(folder, table, template, f"{key}[{at}]") for at, template in enumerate(images)]
    return [Channels(files) for files in zip(*channels, strict=True)]


def fields_of_images(images: Images) -> list[str]:
    """Return the columns that templates name; of what is no template none, nor of one that is none."""
    names: list[str] = []
    for template in templates_of(images):
        try:
            names += [name for _, name, _, _ in string.Formatter().parse(template) if name]
        except ValueError:
            continue
    return names


def image_paths(folder: Path, table: pd.DataFrame, template: Template, key: str) -> list[File]:
    """Return each row's image file, inside the folder, be it there or not."""
    if isinstance(template, FirstConfig):
        places = [image_paths(folder, table, each, f"{key}.first[{at}]") for at, each in enumerate(template.first)]
        return _first_there(places)
    _check_template(template, table, key)
    text, places_of = marked(template, key), Places(folder, key)
    found = filled(text, table, key)
    if any(relative.count(ANY) != text.count(ANY) for relative in found):
        raise KitError(f"{key}: a cell that {template!r} names holds a NUL character, which is in no file's name")
    return [places_of.find(relative) for relative in found]


def _first_there(places: Sequence[Sequence[File]]) -> list[File]:
    """Return of each row's files, one a place, the first that is there; where none is, that of the first place."""
    found, open_rows = list(places[0]), list(range(len(places[0])))
    for files in places:
        gone = set(missing_files(files[row] for row in open_rows))
        for row in open_rows:
            if files[row] not in gone:
                found[row] = files[row]
        open_rows = [row for row in open_rows if files[row] in gone]
    return found


def filled(template: str, table: pd.DataFrame, key: str) -> list[str]:
    """Return the template with the cells of each row in the place of its {columns}."""
    _check_template(template, table, key)
    _, plain = fields_of(template)
    if plain:  # as the formatter below would fill it, in a tenth of its time
        parts: list[Iterable[str]] = []
        for text, name, _, _ in string.Formatter().parse(template):
            parts += [repeat(text)] * bool(text) + ([] if name is None else [map(str, table[name].tolist())])
        return ["".join(cells) for cells in zip(*parts, strict=False)]
    rows = cast("list[dict[str, str]]", table.to_dict("records"))  # columns of a CSV file are named by text
    try:
        return [_Template().vformat(template, (), row) for row in rows]
    except ValueError as error:  # a format that only some texts refuse
        written = template.replace(ANY, "*")
        raise KitError(f"{key}: {written!r} is no template of text cells: {error}") from error


def fields_of(template: str) -> tuple[list[str], bool]:
    """Return the columns that a template names, and whether it takes their text as it is."""
    parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    return list(dict.fromkeys(str(name) for _, name, _, _ in parts)), not any(
        spec or how for _, _, spec, how in parts
    )


def pixel_columns(file: Path, images: Images, key: str) -> list[str]:
    """Return the columns that hold pixels, in the table's order; none where images are files."""
    if not isinstance(images, PixelsConfig):
        return []
    need_plain_csv(file, key)
    return [name for name in column_names(file, key) if fnmatch.fnmatchcase(plain(name), images.columns)]


def pixel_table(file: Path, images: PixelsConfig, key: str) -> PixelTable:
    """Return the images in a table; KitError where its columns do not make up images."""
    columns = pixel_columns(file, images, key)
    count = len(columns)
    if not count:
        raise KitError(f"{key}.columns: {file} has no column like {images.columns!r}")
    height, width = images.height, images.width
    if width is None:
        width = math.isqrt(count) if height is None else count // height
        height = width if height is None else height
    elif height is None:
        height = count // width
    if height * width != count:
        raise KitError(
            f"{key}: {count} columns like {images.columns!r} are no image of {height} × {width} pixels; give "
            "height and width"
        )
    return PixelTable(file, tuple(columns), height, width)


def rows_of_files(
    folder: Path, template: Template, key: str, may_be_none: bool = False
) -> tuple[pd.DataFrame, list[File]]:
    """Find the image files that fit a template like train/{label}/{id}.

    Files that are hidden, or in a hidden folder, are none unless the template names that folder. Where the
    template tells no ending, images are what Pillow has an ending for. Of several templates the first counts that
    has a row's file; the rows are then in the order of their texts.

    Returns
    -------
    DataFrame
        A column for each field of the template, a row for each image, in the order of the paths.
    list of Path or ZipMember
        The file of each row.

    Raises
    ------
    KitError
        Where two files give the same row, where no file fits (with `may_be_none` no fault where the folder that
        the template names is empty), or the template cannot be read backwards.
    """
    templates = (template,) if isinstance(template, str) else template.first
    columns, _ = _backwards(templates[0], key)
    found: dict[tuple[str, ...], File] = {}
    for at, each in enumerate(templates):
        place = key if isinstance(template, str) else f"{key}.first[{at}]"
        if sorted(_backwards(each, place)[0]) != sorted(columns):
            raise KitError(f"{place}: {each!r} has other columns than {templates[0]!r}")
        found = _files_by_texts(folder, each, place, columns) | found  # what was found before counts
    if not found and not (may_be_none and all(_is_empty(_stem_of(folder, each)) for each in templates)):
        shown = " or ".join(map(repr, templates))
        raise KitError(f"{key}: no image file in {folder} is like {shown}{_seen(folder, templates[0])}")
    if len(templates) > 1:
        found = dict(sorted(found.items()))
    return pd.DataFrame(list(found), columns=columns, dtype=str), list(found.values())


def _files_by_texts(folder: Path, template: str, key: str, columns: Sequence[str]) -> dict[tuple[str, ...], File]:
    """The files that fit a template, in the order of their paths, by the texts of the columns."""
    fields, pattern = _backwards(template, key)
    order = [fields.index(name) for name in columns]
    places: dict[tuple[str, ...], str] = {}
    found: dict[tuple[str, ...], File] = {}
    for relative, file in _files_like(folder, template, key):
        match = re.fullmatch(pattern, relative)
        if not match or not _is_meant(relative, template):
            continue
        texts = tuple(match.groups()[at] for at in order)
        if texts in found:
            raise KitError(
                f"{key}: {places[texts]} and {relative} fit {template!r} alike; remove one, or write what tells "
                "them apart into the template"
            )
        places[texts], found[texts] = relative, file
    return found


def _backwards(template: str, key: str) -> tuple[list[str], str]:
    """The fields of a template, and the regular expression that finds their texts in a path."""
    marked(template, key)
    parts = list(string.Formatter().parse(template))
    fields = [name for _, name, _, _ in parts if name is not None]
    if any(spec or conversion for _, name, spec, conversion in parts if name) or len(set(fields)) < len(fields):
        raise KitError(f"{key}: {template!r}: to be read from file names, each field stands there once and plain")
    pattern = "".join(
        _pattern_of(text, place == len(parts) - 1)
        + ("" if name is None else r"([^/]+?)" if place < len(parts) - 1 else r"([^/]+)")
        for place, (text, name, _, _) in enumerate(parts)
    )
    return fields, pattern


def _pattern_of(text: str, at_end: bool) -> str:
    """A template's own text as a regular expression; the * of an ending stands for what has no dot."""
    ending = at_end and text.endswith(".*")
    text = text.removesuffix(".*") if ending else text
    return "[^/]*".join(map(re.escape, text.split("*"))) + (r"\.[^/.]+" if ending else "")


def _files_like(folder: Path, template: str, key: str) -> Iterator[tuple[str, File]]:
    """Each file that may fit the template, on disk or inside a zip, with its path below the folder, in order."""
    parts = list(string.Formatter().parse(template))
    glob = "".join(_glob_escaped(text) + ("*" if name is not None else "") for text, name, _, _ in parts)
    inside(folder, glob, key)
    if archives := Places(folder, key).archives(template):
        for archive in archives:
            root = archive.path.relative_to(folder).as_posix()
            for name in sorted(archive.entries, key=lambda name: name.split("/")):
                yield f"{root}/{name}", archive.member(name)
        return
    for path in sorted(folder.glob(glob)):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _is_meant(relative: str, template: str) -> bool:
    """Whether a file that fits the template may be an image."""
    *folders, name = template.split("/")
    parts = zip(relative.split("/"), [*folders, name], strict=True)
    if any(is_hidden(part) for part, text in parts if "{" in text or "*" in text):
        return False
    told = "." in name.rpartition("}")[2].removesuffix(".*")
    return told or os.path.splitext(relative)[1].lower() in image_endings()


def _stem_of(folder: Path, template: str) -> Path:
    """The folder that a template names before its first column."""
    return folder / template.partition("{")[0].rpartition("/")[0]


def _is_empty(place: Path) -> bool:
    return place.is_dir() and all(is_hidden(path.name) for path in place.iterdir())


def _seen(folder: Path, template: str) -> str:
    """What there is instead, for a message."""
    first = folder / template.partition("/")[0]
    if first.is_file() and first.suffix.lower() == ".zip":
        return zip_hint(zip_directory(first, str(first)))
    place = first if first.is_dir() else folder
    inside_it = sorted(path.name for path in place.iterdir() if not path.name.startswith("."))
    return f"; {place} holds {some(inside_it, 5)}" if inside_it else f"; {place} is empty"


def _glob_escaped(text: str) -> str:
    return re.sub(r"([?[])", r"[\1]", text)


class _Template(string.Formatter):
    """str.format whose fields are whole column names, `image.name` too."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs[field_name], field_name


def _check_template(template: str, table: pd.DataFrame, key: str) -> None:
    """Fail unless the template is one of the table's columns, and of one at least."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        unknown = sorted(fields - set(table.columns))
        if not unknown:
            _Template().vformat(template, (), dict.fromkeys(fields, ""))
    except ValueError as error:
        raise KitError(f"{key}: {template!r} is no template of text cells: {error}") from error
    if unknown:
        raise KitError(
            f"{key}: {template!r} asks for the column {some(map(repr, unknown))}; the table has "
            f"{some(shown(table.columns))}{left_out_hint(table, unknown[0])}"
        )
    if not fields:
        raise KitError(f"{key}: {template!r} names no column, so every row would have one image; try train/{{id}}")
