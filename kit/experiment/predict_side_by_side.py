"""Saved models that predict on all GPUs of this machine: whole models each, and what is left over in parts."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import pandas as pd
import torch
from accelerate import Accelerator

from kit.core.errors import KitError, Say
from kit.core.processes import need_guard
from kit.core.runs import RunDir
from kit.data.images import ReadableImages
from kit.data.loading import EvaluationLoader, worker_count
from kit.experiment.config import ExperimentConfig
from kit.experiment.parallel import run_parallel
from kit.experiment.predict import Made, predict_with, predicting, waiting_for
from kit.experiment.view_clock import ViewClock

ENOUGH = 5000  # images, counted for each model: with fewer, processes take longer to begin than they save


def gpus_for(accelerator: Accelerator, models: int, rows: int, say: Say) -> int:
    """Return on how many GPUs models predict: all of this machine's, or one where that is not worth it.

    Processes that torchrun started share the rows already. A script that would begin anew in each process is told
    so, and predicts on one.
    """
    alone = accelerator.device.type != "cuda" or accelerator.num_processes > 1
    if alone or models * rows < ENOUGH or (gpus := torch.cuda.device_count()) < 2:
        return 1
    try:
        need_guard("spawn")
    except KitError as error:
        say(f"predicts on one of {gpus} GPUs: {error}")
        return 1
    return gpus


@dataclass(frozen=True)
class Part:
    """A model, and the rows that one GPU predicts with it.

    Attributes
    ----------
    number : int
        The model's place among the models.
    place : int
        Of this part among those of the model.
    run : RunDir
    experiment : ExperimentConfig
    readable : ReadableImages
        With the rows of this part.
    deadline : float
        By `time.monotonic`, which is one for all processes of a machine.
    models : int
        How many of such parts its GPU has to predict until then, this one included.
    """

    number: int
    place: int
    run: RunDir
    experiment: ExperimentConfig
    readable: ReadableImages
    deadline: float
    models: int

    def __str__(self) -> str:
        return f"{self.run.path.parent.name} {self.run.path.name}"


@dataclass(frozen=True)
class _Predicted:
    number: int
    place: int
    frame: pd.DataFrame
    in_one_view: bool
    seconds: float


def parts_of(
    experiment: ExperimentConfig, runs: Sequence[RunDir], readable: ReadableImages, jobs: int, deadline: float
) -> Iterator[Part]:
    """Yield what `jobs` GPUs predict: whole models while there is one for each, then those left over in parts."""
    workers = worker_count(experiment.data.workers, True, jobs)
    data = experiment.data.model_copy(update={"workers": workers})
    experiment = experiment.model_copy(update={"data": data})
    whole = len(runs) - len(runs) % jobs
    for number, run in enumerate(runs):
        count = 1 if number < whole else jobs
        models = -(-(whole - number) // jobs) + (whole < len(runs)) if number < whole else len(runs) - number
        rows, each = readable.rows, -(-len(readable.rows) // count)
        for place in range(count):
            if mine := rows[place * each : (place + 1) * each]:
                images = dataclasses.replace(readable, rows=mine)
                yield Part(number, place, run, experiment, images, deadline, models)


def predict_side_by_side(
    experiment: ExperimentConfig,
    runs: Sequence[RunDir],
    readable: ReadableImages,
    jobs: int,
    deadline: float,
    say: Say,
) -> Made:
    """Return what `predict_all` does, of models that predict on `jobs` GPUs at a time."""
    say(f"predicts on {jobs} GPUs")
    parts = list(parts_of(experiment, runs, readable, jobs, deadline))
    predicted: dict[int, list[_Predicted]] = {number: [] for number in range(len(runs))}
    for each in run_parallel(_predict_part, parts, jobs):
        predicted[each.number].append(each)
        if sum(len(one.frame) for one in predicted[each.number]) == len(readable.rows):
            run = runs[each.number].path
            say(f"{run.parent.name} {run.name}: {max(one.seconds for one in predicted[each.number]):.1f} s")
    joined = []
    for number, of_model in predicted.items():
        frame = pd.concat([one.frame for one in sorted(of_model, key=lambda one: one.place)])
        joined.append((number, frame, any(one.in_one_view for one in of_model)))
    made = in_order(joined, len(readable.rows))
    ids = [readable.images.ids[row] for row in readable.rows]
    for number, frame, _ in made:
        if len(frame) == len(ids) and list(frame.index) != ids:
            raise KitError(f"{runs[number].path}: what a process predicted is of other rows")
    if 0 < len(made) < len(runs):
        say(f"the time allows no more than {len(made)} of {len(runs)} models")
    frames = [(runs[number].record.fold, frame) for number, frame, _ in made]
    return Made(readable, frames, sum(in_one_view for *_, in_one_view in made))


def _predict_part(part: Part) -> _Predicted:
    """Predict a part in a process of its own, which sees one GPU."""
    began = time.monotonic()
    with closing(EvaluationLoader()) as loader:
        accelerator = predicting(part.experiment.training, _print)
        wait = waiting_for(accelerator)
        clock = ViewClock(part.models, len(part.readable.rows), part.deadline, _print, wait)
        made = predict_with(part.experiment, part.run, part.readable, accelerator, loader, clock, _print)
        if made is None:  # its time was over before it began
            made = part.run.read_oof().iloc[:0]
    return _Predicted(part.number, part.place, made, clock.reduced, time.monotonic() - began)


def in_order(made: Sequence[tuple[int, pd.DataFrame, bool]], rows: int) -> list[tuple[int, pd.DataFrame, bool]]:
    """Return what models predicted, in their order: those that did all rows; else the one that got furthest.

    Each is its number, a row an image, and whether that is in one view for want of time.
    """
    ordered = sorted(made, key=lambda each: each[0])
    whole = [each for each in ordered if len(each[1]) == rows]
    started = [each for each in ordered if len(each[1])]
    return whole or sorted(started, key=lambda each: -len(each[1]))[:1]


def _print(line: str) -> None:
    print(line, flush=True)
