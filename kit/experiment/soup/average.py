"""One fold's soup: the mean of the weights of its seeds, its folder written like that of a training."""

import gc
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch
from safetensors.torch import load_file

from kit.core.errors import Damaged, KitError, Say, some
from kit.core.runs import (
    SOUP,
    TRAINED_ANEW,
    ExperimentDir,
    RunDir,
    RunKey,
    RunRecord,
    predictions,
    write_predictions,
)
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import as_now, config_digest
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pixels import test_pixels_digest
from kit.experiment.prepare import TrainingData
from kit.experiment.run_clock import RunClock
from kit.experiment.train_run import beginning_anew, first_record, test_predictions, trainer_of, unread_rows
from kit.scoring.f1 import plain_score
from kit.training.device import make_accelerator
from kit.training.memory import END_OTHERS, advising_on_memory
from kit.training.saved_weights import save_weights
from kit.training.trainer import Trainer

Weights = dict[str, torch.Tensor]


def make_soup(
    key: RunKey,
    loaded: LoadedExperiment,
    data: TrainingData,
    say: Say,
    clock: RunClock,
    need: Callable[[], None],
) -> None:
    """Average the weights of a fold's seeds, predict held-out and test rows, and write the run's folder.

    Parameters, and what is raised, are those of `kit.experiment.train_run.train_run`; it always begins anew.
    """
    gc.collect()  # a training before it left its model behind
    run, config = loaded.folder.run(key), loaded.config
    accelerator = make_accelerator(config.training)
    record = first_record(key, loaded, data, accelerator, SOUP)
    with beginning_anew(key, run, record, need), advising_on_memory(END_OTHERS):
        members = members_of(loaded, key)
        with closing(trainer_of(key, loaded, data, run, accelerator, say=say)) as trainer:
            trainer.take(mean_weights(members))
            oof, test = trainer.evaluate(), trainer.predict(data.test, range(len(data.test)))
            _write(run, loaded, data, trainer, oof, test, need)
        last = _last(record, members, loaded, data, trainer, oof, clock)
        need()
        run.write(last.with_fields(files=run.digests()))
    score = last.scores[config.scoring.key]
    say(f"{key}: {config.scoring.title} {score:.4f} by the mean of {len(members)} models' weights")


def members_of(loaded: LoadedExperiment, key: RunKey) -> list[RunDir]:
    """Return the runs whose weights a fold's soup is the mean of.

    Raises
    ------
    KitError
        Where one is missing, was trained otherwise, or did not begin as the others did.
    """
    config, soup = loaded.config, loaded.config.soup
    assert soup, "only to be asked of a soup"
    source = ExperimentDir(loaded.folder.path.parent / soup.of)
    runs = [source.run(RunKey(key.policy, seed, key.fold)) for seed in soup.seeds]
    if lacking := [str(run.path) for run in runs if not run.finished]:
        raise KitError(f"{some(lacking, 3)} is not finished; python -m kit run trains it")
    need_same_beginning(config, runs)
    trained = config.model_copy(update={"soup": None})
    wanted = loaded.dependencies(key) | {"config": config_digest(trained)}
    for run in runs:
        then = as_now(run.record.depends_on, trained)
        if odd := [name for name in wanted if name != "seed" and then.get(name) != wanted[name]]:
            raise KitError(
                f"{run.path} was trained under another {' and '.join(odd)} than the soup's; make the soup anew "
                "with python -m kit soup"
            )
    return runs


def need_same_beginning(config: ExperimentConfig, runs: Sequence[RunDir]) -> None:
    """Raise KitError where models did not begin from the same weights, or only a network's own code may know it.

    Parameters
    ----------
    config : ExperimentConfig
        What trained them.
    runs : sequence of RunDir
        Finished ones; those of networks that load weights by themselves tell whether all began alike.
    """
    if config.model.weights != "none":
        return
    own = config.model.own(config.model.name)
    if own is None:
        raise KitError(
            "model.weights: none: each seed began from random weights of its own, and the mean of such models is "
            "no model, as their features lie in other places; a soup takes models that began from the same "
            "pretrained weights"
        )
    began = {run.record.initial_weights for run in runs}
    if len(began) > 1 or None in began:
        raise KitError(
            f"model.weights: none: {own.reference} began with other weights under each seed (initial_weights in "
            "run.json), and whether it drew all of them, so that a mean would be no model, or some, only its code "
            "knows; name the file of its weights, head included, in model.weights, and train with that"
        )


def mean_weights(runs: Sequence[RunDir]) -> Weights:
    """Return the mean of the weights of runs, by name; whole numbers are those of the first.

    Raises
    ------
    Damaged
        Where a file is not what the run wrote, or of another model than the first.
    """
    total: Weights = {}
    for number, run in enumerate(runs):
        path = run.checked(run.weights)
        try:
            weights = load_file(path)
        except Exception as error:  # safetensors raises its own kinds
            raise Damaged(f"{path} is damaged ({' '.join(str(error).split())[:200]}); {TRAINED_ANEW}") from error
        if not number:
            kinds = {name: value.dtype for name, value in weights.items()}
            total = {
                name: value.double() if value.is_floating_point() else value for name, value in weights.items()
            }
            continue
        if odd := [name for name in {**total, **weights} if _shape(total, name) != _shape(weights, name)]:
            raise Damaged(f"{path} is of another model than {runs[0].weights} ({some(odd, 3)}); {TRAINED_ANEW}")
        for name, value in weights.items():
            if value.is_floating_point():
                total[name] += value
    means = {name: value / len(runs) if value.is_floating_point() else value for name, value in total.items()}
    return {name: value.to(kinds[name]) for name, value in means.items()}


def _shape(weights: Weights, name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


def _write(
    run: RunDir,
    loaded: LoadedExperiment,
    data: TrainingData,
    trainer: Trainer,
    oof: np.ndarray,
    test: np.ndarray,
    need: Callable[[], None],
) -> None:
    competition = loaded.competition
    ids = [competition.ids[row] for row in trainer.fold.valid_rows]
    need()
    write_predictions(predictions(ids, oof, competition.classes), run.oof)
    write_predictions(test_predictions(test, oof.mean(axis=0), competition, data.test), run.test)
    save_weights(trainer.final_model, run.weights)


def _last(
    record: RunRecord,
    members: Sequence[RunDir],
    loaded: LoadedExperiment,
    data: TrainingData,
    trainer: Trainer,
    oof: np.ndarray,
    clock: RunClock,
) -> RunRecord:
    scoring, truth = loaded.config.scoring, loaded.competition.targets[trainer.fold.valid_rows]
    return record.with_fields(
        status="finished",
        test=loaded.test_digest,
        test_pixels=test_pixels_digest(data.test),
        predicted=trainer.predictor.chosen.form(),
        unread=unread_rows(loaded.competition, data.test),
        never=loaded.competition.without_rows,
        groups={group.label: group.n_params for group in trainer.groups},
        seconds={"whole": clock.seconds},
        scores={scoring.key: plain_score(oof, truth, scoring)},
        soup={run.record.key.place: run.record.files[run.weights.name] for run in members},
    )
