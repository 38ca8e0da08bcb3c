"""One training, written down: its record, weights, predictions of held-out and test rows."""

import dataclasses
import gc
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from kit.competition.load import Competition
from kit.core import stopping
from kit.core.errors import Damaged, Diverged, KitError, NotWritten, Say, ignore, some
from kit.core.runs import TRAINING, RunDir, RunKey, RunRecord, predictions, write_predictions
from kit.core.settings import fingerprint
from kit.core.stopping import Stopped
from kit.data.device.augment import augments_on_device
from kit.data.images import ImageSet
from kit.experiment.attempts import Attempt, Attempts
from kit.experiment.config import ExperimentConfig
from kit.experiment.extra import fold_data
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import packages_of_code
from kit.experiment.pixels import reading_of, test_pixels_digest
from kit.experiment.policies import groups_of
from kit.experiment.prepare import TrainingData
from kit.experiment.run_clock import RunClock, unlimited
from kit.model.build import build_model
from kit.scoring.config import ScoringConfig
from kit.training.allocator import give_back_freed_memory
from kit.training.device import computing_with, device_facts, make_accelerator
from kit.training.memory import TRAIN_WITH_LESS, advising_on_memory
from kit.training.micro_batch import asking_for_less
from kit.training.rates import RatePolicy
from kit.training.saved_weights import save_weights
from kit.training.trainer import Trainer, TrainResult
from kit.training.views import Views

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "accelerate", "numpy", "scikit-learn", "pandas")
_version = cache(version)  # which reads a file


def nothing() -> None:
    """Need nothing: of a training whose run is claimed by nobody else for certain."""


def train_run(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    tolerant: bool = False,
    clock: RunClock | None = None,
    need: Callable[[], None] = nothing,
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
        Measures it, and says when it has to stop and whether all views are predicted; left out: one without a
        budget.
    need : callable
        Asked before anything is written for good: raises KitError where the run is another process's by now.

    Raises
    ------
    Stopped
        Where that was asked for, by a signal or by the clock; the message says where and how to go on.
    KitError
        Where the training fails; the message begins with the run.
    """
    run = loaded.folder.run(key)
    threads = _threads_of(key, run, loaded, say)
    with stopping.deferred(), stopping.telling(lambda: _left_of(key, run)), computing_with(threads):
        _train_run(key, loaded, data, say, tolerant, clock or unlimited(key), need)


def _threads_of(key: RunKey, run: RunDir, loaded: LoadedExperiment, say: Say) -> int | None:
    """The threads that a run goes on with on the CPU: those it began with, as others give other bits.

    None where that is as it is: it begins anew, or nothing is known of how it began.
    """
    if not (run.resumable and run.begun):
        return None
    try:
        record = run.record
    except Damaged:  # it is told where the run is begun
        return None
    here = torch.get_num_threads()
    began = record.threads
    if (
        began in (None, here)
        or record.device != "cpu"
        or record.fingerprint != fingerprint(loaded.dependencies(key))
    ):
        return None
    say(f"{key}: goes on with {counted(began)}, as it began, not with {here}: others would give other bits")
    return began


def counted(threads: int) -> str:
    """Return the number of threads in words."""
    return f"{threads} thread{'s' * (threads != 1)}"


def _train_run(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    tolerant: bool,
    clock: RunClock,
    need: Callable[[], None],
) -> None:
    gc.collect()  # a training that failed before this one left its model behind
    accelerator = make_accelerator(loaded.config.training)
    main, run = accelerator.is_main_process, loaded.folder.run(key)
    record = first_record(key, loaded, data, accelerator)
    trainers = _trainers(key, loaded, data, say, need)
    attempts = Attempts(key, run, loaded.config.training, record, trainers, say, need, clock.expired)
    try:
        with advising_on_memory(TRAIN_WITH_LESS):
            trainer, (trained, test) = attempts.make(
                lambda trainer: _trained(trainer, data, clock), look_for_cause=not tolerant
            )
    except (stopping.Stopped, stopping.Interrupted):
        if main:
            with suppress(KitError):  # where the run is another's, or the disk is full, that is no matter
                need()
                run.write(attempts.record.with_fields(status="stopped"))
        raise
    except Exception as error:
        diverged = isinstance(error, Diverged)
        _tell_deviations(key, attempts, say)
        if main:
            need()
            with suppress(NotWritten):  # on a full disk: what is to be told is the first error
                run.write(
                    attempts.record.with_fields(status="diverged" if diverged else "failed", error=str(error))
                )
        if diverged and tolerant:
            say(f"{key}: {error}")
            accelerator.wait_for_everyone()  # all have to see that it diverged
            return
        if isinstance(error, KitError):
            raise told(key, error) from error
        raise
    if main:
        need()
        _write_results(run, loaded, data, trainer, trained, test)
        need()  # writing may have taken a while
        last = _last_record(attempts.record, loaded, data, trainer, trained, clock)
        run.write(last.with_fields(files=run.digests()))
        for checkpoint in (run.checkpoint, run.checkpoint_before):
            checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    _tell_deviations(key, attempts, say)
    say(f"{key}: {_in_words(trained, loaded.config.scoring, len(trainer.fold.valid_rows))}")
    del trainer, trained
    gc.collect()  # accelerate ties models into cycles; a GPU cannot wait for those to be noticed
    give_back_freed_memory()


def _tell_deviations(key: RunKey, attempts: Attempts, say: Say) -> None:
    """Say which updates were left out; other rates and micro-batches were told when they began."""
    if steps := [each["skipped"] for each in attempts.record.nonfinite if "skipped" in each]:
        say(f"{key}: {len(steps)} updates were left out, as their loss was not finite: {some(steps, 10)}")


def _left_of(key: RunKey, run: RunDir) -> str:
    """What an interruption at once leaves of a run."""
    on = "goes on from its last checkpoint" if run.resumable else "begins it anew"
    return f"in {key}; the same command {on}"


def _trainers(
    key: RunKey, loaded: LoadedExperiment, data: TrainingData, say: Say, need: Callable[[], None]
) -> Callable[[Attempt, Accelerator, RunDir], Trainer]:
    """What makes the trainer of an attempt."""
    stated = loaded.config.policies[key.policy].build()

    def make(attempt: Attempt, accelerator: Accelerator, run: RunDir) -> Trainer:
        trainer = trainer_of(key, loaded, attempt.data(data), run, accelerator, attempt.policy(stated), say)
        trainer.history.need = trainer.checkpoints.need = need
        return trainer

    return make


def _trained(trainer: Trainer, data: TrainingData, clock: RunClock) -> tuple[TrainResult, np.ndarray]:
    """The trained model with its score, and the probabilities of the test rows."""
    trainer.predictor = dataclasses.replace(trainer.predictor, all_views=clock.all_views, timed=clock.predicted)
    with asking_for_less(trainer.config, trainer.accelerator, trainer.model):
        trained = trainer.train(str(clock.key), clock.stepped, clock.expired)
    clock.settle()
    return trained, trainer.predict(data.test, range(len(data.test)))


def _in_words(trained: TrainResult, scoring: ScoringConfig, rows: int) -> str:
    plainly = "" if scoring.rule == "argmax" else " before a decision rule"
    return (
        f"{scoring.title} {trained.score:.4f}{plainly} ({rows} rows), "
        f"{trained.seconds:.1f} s, {trained.images_per_second:.0f} images/s"
    )


@contextmanager
def beginning_anew(key: RunKey, run: RunDir, record: RunRecord, need: Callable[[], None]) -> Iterator[None]:
    """Write down that a run that keeps no checkpoints is under way, and what became of it where it fails within.

    An error of the kit is raised with the run it is of, as `train_run` does.
    """
    need()
    run.write(record)
    try:
        with stopping.deferred():
            yield
    except (stopping.Interrupted, Exception) as error:
        stopped = isinstance(error, Stopped | stopping.Interrupted)
        with suppress(KitError, NotWritten):
            need()
            why = {} if stopped else {"error": " ".join(str(error).split())}
            run.write(record.with_fields(status="stopped" if stopped else "failed", **why))
        if isinstance(error, KitError):
            raise told(key, error) from error
        raise


def first_record(
    key: RunKey, loaded: LoadedExperiment, data: TrainingData, accelerator: Accelerator, kind: str = TRAINING
) -> RunRecord:
    """Return what is known of a run before it is begun."""
    depends_on = loaded.dependencies(key)
    return RunRecord(
        status="running",
        **({} if kind == TRAINING else {"kind": kind}),  # run.json of trainings does not state it
        policy=key.policy,
        seed=key.seed,
        fold=key.fold,
        fingerprint=fingerprint(depends_on),
        depends_on=depends_on,
        reading=reading_of(data.train),
        **trained_on(loaded.config, accelerator),
    )


def trained_on(config: ExperimentConfig, accelerator: Accelerator) -> dict[str, Any]:
    """Return what run.json says of where a run is trained: versions, device, precision, what augments."""
    there = config.trains and augments_on_device(config.data, accelerator.device)
    packages = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return {
        "versions": packages | packages_of_code(config),
        "device": str(accelerator.device),
        **device_facts(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision.replace("no", "fp32"),
        **({"augmented_on": "device"} if there else {}),
    }


def _views(trainer: Trainer, clock: RunClock) -> Views:
    """The views in which held-out and test rows were predicted."""
    chosen = trainer.predictor.chosen
    return chosen if clock.all_views() else chosen.one


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
        unread=unread_rows(loaded.competition, data.test),
        never=loaded.competition.without_rows,
        initial_weights=trainer.initial_weights,
        groups={group.label: group.n_params for group in trainer.groups},
        steps=trained.steps,
        seconds={"training": trained.seconds, "whole": clock.seconds, **clock.timings()},
        images_per_second=trained.images_per_second,
        scores={loaded.config.scoring.key: trained.score},
        predicted=_views(trainer, clock).form(),
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
    write_predictions(test_predictions(test, probabilities.mean(axis=0), competition, data.test), run.test)
    save_weights(trained.model, run.weights)


def told(key: RunKey, error: KitError) -> KitError:
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
    fold = dataclasses.replace(fold_data(loaded, data.train, data.extra, key.fold), larger=data.larger)
    groups = groups_of(model, stated, key.policy)
    probes = recipe.training.probes
    if probes and probes.runs == "first" and not _is_first(key, config):
        recipe = dataclasses.replace(recipe, training=recipe.training.model_copy(update={"probes": None}))
    trainer = Trainer(model, groups, policy or stated.build(), fold, recipe, key.seed, accelerator, run)
    once = cache(lambda line: say(f"{key}: {line}"))  # it predicts again after each epoch
    trainer.predictor, trainer.say = dataclasses.replace(trainer.predictor, say=once), once
    trainer.checkpoints.say, trainer.checkpoints.of = once, fingerprint(loaded.dependencies(key))
    return trainer


def _is_first(key: RunKey, config: ExperimentConfig) -> bool:
    return (key.seed, key.fold) == (config.seeds[0], config.folds.chosen[0])


def test_predictions(
    probabilities: np.ndarray, prior: np.ndarray, competition: Competition, images: ImageSet
) -> pd.DataFrame:
    """Of all test rows, those whose image cannot be read with the prior: the mean prediction of held-out rows."""
    frame = predictions(images.ids, probabilities, competition.classes)
    rest = unread_rows(competition, images)
    priors = predictions(rest, np.tile(prior, (len(rest), 1)), competition.classes)
    return pd.concat([frame, priors]).loc[competition.test_ids].rename_axis("id")


def unread_rows(competition: Competition, images: ImageSet) -> list[str]:
    """The test rows whose image is not among those that could be read."""
    return pd.Index(competition.test_ids).difference(images.ids, sort=False).tolist()
