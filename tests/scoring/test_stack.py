"""Stacks: scikit-learn's regressions, cross-fitted, and no gain where there is none."""

import numpy as np
import pytest
from scoring.test_blend import MACRO, by_method, one_label, several_labels
from sklearn.linear_model import LogisticRegression
from support.refusals import refusal_of

from kit.scoring.blend import choose_blend
from kit.scoring.config import ScoringConfig
from kit.scoring.stack import STRENGTHS, fit_stack

SAMPLES = ScoringConfig(average="samples")


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_those_of_scikit_learn(classes):
    members, truth, folds = one_label([0.5, 2.0], classes=classes)
    stack = fit_stack(members, truth, folds)
    inputs = np.log(np.concatenate(members, axis=1).astype(np.float64))
    precisely = {"tol": 1e-8, "max_iter": 10_000} if classes == 2 else {"max_iter": 1000}
    known = LogisticRegression(C=stack.strength, **precisely).fit(inputs, truth)
    np.testing.assert_allclose(stack.combine(members), known.predict_proba(inputs), atol=5e-3)


def test_each_label_has_a_regression_over_its_own_logits():
    members, truth, folds = several_labels([0.5, 2.0])
    stack = fit_stack(members, truth, folds)
    logits = [np.log(each.astype(np.float64)) - np.log1p(-each.astype(np.float64)) for each in members]
    for label in range(truth.shape[1]):
        inputs = np.stack([each[:, label] for each in logits], axis=1)
        known = LogisticRegression(C=stack.strength, tol=1e-8, max_iter=10_000).fit(inputs, truth[:, label])
        found = stack.combine(members)[:, label]
        np.testing.assert_allclose(found, known.predict_proba(inputs)[:, 1], atol=5e-3)


def test_the_penalty_is_the_one_with_the_least_loss_on_folds_left_out():
    members, truth, folds = one_label([0.5, 2.0], rows=200)
    inputs = np.log(np.concatenate(members, axis=1).astype(np.float64))

    def loss(strength: float) -> float:
        total = 0.0
        for fold in range(5):
            out = folds == fold
            known = LogisticRegression(C=strength, max_iter=1000).fit(inputs[~out], truth[~out])
            total -= np.log(known.predict_proba(inputs[out])[np.arange(out.sum()), truth[out]]).sum()
        return total

    assert fit_stack(members, truth, folds).strength == min(STRENGTHS, key=loss)


def test_a_class_without_rows_is_never_predicted_and_a_label_that_all_have_always():
    members, truth, folds = one_label([0.5, 2.0])
    stack = fit_stack(members, np.where(truth == 3, 0, truth), folds)
    assert stack.combine(members)[:, 3].max() == 0
    assert stack.to_json()["intercept"][3] is None
    members, several, folds = several_labels([0.5, 2.0])
    several[:, 0], several[:, 1] = True, False
    found = fit_stack(members, several, folds).combine(members)
    assert found[:, 0].min() > 0.999
    assert found[:, 1].max() < 0.001


def test_what_members_confuse_is_put_right():
    """Members that call class 1 class 0 half of the time, which a mean cannot mend."""
    members, truth, folds = one_label([0.8, 0.8])
    for member in members:
        member[:, [0, 1]] = member[:, [1, 0]]
    choice = choose_blend(members, truth, folds, MACRO, method="stack")
    found = by_method(choice)
    assert list(found) == ["single", "mean", "greedy", "stack"]
    assert choice.blend.method == "stack"
    assert found["stack"]["cross_fitted"] > found["greedy"]["cross_fitted"] + 0.2
    fresh, known, _ = one_label([0.8, 0.8], seed=1, rows=4000)
    for member in fresh:
        member[:, [0, 1]] = member[:, [1, 0]]
    right = np.mean(choice.rule.decide(choice.blend.combine(fresh)) == known)
    assert right == pytest.approx(choice.cross_fitted, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "config", "gap"), [(one_label, MACRO, 0.05), (several_labels, SAMPLES, 0)])
def test_members_that_know_nothing_do_not_raise_the_score_that_is_told(make, config, gap):
    """Four of them: on the rows it was fitted on, a stack seems to know something."""
    told, optimistic, chance = [], [], []
    for seed in range(3):
        members, _, folds = make([1.0] * 4, rows=90, seed=seed)
        truth = make([1.0], rows=90, seed=seed + 100)[1]
        found = by_method(choose_blend(members, truth, folds, config, method="stack"))
        told.append(found["stack"]["cross_fitted"])
        optimistic.append(found["stack"]["optimistic"])
        chance.append(found["mean"]["cross_fitted"])
    assert np.mean(told) < np.mean(chance) + 0.04
    assert np.mean(optimistic) > np.mean(told) + gap


@pytest.mark.parametrize("make", [one_label, several_labels])
def test_what_is_left_out_was_never_seen(make):
    members, truth, folds = make([1.0] * 3, rows=90)
    config = MACRO if truth.ndim == 1 else SAMPLES
    choice = choose_blend(members, truth, folds, config, method="stack")
    for fold in range(5):
        out = folds == fold
        alone = fit_stack([each[~out] for each in members], truth[~out], folds[~out])
        np.testing.assert_array_equal(choice.left_out[out], alone.combine([each[out] for each in members]))
    assert choose_blend(members, truth, folds, config, method="mean").left_out is None


def test_test_rows_are_combined_as_out_of_fold_rows_are():
    members, truth, folds = one_label([0.5, 2.0])
    blend = choose_blend(members, truth, folds, MACRO, method="stack").blend
    assert sum(blend.weights) == pytest.approx(1)
    assert blend.weights[0] > blend.weights[1]
    whole = blend.combine_out_of_fold(members, folds)
    np.testing.assert_array_equal(whole[folds == 2], blend.combine([each[folds == 2] for each in members]))


def test_a_method_that_is_asked_for_is_taken_though_another_is_better():
    members, truth, folds = one_label([0.5, 4.0])
    choice = choose_blend(members, truth, folds, MACRO, method="mean")
    assert choice.blend.method == "mean"
    assert by_method(choice)["single"]["cross_fitted"] > choice.cross_fitted


def test_what_cannot_be_tried_is_refused():
    members, truth, folds = one_label([0.5, 2.0], rows=100)
    known = "blend: there is no method 'median'; there are single, mean, rank mean, greedy, stack"
    assert refusal_of(lambda: choose_blend(members, truth, folds, MACRO, method="median")) == known
    assert refusal_of(lambda: choose_blend(members, truth, folds, MACRO, method="rank mean")).startswith(
        "blend: a rank mean is for rows with several labels"
    )
    assert refusal_of(lambda: choose_blend(members, truth, folds % 2, MACRO, method="stack")).startswith(
        "blend: a stack needs three folds"
    )
