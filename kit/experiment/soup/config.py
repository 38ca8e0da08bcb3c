"""The `soup` section of the config: runs whose weights are averaged, in the place of trainings."""

from typing import Annotated

from pydantic import Field, field_validator

from kit.core.settings import ConfigSection, Name


class SoupConfig(ConfigSection):
    """Of what weights the mean is taken; `python -m kit soup` writes it.

    Attributes
    ----------
    of
        The experiment in runs/ that trained them, of which all else in the config is.
    seeds
        Whose models a fold's mean is of.
    """

    of: Name
    seeds: Annotated[tuple[int, ...], Field(min_length=2)]

    @field_validator("seeds")
    @classmethod
    def _once_each(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("the same one stands there twice")
        return seeds
