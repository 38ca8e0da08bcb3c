"""Optimizers that average the weights by themselves, and batch norms that are estimated anew."""

import copy

import numpy as np
import pytest
import torch
from support.colours import experiment_content
from support.trainings import Killed, kill_at, outcome, trainer_of
from torch import nn

from kit import KitError, run
from kit.core.runs import RunDir
from kit.experiment.config import validate
from kit.training.saved_weights import load_weights

FREE = {"training": {"optimizer": {"name": "schedulefree:AdamWScheduleFree"}, "epochs": 3}}
WARM = {"name": "constant", "warmup": 0.2}
PROFILE = {"policies": {"uniform": {"lr": 1e-2, "schedule": WARM, "profile": "layer_decay"}}}


def free(competition, output, training=None, **sections):
    pytest.importorskip("schedulefree")
    return trainer_of(competition, output, training=FREE["training"] | (training or {}), **PROFILE, **sections)


@pytest.mark.parametrize("optimizer", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_a_killed_run_ends_with_the_same_bits(competition, tmp_path, optimizer):
    training = {
        "optimizer": {"name": f"schedulefree:{optimizer}"},
        "checkpoint_minutes": 0,
        "log_every": 1,
        "evaluate_every": 1,
    }
    whole = free(competition, tmp_path / "whole", training)
    expected = outcome(whole, whole.train())
    first = free(competition, tmp_path / "killed", training)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(4))
    second = free(competition, tmp_path / "killed", training)
    assert outcome(second, second.train()) == expected


def test_scoring_in_between_changes_no_bit(competition, tmp_path):
    weights = []
    for every in (0, 1):
        trainer = free(competition, tmp_path / str(every), {"evaluate_every": every})
        weights.append(trainer.train().model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_what_is_scored_and_saved_is_the_average_by_its_definition(competition, tmp_path):
    """x = Σ w_k z_k / Σ w_k over the iterates z, w_k the square of the largest rate so far, group by group."""
    trainer = free(competition, tmp_path)
    optimizer = trainer.optimizer.optimizer
    sums = {}

    def follow(step):
        for group in optimizer.param_groups:
            weight = group["lr_max"] ** 2
            for value in group["params"]:
                total, sum_of_weights = sums.get(value, (0, 0))
                sums[value] = total + weight * optimizer.state[value]["z"].double(), sum_of_weights + weight

    trained = trainer.train(on_step=follow)
    for name, value in trained.model.named_parameters():
        total, sum_of_weights = sums[value]
        torch.testing.assert_close(value.detach().double(), total / sum_of_weights, rtol=1e-3, atol=1e-5, msg=name)


def test_norms_are_those_of_the_average_on_training_batches(competition, tmp_path):
    """Each running statistic is the mean over batches of the statistics of what the layer is fed."""
    trainer = free(competition, tmp_path)
    model = copy.deepcopy(trainer.train().model).eval()
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    seen = {name: [] for name in norms}
    for name, module in norms.items():
        module.train()
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].detach()))
    with torch.no_grad():
        for inputs in trainer._some_inputs(50):
            model(inputs)
    for name, module in trainer.model.named_modules():
        if name in seen:
            expected = torch.stack([each.mean((0, 2, 3)) for each in seen[name]]).mean(0)
            torch.testing.assert_close(module.running_mean, expected, rtol=1e-4, atol=1e-5)
            expected = torch.stack([each.var((0, 2, 3)) for each in seen[name]]).mean(0)
            torch.testing.assert_close(module.running_var, expected, rtol=1e-4, atol=1e-5)
            assert module.momentum == 0.1


def test_norms_of_a_moving_average_are_estimated_where_it_is_asked_for(competition, tmp_path):
    settings = {"training": {"ema": 0.9, "epochs": 2}}
    plain = trainer_of(competition, tmp_path / "plain", **settings).train().model.state_dict()
    settings["training"]["norm_batches"] = 2
    other = trainer_of(competition, tmp_path / "other", **settings)
    found = other.train().model.state_dict()
    for name, value in plain.items():
        if "num_batches" not in name:
            assert torch.equal(value, found[name]) is not ("running_" in name), name


def test_frozen_norms_keep_their_statistics(competition, tmp_path):
    frozen = {"uniform": {"lr": 1e-2, "freeze_to": -1, "train_norm": False}}
    trainer = trainer_of(competition, tmp_path, policies=frozen, training={"norm_batches": 2, "epochs": 1})
    generator = torch.Generator().manual_seed(0)
    for name, value in trainer.model.named_buffers():
        if "running" in name:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    before = {name: value.clone() for name, value in trainer.model.named_buffers()}
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_buffers())


def test_a_run_killed_after_its_last_update_keeps_what_was_frozen(competition, tmp_path):
    training = {"norm_batches": 2, "epochs": 2, "checkpoint_minutes": 0, "log_every": 1}
    settings = {
        "training": training,
        "policies": {"uniform": {"lr": 1e-2, "freeze_to": 2, "train_norm": False}},
        "model": {"name": "test_resnet"},
    }
    whole = trainer_of(competition, tmp_path / "whole", **settings)
    expected = outcome(whole, whole.train())
    first = trainer_of(competition, tmp_path / "killed", **settings)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(first.plan.total_steps - 1))
    second = trainer_of(competition, tmp_path / "killed", **settings)
    assert outcome(second, second.train())[:3] == expected[:3]


def test_the_run_is_saved_as_it_was_scored(competition, tmp_path):
    pytest.importorskip("schedulefree")
    config = validate(experiment_content(competition, folds={"run": [0]}, **FREE, **PROFILE), "test")
    run(config, tmp_path)
    folder = tmp_path / "runs/tiny/uniform/seed0/fold0"
    trainer = free(competition, tmp_path / "other", folds={"run": [0]})
    load_weights(RunDir(folder), trainer.final_model)
    import pandas as pd

    saved = pd.read_parquet(folder / "oof.parquet").set_index("id")
    ids = [trainer.fold.images.ids[row] for row in trainer.fold.valid_rows]
    np.testing.assert_allclose(trainer.evaluate(), saved.loc[ids], atol=1e-6)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"policies": {"uniform": {"lr": 1e-2}}},
            "policies.uniform: moves the momentum, by which schedulefree:AdamWScheduleFree",
        ),
        ({"training": FREE["training"] | {"ema": 0.9}}, "training.ema: schedulefree:AdamWScheduleFree averages"),
        (
            {"training": FREE["training"] | {"average": {}}},
            "training.average: schedulefree:AdamWScheduleFree averages",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(competition, tmp_path, sections, said):
    pytest.importorskip("schedulefree")
    with pytest.raises(KitError, match=said):
        run(validate(experiment_content(competition, **FREE | PROFILE | sections), "test"), tmp_path)
