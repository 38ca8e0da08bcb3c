"""Rules fitted on all folds at once: those of each fold's rows by themselves, in little memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.scoring.columns import NEVER, SortedColumn, between_cuts, bits_of, middle
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule
from kit.scoring.f1 import fbeta
from kit.scoring.fits import fit_rules
from kit.scoring.thresholds import best_threshold, threshold_at

BOUNDS = {
    "fits._BLOCK": 4_000_000,
    "rules._BLOCK": 4_000_000,
    "one_threshold._BLOCK": 4_000_000,
    "one_threshold._LOOKED_AT": 4_000_000,
    "offsets._BLOCK": 1_000_000,
    "offsets.MANY": 20_000_000,
    "thresholds.MANY": 50_000_000,
}


def slow_best(column: np.ndarray, labels: np.ndarray, config: ScoringConfig) -> float:
    """The best threshold by all cuts, one sort for these rows alone."""
    if not labels.any():
        return NEVER
    order = np.argsort(-column, kind="stable")
    hits = np.append(0.0, np.cumsum(labels[order]))
    return middle(column[order], fbeta(hits, np.arange(len(hits)), labels.sum(), config.beta))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    rows=st.integers(2, 60),
    seed=st.integers(0, 99),
    levels=st.sampled_from([0, 2, 5]),
    double=st.booleans(),
    beta=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_column_sorted_once_tells_each_fit_what_its_own_rows_tell(rows, seed, levels, double, beta):
    generator = np.random.default_rng(seed)
    column = generator.random(rows) if double else generator.random(rows, dtype=np.float32)
    column = np.round(column * levels) / column.dtype.type(levels) if levels else column
    labels, config = generator.random(rows) < column * 0.7, ScoringConfig(beta=beta)
    kept = generator.random((5, rows)) < 0.6
    kept[0], kept[:, 0] = True, True
    whole = SortedColumn(column, labels, bits_of(kept))
    for fit, mine in enumerate(kept):
        threshold, share = whole.of(fit).best(config)
        assert threshold == slow_best(column[mine], labels[mine], config)
        assert share == np.mean(column[mine] >= column.dtype.type(threshold))
        for asked in (0.0, 0.3, 1.0, labels[mine].mean()):
            assert whole.of(fit).at_share(asked) == threshold_at(column[mine], asked)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro", "lowest", "samples"])
@pytest.mark.parametrize("limits", [{}, {"at_least": 1}, {"at_least": 2, "at_most": 3}])
def test_the_rules_of_all_folds_are_those_of_each_by_itself(average, limits):
    generator = np.random.default_rng(0)
    truth = generator.random((300, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.01]
    truth[~truth.any(axis=1), 0] = True
    probabilities = (1 / (1 + np.exp(2 - 3 * truth - generator.normal(size=(300, 6))))).astype(np.float32)
    config = ScoringConfig(average=average, **{"at_least": 0, "at_most": 6} | limits)
    kept = np.stack([np.ones(300, dtype=bool), *(np.arange(300) % 4 != fold for fold in range(4))])
    names = config.rules(True)
    made = fit_rules(names, probabilities, truth, kept, config)
    for fit, rows in enumerate(kept):
        alone = fit_rules(names, probabilities[rows], truth[rows], np.ones((1, rows.sum()), dtype=bool), config)
        for name in names:
            assert made[name][fit].rule == alone[name][0].rule, name


def test_more_folds_than_are_sorted_for_at_once():
    generator = np.random.default_rng(1)
    truth = generator.random((120, 3)) < 0.4
    probabilities = np.clip(truth * 0.4 + generator.random((120, 3)) * 0.6, 0, 1)
    choice = choose_rule(probabilities, truth, np.arange(120) % 40, ScoringConfig(rule="threshold"))
    for fold, rule in choice.by_fold.items():
        rows = np.arange(120) % 40 != fold
        assert rule.threshold == best_threshold(probabilities[rows], truth[rows], ScoringConfig(at_least=0))


def test_cuts_at_the_ends():
    values = np.array([0.75, 0.5])
    assert [between_cuts(values, 0, 0), between_cuts(values, 1, 1), between_cuts(values, 2, 2)] == [
        0.875,
        0.625,
        0.25,
    ]


@pytest.mark.parametrize("several", [False, True])
def test_a_rule_is_chosen_in_twice_the_memory_of_the_probabilities_beside_them(several, monkeypatch):
    """At a hundredth of 100 million probabilities, with all bounds of what is held at once at a hundredth, too."""
    for module, name in BOUNDS.items():
        monkeypatch.setattr(f"kit.scoring.{module}", name // 100)
    generator = np.random.default_rng(0)
    rows, classes = 4_000, 250
    shares = 1 / np.arange(1, classes + 1)
    truth = generator.choice(classes, rows, p=shares / shares.sum())
    logits = generator.standard_normal((rows, classes), dtype=np.float32)
    logits += np.log(shares / shares.sum()).astype(np.float32)
    logits[np.arange(rows), truth] += 4
    probabilities = np.exp(logits)
    if several:
        truth, probabilities = truth[:, None] == np.arange(classes), probabilities / (1 + probabilities)
    else:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    tracemalloc.start()
    try:
        choose_rule(probabilities, truth, np.arange(rows) % 5, ScoringConfig())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * probabilities.nbytes
