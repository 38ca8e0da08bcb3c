"""Decision rules: probabilities → labels. They hold all they need, and travel as JSON.

Labels are int64 [rows] with one label a row, bool [rows, classes] with several. There `at_least` adds the most
probable classes to a row with fewer labels, and `at_most` leaves the most probable ones of a row with more. A
class that is never predicted (threshold infinite) is added last.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from kit.core.errors import KitError, some
from kit.scoring.columns import NEVER
from kit.scoring.expected import expected_f
from kit.scoring.f1 import argmax
from kit.scoring.offsets import logarithm
from kit.scoring.thresholds import threshold_at

FEWEST_ROWS = 100  # on fewer rows shares of rows mean little
_BLOCK = 4_000_000  # probabilities that are decided at a time


@dataclass(frozen=True)
class Rule:
    """The base of decision rules, which turn probabilities [rows, classes] into labels.

    Attributes
    ----------
    kind : str
        Of the class: what the rule is called in JSON.
    """

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """The rule's name in the config."""
        return self.kind

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the labels of probabilities float [rows, classes]: int64 [rows], or bool [rows, classes]."""
        raise NotImplementedError

    def decide_among(self, probabilities: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the labels of some of the rows at hand.

        Parameters
        ----------
        probabilities : ndarray
            Those of all rows at hand, float [rows, classes].
        rows : ndarray
            Which rows to decide, bool [rows].
        """
        return self.decide(probabilities[rows])

    def adapted(self, probabilities: np.ndarray) -> Self:
        """Return this rule for probabilities [rows, classes] of another spread than those it was fitted on."""
        return self

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file; `rule_from_json` gives an equal rule back."""
        return {"kind": self.kind, **{key: _plain(value) for key, value in asdict(self).items()}}

    def sentence(self, classes: list[str]) -> str:
        """Return the rule in words, with the names of the classes in the order of the columns."""
        raise NotImplementedError

    def limited(self, chosen: np.ndarray, ranking: np.ndarray) -> np.ndarray:
        """Return labels within the rule's limits on their number.

        Parameters
        ----------
        chosen : ndarray
            Labels, bool [rows, classes].
        ranking : ndarray
            By what labels are added and left out, the highest first, float [rows, classes].
        """
        return chosen


@dataclass(frozen=True)
class Argmax(Rule):
    """The most probable class; the first of equals."""

    kind = "argmax"

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return argmax(probabilities).astype(np.int64)

    def sentence(self, classes: list[str]) -> str:
        return "the most probable class"


@dataclass(frozen=True)
class PositiveThreshold(Rule):
    """Two classes, one label a row: the second class at or above its threshold.

    Attributes
    ----------
    threshold : float
        The lowest probability of the second class with which it is predicted.
    share : float
        Of the rows it was fitted on, how many lay at or above the threshold.
    """

    kind = "positive_threshold"
    threshold: float
    share: float

    @property
    def name(self) -> str:
        return "threshold"

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        _columns_are(2, probabilities)
        return (probabilities[:, 1] >= _like(self.threshold, probabilities)).astype(np.int64)

    def adapted(self, probabilities: np.ndarray) -> Self:
        return replace(self, threshold=_adapted_threshold(self.threshold, self.share, probabilities[:, 1]))

    def sentence(self, classes: list[str]) -> str:
        if self.threshold == NEVER:
            return f"never {classes[1]}"
        return f"{classes[1]} from a probability of {_number(self.threshold)}"


@dataclass(frozen=True)
class Offsets(Rule):
    """The class with the highest log probability plus offset.

    Attributes
    ----------
    offsets : tuple of float
        One a class; minus infinity is never predicted.
    confidence : float
        The mean of the highest probability over the rows it was fitted on.
    power : float
        That to which probabilities are raised before the offsets.
    """

    kind = "offsets"
    offsets: tuple[float, ...]
    confidence: float
    power: float = 1.0

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        _columns_are(len(self.offsets), probabilities)
        decided = np.empty(len(probabilities), dtype=np.int64)
        for rows in _blocks(probabilities.shape):
            decided[rows] = np.argmax(self.power * logarithm(probabilities[rows]) + self.offsets, axis=1)
        return decided

    def adapted(self, probabilities: np.ndarray) -> Self:
        """Return the rule with the power at which the mean highest probability is `confidence`."""
        logs = logarithm(probabilities)
        logs -= logs.max(axis=1, keepdims=True)
        low, high = 0.1, 10.0
        for _ in range(40):
            power = (low * high) ** 0.5
            if np.mean(1 / np.exp(power * logs).sum(axis=1)) < self.confidence:
                low = power
            else:
                high = power
        return replace(self, power=float(power))

    def sentence(self, classes: list[str]) -> str:
        text = (
            f"the most probable class after {_from_to(self.offsets, classes, 'offsets to the log probabilities')}"
        )
        return text + _never(self.offsets, classes)


@dataclass(frozen=True)
class _MultilabelRule(Rule):
    """The base of rules for several labels a row.

    Attributes
    ----------
    at_least, at_most : int
        How many labels a row gets.
    """

    at_least: int
    at_most: int

    def limited(self, chosen: np.ndarray, ranking: np.ndarray) -> np.ndarray:
        counts = np.count_nonzero(chosen, axis=1)
        out = (counts < self.at_least) | (counts > self.at_most)
        if not out.any():
            return chosen
        if self.at_least == 1 and not (counts > self.at_most).any():  # then one is added to rows without any
            chosen = chosen.copy()
            rows = np.flatnonzero(out)
            chosen[rows, np.argmax(ranking[rows], axis=1)] = True
            return chosen
        # Chosen ones first, each by rank: adding and leaving are then the same.
        order = np.lexsort((-ranking[out], ~chosen[out]), axis=1)
        keep = np.arange(chosen.shape[1]) < np.clip(counts[out], self.at_least, self.at_most)[:, None]
        chosen = chosen.copy()
        changed = np.zeros_like(keep)
        np.put_along_axis(changed, order, keep, axis=1)
        chosen[out] = changed
        return chosen

    def above(
        self, probabilities: np.ndarray, thresholds: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the labels at or above their thresholds, within the limits, of all rows or of some of them."""
        if thresholds.ndim:
            _columns_are(len(thresholds), probabilities)
        number = len(probabilities) if rows is None else len(rows)
        chosen = np.empty((number, probabilities.shape[1]), dtype=bool)
        for block in _blocks(chosen.shape):
            values = probabilities[block if rows is None else rows[block]]
            np.greater_equal(values, _like(thresholds, values), out=chosen[block])
            counts = np.count_nonzero(chosen[block], axis=1)
            if (out := (counts < self.at_least) | (counts > self.at_most)).any():
                odd = values[out]
                ranking = np.where(thresholds == NEVER, odd - 2, odd)
                chosen[block.start + np.flatnonzero(out)] = self.limited(chosen[block][out], ranking)
        return chosen

    def _limits(self, classes: list[str]) -> str:
        """Return the limits in words, to be added to the rule's sentence."""
        least = f", at least {self.at_least} {_labels(self.at_least)}" if self.at_least else ""
        return least + (f", at most {self.at_most} {_labels(self.at_most)}" if self.at_most < len(classes) else "")


@dataclass(frozen=True)
class Threshold(_MultilabelRule):
    """One threshold for all classes.

    Attributes
    ----------
    threshold : float
        The lowest probability with which a label is predicted.
    share : float
        Of the probabilities it was fitted on, how many lay at or above the threshold.
    """

    kind = "threshold"
    threshold: float
    share: float

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return self.above(probabilities, np.asarray(self.threshold))

    def adapted(self, probabilities: np.ndarray) -> Self:
        return replace(self, threshold=_adapted_threshold(self.threshold, self.share, probabilities))

    def sentence(self, classes: list[str]) -> str:
        if self.threshold == NEVER:
            return f"no label by probability{self._limits(classes)}"
        return f"one threshold of {_number(self.threshold)}{self._limits(classes)}"


@dataclass(frozen=True)
class Half(Threshold):
    """A threshold of .5."""

    kind = "half"


@dataclass(frozen=True)
class Thresholds(_MultilabelRule):
    """A threshold for each class.

    Attributes
    ----------
    thresholds : tuple of float
        One a class.
    shares : tuple of float
        One a class: of the rows it was fitted on, how many lay at or above the threshold.
    """

    kind = "thresholds"
    thresholds: tuple[float, ...]
    shares: tuple[float, ...]

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return self.above(probabilities, np.array(self.thresholds))

    def adapted(self, probabilities: np.ndarray) -> Self:
        return replace(
            self, thresholds=tuple(_adapted_thresholds(probabilities, self.shares, self.thresholds).tolist())
        )

    def sentence(self, classes: list[str]) -> str:
        text = _from_to(self.thresholds, classes, "a threshold a class")
        return text + self._limits(classes) + _never(self.thresholds, classes)


@dataclass(frozen=True)
class Prevalence(_MultilabelRule):
    """Each class as often as in the training rows, by the most probable rows of those at hand.

    Attributes
    ----------
    shares : tuple of float
        One a class: of the training rows, how many have it.
    thresholds : tuple of float
        Those that gave these shares on the rows it was fitted on. They decide where fewer than `FEWEST_ROWS` rows
        are at hand, and for a class whose share rounds to none of them.
    """

    kind = "prevalence"
    shares: tuple[float, ...]
    thresholds: tuple[float, ...]

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return self.above(probabilities, self.thresholds_on(probabilities))

    def decide_among(self, probabilities: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self.above(probabilities, self.thresholds_on(probabilities), np.flatnonzero(rows))

    def thresholds_on(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the thresholds at which each class has its share of these rows, float64 [classes]."""
        _columns_are(len(self.shares), probabilities)
        if len(probabilities) < FEWEST_ROWS:
            return np.array(self.thresholds)
        return _adapted_thresholds(probabilities, self.shares, self.thresholds)

    def sentence(self, classes: list[str]) -> str:
        return f"each class as often as in the training rows{self._limits(classes)}"


@dataclass(frozen=True)
class ExpectedF(_MultilabelRule):
    """For each row the labels with the highest expected F.

    Attributes
    ----------
    beta : float
        That of F-beta.
    zero_division : int
        What it is worth to predict no label for a row that has none.
    """

    kind = "expected_f"
    beta: float
    zero_division: int

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        return expected_f(probabilities, self.beta, self.zero_division, self.at_least, self.at_most)

    def sentence(self, classes: list[str]) -> str:
        return f"for each row the labels with the highest expected F{self.beta:g}{self._limits(classes)}"


_KINDS = {
    rule.kind: rule
    for rule in (Argmax, PositiveThreshold, Offsets, Half, Threshold, Thresholds, Prevalence, ExpectedF)
}


def rule_from_json(content: dict[str, Any]) -> Rule:
    """Return the rule that `to_json` wrote.

    Raises
    ------
    KitError
        Where the content is no rule.
    """
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in _KINDS:
        raise KitError(f"decision rule: kind {kind!r} is not known; known are {some(_KINDS)}; fit the rule again")
    values = {key: value for key, value in content.items() if key != "kind"}
    names = {field.name for field in fields(_KINDS[kind])}
    if values.keys() != names:
        raise KitError(f"decision rule {kind}: has {some(values)} but needs {some(sorted(names))}; fit it again")
    return _KINDS[kind](**{key: _unplain(value) for key, value in values.items()})


def _adapted_thresholds(
    probabilities: np.ndarray, shares: tuple[float, ...], thresholds: tuple[float, ...]
) -> np.ndarray:
    """Return thresholds, each moved to where its share of these rows lies at or above it: float64 [classes]."""
    columns = zip(thresholds, shares, probabilities.T, strict=True)
    return np.array([_adapted_threshold(*column) for column in columns])


def _adapted_threshold(threshold: float, share: float, probabilities: np.ndarray) -> float:
    # A share that rounds to no row would put the threshold above the highest value: a rare class would never be
    # predicted. Bounds other than half a row, lower or higher, were worse; see docs/decisions.md.
    """Return a threshold, moved to where its share of these probabilities lies at or above it."""
    if threshold == NEVER or round(share * probabilities.size) == 0:
        return threshold
    return threshold_at(probabilities, share)


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield parts of the rows of [rows, classes]: each row is decided by itself, and copies of all take much."""
    step = max(1, _BLOCK // max(1, shape[1]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


def _like(threshold: float | np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return a threshold in the precision of the probabilities, which else would be copied."""
    return np.asarray(threshold, dtype=probabilities.dtype)


def _columns_are(number: int, probabilities: np.ndarray) -> None:
    if probabilities.shape[1] != number:
        raise KitError(
            f"decision rule: it was fitted on {number} classes, the probabilities have {probabilities.shape[1]}; "
            "fit it again for these classes"
        )


def _plain(value: Any) -> Any:
    """Return a value for JSON: infinity, which JSON does not have, as a word."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and np.isinf(value) else value


def _unplain(value: Any) -> Any:
    """Return the value that `_plain` was given."""
    if isinstance(value, list):
        return tuple(_unplain(each) for each in value)
    return float(value) if isinstance(value, str) else value


def _number(value: float) -> str:
    """Return a number with two decimals, a small one with two digits."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _labels(number: int) -> str:
    return "label" if number == 1 else "labels"


def _from_to(values: tuple[float, ...], classes: list[str], what: str) -> str:
    """Return the lowest and the highest of some values in words, with their classes."""
    pairs = sorted((value, name) for value, name in zip(values, classes, strict=True) if np.isfinite(value))
    if not pairs:
        return what
    (low, first), (high, last) = pairs[0], pairs[-1]
    return f"{what} from {_number(low)} ({first}) to {_number(high)} ({last})"


def _never(values: tuple[float, ...], classes: list[str]) -> str:
    """Return in words which classes are never predicted."""
    never = [name for value, name in zip(values, classes, strict=True) if not np.isfinite(value)]
    return f", never {some(never)}" if never else ""
