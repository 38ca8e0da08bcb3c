"""Runs executed: set up from the command's options, trained one after the other or side by side, written down."""

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
from accelerate import Accelerator, PartialState
from safetensors.torch import load_file, save_file
from torch import nn

from kit.core.errors import Diverged, KitError
from kit.core.files import atomic, need_writable
from kit.core.paths import Places
from kit.core.runs import ExperimentDir, RunDir, RunKey, predictions, read_predictions, write_predictions
from kit.core.settings import fingerprint
from kit.data.loading import worker_count
from kit.experiment.config import Experiment
from kit.experiment.parallel import side_by_side
from kit.experiment.prepare import Prepared, Say, prepare
from kit.lr import Policy
from kit.model.build import build_model
from kit.model.groups import depth_groups
from kit.training.device import make_accelerator, process_state, resolve_precision
from kit.training.trainer import Fold, Trainer

PACKAGES = ("torch", "torchvision", "timm", "albumentations", "accelerate", "numpy", "scikit-learn", "pandas")
MARGIN = 1.3  # a run may take this much longer than the slowest before it


@dataclass(frozen=True)
class Bench:
    """An experiment that is ready to train.

    jobs      runs side by side; auto: one on each GPU
    deadline  of time.monotonic, beyond which no run is to go
    """

    prepared: Prepared
    folder: ExperimentDir
    places: Places
    state: PartialState
    jobs: int | Literal["auto"]
    deadline: float
    say: Say

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.state.is_main_process

    def train(self, keys: Sequence[RunKey], what: str = "", tolerant: bool = False) -> int:
        """Trains those of the runs that are not finished yet; returns how many are left for want of time.

        what      they are for, told beside their number
        tolerant  a training that diverges is told and left at that, now and the next time
        """
        experiment, folder = self.prepared.experiment, self.folder
        due = self.due(keys, tolerant)
        runs = f"{what} runs" if what else "runs"
        if len(due) < len(keys):
            self.say(f"{len(keys) - len(due)} of {len(keys)} {runs} are finished already")
        jobs = _side_by_side(self.jobs, experiment, self.state.num_processes, len(due))
        if due:
            self.say(
                self._announcement(f"1 {runs.removesuffix('s')}" if len(due) == 1 else f"{len(due)} {runs}", jobs)
            )
        self.state.wait_for_everyone()  # nobody begins to write before all have seen what is due
        begun = _in_time(due, folder, self.deadline)
        if jobs > 1:
            sharing = _sharing_cores(self.prepared, jobs, self.state.device.type == "cuda")
            tasks = ((key, sharing, folder.run(key), tolerant) for key in begun)
            for _ in side_by_side(_execute_aside, tasks, jobs):
                pass
        else:
            for key in begun:
                _execute(key, self.prepared, folder.run(key), self.say, tolerant)
        return len(self.due(due, tolerant))

    def due(self, keys: Sequence[RunKey], tolerant: bool = False) -> list[RunKey]:
        """Those of the runs that `train` would train."""
        return [key for key in keys if not (self.folder.run(key).finished or (tolerant and self._diverged(key)))]

    def within(self, fold: int, folder: ExperimentDir) -> "Bench":
        """For trainings that see nothing of a fold, in a folder of their own."""
        plan = dataclasses.replace(self.prepared.plan, unused=fold)
        depends_on = self.prepared.depends_on | {"folds": plan.digest}
        return dataclasses.replace(
            self, prepared=dataclasses.replace(self.prepared, plan=plan, depends_on=depends_on), folder=folder
        )

    def _diverged(self, key: RunKey) -> bool:
        """Whether this very training was tried and diverged."""
        run = self.folder.run(key)
        return run.diverged and run.read()["fingerprint"] == fingerprint(self.prepared.dependencies(key))

    def _announcement(self, runs: str, jobs: int) -> str:
        experiment, prepared = self.prepared.experiment, self.prepared
        precision = resolve_precision(experiment.training.precision, experiment.training.device == "cpu")
        how = f"{jobs * self.state.num_processes} × {self.state.device.type}, {precision}"
        rows = f"{len(prepared.train)} training and {len(prepared.test)} test rows"
        return f"{experiment.name}: {runs} of {experiment.model.name} on {how}; {rows}"


def set_up(
    experiment: Experiment,
    output: str | Path = ".",
    replace: bool = False,
    say: Say = lambda line: None,
    *,
    folds: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | Literal["auto"] = "auto",
    seconds: float | None = None,
) -> Bench:
    """Checks everything that can be wrong, and prepares the data. Arguments: see `kit.experiment.run.run`."""
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    places = Places(Path(output).expanduser(), Path(cache).expanduser() if cache else None)
    for path in (places.runs, places.cache, places.submissions):
        need_writable(path)
    folder = ExperimentDir(places.runs / experiment.name)
    state = process_state(experiment.training)
    main = state.is_main_process
    if seconds is not None and state.num_processes > 1:
        raise KitError("--seconds: each of torchrun's processes would go by its own clock; use one of the two")
    if not main:
        say = lambda line: None  # noqa: E731
    with state.main_process_first():
        plan = Path(folds).expanduser() if folds else None
        prepared = prepare(experiment, folder, places, replace and main, say, shown=main, folds=plan)
    return Bench(prepared, folder, places, state, jobs, deadline, say)


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


def _execute_aside(task: tuple[RunKey, Prepared, RunDir, bool]) -> None:
    """`_execute`, in a process of its own (see `side_by_side`)."""
    key, prepared, run, tolerant = task
    _execute(key, prepared, run, lambda line: print(line, flush=True), tolerant)


def _execute(key: RunKey, prepared: Prepared, run: RunDir, say: Say, tolerant: bool = False) -> None:
    """Trains one run, predicts held-out and test rows, and writes its folder; `tolerant` as in `Bench.train`."""
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
    recipe = prepared.recipe
    probes = recipe.training.probes
    if probes and probes.runs == "first" and not _is_first(key, experiment):
        recipe = dataclasses.replace(recipe, training=recipe.training.model_copy(update={"probes": None}))
    return Trainer(model, groups, policy or config.build(), fold, recipe, key.seed, accelerator, run)


def _is_first(key: RunKey, experiment: Experiment) -> bool:
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
