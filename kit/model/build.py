"""Building a timm model from the config; its initial weights depend on the seed alone."""

import difflib
import hashlib
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from kit.core.errors import KitError
from kit.core.paths import weight_file
from kit.core.seeds import derive
from kit.model.config import ModelConfig
from kit.model.hub import within_reach
from kit.model.weights import (
    Weights,
    classifier_rows,
    fits_first_convolution,
    match_names,
    read_weights,
)


@dataclass(frozen=True)
class Normalisation:
    """The mean and the standard deviation of each input channel, for pixels from 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_model(config: ModelConfig, n_classes: int, channels: int, size: int, seed: int) -> nn.Module:
    """Build a timm model, on the CPU.

    Parameters
    ----------
    config : ModelConfig
        Which model, and with which weights.
    n_classes : int
        Logits that it gives.
    channels, size : int
        Of the images that it sees, [channels, size, size].
    seed : int
        The same seed gives the same weights; with pretrained weights it decides the new head alone.

    Raises
    ------
    KitError
        For an unknown name, options that timm refuses, and weights that do not fit.
    """
    if not timm.is_model(config.name.split(".")[0]):
        close = difflib.get_close_matches(config.name, timm.list_models(), n=3)
        hint = f"; close: {', '.join(close)}" if close else ""
        raise KitError(f"model.name: {config.name!r} is not a timm model{hint}")
    options = dict(config.options) | ({"drop_rate": config.drop} if config.drop else {})
    if takes_fixed_size(config.name):
        options.setdefault("img_size", size)
    options["in_chans"] = channels
    weights = None
    if config.weights not in ("none", "hub"):
        path = weight_file(config.weights)
        blank = _create(config, options)
        weights = match_names(blank, read_weights(path), path)
    torch.manual_seed(derive("weights", seed))
    if weights is not None:
        return _load(config, weights, blank, n_classes, options)
    if config.weights == "hub":
        return _from_hub(config, options | {"num_classes": n_classes})
    return _create(config, options | {"num_classes": n_classes})


def takes_fixed_size(name: str) -> bool:
    """Tell whether the model is built for one image size (ViT, Swin) and has to be told which."""
    return bool(_published(name).fixed_input_size)


def _published(name: str) -> timm.models.PretrainedCfg:
    """Return what timm says of the model's weights, whether or not they are used."""
    try:
        return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError as error:  # resnet18.nonsense
        raise KitError(f"model.name: {name!r}: {_line(error)}") from error


def normalisation(model_name: str, channels: int) -> Normalisation:
    """Return the mean and the standard deviation that timm's weights of this model expect.

    Where the number of channels is another one than theirs, their average stands for each channel.
    """
    published = _published(model_name)
    mean, std = published.mean, published.std
    if len(mean) != channels:
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return Normalisation(tuple(mean), tuple(std))


def weights_digest(model: nn.Module) -> str:
    """Return 16 digits of the SHA-256 of all tensors: equal for models that are equal to the bit."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _create(config: ModelConfig, options: dict) -> nn.Module:
    try:
        return timm.create_model(config.name, **options)
    except (TypeError, AssertionError, ValueError, LookupError, RuntimeError) as error:
        raise KitError(f"model: timm cannot build {config.name} with {options}: {_line(error)}") from error


def _from_hub(config: ModelConfig, options: dict) -> nn.Module:
    try:
        with within_reach(config.name):
            return timm.create_model(config.name, pretrained=True, **options)
    except Exception as error:  # whatever the hub's clients raise: no network, no such file, a broken cache
        raise KitError(
            f"model.weights: the pretrained weights of {config.name} cannot be had from timm's hub "
            f"({_line(error)}); check the network, or give the path of a local weight file"
        ) from error


def _load(config: ModelConfig, weights: Weights, blank: nn.Module, n_classes: int, options: dict) -> nn.Module:
    """Load weights strictly, every key and shape, with the file's own head; one of another size is made new.

    timm does the loading, with its filters for foreign names, position embeddings and input channels.
    """
    rows = classifier_rows(blank, weights)
    overlay: dict[str, Any] = {"state_dict": weights, "num_classes": rows, "custom_load": False}
    if fits_first_convolution(blank, weights):
        overlay["first_conv"] = None  # nothing to adapt; timm before 1.0.27 would adapt it all the same
    try:
        model: Any = timm.create_model(
            config.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=rows, **options
        )
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise KitError(
            f"model.weights: {config.weights} does not fit {config.name}, it seems to be of another "
            f"architecture: {_line(error)}"
        ) from error
    if rows != n_classes:
        model.reset_classifier(n_classes)
    return model


def _line(error: Exception) -> str:
    """Return the error's text in one line, cut where it gets long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
