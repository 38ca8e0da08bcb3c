"""Columns of dates and numbers: the order that is read is the true one, or none is."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.refusals import refusal_of

from kit.competition.folds_config import FoldsConfig
from kit.competition.moments import moments
from kit.core.errors import KitError

DATES = (
    "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%y-%m-%d", "%d.%m.%y",
    "%Y%m%d", "%d%m%Y", "%m%d%Y", "%y%m%d", "%d%m%y", "%m%d%y", "%d %b %Y", "%B %d, %Y", "%d-%b-%y", "%y-%b-%d",
    "%d%b%Y", "%a, %d %b %Y", "%Y/%m/%d", "%Y:%m:%d", "%Y.%m.%d",
)  # fmt: skip
MONTHS = ("%Y-%m", "%m/%Y", "%b %Y", "%Y.%m", "%m.%Y", "%m%Y", "%Y%m", "%Y")
TIMES = (" %H:%M", " %H:%M:%S", "T%H:%M:%S.%f", " %I:%M:%S %p", "T%H:%M:%S%z", " %H:%M%z")
DIGITS = ("%Y%m%d%H%M", "%d%m%Y%H%M", "%m%d%Y%H%M%S", "%y%m%d%H%M%S", "%d%m%y%H%M%S", "%Y%m%dT%H%M%S")
LONG = [day for day in DATES if "%Y" in day and day[2] in "-/. "]
FORMATS = (*DATES, *MONTHS, *DIGITS, *(day + time for day in LONG for time in TIMES))


def ranks(values) -> list[int]:
    place = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [place[value] for value in values]


@st.composite
def written_dates(draw) -> tuple[str, list[str], list[datetime]]:
    """A format, dates in it, near to each other or far apart, and the moments that they tell."""
    time_format = draw(st.sampled_from(FORMATS))
    low, high = (
        (1969, 2068) if "%y" in time_format else (1901, 2100)
    )  # a hundred years are all that two digits tell
    first = draw(st.datetimes(datetime(low, 1, 2), datetime(high - 1, 1, 1)))
    part = st.tuples(
        st.integers(0, draw(st.sampled_from([12, 400, 20_000]))), st.integers(0, 1440), st.sampled_from([-5, 0, 2])
    )
    dates = [
        (first + timedelta(days=days, minutes=minutes)).replace(tzinfo=timezone(timedelta(hours=hours)))
        for days, minutes, hours in draw(st.lists(part, min_size=2, max_size=12))
    ]
    cells = [date.strftime(time_format) for date in dates if date.year < high]
    told = [datetime.strptime(cell, time_format) for cell in cells]
    return time_format, cells, [date.astimezone(UTC) if date.tzinfo else date for date in told]


@given(case=written_dates())
@settings(max_examples=600, deadline=None, database=None)
def test_a_single_format_gives_the_true_order_or_is_refused(case):
    _, cells, told = case
    try:
        read = moments(cells, "when").tolist()
    except KitError as error:
        assert str(error).startswith("folds.time: ")  # noqa: PT017
        return
    assert read == ranks(told)


@given(case=written_dates())
@settings(max_examples=200, deadline=None, database=None)
def test_a_format_that_is_stated_is_followed(case):
    time_format, cells, told = case
    assert moments(cells, "when", time_format).tolist() == ranks(told)


@pytest.mark.parametrize(
    "cells",
    [
        ["02/03/2024", "31/01/2024", "01/12/2023"],  # a day above 12 decides
        ["02.03.88", "31.01.88", "15.12.87"],
        ["03-02-2024", "01-31-2024", "12-15-2023"],
        ["2024-03-02", "2024-02-01", "2023-12-31"],
        ["2024-01-31T01:30:00+02:00", "2024-01-30T23:29:59Z", "2024-01-30T00:00:00-01"],
        ["2024:01:31 10:00:00", "2024:01:31 09:59:59", "2023:12:31 23:59:59"],  # EXIF's
        ["1/31/2024 1:05 PM", "1/31/2024 11:05 AM", "1/31/2024 12:05 AM"],
        ["2024-01-31 10:00:00.000000002", "2024-01-31 10:00:00.000000001", "2024-01-31 10:00:00"],
        ["Sept 1, 2024", "August 31, 2024", "Mar 3, 2024"],
        ["1st Feb 2024", "31st Jan 2024", "2nd Jan 2024"],
        ["01FEB2024", "31JAN2024", "02DEC2023"],
        ["February 2024", "Jan 2024", "December 2023"],
        ["20240131", "20231231", "20230630"],
        ["2024", "2023", "1999"],
        ["1706659200", "1706659199.5", "-3"],
        ["12345678901234567892", "12345678901234567891", "12345678901234567890"],  # more than a float tells apart
        ["1e3", "10", "9"],
        ["03/03/2024", "02/02/2024", "01/01/2024"],  # both readings, one order
        ["01/01/99", "01/01/98", "01/01/97"],  # one century
        ["110101", "100101", "091231"],
    ],
)
def test_what_is_read_by_hand_in_falling_order(cells):
    try:
        assert moments(cells, "when").tolist() == [2, 1, 0]
    except KitError:
        assert cells[0] == "110101"  # day first it would be another order
        assert moments(cells, "when", "number").tolist() == [2, 1, 0]
    assert moments([*cells, cells[1]], "when", "number" if cells[0] == "110101" else None).tolist()[-1] == 1


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["01/02/2024", "02/01/2024"], "'01/02/2024' may be read in 2 ways, no cell decides, and they order the "
         'rows differently; set folds.time_format: "%d/%m/%Y" or "%m/%d/%Y"'),
        (["01/02/2024 10:15", "02/01/2024 11:15"], 'set folds.time_format: "%d/%m/%Y %H:%M" or "%m/%d/%Y %H:%M"'),
        (["2024-01-31", "31/01/2024"], "is written in 2 formats ('2024-01-31', '31/01/2024'); write it in one"),
        (["2024-01-31", "2024-01-31 10:00"], "is written in 2 formats"),
        (["2024-01-31T10:00Z", "2024-01-31T10:00"], "is written in 2 formats"),
        (["2024", "2023-01-31"], "is written in 2 formats ('2023-01-31', '2024')"),
        (["01/31/2024", "31/01/2024"], "no one order of day, month and year fits all cells ('01/31/2024', "),
        (["30/02/2024", "31/01/2024"], "'30/02/2024' is no date; mend it"),
        (["2024-01-31", "soon"], "1 of its 2 different cells are neither ('soon'); mend them, or set"),
        (["01.02.24", "31.01.24"], 'set folds.time_format: "%d.%m.%y" or "%y.%m.%d"'),
        (["01/02/68", "20/02/70"], "it is open whether '20/02/70' is before '01/02/68'"),
        (["01.2024", "02.2023"], "may be dates ('01.2024', '02.2023'), in another order than that of the numbers; "
         'set folds.time_format: "%m.%Y", or number where they just grow with time'),
        (["01022024", "02012024"], 'set folds.time_format: "%d%m%Y" or "%m%d%Y", or number'),
        (["2024.10", "2024.9"], 'set folds.time_format: "%Y.%m", or number'),
    ],
)  # fmt: skip
def test_what_leaves_the_order_open_is_refused_with_the_mend(cells, said):
    message = refusal_of(moments, cells, "when")
    assert message.startswith("folds.time: column 'when'")
    assert said in message
    if '"%' in message and "soon" not in said:  # the mend that it names works
        moments(cells, "when", message.split('"')[1])


def test_a_stated_format_that_does_not_fit_is_refused():
    message = refusal_of(moments, ["31/01/2024", "2024-01-31", "01/31/2024"], "when", "%d/%m/%Y")
    assert message == (
        "folds.time_format: '%d/%m/%Y' does not read 2 of the 3 different cells of column 'when' ('2024-01-31', "
        "'01/31/2024')"
    )
    assert refusal_of(moments, ["1", "x"], "when", "number").startswith("folds.time_format: is number, but column")


@pytest.mark.parametrize(
    ("time_format", "said"),
    [
        ("YYYY-MM-DD", "expected a format of datetime.strptime, like %d/%m/%Y, or number"),
        ("%d/%q/%Y", "no format of datetime.strptime: 'q' is a bad directive"),
        ("%d/%m", "names no year (%Y)"),
        ("%Y-%m-%d %H:%M %Z", "%Z does not read which zone a name is of"),
        ("%Y-%m-%d %I:%M", "%I needs %p"),
    ],
)
def test_a_format_is_checked_with_the_config(time_format, said):
    with pytest.raises(ValidationError) as raised:
        FoldsConfig(time="when", time_format=time_format)
    assert said in str(raised.value)


def test_a_format_of_no_column_is_no_config():
    with pytest.raises(ValidationError, match="time_format is of the column that time names"):
        FoldsConfig(time_format="%Y")


def test_a_million_rows_take_no_quadratic_step():
    """Each text is read once, however many rows have it."""
    cells = np.repeat(
        [f"{day:02d}/{month:02d}/2024" for month in range(1, 13) for day in range(1, 29)], 3000
    ).tolist()
    assert moments(cells, "when")[[0, 3000, -1]].tolist() == [0, 1, 335]
