"""Class offsets for one label a row: the class with the highest log probability plus the class's offset."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kit.scoring.config import ScoringConfig
from kit.scoring.lowest import SHARE, lowest_of_steps

MANY = 20_000_000  # probabilities, whose logarithms take 320 MB
GAIN = 1e-5  # of the average F: a sweep that gains less is the last
_FLOOR = 1e-12  # probabilities below it are taken to be it
_TOLERANCE = 1e-10
_SWEEPS = 10  # of coordinate ascent, at most
_NEAR = 1024  # rows looked at for a class, at least,
_FEW_ROWS, _MANY_ROWS = 4_096, 32_768  # that tell where the first rows end, and where more are looked through
_BLOCK = 1_000_000  # probabilities looked at at a time
_BUCKETS, _SORTED = 64, 4_096  # parts of rows of which the best are sorted, and rows that are sorted anyway
_SLACK = 1e-9  # by which a bound may be below the best and is looked at still
_TIMES = 16  # and so many times the rows that have the class


def best_offsets(
    probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig, kept: np.ndarray | None = None
) -> np.ndarray:
    """Return offsets that raise macro, weighted or the lowest F on these rows.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        int [rows].
    config : ScoringConfig
        The metric's options.
    kept : ndarray or None
        Which rows are looked at, bool [rows]; None: all.

    Returns
    -------
    ndarray
        float64 [classes], a local optimum. A class without rows is never predicted: minus infinity.

    Notes
    -----
    Coordinate ascent from zero (argmax): with the other offsets fixed, each row turns to the class at an offset of
    its own; passing them in order changes the F of this class and of the class left, so their running sum is exact
    at every cut. Of tied cuts the middle of the widest interval, which reaches at most 1 beyond the outermost row.
    For the lowest F it is the lowest plus `SHARE` of macro F: most offsets leave the lowest class as it is.

    The work is bounded. For a class the rows that turn first are looked at, 16 times as many as have it (1,024 at
    least, and those that it is predicted for now): predicted for more, its F1 would be below 2 / 17. A sweep over
    the classes that gains less than `GAIN` is the last, and the tenth is, too. Of more than `MANY` probabilities a
    random part of the rows, always the same, is looked at; a class that is not in it keeps zero.
    """
    rows = np.arange(len(truth)) if kept is None else np.flatnonzero(kept)
    positive = np.bincount(truth[rows], minlength=probabilities.shape[1])
    values = np.where(positive > 0, 0.0, -np.inf)
    if len(rows) * probabilities.shape[1] > MANY:
        rows = rows[_part(truth[rows], max(1, MANY // probabilities.shape[1]))]
    present, truth = np.unique(truth[rows], return_inverse=True)
    if len(present) > 1:
        logs = np.empty((len(rows), len(present)))
        for block in _blocks(len(rows), probabilities.shape[1]):
            logs[block] = logarithm(probabilities[rows[block]][:, present])
        values[present] = _Ascent(logs, truth, config).run()
    return values


def _blocks(rows: int, classes: int) -> Iterator[slice]:
    """Yield parts of so many rows, each of no more than `_BLOCK` probabilities."""
    step = max(1, _BLOCK // classes)
    return (slice(start, start + step) for start in range(0, rows, step))


def logarithm(probabilities: np.ndarray) -> np.ndarray:
    """Return natural logarithms, float64, which are finite for zero, too."""
    return np.log(np.maximum(probabilities, _FLOOR, dtype=np.float64))


def _part(truth: np.ndarray, number: int) -> np.ndarray:
    """Return indices of so many rows, random within each class, with each class's share of the rows kept."""
    mixed = np.random.default_rng(0).permutation(len(truth))
    by_class = mixed[np.argsort(truth[mixed], kind="stable")]
    return np.sort(by_class[np.arange(number) * len(truth) // number])


@dataclass(frozen=True)
class _Turned:
    """Counts where some rows have turned to a class: of each class's rows, of those rightly of it; of the turned.

    Attributes
    ----------
    kept, right : ndarray
        int [classes], of the other classes.
    size, hits : int
        Of the rows that turned, and of those that have the class.
    """

    kept: np.ndarray
    right: np.ndarray
    size: int = 0
    hits: int = 0


class _Ascent:
    """Coordinate ascent over the offsets of classes that all have rows.

    For each row it keeps the two best classes after offsets, and their values; they are looked for again only
    where a change may have moved them, which is mostly in few rows. For each class it keeps how many rows have it
    first, and how many of these rightly.

    Parameters
    ----------
    logs : ndarray
        Log probabilities, float [rows, classes].
    truth : ndarray
        int [rows].
    config : ScoringConfig
        The metric's options.
    """

    def __init__(self, logs: np.ndarray, truth: np.ndarray, config: ScoringConfig):
        self.logs, self.columns = logs, np.ascontiguousarray(logs.T)
        self.beta, self.lowest = config.beta, config.average == "lowest"
        # 16 bits are sorted by radix, several times as fast.
        self.kind = np.int16 if logs.shape[1] <= np.iinfo(np.int16).max else np.int64
        self.truth = truth.astype(self.kind)
        self.positive = np.bincount(truth)
        even = np.full(len(self.positive), 1 / len(self.positive))
        self.weights = self.positive / len(truth) if config.average == "weighted" else even
        self.offsets = np.zeros(len(self.positive))
        self.first, self.second = np.empty_like(self.truth), np.empty_like(self.truth)
        self.best, self.next = np.empty(len(truth)), np.empty(len(truth))
        self.turns = np.empty(len(truth), dtype=np.float32)
        self.predicted, self.right = (np.zeros(len(self.positive), dtype=np.int64) for _ in range(2))
        self._look(np.arange(len(truth)))
        self._count(np.arange(len(truth)), 1)

    def run(self) -> np.ndarray:
        """Return the offsets, float64 [classes]."""
        reached = self._now()
        for _ in range(_SWEEPS):
            before = reached
            for index in range(len(self.offsets)):
                reached = self._step(index)
            if reached < before + GAIN:
                break
        return self.offsets

    def _now(self) -> float:
        """Return what is maximised, of the present offsets: the average F, or that with the lowest."""
        values = self._f(self.right, self.predicted, self.positive)
        average = float(np.sum(self.weights * values))
        return SHARE * average + float(values.min()) if self.lowest else average

    def _f(self, hits: np.ndarray, predicted: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """Return F-beta as `fbeta` does; each class has rows, so that nothing is divided by zero."""
        return (1 + self.beta**2) * hits / (self.beta**2 * positive + predicted)

    def _step(self, index: int) -> float:
        """Set the best offset of one class with the others fixed; return what it reaches of what is maximised."""
        mine, column = np.flatnonzero(self.first == index), self.columns[index]
        # Single precision keeps the order but for ties, and a cut in their middle parts the exact values, too.
        turns = np.subtract(self.best, column, out=self.turns, casting="same_kind")
        turns[mine] = self.next[mine] - column[mine]
        # The present cut is always among them, so that no step can lose.
        number = min(len(turns), max(_NEAR, _TIMES * self.positive[index], len(mine) + 1))
        # The row after those may end the last interval, but is not turned itself.
        complete = number == len(turns)
        near = np.arange(number) if complete else _first(turns, number)
        before = self._before(index, mine)
        turned = self.first[near]
        turned = np.where(turned == index, self.second[near], turned)
        ends = complete  # whether the last cut counts
        if len(near) > _SORTED:
            looked_at, before, is_last = self._best_part(index, turns[near], self.truth[near], turned, before)
            near, turned, ends = near[looked_at], turned[looked_at], complete or not is_last
        sorting = np.argsort(turns[near])
        order = near[sorting]
        objective = self._f_at_cuts(index, self.truth[order], turned[sorting], before)
        offset, reached = _middle(turns[order].astype(np.float64), objective, ends)
        self._change(index, offset, mine)
        return reached

    def _before(self, index: int, mine: np.ndarray) -> "_Turned":
        """Return the counts where no row has class `index`: those of `mine`, which have it now, have the next."""
        kept, right = self.predicted.copy(), self.right.copy()
        kept[index] = right[index] = 0
        second = self.second[mine]
        kept += np.bincount(second, minlength=len(kept))
        right += np.bincount(second[second == self.truth[mine]], minlength=len(kept))
        return _Turned(kept, right)

    def _best_part(
        self, index: int, turns: np.ndarray, truth: np.ndarray, turned: np.ndarray, before: "_Turned"
    ) -> tuple[np.ndarray, "_Turned", bool]:
        """Return the rows among which all best cuts lie, the counts before them, and whether they are the last.

        They are parted by their `turns`. In a part, F of this class rises at most as if those that have it turned
        first, and F of another as if those that were wrongly of it did.
        """
        low, classes = turns.min(), len(self.positive)
        scale = _BUCKETS / max(float(turns.max() - low), 1e-30)
        part = np.minimum((turns - low) * scale, _BUCKETS - 1).astype(np.intp)
        size, hits = (np.bincount(each, minlength=_BUCKETS) for each in (part, part[truth == index]))
        place, right = part * classes + turned, truth == turned
        lost, lost_right = (
            np.bincount(each, minlength=_BUCKETS * classes).reshape(_BUCKETS, classes)
            for each in (place, place[right])
        )
        sizes, ahead, gone, gone_right = (
            np.cumsum(each, axis=0) - each for each in (size, hits, lost, lost_right)
        )
        kept, kept_right = before.kept - gone, before.right - gone_right
        reached = self._average(
            index, self._f(ahead, sizes, self.positive[index]), self._f(kept_right, kept, self.positive)
        )
        first = self._f(ahead + hits, sizes + hits, self.positive[index])
        bound = self._average(index, first, self._f(kept_right, kept - (lost - lost_right), self.positive))
        best = np.flatnonzero(bound >= reached.max() - _SLACK)
        start, last = int(best[0]), int(best[-1])
        counts = _Turned(kept[start], kept_right[start], int(sizes[start]), int(ahead[start]))
        return np.flatnonzero((part >= start) & (part <= last)), counts, last == _BUCKETS - 1

    def _average(self, index: int, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return what is maximised of the F of class `index` [n] and of all others [n, classes]: [n]."""
        others[:, index] = own
        average = others @ self.weights
        return SHARE * average + others.min(axis=1) if self.lowest else average

    def _f_at_cuts(self, index: int, truth: np.ndarray, turned: np.ndarray, before: "_Turned") -> np.ndarray:
        """Return what is maximised when the first i of some rows turned to class `index`: [n + 1].

        Parameters
        ----------
        index : int
        truth, turned : ndarray
            The rows' class, and the one that they turn from, in the order in which they turn [n].
        before : _Turned
            The counts before the first of them turns.
        """
        number, positive, weights = len(truth), self.positive, self.weights
        kept, kept_right = before.kept, before.right
        hits = np.full(number + 1, float(before.hits))
        hits[1:] += np.cumsum(truth == index)
        gained = self._f(hits, np.arange(before.size, before.size + number + 1), positive[index])
        by_class = np.argsort(turned, kind="stable")
        classes, right = turned[by_class], (truth == turned)[by_class]
        first = np.searchsorted(classes, np.arange(len(positive), dtype=self.kind))[classes]
        sums = np.concatenate([[0], np.cumsum(right)])
        # Rows of the same class that turned before are gone.
        at, rest = kept_right[classes] - (sums[:-1] - sums[first]), kept[classes] - (np.arange(number) - first)
        each = positive[classes]
        lost, start = np.empty(number), self._f(kept_right, kept, positive)
        after = self._f(at - right, rest - 1, each)
        prior = np.append(0.0, after[:-1])  # what the row of the same class before it left
        begins = np.flatnonzero(first == np.arange(number))
        prior[begins] = start[classes[begins]]
        lost[by_class] = weights[classes] * (after - prior)
        average = weights[index] * gained + np.sum(weights * start) + np.concatenate([[0], np.cumsum(lost)])
        if not self.lowest:
            return average
        start[index] = np.inf  # of this class it is `gained`
        owner, others = np.concatenate([np.arange(len(start)), classes]), np.concatenate([start, after])
        steps = np.concatenate([np.zeros(len(start), dtype=np.int64), by_class + 1])
        return SHARE * average + np.minimum(gained, lowest_of_steps(owner, steps, others, number))

    def _change(self, index: int, offset: float, mine: np.ndarray) -> None:
        """Set an offset, and find out what it changes of the two best classes of each row."""
        if offset == self.offsets[index]:
            return
        lower, self.offsets[index] = offset < self.offsets[index], offset
        column = self.columns[index] + offset
        # Which class comes third is not kept.
        fallen = column[mine] < self.next[mine]
        if lower:
            anew, risen = np.concatenate([mine[fallen], np.flatnonzero(self.second == index)]), mine[:0]
        else:
            anew, risen = mine[fallen], np.flatnonzero((self.first != index) & (column > self.next))
        self.best[mine] = column[mine]
        self._count(risen, -1)
        values, first, best = column[risen], self.first[risen], self.best[risen]
        ahead = values > best
        self.second[risen], self.next[risen] = np.where(ahead, first, index), np.where(ahead, best, values)
        self.first[risen], self.best[risen] = np.where(ahead, index, first), np.where(ahead, values, best)
        self._count(risen, 1)
        self._count(anew, -1)
        self._look(anew)
        self._count(anew, 1)

    def _count(self, rows: np.ndarray, sign: int) -> None:
        """Add the classes of these rows to the counts, or take them away."""
        first, classes = self.first[rows], len(self.positive)
        self.predicted += sign * np.bincount(first, minlength=classes)
        self.right += sign * np.bincount(first[first == self.truth[rows]], minlength=classes)

    def _look(self, rows: np.ndarray) -> None:
        """Find the two best classes of these rows anew; of equals the first."""
        for block in _blocks(len(rows), len(self.offsets)):
            part = rows[block]
            moved = self.logs[part] + self.offsets
            each = np.arange(len(part))
            for classes, values in ((self.first, self.best), (self.second, self.next)):
                found = np.argmax(moved, axis=1)
                classes[part], values[part] = found, moved[each, found]
                moved[each, found] = -np.inf


def _first(turns: np.ndarray, number: int) -> np.ndarray:
    """Return the rows of the `number` + 1 lowest values, and of those that equal the last of them, ascending."""
    if len(turns) > _MANY_ROWS:
        # Beyond what a part of the rows makes the bound, there are mostly none of them.
        few = turns[:: len(turns) // _FEW_ROWS]
        place = int(1.2 * number * len(few) / len(turns)) + 50
        if place < len(few):
            near = np.flatnonzero(turns <= np.partition(few, place)[place])
            if len(near) > number:
                values = turns[near]
                return near[values <= np.partition(values, number)[number]]
    return np.flatnonzero(turns <= np.partition(turns, number)[number])


def _middle(turns: np.ndarray, objective: np.ndarray, complete: bool) -> tuple[float, float]:
    """Return the middle of the widest interval of best offsets, and the F there.

    Parameters
    ----------
    turns : ndarray
        The offsets at which rows turn, ascending [n].
    objective : ndarray
        The F of each cut [n + 1].
    complete : bool
        Whether no row turns after the last of `turns`; where some may, the last cut does not count.
    """
    edges = np.concatenate([[turns[0] - 1], turns, [turns[-1] + 1]])
    cuts = np.flatnonzero(np.concatenate([[True], turns[1:] > turns[:-1], [complete]]))
    best = objective[cuts].max()
    tied = np.flatnonzero(objective[cuts] >= best - _TOLERANCE)
    breaks = np.flatnonzero(np.diff(tied) > 1)
    firsts, lasts = cuts[tied[np.concatenate([[0], breaks + 1])]], cuts[tied[np.append(breaks, len(tied) - 1)]]
    widest = np.argmax(edges[lasts + 1] - edges[firsts])
    return (edges[firsts[widest]] + edges[lasts[widest] + 1]) / 2, best
