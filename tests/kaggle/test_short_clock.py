"""Infer kernels whose clock is short: heads over features and a soup give up their views, and hand in all rows.

The clock in a kernel is that of the network: it goes on by what each image is said to take, from when the command
began, and stands still otherwise. So nothing is waited for, and no other work on the machine takes part in it.
"""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from support.colours import experiment_content, write_competition

NET = """
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

IN_A_KERNEL = Path(os.environ.get("KIT_INPUT", "/kaggle/input")).is_dir()
PASSED = [0.0]
if IN_A_KERNEL:
    BEGUN = sys.modules["kit.cli.options"].BEGUN
    time.monotonic = lambda: BEGUN + PASSED[0]


class Net(nn.Module):
    def __init__(self, num_classes, in_chans=3, pause=0.0):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_chans, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.fc, self.pause = nn.Linear(8, num_classes), pause

    def forward(self, images):
        PASSED[0] += self.pause * len(images)
        return self.fc(self.body(images))

    def depth_groups(self):
        return [self.body, self.fc]
"""
ROWS = 45  # five times the nine that there are
LIMIT = 3600  # seconds: a tenth is kept for the end, and what it takes until the network is there is little of it
GIVEN_UP = "the time does not suffice for {}: views are given up, and those left predict one view; the decision "


def write_config(name: str, pause: int, **sections) -> None:
    content = experiment_content(
        Path("data/colours"),
        name=name,
        competition={"slug": "colours"},
        model={"name": "net.py:Net", "weights": "body.safetensors", "options": {"pause": pause}},
        folds={"k": 2},
        policies={"uniform": {"lr": 1e-4}},
        training={"epochs": 1},
        kernel={
            "owner": "tester",
            "accelerator": "none",
            "datasets": ["tester/body-weights", "tester/finished-runs"],
        },
        **sections,
    )
    if "features" in sections:
        content.pop("policies")
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A competition, a network that moves the clock of a kernel, and its first weights in a dataset."""
    monkeypatch.chdir(tmp_path)
    write_competition(Path("data/colours"))
    Path("net.py").write_text(NET)
    torch.manual_seed(0)
    names: dict = {}
    exec(NET, names)
    save_file(names["Net"](3).state_dict(), "body.safetensors")
    body = Path("kernels/datasets/body-weights")
    body.mkdir(parents=True)
    shutil.copy("body.safetensors", body)
    return tmp_path


def rehearsed(kit, config: Path, name: str) -> str:
    """What the infer kernel said, on five times the test rows, its runs being in a dataset."""
    shutil.copytree("runs", "kernels/datasets/finished-runs/runs")
    code, told = kit("kernel", "build", config, "--kind", "infer")
    assert code == 0, told
    code, told = kit("kernel", "rehearse", f"kernels/build/{name}", "--test-rows", "x5", "--time-limit", LIMIT)
    assert code == 0, told
    assert f"ok     submission.csv: valid, {ROWS} rows" in told
    return told


@pytest.mark.slow
def test_heads_over_features_give_up_their_views(project, kit):
    """A pass of all rows takes 1800 s, in both views 3600; there are some 3200."""
    write_config(
        "heads", 40, features={"heads": ["logistic", "knn"], "views": ["hflip"]}, prediction={"batch_size": 2}
    )
    code, told = kit("run", "heads.yaml")
    assert code == 0, told
    told = rehearsed(kit, Path("heads.yaml"), "heads-infer")
    assert GIVEN_UP.format("2 heads over features in plain + hflip") in told
    assert "2 of them in one view for want of time" in told


@pytest.mark.slow
def test_a_soup_gives_up_its_views(project, kit):
    """A model predicts all rows in 3600 s with eight views, in 450 with one; two models have some 3200."""
    write_config("net", 10, seeds=[0, 1], prediction={"views": ["d4"], "batch_size": 5})
    for command in (("run", "net.yaml"), ("soup", "net")):
        code, told = kit(*command)
        assert code == 0, told
    assert "Kept" in told
    told = rehearsed(kit, Path("runs/net-soup/experiment.yaml"), "net-soup-infer")
    assert GIVEN_UP.format("2 models in plain + d4") in told
    assert "2 of them in one view for want of time" in told
