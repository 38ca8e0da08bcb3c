"""The one place where a rate is written into the optimizer, and the record of what was realised."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from kit.core.errors import KitError
from kit.lr import Clock, PolicyGroup, Rates
from kit.lr.clock import policy_groups
from kit.lr.controllers import ControllerBase
from kit.lr.policy import momenta, set_momentum, set_rate
from kit.model.groups import DepthGroup
from kit.training.optimizer import factors_within
from kit.training.records import RateRecord

Optimizer = torch.optim.Optimizer


class RatePolicy(Protocol):
    """What the writer needs of a policy: `kit.lr.Policy` has it, and so has the sweep of a range test."""

    @property
    def peak(self) -> float:
        """The highest rate."""

    @property
    def train_norm(self) -> bool:
        """Whether normalisation layers of frozen depth groups learn."""

    @property
    def controller(self) -> ControllerBase | None:
        """What multiplies the static rates; None for a static policy."""

    def rates(self, clock: Clock, groups: Sequence[PolicyGroup]) -> Rates:
        """Return the static rates at one moment."""

    def fraction(self, clock: Clock) -> float:
        """Return the share of the peak rate at one moment, in [0, 1]."""


class RateWriter:
    """Asks the policy before every update, writes its rates, and records what the optimizer then used.

    An update calls, in this order: `write`, then, once the gradients are there, `control` (where the policy has a
    controller) and `record`, and after the optimizer's step `confirm`. `audit` compares the record with the
    policy.

    Parameters
    ----------
    policy : RatePolicy
        Says the rates, the momentum, and what is frozen.
    groups : sequence of DepthGroup
        The depth groups of the model, stem first.
    total_steps, steps_per_epoch : int
        Updates of the whole training, and of one epoch.

    Attributes
    ----------
    lr : ndarray
        float64 [steps, groups], NaN for updates that were not yet attempted.
    frozen : ndarray
        bool [steps, groups]: no gradient but for norms.
    momentum : ndarray
        float64 [steps], of the first parameter group; NaN where the optimizer has none.
    multiplier : ndarray or None
        What the controller made, float64 [steps, groups]; None where the policy has no controller.
    signals : dict of str to ndarray
        What the controller was fed, float64 [steps, groups] each.
    skipped : set of int
        The updates that were left out.
    """

    def __init__(self, policy: RatePolicy, groups: Sequence[DepthGroup], total_steps: int, steps_per_epoch: int):
        self.policy = policy
        self.groups = policy_groups(groups)
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        shape = (total_steps, len(groups))
        self.lr = np.full(shape, np.nan)
        self.frozen = np.zeros(shape, dtype=bool)
        self.momentum = np.full(total_steps, np.nan)
        controller = policy.controller
        self.multiplier = np.full(shape, np.nan) if controller else None
        self.signals = {name: np.full(shape, np.nan) for name in (controller.signals if controller else ())}
        self.skipped: set[int] = set()
        self._state = controller.start(len(groups)) if controller else {}
        self._depth_of = {
            id(value): depth for depth, group in enumerate(groups) for value in group.parameters.values()
        }
        self._seen: list[tuple] | None = None  # the optimizer's parameter groups, as they were first
        self._switches = [group.freezer() for group in groups]
        self._applied: list[tuple[bool, bool]] = []  # frozen, norms moving

    def intended(self, step: int) -> Rates:
        """Return the policy's static rates for update number `step`."""
        return self.policy.rates(Clock(step, self.total_steps, self.steps_per_epoch), self.groups)

    def write(self, step: int, optimizer: Optimizer) -> bool:
        """Set the rates, SGD's momentum or Adam's first beta, and what is frozen, for update number `step`.

        Returns
        -------
        bool
            Whether other parameters than before have gradients.

        Raises
        ------
        KitError
            Where the optimizer's parameter groups are not those of the first update.
        """
        self._check_groups(step, optimizer)
        self._now = rates = self.intended(step)
        each = rates.lr.tolist()
        for group in optimizer.param_groups:
            set_rate(group, each[group["depth"]])
            set_momentum(group, rates.momentum)
        wanted = [
            (frozen, frozen and moving)
            for frozen, moving in zip(rates.frozen.tolist(), (rates.lr > 0).tolist(), strict=True)
        ]
        if wanted == self._applied:
            return False
        self._applied = wanted
        changed = False
        for switch, (frozen, moving) in zip(self._switches, wanted, strict=True):
            changed |= switch.set(frozen, moving, self.policy.train_norm)
        return changed

    def by_group(self, step: int) -> dict[str, float]:
        """Return the rate of each depth group at an update, as it was recorded."""
        return {group.label: float(rate) for group, rate in zip(self.groups, self.lr[step], strict=True)}

    def control(self, step: int, optimizer: Optimizer, signals: Mapping[str, np.ndarray]) -> None:
        """Multiply the static rates of `write` by what the controller makes of the signals of this update.

        Parameters
        ----------
        step : int
            The number of the update.
        optimizer : Optimizer
            Gets the rates.
        signals : mapping of str to ndarray
            Those that the controller declares, float64 [groups] each.
        """
        controller, multiplier = self.policy.controller, self.multiplier
        assert controller is not None
        assert multiplier is not None
        for name, values in self.signals.items():
            values[step] = signals[name]
        multiplier[step], self._state = controller.step(self._state, signals, self._now.lr, self._fraction(step))
        rates = (self._now.lr * multiplier[step]).tolist()
        for group in optimizer.param_groups:
            set_rate(group, rates[group["depth"]])

    def record(self, step: int, optimizer: Optimizer) -> None:
        """Record the rates as they stand in the optimizer, right before it uses them.

        Raises
        ------
        KitError
            Where the optimizer's parameter groups are not those of the first update, where a depth group is split
            in two rates or two momenta, or where other parameters have gradients than the policy says.
        """
        self._check_groups(step, optimizer)
        row = self.lr[step].tolist()
        for group, rate in zip(optimizer.param_groups, rates_of(optimizer), strict=True):
            depth = group["depth"]
            if row[depth] != rate and not math.isnan(row[depth]):
                name, before = self.groups[depth].label, row[depth]
                raise KitError(f"step {step}: depth group {name} is split in two rates, {before:g} and {rate:g}")
            row[depth] = rate
        self.lr[step] = row
        self.frozen[step] = [frozen for frozen, _ in self._applied]
        for switch, depth_group in zip(self._switches, self.groups, strict=True):
            if not switch.as_set:
                raise KitError(
                    f"step {step}: depth group {depth_group.label} has other gradients than the policy says: "
                    "something else writes into its requires_grad"
                )
        self._record_momentum(step, optimizer)

    def _record_momentum(self, step: int, optimizer: Optimizer) -> None:
        """Record the momentum (or Adam's first beta, or both), which is one over all depth groups."""
        first = momenta(optimizer.param_groups[0])
        self.momentum[step] = first[0] if first else np.nan
        one = self._now.momentum is None or len(set(first)) <= 1
        for group in optimizer.param_groups:
            here = momenta(group)
            if here == first and one:
                continue
            name = self.groups[group["depth"]].label
            if here != first:
                raise KitError(
                    f"step {step}: depth group {name} has the momentum {_listed(here)}, others {_listed(first)}"
                )
            if not one:
                raise KitError(
                    f"step {step}: depth group {name} has the momentum and the first beta {_listed(here)}, but "
                    f"the policy says {self._now.momentum:g} for both: something else writes into the optimizer's"
                )

    def leave_out(self, step: int, optimizer: Optimizer) -> None:
        """Record an update that is left out: its rates stand in the optimizer, and no controller is asked."""
        self.skipped.add(step)
        if self.multiplier is not None:
            self.multiplier[step] = 1.0
        self.record(step, optimizer)

    def confirm(self, step: int, optimizer: Optimizer) -> None:
        """Check, after the update, that the rates are still those that were recorded right before it.

        Raises
        ------
        KitError
            Where one has changed.
        """
        row = self.lr[step].tolist()
        for group, rate in zip(optimizer.param_groups, rates_of(optimizer), strict=True):
            recorded = row[group["depth"]]
            if rate != recorded:
                raise KitError(
                    f"step {step}: the rate of depth group {self.groups[group['depth']].name} was changed from "
                    f"{recorded:g} to {rate:g} within the optimizer's step (by a hook?)"
                )

    def audit(self, steps: range) -> None:
        """Compare what was realised in some updates with what the policy intended.

        Where `steps` begin with the first update, a controller is replayed from the signals that were recorded;
        else its multipliers are taken as recorded.

        Raises
        ------
        KitError
            Names the first difference.
        """
        each = self._intended_in(steps)
        if not each:
            return
        intended = np.array([lr for lr, _ in each])
        right = np.isclose(self.lr[steps.start : steps.stop], intended, rtol=1e-9, atol=0)
        momentum, realised = np.array([momentum for _, momentum in each]), self.momentum[steps.start : steps.stop]
        moved = ~np.isnan(momentum) & ~np.isnan(realised) & (realised != momentum)
        wrong = np.flatnonzero(~right.all(axis=1) | moved)
        if not len(wrong):
            return
        first = int(wrong[0])
        where = f"step {steps[first]}:"
        if not right[first].all():
            depth = int(right[first].argmin())
            raise KitError(
                f"{where} depth group {self.groups[depth].label} learned at {self.lr[steps[first], depth]:g}, "
                f"but the policy says {intended[first, depth]:g}: something else writes into the optimizer's rates"
            )
        raise KitError(
            f"{where} the momentum was {realised[first]:g}, but the policy says {momentum[first]:g}: something "
            "else writes into the optimizer's momentum"
        )

    def _intended_in(self, steps: range) -> list[tuple[np.ndarray, float]]:
        """Return what the policy intended in some updates: the rates of the depth groups, the momentum or NaN."""
        controller, multipliers = self.policy.controller, self.multiplier
        state = controller.start(len(self.groups)) if controller else {}
        each = []
        for step in steps:
            rates = self.intended(step)
            intended = rates.lr
            if controller and multipliers is not None:
                multiplier = multipliers[step]
                if steps.start == 0 and step not in self.skipped:
                    signals = {name: values[step] for name, values in self.signals.items()}
                    multiplier, state = controller.step(state, signals, rates.lr, self._fraction(step))
                intended = rates.lr * multiplier
            each.append((intended, np.nan if rates.momentum is None else rates.momentum))
        return each

    def _fraction(self, step: int) -> float:
        return self.policy.fraction(Clock(step, self.total_steps, self.steps_per_epoch))

    def _check_groups(self, step: int, optimizer: Optimizer) -> None:
        """Check that the optimizer holds what it held at first, each parameter in a group of its depth."""
        now = [(group.get("depth"), tuple(map(id, group["params"]))) for group in optimizer.param_groups]
        if now == self._seen:
            return
        for depth, members in now:
            if depth is None:
                raise KitError(f"step {step}: a parameter group without a depth was added to the optimizer")
            if any(self._depth_of.get(member) != depth for member in members):
                name = self.groups[depth].label if depth in range(len(self.groups)) else depth
                raise KitError(
                    f"step {step}: the optimizer has a parameter group of depth group {name} with others"
                )
        held = sorted(member for _, members in now for member in members)
        if self._seen is not None or held != sorted(self._depth_of):
            lost = {self._depth_of[member] for member in set(self._depth_of).difference(held)}
            names = [self.groups[depth].label for depth in sorted(lost)] or ["some"]
            raise KitError(
                f"step {step}: the optimizer's parameter groups have changed: parameters of depth group "
                f"{names[0]} are missing or there twice"
            )
        self._seen = now

    def release(self) -> None:
        """Give back the gradients that freezing took, as after a training that may go on otherwise."""
        for switch in self._switches:
            switch.set(False, False, True)
        self._applied = []

    def state_dict(self) -> dict[str, Any]:
        """Return the record so far and the controller's state, for a checkpoint."""
        arrays = {name: torch.from_numpy(values) for name, values in self._as_record().arrays().items()}
        return {"arrays": arrays, "controller": self._state, "skipped": sorted(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, values in self._as_record().arrays().items():
            values[:] = state["arrays"][name].cpu().numpy()
        self._state = state["controller"]
        self.skipped.clear()  # in place: others look at this very set
        self.skipped.update(state.get("skipped", ()))

    def save(self, path: Path, optimizer: Optimizer | None = None) -> None:
        """Write rates.npz, with what the `optimizer` says of its own factors."""
        within = factors_within(optimizer, len(self.groups)) if optimizer else None
        replace(self._as_record(), within=within).save(path)

    def _as_record(self) -> RateRecord:
        """Return everything that is recorded; the arrays are this writer's own."""
        names = [group.label for group in self.groups]
        return RateRecord(names, self.lr, self.frozen, self.momentum, self.multiplier, self.signals)


def rates_of(optimizer: Optimizer) -> list[float]:
    """Return the rate of each parameter group, as it stands in the optimizer."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def _listed(values: Sequence[float]) -> str:
    return " and ".join(f"{value:g}" for value in values) or "none"
