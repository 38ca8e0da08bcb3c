"""Lengths of time as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core.durations import duration, in_words


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90),
        ("45m", 2700),
        ("8h", 28800),
        ("8h30m", 30600),
        ("8 h 30 m", 30600),
        ("1d2h", 93600),
        ("1.5H", 5400),
        ("3600", 3600),
        ("1e3", 1000),
        (0.5, 0.5),
        (7, 7),
    ],
)
def test_what_is_one(written, seconds):
    assert duration(written) == seconds


@pytest.mark.parametrize(
    "written", ["", " ", "8h30", "m", "30m8h", "8:30", "inf", "nan", "-5", "0", "0h", "1h1h", 0, -1.5]
)
def test_what_is_none(written):
    shown = written if isinstance(written, str) else f"{written:g}"
    assert refusal_of(lambda: duration(written)) == (
        f"{shown}: expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 m"),
        (61, "1 m 1 s"),
        (599.7, "10 m"),
        (7800, "2 h 10 m"),
        (30600, "8 h 30 m"),
        (86399, "1 d"),
        (93600, "1 d 2 h"),
    ],
)
def test_in_words(seconds, words):
    assert in_words(seconds) == words


@given(st.floats(1, 3e6))
def test_words_are_near_what_they_say(seconds):
    """They are read as they are written; the smaller of two units is rounded."""
    assert duration(in_words(seconds)) == pytest.approx(seconds, rel=0.05, abs=0.06)
