"""A metric of the user's own that takes probabilities: what it is given, checks, rules, blends, bootstrap."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from support.refusals import refusal_of

from kit.comparison.bootstrap import bootstrap
from kit.core.errors import KitError
from kit.scoring.blend import choose_blend
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule
from kit.scoring.f1 import score

MINE = """
import numpy as np
from sklearn.metrics import f1_score, roc_auc_score
def soft_f1(truth, probabilities, beta=1.0):
    hits, found = probabilities[truth == 1].sum(), probabilities.sum()
    return (1 + beta**2) * hits / (beta**2 * (truth == 1).sum() + found) if hits else 0.0
def auc(truth, probabilities): return roc_auc_score(truth, probabilities, average="macro", multi_class="ovr")
def both(truth, predicted, probabilities):
    return f1_score(truth, predicted, average="macro") + probabilities.max(axis=-1).mean() / 100
class Likelihood:
    def __init__(self, floor): self.floor = floor
    def __call__(self, truth, probabilities):
        return np.log(np.maximum(probabilities[np.arange(len(truth)), truth], self.floor)).mean()
def shape(truth, probabilities): return probabilities.shape[-1] + (truth == probabilities.argmax(1)).mean()
def first(probabilities, truth): return 1.0
def named(truth, predicted, *, probabilities): return 1.0
def loss(truth, probabilities): return -soft_f1(truth, probabilities)
def lucky(truth, probabilities): return np.random.rand()
def writes(truth, probabilities): probabilities[0] = 1; return 1.0
"""
ROWS = 90
TWO, THREE = np.arange(ROWS) % 2, np.arange(ROWS) % 3
SEVERAL = np.random.default_rng(5).random((ROWS, 3)) < 0.4
FOLDS = np.arange(ROWS) // 30


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def of(metric, **options) -> ScoringConfig:
        return ScoringConfig.model_validate({"metric": metric} | options, context={"folder": tmp_path})

    return of


def noisy(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Probabilities that are right more often than not."""
    generator = np.random.default_rng(seed)
    if truth.ndim == 2:
        return (generator.random(truth.shape) * 0.6 + truth * 0.4).astype(np.float32)
    values = generator.random((len(truth), truth.max() + 1)) + np.eye(truth.max() + 1)[truth] * 0.4
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def soft_f1(truth: np.ndarray, second: np.ndarray) -> float:
    """2 pP pR / (pP + pR), in sums: RSNA 2022's own definition."""
    hits = sum(value for value, label in zip(second, truth, strict=True) if label)
    precision, recall = hits / sum(second), hits / sum(truth)
    return 2 * precision * recall / (precision + recall)


def test_of_two_classes_it_is_given_those_of_the_second(config):
    probabilities = noisy(TWO)
    value = score(TWO, probabilities.argmax(axis=1), config("mine.py:soft_f1"), probabilities)
    assert value == pytest.approx(soft_f1(TWO, probabilities[:, 1]), rel=1e-6)
    assert value != pytest.approx(f1_score(TWO, probabilities.argmax(axis=1)), abs=0.02)
    weighted = config({"name": "mine.py:soft_f1", "beta": 2.0})
    hits, found = probabilities[TWO == 1, 1].sum(), probabilities[:, 1].sum()
    expected = 5 * hits / (4 * TWO.sum() + found)
    assert score(TWO, probabilities.argmax(axis=1), weighted, probabilities) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("truth", [THREE, SEVERAL], ids=["three", "several"])
def test_else_it_is_given_a_column_a_class(config, truth):
    probabilities = noisy(truth)
    value = score(truth, np.zeros_like(truth), config("mine.py:auc"), probabilities)
    expected = roc_auc_score(truth, probabilities, average="macro", multi_class="ovr")
    assert value == pytest.approx(expected)


def test_it_may_take_labels_as_well_and_be_a_class(config):
    probabilities = noisy(THREE)
    predicted = probabilities.argmax(axis=1)
    expected = f1_score(THREE, predicted, average="macro") + probabilities.max(axis=1).mean() / 100
    assert score(THREE, predicted, config("mine.py:both"), probabilities) == pytest.approx(expected)
    own = config({"name": "mine.py:Likelihood", "floor": 1e-6})
    expected = np.log(probabilities[np.arange(ROWS), THREE]).mean()
    assert score(THREE, predicted, own, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "truth"),
    [("soft_f1", TWO), ("auc", SEVERAL), ("both", THREE), ("both", SEVERAL), ("shape", THREE)],
)
def test_truth_as_probabilities_passes_the_checks(config, metric, truth):
    config(f"mine.py:{metric}").metric.check(truth)
    assert config(f"mine.py:{metric}").metric.value(
        truth, truth, truth.astype(np.float32) if truth.ndim == 2 else np.eye(truth.max() + 1)[truth]
    )


def test_the_check_has_a_column_for_a_class_that_no_row_has(config):
    own = config("mine.py:shape").metric
    own.check(THREE, 5)
    assert own.value(THREE, THREE, np.eye(5)[THREE]) == 6


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("first", "mine.py:first: probabilities has to be its second or its third parameter, as in (truth, "),
        ("named", "mine.py:named: probabilities has to be its second or its third parameter, as in (truth, "),
        ("loss", "the higher has to be the better: of an error give the negative"),
        ("lucky", "for the same probabilities; a metric has to depend on them alone"),
        ("writes", "mine.py:19: ValueError: assignment destination is read-only"),
    ],
)
def test_what_is_no_metric_of_probabilities_is_refused(config, name, line):
    said = refusal_of(config(f"mine.py:{name}").metric.check, TWO)
    assert said.startswith("scoring.metric: mine.py:")
    assert said.count("scoring.metric") == 1
    assert line in said


def test_without_probabilities_there_is_no_value(config):
    said = refusal_of(score, TWO, TWO, config("mine.py:soft_f1"))
    assert said == "scoring.metric: mine.py:soft_f1 takes probabilities, but here are only labels"


def test_no_rule_is_fitted_where_it_takes_no_labels(config):
    probabilities = noisy(TWO)
    choice = choose_rule(probabilities, TWO, FOLDS, config("mine.py:soft_f1"))
    assert [each["name"] for each in choice.candidates] == ["argmax"]
    assert choice.cross_fitted == choice.optimistic == pytest.approx(soft_f1(TWO, probabilities[:, 1]), rel=1e-6)
    choice = choose_rule(noisy(SEVERAL), SEVERAL, FOLDS, config("mine.py:auc"))
    assert [each["name"] for each in choice.candidates] == ["half"]
    assert choice.cross_fitted == pytest.approx(roc_auc_score(SEVERAL, noisy(SEVERAL), average="macro"))
    choice = choose_rule(noisy(SEVERAL), SEVERAL, FOLDS, config("mine.py:both"))
    assert [each["name"] for each in choice.candidates] == ["half", "prevalence"]
    with pytest.raises(KitError, match="prevalence is not for several labels a row with a metric of your own"):
        config("mine.py:auc", rule="prevalence").check(True, 3)


def test_a_blend_is_scored_on_what_was_blended_without_the_fold(config):
    members = [noisy(TWO, seed) for seed in range(3)]
    made = choose_blend(members, TWO, FOLDS, config("mine.py:soft_f1"))
    mean = next(each for each in made.candidates if each["method"] == "mean")
    assert mean["cross_fitted"] == pytest.approx(soft_f1(TWO, np.mean(members, axis=0)[:, 1]), rel=1e-5)
    single = next(each for each in made.candidates if each["method"] == "single")
    parts = []  # of each fold, the member that is best on the others
    for fold in range(3):
        others = fold != FOLDS
        best = max(range(3), key=lambda at: soft_f1(TWO[others], members[at][others, 1]))
        parts.append(members[best][fold == FOLDS, 1])
    assert single["cross_fitted"] == pytest.approx(soft_f1(TWO, np.concatenate(parts)), rel=1e-5)
    several = choose_blend([noisy(SEVERAL, seed) for seed in range(3)], SEVERAL, FOLDS, config("mine.py:both"))
    assert "rank mean" not in [each["method"] for each in several.candidates]  # ranks are no probabilities


@pytest.mark.parametrize("grouped", [False, True])
def test_the_bootstrap_is_the_slow_one(config, grouped):
    own = config("mine.py:soft_f1")
    first, second = noisy(TWO, 1), noisy(TWO, 2)
    groups = np.arange(ROWS) // 3 if grouped else None
    predicted = {"a": (first.argmax(axis=1), first), "b": (second.argmax(axis=1), second)}
    made = bootstrap(TWO, predicted, "a", own, groups, resamples=300, seed=3)["b"]
    assert made.difference == pytest.approx(soft_f1(TWO, second[:, 1]) - soft_f1(TWO, first[:, 1]), abs=1e-6)
    generator, number, slow = np.random.default_rng(0), 30 if grouped else ROWS, []
    for _ in range(2000):
        rows = generator.integers(0, number, number)
        rows = (rows[:, None] * 3 + np.arange(3)).ravel() if grouped else rows
        slow.append(soft_f1(TWO[rows], second[rows, 1]) - soft_f1(TWO[rows], first[rows, 1]))
    assert (made.low, made.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.02)
    assert "takes probabilities" in refusal_of(bootstrap, TWO, {"a": TWO, "b": TWO}, "a", own)
