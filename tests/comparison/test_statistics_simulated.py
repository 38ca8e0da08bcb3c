"""How often verdicts err, on simulated studies with known truth. See docs/comparing.md.

The bands are wide enough for chance (a standard error of .2 to .5 %), and no wider.
"""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from benchmarks.comparison_simulation import World, effects, learners, macro_f1, naive, outside, ratio_of, shares
from kit.comparison.intervals import corrected_interval, smallest_detectable
from kit.comparison.statistics import compare
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import score

STUDIES = 10_000


def error(folds, seeds, data, expected=0.0, formula=lambda differences: differences):
    seed = folds + seeds + 100 * (expected > 0)  # coverage is counted on other studies than false alarms
    drawn = effects(folds, seeds, data, STUDIES, seed, expected)
    return outside(formula(drawn), expected, ratio_of(folds))


def test_the_simulated_interval_is_the_kits():
    drawn = effects(5, 3, 0.7, 300, 0)
    folds = np.repeat(np.arange(5), 3)
    intervals = [corrected_interval(each.ravel(), folds, 0.25) for each in drawn]
    missed = np.mean([each.low > 0 or each.high < 0 for each in intervals])
    assert missed == outside(drawn, 0, 0.25) == np.mean([each.p < 0.05 for each in intervals])
    narrow = [corrected_interval(each.ravel(), folds, 0.25, level=0.5) for each in drawn]
    assert np.mean([each.low > 0.1 or each.high < 0.1 for each in narrow]) == outside(drawn, 0.1, 0.25, level=0.5)


# random effects

DATA = [
    (5, 1, 0.98),
    (5, 1, 0.75),
    (5, 3, 0.98),
    (5, 3, 0.5),
    (10, 2, 0.98),
    (10, 2, 0.5),
    (3, 3, 0.98),
    (3, 3, 0.5),
]


@pytest.mark.parametrize(("folds", "seeds", "data"), DATA)
def test_errors_are_as_stated_where_the_data_make_most_of_the_variance(folds, seeds, data):
    assert 0.03 <= error(folds, seeds, data) <= 0.07
    assert 0.93 <= 1 - error(folds, seeds, data, expected=0.8) <= 0.97


@pytest.mark.parametrize(
    ("folds", "seeds", "data"), [(5, 1, 0.5), (5, 3, 0.1), (10, 2, 0.1), (3, 3, 0.1), (5, 3, 0)]
)
def test_errors_are_rarer_where_the_seeds_do(folds, seeds, data):
    """The correction is for data effects, and is paid without them; so it is at half and half with one seed."""
    assert 0.005 <= error(folds, seeds, data) <= 0.04
    assert 0.96 <= 1 - error(folds, seeds, data, expected=0.8) <= 0.995


@pytest.mark.parametrize(("folds", "seeds"), [(5, 3), (10, 2), (3, 3)])
def test_runs_are_not_as_many_repetitions(folds, seeds):
    """Why seeds are averaged first: with n = K · R the error depends on the seeds' noise, from 0 to 20 %."""
    assert error(folds, seeds, 0.98, formula=naive) > 0.09
    assert error(folds, seeds, 0.1, formula=naive) < 0.006


@pytest.mark.parametrize(("folds", "seeds"), [(5, 3), (10, 2), (3, 3)])
def test_without_the_correction_there_are_far_more_false_alarms(folds, seeds):
    drawn = effects(folds, seeds, 0.98, STUDIES, 0)
    assert outside(drawn, 0, 0) > 0.1


@pytest.mark.parametrize(("folds", "level", "power", "comparisons"), [(5, 0.95, 0.8, 1), (10, 0.9, 0.9, 3)])
def test_the_smallest_detectable_difference_is_detected_as_often_as_stated(folds, level, power, comparisons):
    ratio, data = ratio_of(folds), 0.98
    spread = np.sqrt(data / folds + data * (1 - 1 / folds) / folds + (1 - data) / folds)  # of the mean difference
    expected = smallest_detectable(spread, folds - 1, level, power, comparisons)
    drawn = effects(folds, 1, data, STUDIES, 5, expected=expected)
    adjusted = 1 - (1 - level) / comparisons
    assert outside(drawn, 0, ratio, adjusted) == pytest.approx(power, abs=0.03)


# real learners


@cache
def studies(**world):
    return learners(World(**world), 2000, 0)


def test_the_learners_are_scored_by_macro_f1():
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, (2, 30, 2, 5))
    values = macro_f1(truth, predicted)
    for place in np.ndindex(values.shape):
        assert values[place] == pytest.approx(score(truth[place], predicted[place], ScoringConfig()), abs=1e-12)


def test_the_folds_of_real_learners_correlate_about_as_much_as_the_correction_supposes():
    common, fold, seed = shares(studies())
    assert common + fold > 0.5  # the data make most of the variance
    assert common / (common + fold) == pytest.approx(1 / 5, abs=0.07)
    assert seed > 0.3


@pytest.mark.parametrize("world", [{}, {"folds": 3, "rows": 32}])
def test_learners_of_the_same_expected_score_are_told_apart_no_more_often_than_stated(world):
    drawn = studies(**world)
    assert abs(drawn.mean()) < 3 * drawn.mean(axis=(1, 2)).std() / np.sqrt(len(drawn))  # equal by symmetry
    assert 0.03 <= outside(drawn, 0, ratio_of(drawn.shape[1])) <= 0.07


def test_the_expected_difference_of_different_learners_is_covered():
    world = {"folds": 3, "rows": 32, "second": 10}
    expected = float(learners(World(**world, seeds=1), 4000, 1).mean())
    assert expected > 0.005  # they do differ
    assert 0.93 <= 1 - outside(studies(**world), expected, ratio_of(3)) <= 0.97


def test_many_folds_err_on_the_safe_side():
    """Folds of real learners may correlate less than 1 / K: then the interval is too wide, never too narrow."""
    world = {"folds": 10, "seeds": 1, "rows": 8, "first": 20, "second": 20}
    assert 0.005 <= outside(studies(**world), 0, ratio_of(10)) <= 0.05


# end to end


def policies(studies, number=5, folds=5, seeds=3, expected=0.0):
    """Scores of each study as `compare` takes them: a baseline, and others that gain `expected` each."""
    names = ["baseline", *(f"policy{index}" for index in range(number))]
    drawn = np.stack([effects(folds, seeds, 0.98, studies, seed) for seed in range(number + 1)], axis=1)
    runs = [(seed, fold) for fold in range(folds) for seed in range(seeds)]
    for study in 0.8 + 0.01 * drawn.reshape(studies, number + 1, -1):
        gains = [0.0] + [expected] * number
        yield {
            name: dict(zip(runs, (row + gain).tolist(), strict=True))
            for name, row, gain in zip(names, study, gains, strict=True)
        }


def test_no_false_alarm_among_five_policies_in_95_of_100_studies():
    alarms = [
        any(each.verdict in ("better", "worse") for each in compare(scores, "baseline", 0.25, margin=1e-9))
        for scores in policies(2000)
    ]
    assert 0.02 <= np.mean(alarms) <= 0.07


def test_policies_that_differ_by_the_margin_are_seldom_called_equivalent():
    """The worst case of the two one-sided tests: the difference is the margin itself."""
    margin = 0.05
    called = [
        any(each.verdict == "equivalent" for each in compare(scores, "baseline", 0.25, margin=margin))
        for scores in policies(500, number=2, expected=margin)
    ]
    assert np.mean(called) <= 0.07 + 2 * np.sqrt(0.05 * 0.95 / 500)


def test_a_difference_is_found_as_often_as_promised():
    """With one policy, at the difference that `smallest_detectable` names for the true standard error."""
    spread = 0.01 * np.sqrt(2) * np.sqrt(0.98 / 5 + 0.98 * 0.8 / 5 + 0.02 / 15)
    expected = float(stats.t.ppf([0.975, 0.8], 4).sum() * spread)
    found = [
        compare(scores, "baseline", 0.25)[0].verdict == "better"
        for scores in policies(1000, number=1, expected=expected)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)
