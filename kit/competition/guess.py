"""Guessing the `competition` section of a config from what a folder holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pandas as pd

from kit.competition.guess_images import ImageGuess, ImageIndex, for_test_files, guess_images
from kit.competition.guess_labels import LabelGuess, guess_labels
from kit.competition.labels import split_labels
from kit.competition.survey import DICOM, Survey, is_of, words_in
from kit.core.errors import KitError, some

MOST_IMAGES = 20  # of one observation, on average


@dataclass
class CompetitionGuess:
    """What the `competition` section may be.

    Attributes
    ----------
    settings
        Keys of the section and their values.
    reasons
        Why a key has its value, in words.
    questions
        What could not be decided, in words, below the key that it is about.
    files
        Paths below the folder of some training images.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    questions: list[tuple[str, str]] = field(default_factory=list)
    files: tuple[str, ...] = ()
    one_a_row: bool = False

    def put(self, key: str, value: Any, why: str = "") -> None:
        """Set a key, with the reason."""
        self.settings[key] = value
        if why:
            self.reasons[key] = why

    def ask(self, key: str, question: str) -> None:
        """Add a question about a key."""
        if question:
            self.questions.append((key, question))


def guess_competition(found: Survey) -> CompetitionGuess:
    """Return what the `competition` section of a folder's config may be.

    Raises
    ------
    KitError
        Where there are no images, or nothing tells which label an image has.
    """
    if not found.images and not found.pixels:
        tables = f"; tables there: {some(found.tables, 5)}" if found.tables else ""
        unread = f"; {found.unread[0]}" if found.unread else ""
        raise KitError(f"{found.folder} holds no images{tables}{unread}")
    guess, index = CompetitionGuess(), ImageIndex(found.images)
    sample = _sample(found)
    test = _of_side(found, "test", [sample])
    others = [name for name in found.tables if name not in (sample, test)]
    if not found.images:
        _pixels(guess, found, others, test, sample)
        return guess
    trains = _trains(found, others, index)
    if trains:
        _from_table(guess, found, index, trains, (test, sample))
    else:
        _from_folders(guess, found, index, (test, sample))
    if any(file.lower().endswith(tuple(DICOM)) for file in guess.files):
        guess.ask("train_images", "DICOM needs a decoder of your own: see docs/own-code.md, and set data.decoder")
    for line in found.unread:
        guess.ask("train", line)
    return guess


def _sample(found: Survey) -> str | None:
    """The sample submission: a table of two columns at least, whose name says so."""
    names = [
        name
        for name, table in found.tables.items()
        if any(word.startswith("submi") for word in words_in(name)) and len(table.columns) > 1
    ]
    return min(names, key=lambda name: (not is_of("sample", name), len(name), name), default=None)


def _of_side(found: Survey, side: str, without: Sequence[str | None]) -> str | None:
    names = [
        name for name in found.tables if name not in without and is_of(side, name) and not is_of("train", name)
    ]
    return min(names, key=lambda name: (len(name), name), default=None)


def _trains(found: Survey, names: list[str], index: ImageIndex) -> list[tuple[str, ImageGuess]]:
    """The tables that may be the train table, the likeliest first, each with its images."""
    guesses = {name: guess_images(found.tables[name], index, "train") for name in names}
    made = [(name, guess) for name, guess in guesses.items() if guess is not None]

    def order(each: tuple[str, ImageGuess]) -> tuple[bool, bool, bool, float, str]:
        name, guess = each
        files = guess.files or ("",)
        of_test = is_of("test", files[0].rpartition("/")[0]) and not is_of("train", files[0])
        solution = is_of("solution", name) or is_of("test", name)
        return of_test or solution, not is_of("train", name), not is_of("label", name), -guess.share, name

    ordered = sorted(made, key=order)
    return [each for each in ordered if order(each)[0] == order(ordered[0])[0]]


def _from_table(
    guess: CompetitionGuess,
    found: Survey,
    index: ImageIndex,
    trains: list[tuple[str, ImageGuess]],
    named: tuple[str | None, str | None],
) -> None:
    """The settings where a table tells the labels."""
    name, images = trains[0]
    table = found.tables[name]
    test, sample = (None if each is None else found.tables[each] for each in named)
    all_there = "its rows name images that are there"
    guess.put("train", name, all_there if images.share == 1 else f"{images.share:.0%} of {all_there}")
    for other, _ in trains[1:]:
        further = found.tables[other]
        same = set(further.columns) == set(table.columns)
        apart = same and not set(further[images.column]) & set(table[images.column])
        more = f" or have both rows: train: [{name}, {other}]?" if apart else ""
        guess.ask("train", f"{other} names images, too: is it the train table?{more}")
    _test_side(guess, named)
    identity = _identity(guess, images, table, test, sample)
    labels = guess_labels(table, {identity, images.column}, test, sample)
    if labels is None:
        raise KitError(
            f"{found.folder / name}: no column looks like labels, which repeat from row to row; it has "
            f"{some(table.columns)}"
        )
    _labels(guess, labels, table, identity)
    _ask_for_names(guess, found, [other for other in found.tables if other not in (name, *named)])
    guess.put("train_images", images.images, images.why)
    guess.ask("train_images", images.question)
    guess.files = images.files
    _test_images(guess, found, index, images, test if test is not None else sample, identity)
    _hand_in(guess, named[1], identity)


def _ask_for_names(guess: CompetitionGuess, found: Survey, others: Sequence[str]) -> None:
    """Ask whether a further table tells the names of the classes: all of them are in a column of it, each once."""
    label, separator = guess.settings["label"], guess.settings.get("separator")
    if not isinstance(label, str):
        return
    cells = found.tables[guess.settings["train"]][label].unique()
    classes = {part for cell in cells for part in (split_labels(cell, separator) if separator else [cell])}
    for name in others:
        table = found.tables[name]
        keys = [column for column in table.columns if table[column].is_unique and classes <= set(table[column])]
        named = [column for column in table.columns if column not in keys[:1]]
        if keys and named:
            told = next((column for column in named if "name" in words_in(column)), named[0])
            guess.ask("label", f"names of the classes? names: {{table: {name}, label: {keys[0]}, name: {told}}}")


def _test_side(guess: CompetitionGuess, named: tuple[str | None, str | None]) -> None:
    test, sample = named
    if test is not None:
        guess.put("test", test)
    else:
        where = "the sample submission tells the rows" if sample else "the rows are the files that fit test_images"
        guess.put("test", None, f"there is no test table; {where}")
    guess.put("sample_submission", sample, "" if sample else "there is none; submission says what to hand in")


def _identity(
    guess: CompetitionGuess,
    images: ImageGuess,
    table: pd.DataFrame,
    test: pd.DataFrame | None,
    sample: pd.DataFrame | None,
) -> str:
    """The column of ids, and with it what a prediction is made for."""
    chosen, why = images.column, "its texts name the images"
    if test is not None and sample is not None:
        wanted = set(sample.iloc[:, 0])
        shared = [name for name in test.columns if name in table.columns]
        told = [name for name in shared if set(test[name]) == wanted]
        unique = [name for name in told if test[name].is_unique and table[name].is_unique]
        if unique:
            chosen, why = unique[0], "the sample submission has its texts"
        else:
            _observations(guess, test, shared, wanted, told)
    if test is not None and sample is None:
        _ask_for_observations(guess, table, test)
    guess.put("id", chosen, why)
    return chosen


def _observations(
    guess: CompetitionGuess, test: pd.DataFrame, shared: list[str], wanted: set[str], told: list[str]
) -> None:
    """Predict by a column that repeats, or by two columns, where the sample's ids are these."""
    repeated = [name for name in told if not test[name].is_unique]
    if repeated:
        why = "the sample submission has its texts, and several rows the same: one prediction for them"
        guess.put("predict_by", repeated[0], why)
        return
    for first, second in permutations(shared, 2):
        for mark in "_-":
            if set(test[first] + mark + test[second]) == wanted:
                guess.put("predict_by", f"{{{first}}}{mark}{{{second}}}", "the ids of the sample submission")
                return


def _ask_for_observations(guess: CompetitionGuess, table: pd.DataFrame, test: pd.DataFrame) -> None:
    """Ask, where no sample tells it, whether rows of one text get one prediction."""
    for name in test.columns:
        if name in table.columns and 1 < len(test) / max(1, test[name].nunique()) < MOST_IMAGES:
            guess.ask("submission", f"is a prediction handed in for each {name}? then predict_by: {name}")
            return


def _labels(guess: CompetitionGuess, labels: LabelGuess, table: pd.DataFrame, identity: str | None) -> None:
    if isinstance(labels.label, tuple):
        guess.put("label", list(labels.label), labels.why)
        guess.one_a_row = labels.one_a_row
        return
    guess.put("label", labels.label, labels.why)
    for other in labels.others:
        guess.ask("label", f"or is it {other}?")
    ids = None if identity is None else table[identity]
    if ids is not None and ids.duplicated().any() and not table.duplicated([identity, labels.label]).any():
        guess.put("long_form", True, f"{identity} repeats with other labels: each row is one label of several")
    elif labels.separator:
        guess.put("separator", labels.separator, labels.parted)


def _test_images(
    guess: CompetitionGuess,
    found: Survey,
    index: ImageIndex,
    images: ImageGuess,
    rows: pd.DataFrame | None,
    identity: str,
) -> None:
    """The template of the test images: by the test rows where a table tells them, else the folder of them."""
    if rows is not None:
        if guess.settings["test"] is None:  # of the sample submission, whose ids are the rows
            rows = rows.rename(columns={rows.columns[0]: identity})[[identity]]
        columns = [images.column] if images.column in rows.columns else None
        tests = guess_images(rows, index, "test", columns)
    else:
        tests = for_test_files(images, found.places, guess.settings["label"])
    if tests is None:
        there = "no images of the test rows are there" if rows is not None else "there is no folder of test images"
        guess.put("test_images", f"test/{{{images.column}}}{images.ending}")
        guess.ask("test_images", f"{there}: where are those to be predicted?")
        return
    guess.put("test_images", tests.images, tests.why if rows is None else "")
    guess.ask("test_images", tests.question)


def _hand_in(guess: CompetitionGuess, sample: str | None, identity: str) -> None:
    if sample is None:
        columns = {"id": identity, "label": guess.settings["label"]}
        guess.put("submission", columns, "column names to hand in")
        guess.ask("submission", "which columns does the competition ask for, in which words?")


def _from_folders(
    guess: CompetitionGuess, found: Survey, index: ImageIndex, named: tuple[str | None, str | None]
) -> None:
    """The settings where images lie in a folder a class, and no table tells the labels."""
    above: dict[str, list[str]] = {}
    for place in found.places:
        parent, _, last = place.rpartition("/")
        if last and not (parent == "" and (is_of("test", last) or is_of("train", last))):
            above.setdefault(parent, []).append(last)
    classes = {parent: names for parent, names in above.items() if len(names) > 1 and not is_of("test", parent)}
    if not classes:
        tables = f"no table names them (there: {some(found.tables, 5)})" if found.tables else "there is no table"
        place = max(found.places, key=lambda place: found.places[place])
        raise KitError(
            f"{found.folder}: nothing tells the labels of the images in {found.folder / place}: {tables}, and "
            "they lie in no folder a class, as in train/CLASS/FILE"
        )
    top = max(classes, key=lambda parent: (is_of("train", parent), len(classes[parent])))
    _need_classes_alone(found, top, classes[top])
    test, sample = (None if each is None else found.tables[each] for each in named)
    names = list(sample.columns) if sample is not None else []
    identity = names[0] if names else test.columns[0] if test is not None else "file"
    label = names[1] if len(names) == 2 and names[1] != identity else "label"
    guess.put("train", None, "no table tells the labels: they are the names of the folders")
    _test_side(guess, named)
    guess.put("id", identity)
    guess.put("label", label)
    inside = tuple(image for image in found.images if image.rpartition("/")[0].rpartition("/")[0] == top)
    guess.files = inside
    prefix = f"{top}/" if top else ""
    guess.put("train_images", f"{prefix}{{{label}}}/{{{identity}}}", f"{len(classes[top])} folders, one a class")
    if others := sorted(set(classes) - {top}):
        guess.ask(
            "train_images", f"{some(others, 3)} holds folders of images, too, which are not used: what are they?"
        )
    stand_in = ImageGuess("", identity, (), 1.0, "", "")
    of_classes = set(inside)
    rest = ImageIndex([image for image in found.images if image not in of_classes])
    _test_images(guess, found, rest, stand_in, test if test is not None else sample, identity)
    _hand_in(guess, named[1], identity)


def _need_classes_alone(found: Survey, top: str, classes: Sequence[str]) -> None:
    """Fail where images lie in a further folder beside those of the classes: it would be one of them."""
    below = {place.rpartition("/")[2] for place in found.places if place and place.rpartition("/")[0] == top}
    if beside := sorted(below - set(classes)):
        raise KitError(
            f"{found.folder / top}: the folders of the classes lie beside {some(beside, 3)}, which would be taken "
            "for a class, too; move those of the classes into a folder of their own, like train/"
        )


def _pixels(
    guess: CompetitionGuess, found: Survey, names: list[str], test: str | None, sample: str | None
) -> None:
    """The settings where the pixels stand in the table."""
    trains = [name for name in names if name in found.pixels]
    if not trains:
        raise KitError(f"{found.folder} holds no images, and no table but {some(found.pixels)} holds pixels")
    train = min(trains, key=lambda name: (not is_of("train", name), name))
    pixels, table = found.pixels[train], found.tables[train]
    guess.put("train", train, f"{pixels.count} columns of pixels")
    _test_side(guess, (test, sample))
    tests = None if test is None else found.tables[test]
    labels = guess_labels(table, (), tests, None if sample is None else found.tables[sample])
    if labels is None:
        raise KitError(f"{found.folder / train}: no column looks like labels; it has {some(table.columns)}")
    shared = [name for name in table.columns if tests is not None and name in tests and table[name].is_unique]
    identity = shared[0] if shared else None
    guess.put("id", identity, "" if identity else "the tables have none: rows count from 1")
    _labels(guess, labels, table, identity)
    shape = {"columns": pixels.pattern}
    guess.put("train_images", shape, "the pixels stand in the table")
    guess.put("test_images", shape)
    if math.isqrt(pixels.count) ** 2 != pixels.count:
        guess.ask("train_images", f"{pixels.count} pixels are no square: give height and width")
    _hand_in(guess, sample, identity or "id")
