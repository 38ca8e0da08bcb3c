"""Curves through knots: what `piecewise` is over time and `spline` over depth."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

Knots = tuple[tuple[float, float], ...]
Interpolation = Literal["linear", "monotone_cubic"]

NEAREST = 1e-6  # how near knots may lie; nearer ones make slopes that overflow


def _two(knot: Any) -> Any:
    if not isinstance(knot, list | tuple) or len(knot) != 2:
        raise ValueError("expected two numbers, a place and the value there, like [0.5, 1]")
    return knot


# A knot of a config: a share of the steps or a depth, and what is there.
Knot = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0)]], BeforeValidator(_two)]


def interpolate(knots: Knots, x: float, interpolation: Interpolation) -> float:
    """Return the curve through the knots at x; before the first knot and after the last it is flat.

    Parameters
    ----------
    knots : tuple of (float, float)
        Places, rising, with the value at each.
    x : float
        Where to look.
    interpolation : {"linear", "monotone_cubic"}
        Straight lines from knot to knot, or a smooth curve that rises and falls only where the knots do, and so
        never leaves the range of its two neighbours.

    Notes
    -----
    Between knots x₀ and x₁, a distance h apart, with t = (x − x₀)/h and the slopes s₀ and s₁:

        (1 + 2t)(1 − t)²·y₀ + t²(3 − 2t)·y₁ + h·t(1 − t)²·s₀ − h·t²(1 − t)·s₁

    References
    ----------
    Fritsch & Carlson, SIAM J. Numer. Anal. 17 (1980), with the slopes of Fritsch & Butland, SIAM J. Sci. Stat.
    Comput. 5 (1984): what scipy has as `PchipInterpolator`.
    """
    right = bisect_right(knots, x, key=lambda knot: knot[0])
    if right == 0 or right == len(knots):
        return knots[0 if right == 0 else -1][1]
    (x0, y0), (x1, y1) = knots[right - 1 : right + 1]
    h = x1 - x0
    t = (x - x0) / h
    if interpolation == "linear":
        value = y0 + (y1 - y0) * t
    else:
        s0, s1 = _slopes(knots)[right - 1 : right + 1]
        value = (1 + 2 * t) * (1 - t) ** 2 * y0 + t**2 * (3 - 2 * t) * y1
        value += h * t * (1 - t) * ((1 - t) * s0 - t * s1)
    return min(max(value, min(y0, y1)), max(y0, y1))  # rounding must not make a rate negative


def check_knots(name: str, knots: Knots) -> None:
    """Raise ValueError where there are fewer than two knots, or where their places do not rise."""
    if len(knots) < 2:
        raise ValueError(f"{name}: two or more are needed, like [[0, 1], [1, 0]]")
    for (before, _), (after, _) in pairwise(knots):
        if after - before < NEAREST:
            raise ValueError(
                f"{name}: {after:g} comes after {before:g}; the first numbers have to rise, by {NEAREST:g} or more"
            )


@lru_cache(maxsize=256)
def _slopes(knots: Knots) -> tuple[float, ...]:
    """Return the slope of the monotone cubic at each knot."""
    steps = [x1 - x0 for (x0, _), (x1, _) in pairwise(knots)]
    secants = [(y1 - y0) / step for ((_, y0), (_, y1)), step in zip(pairwise(knots), steps, strict=True)]
    if len(secants) == 1:
        return secants[0], secants[0]
    inner = [_between(*pair) for pair in zip(pairwise(steps), pairwise(secants), strict=True)]
    return _at_end(steps, secants), *inner, _at_end(steps[::-1], secants[::-1])


def _between(steps: tuple[float, float], secants: tuple[float, float]) -> float:
    """Return the weighted harmonic mean of two secants; 0 where they do not point the same way."""
    if secants[0] * secants[1] <= 0:
        return 0.0
    weights = 2 * steps[1] + steps[0], steps[1] + 2 * steps[0]
    return sum(weights) / (weights[0] / secants[0] + weights[1] / secants[1])


def _at_end(steps: Sequence[float], secants: Sequence[float]) -> float:
    """Return the slope at an end, from the two intervals beside it: a parabola's, kept monotone."""
    slope = ((2 * steps[0] + steps[1]) * secants[0] - steps[0] * secants[1]) / (steps[0] + steps[1])
    if slope * secants[0] <= 0:
        return 0.0
    if secants[0] * secants[1] <= 0 and abs(slope) > 3 * abs(secants[0]):
        return 3 * secants[0]
    return slope
