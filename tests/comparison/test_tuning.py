"""Which trainings tune a policy's rate, and what they choose."""

import numpy as np
import pytest
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.comparison.tuning import at_rate, check_tuning, choose_rates, compared_folds, equalised, trials, variants
from kit.competition.folds import FoldPlan
from kit.experiment.compare_config import TuneConfig
from kit.experiment.config import validate
from kit.lr import PolicyConfig

POLICIES = {"uniform": {"lr": 1e-2}, "sliced": {"lr": "slice(1e-4, 1e-2)"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_competition(tmp_path_factory.mktemp("tuning") / "colours", rows=9, test_rows=3)


def experiment(folder, tune, **sections):
    content = experiment_content(
        folder, policies=POLICIES, compare={"baseline": "uniform", "tune": tune}, **sections
    )
    content["policies"] = POLICIES
    return validate(content, "test")


def test_a_slice_keeps_its_ratio_at_another_peak():
    config = PolicyConfig(lr="slice(1e-6, 1e-2)", groups="coarse")
    assert config.at_peak(3e-2) == PolicyConfig(lr="slice(3e-6, 3e-2)", groups="coarse")
    assert config.at_peak(1e-2) is config


def test_all_phases_keep_their_ratio():
    phases = [{"fraction": 0.5, "lr": 1e-3}, {"fraction": 0.5}]
    config = PolicyConfig(lr=1e-2, phases=phases).at_peak(2e-2)
    assert [phase.peak for phase in config.build().phases] == [2e-3, 2e-2]


def test_fine_tune_s_peak_is_scaled():
    config = PolicyConfig(lr=2e-3, phases="fine_tune")
    assert config.at_peak(8e-3).lr == 8e-3


def test_a_rate_that_is_the_policy_s_own_is_no_variant():
    config = PolicyConfig(lr=1e-2)
    assert at_rate("uniform", config, 0.01) == ("uniform", config)
    assert at_rate("uniform", config, 0.003)[0] == "uniform-lr0.003"


def test_what_has_no_shape_is_not_equalised():
    assert equalised("uniform", PolicyConfig(lr=1e-2))[0] == "uniform"
    name, config = equalised("sliced", PolicyConfig(lr="slice(1e-4, 1e-2)"))
    assert (name, config.equalise) == ("sliced-equalised", True)


def test_every_policy_gets_the_same_budget(folder):
    config = experiment(folder, {"rates": [1e-3, 1e-2, 1e-1], "folds": [0]}, seeds=[3, 4])
    each = trials(config)
    assert {(trial.policy, trial.rate, trial.fold, trial.seed) for trial in each} == {
        (policy, rate, 0, 3) for policy in POLICIES for rate in (1e-3, 1e-2, 1e-1)
    }
    assert compared_folds(config) == (1, 2)
    assert set(variants(config)) == {f"{policy}-lr{rate}" for policy in POLICIES for rate in ("0.001", "0.1")}


def test_nested_trials_see_nothing_of_the_fold_that_is_compared(folder):
    config = experiment(folder, {"rates": [1e-3, 1e-2], "folds": "nested"})
    assert compared_folds(config) == (0, 1, 2)
    plan = FoldPlan(list("abcdef"), np.array([0, 1, 2, 0, 1, 2]))
    for trial in trials(config):
        inner = FoldPlan(plan.ids, plan.fold, unused=trial.within)
        used = {*inner.training_rows(trial.fold).tolist(), *inner.validation_rows(trial.fold).tolist()}
        assert not used & set(plan.validation_rows(trial.within).tolist())
        assert len(used) == 4
        assert inner.digest != plan.digest


def scores_of(config, values):
    """values: (policy, rate, within) → score"""
    return {trial: values[trial.policy, trial.rate, trial.within] for trial in trials(config)}


def test_the_best_rate_is_chosen_and_of_equal_ones_the_lower(folder):
    tune = {"rates": [1e-1, 1e-3, 1e-2], "folds": [0]}
    config = experiment(folder, tune)
    scores = {
        ("uniform", 1e-3, None): 0.7,
        ("uniform", 1e-2, None): 0.7,
        ("uniform", 1e-1, None): 0.2,
        ("sliced", 1e-3, None): 0.1,
        ("sliced", 1e-2, None): 0.6,
        ("sliced", 1e-1, None): None,
    }
    chosen = choose_rates(scores_of(config, scores), config, TuneConfig(**tune))
    assert {fold: each.rate for fold, each in chosen["uniform"].items()} == {1: 1e-3, 2: 1e-3}
    assert chosen["uniform"][1].at_end
    assert chosen["sliced"][1].variant == "sliced"
    assert not chosen["sliced"][1].at_end


def test_each_fold_chooses_for_itself_where_trials_are_nested(folder):
    config = experiment(folder, {"rates": [1e-3, 1e-2], "folds": "nested"})
    scores = {
        (policy, rate, within): float(rate == (1e-3 if within == 1 else 1e-2))
        for policy in POLICIES
        for rate in (1e-3, 1e-2)
        for within in (0, 1, 2)
    }
    chosen = choose_rates(scores_of(config, scores), config, config.compare.tune)
    assert {fold: each.rate for fold, each in chosen["sliced"].items()} == {0: 1e-2, 1: 1e-3, 2: 1e-2}


@pytest.mark.parametrize("folds", [[0], "nested"])
def test_a_policy_that_diverged_at_every_rate_has_none(folder, folds):
    """Where trials are nested: for any fold."""
    config = experiment(folder, {"rates": [1e-3, 1e-2], "folds": folds})
    scores = {
        each: None if each.policy == "uniform" and each.within in (None, 1) else 0.5 for each in trials(config)
    }
    assert set(choose_rates(scores, config, config.compare.tune)) == {"sliced"}


def test_what_cannot_tune_is_refused(folder):
    def refused(tune, **sections):
        return refusal_of(check_tuning, experiment(folder, tune, **sections))

    rates = [1e-3, 1e-2]
    assert "fold 7 is not among those" in refused({"rates": rates, "folds": [7]})
    assert "none is left to compare" in refused({"rates": rates, "folds": [0, 1, 2]})
    assert "three folds or more" in refused({"rates": rates, "folds": "nested"}, folds={"k": 2})
    with pytest.raises(Exception, match="at least two"):
        TuneConfig(rates=[1e-3])
    with pytest.raises(Exception, match="twice"):
        TuneConfig(rates=[1e-3, 1e-3])


def test_a_name_that_is_taken_is_refused(folder):
    content = experiment_content(folder, compare={"tune": {"rates": [1e-3, 1e-2]}})
    content["policies"] = POLICIES | {"uniform-lr0.001": {"lr": 5.0}}
    assert "rename it" in refusal_of(variants, validate(content, "test"))
