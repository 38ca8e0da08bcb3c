"""Freezing the parameters at one depth of the network, and undoing it exactly."""

from collections.abc import Iterable, Sequence

from torch import nn


class Switch:
    """Turns the gradients of some parameters off and on again.

    norms  the normalisation layers they belong to, which may go on learning while the rest is frozen
    """

    def __init__(self, parameters: Sequence[nn.Parameter], norms: Sequence[nn.Module] = ()):
        self._learned = [value for value in parameters if value.requires_grad]  # others were never meant to
        self._of_norms = {id(value) for norm in norms for value in norm.parameters(recurse=False)}
        self._with_statistics = [norm for norm in norms if getattr(norm, "running_mean", None) is not None]
        self._stopped: list[nn.Module] = []  # by freezing, to be started again

    @property
    def frozen(self) -> bool:
        """Whether nothing but norms has gradients."""
        return bool(self._learned) and not any(
            value.requires_grad for value in self._learned if id(value) not in self._of_norms
        )

    def set(self, frozen: bool, moving: bool, train_norm: bool) -> None:
        """Freezes, or restores what freezing has changed.

        moving      whether the group has a rate above 0, at which its norms could learn
        train_norm  whether norms are left to learn when frozen; if not, their running statistics stand
                    still as well (`eval` mode)
        """
        for value in self._learned:
            learns = not frozen or (train_norm and moving and id(value) in self._of_norms)
            if value.requires_grad != learns:
                value.requires_grad_(learns)
                if not learns:
                    value.grad = None  # else the optimizer would go on with it
        if frozen and not train_norm:
            for norm in self._with_statistics:
                if norm.training:
                    norm.eval()
                    self._stopped.append(norm)
        else:
            for norm in self._stopped:
                norm.train()
            self._stopped = []


def norms_of(model: nn.Module, parameters: Iterable[nn.Parameter]) -> tuple[nn.Module, ...]:
    """The normalisation layers of the model (by their name: BatchNorm2d, LayerNorm, RmsNorm …) that own one
    of `parameters`."""
    wanted = {id(value) for value in parameters}
    return tuple(
        module
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        and any(id(value) in wanted for value in module.parameters(recurse=False))
    )
