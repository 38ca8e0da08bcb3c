import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.scoring.expected import EXACT, expected_f
from kit.scoring.f1 import fbeta


def expectation(row: np.ndarray, chosen: np.ndarray, beta: float, zero_division: float) -> float:
    """E[F] of a set by going through all outcomes."""
    total = 0.0
    for outcome in itertools.product([False, True], repeat=len(row)):
        truth = np.array(outcome)
        chance = np.prod(np.where(truth, row, 1 - row))
        total += chance * float(fbeta((truth & chosen).sum(), chosen.sum(), truth.sum(), beta, zero_division))
    return total


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 6),
    beta=st.sampled_from([0.5, 1.0, 2.0, 1.3]),
    zero_division=st.integers(0, 1),
    at_least=st.integers(0, 1),
    at_most=st.integers(1, 6),
)
@settings(max_examples=30, deadline=None, database=None)
def test_no_set_of_labels_has_a_higher_expectation(seed, classes, beta, zero_division, at_least, at_most):
    row = np.random.default_rng(seed).random(classes) ** 2
    found = expected_f(row[None], beta, zero_division, at_least, at_most)[0]
    sets = [np.array(each) for each in itertools.product([False, True], repeat=classes)]
    allowed = [each for each in sets if at_least <= each.sum() <= at_most]
    best = max(expectation(row, each, beta, zero_division) for each in allowed)
    assert any(np.array_equal(found, each) for each in allowed)
    assert expectation(row, found, beta, zero_division) == pytest.approx(best, abs=1e-12)


def test_an_empty_row_pays_with_zero_division_one():
    row = np.array([[0.1, 0.05, 0.02]])
    assert expected_f(row, zero_division=1).sum() == 0
    assert expected_f(row, zero_division=0)[0, 0]
    assert expected_f(row, zero_division=1, at_least=1)[0, 0]
    assert expected_f(row, zero_division=0, at_most=1).tolist() == [[True, False, False]]


def test_many_classes_are_near_the_exact_answer():
    """60 classes, of which the 20 least probable count by their mean only, beside simulated labels."""
    generator = np.random.default_rng(0)
    rows = generator.beta(0.15, 2.0, (20, 60))
    chosen = expected_f(rows)
    for row, found in zip(rows, chosen, strict=True):
        truth = generator.random((4000, 60)) < row
        order = np.argsort(-row)
        reached = []
        for size in range(1, 20):
            picked = np.zeros(60, bool)
            picked[order[:size]] = True
            reached.append(fbeta((truth & picked).sum(1), size, truth.sum(1)).mean())
        mine = fbeta((truth & found).sum(1), found.sum(), truth.sum(1)).mean()
        assert mine >= max(reached) - 0.004
    assert expected_f(rows, at_least=EXACT + 5).sum(axis=1).min() >= EXACT + 5


def test_no_rows_and_many_rows():
    assert expected_f(np.zeros((0, 3))).shape == (0, 3)
    rows = np.random.default_rng(0).random((2500, 4)).astype(np.float32)
    together = expected_f(rows)
    assert np.array_equal(together, np.concatenate([expected_f(rows[:700]), expected_f(rows[700:])]))
