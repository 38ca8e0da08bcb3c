"""Profiles: depth group → multiplier of the scheduled rate. The head (the last group) has multiplier 1."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from kit.lr.clock import Clock, Group

Profile = Callable[[Clock, Group], float]


@dataclass(frozen=True)
class Uniform:
    """Every depth learns at the same rate: multiplier 1."""

    def __call__(self, clock: Clock, group: Group) -> float:
        return 1.0


@dataclass(frozen=True)
class Discriminative:
    """Geometric over depth, from first/last at the stem to 1 at the head: (first/last)^(1 − depth).

    fastai's `slice(first, last)` (`even_mults`); discriminative fine-tuning comes from ULMFiT
    (Howard & Ruder, arXiv 1801.06146).
    """

    first: float  # rate of the stem when the head's is `last`
    last: float

    def __call__(self, clock: Clock, group: Group) -> float:
        return (self.first / self.last) ** (1 - group.depth)


@dataclass(frozen=True)
class HeadFirst:
    """A tenth for every group but the last: fastai's `slice(b)`."""

    def __call__(self, clock: Clock, group: Group) -> float:
        return 1.0 if group.index == group.count - 1 else 0.1


_SLICE = re.compile(r"^slice\(\s*([^,()\s]+)\s*(?:,\s*([^,()\s]+)\s*)?\)$")


def parse_lr(lr: float | str) -> tuple[float, Profile]:
    """Peak rate and profile of a rate as fastai's users write it.

    1e-2              the same rate everywhere
    slice(1e-6, 1e-2) 1e-6 at the stem, 1e-2 at the head, geometric between
    slice(1e-2)       1e-3 everywhere, 1e-2 at the head

    Raises ValueError for anything else, and for rates that are not finite and above 0.
    """
    text = str(lr).strip()
    match = _SLICE.match(text)
    try:
        first, last = (match[1], match[2]) if match else (text, None)
        rates = [float(first)] if last is None else [float(first), float(last)]
    except ValueError:
        raise ValueError(
            f"{text!r} is not a learning rate; write 1e-2, slice(1e-6, 1e-2) or slice(1e-2)"
        ) from None
    if not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"{text!r} holds a rate that is not above 0 and finite")
    if len(rates) == 2:
        if rates[0] > rates[1]:
            raise ValueError(f"{text!r} falls towards the head; the first rate of a slice is the smaller one")
        return rates[1], Discriminative(first=rates[0], last=rates[1])
    return rates[0], HeadFirst() if match else Uniform()
