"""A policy's runs pooled: out-of-fold scores, the decision rule, the labels of the test rows, the submission."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from kit.competition.config import CompetitionConfig
from kit.competition.folds import FoldPlan, join_groups
from kit.competition.load import Competition
from kit.competition.observations import KEY, Observations
from kit.competition.submission import SubmissionFormat, write_submission
from kit.core.errors import Damaged, KitError, some
from kit.core.files import as_record, read_object, write_json
from kit.core.manifest import need_listed, noting
from kit.core.paths import OutputDirs
from kit.core.runs import TRAINED_ANEW, ExperimentDir, RunDir, RunRecord, average, in_order, write_predictions
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.scoring.config import ScoringConfig, Transfer
from kit.scoring.decide import Rule, RuleChoice, choose_rule, decide_test, rule_from_json
from kit.scoring.f1 import per_class, score

REMEDY = "python -m kit run writes it anew"
POOLED = ("oof.parquet", "test.parquet", "scores.json")  # of each policy


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


@dataclass(frozen=True)
class PolicyResult:
    """A policy, pooled.

    Attributes
    ----------
    scores : PolicyScores
        The content of scores.json.
    per_class : DataFrame
        Precision, recall, F and rows of each class on the pooled out-of-fold rows, by the cross-fitted rules.
    submission : Path
        The file that was written.
    decided : ScoredRuns
        The out-of-fold rows, decided.
    """

    scores: PolicyScores
    per_class: pd.DataFrame = field(repr=False)  # which `scores` tells as well
    submission: Path
    decided: "ScoredRuns" = field(repr=False)


@dataclass(frozen=True)
class ScoredRuns:
    """Runs of one policy, scored: what is compared between policies.

    Attributes
    ----------
    ids : Index
        Of the pooled out-of-fold rows.
    truth : ndarray
        Class index [rows], or bool [rows, classes].
    predicted : ndarray
        Their labels by cross-fitted rules on the mean over seeds, in the form of `truth`.
    groups : ndarray or None
        int64 [rows], the row group of each; None where no two rows belong together.
    oof : float
        The score of these.
    runs : list of RunScore
    probabilities : ndarray or None
        float [rows, classes], where the metric takes them.
    """

    ids: pd.Index
    truth: np.ndarray
    predicted: np.ndarray
    groups: np.ndarray | None
    oof: float
    runs: list[RunScore]
    probabilities: np.ndarray | None = None


class Predicted(Protocol):
    """What has predicted the rows that a fold holds out, and the test rows: a run, or files that stand for one."""

    @property
    def record(self) -> RunRecord: ...
    @property
    def oof(self) -> Path: ...
    @property
    def test(self) -> Path: ...
    def read_oof(self) -> pd.DataFrame: ...
    def read_test(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class PooledPredictions:
    """Predictions joined by id, the mean over seeds.

    Attributes
    ----------
    oof : DataFrame
        A row a training row, or observation, that was held out, indexed by id.
    truth : ndarray
        Its label: class index [rows], or bool [rows, classes].
    folds : ndarray
        int64 [rows], in which fold it was held out.
    groups : ndarray or None
        int64 [rows], its row group; None where no two rows belong together.
    each : list of DataFrame
        The predictions of each run, of which `oof` is the mean.
    test : dict of int to DataFrame
        By fold, the predictions of the test rows by its models, indexed by id.
    """

    oof: pd.DataFrame
    truth: np.ndarray
    folds: np.ndarray
    groups: np.ndarray | None
    each: list[pd.DataFrame]
    test: dict[int, pd.DataFrame]

    def choose(self, config: ScoringConfig) -> RuleChoice:
        """Choose the decision rule with the best cross-fitted score on these predictions."""
        return choose_rule(self.oof.to_numpy(), self.truth, self.folds, config, self.groups)


def hand_in(
    submission_format: SubmissionFormat,
    rule: Rule,
    test: Mapping[int, pd.DataFrame],
    transfer: Transfer,
    path: Path,
    *,
    prior: np.ndarray | None = None,
    mean: pd.DataFrame | None = None,
    write: bool = True,
) -> pd.DataFrame:
    """Decide the test rows, make the submission of them, validate it and write it; return it.

    Parameters
    ----------
    submission_format : SubmissionFormat
    rule : Rule
        Fitted on out-of-fold rows.
    test : mapping of int to DataFrame
        By fold, the probabilities of test rows by its models, indexed by id; all of the same rows.
    transfer : str
        How the rule meets the mean of several models (`scoring.transfer`).
    path : Path
    prior : ndarray, optional
        float64 [classes]. Rows that `test` lacks get it, and take no part in how the others are decided; left out:
        all rows have to be there.
    mean : DataFrame, optional
        The probabilities that are handed in, where the competition asks for these; left out: the mean of `test`.
    write : bool
        Whether the file is written now; several processes decide, one of them writes.

    Raises
    ------
    KitError
        Where predictions are of other rows than the submission's, and where Kaggle would refuse the submission.
    """
    ids = pd.Index(submission_format.ids)
    there = next(iter(test.values())).index if test else ids[:0]
    odd = [*there.difference(ids, sort=False), *(ids.difference(there, sort=False) if prior is None else ())]
    if test and odd:
        raise KitError(f"{path}: predictions and submission are not of the same rows ({some(odd, 5)})")
    labels, probabilities = np.empty(0), np.empty(0)
    if prior is not None:
        labels = np.repeat(rule.decide(prior[None]), len(ids), axis=0)
        probabilities = np.repeat(prior[None], len(ids), axis=0)
    if test or prior is None:
        decided_labels = decide_test(rule, [in_order(each, there).to_numpy() for each in test.values()], transfer)
        means = in_order(average(test.values()) if mean is None else mean, there).to_numpy()
        if prior is None:
            labels, probabilities = np.empty_like(decided_labels), np.empty_like(means)
        rows = ids.get_indexer(there)
        labels[rows], probabilities[rows] = decided_labels, means
    submission = submission_format.make(labels, probabilities)
    submission_format.validate(submission, str(path))
    if write:
        write_submission(submission, path)
    return submission


def pooled(
    runs: Sequence[Predicted], competition: Competition, plan: FoldPlan, with_test: bool = True
) -> PooledPredictions:
    """Join the predictions of all finished runs of one policy; those of test rows only where they are needed.

    Where several rows make up one prediction (competition.predict_by), they are pooled after the mean over seeds,
    and what is here as rows are observations.

    Raises
    ------
    Damaged
        Where predictions are not what a run wrote, or of other rows than its fold.
    KitError
        Where folds hold out an observation in parts.
    """
    made = pooled_frames([held_out_predictions(run, plan) for run in runs], competition, plan)
    test = {}
    for fold in sorted({run.record.fold for run in runs} if with_test else ()):
        # One fold after the other: no more than the predictions of its seeds are read at a time.
        mean = average(_read_test(run, competition) for run in runs if run.record.fold == fold)
        if competition.test_observations is None:
            test[fold] = in_order(mean, competition.test_ids)
        else:
            test[fold] = _of_test(mean, made.oof[made.folds == fold].mean(), competition)
    return replace(made, test=test)


def pooled_frames(each: list[pd.DataFrame], competition: Competition, plan: FoldPlan) -> PooledPredictions:
    """Join predictions of held-out rows, a frame a run, as `pooled` does; without those of test rows."""
    place = {name: row for row, name in enumerate(competition.ids)}
    oof = average(each, competition.ids)
    rows = np.array([place[name] for name in oof.index], dtype=np.int64)
    groups = None if plan.groups is None else plan.groups[rows]
    if (observations := competition.observations) is not None:
        rows, groups = _first_rows(observations, rows, plan, groups)
        oof = observations.pooled(oof)
        for at, frame in enumerate(each):  # one after the other, so that no run's predictions are held twice
            each[at] = observations.pooled(frame).astype(np.float32)
    return PooledPredictions(oof, competition.targets[rows], plan.fold[rows], groups, each, {})


def held_out_predictions(run: Predicted, plan: FoldPlan) -> pd.DataFrame:
    """Return a run's predictions of the rows that its fold holds out; Damaged where they are of others."""
    frame = run.read_oof()
    _need_rows(frame, [plan.ids[row] for row in plan.validation_rows(run.record.fold)], run.oof)
    return frame


def _need_rows(frame: pd.DataFrame, ids: Sequence[str], path: Path) -> None:
    if len(frame) != len(ids) or (odd := frame.index.symmetric_difference(pd.Index(ids))).size:
        told = f"{len(frame)} rows, not {len(ids)}" if len(frame) != len(ids) else f"not both have {some(odd, 3)}"
        raise Damaged(f"{path} is of other rows than it should be ({told}); {TRAINED_ANEW}")


def _read_test(run: Predicted, competition: Competition) -> pd.DataFrame:
    """A run's test predictions; where rows are pooled, those of images that could be read."""
    frame = run.read_test()
    _need_rows(frame, competition.test_ids, run.test)
    return frame if competition.test_observations is None else frame.drop(index=run.record.unread or [])


def _first_rows(
    observations: Observations, rows: np.ndarray, plan: FoldPlan, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The first row of each observation with predicted rows, as they first appear, and its row group.

    Raises
    ------
    KitError
        Where one has rows in several folds, or not all of its rows are predicted.
    """
    codes, known = observations.codes[rows], np.bincount(observations.codes)
    found, first, counts = np.unique(codes, return_index=True, return_counts=True)
    of_first = plan.fold[rows[first]]
    spans = plan.fold[rows] != of_first[np.searchsorted(found, codes)]
    partly = np.union1d(found[counts < known[found]], codes[spans])
    if len(partly):
        names = np.array(observations.names, dtype=object)[partly]
        raise KitError(
            f"{KEY}: folds hold out {len(partly)} observations in parts ({some(names, 5)}), so they cannot be "
            "scored; train anew, with folds that keep them together: python -m kit run --replace"
        )
    if groups is not None:
        groups = join_groups(groups, codes)[np.sort(first)]
    return rows[np.sort(first)], groups


def _of_test(frame: pd.DataFrame, prior: pd.Series, competition: Competition) -> pd.DataFrame:
    """One fold's predictions of the test observations, of those without an image that can be read the prior."""
    assert competition.test_observations is not None, "only to be asked where test rows are pooled"
    made = competition.test_observations.pooled(frame).reindex(list(competition.submission.ids)).rename_axis("id")
    return made.fillna(prior[made.columns])


def decided(runs: Sequence[RunDir], competition: Competition, plan: FoldPlan, config: ScoringConfig) -> ScoredRuns:
    """Score the runs of one policy, or of a policy at rates of its own in each fold."""
    pool = pooled(runs, competition, plan, with_test=False)
    return _decided(runs, pool, pool.choose(config), config)


def _decided(
    runs: Sequence[RunDir], pool: PooledPredictions, choice: RuleChoice, config: ScoringConfig
) -> ScoredRuns:
    scores = [_score_of(*run, pool, choice, config) for run in zip(runs, pool.each, strict=True)]
    taken = pool.oof.to_numpy() if config.of_probabilities else None
    ids, whole = pool.oof.index, choice.cross_fitted
    return ScoredRuns(ids, pool.truth, choice.predicted, pool.groups, whole, scores, taken)


def submission_file(loaded: LoadedExperiment, policy: str, dirs: OutputDirs) -> Path:
    """Return the file of a policy's submission: <experiment>.csv for the policy that the experiment began with,
    <experiment>+<policy>.csv for others (no name holds a +)."""
    stored, name = stored_experiment(loaded.folder), loaded.config.name
    first = next(iter((stored or loaded.config).policies))
    return dirs.submissions / f"{name if policy == first else f'{name}+{policy}'}.csv"


def by_fold(predictions: Iterable[tuple[int, pd.DataFrame]]) -> dict[int, pd.DataFrame]:
    """Return the test predictions of each fold: the mean over its seeds."""
    frames: dict[int, list[pd.DataFrame]] = {}
    for fold, frame in predictions:
        frames.setdefault(fold, []).append(frame)
    return {fold: average(each) for fold, each in sorted(frames.items())}


def pool_policy(
    policy: str,
    runs: Sequence[RunDir],
    config: ScoringConfig,
    loaded: LoadedExperiment,
    submission: Path,
    write: bool,
) -> PolicyResult:
    """Average a policy's predictions by id over folds and seeds, choose the decision rule, score, and hand in.

    Parameters
    ----------
    policy : str
    runs : sequence of RunDir
        Its finished runs.
    config : ScoringConfig
        The metric and the rules to choose from.
    loaded : LoadedExperiment
    submission : Path
        The file to write.
    write : bool
        Whether files are written; several processes pool, one of them writes.

    Returns
    -------
    PolicyResult
    """
    competition, folder = loaded.competition, loaded.folder.policy(policy)
    pool = pooled(runs, competition, loaded.folds)
    choice = pool.choose(config)
    result = _decided(runs, pool, choice, config)
    table = per_class(pool.truth, choice.predicted, competition.classes, config.beta)
    names = [competition.names[name] for name in competition.classes]
    scores = PolicyScores(
        metric=config.title,
        oof=choice.cross_fitted,
        optimistic=choice.optimistic,
        rule={"said": choice.rule.sentence(list(competition.classes)), **choice.rule.to_json()},
        rules=[RuleScore(**each) for each in choice.candidates],
        scoring=_choosing(config, loaded.config.competition),
        classes=list(competition.classes),
        submission=competition.submission.kind,
        oof_rows=len(pool.oof),
        train_rows=held_out(loaded.folds, competition),
        runs=result.runs,
        per_class=table.assign(name=names).to_dict("records"),
    )
    mean = average(pool.test.values())
    if write:
        files = [folder / name for name in POOLED]
        with noting(loaded.folder.path, *files):
            write_predictions(pool.oof.astype(np.float32), files[0])
            write_predictions(mean.astype(np.float32), files[1])
            write_json(files[2], scores.model_dump(exclude_unset=True))
    hand_in(competition.submission, choice.rule, pool.test, config.transfer, submission, mean=mean, write=write)
    return PolicyResult(scores, table.assign(**{"class": names}), submission, result)


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


def held_out(plan: FoldPlan, competition: Competition) -> int:
    """Return how many rows, or observations, the fold plan holds out."""
    rows = plan.fold >= 0
    return len(np.unique(competition.observations.codes[rows])) if competition.observations else int(rows.sum())


def score_identity(config: ScoringConfig, competition: CompetitionConfig) -> dict[str, Any]:
    """Return what decides scores, as plain values: the metric, and how predictions of rows become one."""
    by = competition.predict_by
    return config.identity() | ({"predict_by": by.canonical()} if by else {})


def damaged_pooled(policy: str, folder: ExperimentDir) -> list[Path]:
    """Return those of a policy's pooled files that are there and not what was written."""
    return [path for name in POOLED if (path := folder.policy(policy) / name).is_file() and not _as_listed(path)]


def _as_listed(path: Path) -> bool:
    try:
        need_listed(path.parents[1], path, REMEDY)
    except Damaged:
        return False
    return True


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
    if "rule" not in content or content.get("scoring") != _choosing(config, competition):
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


def _choosing(config: ScoringConfig, competition: CompetitionConfig) -> dict[str, Any]:
    """What of the config decides which rule is chosen: all but how it meets the test rows."""
    return {name: value for name, value in score_identity(config, competition).items() if name != "transfer"}


def _score_of(
    run: RunDir, frame: pd.DataFrame, pool: PooledPredictions, choice: RuleChoice, config: ScoringConfig
) -> RunScore:
    """The score of a run on its held-out rows, each decided by a rule that was fitted without them, among the rows
    of all folds."""
    record = run.record
    rows = pool.oof.index.get_indexer(frame.index)
    probabilities, predicted = pool.oof.to_numpy(copy=True), choice.predicted.copy()
    probabilities[rows] = frame.to_numpy()
    mine = np.zeros(len(predicted), dtype=bool)
    mine[rows] = True
    for part in np.unique(choice.folds[rows]):
        those = mine & (choice.folds == part)
        predicted[those] = choice.by_fold[int(part)].decide_among(probabilities, those)
    return RunScore(
        seed=record.seed,
        fold=record.fold,
        fingerprint=record.fingerprint,
        predicted=record.predicted,
        score=score(pool.truth[rows], predicted[rows], config, probabilities[rows]),
    )
