"""Extra rows in an experiment: which of them train which fold, and what a training then takes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from kit.competition.extra import as_shares
from kit.competition.load import Competition
from kit.competition.templates import fields_of
from kit.competition.ties import ExtraPlan, plan_extra
from kit.core.errors import Say, ignore
from kit.core.paths import OutputDirs
from kit.core.settings import fingerprint
from kit.data.hashes import hash_images
from kit.data.images import ImageSet, Report, content_digest
from kit.data.joined import JoinedImages
from kit.data.levels import with_levels
from kit.data.reading import Reading
from kit.experiment.config import ExperimentConfig
from kit.training.fold_data import FoldData

if TYPE_CHECKING:
    from kit.experiment.loaded import LoadedExperiment


def extra_plan(
    config: ExperimentConfig, competition: Competition, dirs: OutputDirs, say: Say = ignore
) -> ExtraPlan | None:
    """Return which extra rows belong with which training rows; None where there are none.

    Images of both are looked at, once: what is known of them is kept in the cache folder. `say` takes a line when
    that begins.
    """
    extra = competition.extra
    if extra is None:
        return None
    reading = Reading.of(with_levels(config.data, competition.train_images, dirs.cache))
    sources = {"train": competition.train_images, "extra": extra.sources}
    return plan_extra(
        extra,
        competition.train,
        competition.observations,
        config.competition,
        config.folds,
        lambda which: hash_images(sources[which], dirs.cache, _beginning(which, say), reading),
    )


def _beginning(which: str, say: Say) -> Report:
    """Return what says, at the first image alone, that images are looked at."""

    def report(done: int, total: int) -> None:
        if done == 1:
            say(f"Looks at {total} {which} images, to find extra rows with a picture that is held out")

    return report


def extra_digest(config: ExperimentConfig, competition: Competition) -> str:
    """Return a digest of the extra rows: labels, weights, folds, images, and by what they belong to others."""
    assert competition.extra is not None, "only to be asked where there are extra rows"
    folds, predict_by = config.folds, config.competition.predict_by
    columns = [folds.group, folds.time, *(fields_of(predict_by.rows)[0] if predict_by else ())]
    columns += [predict_by.column] if predict_by else []
    tables: list[Any] = []
    for table in competition.extra.tables:
        there = [name for name in dict.fromkeys(filter(None, columns)) if name in table.cells.columns]
        tables.append(
            [
                table.ids,
                content_digest(table.sources, table.root),
                *(table.image.tolist(), table.targets.tolist(), table.weights.tolist(), table.fold.tolist()),
                {name: table.cells[name].tolist() for name in there},
            ]
        )
    return fingerprint(tables)


def fold_data(loaded: "LoadedExperiment", train: ImageSet, extra: ImageSet | None, fold: int) -> FoldData:
    """Return what the models of a fold train on and are scored on.

    Parameters
    ----------
    loaded : LoadedExperiment
    train : ImageSet
        All images of the competition's training rows.
    extra : ImageSet or None
        Those of extra rows; None where there are none.
    fold : int
    """
    competition, rows = loaded.competition, loaded.competition.extra
    targets, weights, count = competition.targets, competition.weights, len(competition.classes)
    truth, images = None, train
    if rows is not None and extra is not None:
        if extra.ids != rows.ids:
            raise AssertionError("the extra images are not those of the extra rows")
        images = JoinedImages.of(train, extra, rows.image)
        more = rows.targets(count)
        if rows.has_shares:
            truth, targets = targets, as_shares(targets, count)
        targets = np.concatenate([targets, more])
        if competition.weighs:
            own = np.ones(len(train)) if weights is None else weights
            weights = np.concatenate([own, rows.weights])
    return FoldData(
        images=images,
        targets=targets,
        train_rows=loaded.training_rows(fold),
        valid_rows=loaded.folds.validation_rows(fold),
        classes=competition.classes,
        weights=weights,
        truth=truth,
        own=len(train),
    )
