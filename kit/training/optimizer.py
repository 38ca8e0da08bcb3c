"""timm's optimizers over depth groups."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import (  # type: ignore[attr-defined] # they are public; timm does not say so as mypy wants it
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
    """Return an optimizer with one or two parameter groups a depth group, each with its `depth` (an index).

    A depth group is split in what decays and what does not; both halves carry the same `depth`, so the split never
    changes a rate.

    Parameters
    ----------
    config : OptimizerConfig
        Which optimizer.
    model : Module
        Its parameters are optimized.
    groups : sequence of DepthGroup
        Stem first.
    device : device
        Fused forms are for CUDA, CPU and MPS.
    peak : float
        The policy's highest rate, which some optimizers scale their weight decay by; what they learn at is written
        before each step.

    Raises
    ------
    KitError
        Where timm has no such optimizer, or it refuses its options.
    """
    if config.name not in list_optimizers():
        raise KitError(
            f"training.optimizer.name: timm has no {config.name!r}; it has {some(list_optimizers(), 60)}"
        )
    options: dict[str, Any] = dict(config.options)
    try:
        fusible = get_optimizer_class(config.name, bind_defaults=False) in FUSED
        if fusible and device.type in ("cuda", "cpu", "mps"):
            options.setdefault("fused", True)
        return create_optimizer_v2(
            split_for_decay(model, groups, config.weight_decay),
            opt=config.name,
            lr=peak,
            weight_decay=config.weight_decay,
            **_with_tuples(options),
        )
    except (TypeError, ValueError, LookupError, AssertionError, RuntimeError, ImportError) as error:
        raise KitError(f"training.optimizer: {config.name} refuses {options}: {error}") from error


def _with_tuples(options: dict[str, Any]) -> dict[str, Any]:
    """YAML has lists alone; optimizers want tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def undecayed(model: nn.Module) -> frozenset[int]:
    """Return the ids (Python's) of the parameters without weight decay.

    By timm's rule these are vectors, biases, and those that the model itself exempts, like ViT's position
    embedding.
    """
    named = getattr(model, "no_weight_decay", None)
    exempt = named() if named else ()
    parts = param_groups_weight_decay(model, weight_decay=1.0, no_weight_decay_list=exempt)
    return frozenset(id(value) for part in parts if not part["weight_decay"] for value in part["params"])


def split_for_decay(model: nn.Module, groups: Sequence[DepthGroup], weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups with `depth`, `name` and their weight decay, in the order of depth."""
    plain, split = undecayed(model), []
    for depth, group in enumerate(groups):
        halves: dict[float, list[nn.Parameter]] = {weight_decay: [], 0.0: []}
        for value in group.parameters.values():
            halves[0.0 if id(value) in plain else weight_decay].append(value)
        for decay, members in halves.items():
            if members:
                split.append({"params": members, "weight_decay": decay, "depth": depth, "name": group.name})
    return split
