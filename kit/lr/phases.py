"""A phase: a peak rate, a schedule and a profile over a part of the training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kit.lr.clock import Clock, PolicyGroup
from kit.lr.profiles import ProfileBase
from kit.lr.schedules import TOLERANCE, ScheduleBase

LONGEST = 20_000  # updates that `equalise` sums over; of longer phases it takes every second, third …


@dataclass(frozen=True)
class Phase:
    """A part of the training: a peak rate, a schedule and a profile.

    Within a phase, a clock counts from the phase's beginning to its end.

    Attributes
    ----------
    peak : float
        The rate where schedule and profile are 1.
    schedule : ScheduleBase
        How the rate moves over the phase.
    profile : ProfileBase
        How the rate differs by depth.
    freeze_to : int
        The first depth group that learns; those before it are frozen. A negative number counts from the head: −1
        leaves the head alone (fastai's `freeze_to`).
    equalise : bool
        Whether to rescale, so that the mean rate over parameters and updates is what the uniform profile gives, of
        the depth groups that `freeze_to` lets learn.
    kinds : mapping of str to float
        What a group's rate is multiplied by for its kind; 1 where it is not said.
    epochs, fraction : float or None
        How long the phase is, in epochs or as a share of the training; neither: the rest of the training.
    """

    peak: float
    schedule: ScheduleBase
    profile: ProfileBase
    freeze_to: int = 0
    equalise: bool = False
    kinds: Mapping[str, float] = field(default_factory=dict)
    epochs: float | None = None
    fraction: float | None = None
    _scales: dict[tuple[float | PolicyGroup | None, ...], float] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def length(self, total_steps: float, steps_per_epoch: float | None) -> float | None:
        """Return how long the phase is, in updates, which may be a fraction; None for the rest of the training.

        Parameters
        ----------
        total_steps : float
            Updates of the whole training.
        steps_per_epoch : float or None
            Updates of an epoch.

        Raises
        ------
        ValueError
            Where the phase counts in epochs and `steps_per_epoch` is None.
        """
        if self.epochs is not None:
            if steps_per_epoch is None:
                raise ValueError("steps_per_epoch: needed, because the policy counts in epochs")
            return self.epochs * steps_per_epoch
        return None if self.fraction is None else self.fraction * total_steps

    def lr(self, clock: Clock, groups: Sequence[PolicyGroup]) -> np.ndarray:
        """Return the rate of each depth group, float64 [depth groups].

        Parameters
        ----------
        clock : Clock
            The moment, counted within the phase.
        groups : sequence of PolicyGroup
            The depth groups, from the stem to the head.
        """
        fraction = self.peak * self.schedule(clock)
        if self.equalise:
            fraction *= self.scale(clock, groups)
        return fraction * self._multipliers(clock, groups)

    def frozen(self, clock: Clock, groups: Sequence[PolicyGroup]) -> np.ndarray:
        """Return which depth groups are frozen at this moment, bool [depth groups]."""
        first = self.first_learning(groups[0].count)
        if not first and type(self.profile).frozen is ProfileBase.frozen and 0 not in self.kinds.values():
            return np.zeros(len(groups), dtype=bool)  # as most policies have it, and each update asks
        return np.array(
            [
                group.index < first or self.kinds.get(group.kind) == 0 or self.profile.frozen(clock, group)
                for group in groups
            ],
            dtype=bool,
        )

    def first_learning(self, count: int) -> int:
        """Return the index of the first of `count` depth groups that `freeze_to` lets learn."""
        return self.freeze_to if self.freeze_to >= 0 else max(0, count + self.freeze_to)

    def check(self, groups: Sequence[PolicyGroup], epochs: float | None) -> None:
        """Check that the phase fits a model.

        Parameters
        ----------
        groups : sequence of PolicyGroup
            The model's depth groups, from the stem to the head.
        epochs : float or None
            How long the phase is; None where that is not known.

        Raises
        ------
        ValueError
            Where it does not fit.
        """
        self.schedule.check()
        self.profile.check(groups, epochs)
        count = groups[0].count
        if not -count <= self.freeze_to < count:
            raise ValueError(f"freeze_to: {self.freeze_to} leaves nothing to learn of {count} depth groups")
        if self.equalise and any(group.n_params <= 0 for group in groups):
            raise ValueError("equalise: needs the number of parameters of every group")

    def scale(self, clock: Clock, groups: Sequence[PolicyGroup]) -> float:
        """Return the factor by which `equalise` rescales the phase.

        It is one number, so that the profile keeps its shape over depth and over time.

        Notes
        -----
        With n_g parameters in depth group g, n in all, f the schedule and m profile × kind, it is

            Σ_t n·f(t) / Σ_t Σ_g n_g·m_g(t)·f(t)

        over the updates t of the phase and the depth groups g that `freeze_to` lets learn.
        """
        key = (clock.total_steps, clock.steps_per_epoch, *groups)
        if key not in self._scales:
            first = self.first_learning(groups[0].count)
            members = [group for group in groups if group.index >= first]
            sizes, uniform, ours = np.array([group.n_params for group in members], dtype=np.float64), 0.0, 0.0
            updates = np.arange(max(1, math.ceil(clock.total_steps - TOLERANCE)), dtype=np.float64)
            for update in updates[:: math.ceil(len(updates) / LONGEST)].tolist():
                then = Clock(update, clock.total_steps, clock.steps_per_epoch)
                fraction = self.schedule(then)
                uniform += fraction * sizes.sum()
                ours += fraction * (sizes @ self._multipliers(then, members))
            # What is nearly nothing (denormal multipliers) stays so: no factor would make it uniform's.
            self._scales[key] = uniform / ours if ours > uniform * 1e-300 else 1.0
        return self._scales[key]

    def bound(self, clock: Clock, groups: Sequence[PolicyGroup]) -> float:
        """Return a rate that no depth group of this phase exceeds."""
        return (
            self.peak
            * self.profile.bound
            * max([1.0, *self.kinds.values()])
            * (self.scale(clock, groups) if self.equalise else 1.0)
        )

    def _multipliers(self, clock: Clock, groups: Sequence[PolicyGroup]) -> np.ndarray:
        each = np.array([self.profile(clock, group) for group in groups], dtype=np.float64)
        return each * [self.kinds.get(group.kind, 1.0) for group in groups] if self.kinds else each


def phase_spans(
    phases: Sequence[Phase], total_steps: float, steps_per_epoch: float | None
) -> list[tuple[float, float]]:
    """Return where each phase begins and ends, in updates, which may be fractions.

    Each begins where the one before it ends, and the last ends with the training.

    Parameters
    ----------
    phases : sequence of Phase
        One after the other.
    total_steps : float
        Updates of the whole training.
    steps_per_epoch : float or None
        Updates of an epoch.

    Raises
    ------
    ValueError
        Where the phases do not fill the training.
    """
    lengths = [phase.length(total_steps, steps_per_epoch) for phase in phases]
    if None in lengths[:-1]:
        raise ValueError(f"phases[{lengths.index(None)}]: only the last phase may leave out how long it is")
    stated = sum(length for length in lengths if length is not None)
    slack = TOLERANCE * max(total_steps, 1.0)
    unit, name = (steps_per_epoch, "epochs") if steps_per_epoch else (1, "updates")
    taken = f"{stated / unit:g} of {total_steps / unit:g} {name}"
    if stated > total_steps + slack or (lengths[-1] is None and stated > total_steps - slack):
        rest = ", and the last one needs some" if lengths[-1] is None else ""
        raise ValueError(
            f"phases: longer than the training: they take {taken}{rest}; train longer or shorten them"
        )
    if lengths[-1] is not None and stated < total_steps - slack:
        raise ValueError(f"phases: they take only {taken}; leave out how long the last one is")
    ends = np.cumsum([0.0 if length is None else length for length in lengths]).tolist()
    ends[-1] = float(total_steps)
    return list(zip([0.0, *ends[:-1]], ends, strict=True))
