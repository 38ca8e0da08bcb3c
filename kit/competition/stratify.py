"""Row groups dealt to folds so that each fold has its share of every label."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def stratify_groups(targets: np.ndarray, groups: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Deal row groups to folds so that every fold has its share of every label.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, On the Stratification of Multi-Label Data) with
    row groups in the place of rows: label by label, the rarest of those left first, its groups, the largest
    first, go to the fold that lacks most of the label; where two lack as much, to the one that lacks more rows.

    Parameters
    ----------
    targets : ndarray
        bool [rows, classes].
    groups : ndarray
        int64 [rows], numbered from 0.
    k, seed : int
        Number of folds, and what the order of ties is drawn from.

    Returns
    -------
    ndarray
        int64 [rows]: the fold of each row; a row group is in one fold.
    """
    generator = np.random.default_rng(seed)
    count, classes = int(groups.max()) + 1, targets.shape[1]
    rows = np.bincount(groups, minlength=count).astype(float)
    of_group = _label_counts(targets, groups, count)
    of_label = of_group.tocsc()  # the same, by label
    left = np.bincount(of_group.indices, weights=of_group.data, minlength=classes)
    lacking_labels = np.tile(left[:, None] / k, (1, k))
    lacking_rows = np.full(k, rows.sum() / k)
    fold_of = np.full(count, -1)
    shuffled = generator.permutation(count)
    turn = np.argsort(shuffled)  # the place of each group in that order
    tie_break = generator.permutation(k)  # which fold is the first where all lack as much

    def assign(group: int, wants: np.ndarray, has: slice) -> None:
        best = np.lexsort((tie_break, -lacking_rows, -wants))[0]
        fold_of[group] = best
        lacking_labels[of_group.indices[has], best] -= of_group.data[has]
        lacking_rows[best] -= rows[group]

    while (left > 0).any():
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        part = slice(of_label.indptr[label], of_label.indptr[label + 1])
        members, counts = of_label.indices[part], of_label.data[part]
        order = np.lexsort((turn[members], -counts))
        for group in members[order][fold_of[members[order]] < 0].tolist():
            has = slice(of_group.indptr[group], of_group.indptr[group + 1])
            assign(group, lacking_labels[label], has)
            left[of_group.indices[has]] -= of_group.data[has]
    without = shuffled[fold_of[shuffled] < 0]
    for group in without[np.argsort(-rows[without], kind="stable")].tolist():
        assign(group, lacking_rows, slice(0, 0))
    return fold_of[groups].astype(np.int64)


def _label_counts(targets: np.ndarray, groups: np.ndarray, count: int) -> "csr_array":
    """How many rows of each row group have each label, [groups, classes].

    Mostly none have, so that the table would not fit in memory if it held the zeros.
    """
    from scipy.sparse import csr_array

    classes = targets.shape[1]
    row, column = np.divmod(np.flatnonzero(targets), max(1, classes))  # faster than np.nonzero
    return csr_array((np.ones(len(row)), (groups[row], column)), shape=(count, classes))
