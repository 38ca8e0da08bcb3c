"""scores.json: what a policy's pooled runs scored, and the decision rule that they chose."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from kit.competition.config import CompetitionConfig
from kit.core.files import as_record, read_object, write_json
from kit.core.manifest import need_listed
from kit.core.runs import RunDir, RunRecord
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import Rule, rule_from_json

REMEDY = "python -m kit run writes it anew"


class RunScore(BaseModel):
    """The score of one run on its held-out rows, decided by rules that were fitted without them."""

    seed: int
    fold: int
    fingerprint: str | None
    score: float
    predicted: dict[str, Any] | None = None


class RuleScore(BaseModel):
    """A decision rule that was tried: its name and its scores, on other folds and on the rows themselves."""

    name: str
    cross_fitted: float
    optimistic: float
    chosen: bool = False


class PolicyScores(BaseModel):
    """What scores.json says of one policy, pooled over folds and seeds.

    Attributes
    ----------
    metric : str
        As it is shown, like "macro F1".
    oof : float
        The score of the out-of-fold rows by cross-fitted rules.
    optimistic : float
        The score by the rule that was fitted on these very rows.
    rule : dict
        The decision rule, and under `said` the same in words.
    rules : list of RuleScore
        All that were tried.
    scoring : dict
        What of the config decided which rule was chosen.
    classes : list of str
        In the order of the columns of predictions.
    submission : str
        What the competition asks for: labels or probabilities.
    oof_rows, train_rows : int
        Rows, or observations, that were predicted out of fold, and that the fold plan holds out.
    runs : list of RunScore
    per_class : list of dict
        Precision, recall, F and rows of each class.

    Notes
    -----
    Files of older kits lack some of the last; what needs them computes them anew.
    """

    model_config = ConfigDict(extra="allow")

    metric: str
    oof: float
    optimistic: float
    rule: dict[str, Any]
    rules: list[RuleScore] = []
    scoring: dict[str, Any]
    classes: list[str]
    submission: str = ""
    oof_rows: int = 0
    train_rows: int = 0
    runs: list[RunScore] = []
    per_class: list[dict[str, Any]] = []

    def save(self, path: Path) -> None:
        """Write scores.json."""
        write_json(path, self.model_dump(exclude_unset=True))


@dataclass(frozen=True)
class StoredRule:
    """A decision rule as pooled runs chose it.

    Attributes
    ----------
    rule : Rule
    classes : list of str
        In the order of the columns of probabilities.
    runs : set
        Seed, fold, fingerprint and views of each run that was pooled.
    """

    rule: Rule
    classes: list[str]
    runs: set[tuple[int, int, str | None, str]]

    def is_of(self, runs: Iterable[RunDir], classes: Sequence[str]) -> bool:
        """Whether these runs, or more than these, chose it."""
        return self.classes == list(classes) and {_identity(run.record) for run in runs} <= self.runs


def score_identity(config: ScoringConfig, competition: CompetitionConfig) -> dict[str, Any]:
    """Return what decides scores, as plain values: the metric, and how predictions of rows become one."""
    by = competition.predict_by
    return config.identity() | ({"predict_by": by.canonical()} if by else {})


def stored_scores(file: Path, config: ScoringConfig, competition: CompetitionConfig) -> PolicyScores | None:
    """Read a scores.json; None where there is none, or it is of another metric, choice or pooling.

    Raises
    ------
    Damaged
        Where it is not what was written.
    """
    if not file.is_file():
        return None
    need_listed(file.parents[1], file, REMEDY)
    content = read_object(file, REMEDY)
    if "rule" not in content or content.get("scoring") != rule_identity(config, competition):
        return None
    return as_record(content, PolicyScores, file, REMEDY)


def stored_rule(file: Path, config: ScoringConfig, competition: CompetitionConfig) -> StoredRule | None:
    """Read the rule in a scores.json; None as for `stored_scores`."""
    if (scores := stored_scores(file, config, competition)) is None:
        return None
    rule = rule_from_json({key: value for key, value in scores.rule.items() if key != "said"})
    return StoredRule(rule, scores.classes, {_identity(run) for run in scores.runs})


def _identity(run: RunRecord | RunScore) -> tuple[int, int, str | None, str]:
    return run.seed, run.fold, run.fingerprint, json.dumps(run.predicted, sort_keys=True)


def rule_identity(config: ScoringConfig, competition: CompetitionConfig) -> dict[str, Any]:
    """Return what of the config decides which rule is chosen: all but how it meets the test rows."""
    return {name: value for name, value in score_identity(config, competition).items() if name != "transfer"}
