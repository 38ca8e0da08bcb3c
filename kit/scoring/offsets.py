"""Class offsets for one label a row: argmax of log probability plus the class's offset."""

import numpy as np

from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta

_FLOOR = 1e-12  # probabilities below it are taken to be it
_TOLERANCE = 1e-10
_SWEEPS = 20


def offsets(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> np.ndarray:
    """Offsets that raise macro or weighted F on these rows: float64 [classes], a local optimum.

    probabilities float [rows, classes], truth int [rows]. Coordinate ascent from zero (argmax): with the other
    offsets fixed, each row turns to the class at an offset of its own; passing them in order changes the F of this
    class and of the class left, so their running sum is exact at every cut. Of tied cuts the middle of the widest
    interval, which reaches at most 1 beyond the outermost row. A class without rows is never predicted: minus
    infinity.
    """
    logs = logarithm(probabilities)
    positive = np.bincount(truth, minlength=logs.shape[1])
    present = np.flatnonzero(positive)
    weights = positive / len(truth) if config.average == "weighted" else (positive > 0) / len(present)
    values = np.where(positive > 0, 0.0, -np.inf)
    if len(present) < 2:
        return values
    moved, rows = _Moved(logs + values), np.arange(len(truth))
    reached = -1.0
    for _ in range(_SWEEPS):
        before = reached
        for index in present:
            left = moved.best_but(index)
            turns = moved.values[rows, left] - logs[:, index]
            order = np.argsort(turns)
            objective = _f_at_cuts(index, left[order], truth[order], positive, weights, config.beta)
            values[index], reached = _middle(turns[order], objective)
            moved.change(index, logs[:, index] + values[index])
        if reached <= before + _TOLERANCE:
            break
    return values


class _Moved:
    """Log probabilities plus offsets [rows, classes], and the best two classes of each row, which are looked for
    again only where a change may have moved them: mostly in few rows."""

    def __init__(self, values: np.ndarray):
        self.values = values
        self.first, self.second = _best_two(values)

    def best_but(self, index: int) -> np.ndarray:
        """The best class of each row, class `index` left aside; the first of equals."""
        return np.where(self.first == index, self.second, self.first)

    def change(self, index: int, column: np.ndarray) -> None:
        self.values[:, index] = column
        beaten = column >= self.values[np.arange(len(column)), self.second]
        some = np.flatnonzero((self.first == index) | (self.second == index) | beaten)
        self.first[some], self.second[some] = _best_two(self.values[some])


def _best_two(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = np.argmax(values, axis=1)
    rest = values.copy()
    rest[np.arange(len(rest)), first] = -np.inf
    # Where nothing but the first is finite, the second is any other.
    second = np.argmax(rest, axis=1)
    return first, np.where(second == first, (first + 1) % values.shape[1], second)


def logarithm(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithms, float64; finite for zero, too."""
    return np.log(np.maximum(probabilities, _FLOOR, dtype=np.float64))


def _f_at_cuts(
    index: int, left: np.ndarray, truth: np.ndarray, positive: np.ndarray, weights: np.ndarray, beta: float
) -> np.ndarray:
    """The average F when the first i rows turned to class `index` and the others kept class `left`: [n + 1]."""
    count = len(truth)
    hits = np.concatenate([[0], np.cumsum(truth == index)])
    gained = weights[index] * fbeta(hits, np.arange(count + 1), positive[index], beta)
    by_class = np.argsort(left, kind="stable")
    classes, right = left[by_class], (truth == left)[by_class]
    kept = np.bincount(left, minlength=len(positive))
    kept_right = np.bincount(left[truth == left], minlength=len(positive))
    first = np.searchsorted(classes, np.arange(len(positive)))[classes]
    gone = np.arange(count) - first  # rows of the same class that turned before
    sums = np.concatenate([[0], np.cumsum(right)])
    gone_right = sums[:-1] - sums[first]
    at, rest = kept_right[classes] - gone_right, kept[classes] - gone
    before = fbeta(at, rest, positive[classes], beta)
    after = fbeta(at - right, rest - 1, positive[classes], beta)
    lost = np.empty(count)
    lost[by_class] = weights[classes] * (after - before)
    start = np.sum(weights * fbeta(kept_right, kept, positive, beta))
    return gained + start + np.concatenate([[0], np.cumsum(lost)])


def _middle(turns: np.ndarray, objective: np.ndarray) -> tuple[float, float]:
    """Middle of the widest interval of best offsets, and the F there; turns ascending [n], objective [n + 1]."""
    edges = np.concatenate([[turns[0] - 1], turns, [turns[-1] + 1]])
    cuts = np.flatnonzero(np.concatenate([[True], turns[1:] > turns[:-1], [True]]))
    best = objective[cuts].max()
    tied = np.flatnonzero(objective[cuts] >= best - _TOLERANCE)
    breaks = np.flatnonzero(np.diff(tied) > 1)
    firsts, lasts = cuts[tied[np.r_[0, breaks + 1]]], cuts[tied[np.r_[breaks, len(tied) - 1]]]
    widest = np.argmax(edges[lasts + 1] - edges[firsts])
    return (edges[firsts[widest]] + edges[lasts[widest] + 1]) / 2, best
