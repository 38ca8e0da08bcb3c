"""Tables in JSON: a list of objects, an object a line, an object of columns, and COCO's three lists."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kit.core.errors import KitError, some

Columns = dict[str, list[Any]]
EXPECTED = (
    "expected a list of objects, an object a line, an object of columns, or COCO's lists images and annotations"
)


def json_columns(content: bytes, place: str, lines: bool = False) -> Columns:
    """Return the cells of each column of a JSON file.

    Parameters
    ----------
    content : bytes
        Of the file.
    place : str
        The key and the file, for messages.
    lines : bool
        Whether it is certain to have an object a line, of which there may be one alone.

    Returns
    -------
    dict of str to list
        Cells as JSON has them; None where an object has not the key.

    Raises
    ------
    KitError
        Where it is no JSON, or none that is a table.
    """
    found = _parsed(content, place, lines)
    if isinstance(found, list):
        return _columns(found, place)
    if isinstance(found, dict):
        if isinstance(found.get("images"), list):
            return coco_columns(found, place)
        values = list(found.values())
        if values and all(isinstance(cells, list) for cells in values) and len({*map(len, values)}) == 1:
            return found
        if values and all(isinstance(cells, dict) and cells.keys() == values[0].keys() for cells in values):
            return {name: list(map(cells.__getitem__, values[0])) for name, cells in found.items()}
        raise KitError(f"{place} is an object with the keys {some(found, 5)}; {EXPECTED}")
    raise KitError(f"{place} holds {_kind(found)}; {EXPECTED}")


def coco_columns(content: Mapping[str, Any], place: str) -> Columns:
    """Return one table of COCO's images, annotations and categories.

    Parameters
    ----------
    content : mapping
        With the list `images` and, if there are any, `annotations` and `categories`.
    place : str
        The key and the file, for messages.

    Returns
    -------
    dict of str to list
        A row an annotation, in the order of the images, and one for each image without any. `image_id`, the other
        columns of images, the annotations' without their own id (a name that images have too becomes
        `annotation_` and the name), and the categories' others as `category_` and their name.
    """
    images = _list(content, "images", place)
    annotations, categories = _list(content, "annotations", place), _list(content, "categories", place)
    image_key = "image_id" if "image_id" in images else "id"
    image_at = _places(images, image_key, f"{place}: images")
    table = {"image_id": images.pop(image_key)} | images
    if not annotations:
        return table
    if "image_id" not in annotations:
        raise KitError(f"{place}: annotations have no image_id; they have {some(annotations)}")
    rows = _rows(annotations.pop("image_id"), image_at, place)
    annotations.pop("id", None)
    table = {name: [cells[image] for image, _ in rows] for name, cells in table.items()}
    for name, cells in annotations.items():
        title = f"annotation_{name}" if name in table else name
        table[title] = [None if at is None else cells[at] for _, at in rows]
    return table | _category_columns(table, categories, place)


def _category_columns(table: Columns, categories: Columns, place: str) -> Columns:
    """What is told of the category of each row."""
    if not categories or "category_id" not in table:
        return {}
    key = "category_id" if "category_id" in categories else "id"
    at = _places(categories, key, f"{place}: categories")
    stated = table["category_id"]
    if beyond := list(dict.fromkeys(cell for cell in stated if cell is not None and str(cell) not in at)):
        raise KitError(
            f"{place}: annotations name {len(beyond)} categories that are not there ({some(beyond, 5)})"
        )
    told = {}
    for name, cells in categories.items():
        title = name if name.startswith("category_") else f"category_{name}"
        if name == key:
            continue
        if title in table:
            raise KitError(f"{place}: annotations have {title}, which is what {name} of categories becomes")
        told[title] = [None if cell is None else cells[at[str(cell)]] for cell in stated]
    return told


def _rows(image_of: Sequence[Any], image_at: Mapping[str, int], place: str) -> list[tuple[int, int | None]]:
    """The image and the annotation of each row."""
    if beyond := list(dict.fromkeys(cell for cell in image_of if str(cell) not in image_at)):
        raise KitError(f"{place}: annotations name {len(beyond)} images that are not there ({some(beyond, 5)})")
    of_image: list[list[int | None]] = [[] for _ in image_at]
    for at, cell in enumerate(image_of):
        of_image[image_at[str(cell)]].append(at)
    return [(image, at) for image, annotations in enumerate(of_image) for at in annotations or [None]]


def _list(content: Mapping[str, Any], name: str, place: str) -> Columns:
    listed = content.get(name) or []
    if not isinstance(listed, list):
        raise KitError(f"{place}: {name} is {_kind(listed)}; a list of objects is needed")
    return _columns(listed, f"{place}: {name}")


def _places(columns: Columns, key: str, place: str) -> dict[str, int]:
    """The row of each id."""
    if key not in columns:
        raise KitError(f"{place} have no {key}; they have {some(columns)}")
    texts = list(map(str, columns[key]))
    at = {text: row for row, text in enumerate(texts)}
    if len(at) < len(texts):
        twice = dict.fromkeys(text for row, text in enumerate(texts) if at[text] != row)
        raise KitError(f"{place}: {len(twice)} ids stand there twice ({some(twice, 5)}); ids must be unique")
    return at


def _columns(rows: Sequence[Any], place: str) -> Columns:
    """The columns of a list of objects, in the order in which they first appear."""
    if odd := [f"{_kind(row)} at {at + 1}" for at, row in enumerate(rows) if not isinstance(row, dict)]:
        raise KitError(f"{place}: every row has to be an object; there is {some(odd, 3)}")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _parsed(content: bytes, place: str, lines: bool) -> Any:
    """What a JSON file holds; an object a line is a list of them."""
    try:
        text = content.decode(json.detect_encoding(content)).removeprefix("\ufeff")
        try:
            if not lines:
                return _loads(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise
        return [_loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        raise KitError(f"{place} is no JSON: {error}") from error
    except (UnicodeError, ValueError, RecursionError) as error:
        raise KitError(f"{place} is no JSON: {' '.join(str(error).split())}") from error


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once_each)


def _once_each(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    listed = list(pairs)
    found = dict(listed)
    if len(found) < len(listed):
        names = [name for name, _ in listed]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {twice!r} twice")
    return found


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
