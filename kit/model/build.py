"""Building a timm model from the config; its initial weights depend on the seed alone."""

import dataclasses
import difflib
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn

from kit.core.disk import number_of, reason_of
from kit.core.errors import KitError, NotWritten, some
from kit.core.own_code import is_reference
from kit.core.paths import weight_file
from kit.core.seeds import derive
from kit.model.config import ModelConfig
from kit.model.hub import within_reach
from kit.model.own import build_own, by_patterns
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
        For an unknown name, options that timm refuses, and weights that do not fit, or in part do not.
    """
    model = _built(config, n_classes, channels, size, seed)
    if config.depth:  # `kit.model.groups` asks the model
        names = [name for name, _ in model.named_parameters()]
        layers = by_patterns(names, config.depth)
        parameters = dict(model.named_parameters())
        order = [[parameters[name] for name in layer] for layer in layers]
        vars(model)["depth_groups"] = lambda: order
    return model


def _built(config: ModelConfig, n_classes: int, channels: int, size: int, seed: int) -> nn.Module:
    if own := config.own(config.name):
        torch.manual_seed(derive("weights", seed))
        return build_own(own, config, n_classes, channels)
    if not (is_remote(config.name) or timm.is_model(config.name.split(".")[0])):
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


def is_remote(name: str) -> bool:
    """Tell whether a name is timm's for a model described elsewhere: `hf-hub:owner/name`, `local-dir:path`."""
    return name.startswith(("hf-hub:", "local-dir:"))


def takes_fixed_size(name: str) -> bool:
    """Tell whether the model is built for one image size (ViT, Swin) and has to be told which."""
    return bool(_published(name).fixed_input_size)


def _published(name: str) -> timm.models.PretrainedCfg:
    """Return what timm says of the model's weights, whether or not they are used."""
    if is_remote(name):
        return _described(name)
    try:
        return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError as error:  # resnet18.nonsense
        raise KitError(f"model.name: {name!r}: {_line(error)}") from error


@lru_cache(maxsize=8)
def _described(name: str) -> timm.models.PretrainedCfg:
    """Return what the config.json of a model of a hub or a folder says of its weights."""
    from timm.models import _hub

    source, _, place = name.partition(":")
    try:
        if source == "local-dir":
            described, _, _ = _hub.load_model_config_from_path(place)
        else:
            with within_reach(name):
                described, _, _ = _hub.load_model_config_from_hf(place)
    except Exception as error:  # whatever the hub's clients raise
        _need_room_for(name, error)
        raise KitError(
            f"model.name: {name} cannot be had ({_line(error)}); check the name and the network"
        ) from error
    known = {field.name for field in dataclasses.fields(timm.models.PretrainedCfg)}
    return timm.models.PretrainedCfg(**{key: value for key, value in described.items() if key in known})


def normalisation(model_name: str, channels: int, model: nn.Module | None = None) -> Normalisation:
    """Return the mean and the standard deviation that the weights of this model expect.

    Parameters
    ----------
    model_name : str
        Of timm. For a model of the user's own it is what its first part from timm says, else ImageNet's.
    channels : int
        Where it is another number than theirs, their average stands for each channel.
    model : Module
        Needed for one of the user's own.
    """
    if is_reference(model_name):
        each: list[dict[str, Any]] = [
            getattr(part, "pretrained_cfg", None) or {} for part in (model.modules() if model else ())
        ]
        described = next((config for config in each if "mean" in config), None)
        usual = timm.models.PretrainedCfg()
        mean, std = (described["mean"], described["std"]) if described else (usual.mean, usual.std)
    else:
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


def _need_room_for(name: str, error: Exception) -> None:
    """NotWritten where an error of the hub's clients says that what they fetched could not be kept."""
    number = number_of(error) or (error.errno if isinstance(error, PermissionError) else None)
    if number is not None:
        raise NotWritten(
            f"{name}: what comes from the hub could not be kept: {reason_of(number)} ({_line(error)}); make room, "
            "or set HF_HOME to a folder that can be written"
        ) from error


def _create(config: ModelConfig, options: dict) -> nn.Module:
    try:
        return timm.create_model(config.name, **options)
    except (TypeError, AssertionError, ValueError, LookupError, RuntimeError) as error:
        raise KitError(f"model: timm cannot build {config.name} with {options}: {_line(error)}") from error


def _from_hub(config: ModelConfig, options: dict) -> nn.Module:
    try:
        with within_reach(config.name), _nothing_random(config, options["in_chans"]):
            return timm.create_model(config.name, pretrained=True, **options)
    except KitError:
        raise
    except Exception as error:  # whatever the hub's clients raise: no network, no such file, a broken cache
        _need_room_for(config.name, error)
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
        with _nothing_random(config, options["in_chans"]):
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


@contextmanager
def _nothing_random(config: ModelConfig, channels: int) -> Iterator[None]:
    """Raise a KitError where timm, within, takes random values in place of pretrained ones.

    That is what it does with a first layer that it cannot convert to the number of channels (a stem that folds
    pixels into channels, a patch embedding that is no convolution); it says so in its log alone.
    """
    told: list[str] = []
    listener, logger = logging.Handler(logging.WARNING), logging.getLogger("timm.models._builder")
    listener.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.setLevel(logging.WARNING)  # whatever the user wants to see of timm
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
    if random := [line for line in told if "random init" in line]:
        raise KitError(
            f"model.weights: of the pretrained {config.name} a part would be random with data.channels {channels} "
            f"(timm: {some(random)}); take the data.channels that it was trained with, another model, or "
            "model.weights none"
        )


def _line(error: Exception) -> str:
    """Return the error's text in one line, cut where it gets long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
