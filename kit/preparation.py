"""Everything that can be wrong is found here, before the first training starts."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kit.competition.folds import FoldPlan, check_folds, make_folds, rare_classes, read_folds, write_folds
from kit.competition.load import Competition, load_competition
from kit.competition.locate import Places
from kit.config import Experiment, validate
from kit.data.augment import Augmentation
from kit.data.images import ImageSet, content_digest, open_images
from kit.errors import KitError, some
from kit.files import sha256, write_text
from kit.model.build import Normalisation, build_model, normalisation
from kit.model.groups import depth_groups
from kit.runs import ExperimentDir, RunKey
from kit.settings import fingerprint
from kit.training.loop import Recipe, plan_batches
from kit.training.objective import class_weights
from kit.training.optimizer import build_optimizer
from kit.training.progress import Progress
from kit.yamlfile import read_yaml

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What the runs of an experiment share: the data, the fold plan, the recipe."""

    experiment: Experiment
    competition: Competition
    plan: FoldPlan
    train: ImageSet
    test: ImageSet
    recipe: Recipe
    depends_on: dict[str, str]

    def dependencies(self, key: RunKey) -> dict[str, str]:
        """A digest of each thing that decides a run's result."""
        policy = self.experiment.policies[key.policy].canonical()
        return self.depends_on | {"policy": fingerprint(policy), "seed": str(key.seed), "fold": str(key.fold)}


def run_keys(experiment: Experiment) -> list[RunKey]:
    """All runs of an experiment, in the order in which they are trained."""
    return [
        RunKey(policy, seed, fold)
        for policy in experiment.policies
        for seed in experiment.seeds
        for fold in experiment.folds.chosen
    ]


def prepare(
    experiment: Experiment,
    folder: ExperimentDir,
    places: Places,
    replace: bool = False,
    say: Say = lambda line: None,
    shown: bool = True,
) -> Prepared:
    """Reads, checks and writes down what the runs need; the images are decoded last, as it may take minutes.

    Raises KitError for whatever cannot work, and where `folder` holds an experiment made from another
    config or other data, unless `replace` says to throw that away.
    """
    competition = load_competition(experiment.competition)
    check_folds(experiment.folds, competition.classes, competition.targets)
    for line in rare_classes(experiment.folds, competition.classes, competition.targets):
        say(line)
    recipe = _recipe(experiment)
    _check_training(experiment, recipe, competition)
    if changed := _changed_keys(experiment, folder):
        _replace(folder, f"another config ({some(changed, 5)})", replace, say)
    if folder.folds.is_file() and replace and not _same_rows(folder, competition):
        _replace(folder, "other training rows", replace, say)
    plan = (
        read_folds(folder.folds, competition.ids)
        if folder.folds.is_file()
        else make_folds(competition.ids, competition.targets, experiment.folds)
    )
    train = _images("train", competition.ids, competition.train_paths, experiment, places, shown)
    test = _images("test", competition.test_ids, competition.test_paths, experiment, places, shown)
    depends_on = _digests(experiment, competition, plan)
    prepared = Prepared(experiment, competition, plan, train, test, recipe, depends_on)
    if outdated := _outdated(prepared, folder):
        _replace(folder, f"something else ({outdated})", replace, say)
    if not folder.folds.is_file():
        write_folds(plan, folder.folds)
    write_text(folder.config, _with_earlier_policies(experiment, folder).to_yaml())
    return prepared


def _recipe(experiment: Experiment) -> Recipe:
    data = experiment.data
    usual = normalisation(experiment.model.name, data.channels)
    return Recipe(
        data=data,
        training=experiment.training,
        prediction=experiment.prediction,
        scoring=experiment.scoring,
        normalisation=Normalisation(data.mean or usual.mean, data.std or usual.std),
    )


def _check_training(experiment: Experiment, recipe: Recipe, competition: Competition) -> None:
    """Builds what each run builds, once and on the CPU: model, weights, groups, optimizer, augmentation."""
    data, seed = experiment.data, experiment.seeds[0]
    model = build_model(experiment.model, len(competition.classes), data.channels, data.size, seed)
    for policy in experiment.policies.values():
        groups = depth_groups(model, policy.groups)
        build_optimizer(experiment.training.optimizer, model, groups, torch.device("cpu"))
    class_weights(experiment.training, competition.classes, competition.targets)
    Augmentation(data)
    smallest_fold = len(competition.ids) * (experiment.folds.k - 1) // experiment.folds.k
    plan_batches(recipe, smallest_fold, seed)


def _images(
    part: str, ids: list[str], paths: list[Path], experiment: Experiment, places: Places, shown: bool
) -> ImageSet:
    with Progress(f"Decoding {part} images", len(ids), unit="image", shown=shown) as progress:
        return open_images(ids, paths, experiment.data, places.cache, lambda done, total: progress.update(done))


def _digests(experiment: Experiment, competition: Competition, plan: FoldPlan) -> dict[str, str]:
    config = {
        name: section
        for name, section in experiment.canonical().items()
        if name not in ("name", "policies", "seeds")
    }
    labels = competition.format.decode(competition.targets)
    weights = experiment.model.weights
    return {
        "config": fingerprint(config),
        "labels": fingerprint(sorted(zip(competition.ids, labels, strict=True))),
        "images": content_digest(competition.train_paths + competition.test_paths, competition.folder),
        "folds": plan.digest,
        "weights": weights if weights in ("none", "hub") else sha256(Path(weights)),
    }


def _replace(folder: ExperimentDir, reason: str, replace: bool, say: Say) -> None:
    if not replace:
        raise KitError(
            f"{folder.path} was made from {reason}; give the experiment another name (--set name=...), or start "
            "it anew with --replace"
        )
    if folder.path.is_dir():
        say(f"Replacing {folder.path}: it was made from {reason}")
        shutil.rmtree(folder.path)


def _changed_keys(experiment: Experiment, folder: ExperimentDir) -> list[str]:
    """Keys in which the config differs from the one that made the folder; more policies, seeds or folds
    to train are no difference."""
    if (stored := stored_experiment(folder)) is None:
        return []
    now, then = experiment.canonical(), stored.canonical()
    for side in (now, then):
        side.pop("seeds")
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


def _same_rows(folder: ExperimentDir, competition: Competition) -> bool:
    try:
        read_folds(folder.folds, competition.ids)
    except KitError:
        return False
    return True


def _outdated(prepared: Prepared, folder: ExperimentDir) -> str | None:
    """What the first run that was made from something else depends on, now changed."""
    for key in run_keys(prepared.experiment):
        then = folder.run(key).read().get("depends_on")
        now = prepared.dependencies(key)
        if then and then != now:
            return ", ".join(name for name in now if then.get(name) != now[name]) + f" of {key}"
    return None


def _with_earlier_policies(experiment: Experiment, folder: ExperimentDir) -> Experiment:
    """The config to store: with the policies, seeds and folds that were trained under it before."""
    if (stored := stored_experiment(folder)) is None:
        return experiment
    return experiment.model_copy(
        update={
            "policies": stored.policies | experiment.policies,
            "seeds": tuple(dict.fromkeys(stored.seeds + experiment.seeds)),
        }
    )
