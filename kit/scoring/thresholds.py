"""Thresholds that maximise F on given rows, exactly, by sorting.

A threshold predicts the rows at or above it, so only the cuts between different values count: cut i predicts the i
most probable ones. Where several cuts reach the optimum, the threshold is the middle of the widest interval of
thresholds that do (of equally wide ones the highest), in [0, 1]. Infinity predicts nothing.

The arrays stay in their own precision (float32 or float64); only a column, or for `best_threshold` the sorted
whole, is copied.
"""

from collections.abc import Iterator

import numpy as np

from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta
from kit.scoring.lowest import SHARE, lowest_of_steps

NEVER = np.inf  # the threshold that nothing reaches
MANY = 50_000_000  # probabilities, whose sorting takes some 3 GB
GAIN = 1e-5  # of the average F: a sweep of coordinate ascent that gains less is the last
_TOLERANCE = 1e-10  # what sums of rounded changes may differ by and still be tied
_COLUMNS = 8  # columns brought together at once: reading one column reads whole cache lines
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
    probabilities, truth = _part(probabilities, truth, MANY // 2 if config.average == "lowest" else MANY)
    if config.average == "binary":
        return _one_class(probabilities[:, 1], truth == 1, config)
    truth = np.asarray(truth, dtype=bool)
    if not truth.any():
        return NEVER
    scores = _forced(probabilities, *label_limits(truth, config))
    if config.average == "micro":
        changes = truth
    elif config.average == "samples":
        changes = _changes_by_row(scores, truth, config)
    else:
        changes = _changes_by_class(scores, truth, config)
    order = np.argsort(scores, axis=None)[::-1]
    values = scores.ravel()[order]
    objective = np.zeros(len(values) + 1)
    np.cumsum(changes.ravel()[order], out=objective[1:])
    if config.average == "micro":
        objective = fbeta(objective, np.arange(len(objective)), truth.sum(), config.beta, config.zero_division)
    if config.average == "lowest":
        objective = SHARE * objective + _lowest_at_cuts(order, truth, config)
    free = slice(np.count_nonzero(values == np.inf), len(values) - np.count_nonzero(values == -np.inf))
    return _middle(values[free], objective[free.start : free.stop + 1])


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
    return np.array([_one_class(column, labels, config) for column, labels in _columns(probabilities, truth)])


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
        return _between(values, 0, 0)
    last = values[count - 1]
    more, fewer = int(np.count_nonzero(values >= last)), int(np.count_nonzero(values > last))
    cut = more if more - count < count - fewer else fewer
    return _between(values, cut, cut)


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


def _part(probabilities: np.ndarray, truth: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows; of more than `many` probabilities a random part of the rows, always the same."""
    if probabilities.size <= many:
        return probabilities, truth
    number = max(1, many // probabilities.shape[1])
    rows = np.sort(np.random.default_rng(0).choice(len(truth), number, replace=False))
    return probabilities[rows], truth[rows]


def _one_class(column: np.ndarray, labels: np.ndarray, config: ScoringConfig) -> float:
    """Return the best threshold of one class: its probabilities [rows] and bool labels [rows]."""
    positive = int(np.count_nonzero(labels))
    if positive == 0:
        return NEVER
    values, hits = _descending(column, labels)
    return _middle(values, _f_at_cuts(hits, positive, config))


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


def _middle(values: np.ndarray, objective: np.ndarray, tolerance: float = _TOLERANCE) -> float:
    """Return the middle of the widest interval of best thresholds.

    Parameters
    ----------
    values : ndarray
        Descending [n].
    objective : ndarray
        That of each cut [n + 1].
    tolerance : float
        Objectives that differ by no more are tied.
    """
    cuts = np.flatnonzero(np.concatenate([[True], values[1:] < values[:-1], [True]])) if len(values) else [0]
    reached = np.asarray(objective)[cuts]
    tied = np.flatnonzero(reached >= reached.max() - tolerance)
    breaks = np.flatnonzero(np.diff(tied) > 1)
    firsts = np.asarray(cuts)[tied[np.concatenate([[0], breaks + 1])]]
    lasts = np.asarray(cuts)[tied[np.concatenate([breaks, [len(tied) - 1]])]]
    widths = [np.subtract(*_ends(values, first, last)) for first, last in zip(firsts, lasts, strict=True)]
    widest = int(np.argmax(widths))
    return _between(values, int(firsts[widest]), int(lasts[widest]))


def _ends(values: np.ndarray, first: int, last: int) -> tuple[float, float]:
    """Return the highest and the lowest threshold of the cuts first to last."""
    if first > 0:
        high = float(values[first - 1])
    else:
        above = float(np.nextafter(values[0], values.dtype.type(np.inf))) if len(values) else 1.0
        high = max(1.0, above)
    return high, float(values[last]) if last < len(values) else 0.0


def _between(values: np.ndarray, first: int, last: int) -> float:
    """Return the middle of the thresholds of the cuts first to last."""
    high, low = _ends(values, first, last)
    middle = float(np.asarray((high + low) / 2, dtype=values.dtype))
    # Between neighbours of the floating-point line the middle rounds onto one of them; the lower one is out.
    return high if last < len(values) and middle <= low else middle


def _columns(probabilities: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each class's probabilities and labels, contiguous in memory."""
    for start in range(0, probabilities.shape[1], _COLUMNS):
        near = slice(start, start + _COLUMNS)
        yield from zip(
            np.ascontiguousarray(probabilities[:, near].T), np.ascontiguousarray(truth[:, near].T), strict=True
        )


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


def _changes_by_class(scores: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """Return what predicting each one, after all above it, adds to the average over classes: [rows, classes]."""
    changes = np.empty(scores.shape)
    positive = np.count_nonzero(truth, axis=0)
    weights = (
        positive / positive.sum() if config.average == "weighted" else np.full(len(positive), 1 / len(positive))
    )
    for index, (column, labels) in enumerate(_columns(scores, truth)):
        order = np.argsort(column)[::-1]
        hits = np.concatenate([[0], np.cumsum(labels[order])])
        changes[order, index] = weights[index] * np.diff(_f_at_cuts(hits, positive[index], config))
    return changes


def _lowest_at_cuts(order: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """Return the lowest F of all classes when the first i of all are predicted: [rows · classes + 1].

    `order` has the places of all probabilities, from the highest on, in truth bool [rows, classes] laid out flat.
    """
    classes = truth.shape[1]
    of_class = (order % classes).astype(np.int16 if classes <= np.iinfo(np.int16).max else np.int64)
    at = np.argsort(of_class, kind="stable")  # those of class 0 from the highest on, then those of class 1 …
    hits = np.cumsum(truth.ravel()[order[at]].reshape(classes, -1), axis=1)
    hits = np.concatenate([np.zeros((classes, 1)), hits], axis=1)
    positive = np.count_nonzero(truth, axis=0)[:, None]
    values = fbeta(hits, np.arange(len(truth) + 1), positive, config.beta, config.zero_division)
    steps = np.concatenate([np.zeros((classes, 1), dtype=np.int64), at.reshape(classes, -1) + 1], axis=1)
    owner = np.repeat(np.arange(classes), len(truth) + 1)
    return lowest_of_steps(owner, steps.ravel(), values.ravel(), len(order))


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
        _descending(column, labels) if labels.any() else None for column, labels in _columns(probabilities, truth)
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
    tolerance = _TOLERANCE * (1 + len(truth))
    return np.array(
        [NEVER if pair is None else _middle(pair[0], worth(pair[1], f), tolerance) for pair in columns]
    )


def _samples(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    free = config.model_copy(update={"at_least": 0, "at_most": truth.shape[1]})
    thresholds = np.where(truth.any(axis=0), best_threshold(probabilities, truth, free), NEVER)
    probabilities, truth = _part(probabilities, truth, MANY)
    chosen = probabilities >= thresholds.astype(probabilities.dtype)
    predicted, hits = np.count_nonzero(chosen, axis=1), np.count_nonzero(chosen & truth, axis=1)
    positive = np.count_nonzero(truth, axis=1)
    orders = {
        index: np.argsort(column)[::-1].astype(np.int32)
        for index, (column, labels) in enumerate(_columns(probabilities, truth))
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
            thresholds[index] = _middle(column[order], np.concatenate([[0], np.cumsum(gains)]))
            chosen[:, index] = column >= probabilities.dtype.type(thresholds[index])
            predicted, hits = predicted + chosen[:, index], hits + (chosen[:, index] & labels)
        before, reached = reached, f(hits, predicted).mean()
        if reached < before + GAIN:
            break
    return thresholds
