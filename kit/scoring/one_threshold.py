"""The one threshold for all classes with the highest F, for several fits at once, without sorting everything.

Branch and bound: at a few hundred edges the counts of every class are known, and so the objective, and how far it
can rise up to the next edge. Only the probabilities between edges where the best may lie are sorted.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kit.scoring.columns import NEVER, TOLERANCE, columns_of, middle
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import argmax, fbeta
from kit.scoring.lowest import SHARE, lowest_of_steps

_EDGES = 512
_ROWS_AN_EDGE = 64  # at least, so that the counts at the edges take little beside the probabilities
_LOOKED_AT = 4_000_000  # probabilities of which the edges are quantiles
_BLOCK = 4_000_000  # probabilities looked at at a time
_REST, _LAST = np.uint32(13), np.uint32(2**13 - 1)  # bits of a float32 beside its first 19, and the last of them
_SLACK = 1e-9  # by which an objective may be below the best and is looked at still


def best_for_all(
    probabilities: np.ndarray, truth: np.ndarray, kept: np.ndarray, limits: tuple[int, int], config: ScoringConfig
) -> list[float]:
    """Return, for each fit, the one threshold with the highest F on its rows.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        bool [rows, classes].
    kept : ndarray
        bool [fits, rows], which rows each fit sees.
    limits : tuple of int
        The fewest and the most labels of a row.
    config : ScoringConfig
        Average macro, weighted, micro or lowest.

    Returns
    -------
    list of float
        `NEVER` where nothing is positive.

    Notes
    -----
    From one edge to the next the F of a class rises at most as if all its hits among the rows between came first.
    """
    free = _Free(probabilities, *limits)
    edges = _edges(probabilities, truth)
    tables = _tables(probabilities, truth, kept, free, edges, config)
    hulls = [each.hull() if each.positive.any() else (0, 0) for each in tables]
    found: list[float | None] = [None if each.positive.any() else NEVER for each in tables]
    while open_fits := [fit for fit, each in enumerate(found) if each is None]:
        low, high = (pick(edges[hulls[fit][at]] for fit in open_fits) for pick, at in ((min, 1), (max, 0)))
        part = _Part.between(probabilities, truth, free, float(low), float(high))
        for fit in open_fits:
            first, last = hulls[fit]
            found[fit] = tables[fit].best_in(
                part.of(kept[fit], float(edges[last]), float(edges[first])), first, last
            )
            hulls[fit] = max(first - (last - first), 0), min(last + (last - first), len(edges) - 1)
    return [each for each in found if each is not None]


class _Free:
    """Which probabilities a threshold decides: limits force each row's most probable labels, and forbid others.

    Of equals the first is the more probable.
    """

    def __init__(self, probabilities: np.ndarray, at_least: int, at_most: int) -> None:
        rows, classes = probabilities.shape
        self.first: np.ndarray | None = None  # the one that is forced, where it is one
        self.state: np.ndarray | None = None  # 1 forced, 0 free, −1 forbidden
        if at_least == 0 and at_most >= classes:
            return
        if at_least == 1 and at_most >= classes:
            self.first = argmax(probabilities)
            return
        self.state = np.zeros((rows, classes), dtype=np.int8)
        for block in _blocks(probabilities.shape):
            order = np.argsort(-probabilities[block], axis=1, kind="stable")
            np.put_along_axis(self.state[block], order[:, :at_least], 1, axis=1)
            np.put_along_axis(self.state[block], order[:, at_most:], -1, axis=1)

    def of_class(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return which rows are free, and which forced, bool [rows] each; None: all are free."""
        if self.first is not None:
            forced = self.first == index
            return ~forced, forced
        return None if self.state is None else (self.state[:, index] == 0, self.state[:, index] == 1)

    def at(self, rows: np.ndarray, classes: np.ndarray) -> np.ndarray | bool:
        """Return whether those at some places are free."""
        if self.first is not None:
            return self.first[rows] != classes
        return True if self.state is None else self.state[rows, classes] == 0


@dataclass(frozen=True)
class _Part:
    """Some of the probabilities: row, class, value and label of each."""

    rows: np.ndarray
    classes: np.ndarray
    values: np.ndarray
    labels: np.ndarray

    @classmethod
    def between(
        cls, probabilities: np.ndarray, truth: np.ndarray, free: _Free, low: float, high: float
    ) -> "_Part":
        """Return the free ones from `low` to below `high`."""
        parts = []
        for block in _blocks(probabilities.shape):
            values = probabilities[block]
            rows, classes = np.nonzero((values >= low) & (values < high))
            rows += block.start
            loose = np.broadcast_to(free.at(rows, classes), rows.shape)
            rows, classes = rows[loose].astype(np.int32), classes[loose].astype(np.int32)
            parts.append((rows, classes, probabilities[rows, classes], truth[rows, classes]))
        return cls(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    def of(self, kept: np.ndarray, low: float, high: float) -> "_Part":
        """Return those of a fit, from `low` to below `high`, from the highest on."""
        mine = np.flatnonzero(kept[self.rows] & (self.values >= low) & (self.values < high))
        order = mine[np.argsort(self.values[mine])[::-1]]
        return _Part(self.rows[order], self.classes[order], self.values[order], self.labels[order])


@dataclass(frozen=True)
class _Table:
    """The counts of one fit at the edges: what lies at or above each, forced ones included.

    Attributes
    ----------
    predicted, hits : ndarray
        int32 [classes, edges].
    positive : ndarray
        int64 [classes].
    config : ScoringConfig
    """

    predicted: np.ndarray
    hits: np.ndarray
    positive: np.ndarray
    config: ScoringConfig

    @cached_property
    def weights(self) -> np.ndarray:
        """What each class counts in the average."""
        even = np.full(len(self.positive), 1 / len(self.positive))
        return self.positive / self.positive.sum() if self.config.average == "weighted" else even

    def hull(self) -> tuple[int, int]:
        """Return the edges between which all best thresholds lie, and one more on each side."""
        reached = self._objective(self.predicted, self.hits)
        hits, before = self.hits[:, 1:], self.hits[:, :-1]
        bound = self._objective(self.predicted[:, :-1] + (hits - before), hits)
        near = np.flatnonzero(bound >= reached.max() - _SLACK)
        return max(int(near[0]) - 1, 0), min(int(near[-1]) + 2, len(reached) - 1)

    def best_in(self, part: _Part, first: int, last: int) -> float | None:
        """Return the best threshold among cuts between two edges; None where it may lie beyond them."""
        objective = self._at_cuts(part, first)
        least = objective.max() - TOLERANCE
        beyond = (first > 0 and objective[0] >= least) or (
            last < self.hits.shape[1] - 1 and objective[-1] >= least
        )
        return None if beyond else middle(part.values, objective)

    def _objective(self, predicted: np.ndarray, hits: np.ndarray) -> np.ndarray:
        """Return what is maximised from counts [classes, n]: [n]."""
        if self.config.average == "micro":
            ahead, count = (each.sum(axis=0, dtype=np.int64) for each in (hits, predicted))
            return self._f(ahead, count, self.positive.sum())
        total, lowest = np.zeros(hits.shape[1]), np.full(hits.shape[1], np.inf)
        for one in range(len(hits)):
            values = self._f(hits[one], predicted[one], self.positive[one])
            total += self.weights[one] * values
            np.minimum(lowest, values, out=lowest)
        return SHARE * total + lowest if self.config.average == "lowest" else total

    def _at_cuts(self, part: _Part, edge: int) -> np.ndarray:
        """Return what is maximised when the first i of a part are predicted beside all above the edge: [n + 1]."""
        predicted, hits = (each[:, edge].astype(np.int64) for each in (self.predicted, self.hits))
        if self.config.average == "micro":
            ahead = np.append(0, np.cumsum(part.labels)) + hits.sum()
            return self._f(ahead, np.arange(len(ahead)) + predicted.sum(), self.positive.sum())
        small = len(hits) <= np.iinfo(np.int16).max  # 16 bits are sorted by radix
        classes = part.classes.astype(np.int16) if small else part.classes
        order = np.argsort(classes, kind="stable")
        classes, labels = part.classes[order], part.labels[order].astype(np.int64)
        first = np.searchsorted(classes, np.arange(len(hits)))
        sums = np.append(0, np.cumsum(labels))
        hit = hits[classes] + sums[1:] - sums[first][classes]
        count = predicted[classes] + np.arange(1, len(classes) + 1) - first[classes]
        after = self._f(hit, count, self.positive[classes])
        changes = np.empty(len(order))
        changes[order] = self.weights[classes] * (after - self._f(hit - labels, count - 1, self.positive[classes]))
        start = self._f(hits, predicted, self.positive)
        average = np.append(0, np.cumsum(changes)) + np.sum(self.weights * start)
        if self.config.average != "lowest":
            return average
        owner = np.append(np.arange(len(hits)), classes)
        steps = np.append(np.zeros(len(hits), dtype=np.int64), order + 1)
        return SHARE * average + lowest_of_steps(owner, steps, np.append(start, after), len(order))

    def _f(self, hits: np.ndarray, predicted: np.ndarray, positive: np.ndarray | int) -> np.ndarray:
        return fbeta(hits, predicted, positive, self.config.beta, self.config.zero_division)


def _tables(
    probabilities: np.ndarray,
    truth: np.ndarray,
    kept: np.ndarray,
    free: _Free,
    edges: np.ndarray,
    config: ScoringConfig,
) -> list[_Table]:
    """Return the counts of each fit at the edges, which descend."""
    fits, classes, number = len(kept), probabilities.shape[1], len(edges)
    below = _Below(edges[::-1])
    predicted, hits = (np.zeros((fits, classes, number), dtype=np.int32) for _ in range(2))
    positive = np.zeros((fits, classes), dtype=np.int64)
    for index, (column, labels) in enumerate(columns_of(probabilities, truth)):
        loose = free.of_class(index)
        places = below(column) * 2 + labels
        forced = np.flatnonzero(loose[1]) if loose is not None else np.empty(0, dtype=np.int64)
        for fit, rows in enumerate(kept):
            seen = places[rows if loose is None else rows & loose[0]]
            counts = np.bincount(seen, minlength=2 * (number + 1)).reshape(number + 1, 2)
            # Of the values at or above the highest edge, at or above the two highest ones, and so on.
            others, right = np.cumsum(counts[::-1], axis=0)[:number].T
            chosen = forced[rows[forced]]
            predicted[fit, index] = others + right + len(chosen)
            hits[fit, index] = right + np.count_nonzero(labels[chosen])
            positive[fit, index] = np.count_nonzero(labels & rows)
    return [_Table(*each, config) for each in zip(predicted, hits, positive, strict=True)]


class _Below:
    """How many of some edges lie at or below values; the first bits of a float32 in [0, 1] tell it of nearly all.

    Parameters
    ----------
    edges : ndarray
        Ascending, float64.
    """

    def __init__(self, edges: np.ndarray) -> None:
        self.edges = edges
        first = np.arange((np.float32(1).view(np.uint32) >> _REST) + 1, dtype=np.uint32) << _REST
        least, most = (
            np.searchsorted(edges, bits.view(np.float32), side="right") for bits in (first, first | _LAST)
        )
        self._table = np.where(least == most, least, -1).astype(np.int16)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the number of edges for each of [n] values, int64 [n]."""
        single = values.astype(np.float32, copy=False) + np.float32(0)  # of the two zeros the positive one
        if not (np.array_equal(single, values) and values.min() >= 0 and values.max() <= 1):
            return np.searchsorted(self.edges, values, side="right")
        found = self._table[single.view(np.uint32) >> _REST].astype(np.int64)
        odd = np.flatnonzero(found < 0)
        found[odd] = np.searchsorted(self.edges, values[odd], side="right")
        return found


def _edges(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return values between which thresholds are looked for, descending, from infinity to minus infinity."""
    rows, classes = probabilities.shape
    some = slice(None, None, -(-rows * classes // _LOOKED_AT))
    values, labels = probabilities[some], truth[some]
    number = min(_EDGES, max(16, rows // _ROWS_AN_EDGE))
    quantiles = [np.quantile(values, np.linspace(0, 1, number // 4))]
    if labels.any():
        quantiles.append(np.quantile(values[labels], np.linspace(0, 1, number)))
    inner = np.unique(np.concatenate(quantiles).astype(probabilities.dtype)).astype(np.float64)
    return np.concatenate([[np.inf], inner[::-1], [-np.inf]])


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    """Return parts of the rows of [rows, classes] that hold no more than `_BLOCK` probabilities each."""
    step = max(1, _BLOCK // max(1, shape[1]))
    return [slice(start, start + step) for start in range(0, shape[0], step)]
