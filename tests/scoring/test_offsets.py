import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import argmax, score
from kit.scoring.offsets import logarithm, offsets


def case(seed: int, rows: int = 20, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.geomspace(0.2, 2, classes), rows)
    truth = np.array([generator.choice(classes, p=row) for row in probabilities])
    return probabilities, truth


def decide(probabilities: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.argmax(logarithm(probabilities) + values, axis=1)


@pytest.mark.parametrize("average", ["macro", "weighted"])
@given(seed=st.integers(0, 10_000), beta=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=6, deadline=None, database=None)
def test_no_single_offset_can_be_bettered(average, seed, beta):
    probabilities, truth = case(seed)
    config = ScoringConfig(average=average, beta=beta)
    found = offsets(probabilities, truth, config)
    reached = score(truth, decide(probabilities, found), config)
    assert reached >= score(truth, argmax(probabilities), config) - 1e-12 or len(np.unique(truth)) < 4
    logs = logarithm(probabilities)
    for index in np.unique(truth):
        others = logs + found
        others[:, index] = -np.inf
        turns = np.unique(others.max(axis=1) - logs[:, index])
        for cut in [turns[0] - 1, *((turns[1:] + turns[:-1]) / 2), turns[-1] + 1]:
            changed = found.copy()
            changed[index] = cut
            assert score(truth, decide(probabilities, changed), config) <= reached + 1e-9


def test_a_class_without_rows_is_never_predicted():
    probabilities, truth = case(0)
    found = offsets(probabilities, np.where(truth == 2, 1, truth), ScoringConfig())
    assert found[2] == -np.inf
    assert 2 not in decide(probabilities, found)


def test_rare_classes_gain():
    generator = np.random.default_rng(0)
    truth = (generator.random(2000) < 0.1).astype(np.int64)
    odds = 1.5 * (2 * truth - 1) + generator.standard_normal(2000) * 1.5 - 2
    probabilities = np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1)
    found = offsets(probabilities, truth, ScoringConfig())
    assert found[1] > found[0]
    gain = score(truth, decide(probabilities, found), ScoringConfig()) - score(
        truth, argmax(probabilities), ScoringConfig()
    )
    assert gain > 0.01


def test_one_class_only():
    found = offsets(np.full((3, 2), 0.5), np.array([1, 1, 1]), ScoringConfig())
    assert decide(np.full((3, 2), 0.5), found).tolist() == [1, 1, 1]
