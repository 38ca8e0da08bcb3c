"""One training, written down: its record, weights, predictions of held-out and test rows."""

import dataclasses
import gc
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from kit.core.errors import Diverged, KitError
from kit.core.files import atomic
from kit.core.runs import ExperimentDir, RunDir, RunKey, predictions, read_predictions, write_predictions
from kit.core.settings import fingerprint
from kit.experiment.config import ExperimentConfig
from kit.experiment.prepare import Prepared, Say
from kit.model.build import build_model
from kit.model.groups import depth_groups
from kit.training.device import make_accelerator
from kit.training.rates import RatePolicy
from kit.training.trainer import FoldData, Trainer

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "accelerate", "numpy", "scikit-learn", "pandas")


def _execute(key: RunKey, prepared: Prepared, run: RunDir, say: Say, tolerant: bool = False) -> None:
    """Trains one run, predicts held-out and test rows, and writes its folder; `tolerant` as in `Runner.train`."""
    experiment, competition = prepared.experiment, prepared.competition
    gc.collect()  # a training that failed before this one left its model behind
    accelerator = make_accelerator(experiment.training)
    depends_on = prepared.dependencies(key)
    record: dict[str, Any] = {
        "status": "running",
        "policy": key.policy,
        "seed": key.seed,
        "fold": key.fold,
        "fingerprint": fingerprint(depends_on),
        "depends_on": depends_on,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision.replace("no", "fp32"),
    }
    main = accelerator.is_main_process
    if main:
        run.write(record)
    accelerator.wait_for_everyone()
    started = time.monotonic()
    if run.checkpoint.is_file():
        say(f"{key}: goes on from its last checkpoint")
    try:
        trainer = trainer_of(key, prepared, run, accelerator)
        trained = trainer.train(str(key))
        test = trainer.predict(prepared.test, range(len(prepared.test)))
    except Exception as error:
        diverged = isinstance(error, Diverged)
        if main:
            run.write(record | {"status": "diverged" if diverged else "failed", "error": str(error)})
        if diverged and tolerant:
            say(f"{key}: {error}")
            accelerator.wait_for_everyone()  # all have to see that it diverged
            return
        if (told := _told(key, error)) is not error:
            raise told from error
        raise
    held_out = trainer.fold.valid_rows
    fold_score = trained.score
    if main:
        ids = [competition.ids[row] for row in held_out]
        write_predictions(predictions(ids, trained.probabilities, competition.classes), run.oof)
        prior = trained.probabilities.mean(axis=0)
        write_predictions(_test_predictions(test, prior, prepared), run.test)
        _save_weights(trained.model, run.weights)
        record |= {
            "status": "finished",
            "test": prepared.test_digest,
            "initial_weights": trainer.initial_weights,
            "groups": {group.name: group.n_params for group in trainer.groups},
            "steps": trained.steps,
            "seconds": {"training": trained.seconds, "whole": time.monotonic() - started},
            "images_per_second": trained.images_per_second,
            "scores": {experiment.scoring.title: fold_score},
        }
        run.write(record)
        run.checkpoint.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    plainly = "" if experiment.scoring.rule == "argmax" else " before a decision rule"
    say(
        f"{key}: {experiment.scoring.title} {fold_score:.4f}{plainly} ({len(held_out)} rows), "
        f"{trained.seconds:.1f} s, {trained.images_per_second:.0f} images/s"
    )
    del trainer, trained
    gc.collect()  # accelerate ties models into cycles; a GPU cannot wait for those to be noticed


def _told(key: RunKey, error: Exception) -> Exception:
    """The error as the user is told it: with its run, where it is one that the user can mend."""
    if isinstance(error, torch.OutOfMemoryError):
        advice = "halve training.batch_size and double training.accumulate"
        return KitError(f"{key}: the GPU's memory is too small; {advice}")
    return type(error)(f"{key}: {error}") if isinstance(error, KitError) else error


def trainer_of(
    key: RunKey, prepared: Prepared, run: RunDir, accelerator: Accelerator, policy: RatePolicy | None = None
) -> Trainer:
    """The Trainer of one run, its model built from the run's seed; under `policy` instead of the run's own."""
    experiment, competition = prepared.experiment, prepared.competition
    model = build_model(
        experiment.model, len(competition.classes), experiment.data.channels, experiment.data.size, key.seed
    )
    config = experiment.policies[key.policy]
    fold = FoldData(
        images=prepared.train,
        targets=competition.targets,
        train_rows=prepared.plan.training_rows(key.fold),
        valid_rows=prepared.plan.validation_rows(key.fold),
        classes=competition.classes,
    )
    groups = depth_groups(model, config.groups)
    recipe = prepared.recipe
    probes = recipe.training.probes
    if probes and probes.runs == "first" and not _is_first(key, experiment):
        recipe = dataclasses.replace(recipe, training=recipe.training.model_copy(update={"probes": None}))
    return Trainer(model, groups, policy or config.build(), fold, recipe, key.seed, accelerator, run)


def _is_first(key: RunKey, experiment: ExperimentConfig) -> bool:
    return (key.seed, key.fold) == (experiment.seeds[0], experiment.folds.chosen[0])


def _test_predictions(probabilities: np.ndarray, prior: np.ndarray, prepared: Prepared) -> pd.DataFrame:
    """Of all test rows, those whose image cannot be read with the prior: the mean prediction of held-out rows."""
    competition = prepared.competition
    frame = predictions(prepared.test.ids, probabilities, competition.classes)
    rest = pd.Index(competition.test_ids).difference(prepared.test.ids, sort=False)
    priors = predictions(rest, np.tile(prior, (len(rest), 1)), competition.classes)
    return pd.concat([frame, priors]).loc[competition.test_ids].rename_axis("id")


def _save_weights(model: nn.Module, path: Path) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary)


def predict_test_anew(policy: str, prepared: Prepared, folder: ExperimentDir, say: Say) -> None:
    """Predicts the test set with the saved weights of runs that saw another one."""
    for run in folder.runs(policy):
        record = run.read()
        if not run.finished or record["test"] == prepared.test_digest:
            continue
        key = RunKey(policy, record["seed"], record["fold"])
        accelerator = make_accelerator(prepared.experiment.training)
        trainer = trainer_of(key, prepared, run, accelerator)
        trainer.load_weights(load_file(run.weights))
        test = trainer.predict(prepared.test, range(len(prepared.test)))
        if accelerator.is_main_process:
            prior = read_predictions(run.oof).to_numpy().mean(axis=0)
            write_predictions(_test_predictions(test, prior, prepared), run.test)
            run.write(record | {"test": prepared.test_digest})
        accelerator.wait_for_everyone()
        say(f"{key}: the test set has changed; predicted it with the saved weights")
