"""Groups planted in columns, beginnings of ids and runs of ids are found; what is none is left alone."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from kit.competition.find_groups import suspected_groups
from kit.competition.folds import group_texts, make_folds
from kit.competition.folds_config import FoldsConfig

FOLDS = FoldsConfig(k=3)
GENERATOR = np.random.default_rng(0)
ROWS, CLASSES, SIZE = 360, 4, 6
TRACK = np.repeat(np.arange(ROWS // SIZE), SIZE)  # each of one class, which comes in any order
TRACK_LABELS = GENERATOR.integers(0, CLASSES, ROWS // SIZE)[TRACK]
NUMBERED = [f"{row:05d}" for row in GENERATOR.permutation(ROWS)]
NEXT = np.array([[row, row + 1] for row in range(ROWS - 1) if TRACK[row] == TRACK[row + 1]])


def suspects(targets, ids=None, folds=FOLDS, pairs=None, **columns):
    ids = NUMBERED if ids is None else list(ids)
    table = pd.DataFrame({"id": ids, "label": list(map(str, targets))} | columns, dtype=str)
    found = suspected_groups(ids, table, np.asarray(targets), folds, skip=["label"], pairs=pairs)
    for suspect in found:  # what is proposed can be set, and makes the groups that were counted
        if suspect.setting:
            stated = FoldsConfig(k=folds.k, **yaml.safe_load(suspect.setting)["folds"])
            assert len(set(group_texts(stated, table))) == suspect.groups
            plan = make_folds(ids, np.asarray(targets), stated, table)
            assert pd.Series(plan.fold).groupby(plan.groups).nunique().max() == 1
    return found


def settings_of(found):
    return [suspect.setting for suspect in found]


def test_a_column_of_tracks():
    found = suspects(TRACK_LABELS, track=[f"t{track}" for track in TRACK])
    assert settings_of(found) == ["folds: {group: track}"]
    assert (found[0].groups, found[0].typical, found[0].largest) == (60, 6, 6)
    assert "100% of the pairs inside have the same label" in found[0].evidence


def test_a_column_whose_name_needs_quotes():
    found = suspects(TRACK_LABELS, **{"the track: it's": [f"t{track}" for track in TRACK]})
    assert settings_of(found) == ["folds: {group: 'the track: it''s'}"]


def test_near_identical_images_tell_groups_that_labels_do_not():
    labels = GENERATOR.integers(0, CLASSES, ROWS)
    shots = [f"s{track}" for track in TRACK]
    assert suspects(labels, burst_key=shots) == []
    found = suspects(labels, burst_key=shots, pairs=NEXT)
    assert settings_of(found) == ["folds: {group: burst_key}"]
    assert f"100% of {len(NEXT)} near-identical pairs are inside groups (by chance" in found[0].evidence


def test_a_telling_name_suffices_unless_pairs_speak_against_it():
    labels, patients = GENERATOR.integers(0, CLASSES, ROWS), GENERATOR.integers(0, 90, ROWS).astype(str)
    for name in ("patient", "patient_id", "PatientID", "Lesion Id"):
        (suspect,) = suspects(labels, **{name: patients})
        assert "its name says so" in suspect.evidence
    assert suspects(labels, patient_age=patients) == []
    apart = np.array([[row, (row * 7 + 3) % ROWS] for row in range(60)])
    apart = apart[patients[apart[:, 0]] != patients[apart[:, 1]]]
    assert suspects(labels, patient=patients, pairs=np.sort(apart, axis=1)) == []


def test_an_id_that_begins_with_class_and_track():
    ids = [
        f"{label:05d}_{track:05d}_{row:05d}"
        for row, (label, track) in enumerate(zip(TRACK_LABELS, TRACK, strict=True))
    ]
    (found,) = suspects(TRACK_LABELS, ids)
    assert found.setting == r"folds: {group: id, group_pattern: '^(\d+_\d+)_'}"
    assert found.what == "beginning of id"


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("p{track}_left{row}.png", r"^([^_\-./:\s]+)_"),
        ("{track}-{row}", r"^(\d+)\-"),
        ("{track}/{row}.png", r"^(\d+)/"),
        ("p{track}f{row}.jpeg", r"^(.*\D)\d+(?:\.\w+)?$"),
        ("a b {track} {row}", r"^([^_\-./:\s]+\ [^_\-./:\s]+\ \d+)\ "),
    ],
)
def test_beginnings_of_ids(form, pattern):
    (found,) = suspects(TRACK_LABELS, [form.format(track=track, row=row) for row, track in enumerate(TRACK)])
    assert (found.column, found.pattern, found.groups) == ("id", pattern, 60)


def test_the_beginning_of_another_column_without_repeats():
    files = [f"video{track}_{row}.png" for row, track in enumerate(TRACK)]
    (found,) = suspects(TRACK_LABELS, file=files)
    assert (found.what, found.column) == ("beginning of file", "file")


def test_a_column_and_a_beginning_of_the_same_groups_are_one_suspect():
    ids = [f"{track}_{row}" for row, track in enumerate(TRACK)]
    assert settings_of(suspects(TRACK_LABELS, ids, track=TRACK.astype(str))) == ["folds: {group: track}"]


def test_runs_of_labels_in_numbered_ids():
    """The block of ids is the smallest that hardly cuts a run, where that makes groups enough."""
    names = [f"img{row:04d}.png" for row in range(ROWS)]
    (found,) = suspects(TRACK_LABELS, names)
    assert (found.what, found.groups, found.largest) == ("runs of id", 36, 10)
    assert re.search(r"labels come in runs of [6-9]$", found.evidence)
    longer = np.tile(TRACK_LABELS, 20)
    (found,) = suspects(longer, [f"img{row}.png" for row in range(len(longer))])
    assert (found.groups, found.largest) == (72, 100)


def test_runs_of_near_identical_images_in_ids_that_are_sorted_by_class():
    labels = np.sort(TRACK_LABELS)
    assert suspects(labels, map(str, range(ROWS))) == []
    (found,) = suspects(labels, map(str, range(ROWS)), pairs=NEXT)
    assert found.setting == r"folds: {group: id, group_pattern: '^(.*?)\d(?:\.\w+)?$'}"


def test_groups_that_are_set_are_said_to_be_and_nothing_else_is_proposed():
    tracks = [f"t{track}" for track in TRACK]
    ids = [f"{track}_{row}" for row, track in enumerate(TRACK)]
    (found,) = suspects(TRACK_LABELS, ids, FoldsConfig(k=3, group="track"), track=tracks)
    assert (found.what, found.setting, found.groups) == ("column track", "", 60)
    stated = FoldsConfig(k=3, group="id", group_pattern=r"^(\d+)_")
    (found,) = suspects(TRACK_LABELS, ids, stated, track=tracks)
    assert (found.what, found.setting) == (r"^(\d+)_ in id", "")


def test_other_groups_than_those_that_are_set_are_proposed():
    folds = FoldsConfig(k=3, group="camera")
    found = suspects(
        TRACK_LABELS, None, folds, camera=GENERATOR.integers(0, 9, ROWS).astype(str), track=TRACK.astype(str)
    )
    assert settings_of(found) == ["", "folds: {group: track}"]


def labels_of(kind: str) -> np.ndarray:
    return GENERATOR.integers(0, CLASSES, ROWS) if kind == "random" else np.arange(ROWS) * CLASSES // ROWS


@pytest.mark.parametrize("labels", ["random", "sorted"])
@pytest.mark.parametrize(
    "ids",
    [
        [f"{row}" for row in range(1, ROWS + 1)],
        [f"img_{row:04d}.png" for row in range(ROWS)],
        [f"{number:08x}" for number in GENERATOR.choice(2**32, ROWS, replace=False)],
        [f"{a}_{b}" for a, b in itertools.islice(itertools.product("abcdefghij", range(36)), ROWS)][::-1],
    ],
    ids=["numbers", "names", "hexadecimal", "unrelated beginnings"],
)
def test_ids_that_tell_nothing(ids, labels):
    targets = labels_of(labels)
    if ids[0].startswith("j"):  # their beginnings are tested against labels that have nothing to do with them
        targets = GENERATOR.permutation(targets)
    assert suspects(targets, ids) == []


def test_columns_that_are_no_groups():
    labels = GENERATOR.integers(0, CLASSES, ROWS)
    names = np.array(["cat", "dog", "owl", "pig"])
    mistaken = names[np.where(np.arange(ROWS) % 60 == 0, (labels + 1) % CLASSES, labels)]
    columns = {
        "species": names[labels],
        "nearly_species": mistaken,
        "kingdom": np.where(labels < 2, "mammal", "other"),
        "diagnosis": [
            f"{names[label]}{part}" for label, part in zip(labels, GENERATOR.integers(0, 4, ROWS), strict=True)
        ],
        "checksum": [f"{row:x}" for row in range(ROWS)],
        "constant": ["x"] * ROWS,
        "patient_sex": GENERATOR.choice(["f", "m"], ROWS),
        "width": GENERATOR.integers(90, 130, ROWS).astype(str),
        "fold": GENERATOR.integers(0, 5, ROWS).astype(str),
    }
    pairs = np.array([[0, 9], [4, 100], [7, 8], [20, 300], [33, 34], [50, 90]])
    assert suspects(labels, **columns) == []
    assert suspects(labels, pairs=pairs, **columns) == []


def test_classes_at_the_beginning_of_ids_are_no_groups():
    labels = GENERATOR.integers(0, CLASSES, ROWS)
    ids = [f"{'abcd'[label] * 3}{row}.jpg" for row, label in enumerate(labels)]
    assert suspects(labels, ids) == []
    assert suspects(labels, [f"{label}/{row}" for row, label in enumerate(labels)]) == []


def test_rows_with_several_labels():
    several = GENERATOR.integers(0, 2, (60, 3)).astype(bool)[TRACK]
    table = pd.DataFrame({"id": NUMBERED, "track": TRACK.astype(str)})
    found = suspected_groups(NUMBERED, table, several, FOLDS)
    assert settings_of(found) == ["folds: {group: track}"]
    assert suspected_groups(NUMBERED, table, GENERATOR.permutation(several), FoldsConfig(k=3, group="track")) != []
    assert suspected_groups(NUMBERED, table[["id"]], several, FOLDS) == []


def test_the_largest_group_is_told_where_a_fold_cannot_hold_it():
    labels, sites = GENERATOR.integers(0, CLASSES, ROWS), np.where(np.arange(ROWS) < 200, 0, np.arange(ROWS) // 20)
    (found,) = suspects(labels, site=sites.astype(str))
    assert "the largest is more than one fold of 3 holds" in found.evidence
