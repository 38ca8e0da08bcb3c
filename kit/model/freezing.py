"""Freezing the parameters at one depth of the network, and undoing it exactly."""

from collections.abc import Iterable, Sequence

from torch import nn
from torch.utils.hooks import RemovableHandle

_MARK = "_frozen_by_kit"  # on a parameter: so that a later Freezer knows that it is meant to learn


class Freezer:
    """Turns the gradients of some parameters off and on again.

    Parameters that had no gradient before any Freezer was made never get one.

    Parameters
    ----------
    parameters : sequence of Parameter
        Those to freeze, of one depth group.
    norms : sequence of Module
        The normalisation layers among their owners, which may go on learning while the rest is frozen.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], norms: Sequence[nn.Module] = ()):
        self._parameters = list(parameters)
        self._meant = [value.requires_grad or hasattr(value, _MARK) for value in self._parameters]
        self._of_norms = {id(value) for norm in norms for value in norm.parameters(recurse=False)}
        self._with_statistics = [norm for norm in norms if getattr(norm, "running_mean", None) is not None]
        self._stopped: list[tuple[nn.Module, bool, RemovableHandle]] = []  # was it training; its hook
        self._wanted = [value.requires_grad for value in self._parameters]

    @property
    def as_set(self) -> bool:
        """Whether the parameters that have gradients are exactly those that `set` left with one."""
        return [value.requires_grad for value in self._parameters] == self._wanted

    def set(self, frozen: bool, moving: bool, train_norm: bool) -> bool:
        """Freeze the parameters, or restore what freezing has changed.

        Parameters
        ----------
        frozen : bool
            Whether they are frozen from now on.
        moving : bool
            Whether the depth group has a rate above 0, at which its norms could learn.
        train_norm : bool
            Whether norms are left to learn when frozen; if not, their running statistics stand still as well
            (they work as in `eval` mode, whatever mode the model is put in).

        Returns
        -------
        bool
            Whether other parameters than before have gradients.
        """
        norms_learn, before = train_norm and moving, [value.requires_grad for value in self._parameters]
        self._wanted = [
            meant and (not frozen or (norms_learn and id(value) in self._of_norms))
            for meant, value in zip(self._meant, self._parameters, strict=True)
        ]
        for value, meant, learns in zip(self._parameters, self._meant, self._wanted, strict=True):
            value.requires_grad_(learns)
            if learns:
                vars(value).pop(_MARK, None)
            elif meant:
                setattr(value, _MARK, True)
                value.grad = None  # else the optimizer would go on with it
        if frozen and not train_norm:
            self._stop_statistics()
        else:
            self._start_statistics()
        return self._wanted != before

    def _stop_statistics(self) -> None:
        if not self._stopped:
            for norm in self._with_statistics:
                self._stopped.append((norm, norm.training, norm.register_forward_pre_hook(_evaluate)))
                norm.eval()

    def _start_statistics(self) -> None:
        for norm, was_training, hook in self._stopped:
            hook.remove()
            norm.train(was_training)
        self._stopped = []


def _evaluate(norm: nn.Module, _: tuple) -> None:
    """Put a norm into `eval` mode: a user's `model.train()` at the start of an epoch undoes that."""
    norm.eval()


def norms_of(model: nn.Module, parameters: Iterable[nn.Parameter]) -> tuple[nn.Module, ...]:
    """Return the normalisation layers of the model that own one of `parameters`.

    They are told by the name of their class: BatchNorm2d, LayerNorm, RmsNorm …
    """
    wanted = {id(value) for value in parameters}
    return tuple(
        module
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        and any(id(value) in wanted for value in module.parameters(recurse=False))
    )
