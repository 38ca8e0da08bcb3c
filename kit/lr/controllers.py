"""Controllers: an adaptive multiplier per depth group, fed by measured signals, on top of a policy's static rates.

A controller is a pure function of its state and the signals, so a training can be replayed from what was
recorded. The multiplier is bounded, so that the policy below it stays in sight, and it always multiplies the
static rate: nothing compounds. Controllers never see validation data.

The signals, float64 [depth groups] each, of which only those are measured that a controller declares:

weight
    ‖w‖ before the update.
gradient
    ‖g‖ of this update, after clipping.
direction
    ‖Δw‖ / rate of the last update that moved the depth group: what the optimizer moves per unit of rate, its
    momentum, scaling and weight decay included. NaN before there was one.
decay
    The optimizer's weight decay.
tail
    How heavy the tail of the spectrum of a depth group's weights is: Hill's estimate of its exponent, the mean
    over its linear and convolutional layers. NaN where it has none; the first and the last layer of the network,
    and those of fewer than 50 eigenvalues, do not count. Measured before the first update and then every so many
    epochs, as the controller says; in between it stays.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from kit.core.named import Named
from kit.lr.clock import PolicyGroup

State = dict[str, Any]  # plain lists and numbers, for a checkpoint
Signals = Mapping[str, np.ndarray]
SIGNALS = ("weight", "gradient", "direction", "decay", "tail")
Positive = Annotated[float, Field(gt=0)]


class ControllerBase(Named):
    """The base of controllers: what each of them answers before an update.

    Attributes
    ----------
    signals : tuple of str
        Of the class: the names of the signals that it needs.
    lower, upper : float
        The bounds of the multiplier.
    """

    if TYPE_CHECKING:
        name: str  # every controller declares its own, after the fields of its base

    signals: ClassVar[tuple[str, ...]] = ()
    lower: Positive = 0.01
    upper: Positive = 10.0

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.lower > self.upper:
            raise ValueError(f"lower {self.lower:g} is above upper {self.upper:g}")
        return self

    @property
    def tail_every(self) -> float:
        """Epochs from one measurement of the signal `tail` to the next."""
        return 1.0

    def check(self, groups: Sequence[PolicyGroup]) -> None:
        """Check that the controller can steer these depth groups, before any training; ValueError where not."""

    def start(self, count: int) -> State:
        """Return the state before the first update, for `count` depth groups."""
        return {}

    def step(self, state: State, signals: Signals, lr: np.ndarray, fraction: float) -> tuple[np.ndarray, State]:
        """Return the multipliers of this update, and the state for the next one.

        Parameters
        ----------
        state : dict
            What `start` or the last step returned.
        signals : mapping of str to ndarray
            The signals that the class declares, float64 [depth groups] each.
        lr : ndarray
            The static rates, float64 [depth groups].
        fraction : float
            What the schedule makes of the peak rate now, in [0, 1].

        Returns
        -------
        multipliers : ndarray
            float64 [depth groups], between `lower` and `upper`.
        state : dict
            Plain lists and numbers, for a checkpoint.
        """
        raise TypeError(f"{type(self).__name__} does not say its multiplier")

    def _bounded(self, ratio: np.ndarray) -> np.ndarray:
        """Return the ratio within its bounds; `lower` where it is 0 or not finite."""
        there = np.isfinite(ratio) & (ratio > 0)
        return np.clip(np.where(there, ratio, self.lower), self.lower, self.upper)


class LARS(ControllerBase):
    """LARS's trust ratio, η‖w‖ / (‖g‖ + λ‖w‖), a depth group at a time.

    Meant for SGD. The ratio is of the size of η, so the policy's lr is 1 or more, as in the paper.

    Attributes
    ----------
    coefficient : float
        η; λ is the optimizer's weight decay.
    lower, upper
        The bounds of the multiplier.

    References
    ----------
    You, Gitman & Ginsburg, arXiv 1708.03888, where a layer is one tensor and the ratio is not bounded.
    """

    signals = ("weight", "gradient", "decay")
    name: Literal["lars"] = "lars"
    lower: Positive = 1e-4
    upper: Positive = 1.0
    coefficient: Positive = 1e-3

    def step(self, state: State, signals: Signals, lr: np.ndarray, fraction: float) -> tuple[np.ndarray, State]:
        weight, gradient = signals["weight"], signals["gradient"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = self.coefficient * weight / (gradient + signals["decay"] * weight)
        return self._bounded(np.where(gradient > 0, ratio, np.nan)), state


class LAMB(ControllerBase):
    """LAMB's trust ratio, ‖w‖ / ‖direction‖, a depth group at a time, of the update before this one.

    With Adam as the optimizer the direction is Adam's with its decoupled weight decay. The first update, which has
    none before it, is made at `lower`.

    Attributes
    ----------
    lower, upper
        The bounds of the multiplier.

    References
    ----------
    You et al., arXiv 1904.00962, where a layer is one tensor and the ratio is of the very same update.
    """

    signals = ("weight", "direction")
    name: Literal["lamb"] = "lamb"

    def step(self, state: State, signals: Signals, lr: np.ndarray, fraction: float) -> tuple[np.ndarray, State]:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self._bounded(signals["weight"] / signals["direction"]), state


class ConstantUpdate(ControllerBase):
    """Holds each group's relative update ‖Δw‖/‖w‖ at `target`, moving with the schedule, slowly.

    Attributes
    ----------
    target : float
        The relative update at the peak of the schedule.
    gain : float
        The share of the way to the target that each update takes, on a log scale.
    lower, upper
        The bounds of the multiplier.

    Notes
    -----
    With r the static rate of a depth group and s the schedule's fraction, the multiplier that would hit the target
    is m* = target·s·‖w‖ / (r·‖direction‖), within the bounds; log m, 0 at first, moves by the share `gain` towards
    log m* at each update, and stays where a norm is 0 or not finite.

    References
    ----------
    Ratios near 1e-3 are a rule of thumb from practice: Karpathy, CS231n notes.
    """

    signals = ("weight", "direction")
    name: Literal["constant_update"] = "constant_update"
    target: Positive = 1e-3
    gain: Annotated[float, Field(gt=0, le=1)] = 0.1

    def start(self, count: int) -> State:
        return {"log_multiplier": [0.0] * count}

    def step(self, state: State, signals: Signals, lr: np.ndarray, fraction: float) -> tuple[np.ndarray, State]:
        log: np.ndarray = np.array(state["log_multiplier"])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wanted = np.log(self.target * fraction * signals["weight"] / (lr * signals["direction"]))
        bounded = wanted.clip(np.log(self.lower), np.log(self.upper))
        log = np.where(np.isfinite(wanted), log + self.gain * (bounded - log), log)
        return self._bounded(np.exp(log)), {"log_multiplier": log.tolist()}


class TempBalance(ControllerBase):
    """TempBalance: the lighter the tail of the spectrum of a group's weights, the larger its rate.

    Attributes
    ----------
    every : float
        Epochs from one measurement of the spectra to the next.
    lower, upper
        The multiplier of the group with the heaviest tail, and that of the one with the lightest.

    Notes
    -----
    With α a group's Hill estimate (the signal `tail`; small where the tail is heavy), the multiplier is
    lower + (upper − lower) · (α − min α) / (max α − min α). It is 1 (or the bound next to that) for a group
    without a layer that was measured, like stem and head where they are one layer each, and for all groups where α
    is the same. The differences between groups are stretched to the whole range however small they are.

    References
    ----------
    Zhou et al., arXiv 2312.00359, with s₁ = .5 and s₂ = 1.5. There each layer has a rate of its own; here a depth
    group has, by the mean of its layers, and its norms, biases and small layers learn at that rate as well.
    """

    signals = ("tail",)
    name: Literal["temp_balance"] = "temp_balance"
    lower: Positive = 0.5
    upper: Positive = 1.5
    every: Positive = 1.0

    @property
    def tail_every(self) -> float:
        return self.every

    def step(self, state: State, signals: Signals, lr: np.ndarray, fraction: float) -> tuple[np.ndarray, State]:
        tail = signals["tail"]
        there, multipliers = np.isfinite(tail), np.ones(len(tail))
        if there.any() and np.ptp(tail[there]) > 0:
            share = (tail[there] - tail[there].min()) / np.ptp(tail[there])
            multipliers[there] = self.lower + (self.upper - self.lower) * share
        return self._bounded(multipliers), state
