"""The learning-rate range test: rates rise from tiny to far too large, the loss says which are of use.

Smith, arXiv 1506.01186, in the form of fastai v2 `lr_find`: exponential rise, smoothed loss, stop on divergence,
four suggestions.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kit.core.errors import KitError
from kit.lr import Clock, PolicyGroup, Rates
from kit.training.compiled import telling_what_fails
from kit.training.trainer import Trainer

BETA = 0.98  # of the smoothed loss
DIVERGED = 4.0  # times the lowest smoothed loss
LEAST = 10  # points that the suggestions need, beside the first tenth and the last five, which they pass over


@dataclass(frozen=True)
class Sweep:
    """A policy that raises rates exponentially, update by update, from `first` to `last` in `count` updates.

    Attributes
    ----------
    first, last : float
        The lowest and the highest swept rate.
    count : int
        Updates.
    per_rate : ndarray
        float64 [groups]: a depth group's rate where the swept rate is 1.
    fixed : ndarray
        float64 [groups]: rates that are added to that and stay.
    frozen : ndarray
        bool [groups].
    train_norm : bool
        Whether normalisation layers of frozen depth groups learn.
    """

    first: float
    last: float
    count: int
    per_rate: np.ndarray
    fixed: np.ndarray
    frozen: np.ndarray
    train_norm: bool = True
    controller: None = None

    @property
    def peak(self) -> float:
        """The highest swept rate."""
        return self.last

    def at(self, step: float) -> float:
        """Return the swept rate: first·(last/first)^(step/count)."""
        return self.first * (self.last / self.first) ** (step / self.count)

    def fraction(self, clock: Clock) -> float:
        """Return the swept rate as a share of the highest."""
        return self.at(clock.step) / self.last

    def rates(self, clock: Clock, groups: Sequence[PolicyGroup]) -> Rates:
        """Return the rates of one update, for the loop that asks as it asks a policy."""
        return Rates(self.at(clock.step) * self.per_rate + self.fixed, self.frozen, None)


@dataclass(frozen=True)
class RangeTestResult:
    """What a range test saw, an entry an update.

    Attributes
    ----------
    rates : ndarray
        The swept rate.
    losses : ndarray
        Of the batch.
    smoothed : ndarray
        The debiased moving average of the losses.
    diverged : bool
        Whether it stopped because the loss had risen to four times its lowest, or was not finite.
    planned : int
        Updates it would have made otherwise.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool
    planned: int

    @property
    def fell(self) -> bool:
        """Whether the loss ever fell, by a hundredth of what it was at first; else no rate is of use."""
        return bool(len(self.smoothed)) and self.smoothed.min() < 0.99 * self.smoothed[0]

    @property
    def bounded(self) -> bool:
        """Whether the loss rose again after its lowest, by a twentieth, in what the suggestions look at.

        Else there is no rate of which the test says that it is too high.
        """
        kept = self.smoothed[self.planned // 10 : -5]
        return bool(len(kept)) and kept[kept.argmin() :].max() > 1.05 * kept.min()

    def suggestions(self) -> dict[str, float]:
        """Return fastai's four suggestions, by name.

        As there, the first tenth of the planned updates and the last five are passed over.

        Raises
        ------
        KitError
            Where too few updates are left.
        """
        kept = slice(self.planned // 10, -5)
        rates, losses = self.rates[kept], self.smoothed[kept]
        if len(rates) < LEAST:
            raise KitError(
                f"the loss diverged after {len(self.rates)} updates, too few to say anything; start lower "
                "(--start) or take more updates (--steps)"
            )
        return {name: suggest(rates, losses) for name, suggest in SUGGESTIONS.items()}


def range_test(
    trainer: Trainer, sweep: Sweep, on_step: Callable[[int], None] = lambda step: None
) -> RangeTestResult:
    """Raise the rates of a trainer update by update, and put its model and optimizer back as they were.

    Parameters
    ----------
    trainer : Trainer
        Made with `sweep` as its policy.
    sweep : Sweep
        Which rates.
    on_step : callable
        Called with the number of updates made, after each.
    """
    model, optimizer = copy.deepcopy(trainer.model.state_dict()), copy.deepcopy(trainer.optimizer.state_dict())
    try:
        with telling_what_fails(trainer.compiled):
            return _raise_rates(trainer, sweep, on_step)
    finally:
        trainer.rates.release()
        trainer.model.load_state_dict(model)
        trainer.optimizer.load_state_dict(optimizer)


def _raise_rates(trainer: Trainer, sweep: Sweep, on_step: Callable[[int], None]) -> RangeTestResult:
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, diverged = 0.0, False
    for step in trainer.updates():
        loss = float(trainer.accelerator.reduce(trainer.losses[step].clone(), "mean"))
        if not math.isfinite(loss):
            diverged = True
            break
        average = BETA * average + (1 - BETA) * loss
        rates.append(sweep.at(step))
        losses.append(loss)
        smoothed.append(average / (1 - BETA ** (step + 1)))
        on_step(step + 1)
        diverged = smoothed[-1] > DIVERGED * min(smoothed)
        if diverged or step + 1 >= sweep.count:
            break
    trainer.rates.audit(range(len(rates)))
    return RangeTestResult(np.array(rates), np.array(losses), np.array(smoothed), diverged, sweep.count)


def minimum(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return a tenth of the rate where the loss is lowest."""
    return float(rates[losses.argmin()] / 10)


def steep(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the rate where the loss falls fastest over the logarithm of the rate."""
    return float(rates[(np.diff(losses) / np.diff(np.log(rates))).argmin()])


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the rate in the middle of the longest falling subsequence of the loss, as fastai counts it."""
    lengths, end = np.ones(len(losses), dtype=int), 0
    for later in range(1, len(losses)):
        falls = losses[:later] > losses[later]
        if falls.any():
            lengths[later] = lengths[:later][falls].max() + 1
        if lengths[later] > lengths[end]:
            end = later
    start = end - lengths[end] if end else 0
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: np.ndarray, losses: np.ndarray, width: int = 15, threshold: float = 0.005) -> float:
    """Return the rate where the loss stops to slide.

    From the end backwards it is the first rate where the slope of the loss equals the one `width` points later,
    within `threshold` (fastai's interval slide).
    """
    slope = np.gradient(losses)
    right, left = len(losses) - 1, len(losses) - 1 - width
    chosen = rates[max(left, 0)]
    while left >= 0 and abs(slope[right] - slope[left]) > threshold:
        chosen = rates[left]
        right, left = right - 1, left - 1
    return float(chosen)


SUGGESTIONS = {"valley": valley, "slide": slide, "minimum": minimum, "steep": steep}
