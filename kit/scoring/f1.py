"""F1 over whole sets of rows, with scikit-learn's values.

One label a row: class indices int [rows]. Several labels a row: bool [rows, classes].
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.scoring.config import ScoringConfig


def score(truth: np.ndarray, predicted: np.ndarray, config: ScoringConfig) -> float:
    """`sklearn.metrics.fbeta_score` in [0, 1]; of no rows it is `zero_division`.

    One label a row: over the classes that are there or predicted; binary: of class 1. Several labels a row: over
    all columns. From counts: scikit-learn's checks take longer than the counting, and of several labels a row it
    would make sparse copies.
    """
    if len(truth) == 0:
        return float(config.zero_division)
    if truth.ndim == 1:
        hits, chosen, positive = _counts_by_class(truth, predicted, max(truth.max(), predicted.max(), 1) + 1)
        counted = np.arange(len(positive)) == 1 if config.average == "binary" else chosen + positive > 0
        hits, chosen, positive = hits[counted], chosen[counted], positive[counted]
    else:
        hits, chosen, positive = _counts(truth, predicted, 1 if config.average == "samples" else 0)
    if config.average == "micro":
        hits, chosen, positive = hits.sum(), chosen.sum(), positive.sum()
    values = fbeta(hits, chosen, positive, config.beta, config.zero_division)
    if config.average == "weighted" and positive.any():  # else all classes weigh the same, as in scikit-learn
        return float(np.average(values, weights=positive))
    return float(np.mean(values)) if np.size(values) else float(config.zero_division)


def fbeta(hits, predicted, positive, beta: float = 1.0, zero_division: float = 0):
    """F-beta from counts: (1 + b²) TP / (b² P + predicted), `zero_division` where that divides by zero.

    hits: true positives; predicted: rows predicted; positive: rows whose truth it is. Numbers or arrays that
    broadcast → float64 of their shape. van Rijsbergen 1979, in counts.
    """
    whole = beta**2 * np.asarray(positive, dtype=np.float64) + predicted
    part = (1 + beta**2) * np.asarray(hits, dtype=np.float64)
    empty = whole == 0
    return np.where(empty, zero_division, part / np.where(empty, 1, whole))


def per_class(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], beta: float = 1.0) -> pd.DataFrame:
    """Precision, recall, F-beta (0 where undefined) and the number of rows of each class, a row a class."""
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
    """The decision rule for one label a row: probabilities [rows, classes] → class indices [rows]."""
    return np.argmax(probabilities, axis=1)


def _counts_by_class(
    truth: np.ndarray, predicted: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, predicted and positive of each of `number` classes; class indices int [rows]."""
    return tuple(np.bincount(each, minlength=number) for each in (truth[truth == predicted], predicted, truth))


def _counts(truth: np.ndarray, predicted: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, predicted and positive of bool [rows, classes], summed over `axis`."""
    truth, predicted = np.asarray(truth, dtype=bool), np.asarray(predicted, dtype=bool)
    return tuple(np.count_nonzero(each, axis=axis) for each in (truth & predicted, predicted, truth))
