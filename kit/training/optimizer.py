"""timm's optimizers over depth groups."""

import inspect
from collections.abc import Sequence

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from torch import nn

from kit.errors import KitError, some
from kit.model.groups import DepthGroup
from kit.training.config import OptimizerConfig

FUSED_ON = ("cuda", "cpu", "mps")


def build_optimizer(
    config: OptimizerConfig, model: nn.Module, groups: Sequence[DepthGroup], device: torch.device
) -> torch.optim.Optimizer:
    """An optimizer with one or two parameter groups a depth group, each with its `depth` (an index).

    A depth group is split in what decays and what does not (vectors, biases, and what the model itself
    exempts); both halves carry the same `depth`, so the split never changes a rate. Rates start at 0:
    the policy writes them before the first step.
    """
    if config.name not in list_optimizers():
        raise KitError(
            f"training.optimizer.name: timm has no {config.name!r}; it has {some(list_optimizers(), 60)}"
        )
    options = dict(config.options)
    takes = inspect.signature(get_optimizer_class(config.name, bind_defaults=False)).parameters
    if "fused" in takes and device.type in FUSED_ON:
        options.setdefault("fused", True)
    try:
        return create_optimizer_v2(
            split_for_decay(groups, config.weight_decay, exempt(model)),
            opt=config.name,
            lr=0.0,
            weight_decay=config.weight_decay,
            **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()},
        )
    except (TypeError, ValueError) as error:
        raise KitError(f"training.optimizer: {config.name} refuses {options}: {error}") from error


def exempt(model: nn.Module) -> frozenset[str]:
    """Parameters that the model itself keeps from weight decay, like ViT's position embedding."""
    return frozenset(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else frozenset()


def split_for_decay(groups: Sequence[DepthGroup], weight_decay: float, exempt: frozenset[str]) -> list[dict]:
    """Parameter groups with `depth`, `name` and their weight decay, in the order of depth."""
    split = []
    for depth, group in enumerate(groups):
        plain = {name for name, value in group.parameters.items() if value.ndim <= 1 or name.endswith(".bias")} | (
            exempt & set(group.parameters)
        )
        for decay, names in ((weight_decay, set(group.parameters) - plain), (0.0, plain)):
            if names:
                members = [value for name, value in group.parameters.items() if name in names]
                split.append({"params": members, "weight_decay": decay, "depth": depth, "name": group.name})
    return split
