"""Everything that can be wrong is found here, before the first training starts."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
from kit.training.device import resolve_precision
from kit.training.loop import Recipe, batches_of
from kit.training.objective import class_weights
from kit.training.optimizer import build_optimizer
from kit.training.progress import Progress
from kit.training.rates import policy_groups
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

    @property
    def test_digest(self) -> str:
        """Of what the test predictions are of."""
        competition = self.competition
        return fingerprint([competition.test_ids, content_digest(competition.test_paths, competition.folder)])

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
    """Reads, checks and writes down what the runs need; the images come last, as decoding may take minutes.

    Raises KitError for whatever cannot work, and where `folder` holds an experiment made from another
    config or other data, unless `replace` says to throw that away.
    """
    competition = load_competition(experiment.competition)
    check_folds(experiment.folds, competition.classes, competition.targets)
    for line in rare_classes(experiment.folds, competition.classes, competition.targets):
        say(line)
    recipe = _check_training(experiment, competition)
    plan = make_folds(competition.ids, competition.targets, experiment.folds)
    reason = _made_from_something_else(experiment, folder, competition)
    if reason and not replace and any(run.finished or run.checkpoint.is_file() for run in folder.runs()):
        raise KitError(
            f"{folder.path} was made from {reason}; give the experiment another name (--set name=...), or start "
            "it anew with --replace"
        )
    if not reason and folder.runs():
        plan = read_folds(folder.folds, competition.ids)
    train = _images("train", competition.ids, competition.train_paths, experiment, places, say, shown)
    test = _images("test", competition.test_ids, competition.test_paths, experiment, places, say, shown)
    if reason:  # only now, when nothing can go wrong any more
        say(f"Replacing {folder.path}: it was made from {reason}")
        shutil.rmtree(folder.path)
    write_folds(plan, folder.folds)
    write_text(folder.config, _with_what_was_run_before(experiment, folder).to_yaml())
    return Prepared(experiment, competition, plan, train, test, recipe, _digests(experiment, competition, plan))


def _check_training(experiment: Experiment, competition: Competition) -> Recipe:
    """Builds what each run builds, once and on the CPU: model, weights, groups, optimizer, augmentation; and
    sends noise through the model."""
    data, training, seed = experiment.data, experiment.training, experiment.seeds[0]
    resolve_precision(training.precision, cpu=training.device == "cpu")
    model = build_model(experiment.model, len(competition.classes), data.channels, data.size, seed)
    usual = normalisation(experiment.model.name, data.channels)
    recipe = Recipe(
        data=data,
        training=training,
        prediction=experiment.prediction,
        scoring=experiment.scoring,
        normalisation=Normalisation(data.mean or usual.mean, data.std or usual.std),
    )
    smallest_fold = len(competition.ids) * (experiment.folds.k - 1) // experiment.folds.k
    plan = batches_of(training, smallest_fold, seed)
    for name, config in experiment.policies.items():
        groups, policy = depth_groups(model, config.groups), config.build()
        build_optimizer(training.optimizer, model, groups, torch.device("cpu"), policy.peak)
        try:
            policy.check(policy_groups(groups), plan.total_steps, plan.steps_per_epoch)
        except ValueError as error:
            raise KitError(f"policies.{name}.{error}") from error
    class_weights(training, competition.classes, competition.targets)
    Augmentation(data)
    _check_forward(
        model, (min(2, training.batch_size), data.channels, data.size, data.size), experiment.model.name
    )
    return recipe


def _check_forward(model: nn.Module, shape: tuple[int, ...], name: str) -> None:
    try:
        with torch.no_grad():
            model.train()(torch.zeros(shape))
    except Exception as error:  # whatever a network makes of images it is not made for
        reason = " ".join(str(error).split())[:200]
        raise KitError(
            f"model: {name} cannot train on batches of {' × '.join(map(str, shape))} ({reason}); change "
            "data.size, training.batch_size or the model"
        ) from error


def _images(
    part: str, ids: list[str], paths: list[Path], experiment: Experiment, places: Places, say: Say, shown: bool
) -> ImageSet:
    with Progress(f"Decoding {part} images", len(ids), unit="image", shown=shown) as progress:
        report = lambda done, total: progress.update(done)  # noqa: E731
        images = open_images(ids, paths, experiment.data, places.cache, report)
    if ids and not images.cache and experiment.data.cache:
        say(f"The {part} images do not fit the pixel cache (data.cache_gb, free disk): decoded anew each epoch")
    return images


def _digests(experiment: Experiment, competition: Competition, plan: FoldPlan) -> dict[str, str]:
    """Of what all runs share. The metric and the test set are not among it: they decide no training."""
    config = {
        name: section
        for name, section in experiment.canonical().items()
        if name not in ("name", "policies", "seeds", "scoring")
    }
    labels = competition.format.decode(competition.targets)
    weights = experiment.model.weights
    return {
        "config": fingerprint(config),
        "labels": fingerprint(sorted(zip(competition.ids, labels, strict=True))),
        "images": content_digest(competition.train_paths, competition.folder),
        "folds": plan.digest,
        "weights": weights if weights in ("none", "hub") else sha256(Path(weights).expanduser()),
    }


def _made_from_something_else(
    experiment: Experiment, folder: ExperimentDir, competition: Competition
) -> str | None:
    """What differs between this experiment and the one in the folder; None where they are the same."""
    if changed := _changed_keys(experiment, folder):
        return f"another config ({some(changed, 5)})"
    records = [(run, run.read()) for run in folder.runs()]
    if not records:
        return None
    try:
        plan = read_folds(folder.folds, competition.ids)
    except KitError as error:
        return f"other training rows ({error})"
    now = _digests(experiment, competition, plan)
    for run, record in records:
        then = record.get("depends_on", {})
        if changed := [name for name in now if then.get(name) != now[name]]:
            return f"other {' and '.join(changed)} ({run.path.relative_to(folder.path)})"
    return None


def _changed_keys(experiment: Experiment, folder: ExperimentDir) -> list[str]:
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


def _with_what_was_run_before(experiment: Experiment, folder: ExperimentDir) -> Experiment:
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
