"""A miniature competition that a small network learns in seconds, and experiments on it."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

COLOURS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 40, 30)}


def write_competition(folder: Path, rows: int = 36, test_rows: int = 9, side: int = 24, seed: int = 0) -> Path:
    """A folder in Kaggle's layout: noisy squares whose label is their colour, plus solution.csv."""
    generator = np.random.default_rng(seed)
    names = sorted(COLOURS)
    for part, count in (("train", rows), ("test", test_rows)):
        (folder / part).mkdir(parents=True)
        ids, labels = [f"{part}{row:03d}" for row in range(count)], [names[row % 3] for row in range(count)]
        for name, label in zip(ids, labels, strict=True):
            noise = generator.integers(-30, 31, (side, side, 3))
            pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{name}.png")
        table = pd.DataFrame({"id": ids, "label": labels})
        table.to_csv(folder / ("train.csv" if part == "train" else "solution.csv"), index=False)
    table[["id"]].to_csv(folder / "test.csv", index=False)
    table.assign(label="red").to_csv(folder / "sample_submission.csv", index=False)
    return folder


def experiment_content(folder: Path, **sections) -> dict:
    """The content of a small, fast config; `sections` are merged into it, one level deep."""
    content = {
        "name": "tiny",
        "competition": {
            "path": str(folder),
            "train_images": "train/{id}.png",
            "test_images": "test/{id}.png",
        },
        "folds": {"k": 3},
        "data": {"size": 32, "augment": "light", "workers": 0},
        "model": {"name": "test_resnet"},
        "policies": {"uniform": {"lr": 1e-2, "groups": "stage"}},
        "training": {"epochs": 2, "batch_size": 8, "log_every": 2, "device": "cpu"},
        "scoring": {"rule": "argmax"},
    }
    for name, section in sections.items():
        content[name] = content.get(name, {}) | section if isinstance(section, dict) else section
    return content
