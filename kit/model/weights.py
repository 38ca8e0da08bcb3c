"""Weight files on disk: reading them, and finding the model's names for what they hold."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kit.core.errors import KitError, some
from kit.core.paths import mounts

Weights = dict[str, torch.Tensor]


def read_weights(path: Path) -> Weights:
    """Read the tensors of a .safetensors file or of a state dict, by name.

    Checkpoints that keep the state dict under `state_dict` or `model`, and names that begin with `module.`, are
    understood. Nothing in the file is executed (weights_only=True).

    Raises
    ------
    KitError
        Where the file is not there, or holds no state dict of tensors.
    """
    if not path.is_file():
        raise KitError(
            f"model.weights: {path} is no file; give `none`, `hub` or the path of a weight file{mounts()}"
        )
    content: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise KitError(
            f"model.weights: {path} holds more than tensors, so it is not loaded; "
            "save its state dict: torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # safetensors and torch raise their own kinds for a broken file
        raise KitError(
            f"model.weights: {path} is not a weight file ({type(error).__name__}); expected .safetensors "
            "or a state dict saved with torch.save"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise KitError(f"model.weights: {path} holds no state dict (a mapping from names to tensors)")
    if not content:
        raise KitError(f"model.weights: {path} holds no tensors")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def match_names(model: nn.Module, weights: Weights, path: Path) -> Weights:
    """Return `weights` under the model's own names.

    A file whose names are all the model's is taken as it is. A file from another code base that lists the same
    tensors in the same order is paired in order: weight with weight, running_mean with running_mean, every shape
    equal but those of the first convolution and the classifier, which adapt to channels and classes. Anything
    else is left alone: timm's own filter for the model may still know it.

    Raises
    ------
    KitError
        Where a file without any name of the model has as many tensors as it, but not the same.
    """
    target = model.state_dict()
    if len(weights) != len(target) or set(weights) == set(target):
        return weights
    adapting = (*classifier_names(model), *first_convolutions(model))
    pairs = list(zip(target.items(), weights.items(), strict=True))
    odd = [
        f"{name} {list(tensor.shape)} against {other} {list(given.shape)}"
        for (name, tensor), (other, given) in pairs
        if name.rpartition(".")[2] != other.rpartition(".")[2]
        or (tensor.shape != given.shape and name.rpartition(".")[0] not in adapting)
    ]
    if odd:
        if set(weights) & set(target):
            return weights
        raise KitError(
            f"model.weights: {path} is of another architecture: it has as many tensors as the model, but "
            f"{len(odd)} differ in kind or shape: {some(odd, 3)}"
        )
    return {name: given for (name, _), (_, given) in pairs}


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Return the module names of the classifier, as timm's description of the model gives them."""
    return _module_names(model, "classifier")


def first_convolutions(model: nn.Module) -> tuple[str, ...]:
    """Return the module names of the convolutions that see the image."""
    return _module_names(model, "first_conv")


def fits_first_convolution(model: nn.Module, weights: Weights) -> bool:
    """Tell whether the file's first convolution has the model's number of input channels already."""
    own = model.state_dict()
    keys = [f"{name}.weight" for name in first_convolutions(model)]
    return all(key in weights and weights[key].shape == own[key].shape for key in keys)


def _module_names(model: nn.Module, role: str) -> tuple[str, ...]:
    timm_model: Any = model  # torch's types do not know what timm adds to a module
    names = getattr(timm_model, "pretrained_cfg", {}).get(role) or ()
    return (names,) if isinstance(names, str) else tuple(names)


def classifier_rows(model: nn.Module, weights: Weights) -> int:
    """Return how many classes the head in a weight file has; 0 for a file without a head."""
    for name in classifier_names(model):
        if f"{name}.weight" in weights:
            return int(weights[f"{name}.weight"].shape[0])
    return 0
