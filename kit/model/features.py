"""A network's body: the pooled output of its depth groups, from which heads are fitted."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from kit.core.errors import KitError, some
from kit.model.groups import depth_groups
from kit.model.weights import classifier_names

LAST = "last"  # the body's output as the classifier gets it
_known: WeakKeyDictionary[nn.Module, list[str]] = WeakKeyDictionary()  # each head of each fold asks for them


def blocks(model: nn.Module) -> list[str]:
    """Return what features can be taken of: the depth groups but that of the classifier, then `last`."""
    if model not in _known:
        _known[model] = [*(group.name for group in depth_groups(model)[:-1]), LAST]
    return list(_known[model])


def block_named(model: nn.Module, block: str) -> str:
    """Return the name of a block that is given by its name, its number from the stem, or `last`.

    Parameters
    ----------
    model : Module
    block : str
        Like layer3.1, 5 (the stem is 0), −1 for the depth group before the classifier's, or last.

    Raises
    ------
    KitError
        Where the model has none like it.
    """
    names = blocks(model)
    if block in names:
        return block
    groups = names[:-1]
    try:
        return groups[int(block)]
    except (ValueError, IndexError):
        raise KitError(
            f"features.block: there is no {block!r} in {type(model).__name__}; take last, a number from 0 to "
            f"{len(groups) - 1}, or one of {some(groups, 40)}"
        ) from None


def body_digest(model: nn.Module) -> str:
    """Return 16 digits of the SHA-256 of all tensors but the classifier's, which features do not depend on."""
    apart = tuple(f"{name}." for name in _classifiers(model))
    digest = sha256()
    for name, tensor in model.state_dict().items():
        if not name.startswith(apart):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class Taps:
    """Takes the pooled outputs of some blocks in one pass.

    Parameters
    ----------
    model : Module
        Of timm, or of the user's own.
    names : sequence of str
        As `blocks` has them.

    Raises
    ------
    KitError
        Where the model has no such block, or none of its modules can be listened to.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]):
        self.model, self.names = model, list(names)
        groups = {group.name: set(group.parameters) for group in depth_groups(model)[:-1]}
        if unknown := [name for name in names if name != LAST and name not in groups]:
            raise KitError(
                f"features.block: {type(model).__name__} has no {some(unknown)}; it has {some(groups, 40)}"
            )
        self._modules = {name: _tops(model, groups[name]) for name in names if name != LAST}

    def __call__(self, inputs: torch.Tensor) -> "OrderedDict[str, torch.Tensor]":
        """Return float32 [images, numbers] of each block, by name in the order of `names`.

        A map [images, channels, height, width] gives the mean over places, tokens [images, tokens, numbers] the
        mean over those of the image's patches. `last` is what timm pools, as `forward_head(pre_logits=True)`
        gives it; of a model without that, what its last linear layer takes.
        """
        found: dict[str, torch.Tensor] = {}
        with self._listening(found):
            last = self._last(inputs)
        if lost := [name for name in self._modules if name not in found]:
            raise KitError(
                f"features.block: {some(lost)} of {type(self.model).__name__} gives nothing as images pass; take "
                "another block"
            )
        found[LAST] = last
        return OrderedDict((name, found[name].float()) for name in self.names)

    def _last(self, inputs: torch.Tensor) -> torch.Tensor:
        model: Any = self.model
        if callable(getattr(model, "forward_features", None)) and callable(getattr(model, "forward_head", None)):
            return pooled(model.forward_head(model.forward_features(inputs), pre_logits=True), model)
        heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not heads:
            raise KitError(
                f"features.block: {type(model).__name__} has neither timm's forward_features and forward_head nor "
                "a linear layer at its end, so where its features end is not known"
            )
        taken: list[torch.Tensor] = []
        handle = heads[-1].register_forward_pre_hook(lambda module, given: taken.append(given[0]))
        try:
            model(inputs)
        finally:
            handle.remove()
        return pooled(taken[-1], model)

    @contextmanager
    def _listening(self, found: dict[str, torch.Tensor]) -> Iterator[None]:
        """Keep what the modules of each block give; the one that comes last stands for the block."""
        handles = []

        def listen(name: str) -> Any:
            def keep(module: nn.Module, given: Any, output: Any) -> None:
                found[name] = pooled(output, self.model)

            return keep

        try:
            for name, modules in self._modules.items():
                handles += [module.register_forward_hook(listen(name)) for module in modules]
            yield
        finally:
            for handle in handles:
                handle.remove()


def pooled(output: Any, model: nn.Module) -> torch.Tensor:
    """Return one row an image of what a block gives: the mean over places, or over the tokens of patches.

    Raises
    ------
    KitError
        For what is neither a map, nor tokens, nor rows.
    """
    values = output[0] if isinstance(output, tuple | list) else output
    timm_model: Any = model
    if isinstance(values, torch.Tensor) and values.ndim == 4:
        last = getattr(timm_model, "output_fmt", "NCHW") == "NHWC"  # of Swin and its like
        return values.float().mean(dim=(1, 2) if last else (2, 3))
    if isinstance(values, torch.Tensor) and values.ndim == 3:
        patches = getattr(getattr(timm_model, "patch_embed", None), "num_patches", None)
        before = int(getattr(timm_model, "num_prefix_tokens", 0))  # the class token and registers
        first = before if values.shape[1] > before and values.shape[1] != patches else 0
        return values[:, first:].float().mean(dim=1)
    if isinstance(values, torch.Tensor) and values.ndim == 2:
        return values
    found = f"shape {list(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
    raise KitError(f"features.block: a block of {type(model).__name__} gives {found}, no map and no tokens")


def _tops(model: nn.Module, parameters: set[str]) -> list[nn.Module]:
    """Return the largest modules whose parameters are all of these."""
    tops: list[nn.Module] = []
    covered = ""
    for path, module in model.named_modules():
        own = [f"{path}.{name}".lstrip(".") for name, _ in module.named_parameters()]
        if own and parameters.issuperset(own) and not (covered and path.startswith(f"{covered}.")):
            tops.append(module)
            covered = path
    return tops


def _classifiers(model: nn.Module) -> list[str]:
    """Return the names of the modules that give the logits: timm's word, else the last linear layer."""
    if named := list(classifier_names(model)):
        return named
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
