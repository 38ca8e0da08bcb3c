"""Each kind of fold plan, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from pydantic import ValidationError
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, StratifiedGroupKFold
from support.refusals import refusal_of

from kit.competition.folds import (
    EARLIEST,
    FoldPlan,
    check_folds,
    check_plan,
    group_texts,
    make_folds,
    read_folds,
    write_folds,
)
from kit.competition.folds_config import FoldsConfig
from kit.competition.stratify import stratify_groups


def ids(count: int) -> list[str]:
    return [f"i{row:03d}" for row in range(count)]


def train(**columns) -> pd.DataFrame:
    return pd.DataFrame({name: list(map(str, cells)) for name, cells in columns.items()}, dtype=object)


def held_out(splitter, targets, groups=None) -> np.ndarray:
    fold = np.full(len(targets), -9)
    for number, (_, rows) in enumerate(splitter.split(np.zeros(len(targets)), targets, groups)):
        fold[rows] = number
    return fold


def several_labels(rows: int, classes: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.random((rows, classes)) < np.linspace(0.15, 0.6, classes)


@pytest.mark.parametrize("seed", [0, 5])
def test_plain_folds_are_scikit_learns_kfold(seed):
    targets = np.zeros(23, dtype=np.int64)
    plan = make_folds(ids(23), targets, FoldsConfig(k=4, seed=seed, stratify=False))
    expected = held_out(KFold(4, shuffle=True, random_state=seed), targets)
    assert plan.fold.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", [0, 5])
def test_several_labels_are_dealt_by_iterative_stratification(seed):
    targets = several_labels(60, 4)
    plan = make_folds(ids(60), targets, FoldsConfig(k=3, seed=seed))
    expected = held_out(MultilabelStratifiedKFold(3, shuffle=True, random_state=seed), targets.astype(int))
    assert plan.fold.tolist() == expected.tolist()
    shares = np.array([targets[plan.fold == fold].mean(axis=0) for fold in range(3)])
    assert np.ptp(shares, axis=0).max() < 0.08


@pytest.mark.parametrize("stratify", [True, False])
def test_grouped_folds_are_scikit_learns(stratify):
    generator = np.random.default_rng(1)
    groups, targets = np.sort(generator.integers(0, 12, 60)), generator.integers(0, 3, 60)
    config = FoldsConfig(k=3, seed=2, group="site", stratify=stratify)
    plan = make_folds(ids(60), targets, config, train(site=groups))
    splitter = (StratifiedGroupKFold if stratify else GroupKFold)(3, shuffle=True, random_state=2)
    expected = held_out(splitter, targets, pd.factorize(groups)[0])
    assert plan.fold.tolist() == expected.tolist()
    assert pd.factorize(plan.groups)[0].tolist() == pd.factorize(groups)[0].tolist()


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("several", [True, False])
@given(data=st.data())
@settings(max_examples=25, deadline=None, database=None)
def test_no_group_spans_folds_and_no_fold_is_empty(stratify, several, data):
    count = data.draw(st.integers(8, 30))
    groups = data.draw(st.lists(st.integers(0, 7), min_size=count, max_size=count))
    k = data.draw(st.integers(2, 4))
    if len(set(groups)) < k:
        groups[:k] = range(k)
    targets = several_labels(count, 3, count) if several else np.arange(count) % 2
    config = FoldsConfig(k=k, group="site", stratify=stratify, seed=data.draw(st.integers(0, 3)))
    table = train(site=groups)
    plan = make_folds(ids(count), targets, config, table)
    assert pd.Series(plan.fold).groupby(groups).nunique().max() == 1
    sizes = np.bincount(plan.fold, minlength=k)
    assert (len(sizes), sizes.min() > 0) == (k, True)
    check_plan(plan, config, table)


@pytest.mark.parametrize("kind", ["one label", "several labels"])
@pytest.mark.parametrize(
    "options", [{}, {"group": "site"}, {"stratify": False}, {"stratify": False, "group": "site"}]
)
def test_a_plan_does_not_depend_on_the_order_of_the_table(kind, options):
    generator = np.random.default_rng(3)
    targets = several_labels(40, 3) if kind == "several labels" else generator.integers(0, 3, 40)
    table, names = train(site=generator.integers(0, 9, 40)), ids(40)
    order = generator.permutation(40)
    config = FoldsConfig(k=3, seed=1, **options)
    plan = make_folds(names, targets, config, table)
    other = make_folds([names[row] for row in order], targets[order], config, table.iloc[order])
    assert other.fold.tolist() == plan.fold[order].tolist()


def test_a_pattern_finds_the_group_in_the_text():
    table = train(file=["cat_01_a.png", "cat_01_b.png", "dog_02_a.png", "dog_13_a.png"])
    assert group_texts(FoldsConfig(group="file", group_pattern=r"[a-z]+_\d"), table)[:3] == [
        "cat_0",
        "cat_0",
        "dog_0",
    ]
    assert group_texts(FoldsConfig(group="file", group_pattern=r"_(\d+)_"), table) == ["01", "01", "02", "13"]
    assert group_texts(FoldsConfig(group="file", group_pattern="cat|dog"), table) == ["cat", "cat", "dog", "dog"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(?P<whole>\d)", ["1", "1", "2"]),  # whatever its groups are called
        (r"(?i)[AB]", ["A", "a", "B"]),  # flags have to come first
        (r"([ab])(\d)\2", ["a", "b"]),  # groups are counted as they stand
    ],
)
def test_a_pattern_means_what_it_means_alone(pattern, expected):
    table = train(name=["a11", "b22"] if "2" in pattern else ["A1", "a1", "B2"])
    assert group_texts(FoldsConfig(group="name", group_pattern=pattern), table) == expected


@pytest.mark.parametrize("pattern", ["z", "^$", "(a)|b"])
def test_a_pattern_that_finds_nothing_somewhere_is_refused(pattern):
    message = refusal_of(group_texts, FoldsConfig(group="name", group_pattern=pattern), train(name=["b1", "b2"]))
    assert message == f"folds.group_pattern: {pattern!r} finds nothing in 2 of 2 cells of column 'name' (b1, b2)"


@pytest.mark.parametrize("key", ["group", "time", "column"])
def test_a_column_that_is_not_there_or_empty_somewhere_is_told(key):
    config, targets = FoldsConfig(k=2, **{key: "site"}), np.arange(4) % 2
    message = refusal_of(make_folds, ids(4), targets, config, train(place=range(4)))
    assert message == f"folds.{key}: the train table has no column 'site'; it has place"
    message = refusal_of(make_folds, ids(4), targets, config, train(site=["", "a", "", "b"]))
    assert message == f"folds.{key}: column 'site' is empty in 2 rows (row 1, 3); fill them in"


def test_fewer_groups_than_folds_are_refused():
    message = refusal_of(
        make_folds, ids(6), np.arange(6) % 2, FoldsConfig(k=3, group="site"), train(site=[1, 2] * 3)
    )
    assert message == "folds: 2 groups cannot be dealt to 3 folds; lower folds.k"


def test_images_that_are_alike_join_the_groups_of_the_column():
    config = FoldsConfig(k=2, group="site", stratify=False)
    joined = np.array([0, 1, 2, 2, 4, 5])  # rows 2 and 3 are alike
    plan = make_folds(ids(6), np.zeros(6, int), config, train(site=list("aabbcc")), joined)
    assert pd.factorize(plan.groups)[0].tolist() == [0, 0, 1, 1, 2, 2]
    joined = np.array([0, 1, 1, 3, 4, 5])  # rows 1 and 2 join sites a and b
    plan = make_folds(ids(6), np.zeros(6, int), config, train(site=list("aabbcc")), joined)
    assert pd.factorize(plan.groups)[0].tolist() == [0, 0, 0, 0, 1, 1]
    assert len(set(plan.fold[:4])) == 1


class TestByTime:
    """Each fold is later than all it is trained on."""

    @given(moments=st.lists(st.integers(0, 30), min_size=8, max_size=40), k=st.integers(2, 4))
    @settings(max_examples=80, deadline=None, database=None)
    def test_training_is_earlier_than_what_is_held_out(self, moments, k):
        targets, table = np.zeros(len(moments), int), train(when=moments)
        config, when = FoldsConfig(k=k, time="when"), np.array(moments)
        try:
            plan = make_folds(ids(len(moments)), targets, config, table)
        except Exception as error:
            assert "too few different moments" in str(error)  # noqa: PT017
            assert len(set(moments)) < len(moments)
            return
        check_plan(plan, config, table)
        assert plan.forward
        for fold in range(k):
            training, validation = plan.training_rows(fold), plan.validation_rows(fold)
            assert when[training].max() < when[validation].min()
        assert set(plan.fold) == {EARLIEST, *range(k)}

    def test_moments_that_all_differ_are_cut_into_equal_spans(self):
        order = np.random.default_rng(0).permutation(20)
        plan = make_folds(ids(20), np.zeros(20, int), FoldsConfig(k=4, time="when"), train(when=order))
        assert plan.fold[np.argsort(order)].tolist() == np.repeat([-1, 0, 1, 2, 3], 4).tolist()

    @pytest.mark.parametrize(
        "moments",
        [
            ["9", "10", "11", "-3", "1e2", "7.5"],
            ["2020-01-31", "2020-02-01", "2020-02-02", "2019-12-31", "2021-01-01", "2020-01-30"],
            ["1 Feb 2020", "3 Feb 2020", "1 Mar 2020", "1 Jan 1999", "1 Jan 2022", "1 January 2020"],
            ["01/02/2020", "03/02/2020", "01/03/2020", "01/01/1999", "01/01/2022", "13/01/2020"],
        ],
    )
    def test_numbers_go_by_value_and_dates_by_day_not_by_their_text(self, moments):
        plan = make_folds(ids(6), np.zeros(6, int), FoldsConfig(k=2, time="when"), train(when=moments))
        assert plan.fold.tolist() == [0, 0, 1, -1, 1, -1]

    @pytest.mark.parametrize("odd", ["soon", "nan", "inf", "13/13/2013"])
    def test_what_is_neither_is_named(self, odd):
        message = refusal_of(
            make_folds, ids(3), np.zeros(3, int), FoldsConfig(k=2, time="t"), train(t=["1", odd, "2"])
        )
        assert message.startswith("folds.time: column 't' ")
        assert repr(odd) in message

    def test_too_few_moments_are_refused(self):
        message = refusal_of(
            make_folds, ids(6), np.zeros(6, int), FoldsConfig(k=3, time="t"), train(t=[1, 1, 2, 2, 3, 3])
        )
        assert message == (
            "folds.time: column 't' has too few different moments (3) for 3 folds and an earlier span to train "
            "on; lower folds.k"
        )

    def test_a_plan_read_again_still_looks_forward(self, tmp_path):
        plan = make_folds(ids(9), np.zeros(9, int), FoldsConfig(k=2, time="t"), train(t=range(9)))
        write_folds(plan, tmp_path / "folds.csv")
        again = read_folds(tmp_path / "folds.csv", ids(9), forward=True)
        assert again.digest == plan.digest != read_folds(tmp_path / "folds.csv", ids(9)).digest
        assert again.training_rows(0).tolist() == [0, 1, 2]


class TestGiven:
    """A column of the table holds the folds."""

    @pytest.mark.parametrize(
        ("cells", "expected"),
        [
            (["0", "1", "2", "0"], [0, 1, 2, 0]),
            (["10", "2", "1", "2"], [2, 1, 0, 1]),  # numbers by value
            (["b", "a", "10", "a"], [2, 1, 0, 1]),  # anything else as text
            (["fold 1", "fold 2", "fold 3", "fold 1"], [0, 1, 2, 0]),
        ],
    )
    def test_is_followed(self, cells, expected):
        plan = make_folds(ids(4), np.arange(4), FoldsConfig(k=3, column="fold"), train(fold=cells))
        assert plan.fold.tolist() == expected
        assert not plan.forward

    @pytest.mark.parametrize("never", ["-1", "-1.0", " -1"])
    def test_minus_one_only_trains(self, never):
        """As in scikit-learn's PredefinedSplit, which says here what each fold trains on."""
        cells = ["0", never, "1", "0", never, "1"]
        table, config = train(fold=cells), FoldsConfig(k=2, column="fold")
        plan = make_folds(ids(6), np.zeros(6, int), config, table)
        check_plan(plan, config, table)
        assert plan.fold.tolist() == [0, -1, 1, 0, -1, 1]
        for fold, (training, held) in enumerate(PredefinedSplit([float(cell) for cell in cells]).split()):
            assert plan.training_rows(fold).tolist() == training.tolist()
            assert plan.validation_rows(fold).tolist() == held.tolist()

    def test_beside_folds_that_are_named_it_is_no_name(self):
        plan = make_folds(ids(4), np.zeros(4), FoldsConfig(k=2, column="f"), train(f=["b", "-1", "a", "b"]))
        assert plan.fold.tolist() == [1, -1, 0, 1]

    def test_another_number_of_folds_is_told_with_what_to_set(self):
        def refusal(cells):
            return refusal_of(
                make_folds, ids(len(cells)), np.zeros(len(cells)), FoldsConfig(column="f"), train(f=cells)
            )

        assert refusal(["a", "b", "a"]) == (
            "folds.column: column 'f' holds 2 folds (a, b), but folds.k is 5; set folds.k=2"
        )
        assert refusal(["0", "-1", "1"]) == (
            "folds.column: column 'f' holds 2 folds (0, 1), and -1 for rows that only train, but folds.k is 5; "
            "set folds.k=2"
        )
        assert refusal(["0", "-1"]).endswith(
            "holds 1 different texts, and -1 for rows that only train; folds are 2 to 100"
        )
        assert refusal(["a", "a"]) == "folds.column: column 'f' holds 1 different texts; folds are 2 to 100"
        assert refusal(list(range(101))).endswith("holds 101 different texts; folds are 2 to 100")


class TestChecks:
    """A plan that would give a score that is no score."""

    def plan(self, fold, **options) -> FoldPlan:
        return FoldPlan(ids(len(fold)), np.array(fold), **options)

    def test_a_group_that_spans_folds_is_refused(self):
        table, config = train(site=["a", "a", "b", "b", "c", "c"]), FoldsConfig(k=2, group="site")
        check_plan(self.plan([0, 0, 1, 1, 0, 0]), config, table)
        assert refusal_of(check_plan, self.plan([0, 1, 1, 1, 0, 1]), config, table) == (
            "folds: 2 of 3 groups span folds (a, c), so that models would be scored on what they have seen; make "
            "the plan anew"
        )

    def test_so_is_a_group_of_images_that_are_alike(self):
        plan = self.plan([0, 1, 1, 0], groups=np.array([0, 0, 1, 1]))
        assert refusal_of(check_plan, plan, FoldsConfig(k=2)).startswith("folds: 2 of 2 groups span folds (0, 1)")

    def test_and_one_that_is_partly_never_held_out(self):
        plan = self.plan([-1, 0, 1, 1], groups=np.array([0, 0, 1, 1]))
        assert "1 of 2 groups span folds" in refusal_of(check_plan, plan, FoldsConfig(k=2))

    def test_a_held_out_row_that_is_not_later_is_refused(self):
        table, config = train(when=["1", "2", "2", "3", "4"]), FoldsConfig(k=2, time="when")
        check_plan(self.plan([-1, 0, 0, 1, 1], forward=True), config, table)
        assert refusal_of(check_plan, self.plan([-1, -1, 0, 0, 1], forward=True), config, table) == (
            "folds: 1 of the 2 rows that fold 0 holds out are not later than all that it trains on (row i002 of "
            "'2', row i001 of '2' trains); make the plan anew"
        )
        assert "that fold 1 holds out" in refusal_of(
            check_plan, self.plan([-1, 0, 0, 1, 0], forward=True), config, table
        )

    def test_an_empty_fold_is_refused(self):
        assert refusal_of(check_plan, self.plan([0, 0, 2]), FoldsConfig(k=3)) == (
            "folds: fold 1 holds no row; lower folds.k, or give another plan"
        )

    def test_a_fold_that_trains_on_nothing_is_refused(self):
        assert refusal_of(check_plan, self.plan([0, 1, 1], forward=True), FoldsConfig(k=2)) == (
            "folds: no row is there to train fold 0 on; give another plan"
        )

    def test_a_single_row_of_a_class_is_no_obstacle_where_rows_have_several(self):
        targets = np.array([[1, 0], [1, 1], [1, 0]], dtype=bool)
        check_folds(FoldsConfig(k=3), ("a", "b"), targets)
        message = refusal_of(check_folds, FoldsConfig(k=4), ("a", "b"), targets)
        assert message == "folds.k: 4 folds, but only 3 rows; lower k"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "t", "column": "f"}, "time and column tell the folds both; leave one of them out"),
        ({"group_pattern": "x"}, "group_pattern is searched in the text of a column; name it in group"),
        ({"group": "g", "group_pattern": "("}, "no regular expression: missing ), unterminated subpattern"),
    ],
)
def test_two_ways_at_once_are_no_config(options, said):
    with pytest.raises(ValidationError, match=re.escape(said)):
        FoldsConfig(**options)


def test_very_many_rows_and_classes_are_dealt_as_groups_of_one(monkeypatch):
    targets = np.random.default_rng(0).random((300, 6)) < 0.2
    ids = [f"r{row:03d}" for row in range(300)]
    monkeypatch.setattr("kit.competition.folds.LARGE", 1000)
    plan = make_folds(ids, targets, FoldsConfig(k=3))
    expected = stratify_groups(targets, np.arange(300), 3, 0)
    np.testing.assert_array_equal(plan.fold, expected)
    assert plan.groups is None
    counts = np.stack([targets[plan.fold == fold].sum(axis=0) for fold in range(3)])
    assert np.ptp(counts, axis=0).max() <= 3
