"""docs/own-code.md: every example is written down, and trained with, as a reader would."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.colours import experiment_content

from kit import load_experiment, run

PAGE = (Path(__file__).parents[1] / "docs/own-code.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CODE = [text for kind, text in BLOCKS if kind == "python"]
CONFIGS = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
IMPORTS = """
import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch import nn
"""


@pytest.mark.parametrize("sections", CONFIGS, ids=lambda sections: next(iter(sections)))
def test_each_example_trains(competition, tmp_path, sections):
    (tmp_path / "mine.py").write_text(IMPORTS + "\n\n".join(CODE))
    content = experiment_content(competition, folds={"run": [0]}, training={"epochs": 1})
    for name, section in sections.items():
        content[name] = section if name == "policies" else content.get(name, {}) | section
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    lines = []
    experiment = load_experiment(tmp_path / "config.yaml")
    assert set(experiment.code) == {"mine.py"}
    run(experiment, tmp_path / "out", say=lines.append)
    assert "Own code: mine.py" in lines
    policy = next(iter(content["policies"]))
    oof = pd.read_parquet(tmp_path / f"out/runs/tiny/{policy}/seed0/fold0/oof.parquet")
    assert len(oof) == 12
    assert (tmp_path / "out/runs/tiny/mine.py").read_text() == (tmp_path / "mine.py").read_text()


def test_every_example_is_ten_lines_or_less():
    for text in CODE:
        code = [line for line in text.splitlines() if line.strip() and not line.strip().startswith('"""')]
        assert len(code) <= 13, text
