"""Blend predictions, by the method with the best cross-fitted score. See docs/blending.md."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import TIE, Rule, choose_rule, fit_rule
from kit.scoring.f1 import score
from kit.scoring.stack import Stack, fit_stack
from kit.scoring.thresholds import label_limits

METHODS = ("single", "mean", "rank mean", "greedy")  # from the simplest on
STACK = "stack"  # tried where it is asked for: a logistic regression over the members
ROUNDS = 50  # of greedy selection, at most: the finest weight is 1 / 50
START = 5  # greedy selection starts from the mean of the best few, at most so many
PATIENCE = 3  # rounds without gain, after which it stops
_GAIN = 1e-9  # less is rounding


@dataclass(frozen=True)
class Blend:
    """How members' predictions become one: by weights, or by a stack.

    Attributes
    ----------
    method : str
        One of `METHODS`, or `STACK`.
    weights : tuple of float
        One a member, in sum 1. Those of a rank mean weigh ranks, others probabilities; of a stack they are each
        member's share of the coefficients' sizes, which are not what it computes with.
    stack : Stack or None
        The stack.
    """

    method: str
    weights: tuple[float, ...]
    stack: Stack | None = None

    def combine(self, members: Sequence[np.ndarray], held_out: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Return the blended predictions of some rows, all by one fold's models: [rows, classes] in [0, 1].

        Parameters
        ----------
        members : sequence of ndarray
            Each member's probabilities of the rows, float [rows, classes].
        held_out : sequence of ndarray or None
            For a rank mean, what the same models gave for the rows of their fold, which ranks are taken among: any
            number of rows then get the ranks that rows of the fold have. None: the rows' own.
        """
        if self.method == "rank mean":
            members = [ranks(*pair) for pair in zip(members, held_out or members, strict=True)]
        return self.merge(members)

    def combine_out_of_fold(self, members: Sequence[np.ndarray], folds: np.ndarray) -> np.ndarray:
        """Return the blended out-of-fold predictions, [rows, classes] in [0, 1].

        Parameters
        ----------
        members : sequence of ndarray
            Each member's out-of-fold probabilities, float [rows, classes].
        folds : ndarray
            int [rows].
        """
        if self.method == "rank mean":
            members = [ranks_by_fold(member, folds) for member in members]
        return self.merge(members)

    def merge(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Return what members' values, for a rank mean their ranks, become: [rows, classes] in [0, 1]."""
        return self.stack.combine(members) if self.stack else _weighted(members, self.weights)


@dataclass(frozen=True)
class BlendChoice:
    """A blend, its decision rule, and what they are worth.

    Attributes
    ----------
    blend, rule
        Fitted on all rows.
    cross_fitted : float
        The score of `predicted`.
    optimistic : float
        The score of blend and rule on the rows they were fitted on.
    predicted : ndarray
        Each row decided with weights and a rule that were both fitted on the other folds.
    left_out : ndarray or None
        Of a stack: each row by the one that was fitted on the other folds, float [rows, classes]. `blend` has seen
        the labels of these rows.
    candidates : list of dict
        method, rule, weights, cross_fitted, optimistic and chosen of each method, from the simplest on.
    """

    blend: Blend
    rule: Rule
    cross_fitted: float
    optimistic: float
    predicted: np.ndarray
    left_out: np.ndarray | None
    candidates: list[dict[str, Any]]


@dataclass(frozen=True)
class _Tried:
    """A method with the rule that suits it best."""

    blend: Blend
    rule: Rule
    cross_fitted: float
    optimistic: float
    predicted: np.ndarray
    left_out: np.ndarray | None


def choose_blend(
    members: Sequence[np.ndarray],
    truth: np.ndarray,
    folds: np.ndarray,
    config: ScoringConfig,
    row_groups: np.ndarray | None = None,
    ranked: bool = True,
    method: str | None = None,
) -> BlendChoice:
    """Return the method with the best cross-fitted score; within `TIE` of the best, the simplest (see `METHODS`).

    Parameters
    ----------
    members : sequence of ndarray
        Each one's out-of-fold probabilities of the same rows, float [rows, classes].
    truth : ndarray
        int [rows] or bool [rows, classes].
    folds : ndarray
        int [rows].
    config : ScoringConfig
        The metric, and which rules may be taken.
    row_groups : ndarray or None
        [rows], which rows belong together; as in `decide.choose_rule`.
    ranked : bool
        Whether a rank mean may be taken: its values are no probabilities.
    method : str, optional
        The one to take, whatever the others are worth: one of `METHODS`, or `STACK`.

    Raises
    ------
    KitError
        For fewer than two members or folds (or row groups), and for a method that cannot be tried.

    Notes
    -----
    For each fold the weights are chosen on the other folds, the rule is fitted to what they give there, and both
    are applied to the fold. So it is for the best single member, too: the one with the best cross-fitted score on
    the other folds.
    """
    if len(members) < 2:
        raise KitError("blend: needs two members or more")
    truth = np.asarray(truth)
    config.check(truth.ndim == 2, members[0].shape[1])
    plain = config.model_copy(update={"rule": config.rules(truth.ndim == 2)[0]})
    checked = [choose_rule(member, truth, folds, plain, row_groups) for member in members]
    parts = checked[0].folds  # the folds, or what stands for them where there is one only
    if len(np.unique(parts)) < 2:
        raise KitError("blend: all out-of-fold rows are in one group; train more folds")
    if truth.ndim == 2:
        least, most = label_limits(truth, config)
        config = config.model_copy(update={"at_least": least, "at_most": most})
    tried = {}
    for name in _with(method, methods_for(members[0].shape[1], truth, config, ranked), parts):
        # Each fold's rows come from another model, so they have ranks among themselves only.
        values = [ranks_by_fold(each, folds) for each in members] if name == "rank mean" else members
        tried[name] = _cross_fitted(name, values, truth, parts, config)
    best = max(each.cross_fitted for each in tried.values())
    simplest = next(name for name, each in tried.items() if each.cross_fitted >= best - TIE)
    chosen = tried[method or simplest]
    return BlendChoice(**vars(chosen), candidates=[_candidate(each, each is chosen) for each in tried.values()])


def _with(method: str | None, methods: tuple[str, ...], parts: np.ndarray) -> tuple[str, ...]:
    """The methods to try where one is asked for; KitError where it cannot be tried."""
    if method in (None, *methods):
        return methods
    if method == "rank mean":
        raise KitError(
            "blend: a rank mean is for rows with several labels, or two classes, whose rule has thresholds, and "
            "not for probabilities that are handed in; take another method"
        )
    if method != STACK:
        raise KitError(f"blend: there is no method {method!r}; there are {', '.join((*METHODS, STACK))}")
    if len(np.unique(parts)) < 3:
        raise KitError("blend: a stack needs three folds: one to score, and two to choose its penalty; train more")
    return (*methods, STACK)


def _candidate(tried: _Tried, chosen: bool) -> dict[str, Any]:
    return {
        "method": tried.blend.method,
        "rule": tried.rule.name,
        "weights": list(tried.blend.weights),
        "cross_fitted": tried.cross_fitted,
        "optimistic": tried.optimistic,
        "chosen": chosen,
    }


def methods_for(n_classes: int, truth: np.ndarray, config: ScoringConfig, ranked: bool) -> tuple[str, ...]:
    """Return the names of the methods that can be tried.

    Parameters
    ----------
    n_classes : int
        Number of classes, or columns.
    truth : ndarray
        int [rows] or bool [rows, classes].
    config : ScoringConfig
        The metric, and which rules may be taken.
    ranked : bool
        Whether a rank mean may be taken.

    Notes
    -----
    A rank says how a row compares with other rows in one class. Where a row gets one of three classes or more, the
    classes compete within the row, which ranks do not tell; and a rule without thresholds cannot undo that half of
    the rows rank above .5 in each class.
    """
    multilabel = truth.ndim == 2
    adapts = config.rule not in ("argmax", "half", "expected_f") and len(config.rules(multilabel)) > 1
    sensible = ranked and not config.of_probabilities and adapts and (multilabel or n_classes == 2)
    return tuple(method for method in METHODS if sensible or method != "rank mean")


def fit_blend(
    method: str, members: Sequence[np.ndarray], truth: np.ndarray, folds: np.ndarray, config: ScoringConfig
) -> Blend:
    """Return the blend by a method, its weights chosen on these rows.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    members : sequence of ndarray
        float [rows, classes] each.
    truth : ndarray
        int [rows] or bool [rows, classes].
    folds : ndarray
        int [rows], by which the rules of single members are cross-fitted.
    config : ScoringConfig
        The metric, and which rules may be taken.
    """
    count = len(members)
    if method in ("mean", "rank mean"):
        return Blend(method, (1 / count,) * count)
    if method == STACK:
        stack = fit_stack(members, truth, folds)
        return Blend(method, stack.shares(count), stack)
    if method == "greedy":
        return Blend(method, greedy_weights(members, lambda values: cheapest_score(values, truth, config)))
    best = int(np.argmax([choose_rule(member, truth, folds, config).cross_fitted for member in members]))
    return Blend(method, tuple(float(index == best) for index in range(count)))


def greedy_weights(members: Sequence[np.ndarray], worth: Callable[[np.ndarray], float]) -> tuple[float, ...]:
    """Return weights by forward selection with replacement.

    Parameters
    ----------
    members : sequence of ndarray
        float [rows, classes] each.
    worth : callable
        Blended values [rows, classes] → score.

    Returns
    -------
    tuple of float
        One a member: how often it was taken, in sum 1.

    Notes
    -----
    Start from the mean of the best few; in each round add the member, one taken before or not, that makes the mean
    best; keep the best of all rounds. Of equals the first named, of equally good rounds the earliest.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble selection from libraries of models".
    """
    order = np.argsort([-worth(member) for member in members], kind="stable")
    counts, total = [0] * len(members), np.zeros_like(members[0])
    best, reached, idle = counts, -np.inf, 0
    for index in order[:START]:
        counts[index] += 1
        total = total + members[index]
        if (value := worth(total / sum(counts))) > reached + _GAIN:
            best, reached = counts.copy(), value
    counts = best.copy()
    taken = (count * member for count, member in zip(counts, members, strict=True) if count)
    total = sum(taken, start=np.zeros_like(members[0]))
    while sum(counts) < ROUNDS and idle < PATIENCE:
        values = [worth((total + member) / (sum(counts) + 1)) for member in members]
        index = int(np.argmax(np.asarray(values) >= max(values) - _GAIN))
        counts[index] += 1
        total = total + members[index]
        idle += 1
        if values[index] > reached + _GAIN:
            best, reached, idle = counts.copy(), values[index], 0
    return tuple(count / sum(best) for count in best)


def cheapest_score(values: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> float:
    """Return the score of values [rows, classes] with the cheapest decision that suits the metric.

    That is the highest value, or one threshold for all classes, the best F for these very rows (of a metric of the
    user's own, .5). Weights are chosen
    by it, never by a gradient.
    """
    name = "argmax"
    if truth.ndim == 2:
        name = "half" if config.rule == "half" or config.metric else "threshold"
    elif config.average == "binary" and config.rule != "argmax":
        name = "threshold"
    return score(truth, fit_rule(name, values, truth, config).decide(values), config, values)


def ranks(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return by class the share of rows that lie below each value, those equal to it counted half.

    Parameters
    ----------
    values : ndarray
        float [any number of rows, classes].
    among : ndarray
        The rows that each value is ranked among, float [rows, classes].

    Returns
    -------
    ndarray
        Of the shape and precision of `values`, in [0, 1]. Of the rows themselves it is (rank − 1/2) / rows.

    References
    ----------
    The mid-distribution function: Parzen 1979, "Nonparametric statistical data modeling".
    """
    shares = np.empty_like(values)
    for index in range(values.shape[1]):
        column = np.sort(among[:, index])
        below, within = (np.searchsorted(column, values[:, index], side) for side in ("left", "right"))
        shares[:, index] = (below + within) / (2 * len(column))
    return shares


def ranks_by_fold(values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return ranks of out-of-fold values [rows, classes] among the rows of the same fold; folds int [rows]."""
    shares = np.empty_like(values)
    for fold in np.unique(folds):
        shares[folds == fold] = ranks(values[folds == fold], values[folds == fold])
    return shares


def _weighted(members: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Return the weighted sum of the members."""
    total = np.zeros_like(members[0])
    for member, weight in zip(members, weights, strict=True):
        if weight:
            total += weight * member
    return np.clip(total, 0, 1, out=total)  # the sum of the weights is rounded


def _cross_fitted(
    method: str, members: Sequence[np.ndarray], truth: np.ndarray, parts: np.ndarray, config: ScoringConfig
) -> _Tried:
    """Return what a method is worth, with the rule that suits it best; for a rank mean `members` are ranks."""
    multilabel = truth.ndim == 2
    names = config.rules(multilabel) if config.rule == "auto" else (config.rule,)
    predicted = {name: np.zeros(truth.shape, dtype=bool if multilabel else np.int64) for name in names}
    blended = np.zeros_like(members[0]) if config.of_probabilities or method == STACK else None
    for part in np.unique(parts):
        held_out = parts == part
        others = truth[~held_out]
        there = [member[~held_out] for member in members]
        values = fit_blend(method, there, others, parts[~held_out], config).merge(members)
        for name in names:
            rule = fit_rule(name, values[~held_out], others, config)
            predicted[name][held_out] = rule.decide_among(values, held_out)
        if blended is not None:
            blended[held_out] = values[held_out]
    taken = blended if config.of_probabilities else None
    scores = {name: score(truth, labels, config, taken) for name, labels in predicted.items()}
    name = next(name for name in names if scores[name] >= max(scores.values()) - TIE)
    blend = fit_blend(method, members, truth, parts, config)
    values = blend.merge(members)
    rule = fit_rule(name, values, truth, config)
    optimistic = score(truth, rule.decide(values), config, values)
    return _Tried(blend, rule, scores[name], optimistic, predicted[name], blended if blend.stack else None)
