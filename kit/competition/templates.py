"""Image templates: from a row of a table to its image, and from image files to the rows of a table."""

import fnmatch
import math
import re
import string
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import pandas as pd

from kit.competition.config import Images, PixelsConfig
from kit.competition.image_files import is_hidden
from kit.competition.spelling import plain, shown
from kit.competition.tables import column_names, left_out_hint, need_plain_csv
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.data.sources import Channels, PixelRow, PixelTable, Source, in_container


def image_sources(folder: Path, table: pd.DataFrame, images: Images, key: str, file: Path | None) -> list[Source]:
    """Return the image of each row; every file lies inside the folder, and a path may lead into a file.

    Parameters
    ----------
    folder : Path
        The competition's.
    table : DataFrame
        The rows, every cell as text.
    images : str, tuple or PixelsConfig
        A template, a template for each channel, or the table's columns of pixels.
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
    if isinstance(images, str):
        return list(in_container(image_paths(folder, table, images, key), folder))
    channels = [image_paths(folder, table, template, f"{key}[{at}]") for at, template in enumerate(images)]
    return [Channels(files) for files in zip(*channels, strict=True)]


def fields_of_images(images: Images) -> list[str]:
    """Return the columns that templates name; of what is no template none, nor of one that is none."""
    if isinstance(images, tuple):
        return [name for template in images for name in fields_of_images(template)]
    try:
        return (
            [name for _, name, _, _ in string.Formatter().parse(images) if name] if isinstance(images, str) else []
        )
    except ValueError:
        return []


def image_paths(folder: Path, table: pd.DataFrame, template: str, key: str) -> list[Path]:
    """Return the path of each row's image file, inside the folder."""
    return [inside(folder, relative, key) for relative in filled(template, table, key)]


def filled(template: str, table: pd.DataFrame, key: str) -> list[str]:
    """Return the template with the cells of each row in the place of its {columns}."""
    _check_template(template, table, key)
    rows = cast("list[dict[str, str]]", table.to_dict("records"))  # columns of a CSV file are named by text
    try:
        return [_Template().vformat(template, (), row) for row in rows]
    except ValueError as error:  # a format that only some texts refuse
        raise KitError(f"{key}: {template!r} is no template of text cells: {error}") from error


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
    folder: Path, template: str, key: str, may_be_none: bool = False
) -> tuple[pd.DataFrame, list[Path]]:
    """Find the image files that fit a template like train/{label}/{id}.

    Files that are hidden, or in a hidden folder, are none unless the template names that folder. Where the
    template tells no ending, images are what Pillow has an ending for.

    Returns
    -------
    DataFrame
        A column for each field of the template, a row for each file, in the order of the paths.
    list of Path
        The file of each row.

    Raises
    ------
    KitError
        Where no file fits (with `may_be_none` no fault where the folder that the template names is empty), or the
        template cannot be read backwards.
    """
    parts = list(string.Formatter().parse(template))
    fields = [name for _, name, _, _ in parts if name is not None]
    if any(spec or conversion for _, name, spec, conversion in parts if name) or len(set(fields)) < len(fields):
        raise KitError(f"{key}: {template!r}: to be read from file names, each field stands there once and plain")
    pattern = "".join(
        re.escape(text) + ("" if name is None else r"([^/]+?)" if place < len(parts) - 1 else r"([^/]+)")
        for place, (text, name, _, _) in enumerate(parts)
    )
    glob = "".join(_glob_escaped(text) + ("*" if name is not None else "") for text, name, _, _ in parts)
    inside(folder, glob, key)
    found = [
        (match.groups(), path)
        for path in sorted(folder.glob(glob))
        if (match := re.fullmatch(pattern, path.relative_to(folder).as_posix())) and _is_meant(path, template)
    ]
    rows, paths = [texts for texts, _ in found], [path for _, path in found]
    if not rows and not (may_be_none and _is_empty(folder / template.partition("{")[0].rpartition("/")[0])):
        raise KitError(f"{key}: no image file in {folder} is like {template!r}{_seen(folder, template)}")
    return pd.DataFrame(rows, columns=fields, dtype=str), paths


def _is_meant(path: Path, template: str) -> bool:
    """Whether a file that fits the template may be an image."""
    *folders, name = template.split("/")
    parts = path.parts[-len(folders) - 1 :]
    if any(is_hidden(part) for part, text in zip(parts, [*folders, name], strict=True) if "{" in text):
        return False
    told = "." in name.rpartition("}")[2]
    return (told or path.suffix.lower() in _suffixes()) and path.is_file()


def _is_empty(place: Path) -> bool:
    return place.is_dir() and all(is_hidden(path.name) for path in place.iterdir())


def _seen(folder: Path, template: str) -> str:
    """What there is instead, for a message."""
    first = folder / template.partition("/")[0]
    place = first if first.is_dir() else folder
    inside_it = sorted(path.name for path in place.iterdir() if not path.name.startswith("."))
    return f"; {place} holds {some(inside_it, 5)}" if inside_it else f"; {place} is empty"


@cache
def _suffixes() -> frozenset[str]:
    from PIL import Image

    return frozenset(Image.registered_extensions())


def _glob_escaped(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


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
