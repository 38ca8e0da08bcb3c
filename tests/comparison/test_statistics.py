import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.comparison.bootstrap import BootstrapResult
from kit.comparison.intervals import VarianceParts, corrected_interval, seeds_to_decide, smallest_detectable
from kit.comparison.statistics import compare

THREE = [0.01, 0.02, 0.03]  # mean .02, variance .0001


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
    seeds = seeds_to_decide(difference, VarianceParts(between, within), folds, 0.25, 0.95, 1, margin)
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


BOOTSTRAP = BootstrapResult(0.012, -0.003, 0.027, 2000, "rows", 1437)


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
