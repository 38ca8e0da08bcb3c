"""Batch norms over processes: two processes of gloo against one with the whole batch."""

import sys
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch
from support import norms_together
from support.norms_together import CASES
from support.refusals import refusal_of
from timm.layers import EvoNorm2dB0, FrozenBatchNormAct2d
from torch import nn

from kit.experiment import check_training
from kit.training.config import TrainingConfig
from kit.training.norm_sync import need_usual_norms, synchronise, together


def trained_together(folder, world, device="cpu"):
    """What each of some processes gives, of each case."""
    forks = device == "cpu" and sys.platform == "linux"  # which have imported all
    context, files = get_context("fork" if forks else "spawn"), [folder / f"{rank}.pt" for rank in range(world)]
    processes = [
        context.Process(target=norms_together.main, args=(rank, world, device, folder / "store", file))
        for rank, file in enumerate(files)
    ]
    for process in processes:
        process.daemon = True  # one that waits for another that failed ends with the tests
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0] * world
    return [torch.load(file, weights_only=True) for file in files]


def need_same(case, each, alone):
    exact = case[2] == torch.float64
    digits = {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 1e-4, "atol": 1e-5}
    assert each.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(each[name], value.cpu(), **digits, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return trained_together(tmp_path_factory.mktemp("norms"), 2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_as_one_process_with_the_whole_batch(shared, case):
    """Losses, gradients, weights and running statistics, of all norms and losses."""
    alone = norms_together.train(case)
    for each in shared:
        need_same(case, each[case], alone)


@pytest.mark.gpu
def test_on_gpus_as_one_process_with_the_whole_batch(tmp_path):
    """On two GPUs, or through the same calls on one."""
    for each in trained_together(tmp_path, min(2, torch.cuda.device_count()), "cuda"):
        for case in CASES:
            if case[2] == torch.float64:  # TF32 rounds float32
                need_same(case, each[case], norms_together.train(case, on="cuda"))


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
    monkeypatch.setattr(check_training, "process_state", lambda training: SimpleNamespace(num_processes=processes))
    said = []
    check_training._check_norms(
        nn.Sequential(norm), TrainingConfig(batch_size=8, sync_batch_norm=sync), said.append
    )
    line = (
        "batch norms see the 8 images of their process alone, of 16; training.sync_batch_norm: true lets them see "
    )
    assert said == [line + "all"] * told
