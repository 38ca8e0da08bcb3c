import json
import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import refusal_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from kit.scoring.compare import (
    Interval,
    Parts,
    Resampled,
    _Tables,
    bootstrap,
    bootstrap_many,
    compare,
    corrected_interval,
    holm,
    seeds_to_decide,
    smallest_detectable,
    variance_parts,
)
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import score

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
    assert variance_parts([0.0, 2.0, 4.0, 6.0], [0, 0, 1, 1]) == Parts(7.0, 2.0)
    # one and three runs: grand mean 3; MSB = 9 + 3 · 1 = 12; MSW = 2 / 2; n₀ = 4 − 10 / 4 = 1.5
    parts = variance_parts([0.0, 3.0, 4.0, 5.0], [0, 1, 1, 1])
    assert (parts.between, parts.within) == pytest.approx((11 / 1.5, 1.0))
    assert variance_parts([0.0, 2.0, 0.0, 2.0], [0, 0, 1, 1]) == Parts(0.0, 2.0)  # never negative


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


def a_design(difference, between, within, folds, seeds):
    """Scores of two policies whose differences have these very mean and variances (as they are estimated)."""
    steps = np.arange(folds) - (folds - 1) / 2
    means = steps / steps.std(ddof=1) * math.sqrt(between + within / seeds)
    noise = np.zeros(seeds)
    if seeds > 1:
        noise = np.arange(seeds) - (seeds - 1) / 2
        noise = noise / noise.std(ddof=1) * math.sqrt(within)
    rows = difference + means[:, None] + noise
    runs = [(seed, fold) for fold in range(folds) for seed in range(seeds)]
    return {"base": dict.fromkeys(runs, 0.5), "new": dict(zip(runs, (0.5 + rows.ravel()).tolist(), strict=True))}


@pytest.mark.parametrize(
    ("difference", "between", "margin"),
    [(0.02, 1e-5, 0.001), (0.012, 1e-5, 0.001), (0.0, 1e-5, 0.01), (-0.001, 0.0, 0.01), (0.03, 1e-4, 0.001)],
)
def test_so_many_seeds_do_decide(difference, between, margin):
    within, folds = 1e-3, 5
    seeds = seeds_to_decide(difference, Parts(between, within), folds, 0.25, 0.95, 1, margin)
    assert seeds > 3
    verdicts = {}
    for number in (2, seeds - 1, seeds):
        scores = a_design(difference, between, within, folds, number)
        (made,) = compare(scores, "base", 0.25, margin=margin)
        verdicts[number] = made.verdict
        if made.verdict == "undecided":  # foreseen from any smaller number
            assert made.seeds_to_decide == seeds
            assert f"about {seeds} seeds a fold would decide it if the difference stays" in made.sentence
    assert verdicts[2] == verdicts[seeds - 1] == "undecided"
    assert verdicts[seeds] == ("equivalent" if abs(difference) < margin else "better")


def test_number_of_seeds_that_is_not_known_or_none():
    assert seeds_to_decide(0.02, Parts(1e-4, math.nan), 5, 0.25, 0.95, 1, 0.01) is None
    assert seeds_to_decide(0.02, Parts(1e-2, 1e-2), 5, 0.25, 0.95, 1, 0.01) is None
    assert seeds_to_decide(0.02, Parts(math.nan, 1e-9), 1, 0.25, 0.95, 1, 0.01) is None
    assert seeds_to_decide(0.02, Parts(0, 0), 5, 0.25, 0.95, 1, 0.01) == 1
    few = seeds_to_decide(0.02, Parts(1e-5, 1e-3), 5, 0.25, 0.95, 1, 0.01)
    assert few < seeds_to_decide(0.02, Parts(1e-5, 1e-3), 5, 0.25, 0.95, 4, 0.01)
    assert seeds_to_decide(0.02, Parts(1e-5, 1e-3), 5, 0.25, 0.95, 1, 0.01, most=few) == few
    assert seeds_to_decide(0.02, Parts(1e-5, 1e-3), 5, 0.25, 0.95, 1, 0.01, most=few - 1) is None


# the bootstrap

ONE = [ScoringConfig(average=average, beta=beta) for average in ("macro", "micro", "weighted") for beta in (1, 2)]
SEVERAL = [
    ScoringConfig(average=average, beta=beta, zero_division=zero)
    for average, beta in (("macro", 1), ("micro", 1), ("weighted", 2), ("samples", 1))
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
    made = bootstrap(truth, first, second, config, groups if grouped else None, resamples=4000)
    assert made.difference == score(truth, second, config) - score(truth, first, config)
    assert (made.resamples, made.units, made.rows) == (4000, "groups" if grouped else "rows", 300)
    expected = slowly(truth, first, second, groups if grouped else np.arange(300), config, 1000, generator)
    assert (made.low, made.high) == pytest.approx(tuple(expected), abs=0.012)


def test_groups_of_like_rows_widen_the_interval():
    generator = np.random.default_rng(1)
    groups = np.repeat([f"image {number}" for number in range(50)], 10)
    truth, first, second = (np.repeat(generator.integers(0, 3, 50), 10) for _ in range(3))
    rows, whole = (bootstrap(truth, first, second, ScoringConfig(), each) for each in (None, groups))
    assert (whole.high - whole.low) / (rows.high - rows.low) == pytest.approx(math.sqrt(10), rel=0.15)


def test_swapping_turns_the_bootstrap_around_and_its_seed_fixes_it():
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 5, 200)
    first, second = (noisy(generator, truth, right) for right in (0.5, 0.6))
    there, back = (
        bootstrap(truth, first, second, ScoringConfig()),
        bootstrap(truth, second, first, ScoringConfig()),
    )
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))
    assert there == bootstrap(truth, first, second, ScoringConfig())
    assert there != bootstrap(truth, first, second, ScoringConfig(), seed=1)


def test_many_are_compared_on_the_same_resamples(monkeypatch):
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 5, 90)
    predicted = {name: noisy(generator, truth, right) for name, right in (("a", 0.5), ("b", 0.6), ("c", 0.9))}
    made = bootstrap_many(truth, predicted, "b", ScoringConfig(), resamples=500)
    assert sorted(made) == ["a", "c"]
    for name, each in made.items():
        assert each == bootstrap(truth, predicted["b"], predicted[name], ScoringConfig(), resamples=500)
    assert bootstrap(truth, predicted["a"], predicted["a"], ScoringConfig()) == Resampled(
        0, 0, 0, 2000, "rows", 90
    )
    monkeypatch.setattr("kit.scoring.compare._CELLS", 700)  # a few resamples at a time
    assert bootstrap_many(truth, predicted, "b", ScoringConfig(), resamples=500) == made


def test_what_the_bootstrap_cannot_do_is_said():
    truth, none = np.zeros(4, int), np.zeros(0, int)
    assert "there are no out-of-fold rows" in refusal_of(bootstrap, none, none, none, ScoringConfig())
    assert "second has labels [3], the truth [4]" in refusal_of(
        bootstrap, truth, truth, truth[:3], ScoringConfig()
    )
    assert "2 groups for 4 rows" in refusal_of(bootstrap, truth, truth, truth, ScoringConfig(), truth[:2])


# compare


def runs(by_fold, seeds=1):
    return {(seed, fold): value for fold, value in enumerate(by_fold) for seed in range(seeds)}


BASE = [0.5, 0.51, 0.49, 0.52, 0.48]


def against(differences, **options):
    """The comparison of one policy that differs from the baseline by so much on each fold."""
    scores = {"new": runs(np.add(BASE, differences).tolist()), "base": runs(BASE)}
    (made,) = compare(scores, "base", 0.25, **options)
    return made


def test_a_comparison_holds_what_it_was_made_from():
    made = against([0.1, 0.11, 0.09, 0.12, 0.08])
    assert (made.policy, made.baseline, made.folds, made.seeds, made.runs) == (
        "new",
        "base",
        [0, 1, 2, 3, 4],
        [0],
        5,
    )
    assert (made.score, made.baseline_score, made.difference) == pytest.approx((0.6, 0.5, 0.1))
    assert made.interval == corrected_interval([each["difference"] for each in made.by_run], range(5), 0.25)
    assert made.interval.difference == made.difference
    assert made.p_holm == made.interval.p < 0.001
    assert made.smallest_detectable == smallest_detectable(made.interval.standard_error, 4)
    assert made.by_run[3] == {"seed": 0, "fold": 3, "difference": pytest.approx(0.12)}
    assert made.bootstrap is None


def test_better_and_worse():
    made = against([0.1, 0.11, 0.09, 0.12, 0.08], metric="macro F1")
    assert made.verdict == "better"
    assert made.sentence == "new is better than base by .100 macro F1 (95% interval +.071 to +.129, Holm p < .001)"
    made = against([-0.03, -0.05, -0.01, -0.04, -0.02])
    assert made.verdict == "worse"
    assert made.sentence == "new is worse than base by .030 F (95% interval -.059 to -.001, Holm p .047)"
    made = against([0.004, 0.005, 0.004, 0.005, 0.004])
    assert made.verdict == "better"
    assert made.sentence.endswith("; by less than the margin of .010")


def test_equivalent():
    made = against([0.001, -0.001, 0.003, -0.002, 0.001])
    assert made.verdict == "equivalent"
    closer = corrected_interval([0.001, -0.001, 0.003, -0.002, 0.001], range(5), 0.25, 0.9)
    assert made.sentence == "new and base are equivalent within .010 F: +.000 (90% interval -.002 to +.003)"
    assert -0.01 < closer.low < closer.high < 0.01
    assert against([0.001, -0.001, 0.003, -0.002, 0.001], margin=closer.high + 1e-9).verdict == "equivalent"
    assert against([0.001, -0.001, 0.003, -0.002, 0.001], margin=closer.high - 1e-9).verdict == "undecided"


def test_undecided_with_one_seed():
    made = against([0.1, -0.02, 0.05, -0.03, 0.0])
    assert made.verdict == "undecided"
    assert made.seeds_to_decide is None
    assert made.sentence == (
        "undecided: +.020 F (95% interval -.081 to +.121); this design would have found a difference of .135 with "
        "a chance of 80%; how many seeds would decide it takes two seeds a fold to tell"
    )


def test_undecided_where_no_number_of_seeds_would_do():
    (made,) = compare(a_design(0.02, 1e-2, 1e-5, 5, 2), "base", 0.25)
    assert made.seeds_to_decide is None
    assert made.sentence.endswith("; no number of seeds up to 100 would decide it: more folds or more rows would")


def test_runs_that_differ_in_number_are_never_told_to_be_fewer():
    scores = a_design(0.02, 1e-5, 1e-3, 5, 3)
    del scores["new"][2, 1], scores["base"][1, 4]
    (made,) = compare(scores, "base", 0.25, margin=1e-4)
    assert made.runs == 13
    assert made.verdict == "undecided"
    assert made.seeds_to_decide > 3


BOOTSTRAP = Resampled(0.012, -0.003, 0.027, 2000, "rows", 1437)


def test_one_seed_and_one_fold_decide_nothing():
    scores = {"new": {(0, 2): 0.512}, "base": {(0, 2): 0.5}}
    (made,) = compare(scores, "base", 0.25)
    assert (made.verdict, made.interval, made.p_holm, made.smallest_detectable) == ("undecided", None, None, None)
    words = (
        "undecided: +.012; one seed and one fold: whether another training or other training rows would give the "
        "same cannot be concluded"
    )
    assert made.sentence == words
    (made,) = compare(scores, "base", 0.25, bootstraps={"new": BOOTSTRAP})
    assert made.bootstrap == BOOTSTRAP
    more = "; on these 1,437 held-out rows and these two models the bootstrap gives +.012 [-.003, +.027]"
    assert made.sentence == words + more


def test_several_seeds_of_one_fold_decide_nothing():
    scores = {"new": {(0, 2): 0.9, (1, 2): 0.91}, "base": {(0, 2): 0.5, (1, 2): 0.51}}
    (made,) = compare(scores, "base", 0.25, bootstraps={"new": replace(BOOTSTRAP, rows=None)})
    assert (made.verdict, made.interval) == ("undecided", None)
    assert made.sentence == (
        "undecided: +.400; one fold and 2 seeds: it holds for these training and held-out rows only, and whether "
        "others would give the same cannot be concluded; on these held-out rows and these models the bootstrap "
        "gives +.012 [-.003, +.027]"
    )


def test_several_policies_are_adjusted_for_together():
    scores = {
        "base": runs(BASE),
        "good": runs(np.add(BASE, [0.03, 0.05, 0.01, 0.04, 0.02]).tolist()),
        "same": runs(np.add(BASE, [0.001, -0.001, 0.003, -0.002, 0.001]).tolist()),
    }
    assert compare({name: scores[name] for name in ("base", "good")}, "base", 0.25)[0].verdict == "better"
    made = compare(scores, "base", 0.25)
    assert [each.policy for each in made] == ["good", "same"]
    assert [each.p_holm for each in made] == pytest.approx([2 * made[0].interval.p, made[1].interval.p])
    assert made[0].verdict == "undecided"
    assert made[1].verdict == "equivalent"
    assert "95% interval" in made[1].sentence  # 1 − 2 · .05 / 2
    assert made[0].smallest_detectable == smallest_detectable(made[0].interval.standard_error, 4, comparisons=2)


SCORES = st.dictionaries(
    st.tuples(st.integers(0, 2), st.integers(0, 4)), st.floats(0, 1, width=16), min_size=1, max_size=15
)


@given(st.dictionaries(st.sampled_from("abcd"), SCORES, min_size=2), st.randoms())
@settings(max_examples=150, deadline=None)
def test_the_order_of_the_input_does_not_matter_and_the_outcome_is_json(scores, random):
    def shuffled(mapping):
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    baseline = min(scores)
    if not all(set(runs) & set(scores[baseline]) for runs in scores.values()):
        assert "train both on the same folds and seeds" in refusal_of(compare, scores, baseline, 0.25)
        return
    made = compare(scores, baseline, 0.25)
    again = compare(shuffled({name: shuffled(each) for name, each in scores.items()}), baseline, 0.25)
    assert again == made
    assert [each.difference for each in made] == sorted((each.difference for each in made), reverse=True)
    for each in made:
        content = each.to_json()
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        assert "\n" not in each.sentence


@given(SCORES, SCORES)
@settings(max_examples=150, deadline=None)
def test_swapping_policy_and_baseline_turns_all_signs(first, second):
    if not set(first) & set(second):
        return
    scores = {"first": first, "second": second}
    (there,), (back,) = compare(scores, "first", 0.25), compare(scores, "second", 0.25)
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    assert (there.score, there.baseline_score) == (back.baseline_score, back.score)
    turned = {"better": "worse", "worse": "better"}
    assert there.verdict == turned.get(back.verdict, back.verdict)
    assert there.seeds_to_decide == back.seeds_to_decide
    if there.interval is not None:
        low, high = there.interval.low, there.interval.high
        assert (low, high) == pytest.approx((-back.interval.high, -back.interval.low), abs=1e-12)
        assert (there.p_holm, there.smallest_detectable) == (back.p_holm, back.smallest_detectable)


def test_numbers_that_are_not_finite_become_null():
    made = replace(against([0.1, 0.11, 0.09, 0.12, 0.08]), smallest_detectable=math.inf)
    content = made.to_json()
    assert content["smallest_detectable"] is None
    assert content["interval"]["df"] == 4
    assert content["by_run"][0]["fold"] == 0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            {"a": runs(BASE), "b": runs(BASE)},
            "baseline uniform is not among the policies (a, b); name one of them",
        ),
        ({"uniform": runs(BASE)}, "uniform is the only policy; two or more are needed"),
        (
            {"uniform": {(0, 0): 0.5}, "discriminative": {(0, 1): 0.5}},
            "discriminative has seed 0 fold 1; uniform has seed 0 fold 0; train both on the same folds and seeds",
        ),
        ({"uniform": {(0, 0): 0.5}, "other": {}}, "other has no runs; uniform has seed 0 fold 0"),
        ({"uniform": {(0, 0): 0.5}, "other": {(0, 0): math.nan}}, "other has a score of nan at seed 0 fold 0"),
        ({"uniform": {(2, 1): math.inf}, "other": runs(BASE)}, "uniform has a score of inf at seed 2 fold 1"),
    ],
)
def test_what_cannot_be_compared_is_said(scores, message):
    assert message in refusal_of(compare, scores, "uniform", 0.25)
