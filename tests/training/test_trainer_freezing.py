"""Frozen depth: no gradients, nothing moves, everything restored; in one process and in two."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from support.commands import TORCHRUN, config_file, kit_run
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.core.errors import KitError
from kit.model.build import weights_digest

HEAD_THEN_ALL = {"lr": 1e-2, "groups": "stage", "phases": [{"fraction": 0.5, "freeze_to": -1}, {}]}
GRADUAL = {"lr": 1e-2, "groups": "coarse", "profile": {"name": "gradual_unfreezing", "every": 0.5}}


def trainer_under(competition, path, policy, **sections):
    """The miniature's own policy is replaced, whose keys would else be merged."""
    return trainer_of(competition, path, policies={"uniform": policy}, **sections)


def norm_names(model):
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm)
        for key in ("weight", "bias")
    }


def watch(trainer, state, gradients, seen):
    """Notes after each update which parameters moved, and which had a gradient in it."""
    before = copy.deepcopy(dict(trainer.model.named_parameters()))
    step = trainer.optimizer.step

    def noted():
        gradients.append({name for name, value in trainer.model.named_parameters() if value.grad is not None})
        step()

    trainer.optimizer.step = noted

    def on_step(number):
        moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
        state.append(moved)
        seen.append({name for name, module in trainer.model.named_modules() if not module.training})
        before.update(copy.deepcopy(dict(trainer.model.named_parameters())))

    return on_step


@pytest.mark.parametrize("train_norm", [True, False])
@pytest.mark.parametrize(
    "model",
    [
        {"name": "test_resnet", "options": {"zero_init_last": False}},  # else some gradients are 0 at first
        {"name": "test_vit"},
    ],
)
def test_only_what_is_not_frozen_moves_and_then_everything(competition, tmp_path, train_norm, model):
    policy = HEAD_THEN_ALL | {"train_norm": train_norm}
    trainer = trainer_under(competition, tmp_path, policy, model=model, training={"evaluate_every": 1})
    moved, gradients, still = [], [], []
    trainer.train(on_step=watch(trainer, moved, gradients, still))
    head, everything = set(trainer.groups[-1].parameters), {name for name, _ in trainer.model.named_parameters()}
    norms = norm_names(trainer.model) if train_norm else set()
    assert moved[:3] == [head | norms] * 3
    assert gradients[:3] == [head | norms] * 3
    assert gradients[3:] == [everything] * 3
    assert moved[3:5] == [everything] * 2
    batch_norms = {
        name for name, module in trainer.model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)
    }
    assert still[:3] == [set() if train_norm else batch_norms] * 3
    assert still[3:] == [set()] * 3
    assert trainer.rates.frozen[:3].all(axis=0).tolist() == [True] * (len(trainer.groups) - 1) + [False]
    assert not trainer.rates.frozen[3:].any()


def test_running_statistics_stand_still_with_norms_that_do_not_learn(competition, tmp_path):
    """Also over the evaluation in between, which puts the whole model to `eval` and back."""
    statistics = {}
    for train_norm in (True, False):
        policy = {"lr": 1e-2, "groups": "stage", "freeze_to": -1, "train_norm": train_norm}
        trainer = trainer_under(competition, tmp_path / str(train_norm), policy, training={"evaluate_every": 1})
        before = {name: value.clone() for name, value in trainer.model.named_buffers()}
        trainer.train()
        statistics[train_norm] = [
            torch.equal(value, before[name]) for name, value in trainer.model.named_buffers() if "running" in name
        ]
    assert not any(statistics[True])
    assert all(statistics[False])


def test_a_rate_of_zero_freezes_norms_too(competition, tmp_path):
    policy = {"lr": 1e-2, "groups": "stage", "profile": {"name": "explicit", "groups": {"stem": 0}}}
    trainer = trainer_under(competition, tmp_path, policy)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    for name in trainer.groups[0].parameters:
        assert torch.equal(trainer.model.state_dict()[name], before[name])
        assert not dict(trainer.model.named_parameters())[name].requires_grad


def test_parameters_that_never_learned_do_not_begin_to(competition, tmp_path):
    trainer = trainer_under(competition, tmp_path, HEAD_THEN_ALL)
    fixed = trainer.model.layer1[0].conv1.weight
    fixed.requires_grad_(False)
    trainer.rates.__init__(
        trainer.rates.policy, trainer.groups, trainer.plan.total_steps, trainer.plan.steps_per_epoch
    )
    before = fixed.clone()
    trainer.train()
    assert torch.equal(fixed, before)
    assert not fixed.requires_grad


@pytest.mark.parametrize(
    "policy",
    [
        HEAD_THEN_ALL,
        GRADUAL,
        *({"lr": 1e-2, "groups": "stage", "controller": name} for name in ("lamb", "temp_balance")),
    ],
)
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_run_ends_with_the_same_bits(competition, tmp_path, policy, killed_after):
    settings = {"training": {"checkpoint_minutes": 0, "log_every": 1, "ema": 0.9}}
    whole = trainer_under(competition, tmp_path / "whole", policy, **settings)
    expected = outcome(whole, whole.train())
    first = trainer_under(competition, tmp_path / "killed", policy, **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(killed_after))
    second = trainer_under(competition, tmp_path / "killed", policy, **settings)
    assert outcome(second, second.train()) == expected
    assert (second.rates.frozen == whole.rates.frozen).all()
    for name, values in whole.rates.signals.items():
        np.testing.assert_array_equal(second.rates.signals[name], values)


def test_something_that_unfreezes_is_found(competition, tmp_path):
    trainer = trainer_under(competition, tmp_path, HEAD_THEN_ALL)

    def meddle(step):
        if step == 0:
            trainer.model.requires_grad_(True)

    with pytest.raises(KitError, match=r"step 1: depth group conv1 has other gradients than the policy says"):
        trainer.train(on_step=meddle)


def test_one_weight_that_is_turned_off_is_found(competition, tmp_path):
    trainer = trainer_under(competition, tmp_path, {"lr": 1e-2, "groups": "stage"})

    def meddle(step):
        if step == 2:
            trainer.model.layer2[0].conv1.weight.requires_grad_(False)

    with pytest.raises(KitError, match=r"step 3: depth group layer2.0 has other gradients than the policy says"):
        trainer.train(on_step=meddle)


@pytest.mark.slow
def test_two_processes_freeze_as_one_does(competition, tmp_path):
    """Each process's DistributedDataParallel is made anew where other parameters get gradients."""
    from kit import load_experiment, run

    settings = {
        "model": {"name": "test_vit"},  # no batch norm, whose statistics are of half a batch
        "data": {"augment": "none"},
        "policies": {
            "uniform": {"lr": 1e-3, "groups": "block", "profile": {"name": "gradual_unfreezing", "every": 0.25}}
        },
        "folds": {"run": [0]},
    }
    two = config_file(competition, tmp_path / "two.yaml", training={"batch_size": 4}, **settings)
    one = config_file(competition, tmp_path / "one.yaml", training={"batch_size": 8}, **settings)
    process = kit_run(two, tmp_path / "two", *TORCHRUN)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    run(load_experiment(one), tmp_path / "one")
    folders = [tmp_path / name / "runs/tiny/uniform/seed0/fold0" for name in ("one", "two")]
    with np.load(folders[1] / "rates.npz") as rates:
        assert len({tuple(row) for row in rates["frozen"].tolist()}) > 2
    oof = [pd.read_parquet(folder / "oof.parquet") for folder in folders]
    np.testing.assert_allclose(oof[1].iloc[:, 1:], oof[0].iloc[:, 1:], atol=1e-5)
    assert [json.loads((folder / "run.json").read_text())["processes"] for folder in folders] == [1, 2]


def test_freezing_nothing_changes_no_bit(competition, tmp_path):
    """A policy of phases that freeze nothing is the same training as without phases."""
    plain = {"lr": 1e-2, "groups": "stage", "schedule": "constant"}
    phased = plain | {"phases": [{"fraction": 0.5}, {}]}
    digests = []
    for name, policy in {"plain": plain, "phased": phased}.items():
        digests.append(weights_digest(trainer_under(competition, tmp_path / name, policy).train().model))
    assert digests[0] == digests[1]
