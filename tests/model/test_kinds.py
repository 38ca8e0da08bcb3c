"""Depth groups split by what their parameters are for, and what a policy makes of that."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import PROFILES, SCHEDULES

from kit.core.errors import KitError
from kit.lr import Clock, PolicyConfig, PolicyGroup, policy
from kit.lr.clock import policy_groups
from kit.lr.phases import Phase
from kit.model.groups import depth_groups
from kit.model.kinds import split_by_kind
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer
from kit.training.rates import RateWriter

KINDS = {"norm": 1.0, "bias": 2.0, "embed": 0.1, "re:.*attn.qkv.*": 0.5}


@pytest.fixture(scope="module")
def vit():
    return timm.create_model("test_vit", num_classes=3)


def kind_by_hand(model, name):
    """What is told apart, written out for a ViT."""
    if "attn.qkv" in name:
        return "re:.*attn.qkv.*"
    if "norm" in name:
        return "norm"
    if name.split(".")[0] in ("cls_token", "pos_embed", "patch_embed"):
        return "embed"
    return "bias" if name.endswith("bias") else ""


def test_every_parameter_is_of_one_kind_and_keeps_its_depth(vit):
    groups, split = depth_groups(vit), split_by_kind(depth_groups(vit), KINDS)
    assert [group.name for group in groups] == list(dict.fromkeys(part.name for part in split))
    depth_of = {key: group.name for group in groups for key in group.parameters}
    seen = {}
    for part in split:
        for key in part.parameters:
            assert key not in seen
            seen[key] = part
            assert part.name == depth_of[key]
            assert part.kind == kind_by_hand(vit, key), key
    assert seen.keys() == depth_of.keys()
    assert len({part.label for part in split}) == len(split)


def test_no_kinds_change_nothing(vit):
    assert split_by_kind(depth_groups(vit), ()) == depth_groups(vit)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_norms_are_the_parameters_of_normalisation_layers(name):
    model = timm.create_model(name, num_classes=3)
    named = [module for module in model.modules() if "norm" in type(module).__name__.lower()]
    norms = [module for module in named if list(module.parameters(recurse=False))]
    expected = {id(value) for norm in norms for value in norm.parameters(recurse=False)}
    parts = split_by_kind(depth_groups(model), ["norm"])
    found = {id(value) for part in parts if part.kind == "norm" for value in part.parameters.values()}
    assert found == expected
    assert sum(len(part.norms) for part in parts if part.kind == "norm") == len(norms)
    assert not any(part.norms for part in parts if not part.kind)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["re:.*nothing"], r"kinds: 're:.*nothing' is of no parameter; they are "),
        (["re:.*qkv", "re:blocks"], r"'re:.*qkv' and 're:blocks' are both of blocks.0.attn.qkv.weight"),
    ],
)
def test_patterns_that_are_of_nothing_or_of_the_same_are_refused(vit, kinds, said):
    with pytest.raises(KitError, match=said):
        split_by_kind(depth_groups(vit), kinds)


@pytest.mark.parametrize("kinds", [{"norms": 1}, {"re:(": 1}, {"bias": -1}, {}])
def test_what_is_no_kind_is_refused(kinds):
    with pytest.raises(ValueError, match=r"kind|re:|greater|at least"):
        policy(1e-2, kinds=kinds)


def told_apart(group, kinds):
    return [PolicyGroup(group.index, group.count, group.name, group.n_params, kind) for kind in ("", *kinds)]


@given(st.one_of(*SCHEDULES.values()), st.data(), st.integers(2, 6), st.floats(0, 3), st.integers(0, 49))
def test_a_rate_is_peak_times_schedule_times_profile_times_kind(schedule, data, count, multiplier, step):
    profile = data.draw(st.one_of(*(each for name, each in PROFILES.items() if name not in ("table", "explicit"))))
    whole = [PolicyGroup(index, count, f"g{index}", 10 + index) for index in range(count)]
    split = [part for group in whole for part in told_apart(group, ["bias"])]
    clock = Clock(step, 50, 10)
    plain = Phase(0.1, schedule, profile).lr(clock, whole)
    phase = Phase(0.1, schedule, profile, kinds={"bias": multiplier})
    found = phase.lr(clock, split)
    np.testing.assert_array_equal(found[::2], plain)
    np.testing.assert_allclose(found[1::2], plain * multiplier, rtol=1e-14, atol=1e-300)
    assert (
        found <= Phase(0.1, schedule, profile, kinds={"bias": multiplier}).bound(clock, split) * (1 + 1e-9)
    ).all()


def test_equalise_counts_kinds(vit):
    groups = policy_groups(split_by_kind(depth_groups(vit), KINDS))
    lr = policy(1e-2, profile="layer_decay", kinds=KINDS, equalise=True).matrix(groups, 40, 10).lr
    plain = policy(1e-2).matrix(groups, 40, 10).lr
    sizes = [group.n_params for group in groups]
    assert (lr @ sizes).sum() == pytest.approx((plain @ sizes).sum(), rel=1e-12)


def test_depths_are_counted_by_depth_whatever_is_told_apart(vit):
    """Freezing, thawing, tables and names are of depth groups, not of their parts."""
    whole, parts = (policy_groups(split_by_kind(depth_groups(vit), kinds)) for kinds in ((), KINDS))
    for content in (
        {"freeze_to": -2},
        {"profile": {"name": "gradual_unfreezing", "every": 0.5}},
        {"profile": {"name": "table", "multipliers": [0, 1, 2, 3, 4, 5, 6, 7]}},
        {"profile": {"name": "explicit", "groups": {"stem": 0.5, "blocks.1": 0, "head": 2}}},
        {"phases": "fine_tune"},
    ):
        plain = policy(1e-2, **content)
        split = policy(1e-2, kinds=dict.fromkeys(KINDS, 1.0), **content)
        split.check(parts, 60, 10)
        first, second = plain.matrix(whole, 60, 10), split.matrix(parts, 60, 10)
        place = [part.index for part in parts]
        np.testing.assert_array_equal(second.lr, first.lr[:, place])
        np.testing.assert_array_equal(second.frozen, first.frozen[:, place])


def test_a_kind_at_zero_is_frozen(vit):
    groups = split_by_kind(depth_groups(vit), ["norm"])
    chosen = policy(1e-2, "constant", kinds={"norm": 0})
    chosen.check(policy_groups(groups), 10, 5)
    writer = RateWriter(chosen, groups, 10, 5)
    optimizer = build_optimizer(OptimizerConfig(), vit, groups, torch.device("cpu"), 1e-2)
    writer.write(0, optimizer)
    frozen = {name for name, value in vit.named_parameters() if not value.requires_grad}
    assert frozen == {name for name in dict(vit.named_parameters()) if "norm" in name}
    writer.release()


def test_the_audit_finds_a_kind_that_is_not_applied(vit):
    groups = split_by_kind(depth_groups(vit), KINDS)
    writer = RateWriter(policy(1e-2, "constant", kinds=KINDS), groups, 10, 5)
    optimizer = build_optimizer(OptimizerConfig(), vit, groups, torch.device("cpu"), 1e-2)
    writer.write(0, optimizer)
    for group in optimizer.param_groups:  # as if its biases learned with all the rest
        if group["name"] == "blocks.1 bias":
            group["lr"] = 1e-2
    writer.record(0, optimizer)
    with pytest.raises(KitError, match=r"depth group blocks.1 bias learned at 0.01, but the policy says 0.02"):
        writer.audit(range(1))


def test_kinds_are_in_the_fingerprint_only_where_they_are():
    plain = PolicyConfig(lr=1e-2).canonical()
    assert "kinds" not in plain
    assert PolicyConfig(lr=1e-2, kinds={"bias": 2}).canonical()["kinds"] == {"bias": 2.0}
