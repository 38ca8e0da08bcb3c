"""Samplers: chances against slow loops and torch's sampler, what is drawn, and trainings that draw."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from support.colours import write_competition
from support.miniatures import write_plant_pathology
from support.refusals import refusal_of
from support.trainings import Killed, kill_at, outcome, trainer_of

from kit.core.errors import KitError
from kit.data.loading import BatchPlan, Drawing
from kit.data.workers import Workers
from kit.training.class_weights import class_offsets, class_weights
from kit.training.config import TrainingConfig
from kit.training.sampler import Sampler, chances

LONG = np.repeat([0, 1, 2, 4], [60, 25, 10, 5])  # of 5 classes, one of them without rows
POWERS = st.sampled_from([0.25, 0.5, 1.0, 2.0])


def sampler(setting, targets, multilabel=False) -> Sampler:
    return Sampler(TrainingConfig(sampler=setting).sampler, np.asarray(targets), multilabel)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), POWERS)
def test_the_chance_of_a_row_is_that_of_its_class(targets, power):
    expected = np.array([float(targets.count(each)) ** -power for each in targets])
    found = chances(power, np.array(targets), multilabel=False)
    np.testing.assert_allclose(found, expected / expected.sum())
    hot = np.eye(6)[targets].astype(np.float32)
    np.testing.assert_allclose(chances(power, hot, multilabel=False), found)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=40), POWERS)
def test_the_rarest_label_of_a_row_decides_and_no_label_is_a_class(rows, power):
    counts = [sum(row[label] for row in rows) for label in range(4)]
    without = sum(not any(row) for row in rows)
    rarest = [min([count for count, there in zip(counts, row, strict=True) if there] or [without]) for row in rows]
    expected = np.array(rarest, float) ** -power
    for kind in (bool, np.float32):
        found = chances(power, np.array(rows, kind), multilabel=True)
        np.testing.assert_allclose(found, expected / expected.sum())


def test_with_shares_balanced_draws_a_class_and_then_a_row_by_its_share():
    shares = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5], [0.9, 0.1, 0]])
    by_class = shares / shares.sum(axis=0)
    np.testing.assert_allclose(chances(1.0, shares, multilabel=False), by_class.mean(axis=1))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("balanced", [25, 25, 25, 0, 25]),
        ("sqrt", 100 * np.sqrt([60, 25, 10, 0, 5]) / np.sqrt([60, 25, 10, 5]).sum()),
        ({"power": 2}, 100 / np.array([60, 25, 10, np.inf, 5]) / (1 / np.array([60, 25, 10, 5])).sum()),
    ],
)
def test_over_many_epochs_classes_are_drawn_by_their_shares(setting, expected):
    """And as by torch's WeightedRandomSampler of these weights; each epoch is as many draws as rows."""
    made = sampler(setting, LONG)
    plan = BatchPlan(seed=5, epochs=200, n=100, batch=10, drawing=made.drawing)
    drawn = np.concatenate([plan.samples(step).ravel() for step in range(plan.total_steps)])
    assert len(drawn) == 200 * 100
    counts, there = np.bincount(LONG[drawn], minlength=5), np.array([0, 1, 2, 4])
    expected = np.asarray(expected)
    assert counts[3] == 0
    assert chisquare(counts[there], 200 * expected[there]).pvalue > 0.01
    rows = np.bincount(drawn, minlength=100)
    assert chisquare(rows, 200 * made.counted(None)).pvalue > 0.01  # rows of a class alike
    torchs = torch.utils.data.WeightedRandomSampler(
        made.counted(None).tolist(), 20_000, generator=torch.Generator().manual_seed(1)
    )
    of_torch = np.bincount(LONG[list(torchs)], minlength=5)
    np.testing.assert_allclose(counts / 20_000, of_torch / 20_000, atol=0.02)


def test_drawings_hold_for_shares_of_chances_far_apart():
    drawing = Drawing(chances(4.0, np.repeat([0, 1], [100_000, 1]), multilabel=False))
    assert set(drawing(np.random.default_rng(0))) == {100_000}


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=40), st.integers(0, 2**40), st.integers(0, 9))
def test_what_an_epoch_draws_is_of_seed_epoch_and_labels_alone(targets, seed, epoch):
    first, second = (
        BatchPlan(seed, 10, len(targets), 2, drawing=sampler("sqrt", targets).drawing) for _ in range(2)
    )
    for earlier in range(epoch):
        first.samples(earlier * first.steps_per_epoch)
    step = epoch * first.steps_per_epoch
    np.testing.assert_array_equal(first.samples(step), second.samples(step))


def test_without_a_sampler_nothing_changes():
    made = sampler(None, LONG)
    weights = np.ones(100)
    assert (made.drawing, made.counted(None)) == (None, None)
    assert made.counted(weights) is weights


@pytest.mark.parametrize(("name", "power"), [("balanced", 1.0), ("sqrt", 0.5)])
def test_names_are_powers(name, power):
    named, told = (TrainingConfig(sampler=each) for each in (name, {"power": power}))
    assert named == told
    assert named.canonical()["sampler"] == {"power": power}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("even", "training.sampler = 'even': expected balanced, sqrt, or a power like {power: 0.7}"),
        ({"power": 0}, "training.sampler.power = 0: expected greater than 0"),
        ({"power": 5}, "training.sampler.power = 5: expected less than or equal to 4"),
        ({"power": 1, "name": "sqrt"}, "training.sampler.name: unknown key; known are power"),
        ({}, "training.sampler.power: missing"),
        (0.5, "training.sampler = 0.5: expected balanced, sqrt, or a power like {power: 0.7}"),
    ],
)
def test_a_wrong_sampler_is_told(competition, tmp_path, setting, message):
    assert message in refusal_of(lambda: trainer_of(competition, tmp_path, training={"sampler": setting}))


def long_tailed(competition, tmp_path, **training):
    """A trainer of the miniature competition that draws its rows."""
    settings = {"epochs": 3, "checkpoint_minutes": 0, "log_every": 1, "batch_size": 4, "sampler": "sqrt"}
    return trainer_of(competition, tmp_path, training=settings | training, data={"augment": "heavy"})


def test_a_killed_run_that_draws_ends_with_the_same_bits(competition, tmp_path):
    training = {"loss": "logit_adjusted", "mixup": 0.2}
    whole = long_tailed(competition, tmp_path / "whole", **training)
    expected = outcome(whole, whole.train())
    first = long_tailed(competition, tmp_path / "killed", **training)
    with pytest.raises(Killed):
        first.train(on_step=kill_at(7))
    second = long_tailed(competition, tmp_path / "killed", **training)
    steps = []
    assert outcome(second, second.train(on_step=steps.append)) == expected
    assert steps[0] == 8


def test_extra_rows_with_shares_and_weights_are_drawn_by_their_shares(tmp_path):
    folder = write_competition(tmp_path / "data")
    (folder / "soft.csv").write_text("id,blue,green,red,weight\ntest000,0.5,0.5,0,9\ntest001,0,0.1,0.9,1\n")
    extra = {"table": "soft.csv", "images": "test", "shares": True, "weight": "weight"}
    trainer = trainer_of(
        folder,
        tmp_path,
        competition={"extra": extra},
        training={"sampler": "balanced", "loss": "focal", "epochs": 1},
    )
    rows = trainer.fold.train_rows
    targets = trainer.fold.targets[rows]
    counts = targets.sum(axis=0, dtype=float)
    np.testing.assert_allclose(counts, [8.5, 8.6, 8.9], rtol=1e-6)
    expected = (targets / counts).mean(axis=1)
    np.testing.assert_allclose(np.diff(trainer.plan.drawing._up_to, prepend=0), expected, rtol=1e-6)
    assert np.isfinite(trainer.train().score)


def test_of_several_labels_the_rarest_of_a_row_decides_in_a_training(tmp_path):
    write_plant_pathology(tmp_path / "data", rows=20, test_rows=4)
    labels = {"id": "image", "label": "labels", "separator": " ", "test": None}
    images = {"train_images": "train_images/{image}", "test_images": "test_images/{image}"}
    trainer = trainer_of(
        tmp_path / "data",
        tmp_path,
        competition=labels | images,
        folds={"k": 2},
        scoring={"average": "samples", "rule": "threshold"},
        training={
            "sampler": "sqrt",
            "loss": "asymmetric",
            "class_weights": "balanced",
            "epochs": 1,
            "batch_size": 4,
        },
    )
    there = trainer.fold.targets[trainer.fold.train_rows]
    counts = there.sum(axis=0)
    rarest = np.array([min(counts[row], default=(~there.any(axis=1)).sum()) for row in there])
    expected = rarest**-0.5
    found = np.diff(trainer.plan.drawing._up_to, prepend=0)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-6)
    assert np.isfinite(trainer.train().score)


def test_what_balances_counts_rows_as_they_are_drawn(competition, tmp_path):
    """Under `balanced` class weights are even, and the offsets of logit adjustment are."""
    trainer = trainer_of(competition, tmp_path)
    fold, config = trainer.fold, TrainingConfig(sampler="balanced", class_weights="balanced")
    assert trainer.plan.drawing is None
    rows = np.r_[np.flatnonzero(fold.targets == 0), np.flatnonzero(fold.targets == 1)[:3]]
    targets = fold.targets[rows]
    made = Sampler(config.sampler, targets, multilabel=False)
    weights = class_weights(config, ["a", "b"], targets, made.counted(None))
    np.testing.assert_allclose(weights, [1, 1])
    adjusted = TrainingConfig(sampler="sqrt", loss="logit_adjusted")
    of_rows = np.where(targets == 0, 1.0, 2.0)
    made = Sampler(adjusted.sampler, targets, multilabel=False)
    offsets = class_offsets(adjusted, 2, targets, made.counted(of_rows))
    seen = np.sqrt([12, 3]) * [1, 2]
    np.testing.assert_allclose(offsets, np.log(seen / seen.sum()), rtol=1e-6)


def test_a_slow_obvious_loop_visits_the_same_rows(competition, tmp_path):
    trainer = long_tailed(competition, tmp_path)
    targets = trainer.fold.targets[trainer.fold.train_rows]
    expected = Sampler(trainer.config.sampler, targets, multilabel=False)
    assert trainer.plan.steps_per_epoch == len(targets) // 4
    plan = BatchPlan(trainer.seed, 3, len(targets), 4, drawing=expected.drawing)
    assert list(plan.micro_batches()) == list(trainer.plan.micro_batches())
    batches = list(trainer.batches.after(0, Workers()))
    for (_, seen), batch in zip(batches, plan.micro_batches(), strict=True):
        assert seen.tolist() == [targets[sample] for _, sample, _ in batch]


def test_a_loss_that_balances_twice_is_refused(competition, tmp_path):
    wrong = {"loss": "logit_adjusted", "class_weights": "balanced"}
    with pytest.raises(KitError, match="take one of the two"):
        trainer_of(competition, tmp_path, training=wrong)
