"""An experiment with its folder, its data and its folds, opened in one place."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from kit.competition.folds import FoldPlan, check_folds, rare_classes
from kit.competition.labels import MultiLabel
from kit.competition.load import Competition, load_competition
from kit.competition.ties import ExtraPlan, need_plan
from kit.core.errors import Damaged, KitError, Say, ignore, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.config import ExperimentConfig
from kit.experiment.extra import extra_plan
from kit.experiment.fingerprint import as_now, difference, run_digest, shared_digests, test_digest
from kit.experiment.fold_plan import decide_folds, given_plan, plan_in_place


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment on disk: its config, its folder, and the tables of its competition.

    Attributes
    ----------
    config : ExperimentConfig
    folder : ExperimentDir
        Below runs/; it need not exist yet.
    competition : Competition
        Tables, labels and paths of images; no image has been read.
    folds : FoldPlan
        Which row is held out in which fold.
    depends_on : dict of str to str
        A digest of each thing that decides the results of all runs.
    differs : str or None
        How what is in the folder differs from config and data, where it may be thrown away; else None.
    extra : ExtraPlan or None
        Which extra rows train which fold; None where there are none.
    """

    config: ExperimentConfig
    folder: ExperimentDir
    competition: Competition
    folds: FoldPlan
    depends_on: dict[str, str]
    differs: str | None = None
    extra: ExtraPlan | None = None

    @classmethod
    def open(
        cls,
        config: ExperimentConfig,
        folder: ExperimentDir,
        dirs: OutputDirs,
        *,
        folds: Path | None = None,
        replace: bool = False,
        say: Say = ignore,
    ) -> "LoadedExperiment":
        """Read the competition's tables and decide the folds.

        Parameters
        ----------
        config : ExperimentConfig
        folder : ExperimentDir
            Where the experiment's runs are, or will be.
        dirs : OutputDirs
            Where what is known of images is kept.
        folds : Path, optional
            A fold plan to follow: a CSV with columns id and fold. Left out: that of the runs in the folder, or a
            new one.
        replace : bool
            Whether a folder made from another config or other data is no fault.
        say : callable
            Takes lines about what is odd in the data.

        Returns
        -------
        LoadedExperiment

        Raises
        ------
        KitError
            Where the tables cannot be used, where the config does not fit them, and where the folder was
            made from another config or other data (unless `replace`).
        """
        if config.code:
            say(f"Own code: {some(config.code)}")
        competition = load_competition(config.competition)
        config.scoring.check(competition.label_format.multilabel, len(competition.classes))
        _check_metric(config, competition, say)
        for line in competition.remarks:
            say(line)  # first, as they may explain what is refused
        _check_labels(config, competition)
        plan_of_file = given_plan(config, competition, folds) if folds else None
        given = plan_of_file or plan_in_place(config, folder, competition, dirs, say)
        shared = shared_digests(config, competition)
        differs = difference(config, folder, competition, shared, given)
        anew = differs is not None
        plan = decide_folds(config, folder, competition, dirs, given=given, anew=anew, say=say)
        for line in rare_classes(plan, config.folds.k, competition.classes, competition.targets):
            say(line)
        extra = _extra(config, competition, plan, dirs, say)
        loaded = cls(config, folder, competition, plan, shared | {"folds": plan.digest}, differs, extra)
        if not replace:
            loaded.need_same()
        return loaded

    def with_pixels(self, pixels: str, differs: str | None) -> "LoadedExperiment":
        """Return the same with what is known once images are decoded.

        Parameters
        ----------
        pixels : str
            The digest of how they are read; "" where that is as it always was, and runs are those of before.
        differs : str, optional
            How the runs in the folder saw others.
        """
        depends_on = self.depends_on | ({"pixels": pixels} if pixels else {})
        return replace(self, depends_on=depends_on, differs=self.differs or differs)

    def need_same(self) -> None:
        """Raise KitError where the folder holds what was made from another config or other data."""
        if self.differs:
            command = "" if self.config.features else "python -m kit run "  # of heads there are two commands
            raise KitError(
                f"{self.folder.path} was made from {self.differs}; give the experiment another name (--set "
                f"name=...), or start it anew with {command}--replace"
            )

    def training_rows(self, fold: int) -> np.ndarray:
        """Return the rows that a model of this fold trains on, int64, ascending.

        Those of the fold plan but for rows of weight 0, and, counted on from the last training row, extra rows.
        """
        rows, weights = self.folds.training_rows(fold), self.competition.weights
        if weights is not None:
            rows = rows[weights[rows] > 0]
        if self.extra is None:
            return rows
        return np.concatenate([rows, len(self.competition.ids) + self.extra.training_rows(self.folds, fold)])

    @cached_property
    def test_digest(self) -> str:
        """The digest of what test predictions are of, as it was when first asked for: every run asks."""
        return test_digest(self.competition)

    def dependencies(self, key: RunKey) -> dict[str, str]:
        """Return a digest of each thing that decides the result of one run."""
        policy = run_digest(self.config, key.policy)
        now = self.depends_on | {"policy": policy, "seed": str(key.seed), "fold": str(key.fold)}
        return self._begun_as(key, now)

    def _begun_as(self, key: RunKey, now: dict[str, str]) -> dict[str, str]:
        """What a run that is the same one was begun under, by an earlier version; else `now`."""
        run = self.folder.run(key)
        if run.begun:
            with suppress(Damaged):  # it is told where the run is begun
                then = run.record.depends_on
                return then if as_now(then, self.config) == now else now
        return now


def _extra(
    config: ExperimentConfig, competition: Competition, plan: FoldPlan, dirs: OutputDirs, say: Say
) -> ExtraPlan | None:
    """Which extra rows train which fold, told; KitError where they name folds of another plan."""
    if extra := extra_plan(config, competition, dirs, say):
        need_plan(extra.extra, plan)
        for line in extra.told(plan, config.folds.chosen):
            say(line)
    return extra


def _check_metric(config: ExperimentConfig, competition: Competition, say: Say) -> None:
    """Try a metric of the user's own; KitError where it is none."""
    scoring = config.scoring
    if scoring.metric is None:
        return
    scoring.metric.check(competition.targets, len(competition.classes))
    if scoring.of_probabilities and competition.submission.kind != "probabilities":
        say(
            f"scoring.metric: {scoring.title} takes probabilities, but labels are handed in; is "
            "competition.submission: probabilities meant?"
        )


def _check_labels(config: ExperimentConfig, competition: Competition) -> None:
    """Raises KitError where folds or the fewest labels of a row do not fit the labels."""
    label_format = competition.label_format
    check_folds(config.folds, competition.classes, competition.targets)
    learned = int(competition.targets.any(axis=0).sum()) if label_format.multilabel else 0
    if (
        (without := competition.without_rows)
        and (config.scoring.average, config.scoring.zero_division) == ("lowest", 0)
        and label_format.multilabel
    ):
        raise KitError(
            f"scoring.average: lowest is 0 whatever is predicted, as no training row has {some(without, 5)}; "
            "leave these classes out, set scoring.zero_division=1, or take another average"
        )
    if (config.scoring.at_least or 0) > learned and label_format.multilabel:
        raise KitError(f"scoring.at_least: only {learned} classes have a training row; lower it")
    if isinstance(label_format, MultiLabel) and not label_format.may_be_empty and config.scoring.at_least == 0:
        raise KitError(
            "scoring.at_least = 0: every training row has a label, so a submission with rows that have none is "
            "taken for invalid; leave it out, or set 1"
        )
