"""Kinds of parameters, as a policy tells them apart."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

NAMES = ("norm", "bias", "embed", "weight")
PATTERN = "re:"  # begins a regular expression of parameters' names


def _is_kind(kind: str) -> str:
    if not kind.startswith(PATTERN):
        if kind not in NAMES:
            raise ValueError(
                f"{kind!r} is no kind; they are {', '.join(NAMES)}, and re:PATTERN of parameters' names"
            )
        return kind
    try:
        re.compile(kind.removeprefix(PATTERN))
    except re.error as error:
        raise ValueError(f"{kind!r}: no regular expression: {error}") from error
    return kind


# Kind → multiplier of its rate; 0 freezes it.
Kinds = Annotated[
    dict[Annotated[str, AfterValidator(_is_kind)], Annotated[float, Field(ge=0)]], Field(min_length=1)
]
