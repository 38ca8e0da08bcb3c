"""Schedules: time → fraction of the peak rate, in [0, 1].

A schedule has no state, and is asked before an update. A new one is a class with a `name` and its formula in the
docstring; a config finds it by that name. In the formulas p is the progress, step / total steps.
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from kit.core.named import Named
from kit.lr.clock import Clock
from kit.lr.curves import Interpolation, Knot, check_knots, interpolate

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]  # of the steps or of the curve; less than all
Curve = Literal["linear", "cosine"]

LOWERED = 0.7  # of the peak: where the lowered linear cooldown begins

# A step that ought to begin a new cycle or phase may come out as 0.9999999999 of it.
TOLERANCE = 1e-9


class ScheduleBase(Named):
    """The base of schedules: what each of them answers about a moment in training."""

    if TYPE_CHECKING:
        name: str  # every schedule declares its own, after the fields of its base

    def __call__(self, clock: Clock) -> float:
        """Return the fraction of the peak rate at this moment, in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say its rate over time")

    def momentum(self, clock: Clock) -> float | None:
        """Return SGD's momentum or Adam's first beta at this moment; None leaves the optimizer's own."""
        return None

    def check(self) -> None:
        """Check that the schedule can be followed, before any training; ValueError where it cannot."""


class WarmedUp(ScheduleBase):
    """The base of schedules that are a curve after a warm-up.

    Attributes
    ----------
    warmup : float
        The share w of the steps that the warm-up takes, in [0, 1).
    start : float
        Where the warm-up begins, as a fraction of the peak rate.
    warmup_curve : {"linear", "cosine"}
        How the warm-up rises: along a line, or along half a cosine.
    prefix : bool
        Whether the curve begins where the warm-up ends. If not, the warm-up covers the curve's beginning.

    Notes
    -----
        p < w:  start + (1 − start)·s(p/w),   s(x) = x (linear) or ½(1 − cos(πx)) (cosine)
        else:   curve((p − w)/(1 − w)),       or curve(p) with `prefix: false`

    References
    ----------
    timm's `warmup_t`, `warmup_lr_init` and `warmup_prefix`. The warm-up: Goyal et al., arXiv 1706.02677.
    """

    warmup: Share = 0.0
    start: Fraction = 0.0
    warmup_curve: Curve = "linear"
    prefix: bool = True

    def __call__(self, clock: Clock) -> float:
        p = clock.progress
        if p < self.warmup - TOLERANCE:
            return self.start + (1 - self.start) * ease(p / self.warmup, self.warmup_curve)
        return self.curve(max(0.0, (p - self.warmup) / (1 - self.warmup)) if self.prefix else p)

    def curve(self, along: float) -> float:
        """Return the fraction of the peak rate where the share `along` of the curve is done, in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say its curve")


class Constant(WarmedUp):
    """The peak rate throughout, after a warm-up: curve(x) = 1.

    Attributes
    ----------
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.
    """

    name: Literal["constant"] = "constant"

    def curve(self, along: float) -> float:
        return 1.0


class Cosine(WarmedUp):
    """Half a cosine from the peak to `floor`, once or in cycles: timm's `CosineLRScheduler`.

    The default is one cycle that takes all of the curve.

    Attributes
    ----------
    floor : float
        The lowest rate, as a fraction of the peak; so is `start`.
    cycle : float
        How long the first cycle is, as a share of the curve.
    multiplier : float
        How many times as long a cycle is as the one before.
    decay : float
        How high a cycle begins, as a share of the one before.
    limit : int
        How many cycles there are; after them the rate stays at `floor`.
    k : float
        timm's k-decay.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.

    Notes
    -----
    Cycle i begins where those before it end, and is `cycle`·multiplier^i of the curve long. With t in [0, 1] the
    place in cycle i:

        i < limit:  floor + ½(max(decay^i, floor) − floor)(1 + cos(πt^k)),     else floor

    timm takes decay^i alone, and rises where that is below the floor.

    References
    ----------
    The default is SGDR without restarts: Loshchilov & Hutter, arXiv 1608.03983. k-decay: arXiv 2004.05909.
    """

    name: Literal["cosine"] = "cosine"
    warmup: Share = 0.05
    floor: Fraction = 0.0
    cycle: Annotated[float, Field(gt=0, le=1)] = 1.0
    multiplier: Annotated[float, Field(ge=1)] = 1.0
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    limit: Annotated[int, Field(ge=1)] = 1
    k: Annotated[float, Field(gt=0)] = 1.0

    def curve(self, along: float) -> float:
        number, within = cycle_of(along, self.cycle, self.multiplier)
        if number >= self.limit:
            return self.floor
        top = max(self.decay**number, self.floor)
        return self.floor + (top - self.floor) * (1 + math.cos(math.pi * within**self.k)) / 2


class SGDR(WarmedUp):
    """Cosine with warm restarts: `cycles` whole cycles, each `multiplier` times as long as the one before.

    Attributes
    ----------
    floor : float
        Where each cycle ends, as a fraction of the peak.
    cycles : int
        How many cycles fill the curve.
    multiplier : float
        How many times as long a cycle is as the one before.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.

    Notes
    -----
    With t in [0, 1) the place in a cycle: floor + ½(1 − floor)(1 + cos(πt)). The first cycle is
    (multiplier − 1)/(multiplier^cycles − 1) of the curve, or 1/cycles where the multiplier is 1.

    References
    ----------
    Loshchilov & Hutter, arXiv 1608.03983, with the paper's multiplier of 2.
    """

    name: Literal["sgdr"] = "sgdr"
    floor: Fraction = 0.0
    cycles: Annotated[int, Field(ge=1, le=100)] = 3
    multiplier: Annotated[float, Field(ge=1, le=10)] = 2.0

    def curve(self, along: float) -> float:
        first = 1 / sum(self.multiplier**number for number in range(self.cycles))
        _, within = cycle_of(along, first, self.multiplier)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * within)) / 2


class OneCycle(ScheduleBase):
    """fastai's one-cycle: up from 1/div over the first `pct_start` of the steps, then down to 1/div_final.

    Momentum runs the other way, from `momentum_high` to `momentum_low` and back.

    Attributes
    ----------
    div : float
        By what the peak rate is divided at the beginning.
    div_final : float
        By what the peak rate is divided at the end.
    pct_start : float
        The share of the steps over which the rate rises.
    momentum_high : float
        Momentum where the rate is lowest.
    momentum_low : float
        Momentum where the rate is highest.

    Notes
    -----
    With c(s, e, t) = s + (1 + cos(π(1 − t)))(e − s)/2:

        p < pct_start:  c(1/div, 1, p/pct_start)
        else:           c(1, 1/div_final, (p − pct_start)/(1 − pct_start))

    torch's `OneCycleLR` is another curve: its rise ends one step early, at pct_start·total − 1, its floor is
    (max/div)/final_div_factor, and a scalar `max_lr` gives every parameter group the same rate.

    References
    ----------
    Defaults and formula: fastai v2 `fit_one_cycle`, after Smith & Topin, arXiv 1708.07120.
    """

    name: Literal["one_cycle"] = "one_cycle"
    div: Annotated[float, Field(ge=1)] = 25.0
    div_final: Annotated[float, Field(ge=1)] = 1e5
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.25
    momentum_high: Annotated[float, Field(ge=0, lt=1)] = 0.95
    momentum_low: Annotated[float, Field(ge=0, lt=1)] = 0.85

    def __call__(self, clock: Clock) -> float:
        return self._two_phases(clock, 1 / self.div, 1.0, 1 / self.div_final)

    def momentum(self, clock: Clock) -> float:
        return self._two_phases(clock, self.momentum_high, self.momentum_low, self.momentum_high)

    def _two_phases(self, clock: Clock, first: float, middle: float, last: float) -> float:
        p = clock.progress
        if p < self.pct_start:
            return first + (middle - first) * ease(p / self.pct_start, "cosine")
        return middle + (last - middle) * ease((p - self.pct_start) / (1 - self.pct_start), "cosine")


class FlatCos(WarmedUp):
    """The peak rate over the first `pct_start` of the curve, then half a cosine to 1/div_final.

    Attributes
    ----------
    pct_start : float
        The share of the curve that is flat.
    div_final : float
        By what the peak rate is divided at the end.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.

    Notes
    -----
        x < pct_start:  1,   else:  1/div_final + ½(1 − 1/div_final)(1 + cos(π(x − pct_start)/(1 − pct_start)))

    References
    ----------
    Defaults and formula: fastai v2 `fit_flat_cos`.
    """

    name: Literal["flat_cos"] = "flat_cos"
    pct_start: Share = 0.75
    div_final: Annotated[float, Field(ge=1)] = 1e5

    def curve(self, along: float) -> float:
        if along < self.pct_start:
            return 1.0
        return 1 + (1 / self.div_final - 1) * ease((along - self.pct_start) / (1 - self.pct_start), "cosine")


class Linear(WarmedUp):
    """A straight line from the peak to `floor`: floor + (1 − floor)(1 − x). torch's `LinearLR`, downwards.

    Attributes
    ----------
    floor : float
        The rate at the end, as a fraction of the peak.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.
    """

    name: Literal["linear"] = "linear"
    floor: Fraction = 0.0

    def curve(self, along: float) -> float:
        return self.floor + (1 - self.floor) * (1 - along)


class Polynomial(WarmedUp):
    """Polynomial decay from the peak to `floor`: floor + (1 − floor)(1 − x)^power.

    Attributes
    ----------
    floor : float
        The rate at the end, as a fraction of the peak.
    power : float
        The exponent; 1 is a straight line.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.

    References
    ----------
    Power .9 is DeepLab's, arXiv 1606.00915. torch's `PolynomialLR` is the same with floor 0.
    """

    name: Literal["polynomial"] = "polynomial"
    floor: Fraction = 0.0
    power: Annotated[float, Field(gt=0)] = 0.9

    def curve(self, along: float) -> float:
        return self.floor + (1 - self.floor) * (1 - min(along, 1.0)) ** self.power


class Step(WarmedUp):
    """The rate times `gamma` at each of `milestones`, shares of the curve: gamma^(milestones passed).

    Attributes
    ----------
    milestones : tuple of float
        Where the rate falls, as shares of the curve.
    gamma : float
        By what the rate is multiplied at each.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.

    References
    ----------
    torch's `MultiStepLR`. Defaults: He et al., arXiv 1512.03385 (CIFAR-10: a tenth at a half and at three
    quarters).
    """

    name: Literal["step"] = "step"
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    def curve(self, along: float) -> float:
        return self.gamma ** sum(along >= milestone - TOLERANCE for milestone in self.milestones)


class InverseSqrt(ScheduleBase):
    """A linear warm-up over the share w = `warmup`, then the inverse square root of time: √(w/p).

    Attributes
    ----------
    warmup : float
        The share of the steps that the warm-up takes.
    start : float
        Where the warm-up begins, as a fraction of the peak rate.

    Notes
    -----
        p < w:  start + (1 − start)·p/w,   else:  √(w/p)

    References
    ----------
    The Transformer's schedule: Vaswani et al., arXiv 1706.03762.
    """

    name: Literal["inverse_sqrt"] = "inverse_sqrt"
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.05
    start: Fraction = 0.0

    def __call__(self, clock: Clock) -> float:
        p = clock.progress
        if p < self.warmup:
            return self.start + (1 - self.start) * p / self.warmup
        return math.sqrt(self.warmup / p)


class WarmupStableDecay(WarmedUp):
    """Warm-up, a plateau at the peak, and a decay to `floor` over the last share `decay` of the curve.

    Attributes
    ----------
    decay : float
        The share of the curve over which the rate falls.
    decay_curve : {"linear", "cosine", "sqrt", "lowered_linear"}
        How it falls.
    floor : float
        The rate at the end, as a fraction of the peak.
    warmup, start, warmup_curve, prefix
        The warm-up; see `WarmedUp`.

    Notes
    -----
    With t in [0, 1] the place in the decay: floor + (1 − floor)·c(t), where c(t) is 1 − t (`linear`),
    ½(1 + cos(πt)) (`cosine`), 1 − √t (`sqrt`) or .7(1 − t) (`lowered_linear`: the rate drops to .7 at once).

    References
    ----------
    WSD: Hu et al., arXiv 2404.06395. 1 − √t: Hägele et al., arXiv 2405.18392, who found it the best of the first
    three. It and the line lowered to .7 are the two best of Dremov et al., arXiv 2508.01483.
    """

    name: Literal["wsd"] = "wsd"
    warmup: Share = 0.05
    decay: Annotated[float, Field(gt=0, le=1)] = 0.2
    decay_curve: Literal["linear", "cosine", "sqrt", "lowered_linear"] = "sqrt"
    floor: Fraction = 0.0

    @model_validator(mode="after")
    def _decay_follows_the_warm_up(self) -> Self:
        if not self.prefix and self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup:g} and decay {self.decay:g} overlap without `prefix`")
        return self

    def curve(self, along: float) -> float:
        within = (along - (1 - self.decay)) / self.decay
        if self.decay_curve == "lowered_linear":
            return self._between(LOWERED * (1 - within)) if within > -TOLERANCE else 1.0
        if within <= 0:
            return 1.0
        return self._between(
            1 - (math.sqrt(within) if self.decay_curve == "sqrt" else ease(within, self.decay_curve))
        )

    def _between(self, left: float) -> float:
        return self.floor + (1 - self.floor) * max(left, 0.0)


class Piecewise(ScheduleBase):
    """A curve through `knots`, pairs of a share of the steps and the fraction of the peak rate there.

    It is flat before the first knot and after the last.

    Attributes
    ----------
    knots : tuple of (float, float)
        Two or more, like [[0, 0], [0.2, 1], [1, 0]]; the shares rise. The highest fraction is 1, since `lr` is the
        peak rate.
    interpolation : {"linear", "monotone_cubic"}
        Straight lines from knot to knot, or a smooth curve that turns only at knots; see
        `kit.lr.curves.interpolate`.
    """

    name: Literal["piecewise"] = "piecewise"
    knots: tuple[Knot, ...]
    interpolation: Interpolation = "linear"

    @model_validator(mode="after")
    def _reach_the_peak(self) -> Self:
        check_knots("knots", self.knots)
        if (highest := max(fraction for _, fraction in self.knots)) != 1:
            raise ValueError(f"knots: the highest fraction is {highest:g}; it has to be 1, where the rate is `lr`")
        return self

    def __call__(self, clock: Clock) -> float:
        return interpolate(self.knots, clock.progress, self.interpolation)


def ease(x: float, curve: Curve) -> float:
    """Return 0 to 1 as x goes from 0 to 1: a straight line, or half a cosine, (1 + cos(π(1 − x)))/2."""
    return x if curve == "linear" else (1 + math.cos(math.pi * (1 - x))) / 2


def cycle_of(along: float, first: float, multiplier: float) -> tuple[int, float]:
    """Return the cycle in which a moment lies, and the place in it.

    Parameters
    ----------
    along : float
        The moment, as a share of the curve.
    first : float
        How long the first cycle is, as a share of the curve.
    multiplier : float
        How many times as long a cycle is as the one before.

    Returns
    -------
    number : int
        The cycle's number, from 0 on.
    within : float
        The place in the cycle, in [0, 1).

    Notes
    -----
    Cycle i begins at first·(multiplier^i − 1)/(multiplier − 1), or first·i where the multiplier is 1.
    """
    x = along / first
    if multiplier - 1 < 1e-6:  # where the formula would divide by next to nothing
        number = math.floor(x + TOLERANCE)
        return number, max(0.0, x - number)
    number = math.floor(math.log(1 + x * (multiplier - 1), multiplier) + TOLERANCE)
    begin = (multiplier**number - 1) / (multiplier - 1)
    return number, max(0.0, (x - begin) / multiplier**number)
