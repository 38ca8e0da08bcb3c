import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold
from support.refusals import refusal_of

from kit.competition.folds import (
    FoldPlan,
    check_folds,
    check_plan,
    make_folds,
    rare_classes,
    read_folds,
    write_folds,
)
from kit.competition.folds_config import FoldsConfig


def _ids(count: int) -> list[str]:
    return [f"i{row:03d}" for row in range(count)]


@st.composite
def _problem(draw):
    """Fold count, seed and targets of which one class has as many rows as there are folds, or more."""
    k = draw(st.integers(2, 6))
    counts = [draw(st.integers(k, 15)), *draw(st.lists(st.integers(2, 15), max_size=3))]
    targets = draw(st.permutations(np.repeat(np.arange(len(counts)), counts).tolist()))
    return FoldsConfig(k=k, seed=draw(st.integers(0, 9))), np.array(targets)


@given(problem=_problem())
@settings(max_examples=50, deadline=None, database=None)
def test_every_class_is_spread_evenly_over_the_folds(problem):
    config, targets = problem
    plan = make_folds(_ids(len(targets)), targets, config)
    assert plan.fold.dtype == np.int64
    for members in [targets == label for label in np.unique(targets)]:
        counts = np.bincount(plan.fold[members], minlength=config.k)
        assert len(counts) == config.k
        assert counts.max() - counts.min() <= 1


@given(problem=_problem(), data=st.data())
@settings(max_examples=50, deadline=None, database=None)
def test_the_plan_does_not_depend_on_the_order_of_the_rows(problem, data):
    config, targets = problem
    ids = _ids(len(targets))
    order = data.draw(st.permutations(range(len(ids))))
    plan = make_folds(ids, targets, config)
    other = make_folds([ids[row] for row in order], targets[order], config)
    assert dict(zip(other.ids, other.fold, strict=True)) == dict(zip(plan.ids, plan.fold, strict=True))
    assert other.digest == plan.digest


@pytest.mark.parametrize("seed", [0, 7])
def test_folds_of_sorted_rows_are_those_of_scikit_learn(seed):
    targets = np.random.default_rng(seed).integers(0, 4, 53)
    plan = make_folds(_ids(53), targets, FoldsConfig(k=5, seed=seed))
    splitter = StratifiedKFold(5, shuffle=True, random_state=seed)
    for fold, (training, held_out) in enumerate(splitter.split(targets, targets)):
        assert plan.validation_rows(fold).tolist() == held_out.tolist()
        assert plan.training_rows(fold).tolist() == training.tolist()


def test_another_seed_gives_another_plan():
    targets = np.arange(40) % 2
    first, second = (make_folds(_ids(40), targets, FoldsConfig(k=4, seed=seed)) for seed in (0, 1))
    assert (first.fold != second.fold).any()
    assert first.digest != second.digest


def test_the_digest_tells_who_is_in_which_fold():
    plan = FoldPlan(["a", "b", "c"], np.array([0, 1, 0]))
    assert plan.digest == FoldPlan(["c", "b", "a"], np.array([0, 1, 0])).digest
    assert plan.digest != FoldPlan(["a", "b", "c"], np.array([0, 0, 1])).digest
    assert plan.digest != FoldPlan(["a", "b", "d"], np.array([0, 1, 0])).digest


def test_the_file_is_plain_and_read_by_id(tmp_path):
    path = tmp_path / "new" / "folds.csv"
    plan = FoldPlan(["007", "7", "NA", "a,b"], np.array([0, 1, 1, 2]))
    write_folds(plan, path)
    assert path.read_bytes() == b'id,fold\n007,0\n7,1\nNA,1\n"a,b",2\n'
    again = read_folds(path, ["NA", "7", "a,b", "007"])
    assert again.ids == ["NA", "7", "a,b", "007"]
    assert again.fold.tolist() == [1, 1, 2, 0]
    assert again.digest == plan.digest


@pytest.mark.parametrize("ids", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "d"]])
def test_a_plan_of_other_rows_is_refused(tmp_path, ids):
    path = tmp_path / "folds.csv"
    write_folds(FoldPlan(["a", "b", "c"], np.array([0, 1, 0])), path)
    assert refusal_of(read_folds, path, ids) == (
        f"{path} is of other rows than the train table (3 against {len(ids)}), or has one twice"
    )


def test_a_plan_that_holds_a_row_twice_is_refused(tmp_path):
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\na,0\nb,1\na,1\n")
    assert "is of other rows" in refusal_of(read_folds, path, ["a", "b"])


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([0] * 9 + [1] + [2] * 9, "class 'b' has a single row, which"),
        ([0] * 9 + [1] + [2] * 9 + [3], "2 of 4 classes have a single row ('b', 'd'), which"),
        ([*range(9), 0], "8 of 9 classes have a single row ('b', 'c', 'd', 'e', 'f' and 3 more), which"),
    ],
)
def test_classes_in_one_row_are_named_with_both_ways_on(targets, said):
    config = FoldsConfig(k=2)
    assert refusal_of(check_folds, config, tuple("abcdefghi"), np.array(targets)) == (
        f"folds: {said} 2 folds cannot both train on and score; set folds.stratify=false, which deals rows "
        "whatever their class, or remove such classes, merge them with others, or add images"
    )
    check_folds(config.model_copy(update={"stratify": False}), tuple("abcdefghi"), np.array(targets))


def test_a_class_in_two_rows_will_do():
    check_folds(FoldsConfig(k=5), ("a", "b"), np.array([0] * 9 + [1] * 2))


def test_more_folds_than_rows_are_refused():
    message = refusal_of(check_folds, FoldsConfig(k=5), ("a", "b"), np.array([0, 0, 1, 1]))
    assert message == (
        "folds.k: 5 folds, but no class has more than 2 rows; lower k, or set folds.stratify=false, which deals "
        "rows whatever their class"
    )


def test_more_folds_than_any_class_has_rows_are_refused():
    """StratifiedKFold needs one class at least that reaches every fold."""
    message = refusal_of(check_folds, FoldsConfig(k=5), ("a", "b", "c"), np.repeat([0, 1, 2], [2, 4, 3]))
    assert message.startswith("folds.k: 5 folds")


@pytest.mark.parametrize(("run", "shown"), [((0, 5, 7), "5, 7"), ((), "none")])
def test_folds_that_are_not_there_are_refused(run, shown):
    config = FoldsConfig(k=5, run=run)
    message = refusal_of(check_folds, config, ("a", "b"), np.array([0, 1] * 5))
    assert message == f"folds.run: there are folds 0 to 4; got {shown}"


def test_the_chosen_folds_are_sorted_and_stand_once():
    assert FoldsConfig(k=3).chosen == (0, 1, 2)
    assert FoldsConfig(k=5, run=(3, 1, 3)).chosen == (1, 3)


def test_classes_that_some_folds_hold_none_of_are_told():
    targets = np.repeat([0, 1, 2, 3], [9, 2, 5, 4])
    plan = make_folds(_ids(20), targets, FoldsConfig(k=5))
    assert rare_classes(plan, 5, ("a", "b", "c", "d"), targets) == [
        "class 'b' has 2 rows; 3 of 5 folds hold none of it",
        "class 'd' has 4 rows; 1 of 5 folds hold none of it",
    ]


def test_a_class_of_the_earliest_rows_is_in_no_fold():
    plan = FoldPlan(_ids(4), np.array([-1, -1, 0, 1]), forward=True)
    assert rare_classes(plan, 2, ("a", "b"), np.array([0, 0, 1, 1])) == [
        "class 'a' has 2 rows; 2 of 2 folds hold none of it"
    ]


def test_of_many_rare_classes_ten_are_named():
    targets = np.eye(14, dtype=bool)
    plan = FoldPlan(_ids(14), np.arange(14) % 2)
    lines = rare_classes(plan, 2, tuple("abcdefghijklmn"), targets)
    assert lines[0] == "class 'a' has 1 row; 1 of 2 folds hold none of it"
    assert lines[10:] == ["so it is with 4 more classes"]


def test_a_plan_that_is_not_there_is_told(tmp_path):
    assert refusal_of(read_folds, tmp_path / "folds.csv", ["a"]) == (
        f"{tmp_path / 'folds.csv'} does not exist; it is the fold plan of the runs beside it"
    )


def test_groups_of_a_plan_and_of_the_table_are_both_held_to():
    table = pd.DataFrame({"g": ["x", "x", "y", "y"]})
    spanning = FoldPlan(_ids(4), np.array([0, 1, 0, 1]), groups=np.array([0, 1, 2, 3]))
    assert "2 of 2 groups span folds (x, y)" in refusal_of(
        check_plan, spanning, FoldsConfig(k=2, group="g"), table
    )
    own = FoldPlan(_ids(4), np.array([0, 0, 1, 1]), groups=np.array([0, 1, 1, 2]))
    assert "1 of 3 groups span folds (1)" in refusal_of(check_plan, own, FoldsConfig(k=2, group="g"), table)


def test_where_classes_are_not_dealt_evenly_few_rows_of_each_will_do():
    check_folds(FoldsConfig(k=5, stratify=False), ("a", "b", "c"), np.repeat([0, 1, 2], [2, 3, 1]))


def test_a_rare_class_is_in_as_many_folds_as_it_has_rows(recwarn):
    targets = np.repeat([0, 1], [10, 2])
    plan = make_folds(_ids(12), targets, FoldsConfig(k=5))
    assert sorted(np.bincount(plan.fold[targets == 1], minlength=5)) == [0, 0, 0, 1, 1]
    assert not recwarn.list


def test_a_space_more_is_no_other_group_and_no_other_fold():
    groups = ["A", "A ", "B", "B\u00a0", "C", " C"]
    table = pd.DataFrame({"g": groups, "f": ["0", "0.0", "1", "1.0", "-1", "-1.0"]})
    plan = make_folds(_ids(6), np.array([0, 1] * 3), FoldsConfig(k=2, group="g", stratify=False), table)
    assert pd.Series(plan.fold).groupby([0, 0, 1, 1, 2, 2]).nunique().eq(1).all()
    given = make_folds(_ids(6), np.array([0, 1] * 3), FoldsConfig(k=2, column="f"), table)
    assert given.fold.tolist() == [0, 0, 1, 1, -1, -1]
