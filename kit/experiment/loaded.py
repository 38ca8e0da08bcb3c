"""An experiment with its folder, its data and its folds, opened in one place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kit.competition.folds import FoldPlan, check_plan, row_groups
from kit.competition.load import Competition
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import _made_from_something_else
from kit.experiment.fold_plan import _alike, _stated_plan, new_plan, read_plan


def fold_plan(
    experiment: ExperimentConfig,
    folder: ExperimentDir,
    competition: Competition,
    dirs: OutputDirs,
    given: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[FoldPlan, str | None]:
    """The plan in the file `given`, else that of the runs in the folder, else a new one; and what differs
    between this experiment and the one in the folder, None where they are the same.

    Raises KitError for a plan in which a group spans folds.
    """
    stated = _stated_plan(experiment, competition, given) if given else None
    reason = _made_from_something_else(experiment, folder, competition, stated)
    if stated:
        plan = stated
    elif not reason and folder.runs():
        plan = read_plan(experiment, folder, competition)
    else:
        plan = new_plan(experiment, competition, dirs, say)
    if plan.groups is None:  # a plan that does not tell them
        groups = row_groups(
            experiment.folds, competition.train, _alike(experiment, competition, dirs), len(plan.ids)
        )
        plan = replace(plan, groups=groups)
    check_plan(plan, experiment.folds, competition.train)
    return plan, reason
