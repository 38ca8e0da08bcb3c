"""An epoch with the head alone beside a full one: what frozen depth saves, ResNet-18.

    PYTHONPATH=. python benchmarks/frozen_epoch.py

The kit's loop on random images, one policy that freezes all but the head and one that freezes nothing, in turns.
`norms learn` is fastai's way (`train_norm: true`): the gradient has to pass through the network to reach them.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from throughput import write_images

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.experiment.config import validate
from kit.experiment.prepare import prepare
from kit.experiment.train_run import trainer_of
from kit.training.device import make_accelerator

POLICIES = {
    "full": {"lr": 1e-3},
    "head only": {"lr": 1e-3, "freeze_to": -1, "train_norm": False},
    "head only, norms learn": {"lr": 1e-3, "freeze_to": -1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15, help="updates an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.warmup = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_images(Path(scratch) / "data", options)
        names = {name: name.replace(" ", "-").replace(",", "") for name in POLICIES}
        experiment = validate(
            {
                "name": "bench",
                "competition": {"path": str(folder), "test": None, "train_images": "train/{id}.png"},
                "folds": {"k": 2},
                "data": {"size": options.size, "augment": "light"},
                "model": {"name": options.model},
                "policies": {names[name]: policy for name, policy in POLICIES.items()},
                "training": {"epochs": 1, "batch_size": options.batch},
            },
            "benchmark",
        )
        dirs = OutputDirs(Path(scratch))
        loaded, data = prepare(experiment, ExperimentDir(dirs.runs / "bench"), dirs, shown=False)
        seconds = {name: [] for name in POLICIES}
        for round_ in range(options.rounds + 1):
            for name in POLICIES:
                run = RunDir(Path(scratch) / f"{names[name]}{round_}")
                key = RunKey(names[name], 0, 0)
                trainer = trainer_of(key, loaded, data, run, make_accelerator(experiment.training))
                started = time.perf_counter()
                for _ in trainer.updates():
                    pass
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if round_:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    print(
        f"{options.model}, {options.size} px, batch {options.batch}, {options.steps} updates, {device}, "
        f"Python {platform.python_version()}, torch {torch.__version__}; medians of {options.rounds} rounds\n"
    )
    for name, values in seconds.items():
        ratios = [value / full for value, full in zip(values, seconds["full"], strict=True)]
        print(
            f"{name:24}{statistics.median(values):8.2f} s an epoch, {statistics.median(ratios):.3f} of a full one "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
