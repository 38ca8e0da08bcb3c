"""training.average: the plain mean of the weights over the last share of the updates."""

import numpy as np
import pytest
import torch
from support.colours import experiment_content
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.experiment.config import validate
from kit.training.averaging import LastWeights
from kit.training.config import AverageConfig

SWA = {"average": {"kind": "swa", "last": 0.5}, "epochs": 4, "evaluate_every": 1}


def averaging(competition, output, **training):
    return trainer_of(competition, output, training=SWA | training)


def test_what_is_scored_and_saved_is_the_mean_over_the_last_updates(competition, tmp_path):
    trainer, kept = averaging(competition, tmp_path), []

    def keep(step):
        kept.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})

    trained = trainer.train(on_step=keep).model
    last = kept[len(kept) // 2 :]
    assert trainer.ema.averaged.n_averaged == len(last) == trainer.plan.total_steps // 2
    for name, value in trained.named_parameters():
        mean = torch.stack([each[name].double() for each in last]).mean(0)
        torch.testing.assert_close(value.detach().double(), mean, rtol=1e-4, atol=1e-6, msg=name)
    assert any(not torch.equal(value, kept[-1][name]) for name, value in trained.named_parameters())


def test_norms_are_estimated_for_the_mean_unless_told_not_to(competition, tmp_path):
    norms = {}
    for count in (None, 50, 0):
        trained = averaging(competition, tmp_path / str(count), norm_batches=count).train().model
        norms[count] = {name: value for name, value in trained.named_buffers() if "running" in name}
    assert all(torch.equal(value, norms[50][name]) for name, value in norms[None].items())
    assert not any(torch.equal(value, norms[50][name]) for name, value in norms[0].items())


def test_scores_before_the_first_update_that_counts_are_those_of_the_model_itself(competition, tmp_path):
    average = {"average": {"last": 0.25}}
    scores = {}
    for name, training in (("mean", SWA | average), ("plain", {"epochs": 4, "evaluate_every": 1})):
        trainer = trainer_of(competition, tmp_path / name, training=training)
        trainer.train()
        lines = [line for line in trainer.history.lines if "valid_loss" in line]
        scores[name] = [(line["valid_score"], line["valid_loss"]) for line in lines]
    assert scores["mean"][:3] == scores["plain"][:3]
    assert scores["mean"][3] != scores["plain"][3]


@pytest.mark.parametrize("at", [2, 5])
def test_a_killed_run_ends_with_the_same_bits(competition, tmp_path, at):
    """Before an update counts, and after."""
    always = {"checkpoint_minutes": 0, "log_every": 1, "batch_size": 12}
    whole = averaging(competition, tmp_path / "whole", **always)
    assert whole.ema.first == 4
    expected = outcome(whole, whole.train())
    first = averaging(competition, tmp_path / "killed", **always)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(at))
    second = averaging(competition, tmp_path / "killed", **always)
    assert outcome(second, second.train()) == expected


def test_scoring_in_between_changes_no_bit(competition, tmp_path):
    weights = [
        averaging(competition, tmp_path / str(every), evaluate_every=every).train().model.state_dict()
        for every in (0, 1)
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(("last", "total", "first"), [(0.25, 100, 75), (1, 10, 0), (0.001, 10, 9), (0.5, 3, 1)])
def test_which_updates_count(last, total, first):
    assert LastWeights.of(AverageConfig(kind="swa", last=last), torch.nn.Linear(1, 1), total).first == first


def test_the_mean_is_that_of_numpy():
    model = torch.nn.Linear(3, 2)
    last, seen, generator = LastWeights(model, 2), [], np.random.default_rng(0)
    for step in range(7):
        values = torch.tensor(generator.standard_normal((2, 3)), dtype=torch.float32)
        with torch.no_grad():
            model.weight.copy_(values)
        last.update(model, step)
        seen.append(values.numpy())
    np.testing.assert_allclose(last.module.weight.detach().numpy(), np.mean(seen[2:], axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("training", "said"),
    [
        (SWA | {"ema": 0.9}, "ema and average are two averages of the weights"),
        ({"average": {"last": 0}}, "training.average.last"),
        ({"average": {"kind": "mean"}}, "training.average.kind"),
        ({"average": "mean"}, "like {kind: swa, last: 0.25}"),
    ],
)
def test_what_cannot_be_is_refused(competition, training, said):
    assert said in refusal_of(lambda: validate(experiment_content(competition, training=training), "test"))
