"""Thresholds of several fits at once: a class's probabilities are sorted one time for all folds and all rules.

Fits differ in the rows they see. In the order of the whole, the counts at a cut of a fit are sums over the rows
that it sees, so that none has to be sorted, or copied, for itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import fbeta

NEVER = np.inf  # the threshold that nothing reaches
TOLERANCE = 1e-10  # what sums of rounded changes may differ by and still be tied
MOST_FITS = 32  # at once: a bit each
_COLUMNS = 8  # columns brought together at once: reading one column reads whole cache lines
_NEAR = 64  # places looked at first for the next row of a fit


def bits_of(kept: np.ndarray) -> np.ndarray:
    """Return, for each row, a bit for each fit that sees it: uint32 [rows], of bool [fits, rows]."""
    bits = np.zeros(kept.shape[1], dtype=np.uint32)
    for fit, rows in enumerate(kept):
        bits |= rows.astype(np.uint32) << np.uint32(fit)
    return bits


def columns_of(probabilities: np.ndarray, truth: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each class's probabilities and labels, contiguous in memory."""
    for start in range(0, probabilities.shape[1], _COLUMNS):
        near = slice(start, start + _COLUMNS)
        yield from zip(
            np.ascontiguousarray(probabilities[:, near].T), np.ascontiguousarray(truth[:, near].T), strict=True
        )


class SortedColumn:
    """One class's rows from its highest probability on, for all fits.

    Parameters
    ----------
    column : ndarray
        Its probabilities, float [rows].
    labels : ndarray
        Which rows have the class, bool [rows].
    bits : ndarray
        Which fits see which rows; see `bits_of`.

    Attributes
    ----------
    dtype
        Of the probabilities: thresholds are of their precision.
    order : ndarray
        The rows, int [rows].
    values : ndarray
        Their probabilities, descending [rows].
    positions : ndarray
        Where rows that have the class stand, int [positive].
    """

    def __init__(self, column: np.ndarray, labels: np.ndarray, bits: np.ndarray) -> None:
        self.dtype, self.order = column.dtype, _descending(column)
        self.values = column[self.order]
        self.bits, self.positions = bits[self.order], np.flatnonzero(labels[self.order])

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def ends(self) -> np.ndarray:
        """Where the rows of each value end, int [different values]: the places of the last ones."""
        return np.append(np.flatnonzero(self.values[1:] < self.values[:-1]), len(self) - 1)

    @cached_property
    def cuts(self) -> tuple[np.ndarray, np.ndarray]:
        """The last row of each value that a row of the class has, and how many of `positions` are up to there."""
        ends = self.ends[np.searchsorted(self.ends, self.positions)]
        last = np.flatnonzero(np.append(ends[1:] != ends[:-1], True)) if len(ends) else np.empty(0, dtype=int)
        return ends[last], last + 1

    def of(self, fit: int) -> "FittedColumn":
        """Return what one fit sees of it."""
        return FittedColumn(self, fit)


@dataclass(frozen=True)
class FittedColumn:
    """What one fit sees of a sorted column."""

    column: SortedColumn
    fit: int

    def _seen(self, places: np.ndarray | slice) -> np.ndarray:
        """Return whether the fit sees the rows at these places, bool."""
        return (self.column.bits[places] >> np.uint32(self.fit) & np.uint32(1)).view(np.int32) != 0

    @cached_property
    def counts(self) -> np.ndarray:
        """How many rows of the fit there are up to each place, int32 [rows]."""
        return np.cumsum(self.column.bits >> np.uint32(self.fit) & np.uint32(1), dtype=np.int32)

    @cached_property
    def hits(self) -> np.ndarray:
        """How many rows of the fit with the class there are up to each of `positions`, int [positive]."""
        return np.cumsum(self._seen(self.column.positions), dtype=np.int64)

    def best(self, config: ScoringConfig) -> tuple[float, float]:
        """Return the threshold with the highest F, and the share of rows at or above it.

        Notes
        -----
        F is highest right after a row that has the class, or the last of its value: only these cuts are looked at.
        Where more than one is best, or others may be as good within `TOLERANCE`, all cuts are.
        """
        positive = self.positive
        if positive == 0:
            return NEVER, 0.0
        ends, up_to = self.column.cuts
        hits, predicted = self.hits[up_to - 1], self.counts[ends]
        f = fbeta(hits, predicted, positive, config.beta, config.zero_division)
        f[np.diff(hits, prepend=0) == 0] = -1.0  # of rows that the fit does not see
        best = int(np.argmax(f))
        after = fbeta(hits[best], predicted[best] + 1, positive, config.beta, config.zero_division)
        if np.count_nonzero(f >= f[best] - TOLERANCE) > 1 or after >= f[best] - TOLERANCE:
            return self._best_of_all(positive, config)
        cut = int(predicted[best])
        return self._between(
            float(self.column.values[ends[best]]), self._next_value(int(ends[best]))
        ), cut / self.rows

    @property
    def rows(self) -> int:
        """How many rows the fit sees."""
        return int(self.counts[-1])

    @property
    def positive(self) -> int:
        """How many of them have the class."""
        return int(self.hits[-1]) if len(self.hits) else 0

    def at_share(self, share: float) -> float:
        """Return the threshold that a share of the fit's rows lies at or above, as nearly as ties let it."""
        ends, values = self.column.ends, self.column.values
        count = round(share * self.rows)
        if count == 0:
            return self._between(self._above_all(), self._next_value(-1))
        place = count - 1  # of the last of so many rows: those that the fit does not see move it on
        while missing := count - int(self.counts[place]):
            place += missing
        group = int(np.searchsorted(ends, place))
        end, start = int(ends[group]), int(ends[group - 1]) + 1 if group else 0
        more, fewer = int(self.counts[end]), int(self.counts[start - 1]) if start else 0
        if more - count < count - fewer:
            return self._between(float(values[end]), self._next_value(end))
        above = self._above_all() if fewer == 0 else self._last_value(start)
        return self._between(above, float(values[end]))

    def _best_of_all(self, positive: int, config: ScoringConfig) -> tuple[float, float]:
        seen, labels = self._seen(slice(None)), np.zeros(len(self.column))
        labels[self.column.positions] = 1
        values, hits = self.column.values[seen], np.append(0.0, np.cumsum(labels[seen]))
        f = fbeta(hits, np.arange(len(hits)), positive, config.beta, config.zero_division)
        threshold = middle(values, f)
        return threshold, int(np.count_nonzero(values >= self.column.dtype.type(threshold))) / len(values)

    def _next_value(self, place: int) -> float | None:
        """Return the value of the fit's first row after a place; None where there is none."""
        near, start = _NEAR, place + 1
        while start < len(self.column):
            found = np.flatnonzero(self._seen(slice(start, start + near)))
            if len(found):
                return float(self.column.values[start + found[0]])
            start, near = start + near, near * 8
        return None

    def _last_value(self, place: int) -> float:
        """Return the value of the fit's last row before a place, where there is one."""
        return float(self.column.values[np.searchsorted(self.counts[:place], self.counts[place - 1])])

    def _above_all(self) -> float:
        """Return the highest threshold at which nothing is predicted that is looked at."""
        highest = self._next_value(-1)
        assert highest is not None, "a fit sees a row at least"
        return max(1.0, float(np.nextafter(self.column.dtype.type(highest), self.column.dtype.type(np.inf))))

    def _between(self, high: float, low: float | None) -> float:
        return _between(high, low, self.column.dtype)


def middle(values: np.ndarray, objective: np.ndarray, tolerance: float = TOLERANCE) -> float:
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
    return between_cuts(values, int(firsts[widest]), int(lasts[widest]))


def between_cuts(values: np.ndarray, first: int, last: int) -> float:
    """Return the middle of the thresholds of the cuts first to last."""
    high, low = _ends(values, first, last)
    return _between(high, low if last < len(values) else None, values.dtype)


def _between(high: float, low: float | None, dtype: np.dtype) -> float:
    middle_of = float(np.asarray((high + (low or 0.0)) / 2, dtype=dtype))
    # Between neighbours of the floating-point line the middle rounds onto one of them; the lower one is out.
    return high if low is not None and middle_of <= low else middle_of


def _ends(values: np.ndarray, first: int, last: int) -> tuple[float, float]:
    """Return the highest and the lowest threshold of the cuts first to last."""
    if first > 0:
        high = float(values[first - 1])
    else:
        above = float(np.nextafter(values[0], values.dtype.type(np.inf))) if len(values) else 1.0
        high = max(1.0, above)
    return high, float(values[last]) if last < len(values) else 0.0


def _descending(column: np.ndarray) -> np.ndarray:
    """Return the rows from the highest value on, int [rows]; in what order equal ones come is left open."""
    single = column.astype(np.float32, copy=False)
    exact = column.dtype == np.float32 or np.array_equal(single, column)
    if not exact or len(column) >= 2**32 or (len(column) and single.min() < 0):
        return np.argsort(column)[::-1]
    # The bits of floats from 0 on are in the order of their values: to sort numbers of these and the row takes
    # less than half of the time that sorting indices by values takes.
    keys = (single + np.float32(0)).view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(column), dtype=np.uint64)
    keys.sort()
    return (keys[::-1] & np.uint64(0xFFFFFFFF)).view(np.int64)
