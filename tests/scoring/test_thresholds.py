import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.simulation import World, draw

from kit.scoring import thresholds
from kit.scoring.columns import SortedColumn
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta, score
from kit.scoring.rules import Threshold
from kit.scoring.thresholds import (
    GAIN,
    NEVER,
    best_threshold,
    best_threshold_of_fits,
    best_thresholds,
    label_limits,
    threshold_at,
)

AVERAGES = ["macro", "micro", "weighted", "samples", "lowest"]
CASES = {"seed": st.integers(0, 10_000), "beta": st.sampled_from([0.5, 1.0, 2.0])}
FEW = settings(max_examples=15, deadline=None, database=None)


def case(seed: int, rows: int = 12, classes: int = 3, levels: int = 8, kind=np.float32):
    """Probabilities with ties, and labels that they say something about; some classes are absent."""
    generator = np.random.default_rng(seed)
    probabilities = (generator.integers(0, levels + 1, (rows, classes)) / levels).astype(kind)
    truth = generator.random((rows, classes)) < probabilities * generator.integers(0, 2, classes)
    return probabilities, truth


def all_cuts(values: np.ndarray) -> list[float]:
    return [*np.unique(values).astype(float), 2.0]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("zero_division", [0, 1])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(at_least=st.integers(0, 1), at_most=st.integers(2, 3), **CASES)
@FEW
def test_one_threshold_is_as_good_as_the_best_of_all_cuts(
    average, zero_division, kind, seed, beta, at_least, at_most
):
    probabilities, truth = case(seed, kind=kind)
    config = ScoringConfig(
        average=average, beta=beta, zero_division=zero_division, at_least=at_least, at_most=at_most
    )

    def reached(threshold: float) -> float:
        return score(truth, Threshold(at_least, at_most, threshold, 0.0).decide(probabilities), config)

    found = best_threshold(probabilities, truth, config)
    if not truth.any():
        assert found == NEVER
        return
    assert reached(found) == pytest.approx(max(map(reached, all_cuts(probabilities))), abs=1e-9)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted", "lowest"])
@pytest.mark.parametrize("zero_division", [0, 1])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(**CASES)
@FEW
def test_thresholds_are_as_good_as_the_best_of_all_combinations(average, zero_division, kind, seed, beta):
    probabilities, truth = case(seed, rows=9, levels=4, kind=kind)
    config = ScoringConfig(average=average, beta=beta, zero_division=zero_division)
    found = score(truth, probabilities >= best_thresholds(probabilities, truth, config), config)
    combinations = itertools.product(*map(all_cuts, probabilities.T))
    best = max(score(truth, probabilities >= np.array(each), config) for each in combinations)
    assert found == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("zero_division", [0, 1])
@given(**CASES)
@FEW
def test_for_samples_no_single_threshold_can_be_bettered(zero_division, seed, beta):
    probabilities, truth = case(seed, rows=15)
    config = ScoringConfig(average="samples", beta=beta, zero_division=zero_division, at_least=0)
    found = best_thresholds(probabilities, truth, config)
    reached = score(truth, probabilities >= found, config)
    common = np.where(truth.any(axis=0), best_threshold(probabilities, truth, config), NEVER)
    assert reached >= score(truth, probabilities >= common, config) - 1e-9
    for index in np.flatnonzero(truth.any(axis=0)):
        for cut in all_cuts(probabilities[:, index]):
            changed = found.copy()
            changed[index] = cut
            assert score(truth, probabilities >= changed, config) <= reached + 1e-9


@given(**CASES)
@FEW
def test_binary_is_the_best_of_all_cuts_of_the_second_column(seed, beta):
    probabilities, truth = case(seed, classes=2)
    labels = truth[:, 1].astype(np.int64)
    config = ScoringConfig(average="binary", beta=beta)
    found = best_threshold(probabilities, labels, config)
    values = [score(labels, (probabilities[:, 1] >= cut).astype(int), config) for cut in all_cuts(probabilities)]
    assert score(labels, (probabilities[:, 1] >= found).astype(int), config) == pytest.approx(max(values))


@pytest.mark.parametrize("average", AVERAGES)
def test_a_class_without_positive_rows_is_never_predicted(average):
    probabilities = np.array([[0.9, 0.8], [0.2, 1.0], [0.7, 0.1]])
    truth = np.array([[True, False], [False, False], [True, False]])
    found = best_thresholds(probabilities, truth, ScoringConfig(average=average))
    assert found[1] == NEVER
    assert 0.2 < found[0] <= 0.7
    assert best_threshold(probabilities, np.zeros_like(truth), ScoringConfig(average=average)) == NEVER


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_middle_of_the_tied_thresholds(kind):
    column = np.array([[0.9], [0.8], [0.4], [0.1]], dtype=kind)
    positive = np.array([[True], [True], [False], [False]])
    assert best_thresholds(column, positive, ScoringConfig())[0] == pytest.approx(0.6)
    # Cuts after the first and after the third reach F1 = 2/3 and 2 · 2 / (3 + 2) = .8, after the fourth 2/3.
    assert best_thresholds(column, positive[[0, 2, 1, 3]], ScoringConfig())[0] == pytest.approx(0.25)
    # All of one: everything is predicted, from 0 to the lowest value.
    assert best_thresholds(column, positive | True, ScoringConfig())[0] == pytest.approx(0.05)


def test_of_separate_tied_intervals_the_widest_counts():
    # F1 at the cuts: 2·1/(1+2) = 2/3, 1/2, 2·1/(3+2), 2·2/(4+2) = 2/3: thresholds in (.7, .8] or (0, .1].
    column = np.array([[0.8], [0.7], [0.6], [0.1]])
    truth = np.array([[True], [False], [False], [True]])
    assert score(truth, column >= 0.75, ScoringConfig()) == score(truth, column >= 0.05, ScoringConfig())
    assert best_thresholds(column, truth, ScoringConfig())[0] == pytest.approx(0.75)
    column[3] = 0.3
    assert best_thresholds(column, truth, ScoringConfig())[0] == pytest.approx(0.15)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_threshold_between_neighbouring_numbers_parts_them(kind):
    low = kind(0.3)
    high = np.nextafter(low, kind(1))
    column, truth = np.array([[low], [high]]), np.array([[False], [True]])
    for found in (
        *best_thresholds(column, truth, ScoringConfig()),
        best_threshold(column, truth, ScoringConfig()),
    ):
        assert (column >= kind(found)).ravel().tolist() == [False, True]


def test_probabilities_of_zero_and_one():
    column, truth = np.array([[1.0], [0.0], [0.0]], np.float32), np.array([[True], [True], [True]])
    assert best_thresholds(column, truth, ScoringConfig())[0] == 0
    assert best_thresholds(column[:1], truth[:1], ScoringConfig())[0] == pytest.approx(0.5)
    assert threshold_at(column, 0.0) > 1


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
@FEW
def test_a_share_lies_at_or_above_its_threshold(seed, share):
    values = np.random.default_rng(seed).random(50).astype(np.float32)
    assert np.count_nonzero(values >= np.float32(threshold_at(values, share))) == round(share * 50)


def test_with_ties_the_nearest_share():
    values = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    assert np.count_nonzero(values >= threshold_at(values, 0.4)) == 1
    assert np.count_nonzero(values >= threshold_at(values, 0.6)) == 4
    assert np.count_nonzero(np.zeros(9) >= threshold_at(np.zeros(9), 0.3)) == 0


def test_limits_come_from_the_config_or_the_training_rows():
    truth = np.array([[True, True, False], [False, True, True]])
    assert label_limits(truth, ScoringConfig()) == (2, 3)
    assert label_limits(truth, ScoringConfig(at_least=0, at_most=2)) == (0, 2)
    assert label_limits(truth, ScoringConfig(at_most=1)) == (1, 1)
    assert label_limits(truth[:0], ScoringConfig()) == (0, 3)


def test_the_probabilities_are_left_as_they_are():
    probabilities, truth = case(1)
    before = probabilities.copy()
    for average in AVERAGES:
        best_threshold(probabilities, truth, ScoringConfig(average=average, at_least=1, at_most=2))
        best_thresholds(probabilities, truth, ScoringConfig(average=average))
    assert np.array_equal(probabilities, before)


def test_the_thresholds_for_samples_are_fitted_on_a_part_of_very_many_rows(monkeypatch):
    generator = np.random.default_rng(0)
    probabilities = generator.random((20_000, 3), dtype=np.float32)
    truth = generator.random((20_000, 3)) < probabilities ** np.array([2, 3, 1])
    left_out = np.setdiff1d(np.arange(20_000), np.random.default_rng(0).choice(20_000, 10_000, replace=False))
    truth[:, 2] = np.arange(20_000) == left_out[0]
    config = ScoringConfig(average="samples", at_least=0)
    exact = best_thresholds(probabilities, truth, config)
    monkeypatch.setattr("kit.scoring.thresholds.MANY", 30_000)
    part = best_thresholds(probabilities, truth, config)
    assert np.array_equal(part, best_thresholds(probabilities, truth, config))
    assert (part[:2] != exact[:2]).all()
    assert part[2] == best_threshold(probabilities, truth, config)
    exact[2] = part[2]
    best, near = (score(truth, probabilities >= thresholds, config) for thresholds in (exact, part))
    assert best - 0.002 < near


def test_the_sweeps_for_samples_end_with_the_gain(monkeypatch):
    drawn = draw(World(classes=60), 5000, 0)
    probabilities, truth = drawn.oof, drawn.truth
    config, calls = ScoringConfig(average="samples", at_least=0), []
    patch = "kit.scoring.thresholds.{}".format
    monkeypatch.setattr(patch("fbeta"), lambda *arguments: calls.append(1) or fbeta(*arguments))
    found = []
    for gain in (-1.0, 1e-12, GAIN, 1.0):
        monkeypatch.setattr(patch("GAIN"), gain)
        calls.clear()
        thresholds = best_thresholds(probabilities, truth, config)
        found.append((score(truth, probabilities >= thresholds, config), len(calls)))
    (_, ten), (exact, most), (near, fewer), (_, fewest) = found
    assert near > exact - GAIN * 10
    assert fewest < fewer < most <= ten <= 10 * (2 * 60 + 1) + 10


@pytest.mark.parametrize("average", AVERAGES)
def test_of_very_many_probabilities_a_part_of_the_rows_tells_the_threshold(average, monkeypatch):
    generator = np.random.default_rng(0)
    probabilities = generator.random((20_000, 3), dtype=np.float32)
    truth = generator.random((20_000, 3)) < probabilities**2
    config = ScoringConfig(average=average, at_least=0)
    exact = best_threshold(probabilities, truth, config)
    monkeypatch.setattr("kit.scoring.thresholds.MANY", 30_000)
    part = best_threshold(probabilities, truth, config)
    assert part == best_threshold(probabilities, truth, config)
    assert part != exact
    best, near = (score(truth, probabilities >= threshold, config) for threshold in (exact, part))
    assert best - 0.002 < near < best


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_rounding_leaves_below_zero_is_the_lowest(dtype):
    column, seen = np.array([-1e-7, 0.2, 0.9, 0.0, 0.5], dtype=dtype), np.ones(5, dtype=np.uint32)
    assert SortedColumn(column, column > 0.3, seen).order.tolist() == [2, 4, 1, 3, 0]


def test_many_unequal_folds_of_more_rows_than_are_looked_at(monkeypatch):
    """Each fit looks at another part of its rows, so that nearly each row is seen by other fits."""
    generator, rows, folds = np.random.default_rng(0), 20_000, 20
    monkeypatch.setattr(thresholds, "MANY", rows)
    probabilities = generator.random((rows, 2))
    truth = generator.random((rows, 2)) < probabilities
    fold = np.minimum((generator.random(rows) ** 2 * folds).astype(int), folds - 1)
    kept = np.stack([fold != one for one in range(folds)])
    config = ScoringConfig(at_least=0, at_most=2)
    tracemalloc.start()
    found = best_threshold_of_fits(probabilities, truth, kept, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [best_threshold_of_fits(probabilities, truth, rows[None], config)[0] for rows in kept]
    assert peak < 30 * probabilities.nbytes
