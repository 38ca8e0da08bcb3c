"""Image templates: from a row of a table to its image, and from image files to the rows of a table."""

import fnmatch
import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from kit.competition.config import Images, PixelsConfig
from kit.competition.spelling import plain, shown
from kit.competition.tables import column_names
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.data.sources import Channels, PixelRow, PixelTable, Source


def image_sources(folder: Path, table: pd.DataFrame, images: Images, key: str, file: Path | None) -> list[Source]:
    """Return the image of each row; every file lies inside the folder.

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
        return list(image_paths(folder, table, images, key))
    channels = [image_paths(folder, table, template, f"{key}[{at}]") for at, template in enumerate(images)]
    return [Channels(files) for files in zip(*channels, strict=True)]


def fields_of(images: Images) -> list[str]:
    """Return the columns that templates name; of what is no template none, nor of one that is none."""
    if isinstance(images, tuple):
        return [name for template in images for name in fields_of(template)]
    try:
        return (
            [name for _, name, _, _ in string.Formatter().parse(images) if name] if isinstance(images, str) else []
        )
    except ValueError:
        return []


def image_paths(folder: Path, table: pd.DataFrame, template: str, key: str) -> list[Path]:
    """Return the path of each row's image file, inside the folder."""
    _check_template(template, table, key)
    rows = cast("list[dict[str, str]]", table.to_dict("records"))  # columns of a CSV file are named by text
    try:
        filled = [_Template().vformat(template, (), row) for row in rows]
    except ValueError as error:  # a format that only some texts refuse
        raise KitError(f"{key}: {template!r} is no template of text cells: {error}") from error
    return [inside(folder, relative, key) for relative in filled]


def pixel_columns(file: Path, images: Images, key: str) -> list[str]:
    """Return the columns that hold pixels, in the table's order; none where images are files."""
    if not isinstance(images, PixelsConfig):
        return []
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


def rows_of_files(folder: Path, template: str, key: str) -> tuple[pd.DataFrame, list[Path]]:
    """Find the image files that fit a template like train/{label}/{id}.

    Returns
    -------
    DataFrame
        A column for each field of the template, a row for each file, in the order of the paths.
    list of Path
        The file of each row.

    Raises
    ------
    KitError
        Where no file fits, or the template cannot be read backwards.
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
    rows, paths = [], []
    for path in sorted(folder.glob(glob)):
        relative = path.relative_to(folder).as_posix()
        match = re.fullmatch(pattern, relative)
        if match and path.suffix.lower() in _suffixes() and not path.name.startswith(".") and path.is_file():
            rows.append(match.groups())
            paths.append(path)
    if not rows:
        raise KitError(f"{key}: no image file in {folder} is like {template!r}{_seen(folder, template)}")
    return pd.DataFrame(rows, columns=fields, dtype=str), paths


def _seen(folder: Path, template: str) -> str:
    """What there is instead, for a message."""
    first = folder / template.partition("/")[0]
    place = first if first.is_dir() else folder
    inside_it = sorted(path.name for path in place.iterdir() if not path.name.startswith("."))
    return f"; {place} holds {some(inside_it, 5)}" if inside_it else f"; {place} is empty"


def _suffixes() -> set[str]:
    from PIL import Image

    return set(Image.registered_extensions())


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
            f"{some(shown(table.columns))}"
        )
    if not fields:
        raise KitError(f"{key}: {template!r} names no column, so every row would have one image; try train/{{id}}")
