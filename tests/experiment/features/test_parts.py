"""The parts that a head's strength is chosen by: within the training rows, row groups together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.competition.folds import FoldPlan
from kit.core.errors import KitError
from kit.experiment.features.parts import PARTS, _parts, inner_parts
from kit.scoring.heads import HeadRows, Logistic, Prototypes, Ridge, Svm


def plan_of(fold, groups=None, **others) -> FoldPlan:
    return FoldPlan([str(row) for row in range(len(fold))], np.array(fold), groups, **others)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(0, 1000), st.booleans())
def test_parts_are_of_training_rows_and_keep_row_groups_together(k, seed, grouped):
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 20, 80) if grouped else None
    of_group = np.concatenate([np.arange(k), generator.integers(0, k, 20)])[:20]
    fold = of_group[groups] if groups is not None else np.arange(80) % k
    targets = generator.integers(0, 3, 80)
    plan = plan_of(fold, groups)
    for held_out in range(k):
        rows = plan.training_rows(held_out)
        try:
            parts = inner_parts(plan, rows, targets)
        except KitError:
            assert groups is not None
            assert len(np.unique(groups[rows])) < 3
            continue
        assert parts.shape == rows.shape
        assert 2 <= len(np.unique(parts)) <= PARTS
        before, labels = _parts(plan, rows, targets), targets[rows]
        dealt = [label for label in np.unique(labels) if len(np.unique(before[labels == label])) == 1]
        if groups is not None:
            for group in set(groups[rows]) - set(groups[rows][np.isin(labels, dealt)]):
                assert len(np.unique(parts[groups[rows] == group])) == 1


def test_parts_are_other_folds_where_there_are_some():
    plan = plan_of([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    assert inner_parts(plan, plan.training_rows(2), np.zeros(10, int)).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_rows_that_are_never_held_out_are_of_no_part():
    plan = plan_of([-1, 0, 1, 2, -1])
    assert inner_parts(plan, plan.training_rows(0), np.zeros(5, int)).tolist() == [-1, 0, 1, -1]


def test_a_single_fold_is_dealt_class_by_class():
    plan, targets = plan_of([0, 1] * 12), np.repeat([0, 1], 12)
    rows = plan.training_rows(0)
    parts = inner_parts(plan, rows, targets)
    for label in (0, 1):
        assert np.bincount(parts[targets[rows] == label]).tolist() == [2, 2, 2]


def test_too_few_row_groups():
    plan = plan_of([0, 0, 1, 1], np.array([0, 1, 2, 3]))
    with pytest.raises(KitError, match="3 row groups"):
        inner_parts(plan, plan.training_rows(0), np.zeros(4, int))


@pytest.mark.parametrize("several", [False, True])
def test_a_class_that_one_part_alone_has_is_dealt_to_all(several):
    fold, targets = np.repeat(np.arange(4), 10), np.arange(40) % 2
    targets[np.flatnonzero(fold == 1)[:7]] = 2  # three parts of three, two and two rows
    plan, rows = plan_of(fold, np.arange(40) // 5), np.arange(10, 40)
    labels = np.eye(3, dtype=bool)[targets] if several else targets
    parts = inner_parts(plan, rows, labels)
    assert np.bincount(parts[targets[rows] == 2]).tolist() == [3, 2, 2]
    others = targets[rows] != 2
    assert parts[others].tolist() == (fold[rows] - 1)[others].tolist()


def test_a_label_is_not_left_in_one_part_by_another():
    """Row 1 has both: as the first is dealt, the second is in one part; as that is dealt, the first is again."""
    labels = np.zeros((12, 3), bool)
    labels[[0, 1], 0] = labels[[1, 4], 1] = labels[:, 2] = True
    plan = plan_of(np.repeat([1, 2, 3, 0], 4))
    parts = inner_parts(plan, np.arange(12), labels)
    for label in range(3):
        assert len(np.unique(parts[labels[:, label]])) > 1
    others = [row for row in range(12) if row not in (0, 1, 4)]
    assert parts[others].tolist() == np.repeat([0, 1, 2], 4)[others].tolist()


def test_a_class_of_one_row_group_is_predicted():
    """A calibration by fits that never saw the class would give it no probability at all."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(4, 20))

    def drawn(rows: int) -> tuple[np.ndarray, np.ndarray]:
        targets = generator.choice(4, size=rows, p=[0.3, 0.3, 0.3, 0.1])
        return (centres[targets] + 1.5 * generator.normal(size=(rows, 20))).astype(np.float32), targets

    (features, targets), (others, truth) = drawn(600), drawn(2000)
    fold = np.where(targets == 3, 1, np.arange(600) % 5)
    plan = plan_of(fold, np.where(targets == 3, 0, np.arange(600) + 1))
    rows = plan.training_rows(0)
    parts = inner_parts(plan, rows, targets)
    for head in (Ridge(), Svm(), Prototypes(), Logistic()):
        arrays, _ = head.fit(HeadRows(features[rows], targets[rows], 4, parts))
        found = head.predict(arrays, others)
        assert abs(found[:, 3].mean() - 0.1) < 0.05, head.name
        assert (found.argmax(axis=1) == 3)[truth == 3].mean() > 0.4, head.name
