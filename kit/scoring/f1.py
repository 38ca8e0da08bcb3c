"""The competition's metric over whole sets of rows: F1 with scikit-learn's values, or the user's own.

One label a row: class indices int [rows]. Several labels a row: bool [rows, classes].
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kit.scoring.config import ScoringConfig

_BLOCK = 4_000_000  # probabilities looked at at a time


def score(
    truth: np.ndarray, predicted: np.ndarray, config: ScoringConfig, probabilities: np.ndarray | None = None
) -> float:
    """Return the metric: the value of `sklearn.metrics.fbeta_score`, in [0, 1], or of the user's own.

    Parameters
    ----------
    truth, predicted : ndarray
        int [rows], or bool [rows, classes] where a row may have several labels.
    config : ScoringConfig
        The metric's options.
    probabilities : ndarray or None
        float [rows, classes], for a metric of the user's own that takes them.

    Notes
    -----
    Of no rows the score is `zero_division`. With one label a row the average is over the classes that are there or
    predicted, binary is of class 1; with several labels a row it is over all columns. The lowest F is that of
    `fbeta_score(average=None).min()`: of the same classes or columns. The score is made from
    counts: scikit-learn's checks take longer than the counting, and of several labels a row it would make sparse
    copies.
    """
    if len(truth) == 0:
        return float(config.zero_division)
    if config.metric:
        return config.metric.value(truth, predicted, probabilities)
    if truth.ndim == 1:
        hits, chosen, positive = _counts_by_class(truth, predicted, max(truth.max(), predicted.max(), 1) + 1)
        counted = np.arange(len(positive)) == 1 if config.average == "binary" else chosen + positive > 0
        hits, chosen, positive = hits[counted], chosen[counted], positive[counted]
    else:
        hits, chosen, positive = _counts(truth, predicted, 1 if config.average == "samples" else 0)
    if config.average == "micro":
        hits, chosen, positive = hits.sum(), chosen.sum(), positive.sum()
    values = fbeta(hits, chosen, positive, config.beta, config.zero_division)
    if config.average == "lowest":
        return float(np.min(values))
    if config.average == "weighted" and positive.any():  # else all classes weigh the same, as in scikit-learn
        return float(np.average(values, weights=positive))
    return float(np.mean(values)) if np.size(values) else float(config.zero_division)


def plain_score(probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> float:
    """Return the score of rows by the plain rule: the most likely class, or all classes from .5 on.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        Class index [rows], or bool [rows, classes].
    config : ScoringConfig
    """
    predicted = probabilities >= 0.5 if truth.ndim == 2 else argmax(probabilities)
    return score(truth, predicted, config, probabilities)


def fbeta(
    hits: ArrayLike, predicted: ArrayLike, positive: ArrayLike, beta: float = 1.0, zero_division: float = 0
) -> np.ndarray:
    """Return F-beta from counts: (1 + b²) TP / (b² P + predicted).

    The counts are numbers or arrays that broadcast.

    Parameters
    ----------
    hits : array_like
        True positives.
    predicted : array_like
        How many are predicted.
    positive : array_like
        P, how many are true.
    beta : float
        b, how many times as much recall weighs as precision.
    zero_division : float
        The value where the formula divides by zero.

    Returns
    -------
    ndarray
        float64, of the broadcast shape.

    References
    ----------
    van Rijsbergen 1979, in counts.
    """
    whole = beta**2 * np.asarray(positive, dtype=np.float64) + np.asarray(predicted)
    part = (1 + beta**2) * np.asarray(hits, dtype=np.float64)
    empty = whole == 0
    return np.where(empty, zero_division, part / np.where(empty, 1, whole))


def per_class(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], beta: float = 1.0) -> pd.DataFrame:
    """Return a table of scores with a row a class.

    Parameters
    ----------
    truth, predicted : ndarray
        int [rows], or bool [rows, classes].
    classes : sequence of str
        The names of the classes, in the order of their indices or columns.
    beta : float
        That of F-beta.

    Returns
    -------
    DataFrame
        Columns class, precision, recall and F-beta (0 where undefined), and rows, the number of rows of the class.
    """
    if truth.ndim == 1:
        hits, chosen, positive = _counts_by_class(truth, predicted, len(classes))
    else:
        hits, chosen, positive = _counts(truth, predicted, 0)
    return pd.DataFrame(
        {
            "class": list(classes),
            "precision": hits / np.maximum(chosen, 1),
            "recall": hits / np.maximum(positive, 1),
            f"f{beta:g}": fbeta(hits, chosen, positive, beta),
            "rows": positive,
        }
    )


def argmax(probabilities: np.ndarray) -> np.ndarray:
    """Return the class index of the highest of each row's probabilities [rows, classes]: int [rows]."""
    found = np.empty(len(probabilities), dtype=np.intp)
    step = max(1, _BLOCK // max(1, probabilities.shape[1]))
    for start in range(0, len(probabilities), step):  # numpy copies all of an array that is read-only
        part = slice(start, start + step)
        np.argmax(probabilities[part], axis=1, out=found[part])
    return found


def _counts_by_class(
    truth: np.ndarray, predicted: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true positives, predicted and positive of each of `number` classes, from class indices int [rows]."""
    hits, chosen, positive = (
        np.bincount(each, minlength=number) for each in (truth[truth == predicted], predicted, truth)
    )
    return hits, chosen, positive


def _counts(truth: np.ndarray, predicted: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true positives, predicted and positive of bool [rows, classes], summed over `axis`."""
    truth, predicted = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    hits, chosen, positive = (
        np.asarray(np.count_nonzero(each, axis=axis)) for each in (truth & predicted, predicted, truth)
    )
    return hits, chosen, positive
