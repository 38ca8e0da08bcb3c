"""Thresholds that maximise F on given rows, exactly, by sorting.

A threshold predicts the rows at or above it, so only the cuts between different values count: cut i predicts the i
most probable ones. Where several cuts reach the optimum, the threshold is the middle of the widest interval of
thresholds that do (of equally wide ones the highest), in [0, 1]. Infinity predicts nothing.

The arrays stay in their own precision (float32 or float64); only a column, or for `best_threshold` the sorted
whole, is copied.
"""

from collections.abc import Iterator

import numpy as np

from kit.scoring.columns import (
    MOST_FITS,
    NEVER,
    TOLERANCE,
    SortedColumn,
    between_cuts,
    bits_of,
    columns_of,
    middle,
)
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta
from kit.scoring.one_threshold import best_for_all

MANY = 50_000_000  # probabilities, whose sorting takes some 3 GB
GAIN = 1e-5  # of the average F: a sweep of coordinate ascent that gains less is the last
_ROWS = 65_536  # rows in a block
_SWEEPS = 10  # of coordinate ascent, at most


def best_threshold(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> float:
    """Return the one threshold with the highest F on these rows, limits on the number of labels included.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        bool [rows, classes]. Average binary: int [rows] of 0 and 1, and the threshold is for the second column.
    config : ScoringConfig
        The metric's options.

    Returns
    -------
    float
        `NEVER` where nothing is positive.

    Notes
    -----
    Each probability passed on the way down changes one class's F (macro, weighted, lowest), one row's (samples) or
    the pooled counts (micro); the running sum of the changes is F at every cut. O(rows · classes · log). Of cuts
    with the same lowest F that with the highest macro F is taken (more exactly, the highest lowest F plus `SHARE`
    of macro F). Of more than `MANY` probabilities (lowest: half as many, for its memory) a random part of the
    rows, always the same, is looked at: one number needs no more.
    """
    everything = np.ones((1, len(truth)), dtype=bool)
    return best_threshold_of_fits(probabilities, truth, everything, config)[0]


def best_threshold_of_fits(
    probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, config: ScoringConfig
) -> list[float]:
    """Return `best_threshold` of each fit, which sees some of the rows: kept bool [fits, rows]."""
    kept = np.stack([_part(rows, probabilities.shape[1], config) for rows in kept])
    if config.average == "binary":
        column, labels = np.ascontiguousarray(probabilities[:, 1]), truth == 1
        return [SortedColumn(column, labels, bits_of(rows[None])).of(0).best(config)[0] for rows in kept]
    truth = np.asarray(truth, dtype=bool)
    if config.average == "samples":
        return [_best_by_row(probabilities[rows], truth[rows], config) for rows in kept]
    seen = truth if config.at_least is not None or kept.all() else truth[kept.any(axis=0)]
    limits, parts = label_limits(seen, config), range(0, len(kept), MOST_FITS)
    made = [best_for_all(probabilities, truth, kept[at : at + MOST_FITS], limits, config) for at in parts]
    return [threshold for part in made for threshold in part]


def _best_by_row(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> float:
    """Return the one threshold with the highest mean F of rows."""
    if not truth.any():
        return NEVER
    scores = _forced(probabilities, *label_limits(truth, config))
    order = np.argsort(scores, axis=None)[::-1]
    values = scores.ravel()[order]
    objective = np.append(0.0, np.cumsum(_changes_by_row(scores, truth, config).ravel()[order]))
    free = slice(np.count_nonzero(values == np.inf), len(values) - np.count_nonzero(values == -np.inf))
    return middle(values[free], objective[free.start : free.stop + 1])


def best_thresholds(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """Return the threshold of each class with the highest F on these rows.

    Limits on the number of labels are left aside.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        bool [rows, classes].
    config : ScoringConfig
        The metric's options.

    Returns
    -------
    ndarray
        float64 [classes]. A class without positive rows is never predicted: `NEVER`.

    Notes
    -----
    macro, weighted, lowest: each class by itself, exact. micro: exact by Dinkelbach's iterations over F, whose
    inner problem falls apart into classes. samples: coordinate ascent from `best_threshold`, each step exact; a
    local optimum. A sweep over the classes that gains less than `GAIN` is the last, and the tenth is, too. Of more
    than `MANY` probabilities it looks at a part of the rows, as `best_threshold` does; a class without positive
    rows there keeps the threshold it began with.

    References
    ----------
    Dinkelbach 1967, "On nonlinear fractional programming".
    """
    truth = np.asarray(truth, dtype=bool)
    if config.average == "micro":
        return _micro(probabilities, truth, config)
    if config.average == "samples":
        return _samples(probabilities, truth, config)
    bits = _all(truth)
    columns = columns_of(probabilities, truth)
    return np.array([SortedColumn(column, labels, bits).of(0).best(config)[0] for column, labels in columns])


def _part(kept: np.ndarray, classes: int, config: ScoringConfig) -> np.ndarray:
    """Return the rows that are kept, bool [rows]; of more than `MANY` probabilities (lowest: half as many) a part.

    The part is random, and always the same.
    """
    rows, most = np.flatnonzero(kept), max(1, (MANY // 2 if config.average == "lowest" else MANY) // classes)
    if len(rows) <= most:
        return kept
    part = np.zeros_like(kept)
    part[rows[np.random.default_rng(0).choice(len(rows), most, replace=False)]] = True
    return part


def _all(truth: np.ndarray) -> np.ndarray:
    """Return the bits of one fit that sees all rows."""
    return bits_of(np.ones((1, len(truth)), dtype=bool))


def threshold_at(values: np.ndarray, share: float) -> float:
    """Return the threshold that the given share of values lies at or above, as nearly as ties let it.

    Parameters
    ----------
    values : ndarray
        Probabilities of any shape.
    share : float
        In [0, 1].
    """
    values = np.sort(values, axis=None)[::-1]
    count = round(share * len(values))
    if count == 0 or len(values) == 0:
        return between_cuts(values, 0, 0)
    last = values[count - 1]
    more, fewer = int(np.count_nonzero(values >= last)), int(np.count_nonzero(values > last))
    cut = more if more - count < count - fewer else fewer
    return between_cuts(values, cut, cut)


def label_limits(truth: np.ndarray, config: ScoringConfig) -> tuple[int, int]:
    """Return the fewest and the most labels of a row.

    Parameters
    ----------
    truth : ndarray
        bool [rows, classes].
    config : ScoringConfig
        What it says counts; else the fewest that a row of truth has, and all classes.
    """
    at_most = truth.shape[1] if config.at_most is None else config.at_most
    if config.at_least is not None:
        return config.at_least, at_most
    fewest = min((int(np.count_nonzero(rows, axis=1).min()) for rows in _blocks(truth)), default=0)
    return min(fewest, at_most), at_most


def _descending(column: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values from the highest on [n], and the hits at each cut [n + 1]."""
    if column.dtype == np.float32:
        # The bits of floats from 0 on are in the order of their values, with the sign's bit free for the label:
        # sorting such numbers costs less than half of sorting indices and collecting by them.
        keys = (column + np.float32(0)).view(np.uint32) << 1 | labels
        keys.sort()
        values, sorted_labels = (keys[::-1] >> 1).view(np.float32), keys[::-1] & 1
    else:
        order = np.argsort(column)[::-1]
        values, sorted_labels = column[order], labels[order]
    hits = np.zeros(len(column) + 1)
    np.cumsum(sorted_labels, out=hits[1:])
    return values, hits


def _f_at_cuts(hits: np.ndarray, positive: int, config: ScoringConfig) -> np.ndarray:
    return fbeta(hits, np.arange(len(hits)), positive, config.beta, config.zero_division)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Return the array in blocks of rows."""
    return (array[start : start + _ROWS] for start in range(0, len(array), _ROWS))


def _forced(probabilities: np.ndarray, at_least: int, at_most: int) -> np.ndarray:
    """Return infinity for each row's `at_least` most probable classes, minus infinity beyond its `at_most`."""
    if at_least == 0 and at_most >= probabilities.shape[1]:
        return probabilities
    scores = probabilities.copy()
    for rows in _blocks(scores):
        order = np.argsort(-rows, axis=1, kind="stable")
        np.put_along_axis(rows, order[:, :at_least], np.inf, axis=1)
        np.put_along_axis(rows, order[:, at_most:], -np.inf, axis=1)
    return scores


def _changes_by_row(scores: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """Return what predicting each one, after all above it, adds to the average over rows: [rows, classes]."""
    changes = np.empty(scores.shape)
    for rows, labels, out in zip(_blocks(scores), _blocks(truth), _blocks(changes), strict=True):
        order = np.argsort(-rows, axis=1)
        hits = np.zeros((len(rows), rows.shape[1] + 1))
        np.cumsum(np.take_along_axis(labels, order, axis=1), axis=1, out=hits[:, 1:])
        positive = np.count_nonzero(labels, axis=1)[:, None]
        values = fbeta(hits, np.arange(hits.shape[1]), positive, config.beta, config.zero_division)
        np.put_along_axis(out, order, np.diff(values, axis=1) / len(scores), axis=1)
    return changes


def _micro(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    square = config.beta**2
    positive = np.count_nonzero(truth, axis=0)
    columns = [
        _descending(column, labels) if labels.any() else None
        for column, labels in columns_of(probabilities, truth)
    ]

    def worth(hits: np.ndarray, f: float) -> np.ndarray:
        return (1 + square) * hits - f * np.arange(len(hits))

    f = 0.0
    while True:
        part, whole = 0.0, square * positive.sum()
        for values, hits in filter(None, columns):
            allowed = np.concatenate([[True], values[1:] < values[:-1], [True]])
            cut = int(np.argmax(np.where(allowed, worth(hits, f), -np.inf)))
            part, whole = part + (1 + square) * hits[cut], whole + cut
        better = part / whole if whole else 0.0
        if better <= f + 1e-15:
            break
        f = better
    # At the optimal F all cuts of a class with the highest worth give the same F, in any combination.
    tolerance = TOLERANCE * (1 + len(truth))
    return np.array([NEVER if pair is None else middle(pair[0], worth(pair[1], f), tolerance) for pair in columns])


def _samples(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    free = config.model_copy(update={"at_least": 0, "at_most": truth.shape[1]})
    thresholds = np.where(truth.any(axis=0), best_threshold(probabilities, truth, free), NEVER)
    rows = _part(np.ones(len(truth), dtype=bool), truth.shape[1], config)
    if not rows.all():
        probabilities, truth = probabilities[rows], truth[rows]
    chosen = probabilities >= thresholds.astype(probabilities.dtype)
    predicted, hits = np.count_nonzero(chosen, axis=1), np.count_nonzero(chosen & truth, axis=1)
    positive = np.count_nonzero(truth, axis=1)
    orders = {
        index: np.argsort(column)[::-1].astype(np.int32)
        for index, (column, labels) in enumerate(columns_of(probabilities, truth))
        if labels.any()
    }

    def f(hits: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return fbeta(hits, predicted, positive, config.beta, config.zero_division)

    reached = f(hits, predicted).mean()
    for _ in range(_SWEEPS):
        for index, order in orders.items():
            column, labels = probabilities[:, index], truth[:, index]
            predicted, hits = predicted - chosen[:, index], hits - (chosen[:, index] & labels)
            gains = (f(hits + labels, predicted + 1) - f(hits, predicted))[order] / len(truth)
            thresholds[index] = middle(column[order], np.concatenate([[0], np.cumsum(gains)]))
            chosen[:, index] = column >= probabilities.dtype.type(thresholds[index])
            predicted, hits = predicted + chosen[:, index], hits + (chosen[:, index] & labels)
        before, reached = reached, f(hits, predicted).mean()
        if reached < before + GAIN:
            break
    return thresholds
