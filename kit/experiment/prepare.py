"""Everything that can be wrong is found here, before the first training starts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.competition.load import Competition
from kit.competition.observations import gets_the_prior
from kit.core.errors import Say, ignore, some
from kit.core.manifest import mend
from kit.core.paths import OutputDirs
from kit.core.processes import need_guard
from kit.core.progress import Progress
from kit.core.runs import ExperimentDir, RunKey
from kit.core.stopping import telling
from kit.data.config import DataConfig
from kit.data.images import ImageSet, Report, kept_images, need_all, open_images, open_readable
from kit.data.levels import with_levels
from kit.data.sources import Source
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import need_something, other_pixels, pixels_digest, tell_noticed
from kit.experiment.prediction_size import need_room
from kit.experiment.shared_folder import need_nobody
from kit.experiment.views import asked_views
from kit.training.tracker import need_tracker

if TYPE_CHECKING:  # where nothing trains, torch is not waited for
    from kit.training.fold_data import Recipe


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
    recipe: "Recipe"
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
    recipe: "Recipe"


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
    import torch

    from kit.data.loading import worker_count
    from kit.experiment.check_training import check_training, recipe_of
    from kit.experiment.features.check import checked_body

    if worker_count(config.data.workers, config.training.device == "auto" and torch.cuda.is_available()):
        need_guard()  # now rather than when all images are decoded
    mend(folder.path, say)
    loaded = LoadedExperiment.open(config, folder, dirs, folds=folds, replace=True, say=say)
    need_room(loaded, run_keys(config) if keys is None else keys, say)
    need_tracker(config.training.tracker)
    if config.features:
        recipe = recipe_of(loaded, checked_body(loaded, say))
    else:
        recipe = check_training(loaded, say)
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


def kept(
    loaded: LoadedExperiment, dirs: OutputDirs, say: Say = ignore
) -> tuple[LoadedExperiment, ImageSet, ImageSet] | None:
    """Return the experiment as `decode` does, and its training and its test images; nothing is decoded.

    None where not all images are kept as the config has them decoded.
    """
    competition, side = loaded.competition, asked_views(loaded.config).side
    decoding = _Decoding.of(loaded.config, competition, dirs, say, False, lambda: False)
    train = decoding.kept("train", competition.ids, competition.train_images)
    if train is None:
        return None
    test = decoding.at(side).kept("test", competition.test_ids, competition.test_images)
    if test is None:
        return None
    return loaded.with_pixels(pixels_digest(train), other_pixels(train, loaded.folder)), train, test


def _need_same(loaded: LoadedExperiment, replace: bool) -> None:
    if not replace and any(run.finished or run.resumable for run in loaded.folder.runs()):
        loaded.need_same()


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

    def kept(self, part: str, ids: Sequence[str], sources: Sequence[Source]) -> ImageSet | None:
        """Those of a part that were all decoded before; None where they were not."""
        if images := kept_images(ids, sources, self.data, self.dirs.cache):
            self._tell(part, images)
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
