"""The `compare` section of the config: how policies are compared, and their rates tuned."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from kit.core.settings import ConfigSection, Name


class TuneConfig(ConfigSection):
    """How the peak rate of each policy is tuned before policies are compared: with the same budget for each.

    Attributes
    ----------
    rates
        Peak rates to try; a slice keeps its ratio, and its higher end is tried.
    folds
        A list of folds: they tune, and tuned policies are compared on the others. nested: for each fold that is
        compared, the rate is chosen within the other folds alone (train on all but two, score on one).
    """

    rates: tuple[Annotated[float, Field(gt=0)], ...]
    folds: tuple[Annotated[int, Field(ge=0)], ...] | Literal["nested"] = (0,)

    @field_validator("rates")
    @classmethod
    def _several(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(rates)) < len(rates):
            raise ValueError("the same one stands there twice")
        if len(rates) < 2:
            raise ValueError("at least two are needed")
        return rates

    @field_validator("folds")
    @classmethod
    def _at_least_one(cls, folds: tuple[int, ...] | Literal["nested"]) -> tuple[int, ...] | Literal["nested"]:
        if not folds:
            raise ValueError("at least one is needed")
        return folds if isinstance(folds, str) else tuple(sorted(set(folds)))


class CompareConfig(ConfigSection):
    """The `compare` section: how policies are compared. It decides no training of its own.

    Attributes
    ----------
    baseline
        The policy that the others are compared with; left out: the first.
    margin
        Of F; two policies whose difference surely lies within it are equivalent.
    level
        Of the intervals and verdicts.
    tune
        Left out: no rate is tuned, for no policy.
    equalise
        true, or the policies to compare once more with the mean rate of a uniform policy.
    mixed_devices
        Whether runs are paired that were trained on different kinds of device (name, precision, versions).
    """

    baseline: Name | None = None
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    tune: TuneConfig | None = None
    equalise: bool | tuple[Name, ...] = False
    mixed_devices: bool = False
