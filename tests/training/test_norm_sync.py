"""Batch norms over processes: two processes of gloo against one with the whole batch."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from support import norms_together
from support.commands import ROOT
from support.norms_together import CASES, WORLD
from support.refusals import refusal_of
from timm.layers import EvoNorm2dB0, FrozenBatchNormAct2d
from torch import nn

from kit.experiment import prepare
from kit.training.config import TrainingConfig
from kit.training.norm_sync import need_usual_norms, synchronise, together


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What each of two processes gives, of each case."""
    folder = tmp_path_factory.mktemp("norms")
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    words = [sys.executable, "-m", "support.norms_together"]
    processes = [
        subprocess.Popen(
            [*words, str(rank), folder / "store", folder / f"{rank}.pt"],
            env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_as_one_process_with_the_whole_batch(shared, case):
    """Losses, gradients, weights and running statistics, of all norms and losses."""
    alone = norms_together.train(case)
    digits = {"rtol": 1e-9, "atol": 1e-11} if case[2] == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for each in shared:
        assert each[case].keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(each[case][name], value, **digits, msg=lambda text: f"{name}: {text}")  # noqa: B023


def test_alone_a_norm_sees_its_own_batch():
    """Where a process computes by itself, like a probe, it waits for nobody."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    inputs = torch.randn(5, 3, 8, 8)
    expected = model(inputs)
    synchronise(model)
    torch.testing.assert_close(model(inputs), expected, rtol=0, atol=0)  # there is no other process
    with together(), pytest.raises(ValueError, match="process group"):
        model(inputs)
    with together():
        model.eval()(inputs)  # which learns nothing from the batch


def test_what_cannot_be_shared_is_refused():
    class Own(nn.BatchNorm2d):
        def forward(self, inputs):
            return inputs - inputs.mean((0, 2, 3), keepdim=True)

    need_usual_norms(nn.Sequential(nn.BatchNorm1d(4), FrozenBatchNormAct2d(4), nn.InstanceNorm2d(4)))
    assert refusal_of(need_usual_norms, nn.Sequential(EvoNorm2dB0(4), Own(4))) == (
        "training.sync_batch_norm: EvoNorm2dB0, Own of the model takes statistics of a batch in a way of its own, "
        "which processes cannot share; leave sync_batch_norm out, or take a model with usual norms"
    )


@pytest.mark.parametrize(
    ("processes", "sync", "norm", "told"),
    [
        (2, False, nn.BatchNorm2d(4), True),
        (2, True, nn.BatchNorm2d(4), False),
        (1, False, nn.BatchNorm2d(4), False),
        (2, False, nn.GroupNorm(2, 4), False),
    ],
)
def test_a_line_where_norms_see_a_share(monkeypatch, processes, sync, norm, told):
    monkeypatch.setattr(prepare, "process_state", lambda training: SimpleNamespace(num_processes=processes))
    said = []
    prepare._check_norms(nn.Sequential(norm), TrainingConfig(batch_size=8, sync_batch_norm=sync), said.append)
    line = (
        "batch norms see the 8 images of their process alone, of 16; training.sync_batch_norm: true lets them see "
    )
    assert said == [line + "all"] * told
