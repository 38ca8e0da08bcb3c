import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from kit.comparison.intervals import (
    Interval,
    VarianceParts,
    corrected_interval,
    holm,
    seeds_to_decide,
    smallest_detectable,
    variance_parts,
)
from kit.comparison.statistics import compare

THREE = [0.01, 0.02, 0.03]  # mean .02, variance .0001


# the interval


def test_the_interval_is_nadeau_and_bengios():
    # S² = .0001; SE = sqrt(.0001 · (1/3 + 1/2)) = .0091287; t[.975, 2] = 4.30265; t = .02 / SE = 2.19089
    interval = corrected_interval(THREE, [0, 1, 2], 0.5)
    assert interval.difference == pytest.approx(0.02)
    assert interval.standard_error == pytest.approx(0.00912871, rel=1e-5)
    assert (interval.low, interval.high) == pytest.approx((0.02 - 0.0392776, 0.02 + 0.0392776), abs=1e-6)
    # Student's t with two degrees of freedom has p = 1 − t / sqrt(2 + t²)
    assert interval.p == pytest.approx(1 - 2.19089 / math.sqrt(2 + 4.8), abs=1e-5)
    assert interval.df == 2


def test_seeds_are_averaged_within_their_fold_first():
    several = corrected_interval([0.0, 0.02, 0.02, 0.01, 0.03, 0.04], [7, 7, 3, 3, 3, 5], 0.5)
    averaged = corrected_interval([0.01, 0.02, 0.04], [7, 3, 5], 0.5)
    for name, value in vars(averaged).items():
        assert getattr(several, name) == pytest.approx(value, abs=1e-12), name


@given(arrays(float, st.integers(2, 12), elements=st.floats(-1, 1, width=16)), st.sampled_from([0.5, 0.9, 0.95]))
@settings(deadline=None)
def test_without_a_correction_it_is_the_t_test(differences, level):
    if np.ptp(differences) == 0:
        return
    interval = corrected_interval(differences, np.arange(len(differences)), 0, level)
    expected = stats.ttest_1samp(differences, 0)
    assert interval.p == pytest.approx(expected.pvalue, rel=1e-9)
    low, high = expected.confidence_interval(level)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_ties_between_folds_are_no_certainty():
    assert corrected_interval([0.0, 0.0], [0, 1], 0.25) == Interval(0.0, 0.0, 0.0, 1.0, 0.0, 1)
    assert corrected_interval([0.01, 0.01], [0, 1], 0.25) is None
    scores = {"base": {(0, 0): 0.5, (0, 1): 0.6}, "tied": {(0, 0): 0.51, (0, 1): 0.61}}
    (made,) = compare(scores, "base", 0.25)
    assert (made.verdict, made.interval, made.p_holm) == ("undecided", None, None)
    assert "all folds have the same difference" in made.sentence


def test_the_ratio_is_that_of_the_folds_compared():
    scores = {"base": {(0, f): 0.5 for f in range(4)}, "other": {(0, f): 0.5 + f / 50 for f in (1, 2, 3)}}
    by_fold, as_one = (compare(scores, "base", ratio) for ratio in ({0: 1, 1: 1 / 2, 2: 1 / 3, 3: 1 / 4}, 13 / 36))
    assert by_fold[0].interval == as_one[0].interval
    assert by_fold[0].interval != compare(scores, "base", 25 / 48)[0].interval


def test_one_fold_has_no_interval():
    assert corrected_interval([0.1, 0.2], [4, 4], 0.25) is None


# several policies, power, variances


def test_holm():
    # statsmodels.stats.multitest.multipletests(p, method="holm")[1]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, 0.9, 0.04]) == pytest.approx([0.4, 0.9, 0.12])
    assert holm([0.6, 0.5, 0.01]) == pytest.approx([1.0, 1.0, 0.03])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.3]) == pytest.approx([0.3])
    assert holm([]).shape == (0,)


def test_the_smallest_detectable_difference():
    assert smallest_detectable(0.01, 4) == pytest.approx(0.01 * (2.776445 + 0.940965), rel=1e-5)
    assert smallest_detectable(0.01, 4, comparisons=2) == pytest.approx(0.01 * (3.495406 + 0.940965), rel=1e-5)
    assert smallest_detectable(0.02, 9, level=0.9, power=0.9) == pytest.approx(
        0.02 * (1.833113 + 1.383029), rel=1e-5
    )


def test_the_parts_of_the_variance_by_hand():
    # means 1, 5; MSB = 2 · 8 = 16, MSW = (2 + 2) / 2 = 2; between = (16 − 2) / 2
    assert variance_parts([0.0, 2.0, 4.0, 6.0], [0, 0, 1, 1]) == VarianceParts(7.0, 2.0)
    # one and three runs: grand mean 3; MSB = 9 + 3 · 1 = 12; MSW = 2 / 2; n₀ = 4 − 10 / 4 = 1.5
    parts = variance_parts([0.0, 3.0, 4.0, 5.0], [0, 1, 1, 1])
    assert (parts.between, parts.within) == pytest.approx((11 / 1.5, 1.0))
    assert variance_parts([0.0, 2.0, 0.0, 2.0], [0, 0, 1, 1]) == VarianceParts(0.0, 2.0)  # never negative


def test_parts_that_are_not_known_are_nan():
    parts = variance_parts(THREE, [0, 1, 2])
    assert math.isnan(parts.within)
    assert parts.between == pytest.approx(1e-4)
    parts = variance_parts([1.0, 3.0], [0, 0])
    assert math.isnan(parts.between)
    assert parts.within == pytest.approx(2)


def test_the_parts_of_the_variance_are_found_again():
    generator = np.random.default_rng(0)
    folds = np.repeat(np.arange(4000), np.resize([1, 2, 5], 4000))
    values = 3 * generator.standard_normal(4000)[folds] + 2 * generator.standard_normal(len(folds))
    parts = variance_parts(values, folds)
    assert (parts.between, parts.within) == pytest.approx((9, 4), rel=0.07)


def test_number_of_seeds_that_is_not_known_or_none():
    assert seeds_to_decide(0.02, VarianceParts(1e-4, math.nan), 5, 0.25, 0.95, 1, 0.01) is None
    assert seeds_to_decide(0.02, VarianceParts(1e-2, 1e-2), 5, 0.25, 0.95, 1, 0.01) is None
    assert seeds_to_decide(0.02, VarianceParts(math.nan, 1e-9), 1, 0.25, 0.95, 1, 0.01) is None
    assert seeds_to_decide(0.02, VarianceParts(0, 0), 5, 0.25, 0.95, 1, 0.01) == 1
    few = seeds_to_decide(0.02, VarianceParts(1e-5, 1e-3), 5, 0.25, 0.95, 1, 0.01)
    assert few < seeds_to_decide(0.02, VarianceParts(1e-5, 1e-3), 5, 0.25, 0.95, 4, 0.01)
    assert seeds_to_decide(0.02, VarianceParts(1e-5, 1e-3), 5, 0.25, 0.95, 1, 0.01, most=few) == few
    assert seeds_to_decide(0.02, VarianceParts(1e-5, 1e-3), 5, 0.25, 0.95, 1, 0.01, most=few - 1) is None
