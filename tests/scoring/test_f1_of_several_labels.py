"""F1 with several labels a row, and the binary average, beside scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import fbeta_score, precision_recall_fscore_support

from kit.core.errors import KitError
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta, per_class, score

PAIRS = st.tuples(st.integers(1, 12), st.integers(2, 5)).flatmap(
    lambda shape: st.tuples(*[arrays(bool, shape, elements=st.sampled_from([False, False, True]))] * 2)
)


def quiet(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "samples"])
@pytest.mark.parametrize("zero_division", [0, 1])
@given(pair=PAIRS, beta=st.sampled_from([0.5, 1.0, 2.0]), kind=st.sampled_from([bool, np.uint8]))
@settings(max_examples=25, deadline=None, database=None)
def test_scores_equal_scikit_learn(average, zero_division, pair, beta, kind):
    truth, predicted = (each.astype(kind) for each in pair)
    config = ScoringConfig(average=average, beta=beta, zero_division=zero_division)
    expected = fbeta_score(truth, predicted, beta=beta, average=average, zero_division=zero_division)
    assert quiet(score, truth, predicted, config) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("zero_division", [0, 1])
@given(pair=arrays(np.int64, (2, 6), elements=st.integers(0, 1)), beta=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=25, deadline=None, database=None)
def test_binary_is_the_second_class(zero_division, pair, beta):
    config = ScoringConfig(average="binary", beta=beta, zero_division=zero_division)
    value = quiet(score, pair[0], pair[1], config)
    columns = ScoringConfig(average="macro", beta=beta, zero_division=zero_division)
    assert value == pytest.approx(score(pair[0][:, None] == 1, pair[1][:, None] == 1, columns), abs=1e-12)


@given(pair=PAIRS, beta=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=30, deadline=None, database=None)
def test_the_table_of_classes_equals_scikit_learn(pair, beta):
    names = list("abcdefgh")[: pair[0].shape[1]]
    table = quiet(per_class, *pair, names, beta)
    expected = precision_recall_fscore_support(*pair, beta=beta, average=None, zero_division=0)
    assert table["class"].tolist() == names
    for column, values in zip(["precision", "recall", f"f{beta:g}", "rows"], expected, strict=True):
        assert table[column].to_numpy() == pytest.approx(values)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "samples", "binary"])
@pytest.mark.parametrize("zero_division", [0, 1])
def test_no_rows_give_zero_division(average, zero_division):
    config = ScoringConfig(average=average, zero_division=zero_division)
    assert score(np.zeros(0, int), np.zeros(0, int), config) == zero_division
    assert score(np.zeros((0, 3), bool), np.zeros((0, 3), bool), config) == zero_division


def test_one_column_is_one_class():
    truth, predicted = np.array([[True], [False], [True]]), np.array([[True], [True], [False]])
    assert score(truth, predicted, ScoringConfig()) == pytest.approx(0.5)


def test_f_from_counts_by_hand():
    assert fbeta(3, 4, 6) == pytest.approx(2 * 3 / (4 + 6))
    assert fbeta(3, 4, 6, beta=2) == pytest.approx(5 * 3 / (4 + 4 * 6))
    assert fbeta([0, 0], [0, 1], [0, 0], zero_division=1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "several", "classes", "message"),
    [
        ({"average": "samples"}, False, 5, "scoring.average: samples needs several labels a row"),
        ({"average": "binary"}, False, 3, "scoring.average: binary needs exactly two classes"),
        ({"average": "binary"}, True, 2, "scoring.average: binary needs exactly two classes"),
        ({"rule": "half"}, False, 5, "scoring.rule: half is not for one label a row .* argmax or offsets"),
        ({"rule": "argmax"}, True, 5, "scoring.rule: argmax is not for several labels a row"),
        ({"rule": "expected_f"}, True, 5, "scoring.rule: expected_f is not for .* average macro"),
        ({"rule": "offsets", "average": "micro"}, False, 5, "scoring.rule: offsets is not for"),
        ({"at_least": 6}, True, 5, "scoring.at_least: 6 is more than the 5 classes"),
        ({"at_most": 6}, True, 5, "scoring.at_most: 6 is more than the 5 classes"),
        ({"at_least": 3, "at_most": 2}, True, 5, "scoring.at_least: 3 is more than at_most, 2"),
        ({"at_least": 1}, False, 5, "scoring.at_least: is for several labels a row"),
    ],
)
def test_options_that_do_not_fit_the_labels_are_one_line(options, several, classes, message):
    with pytest.raises(KitError, match=message) as caught:
        ScoringConfig(**options).check(several, classes)
    assert "\n" not in str(caught.value)


def test_options_that_fit_pass():
    ScoringConfig().check(False, 3)
    ScoringConfig(average="binary", rule="threshold").check(False, 2)
    ScoringConfig(average="samples", rule="expected_f", at_least=1, at_most=3).check(True, 3)
