"""Steps by lists that are kept: the bits of torch's own, whatever learns when, and whatever is loaded."""

import copy

import pytest
import torch
from support.trainings import outcome, trainer_of
from torch import nn

from kit.training import fused
from kit.training.fused import quicken
from kit.training.optimizer import _start_at_rest

SHAPES = [[(4, 3), (4,)], [(5, 4, 3, 3), (5,), (7,)], [(2, 5)]]
KINDS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd without momentum": (torch.optim.SGD, {}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.99)}),
    "adamw": (torch.optim.AdamW, {"eps": 1e-5}),
    "amsgrad": (torch.optim.AdamW, {"amsgrad": True, "maximize": True}),
}


def optimizer_of(kind):
    generator = torch.Generator().manual_seed(0)
    groups = [
        {
            "params": [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes],
            "weight_decay": 0.1 * place,
        }
        for place, shapes in enumerate(SHAPES)
    ]
    target, options = KINDS[kind]
    optimizer = target(groups, lr=0.1, fused=True, **options)
    _start_at_rest(optimizer)
    return optimizer


def pair_of(kind):
    plain, quick = optimizer_of(kind), optimizer_of(kind)
    quicken(quick)
    return plain, quick


def step(optimizer, number, frozen=(), scale=None):
    """An update at rates of its own; `scale`: as fp16's scaler has it, (scale, whether to skip)."""
    generator = torch.Generator().manual_seed(number)
    for place, group in enumerate(optimizer.param_groups):
        group["lr"] = 0.1 / (1 + number + place)
        if "betas" in group:
            group["betas"] = (0.8 + 0.01 * number, group["betas"][1])
        for value in group["params"]:
            gradient = torch.randn(value.shape, generator=generator)
            value.grad = None if place in frozen else gradient * (scale[0] if scale else 1)
    if scale:
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale[0]), torch.tensor(float(scale[1]))
    optimizer.step()
    if scale:
        del optimizer.grad_scale, optimizer.found_inf
    optimizer.zero_grad()


def bits(optimizer):
    values = [value for group in optimizer.param_groups for value in group["params"]]
    state = [item for value in values for _, item in sorted(optimizer.state[value].items()) if item is not None]
    return [each.detach().numpy().tobytes() for each in (*values, *state)]


@pytest.fixture
def launched(monkeypatch):
    """How many steps were made by lists that were kept."""
    count, launch = [], fused._launch
    monkeypatch.setattr(fused, "_launch", lambda *arguments: (count.append(1), launch(*arguments)))
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_torchs_own(kind, launched):
    plain, quick = pair_of(kind)
    frozen = [(), (), (0, 1), (0, 1), (0,), (), (), (2,)]
    for number, places in enumerate(frozen):
        for optimizer in (plain, quick):
            step(optimizer, number, places)
        assert bits(quick) == bits(plain)
    assert len(launched) == 3  # 1, 3 and 6: else other parameters than before have gradients


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_that_learn_late_and_a_state_that_is_loaded(kind, launched):
    plain, quick = pair_of(kind)
    for number in range(3):
        for optimizer in (plain, quick):
            step(optimizer, number, frozen=(0,))
    for optimizer in (plain, quick):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for number in (3, 4, 5):
            step(optimizer, number)
    assert bits(quick) == bits(plain)
    assert len(launched) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_group_that_is_added(kind, launched):
    plain, quick = pair_of(kind)
    for optimizer in (plain, quick):
        step(optimizer, 0)
        step(optimizer, 1)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})
        _start_at_rest(optimizer)
        for number in (2, 3):
            step(optimizer, number)
    assert bits(quick) == bits(plain)
    assert len(launched) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_gradients_and_steps_that_the_scaler_skips(kind, launched):
    plain, quick = pair_of(kind)
    for number, skips in enumerate([True, False, True, False, False]):
        for optimizer in (plain, quick):
            step(optimizer, number, scale=(1024.0, skips))
        assert bits(quick) == bits(plain)
    assert len(launched) == 4


def test_hooks_are_called_once_a_step_and_a_closure_is_torchs_matter():
    _, quick = pair_of("adamw")
    calls = []
    quick.register_step_pre_hook(lambda *_: calls.append("before"))
    quick.register_step_post_hook(lambda *_: calls.append("after"))
    for number in range(3):
        step(quick, number)
    assert calls == ["before", "after"] * 3
    assert quick.step(lambda: 2.5) == 2.5
    assert len(calls) == 8


def test_others_keep_their_step():
    values = [nn.Parameter(torch.ones(2))]
    for optimizer in (torch.optim.RMSprop(values), torch.optim.AdamW(values, fused=False)):
        quicken(optimizer)
        assert "step" not in vars(optimizer)


def test_a_training_has_the_bits_that_it_has_without(competition, tmp_path, monkeypatch, launched):
    settings = {"policies": {"uniform": {"lr": "slice(1e-4, 1e-2)", "groups": "block"}}}
    quick = trainer_of(competition, tmp_path / "quick", **settings)
    result = outcome(quick, quick.train())
    assert len(launched) == quick.plan.total_steps - 1
    monkeypatch.setattr("kit.training.optimizer.quicken", lambda optimizer: None)
    plain = trainer_of(competition, tmp_path / "plain", **settings)
    assert outcome(plain, plain.train()) == result


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_the_bits_of_torchs_own(kind):
    plain, quick = pair_of(kind)
    for optimizer in (plain, quick):
        for group in optimizer.param_groups:
            for value in group["params"]:
                value.data = value.data.cuda()
        optimizer.state.clear()
        if kind.startswith("sgd"):
            _start_at_rest(optimizer)
        for number in range(5):
            generator = torch.Generator().manual_seed(number)
            for group in optimizer.param_groups:
                for value in group["params"]:
                    value.grad = torch.randn(value.shape, generator=generator).cuda()
            optimizer.step()
    ours = [value.detach().cpu() for group in quick.param_groups for value in group["params"]]
    theirs = [value.detach().cpu() for group in plain.param_groups for value in group["params"]]
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
