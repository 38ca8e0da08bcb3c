"""The best threshold of every class for F1: the kit's, beside a loop over scikit-learn's `precision_recall_curve`.

    PYTHONPATH=. python benchmarks/thresholds.py

Both on the same float32 probabilities, in turns; prints seconds and the ratio. The F1 of both must be equal.
"""

import argparse
import statistics
import time

import numpy as np
from sklearn.metrics import precision_recall_curve

from kit.scoring.config import ScoringConfig
from kit.scoring.thresholds import best_thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    probabilities, truth = drawn(options.rows, options.classes)
    seconds = {"kit": [], "scikit-learn": []}
    for _ in range(options.rounds):
        start = time.perf_counter()
        ours = best_thresholds(probabilities, truth, ScoringConfig())
        seconds["kit"].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = loop(probabilities, truth)
        seconds["scikit-learn"].append(time.perf_counter() - start)
    f_ours, f_theirs = (f1(probabilities, truth, thresholds) for thresholds in (ours, theirs))
    print(f"{options.rows} rows x {options.classes} classes, seconds (medians of {options.rounds}):")
    kit, sklearn = statistics.median(seconds["kit"]), statistics.median(seconds["scikit-learn"])
    print(f"kit {kit:.1f}   precision_recall_curve {sklearn:.1f}   kit / curve {kit / sklearn:.2f}")
    print(f"largest difference of a class's F1: {np.abs(f_ours - f_theirs).max():.1e}")


def drawn(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of long-tailed classes: float32 and bool [rows, classes]."""
    generator = np.random.default_rng(0)
    probabilities, truth = np.empty((rows, classes), np.float32), np.empty((rows, classes), bool)
    for index in range(classes):
        logits = generator.standard_normal(rows, np.float32) * 2 - 1 - 5 * index / classes
        probabilities[:, index] = 1 / (1 + np.exp(-logits))
        truth[:, index] = generator.random(rows, np.float32) < probabilities[:, index]
    return probabilities, truth


def loop(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    thresholds = np.empty(probabilities.shape[1])
    for index in range(probabilities.shape[1]):
        precision, recall, cuts = precision_recall_curve(truth[:, index], probabilities[:, index])
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds[index] = cuts[np.argmax(f[:-1])]
    return thresholds


def f1(probabilities: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    values = np.empty(probabilities.shape[1])
    for index, threshold in enumerate(thresholds.astype(np.float32)):
        chosen, labels = probabilities[:, index] >= threshold, truth[:, index]
        values[index] = (
            2 * np.count_nonzero(chosen & labels) / (np.count_nonzero(chosen) + np.count_nonzero(labels))
        )
    return values


if __name__ == "__main__":
    main()
