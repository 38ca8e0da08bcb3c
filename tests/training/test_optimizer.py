"""Parameter groups and optimizers."""

import copy
import inspect
import io
import math

import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from torch import nn

from kit.core.errors import KitError
from kit.lr.policy import momenta, set_momentum, set_rate
from kit.model.groups import DepthGroup, depth_groups
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer, factors_within, split_for_decay

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vit():
    return timm.create_model("test_vit", num_classes=3)


def test_the_split_holds_every_parameter_once_and_keeps_its_depth(vit):
    groups = depth_groups(vit, "block")
    split = split_for_decay(vit, groups, 0.05)
    ids = [id(value) for part in split for value in part["params"]]
    assert len(ids) == len(set(ids)) == len(list(vit.parameters()))
    for part in split:
        members = {id(value) for value in groups[part["depth"]].parameters.values()}
        assert {id(value) for value in part["params"]} <= members


def test_matrices_and_filters_decay_and_nothing_else(vit):
    names = {id(value): name for name, value in vit.named_parameters()}
    split = split_for_decay(vit, depth_groups(vit), 0.05)
    decayed = {names[id(value)] for part in split if part["weight_decay"] for value in part["params"]}
    expected = {name for name, value in vit.named_parameters() if value.ndim > 1}
    assert decayed == expected - {"pos_embed", "cls_token"}  # ViT exempts its embeddings


def test_no_weight_decay_leaves_one_half(vit):
    split = split_for_decay(vit, depth_groups(vit), 0.0)
    assert [part["depth"] for part in split] == list(range(len(depth_groups(vit))))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "adan", "madgrad", "nadamw"])
def test_timms_optimizers_take_the_groups(vit, name):
    optimizer = build_optimizer(OptimizerConfig(name=name), vit, depth_groups(vit), CPU, 1e-3)
    assert [group["depth"] for group in optimizer.param_groups] == sorted(
        group["depth"] for group in optimizer.param_groups
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}


def test_adamw_is_fused_and_has_its_options(vit):
    config = OptimizerConfig(options={"betas": [0.9, 0.99], "eps": 1e-5})
    optimizer = build_optimizer(config, vit, depth_groups(vit), CPU, 1e-3)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["fused"] is True
    assert optimizer.defaults["betas"] == (0.9, 0.99)
    assert optimizer.defaults["eps"] == 1e-5


def test_unknown_optimizers_and_options_are_refused(vit):
    with pytest.raises(KitError, match=r"training.optimizer.name: timm has no 'adamm'"):
        build_optimizer(OptimizerConfig(name="adamm"), vit, depth_groups(vit), CPU, 1e-3)
    with pytest.raises(KitError, match=r"training.optimizer: adamw refuses .*colour"):
        build_optimizer(OptimizerConfig(options={"colour": 1}), vit, depth_groups(vit), CPU, 1e-3)


# Every optimizer of timm that can run here, against its plain form.

RUNS_HERE = [
    name for name in list_optimizers() if not name.startswith(("bnb", "fused", "kron")) and name != "adahessian"
]
STEPS, UNFREEZES, SKIPPED, SAVED = 7, 3, (0, 4), 5


def small_network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.Linear(12, 5))
    return nn.ModuleList(layers)


def three_groups(network):
    named = dict(network.named_parameters())
    return [
        DepthGroup(name, {key: named[key] for key in named if key[0] in members})
        for name, members in (("stem", "01"), ("body", "23"), ("head", "4"))
    ]


def of_a_parameter_each(name, network, groups):
    """timm's optimizer in its plain form, with a parameter group for each parameter."""
    split = [
        {**part, "params": [value]} for part in split_for_decay(network, groups, 0.05) for value in part["params"]
    ]
    options = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    plain = {form: False for form in ("foreach", "fused") if form in options}
    return create_optimizer_v2(split, opt=name, lr=0.1, weight_decay=0.05, **plain)


def ours(name, network, groups):
    return build_optimizer(OptimizerConfig(name=name, weight_decay=0.05), network, groups, CPU, 0.1)


def trajectory(build, name, round_trip=False):
    """Weights after each of some updates: rates and momenta move, the stem is frozen at first, two are skipped."""
    network = small_network()
    groups = three_groups(network)
    optimizer, scaler = build(name, network, groups), torch.amp.GradScaler("cpu", init_scale=1024.0)
    draw, seen = torch.Generator().manual_seed(1), []
    for step in range(STEPS):
        if round_trip and step == SAVED:
            kept = io.BytesIO()
            torch.save(optimizer.state_dict(), kept)
            kept.seek(0)
            optimizer = build(name, network, groups)
            optimizer.load_state_dict(torch.load(kept, weights_only=True))
        for group in optimizer.param_groups:
            set_rate(group, 0.01 * (1 + group["depth"]) / (1 + step))
            set_momentum(group, 0.8 + 0.02 * step)
        for key, value in network.named_parameters():
            gradient = torch.randn(value.shape, generator=draw)
            gradient *= math.inf if step in SKIPPED and key == "4.bias" else 1
            value.grad = None if step < UNFREEZES and key[0] in "01" else scaler.scale(gradient)
        scaler.step(optimizer)
        scaler.update()
        seen.append(torch.cat([value.detach().flatten() for value in network.parameters()]))
    return torch.stack(seen)


@pytest.mark.parametrize("name", RUNS_HERE)
def test_an_optimizer_gives_what_its_plain_form_gives(name):
    """Under freezing, updates that fp16's scaler skips, and the split for weight decay."""
    found, plain = trajectory(ours, name), trajectory(of_a_parameter_each, name)
    assert plain.isfinite().all()
    assert not torch.equal(plain[2], plain[1])  # it learns
    assert torch.equal(plain[4], plain[3])  # and skips
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RUNS_HERE)
def test_an_optimizer_goes_on_from_its_saved_state_bit_for_bit(name):
    assert torch.equal(trajectory(ours, name, round_trip=True), trajectory(ours, name))


def test_sgd_goes_on_from_a_state_saved_without_momentum():
    """As the fused form left it, in an earlier version, for what had been frozen."""
    network = small_network()
    groups = three_groups(network)
    optimizer = ours("sgd", network, groups)
    state = optimizer.state_dict()
    del state["state"][0]["momentum_buffer"]
    optimizer.load_state_dict(state)
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    assert all(entry["momentum_buffer"].isfinite().all() for entry in optimizer.state.values())


def test_dampened_sgd_is_not_fused(vit):
    config = OptimizerConfig(name="momentum", options={"dampening": 0.5})
    assert not build_optimizer(config, vit, depth_groups(vit), CPU, 1e-3).defaults["fused"]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("adahessian", {}, "needs second derivatives"),
        ("kron", {}, "compiles its step anew"),
        ("kronw", {}, "compiles its step anew"),
        ("muon", {"adamw_lr": 1e-3}, "is a rate beside the policy's"),
    ],
)
def test_what_the_loop_cannot_serve_is_refused(vit, name, options, reason):
    with pytest.raises(KitError, match=reason):
        build_optimizer(OptimizerConfig(name=name, options=options), vit, depth_groups(vit), CPU, 1e-3)


# Muon.


def test_muon_has_both_momenta_and_both_are_written():
    network = small_network()
    optimizer = ours("muon", network, three_groups(network))
    for group in optimizer.param_groups:
        set_momentum(group, 0.7)
    assert {momenta(group) for group in optimizer.param_groups} == {(0.7, 0.7)}


def test_the_second_rate_of_an_older_muon_is_written():
    """timm before 1.0.27 leaves what is no matrix to AdamW at `adamw_lr`, which no schedule would reach."""
    group = {"lr": 1.0, "adamw_lr": 1.0, "fallback_lr_scale": 0.5}
    set_rate(group, 0.02)
    assert (group["lr"], group["adamw_lr"]) == (0.02, 0.01)
    group = {"lr": 1.0, "adamw_lr": 1.0}
    set_rate(group, 0.02)
    assert group["adamw_lr"] == 0.02


@pytest.mark.parametrize("name", ["muon", "nmuon"])
@pytest.mark.parametrize("rule", ["original", "match_rms_adamw", "rms_to_rms", None])
@pytest.mark.parametrize("conv_mode", ["flatten", "batched"])
def test_muons_factors_are_those_of_its_steps(name, rule, conv_mode):
    """Measured: how far a parameter moves, against how far it moves without a rule."""
    start = small_network()

    def moves(adjust):
        network = copy.deepcopy(start)
        groups = three_groups(network)
        options = {"adjust_lr_fn": adjust, "conv_mode": conv_mode, "normalize_spatial": bool(adjust)}
        config = OptimizerConfig(name=name, weight_decay=0.0, options=options)
        optimizer = build_optimizer(config, network, groups, CPU, 0.1)
        draw = torch.Generator().manual_seed(1)
        for value in network.parameters():
            value.grad = torch.randn(value.shape, generator=draw)
        optimizer.step()
        pairs = zip(network.parameters(), start.parameters(), strict=True)
        return optimizer, [float((now - then).detach().norm()) for now, then in pairs]

    optimizer, moved = moves(rule)
    _, plain = moves(None)
    ratio = np.array(moved) / np.array(plain)
    depth_of = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]  # convolution's weight and bias, norm's weight and bias …
    expected = [[f(ratio[np.array(depth_of) == depth]) for f in (np.min, np.max)] for depth in range(3)]
    np.testing.assert_allclose(factors_within(optimizer, 3), expected, rtol=1e-4)


def test_other_optimizers_say_nothing_of_factors():
    network = small_network()
    assert factors_within(ours("lamb", network, three_groups(network)), 3) is None
