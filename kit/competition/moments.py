"""The moments in a column of the train table: numbers that grow with time, or dates in one format.

A column is read as a whole: what one cell leaves open (is 02/03/2024 in March or in February?), the others decide;
and where they do not, and the readings would order the rows differently, none is taken.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from kit.core.errors import KitError, some

NUMBER = "number"  # the format of numbers that grow with time
_PIVOT = 69  # two digits from here on are of the 1900s, as POSIX' strptime has it
_DAY = 86_400 * 10**9  # nanoseconds
_MONTHS = {
    name[:length]: number
    for number, name in enumerate(
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
         "november", "december"], 1)
    for length in (3, 4 if name == "september" else 3, len(name))
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MONTH = r"([A-Za-z]{3,9})"
_DAY_OF_MONTH = r"([0-9]{1,2})(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:[A-Za-z]{3,9},? +)?"
_TIME = (
    r"(?:(?:T|t|_|, ?| +)(?P<H>[0-9]{1,2}):(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?"
    r"(?: ?(?P<p>[AaPp][Mm]))?(?: ?(?P<z>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_BASIC_TIME = (
    r"(?:T|t|_| )(?P<H>[0-9]{2})(?P<M>[0-9]{2})(?:(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?(?P<p>)"
    r"(?P<z>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
# A pattern of a date's parts, and the orders in which these may be year, month and day.
_FORMS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), tuple(orders.split()))
    for pattern, orders in (
        (r"([0-9]{4})([-/.:])([0-9]{1,2})\2([0-9]{1,2})" + _TIME, "ymd"),
        (r"([0-9]{1,2})(/|-|\. ?)([0-9]{1,2})\2([0-9]{4})" + _TIME, "dmy mdy"),
        (r"([0-9]{1,2})(/|-|\. ?)([0-9]{1,2})\2([0-9]{2})" + _TIME, "dmy mdy ymd"),
        (r"([0-9]{4})()([0-9]{2})([0-9]{2})" + _BASIC_TIME, "ymd"),
        (r"([0-9]{4})()([0-9]{2})([0-9]{2})" + _TIME, "ymd"),
        (_WEEKDAY + _DAY_OF_MONTH + r"([-/. ]*)" + _MONTH + r"[-/.,]? *([0-9]{4})" + _TIME, "dmy"),
        (_DAY_OF_MONTH + r"([-/ ])" + _MONTH + r"\2([0-9]{2})" + _TIME, "dmy ymd"),
        (_WEEKDAY + _MONTH + r"(\.? +|-)" + _DAY_OF_MONTH + r"(?:, *| +|-)([0-9]{4})" + _TIME, "mdy"),
        (r"([0-9]{4})([-/ ])" + _MONTH + r"\2([0-9]{1,2})" + _TIME, "ymd"),
        (r"([0-9]{4})([-/.])([0-9]{1,2})", "ym"),
        (r"([0-9]{1,2})([-/.])([0-9]{4})", "my"),
        (_MONTH + r"([-/ ]|, )([0-9]{4})", "my"),
    )
)
# Dates written as digits alone: they are numbers too, in another order mostly.
_DIGITS = {
    6: ("%y%m%d", "%d%m%y", "%m%d%y", "%m%Y"),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    12: ("%Y%m%d%H%M", "%d%m%Y%H%M", "%m%d%Y%H%M", "%y%m%d%H%M%S", "%d%m%y%H%M%S", "%m%d%y%H%M%S"),
    14: ("%Y%m%d%H%M%S", "%d%m%Y%H%M%S", "%m%d%Y%H%M%S"),
}
_PLAUSIBLE = range(1900, 2101)  # years in dates of digits alone


def moments(cells: Sequence[str], column: str, time_format: str | None = None) -> np.ndarray:
    """Return when each row is, as a rank.

    Numbers grow with time: years, Unix times, 20240131. Dates are ISO 8601 (with a time, a zone), with month names
    (English), or of three numbers, of which a day above 12 tells which is the month.

    Parameters
    ----------
    cells : sequence of str
        None of them empty.
    column : str
        Its name, for messages.
    time_format : str, optional
        `datetime.strptime`'s, like "%d/%m/%Y"; "number"; left out: what fits all cells.

    Returns
    -------
    ndarray
        int64 [rows]: equal where two moments are equal, higher where one is later.

    Raises
    ------
    KitError
        Where no one format fits all cells, and where several do that order the rows differently.
    """
    place: dict[str, int] = {}
    which = np.array([place.setdefault(cell, len(place)) for cell in cells], dtype=np.int64)
    texts = [" ".join(text.split()) for text in place]
    if time_format is not None and time_format != NUMBER:
        return _ranks(_by_format(texts, column, time_format))[which]
    numbers = _numbers(texts)
    if numbers is not None:
        if time_format is None:
            _need_no_date(texts, numbers, column)
        return _ranks(numbers)[which]
    if time_format == NUMBER:
        odd = [text for text in texts if not _NUMBER.fullmatch(text)]
        raise KitError(
            f"folds.time_format: is {NUMBER}, but column {column!r} has cells that are none "
            f"({some(map(repr, odd), 5)}); leave it out, or give the format of its dates"
        )
    return _ranks(_dates(texts, column))[which]


def check_time_format(text: str) -> str:
    """Return a format of moments; ValueError where it cannot be one, or leaves the order open."""
    if text == NUMBER:
        return text
    directives = set(re.findall(r"%(.)", text.replace("%%", "")))
    if not directives:
        raise ValueError(f"expected a format of datetime.strptime, like %d/%m/%Y, or {NUMBER}")
    if "Z" in directives:
        raise ValueError("%Z does not read which zone a name is of; write the column with offsets (%z)")
    try:
        datetime.strptime(datetime(2024, 1, 31, 10, 15).strftime(text), text)
    except ValueError as error:
        raise ValueError(f"no format of datetime.strptime: {error}") from error
    if "I" in directives and "p" not in directives:
        raise ValueError("%I needs %p, which half of the day it is; or take %H")
    if directives & set("dmbBjUWVeaAu") and not directives & set("YyGcx"):
        raise ValueError("names no year (%Y), without which the order of dates is open")
    return text


def _ranks(values: Sequence[int] | Sequence[Decimal]) -> np.ndarray:
    ordered: list[Any] = sorted(set(values))  # all of one type
    place = {value: rank for rank, value in enumerate(ordered)}
    return np.array([place[value] for value in values], dtype=np.int64)


def _numbers(texts: Sequence[str]) -> list[Decimal] | None:
    """The texts as numbers, exactly; None where one is none."""
    return [Decimal(text) for text in texts] if all(map(_NUMBER.fullmatch, texts)) else None


def _by_format(texts: Sequence[str], column: str, time_format: str) -> list[int]:
    values = [_strptime(text, time_format) for text in texts]
    if odd := [text for text, value in zip(texts, values, strict=True) if value is None]:
        raise KitError(
            f"folds.time_format: {time_format!r} does not read {len(odd)} of the {len(texts)} different cells of "
            f"column {column!r} ({some(map(repr, odd), 5)})"
        )
    return [value for value in values if value is not None]


def _strptime(text: str, time_format: str) -> int | None:
    try:
        moment = datetime.strptime(text, time_format)
    except ValueError:
        return None
    offset = moment.utcoffset() or timedelta()
    return (moment.replace(tzinfo=None) - offset - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def _need_no_date(texts: Sequence[str], numbers: Sequence[Decimal], column: str) -> None:
    """Raise KitError where numbers may be dates as well, and these are in another order."""
    read: dict[str, list[int]] = {}
    lengths = {len(text) for text in texts if text.isascii() and text.isdigit()}
    if len(lengths) == 1 and all(map(str.isdigit, texts)):
        for time_format in _DIGITS.get(lengths.pop(), ()):
            values = [_of_digits(text, time_format) for text in texts]
            if None not in values:
                read[time_format] = [value for value in values if value is not None]
    for time_format, pattern in (("%Y.%m", r"[0-9]{4}\.[0-9]{1,2}"), ("%m.%Y", r"[0-9]{1,2}\.[0-9]{4}")):
        if all(re.fullmatch(pattern, text) for text in texts):
            values = [_strptime(text, time_format) for text in texts]
            if None not in values:
                read[time_format] = [value for value in values if value is not None]
    order = _ranks(numbers).tolist()
    if any(_ranks(values).tolist() != order for values in read.values()):
        choices = " or ".join(f'"{time_format}"' for time_format in read)
        raise KitError(
            f"folds.time: column {column!r} holds numbers that may be dates ({some(map(repr, texts), 2)}), in "
            f"another order than that of the numbers; set folds.time_format: {choices}, or {NUMBER} where they "
            "just grow with time"
        )


def _of_digits(text: str, time_format: str) -> int | None:
    """The moment in digits, with two places each and a year that is likely."""
    try:  # by place, as strptime takes a digit for a month where two make none
        place, parts = 0, {"Y": 1970, "m": 1, "d": 1, "H": 0, "M": 0, "S": 0}
        for directive in time_format[1::2]:
            width = 4 if directive == "Y" else 2
            value = int(text[place : place + width])
            place += width
            parts["Y" if directive == "y" else directive] = _year(value) if directive == "y" else value
        year, month, day, hour, minute, second = parts.values()
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) if moment.year in _PLAUSIBLE else None


def _year(two_digits: int) -> int:
    return two_digits + (1900 if two_digits >= _PIVOT else 2000)


@dataclass(frozen=True)
class _Written:
    """A date as it is written: which form, and its parts as they stand."""

    text: str
    form: int
    match: re.Match[str]

    @property
    def style(self) -> tuple[int, str, bool, bool, bool]:
        """What the cells of one column have in common: form, separator, time, half of day, zone."""
        part = self.match.groupdict()
        return self.form, self.match[2].strip(), bool(part.get("H")), bool(part.get("p")), bool(part.get("z"))

    def parts(self, order: str) -> dict[str, str]:
        """Year, month and day, as far as they are there, if they stand in this order."""
        stand = [self.match[1], *[self.match[place] for place in range(3, 2 + len(order))]]
        return dict(zip(order, stand, strict=True))

    def value(self, order: str) -> int | None:
        """The moment in nanoseconds since 1970, if the parts stand in this order; None where that is no date."""
        part, there = self.parts(order), self.match.groupdict()
        day = _day(part["y"], part["m"], part.get("d", "1"))
        time = _time_of_day(*map(there.get, "HMSfpz"))
        return None if day is None or time is None else day * _DAY + time

    def time_format(self, order: str) -> str:
        """The cell's format for strptime, if the parts stand in this order."""
        directives = {"y": "%Y", "m": "%m", "d": "%d"}
        groups: list[tuple[int | str, str]] = [
            (1 if place == 0 else place + 2, directives[name]) for place, name in enumerate(order)
        ]
        groups += [("H", "%H"), ("M", "%M"), ("S", "%S"), ("f", "%f"), ("p", "%p"), ("z", "%z")]
        there = self.match.groupdict()
        spans = [
            (self.match.span(group), directive)
            for group, directive in groups
            if isinstance(group, int) or there.get(group)
        ]
        text = self.text
        for (start, end), directive in sorted(spans, reverse=True):
            if directive == "%Y" and end - start == 2:
                directive = "%y"
            if directive == "%m" and text[start:end].isalpha():
                directive = "%b" if end - start == 3 else "%B"
            if directive == "%H" and there.get("p"):
                directive = "%I"
            text = text[:start] + directive + text[end:]
        return text


@lru_cache(maxsize=100_000)  # days and minutes repeat in a long column
def _day(year: str, month: str, day: str) -> int | None:
    """Days since 1970; None where there is no such date."""
    number = int(month) if month.isdigit() else _MONTHS.get(month.lower(), 0)
    try:
        found = date(_year(int(year)) if len(year) == 2 else int(year), number, int(day))
    except ValueError:
        return None
    return (found - date(1970, 1, 1)).days


@lru_cache(maxsize=100_000)
def _time_of_day(
    hours: str | None,
    minutes: str | None,
    seconds: str | None,
    fraction: str | None,
    half: str | None,
    zone: str | None,
) -> int | None:
    """Nanoseconds since midnight in UTC; 0 where there is no time, None where it is none."""
    if not hours:
        return 0
    hour, minute, second = (int(part or 0) for part in (hours, minutes, seconds))
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    if hour > 23 or minute > 59 or second > 60:
        return None
    offset = 0
    if zone and zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[0] == "-" else 1)
    return ((hour * 60 + minute - offset) * 60 + second) * 10**9 + int((fraction or "").ljust(9, "0"))


def _dates(texts: Sequence[str], column: str) -> list[int]:
    """The moments of texts that are dates in one format."""
    cells = [_written(text) for text in texts]
    numbers = [text for text in texts if _NUMBER.fullmatch(text)]
    odd = [text for text, cell in zip(texts, cells, strict=True) if cell is None and not _NUMBER.fullmatch(text)]
    if odd:
        raise KitError(
            f"folds.time: column {column!r} has to hold numbers or dates in one format; {len(odd)} of its "
            f"{len(texts)} different cells are neither ({some(map(repr, odd), 5)}); mend them, or set "
            'folds.time_format, like "%d/%m/%Y"'
        )
    written = [cell for cell in cells if cell is not None]
    styles = {cell.style: cell.text for cell in reversed(written)}
    examples = [*reversed(styles.values()), *numbers[:1]]
    if len(examples) > 1:
        raise KitError(
            f"folds.time: column {column!r} is written in {len(examples)} formats "
            f"({some(map(repr, examples), 5)}); write it in one"
        )
    return _in_one_order(written, column)


def _written(text: str) -> _Written | None:
    for form, (pattern, _) in enumerate(_FORMS):
        if match := pattern.fullmatch(text):
            return _Written(text, form, match)
    return None


def _in_one_order(cells: Sequence[_Written], column: str) -> list[int]:
    """The moments by the one order of year, month and day that fits all cells."""
    orders = _FORMS[cells[0].form][1]
    fits: dict[str, list[int]] = {}
    against: dict[str, str] = {}  # a cell each that an order does not fit
    for order in orders:
        values = [cell.value(order) for cell in cells]
        if None in values:
            against[order] = cells[values.index(None)].text
        else:
            fits[order] = [value for value in values if value is not None]
    if not fits:
        examples = some(map(repr, dict.fromkeys(against.values())), 3)
        if len(set(against.values())) == 1:
            raise KitError(
                f"folds.time: column {column!r}: {examples} is no date; mend it, or set folds.time_format"
            )
        raise KitError(
            f"folds.time: column {column!r}: no one order of day, month and year fits all cells ({examples}); "
            "write them in one"
        )
    ranks = [_ranks(values).tolist() for values in fits.values()]
    if any(each != ranks[0] for each in ranks):
        open_cell = next((cell for cell in cells if len({cell.value(order) for order in fits}) > 1), cells[0])
        choices = " or ".join(f'"{open_cell.time_format(order)}"' for order in fits)
        raise KitError(
            f"folds.time: column {column!r}: {open_cell.text!r} may be read in {len(fits)} ways, no cell decides, "
            f"and they order the rows differently; set folds.time_format: {choices}"
        )
    order = next(iter(fits))
    _need_one_century(cells, order, column)
    return fits[order]


def _need_one_century(cells: Sequence[_Written], order: str, column: str) -> None:
    years = {cell.parts(order)["y"]: cell for cell in cells}
    short = sorted(year for year in years if len(year) == 2)
    if short and short[0] < str(_PIVOT) <= short[-1]:
        first, last = years[short[-1]], years[short[0]]
        raise KitError(
            f"folds.time: column {column!r} has years of two digits, and it is open whether {first.text!r} is "
            f"before {last.text!r}; write years with four, or set folds.time_format: "
            f'"{first.time_format(order)}" if {_PIVOT} to 99 are the 1900s'
        )
