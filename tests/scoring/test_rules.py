import json

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.scoring.rules import (
    FEWEST_ROWS,
    Argmax,
    ExpectedF,
    Half,
    Offsets,
    PositiveThreshold,
    Prevalence,
    Threshold,
    Thresholds,
    rule_from_json,
)

NAMES = ["cat", "dog", "eel"]
THIRD = 1 / 3
RULES = [
    Argmax(),
    PositiveThreshold(0.1 + 0.2, THIRD),
    Offsets((0.1, -np.inf, THIRD), 0.7),
    Half(0, 3, 0.5, THIRD),
    Threshold(1, 2, THIRD, 0.25),
    Thresholds(1, 3, (THIRD, np.inf, 0.2), (0.1, 0.0, 0.5)),
    Prevalence(0, 3, (0.5, 0.0, 0.1), (THIRD, np.inf, 0.9)),
    ExpectedF(1, 3, 2.0, 1),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_rule_travels_through_json_exactly(rule):
    text = json.dumps(rule.to_json(), allow_nan=False)
    assert rule_from_json(json.loads(text)) == rule


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "oracle"}, "kind 'oracle' is not known; known are argmax"),
        ([], "kind None is not known"),
        ({"kind": "threshold", "threshold": 0.5}, "threshold: has threshold but needs at_least"),
    ],
)
def test_what_is_no_rule_is_said(content, message):
    with pytest.raises(KitError, match=message):
        rule_from_json(content)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (Argmax(), "the most probable class"),
        (Threshold(1, 3, 0.37, 0.2), "one threshold of 0.37, at least 1 label"),
        (Half(2, 2, 0.5, 0.2), "one threshold of 0.50, at least 2 labels, at most 2 labels"),
        (
            Thresholds(0, 1, (0.3, np.inf, 0.2), (0.1, 0.0, 0.5)),
            "a threshold a class from 0.20 (eel) to 0.30 (cat), at most 1 label, never dog",
        ),
        (Prevalence(0, 3, (0.1,) * 3, (0.1,) * 3), "each class as often as in the training rows"),
        (ExpectedF(0, 3, 2.0, 0), "for each row the labels with the highest expected F2"),
        (
            Offsets((0.5, -np.inf, -1.0), 0.7),
            "the most probable class after offsets to the log probabilities "
            "from -1.00 (eel) to 0.50 (cat), never dog",
        ),
        (PositiveThreshold(0.3, 0.2), "dog from a probability of 0.30"),
    ],
)
def test_rules_in_words(rule, sentence):
    assert rule.sentence(NAMES) == sentence


def test_at_least_adds_the_most_probable_and_at_most_leaves_them():
    probabilities = np.array([[0.4, 0.3, 0.1], [0.9, 0.8, 0.7], [0.2, 0.6, 0.1]])
    chosen = Threshold(1, 2, 0.5, 0.0).decide(probabilities)
    assert chosen.tolist() == [[True, False, False], [True, True, False], [False, True, False]]
    both = Threshold(2, 2, 0.5, 0.0).decide(probabilities)
    assert both.tolist() == [[True, True, False], [True, True, False], [True, True, False]]


def test_a_class_that_is_never_predicted_is_added_last():
    rule = Thresholds(1, 3, (np.inf, 0.5, 0.5), (0.0, 0.1, 0.1))
    assert rule.decide(np.array([[0.9, 0.2, 0.3], [1.0, 0.6, 0.6]])).tolist() == [
        [False, False, True],
        [False, True, True],
    ]
    full = Thresholds(3, 3, (np.inf, 0.5, 0.5), (0.0, 0.1, 0.1))
    assert full.decide(np.array([[0.9, 0.2, 0.3]])).all()


def test_prevalence_is_matched_on_the_rows_at_hand():
    generator = np.random.default_rng(0)
    rule = Prevalence(0, 3, (0.5, 0.1, 0.0), (0.9, 0.9, np.inf))
    for scale in (1.0, 0.2):  # whatever the level of the probabilities
        chosen = rule.decide(scale * generator.random((1000, 3)))
        assert chosen.sum(axis=0).tolist() == [500, 100, 0]


def test_prevalence_on_few_rows_decides_by_its_thresholds():
    rule = Prevalence(0, 2, (0.5, 0.5), (0.8, 0.3))
    few = np.full((FEWEST_ROWS - 1, 2), 0.4)
    assert rule.decide(few).any(axis=0).tolist() == [False, True]


def test_prevalence_of_some_rows_counts_over_all_rows_at_hand():
    probabilities = np.random.default_rng(0).random((1000, 2))
    rule = Prevalence(0, 2, (0.5, 0.1), (0.9, 0.9))
    rows = np.argsort(np.argsort(-probabilities[:, 0])) < 300  # all among the upper half of the first class
    chosen = rule.decide_among(probabilities, rows)
    assert chosen[:, 0].all()
    assert np.array_equal(chosen, rule.decide(probabilities)[rows])
    assert rule.decide(probabilities[rows])[:, 0].sum() == 150


@pytest.mark.parametrize(
    ("rule", "share"),
    [
        (Prevalence(0, 2, (0.3, 0.0008), (0.9, 0.9)), 0.3),
        (Thresholds(0, 2, (0.9, 0.9), (0.3, 0.0008)), 0.3),
        (PositiveThreshold(0.9, 0.0008), None),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_a_class_whose_share_rounds_to_no_row_keeps_its_threshold(rule, share):
    probabilities = 0.5 * np.random.default_rng(0).random((500, 2))
    probabilities[7, 1] = 0.999
    labels = rule.adapted(probabilities).decide(probabilities)
    rare = labels if share is None else labels[:, 1]
    assert np.flatnonzero(rare).tolist() == [7]
    assert share is None or labels[:, 0].mean() == share
    more = np.tile(probabilities, (2, 1))[:700]  # .0008 of 700 rows is more than half a row
    more[20, 1] = 0.9995
    labels = rule.adapted(more).decide(more)
    assert np.flatnonzero(labels if share is None else labels[:, 1]).tolist() == [20]


def test_mapped_thresholds_keep_their_share():
    generator = np.random.default_rng(1)
    narrow = 0.4 + 0.1 * generator.random((1000, 2))
    assert Threshold(0, 2, 0.8, 0.2).adapted(narrow).decide(narrow).sum() == 400
    adapted = Thresholds(0, 2, (0.8, np.inf), (0.2, 0.0)).adapted(narrow)
    assert adapted.decide(narrow).sum(axis=0).tolist() == [200, 0]
    assert PositiveThreshold(0.8, 0.2).adapted(narrow).decide(narrow).sum() == 200


def test_offsets_sharpen_to_the_confidence_they_were_fitted_at():
    sharp = np.random.default_rng(2).dirichlet([0.3] * 4, 500)
    flat = sharp**0.5 / (sharp**0.5).sum(axis=1, keepdims=True)
    rule = Offsets((0.0, 0.5, 0.0, -0.5), float(sharp.max(axis=1).mean()))
    assert rule.adapted(flat).power == pytest.approx(2, abs=0.01)
    assert np.array_equal(rule.adapted(flat).decide(flat), rule.decide(sharp))
    assert rule.adapted(sharp).power == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("rule", [RULES[2], RULES[5], RULES[6]], ids=lambda rule: rule.kind)
def test_other_classes_are_refused(rule):
    with pytest.raises(KitError, match="fitted on 3 classes, the probabilities have 4"):
        rule.decide(np.zeros((200, 4)))
