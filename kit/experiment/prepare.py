"""Everything that can be wrong is found here, before the first training starts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kit.competition.labels import spelling_of
from kit.competition.load import Competition
from kit.competition.observations import gets_the_prior
from kit.core.errors import KitError, Say, ignore, some
from kit.core.manifest import mend
from kit.core.paths import OutputDirs
from kit.core.processes import need_guard
from kit.core.progress import Progress
from kit.core.runs import ExperimentDir, RunKey
from kit.core.stopping import telling
from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.decode import try_decoder
from kit.data.device.augment import augments_on_device
from kit.data.images import ImageSet, Report, need_all, open_images, open_readable
from kit.data.levels import with_levels
from kit.data.loading import worker_count
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.check import checked_body
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import need_something, other_pixels, pixels_digest, tell_noticed
from kit.experiment.policies import policy_on
from kit.experiment.prediction_size import need_room
from kit.experiment.shared_folder import need_nobody
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
from kit.training.tracker import need_tracker


@dataclass(frozen=True)
class TrainingData:
    """What the runs of an experiment train on and how: images and recipe.

    Attributes
    ----------
    train : ImageSet
        All training images.
    test : ImageSet
        The test images that can be read, as they are predicted.
    recipe : Recipe
    extra : ImageSet or None
        The images of extra rows; None where there are none.
    larger : ImageSet, optional
        All training images as they are kept for a larger prediction.size.
    cache : Path
        The cache folder, where features are kept.
    """

    train: ImageSet
    test: ImageSet
    recipe: Recipe
    extra: ImageSet | None = None
    larger: ImageSet | None = None
    cache: Path = Path("cache")


def run_keys(experiment: ExperimentConfig) -> list[RunKey]:
    """Return all runs of an experiment, in the order in which they are trained."""
    return [
        RunKey(policy, seed, fold)
        for policy in experiment.policies
        for seed in experiment.seeds
        for fold in experiment.folds.chosen
    ]


@dataclass(frozen=True)
class Checked:
    """An experiment of which everything is checked but its images, none of which has been read."""

    loaded: LoadedExperiment
    recipe: Recipe


def prepare(
    config: ExperimentConfig,
    folder: ExperimentDir,
    dirs: OutputDirs,
    replace: bool = False,
    say: Say = ignore,
    shown: bool = True,
    folds: Path | None = None,
    keys: Sequence[RunKey] | None = None,
) -> tuple[LoadedExperiment, TrainingData]:
    """Read and check what the runs need; nothing is written but the cache (see `kit.experiment.settle`)."""
    return decode(check(config, folder, dirs, replace, say, folds, keys), dirs, replace, say, shown)


@telling("while data and model were prepared; what is finished is kept, and the same command prepares them again")
def check(
    config: ExperimentConfig,
    folder: ExperimentDir,
    dirs: OutputDirs,
    replace: bool = False,
    say: Say = ignore,
    folds: Path | None = None,
    keys: Sequence[RunKey] | None = None,
) -> Checked:
    """Read and check what the runs need but for the images.

    Parameters
    ----------
    config : ExperimentConfig
    folder : ExperimentDir
        Where the runs will be.
    dirs : OutputDirs
        Where decoded images are kept.
    replace : bool
        Whether runs of another config or other data in the folder may be thrown away.
    say : callable
        Takes lines about what happens.
    folds : Path, optional
        A fold plan to follow, instead of one made here.
    keys : sequence of RunKey, optional
        Runs that will be trained for certain, whose predictions need room; left out: all of the config.

    Raises
    ------
    KitError
        For whatever cannot work, and where the folder holds an experiment made from another config or other data
        (unless `replace`).
    """
    if worker_count(config.data.workers, config.training.device == "auto" and torch.cuda.is_available()):
        need_guard()  # now rather than when all images are decoded
    mend(folder.path, say)
    loaded = LoadedExperiment.open(config, folder, dirs, folds=folds, replace=True, say=say)
    need_room(loaded, run_keys(config) if keys is None else keys, say)
    need_tracker(config.training.tracker)
    if config.features:
        recipe = recipe_of(loaded, checked_body(loaded, say))
    else:
        recipe = _check_training(loaded, say)
    if loaded.differs:
        need_nobody(folder, loaded.differs, say)
    _need_same(loaded, replace)
    return Checked(loaded, recipe)


@telling("while data and model were prepared; what is finished is kept, and the same command prepares them again")
def decode(
    checked: Checked,
    dirs: OutputDirs,
    replace: bool = False,
    say: Say = ignore,
    shown: bool = True,
    expired: Callable[[], bool] = lambda: False,
) -> tuple[LoadedExperiment, TrainingData]:
    """Decode the images.

    Parameters
    ----------
    checked : Checked
    dirs, replace, say
        As in `check`.
    shown : bool
        Whether decoding shows a progress bar.
    expired : callable
        Asked before each image; once it is true, decoding stops.

    Returns
    -------
    LoadedExperiment
        With how it differs from what is in the folder, where that may be thrown away.
    TrainingData

    Raises
    ------
    Stopped
        Where it was stopped.
    KitError
        For images that cannot be read, and where those in the folder's runs were others (unless `replace`).
    """
    loaded, recipe = checked.loaded, checked.recipe
    decoding = _Decoding.of(loaded.config, loaded.competition, dirs, say, shown, expired)
    train = decoding.train(loaded.competition)
    loaded = loaded.with_pixels(pixels_digest(train), other_pixels(train, loaded.folder))
    _need_same(loaded, replace)
    extra, views = decoding.extra(loaded.competition), asked_views(loaded.config)
    larger = decoding.at(views.side).train(loaded.competition) if views.side != views.trained else None
    test = decoding.at(views.side).test(loaded.competition)
    return loaded, TrainingData(train, test, recipe, extra, larger, dirs.cache)


def _need_same(loaded: LoadedExperiment, replace: bool) -> None:
    if not replace and any(run.finished or run.resumable for run in loaded.folder.runs()):
        loaded.need_same()


def _check_training(loaded: LoadedExperiment, say: Say) -> Recipe:
    """Builds what each run builds, once and on the CPU: model, weights, groups, optimizer, augmentation; and
    sends noise through the model."""
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


@dataclass(frozen=True)
class _Decoding:
    """Opens the images of an experiment, as `data` says; `shown`: with a progress bar."""

    data: DataConfig
    dirs: OutputDirs
    say: Say
    shown: bool
    name: str
    expired: Callable[[], bool]

    @classmethod
    def of(
        cls,
        config: ExperimentConfig,
        competition: Competition,
        dirs: OutputDirs,
        say: Say,
        shown: bool,
        expired: Callable[[], bool],
    ) -> "_Decoding":
        """For files with more than 8 bits, the training images decide the levels of all."""
        data = with_levels(config.data, competition.train_images, dirs.cache, say=say)
        if data.levels != config.data.levels:
            say("Images of more than 8 bits: {:g} becomes 0, {:g} becomes 255 (data.levels)".format(*data.levels))
        return cls(data, dirs, say, shown, config.name, expired)

    def at(self, side: int) -> "_Decoding":
        """For images of which the network sees another size."""
        return replace(self, data=self.data.model_copy(update={"size": side}))

    def train(self, competition: Competition) -> ImageSet:
        """All of them; KitError where one cannot be read, or where nothing is left of all."""
        with self._progress("train", competition.ids) as report:
            images = open_images(
                *(competition.ids, competition.train_images, self.data, self.dirs.cache, report, self.say),
                what=f"decodes train images of {self.name}",
                expired=self.expired,
            )
        need_something(images)
        self._tell("train", images)
        return images

    def extra(self, competition: Competition) -> ImageSet | None:
        """Those of extra rows, each once; None where there are none. KitError where one cannot be read."""
        if (extra := competition.extra) is None:
            return None
        with self._progress("extra", extra.ids) as report:
            images = open_images(
                *(extra.ids, extra.sources, self.data, self.dirs.cache, report, self.say),
                what=f"decodes extra images of {self.name}",
                expired=self.expired,
            )
        self._tell("extra", images)
        return images

    def test(self, competition: Competition) -> ImageSet:
        """Those that can be read: nobody can mend Kaggle's test images."""
        ids, sources = competition.test_ids, competition.test_images
        data, cache, what = self.data, self.dirs.cache, f"decodes test images of {self.name}"
        with self._progress("test", ids) as report:
            readable = open_readable(ids, sources, data, cache, report, self.say, what, self.expired)
        need_all(readable)
        images = readable.images
        if readable.broken:
            rest = gets_the_prior(competition.test_observations is not None)
            self.say(
                f"{len(readable.broken)} of {len(ids)} test images cannot be read "
                f"({some(list(readable.broken.values()), 5)}): {rest}"
            )
            if images.cache:  # with gaps: of no use
                images.cache.remove()
            rows = readable.rows
            images = open_images(
                [ids[row] for row in rows], [sources[row] for row in rows], data, cache, say=self.say, what=what
            )
        self._tell("test", images)
        return images

    @contextmanager
    def _progress(self, part: str, ids: list[str]) -> Iterator[Report]:
        title = f"Decoding {part} images"
        with Progress(title, len(ids), unit="image", images=1, shown=self.shown) as progress:
            yield lambda done, total: progress.update(done)

    def _tell(self, part: str, images: ImageSet) -> None:
        tell_noticed(part, images, self.say)
        if len(images) and not images.cache and self.data.cache:
            self.say(
                f"The {part} images do not fit the pixel cache (data.cache_gb, free disk): decoded anew each epoch"
            )
