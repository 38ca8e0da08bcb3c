"""Models of the user's own: what they are called with, their weights, and their depth order."""

import inspect
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from kit.core.errors import KitError, some
from kit.core.own_code import OwnCode
from kit.core.paths import weight_file
from kit.model.config import ModelConfig
from kit.model.weights import read_weights


def build_own(own: OwnCode, config: ModelConfig, n_classes: int, channels: int) -> nn.Module:
    """Build a model of the user's own.

    It is called as timm's are, with `num_classes` and `in_chans`, with `drop_rate` where `model.drop` is set, with
    `pretrained=True` for `weights: hub`, and with `model.options`.

    Parameters
    ----------
    own : OwnCode
        A function that gives a Module, or a class of one: from [batch, channels, size, size] to logits
        [batch, classes].
    config : ModelConfig
        Its options and first weights.
    n_classes, channels : int
        Of the competition.

    Raises
    ------
    KitError
        Where it does not take these arguments, gives no Module, or the weights are not its own.
    """
    given: dict[str, Any] = {"num_classes": n_classes, "in_chans": channels}
    given |= {"drop_rate": config.drop} if config.drop else {}
    given |= {"pretrained": True} if config.weights == "hub" else {}
    try:
        target = own.load()
        own.check_signature(target, given | config.options, (), kits=tuple(given))
        model = own.call(target, **given, **config.options)
    except KitError as error:
        raise KitError(f"model.name: {error}") from error
    if not isinstance(model, nn.Module):
        raise KitError(f"model.name: {own.reference} gives {type(model).__name__}; a torch.nn.Module is needed")
    if lazy := [name for name, value in model.named_parameters() if is_lazy(value)]:
        raise KitError(
            f"model.name: {own.reference} has parameters without a shape yet: {some(lazy, 5)}; give them one"
        )
    vars(model)["num_classes"] = n_classes  # as timm's have it
    if config.weights not in ("none", "hub"):
        path = weight_file(config.weights)
        try:
            model.load_state_dict(read_weights(path))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise KitError(
                f"model.weights: {path} does not hold the weights of {own.reference}: {reason}"
            ) from error
    return model


def check_output(model: nn.Module, n_classes: int, batch: torch.Tensor, name: str) -> None:
    """Raise KitError where the model does not give one finite logit a class for each image of a batch."""
    logits = model(batch)
    shape = [len(batch), n_classes]
    if not isinstance(logits, torch.Tensor) or list(logits.shape) != shape:
        found = f"shape {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise KitError(f"model.name: {name} gives {found}; logits of shape {shape} are needed")
    if not logits.isfinite().all():
        raise KitError(f"model.name: {name} gives logits that are not finite for a batch of zeros")


def by_hook(model: nn.Module) -> list[list[str]]:
    """Return the names of the parameters at each depth, as the model's own `depth_groups()` has them.

    It returns a list, stem first, of modules, parameters, or lists of these.

    Raises
    ------
    KitError
        For what is not of the model.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    layers: list[list[str]] = []
    hook = model.depth_groups
    assert callable(hook)
    try:
        depths = list(hook())
    except Exception as error:  # of the user's code
        frames = traceback.extract_tb(error.__traceback__)
        source = inspect.getsourcefile(type(model))
        last = next((frame for frame in reversed(frames) if frame.filename == source), frames[-1])
        where = f"{Path(last.filename).name}:{last.lineno}"
        raise KitError(f"model: depth_groups() fails at {where}: {type(error).__name__}: {error}") from error
    for place, members in enumerate(depths):
        found = []
        for member in members if isinstance(members, list | tuple) else [members]:
            values = [member] if isinstance(member, nn.Parameter) else []
            values = list(member.parameters()) if isinstance(member, nn.Module) else values
            if not values and not isinstance(member, nn.Module):
                raise KitError(
                    f"model: depth_groups()[{place}] holds {type(member).__name__}; give modules or parameters"
                )
            if strange := [value for value in values if id(value) not in names]:
                raise KitError(
                    f"model: depth_groups()[{place}] holds {len(strange)} parameters that are not the model's"
                )
            found += [names[id(value)] for value in values]
        if found:
            layers.append(found)
    return layers


def by_patterns(names: Sequence[str], patterns: Sequence[str]) -> list[list[str]]:
    """Return the names of the parameters at each depth: each in the first pattern that its name begins with.

    Raises
    ------
    KitError
        Where a name fits none, and where a pattern is of none.
    """
    layers: list[list[str]] = [[] for _ in patterns]
    rest = []
    for name in names:
        place = next((i for i, pattern in enumerate(patterns) if re.match(pattern, name)), None)
        if place is None:
            rest.append(name)
        else:
            layers[place].append(name)
    if rest:
        raise KitError(f"model.depth: no pattern is of {some(rest, 5)}; add one, in the order of depth")
    if empty := [pattern for pattern, layer in zip(patterns, layers, strict=True) if not layer]:
        raise KitError(f"model.depth: {empty[0]!r} is of no parameter; they are {some(names, 8)}")
    return layers
