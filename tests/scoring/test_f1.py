import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, fbeta_score

from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import argmax, per_class, score


def _counts(truth, predicted, label) -> tuple[int, int, int]:
    """True positives, false positives and false negatives."""
    pairs = [(one == label, other == label) for one, other in zip(truth, predicted, strict=True)]
    return pairs.count((True, True)), pairs.count((False, True)), pairs.count((True, False))


def _ratio(part: float, whole: float, otherwise: float) -> float:
    return part / whole if whole else otherwise


def _slow_fbeta(truth, predicted, average: str, beta: float, zero_division: float) -> float:
    """F-beta from counts: (1 + b²) TP / ((1 + b²) TP + b² FN + FP), over classes that are there or predicted."""
    counts = [_counts(truth, predicted, label) for label in sorted({*truth, *predicted})]
    square = beta**2

    def f(tp: int, fp: int, fn: int) -> float:
        return _ratio((1 + square) * tp, (1 + square) * tp + square * fn + fp, zero_division)

    if average == "micro":
        return f(*(sum(column) for column in zip(*counts, strict=True)))
    weights = [1 if average == "macro" else tp + fn for tp, _, fn in counts]
    return sum(weight * f(*count) for weight, count in zip(weights, counts, strict=True)) / sum(weights)


_ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("zero_division", [0, 1])
@given(rows=_ROWS, beta=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=30, deadline=None, database=None)
def test_scores_equal_a_slow_definition_and_scikit_learn(average, zero_division, rows, beta):
    truth, predicted = np.array(rows).T
    config = ScoringConfig(average=average, beta=beta, zero_division=zero_division)
    value = score(truth, predicted, config)
    assert value == pytest.approx(_slow_fbeta(truth, predicted, average, beta, zero_division), abs=1e-12)
    assert value == fbeta_score(truth, predicted, beta=beta, average=average, zero_division=zero_division)


@pytest.mark.parametrize("zero_division", [0, 1])
@given(rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None, database=None)
def test_binary_scores_are_scikit_learns_of_class_one(zero_division, rows):
    truth, predicted = np.array(rows, dtype=np.int64).T
    value = score(truth, predicted, ScoringConfig(average="binary", zero_division=zero_division))
    assert value == fbeta_score(truth, predicted, beta=1, zero_division=zero_division)


def test_one_label_is_counted_without_scikit_learns_checks(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("slow")

    monkeypatch.setattr("sklearn.metrics.fbeta_score", refuse)
    assert score(np.array([0, 1, 2]), np.array([0, 1, 2]), ScoringConfig()) == 1


def test_macro_f1_by_hand():
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    assert score(truth, predicted, ScoringConfig()) == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert score(truth, predicted, ScoringConfig(average="micro")) == pytest.approx(4 / 6)
    assert score(truth, predicted, ScoringConfig(average="weighted")) == pytest.approx(
        (3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6
    )


def test_beta_weighs_recall():
    truth, predicted = np.array([1, 1, 1, 1, 0]), np.array([1, 0, 0, 0, 0])  # class 1: precision 1, recall 1/4
    config = ScoringConfig(average="macro", beta=2)
    assert score(truth, predicted, config) == pytest.approx(((5 * 1 / (5 + 3)) + (5 * 1 / (5 + 4 * 3))) / 2)


@pytest.mark.parametrize("zero_division", [0, 1])
def test_classes_that_are_neither_there_nor_predicted_do_not_count(zero_division):
    truth, predicted = np.array([3, 3, 7, 7]), np.array([3, 3, 7, 3])
    value = score(truth, predicted, ScoringConfig(zero_division=zero_division))
    assert value == pytest.approx((4 / 5 + 2 / 3) / 2)


@pytest.mark.parametrize("zero_division", [0, 1])
def test_a_class_that_is_only_predicted_counts_as_zero(zero_division):
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    value = score(truth, predicted, ScoringConfig(zero_division=zero_division))
    assert value == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_everything_right_is_one_and_everything_wrong_is_zero(average):
    truth = np.array([0, 1, 2, 0])
    config = ScoringConfig(average=average)
    assert score(truth, truth, config) == 1
    assert score(truth, (truth + 1) % 3, config) == 0


def test_scores_do_not_depend_on_the_order_of_rows():
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, (2, 60))
    order = generator.permutation(60)
    assert score(truth, predicted, ScoringConfig()) == score(truth[order], predicted[order], ScoringConfig())


@given(rows=_ROWS, beta=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=40, deadline=None, database=None)
def test_the_per_class_table_equals_a_slow_definition(rows, beta):
    truth, predicted = np.array(rows).T
    table = per_class(truth, predicted, list("abcdef"), beta)  # f is never there
    assert list(table.columns) == ["class", "precision", "recall", f"f{beta:g}", "rows"]
    assert table["class"].tolist() == list("abcdef")
    for label in range(6):
        tp, fp, fn = _counts(truth, predicted, label)
        f = _ratio((1 + beta**2) * tp, (1 + beta**2) * tp + beta**2 * fn + fp, 0)
        row = table.loc[label, ["precision", "recall", f"f{beta:g}", "rows"]].tolist()
        assert row == pytest.approx([_ratio(tp, tp + fp, 0), _ratio(tp, tp + fn, 0), f, tp + fn])


def test_the_per_class_table_averages_to_macro_f1():
    truth, predicted = np.random.default_rng(1).integers(0, 3, (2, 50))
    table = per_class(truth, predicted, ["x", "y", "z"])
    assert table["f1"].mean() == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert table["rows"].sum() == 50


def test_argmax_takes_the_most_probable_class_and_the_first_of_equals():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05], [0.3, 0.3, 0.4], [0.1, 0.45, 0.45]])
    assert argmax(probabilities).tolist() == [1, 0, 2, 1]


def test_argmax_of_no_rows_is_empty():
    assert argmax(np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("settings", "title"),
    [({}, "macro F1"), ({"average": "micro", "beta": 2}, "micro F2"), ({"beta": 0.5}, "macro F0.5")],
)
def test_the_title_names_average_and_beta(settings, title):
    assert ScoringConfig(**settings).title == title
