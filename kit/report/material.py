"""The data that a report is drawn from, gathered from an experiment: plain values, no figure yet."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kit.comparison.record import ComparedPolicy, Comparison, ViewRecord
from kit.core.runs import TRAINING, RunRecord
from kit.experiment.policy_scores import PolicyScores
from kit.training.records import Activations, Learning


@dataclass(frozen=True)
class RealisedRates:
    """The realised and the intended learning rates of one run.

    Attributes
    ----------
    steps : ndarray
        int [steps], the numbers of the updates that these rates are of.
    lr : ndarray
        float [steps, groups], the rates that the optimizer used.
    intended : ndarray or None
        float [steps, groups], the rates that the policy intended; None where it cannot say.
    groups : list of str
        Names of the depth groups, stem first.
    controlled : bool
        Whether a controller multiplied the rates.
    """

    steps: np.ndarray
    lr: np.ndarray
    intended: np.ndarray | None
    groups: list[str]
    controlled: bool = False

    @property
    def largest_difference(self) -> float | None:
        """The largest difference of realised and intended, relative to the intended; None where not known."""
        if self.intended is None or self.intended.shape != self.lr.shape:
            return None
        gap, size = np.abs(self.lr - self.intended), np.abs(self.intended)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(gap == 0, 0.0, gap / size)
        return float(np.nanmax(relative)) if np.isfinite(self.lr).any() else None


@dataclass(frozen=True)
class PolicyOutcome:
    """The out-of-fold rows of a policy, decided by cross-fitted rules.

    Attributes
    ----------
    ids : Index
        The ids of the rows.
    truth, predicted : ndarray
        int [rows], or bool [rows, classes] where a row may have several labels.
    doubt : ndarray
        float [rows]: how far the probabilities were from the truth, 0 to 1.
    interval : tuple of float, optional
        The ends of the score's 95 % interval, were there other rows; where it is not drawn, it is left out.
    """

    ids: pd.Index
    truth: np.ndarray
    predicted: np.ndarray
    doubt: np.ndarray
    interval: tuple[float, float] | None = None

    @property
    def wrong(self) -> np.ndarray:
        """Whether each row was predicted wrongly, bool [rows]."""
        differs = self.truth != self.predicted
        return differs.any(axis=1) if differs.ndim == 2 else differs


@dataclass(frozen=True)
class PolicyData:
    """What is known of one policy; everything but the name may be missing.

    Attributes
    ----------
    name : str
        The policy's name.
    records : list of dict
        run.json of each run that has begun.
    histories : list of list of dict
        history.jsonl of each run that is finished.
    scores : PolicyScores or None
        The content of scores.json.
    shown_run : str
        The run that rates and probes are of, in words.
    rates : RealisedRates or None
        Its learning rates.
    activations : Activations or None
        What the probes measured of its activations.
    learning : Learning or None
        What the probes measured of each depth group.
    outcome : PolicyOutcome or None
        The decided out-of-fold rows.
    """

    name: str
    records: list[RunRecord] = field(default_factory=list)
    histories: list[list[dict[str, Any]]] = field(default_factory=list)
    scores: PolicyScores | None = None
    shown_run: str = ""
    rates: RealisedRates | None = None
    activations: Activations | None = None
    learning: Learning | None = None
    outcome: PolicyOutcome | None = None

    @property
    def finished(self) -> list[RunRecord]:
        """The records of the finished runs."""
        return [record for record in self.records if record.status == "finished"]


@dataclass(frozen=True)
class Thumbnail:
    """A small image of a row that was often predicted wrongly.

    Attributes
    ----------
    id : str
        The row's id.
    image : str or None
        A data URI; None where the image could not be read.
    truth : str
        The true label, or labels, by name.
    predicted : str
        What most of the policies that got the row wrong took it for.
    wrong : int
        How many policies got it wrong.
    of : int
        How many policies predicted it.
    """

    id: str
    image: str | None
    truth: str
    predicted: str
    wrong: int
    of: int


@dataclass(frozen=True)
class ReportData:
    """Everything that a report is drawn from.

    Attributes
    ----------
    name : str
        The experiment's name.
    metric : str
        The metric's name, like `macro F1`.
    metric_key : str
        What its values are stored under in run.json; "" where that is the name.
    baseline : str
        The policy that the others are compared with.
    policies : list of PolicyData
        In the order of the report.
    comparison : Comparison or None
        The content of comparison.json.
    classes : list of str
        As in the train table.
    names : list of str
        The same classes, named for people.
    multilabel : bool
        Whether a row may have several labels.
    thumbnails : list of Thumbnail
        The images that were wrong most often.
    unavailable : str
        Why there are no labels and images; "" where they are there.
    outdated : str or None
        Why the stored comparison is not shown: what it is of that is no longer there.
    config : str
        The text of the config.
    fold_plan : str
        The hash of the fold plan.
    experiments : bool
        Whether what is called a policy is an experiment: a comparison of several is shown.
    blocks : dict of str to str
        The block of the body that each head is on, in the order of the config, where heads differ in nothing else.
    """

    name: str
    metric: str
    baseline: str
    policies: list[PolicyData]
    comparison: Comparison | None = None
    classes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    multilabel: bool = False
    thumbnails: list[Thumbnail] = field(default_factory=list)
    unavailable: str = ""
    outdated: str | None = None
    config: str = ""
    fold_plan: str = ""
    metric_key: str = ""
    experiments: bool = False
    blocks: dict[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether networks were trained, rather than heads fitted or weights averaged alone."""
        kinds = {record.kind for policy in self.policies for record in policy.records}
        return not kinds or TRAINING in kinds

    @property
    def kind(self) -> str:
        """What is shown side by side, in a word."""
        return "experiment" if self.experiments else "policy"

    @property
    def kinds(self) -> str:
        """The same for several of them."""
        return "experiments" if self.experiments else "policies"

    def views(self) -> list[ViewRecord]:
        """Return the views of the comparison; none where nothing was compared."""
        return self.comparison.views if self.comparison else []

    def compared_scores(self) -> dict[str, float]:
        """Return the pooled score of each policy in the view `raw` of the comparison."""
        return {each.policy: each.oof for each in raw_policies(self.comparison)}


def raw_policies(comparison: Comparison | None) -> list[ComparedPolicy]:
    """Return the policies of the comparison's view `raw`, in which each has the rates that it states."""
    views = comparison.views if comparison else []
    return next((view.policies for view in views if view.name == "raw"), [])
