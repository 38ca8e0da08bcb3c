"""Lengths of time as people write them: 90s, 45m, 8h30m."""

import math
import re

from kit.core.errors import KitError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PARTS = re.compile(r"\s*".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?)\s*{unit})?" for unit in _UNITS), re.IGNORECASE)
EXPECTED = "expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0"


def duration(value: float | str) -> float:
    """Return how many seconds a length of time has.

    Parameters
    ----------
    value : float or str
        Seconds, or text: days, hours, minutes and seconds in this order, each at most once, like `8h30m`; a number
        alone is seconds.

    Returns
    -------
    float

    Raises
    ------
    KitError
        For what is none, and for one that is not above 0 or has no end.
    """
    seconds = _seconds(value)
    if not (seconds > 0 and math.isfinite(seconds)):  # not a number, too
        raise KitError(f"{value if isinstance(value, str) else f'{value:g}'}: {EXPECTED}")
    return seconds


def _seconds(value: float | str) -> float:
    """Return the seconds; not a number for text that says none."""
    try:
        return float(value)
    except ValueError:
        found = _PARTS.fullmatch(str(value).strip())
        parts = found.groupdict() if found else {}
        stated = [_UNITS[unit] * float(count) for unit, count in parts.items() if count is not None]
        return sum(stated) if stated else math.nan


def in_words(seconds: float) -> str:
    """Return a length of time for people, by its two largest units: `2 h 10 m`, `45 m`, `8 s`, `0.4 s`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    if (whole := round(seconds)) < 60:
        return f"{whole} s"
    if whole < 600:
        return _two(whole, "m", 60, "s", 1)
    minutes = 60 * round(seconds / 60)
    if minutes < 86400:
        return _two(minutes, "h", 3600, "m", 60)
    return _two(3600 * round(seconds / 3600), "d", 86400, "h", 3600)


def _two(seconds: int, large: str, size: int, small: str, part: int) -> str:
    first, rest = divmod(seconds, size)
    words = [f"{first} {large}"] * bool(first) + [f"{rest // part} {small}"] * bool(rest // part)
    return " ".join(words)
