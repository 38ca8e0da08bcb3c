"""What fold models say of images without labels: by fold, the mean over its seeds, of that fold's models alone."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kit.competition.image_files import is_hidden
from kit.competition.survey import is_image
from kit.core.errors import KitError, Say, some
from kit.core.paths import OutputDirs
from kit.core.runs import RunDir, in_order
from kit.data.images import open_readable
from kit.data.sources import Source
from kit.experiment.find_runs import find_runs
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import as_they_were_read, tell_noticed
from kit.experiment.pooled_predictions import by_fold
from kit.experiment.predict import predict_all
from kit.experiment.views import prediction_data, views_of


def runs_of(loaded: LoadedExperiment, policy: str, say: Say) -> list[RunDir]:
    """The finished runs of the policy; KitError where a fold has none. Seeds that are missing are told."""
    config = loaded.config
    runs = find_runs(config, policy, [loaded.folder.path])
    seeds = {fold: {run.record.seed for run in runs if run.record.fold == fold} for fold in config.folds.chosen}
    if lacking := [fold for fold, there in seeds.items() if not there]:
        raise KitError(
            f"{config.name}: no run of {policy} in fold {some(lacking)} is finished, and only models of a fold "
            "may label for it; python -m kit run trains the others"
        )
    few = [f"fold {fold} of {len(there)}" for fold, there in seeds.items() if len(there) < len(config.seeds)]
    if few:
        say(f"{config.name}: not all of {len(config.seeds)} seeds are finished; labels are the mean: {some(few)}")
    return [run for run in runs if run.record.fold in seeds]


def of_test(runs: Sequence[RunDir], loaded: LoadedExperiment, say: Say) -> dict[int, pd.DataFrame]:
    """By fold, the probabilities of the test rows whose image could be read: the mean over seeds."""
    ids, unread, frames = loaded.competition.test_ids, set[str](), []
    for run in runs:
        record = run.record
        if record.test != loaded.test_digest:
            raise KitError(
                f"{run.path} predicted another test set than the one in {loaded.competition.folder}; python -m "
                "kit run predicts it anew with the saved weights"
            )
        if record.unread is None:
            say(f"{run.path} does not tell which test images could be read; all are taken for read")
        unread |= set(record.unread or ())
        frame = run.read_test()
        if len(frame) != len(ids) or set(frame.index) != set(ids):
            raise KitError(f"{run.test} is of other rows than the test set; python -m kit run predicts it anew")
        frames.append((record.fold, in_order(frame, ids)))
    if unread:
        say(f"{len(unread)} test images could not be read and get no label ({some(sorted(unread), 5)})")
    return {fold: frame.drop(index=sorted(unread)) for fold, frame in by_fold(frames).items()}


def of_folder(
    runs: Sequence[RunDir], loaded: LoadedExperiment, folder: Path, dirs: OutputDirs, say: Say
) -> dict[int, pd.DataFrame]:
    """By fold, what the saved weights predict of the images in a folder that can be read."""
    config = loaded.config
    names = images_in(folder)
    sources: list[Source] = [folder / name for name in names]
    if not names:
        raise KitError(f"--folder {folder}: holds no images")
    if config.data.channels > 1 and isinstance(config.competition.train_images, tuple):
        raise KitError(
            "--folder: an image of this competition is a file for each channel; a folder cannot tell them"
        )
    sized = prediction_data(config, views_of(runs[0].record, config))
    data = as_they_were_read(sized, [run.record for run in runs])
    data = data.model_copy(update={"cache": data.cache and "auto"})
    what = f"decodes {folder} for {config.name}"
    readable = open_readable(names, sources, data, dirs.cache, say=say, what=what)
    tell_noticed("unlabelled", readable.images, say)
    if readable.broken:
        say(
            f"{len(readable.broken)} of {len(names)} images cannot be read and get no label "
            f"({some(readable.broken.values(), 5)})"
        )
    return by_fold(predict_all(config, runs, readable, float("inf"), say).frames)


def images_in(folder: Path) -> list[str]:
    """Return the paths of the images below a folder, without hidden ones, in order."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        below = Path(place).relative_to(folder)
        found += [(below / name).as_posix() for name in files if is_image(name) and not is_hidden(name)]
    return sorted(found)
