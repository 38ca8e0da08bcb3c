"""Own code on its way: a schedule, model, loss and metric of the user's, from a config to rehearsed kernels."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition

MINE = """
import timm
from sklearn.metrics import f1_score
from torch import nn
from parts import half

def falling(clock, to=0.5):
    return 1 - (1 - to) * clock.progress * 2 * half

class Net(nn.Module):
    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.body = timm.create_model("test_resnet", in_chans=in_chans, num_classes=0)
        self.head = nn.Linear(self.body.num_features, num_classes)
    def forward(self, x):
        return self.head(self.body(x))
    def depth_groups(self):
        return [self.body, self.head]

def focal(logits, targets, gamma=2):
    log = logits.log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    return -((1 - log.exp()) ** gamma) * log

def worst(truth, predicted):
    return f1_score(truth, predicted, average=None).min()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a config that names own code, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write_competition(Path("data/colour-squares"), rows=24)
    Path("mine").mkdir()
    Path("mine/mine.py").write_text(MINE)
    Path("mine/parts.py").write_text("half = 0.5\n")
    falling = {"name": "mine.py:falling", "to": 0.1}
    content = experiment_content(
        Path("data/colour-squares"),
        name="owned",
        folds={"k": 2},
        competition={"slug": "colour-squares"},
        model={"name": "mine.py:Net"},
        policies={"uniform": {"lr": 1e-2, "schedule": falling, "profile": "layer_decay"}},
        scoring={"metric": "mine.py:worst", "rule": "auto"},
        training={"epochs": 1, "loss": {"name": "mine.py:focal", "gamma": 1.5}},
        kernel={"owner": "tester", "hours": 0.1, "accelerator": "none", "kernels": ["tester/owned-train"]},
    )
    Path("mine/owned.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_it_travels_and_gives_in_the_kernel_what_it_gives_at_home(project, kit, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    code, told = kit("run", "mine/owned.yaml", "--output", "home", "--jobs", "1")
    assert code == 0, told
    assert "Own code: mine.py" in told
    code, told = kit("kernel", "build", "mine/owned.yaml", "--kind", "train")
    assert code == 0, told
    code, told = kit("kernel", "rehearse", "kernels/build/owned-train")
    assert code == 0, told
    assert "ok     runs: 2 of 2 finished" in told
    code, told = kit("kernel", "build", "mine/owned.yaml", "--kind", "infer")
    assert code == 0, told
    code, told = kit("kernel", "rehearse", "kernels/build/owned-infer")
    assert code == 0, told
    made = next(Path("kernels/build/owned-infer").rglob("submission.csv"))
    assert pd.read_csv(made).equals(pd.read_csv("home/submissions/owned.csv"))


def test_a_secret_in_it_does_not_travel(project, kit):
    Path("mine/parts.py").write_text("half = 0.5\ntoken = 'KGAT_" + "a1" * 16 + "'\n")
    code, told = kit("kernel", "build", "mine/owned.yaml", "--kind", "train")
    assert code == 1
    assert "a secret must not travel with the code; found in parts.py (a Kaggle API token)" in told


def test_a_name_that_the_bundle_has_is_refused(project, kit):
    Path("mine/kit").mkdir()
    Path("mine/kit/x.py").write_text("def f(clock): return 1\n")
    change = "policies.uniform.schedule=kit/x.py:f"
    code, told = kit("kernel", "build", "mine/owned.yaml", "--kind", "train", "--set", change)
    assert code == 1
    assert "kit/x.py: the bundle has a file or folder of this name; call the file of your own otherwise" in told
