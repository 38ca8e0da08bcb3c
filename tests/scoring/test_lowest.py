"""The lowest F1 of all classes: scikit-learn's values, and rules that are fitted to it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, fbeta_score
from support.refusals import refusal_of

from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule
from kit.scoring.f1 import score
from kit.scoring.lowest import SHARE, lowest_of_steps
from kit.scoring.offsets import best_offsets, logarithm
from kit.scoring.thresholds import best_threshold, best_thresholds

LOWEST = ScoringConfig(average="lowest")
FEW = settings(max_examples=40, deadline=None, database=None)


@pytest.mark.parametrize("zero_division", [0, 1])
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25),
    beta=st.sampled_from([0.5, 1.0, 2.0]),
)
@FEW
def test_one_label_a_row_has_scikit_learns_value(zero_division, rows, beta):
    truth, predicted = np.array(rows).T
    config = ScoringConfig(average="lowest", beta=beta, zero_division=zero_division)
    each = fbeta_score(truth, predicted, beta=beta, average=None, zero_division=zero_division)
    assert score(truth, predicted, config) == pytest.approx(each.min(), abs=1e-12)


@pytest.mark.parametrize("zero_division", [0, 1])
@given(pair=arrays(bool, (2, 7, 4)), beta=st.sampled_from([0.5, 1.0, 2.0]))
@FEW
def test_several_labels_a_row_have_scikit_learns_value(zero_division, pair, beta):
    config = ScoringConfig(average="lowest", beta=beta, zero_division=zero_division)
    each = fbeta_score(*pair, beta=beta, average=None, zero_division=zero_division)
    assert score(*pair, config) == pytest.approx(each.min(), abs=1e-12)


def test_it_is_the_lowest_in_words_and_by_hand():
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    assert score(truth, predicted, LOWEST) == pytest.approx(1 / 2)  # beside 4 / 5 and 2 / 3
    assert score(truth[:0], predicted[:0], LOWEST) == 0
    assert LOWEST.title == "lowest F1 of all classes"
    assert ScoringConfig(average="lowest", beta=2).title == "lowest F2 of all classes"


@given(data=st.data(), functions=st.integers(1, 7), cuts=st.integers(0, 12))
@FEW
def test_the_minimum_of_steps_is_that_of_the_functions_written_out(data, functions, cuts):
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    values = generator.integers(0, 6, (functions, cuts + 1)).astype(float)
    moves = generator.random((functions, cuts + 1)) < 0.4
    moves[:, 0] = True
    last = np.maximum.accumulate(np.where(moves, np.arange(cuts + 1), 0), axis=1)
    whole = np.take_along_axis(values, last, axis=1)  # each keeps its value until it moves
    owner, at = np.nonzero(moves)
    mixed = generator.permutation(len(owner))  # any order will do
    found = lowest_of_steps(owner[mixed], at[mixed], values[owner, at][mixed], cuts)
    np.testing.assert_array_equal(found, whole.min(axis=0))


def maximised(truth: np.ndarray, predicted: np.ndarray) -> float:
    """What the fits look for, by scikit-learn."""
    each = f1_score(truth, predicted, average=None, zero_division=0)
    return each.min() + SHARE * each.mean()


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([4, 1000]))
@FEW
def test_one_threshold_is_the_best_of_all_cuts(seed, levels):
    generator = np.random.default_rng(seed)
    probabilities = generator.integers(0, levels + 1, (15, 3)) / levels
    truth = generator.random((15, 3)) < probabilities
    truth[:2] = [[True, True, True], [False, False, False]]
    found = best_threshold(probabilities, truth, ScoringConfig(average="lowest", at_least=0))
    best = max(maximised(truth, probabilities >= cut) for cut in [*np.unique(probabilities), 2.0])
    assert maximised(truth, probabilities >= found) == pytest.approx(best, abs=1e-9)


def test_where_a_class_cannot_be_found_the_mean_decides():
    """The last class has no positive row, so that the lowest F1 is 0 at every threshold."""
    probabilities = np.array([[0.9, 0.1, 0.2], [0.8, 0.4, 0.3], [0.2, 0.2, 0.1], [0.1, 0.9, 0.2]])
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=bool)
    assert best_threshold(probabilities, truth, LOWEST) == pytest.approx(0.3)  # of (.2, .4] the middle
    assert best_thresholds(probabilities, truth, LOWEST)[2] == np.inf


def tangled(seed: int, rows: int = 24, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.geomspace(0.3, 2, classes), rows)
    truth = np.array([generator.choice(classes, p=row) for row in probabilities])
    truth[:classes] = np.arange(classes)
    return probabilities, truth


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_no_single_offset_can_be_bettered(seed):
    probabilities, truth = tangled(seed)
    found, logs = best_offsets(probabilities, truth, LOWEST), logarithm(probabilities)
    reached = maximised(truth, np.argmax(logs + found, axis=1))
    assert reached >= maximised(truth, np.argmax(logs, axis=1)) - 1e-12
    for index in range(4):
        others = logs + found
        others[:, index] = -np.inf
        turns = np.unique(others.max(axis=1) - logs[:, index])
        for cut in [turns[0] - 1, *((turns[1:] + turns[:-1]) / 2), turns[-1] + 1]:
            changed = found.copy()
            changed[index] = cut
            # The last sweep may have moved offsets within their ties: of the mean there may be a little left.
            assert maximised(truth, np.argmax(logs + changed, axis=1)) <= reached + SHARE


def test_what_each_step_reaches_is_what_its_decisions_are_worth(monkeypatch):
    from kit.scoring.offsets import _Ascent

    probabilities, truth = tangled(3, rows=300, classes=7)
    ascent, logs = _Ascent(logarithm(probabilities), truth, LOWEST), logarithm(probabilities)
    for _ in range(2):
        for index in range(7):
            reached = ascent._step(index)
            assert reached == pytest.approx(maximised(truth, np.argmax(logs + ascent.offsets, axis=1)), abs=1e-9)


def test_rules_are_those_of_macro_f1_and_the_best_is_taken():
    generator = np.random.default_rng(0)
    truth = generator.choice(3, 3000, p=[0.8, 0.15, 0.05])
    logits = np.log([0.8, 0.15, 0.05]) + 1.5 * np.eye(3)[truth] + generator.normal(0, 1, (3000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    choice = choose_rule(probabilities, truth, np.arange(3000) % 5, LOWEST)
    assert [each["name"] for each in choice.candidates] == ["argmax", "offsets"]
    assert choice.rule.kind == "offsets"
    assert choice.cross_fitted == f1_score(truth, choice.predicted, average=None).min()
    plain = f1_score(truth, probabilities.argmax(axis=1), average=None).min()
    assert choice.cross_fitted > plain + 0.05
    several = np.eye(3, dtype=bool)[truth]
    names = [each["name"] for each in choose_rule(probabilities, several, np.arange(3000) % 5, LOWEST).candidates]
    assert names == ["half", "threshold", "prevalence", "thresholds"]


def test_a_rule_of_expected_f_is_for_rows():
    said = refusal_of(ScoringConfig(average="lowest", rule="expected_f").check, True, 3)
    assert said == (
        "scoring.rule: expected_f is not for several labels a row with average lowest; take auto, half, "
        "threshold, prevalence or thresholds"
    )
