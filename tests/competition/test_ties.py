"""Which extra rows train which fold: against a slow obvious rule, and by pictures, groups, observations, time."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.competition.config import CompetitionConfig
from kit.competition.extra import EVERY, ExtraRows, ExtraTable
from kit.competition.folds import FoldPlan
from kit.competition.folds_config import FoldsConfig
from kit.competition.observations import Observations
from kit.competition.ties import ExtraPlan, Tie, need_plan, plan_extra
from kit.core.errors import KitError

TRAIN = 6


def table(rows: int, fold=None, cells: dict | None = None, **changes) -> ExtraTable:
    """An extra table of `rows` rows, each with an image of its own."""
    made = ExtraTable(
        name="more.csv",
        key="competition.extra",
        where="more/more.csv",
        root=None,
        ids=[f"e{row}" for row in range(rows)],
        sources=[None] * rows,
        image=np.arange(rows),
        targets=np.zeros(rows, dtype=np.int64),
        weights=np.ones(rows),
        fold=np.full(rows, EVERY) if fold is None else np.array(fold),
        cells=pd.DataFrame(cells or {"id": [f"e{row}" for row in range(rows)]}, dtype=str),
    )
    return replace(made, **changes)


def plan(fold, **more) -> FoldPlan:
    return FoldPlan([f"t{row}" for row in range(len(fold))], np.array(fold), **more)


def looks(digests, hashes=None, kinds=None, says=True):
    """What is known of images: their pixels' digests, and hashes of which each bit is told."""
    count = len(digests)
    hashes = np.arange(count) if hashes is None else np.array(hashes)
    thumbnails = np.random.default_rng(0).integers(0, 256, (64, 4, 4)).astype(np.uint8)
    return SimpleNamespace(
        digests=np.array(digests),
        hashes=hashes.astype(np.uint64),
        thumbnails=thumbnails[hashes % 64],
        comparable=np.full(count, says),
        width=np.full(count, 8),
        height=np.full(count, 8),
        kinds=np.array(kinds or ["PNG RGB"] * count),
    )


def planned(extra, train=None, others=None, cells=None, observations=None, folds=None, **competition) -> ExtraPlan:
    rows = len(extra.tables[0])
    images = {
        "train": train or looks([f"t{row}" for row in range(TRAIN)], range(TRAIN)),
        "extra": others or looks([f"e{row}" for row in range(rows)], range(40, 40 + rows)),
    }
    return plan_extra(
        extra,
        pd.DataFrame(cells or {"id": [f"t{row}" for row in range(TRAIN)]}, dtype=str),
        observations,
        CompetitionConfig(path="x", **competition),
        FoldsConfig(k=3, **(folds or {})),
        images.__getitem__,
    )


THREE = plan([0, 0, 1, 1, 2, 2])


@st.composite
def situations(draw):
    k, rows, own = 3, draw(st.integers(1, 8)), draw(st.integers(3, 10))
    folds = draw(st.lists(st.integers(-1, k - 1), min_size=own, max_size=own))
    of_rows = draw(st.lists(st.integers(-1, k - 1), min_size=rows, max_size=rows))
    weights = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=rows, max_size=rows))
    codes = st.integers(-1, 4)
    ties = [
        (
            draw(st.lists(codes, min_size=rows, max_size=rows)),
            draw(st.lists(codes, min_size=own, max_size=own)),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    return folds, of_rows, weights, ties, draw(st.sampled_from([None, 0, 1, 2]))


@given(situations())
def test_the_slow_obvious_rule(situation):
    """An extra row trains a fold unless one row that is held out, or of the unused fold, has a code in common."""
    folds, of_rows, weights, ties, unused = situation
    rows = len(of_rows)
    extra = ExtraRows((table(rows, of_rows, weights=np.array(weights)),))
    made = [
        Tie(f"tie {number}", np.arange(rows), np.array(codes), np.array(train))
        for number, (codes, train) in enumerate(ties)
    ]
    for fold in range(3):
        if fold == unused:
            continue
        expected = []
        for row in range(rows):
            held = [own for own, number in enumerate(folds) if number in (fold, unused)]
            tied = any(codes[row] >= 0 and codes[row] == train[own] for codes, train in ties for own in held)
            there = weights[row] > 0 and of_rows[row] in (EVERY, fold)
            if there and not tied and not (unused is not None and of_rows[row] != EVERY):
                expected.append(row)
        found = ExtraPlan(extra, tuple(made)).training_rows(plan(folds, unused=unused), fold)
        assert found.tolist() == expected


def test_the_same_pixels_train_no_fold_that_holds_them_out():
    """All folds that hold one of them, as the train table itself may have them twice."""
    train = looks(["a", "b", "c", "a", "", "f"], range(TRAIN))
    made = planned(ExtraRows((table(3),)), train, looks(["a", "new", ""], [50, 51, 52]))
    assert [made.training_rows(THREE, fold).tolist() for fold in range(3)] == [[1, 2], [1, 2], [0, 1, 2]]
    nested = replace(THREE, unused=1)
    assert [made.training_rows(nested, fold).tolist() for fold in (0, 2)] == [[1, 2], [1, 2]]


def test_the_same_picture_in_another_mode():
    """A grey picture that is stored with three channels has other pixels, but nobody sees a difference."""
    train = looks([f"t{row}" for row in range(TRAIN)], range(TRAIN), ["PNG L"] * 5 + ["PNG RGB"])
    others = looks(["e0", "e1", "e2"], [0, 5, 33], ["PNG RGB"] * 3)
    made = planned(ExtraRows((table(3),)), train, others)
    assert [made.training_rows(THREE, fold).tolist() for fold in range(3)] == [[1, 2], [0, 1, 2], [0, 1, 2]]
    flat = planned(ExtraRows((table(3),)), replace_says(train), replace_says(others))
    assert flat.training_rows(THREE, 0).tolist() == [0, 1, 2]  # of which hash and thumbnail say nothing


def replace_says(images):
    return SimpleNamespace(**vars(images) | {"comparable": np.zeros(len(images.digests), dtype=bool)})


@pytest.mark.parametrize(("setting", "left"), [("none", False), ("exact", False), (3, False), (4, True)])
def test_near_copies_where_duplicates_are_looked_for(setting, left):
    """Copies of a near copy, too, of which only the first is compared; else it is told."""
    train, others = looks([f"t{row}" for row in range(TRAIN)], range(TRAIN)), looks(["e", "e"], [0b1111 << 8] * 2)
    others.thumbnails[:] = train.thumbnails[0]
    made = planned(ExtraRows((table(2),)), train, others, folds={"duplicates": setting})
    assert made.training_rows(THREE, 0).tolist() == ([] if left else [0, 1])
    assert made.training_rows(THREE, 1).tolist() == [0, 1]
    told = made.told(THREE, range(3))
    warned = "2 extra rows train though their fold holds out a near-identical picture" in told[-1]
    assert warned == isinstance(setting, str)
    assert ("2 left out in some folds (2 in fold 0)" in told[0]) == left


def test_row_groups_by_their_column():
    cells = {"id": [f"t{row}" for row in range(TRAIN)], "patient": ["p", "p", "q", "q", "r 1", "r 2"]}
    of_extra = {"id": ["e0", "e1", "e2"], "patient": ["q", "s", "r 2 "]}
    made = planned(ExtraRows((table(3, cells=of_extra),)), cells=cells, folds={"group": "patient"})
    assert [made.training_rows(THREE, fold).tolist() for fold in range(3)] == [[0, 1, 2], [1, 2], [0, 1]]
    by_pattern = {"group": "patient", "group_pattern": "^."}
    made = planned(ExtraRows((table(3, cells=of_extra),)), cells=cells, folds=by_pattern)
    assert made.training_rows(THREE, 2).tolist() == [0, 1]
    assert "1 with the row group of one" in made.told(THREE, [2])[0]
    without = planned(ExtraRows((table(3),)), cells=cells, folds={"group": "patient"})
    assert without.training_rows(THREE, 1).tolist() == [0, 1, 2]  # its column is not there, which is told
    assert without.told(THREE, [1])[1].startswith(
        "competition.extra: more.csv has no column 'patient' (folds.group), which would tell the rows that"
    )
    assert len(made.told(THREE, [1])) == 1
    of_extra["patient"][1] = " "
    with pytest.raises(KitError, match=r"folds.group: more/more.csv: column 'patient' is empty in 1 rows"):
        planned(ExtraRows((table(3, cells=of_extra),)), cells=cells, folds={"group": "patient"})
    beside = table(3, cells=of_extra, beside=("patient",))  # the competition's own cells may be empty
    made = planned(ExtraRows((beside,)), cells=cells, folds={"group": "patient"})
    assert made.training_rows(THREE, 1).tolist() == [1, 2]


def test_row_groups_that_the_id_tells():
    """Whatever the extra table calls its ids; those in which the pattern finds nothing are told."""
    cells = {"id": ["a_0", "a_1", "b_0", "b_1", "c_0", "c_1"]}
    by_pattern = {"group": "id", "group_pattern": "^([a-z])_"}
    named = table(3, cells={"file": ["b_7", "d_7", "0007"]}, ids=["b_7", "d_7", "0007"])
    made = planned(ExtraRows((named,)), cells=cells, folds=by_pattern)
    assert [made.training_rows(THREE, fold).tolist() for fold in range(3)] == [[0, 1, 2], [1, 2], [0, 1, 2]]
    assert made.told(THREE, [1])[1] == (
        "competition.extra: folds.group_pattern finds no row group in 1 of 3 rows of more.csv (column 'id': 0007):"
        " these train, but for those with a held-out picture"
    )
    all_told = planned(ExtraRows((table(2, ids=["a_3", "b_3"]),)), cells=cells, folds=by_pattern)
    assert len(all_told.told(THREE, [0])) == 1


@pytest.mark.parametrize("rows", ["observation", "{observation}"])
def test_observations(rows):
    names = ["x", "x", "y", "y", "z", "z"]
    observations = Observations([f"t{row}" for row in range(TRAIN)], names, "mean", True)
    of_extra = {"id": ["e0", "e1"], "observation": ["y", "w"]}
    made = planned(ExtraRows((table(2, cells=of_extra),)), observations=observations, predict_by=rows)
    assert [made.training_rows(THREE, fold).tolist() for fold in range(3)] == [[0, 1], [1], [0, 1]]
    without = planned(ExtraRows((table(2),)), observations=observations, predict_by=rows)
    assert "has no column 'observation' (competition.predict_by)" in without.told(THREE, [1])[1]


def test_observations_that_the_id_tells():
    """Though the extra table calls its column of ids otherwise."""
    names = ["ab", "ab", "cd", "cd", "ef", "ef"]
    observations = Observations([f"t{row}" for row in range(TRAIN)], names, "mean", True)
    of_extra = table(2, cells={"file": ["cd-1", "xy-1"]}, ids=["cd-1", "xy-1"])
    made = planned(ExtraRows((of_extra,)), observations=observations, predict_by="{id:.2}")
    assert [made.training_rows(THREE, fold).tolist() for fold in range(3)] == [[0, 1], [1], [0, 1]]
    assert len(made.told(THREE, [1])) == 1  # nothing is lacking


def test_time_lets_earlier_rows_train():
    cells = {"id": [f"t{row}" for row in range(TRAIN)], "day": ["2020-01-01", "2020-01-02", "2020-02-01"] * 2}
    forward = plan([-1, 0, 1, -1, 0, 1], forward=True)
    of_extra = {"id": ["e0", "e1", "e2"], "day": ["2020-01-01", "2020-01-02", "2021-01-01"]}
    made = planned(ExtraRows((table(3, cells=of_extra),)), cells=cells, folds={"time": "day"})
    assert [made.training_rows(forward, fold).tolist() for fold in range(2)] == [[0], [0, 1]]
    assert "2 left out in some folds (2 in fold 0): 2 not earlier than all of them" in made.told(forward, [0])[0]
    with pytest.raises(KitError, match=r"more/more.csv has no column 'day' \(folds.time\)"):
        planned(ExtraRows((table(3),)), cells=cells, folds={"time": "day"})
    of_extra["day"][0] = ""
    with pytest.raises(KitError, match="empty in some rows"):
        planned(ExtraRows((table(3, cells=of_extra),)), cells=cells, folds={"time": "day"})


def test_a_fold_that_is_not_there_and_folds_of_another_plan():
    with pytest.raises(KitError, match=r"fold 3, but there are 0 to 2"):
        planned(ExtraRows((table(2, [0, 3]),)))
    cells = {"id": ["e0", "e1"], "fold_plan": [THREE.digest] * 2}
    need_plan(ExtraRows((table(2, [0, 1], cells),)), THREE)
    need_plan(ExtraRows((table(2, None, cells),)), plan([0, 1, 2, 0, 1, 2]))  # which names no folds
    message = re.escape("more/more.csv names folds of another plan")
    with pytest.raises(KitError, match=message):
        need_plan(ExtraRows((table(2, [0, 1], cells),)), plan([0, 1, 2, 0, 1, 2]))
