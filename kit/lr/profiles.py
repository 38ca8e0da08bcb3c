"""Profiles: depth group (and, if it wants, time) → multiplier of the scheduled rate.

A new one is a class with a `name` and its formula in the docstring; a config finds it by that name. In the
formulas d is a depth group's depth (0 at the stem, 1 at the head), u how many depth groups lie above it (0 at the
head), p the progress of the training or the phase.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from kit.core.named import Named
from kit.lr.clock import Clock, PolicyGroup
from kit.lr.curves import Interpolation, Knot, check_knots, interpolate
from kit.lr.schedules import TOLERANCE, Curve, Fraction, Share, ease

Ratio = Annotated[float, Field(gt=0, le=1)]


class ProfileBase(Named):
    """The base of profiles: what each of them answers about a depth group at a moment in training."""

    if TYPE_CHECKING:
        name: str  # every profile declares its own, after the fields of its base

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        """Return the multiplier of this depth group at this moment, at least 0 and at most `bound`."""
        raise TypeError(f"{type(self).__name__} does not say its multiplier")

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        """Return whether the depth group learns nothing now and for a while: its gradients can be turned off."""
        return False

    def check(self, groups: Sequence[PolicyGroup], epochs: float | None) -> None:
        """Check that the profile fits a model and a length of training.

        Parameters
        ----------
        groups : sequence of PolicyGroup
            The model's depth groups, from the stem to the head.
        epochs : float or None
            How long the training or phase is; None where that is not known.

        Raises
        ------
        ValueError
            Where it does not fit.
        """

    @property
    def lacks_ratio(self) -> bool:
        """Whether the profile waits for `lr: slice(a, b)` to give its `ratio`."""
        return getattr(self, "ratio", 1.0) is None

    @property
    def bound(self) -> float:
        """The largest multiplier that the profile can give."""
        return 1.0

    @property
    def anneals(self) -> bool:
        """Whether the profile brings the rate of each depth group down to 0, so that a schedule must not."""
        return False


class Uniform(ProfileBase):
    """Every depth learns at the same rate: multiplier 1."""

    name: Literal["uniform"] = "uniform"

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return 1.0


class Discriminative(ProfileBase):
    """Geometric over depth, smaller rates early in the network: `ratio`^(1 − d), or `factor`^(−u).

    Give one of the two.

    Attributes
    ----------
    ratio : float or None
        The stem's rate by the head's. `lr: slice(first, last)` gives it as first/last, fastai's `even_mults`.
    factor : float or None
        A depth group's rate by that of the one below it; ULMFiT's is 2.6.

    References
    ----------
    Discriminative fine-tuning: ULMFiT, Howard & Ruder, arXiv 1801.06146.
    """

    name: Literal["discriminative"] = "discriminative"
    ratio: Ratio | None = None
    factor: Annotated[float, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if self.ratio is not None and self.factor is not None:
            raise ValueError("ratio and factor say the same in two ways; give one of them")
        return self

    @property
    def lacks_ratio(self) -> bool:
        return self.ratio is None and self.factor is None

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        if self.factor is not None:
            return self.factor**-group.above
        return _given(self.ratio) ** (1 - group.depth)


class Reverse(ProfileBase):
    """Geometric over depth, larger rates early in the network: `ratio`^d.

    Attributes
    ----------
    ratio : float or None
        The head's rate by the stem's; `lr: slice(first, last)` with first ≥ last gives it.

    References
    ----------
    Singh et al., arXiv 1510.04609, argue for it when training from scratch.
    """

    name: Literal["reverse"] = "reverse"
    ratio: Ratio | None = None

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return _given(self.ratio) ** group.depth if group.count > 1 else 1.0


class HeadFirst(ProfileBase):
    """The whole rate for the head, `body` of it for every other group: fastai's `slice(lr)`, a tenth.

    Attributes
    ----------
    body : float
        The multiplier of every depth group but the head; 0 freezes them.
    """

    name: Literal["head_first"] = "head_first"
    body: Annotated[float, Field(ge=0, le=1)] = 0.1

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return 1.0 if group.above == 0 else self.body

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        return group.above > 0 and self.body == 0


class LayerDecay(ProfileBase):
    """Layer-wise decay: max(min_scale, decay^u). timm's `param_groups_layer_decay`, whose default is .75.

    Attributes
    ----------
    decay : float
        A depth group's rate by that of the one above it.
    min_scale : float
        The smallest multiplier.
    """

    name: Literal["layer_decay"] = "layer_decay"
    decay: Ratio = 0.75
    min_scale: Fraction = 0.0

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return max(self.min_scale, self.decay**group.above)


class Explicit(ProfileBase):
    """A multiplier by group name, `other` for the groups that are not named; 0 freezes a group.

    Attributes
    ----------
    groups : dict of str to float
        The multipliers. A key is a depth group's name, or the beginning of one up to a dot (`layer4` is layer4.0
        and layer4.1), or `stem` or `head` for the first and the last depth group. Of several keys that fit, these
        two count first, then the longest.
    other : float
        The multiplier of all other depth groups.
    """

    name: Literal["explicit"] = "explicit"
    groups: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    other: Annotated[float, Field(ge=0)] = 1.0

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        fitting = [key for key in self.groups if _names(key, group)]
        return self.groups[max(fitting, key=lambda key: (key in ENDS, len(key)))] if fitting else self.other

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        return self(clock, group) == 0

    def check(self, groups: Sequence[PolicyGroup], epochs: float | None) -> None:
        for key in self.groups:
            if not any(_names(key, group) for group in groups):
                names = ", ".join(dict.fromkeys(group.name for group in groups))
                raise ValueError(
                    f"profile.groups: {key!r} matches no depth group; there are: {names} (as the policy's "
                    "`groups` cuts the network)"
                )
        for group in groups:
            exact = [key for key in self.groups if key == group.name or (key in ENDS and _names(key, group))]
            if len(exact) > 1:
                raise ValueError(f"profile.groups: {' and '.join(exact)} name the same depth group")

    @property
    def bound(self) -> float:
        return max(*self.groups.values(), self.other)


ENDS = ("stem", "head")


def _names(key: str, group: PolicyGroup) -> bool:
    """Return whether a key of `Explicit.groups` names this depth group."""
    if key == group.name or group.name.startswith(f"{key}."):
        return True
    return (key == "stem" and group.index == 0) or (key == "head" and group.above == 0)


class Table(ProfileBase):
    """A multiplier a group, from the stem to the head; 0 freezes a group.

    Attributes
    ----------
    multipliers : tuple of float
        As many as the model has depth groups.
    """

    name: Literal["table"] = "table"
    multipliers: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return self.multipliers[group.index]

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        return self(clock, group) == 0

    def check(self, groups: Sequence[PolicyGroup], epochs: float | None) -> None:
        if groups[0].count != len(self.multipliers):
            names = ", ".join(dict.fromkeys(group.name for group in groups))
            stated, count = len(self.multipliers), groups[0].count
            raise ValueError(f"profile.multipliers: {stated} numbers for {count} depth groups ({names})")

    @property
    def bound(self) -> float:
        return max(self.multipliers)


class _Bleed(ProfileBase):
    """The base of profiles between uniform and discriminative: ratio^((1 − d)·w(p)), or its mirror."""

    ratio: Ratio | None = None
    start: Share = 0.25
    end: Fraction = 0.75
    curve: Curve = "linear"

    @model_validator(mode="after")
    def _start_before_end(self) -> Self:
        _check_order(self.start, self.end)
        return self

    def _weight(self, clock: Clock) -> float:
        return ramp(clock.progress, self.start, self.end, self.curve)


class BleedIn(_Bleed):
    """Starts uniform and turns discriminative: ratio^((1 − d)·w(p)), w rising from 0 to 1.

    Attributes
    ----------
    ratio : float or None
        The stem's multiplier where the profile is fully discriminative; `lr: slice(first, last)` gives it.
    start, end : float
        The progress, in [0, 1], at which the change begins and ends.
    curve : {"linear", "cosine"}
        How it changes between them: along a line, or along half a cosine.

    Notes
    -----
    The last idea of the forum thread that the kit began with.
    """

    name: Literal["bleed_in"] = "bleed_in"

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return _given(self.ratio) ** ((1 - group.depth) * self._weight(clock))


class BleedOut(_Bleed):
    """Starts discriminative and turns uniform: ratio^((1 − d)(1 − w(p))), w rising from 0 to 1.

    It is the mirror of `BleedIn`, with the same options.
    """

    name: Literal["bleed_out"] = "bleed_out"

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return _given(self.ratio) ** ((1 - group.depth) * (1 - self._weight(clock)))


class GradualUnfreezing(ProfileBase):
    """The head first, one group more every `every` epochs; `factor`^(−u) once a group learns, 0 before.

    It is refused where the training ends before the stem's turn.

    Attributes
    ----------
    every : float
        How many epochs pass before the next depth group begins to learn.
    factor : float
        A depth group's rate by that of the one below it.

    References
    ----------
    ULMFiT, Howard & Ruder, arXiv 1801.06146: a depth group an epoch, factor 2.6.
    """

    name: Literal["gradual_unfreezing"] = "gradual_unfreezing"
    every: Annotated[float, Field(gt=0)] = 1.0
    factor: Annotated[float, Field(ge=1)] = 2.6

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        return 0.0 if self.frozen(clock, group) else self.factor**-group.above

    def check(self, groups: Sequence[PolicyGroup], epochs: float | None) -> None:
        last = (groups[0].count - 1) * self.every
        if epochs is not None and last >= epochs - TOLERANCE:
            raise ValueError(
                f"profile.every: depth group {groups[0].name} would never learn: its turn comes after {last:g} of "
                f"{epochs:g} epochs; lower profile.every, cut coarser (groups), or train longer"
            )

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        return clock.epoch < group.above * self.every - TOLERANCE


class FreezeOut(ProfileBase):
    """Each group is annealed to 0 by a cosine that ends at t(d), early layers first, and then frozen.

    It does the annealing, so that any schedule but `constant` is refused.

    Attributes
    ----------
    t0 : float
        The progress at which the stem is frozen (its cube is, with `cubed`).
    cubed : bool
        Whether t(d) is cubed, so that early layers are frozen sooner.
    scaled : bool
        Whether the multiplier is divided by t, so that every layer travels as far (but for what a warm-up of the
        schedule takes); it is at most 1/t(0) then.

    Notes
    -----
    ½(1 + cos(πp/t)) while p < t, then 0, where t(d) = t0 + (1 − t0)·d, or its cube.

    References
    ----------
    Brock et al., arXiv 1706.04983, whose choice is t0 = .8, cubed and scaled.
    """

    name: Literal["freeze_out"] = "freeze_out"
    t0: Ratio = 0.8
    cubed: bool = True
    scaled: bool = True

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        if self.frozen(clock, group):
            return 0.0
        end = self._end(group.depth)
        return (1 - ease(clock.progress / end, "cosine")) / (end if self.scaled else 1.0)

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        return clock.progress >= self._end(group.depth) - TOLERANCE

    @property
    def bound(self) -> float:
        return 1 / self._end(0.0) if self.scaled else 1.0

    @property
    def anneals(self) -> bool:
        return True

    def _end(self, depth: float) -> float:
        linear = self.t0 + (1 - self.t0) * depth
        return linear**3 if self.cubed else linear


class ScheduledLayerDecay(ProfileBase):
    """Layer-wise decay whose factor moves from `first` to `last`: max(min_scale, δ(p)^u).

    Attributes
    ----------
    first, last : float
        The factor δ at the beginning and at the end.
    start, end : float
        The progress, in [0, 1], at which the change begins and ends.
    curve : {"linear", "cosine"}
        How δ changes between them: along a line, or along half a cosine.
    min_scale : float
        The smallest multiplier.

    References
    ----------
    Defaults, .35 → 1: NEPA, arXiv 2512.16922.
    """

    name: Literal["scheduled_layer_decay"] = "scheduled_layer_decay"
    first: Ratio = 0.35
    last: Ratio = 1.0
    start: Share = 0.0
    end: Fraction = 1.0
    curve: Curve = "linear"
    min_scale: Fraction = 0.0

    @model_validator(mode="after")
    def _start_before_end(self) -> Self:
        _check_order(self.start, self.end)
        return self

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        weight = ramp(clock.progress, self.start, self.end, self.curve)
        return max(self.min_scale, (self.first + (self.last - self.first) * weight) ** group.above)


class Spline(ProfileBase):
    """A curve over depth through `knots`, pairs of a depth and the multiplier there; with `to`, one that moves.

    Attributes
    ----------
    knots : tuple of (float, float)
        Two or more, like [[0, 0.1], [0.5, 0.3], [1, 1]]: depths from 0 (stem) to 1 (head), rising, and multipliers
        of 0 or more. The curve is flat before the first and after the last. A depth group whose multiplier is and
        stays 0 is frozen.
    to : tuple of (float, float) or None
        The knots of the curve that it turns into; None: it stays.
    interpolation : {"linear", "monotone_cubic"}
        Straight lines from knot to knot, or a smooth curve that turns only at knots; see
        `kit.lr.curves.interpolate`.
    start, end : float
        With `to`: the progress, in [0, 1], at which the change begins and ends.
    curve : {"linear", "cosine"}
        With `to`: how it changes between them, along a line or along half a cosine.

    Notes
    -----
    With a and b the curves through `knots` and `to`, and w rising from 0 to 1: (1 − w(p))·a(d) + w(p)·b(d).
    """

    name: Literal["spline"] = "spline"
    knots: tuple[Knot, ...]
    to: tuple[Knot, ...] | None = None
    interpolation: Interpolation = "monotone_cubic"
    start: Share = 0.0
    end: Fraction = 1.0
    curve: Curve = "linear"

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        check_knots("knots", self.knots)
        if self.to is not None:
            check_knots("to", self.to)
        elif (self.start, self.end, self.curve) != (0.0, 1.0, "linear"):
            raise ValueError("start, end and curve say how the spline moves; give the knots that it moves `to`")
        _check_order(self.start, self.end)
        return self

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        first, last = self._ends(group)
        weight = ramp(clock.progress, self.start, self.end, self.curve)
        return (1 - weight) * first + weight * last

    def frozen(self, clock: Clock, group: PolicyGroup) -> bool:
        first, last = self._ends(group)
        begun, over = clock.progress >= self.start, clock.progress >= self.end
        return (first == 0 or over) and (last == 0 or not begun)

    @property
    def bound(self) -> float:
        return max(multiplier for _, multiplier in (*self.knots, *(self.to or ())))

    def _ends(self, group: PolicyGroup) -> tuple[float, float]:
        """Return the multipliers of this depth group before the change and after it."""
        first = interpolate(self.knots, group.depth, self.interpolation)
        return first, first if self.to is None else interpolate(self.to, group.depth, self.interpolation)


class LateStart(ProfileBase):
    """A warm-up of its own for each depth group, the longest at the stem (at the head with `reverse`).

    The schedule's own warm-up multiplies it; `linear` and `constant` have none unless told.

    Attributes
    ----------
    longest, shortest : float
        The length of the longest and the shortest warm-up, as shares of the steps.
    start : float
        The multiplier at the beginning.
    curve : {"linear", "cosine"}
        How the warm-up rises: along a line, or along half a cosine.
    reverse : bool
        Whether the head's warm-up is the longest, and the stem's the shortest.

    Notes
    -----
        p < w(d):  start + (1 − start)·s(p/w(d)),   else:  1

    with w(d) = longest + (shortest − longest)·d (`reverse`: 1 − d for d), and s(x) = x or ½(1 − cos(πx)).
    """

    name: Literal["late_start"] = "late_start"
    longest: Annotated[float, Field(gt=0, lt=1)] = 0.3
    shortest: Share = 0.0
    start: Fraction = 0.0
    curve: Curve = "linear"
    reverse: bool = False

    @model_validator(mode="after")
    def _longest_is_longer(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(
                f"shortest {self.shortest:g} is longer than longest {self.longest:g}; "
                "swap them, and say `reverse: true` for the longest at the head"
            )
        return self

    def __call__(self, clock: Clock, group: PolicyGroup) -> float:
        early = group.depth if self.reverse else 1 - group.depth
        length = self.shortest + (self.longest - self.shortest) * early
        if clock.progress >= length - TOLERANCE:
            return 1.0
        return self.start + (1 - self.start) * ease(clock.progress / length, self.curve)


def ramp(p: float, start: float, end: float, curve: Curve) -> float:
    """Return 0 where p is up to `start`, 1 from `end` on, and between them a line or half a cosine."""
    return ease(min(max((p - start) / (end - start), 0.0), 1.0), curve)


def _given(ratio: float | None) -> float:
    """Return the ratio, which is given before rates are asked for: a config without it is refused."""
    assert ratio is not None
    return ratio


def _check_order(start: float, end: float) -> None:
    if end <= start:
        raise ValueError(f"end {end:g} has to come after start {start:g}")
