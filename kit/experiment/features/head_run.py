"""One head: fitted on its fold's training rows, its folder written like that of a training."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from kit.core.errors import Damaged, KitError, Say
from kit.core.files import atomic
from kit.core.runs import HEAD, TRAINED_ANEW, RunDir, RunKey, RunRecord, predictions, write_predictions
from kit.core.settings import fingerprint
from kit.core.stopping import need_go_on
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.extract import Body, features_of, forget_features
from kit.experiment.features.parts import inner_parts
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import test_pixels_digest
from kit.experiment.prepare import TrainingData
from kit.experiment.run_clock import RunClock
from kit.experiment.train_run import beginning_anew, first_record, test_predictions, unread_rows
from kit.model.features import block_named
from kit.scoring.f1 import plain_score
from kit.scoring.heads import Arrays, Head, HeadRows
from kit.training.device import make_accelerator
from kit.training.memory import advising_on_memory

_bodies: dict[str, Body] = {}  # the last one: the heads of an experiment share it
_ADVICE = "lower prediction.batch_size"


def train_head(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    clock: RunClock,
    need: Callable[[], None],
) -> None:
    """Fit one head, predict held-out and test rows, and write its folder.

    Parameters, and what is raised, are those of `kit.experiment.train_run.train_run`; it always begins anew.
    """
    run = loaded.folder.run(key)
    accelerator = make_accelerator(loaded.config.training)
    record = first_record(key, loaded, data, accelerator, HEAD)
    with beginning_anew(key, run, record, need), advising_on_memory(_ADVICE):
        line = _train(key, loaded, data, say, clock, need, record, accelerator)
    say(f"{key}: {line}")


def _train(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    clock: RunClock,
    need: Callable[[], None],
    record: RunRecord,
    accelerator: Accelerator,
) -> str:
    """Do it; what it came to, in words."""
    head, began = head_of(loaded.config, key.policy), time.monotonic()
    body = _body(loaded, data, accelerator, say)
    train = _features(body, key.policy, data, "train", clock.expired)
    test = _features(body, key.policy, data, "test", clock.expired)
    fitting, scoring = time.monotonic(), loaded.config.scoring
    arrays, strength = head.fit(
        rows_of(loaded, train, key.fold),
        lambda: need_go_on(f"while {key} was fitted; the same command fits it again"),
    )
    valid = loaded.folds.validation_rows(key.fold)
    never = [loaded.competition.classes.index(name) for name in loaded.competition.without_rows]
    oof = chances(head, arrays, train[valid], never)
    made = chances(head, arrays, test, never) if len(test) else oof[:0]
    ended = time.monotonic()
    score = plain_score(oof, loaded.competition.targets[valid], scoring)
    need()
    run = loaded.folder.run(key)
    write_head(arrays, run.weights)
    write_predicted(run, loaded, data, oof, made, valid)
    last = record.with_fields(
        status="finished",
        test=loaded.test_digest,
        test_pixels=test_pixels_digest(data.test),
        unread=unread_rows(loaded.competition, data.test),
        never=loaded.competition.without_rows,
        initial_weights=body.digest,
        block=loaded.config.features.taken_of(key.policy) if loaded.config.features else "",
        strength=strength,
        seconds={"training": ended - fitting, "features": fitting - began, "whole": clock.seconds},
        scores={scoring.key: score},
    )
    need()  # writing may have taken a while
    run.write(last.with_fields(files=run.digests()))
    plainly = "" if scoring.rule == "argmax" else " before a decision rule"
    return f"{scoring.title} {score:.4f}{plainly} ({len(valid)} rows), {ended - fitting:.1f} s"


def write_predicted(
    run: RunDir,
    loaded: LoadedExperiment,
    data: TrainingData,
    oof: np.ndarray,
    test: np.ndarray,
    valid: np.ndarray,
) -> None:
    """Write the predictions of held-out rows and of the test set, the prior for images that cannot be read."""
    competition = loaded.competition
    ids = [competition.ids[row] for row in valid]
    write_predictions(predictions(ids, oof, competition.classes), run.oof)
    write_predictions(test_predictions(test, oof.mean(axis=0), competition, data.test), run.test)


def head_of(config: ExperimentConfig, name: str) -> Head:
    """Return the head that stands under a policy's name."""
    assert config.features, "only to be asked of an experiment of heads"
    return config.features.heads[name]


def chances(head: Head, arrays: Arrays, features: np.ndarray, never: list[int]) -> np.ndarray:
    """Return a head's probabilities, float32 [rows, classes]; 0 of classes that no training row has."""
    found = head.predict(arrays, features)
    found[:, never] = 0.0
    if not np.isfinite(found).all():
        raise KitError("the head predicts values that are not finite; take another head or block")
    return found.astype(np.float32)


def rows_of(loaded: LoadedExperiment, features: np.ndarray, fold: int) -> HeadRows:
    """Return what the head of a fold is fitted on; its parts are other folds, so that row groups stay together."""
    rows, competition = loaded.folds.training_rows(fold), loaded.competition
    parts = inner_parts(loaded.folds, rows, competition.targets)
    return HeadRows(features[rows], competition.targets[rows], len(competition.classes), parts)


def write_head(arrays: Arrays, path: Path) -> None:
    """Write a head's arrays as safetensors."""
    from safetensors.numpy import save

    ordered = {name: np.ascontiguousarray(values) for name, values in sorted(arrays.items())}
    with atomic(path, sum(values.nbytes for values in ordered.values())) as temporary:
        temporary.write_bytes(save(ordered))


def read_head(run: RunDir) -> Arrays:
    """Return the arrays of a finished head; Damaged where they are not what the run wrote."""
    from safetensors.numpy import load_file

    path = run.checked(run.weights)
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own kinds
        raise Damaged(f"{path} is damaged ({' '.join(str(error).split())[:200]}); {TRAINED_ANEW}") from error


def _body(loaded: LoadedExperiment, data: TrainingData, accelerator: Accelerator, say: Say) -> Body:
    """The body of the experiment, built once a process."""
    seed = loaded.config.seeds[0]  # which random weights are of
    name = fingerprint([loaded.depends_on, seed, str(accelerator.device), accelerator.mixed_precision])
    if name not in _bodies:
        _bodies.clear()
        _bodies[name] = Body.of(loaded.config, len(loaded.competition.classes), accelerator, say)
    return replace(_bodies[name], config=loaded.config, say=say)


def forget() -> None:
    """Let go of the body and of features that were read: they take memory, of a GPU too."""
    _bodies.clear()
    forget_features()


def _features(body: Body, head: str, data: TrainingData, part: str, expired: Callable[[], bool]) -> np.ndarray:
    features = body.config.features
    assert features
    every = list(dict.fromkeys(block_named(body.model, features.taken_of(name)) for name in features.heads))
    name = block_named(body.model, features.taken_of(head))
    images = data.train if part == "train" else data.test
    return features_of(body, images, name, every, part, data.cache, expired)


def predicted_by_head(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    with_oof: bool,
    with_test: bool,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the probabilities of held-out and of test rows by the arrays of a finished head, where wanted.

    Raises
    ------
    KitError
        Where its arrays are damaged, or the body is not the one that it was fitted on.
    """
    config, run = loaded.config, loaded.folder.run(key)
    body = _body(loaded, data, make_accelerator(config.training), say)
    need_same_body(run, body)
    head, arrays, never = head_of(config, key.policy), read_head(run), run.record.never
    places = [loaded.competition.classes.index(name) for name in never]
    oof = test = None
    if with_oof:
        features = _features(body, key.policy, data, "train", lambda: False)
        oof = chances(head, arrays, features[loaded.folds.validation_rows(key.fold)], places)
    if with_test:
        features = _features(body, key.policy, data, "test", lambda: False)
        test = (
            chances(head, arrays, features, places)
            if len(features)
            else np.zeros((0, len(loaded.competition.classes)), np.float32)
        )
    return oof, test


def need_same_body(run: RunDir, body: Body) -> None:
    """Raise KitError where a head was fitted on the features of another body."""
    if run.record.initial_weights != body.digest:
        raise KitError(
            f"{run.path} was fitted on the features of other weights of {body.config.model.name} than "
            "model.weights gives here; attach, or name, the file that it was fitted on"
        )
