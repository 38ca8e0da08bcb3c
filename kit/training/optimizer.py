"""timm's optimizers over depth groups."""

from collections.abc import Sequence

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
    param_groups_weight_decay,
)
from torch import nn

from kit.core.errors import KitError, some
from kit.model.groups import DepthGroup
from kit.training.config import OptimizerConfig

FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)  # those with a fused form on every device


def build_optimizer(
    config: OptimizerConfig, model: nn.Module, groups: Sequence[DepthGroup], device: torch.device, peak: float
) -> torch.optim.Optimizer:
    """An optimizer with one or two parameter groups a depth group, each with its `depth` (an index).

    A depth group is split in what decays and what does not; both halves carry the same `depth`, so the
    split never changes a rate. `peak` is the policy's highest rate, which some optimizers scale their
    weight decay by; what they learn at is written before each step.
    """
    if config.name not in list_optimizers():
        raise KitError(
            f"training.optimizer.name: timm has no {config.name!r}; it has {some(list_optimizers(), 60)}"
        )
    options = dict(config.options)
    try:
        fusible = get_optimizer_class(config.name, bind_defaults=False) in FUSED
        if fusible and device.type in ("cuda", "cpu", "mps"):
            options.setdefault("fused", True)
        return create_optimizer_v2(
            split_for_decay(model, groups, config.weight_decay),
            opt=config.name,
            lr=peak,
            weight_decay=config.weight_decay,
            **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()},
        )
    except (TypeError, ValueError, LookupError, AssertionError, RuntimeError, ImportError) as error:
        raise KitError(f"training.optimizer: {config.name} refuses {options}: {error}") from error


def undecayed(model: nn.Module) -> frozenset[int]:
    """The ids of the parameters without weight decay, by timm's rule: vectors, biases, and those that the
    model itself exempts, like ViT's position embedding."""
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    parts = param_groups_weight_decay(model, weight_decay=1.0, no_weight_decay_list=exempt)
    return frozenset(id(value) for part in parts if not part["weight_decay"] for value in part["params"])


def split_for_decay(model: nn.Module, groups: Sequence[DepthGroup], weight_decay: float) -> list[dict]:
    """Parameter groups with `depth`, `name` and their weight decay, in the order of depth."""
    plain, split = undecayed(model), []
    for depth, group in enumerate(groups):
        halves = {weight_decay: [], 0.0: []}
        for value in group.parameters.values():
            halves[0.0 if id(value) in plain else weight_decay].append(value)
        for decay, members in halves.items():
            if members:
                split.append({"params": members, "weight_decay": decay, "depth": depth, "name": group.name})
    return split
