"""A training step never waits for the device, but for what a controller and `on_nonfinite: skip` have to read.

The step is made on the meta device, which has no values: what would read one, and so wait for a GPU, fails there.
"""

import pytest
import torch
from accelerate import Accelerator
from support.trainings import trainer_of
from support.waits import BlockingCopies, MadeThere, Reads

from kit.experiment import train_run
from kit.training import device
from kit.training import trainer as trainer_module

PROBES = {"every": 1, "runs": "all"}
THAW = {"lr": 1e-3, "profile": {"name": "gradual_unfreezing", "every": 0.4}}
SETTINGS = {
    "plain": {},
    "mixed": {
        "training": {"probes": PROBES, "mixup": 0.3, "cutmix": 1.0, "label_smoothing": 0.1, "ema": 0.9}
        | {"clip_grad": 1.0, "accumulate": 2, "batch_size": 4}
    },
    "weighted": {
        "training": {"loss": "focal", "class_weights": "balanced", "label_smoothing": 0.1, "sampler": "balanced"}
        | {"average": {"kind": "swa", "last": 1.0}}
    },
    "frozen at first": {
        "policies": {"uniform": THAW},
        "training": {"epochs": 3, "probes": PROBES, "optimizer": {"name": "sgd"}, "loss": "asymmetric"},
    },
    "several labels": {
        "competition": {"separator": " "},
        "scoring": {"rule": "half"},
        "training": {"probes": PROBES, "mixup": 0.3, "loss": "asymmetric", "class_weights": "balanced"},
    },
    "transformer": {"model": {"name": "test_vit"}, "training": {"probes": PROBES, "loss": "logit_adjusted"}},
}


@pytest.fixture
def nowhere(monkeypatch):
    """Trainings are on the meta device."""

    class There(Accelerator):
        @property
        def device(self) -> torch.device:
            return torch.device("meta")

    monkeypatch.setattr(device, "Accelerator", There)
    build = train_run.build_model  # later `to` would make parameters of its own, others than the optimizer's
    monkeypatch.setattr(train_run, "build_model", lambda *arguments: build(*arguments).to("meta"))
    monkeypatch.setattr(trainer_module, "weights_digest", lambda model: "")
    generator = torch.Generator  # of timm's average, which draws from it for weights of half precision alone
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())


@pytest.mark.parametrize("name", SETTINGS)
def test_no_update_waits_for_the_device(competition, tmp_path, nowhere, name):
    trainer = trainer_of(competition, tmp_path, **SETTINGS[name])
    updates = trainer.updates()
    with MadeThere() as made, BlockingCopies() as copied:
        for _ in range(2):
            next(updates)
    assert (made.found, copied.found) == ([], [])
    assert all(value.device.type == "meta" for value in trainer.model.parameters())


def test_waits_are_found(nowhere):
    """The instruments: each line would wait for a GPU, and is noted or fails."""
    there, mask = torch.empty(4, device="meta"), torch.tensor([True, False, True, False])
    with BlockingCopies() as copied:
        torch.ones(4).to("meta")
        there.copy_(torch.ones(4))
        _ = there[torch.tensor([1, 2])]
        assert len(copied.found) == 3
        torch.ones(4).to("meta", non_blocking=True)
        there.copy_(torch.ones(4), non_blocking=True)
        _ = there[1:2] + there.to(torch.float64)
        assert len(copied.found) == 3
    with MadeThere() as made:
        torch.tensor([1.0], device="meta")
        torch.zeros(3, device="meta")
    assert made.found == ["tensor"]
    for wait in (
        there.max().item,
        there.tolist,
        there.cpu,
        lambda: there[mask.to("meta")],
        lambda: bool(there[0]),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)):
            wait()


@pytest.mark.parametrize(
    ("settings", "reads"),
    [
        ({"training": {"on_nonfinite": "skip"}}, ["__bool__"]),
        ({"policies": {"uniform": {"lr": 1e-2, "controller": "constant_update"}}}, ["cpu", "numpy"]),
    ],
)
def test_what_has_to_be_read_is_read_once_an_update(competition, tmp_path, settings, reads):
    trainer = trainer_of(competition, tmp_path, **settings)
    updates = trainer.updates()
    next(updates)
    with Reads() as mode:
        next(updates)
    assert mode.found == reads


def test_the_scale_of_half_precision_stays_on_the_device(competition, tmp_path, monkeypatch):
    """What probes divide gradients by, without `get_scale`, which reads it."""
    trainer = trainer_of(competition, tmp_path)
    assert trainer._gradient_scale() == 1.0
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**13)
    monkeypatch.setattr(trainer.accelerator, "scaler", scaler)
    with Reads() as mode:
        scale = trainer._gradient_scale()
    assert mode.found == []
    assert scale == scaler.get_scale() == 2.0**13


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "auto", "fp16"])
@pytest.mark.parametrize("name", SETTINGS)
def test_no_update_waits_for_a_gpu(competition, tmp_path, name, precision):
    settings = SETTINGS[name] | {"training": SETTINGS[name].get("training", {}) | {"precision": precision}}
    settings["training"] |= {"device": "auto"}
    trainer = trainer_of(competition, tmp_path, **settings)
    updates = trainer.updates()
    next(updates)  # what is made once, like the optimizer's state
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(1, trainer.plan.total_steps):
            next(updates)
    finally:
        torch.cuda.set_sync_debug_mode("default")
