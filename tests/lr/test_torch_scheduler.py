"""Policies in loops other than the kit's."""

import copy

import numpy as np
import pytest
import timm
import torch
from support.strategies import READY

from kit.lr import Clock, policy
from kit.lr.clock import policy_groups
from kit.model.groups import depth_groups, parameter_groups
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer

STEPS = 12
STATIC = {name: config for name, config in READY.items() if not config.controller}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=3)


def train(model, optimizer, scheduler, steps, first=0):
    """Random data, drawn by step; the rates of each parameter group before each update."""
    rates = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(4, 3, 32, 32, generator=generator)).square().mean()
        loss.backward()
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return rates


@pytest.mark.parametrize("name", STATIC)
def test_rates_are_the_policys(model, name):
    config = STATIC[name]
    groups, built = depth_groups(model, config.groups), config.build()
    optimizer = torch.optim.SGD(parameter_groups(groups), lr=1.0, momentum=0.5)
    scheduler = built.lambda_lr(optimizer, groups, STEPS, 4)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    matrix = built.matrix(policy_groups(groups), STEPS, 4)
    for step in range(STEPS):
        assert [group["lr"] for group in optimizer.param_groups] == matrix.lr[step].tolist()
        if not np.isnan(matrix.momentum[step]):
            assert {group["momentum"] for group in optimizer.param_groups} == {matrix.momentum[step]}
        train(model, optimizer, scheduler, 1, step)
    never = [groups[depth] for depth in np.flatnonzero((matrix.frozen & (matrix.lr == 0)).all(axis=0))]
    for group in never:
        for key in group.parameters:
            assert torch.equal(model.state_dict()[key], before[key])


def test_parameter_groups_split_for_weight_decay_are_matched_by_what_they_hold(model):
    groups = depth_groups(model)
    optimizer = build_optimizer(OptimizerConfig(), model, groups, torch.device("cpu"), 1e-2)
    built = policy("slice(1e-5, 1e-2)")
    built.lambda_lr(optimizer, groups, STEPS)
    lr = built.rates(Clock(0, STEPS), policy_groups(groups)).lr
    assert [group["lr"] for group in optimizer.param_groups] == [
        lr[group["depth"]] for group in optimizer.param_groups
    ]


def test_frozen_weights_stand_still_and_their_norms_learn(model):
    groups = depth_groups(model, "coarse")
    optimizer = torch.optim.AdamW(parameter_groups(groups), lr=1.0)
    scheduler = policy(2e-3, phases="fine_tune").lambda_lr(optimizer, groups, STEPS, 6)
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, scheduler, 6)
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    norms = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for key in ("weight", "bias")
    }
    head = set(groups[-1].parameters)
    assert changed - norms == head
    assert changed & norms
    assert all(value.requires_grad for value in model.parameters())  # the second phase has begun
    train(model, optimizer, scheduler, 6, 6)
    assert all(not torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_a_saved_scheduler_goes_on(model):
    groups = depth_groups(model, "coarse")
    built = policy(1e-2, profile="gradual_unfreezing")

    def make(model):
        groups = depth_groups(model, "coarse")
        optimizer = torch.optim.SGD(parameter_groups(groups), lr=1.0, momentum=0.9)
        return optimizer, built.lambda_lr(optimizer, groups, STEPS, 4)

    optimizer, scheduler = make(model)
    train(model, optimizer, scheduler, 5)
    states = [copy.deepcopy(thing.state_dict()) for thing in (model, optimizer, scheduler)]
    expected = train(model, optimizer, scheduler, 7, 5)
    other = timm.create_model("test_resnet", num_classes=3)
    optimizer2, scheduler2 = make(other)
    for thing, state in zip((other, optimizer2, scheduler2), states, strict=True):
        thing.load_state_dict(state)
    assert [value.requires_grad for value in depth_groups(other, "coarse")[0].parameters.values()] == [
        False
    ] * len(groups[0].parameters)
    assert train(other, optimizer2, scheduler2, 7, 5) == expected
    for mine, its in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, its)


def test_what_cannot_work_is_refused(model):
    groups = depth_groups(model)
    flat = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="spans several depth groups; make the optimizer from"):
        policy(1e-2).lambda_lr(flat, groups, STEPS)
    strange = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="holds parameters of no depth group"):
        policy(1e-2).lambda_lr(strange, groups, STEPS)
    optimizer = torch.optim.SGD(parameter_groups(groups), lr=1.0)
    with pytest.raises(ValueError, match="lamb needs the kit's loop"):
        policy(1e-2, controller="lamb").lambda_lr(optimizer, groups, STEPS)
    with pytest.raises(ValueError, match="'nix' matches no depth group"):
        policy(1e-2, profile={"name": "explicit", "groups": {"nix": 1}}).lambda_lr(optimizer, groups, STEPS)


def test_a_second_training_of_a_model_that_ended_frozen_learns_again(model):
    """A notebook's cell run twice; Lightning's second fit."""
    for phases in ("fine_tune", [{"epochs": 1, "freeze_to": -1}, {"freeze_to": -1}], "fine_tune"):
        groups = depth_groups(model, "coarse")
        optimizer = torch.optim.AdamW(parameter_groups(groups), lr=1.0)
        scheduler = policy(2e-3, phases=phases).lambda_lr(optimizer, groups, STEPS, 6)
        before = copy.deepcopy(model.state_dict())
        train(model, optimizer, scheduler, STEPS)
        stood_still = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
        assert bool(stood_still) == (phases != "fine_tune")


def test_norms_stand_still_under_a_loop_that_calls_train_each_epoch(model):
    groups = depth_groups(model, "coarse")
    optimizer = torch.optim.SGD(parameter_groups(groups), lr=1.0)
    built = policy(1e-3, train_norm=False, phases=[{"fraction": 0.5, "freeze_to": -1}, {}])
    scheduler = built.lambda_lr(optimizer, groups, STEPS)
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    for epoch in range(3):
        model.train()
        train(model, optimizer, scheduler, 2, 2 * epoch)
        if epoch < 2:
            assert all(torch.equal(value, before[name]) for name, value in model.named_buffers() if name in before)
    model.train()
    train(model, optimizer, scheduler, 6, 6)
    assert not any(torch.equal(value, before[name]) for name, value in model.named_buffers() if name in before)
    assert all(module.training for module in model.modules())
