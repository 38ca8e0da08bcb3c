"""Images a second: the kit's loop, a bare loop on one resident batch (the floor), and fastai where installed.

    PYTHONPATH=. python benchmarks/throughput.py --model resnet18 --size 128 --batch 32

All three train the same timm model from the same PNG files under AdamW in the same precision; they take
turns for `--rounds` rounds of `--steps` updates, and each round's ratios are formed within the round, so
that a machine whose speed drifts does not favour one of them. The first `--warmup` updates of each turn
are not counted. The bare loop decodes, augments and moves nothing.
"""

import argparse
import platform
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.prepare import TrainingData, prepare, run_keys
from kit.experiment.train_run import trainer_of
from kit.training.device import make_accelerator

CLASSES = 10


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_images(Path(scratch) / "data", options)
        experiment = describe(folder, options)
        dirs = OutputDirs(Path(scratch))
        loaded, data = prepare(experiment, ExperimentDir(dirs.runs / "bench"), dirs, shown=False)
        contenders = {
            "kit": lambda: time_kit(loaded, data, scratch, options),
            "bare": lambda: time_bare(options),
        }
        if fastai_version():
            contenders["fastai"] = lambda: time_fastai(folder, options)
        speeds = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, turn in contenders.items():
                speeds[name].append(turn())
    show(speeds, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12, help="updates a turn, the warm-up not counted")
    parser.add_argument("--warmup", type=int, default=2, help="updates before the clock starts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--augment", default="light", choices=["none", "light", "medium", "heavy"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "fp16", "bf16"])
    return parser.parse_args()


def write_images(folder: Path, options: argparse.Namespace) -> Path:
    """A competition of random images, enough for one turn without repeats in an epoch."""
    generator = np.random.default_rng(0)
    rows = 2 * options.batch * (options.steps + options.warmup)
    (folder / "train").mkdir(parents=True)
    for row in range(rows):
        pixels = generator.integers(0, 256, (options.size, options.size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train" / f"{row}.png", compress_level=1)
    table = pd.DataFrame({"id": range(rows), "label": [row % CLASSES for row in range(rows)]})
    table.to_csv(folder / "train.csv", index=False)
    table.head(0).to_csv(folder / "sample_submission.csv", index=False)
    return folder


def describe(folder: Path, options: argparse.Namespace) -> ExperimentConfig:
    return validate(
        {
            "name": "bench",
            "competition": {"path": str(folder), "test": None, "train_images": "train/{id}.png"},
            "folds": {"k": 2},
            "data": {"size": options.size, "augment": options.augment},
            "model": {"name": options.model},
            "policies": {"uniform": {"lr": 1e-3}},
            "training": {"epochs": 1, "batch_size": options.batch, "precision": options.precision},
        },
        "benchmark",
    )


class Stopwatch:
    """Images a second from the end of the warm-up to the last update of a turn."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.started = options, 0.0

    def __call__(self, step: int) -> None:
        """To be called after update number `step`."""
        if step in (self.options.warmup - 1, self.options.warmup + self.options.steps - 1):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.started, self.seconds = now, now - self.started

    @property
    def speed(self) -> float:
        return self.options.steps * self.options.batch / self.seconds


def time_kit(loaded: LoadedExperiment, data: TrainingData, scratch: str, options: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        key = run_keys(loaded.config)[0]
        trainer = trainer_of(key, loaded, data, RunDir(Path(folder)), make_accelerator(loaded.config.training))
        watch = Stopwatch(options)
        trainer.evaluate = lambda: np.full((len(trainer.fold.valid_rows), CLASSES), 1 / CLASSES, np.float32)
        trainer.train("kit", on_step=watch)
        return watch.speed


def time_bare(options: argparse.Namespace) -> float:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model(options.model, num_classes=CLASSES).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inputs = torch.randn(options.batch, 3, options.size, options.size, device=device)
    inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES, (options.batch,), device=device)
    kind = autocast_type(options, device)
    watch = Stopwatch(options)
    for step in range(options.warmup + options.steps):
        with torch.autocast(device, kind) if kind else nullcontext():
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        watch(step)
    return watch.speed


def time_fastai(folder: Path, options: argparse.Namespace) -> float:
    """fastai as its documentation uses it: workers by its default on a GPU, none on a CPU."""
    from fastai.vision.all import (
        Adam,
        Callback,
        ImageDataLoaders,
        Learner,
        Resize,
        aug_transforms,
    )

    table = pd.read_csv(folder / "train.csv").head(options.batch * (options.steps + options.warmup))
    table["id"] = [f"train/{row}.png" for row in table["id"]]
    cuda = torch.cuda.is_available()
    loaders = ImageDataLoaders.from_df(
        table,
        folder,
        valid_pct=0,
        bs=options.batch,
        item_tfms=Resize(options.size),
        batch_tfms=None if options.augment == "none" else aug_transforms(size=options.size),
        num_workers=None if cuda else 0,
        device=torch.device("cuda" if cuda else "cpu"),
    )
    watch = Stopwatch(options)

    class Watch(Callback):
        def after_batch(self):
            watch(self.iter)

    model = timm.create_model(options.model, num_classes=CLASSES).to(memory_format=torch.channels_last)
    learner = Learner(loaders, model, torch.nn.CrossEntropyLoss(), opt_func=Adam, cbs=Watch(), path=folder)
    kind = autocast_type(options, "cuda" if cuda else "cpu")
    if kind:
        learner = learner.to_bf16() if kind is torch.bfloat16 else learner.to_fp16()
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    return watch.speed


def autocast_type(options: argparse.Namespace, device: str) -> torch.dtype | None:
    from kit.training.device import resolve_precision

    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(
        resolve_precision(options.precision, device == "cpu")
    )


def fastai_version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastai")
    except PackageNotFoundError:
        return None


def show(speeds: dict[str, list[float]], options: argparse.Namespace) -> None:
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"\n{options.model}, {options.size} px, batch {options.batch}, augment {options.augment}, {device}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"fastai {fastai_version() or 'not installed'}"
    )
    print(f"{options.rounds} rounds of {options.steps} updates; median (lowest to highest)\n")
    for name, values in speeds.items():
        ratios = [value / floor for value, floor in zip(values, speeds["bare"], strict=True)]
        print(
            f"{name:7}{statistics.median(values):9.1f} images/s ({min(values):.1f} to {max(values):.1f})"
            f"{statistics.median(ratios):9.3f} of bare ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
