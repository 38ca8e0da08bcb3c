"""Blends with known truth: what is found, what is not, and that the score told is honest."""

import numpy as np
import pytest
from scipy.stats import rankdata

from kit.core.errors import KitError
from kit.scoring import blend as blending
from kit.scoring.blend import Blend, cheapest_score, choose_blend, fit_blend, greedy_weights, methods_for, ranks
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import TIE, choose_rule

MACRO = ScoringConfig()
ARGMAX = ScoringConfig(rule="argmax")


def one_label(noises, rows=600, classes=4, seed=0, shared=0.6):
    """Members that know the truth up to a noise of their own: (members, truth, folds)."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, rows)
    base = 2 * np.eye(classes)[truth] + shared * generator.standard_normal((rows, classes))
    members = [_softmax(base + noise * generator.standard_normal((rows, classes))) for noise in noises]
    return members, truth, np.arange(rows) % 5


def several_labels(noises, rows=600, classes=6, seed=0):
    generator = np.random.default_rng(seed)
    logits = 3 * generator.standard_normal((rows, classes)) - 2
    truth = generator.random((rows, classes)) < _sigmoid(logits)
    members = [
        _sigmoid(logits + noise * generator.standard_normal((rows, classes))).astype(np.float32)
        for noise in noises
    ]
    return members, truth, np.arange(rows) % 5


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def _sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def by_method(choice) -> dict:
    return {each["method"]: each for each in choice.candidates}


# Methods


def test_members_that_err_apart_are_better_together():
    members, truth, folds = one_label([1.2, 1.2, 1.2])
    choice = choose_blend(members, truth, folds, MACRO)
    found = by_method(choice)
    assert list(found) == ["single", "mean", "greedy"]
    assert found["mean"]["cross_fitted"] > found["single"]["cross_fitted"] + 0.05
    assert choice.blend.method in ("mean", "greedy")
    assert choice.cross_fitted == found[choice.blend.method]["cross_fitted"]


def test_a_useless_member_gets_no_weight():
    members, truth, folds = one_label([1.0, 1.0], rows=1000)
    noise = np.random.default_rng(9).dirichlet(np.full(4, 0.2), len(truth)).astype(np.float32)
    choice = choose_blend([noise, *members], truth, folds, ARGMAX)
    found = by_method(choice)
    assert choice.blend.method == "greedy"
    assert choice.blend.weights[0] < 0.05
    assert found["greedy"]["cross_fitted"] > found["mean"]["cross_fitted"] + 0.02
    assert found["single"]["weights"][0] == 0


def test_unequal_members_get_unequal_weights():
    members, truth, _ = one_label([0.8, 1.4], rows=1500)
    weights = fit_blend("greedy", members, truth, np.zeros(len(truth)), MACRO).weights
    assert 0.5 < weights[0] < 1
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize("make", [one_label, several_labels])
def test_equal_members_are_a_tie_that_the_simplest_wins(make):
    members, truth, folds = make([1.0], rows=300)
    choice = choose_blend(members * 3, truth, folds, MACRO)
    assert choice.blend == Blend("single", (1.0, 0.0, 0.0))
    scores = [each["cross_fitted"] for each in choice.candidates if each["method"] != "rank mean"]
    assert max(scores) - min(scores) <= TIE


def test_the_best_single_member_is_the_best_by_its_own_rule():
    """Not by argmax, which of the first member's probabilities finds one class only."""
    generator = np.random.default_rng(0)
    truth = generator.choice(3, 400, p=[0.8, 0.1, 0.1])
    seen = np.where(generator.random(400) < 0.9, truth, generator.integers(0, 3, 400))
    shy = np.full((400, 3), [0.8, 0.1, 0.1])
    shy[np.arange(400), seen] += 0.3
    noise = np.where(generator.random(400) < 0.5, truth, generator.integers(0, 3, 400))
    bold = np.eye(3)[noise] * 0.8 + 0.2 / 3
    members = [shy / shy.sum(axis=1, keepdims=True), bold]
    assert cheapest_score(members[0], truth, MACRO) < cheapest_score(members[1], truth, MACRO)
    choice = choose_blend(members, truth, np.arange(400) % 5, MACRO)
    assert by_method(choice)["single"]["weights"] == [1.0, 0.0]
    alone = choose_rule(members[0], truth, np.arange(400) % 5, MACRO)
    assert by_method(choice)["single"]["cross_fitted"] == pytest.approx(alone.cross_fitted)


@pytest.mark.parametrize(("tie", "method"), [(1.0, "single"), (0.0, "greedy")])
def test_the_simplest_that_is_nearly_the_best(monkeypatch, tie, method):
    members, truth, folds = one_label([0.8, 1.1], rows=400)
    monkeypatch.setattr(blending, "TIE", tie)
    choice = choose_blend(members, truth, folds, ARGMAX)
    assert max(choice.candidates, key=lambda each: each["cross_fitted"])["method"] == "greedy"
    assert choice.blend.method == method


def test_a_copy_of_a_member_changes_no_greedy_choice():
    (good, other), truth, _ = one_label([1.0, 1.3])
    twice = fit_blend("greedy", [good, good, other], truth, np.zeros(len(truth)), MACRO).weights
    once = fit_blend("greedy", [good, other], truth, np.zeros(len(truth)), MACRO).weights
    score = lambda weights, members: cheapest_score(Blend("greedy", weights).combine(members), truth, MACRO)  # noqa: E731
    assert score(twice, [good, good, other]) >= score(once, [good, other]) - 0.005


def test_of_members_that_know_nothing_the_optimistic_score_is_too_good():
    """Weights chosen among much noise fit the rows they were chosen on, and those alone."""
    gaps = []
    for seed in range(2):
        generator = np.random.default_rng(seed)
        truth = generator.integers(0, 3, 150)
        members = [generator.dirichlet(np.ones(3), 150) for _ in range(6)]
        tried = by_method(choose_blend(members, truth, np.arange(150) % 5, ARGMAX))["greedy"]
        gaps.append(tried["optimistic"] - tried["cross_fitted"])
        assert tried["cross_fitted"] < 0.45  # chance is a third
    assert min(gaps) > 0.03
    assert np.mean(gaps) > 0.08


def test_the_best_single_member_is_cross_fitted_too():
    """Of members that know nothing the best by chance is not the best on the other rows."""
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 100)
    members = [generator.dirichlet(np.ones(2), 100) for _ in range(10)]
    single = by_method(choose_blend(members, truth, np.arange(100) % 5, ARGMAX))["single"]
    best = max(cheapest_score(member, truth, ARGMAX) for member in members)
    assert single["optimistic"] == pytest.approx(best)
    assert single["cross_fitted"] < best - 0.03


@pytest.mark.parametrize("method", ["single", "mean", "rank mean", "greedy"])
@pytest.mark.parametrize("make", [one_label, several_labels])
def test_a_folds_labels_decide_nothing_of_the_fold(make, method, monkeypatch):
    """Else the cross-fitted score would be optimistic."""
    members, truth, folds = make([1.0, 1.5, 2.0], rows=200)
    monkeypatch.setattr(blending, "methods_for", lambda *_: (method,))
    limits = {"at_least": 0, "at_most": 3} if truth.ndim == 2 else {}  # else those of all labels, the fold's too
    config = ScoringConfig(rule="threshold" if truth.ndim == 2 else "offsets", **limits)
    before = choose_blend(members, truth, folds, config)
    lied, held_out = truth.copy(), folds == 3
    lied[held_out] = np.random.default_rng(5).permutation(truth[held_out])
    after = choose_blend(members, lied, folds, config)
    np.testing.assert_array_equal(before.predicted[held_out], after.predicted[held_out])


# Greedy selection


def slowly(members, worth):
    """Caruana's selection, written as lists of members taken."""
    order = sorted(range(len(members)), key=lambda index: -worth(members[index]))
    taken = max(
        (order[:count] for count in range(1, min(blending.START, len(order)) + 1)),
        key=lambda start: (worth(np.mean([members[index] for index in start], axis=0)), -len(start)),
    )
    seen = [taken]
    while len(seen[-1]) < blending.ROUNDS:
        seen.append(
            max(
                ([*seen[-1], index] for index in range(len(members))),
                key=lambda one: worth(np.mean([members[index] for index in one], axis=0)),
            )
        )
        worths = [worth(np.mean([members[index] for index in one], axis=0)) for one in seen]
        if len(seen) - 1 - int(np.argmax(worths)) >= blending.PATIENCE:
            break
    best = seen[int(np.argmax(worths))]
    return [best.count(index) / len(best) for index in range(len(members))]


@pytest.mark.parametrize("seed", range(8))
def test_each_round_takes_the_member_that_makes_the_mean_best(seed):
    generator = np.random.default_rng(seed)
    members = [generator.random((5, 3)) for _ in range(4)]
    wanted = np.tensordot(generator.dirichlet(np.ones(4)), members, 1)
    worth = lambda values: -float(np.abs(values - wanted).max())  # noqa: E731  # no two equal
    assert list(greedy_weights(members, worth)) == pytest.approx(slowly(members, worth))


def test_known_weights_are_found():
    members = [np.zeros((1, 1)), np.ones((1, 1))]
    for share in (0.0, 0.2, 0.36, 0.5, 1.0):
        weights = greedy_weights(members, lambda values, share=share: -abs(float(values[0, 0]) - share))
        assert weights[1] == pytest.approx(share, abs=0.04)


def test_greedy_is_never_worse_than_the_best_member_on_its_rows():
    for seed in range(3):
        members, truth, _ = several_labels([1.0, 2.0, 4.0], rows=150, seed=seed)
        blended = fit_blend("greedy", members, truth, np.zeros(len(truth)), MACRO).combine(members)
        assert (
            cheapest_score(blended, truth, MACRO)
            >= max(cheapest_score(each, truth, MACRO) for each in members) - 1e-6
        )


# Ranks


def test_ranks_are_scipys():
    values = np.random.default_rng(0).integers(0, 6, (40, 3)) / 5
    expected = (rankdata(values, axis=0) - 0.5) / 40
    np.testing.assert_allclose(ranks(values, values), expected)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_few_test_rows_are_ranked_among_the_rows_of_the_fold(rows):
    held_out = [
        np.linspace(0, 1, 101)[:, None].repeat(2, axis=1),
        np.linspace(0, 0.1, 101)[:, None].repeat(2, axis=1),
    ]
    test = [np.full((rows, 2), 0.2), np.full((rows, 2), 0.04)]
    blended = Blend("rank mean", (0.5, 0.5)).combine(test, held_out)
    assert blended.shape == (rows, 2)
    np.testing.assert_allclose(blended, 0.3, atol=0.01)


def test_a_rank_mean_does_not_care_for_scales():
    """Of a member whose probabilities are all small, and of one whose folds differ in scale."""
    members, truth, folds = several_labels([2.0, 2.0])
    members = [member.astype(np.float64) for member in members]  # in which no two become equal
    config = ScoringConfig(rule="thresholds")
    squeezed = [members[0] ** 3 * 0.1, members[1] * (folds[:, None] + 1) / 5]
    whole, found = (by_method(choose_blend(each, truth, folds, config)) for each in (members, squeezed))
    assert found["rank mean"]["cross_fitted"] == pytest.approx(whole["rank mean"]["cross_fitted"], abs=1e-6)
    assert found["rank mean"]["cross_fitted"] > found["mean"]["cross_fitted"] + 0.01


def test_ranks_where_they_make_sense():
    several, one = np.zeros((4, 3), dtype=bool), np.zeros(4, dtype=np.int64)
    assert "rank mean" in methods_for(3, several, MACRO, True)
    assert "rank mean" not in methods_for(3, several, MACRO, False)
    assert "rank mean" not in methods_for(3, several, ScoringConfig(rule="half"), True)
    assert "rank mean" not in methods_for(3, one, MACRO, True)
    assert "rank mean" in methods_for(2, one, ScoringConfig(average="binary"), True)
    assert "rank mean" not in methods_for(2, one, ScoringConfig(average="micro"), True)


# Odds and ends


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", "samples"])
def test_every_average_of_several_labels(average):
    members, truth, folds = several_labels([1.0, 2.0], rows=120)
    choice = choose_blend(members, truth, folds, ScoringConfig(average=average))
    assert choice.predicted.shape == truth.shape
    assert 0 <= choice.cross_fitted <= 1
    assert sum(each["chosen"] for each in choice.candidates) == 1


def test_binary():
    members, truth, folds = one_label([1.0, 1.0, 1.0], classes=2, rows=300)
    choice = choose_blend(members, truth, folds, ScoringConfig(average="binary"))
    assert list(by_method(choice)) == ["single", "mean", "rank mean", "greedy"]


def test_one_fold_is_split_for_the_cross_fit():
    members, truth, folds = one_label([1.0, 1.0], rows=200)
    choice = choose_blend(members, truth, np.zeros_like(folds), MACRO)
    assert choice.cross_fitted < 1


def test_what_is_refused():
    members, truth, folds = one_label([1.0, 1.0], rows=40)
    with pytest.raises(KitError, match="two members or more"):
        choose_blend(members[:1], truth, folds, MACRO)
    with pytest.raises(KitError, match="all out-of-fold rows are in one group"):
        choose_blend(members, truth, np.zeros(40, dtype=int), MACRO, np.zeros(40, dtype=int))
    with pytest.raises(KitError, match="NaN"):
        choose_blend([members[0], members[1] * np.nan], truth, folds, MACRO)
    with pytest.raises(KitError, match="not of the same rows"):
        choose_blend([members[0], members[1][:9]], truth, folds, MACRO)
    with pytest.raises(KitError, match=r"scoring\.rule: half"):
        choose_blend(members, truth, folds, ScoringConfig(rule="half"))
