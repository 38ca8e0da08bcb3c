"""Schedules: time → fraction of the peak rate, in [0, 1]. Each is stateless and asked before an update."""

import math
from typing import Annotated, Literal

from pydantic import Field

from kit.lr.clock import Clock
from kit.settings import Options

Fraction = Annotated[float, Field(ge=0, le=1)]


class ScheduleBase(Options):
    def __call__(self, clock: Clock) -> float:
        """The fraction of the peak rate at this moment, in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say its rate over time")

    def momentum(self, clock: Clock) -> float | None:
        """SGD's momentum or Adam's first beta at this moment; None leaves the optimizer's own."""
        return None


class Constant(ScheduleBase):
    """The peak rate throughout: f(p) = 1."""

    name: Literal["constant"] = "constant"

    def __call__(self, clock: Clock) -> float:
        return 1.0


class Cosine(ScheduleBase):
    """Half a cosine from the peak to `floor`, after a linear warm-up.

    With p the progress and w = `warmup`, the share of the steps spent warming up:
        p < w:  start + (1 − start)·p/w
        else:   floor + ½(1 − floor)(1 + cos(π(p − w)/(1 − w)))
    SGDR without restarts (Loshchilov & Hutter, arXiv 1608.03983), with timm's warm-up before the cosine
    (`CosineLRScheduler(warmup_prefix=True)`). `start` and `floor` are fractions of the peak.
    """

    name: Literal["cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    start: Fraction = 0.0
    floor: Fraction = 0.0

    def __call__(self, clock: Clock) -> float:
        p = clock.progress
        if p < self.warmup:
            return self.start + (1 - self.start) * p / self.warmup
        along = (p - self.warmup) / (1 - self.warmup)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * along)) / 2


class OneCycle(ScheduleBase):
    """fastai's one-cycle: up from 1/div over the first `pct` of the steps, then down to 1/div_final.

    With c(s, e, t) = s + (1 + cos(π(1 − t)))(e − s)/2 and p the progress:
        p < pct:  c(1/div, 1, p/pct)
        else:     c(1, 1/div_final, (p − pct)/(1 − pct))
    Momentum runs the other way, from `momentum_high` to `momentum_low` and back.
    Defaults and formula: fastai v2 `fit_one_cycle`, after Smith & Topin, arXiv 1708.07120.

    torch's `OneCycleLR` is another curve: its rise ends one step early, at pct·total − 1, its floor is
    (max/div)/final_div_factor, and a scalar `max_lr` gives every parameter group the same rate.
    """

    name: Literal["one_cycle"] = "one_cycle"
    div: Annotated[float, Field(ge=1)] = 25.0
    div_final: Annotated[float, Field(ge=1)] = 1e5
    pct: Annotated[float, Field(gt=0, lt=1)] = 0.25
    momentum_high: Annotated[float, Field(ge=0, lt=1)] = 0.95
    momentum_low: Annotated[float, Field(ge=0, lt=1)] = 0.85

    def __call__(self, clock: Clock) -> float:
        return self._two_phases(clock, 1 / self.div, 1.0, 1 / self.div_final)

    def momentum(self, clock: Clock) -> float:
        return self._two_phases(clock, self.momentum_high, self.momentum_low, self.momentum_high)

    def _two_phases(self, clock: Clock, first: float, middle: float, last: float) -> float:
        p = clock.progress
        if p < self.pct:
            return _cosine_between(first, middle, p / self.pct)
        return _cosine_between(middle, last, (p - self.pct) / (1 - self.pct))


def _cosine_between(start: float, end: float, t: float) -> float:
    return start + (1 + math.cos(math.pi * (1 - t))) * (end - start) / 2


Schedule = Annotated[OneCycle | Cosine | Constant, Field(discriminator="name")]
