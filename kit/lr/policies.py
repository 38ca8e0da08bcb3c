"""A policy: peak rate × schedule × profile, as a pure function of the clock and the depth groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from kit.lr.clock import Clock, Group
from kit.lr.profiles import HeadFirst, Profile, Uniform, parse_lr
from kit.lr.schedules import OneCycle, Schedule, ScheduleBase
from kit.settings import Section


@dataclass(frozen=True)
class Rates:
    """What a policy asks for at one step.

    lr        float64 [groups], one rate per depth group, stem first
    momentum  SGD's momentum or Adam's first beta; None leaves the optimizer's own
    """

    lr: np.ndarray
    momentum: float | None


@dataclass(frozen=True)
class Policy:
    """How the rate moves over time and over the depth of the network.

    Stateless: `rates` may be asked in any order, before, during and after a training, and always
    answers the same.
    """

    peak: float
    schedule: ScheduleBase
    profile: Profile

    def rates(self, clock: Clock, groups: Sequence[Group]) -> Rates:
        """The rates at one moment. `groups` are ordered from the stem to the head."""
        scheduled = self.peak * self.schedule(clock)
        multipliers = np.array([self.profile(clock, group) for group in groups], dtype=np.float64)
        return Rates(lr=scheduled * multipliers, momentum=self.schedule.momentum(clock))


class PolicyConfig(Section):
    """A policy as a file in configs/policies/ states it.

    lr        the peak rate: 1e-2, slice(1e-6, 1e-2) or slice(1e-2)
    schedule  one_cycle, cosine or constant; or a mapping with `name` and its options
    groups    where the network is cut into depth groups: `block` (one a block), `stage` (one a
              stage) or `coarse` (three, as fastai does: front half, back half, head)
    """

    lr: float | str
    schedule: Schedule = OneCycle()
    groups: Literal["block", "stage", "coarse"] = "block"

    @field_validator("lr")
    @classmethod
    def _one_spelling(cls, lr: float | str) -> float | str:
        """So that `slice(1e-6,1e-2)` and `slice(1e-06, 0.01)` are the same policy."""
        peak, profile = parse_lr(lr)
        if isinstance(profile, Uniform):
            return peak
        if isinstance(profile, HeadFirst):
            return f"slice({peak!r})"
        return f"slice({profile.first!r}, {peak!r})"

    @field_validator("schedule", mode="before")
    @classmethod
    def _by_name(cls, schedule: Any) -> Any:
        return {"name": schedule} if isinstance(schedule, str) else schedule

    def build(self) -> Policy:
        peak, profile = parse_lr(self.lr)
        return Policy(peak=peak, schedule=self.schedule, profile=profile)


def policy(lr: float | str, schedule: Any = "one_cycle") -> Policy:
    """A policy from the values a config file would hold, for use without the rest of the kit.

    Raises pydantic's ValidationError (a ValueError) for a rate or a schedule that cannot be read.
    """
    return PolicyConfig(lr=lr, schedule=schedule).build()
