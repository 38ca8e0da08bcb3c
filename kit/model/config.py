"""The `model` section of the config: which network, and its first weights."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from kit.core.settings import ConfigSection


class ModelConfig(ConfigSection):
    """Which network, and with which weights it starts.

    Attributes
    ----------
    name
        Any timm model (`timm.list_models()`).
    weights
        `none`: from scratch; `hub`: timm's pretrained weights, downloaded; else the path of a local weight file
        (.safetensors, or a state dict that torch loads with weights_only=True).
    drop
        Dropout before the classifier, 0 to 1.
    options
        Further keyword arguments of timm.create_model, e.g. {drop_path_rate: 0.1}.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"weights"})  # what counts is the file's content

    name: str = "resnet18"
    weights: str = "none"
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    options: dict[str, Any] = {}

    @field_validator("options")
    @classmethod
    def _not_what_the_kit_gives(cls, options: dict[str, Any]) -> dict[str, Any]:
        given = {"num_classes": "the train table", "in_chans": "data.channels", "pretrained": "model.weights"}
        for name, source in given.items():
            if name in options:
                raise ValueError(f"{name} comes from {source}")
        return options
