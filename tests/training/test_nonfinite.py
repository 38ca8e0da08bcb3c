"""Losses that are not finite: updates that are left out, and which update broke the weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of
from torch import nn

from kit.training.config import TrainingConfig
from kit.training.micro_batch import halved, with_micro_batch
from kit.training.nonfinite import Lowered, all_finite, first_broken, largest_update

SKIP = {"on_nonfinite": "skip", "log_every": 1, "checkpoint_minutes": 0, "epochs": 3, "ema": 0.5}


class BadLoss(nn.Module):
    """A loss that is not finite at some updates: by its value, or by its gradient alone."""

    def __init__(self, trainer, steps, by="value"):
        super().__init__()
        self.trainer, self.loss, self.steps, self.by = trainer, trainer.objective.loss, steps, by

    def forward(self, logits, targets):
        loss = self.loss(logits, targets)
        if self.trainer.made not in self.steps:
            return loss
        if self.by == "gradient":  # of √0 it is infinite, times 0 it is not a number
            return loss + (logits * 0).abs().sqrt().sum()
        return loss * torch.inf


def broken(competition, output, steps, by="value", **sections):
    trainer = trainer_of(competition, output, **({"training": SKIP} | sections))
    trainer.objective.loss = BadLoss(trainer, steps, by)
    return trainer


def state_of(trainer) -> list[torch.Tensor]:
    optimizer = [value for each in trainer.optimizer.state.values() for value in each.values()]
    return [*trainer.model.state_dict().values(), *trainer.ema.module.state_dict().values(), *optimizer]


@pytest.mark.parametrize("by", ["value", "gradient"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_that_is_left_out_changes_nothing_but_the_step(competition, tmp_path, by, accumulate):
    training = SKIP | {"accumulate": accumulate, "batch_size": 8 // accumulate, "clip_grad": 1.0}
    trainer = broken(competition, tmp_path, {2, 5}, by, training=training)
    states = []

    def keep(step):
        states.append([value.clone() for value in state_of(trainer)])

    trained = trainer.train(on_step=keep)
    same = [len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in pairwise(states)]
    assert np.flatnonzero(same).tolist() == [1, 4]  # from update 1 to 2, from 4 to 5
    assert trainer.rates.skipped == {2, 5}
    assert trained.steps == 9
    assert np.isfinite(trained.probabilities).all()
    np.testing.assert_array_equal(trainer.rates.lr[:, 0], [trainer.rates.intended(s).lr[0] for s in range(9)])
    logged = [line["step"] for line in trainer.history.lines if "loss" in line]
    assert logged == [1, 2, 4, 5, 7, 8, 9]


def test_without_a_bad_loss_it_gives_the_same_bits(competition, tmp_path):
    made = []
    for name in ("skip", "stop"):
        trainer = trainer_of(competition, tmp_path / name, training=SKIP | {"on_nonfinite": name})
        made.append(outcome(trainer, trainer.train()))
    assert made[0] == made[1]


@pytest.mark.parametrize("policy", [{"controller": "lamb"}, {"controller": "temp_balance"}])
def test_controllers_and_probes_go_on_and_a_killed_run_ends_with_the_same_bits(competition, tmp_path, policy):
    sections = {
        "policies": {"uniform": {"lr": 1e-2, "groups": "stage"} | policy},
        "training": SKIP | {"probes": {"every": 1}},
    }
    whole = broken(competition, tmp_path / "whole", {0, 4, 8}, **sections)
    expected = outcome(whole, whole.train())
    first = broken(competition, tmp_path / "killed", {0, 4, 8}, **sections)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(5))
    second = broken(competition, tmp_path / "killed", {0, 4, 8}, **sections)
    assert outcome(second, second.train()) == expected
    assert second.rates.skipped == {0, 4, 8}
    assert second.probes.steps == [1, 2, 3, 5, 6, 7]
    assert len(second.probes.counts) == 6


def test_too_many_in_a_row_end_the_training(competition, tmp_path):
    trainer = broken(competition, tmp_path, set(range(2, 50)), training=SKIP | {"epochs": 6})
    message = refusal_of(trainer.train)
    assert message.startswith("the loss or the gradient was not finite in 10 updates in a row, up to step 11, and")
    assert all_finite(trainer.model.state_dict().values())


def test_what_is_finite():
    big = torch.full((3,), 1e38)
    assert all_finite([big, torch.tensor([2**40]), torch.empty(0), torch.ones(2, dtype=torch.bool)])
    assert all_finite([])
    assert not all_finite([big, torch.tensor(float("nan"))])
    assert not all_finite([big, -torch.tensor([1.0, float("inf")])])


def test_the_first_broken_loss_is_one_that_was_not_left_out():
    losses = np.array([1.0, np.nan, 2.0, np.inf])
    assert first_broken(losses, 10, ()) == 11
    assert first_broken(losses, 10, {11}) == 13
    assert first_broken(losses, 10, {11, 13}) is None


@pytest.mark.parametrize("step", [0, 3])
def test_the_largest_update_is_that_of_a_slow_loop(competition, tmp_path, step):
    sections = {"policies": {"uniform": {"lr": "slice(1e-4, 1e-2)", "groups": "stage"}}}
    trainer = trainer_of(competition, tmp_path / "slow", **sections)

    def norms():
        return [
            np.concatenate([value.detach().double().flatten().numpy() for value in group.parameters.values()])
            for group in trainer.groups
        ]

    before = norms()
    for made in trainer.updates():
        if made == step:
            break
        before = norms()
    ratios = [np.linalg.norm(now - old) / np.linalg.norm(old) for now, old in zip(norms(), before, strict=True)]
    label, ratio = largest_update(trainer_of(competition, tmp_path / "again", **sections), step)
    assert label == trainer.rates.groups[int(np.argmax(ratios))].label
    assert ratio == pytest.approx(max(ratios), rel=1e-9)


def test_lowered_rates_are_all_multiplied(competition, tmp_path):
    trainer = trainer_of(
        competition, tmp_path, policies={"uniform": {"lr": "slice(1e-4, 1e-2)", "groups": "stage"}}
    )
    stated = trainer.rates.policy
    trainer.rates.policy = Lowered(stated, 1 / 9)
    for step in range(trainer.plan.total_steps):
        low = trainer.rates.intended(step)
        trainer.rates.policy = stated
        full = trainer.rates.intended(step)
        trainer.rates.policy = Lowered(stated, 1 / 9)
        np.testing.assert_allclose(low.lr, full.lr / 9, rtol=1e-12)
        assert low.momentum == full.momentum
        np.testing.assert_array_equal(low.frozen, full.frozen)
    assert Lowered(stated, 1 / 9).peak == pytest.approx(stated.peak / 9)


@pytest.mark.parametrize(
    ("batch_size", "mixup", "norms", "half"),
    [
        (8, 0, True, 4),
        (2, 0, True, None),
        (2, 0, False, 1),
        (1, 0, False, None),
        (5, 0, False, None),
        (6, 0.2, False, None),
        (8, 0.2, True, 4),
    ],
)
def test_micro_batches_that_halve(batch_size, mixup, norms, half):
    config = TrainingConfig(batch_size=batch_size, accumulate=3, mixup=mixup)
    assert halved(config, norms) == half
    smaller = with_micro_batch(config, half)
    assert smaller.batch_size * smaller.accumulate == 3 * batch_size
