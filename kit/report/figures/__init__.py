"""The figures of the report: Plotly's data and layout, with a caption in words.

They are drawn from `kit.report.material`. `drawing` holds what they share, the other modules the figures by
subject.
"""

from kit.report.figures.by_block import score_by_block
from kit.report.figures.by_class import (
    best_and_baseline,
    class_scores,
    confusion,
    has_confusion_matrix,
    lowest_classes,
)
from kit.report.figures.by_depth import butterfly, distance_by_depth, learning
from kit.report.figures.differences import by_fold, forest
from kit.report.figures.heat_maps import activations
from kit.report.figures.over_time import learning_curves, rates

__all__ = [
    "activations",
    "best_and_baseline",
    "butterfly",
    "by_fold",
    "class_scores",
    "confusion",
    "distance_by_depth",
    "forest",
    "has_confusion_matrix",
    "learning",
    "learning_curves",
    "lowest_classes",
    "rates",
    "score_by_block",
]
