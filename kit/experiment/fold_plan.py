"""Which row is held out in which fold: the plan that is given, that of the runs that are there, or a new one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kit.competition.duplicates import duplicate_groups, duplicates_advice
from kit.competition.folds import EARLIEST, FoldPlan, make_folds, read_folds
from kit.competition.load import Competition
from kit.core.errors import KitError, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.data.hashes import hash_images
from kit.experiment.config import ExperimentConfig


def new_plan(
    experiment: ExperimentConfig,
    competition: Competition,
    dirs: OutputDirs,
    say: Callable[[str], None] = lambda line: None,
) -> FoldPlan:
    """The plan that the config asks for; images are looked at where it keeps together those that are alike."""
    config, alike = experiment.folds, _alike(experiment, competition, dirs)
    if alike is not None and (warning := duplicates_advice(alike, config.k, config.duplicates)):
        say(warning)
    return make_folds(competition.ids, competition.targets, config, competition.train, alike)


def _alike(experiment: ExperimentConfig, competition: Competition, dirs: OutputDirs) -> np.ndarray | None:
    """Which training images are alike, where the config keeps such together: int64 [rows]."""
    setting = experiment.folds.duplicates
    if setting == "none":
        return None
    return duplicate_groups(hash_images(competition.train_images, dirs.cache), setting)


def read_plan(experiment: ExperimentConfig, folder: ExperimentDir, competition: Competition) -> FoldPlan:
    """The plan that the runs in the folder follow."""
    return read_folds(folder.folds, competition.ids, forward=experiment.folds.time is not None)


def _stated_plan(experiment: ExperimentConfig, competition: Competition, given: Path) -> FoldPlan:
    """The plan in the file `given`; KitError where it is not one of these rows and this many folds."""
    if not given.is_file():
        raise KitError(f"--folds {given}: is no file; give a CSV with columns id and fold")
    try:
        plan = read_folds(given, competition.ids, forward=experiment.folds.time is not None)
    except KitError as error:
        raise KitError(f"--folds: {error}; give a plan of the rows in {experiment.competition.train}") from error
    there, wanted = {*plan.fold.tolist()}, {*range(experiment.folds.k)}
    if plan.forward:
        there.discard(EARLIEST)
    if there != wanted:
        raise KitError(
            f"--folds: {given} has the folds {some(sorted(there))}, but folds.k is {experiment.folds.k}, so they "
            f"have to be 0 to {experiment.folds.k - 1}; set folds.k or renumber them"
        )
    return plan
