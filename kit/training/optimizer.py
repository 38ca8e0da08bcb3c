"""timm's optimizers over depth groups."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from timm.optim import (  # type: ignore[attr-defined] # they are public; timm does not say so as mypy wants it
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
    param_groups_weight_decay,
)
from timm.optim.muon import get_adamuon_lr_scale, get_lr_scale, reshape_for_muon
from torch import nn

from kit.core.errors import KitError, some
from kit.core.own_code import OwnCode
from kit.model.groups import DepthGroup
from kit.training.averaging import averages
from kit.training.config import OptimizerConfig
from kit.training.fused import quicken

# Those whose fused form gives, on every device, what the plain one gives: with parameters that get their first
# gradient late, updates that fp16's scaler skips, and a state that is saved and loaded.
FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


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
        Where timm has no such optimizer, it refuses its options, or own code gives no optimizer.
    """
    options: dict[str, Any] = dict(config.options)
    split = split_for_decay(model, groups, config.weight_decay)
    if own := config.own(config.name):
        return _own_optimizer(own, split, {"lr": peak, "weight_decay": config.weight_decay}, _with_tuples(options))
    _refuse(config.name, options)
    try:
        fusible = get_optimizer_class(config.name, bind_defaults=False) in FUSED and not options.get("dampening")
        if fusible and device.type in ("cuda", "cpu", "mps"):
            options.setdefault("fused", True)
        optimizer = create_optimizer_v2(
            split,
            opt=config.name,
            lr=peak,
            weight_decay=config.weight_decay,
            **_with_tuples(options),
        )
        _start_at_rest(optimizer)
        quicken(optimizer)
        return optimizer
    except (TypeError, ValueError, LookupError, AssertionError, RuntimeError, ImportError) as error:
        raise KitError(f"training.optimizer: {config.name} refuses {options}: {error}") from error


def _refuse(name: str, options: dict[str, Any]) -> None:
    """Refuse optimizers and options that the loop cannot serve."""
    if name not in list_optimizers():
        raise KitError(f"training.optimizer.name: timm has no {name!r}; it has {some(list_optimizers(), 60)}")
    info = get_optimizer_info(name)
    if info.second_order:
        raise KitError(f"training.optimizer.name: {name} needs second derivatives, which the loop does not make")
    if name.startswith("kron"):
        raise KitError(
            f"training.optimizer.name: {name} compiles its step anew for each shape of weights, which takes many "
            "minutes; choose another, like muon"
        )
    if "adamw_lr" in options:
        raise KitError(
            "training.optimizer.options.adamw_lr: is a rate beside the policy's; give fallback_lr_scale, its "
            "share of the rate"
        )


def _own_optimizer(
    own: OwnCode, split: list[dict[str, Any]], usual: dict[str, Any], options: dict[str, Any]
) -> torch.optim.Optimizer:
    """Return an optimizer of the user's own over the parameter groups, with those of `usual` that it takes."""
    target = own.load()
    takes = inspect.signature(target).parameters
    loose = any(each.kind is each.VAR_KEYWORD for each in takes.values())
    options = {name: value for name, value in usual.items() if loose or name in takes} | options
    try:
        own.check_signature(target, options, ("params",))
        optimizer = own.call(target, split, **options)
    except KitError as error:
        raise KitError(f"training.optimizer: {error}") from error
    place = f"training.optimizer: {own.reference}"
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise KitError(f"{place} gives {type(optimizer).__name__}; a torch.optim.Optimizer is needed")
    held = [group.get("depth") for group in optimizer.param_groups]
    if held != [part["depth"] for part in split]:
        raise KitError(
            f"{place} does not keep the parameter groups that it is given (their `depth`: {some(held)})"
        )
    try:
        inspect.signature(optimizer.step).bind(None)
    except TypeError as error:
        raise KitError(f"{place}: step(closure=None) is needed, as of torch's optimizers: {error}") from error
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise KitError(f"{place} needs a closure, which evaluates the model anew: the loop has none")
    _try_step(own, target, options)
    return optimizer


def _try_step(own: OwnCode, target: Any, options: dict[str, Any]) -> None:
    """Make a step with an own optimizer on a small matrix; KitError where that fails or is not finite."""
    generator = torch.Generator().manual_seed(0)
    value = nn.Parameter(torch.randn(4, 4, generator=generator))
    value.grad = torch.randn(4, 4, generator=generator)
    place = f"training.optimizer: {own.reference}"
    try:
        optimizer = target([{"params": [value], "depth": 0, "name": "tried"}], **options)
        if averages(optimizer):
            optimizer.train()
        optimizer.step(None)
    except Exception as error:
        raise KitError(f"{place}: cannot make a step: {own.fault(error)}") from error
    if not value.isfinite().all():
        raise KitError(f"{place}: makes weights that are not finite in its first step")


def _start_at_rest(optimizer: torch.optim.Optimizer) -> None:
    """Give fused SGD a momentum of 0 before its first step: μ·0 + g is the g that the plain form begins with.

    Without it the fused form takes all buffers for missing or none, so it fails at the step where a further
    parameter gets its first gradient, and it keeps uninitialised memory of a first step that fp16's scaler skips.
    """
    if not (isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["fused"]):
        return

    def fill(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for value in group["params"]:
                if optimizer.state[value].get("momentum_buffer") is None:
                    optimizer.state[value]["momentum_buffer"] = torch.zeros_like(value)

    fill(optimizer)
    optimizer.register_load_state_dict_post_hook(fill)  # a state saved without it


def factors_within(optimizer: torch.optim.Optimizer, count: int) -> np.ndarray | None:
    """Return what an optimizer multiplies the rates by within, where it says so: timm's Muon does.

    Parameters
    ----------
    optimizer : Optimizer
        After one or more updates, so that it has chosen which parameters it orthogonalises.
    count : int
        Depth groups.

    Returns
    -------
    ndarray or None
        float64 [groups, 2]: the smallest and the largest factor over a depth group's parameters, NaN where none
        has learned yet; None for an optimizer that does not say.

    References
    ----------
    0.2·√max(out, in): arXiv 2502.16982; √max(1, out/in): Keller Jordan's Muon; √(out/in): arXiv 2502.07529; of
    AdaMuon, whose step has that size whatever the gradient is: arXiv 2507.11005.
    """
    if not all("ns_steps" in group for group in optimizer.param_groups):
        return None
    factors = np.full((count, 2), np.nan)
    for group in optimizer.param_groups:
        for value in group["params"]:
            state = optimizer.state.get(value, {})
            if "use_muon" in state:
                factor = (
                    _muons_factor(value.shape, group) if state["use_muon"] else group.get("fallback_lr_scale", 1.0)
                )
                row = factors[group["depth"]]
                row[:] = np.fmin(row[0], factor), np.fmax(row[1], factor)
    return factors


def _muons_factor(shape: Sequence[int], group: dict[str, Any]) -> float:
    """Return by what Muon's rate is multiplied for an orthogonalised parameter of this shape."""
    matrix = reshape_for_muon(torch.empty(tuple(shape), device="meta"), mode=group["conv_mode"])[0]
    rule, factor = group["adjust_lr_fn"], 1.0
    if rule and group.get("algo") == "adamuon":
        factor, normed = get_adamuon_lr_scale(matrix.shape, rule)
        if normed:
            return factor  # of a step of norm 1
    elif rule:
        factor = get_lr_scale(matrix.shape, rule)
    batched = group["conv_mode"] == "batched" and matrix.ndim >= 3 and group["normalize_spatial"]
    return factor * matrix.shape[0] ** -0.5 if batched else factor


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
                split.append({"params": members, "weight_decay": decay, "depth": depth, "name": group.label})
    return split
