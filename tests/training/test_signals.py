"""What controllers are fed, and what they do in a training."""

import copy

import numpy as np
import pytest
import timm
import torch
from support.trainings import trainer_of

from kit.core.errors import KitError
from kit.core.yaml import read_yaml
from kit.lr.registry import SHIPPED
from kit.model.groups import depth_groups
from kit.training.signals import SignalMeter


def controlled(competition, path, controller, **sections):
    policy = {"lr": 1e-2, "groups": "stage", "schedule": "constant", "controller": controller}
    return trainer_of(competition, path, policies={"uniform": policy}, **sections)


def test_norms_are_those_of_a_slow_obvious_version():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    groups = depth_groups(model, "stage")
    meter = SignalMeter(("weight", "gradient", "direction", "decay"), groups, 0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.05)

    def norm(values):
        return np.sqrt(sum((value.double() ** 2).sum().item() for value in values))

    before = None
    for step in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32)).square().mean().backward()
        signals = meter.measure(step)
        for depth, group in enumerate(groups):
            values = list(group.parameters.values())
            assert signals["weight"][depth] == pytest.approx(norm(values), rel=1e-5)
            assert signals["gradient"][depth] == pytest.approx(norm([value.grad for value in values]), rel=1e-5)
            assert signals["decay"][depth] == 0.05
            if step:
                moved = norm([value - before[name] for name, value in group.parameters.items()])
                assert signals["direction"][depth] == pytest.approx(moved / 1e-2, rel=1e-4)
            else:
                assert np.isnan(signals["direction"][depth])
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimizer.step()
        meter.after_update(np.full(len(groups), 1e-2))


def test_only_what_a_controller_asks_for_is_measured():
    groups = depth_groups(timm.create_model("test_resnet"), "stage")
    meter = SignalMeter(("weight",), groups, 0.0)
    assert set(meter.measure(0)) == {"weight"}
    assert meter._before == []
    assert SignalMeter((), groups, 0.0).measure(0) == {}
    assert SignalMeter(("decay",), groups, 0.1).measure(0)["decay"].tolist() == [0.1] * len(groups)


def test_a_constant_relative_update_is_reached(competition, tmp_path):
    target = 3e-3
    controller = {"name": "constant_update", "target": target, "gain": 0.5, "lower": 1e-4, "upper": 1e3}
    trainer = controlled(competition, tmp_path, controller, training={"epochs": 15, "evaluate_every": 0})
    before, relative = copy.deepcopy(dict(trainer.model.named_parameters())), []

    def on_step(step):
        now = dict(trainer.model.named_parameters())
        relative.append(
            [
                np.sqrt(sum(((now[name] - before[name]) ** 2).sum().item() for name in group.parameters))
                / np.sqrt(sum((before[name] ** 2).sum().item() for name in group.parameters))
                for group in trainer.groups
            ]
        )
        before.update(copy.deepcopy(now))

    trainer.train(on_step=on_step)
    first, last = np.array(relative[0]), np.median(relative[-15:], axis=0)
    assert np.ptp(np.log(first)) > 0.5  # without it the groups differ
    np.testing.assert_allclose(last, target, rtol=0.3)


@pytest.mark.parametrize("controller", ["lars", "lamb", "constant_update", "temp_balance"])
def test_the_realised_rate_is_the_static_one_times_the_multiplier(competition, tmp_path, controller):
    trainer = controlled(
        competition, tmp_path, controller, training={"accumulate": 2, "batch_size": 4, "clip_grad": 1.0}
    )
    trainer.train()
    rates = trainer.rates
    assert (rates.lr == 1e-2 * rates.multiplier).all()
    assert np.isfinite(rates.multiplier).all()
    assert len(np.unique(rates.multiplier)) > 5
    with np.load(trainer.dir.rates) as saved:
        np.testing.assert_array_equal(saved["multiplier"], rates.multiplier)
        assert {f"signal_{name}" for name in rates.policy.controller.signals} <= set(saved.files)


def test_a_multiplier_that_is_not_the_controllers_is_found(competition, tmp_path):
    trainer = controlled(competition, tmp_path, "lamb")

    def meddle(step):
        if step == 4:
            trainer.rates.multiplier[2, 1] *= 1.5
            trainer.rates.lr[2, 1] *= 1.5

    with pytest.raises(KitError, match=f"step 2: depth group {trainer.groups[1].name} learned at"):
        trainer.train(on_step=meddle)


@pytest.mark.parametrize(("name", "optimizer"), [("lars", "sgd"), ("lamb", "adamw"), ("constant_update", "adamw")])
def test_the_ready_controllers_do_something(competition, tmp_path, name, optimizer):
    """Their bounds do not make them a static policy."""
    policy = read_yaml(SHIPPED / f"{name}.yaml")
    trainer = trainer_of(
        competition,
        tmp_path,
        policies={"uniform": policy},
        training={"optimizer": {"name": optimizer}, "epochs": 4},
    )
    trainer.train()
    multiplier, controller = trainer.rates.multiplier, trainer.rates.policy.controller
    at_a_bound = np.isclose(multiplier, controller.lower) | np.isclose(multiplier, controller.upper)
    assert at_a_bound.mean() < 0.3
    assert np.ptp(np.log(multiplier), axis=0).min() > 0.01  # each group's moves
