import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.refusals import refusal_of

from kit.comparison.bootstrap import BootstrapResult, _Tables, bootstrap
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import score

ONE = [
    ScoringConfig(average=average, beta=beta)
    for average in ("macro", "micro", "weighted", "lowest")
    for beta in (1, 2)
]
SEVERAL = [
    ScoringConfig(average=average, beta=beta, zero_division=zero)
    for average, beta in (("macro", 1), ("micro", 1), ("weighted", 2), ("samples", 1), ("lowest", 1))
    for zero in (0, 1)
]


def drawn_rows(weights, units):
    """Row numbers, each as often as its unit was drawn."""
    return np.repeat(np.arange(len(units)), weights[units])


def agrees(truth, labels, config, draw, grouped):
    """The fast statistic is the score of rows written out as often as they were drawn."""
    number = len(truth)
    units = np.arange(number)
    if grouped:
        units = np.unique(draw(arrays(int, number, elements=st.integers(0, 3))), return_inverse=True)[1]
    count = int(units.max()) + 1
    weights = np.bincount(draw(arrays(int, count, elements=st.integers(0, count - 1))), minlength=count)
    rows = drawn_rows(weights, units)
    values = _Tables(truth, labels, units, config).scores(
        np.stack([weights, np.ones(count)], axis=1).astype(float)
    )
    for name, each in labels.items():
        assert values[name][0] == pytest.approx(score(truth[rows], each[rows], config), abs=1e-12)
        assert values[name][1] == pytest.approx(score(truth, each, config), abs=1e-12)


@given(st.data(), st.integers(1, 12), st.sampled_from(ONE), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_resample_is_scored_as_its_rows_with_one_label(data, rows, config, grouped):
    labels = arrays(int, rows, elements=st.integers(0, 4))
    truth, first, second = (data.draw(labels) for _ in range(3))
    agrees(truth, {"first": first, "second": second}, config, data.draw, grouped)


@given(st.data(), st.integers(1, 12), st.sampled_from([0, 1]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_resample_is_scored_as_its_rows_with_two_classes(data, rows, zero, grouped):
    truth, labels = (data.draw(arrays(int, rows, elements=st.integers(0, 1))) for _ in range(2))
    agrees(truth, {"only": labels}, ScoringConfig(average="binary", zero_division=zero), data.draw, grouped)


@given(st.data(), st.integers(1, 10), st.integers(1, 5), st.sampled_from(SEVERAL), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_resample_is_scored_as_its_rows_with_several_labels(data, rows, classes, config, grouped):
    truth, first, second = (data.draw(arrays(bool, (rows, classes))) for _ in range(3))
    agrees(truth, {"first": first, "second": second}, config, data.draw, grouped)


def between(truth, first, second, config, groups=None, **options):
    """Of `second` against `first`."""
    return bootstrap(truth, {"first": first, "second": second}, "first", config, groups, **options)["second"]


def noisy(generator, truth, right):
    return np.where(generator.random(len(truth)) < right, truth, generator.integers(0, 5, len(truth)))


def slowly(truth, first, second, groups, config, resamples, generator):
    """The bootstrap as it is written in the book."""
    differences = []
    names = np.unique(groups)
    for _ in range(resamples):
        rows = np.concatenate([np.flatnonzero(groups == name) for name in generator.choice(names, len(names))])
        differences.append(score(truth[rows], second[rows], config) - score(truth[rows], first[rows], config))
    return np.quantile(differences, [0.025, 0.975])


@pytest.mark.parametrize("grouped", [False, True])
def test_the_bootstrap_is_the_slow_one(grouped):
    generator, config = np.random.default_rng(0), ScoringConfig()
    groups = np.repeat(np.arange(60), 5)
    truth = generator.integers(0, 5, 60)[groups]
    first, second = (noisy(generator, truth, right) for right in (0.5, 0.7))
    made = between(truth, first, second, config, groups if grouped else None, resamples=4000)
    assert made.difference == score(truth, second, config) - score(truth, first, config)
    assert (made.resamples, made.units, made.rows) == (4000, "groups" if grouped else "rows", 300)
    expected = slowly(truth, first, second, groups if grouped else np.arange(300), config, 1000, generator)
    assert (made.low, made.high) == pytest.approx(tuple(expected), abs=0.012)


def test_groups_of_like_rows_widen_the_interval():
    generator = np.random.default_rng(1)
    groups = np.repeat([f"image {number}" for number in range(50)], 10)
    truth, first, second = (np.repeat(generator.integers(0, 3, 50), 10) for _ in range(3))
    rows, whole = (between(truth, first, second, ScoringConfig(), each) for each in (None, groups))
    assert (whole.high - whole.low) / (rows.high - rows.low) == pytest.approx(math.sqrt(10), rel=0.15)


def test_swapping_turns_the_bootstrap_around_and_its_seed_fixes_it():
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 5, 200)
    first, second = (noisy(generator, truth, right) for right in (0.5, 0.6))
    there, back = (
        between(truth, first, second, ScoringConfig()),
        between(truth, second, first, ScoringConfig()),
    )
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there == between(truth, first, second, ScoringConfig())
    assert there != between(truth, first, second, ScoringConfig(), seed=1)


def test_many_are_compared_on_the_same_resamples(monkeypatch):
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 5, 90)
    predicted = {name: noisy(generator, truth, right) for name, right in (("a", 0.5), ("b", 0.6), ("c", 0.9))}
    made = bootstrap(truth, predicted, "b", ScoringConfig(), resamples=500)
    assert sorted(made) == ["a", "c"]
    for name, each in made.items():
        assert each == between(truth, predicted["b"], predicted[name], ScoringConfig(), resamples=500)
    assert between(truth, predicted["a"], predicted["a"], ScoringConfig()) == BootstrapResult(
        0, 0, 0, 2000, "rows", 90
    )
    monkeypatch.setattr("kit.comparison.bootstrap._CELLS", 700)  # a few resamples at a time
    assert bootstrap(truth, predicted, "b", ScoringConfig(), resamples=500) == made


def test_what_the_bootstrap_cannot_do_is_said():
    truth, none = np.zeros(4, int), np.zeros(0, int)
    assert "there are no out-of-fold rows" in refusal_of(between, none, none, none, ScoringConfig())
    assert "second has labels [3], the truth [4]" in refusal_of(between, truth, truth, truth[:3], ScoringConfig())
    assert "2 groups for 4 rows" in refusal_of(between, truth, truth, truth, ScoringConfig(), truth[:2])
