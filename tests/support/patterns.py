"""A competition of random pictures with random labels: what is scored above chance was seen in training."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from support.colours import experiment_content

LINEAR = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, in_chans, side=16):
        super().__init__()
        self.num_classes, self.head = num_classes, nn.Linear(in_chans * side * side, num_classes)
    def forward(self, x):
        return self.head(x.flatten(1))
"""


def pattern(generator: np.random.Generator, side: int = 32) -> Image.Image:
    """A picture of random blots, unlike all others."""
    blots = generator.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(blots).resize((side, side), Image.Resampling.BICUBIC)


def nearly(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """The same picture, a little darker and with noise."""
    pixels = np.asarray(image).astype(float) * 0.93 + generator.normal(0, 3, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_patterns(folder: Path, rows: int = 60, seed: int = 0) -> Path:
    """The competition; `more/copies` and `more/near` hold a copy and a near copy of each train image.

    Their ids and labels, in more/more.csv, are those of the train rows.
    """
    generator = np.random.default_rng(seed)
    for name in ("train", "test", "more/copies", "more/near"):
        (folder / name).mkdir(parents=True)
    labels = np.array(["a", "b"])[generator.permutation(np.arange(rows) % 2)]
    table = pd.DataFrame({"id": [f"row{row:03d}" for row in range(rows)], "label": labels})
    for name in table["id"]:
        image = pattern(generator)
        image.save(folder / f"train/{name}.png")
        shutil.copy(folder / f"train/{name}.png", folder / f"more/copies/{name}.png")
        nearly(image, generator).save(folder / f"more/near/{name}.png")
    table.to_csv(folder / "train.csv", index=False)
    table.to_csv(folder / "more/more.csv", index=False)
    test = pd.DataFrame({"id": [f"test{row}" for row in range(4)]})
    for name in test["id"]:
        pattern(generator).save(folder / f"test/{name}.png")
    test.to_csv(folder / "test.csv", index=False)
    test.assign(label="a").to_csv(folder / "sample_submission.csv", index=False)
    return folder


def patterns_content(folder: Path, **sections) -> dict:
    """The content of a config whose model, LINEAR in linear.py, learns such a train table by heart in a second."""
    defaults = {
        "data": {"size": 16, "augment": "none", "mean": [0.5] * 3, "std": [0.25] * 3},
        "model": {"name": "linear.py:Net"},
        "policies": {"uniform": {"lr": 3e-2, "groups": "stage", "schedule": "constant"}},
        "training": {"epochs": 8, "batch_size": 10, "log_every": 50},
    }
    for name, section in sections.items():
        defaults[name] = defaults.get(name, {}) | section if isinstance(section, dict) else section
    content = experiment_content(folder, **defaults)
    content["policies"] = defaults["policies"]
    return content
