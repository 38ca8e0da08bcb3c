"""The one place where a rate is written into the optimizer, and the record of what was realised."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kit.errors import KitError
from kit.files import atomic
from kit.lr import Clock, Group, Policy, Rates
from kit.model.groups import DepthGroup

Optimizer = torch.optim.Optimizer


class RateWriter:
    """Asks the policy before every update, writes its rates, records what the optimizer then used.

    lr        float64 [steps, groups], NaN for updates that were not yet attempted
    momentum  float64 [steps], of the first group; NaN where the optimizer has none
    """

    def __init__(self, policy: Policy, groups: Sequence[DepthGroup], total_steps: int, steps_per_epoch: int):
        self.policy = policy
        self.groups = [Group(index, len(groups), group.name, group.n_params) for index, group in enumerate(groups)]
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.lr = np.full((total_steps, len(groups)), np.nan)
        self.momentum = np.full(total_steps, np.nan)

    def intended(self, step: int) -> Rates:
        return self.policy.rates(Clock(step, self.total_steps, self.steps_per_epoch), self.groups)

    def write(self, step: int, optimizer: Optimizer) -> None:
        """Sets the rates, and SGD's momentum or Adam's first beta, for update number `step`."""
        rates = self.intended(step)
        for group in optimizer.param_groups:
            group["lr"] = float(rates.lr[group["depth"]])
            if rates.momentum is not None and "betas" in group:
                group["betas"] = (rates.momentum, *group["betas"][1:])
            elif rates.momentum is not None and "momentum" in group:
                group["momentum"] = rates.momentum

    def record(self, step: int, optimizer: Optimizer) -> None:
        """Notes the rates as they stand in the optimizer, right before it uses them.

        Raises KitError where parameter groups do not belong to a depth group or split one in two rates.
        """
        for group in optimizer.param_groups:
            depth = group.get("depth")
            if depth is None:
                raise KitError(f"step {step}: a parameter group without a depth was added to the optimizer")
            before, rate = self.lr[step, depth], float(group["lr"])
            if not np.isnan(before) and before != rate:
                name = self.groups[depth].name
                raise KitError(f"step {step}: depth group {name} is split in two rates, {before:g} and {rate:g}")
            self.lr[step, depth] = rate
        first = optimizer.param_groups[0]
        self.momentum[step] = first["betas"][0] if "betas" in first else first.get("momentum", np.nan)

    def audit(self, steps: range) -> None:
        """Compares what was realised with what the policy intended; KitError names the first difference."""
        for step in steps:
            intended = self.intended(step).lr
            wrong = np.flatnonzero(~np.isclose(self.lr[step], intended, rtol=1e-9, atol=0))
            if len(wrong):
                depth = wrong[0]
                raise KitError(
                    f"step {step}: depth group {self.groups[depth].name} learned at {self.lr[step, depth]:g}, "
                    f"but the policy says {intended[depth]:g}: something else writes into the optimizer's rates"
                )

    def save(self, path: Path) -> None:
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, lr=self.lr, momentum=self.momentum, groups=[group.name for group in self.groups])
