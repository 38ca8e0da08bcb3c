"""The parts of a fold's training rows that a head's strength and calibration are chosen by."""

import numpy as np

from kit.competition.folds import FoldPlan
from kit.core.errors import KitError

FEWEST = 3  # parts, where a single fold trains
PARTS = 4  # at most
ROUNDS = 4  # in which labels are dealt, where a row may have several; few need a second one


def inner_parts(plan: FoldPlan, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return which part each training row is in, int64 [rows]; −1: in none.

    The parts are the folds that train, several in one where there are more than four. Where a single fold trains
    (of two), its rows are dealt to three, row groups together. The rows of a class that one part alone has, as its
    rows are few groups, are dealt to all parts: scores of fits that never saw the class would tell nothing of it.
    """
    return _without_confined(_parts(plan, rows, targets), targets[rows])


def _parts(plan: FoldPlan, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    folds = plan.fold[rows]
    there = [fold for fold in np.unique(folds) if fold >= 0]
    if len(there) >= 2:
        number = {fold: place % PARTS for place, fold in enumerate(there)}
        return np.array([number.get(fold, -1) for fold in folds], dtype=np.int64)
    if plan.groups is None:  # those of a class one after the other, so that each part gets its share
        labels = targets[rows].argmax(axis=1) if targets.ndim == 2 else targets[rows]
        parts = np.empty(len(rows), dtype=np.int64)
        parts[np.argsort(labels, kind="stable")] = np.arange(len(rows)) % FEWEST
        return parts
    from sklearn.model_selection import GroupKFold

    groups, parts = plan.groups[rows], np.zeros(len(rows), dtype=np.int64)
    if len(np.unique(groups)) < FEWEST:
        raise KitError(f"features: {FEWEST} row groups at least have to train, to choose and calibrate a head by")
    for part, (_, out) in enumerate(GroupKFold(FEWEST).split(rows, groups=groups)):
        parts[out] = part
    return parts


def _without_confined(parts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return parts in which no class of two rows or more is in a single one, unless that is never left out."""
    numbers, several = np.unique(parts[parts >= 0]), targets.ndim == 2
    for first in range(ROUNDS if several else 1):  # a row that is dealt takes its other labels along
        for label in range(targets.shape[1]) if several else np.unique(targets):
            mine = np.flatnonzero(targets[:, label] if several else targets == label)
            if len(mine) > 1 and parts[mine[0]] >= 0 and (parts[mine] == parts[mine[0]]).all():
                parts[mine] = numbers[(first + np.arange(len(mine))) % len(numbers)]
    return parts
