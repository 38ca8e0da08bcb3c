"""Parameter groups and optimizers."""

import pytest
import timm
import torch

from kit.core.errors import KitError
from kit.model.groups import depth_groups
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer, split_for_decay

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
