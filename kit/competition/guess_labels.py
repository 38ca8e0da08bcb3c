"""Guessing what the labels are: their column, what stands between several, or a 0/1 column a class."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from kit.competition.labels import split_labels
from kit.competition.lists import style_of
from kit.competition.spelling import number, truth
from kit.competition.survey import words_in

NAMED = frozenset(
    {
        *(
            "label",
            "labels",
            "class",
            "classes",
            "classid",
            "classname",
            "target",
            "targets",
            "category",
            "species",
        ),
        *("breed", "tag", "tags", "attribute", "attributes", "diagnosis", "disease", "type", "y", "cancer"),
        *("variety", "grade", "kind"),
    }
)
SEPARATORS = (" ", ",", ";", "|")
MOST_CLASSES = 0.5  # of the rows


@dataclass(frozen=True)
class LabelGuess:
    """What the labels are.

    Attributes
    ----------
    label
        Column of labels, or columns of 0 and 1.
    why
        In words.
    separator
        Between the labels of a cell; None: one label a cell.
    parted
        Why, in words.
    others
        Columns that may be meant as well.
    one_a_row
        With columns of 0 and 1, whether each row has exactly one 1.
    """

    label: str | tuple[str, ...]
    why: str
    separator: str | None = None
    parted: str = ""
    others: tuple[str, ...] = ()
    one_a_row: bool = False


def guess_labels(
    table: pd.DataFrame, taken: Collection[str], test: pd.DataFrame | None, sample: pd.DataFrame | None
) -> LabelGuess | None:
    """Return what the labels of the train table are; None where nothing looks like labels.

    Parameters
    ----------
    table : DataFrame
        Every cell as text.
    taken : collection of str
        Columns that are something else: ids, names of files.
    test : DataFrame or None
        The test table, which has no labels.
    sample : DataFrame or None
        The sample submission, its first column the ids.
    """
    submitted = list(sample.columns[1:]) if sample is not None else []
    if len(submitted) > 1 and all(name in table.columns and _is_binary(table[name]) for name in submitted):
        return _columns(
            table, submitted, "the sample submission has these columns, with 0 and 1 in the train table"
        )
    known = set(test.columns) if test is not None else set()
    free = [name for name in table.columns if name not in taken and name not in known]
    candidates = [name for name in free if _could_be(table[name])]
    scores = {name: _score(table[name], name, sample) for name in candidates}
    ordered = sorted(candidates, key=lambda name: -scores[name][0])
    binary = [name for name in free if _is_binary(table[name])]
    if len(binary) > 1 and not (ordered and scores[ordered[0]][0] >= 2):
        return _columns(table, binary, "columns of 0 and 1")
    if not ordered:
        return None
    label = ordered[0]
    separator, parted = _separator(table[label])
    why = ", ".join(scores[label][1]) or "its texts are few"
    near = tuple(name for name in ordered[1:] if scores[name][0] >= scores[label][0])
    return LabelGuess(label, why, separator, parted, near)


def _columns(table: pd.DataFrame, names: Sequence[str], why: str) -> LabelGuess:
    ones = pd.concat([table[name].map(truth) == 1 for name in names], axis=1).sum(axis=1)
    return LabelGuess(tuple(names), why, one_a_row=bool((ones == 1).all()))


def _is_binary(cells: pd.Series) -> bool:
    texts = cells.unique()
    return 1 <= len(texts) <= 2 and all(truth(text) is not None for text in texts)


def _could_be(cells: pd.Series) -> bool:
    """Whether cells may be labels: two at least, that repeat; or several of few in a cell."""
    texts = cells.unique()
    if len(texts) < 2 or any("." in text and number(text) is not None for text in texts[:1000]):
        return False
    return len(texts) <= MOST_CLASSES * len(cells) or _separator(cells)[0] is not None


def _score(cells: pd.Series, name: str, sample: pd.DataFrame | None) -> tuple[float, list[str]]:
    """How much a column looks like labels, and why."""
    score, why = 0.0, list[str]()
    if sample is not None and name in sample.columns[1:]:
        score, why = score + 4, [*why, "the sample submission has this column"]
    elif sample is not None and len(sample.columns) > 2 and set(sample.columns[1:]) <= set(cells):
        score, why = score + 4, [*why, "its texts are columns of the sample submission"]
    elif sample is not None and len(sample.columns) == 2 and _shares(cells, sample.iloc[:, 1]):
        score, why = score + 1, [*why, "the sample submission has such labels"]
    words = words_in(name)
    if named := NAMED & set(words):
        score, why = score + 2 - ("name" in words), [*why, f"its name says {sorted(named)[0]}"]
    return score, why


def _shares(cells: pd.Series, given: pd.Series) -> bool:
    known = {label for cell in cells.unique() for label in [cell, *cell.split()]}
    return set(given) <= known


def _separator(cells: pd.Series) -> tuple[str | None, str]:
    """What stands between the labels of a cell, and why it seems so; None: a cell is one label."""
    texts = cells.unique()
    if style_of(texts) is not None:
        return " ", "its cells are lists"
    whole = {text for text in texts if text}
    for separator in SEPARATORS:
        several = [text for text in whole if separator in text]
        parts = {label for text in whole for label in split_labels(text, separator)}
        if not several or len(parts) < 2:
            continue
        if _are_labels(parts, whole, several, separator):
            shown = {" ": "a space", ",": "a comma", ";": "a semicolon", "|": "a bar"}[separator]
            return separator, f"cells are several labels with {shown} between them"
    return None, ""


def _are_labels(parts: set[str], whole: set[str], several: list[str], separator: str) -> bool:
    """Whether the parts of cells are labels: numbers, or texts that stand alone as well, or few for many cells."""
    if all(number(part) is not None for part in parts) or len(whole) > 1.5 * len(parts):
        return True
    alone = sum(part in whole for part in parts)
    told = all(any(part in whole for part in split_labels(text, separator)) for text in several)
    return told and 2 * alone >= len(parts)
