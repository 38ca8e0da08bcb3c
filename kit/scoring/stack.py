"""A stack: a logistic regression whose inputs are what the members of a blend predict."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C that are tried; the first regularises most
_LEAST = 1e-6  # of a probability whose logarithm is taken


@dataclass(frozen=True)
class Stack:
    """A fitted stack.

    Attributes
    ----------
    coefficients : ndarray
        float64 [classes, members × classes]: of the members' log-probabilities, one member after the other; where
        a row may have several labels [classes, members]: of the logits of the label itself.
    intercept : ndarray
        float64 [classes]; −inf for a class that no row had.
    multilabel : bool
    strength : float
        The C that was chosen.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    multilabel: bool
    strength: float

    def combine(self, members: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities [rows, classes] of rows, from each member's probabilities of that shape."""
        inputs = _inputs(members, self.multilabel)
        if self.multilabel:
            values = np.einsum("rkm,km->rk", inputs, self.coefficients) + self.intercept
            return (1 / (1 + np.exp(-values))).astype(members[0].dtype)
        values = inputs @ self.coefficients.T + self.intercept
        values = np.exp(values - values.max(axis=1, keepdims=True))
        return (values / values.sum(axis=1, keepdims=True)).astype(members[0].dtype)

    def to_json(self) -> dict[str, Any]:
        """Return the stack as plain values; None in place of an intercept of −inf."""
        intercept = [value if np.isfinite(value) else None for value in self.intercept.tolist()]
        return {"C": self.strength, "coefficients": self.coefficients.tolist(), "intercept": intercept}

    def shares(self, members: int) -> tuple[float, ...]:
        """Return each member's share of the coefficients' sizes, in sum 1; equal shares where all are 0."""
        sizes = np.abs(self.coefficients).reshape(len(self.coefficients), members, -1).sum(axis=(0, 2))
        whole = sizes.sum()
        return tuple((sizes / whole).tolist()) if whole else (1 / members,) * members


def fit_stack(members: Sequence[np.ndarray], truth: np.ndarray, folds: np.ndarray) -> Stack:
    """Fit a stack on some rows: multinomial logistic regression, or one for each label.

    Parameters
    ----------
    members : sequence of ndarray
        Probabilities of the same rows, float [rows, classes] each.
    truth : ndarray
        int [rows], or bool [rows, classes].
    folds : ndarray
        int [rows], two different ones at least. The strength of the L2 penalty is the one of `STRENGTHS` with the
        least log loss on rows of a fold when fitted on those of the others.

    Notes
    -----
    Stacked generalisation: Wolpert 1992; with out-of-fold probabilities as inputs: Ting & Witten 1999.
    """
    several = truth.ndim == 2
    inputs, classes = _inputs(members, several), members[0].shape[1]
    losses = np.zeros(len(STRENGTHS))
    for fold in np.unique(folds):
        held_out = folds == fold
        for at, strength in enumerate(STRENGTHS):
            fitted = _fitted(inputs[~held_out], truth[~held_out], classes, strength)
            losses[at] += _log_loss(fitted.combine([each[held_out] for each in members]), truth[held_out])
    return _fitted(inputs, truth, classes, STRENGTHS[int(np.argmin(losses))])


def _inputs(members: Sequence[np.ndarray], several: bool) -> np.ndarray:
    """Return log-probabilities [rows, members × classes], or logits [rows, classes, members] of several labels."""
    clipped = [np.clip(np.asarray(each, dtype=np.float64), _LEAST, 1 - _LEAST) for each in members]
    if several:
        return np.stack([np.log(each) - np.log1p(-each) for each in clipped], axis=2)
    return np.concatenate([np.log(each) for each in clipped], axis=1)


def _fitted(inputs: np.ndarray, truth: np.ndarray, classes: int, strength: float) -> Stack:
    if truth.ndim == 2:
        pairs = [_regression(inputs[:, label], truth[:, label], 2, strength) for label in range(classes)]
        coefficients = np.stack([each[1] - each[0] for each, _ in pairs])
        rates = np.clip(truth.mean(axis=0), _LEAST, 1 - _LEAST)  # of a label that all rows have, or none
        intercept = [
            each[1] - each[0] if np.isfinite(each).all() else np.log(rate / (1 - rate))
            for (_, each), rate in zip(pairs, rates, strict=True)
        ]
        return Stack(coefficients, np.array(intercept), True, strength)
    return Stack(*_regression(inputs, truth, classes, strength), False, strength)


def _regression(
    inputs: np.ndarray, truth: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients [classes, inputs] and intercept [classes], −inf where a class has no row."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    coefficients, intercept = np.zeros((classes, inputs.shape[1])), np.full(classes, -np.inf)
    there = np.unique(truth).astype(np.int64)
    if len(there) < 2:
        intercept[there] = 0
        return coefficients, intercept
    solver = "newton-cholesky" if classes == 2 else "lbfgs"  # the first is quicker for few inputs
    model = LogisticRegression(C=strength, solver=solver, max_iter=1000)
    with warnings.catch_warnings():  # a little short of the optimum is as good
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(inputs, truth)
    if len(there) == 2:  # scikit-learn gives the second class's logit alone
        model.coef_ = np.concatenate([-model.coef_, model.coef_]) / 2
        model.intercept_ = np.concatenate([-model.intercept_, model.intercept_]) / 2
    coefficients[there], intercept[there] = model.coef_, model.intercept_
    return coefficients, intercept


def _log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the summed log loss of rows, of all labels."""
    values = np.clip(np.asarray(probabilities, dtype=np.float64), _LEAST, 1 - _LEAST)
    if truth.ndim == 2:
        return float(-np.where(truth, np.log(values), np.log1p(-values)).sum())
    return float(-np.log(values[np.arange(len(truth)), truth]).sum())
