"""Curves through knots against scipy's and numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from support.strategies import knots

from kit.lr.curves import interpolate

KNOTS = knots(st.floats(0, 10))
ALONG = np.linspace(0, 1, 101)


@given(KNOTS)
def test_linear_is_numpys(drawn):
    places, values = np.array(drawn).T
    ours = [interpolate(drawn, x, "linear") for x in ALONG]
    np.testing.assert_allclose(ours, np.interp(ALONG, places, values), rtol=1e-9, atol=1e-9)


@given(KNOTS)
def test_monotone_cubic_is_scipys_pchip(drawn):
    places, values = np.array(drawn).T
    with np.errstate(over="ignore"):  # it divides by next to nothing
        expected = PchipInterpolator(places, values)(np.clip(ALONG, places[0], places[-1]))
    ours = [interpolate(drawn, x, "monotone_cubic") for x in ALONG]
    np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-7)


def test_monotone_cubic_in_numbers():
    """The slopes by hand, as Fritsch & Butland weight the secants 1 and 2, and a parabola at the end."""
    drawn = ((0.0, 0.0), (0.25, 0.25), (0.75, 1.25))
    slope = (1.25 + 1.0) / (1.25 / 1 + 1.0 / 2)  # weights 2·½ + ¼ and ½ + 2·¼
    end = ((2 * 0.25 + 0.5) * 1 - 0.25 * 2) / 0.75
    middle = 0.125 + 0.25 * (end - slope) / 8  # a Hermite cubic half way: (y₀ + y₁)/2 + h(s₀ − s₁)/8
    assert interpolate(drawn, 0.125, "monotone_cubic") == pytest.approx(middle, rel=1e-12)


@given(KNOTS, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["linear", "monotone_cubic"]))
def test_a_curve_stays_between_its_neighbours_and_turns_only_at_knots(drawn, x, y, interpolation):
    places, values = np.array(drawn).T
    x, y = sorted((x, y))
    first, last = interpolate(drawn, x, interpolation), interpolate(drawn, y, interpolation)
    assert values.min() <= first <= values.max()
    right = int(np.searchsorted(places, x, side="right"))
    if 0 < right < len(places) and y <= places[right]:
        rise = values[right] - values[right - 1]
        assert (last - first) * np.sign(rise) >= -1e-9


def test_a_curve_through_equal_knots_is_flat():
    assert {interpolate(((0.0, 0.3), (0.4, 0.3), (1.0, 0.3)), x, "monotone_cubic") for x in ALONG} == {0.3}
