"""The `model` section of the config: which network, and its first weights."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from kit.core.named import RefersToCode
from kit.core.settings import ConfigSection


class ModelConfig(RefersToCode, ConfigSection):
    """Which network, and with which weights it starts.

    Attributes
    ----------
    name
        Any timm model (`timm.list_models()`), also `hf-hub:owner/name` and `local-dir:path`, or own code: a
        function of num_classes, in_chans and `options` that gives a torch Module.
    weights
        `none`: from scratch; `hub`: timm's pretrained weights, downloaded; else the path of a local weight file
        (.safetensors, or a state dict that torch loads with weights_only=True).
    drop
        Dropout before the classifier, 0 to 1.
    options
        Further keyword arguments of timm.create_model, e.g. {drop_path_rate: 0.1}, or of own code.
    depth
        Regular expressions of parameters' beginnings, stem first, head last: the depth groups of a model that does
        not say its own; left out: the model's own.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"weights"})  # what counts is the file's content

    later: ClassVar[frozenset[str]] = frozenset({"depth"})

    code_keys = ("name",)
    name: str = "resnet18"
    weights: str = "none"
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    options: dict[str, Any] = {}
    depth: Annotated[tuple[str, ...], Field(min_length=2)] | None = None

    @field_validator("depth")
    @classmethod
    def _are_patterns(cls, depth: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pattern in depth or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return depth

    @field_validator("options")
    @classmethod
    def _not_what_the_kit_gives(cls, options: dict[str, Any]) -> dict[str, Any]:
        given = {"num_classes": "the train table", "in_chans": "data.channels", "pretrained": "model.weights"}
        for name, source in given.items():
            if name in options:
                raise ValueError(f"{name} comes from {source}")
        return options
