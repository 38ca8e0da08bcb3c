"""The report's figures: what was gathered of an experiment → Plotly's data and layout, with a caption in words.

material is what they are drawn from, drawing what they share; the other modules hold the figures by subject.
"""

from kit.report.figures.by_class import MOST_CLASSES, best_and_baseline, class_scores, confusion, lowest_classes
from kit.report.figures.by_depth import butterfly, distance_by_depth, learning
from kit.report.figures.differences import by_fold, forest
from kit.report.figures.over_time import activations, learning_curves, rates

__all__ = [
    "MOST_CLASSES",
    "activations",
    "best_and_baseline",
    "butterfly",
    "by_fold",
    "class_scores",
    "confusion",
    "distance_by_depth",
    "forest",
    "learning",
    "learning_curves",
    "lowest_classes",
    "rates",
]
