"""Groups of rows with several labels, dealt to folds so that every label is spread evenly."""

import numpy as np


def deal_groups(targets: np.ndarray, groups: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The fold of each row, int64 [rows]; a group is in one fold.

    targets  bool [rows, classes]
    groups   int64 [rows], numbered from 0

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, On the Stratification of Multi-Label Data) with
    groups in the place of rows: label by label, the rarest of those left first, its groups, the largest first, go
    to the fold that lacks most of the label; where two lack as much, to the one that lacks more rows.
    """
    generator = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    rows = np.bincount(groups, minlength=count).astype(float)
    labels = np.zeros((count, targets.shape[1]))
    np.add.at(labels, groups, targets)
    lacking_labels = np.tile(labels.sum(axis=0) / k, (k, 1))
    lacking_rows = np.full(k, rows.sum() / k)
    fold_of = np.full(count, -1)
    shuffled = generator.permutation(count)
    tie_break = generator.permutation(k)  # which fold is the first where all lack as much

    def assign(group: int, label: int | None) -> None:
        wants = lacking_rows if label is None else lacking_labels[:, label]
        best = np.lexsort((tie_break, -lacking_rows, -wants))[0]
        fold_of[group] = best
        lacking_labels[best] -= labels[group]
        lacking_rows[best] -= rows[group]

    left = labels.sum(axis=0)
    while (left > 0).any():
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        members = [group for group in shuffled if fold_of[group] < 0 and labels[group, label] > 0]
        for group in sorted(members, key=lambda group: -labels[group, label]):
            assign(group, label)
            left -= labels[group]
    for group in sorted((group for group in shuffled if fold_of[group] < 0), key=lambda group: -rows[group]):
        assign(group, None)
    return fold_of[groups].astype(np.int64)
