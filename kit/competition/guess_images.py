"""Guessing image templates: which column of a table names the images, and where they lie."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from kit.competition.survey import is_of

SAMPLED = 300  # rows that are looked at
FEWEST = 0.5  # share of them whose image has to be there
NEARLY_ALL = 0.98
CHANNELS = ("red", "green", "blue", "r", "g", "b")  # in their usual order; others follow
Place = tuple[str, ...]


@dataclass(frozen=True)
class ImageGuess:
    """Where the images of a table's rows are.

    Attributes
    ----------
    images
        A template; a list of them: a file for each channel; {first: [...]}: folders of which one has the file.
    column
        The column that names the file.
    files
        Paths of the images of the rows that were looked at.
    share
        Of these rows that have an image.
    ending
        What the template puts behind the column's text.
    why
        In words.
    question
        What could not be decided, in words; "" for nothing.
    """

    images: str | list[str] | dict[str, list[str]]
    column: str
    files: tuple[str, ...]
    share: float
    ending: str
    why: str
    question: str = ""

    @property
    def text(self) -> str:
        """The template, or the first of several."""
        images = self.images["first"] if isinstance(self.images, dict) else self.images
        return images if isinstance(images, str) else images[0]


@dataclass
class ImageIndex:
    """Image paths by the ends of them."""

    images: Sequence[str]
    _ends: dict[tuple[int, bool], dict[str, list[str]]] = field(default_factory=dict)

    def ending_with(self, text: str, whole: bool) -> list[str]:
        """Return the images whose last parts are a text; not `whole`: without their file's ending."""
        key = (text.count("/"), whole)
        if key not in self._ends:
            ends: dict[str, list[str]] = {}
            for image in self.images:
                end = "/".join(image.split("/")[-1 - key[0] :])
                ends.setdefault(end if whole else os.path.splitext(end)[0], []).append(image)
            self._ends[key] = ends
        return self._ends[key].get(text, [])


def guess_images(
    table: pd.DataFrame, index: ImageIndex, side: str, columns: Iterable[str] | None = None
) -> ImageGuess | None:
    """Return where the images of a table's rows are; None where no column names them.

    Parameters
    ----------
    table : DataFrame
        Every cell as text.
    index : ImageIndex
        The images that are there.
    side : str
        train or test: of two folders with all images, the one of this side is taken.
    columns : iterable of str, optional
        That may name the file; left out: all.
    """
    if table.empty:
        return None
    sample = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(len(table), SAMPLED)).astype(int))]
    best: tuple[float, str, bool] | None = None
    for column in table.columns if columns is None else columns:
        for whole in (True, False):
            cells = [cell for cell in sample[column] if cell]
            found = {image for cell in cells for image in index.ending_with(cell, whole)[:1]}
            share = len(found) / max(1, len(sample))
            if share > (best[0] if best else 0):
                best = (share, column, whole)
    if best is None or best[0] < FEWEST:
        return _with_affixes(sample, index, side, columns)
    return _placed(sample, best[1], best[2], index, side)


def _placed(sample: pd.DataFrame, column: str, whole: bool, index: ImageIndex, side: str) -> ImageGuess | None:
    """The guess for the column that names the file: with its folders as they are, or told by columns."""
    candidates = [index.ending_with(cell, whole) if cell else [] for cell in sample[column]]
    with_image = [at for at, images in enumerate(candidates) if images]
    counts = Counter(_prefix(image, sample[column].iloc[at]) for at in with_image for image in candidates[at])
    order = sorted(counts, key=lambda prefix: (-counts[prefix], *_preference(prefix, side)))
    share = len(with_image) / len(sample)
    place = f"file names{'' if whole else ' without their ending'}"
    why = f"the texts of {column} are {place}"
    if counts[order[0]] >= NEARLY_ALL * len(with_image):
        files = [
            image
            for at in with_image
            for image in candidates[at]
            if _prefix(image, sample[column].iloc[at]) == order[0]
        ]
        template, ending = _template(map(_literal, order[0]), column, files, whole)
        others = [prefix for prefix in order[1:] if counts[prefix] >= NEARLY_ALL * len(with_image)]
        other = "/".join(others[0]) or "the folder itself" if others else ""
        question = f"{other} has such files, too: which are meant?" if others else ""
        return ImageGuess(template, column, tuple(files), share, ending, why, question)
    told = _told_by_columns(sample, column, candidates, side)
    if told is not None:
        parts, files = told
        template, ending = _template(parts, column, files, whole)
        return ImageGuess(template, column, tuple(files), share, ending, f"{why}, other columns tell the folder")
    files = [images[0] for images in candidates if images]
    if len(order) > 6:
        template, ending = _template(map(_literal, order[0]), column, files, whole)
        question = (
            f"the images lie in {len(order)} folders, and no column tells which: is there a table that does?"
        )
        return ImageGuess(template, column, tuple(files), share, ending, why, question)
    made = [_template(map(_literal, prefix), column, files, whole) for prefix in order]
    why = f"{why}, in several folders"
    return ImageGuess({"first": [text for text, _ in made]}, column, tuple(files), share, made[0][1], why)


def _prefix(image: str, cell: str) -> Place:
    """The folders of an image above what a cell names."""
    return tuple(image.split("/")[: -1 - cell.count("/")])


def _preference(prefix: Place, side: str) -> tuple[bool, bool, bool, int, Place]:
    """What comes first among places that are equally good."""
    other = {"train": "test", "test": "train"}[side]
    name = "/".join(prefix)
    zipped = any(part.lower().endswith(".zip") for part in prefix)
    return is_of(other, name), not is_of(side, name), zipped, len(prefix), prefix


def _literal(part: str) -> str:
    return part.replace("{", "{{").replace("}", "}}")


def _template(parts: Iterable[str], column: str, files: Sequence[str], whole: bool) -> tuple[str, str]:
    endings = {os.path.splitext(file)[1] for file in files}
    ending = "" if whole else endings.pop() if len(endings) == 1 else ".*"
    return "/".join([*parts, f"{{{column}}}{ending}"]), ending


def _told_by_columns(
    sample: pd.DataFrame, column: str, candidates: list[list[str]], side: str
) -> tuple[list[str], list[str]] | None:
    """The parts of the path, of which some are columns, and the files; None where no columns tell them."""
    found: dict[tuple[str, int], dict[int, Place]] = {}
    files: dict[tuple[str, int], list[str]] = {}
    for at, images in enumerate(candidates):
        for image in images:
            prefix = _prefix(image, sample[column].iloc[at])
            key = (prefix[0] if prefix else "", len(prefix))
            found.setdefault(key, {}).setdefault(at, prefix)
            files.setdefault(key, []).append(image)
    order = sorted(found, key=lambda key: (-len(found[key]), *_preference((key[0],), side)))
    with_image = sum(map(bool, candidates))
    for key in [*order, ("", 0)]:
        rows = found.get(key, {})
        if len(rows) < NEARLY_ALL * with_image:
            break
        part_of_row = sample.iloc[list(rows)]
        parts = [_part(part_of_row, [prefix[depth] for prefix in rows.values()]) for depth in range(key[1])]
        if None not in parts:
            return [part for part in parts if part is not None], files[key]
    return None


def _part(sample: pd.DataFrame, texts: list[str]) -> str | None:
    """The part of a template that gives the texts: one text, or a column as it is, padded, or its beginning."""
    if len(set(texts)) == 1:
        return _literal(texts[0])
    widths = {len(text) for text in texts}
    width = widths.pop() if len(widths) == 1 else 0
    cells = {name: sample[name].tolist() for name in sample.columns}
    forms: list[tuple[str, Callable[[str], str]]] = [("", str)]
    if width:
        forms += [(f":0>{width}", lambda cell: cell.rjust(width, "0")), (f":.{width}", lambda cell: cell[:width])]
    for form, written in forms:
        for name, column in cells.items():
            if [written(cell) for cell in column] == texts:
                return f"{{{name}{form}}}"
    return None


def _with_affixes(
    sample: pd.DataFrame, index: ImageIndex, side: str, columns: Iterable[str] | None
) -> ImageGuess | None:
    """The guess where the file's name is a column's text with something around it; several: a file a channel."""
    names = [(image, *os.path.split(image)) for image in index.images[:200_000]]
    few = sample.iloc[:: max(1, len(sample) // 12)]
    for column in sample.columns if columns is None else columns:
        cells = few[column].tolist()
        if min(map(len, cells)) < 3 or len(set(cells)) < len(cells) or any("/" in cell for cell in cells):
            continue
        counts = Counter[tuple[str, str, str]]()
        files: dict[tuple[str, str, str], list[str]] = {}
        for cell in cells:
            for image, place, name in names:
                if cell in name:
                    before, _, after = name.partition(cell)
                    counts[place, before, after] += 1
                    files.setdefault((place, before, after), []).append(image)
        full = [form for form, count in counts.items() if count >= NEARLY_ALL * len(cells)]
        if not full or len(full) > 32:
            continue
        best = min((tuple(place.split("/")) for place, _, _ in full), key=lambda place: _preference(place, side))
        forms = sorted((form for form in full if form[0] == "/".join(best)), key=_channel)
        texts = [
            f"{_literal(place)}/{_literal(before)}{{{column}}}{_literal(after)}".lstrip("/")
            for place, before, after in forms
        ]
        why = f"file names are the texts of {column} and something around them"
        if len(texts) > 1:
            why += "; so many files an image, one a channel"
        made = tuple(file for form in forms for file in files[form])
        return ImageGuess(texts if len(texts) > 1 else texts[0], column, made, 1.0, forms[0][2], why)
    return None


def _channel(form: tuple[str, str, str]) -> tuple[int, str, str]:
    words = [word for word in re.split(r"[\W_]+", f"{form[1]} {form[2]}".lower()) if word in CHANNELS]
    return (CHANNELS.index(words[0]) if words else len(CHANNELS)), form[1], form[2]


def for_test_files(guess: ImageGuess, places: dict[str, int], label: object) -> ImageGuess | None:
    """Return a guess for the images of the test rows where no table tells them: the files in a folder, or folders.

    Parameters
    ----------
    guess : ImageGuess
        Of the training images.
    places : dict
        Folder → number of images.
    label : object
        The column of labels, where it is one: a field for folders within the folder of test images.
    """
    tests = [place for place in places if is_of("test", place)]
    if not tests:
        return None
    place = min(tests, key=lambda place: (-places[place], _preference(tuple(place.split("/")), "test")))
    above = place.rpartition("/")[0]
    beside = [other for other in tests if other.rpartition("/")[0] == above]
    why, text, used = "the files in it are the test rows", _literal(place), [place]
    if len(beside) > 1 and is_of("test", above):
        field_name = label if isinstance(label, str) else "folder"
        why, used = "the files in its folders are the test rows", beside
        text = f"{_literal(above)}/{{{field_name}}}"
    others = [other for other in tests if other not in used]
    question = f"there are images in {others[0]}, too: are they to be predicted?" if others else ""
    images = f"{text}/{{{guess.column}}}{guess.ending}"
    return replace(guess, images=images, files=(), why=why, question=question)
