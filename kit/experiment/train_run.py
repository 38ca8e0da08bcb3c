"""One training, written down: its record, weights, predictions of held-out and test rows."""

import dataclasses
import gc
import platform
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from kit.competition.load import Competition
from kit.core.errors import Diverged, KitError, Say, ignore
from kit.core.files import atomic
from kit.core.runs import RunDir, RunKey, RunRecord, predictions, read_predictions, write_predictions
from kit.core.settings import fingerprint
from kit.core.stopping import Stopped
from kit.data.images import ImageSet
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import packages_of_code
from kit.experiment.pixels import reading_of, test_pixels_digest
from kit.experiment.policies import groups_of
from kit.experiment.prepare import TrainingData
from kit.experiment.timekeeping import Budget, RunClock, unlimited
from kit.model.build import build_model
from kit.scoring.config import ScoringConfig
from kit.training.device import make_accelerator
from kit.training.memory import END_OTHERS, TRAIN_WITH_LESS, advising_on_memory
from kit.training.rates import RatePolicy
from kit.training.trainer import FoldData, Trainer, TrainResult, plain_score

VIEWS_GIVEN_UP = "views had been given up for want of time"
PACKAGES = ("torch", "torchvision", "timm", "albumentations", "accelerate", "numpy", "scikit-learn", "pandas")


def train_run(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    tolerant: bool = False,
    clock: RunClock | None = None,
) -> None:
    """Train one run, predict held-out and test rows, and write its folder.

    Parameters
    ----------
    key : RunKey
    loaded : LoadedExperiment
    data : TrainingData
    say : callable
        Takes a line where it goes on from a checkpoint, and one when it is done.
    tolerant : bool
        A training that diverges is told and left at that.
    clock : RunClock, optional
        Measures it, and says when it has to stop and whether all views are predicted.

    Raises
    ------
    KitError
        Where the training fails, or the clock stops it (Stopped); the message begins with the run.
    """
    gc.collect()  # a training that failed before this one left its model behind
    clock = clock or unlimited(key)
    accelerator = make_accelerator(loaded.config.training)
    main, run = accelerator.is_main_process, loaded.folder.run(key)
    record = _first_record(key, loaded, data, accelerator)
    if main:
        run.write(record)
    accelerator.wait_for_everyone()
    if run.checkpoint.is_file():
        say(f"{key}: goes on from its last checkpoint")
    try:
        with (
            advising_on_memory(TRAIN_WITH_LESS),
            closing(trainer_of(key, loaded, data, run, accelerator, say=say)) as trainer,
        ):
            trained, test = _trained(trainer, data, clock)
    except Exception as error:
        diverged, status = isinstance(error, Diverged), _status_after(error)
        if main:
            run.write(record.with_fields(status=status, error=str(error)))
        if diverged and tolerant:
            say(f"{key}: {error}")
            accelerator.wait_for_everyone()  # all have to see that it diverged
            return
        if isinstance(error, KitError):
            raise _told(key, error) from error
        raise
    if main:
        _write_results(run, loaded, data, trainer, trained, test)
        run.write(_last_record(record, loaded, data, trainer, trained, clock))
        run.checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    say(f"{key}: {_in_words(trained, loaded.config.scoring, len(trainer.fold.valid_rows))}")
    del trainer, trained
    gc.collect()  # accelerate ties models into cycles; a GPU cannot wait for those to be noticed


def _trained(trainer: Trainer, data: TrainingData, clock: RunClock) -> tuple[TrainResult, np.ndarray]:
    """Train by the clock, and predict the test images."""
    trainer.predictor = dataclasses.replace(trainer.predictor, all_views=clock.all_views, timed=clock.predicted)
    trained = trainer.train(str(clock.key), clock.stepped, clock.expired)
    clock.settle()
    return trained, trainer.predict(data.test, range(len(data.test)))


def _status_after(error: Exception) -> str:
    """What run.json calls a run that an error ended."""
    return {Diverged: "diverged", Stopped: "stopped"}.get(type(error), "failed")


def _in_words(trained: TrainResult, scoring: ScoringConfig, rows: int) -> str:
    plainly = "" if scoring.rule == "argmax" else " before a decision rule"
    return (
        f"{scoring.title} {trained.score:.4f}{plainly} ({rows} rows), "
        f"{trained.seconds:.1f} s, {trained.images_per_second:.0f} images/s"
    )


def _first_record(
    key: RunKey, loaded: LoadedExperiment, data: TrainingData, accelerator: Accelerator
) -> RunRecord:
    """What is known of a run before its training begins."""
    depends_on = loaded.dependencies(key)
    return RunRecord(
        status="running",
        policy=key.policy,
        seed=key.seed,
        fold=key.fold,
        fingerprint=fingerprint(depends_on),
        depends_on=depends_on,
        reading=reading_of(data.train),
        versions={"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        | packages_of_code(loaded.config),
        device=str(accelerator.device),
        processes=accelerator.num_processes,
        precision=accelerator.mixed_precision.replace("no", "fp32"),
    )


def _last_record(
    record: RunRecord,
    loaded: LoadedExperiment,
    data: TrainingData,
    trainer: Trainer,
    trained: TrainResult,
    clock: RunClock,
) -> RunRecord:
    return record.with_fields(
        status="finished",
        test=loaded.test_digest,
        test_pixels=test_pixels_digest(data.test),
        unread=_unread(loaded.competition, data.test),
        never=loaded.competition.without_rows,
        initial_weights=trainer.initial_weights,
        groups={group.label: group.n_params for group in trainer.groups},
        steps=trained.steps,
        seconds={"training": trained.seconds, "whole": clock.seconds, **clock.timings()},
        images_per_second=trained.images_per_second,
        scores={loaded.config.scoring.key: trained.score},
        **({"views": "none"} if clock.without_views else {}),
    )


def _write_results(
    run: RunDir,
    loaded: LoadedExperiment,
    data: TrainingData,
    trainer: Trainer,
    trained: TrainResult,
    test: np.ndarray,
) -> None:
    """Predictions and weights, before run.json says that the run is finished."""
    competition, probabilities = loaded.competition, trained.probabilities
    ids = [competition.ids[row] for row in trainer.fold.valid_rows]
    write_predictions(predictions(ids, probabilities, competition.classes), run.oof)
    write_predictions(_test_predictions(test, probabilities.mean(axis=0), competition, data.test), run.test)
    _save_weights(trained.model, run.weights)


def _told(key: RunKey, error: KitError) -> KitError:
    """The error as the user is told it: with its run."""
    if isinstance(error, Stopped):
        return Stopped(f"{key}: {error}", error.code)
    return type(error)(f"{key}: {error}")


def trainer_of(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    run: RunDir,
    accelerator: Accelerator,
    policy: RatePolicy | None = None,
    say: Say = ignore,
) -> Trainer:
    """Return the Trainer of one run, its model built from the run's seed; `policy` in place of the run's own.

    `say` takes what there is to tell of its predictions, each line once.
    """
    config, competition, recipe = loaded.config, loaded.competition, data.recipe
    model = build_model(config.model, len(competition.classes), config.data.channels, config.data.size, key.seed)
    stated = config.policies[key.policy]
    fold = FoldData(
        images=data.train,
        targets=competition.targets,
        train_rows=loaded.folds.training_rows(key.fold),
        valid_rows=loaded.folds.validation_rows(key.fold),
        classes=competition.classes,
    )
    groups = groups_of(model, stated, key.policy)
    probes = recipe.training.probes
    if probes and probes.runs == "first" and not _is_first(key, config):
        recipe = dataclasses.replace(recipe, training=recipe.training.model_copy(update={"probes": None}))
    trainer = Trainer(model, groups, policy or stated.build(), fold, recipe, key.seed, accelerator, run)
    once = cache(lambda line: say(f"{key}: {line}"))  # it predicts again after each epoch
    trainer.predictor = dataclasses.replace(trainer.predictor, say=once)
    return trainer


def _is_first(key: RunKey, config: ExperimentConfig) -> bool:
    return (key.seed, key.fold) == (config.seeds[0], config.folds.chosen[0])


def _test_predictions(
    probabilities: np.ndarray, prior: np.ndarray, competition: Competition, images: ImageSet
) -> pd.DataFrame:
    """Of all test rows, those whose image cannot be read with the prior: the mean prediction of held-out rows."""
    frame = predictions(images.ids, probabilities, competition.classes)
    rest = _unread(competition, images)
    priors = predictions(rest, np.tile(prior, (len(rest), 1)), competition.classes)
    return pd.concat([frame, priors]).loc[competition.test_ids].rename_axis("id")


def _unread(competition: Competition, images: ImageSet) -> list[str]:
    """The test rows whose image is not among those that could be read."""
    return pd.Index(competition.test_ids).difference(images.ids, sort=False).tolist()


def _save_weights(model: nn.Module, path: Path) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary)


def predict_test_anew(
    policy: str,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    budget: Budget | None = None,
    views: bool = True,
) -> None:
    """Predict anew with the saved weights of a policy's runs: where they saw another test set, or in fewer views.

    With a budget only while it lasts; a run whose turn does not come stays as it is. `views`: whether those
    that were given up are made up for (`has_time_for_views`).
    """
    pixels = test_pixels_digest(data.test)
    for run in loaded.folder.runs(policy):
        if not run.finished or not (why := _why_anew(record := run.record, loaded, pixels)):
            continue
        if why == VIEWS_GIVEN_UP and not views:
            continue
        key, whole = record.key, _lacks_views(record, loaded)
        held_out = loaded.folds.validation_rows(key.fold)[: None if whole else 0]
        if budget and not budget.allows(record, len(held_out) + len(data.test), loaded.config.prediction.views):
            say(f"{key}: {why}; the time does not suffice to predict it anew, the next run does it")
            continue
        accelerator = make_accelerator(loaded.config.training)
        try:
            with (
                advising_on_memory(END_OTHERS),
                closing(trainer_of(key, loaded, data, run, accelerator, say=say)) as trainer,
            ):
                trainer.load_weights(load_file(run.weights))
                probabilities = trainer.evaluate() if whole else None
                test = trainer.predict(data.test, range(len(data.test)))
        except KitError as error:
            raise _told(key, error) from error
        if accelerator.is_main_process:
            _write_anew(run, loaded, data, held_out, probabilities, test)
        accelerator.wait_for_everyone()
        say(f"{key}: {why}; predicted it with the saved weights")


def _write_anew(
    run: RunDir,
    loaded: LoadedExperiment,
    data: TrainingData,
    held_out: np.ndarray,
    probabilities: np.ndarray | None,
    test: np.ndarray,
) -> None:
    """Write what saved weights predict, of held-out rows too where there is some, and what is known of it."""
    competition, record, fields = loaded.competition, run.record, {}
    prior = (read_predictions(run.oof).to_numpy() if probabilities is None else probabilities).mean(axis=0)
    # A kill in between leaves the record, by which it is predicted anew once more.
    write_predictions(_test_predictions(test, prior, competition, data.test), run.test)
    if probabilities is not None:
        ids = [competition.ids[row] for row in held_out]
        write_predictions(predictions(ids, probabilities, competition.classes), run.oof)
        score = plain_score(probabilities, competition.targets[held_out], loaded.config.scoring)
        fields = {"views": "", "scores": record.scores | {loaded.config.scoring.key: score}}
    run.write(
        record.with_fields(
            test=loaded.test_digest,
            test_pixels=test_pixels_digest(data.test),
            unread=_unread(competition, data.test),
            **fields,
        )
    )


def has_time_for_views(policies: Iterable[str], loaded: LoadedExperiment, test: int, budget: Budget) -> bool:
    """Whether views that were given up can be made up for in all runs: some alone would not be comparable.

    `test` is the number of test images.
    """
    lacking = [
        run.record for name in policies for run in loaded.folder.finished(name) if _lacks_views(run.record, loaded)
    ]
    images = sum(len(loaded.folds.validation_rows(record.fold)) + test for record in lacking)
    return all(budget.allows(record, images, loaded.config.prediction.views) for record in lacking)


def _lacks_views(record: RunRecord, loaded: LoadedExperiment) -> bool:
    """Whether a budget of time gave up views that the config asks for."""
    return record.views == "none" and loaded.config.prediction.views > 1


def _why_anew(record: RunRecord, loaded: LoadedExperiment, pixels: str) -> str:
    """Why predictions that are there are made anew; "" where they are not."""
    if record.test != loaded.test_digest:
        return "the test set has changed"
    if record.test_pixels != pixels:
        return "test images are read otherwise than when it was trained"
    # To pool rows one has to know which of them hold the prior alone; older kits did not note it.
    if record.unread is None and loaded.competition.test_observations is not None:
        return "which test images could be read was not noted"
    return VIEWS_GIVEN_UP if _lacks_views(record, loaded) else ""
