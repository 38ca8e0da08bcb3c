"""What the train rows say of labels: the classes and their names, the targets, and what is odd in them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig, NamesConfig
from kit.competition.evidence import need_no_lists, remarks_on_labels
from kit.competition.headers import plainly_named
from kit.competition.labels import (
    Labels,
    MultiLabel,
    SingleLabel,
    encode_columns,
    extended,
    label_counts,
    spelling_of,
)
from kit.competition.observations import Observations, need_one_label, observations_of
from kit.competition.sides import sample_submission, train_place
from kit.competition.spelling import respelt, stripped
from kit.competition.submission import (
    id_column_of,
)
from kit.competition.tables import need_columns, need_unique, read_table
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.scoring.pooling import need_poolable

SEPARATORS = (" ", ",", ";", "|")  # what may stand between labels


class TrainLabels(NamedTuple):
    """What is known of the training rows without a look at the images; as in `Competition`."""

    label_format: Labels
    ids: list[str]
    targets: np.ndarray
    observations: Observations | None


def train_labels(
    train: pd.DataFrame, config: CompetitionConfig, folder: Path, remarks: list[str]
) -> tuple[Labels, np.ndarray]:
    """The label format, and the targets of the rows; `remarks` takes what there is to tell."""
    label_format, targets = _labels_in_table(train, config, train_place(folder, config), remarks)
    if config.classes_without_rows == "allowed" and not config.submit_names:
        columns = list(sample_submission(folder, config).columns)
        classes = [name for name in columns if name != id_column_of(columns, config.submitted_id)]
        if len(classes) > 1:  # else it is no column of a class
            return extended(label_format, targets, label_format.unknown(classes))
    return label_format, targets


def _labels_in_table(
    train: pd.DataFrame, config: CompetitionConfig, where: str, remarks: list[str]
) -> tuple[Labels, np.ndarray]:
    if isinstance(config.label, tuple):
        targets = encode_columns(train, config.label, f"competition.label: {where}")
        return MultiLabel(config.label, may_be_empty=not targets.any(axis=1).all()), targets
    cells = train[config.label]
    need_no_lists(cells, config)
    separator = config.cell_separator
    if not separator and len(unlabelled := train.loc[cells.map(stripped) == "", config.id_column]):
        raise KitError(
            f"competition.train: {where}: no label in {len(unlabelled)} of {len(train)} rows "
            f"(id {some(unlabelled, 5)}); label them or remove the rows"
        )
    label_format = MultiLabel.of(cells, separator) if separator else SingleLabel.of(cells)
    if config.classes:
        label_format = label_format.with_classes(respelt(config.classes, label_counts(cells, label_format)))
    remarks += remarks_on_labels(cells, config, label_format)
    targets = label_format.encode(cells.tolist(), "competition.label")
    if isinstance(label_format, MultiLabel):
        label_format = replace(label_format, separator=config.separator or " ")
    return label_format, targets


def check_classes(label_format: Labels, targets: np.ndarray, config: CompetitionConfig) -> list[str]:
    """Refuse classes that cannot be learned; return lines about those that are never predicted."""
    place = "competition.classes" if config.classes else "competition.label"
    counts = (
        targets.sum(axis=0)
        if label_format.multilabel
        else np.bincount(targets, minlength=len(label_format.classes))
    )
    if len(label_format.classes) < 2:
        held = f": {label_format.classes[0]!r}" if label_format.classes else ""
        raise KitError(f"competition.label: column {config.label!r} holds one class only{held}")
    without = [name for name, count in zip(label_format.classes, counts, strict=True) if not count]
    if without and config.classes_without_rows == "refused":
        raise KitError(
            f"{place}: no training row has {some(map(repr, without), 10)}; leave out what cannot be learned, or "
            "set competition.classes_without_rows=allowed: then it is never predicted"
        )
    if len(label_format.classes) - len(without) < 2:
        raise KitError(f"{place}: less than two classes have a training row; nothing can be learned")
    if not label_format.multilabel and len(label_format.classes) - len(without) == len(targets):
        raise KitError(
            f"competition.label: every row of column {config.label!r} has a class of its own; is it the label?"
        )
    if "id" in label_format.classes:
        raise KitError("competition.label: a class cannot be called 'id'; prediction files use that column name")
    return [f"{place}: no training row has {some(map(repr, without), 10)}: never predicted"] if without else []


def train_observations(
    train: pd.DataFrame, config: CompetitionConfig, label_format: Labels, targets: np.ndarray, where: str
) -> Observations | None:
    """Which training rows make up one prediction, and so have one label; None: each for itself."""
    observations = observations_of(train, config, where)
    if observations:
        need_poolable(observations.pool, observations.exclusive, len(label_format.classes))
        need_one_label(observations, targets, label_format.decode(targets))
    return observations


def label_hints(config: CompetitionConfig, train: pd.DataFrame, label_format: Labels) -> list[str]:
    """Return lines about labels that look like several in a cell, or about a separator that is never used."""
    classes = set(label_format.classes)
    if config.long_form or (isinstance(label_format, MultiLabel) and label_format.style):
        return []
    if config.separator and not train[config.label].str.contains(config.separator, regex=False).any():
        return [f"competition.separator: {config.separator!r} stands in no cell of column {config.label!r}"]
    if label_format.multilabel:
        return []
    for separator in SEPARATORS:
        joined = [name for name in classes if separator in name and set(name.split(separator)) <= classes]
        if joined:
            return [
                f"classes like {some(map(repr, sorted(joined)), 2)} are others joined by {separator!r}; if they "
                f"are several labels, set competition.separator={separator!r}"
            ]
    return []


def encode_labels(table: pd.DataFrame, config: CompetitionConfig, label_format: Labels, what: str) -> np.ndarray:
    """Return the targets of a table that has the config's label columns.

    Parameters
    ----------
    table : DataFrame
        Every cell as text.
    config : CompetitionConfig
        Names the label columns.
    label_format : SingleLabel or MultiLabel
        With the classes.
    what : str
        Where the labels stand, for messages.

    Returns
    -------
    ndarray
        Class indices, int64 [rows], or bool [rows, classes].

    Raises
    ------
    KitError
        For a label that is no class.
    """
    if isinstance(config.label, tuple):
        return encode_columns(table, config.label, what)
    if isinstance(label_format, MultiLabel):
        label_format = replace(label_format, separator=config.cell_separator or " ")
    return label_format.encode(table[config.label].tolist(), what)


def class_names(folder: Path, config: CompetitionConfig, classes: tuple[str, ...]) -> dict[str, str]:
    """Return the name of each class for people: as the config says, else the class itself."""
    stated = config.names or {}
    if isinstance(stated, NamesConfig):
        path = inside(folder, stated.table, "competition.names.table")
        table = read_table(path, "competition.names.table", reader=config.tables)
        keys = {"competition.names.label": stated.label, "competition.names.name": stated.name}
        table, _ = plainly_named(table, list(keys.values()), str(path))
        need_columns(table, keys, path)
        need_unique(table[stated.label], f"competition.names: {path}")
        stated = dict(zip(table[stated.label], table[stated.name], strict=True))
    given = _names_given(stated, classes)
    names = {name: given.get(name, name) for name in classes}
    if config.submit_names:
        if nameless := [name for name in classes if not given.get(name)]:
            raise KitError(
                f"competition.names: no name for {some(nameless, 5)}, and submit_names wants one for each"
            )
        if len(set(names.values())) < len(names):
            raise KitError("competition.names: two classes have the same name, and submit_names wants them apart")
    return names


def _names_given(stated: Mapping[str, str], classes: tuple[str, ...]) -> dict[str, str]:
    """The name of each class that has one; KitError where one has several."""
    spelling, given = spelling_of(classes), dict[str, str]()
    key_of: dict[str, str] = {}
    for key, name in stated.items():
        if (place := spelling.place(key)) is None:
            continue
        label = classes[place]
        if given.setdefault(label, name) != name:
            raise KitError(
                f"competition.names: {key_of[label]!r} and {key!r} are one label, class {label!r}, with two "
                "names; leave one of them"
            )
        key_of.setdefault(label, key)
    return given
