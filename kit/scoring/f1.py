"""F1 over whole sets of rows, by scikit-learn."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.scoring.config import ScoringConfig


def score(truth: np.ndarray, predicted: np.ndarray, config: ScoringConfig) -> float:
    """`sklearn.metrics.fbeta_score` of class indices [rows]: over the classes that are there or predicted."""
    from sklearn.metrics import fbeta_score

    return float(
        fbeta_score(truth, predicted, beta=config.beta, average=config.average, zero_division=config.zero_division)
    )


def per_class(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], beta: float = 1.0) -> pd.DataFrame:
    """Precision, recall, F-beta (0 where undefined) and the number of rows of each class, a row a class."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f, support = precision_recall_fscore_support(
        truth, predicted, beta=beta, labels=range(len(classes)), zero_division=0
    )
    return pd.DataFrame(
        {"class": list(classes), "precision": precision, "recall": recall, f"f{beta:g}": f, "rows": support}
    )


def argmax(probabilities: np.ndarray) -> np.ndarray:
    """The decision rule for one label a row: probabilities [rows, classes] → class indices [rows]."""
    return np.argmax(probabilities, axis=1)
