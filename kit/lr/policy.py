"""A policy: peak rate × schedule × profile, as a pure function of the clock and the depth groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.lr.clock import Clock, PolicyGroup, policy_groups
from kit.lr.controllers import ControllerBase
from kit.lr.phases import Phase, phase_spans
from kit.lr.profiles import Uniform
from kit.lr.schedules import TOLERANCE

if TYPE_CHECKING:
    from kit.core.notebook import Picture
    from kit.lr.torch_scheduler import Freezable, Optimizer, PolicyLR

MOMENTS = 1000  # of a phase at which `check` looks


@dataclass(frozen=True)
class Rates:
    """What a policy asks for at one step.

    Attributes
    ----------
    lr : ndarray
        float64 [depth groups], one rate each, stem first.
    frozen : ndarray
        bool [depth groups]: no gradients. Where the rate of a frozen depth group is above 0, its normalisation
        layers are the exception and learn at it; everything else stands still.
    momentum : float or None
        SGD's momentum or Adam's first beta; None leaves the optimizer's own.
    """

    lr: np.ndarray
    frozen: np.ndarray
    momentum: float | None


@dataclass(frozen=True)
class RateMatrix:
    """What a policy asks for over a whole training.

    Attributes
    ----------
    lr : ndarray
        float64 [steps, depth groups].
    frozen : ndarray
        bool [steps, depth groups].
    momentum : ndarray
        float64 [steps], NaN where the policy leaves the optimizer's own.
    """

    lr: np.ndarray
    frozen: np.ndarray
    momentum: np.ndarray


@dataclass(frozen=True)
class Policy:
    """How the rate moves over time and over the depth of the network.

    A policy has no state: `rates` may be asked in any order, before, during and after a training, and always
    answers the same.

    Attributes
    ----------
    phases : tuple of Phase
        One or more, one after the other.
    train_norm : bool
        Whether normalisation layers of frozen depth groups learn (fastai's `train_bn`). If not, their batch norms
        keep their running statistics too.
    controller : ControllerBase or None
        What multiplies the static rates by a number made of measured norms; None for a static policy.
    """

    phases: tuple[Phase, ...]
    train_norm: bool = True
    controller: ControllerBase | None = None

    @property
    def peak(self) -> float:
        """The highest peak rate of the policy's phases."""
        return max(phase.peak for phase in self.phases)

    @property
    def differs_by_depth(self) -> bool:
        """Whether depths ever differ in their rates, or in whether they learn."""
        return any(phase.freeze_to or not isinstance(phase.profile, Uniform) for phase in self.phases)

    @property
    def moves_momentum(self) -> bool:
        """Whether a schedule says the momentum, too."""
        return any(phase.schedule.momentum(Clock(0, 1, 1)) is not None for phase in self.phases)

    def rates(self, clock: Clock, groups: Sequence[PolicyGroup]) -> Rates:
        """Return the static rates at one moment.

        Parameters
        ----------
        clock : Clock
            The moment, counted over the whole training.
        groups : sequence of PolicyGroup
            The depth groups, from the stem to the head.
        """
        phase, within = self._at(clock)
        lr, frozen = phase.lr(within, groups), phase.frozen(within, groups)
        if not self.train_norm:
            lr[frozen] = 0.0
        return Rates(lr, frozen, phase.schedule.momentum(within))

    def fraction(self, clock: Clock) -> float:
        """Return what the schedule makes of the peak rate of the phase at this moment, in [0, 1]."""
        phase, within = self._at(clock)
        return phase.schedule(within)

    def matrix(
        self, groups: Sequence[PolicyGroup], total_steps: int, steps_per_epoch: int | None = None
    ) -> RateMatrix:
        """Return the static rates of every step, without training.

        Parameters
        ----------
        groups : sequence of PolicyGroup
            The depth groups, from the stem to the head.
        total_steps : int
            Updates of the whole training.
        steps_per_epoch : int or None
            Updates of an epoch. Policies that count in epochs need it.
        """
        each = [self.rates(Clock(step, total_steps, steps_per_epoch), groups) for step in range(total_steps)]
        return RateMatrix(
            lr=np.array([rates.lr for rates in each]),
            frozen=np.array([rates.frozen for rates in each]),
            momentum=np.array([np.nan if rates.momentum is None else rates.momentum for rates in each]),
        )

    def check(self, groups: Sequence[PolicyGroup], total_steps: int, steps_per_epoch: int | None = None) -> None:
        """Check that the policy can be followed on a model for so long.

        Parameters
        ----------
        groups, total_steps, steps_per_epoch
            As for `matrix`.

        Raises
        ------
        ValueError
            Where phases do not fill the training, names match no depth group, nothing would learn, or a controller
            is over depth groups that are frozen.
        """
        each = self._spans(total_steps, steps_per_epoch)
        if self.controller:
            self.controller.check(groups)
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
            frozen, all_at_once = _frozen_over(phase, end - begin, groups, steps_per_epoch)
            if all_at_once:
                raise ValueError(
                    f"{where or 'profile'}: freezes all depth groups at once, so that nothing would learn"
                )
            if self.controller and frozen.any():
                name = groups[int(frozen.argmax())].label
                raise ValueError(
                    f"controller: {self.controller.name} cannot steer depth group {name}, which the policy "
                    "freezes; leave out the controller, or choose a profile without frozen groups"
                )

    def bound(self, groups: Sequence[PolicyGroup], total_steps: int, steps_per_epoch: int | None = None) -> float:
        """Return a rate that no depth group exceeds at any step, the controller's multiplier included.

        Parameters
        ----------
        groups, total_steps, steps_per_epoch
            As for `matrix`.
        """
        bounds = [
            phase.bound(Clock(0, end - begin, steps_per_epoch), groups)
            for phase, (begin, end) in zip(self.phases, self._spans(total_steps, steps_per_epoch), strict=True)
        ]
        return max(bounds) * (max(1.0, self.controller.upper) if self.controller else 1.0)

    def lambda_lr(
        self,
        optimizer: "Optimizer",
        groups: "Sequence[Freezable]",
        total_steps: int,
        steps_per_epoch: int | None = None,
    ) -> "PolicyLR":
        """Return this policy as a torch scheduler, for a training loop of your own.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Each of its parameter groups lies within one depth group.
        groups : sequence of kit.model.groups.DepthGroup
            The model's depth groups, `kit.model.groups.depth_groups(model)`.
        total_steps : int
            Optimizer updates of the whole training; call the scheduler's `step()` after each.
        steps_per_epoch : int or None
            Updates of an epoch. Policies that count in epochs need it.

        Returns
        -------
        kit.lr.torch_scheduler.PolicyLR

        Raises
        ------
        ValueError
            For a policy with a controller, which needs the kit's loop, and for whatever `check` finds.
        """
        from kit.lr.torch_scheduler import PolicyLR  # the one part of kit.lr that needs torch

        return PolicyLR(self, optimizer, groups, total_steps, steps_per_epoch)

    def plot(
        self,
        model_or_groups: Any,
        steps: int,
        steps_per_epoch: int | None = None,
        title: str = "",
    ) -> "Picture":
        """Return the policy's picture, which a notebook shows: rates by depth group over time, and as a heat map.

        Parameters
        ----------
        model_or_groups : Module, sequence of depth groups, or mapping
            A timm model, whose depth groups are its blocks (`kit.model.groups.depth_groups`); or depth groups,
            stem first; or a mapping from their names to their numbers of parameters.
        steps : int
            Updates of the whole training.
        steps_per_epoch : int or None
            Updates of an epoch. Policies that count in epochs need it.
        title : str
            Of the picture.

        Raises
        ------
        ValueError
            For whatever `check` finds.
        """
        from kit.core.notebook import Picture
        from kit.lr.plots import policies_figure

        groups = model_or_groups
        if hasattr(groups, "named_parameters"):
            from kit.model.groups import depth_groups  # the one time that policies look at a model

            groups = depth_groups(groups)
        seen = policy_groups(groups)
        self.check(seen, steps, steps_per_epoch)
        matrix = self.matrix(seen, steps, steps_per_epoch)
        return Picture(policies_figure({title: (matrix.lr, matrix.frozen, [group.label for group in seen])}))

    def _spans(self, total_steps: float, steps_per_epoch: float | None) -> list[tuple[float, float]]:
        """Return where each phase begins and ends, in updates."""
        if len(self.phases) == 1 and self.phases[0].epochs is None and self.phases[0].fraction is None:
            return [(0.0, total_steps)]
        return phase_spans(self.phases, total_steps, steps_per_epoch)

    def _at(self, clock: Clock) -> tuple[Phase, Clock]:
        """Return the phase at this moment, and the clock within it."""
        if len(self.phases) == 1:
            return self.phases[0], clock
        each = self._spans(clock.total_steps, clock.steps_per_epoch)
        place = next((i for i, (_, end) in enumerate(each) if clock.step < end - TOLERANCE), len(each) - 1)
        begin, end = each[place]
        return self.phases[place], Clock(max(0.0, clock.step - begin), end - begin, clock.steps_per_epoch)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Write a rate into an optimizer's parameter group, for all that the optimizer does with the group.

    Muon of timm before 1.0.27 has a second one, `adamw_lr`, for what it leaves to AdamW; `fallback_lr_scale` is
    its share of the rate (1 where it is not said), as in later versions.

    Parameters
    ----------
    group : dict
        One of `optimizer.param_groups`, which is changed.
    rate : float
        The rate.
    """
    group["lr"] = rate
    if "adamw_lr" in group:
        group["adamw_lr"] = rate * group.get("fallback_lr_scale", 1.0)


def set_momentum(group: dict[str, Any], momentum: float | None) -> None:
    """Write the momentum, and Adam's first beta, into an optimizer's parameter group: those that it has.

    Muon has both: it moves matrices by one, and leaves the rest to AdamW.

    Parameters
    ----------
    group : dict
        One of `optimizer.param_groups`, which is changed.
    momentum : float or None
        None leaves it as it is.
    """
    if momentum is None:
        return
    if "momentum" in group:
        group["momentum"] = momentum
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])


def momenta(group: dict[str, Any]) -> tuple[float, ...]:
    """Return the momentum and Adam's first beta of an optimizer's parameter group: those that it has."""
    each = [group["momentum"]] if "momentum" in group else []
    return (*each, group["betas"][0]) if "betas" in group else tuple(each)


def _frozen_over(
    phase: Phase, length: float, groups: Sequence[PolicyGroup], per_epoch: float | None
) -> tuple[np.ndarray, bool]:
    """Return which depth groups are frozen at some moment of a phase, and whether all are at the same one."""
    clocks = [Clock(moment / MOMENTS * length, length, per_epoch) for moment in range(MOMENTS)]
    frozen = np.array([phase.frozen(clock, groups) for clock in clocks])
    return np.asarray(frozen.any(axis=0)), bool(frozen.all(axis=1).any())
