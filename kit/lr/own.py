"""Schedules, profiles and controllers of the user's own, named `file.py:name` in a config."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.core.named import OwnOptions
from kit.lr.clock import Clock, PolicyGroup
from kit.lr.controllers import SIGNALS, ControllerBase, Signals, State
from kit.lr.profiles import ProfileBase
from kit.lr.schedules import TOLERANCE, ScheduleBase

SLOWEST = 0.05  # seconds of a call
TRIED = (*(Clock(step, 97, 10) for step in range(0, 97, 4)), Clock(0.5, 7.5, 2.5))  # also parts of an update


class OwnSchedule(ScheduleBase, OwnOptions):
    """The user's own schedule: a function of a `Clock` and of the options that gives a fraction of the peak rate.

    Or a class that is made with the options and whose objects are such a function; their `momentum(clock)`, where
    they have one, says the momentum.
    """

    @cached_property
    def _function(self) -> Callable[[Clock], float]:
        return self.code.bind(self.options, ("clock",))

    def __call__(self, clock: Clock) -> float:
        return self._function(clock)

    def momentum(self, clock: Clock) -> float | None:
        says = getattr(self._function, "momentum", None)
        return says(clock) if says else None

    def check(self) -> None:
        with _as_value_error("schedule"):
            _need_quick(self, self._function, TRIED[0])
            for clock in TRIED:
                value = _twice(self, self._function, clock)
                where = f"at progress {clock.progress:.3g}"
                if not -TOLERANCE <= value <= 1 + TOLERANCE:
                    raise ValueError(
                        f"schedule: {self.name} gives {value:g} {where}; a fraction of the peak, 0 to 1, is needed"
                    )
                momentum = self.code.call(self.momentum, clock)
                if not (momentum is None or (isinstance(momentum, Real) and 0 <= float(momentum) < 1)):
                    raise ValueError(
                        f"schedule: {self.name} gives the momentum {momentum!r} {where}; below 1 is needed"
                    )


class OwnProfile(ProfileBase, OwnOptions):
    """The user's own profile: a function of a `Clock`, a `PolicyGroup` and the options that gives a multiplier.

    Or a class that is made with the options and whose objects are such a function; their `frozen(clock, group)`
    and `bound`, where they have them, say what is frozen and how large a multiplier can be.
    """

    @cached_property
    def _function(self) -> Callable[[Clock, PolicyGroup], float]:
        return self.code.bind(self.options, ("clock", "group"))

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return self._function(clock, group)

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        says = getattr(self._function, "frozen", None)
        return bool(says(clock, group)) if says else False

    @property
    def lacks_ratio(self) -> bool:
        return False

    @property
    def bound(self) -> float:
        return float(getattr(self._function, "bound", math.inf))

    def check(self, groups: Sequence[PolicyGroup], epochs: float | None) -> None:
        with _as_value_error("profile"):
            _need_quick(self, self._function, TRIED[0], groups[0])
            for clock in TRIED[::6]:
                for group in groups:
                    value = _twice(self, self._function, clock, group)
                    if not 0 <= value <= self.bound * (1 + TOLERANCE):
                        allowed = "0 or more" if self.bound == math.inf else f"0 to its bound, {self.bound:g},"
                        raise ValueError(
                            f"profile: {self.name} gives {value:g} for depth group {group.label} at progress "
                            f"{clock.progress:.3g}; {allowed} is needed"
                        )
                    self.code.call(self.frozen, clock, group)


class OwnController(ControllerBase, OwnOptions):
    """The user's own controller: a class with `signals` and `step`, made with the options.

    `step(state, signals, lr, fraction)` gives multipliers and the next state, as in `ControllerBase`;
    `start(count)`, where the class has one, gives the first; `every`, where it has one, says the epochs from one
    measurement of the signal `tail` to the next. `lower` and `upper` beside the name are the bounds.
    """

    @cached_property
    def _controller(self) -> Any:
        return self._made()

    def _made(self) -> Any:
        target = self.code.load()
        self.code.check_signature(target, self.options, ())
        made = self.code.call(target, **self.options)
        if not callable(getattr(made, "step", None)):
            raise KitError(f"{self.name}: has no step(state, signals, lr, fraction)")
        self.code.check_signature(made.step, {}, ("state", "signals", "lr", "fraction"))
        return made

    @property
    def signals(self) -> tuple[str, ...]:  # type: ignore[override] # of the class with the built-in ones
        """The names of the signals that the user's class declares."""
        return tuple(getattr(self._controller, "signals", ()))

    @property
    def tail_every(self) -> float:
        return getattr(self._controller, "every", 1.0)

    def start(self, count: int) -> State:
        start = getattr(self._controller, "start", None)
        return start(count) if start else {}

    def step(self, state: State, signals: Signals, lr: np.ndarray, fraction: float) -> tuple[np.ndarray, State]:
        multipliers, state = self._controller.step(state, signals, lr, fraction)
        return self._bounded(np.asarray(multipliers, dtype=np.float64)), state

    def check(self, groups: Sequence[PolicyGroup]) -> None:
        with _as_value_error("controller"):
            if unknown := [name for name in self.signals if name not in SIGNALS]:
                raise ValueError(
                    f"controller: {self.name} wants the signal {unknown[0]!r}; there are {', '.join(SIGNALS)}"
                )
            if not (isinstance(self.tail_every, Real) and self.tail_every > 0):
                raise ValueError(
                    f"controller: {self.name} has every = {self.tail_every!r}; epochs above 0 are needed"
                )
            tried, state = self._made(), self.code.call(self.start, len(groups))  # not the one that will steer
            for _ in range(3):
                state = self._tried_step(tried, state, len(groups))

    def _tried_step(self, tried: Any, state: State, count: int) -> State:
        """Return the state after a step on made-up signals; ValueError where what it gives is of no use."""
        signals = {name: np.linspace(0.5, 2, count) for name in self.signals}
        given = copy.deepcopy(state), signals, np.full(count, 1e-3), 0.5
        first, after = self.code.call(tried.step, *given)
        second, again = self.code.call(tried.step, copy.deepcopy(state), *given[1:])
        multipliers = np.asarray(first, dtype=np.float64)
        if multipliers.shape != (count,):
            raise ValueError(
                f"controller: {self.name} gives multipliers of shape {list(multipliers.shape)}; one for each of "
                f"the {count} depth groups is needed"
            )
        if not (np.isfinite(multipliers).all() and (multipliers > 0).all()):
            raise ValueError(
                f"controller: {self.name} gives the multipliers {multipliers.tolist()}; above 0 is needed"
            )
        if not _plain(after):
            raise ValueError(
                f"controller: {self.name} gives a state that no checkpoint can hold; a mapping of lists, numbers "
                "and text is needed"
            )
        if not np.array_equal(multipliers, second) or after != again:
            raise ValueError(
                f"controller: {self.name} gives other multipliers for the same state and signals, so that no "
                "training could go on from a checkpoint; keep what it remembers in the state"
            )
        return after


def _need_quick(own: OwnOptions, function: Callable[..., float], *given: Any) -> None:
    """Refuse a function that takes longer than updates may: it is asked before each of them."""
    quickest = math.inf
    for _ in range(3):
        begun = time.perf_counter()
        own.code.call(function, *given)
        quickest = min(quickest, time.perf_counter() - begun)
    if quickest > SLOWEST:
        raise ValueError(
            f"{own.name} takes {1000 * quickest:.0f} ms, and is asked before each update; look things up once"
        )


def _twice(own: OwnOptions, function: Callable[..., float], *given: Any) -> float:
    """Return what a function gives; ValueError where that is no finite number, or another one the second time."""
    first, second = (own.code.call(function, *given) for _ in range(2))
    if not isinstance(first, Real) or not math.isfinite(first):
        raise ValueError(f"{own.name} gives {first!r}; a finite number is needed")
    if first != second:
        raise ValueError(
            f"{own.name} gives {first:g} and then {second:g} at the same moment; a policy is a pure function, so "
            "that it can be drawn beforehand, and a killed run goes on alike"
        )
    return float(first)


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str)


@contextmanager
def _as_value_error(place: str) -> Iterator[None]:
    """Let faults of the user's code be of the kind that `Policy.check` raises, with their place."""
    try:
        yield
    except KitError as error:
        raise ValueError(f"{place}: {error}") from error
    except ValueError as error:
        raise error if str(error).startswith(place) else ValueError(f"{place}: {error}") from error
