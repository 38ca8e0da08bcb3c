"""A loss that is not finite: leaving the update out, what broke it, and rates that are lowered (on_nonfinite)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.utils import get_total_norm

from kit.core.errors import Damaged, Diverged
from kit.core.runs import RunDir
from kit.lr import Clock, PolicyGroup, Rates
from kit.lr.controllers import ControllerBase
from kit.training.checkpoint import read_checkpoint
from kit.training.rates import Optimizer, RatePolicy, RateWriter

if TYPE_CHECKING:
    from kit.training.trainer import Trainer

IN_A_ROW = 0.1  # of an epoch's updates: so many that are left out one after the other end a training
AT_LEAST = 10  # however short an epoch is
LOWER = 1 / 3  # what all rates are multiplied by at a restart
RESTARTS = 3


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Tell whether all numbers are finite; waits for the device."""
    # The largest magnitude: squares would overflow where the numbers do not.
    floats = [value.detach() for value in tensors if value.is_floating_point() and value.numel()]
    return not floats or bool(get_total_norm(floats, math.inf).isfinite())


def sound(model: nn.Module, optimizer: Optimizer, losses: torch.Tensor, skipped: Iterable[int]) -> bool:
    """Tell whether a training can go on from where it stands, so that a checkpoint of it is worth its name.

    A loss is of the weights before its update: the update that breaks them has a finite one.

    Parameters
    ----------
    model : Module
        Its weights and buffers are looked at.
    optimizer : Optimizer
        So is its state.
    losses : Tensor
        Of the updates made so far.
    skipped : iterable of int
        Which of these were left out.
    """
    state = [value for each in optimizer.state.values() for value in each.values() if torch.is_tensor(value)]
    counted = torch.ones(len(losses), dtype=torch.bool, device=losses.device)
    counted[[step for step in skipped if step < len(losses)]] = False
    return all_finite([*model.state_dict().values(), *state, losses[counted]])


def discard_broken(run: RunDir, step: int) -> None:
    """Remove checkpoints that hold the update before number `step`, which broke the weights."""
    for path in (run.checkpoint, run.checkpoint_before):
        with suppress(FileNotFoundError, Damaged):  # a damaged one is never used
            if read_checkpoint(path)["step"] >= step:
                path.unlink()


def first_broken(losses: np.ndarray, first: int, skipped: Iterable[int]) -> int | None:
    """Return the first update whose loss is not finite and that was not left out; `losses` begin with `first`."""
    broken = set((first + np.flatnonzero(~np.isfinite(losses))).tolist()) - set(skipped)
    return min(broken, default=None)


def advice(accelerator: Accelerator) -> str:
    """Say what keeps a loss finite."""
    half = accelerator.mixed_precision == "fp16"
    return "lower the policy's lr (try a tenth), or set training.clip_grad to 1.0" + (
        ", or training.precision to fp32" if half else ""
    )


class Skipper:
    """Leaves out an update whose loss or gradient is not finite.

    Weights, their average, the optimizer's state and the statistics of norms stay as they were before it; the step
    counts in the schedule. Each update waits for the device once.

    Parameters
    ----------
    model : Module
    accelerator : Accelerator
        Its processes decide alike.
    rates : RateWriter
        Records which updates were left out.
    steps_per_epoch : int
        A tenth of it (10 at least) may be left out in a row.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator, rates: RateWriter, steps_per_epoch: int):
        self.model, self.accelerator, self.rates = model, accelerator, rates
        self.most = max(AT_LEAST, math.ceil(IN_A_ROW * steps_per_epoch))
        self._kept: list[torch.Tensor] = []

    def begin(self) -> None:
        """Keep what forward passes change, before the first of an update."""
        self._kept = [buffer.clone() for buffer in self.model.buffers()]

    @torch.no_grad()
    def leaves_out(self, step: int, loss: torch.Tensor, optimizer: Optimizer) -> bool:
        """Tell whether the update is left out, with all its gradients there; if so, undo what it did.

        With fp16 the loss decides alone: gradients that overflow are the scaler's, which lowers its scale.

        Raises
        ------
        Diverged
            Where too many in a row are left out.
        """
        checked = [self.accelerator.reduce(loss.clone(), "mean")]
        if not self.accelerator.scaler:
            checked += [value.grad for value in self.model.parameters() if value.grad is not None]
        if all_finite(checked):
            return False
        for buffer, before in zip(self.model.buffers(), self._kept, strict=True):
            buffer.copy_(before)
        self.rates.leave_out(step, optimizer)
        row = 1
        while step - row in self.rates.skipped:
            row += 1
        if row >= self.most:
            raise Diverged(
                f"the loss or the gradient was not finite in {row} updates in a row, up to step {step}, and all "
                "were left out; lower the policy's lr, or look at the images and the loss"
            )
        return True


@dataclass(frozen=True)
class Lowered:
    """A policy with all its rates multiplied by a factor."""

    policy: RatePolicy
    factor: float

    @property
    def peak(self) -> float:
        """The highest rate."""
        return self.policy.peak * self.factor

    @property
    def train_norm(self) -> bool:
        """Whether normalisation layers of frozen depth groups learn."""
        return self.policy.train_norm

    @property
    def controller(self) -> ControllerBase | None:
        """What multiplies the static rates; None for a static policy."""
        return self.policy.controller

    def rates(self, clock: Clock, groups: Sequence[PolicyGroup]) -> Rates:
        """Return the rates of one update."""
        rates = self.policy.rates(clock, groups)
        return dataclasses.replace(rates, lr=rates.lr * self.factor)

    def fraction(self, clock: Clock) -> float:
        """Return the share of the peak rate."""
        return self.policy.fraction(clock)


def largest_update(
    trainer: "Trainer", step: int, ends: Callable[[], bool] = lambda: False
) -> tuple[str, float] | None:
    """Return which depth group update number `step` moved most relative to its weights, ‖Δw‖ / ‖w‖, and how far.

    When a loss that is not finite is noticed, gradients of NaN have gone into all weights and into the optimizer's
    state, and nothing there says any more what came first. So the updates since the checkpoint (or the beginning)
    are made again, to the same bits, and the last of them is measured: that costs nothing while all is well.

    Parameters
    ----------
    trainer : Trainer
        A fresh one; afterwards it is of no more use.
    step : int
        The last update before the loss that is not finite.
    ends : callable
        Asked before each update; once it is true, that is given up.

    Returns
    -------
    tuple or None
        The label of the depth group and the ratio, inf where the update itself is not finite; None where the
        checkpoint is of later, or where it was given up.
    """
    done, updates = trainer.remaining_updates()
    if done > step:
        return None
    for _ in range(step - done):
        if ends():
            return None
        next(updates)
    before = [[value.detach().clone() for value in group.parameters.values()] for group in trainer.groups]
    next(updates)
    ratios = []
    with torch.no_grad():
        for group, olds in zip(trainer.groups, before, strict=True):
            now = list(group.parameters.values())
            moved = get_total_norm([new.double() - old.double() for new, old in zip(now, olds, strict=True)])
            ratios.append(float(moved / get_total_norm([old.double() for old in olds]).clamp(min=1e-30)))
    ratios = [ratio if math.isfinite(ratio) else math.inf for ratio in ratios]
    place = int(np.argmax(ratios))
    return trainer.rates.groups[place].label, ratios[place]
