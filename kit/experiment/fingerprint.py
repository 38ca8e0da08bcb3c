"""Whether a run, or an experiment's folder, is of this config and this data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.competition.duplicates import chained, duplicate_groups
from kit.competition.folds import EARLIEST, FoldPlan, check_plan, make_folds, read_folds, row_groups
from kit.competition.load import Competition
from kit.core.errors import KitError, some
from kit.core.files import sha256
from kit.core.paths import Places, weight_file
from kit.core.runs import ExperimentDir
from kit.core.settings import fingerprint
from kit.core.yaml import read_yaml
from kit.data.hashes import look_at
from kit.data.images import content_digest
from kit.experiment.config import Experiment, validate


def config_digest(experiment: Experiment) -> str:
    """Of what the config says about every run."""
    apart = ("name", "policies", "seeds", "scoring")
    return fingerprint({name: value for name, value in experiment.canonical().items() if name not in apart})


def digests(experiment: Experiment, competition: Competition, plan: FoldPlan) -> dict[str, str]:
    """Of what all runs share. The metric and the test set are not among it: they decide no training.

    A weight file that is not here is left out, so that it is not compared: runs may come from where it is.
    """
    shared = {
        "config": config_digest(experiment),
        "labels": labels_digest(competition),
        "images": content_digest(competition.train_images, competition.folder),
        "folds": plan.digest,
    }
    weights = experiment.model.weights
    if weights in ("none", "hub"):
        shared["weights"] = weights
    elif (file := weight_file(weights)).is_file():
        shared["weights"] = sha256(file)
    return shared


def labels_digest(competition: Competition) -> str:
    """Of which row has which labels."""
    targets, classes = competition.targets, competition.classes
    if competition.format.multilabel:
        labels = [[classes[index] for index in np.flatnonzero(row)] for row in targets]
    else:
        labels = competition.format.decode(targets)
    return fingerprint(sorted(zip(competition.ids, labels, strict=True)))


def test_digest(competition: Competition) -> str:
    """Of what the test predictions are of."""
    return fingerprint([competition.test_ids, content_digest(competition.test_images, competition.folder)])


def fold_plan(
    experiment: Experiment,
    folder: ExperimentDir,
    competition: Competition,
    places: Places,
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
        plan = new_plan(experiment, competition, places, say)
    if plan.groups is None:  # a plan that does not tell them
        groups = row_groups(
            experiment.folds, competition.train, _alike(experiment, competition, places), len(plan.ids)
        )
        plan = replace(plan, groups=groups)
    check_plan(plan, experiment.folds, competition.train)
    return plan, reason


def new_plan(
    experiment: Experiment,
    competition: Competition,
    places: Places,
    say: Callable[[str], None] = lambda line: None,
) -> FoldPlan:
    """The plan that the config asks for; images are looked at where it keeps together those that are alike."""
    config, alike = experiment.folds, _alike(experiment, competition, places)
    if alike is not None and (warning := chained(alike, config.k, config.duplicates)):
        say(warning)
    return make_folds(competition.ids, competition.targets, config, competition.train, alike)


def _alike(experiment: Experiment, competition: Competition, places: Places) -> np.ndarray | None:
    """Which training images are alike, where the config keeps such together: int64 [rows]."""
    setting = experiment.folds.duplicates
    if setting == "none":
        return None
    return duplicate_groups(look_at(competition.train_images, places.cache), setting)


def read_plan(experiment: Experiment, folder: ExperimentDir, competition: Competition) -> FoldPlan:
    """The plan that the runs in the folder follow."""
    return read_folds(folder.folds, competition.ids, forward=experiment.folds.time is not None)


def _stated_plan(experiment: Experiment, competition: Competition, given: Path) -> FoldPlan:
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


def _made_from_something_else(
    experiment: Experiment, folder: ExperimentDir, competition: Competition, stated: FoldPlan | None
) -> str | None:
    if changed := changed_keys(experiment, folder):
        return f"another config ({some(changed, 5)})"
    records = [(run, run.read()) for run in folder.runs()]
    if not records:
        return None
    try:
        plan = stated or read_plan(experiment, folder, competition)
    except KitError as error:
        return f"other training rows ({error})"
    now = digests(experiment, competition, plan)
    for run, record in records:
        then = record.get("depends_on", {})
        if changed := [name for name in now if then.get(name) != now[name]]:
            return f"other {' and '.join(changed)} ({run.path.relative_to(folder.path)})"
    return None


def changed_keys(experiment: Experiment, folder: ExperimentDir) -> list[str]:
    """Keys in which the config differs from the one that made the folder; more policies, seeds or folds
    to train are no difference."""
    if (stored := stored_experiment(folder)) is None:
        return []
    now, then = experiment.canonical(), stored.canonical()
    for side in (now, then):
        side.pop("seeds")
        side.pop("scoring")
    shared = set(now["policies"]) & set(then["policies"])
    for side in (now, then):
        side["policies"] = {name: policy for name, policy in side["policies"].items() if name in shared}
    return list(_differences(then, now, ""))


def _differences(then: Any, now: Any, path: str):
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            yield from _differences(then.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif then != now:
        yield f"{path}: {then!r} there, {now!r} here"


def stored_experiment(folder: ExperimentDir) -> Experiment | None:
    """What made the folder: the config with all policies and seeds it was run with; None for a new one."""
    if not folder.config.is_file():
        return None
    return validate(read_yaml(folder.config), str(folder.config))


def with_what_was_run_before(experiment: Experiment, folder: ExperimentDir) -> Experiment:
    """The config to store: with the policies, seeds and folds that were trained under it before."""
    if (stored := stored_experiment(folder)) is None:
        return experiment
    folds = tuple(sorted({*stored.folds.chosen, *experiment.folds.chosen}))
    return experiment.model_copy(
        update={
            "policies": stored.policies | experiment.policies,
            "seeds": tuple(dict.fromkeys(stored.seeds + experiment.seeds)),
            "folds": experiment.folds.model_copy(
                update={"run": "all" if len(folds) == experiment.folds.k else folds}
            ),
        }
    )
