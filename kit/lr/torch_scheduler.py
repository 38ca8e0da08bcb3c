"""A policy as a torch scheduler, for other training loops than the kit's. Of kit.lr, only this needs torch."""

from collections.abc import Sequence

import torch
from torch.optim.lr_scheduler import LRScheduler

from kit.lr.clock import Clock, policy_groups
from kit.lr.policy import Policy, Rates, set_momentum


class PolicyLR(LRScheduler):
    """Writes a policy's rates, and SGD's momentum or Adam's first beta, into an optimizer.

    Like torch's own: made before the first update, `step()` after each. Rates are written, not multiplied,
    so that nothing compounds. Each parameter group of the optimizer belongs to the depth group that holds
    its parameters. Weights of frozen groups are taken out of the gradient (`requires_grad`); normalisation
    layers that go on learning under the policy are left in.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        groups: Sequence,
        total_steps: int,
        steps_per_epoch: int | None = None,
    ):
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

    def get_lr(self) -> list[float]:
        rates = self._rates()
        return [float(rates.lr[depth]) for depth in self._depths]

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        self._freeze_and_set_momentum()

    def state_dict(self) -> dict:
        """The count of steps: a policy has no state of its own."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: dict) -> None:
        """Goes on from a saved count; the optimizer's rates come back with the optimizer's own state."""
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        self._freeze_and_set_momentum()

    def _freeze_and_set_momentum(self) -> None:
        rates = self._rates()
        for switch, rate, frozen in zip(self._switches, rates.lr, rates.frozen, strict=True):
            switch.set(bool(frozen), bool(rate > 0), self.policy.train_norm)
        for group in self.optimizer.param_groups:
            set_momentum(group, rates.momentum)

    def _rates(self) -> Rates:
        step = min(self.last_epoch, self.total_steps - 1)  # schedulers are stepped once more after the last update
        return self.policy.rates(Clock(step, self.total_steps, self.steps_per_epoch), self.groups)


def _depth_of(parameters: list[torch.nn.Parameter], groups: Sequence) -> int:
    """The one depth group that holds them all."""
    depth_of = {id(value): depth for depth, group in enumerate(groups) for value in group.parameters.values()}
    depths = {depth_of.get(id(value)) for value in parameters}
    if len(depths) != 1 or None in depths:
        raise ValueError(
            "a parameter group of the optimizer "
            + ("holds parameters of no depth group" if None in depths else "spans several depth groups")
            + "; make the optimizer from kit.model.groups.parameter_groups(groups)"
        )
    return depths.pop()
