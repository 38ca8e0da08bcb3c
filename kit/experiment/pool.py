"""A policy's runs pooled: out-of-fold scores, the decision rule, the labels of the test rows, the submission."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition
from kit.competition.submission import write_submission
from kit.core.errors import KitError
from kit.core.files import write_json
from kit.core.runs import ExperimentDir, RunDir, average, read_predictions, write_predictions
from kit.experiment.config import ExperimentConfig
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import Rule, RuleChoice, choose_rule, decide_test, rule_from_json
from kit.scoring.f1 import per_class, score


@dataclass(frozen=True)
class PolicyResult:
    """scores      the content of scores.json
    per_class   precision, recall, F and rows of each class on the pooled OOF, by the cross-fitted rules
    submission  the file that was written
    decided     the out-of-fold rows, decided
    """

    scores: dict[str, Any]
    per_class: pd.DataFrame
    submission: Path
    decided: "ScoredRuns"


@dataclass(frozen=True)
class ScoredRuns:
    """Runs scored: what is compared between policies.

    ids        of the pooled out-of-fold rows
    predicted  their labels by cross-fitted rules on the mean over seeds: int [rows] or bool [rows, classes]
    oof        the score of these
    runs       seed, fold, fingerprint and score of each run, decided by rules fitted without its rows
    """

    ids: pd.Index
    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray | None
    oof: float
    runs: list[dict[str, Any]]


@dataclass(frozen=True)
class PooledPredictions:
    """Predictions joined by id, the mean over seeds.

    oof     a row a training row that was held out, indexed by id
    truth   its label: class index [rows], or bool [rows, classes]
    folds   int64 [rows]: in which fold it was held out
    groups  int64 [rows]: rows that belong together; None where no two do
    each    the predictions of each run, of which `oof` is the mean
    test    fold → predictions of the test rows by its models, indexed by id
    """

    oof: pd.DataFrame
    truth: np.ndarray
    folds: np.ndarray
    groups: np.ndarray | None
    each: list[pd.DataFrame]
    test: dict[int, pd.DataFrame]

    def choose(self, config: ScoringConfig) -> RuleChoice:
        return choose_rule(self.oof.to_numpy(), self.truth, self.folds, config, self.groups)

    @property
    def mean_test(self) -> pd.DataFrame:
        return average(self.test.values())

    def decide_test(self, rule: Rule, config: ScoringConfig) -> np.ndarray:
        """The labels of the test rows."""
        return decide_test(rule, [frame.to_numpy() for frame in self.test.values()], config.transfer)


def pooled(
    runs: Sequence[RunDir], competition: Competition, plan: FoldPlan, with_test: bool = True
) -> PooledPredictions:
    """All finished runs of one policy; without their predictions of the test rows where these are not needed."""
    place = {name: row for row, name in enumerate(competition.ids)}
    each = [read_predictions(run.oof) for run in runs]
    oof = average(each)
    oof = oof.loc[pd.Index(competition.ids).intersection(oof.index, sort=False)].rename_axis("id")
    rows = np.array([place[name] for name in oof.index], dtype=np.int64)
    test = {
        fold: frame.loc[competition.test_ids].rename_axis("id")
        for fold, frame in by_fold(
            (run.read()["fold"], read_predictions(run.test)) for run in runs if with_test
        ).items()
    }
    groups = None if plan.groups is None else plan.groups[rows]
    return PooledPredictions(oof, competition.targets[rows], plan.fold[rows], groups, each, test)


def decided(runs: Sequence[RunDir], competition: Competition, plan: FoldPlan, config: ScoringConfig) -> ScoredRuns:
    """The runs, of one policy or of a policy at rates of its own in each fold, scored."""
    pool = pooled(runs, competition, plan, with_test=False)
    return _decided(runs, pool, pool.choose(config), config)


def _decided(
    runs: Sequence[RunDir], pool: PooledPredictions, choice: RuleChoice, config: ScoringConfig
) -> ScoredRuns:
    scores = [_score_of(*run, pool, choice, config) for run in zip(runs, pool.each, strict=True)]
    return ScoredRuns(pool.oof.index, pool.truth, choice.predicted, pool.groups, choice.cross_fitted, scores)


def by_fold(predictions: Iterable[tuple[int, pd.DataFrame]]) -> dict[int, pd.DataFrame]:
    """Test predictions of each fold: the mean over its seeds."""
    frames: dict[int, list[pd.DataFrame]] = {}
    for fold, frame in predictions:
        frames.setdefault(fold, []).append(frame)
    return {fold: average(each) for fold, each in sorted(frames.items())}


def pool_policy(
    policy: str,
    experiment: ExperimentConfig,
    competition: Competition,
    plan: FoldPlan,
    folder: ExperimentDir,
    submission: Path,
    write: bool,
) -> PolicyResult:
    """Averages a policy's predictions by id over all its finished folds and seeds, chooses the decision rule,
    scores, and writes the submission.

    write  whether files are written; several processes pool, one of them writes
    """
    runs = [run for run in folder.runs(policy) if run.finished]
    pool, config = pooled(runs, competition, plan), experiment.scoring
    choice = pool.choose(config)
    result = _decided(runs, pool, choice, config)
    table = per_class(pool.truth, choice.predicted, competition.classes, config.beta)
    scores = score_record(choice, config, competition.classes) | {
        "submission": competition.submission.kind,
        "oof_rows": len(pool.oof),
        "train_rows": int((plan.fold >= 0).sum()),
        "runs": result.runs,
        "per_class": table.assign(name=[competition.names[name] for name in competition.classes]).to_dict(
            "records"
        ),
    }
    mean = pool.mean_test
    if write:
        write_predictions(pool.oof.astype(np.float32), folder.policy(policy) / "oof.parquet")
        write_predictions(mean.astype(np.float32), folder.policy(policy) / "test.parquet")
        write_json(folder.policy(policy) / "scores.json", scores)
    handed_in = competition.submission.make(pool.decide_test(choice.rule, config), mean.to_numpy())
    competition.submission.validate(handed_in, str(submission))
    if write:
        write_submission(handed_in, submission)
    named = table.assign(**{"class": [competition.names[name] for name in competition.classes]})
    return PolicyResult(scores, named, submission, result)


def score_record(choice: RuleChoice, config: ScoringConfig, classes: Sequence[str]) -> dict[str, Any]:
    """What is kept of a decision rule: the honest score, the optimistic one, the rule, and the others tried."""
    return {
        "metric": config.title,
        "oof": choice.cross_fitted,
        "optimistic": choice.optimistic,
        "rule": {"said": choice.rule.sentence(list(classes)), **choice.rule.to_json()},
        "rules": choice.candidates,
        "scoring": _choosing(config),
        "classes": list(classes),
    }


@dataclass(frozen=True)
class StoredRule:
    """A decision rule as pooled runs chose it.

    classes  in the order of the columns of probabilities
    runs     seed, fold and fingerprint of each run that was pooled
    """

    rule: Rule
    classes: list[str]
    runs: set[tuple[int, int, str]]

    def is_of(self, runs: Iterable[RunDir], classes: Sequence[str]) -> bool:
        """Whether these runs, or more than these, chose it."""
        return self.classes == list(classes) and {_identity(run.read()) for run in runs} <= self.runs


def stored_scores(file: Path, config: ScoringConfig) -> dict[str, Any] | None:
    """The content of a scores.json; None where there is none, or it is of another metric or of a choice among
    other rules."""
    if not file.is_file():
        return None
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KitError(f"{file} is damaged ({error}); python -m kit run writes it anew") from error
    return scores if "rule" in scores and scores.get("scoring") == _choosing(config) else None


def stored_rule(file: Path, config: ScoringConfig) -> StoredRule | None:
    """The rule in a scores.json; None as for `stored_scores`."""
    if (scores := stored_scores(file, config)) is None:
        return None
    rule = rule_from_json({key: value for key, value in scores["rule"].items() if key != "said"})
    return StoredRule(rule, scores["classes"], {_identity(run) for run in scores["runs"]})


def _identity(record: Mapping[str, Any]) -> tuple[int, int, str]:
    return record["seed"], record["fold"], record["fingerprint"]


def _choosing(config: ScoringConfig) -> dict[str, Any]:
    """What of the config decides which rule is chosen: all but how it meets the test rows."""
    return {name: value for name, value in config.canonical().items() if name != "transfer"}


def _score_of(
    run: RunDir, frame: pd.DataFrame, pool: PooledPredictions, choice: RuleChoice, config: ScoringConfig
) -> dict[str, Any]:
    """The score of a run on its held-out rows, each decided by a rule that was fitted without them, among the rows
    of all folds."""
    record = run.read()
    rows = pool.oof.index.get_indexer(frame.index)
    probabilities, predicted = pool.oof.to_numpy(copy=True), choice.predicted.copy()
    probabilities[rows] = frame.to_numpy()
    mine = np.zeros(len(predicted), dtype=bool)
    mine[rows] = True
    for part in np.unique(choice.folds[rows]):
        those = mine & (choice.folds == part)
        predicted[those] = choice.by_fold[int(part)].decide_among(probabilities, those)
    return {
        "seed": record["seed"],
        "fold": record["fold"],
        "fingerprint": record["fingerprint"],
        "score": score(pool.truth[rows], predicted[rows], config),
    }
