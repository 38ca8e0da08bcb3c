"""A trained model as it takes images of another size than it was trained on."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from kit.core.errors import KitError


def at_size(model: nn.Module, side: int, trained: int) -> nn.Module:
    """Return a model that takes images of `side` × `side` pixels.

    Convolutional networks are returned as they are. Of one that is built for one size (ViT, Swin) it is a copy
    whose position embeddings timm has resampled (`set_input_size`); the model itself stays as it was.

    Parameters
    ----------
    model : Module
        Built for `trained`.
    side, trained : int
        In pixels.

    Raises
    ------
    KitError
        Where its patches do not fill the side.
    """
    set_size: Any = getattr(model, "set_input_size", None)
    if side == trained or set_size is None:
        return model
    patches = getattr(getattr(model, "patch_embed", None), "patch_size", None) or (1,)
    if any(side % patch for patch in patches):  # timm would leave the last pixels out
        raise KitError(f"it takes multiples of {max(patches)} px")
    other: Any = copy.deepcopy(model)
    other.set_input_size(img_size=(side, side))
    return other


def need_sides(model: nn.Module, sides: Iterable[int], trained: int, channels: int, name: str) -> None:
    """Check that a model takes images of these sizes, by sending black ones through it on the CPU.

    Raises
    ------
    KitError
        Where it does not.
    """
    mode = model.training
    model.eval()
    try:
        for side in sorted({*sides} - {trained}):
            try:
                with torch.inference_mode():
                    at_size(model, side, trained)(torch.zeros(1, channels, side, side))
            except Exception as error:  # whatever a network makes of images it is not made for
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise KitError(
                    f"prediction: {name}, built for {trained} px, cannot predict images of {side} px ({reason}); "
                    "change prediction.size or the scales in prediction.views, or take another model"
                ) from error
    finally:
        model.train(mode)
