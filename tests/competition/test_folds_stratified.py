"""Groups of rows with several labels: whole groups, labels spread evenly."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.competition.stratify import stratify_groups


@st.composite
def problems(draw):
    count = draw(st.integers(4, 40))
    groups = np.unique(draw(st.lists(st.integers(0, 12), min_size=count, max_size=count)), return_inverse=True)[1]
    classes = draw(st.integers(1, 4))
    targets = np.random.default_rng(draw(st.integers(0, 99))).random((count, classes)) < 0.4
    k = draw(st.integers(2, 5))
    return targets, groups, k, draw(st.integers(0, 9))


@given(problem=problems())
@settings(max_examples=150, deadline=None, database=None)
def test_groups_stay_whole_and_every_fold_has_rows(problem):
    targets, groups, k, seed = problem
    fold = stratify_groups(targets, groups, k, seed)
    assert fold.dtype == np.int64
    assert fold.shape == groups.shape
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    assert set(fold) <= set(range(k))
    if len(np.unique(groups)) >= k:
        assert set(fold) == set(range(k))
    assert stratify_groups(targets, groups, k, seed).tolist() == fold.tolist()


def dealt_by_the_book(targets, groups, k: int, seed: int) -> list[int]:
    """The algorithm as it reads, with a table of all groups and classes."""
    generator = np.random.default_rng(seed)
    count = groups.max() + 1
    labels = np.array([targets[groups == group].sum(axis=0) for group in range(count)])
    rows = np.bincount(groups)
    wants, space = np.tile(labels.sum(axis=0) / k, (k, 1)), np.full(k, len(groups) / k)
    shuffled, tie_break = generator.permutation(count).tolist(), generator.permutation(k)
    fold_of = {}
    while left := {label: n for label in range(labels.shape[1]) if (n := labels[shuffled, label].sum())}:
        rarest = min(left, key=left.get)
        for group in sorted(
            (group for group in shuffled if labels[group, rarest]), key=lambda g: -labels[g, rarest]
        ):
            fold = min(range(k), key=lambda f: (-wants[f, rarest], -space[f], tie_break[f]))
            fold_of[group] = fold
            wants[fold] -= labels[group]
            space[fold] -= rows[group]
            shuffled.remove(group)
    for group in sorted(shuffled, key=lambda g: -rows[g]):
        fold_of[group] = fold = min(range(k), key=lambda f: (-space[f], tie_break[f]))
        space[fold] -= rows[group]
    return [fold_of[group] for group in groups]


@given(problem=problems())
@settings(max_examples=100, deadline=None, database=None)
def test_groups_are_dealt_by_the_book(problem):
    assert stratify_groups(*problem).tolist() == dealt_by_the_book(*problem)


def test_thousands_of_classes_take_memory_and_time_for_the_labels_that_are_there():
    rows, classes = 6_000, 2_000
    targets = np.zeros((rows, classes), dtype=bool)
    for column in np.random.default_rng(0).integers(0, classes, (4, rows)):
        targets[np.arange(rows), column] = True
    tracemalloc.start()
    try:
        fold = stratify_groups(targets, np.arange(rows), 5, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < rows * classes  # a number for each group and class takes 8 times as much
    counts = np.array([targets[fold == each].sum(axis=0) for each in range(5)])
    assert np.ptp(counts, axis=0).mean() < 2.5  # by chance 3.6
    assert np.ptp(np.bincount(fold)) < 60


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_many_small_groups_are_spread_evenly(seed):
    generator = np.random.default_rng(seed)
    targets = generator.random((600, 5)) < [0.02, 0.05, 0.2, 0.4, 0.6]
    groups = np.repeat(np.arange(300), 2)
    fold = stratify_groups(targets, groups, 5, seed)
    counts = np.array([targets[fold == each].sum(axis=0) for each in range(5)])
    assert np.ptp(counts, axis=0).max() <= 2
    assert np.ptp(np.bincount(fold)) <= 20
    random = np.repeat(generator.integers(0, 5, 300), 2)
    chance = np.array([targets[random == each].sum(axis=0) for each in range(5)])
    spread = np.ptp(counts, axis=0) / counts.mean(axis=0)
    assert spread.mean() < 0.5 * (np.ptp(chance, axis=0) / chance.mean(axis=0)).mean()


def test_a_rare_label_goes_to_folds_one_by_one_by_hand():
    # Label 0 is in groups 0 and 1, label 1 in 2 and 3: each fold gets one of both.
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=bool)
    for seed in range(8):
        fold = stratify_groups(targets, np.arange(4), 2, seed)
        assert fold[0] != fold[1]
        assert fold[2] != fold[3]


def test_rows_without_a_label_fill_the_folds_up():
    targets = np.zeros((12, 2), dtype=bool)
    targets[:2, 0] = True
    for seed in range(5):
        fold = stratify_groups(targets, np.arange(12), 3, seed)
        assert np.bincount(fold).tolist() == [4, 4, 4]


def test_a_large_group_is_dealt_before_small_ones():
    targets = np.ones((9, 1), dtype=bool)
    groups = np.array([0] * 3 + [1, 2, 3, 4, 5, 6])
    for seed in range(5):
        fold = stratify_groups(targets, groups, 3, seed)
        assert np.bincount(fold).tolist() == [3, 3, 3]


def test_another_seed_deals_otherwise():
    targets, groups = np.ones((20, 1), dtype=bool), np.arange(20)
    assert len({tuple(stratify_groups(targets, groups, 2, seed)) for seed in range(6)}) > 3
