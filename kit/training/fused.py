"""Steps of torch's fused optimizers over many parameter groups, with less of Python for each.

torch looks at every parameter anew in each step, and sorts those of each group by device and type: for 20 groups
that takes longer than to launch their kernels, and small networks on a GPU wait for it. Here the lists of a group
are kept while the same parameters have gradients, and the kernels are called as torch calls them, with the rate as
an argument: the same kernels and the same bits, and nothing is copied to the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class _Members:
    """A parameter group: which of its parameters had gradients, these, and their state by its name."""

    parameters: list[torch.nn.Parameter]
    alive: list[bool]
    learning: Tensors
    state: dict[str, Tensors]


class _Kept:
    """The lists of all groups, as long as they hold."""

    def __init__(self, optimizer: Optimizer):
        self.state, self.groups = optimizer.state, optimizer.param_groups
        self.members = [_members_of(optimizer, group) for group in optimizer.param_groups]
        named = [each.state.get("step", []) for each in self.members if each]
        self.steps = [step for steps in named for step in steps]
        self.whole = all(each is not None for each in self.members)

    def gradients(self, optimizer: Optimizer) -> list[Tensors] | None:
        """Return the gradients of each group; None where the lists do not hold any more."""
        # What is loaded comes in new containers.
        there = self.state is optimizer.state and self.groups is optimizer.param_groups
        if not (self.whole and there and len(self.members) == len(self.groups)):
            return None
        each = []
        for members, group in zip(self.members, optimizer.param_groups, strict=True):
            assert members
            gradients = [value.grad for value in group["params"]]
            if members.parameters is not group["params"] or members.alive != [
                one is not None for one in gradients
            ]:
                return None
            each.append([one for one in gradients if one is not None])
        return each


def _members_of(optimizer: Optimizer, group: dict[str, Any]) -> _Members | None:
    """Return a group's lists; None where torch has to make its step: without state, or of several kinds."""
    parameters = group["params"]
    alive = [value.grad is not None for value in parameters]
    learning = [value for value in parameters if value.grad is not None]
    kinds = {(each.device, each.dtype) for value in learning for each in (value, value.grad)}
    usual = not any(torch.is_tensor(group.get(name)) for name in ("lr", "weight_decay", "momentum"))
    names = _state_names(optimizer, group)
    states = [optimizer.state.get(value, {}) for value in learning]
    there = all(torch.is_tensor(state.get(name)) for state in states for name in names)
    if len(kinds) > 1 or any(kind.is_complex for _, kind in kinds) or not (usual and there):
        return None
    return _Members(parameters, alive, learning, {name: [state[name] for state in states] for name in names})


def _state_names(optimizer: Optimizer, group: dict[str, Any]) -> tuple[str, ...]:
    if isinstance(optimizer, SGD):
        return ("momentum_buffer",)
    return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))


def quicken(optimizer: Optimizer) -> None:
    """Let a fused SGD, Adam or AdamW of torch make its steps by lists that are kept; others stay as they are.

    Steps for which that does not do, like the first one, are torch's own. Hooks of the optimizer are called.
    """
    if type(optimizer) not in (SGD, Adam, AdamW) or not optimizer.defaults.get("fused"):
        return
    hooked: Any = type(optimizer).step
    plain = hooked.__wrapped__  # without hooks, which are called around `step`
    kept: list[_Kept] = []

    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        gradients = kept[0].gradients(self) if kept else None
        if closure is not None or gradients is None:
            made = plain(self, closure)
            kept[:] = [_Kept(self)]
            return made
        _launch(self, kept[0], gradients)
        return None

    optimizer.step = MethodType(Optimizer.profile_hook_step(step), optimizer)  # type: ignore[method-assign]


@torch.no_grad()
def _launch(optimizer: Optimizer, kept: _Kept, gradients: list[Tensors]) -> None:
    """Make a step: torch's kernels, a launch or two a group."""
    scaled = {name: getattr(optimizer, name, None) for name in ("grad_scale", "found_inf")}
    if kept.steps:
        torch._foreach_add_(kept.steps, 1)
    for group, members, ours in zip(optimizer.param_groups, kept.members, gradients, strict=True):
        if not ours:
            continue
        assert members
        usual = {"lr": group["lr"], "weight_decay": group["weight_decay"], "maximize": group["maximize"], **scaled}
        state = members.state
        if isinstance(optimizer, SGD):
            torch._fused_sgd_(
                *(members.learning, ours, state["momentum_buffer"] if group["momentum"] else []),
                momentum=group["momentum"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                is_first_step=False,
                **usual,
            )
            continue
        launch = torch._fused_adamw_ if _decays_weights(optimizer, group) else torch._fused_adam_
        launch(
            *(members.learning, ours, state["exp_avg"], state["exp_avg_sq"], state.get("max_exp_avg_sq", [])),
            state["step"],
            amsgrad=group["amsgrad"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            **usual,
        )
    if kept.steps and scaled["found_inf"] is not None:
        torch._foreach_sub_(kept.steps, [scaled["found_inf"]] * len(kept.steps))


def _decays_weights(optimizer: Optimizer, group: dict[str, Any]) -> bool:
    """Whether the weight decay is AdamW's, not a part of the gradient."""
    return bool(group.get("decoupled_weight_decay", isinstance(optimizer, AdamW)))
