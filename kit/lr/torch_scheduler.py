"""A policy as a torch scheduler, for other training loops than the kit's.

Of kit.lr, only this module needs torch, and only `Policy.lambda_lr` imports it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.optim import Optimizer as Optimizer  # passed on, for the annotation of `Policy.lambda_lr`
from torch.optim.lr_scheduler import LRScheduler

from kit.lr.clock import Clock, policy_groups
from kit.lr.policy import Policy, Rates, set_momentum, set_rate


class Switch(Protocol):
    """What freezes a depth group and lets it learn again; `kit.model.freezing.Freezer` is one."""

    def set(self, frozen: bool, moving: bool, train_norm: bool) -> bool:
        """Freeze, or restore what freezing has changed; return whether that changed anything."""


class Freezable(Protocol):
    """A depth group of torch parameters; `kit.model.groups.DepthGroup` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Its parameters by their names in the model."""

    @property
    def n_params(self) -> int:
        """How many numbers its parameters hold."""

    def freezer(self) -> Switch:
        """Return what freezes it."""


class PolicyLR(LRScheduler):
    """A torch scheduler that writes a policy's rates and momentum into an optimizer.

    It is used like torch's own: made before the first update, `step()` after each. Rates are written, not
    multiplied, so that nothing compounds. Each parameter group of the optimizer belongs to the depth group that
    holds its parameters. Weights of frozen depth groups are taken out of the gradient (`requires_grad`);
    normalisation layers that go on learning under the policy are left in.

    Parameters
    ----------
    policy : Policy
        One without a controller.
    optimizer : torch.optim.Optimizer
        Each of its parameter groups lies within one depth group.
    groups : sequence of Freezable
        The model's depth groups, from the stem to the head.
    total_steps : int
        Updates of the whole training.
    steps_per_epoch : int or None
        Updates of an epoch. Policies that count in epochs need it.

    Raises
    ------
    ValueError
        For a policy with a controller, which needs the kit's loop, and where policy, model, optimizer and length
        of training do not fit each other.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: Optimizer,
        groups: Sequence[Freezable],
        total_steps: int,
        steps_per_epoch: int | None = None,
    ) -> None:
        if policy.controller:
            raise ValueError(
                f"controller: {policy.controller.name} needs the kit's loop, which measures its signals"
            )
        self.policy, self.total_steps, self.steps_per_epoch = policy, total_steps, steps_per_epoch
        self.groups = policy_groups(groups)
        policy.check(self.groups, total_steps, steps_per_epoch)
        self._depths = [_depth_of(members["params"], groups) for members in optimizer.param_groups]
        self._switches = [group.freezer() for group in groups]
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of each parameter group of the optimizer at this step."""
        rates = self._rates()
        return [float(rates.lr[depth]) for depth in self._depths]

    def step(self, epoch: int | None = None) -> None:
        """Write the rates and momenta of the next update, and freeze what it freezes."""
        super().step(epoch)
        self._freeze_and_set_momentum()

    def state_dict(self) -> dict[str, Any]:
        """Return the count of steps: a policy has no state of its own."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved count of steps; the optimizer's rates come back with the optimizer's own state."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        self._freeze_and_set_momentum()

    def _freeze_and_set_momentum(self) -> None:
        rates = self._rates()
        for switch, rate, frozen in zip(self._switches, rates.lr, rates.frozen, strict=True):
            switch.set(bool(frozen), bool(rate > 0), self.policy.train_norm)
        for group in self.optimizer.param_groups:
            set_rate(group, group["lr"])
            set_momentum(group, rates.momentum)

    def _rates(self) -> Rates:
        step = min(self.last_epoch, self.total_steps - 1)  # schedulers are stepped once more after the last update
        return self.policy.rates(Clock(step, self.total_steps, self.steps_per_epoch), self.groups)


def _depth_of(parameters: list[torch.nn.Parameter], groups: Sequence[Freezable]) -> int:
    """Return the index of the one depth group that holds all these parameters."""
    depth_of = {id(value): depth for depth, group in enumerate(groups) for value in group.parameters.values()}
    depths = {depth_of.get(id(value)) for value in parameters}
    depth = next(iter(depths), None)
    if len(depths) != 1 or depth is None:
        raise ValueError(
            "a parameter group of the optimizer "
            + ("holds parameters of no depth group" if None in depths else "spans several depth groups")
            + "; make the optimizer from kit.model.groups.parameter_groups(groups)"
        )
    return depth
