import json

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import TIE, choose_rule, decide_test, fit_rule, plain_rule, rule_from_json
from kit.scoring.f1 import argmax, score
from kit.scoring.rules import (
    Argmax,
    ExpectedF,
    Half,
    Offsets,
    PositiveThreshold,
    Prevalence,
    Threshold,
    Thresholds,
)

SEVERAL = {
    "macro": ["half", "threshold", "prevalence", "thresholds"],
    "samples": ["half", "threshold", "prevalence", "expected_f", "thresholds"],
}
ONE = {"macro": ["argmax", "offsets"], "weighted": ["argmax", "offsets"], "micro": ["argmax"]}


def several(rows: int = 300, classes: int = 4, seed: int = 0):
    generator = np.random.default_rng(seed)
    probabilities = generator.beta(0.5, 1.5, (rows, classes)).astype(np.float32)
    return probabilities, generator.random((rows, classes)) < probabilities, np.arange(rows) % 3


def one(rows: int = 300, classes: int = 4, seed: int = 0):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.geomspace(0.2, 2, classes), rows)
    return (
        probabilities,
        np.array([generator.choice(classes, p=row) for row in probabilities]),
        np.arange(rows) % 3,
    )


@pytest.mark.parametrize("average", SEVERAL)
def test_several_labels(average):
    probabilities, truth, folds = several()
    config = ScoringConfig(average=average)
    choice = choose_rule(probabilities, truth, folds, config)
    assert [each["name"] for each in choice.candidates] == SEVERAL[average]
    agrees(choice, probabilities, truth, folds, config)


@pytest.mark.parametrize("average", ONE)
def test_one_label(average):
    probabilities, truth, folds = one()
    config = ScoringConfig(average=average)
    choice = choose_rule(probabilities, truth, folds, config)
    assert [each["name"] for each in choice.candidates] == ONE[average]
    assert choice.predicted.dtype == np.int64
    agrees(choice, probabilities, truth, folds, config)


def agrees(choice, probabilities, truth, folds, config):
    """The figures of a choice follow from its rules, and the best one was taken, ties to the simpler."""
    assert choice.cross_fitted == score(truth, choice.predicted, config)
    assert choice.optimistic == score(truth, choice.rule.decide(probabilities), config)
    assert sorted(choice.by_fold) == [0, 1, 2]
    for fold, rule in choice.by_fold.items():
        assert rule == fit_rule(
            rule.name, probabilities[folds != fold], truth[folds != fold], limited(truth, config)
        )
        held_out = folds == fold
        assert np.array_equal(choice.predicted[held_out], rule.decide_among(probabilities, held_out))
    best = max(each["cross_fitted"] for each in choice.candidates)
    near = [each["name"] for each in choice.candidates if each["cross_fitted"] >= best - TIE]
    assert [each["name"] for each in choice.candidates if each["chosen"]] == near[:1] == [choice.rule.name]
    assert rule_from_json(json.loads(json.dumps(choice.rule.to_json()))) == choice.rule


def limited(truth, config):
    if truth.ndim == 1:
        return config
    return config.model_copy(update={"at_least": int(truth.sum(axis=1).min()), "at_most": truth.shape[1]})


@pytest.mark.parametrize("name", SEVERAL["samples"])
def test_a_named_rule_is_the_only_candidate(name):
    probabilities, truth, folds = several()
    choice = choose_rule(probabilities, truth, folds, ScoringConfig(average="samples", rule=name))
    assert [(each["name"], each["chosen"]) for each in choice.candidates] == [(name, True)]
    assert choice.rule.name == name


def test_binary():
    probabilities, truth, folds = several(classes=1)
    both = np.concatenate([1 - probabilities, probabilities], axis=1)
    choice = choose_rule(both, truth[:, 0].astype(int), folds, ScoringConfig(average="binary"))
    assert [each["name"] for each in choice.candidates] == ["argmax", "threshold"]
    assert isinstance(choice.rule, PositiveThreshold)
    assert choice.rule.share == np.mean(both[:, 1] >= choice.rule.threshold)


def test_a_gain_too_small_to_tell_goes_to_the_simpler():
    truth = np.random.default_rng(0).integers(0, 3, 300)
    probabilities = np.full((300, 3), 0.1)
    probabilities[np.arange(300), truth] = 0.8
    assert choose_rule(probabilities, truth, np.arange(300) % 3, ScoringConfig()).rule == Argmax()


def test_rows_are_labelled_at_least_as_in_training():
    probabilities, truth, folds = several()
    truth[np.arange(300), np.argmax(probabilities, axis=1)] = True
    choice = choose_rule(probabilities, truth, folds, ScoringConfig(rule="half"))
    assert (choice.rule.at_least, choice.rule.at_most) == (1, 4)
    assert choice.predicted.any(axis=1).all()
    free = choose_rule(probabilities, truth, folds, ScoringConfig(rule="half", at_least=0))
    assert not free.predicted.any(axis=1).all()


def test_without_folds_rows_are_parted_the_same_each_time_and_groups_stay_whole():
    probabilities, truth, _ = several()
    groups = np.repeat(np.arange(100), 3).astype(str)
    choices = [choose_rule(probabilities, truth, np.zeros(300, int), ScoringConfig(), groups) for _ in range(2)]
    assert choices[0].rule == choices[1].rule
    assert np.array_equal(choices[0].folds, choices[1].folds)
    assert np.unique(choices[0].folds).tolist() == [0, 1, 2, 3, 4]
    assert all(len(np.unique(choices[0].folds[groups == each])) == 1 for each in np.unique(groups))
    assert len(np.unique(choose_rule(probabilities, truth, np.zeros(300, int), ScoringConfig()).folds)) == 5


def test_with_one_row_or_group_the_simplest_rule_is_taken():
    probabilities, truth, _ = several()
    assert choose_rule(probabilities[:1], truth[:1], np.zeros(1, int), ScoringConfig()).rule.name == "half"
    together = choose_rule(probabilities, truth, np.zeros(300, int), ScoringConfig(), row_groups=np.zeros(300))
    assert [each["name"] for each in together.candidates] == ["half"]


def test_a_class_of_one_fold_only():
    probabilities, truth, folds = several()
    truth[folds != 0, 2] = False
    choice = choose_rule(probabilities, truth, folds, ScoringConfig(rule="thresholds"))
    assert not choice.predicted[folds == 0, 2].any()
    labels, kinds, parts = one()
    kinds[(kinds == 0) & (parts != 0)] = 1
    choice = choose_rule(labels, kinds, parts, ScoringConfig(rule="offsets"))
    assert not np.any(choice.predicted[parts == 0] == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t, f: (p[:0], t[:0], f[:0]), "there are no out-of-fold rows"),
        (lambda p, t, f: (p[:9], t, f), "are not of the same rows and classes"),
        (lambda p, t, f: (p, t[:, :3], f), "are not of the same rows and classes"),
        (lambda p, t, f: (p * np.nan, t, f), "must lie in 0 to 1"),
        (lambda p, t, f: (p * 2, t, f), "must lie in 0 to 1"),
        (lambda p, t, f: (p, np.full(300, 4), f), "truth has classes 4 to 4"),
        (lambda p, t, f: (p, t, f[:5]), "5 folds for 300 rows"),
    ],
)
def test_what_does_not_fit_is_said(change, message):
    with pytest.raises(KitError, match=message):
        choose_rule(*change(*several()), ScoringConfig())
    with pytest.raises(KitError, match=r"scoring\.average: samples"):
        choose_rule(*one(), ScoringConfig(average="samples"))


# no labels


def test_the_plain_rule_needs_no_labels():
    probabilities = several()[0]
    share = float(np.mean(probabilities >= 0.5))
    assert plain_rule(one()[0], False, ScoringConfig()) == Argmax()
    assert plain_rule(probabilities, True, ScoringConfig()) == Half(1, 4, 0.5, share)
    assert plain_rule(probabilities, True, ScoringConfig(at_least=0, at_most=2)) == Half(0, 2, 0.5, share)
    wanted = ScoringConfig(average="samples", rule="expected_f", beta=2.0, zero_division=1, at_most=3)
    assert plain_rule(probabilities, True, wanted) == ExpectedF(1, 3, 2.0, 1)


def test_the_plain_rule_meets_test_rows_with_the_share_of_the_out_of_fold_rows():
    oof = several(1000)[0]
    rule = plain_rule(oof, True, ScoringConfig(at_least=0))
    by_fold = [several(1000, seed=seed)[0] for seed in range(1, 4)]
    assert decide_test(rule, by_fold, "quantile").sum() == np.count_nonzero(oof >= 0.5)
    assert decide_test(rule, by_fold, "none").sum() < 0.9 * np.count_nonzero(oof >= 0.5)


# test rows

THRESHOLDS = Thresholds(0, 2, (0.5, 0.5), (0.3, 0.3))


@pytest.mark.parametrize("transfer", ["none", "quantile", "vote"])
@pytest.mark.parametrize("rows", [0, 1, 3, 250])
@pytest.mark.parametrize("folds", [1, 2, 5])
def test_any_number_of_test_rows_and_folds(transfer, rows, folds):
    probabilities, truth, _ = several()
    by_fold = [several(rows, seed=seed)[0] for seed in range(folds)]
    for name in SEVERAL["samples"]:
        rule = fit_rule(name, probabilities, truth, ScoringConfig(average="samples", at_least=1, at_most=2))
        labels = decide_test(rule, by_fold, transfer)
        assert labels.shape == (rows, 4)
        assert labels.dtype == bool
        assert np.isin(labels.sum(axis=1), [1, 2]).all()
    single, kinds, _ = one()
    by_fold = [one(rows, seed=seed)[0].reshape(rows, 4) for seed in range(folds)]
    for name in ONE["macro"]:
        labels = decide_test(fit_rule(name, single, kinds, ScoringConfig()), by_fold, transfer)
        assert labels.shape == (rows,)
        assert np.issubdtype(labels.dtype, np.integer)


def test_none_decides_on_the_mean():
    by_fold = [np.array([[0.9, 0.1]]), np.array([[0.3, 0.8]])]
    assert decide_test(THRESHOLDS, by_fold, "none").tolist() == [[True, False]]


def test_quantile_keeps_the_share_of_the_rows_that_the_thresholds_were_fitted_on():
    generator = np.random.default_rng(0)
    by_fold = [0.1 * generator.random((1000, 2)) for _ in range(3)]
    assert decide_test(THRESHOLDS, by_fold, "none").sum() == 0
    assert decide_test(THRESHOLDS, by_fold, "quantile").sum(axis=0).tolist() == [300, 300]
    assert decide_test(THRESHOLDS, by_fold[:1], "quantile").sum() == 0  # one model, as out of fold


def test_quantile_on_few_rows_is_a_vote():
    by_fold = [several(20, classes=2, seed=seed)[0] for seed in range(3)]
    for rule in (THRESHOLDS, Threshold(0, 2, 0.4, 0.3), Prevalence(0, 2, (0.3, 0.3), (0.5, 0.5))):
        voted = decide_test(rule, by_fold, "vote")
        assert np.array_equal(decide_test(rule, by_fold, "quantile"), voted)
    assert np.array_equal(decide_test(THRESHOLDS, by_fold, "vote"), np.median(by_fold, axis=0) >= 0.5)


def test_tied_votes_go_to_the_mean():
    by_fold = [np.array([[0.9, 0.6]]), np.array([[0.3, 0.1]])]
    assert decide_test(THRESHOLDS, by_fold, "vote").tolist() == [[True, False]]
    labels = [np.array([[0.5, 0.3, 0.2]]), np.array([[0.2, 0.6, 0.2]])]
    assert decide_test(Argmax(), labels, "vote").tolist() == [1]


def test_the_limits_hold_for_the_outcome_of_a_vote():
    rule = Half(1, 1, 0.5, 0.2)
    by_fold = [np.array([row]) for row in ([0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.1, 0.2, 0.6])]
    assert decide_test(rule, by_fold, "vote").tolist() == [[False, True, False]]  # one vote each, highest mean


def test_argmax_and_offsets_of_one_fold_are_decided_directly():
    probabilities, truth, _ = one()
    rule = fit_rule("offsets", probabilities, truth, ScoringConfig())
    assert isinstance(rule, Offsets)
    for transfer in ("none", "quantile", "vote"):
        assert np.array_equal(decide_test(rule, [probabilities], transfer), rule.decide(probabilities))
        assert np.array_equal(decide_test(Argmax(), [probabilities], transfer), argmax(probabilities))


def test_no_fold_is_said():
    with pytest.raises(KitError, match="no fold has test probabilities"):
        decide_test(Argmax(), [], "none")
