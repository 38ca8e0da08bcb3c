"""Which rows get pseudo-labels, and which; against a slow obvious version and a simulation with known truth."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pseudo import KINDS, interval, replication
from kit.competition.extra import FOLD_PLAN
from kit.core.errors import KitError
from kit.experiment.pseudo_labels import Columns, PseudoOptions, confidence, labelled, summary, table_of


def frame(values, ids="abcdefghij", classes="xyz") -> pd.DataFrame:
    values = np.array(values)
    return pd.DataFrame(values, index=list(ids)[: len(values)], columns=list(classes)[: values.shape[1]])


ONE = frame([[0.2, 0.7, 0.1], [0.05, 0.0, 0.95], [0.9, 0.05, 0.05], [0.34, 0.33, 0.33]])
SEVERAL = frame([[0.95, 0.02, 0.4], [0.97, 0.04, 0.93], [0.5, 0.01, 0.0], [0.01, 0.02, 0.03]])


def test_the_surest_class_decides_where_a_row_has_one_label():
    assert confidence(ONE.to_numpy(), False).tolist() == [0.7, 0.95, 0.9, 0.34]
    taken = labelled(ONE, PseudoOptions(at_least=0.9), False)
    assert taken.index.tolist() == ["b", "c"]
    assert taken.to_numpy().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_least_sure_class_decides_where_a_row_may_have_several():
    assert confidence(SEVERAL.to_numpy(), True) == pytest.approx([0.6, 0.93, 0.5, 0.97])
    taken = labelled(SEVERAL, PseudoOptions(at_least=0.93), True)
    assert taken.index.tolist() == ["b", "d"]
    assert taken.to_numpy().tolist() == [[1, 0, 1], [0, 0, 0]]  # a row may have no label at all
    assert labelled(SEVERAL, PseudoOptions(at_least=0.5), True).loc["c"].tolist() == [1, 0, 0]  # from .5 on


def test_without_a_word_hard_labels_are_sure_and_soft_ones_of_all_rows():
    assert labelled(ONE, PseudoOptions(), False).index.tolist() == ["b", "c"]  # .9
    soft = labelled(ONE, PseudoOptions(soft=True), False)
    pd.testing.assert_frame_equal(soft, ONE)
    assert labelled(ONE, PseudoOptions(soft=True, at_least=0.6), False).index.tolist() == ["a", "b", "c"]


def test_a_share_takes_the_surest_and_of_equals_the_lower_ids():
    equal = frame([[0.8, 0.2], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2], [0.5, 0.5]], "dbeac", "xy")
    for share, ids in ((0.2, "e"), (0.4, "ea"), (0.6, "eab"), (0.8, "eabd"), (1.0, "eabdc"), (0.01, "e")):
        assert sorted(labelled(equal, PseudoOptions(share=share), False).index) == sorted(ids)
    assert labelled(equal, PseudoOptions(share=1.0), False).index.tolist() == list("dbeac")  # order as given


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(
        st.lists(st.integers(0, 1000).map(lambda part: part / 1000), min_size=3, max_size=3),
        min_size=1,
        max_size=7,
    ),
    st.one_of(st.none(), st.floats(0.01, 1)),
    st.booleans(),
    st.booleans(),
)
def test_labels_are_those_of_a_loop_over_rows(values, at_least, soft, multilabel):
    options = PseudoOptions(at_least=at_least, soft=soft)
    taken = labelled(frame(values), options, multilabel)
    expected = {}
    for name, row in zip("abcdefg", values, strict=False):
        sure = min(max(p, 1 - p) for p in row) if multilabel else max(row)
        if at_least is None and not soft and sure < 0.9:
            continue
        if at_least is not None and sure < at_least:
            continue
        hard = (
            [float(p >= 0.5) for p in row] if multilabel else [float(k == row.index(max(row))) for k in range(3)]
        )
        expected[name] = [round(p, 6) for p in row] if soft else hard
    assert {name: row.tolist() for name, row in taken.iterrows()} == expected


def test_the_table_holds_a_row_a_label_with_its_fold_and_names_no_class_has():
    table = table_of({1: ONE.iloc[:1], 0: ONE.iloc[1:3]}, 0.5, "0123abcd")
    assert list(table.columns) == ["id", "fold", "x", "y", "z", "weight", FOLD_PLAN]
    assert table[["id", "fold", "z", "weight", FOLD_PLAN]].to_numpy().tolist() == [
        ["b", 0, 0.95, 0.5, "0123abcd"],
        ["c", 0, 0.05, 0.5, "0123abcd"],
        ["a", 1, 0.1, 0.5, "0123abcd"],
    ]
    assert Columns.beside(["ID ", "weight", "weight_", "x"]) == Columns("id_", "fold", "weight__")
    with pytest.raises(KitError, match="'fold_plan' has the name of a column"):
        Columns.beside(["x", "Fold_Plan"])
    with pytest.raises(KitError, match="not all folds' models know z"):
        table_of({0: ONE, 1: ONE[["x", "y"]]}, 1, "")


def test_what_is_told_of_a_fold():
    told = summary(3, 2, ONE, labelled(ONE, PseudoOptions(soft=True, at_least=0.6), False), False)
    assert (told.fold, told.models, told.rows, told.labelled) == (3, 2, 4, 3)
    assert told.confidence == pytest.approx((0.7 + 0.95 + 0.9) / 3)
    assert told.classes == {"x": 1, "y": 1, "z": 1}
    nothing = summary(0, 1, ONE, ONE.iloc[:0], False)
    assert (nothing.labelled, nothing.confidence, sum(nothing.classes.values())) == (0, None, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_least": 0.9, "share": 0.5}, "--at-least, --share: both say which rows are taken"),
        ({"at_least": 96}, "--at-least 96: expected a number above 0, up to 1"),
        ({"at_least": float("nan")}, "--at-least nan: expected a number"),
        ({"share": 0}, "--share 0: expected a number above 0"),
        ({"weight": 0}, "--weight 0: expected a number above 0"),
        ({"weight": float("nan")}, "--weight nan: expected a number above 0"),
    ],
)
def test_options_that_mean_nothing(options, message):
    with pytest.raises(KitError) as caught:
        PseudoOptions(**options)
    assert str(caught.value).startswith(message)


def simulated(kind: str, options: PseudoOptions, replications: int) -> dict[str, np.ndarray]:
    """By way, [replications, 2]: out-of-fold and fresh macro F1."""
    each = [replication(KINDS[kind], options, seed) for seed in range(replications)]
    return {way: np.array([found[way] for found in each]) for way in each[0]}


def optimism(scores: np.ndarray) -> tuple[float, float]:
    """Mean of OOF − fresh, and half the width of its 95 % interval."""
    return interval(scores[:, 0] - scores[:, 1])


def gain(found: dict[str, np.ndarray], way: str) -> tuple[float, float]:
    return interval(found[way][:, 1] - found["none"][:, 1])


def test_labels_of_the_mean_raise_the_out_of_fold_score_above_the_truth_and_those_of_the_fold_do_not():
    found = simulated("clear classes, a tenth of the labels wrong", PseudoOptions(at_least=0.9), 24)
    mean, half = optimism(found["mean"])
    assert mean - half > 0
    honest, _ = optimism(found["fold by fold"])
    assert abs(honest) <= 0.01
    assert abs(honest - optimism(found["none"])[0]) <= 0.01  # of the same held-out rows: luck is shared
    gained, half = gain(found, "fold by fold")
    assert gained - half > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fold_honest_scores_are_those_of_fresh_rows(kind):
    found = simulated(kind, PseudoOptions(at_least=0.9), 150)
    mean, half = optimism(found["mean"])
    assert mean - half > 0.01
    honest, half = optimism(found["fold by fold"])
    assert abs(honest) <= 0.01
    assert half <= 0.01
    gained, half = gain(found, "fold by fold")
    assert gained - half > 0
