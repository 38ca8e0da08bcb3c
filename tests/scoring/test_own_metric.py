"""A metric of the user's own: what it is given, what is taken of it, and which rules go with it."""

import pickle

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef
from support.refusals import refusal_of

from kit.scoring.blend import choose_blend
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule
from kit.scoring.f1 import score

MINE = """
import numpy as np
from sklearn.metrics import f1_score
def macro(truth, predicted): return f1_score(truth, predicted, average="macro")
def worst(truth, predicted, times=1): return times * f1_score(truth, predicted, average=None).min()
class Weighted:
    def __init__(self, weight):
        self.weight = weight
    def __call__(self, truth, predicted): return self.weight * np.mean(truth == predicted)
def error(truth, predicted): return np.mean(truth != predicted)
def same(truth, predicted): return 1
def nan(truth, predicted): return np.nan
def rows(truth, predicted): return truth == predicted
def word(truth, predicted): return "good"
def lucky(truth, predicted): return np.random.rand()
def writes(truth, predicted): truth[0] = 1; return 1.0
def one(truth): return 1.0
"""
TRUTH = np.arange(60) % 3


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def of(metric, **options) -> ScoringConfig:
        return ScoringConfig.model_validate({"metric": metric} | options, context={"folder": tmp_path})

    return of


def noisy(seed=0, rows=60, classes=3, truth=TRUTH) -> np.ndarray:
    """Probabilities [rows, classes] that are right more often than not."""
    values = np.random.default_rng(seed).random((rows, classes)) + np.eye(classes)[truth] * 0.4
    return values / values.sum(axis=1, keepdims=True)


def test_the_score_is_what_the_function_gives(config):
    predicted = noisy().argmax(axis=1)
    each = f1_score(TRUTH, predicted, average=None)
    assert score(TRUTH, predicted, config("mine.py:worst")) == each.min()
    assert score(TRUTH, predicted, config({"name": "mine.py:worst", "times": 2})) == 2 * each.min()
    weighted = config({"name": "mine.py:Weighted", "weight": 3})
    assert score(TRUTH, predicted, weighted) == pytest.approx(3 * np.mean(predicted == TRUTH))
    assert score(TRUTH, predicted, pickle.loads(pickle.dumps(weighted))) == score(TRUTH, predicted, weighted)


def test_a_function_of_an_installed_module_can_be_named():
    predicted = noisy().argmax(axis=1)
    config = ScoringConfig(metric="sklearn.metrics:matthews_corrcoef")
    config.metric.check(TRUTH)
    assert score(TRUTH, predicted, config) == matthews_corrcoef(TRUTH, predicted)
    assert config.title == "matthews_corrcoef"
    assert config.metric.identity()["code"]


def test_several_labels_come_as_bool(config):
    truth = np.random.default_rng(0).random((40, 4)) < 0.4
    predicted = np.random.default_rng(1).random((40, 4)) < 0.4
    assert score(truth, predicted, config("mine.py:macro")) == f1_score(truth, predicted, average="macro")
    config("mine.py:macro").metric.check(truth)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("error", "for the truth shuffled; the higher has to be the better: of an error give the negative"),
        ("same", "gives 1 for the truth itself and 1 for the truth shuffled"),
        ("nan", "gives nan; a finite number is needed"),
        ("rows", "gives an array [60]; a finite number is needed"),
        ("word", "gives 'good'; a finite number is needed"),
        ("lucky", "for the same labels; a metric has to depend on them alone"),
        ("writes", "mine.py:16: ValueError: assignment destination is read-only"),
        ("one", "mine.py:one (mine.py:17): is called with (truth, predicted): too many positional arguments"),
        ("wurst", "mine.py has no function or class 'wurst'; did you mean worst?"),
    ],
)
def test_what_is_no_metric_is_refused(config, name, line):
    truth = TRUTH.copy()
    said = refusal_of(config(f"mine.py:{name}").metric.check, truth)
    assert said.startswith("scoring.metric: mine.py:")
    assert line in said
    np.testing.assert_array_equal(truth, TRUTH)
    assert truth.flags.writeable


@pytest.mark.parametrize("key", ["average", "beta", "zero_division"])
def test_options_of_f_are_not_for_another_metric(config, key):
    with pytest.raises(ValueError, match=f"{key} is of F, metric another one in its place; leave one of them out"):
        config("mine.py:macro", **{key: {"average": "micro", "beta": 2, "zero_division": 1}[key]})


def test_rules_are_those_that_fit_no_f(config):
    folds = np.arange(60) // 20
    choice = choose_rule(noisy(), TRUTH, folds, config("mine.py:macro"))
    assert [each["name"] for each in choice.candidates] == ["argmax"]
    plain = choose_rule(noisy(), TRUTH, folds, ScoringConfig(rule="argmax"))
    assert choice.cross_fitted == pytest.approx(plain.cross_fitted)
    truth = np.random.default_rng(0).random((60, 3)) < 0.4
    probabilities = np.clip(truth * 0.3 + np.random.default_rng(1).random((60, 3)) * 0.7, 0, 1)
    choice = choose_rule(probabilities, truth, folds, config("mine.py:macro"))
    assert [each["name"] for each in choice.candidates] == ["half", "prevalence"]
    for each in choice.candidates:
        same = choose_rule(probabilities, truth, folds, ScoringConfig(rule=each["name"]))
        assert each["cross_fitted"] == pytest.approx(same.cross_fitted)


@pytest.mark.parametrize(
    ("rule", "multilabel", "line"),
    [
        ("offsets", False, "one label a row with a metric of your own; take auto, argmax"),
        ("threshold", True, "several labels a row with a metric of your own; take auto, half or prevalence"),
        ("expected_f", True, "several labels a row with a metric of your own; take auto, half or prevalence"),
    ],
)
def test_a_rule_that_fits_f_is_refused(config, rule, multilabel, line):
    said = refusal_of(config("mine.py:macro", rule=rule).check, multilabel, 3)
    assert said == f"scoring.rule: {rule} is not for {line}"


@pytest.mark.parametrize("several", [False, True])
def test_a_blend_is_chosen_by_it(config, several):
    folds = np.arange(60) // 20
    if several:
        truth = np.random.default_rng(0).random((60, 3)) < 0.4
        members = [np.clip(truth * 0.4 + np.random.default_rng(s).random((60, 3)) * 0.6, 0, 1) for s in range(3)]
    else:
        truth, members = TRUTH, [noisy(seed) for seed in range(3)]
    own = choose_blend(members, truth, folds, config("mine.py:macro", rule="half" if several else "argmax"))
    ours = choose_blend(members, truth, folds, ScoringConfig(rule="half" if several else "argmax"))
    assert own.blend == ours.blend
    assert own.cross_fitted == pytest.approx(ours.cross_fitted)
    np.testing.assert_array_equal(own.predicted, ours.predicted)


def test_scores_are_told_apart_by_name_options_and_code(config, tmp_path):
    first = config("mine.py:worst")
    assert first.title == "worst"
    others = [config("mine.py:macro"), config({"name": "mine.py:worst", "times": 2})]
    before = first.identity(), first.key
    assert all(before != (each.identity(), each.key) for each in others)
    (tmp_path / "mine.py").write_text(MINE + "\n# other\n")
    assert (first.identity(), first.key) != before
    (tmp_path / "mine.py").unlink()
    assert first.identity()["metric"]["code"] is None


def test_without_one_nothing_is_stored_otherwise():
    plain = ScoringConfig()
    assert plain.identity() == plain.canonical()
    assert "metric" not in plain.canonical()
    assert plain.key == plain.title == "macro F1"
