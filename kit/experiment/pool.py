"""A policy's runs pooled: out-of-fold scores, the decision rule, the labels of the test rows, the submission."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition
from kit.competition.submission import SubmissionFormat, write_submission
from kit.core.errors import Damaged, KitError, some
from kit.core.manifest import need_listed, noting
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, average, in_order, write_predictions
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.policy_scores import REMEDY, PolicyScores, RuleScore, RunScore, rule_identity
from kit.experiment.pooled_predictions import OwnPredictions, PooledPredictions, held_out, pooled, pooled_test
from kit.scoring.config import ScoringConfig, Transfer
from kit.scoring.decide import Rule, RuleChoice, decide_test
from kit.scoring.f1 import per_class, score

POOLED = ("oof.parquet", "test.parquet", "scores.json")  # of each policy


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
    pool = pooled(runs, competition, loaded.folds, with_test=False)
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
        scoring=rule_identity(config, loaded.config.competition),
        classes=list(competition.classes),
        submission=competition.submission.kind,
        oof_rows=len(pool.oof),
        train_rows=held_out(loaded.folds, competition),
        runs=result.runs,
        per_class=table.assign(name=names).to_dict("records"),
    )
    if competition.test_observations is None:
        pool = replace(pool, oof=pool.oof.astype(np.float32))  # as it is written; half of the memory
    test = pooled_test(runs, competition, pool)  # not before: to choose a rule takes memory, too
    mean = average(test.values())
    if write:
        files = [folder / name for name in POOLED]
        with noting(loaded.folder.path, *files):
            write_predictions(pool.oof, files[0])
            write_predictions(mean, files[1])
            scores.save(files[2])
    hand_in(competition.submission, choice.rule, test, config.transfer, submission, mean=mean, write=write)
    return PolicyResult(scores, table.assign(**{"class": names}), submission, result)


def damaged_pooled(policy: str, folder: ExperimentDir) -> list[Path]:
    """Return those of a policy's pooled files that are there and not what was written."""
    return [path for name in POOLED if (path := folder.policy(policy) / name).is_file() and not _as_listed(path)]


def _as_listed(path: Path) -> bool:
    try:
        need_listed(path.parents[1], path, REMEDY)
    except Damaged:
        return False
    return True


def _score_of(
    run: RunDir, own: OwnPredictions, pool: PooledPredictions, choice: RuleChoice, config: ScoringConfig
) -> RunScore:
    """The score of a run on its held-out rows, each decided by a rule that was fitted without them, among the rows
    of all folds."""
    record, rows, probabilities = run.record, own.rows, pool.oof.to_numpy()
    predicted = choice.predicted  # of these very probabilities, where they are the run's own
    if own.values is not None:
        probabilities, predicted = probabilities.copy(), predicted.copy()
        probabilities[rows] = own.values
        mine = np.zeros(len(predicted), dtype=bool)
        mine[rows] = True
        for part in np.unique(choice.folds[rows]):
            those = mine & (choice.folds == part)
            predicted[those] = choice.by_fold[int(part)].decide_among(probabilities, those)
    taken = probabilities[rows] if config.metric else None
    return RunScore(
        seed=record.seed,
        fold=record.fold,
        fingerprint=record.fingerprint,
        predicted=record.predicted,
        score=score(pool.truth[rows], predicted[rows], config, taken),
    )
