"""What the report is drawn from, gathered of an experiment: plain data, no figure yet."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kit.training.records import Activations, Learning


@dataclass(frozen=True)
class RealisedRates:
    """Realised and intended rates [steps, groups] of one run; intended is None where the policy cannot say.

    steps       the updates that these are of
    controlled  whether a controller multiplied them
    """

    steps: np.ndarray
    lr: np.ndarray
    intended: np.ndarray | None
    groups: list[str]
    controlled: bool = False

    @property
    def largest_difference(self) -> float | None:
        """Between realised and intended, relative to the intended; None where it is not known."""
        if self.intended is None or self.intended.shape != self.lr.shape:
            return None
        gap, size = np.abs(self.lr - self.intended), np.abs(self.intended)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(gap == 0, 0.0, gap / size)
        return float(np.nanmax(relative)) if np.isfinite(self.lr).any() else None


@dataclass(frozen=True)
class PolicyOutcome:
    """A policy's out-of-fold rows, decided by cross-fitted rules.

    truth, predicted  int [rows], or bool [rows, classes]
    doubt             float [rows]: how far the probabilities were from the truth, 0 … 1
    """

    ids: pd.Index
    truth: np.ndarray
    predicted: np.ndarray
    doubt: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        differs = self.truth != self.predicted
        return differs.any(axis=1) if differs.ndim == 2 else differs


@dataclass(frozen=True)
class PolicyData:
    """What is there of one policy; every part but the name may be missing.

    records    run.json of each run that has begun
    histories  history.jsonl of each run that is finished
    scores     scores.json
    shown      which run rates and probes are of, in words
    """

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    histories: list[list[dict[str, Any]]] = field(default_factory=list)
    scores: dict[str, Any] | None = None
    shown: str = ""
    rates: RealisedRates | None = None
    activations: Activations | None = None
    learning: Learning | None = None
    outcome: PolicyOutcome | None = None

    @property
    def finished(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record.get("status") == "finished"]


@dataclass(frozen=True)
class Thumbnail:
    """An image that was often wrong.

    image      a data URI; None where it could not be read
    predicted  what most of those policies took it for that got it wrong: `wrong` policies `of` all
    """

    id: str
    image: str | None
    truth: str
    predicted: str
    wrong: int
    of: int


@dataclass(frozen=True)
class ReportData:
    """What the report is drawn from.

    comparison  the content of comparison.json, or None
    names       of the classes, for people
    without     why there are no labels and images; "" where they are there
    outdated    what the comparison is of that is no longer there, and why it is not shown; None where it is shown
    fold_plan   its hash
    """

    name: str
    metric: str
    baseline: str
    policies: list[PolicyData]
    comparison: dict[str, Any] | None = None
    classes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    multilabel: bool = False
    thumbnails: list[Thumbnail] = field(default_factory=list)
    without: str = ""
    outdated: str | None = None
    config: str = ""
    fold_plan: str = ""

    def views(self) -> list[dict[str, Any]]:
        return self.comparison["views"] if self.comparison else []

    def policy(self, name: str) -> PolicyData | None:
        return next((policy for policy in self.policies if policy.name == name), None)
