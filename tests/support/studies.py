"""A study of many tiny runs, and what it leaves: compared file by file."""

import json
from pathlib import Path
from typing import Any

from support.colours import experiment_content

from kit.experiment.config import ExperimentConfig, validate

# What run.json says of when and how fast, which differs from one training to the next; and its own digest.
OF_THE_CLOCK = ("seconds", "images_per_second", "digest")


def study(competition: Path, **sections: Any) -> ExperimentConfig:
    """Two policies × two seeds × three folds: twelve runs of an epoch."""
    content: dict[str, Any] = {
        "name": "study",
        "policies": {"slow": {"lr": 1e-3, "groups": "stage"}},  # beside the one that is there
        "seeds": [0, 1],
        "training": {"epochs": 1, "batch_size": 8, "log_every": 1, "device": "cpu"},
    }
    stated = {
        name: content.get(name, {}) | each if isinstance(each, dict) else each for name, each in sections.items()
    }
    return validate(experiment_content(competition, **content | stated), "test")


def left_by(experiment: Path) -> dict[str, Any]:
    """All files of an experiment's folder by path: their bytes, of run.json what is not of the clock."""
    files = [path for path in experiment.rglob("*") if path.is_file() and ".claim" not in path.name]
    return {path.relative_to(experiment).as_posix(): _content(path) for path in files}


def _content(path: Path) -> Any:
    if path.name != "run.json":
        return path.read_bytes()
    record = json.loads(path.read_text())
    return json.dumps({name: value for name, value in record.items() if name not in OF_THE_CLOCK})  # in its order
