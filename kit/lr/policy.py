"""A policy: peak rate × schedule × profile, as a pure function of the clock and the depth groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.lr.clock import Clock, PolicyGroup
from kit.lr.controllers import ControllerBase
from kit.lr.phases import Phase, spans
from kit.lr.schedules import TOLERANCE

MOMENTS = 1000  # of a phase at which `check` looks


@dataclass(frozen=True)
class Rates:
    """What a policy asks for at one step.

    lr        float64 [groups], one rate per depth group, stem first
    frozen    bool [groups]: no gradients. Where the rate of a frozen group is above 0, its normalisation
              layers are the exception and learn at it; everything else stands still
    momentum  SGD's momentum or Adam's first beta; None leaves the optimizer's own
    """

    lr: np.ndarray
    frozen: np.ndarray
    momentum: float | None


@dataclass(frozen=True)
class RateMatrix:
    """A policy over a whole training.

    lr, frozen  [steps, groups];  momentum  [steps], NaN where the policy leaves the optimizer's own
    """

    lr: np.ndarray
    frozen: np.ndarray
    momentum: np.ndarray


@dataclass(frozen=True)
class Policy:
    """How the rate moves over time and over the depth of the network.

    Stateless: `rates` may be asked in any order, before, during and after a training, and always
    answers the same.

    phases      one or more, one after the other
    train_norm  whether normalisation layers of frozen groups learn (fastai's `train_bn`). If not, their
                batch norms keep their running statistics too
    controller  multiplies the static rates by what it makes of measured norms; None for a static policy
    """

    phases: tuple[Phase, ...]
    train_norm: bool = True
    controller: ControllerBase | None = None

    @property
    def peak(self) -> float:
        """The highest peak rate of its phases."""
        return max(phase.peak for phase in self.phases)

    def rates(self, clock: Clock, groups: Sequence[PolicyGroup]) -> Rates:
        """The static rates at one moment. `groups` are ordered from the stem to the head."""
        phase, within = self._at(clock)
        lr, frozen = phase.lr(within, groups), phase.frozen(within, groups)
        if not self.train_norm:
            lr[frozen] = 0.0
        return Rates(lr, frozen, phase.schedule.momentum(within))

    def fraction(self, clock: Clock) -> float:
        """What the schedule makes of the peak rate of the phase at this moment, in [0, 1]."""
        phase, within = self._at(clock)
        return phase.schedule(within)

    def matrix(
        self, groups: Sequence[PolicyGroup], total_steps: int, steps_per_epoch: int | None = None
    ) -> RateMatrix:
        """The rates of every step, without training."""
        each = [self.rates(Clock(step, total_steps, steps_per_epoch), groups) for step in range(total_steps)]
        return RateMatrix(
            lr=np.array([rates.lr for rates in each]),
            frozen=np.array([rates.frozen for rates in each]),
            momentum=np.array([np.nan if rates.momentum is None else rates.momentum for rates in each]),
        )

    def check(self, groups: Sequence[PolicyGroup], total_steps: int, steps_per_epoch: int | None = None) -> None:
        """Raises ValueError where the policy cannot be followed on this model for this long: phases that do
        not fill the training, names that match no group, a controller over groups that are frozen."""
        each = self._spans(total_steps, steps_per_epoch)
        for place, (phase, (begin, end)) in enumerate(zip(self.phases, each, strict=True)):
            where = f"phases[{place}]" if len(self.phases) > 1 else ""
            try:
                phase.check(groups, (end - begin) / steps_per_epoch if steps_per_epoch else None)
            except ValueError as error:
                raise ValueError(f"{where}.{error}" if where else str(error)) from error
            if math.ceil(begin - TOLERANCE) >= end - TOLERANCE:
                raise ValueError(
                    f"{where or 'policy'}: shorter than one update ({end - begin:.2g} of {total_steps})"
                )
            frozen, all_at_once = _look(phase, end - begin, groups, steps_per_epoch)
            if all_at_once:
                raise ValueError(
                    f"{where or 'profile'}: freezes all depth groups at once, so that nothing would learn"
                )
            if self.controller and frozen.any():
                name = groups[int(frozen.argmax())].name
                raise ValueError(
                    f"controller: {self.controller.name} cannot steer depth group {name}, which the policy "
                    "freezes; leave out the controller, or choose a profile without frozen groups"
                )

    def bound(self, groups: Sequence[PolicyGroup], total_steps: int, steps_per_epoch: int | None = None) -> float:
        """A rate that no group exceeds at any step, the controller's multiplier included."""
        bounds = [
            phase.bound(Clock(0, end - begin, steps_per_epoch), groups)
            for phase, (begin, end) in zip(self.phases, self._spans(total_steps, steps_per_epoch), strict=True)
        ]
        return max(bounds) * (max(1.0, self.controller.upper) if self.controller else 1.0)

    def lambda_lr(self, optimizer, groups, total_steps: int, steps_per_epoch: int | None = None):
        """This policy as a torch scheduler, for a training loop of your own: `kit.lr.torch_scheduler.PolicyLR`.

        optimizer    a torch optimizer whose parameter groups each lie within one depth group
        groups       the model's depth groups, `kit.model.groups.depth_groups(model)`
        total_steps  optimizer updates of the whole training; call the scheduler's `step()` after each

        Raises ValueError for a policy with a controller, which needs the kit's loop, and for whatever
        `check` finds.
        """
        from kit.lr.torch_scheduler import PolicyLR  # the one part of kit.lr that needs torch

        return PolicyLR(self, optimizer, groups, total_steps, steps_per_epoch)

    def _spans(self, total_steps: float, steps_per_epoch: float | None) -> list[tuple[float, float]]:
        if len(self.phases) == 1 and self.phases[0].epochs is None and self.phases[0].fraction is None:
            return [(0.0, total_steps)]
        return spans(self.phases, total_steps, steps_per_epoch)

    def _at(self, clock: Clock) -> tuple[Phase, Clock]:
        """The phase at this moment, and the clock within it."""
        if len(self.phases) == 1:
            return self.phases[0], clock
        each = self._spans(clock.total_steps, clock.steps_per_epoch)
        place = next((i for i, (_, end) in enumerate(each) if clock.step < end - TOLERANCE), len(each) - 1)
        begin, end = each[place]
        return self.phases[place], Clock(max(0.0, clock.step - begin), end - begin, clock.steps_per_epoch)


def set_momentum(group: dict[str, Any], momentum: float | None) -> None:
    """Writes SGD's momentum or Adam's first beta into an optimizer's parameter group; None leaves it as it is."""
    if momentum is not None and "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    elif momentum is not None and "momentum" in group:
        group["momentum"] = momentum


def _look(
    phase: Phase, length: float, groups: Sequence[PolicyGroup], per_epoch: float | None
) -> tuple[np.ndarray, bool]:
    """At a thousand moments of a phase: bool [groups], which are frozen at some; and whether all are at once."""
    clocks = [Clock(moment / MOMENTS * length, length, per_epoch) for moment in range(MOMENTS)]
    frozen = np.array([phase.frozen(clock, groups) for clock in clocks])
    return frozen.any(axis=0), bool(frozen.all(axis=1).any())
