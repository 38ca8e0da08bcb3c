"""What benchmarks share that let two trainings take turns: the training on digits, the clocks, the machine."""

import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.experiment.config import validate
from kit.experiment.prepare import prepare, run_keys
from kit.experiment.train_run import trainer_of
from kit.training.device import make_accelerator
from kit.training.trainer import Trainer

BATCH = 64


def digits_trainer(scratch: Path, name: str, model: str, policy: dict[str, Any], **training: Any) -> Trainer:
    """Return a training on digits at 32 px under a policy, longer than any benchmark; its files are in scratch."""
    experiment = validate(
        {
            "name": name,
            "competition": {
                "path": str(scratch / "digits"),
                "embedded": "digits",
                "train_images": "train/{id}.png",
                "test_images": "test/{id}.png",
            },
            "data": {"size": 32, "workers": 0},
            "model": {"name": model},
            "policies": {"policy": policy},
            "training": {"epochs": 1000, "batch_size": BATCH} | training,
        },
        "benchmark",
    )
    dirs = OutputDirs(scratch)
    loaded, data = prepare(experiment, ExperimentDir(dirs.runs / name), dirs, shown=False)
    key = run_keys(experiment)[0]
    return trainer_of(key, loaded, data, RunDir(scratch / name), make_accelerator(experiment.training))


def clocks() -> tuple[float, float]:
    """Return wall clock and user CPU time, in seconds, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime


def machine() -> str:
    """Return device and versions, for the head of a result."""
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    return f"{device}, Python {platform.python_version()}, torch {torch.__version__}"
