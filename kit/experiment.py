"""Policies × seeds × folds: training what is not there yet, pooling, submitting."""

import dataclasses
import gc
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition, load_competition
from kit.config import Experiment
from kit.data.loading import worker_count
from kit.errors import KitError, some
from kit.files import atomic, need_writable
from kit.identity import fold_plan, stored_experiment, test_digest
from kit.launch import side_by_side
from kit.locate import Places
from kit.lr import Policy
from kit.model.build import build_model
from kit.model.groups import depth_groups
from kit.pooling import PolicyResult, pool_policy
from kit.preparation import Prepared, Say, prepare, run_keys
from kit.report.curves import draw_curves
from kit.runs import ExperimentDir, RunDir, RunKey, predictions, read_predictions, write_predictions
from kit.settings import fingerprint
from kit.training.device import make_accelerator, process_state, resolve_precision
from kit.training.loop import Fold, Trainer

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "accelerate", "numpy", "scikit-learn", "pandas")
MARGIN = 1.3  # a run may take this much longer than the slowest before it


@dataclass(frozen=True)
class Result:
    """What `run` made: the folder, how many runs were trained now and were there, results by policy.

    left  runs that were not begun, as the time would not have sufficed; policies of which none is finished have
          no results
    """

    folder: Path
    trained: int
    kept: int
    policies: dict[str, PolicyResult]
    left: int = 0


def run(
    experiment: Experiment,
    output: str | Path = ".",
    replace: bool = False,
    say: Say = lambda line: None,
    *,
    folds: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | Literal["auto"] = "auto",
    seconds: float | None = None,
) -> Result:
    """Trains every policy × seed × fold that is not there yet, pools them and writes the submissions.

    output   the folder that holds runs/, submissions/ and cache/
    replace  starts anew where the experiment of this name was made from another config or other data
    say      takes lines about what happens
    folds    a fold plan to follow (CSV with columns id and fold), instead of one made here
    cache    the folder of decoded images, instead of output/cache
    jobs     runs side by side; auto: as many as there are GPUs, one a GPU
    seconds  from now, beyond which no run is to go: none is begun that would, judged by the slowest so far; the
             first always is. What is finished is pooled, and the same call trains the others

    Raises KitError, before any training, for everything in the config or the data that cannot work.
    """
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    places = Places(Path(output).expanduser(), Path(cache).expanduser() if cache else None)
    for path in (places.runs, places.cache, places.submissions):
        need_writable(path)
    folder = ExperimentDir(places.runs / experiment.name)
    state = process_state(experiment.training)
    main, cpu = state.is_main_process, experiment.training.device == "cpu"
    if seconds is not None and state.num_processes > 1:
        raise KitError("--seconds: each of torchrun's processes would go by its own clock; use one of the two")
    if not main:
        say = lambda line: None  # noqa: E731
    with state.main_process_first():
        plan = Path(folds).expanduser() if folds else None
        prepared = prepare(experiment, folder, places, replace and main, say, shown=main, folds=plan)
    keys = run_keys(experiment)
    due = [key for key in keys if not folder.run(key).finished]
    if len(due) < len(keys):
        say(f"{len(keys) - len(due)} of {len(keys)} runs are finished already")
    jobs = _side_by_side(jobs, experiment, state.num_processes, len(due))
    if due:
        precision = resolve_precision(experiment.training.precision, cpu)
        how = f"{jobs * state.num_processes} × {state.device.type}, {precision}"
        rows = f"{len(prepared.train)} training and {len(prepared.test)} test rows"
        runs = "1 run" if len(due) == 1 else f"{len(due)} runs"
        say(f"{experiment.name}: {runs} of {experiment.model.name} on {how}; {rows}")
    state.wait_for_everyone()  # nobody begins to write before all have seen what is due
    begun = _in_time(due, folder, deadline)
    if jobs > 1:
        sharing = _sharing_cores(prepared, jobs, state.device.type == "cuda")
        for _ in side_by_side(_execute_aside, ((key, sharing, folder.run(key)) for key in begun), jobs):
            pass
    else:
        for key in begun:
            _execute(key, prepared, folder.run(key), say)
    left = sum(not folder.run(key).finished for key in due)
    for policy in experiment.policies:
        _predict_test_anew(policy, prepared, folder, say)
    results = {
        policy: _pool(policy, experiment, prepared.competition, prepared.plan, folder, places, main)
        for policy in experiment.policies
        if any(run.finished for run in folder.runs(policy))
    }
    if main and (due or not folder.curves.is_file()):
        draw_curves(folder, experiment.scoring.title, tuple(stored_experiment(folder).policies))
    return Result(folder.path, len(due) - left, len(keys) - len(due), results, left)


def pool(experiment: Experiment, output: str | Path = ".") -> Result:
    """Pools the finished runs that are there and writes the submissions, without training anything.

    Raises KitError where there is none, or where they are of another config or other data.
    """
    places = Places(Path(output).expanduser())
    folder = ExperimentDir(places.runs / experiment.name)
    competition = load_competition(experiment.competition)
    plan, reason = fold_plan(experiment, folder, competition, places)
    if reason:
        raise KitError(f"{folder.path} was made from {reason}, so it is not pooled with this config and data")
    finished = {policy: [run for run in folder.runs(policy) if run.finished] for policy in experiment.policies}
    seen = test_digest(competition)
    if strange := [run for runs in finished.values() for run in runs if run.read()["test"] != seen]:
        raise KitError(
            f"{len(strange)} runs predicted another test set than the one in {competition.folder}; the command "
            "`python -m kit run` predicts it anew with their weights"
        )
    if not any(finished.values()):
        raise KitError(f"{folder.path} holds no finished run of {some(experiment.policies)}")
    if not folder.config.is_file():
        raise KitError(f"{folder.config} does not exist; bring it along with the runs it belongs to")
    results = {
        policy: _pool(policy, experiment, competition, plan, folder, places, write=True)
        for policy, runs in finished.items()
        if runs
    }
    draw_curves(folder, experiment.scoring.title, tuple(stored_experiment(folder).policies))
    return Result(folder.path, 0, sum(map(len, finished.values())), results)


def _side_by_side(wanted: int | str, experiment: Experiment, processes: int, due: int) -> int:
    """How many runs to train at a time."""
    if processes > 1:
        if wanted not in ("auto", 1):
            raise KitError("--jobs: torchrun shares out every run already; use one of the two")
        return 1
    if wanted == "auto":
        wanted = torch.cuda.device_count() if experiment.training.device == "auto" else 1
    return max(1, min(wanted, due))


def _in_time(due: Sequence[RunKey], folder: ExperimentDir, deadline: float) -> Iterator[RunKey]:
    """The runs, as one after the other is asked for, until a further one would go beyond the deadline
    (of time.monotonic); the first in any case."""
    begun: dict[RunKey, float] = {}  # of those that may be under way
    slowest = 0.0
    for key in due:
        now = time.monotonic()
        # One that is under way takes at least as long as it has taken already.
        slowest = max([slowest, *(now - then for then in begun.values())])
        if key != due[0] and now + MARGIN * slowest > deadline:
            return
        begun = {other: then for other, then in begun.items() if not folder.run(other).finished} | {key: now}
        yield key


def _sharing_cores(prepared: Prepared, jobs: int, on_gpu: bool) -> Prepared:
    """For one of so many runs side by side: where the number of data workers is `auto`, its share of them."""
    workers = worker_count(prepared.recipe.data.workers, on_gpu, jobs)
    data = prepared.recipe.data.model_copy(update={"workers": workers})
    return dataclasses.replace(prepared, recipe=dataclasses.replace(prepared.recipe, data=data))


def _execute_aside(task: tuple[RunKey, Prepared, RunDir]) -> None:
    """`_execute`, in a process of its own (see `side_by_side`)."""
    _execute(*task, say=lambda line: print(line, flush=True))


def _execute(key: RunKey, prepared: Prepared, run: RunDir, say: Say) -> None:
    """Trains one run, predicts its held-out and test rows, and writes its folder."""
    experiment, competition = prepared.experiment, prepared.competition
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
        if main:
            run.write(record | {"status": "failed", "error": str(error)})
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
    return KitError(f"{key}: {error}") if isinstance(error, KitError) else error


def trainer_of(
    key: RunKey, prepared: Prepared, run: RunDir, accelerator: Accelerator, policy: Policy | None = None
) -> Trainer:
    """The Trainer of one run, its model built from the run's seed; under `policy` instead of the run's own."""
    experiment, competition = prepared.experiment, prepared.competition
    model = build_model(
        experiment.model, len(competition.classes), experiment.data.channels, experiment.data.size, key.seed
    )
    config = experiment.policies[key.policy]
    fold = Fold(
        images=prepared.train,
        targets=competition.targets,
        train_rows=prepared.plan.training_rows(key.fold),
        valid_rows=prepared.plan.validation_rows(key.fold),
        classes=competition.classes,
    )
    groups = depth_groups(model, config.groups)
    return Trainer(model, groups, policy or config.build(), fold, prepared.recipe, key.seed, accelerator, run)


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


def _predict_test_anew(policy: str, prepared: Prepared, folder: ExperimentDir, say: Say) -> None:
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


def _pool(
    policy: str,
    experiment: Experiment,
    competition: Competition,
    plan: FoldPlan,
    folder: ExperimentDir,
    places: Places,
    write: bool,
) -> PolicyResult:
    submission = places.submissions / f"{_submission_name(policy, experiment, folder)}.csv"
    return pool_policy(policy, experiment, competition, plan, folder, submission, write)


def _submission_name(policy: str, experiment: Experiment, folder: ExperimentDir) -> str:
    """<experiment> for the policy it began with, <experiment>+<policy> (no name holds a +) for later ones."""
    first = next(iter(stored_experiment(folder).policies))
    return experiment.name if policy == first else f"{experiment.name}+{policy}"
