"""A policy as a config file states it, and what is built from that."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from kit.core.named import ByName
from kit.core.settings import ConfigSection, FrozenOptions, explain
from kit.lr.controllers import ControllerBase
from kit.lr.kinds import Kinds
from kit.lr.own import OwnController, OwnProfile, OwnSchedule
from kit.lr.phases import Phase
from kit.lr.policy import Policy
from kit.lr.profiles import Discriminative, HeadFirst, ProfileBase, Uniform
from kit.lr.schedules import Constant, OneCycle, ScheduleBase

_Value = TypeVar("_Value")

# By name, those of the kit and the user's own (`kit.lr.own`).
Schedule = Annotated[ScheduleBase, ByName(OwnSchedule)]
Profile = Annotated[ProfileBase, ByName(OwnProfile)]
Controller = Annotated[ControllerBase, ByName(OwnController)]


@dataclass(frozen=True)
class Rate:
    """A rate as fastai's users write it: `1e-2`, `slice(1e-2)` or `slice(1e-6, 1e-2)`.

    Attributes
    ----------
    first : float or None
        The first number of a slice of two; else None.
    last : float
        The last number, or the only one.
    is_slice : bool
        Whether it is written as a slice.
    """

    first: float | None
    last: float
    is_slice: bool

    def __str__(self) -> str:
        if not self.is_slice:
            return repr(self.last)
        return f"slice({self.last!r})" if self.first is None else f"slice({self.first!r}, {self.last!r})"


_SLICE = re.compile(r"^slice\(\s*([^,()\s]+)\s*(?:,\s*([^,()\s]+)\s*)?\)$")


def parse_lr(lr: float | str | slice) -> Rate:
    """Return the rate that `1e-2`, `slice(1e-2)` or `slice(1e-6, 1e-2)` means.

    Parameters
    ----------
    lr : float, str or slice
        The number, the text, or Python's own slice.

    Raises
    ------
    ValueError
        For anything else, and for rates that are not finite and above 0.
    """
    if isinstance(lr, slice):
        lr = f"slice({lr.stop})" if lr.start is None else f"slice({lr.start}, {lr.stop})"
    text = str(lr).strip()
    if text.startswith("slice(") and ")" not in text:
        raise ValueError(f'{text!r} is cut at its comma; within braces a slice needs quotes: "slice(1e-6, 1e-2)"')
    match = _SLICE.match(text)
    try:
        *first, last = (float(part) for part in (match.groups() if match else (text,)) if part is not None)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a learning rate; write 1e-2, slice(1e-6, 1e-2) or slice(1e-2)"
        ) from None
    if not all(0 < rate < float("inf") for rate in (*first, last)):
        raise ValueError("rates have to be above 0 and finite, like 1e-2")
    return Rate(first[0] if first else None, last, bool(match))


def _scaled(lr: float | str, factor: float) -> float | str:
    """Return the rate, or both ends of the slice, times a factor, to twelve digits, so that ends stay round."""
    rate = parse_lr(lr)

    def scaled(value: float) -> float:
        return float(f"{value * factor:.12g}")

    if not rate.is_slice:
        return scaled(rate.last)
    return str(Rate(None if rate.first is None else scaled(rate.first), scaled(rate.last), True))


class _Spelled(ConfigSection):
    """The base of sections that hold rates and names of schedules and profiles."""

    @field_validator("lr", check_fields=False)
    @classmethod
    def _one_spelling(cls, lr: float | str | None) -> float | str | None:
        """Spell a rate in one way, so that `slice(1e-6,1e-2)` and `slice(1e-06, 0.01)` are the same policy."""
        if lr is None:
            return None
        rate = parse_lr(lr)
        return str(rate) if rate.is_slice else rate.last

    @field_validator("schedule", "profile", "controller", "phases", mode="before", check_fields=False)
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        """Take a name alone for a mapping that holds nothing but the name."""
        if isinstance(value, str):
            return {"name": value}
        optional = info.field_name != "schedule" or cls is PhaseConfig
        if info.field_name == "phases" and not (value is None or isinstance(value, list | tuple | FineTune)):
            if not isinstance(value, dict) or "name" not in value:
                raise ValueError("expected fine_tune, a mapping with `name: fine_tune`, or a list of phases")
        elif not isinstance(value, dict | list | tuple | FrozenOptions) and not (optional and value is None):
            raise ValueError("expected a name, or a mapping with `name` and options")
        return value


class PhaseConfig(_Spelled):
    """A phase of a policy, as a config file states it; what it leaves out is the policy's.

    Attributes
    ----------
    epochs, fraction : float or None
        How long the phase is, in epochs or as a share of the training. The last phase may leave both out, and
        takes the rest.
    lr : float, str or None
        The peak rate, or a slice.
    schedule, profile : mapping or None
        By name, with options.
    freeze_to : int or None
        The first depth group that learns; −1 is the head alone.
    """

    epochs: Annotated[float, Field(gt=0)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    lr: float | str | None = None
    schedule: Schedule | None = None
    profile: Profile | None = None
    freeze_to: int | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.fraction is not None:
            raise ValueError("epochs and fraction both say how long the phase is; give one of them")
        return self


class FineTune(FrozenOptions):
    """fastai's `fine_tune`: the head alone for `freeze_epochs`, then everything at discriminative rates.

    Attributes
    ----------
    freeze_epochs : float
        How many epochs the head learns alone.
    lr_mult : float
        By what the stem's rate is smaller than the head's in the second phase.
    pct_start, div : float
        Those of the second phase's one-cycle.

    Notes
    -----
    With b the policy's lr: first `slice(b)` under one-cycle with pct_start .99, all depth groups but the head
    frozen; then slice(b/2/lr_mult, b/2) under one-cycle with `pct_start` and `div`, for the rest of the training.
    fastai forgets the optimizer's state between the two; the kit keeps it.

    References
    ----------
    fastai v2 `Learner.fine_tune`, with its defaults; its base_lr is 2e-3.
    """

    name: Literal["fine_tune"] = "fine_tune"
    freeze_epochs: Annotated[float, Field(gt=0)] = 1.0
    lr_mult: Annotated[float, Field(ge=1)] = 100.0
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    div: Annotated[float, Field(ge=1)] = 5.0

    def phases(
        self, base: float, equalise: bool = False, kinds: Mapping[str, float] = MappingProxyType({})
    ) -> tuple[Phase, ...]:
        """Return the two phases.

        Parameters
        ----------
        base : float
            b, the policy's lr.
        equalise, kinds
            As in `PolicyConfig`.
        """
        return (
            Phase(base, OneCycle(pct_start=0.99), HeadFirst(), -1, equalise, kinds, epochs=self.freeze_epochs),
            Phase(
                base / 2,
                OneCycle(pct_start=self.pct_start, div=self.div),
                Discriminative(ratio=1 / self.lr_mult),
                0,
                equalise,
                kinds,
            ),
        )


def _listed_or_named(value: Any) -> str:
    return "listed" if isinstance(value, list | tuple) else "fine_tune"


# What a config's `phases` holds.
Phases = Annotated[
    Annotated[tuple[PhaseConfig, ...], Tag("listed")] | Annotated[FineTune, Tag("fine_tune")],
    Discriminator(_listed_or_named),
]


class PolicyConfig(_Spelled):
    """A policy as a file in configs/policies/ states it.

    Attributes
    ----------
    description : str
        A sentence, for `python -m kit policies`.
    lr : float or str
        The peak rate: 1e-2, slice(1e-6, 1e-2) or slice(1e-2); for `phases: fine_tune` its base_lr.
    schedule : Schedule
        A schedule's name, or a mapping with `name` and its options.
    profile : Profile or None
        A profile's name, or a mapping; None: what the slice says, else uniform.
    groups : {"block", "stage", "coarse"}
        Where the network is cut into depth groups: one a block, one a stage, or three, as fastai does (front half,
        back half, head).
    freeze_to : int
        The first depth group that learns, −1 the head alone (fastai's `freeze_to`).
    phases : FineTune, tuple of PhaseConfig or None
        `fine_tune`, or a list of phases, each with what it changes.
    train_norm : bool
        Whether normalisation layers of frozen depth groups learn, as in fastai.
    kinds : dict of str to float, optional
        What rates are multiplied by for a kind of parameters: norm, bias, embed (tokens, positions, patch
        embedding), weight, or re:PATTERN, which a parameter's name begins with. 0 freezes it. Each depth group is
        split by these.
    equalise : bool
        Whether to rescale a profile so that its mean rate over parameters and time is the uniform profile's.
    controller : Controller or None
        A controller's name, or a mapping.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"description"})
    later: ClassVar[frozenset[str]] = frozenset({"kinds"})

    description: str = ""
    lr: float | str
    schedule: Schedule = OneCycle()
    profile: Profile | None = None
    groups: Literal["block", "stage", "coarse"] = "block"
    freeze_to: int = 0
    phases: Phases | None = None
    train_norm: bool = True
    kinds: Kinds | None = None
    equalise: bool = False
    controller: Controller | None = None

    @model_validator(mode="after")
    def _can_be_built(self, info: ValidationInfo) -> Self:
        policy = self.build()
        if not (info.context or {}).get("stored"):  # what was trained once can still be read
            _check_annealed_once(policy, listed=isinstance(self.phases, tuple))
        return self

    def build(self) -> Policy:
        """Return the policy.

        Raises
        ------
        ValueError
            Where lr and profile contradict each other.
        """
        return Policy(self._phases(), self.train_norm, self.controller)

    def at_peak(self, peak: float) -> "PolicyConfig":
        """Return the policy with another peak rate.

        All its rates, those of its phases included, are multiplied by the same factor.

        Parameters
        ----------
        peak : float
            The highest rate that any phase is to have.
        """
        factor = peak / self.build().peak
        if factor == 1:
            return self
        changes: dict[str, Any] = {"lr": _scaled(self.lr, factor)}
        if isinstance(self.phases, tuple):
            changes["phases"] = tuple(
                phase if phase.lr is None else phase.model_copy(update={"lr": _scaled(phase.lr, factor)})
                for phase in self.phases
            )
        return self.model_copy(update=changes)

    def _phases(self) -> tuple[Phase, ...]:
        if self.phases == ():
            raise ValueError("phases: at least one is needed")
        if isinstance(self.phases, FineTune):
            rate = parse_lr(self.lr)
            if rate.is_slice or self.schedule != OneCycle() or self.profile is not None or self.freeze_to:
                raise ValueError(
                    "phases: fine_tune brings its own slices, schedules and freezing; give lr as one number"
                )
            return self.phases.phases(rate.last, self.equalise, self.kinds or {})
        each = self.phases or (PhaseConfig(),)
        return tuple(
            self._phase(phase, f"phases[{place}]: " if self.phases else "") for place, phase in enumerate(each)
        )

    def _phase(self, phase: PhaseConfig, place: str) -> Phase:
        try:
            peak, profile = peak_and_profile(
                parse_lr(_either(phase.lr, self.lr)), _either(phase.profile, self.profile)
            )
        except ValueError as error:
            raise ValueError(f"{place}{error}") from error
        return Phase(
            peak=peak,
            schedule=_either(phase.schedule, self.schedule),
            profile=profile,
            freeze_to=_either(phase.freeze_to, self.freeze_to),
            equalise=self.equalise,
            kinds=self.kinds or {},
            epochs=phase.epochs,
            fraction=phase.fraction,
        )


def peak_and_profile(rate: Rate, profile: ProfileBase | None) -> tuple[float, ProfileBase]:
    """Return the peak rate and the profile that a rate and a stated profile mean together.

    Parameters
    ----------
    rate : Rate
        The rate, or the slice.
    profile : ProfileBase or None
        The profile that the config states, if any.

    Returns
    -------
    peak : float
        The rate where the profile is 1.
    profile : ProfileBase
        With the `ratio` that a slice gives.

    Raises
    ------
    ValueError
        Where the two say different things, and where a profile lacks what a slice would give.
    """
    if not rate.is_slice:
        if profile is None:
            return rate.last, Uniform()
        if profile.lacks_ratio:
            raise ValueError(f"profile {profile.name}: needs `ratio`, or lr as a slice, like slice(1e-6, 1e-2)")
        return rate.last, profile
    if profile is not None and not profile.lacks_ratio:
        raise ValueError(
            f"lr = {rate}: profile {profile.name} says itself how rates differ by depth; give lr as one number"
        )
    if rate.first is None:
        if profile is not None:
            raise ValueError(f"lr = {rate}: profile {profile.name} needs both ends of the slice")
        return rate.last, HeadFirst()
    if profile is not None and profile.name == "reverse":
        if rate.first < rate.last:
            raise ValueError(f"lr = {rate}: rises towards the head, but the profile is reverse; swap the rates")
        return rate.first, profile.model_copy(update={"ratio": rate.last / rate.first})
    if rate.first > rate.last:
        raise ValueError(f"lr = {rate}: falls towards the head; swap the rates, or say `profile: reverse`")
    return rate.last, (profile or Discriminative()).model_copy(update={"ratio": rate.first / rate.last})


def policy(lr: float | str | slice, schedule: Any = "one_cycle", profile: Any = None, **options: Any) -> Policy:
    """Return a policy from the values that a config file would hold, for use without the rest of the kit.

    Parameters
    ----------
    lr : float, str or slice
        1e-2, or fastai's slice(1e-6, 1e-2), as Python's or as text.
    schedule : str or dict
        A schedule's name, or a mapping with `name` and its options.
    profile : str, dict or None
        A profile's name, or a mapping; None: what the slice says, else uniform.
    **options
        The other keys of `PolicyConfig`: freeze_to, phases, train_norm, kinds, equalise, controller. Where the
        network is cut into depth groups is not among them: `depth_groups(model, cut)` says it.

    Raises
    ------
    ValueError
        With a line a fault, for what cannot be read or is contradictory.
    """
    if "groups" in options:
        raise ValueError("groups: where the network is cut is said by depth_groups(model, cut)")
    lr = str(parse_lr(lr)) if isinstance(lr, slice) else lr
    content = {"lr": lr, "schedule": schedule, "profile": profile, **options}
    try:
        return PolicyConfig.model_validate(content).build()
    except ValidationError as error:
        raise ValueError("\n".join(explain(error, content, PolicyConfig, whole="policy"))) from error


def fine_tune(base_lr: float = 2e-3, **options: Any) -> Policy:
    """Return fastai's `fine_tune` as a policy.

    Parameters
    ----------
    base_lr : float
        fastai's base_lr.
    **options
        Those of `FineTune`.
    """
    return policy(base_lr, phases={"name": "fine_tune", **options})


def _check_annealed_once(policy: Policy, listed: bool) -> None:
    """Raise ValueError where a profile that anneals is under a schedule that does so as well."""
    for place, phase in enumerate(policy.phases):
        if phase.profile.anneals and not isinstance(phase.schedule, Constant):
            raise ValueError(
                (f"phases[{place}]: " if listed else "")
                + f"profile {phase.profile.name} anneals each depth group itself, and {phase.schedule.name} would "
                "do so once more; set `schedule: constant`"
            )


def _either(first: _Value | None, second: _Value) -> _Value:
    return second if first is None else first
