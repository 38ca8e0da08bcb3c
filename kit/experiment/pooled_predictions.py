"""Predictions of several runs joined by id: of the rows that were held out, and of the test rows."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from kit.competition.folds import FoldPlan, join_groups
from kit.competition.load import Competition
from kit.competition.observations import KEY, Observations
from kit.core.errors import Damaged, KitError, some
from kit.core.runs import TRAINED_ANEW, RunRecord, average, in_order, rows_in
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import RuleChoice, choose_rule


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
class OwnPredictions:
    """What one run predicted of the pooled rows.

    Attributes
    ----------
    rows : ndarray
        int64 [rows], which of the pooled rows it predicted.
    values : ndarray or None
        float [rows, classes]; None: those of the pooled rows, as no other run predicted them.
    """

    rows: np.ndarray
    values: np.ndarray | None


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
    each : list of OwnPredictions
        The predictions of each run, of which `oof` is the mean.
    test : dict of int to DataFrame
        By fold, the predictions of the test rows by its models, indexed by id.
    """

    oof: pd.DataFrame
    truth: np.ndarray
    folds: np.ndarray
    groups: np.ndarray | None
    each: list[OwnPredictions]
    test: dict[int, pd.DataFrame]

    def choose(self, config: ScoringConfig) -> RuleChoice:
        """Choose the decision rule with the best cross-fitted score on these predictions."""
        return choose_rule(self.oof.to_numpy(), self.truth, self.folds, config, self.groups)


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
    folds = {run.record.fold for run in runs}
    once = folds if len(folds) == len(runs) else None
    made = pooled_frames((held_out_predictions(run, plan) for run in runs), competition, plan, once)
    return replace(made, test=pooled_test(runs, competition, made)) if with_test else made


def pooled_test(
    runs: Sequence[Predicted], competition: Competition, made: PooledPredictions
) -> dict[int, pd.DataFrame]:
    """Return by fold what its models predicted of the test rows, the mean over seeds; see `pooled`."""
    test = {}
    for fold in sorted({run.record.fold for run in runs}):
        # One fold after the other: no more than the predictions of its seeds are read at a time.
        mean = average(_read_test(run, competition) for run in runs if run.record.fold == fold)
        if competition.test_observations is None:
            test[fold] = in_order(mean, competition.test_ids)
        else:
            test[fold] = _of_test(mean, made.oof[made.folds == fold].mean(), competition)
    return test


def pooled_frames(
    each: Iterable[pd.DataFrame], competition: Competition, plan: FoldPlan, once: Collection[int] | None = None
) -> PooledPredictions:
    """Join predictions of held-out rows, a frame a run, as `pooled` does; without those of test rows.

    `once`: the folds, where there is one run of each. Then no frame is kept: they predicted what is pooled.
    """
    observations = competition.observations
    frames: list[pd.DataFrame] = []
    if once is None or observations is not None:
        frames = each if isinstance(each, list) else list(each)
        there = set(chain.from_iterable(frame.index for frame in frames))
        rows = np.flatnonzero([name in there for name in competition.ids])
    else:
        rows = np.flatnonzero(np.isin(plan.fold, list(once)))
    indexes: list[pd.Index] = []

    def noted() -> Iterator[pd.DataFrame]:
        for frame in frames or each:
            indexes.append(frame.index)
            yield frame

    whole = len(rows) == len(competition.ids)
    oof = average(noted(), competition.ids if whole else [competition.ids[row] for row in rows.tolist()])
    assert len(oof) == len(rows), "a fold's run predicts the rows that it holds out"
    groups = None if plan.groups is None else plan.groups[rows]
    if observations is not None:
        rows, groups = _first_rows(observations, rows, plan, groups)
        oof = observations.pooled(oof)
        for at, frame in enumerate(frames):  # one after the other, so that no run's predictions are held twice
            frames[at] = observations.pooled(frame).astype(np.float32)
            indexes[at] = frames[at].index
    elif sum(map(len, indexes)) == len(oof):
        frames = []
    place = {name: row for row, name in enumerate(oof.index.tolist())}
    own = [
        OwnPredictions(rows_in(index, place), frames[at][oof.columns].to_numpy() if frames else None)
        for at, index in enumerate(indexes)
    ]
    return PooledPredictions(oof, _of_rows(competition.targets, rows), plan.fold[rows], groups, own, {})


def _of_rows(targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the targets of these rows, without a copy where they are all in order."""
    return targets if len(rows) == len(targets) and (np.diff(rows) == 1).all() else targets[rows]


def held_out_predictions(run: Predicted, plan: FoldPlan) -> pd.DataFrame:
    """Return a run's predictions of the rows that its fold holds out; Damaged where they are of others."""
    frame = run.read_oof()
    _need_rows(frame, [plan.ids[row] for row in plan.validation_rows(run.record.fold).tolist()], run.oof)
    return frame


def _need_rows(frame: pd.DataFrame, ids: list[str], path: Path) -> None:
    if frame.index.tolist() == ids:  # as runs write them
        return
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


def by_fold(predictions: Iterable[tuple[int, pd.DataFrame]]) -> dict[int, pd.DataFrame]:
    """Return the test predictions of each fold: the mean over its seeds."""
    frames: dict[int, list[pd.DataFrame]] = {}
    for fold, frame in predictions:
        frames.setdefault(fold, []).append(frame)
    return {fold: average(each) for fold, each in sorted(frames.items())}


def held_out(plan: FoldPlan, competition: Competition) -> int:
    """Return how many rows, or observations, the fold plan holds out."""
    rows = plan.fold >= 0
    return len(np.unique(competition.observations.codes[rows])) if competition.observations else int(rows.sum())
