"""The `folds` section of the config."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from kit.competition.moments import check_time_format
from kit.core.settings import ConfigSection, Text


def _a_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return text


class FoldsConfig(ConfigSection):
    """Which rows are held out when.

    Left as it is: stratified k-fold, by label, or by all labels where a row has several.

    Attributes
    ----------
    k
        Number of folds.
    seed
        Of the shuffle that deals rows to folds.
    run
        Which folds to train: `all`, or a list like [0, 2].
    stratify
        Deal the classes evenly to the folds.
    group
        Column of the train table; rows with the same text in it are a row group, which is in one fold.
    group_pattern
        Regular expression: what it finds in the column's text (its first group, if it has one) tells the row
        group.
    duplicates
        Images that are alike are in one fold: none, exact (the same pixels), or the largest Hamming distance of
        two perceptual hashes of 64 bits, 0 to 16. With time or column, row groups and images that are alike are
        not kept together, but refused where they span folds.
    time
        Column of the train table, numbers or dates: each fold is later than all it is trained on; the earliest
        rows only train. A column is read as one format.
    time_format
        Of the dates in it, datetime.strptime's, like "%d/%m/%Y"; or `number`; left out: what fits all cells.
    column
        Column of the train table that holds the folds; rows with -1 in it only train.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"run"})
    later: ClassVar[frozenset[str]] = frozenset({"time_format"})

    k: Annotated[int, Field(ge=2, le=100)] = 5
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    run: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = "all"
    stratify: bool = True
    group: Text | None = None
    group_pattern: Annotated[str, AfterValidator(_a_pattern)] | None = None
    duplicates: Literal["none", "exact"] | Annotated[int, Field(ge=0, le=16)] = "none"
    time: Text | None = None
    time_format: Annotated[str, AfterValidator(check_time_format)] | None = None
    column: Text | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.group_pattern and not self.group:
            raise ValueError("group_pattern is searched in the text of a column; name it in group")
        if self.time_format and not self.time:
            raise ValueError("time_format is of the column that time names; name it, or leave time_format out")
        if self.time and self.column:
            raise ValueError("time and column tell the folds both; leave one of them out")
        return self

    @property
    def chosen(self) -> tuple[int, ...]:
        """The folds to train, ascending."""
        return tuple(range(self.k)) if self.run == "all" else tuple(sorted(set(self.run)))
