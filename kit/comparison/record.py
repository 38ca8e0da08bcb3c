"""What comparison.json and comparison.csv say, written and read."""

import csv
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from kit.comparison.costs import CostLine
from kit.comparison.differs import ComparedExperiment, DifferingKey
from kit.core.files import as_record, atomic, read_object, write_json
from kit.core.manifest import need_listed

POWER = 0.8
COLUMNS = (
    "view", "policy", "baseline", "runs", "score", "baseline_score", "difference", "low", "high", "p", "p_holm",
    "smallest_detectable", "bootstrap_low", "bootstrap_high", "verdict", "seeds_to_decide",
)  # fmt: skip


class _Record(BaseModel):
    """A part of comparison.json; keys of other versions of the kit are kept."""

    model_config = ConfigDict(extra="allow")


class ComparedRun(_Record):
    """A run that is compared, and its score on the rows that it held out.

    Where experiments are compared it has one key more, `oof`: the digest of its out-of-fold predictions.
    """

    seed: int
    fold: int
    score: float
    variant: str | None = None
    fingerprint: str | None = None
    updates: int | None = None
    initial_weights: str | None = None
    predicted: dict[str, Any] | None = None


class ComparedPolicy(_Record):
    """A policy in a view: its pooled out-of-fold score, the mean score of its runs, and these."""

    policy: str
    oof: float
    mean: float
    runs: list[ComparedRun]


class DivergedRun(_Record):
    """A run that diverged, and why."""

    seed: int
    fold: int
    variant: str | None = None
    fingerprint: str | None = None
    error: str | None = None


class DivergedPolicy(_Record):
    """A policy that diverged, its runs that did, and what to do."""

    policy: str
    runs: list[DivergedRun]
    sentence: str


class IntervalRecord(_Record):
    """The interval of a difference (see `kit.comparison.intervals.Interval`)."""

    difference: float
    low: float
    high: float
    p: float


class BootstrapRecord(_Record):
    """The bootstrap interval of a difference (see `kit.comparison.bootstrap.BootstrapResult`)."""

    difference: float
    low: float
    high: float


class PolicyComparison(_Record):
    """A policy against the baseline (see `kit.comparison.statistics.PairedComparison`)."""

    policy: str
    baseline: str
    folds: list[int] = []
    seeds: list[int] = []
    runs: int | None = None
    score: float
    baseline_score: float
    difference: float
    interval: IntervalRecord | None = None
    p_holm: float | None = None
    smallest_detectable: float | None = None
    bootstrap: BootstrapRecord | None = None
    verdict: str
    sentence: str
    seeds_to_decide: int | None = None
    by_run: list[dict[str, Any]] = []


class ViewRecord(_Record):
    """One way to look at the policies, with its comparisons."""

    name: str
    about: str | None = None
    note: str | None = None
    policies: list[ComparedPolicy]
    comparisons: list[PolicyComparison]
    diverged: list[DivergedPolicy] = []


class LedgerLine(_Record):
    """How many trainings a policy was given, and for what; the rates that were tried, and chosen by fold."""

    policy: str
    raw: int
    tuning: int
    tuned: int
    equalised: int
    total: int
    rates: list[float] = []
    chosen: dict[str, float] = {}


class TuningLine(_Record):
    """A training that tuned a rate; `score` is None where it diverged."""

    policy: str
    rate: float
    fold: int
    within: int | None = None
    seed: int
    score: float | None


class Comparison(_Record):
    """What comparison.json says.

    Attributes
    ----------
    missing : list of str
        Why views that the config asks for are missing.
    devices : dict of str to int
        How many of the runs that are compared were trained on which kind of device; empty in early versions.
    headline : str
        Which policies beat the baseline, in each view.
    views : list of ViewRecord
    ledger : list of LedgerLine
    tuning : list of TuningLine
    updates : int
        Of a training, at most.
    seconds : float
        Of all trainings that are compared, or tuned.
    """

    experiment: str = ""
    metric: str
    baseline: str
    level: float
    power: float = POWER
    margin: float
    ratio: float | None = None
    scoring: dict[str, Any] | None = None
    missing: list[str] = []
    devices: dict[str, int] = {}
    headline: str
    views: list[ViewRecord]
    ledger: list[LedgerLine] = []
    tuning: list[TuningLine] = []
    updates: int
    seconds: float

    @property
    def kind(self) -> str:
        """What is compared, in a word."""
        return "policy"

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return self.model_dump(exclude_unset=True)


class ExperimentComparison(Comparison):
    """What comparison.json says of experiments; what is called a policy is one of these.

    Attributes
    ----------
    experiments : list of ComparedExperiment
    differs : list of DifferingKey
        In which keys of their configs they differ.
    costs : list of CostLine
        What a run of each took.
    """

    experiments: list[ComparedExperiment]
    differs: list[DifferingKey]
    costs: list[CostLine]

    @property
    def kind(self) -> str:
        """What is compared, in a word."""
        return "experiment"


def read_comparison(path: Path) -> Comparison | None:
    """Read a comparison.json; None where there is none, Damaged where it is not what was written."""
    if not path.is_file():
        return None
    remedy = "python -m kit compare writes it anew"
    need_listed(path.parent, path, remedy)
    content = read_object(path, remedy)
    return as_record(content, ExperimentComparison if "experiments" in content else Comparison, path, remedy)


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write comparison.json."""
    write_json(path, comparison.to_json())


def write_table(comparison: Comparison, path: Path) -> None:
    """Write comparison.csv: a line a comparison, and one a policy that diverged."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for view in comparison.views:
            for each in view.comparisons:
                ends = {key: getattr(each.interval, key, None) for key in ("low", "high", "p")}
                resampled = {f"bootstrap_{key}": getattr(each.bootstrap, key, None) for key in ("low", "high")}
                table.writerow(each.model_dump() | ends | resampled | {"view": view.name})
            for diverged in view.diverged:
                told = {"baseline": comparison.baseline, "runs": None, "verdict": "diverged"}
                table.writerow(diverged.model_dump() | told | {"view": view.name})
