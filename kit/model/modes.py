"""Predicting with a model, and putting it back into the modes that it was in."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Let the model predict within, from its weights as they are now; afterwards each module has its old mode.

    What modules keep for their predictions (see `forget_kept`) is dropped before, as weights may have moved since,
    and after, as they may move from here on.
    """
    modes = _modes(model)
    model.train()  # what is kept is dropped, see `forget_kept`
    model.eval()
    try:
        yield
    finally:
        model.train()
        _put_back(modes)


def forget_kept(model: nn.Module) -> None:
    """Drop what modules keep for their predictions: to be called where weights move while the model predicts.

    LeViT, EfficientFormer, TinyViT and EfficientViT (MSRA) of timm keep their attention biases in `eval` mode, and
    drop them when their method `train` is called, up to timm 1.0.26 at `train(True)` alone. So that is called, and
    each module's mode is put back by hand.
    """
    modes = _modes(model)
    model.train()
    _put_back(modes)


def _modes(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    """Return each module and whether it is training: those of frozen norms may differ from the model's."""
    return [(module, module.training) for module in model.modules()]


def _put_back(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
