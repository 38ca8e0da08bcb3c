"""What trainings cannot do is found here: all that each run builds is built once, and tried on noise."""

import torch
from torch import nn

from kit.competition.labels import spelling_of
from kit.core.errors import KitError, Say, some
from kit.data.augment import Augmentation
from kit.data.decode import try_decoder
from kit.data.device.augment import augments_on_device
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.policies import policy_on
from kit.experiment.views import asked_views
from kit.lr.policy import Policy
from kit.model.build import Normalisation, build_model, normalisation
from kit.model.groups import DepthGroup, has_order
from kit.model.own import check_output
from kit.model.sizes import need_sides
from kit.model.trial import forward_on_trial
from kit.training.averaging import averages
from kit.training.batches import batches_of
from kit.training.class_weights import class_weights
from kit.training.compiled import need_compilable
from kit.training.config import TrainingConfig
from kit.training.device import process_state, resolve_precision
from kit.training.fold_data import Recipe
from kit.training.loss import check_loss
from kit.training.micro_batch import has_batch_norms
from kit.training.norm_sync import need_usual_norms
from kit.training.optimizer import build_optimizer
from kit.training.signals import SignalMeter


def check_training(loaded: LoadedExperiment, say: Say) -> Recipe:
    """Build what each run builds, once and on the CPU: model, weights, groups, optimizer, augmentation; send noise
    through the model; return how runs are trained.

    Raises
    ------
    KitError
        For whatever cannot work.
    """
    experiment, competition = loaded.config, loaded.competition
    data, seed = experiment.data, experiment.seeds[0]
    training = _weighing_classes(experiment.training, competition.classes)
    resolve_precision(training.precision, cpu=training.device == "cpu")
    model = build_model(experiment.model, len(competition.classes), data.channels, data.size, seed)
    usual = normalisation(experiment.model.name, data.channels, model)
    recipe = recipe_of(loaded, Normalisation(data.mean or usual.mean, data.std or usual.std))
    fewest = min(len(loaded.training_rows(fold)) for fold in experiment.folds.chosen)
    batches = batches_of(training, fewest, seed, process_state(training))
    if not has_order(model):
        say(f"{type(model).__name__} offers no depth order: all of it is one depth group, for uniform policies")
    for name in experiment.policies:
        policy, groups = policy_on(model, experiment, name, batches)
        if lacking := set(experiment.policies[name].kinds or ()) - {group.kind for group in groups}:
            say(f"policies.{name}.kinds: {some(sorted(lacking))} is of no parameter of {experiment.model.name}")
        optimizer = build_optimizer(training.optimizer, model, groups, torch.device("cpu"), policy.peak)
        if averages(optimizer):
            _check_averaging(training, policy, name)
        _check_signals(policy, model, groups, name)
    weights = class_weights(training, competition.classes, competition.targets)
    multilabel = competition.label_format.multilabel
    shares = competition.extra is not None and competition.extra.has_shares
    check_loss(training, weights, len(competition.classes), multilabel, shares, competition.weighs)
    _check_norms(model, training, say)
    if training.compile:
        need_compilable(model, training, process_state(training).num_processes)
    Augmentation(data)
    augments_on_device(data, process_state(training).device)  # refuses what the device does not know
    try_decoder(data, competition.train_images[0])
    shape = (min(2, training.batch_size), data.channels, data.size, data.size)
    cannot = f"{experiment.model.name} cannot train on batches of {' × '.join(map(str, shape))}"
    with forward_on_trial(cannot, "data.size, training.batch_size or the model"), torch.no_grad():
        check_output(model.train(), len(competition.classes), torch.zeros(shape), experiment.model.name)
    sides = {view.side for view in asked_views(experiment)}
    need_sides(model, sides, data.size, data.channels, experiment.model.name)
    return recipe


def recipe_of(loaded: LoadedExperiment, normalisation: Normalisation) -> Recipe:
    """Return how the experiment's runs are trained, where pixels are normalised like that.

    Raises
    ------
    KitError
        Where `training.class_weights` states a class twice.
    """
    config = loaded.config
    return Recipe(
        data=config.data,
        training=_weighing_classes(config.training, loaded.competition.classes),
        prediction=config.prediction,
        scoring=config.scoring,
        normalisation=normalisation,
    )


def _weighing_classes(training: TrainingConfig, classes: tuple[str, ...]) -> TrainingConfig:
    """Return the section with the classes in `class_weights` spelt as they are; KitError for one stated twice."""
    if not isinstance(training.class_weights, dict):
        return training
    spelling, weights = spelling_of(classes), dict[str, float]()
    for label, weight in training.class_weights.items():
        place = spelling.place(label)
        name = label if place is None else classes[place]
        if name in weights:
            raise KitError(f"training.class_weights: {label!r} is class {name!r}, which stands there already")
        weights[name] = weight
    return training.model_copy(update={"class_weights": weights})


def _check_signals(policy: Policy, model: nn.Module, groups: list[DepthGroup], name: str) -> None:
    try:
        if policy.controller:
            SignalMeter.of(policy.controller, model, groups, weight_decay=0.0, steps_per_epoch=1)
    except KitError as error:
        raise KitError(f"policies.{name}.{error}") from error


def _check_averaging(training: TrainingConfig, policy: Policy, name: str) -> None:
    """Raise KitError for what an optimizer that averages the weights by itself cannot be used with."""
    for key in ("ema", "average"):
        if getattr(training, key):
            raise KitError(
                f"training.{key}: {training.optimizer.name} averages the weights by itself; leave it out"
            )
    if policy.moves_momentum:
        raise KitError(
            f"policies.{name}: moves the momentum, by which {training.optimizer.name} finds its average; take a "
            "schedule that leaves it, like constant with a warmup"
        )


def _check_norms(model: nn.Module, training: TrainingConfig, say: Say) -> None:
    """Say what batch norms see where several processes train together; KitError where they cannot share it."""
    if training.sync_batch_norm:
        need_usual_norms(model)
    elif has_batch_norms(model) and (processes := process_state(training).num_processes) > 1:
        say(
            f"batch norms see the {training.batch_size} images of their process alone, of "
            f"{processes * training.batch_size}; training.sync_batch_norm: true lets them see all"
        )
