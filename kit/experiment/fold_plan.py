"""Which row is held out in which fold: the plan that is given, that of the runs that are there, or a new one."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kit.competition.duplicates import duplicate_groups, duplicates_advice
from kit.competition.folds import EARLIEST, FoldPlan, check_plan, join_groups, make_folds, read_folds, row_groups
from kit.competition.load import Competition
from kit.core.errors import Damaged, KitError, Say, ignore, some
from kit.core.manifest import need_listed
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.data.hashes import hash_images
from kit.data.levels import with_levels
from kit.data.reading import Reading
from kit.experiment.config import ExperimentConfig
from kit.experiment.shared_folder import others_at_work

REMEDY = "python -m kit run with --folds and a copy of it, like folds.csv in a kernel's output, writes it anew"


def decide_folds(
    config: ExperimentConfig,
    folder: ExperimentDir,
    competition: Competition,
    dirs: OutputDirs,
    *,
    given: FoldPlan | None = None,
    anew: bool = False,
    say: Say = ignore,
) -> FoldPlan:
    """Return the plan that an experiment follows: the one given, else that of its runs, else a new one.

    Where another process has set up the folder and is about to train there, its plan is that of runs to come.

    Parameters
    ----------
    config : ExperimentConfig
    folder : ExperimentDir
        Whose runs are followed, where it has some.
    competition : Competition
    dirs : OutputDirs
        Where what is known of images is kept.
    given : FoldPlan, optional
        A plan that was made elsewhere (see `given_plan`).
    anew : bool
        Whether the runs in the folder are of another config or other data, and so do not count.
    say : callable
        Takes a line where images that are alike join into one large row group.

    Returns
    -------
    FoldPlan
        With its row groups, where the config has some.

    Raises
    ------
    KitError
        Where a row group spans folds.
    """
    if given:
        plan = given
    elif not anew and (folder.runs() or (folder.folds.is_file() and others_at_work(folder))):
        plan = read_plan(config, folder, competition)
    else:
        plan = new_plan(config, competition, dirs, say)
    observations = competition.observations
    if plan.groups is None:  # a plan that does not tell them
        alike = _alike_images(config, competition, dirs)
        plan = replace(plan, groups=row_groups(config.folds, competition.train, _joined(alike, competition)))
    elif observations:  # it may be older than competition.predict_by
        plan = replace(plan, groups=join_groups(plan.groups, observations.codes))
    check_plan(plan, config.folds, competition.train, observations.of if observations else None)
    return plan


def new_plan(config: ExperimentConfig, competition: Competition, dirs: OutputDirs, say: Say = ignore) -> FoldPlan:
    """Return the plan that the config asks for; images are read where it keeps together those that are alike."""
    alike, setting = _alike_images(config, competition, dirs), config.folds.duplicates
    if alike is not None and setting != "none" and (warning := duplicates_advice(alike, config.folds.k, setting)):
        say(warning)
    joined = _joined(alike, competition)
    return make_folds(competition.ids, competition.targets, config.folds, competition.train, joined)


def _joined(alike: np.ndarray | None, competition: Competition) -> np.ndarray | None:
    """Which rows belong together, whatever folds.group says: int64 [rows]."""
    observed = competition.observations.codes if competition.observations else None
    parts = [part for part in (alike, observed) if part is not None]
    return join_groups(*parts) if parts else None


def _alike_images(config: ExperimentConfig, competition: Competition, dirs: OutputDirs) -> np.ndarray | None:
    """Which training images are alike, where the config keeps such together: int64 [rows]."""
    setting = config.folds.duplicates
    if setting == "none":
        return None
    images = competition.train_images
    reading = Reading.of(with_levels(config.data, images, dirs.cache))
    return duplicate_groups(hash_images(images, dirs.cache, reading=reading), setting)


def read_plan(config: ExperimentConfig, folder: ExperimentDir, competition: Competition) -> FoldPlan:
    """Return the plan that the runs in the folder follow.

    Raises
    ------
    Damaged
        Where the file is not what was written.
    KitError
        Where it is of other rows.
    """
    need_listed(folder.path, folder.folds, REMEDY)
    return read_folds(folder.folds, competition.ids, forward=config.folds.time is not None)


def plan_in_place(
    config: ExperimentConfig, folder: ExperimentDir, competition: Competition, dirs: OutputDirs, say: Say
) -> FoldPlan | None:
    """Return the plan of the runs in the folder, made anew, where its file is damaged; None where it is not.

    Raises
    ------
    Damaged
        Where it is damaged, and the one that the config makes is not that of all runs.
    """
    try:
        need_listed(folder.path, folder.folds, REMEDY)
        return None
    except Damaged:
        if not (runs := folder.runs()):
            return None  # it is written anew
        plan = new_plan(config, competition, dirs)
        if any(run.record.depends_on.get("folds") != plan.digest for run in runs):
            raise
    say(f"{folder.folds} is damaged; the folds were made anew, and are those of the runs")
    return plan


def given_plan(config: ExperimentConfig, competition: Competition, given: Path) -> FoldPlan:
    """Return the plan in the file `given`; KitError where it is not one of these rows and this many folds."""
    if not given.is_file():
        raise KitError(f"--folds {given}: is no file; give a CSV with columns id and fold")
    try:
        plan = read_folds(given, competition.ids, forward=config.folds.time is not None)
    except KitError as error:
        rows = some(config.competition.files("train")) or "the image files"
        raise type(error)(f"--folds: {error}; give a plan of the rows in {rows}") from error
    there, wanted = {*plan.fold.tolist()}, {*range(config.folds.k)}
    if there - {EARLIEST} != wanted:
        raise KitError(
            f"--folds: {given} has the folds {some(sorted(there))}, but folds.k is {config.folds.k}, so they "
            f"have to be 0 to {config.folds.k - 1}; set folds.k or renumber them"
        )
    return plan
