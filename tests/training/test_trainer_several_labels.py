"""Training where a row may have several labels: loss, mixing, weights, and probabilities a class."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.colours import experiment_content
from support.miniatures import write_plant_pathology
from torch.nn.functional import binary_cross_entropy_with_logits

from kit import run
from kit.core.runs import read_predictions
from kit.experiment.config import validate
from kit.training.class_weights import class_weights
from kit.training.config import TrainingConfig
from kit.training.loss import build_loss, build_mix

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.4


def by_hand(logits, targets, weights=None) -> float:
    """The mean of −w·y·log σ(x) − (1 − y)·log(1 − σ(x)), in double precision."""
    x, y = logits.double().numpy(), targets.double().numpy()
    w = np.ones(x.shape[1]) if weights is None else np.asarray(weights)
    chance = 1 / (1 + np.exp(-x))
    return float(np.mean(-w * y * np.log(chance) - (1 - y) * np.log(1 - chance)))


def test_the_loss_is_the_mean_binary_cross_entropy():
    loss = build_loss(TrainingConfig(), None, multilabel=True)(LOGITS, TARGETS)
    assert loss.item() == pytest.approx(by_hand(LOGITS, TARGETS), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_smoothing_moves_targets_towards_a_half(smoothing):
    loss = build_loss(TrainingConfig(label_smoothing=smoothing), None, multilabel=True)(LOGITS, TARGETS)
    smoothed = torch.where(TARGETS, 1 - smoothing / 2, smoothing / 2)
    assert loss.item() == pytest.approx(by_hand(LOGITS, smoothed), rel=1e-6)


def test_mixed_targets_are_smoothed_as_plain_ones_are():
    shares = torch.rand(6, 4, generator=torch.Generator().manual_seed(2))
    loss = build_loss(TrainingConfig(mixup=0.3, label_smoothing=0.2), None, multilabel=True)(LOGITS, shares)
    assert loss.item() == pytest.approx(by_hand(LOGITS, 0.8 * shares + 0.1), rel=1e-6)


def test_weights_are_of_the_labels_that_are_there():
    weights = torch.tensor([1.0, 2.0, 0.5, 7.0])
    loss = build_loss(TrainingConfig(), weights, multilabel=True)(LOGITS, TARGETS)
    assert loss.item() == pytest.approx(by_hand(LOGITS, TARGETS, weights), rel=1e-6)


def test_the_loss_and_its_gradient_are_finite_for_certain_logits():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = build_loss(TrainingConfig(), None, multilabel=True)(logits, torch.tensor([[False, True]]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.tolist() == [[0.5, -0.5]]


def test_the_loss_takes_half_precision():
    loss = build_loss(TrainingConfig(), None, multilabel=True)(LOGITS.bfloat16(), TARGETS)
    expected = binary_cross_entropy_with_logits(LOGITS.bfloat16().float(), TARGETS.float())
    assert loss.float().item() == pytest.approx(expected.item(), rel=2e-2)


@given(data=st.data(), rows=st.integers(1, 20))
@settings(max_examples=40, deadline=None, database=None)
def test_balanced_weights_are_rows_without_a_class_over_rows_with_it(data, rows):
    cells = data.draw(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=rows, max_size=rows))
    targets = np.array(cells, dtype=bool)
    weights = class_weights(TrainingConfig(class_weights="balanced"), list("abc"), targets).numpy()
    for place in range(3):
        there = int(targets[:, place].sum())
        expected = (rows - there) / there if 0 < there < rows else 1.0
        assert weights[place] == pytest.approx(expected)
        # Weighed so, a class counts as much where it is as where it is not.
        if 0 < there < rows:
            assert weights[place] * there == pytest.approx(rows - there, rel=1e-6)


@pytest.mark.parametrize("kind", [bool, np.float32])
@pytest.mark.parametrize("seed", range(10))
def test_a_label_that_all_or_no_rows_have_is_not_balanced_whatever_rows_weigh(seed, kind):
    """The sum of all weights and that of the rows with the label differ by rounding alone."""
    generator = np.random.default_rng(seed)
    of_rows = generator.uniform(0.1, 2, 1000)
    targets = np.stack([np.ones(1000), np.zeros(1000), generator.random(1000) < 0.3], axis=1).astype(kind)
    config = TrainingConfig(class_weights="balanced")
    weights = class_weights(config, list("abc"), targets, of_rows, multilabel=True)
    there = of_rows[targets[:, 2] > 0].sum()
    assert weights.tolist() == pytest.approx([1, 1, (of_rows.sum() - there) / there])


def test_weights_by_name():
    config = TrainingConfig(class_weights={"b": 3.0})
    assert class_weights(config, ["a", "b"], np.ones((2, 2), bool)).tolist() == [1.0, 3.0]


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_mixed_in_the_share_of_the_pixels(method, seed):
    """Each image has a grey level of its own, which tells how much of it is in a mixed one."""
    levels = torch.tensor([0.0, 1.0, 10.0, 100.0])
    images = levels[:, None, None, None].expand(4, 1, 32, 32).clone()
    targets = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)
    mix = build_mix(TrainingConfig(**{method: 1.0}, batch_size=4), n_classes=3, multilabel=True)
    np.random.seed(seed)
    mixed, labels, _ = mix(images.clone(), targets, None)
    assert labels.shape == (4, 3)
    for row in range(4):
        other = 3 - row  # timm mixes a batch with itself turned around
        share = ((mixed[row].mean() - levels[other]) / (levels[row] - levels[other])).item()
        assert 0 <= share <= 1
        expected = share * targets[row].float() + (1 - share) * targets[other].float()
        torch.testing.assert_close(labels[row], expected, atol=1e-5, rtol=0)


def test_one_label_is_mixed_as_before():
    mix = build_mix(TrainingConfig(mixup=1.0, batch_size=2), n_classes=3)
    np.random.seed(0)
    _, labels, _ = mix(torch.zeros(2, 1, 8, 8), torch.tensor([0, 2]), None)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(2))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """One fold trained on photos with several labels, mixed and smoothed, under a decision rule that is stated."""
    root = tmp_path_factory.mktemp("several")
    write_plant_pathology(root / "data", rows=20, test_rows=4)
    content = experiment_content(
        root / "data",
        name="leaves",
        competition={"id": "image", "label": "labels", "separator": " ", "test": None}
        | {"train_images": "train_images/{image}", "test_images": "test_images/{image}"},
        folds={"k": 2, "run": [1]},
        training={"epochs": 1, "batch_size": 4, "label_smoothing": 0.1, "class_weights": "balanced"}
        | {"mixup": 0.2, "cutmix": 0.2},
        scoring={"average": "samples", "rule": "threshold", "at_least": 1, "at_most": 2},
    )
    return root, run(validate(content, "test"), root)


def test_probabilities_are_of_each_class_by_itself(mixed):
    root, _ = mixed
    oof = read_predictions(root / "runs/leaves/uniform/oof.parquet")
    assert oof.shape[1] == 6
    assert ((oof > 0) & (oof < 1)).all(axis=None)
    assert (oof.sum(axis=1) - 1).abs().max() > 0.05  # a softmax would sum to 1


def test_the_limits_of_the_config_hold_in_the_submission(mixed):
    root, result = mixed
    cells = pd.read_csv(result.policies["uniform"].submission)["labels"]
    assert {len(cell.split(" ")) for cell in cells} <= {1, 2}
    scores = json.loads((root / "runs/leaves/uniform/scores.json").read_text())
    assert (scores["rule"]["kind"], scores["rule"]["at_least"], scores["rule"]["at_most"]) == ("threshold", 1, 2)
    assert [rule["name"] for rule in scores["rules"]] == ["threshold"]


def test_only_the_fold_that_was_run_is_scored(mixed):
    root, result = mixed
    plan = pd.read_csv(root / "runs/leaves/folds.csv").set_index("id")["fold"]
    oof = read_predictions(root / "runs/leaves/uniform/oof.parquet")
    assert set(oof.index) == set(plan.index[plan == 1])
    scores = result.policies["uniform"].scores
    assert 0 < len(oof) < len(plan)
    assert (scores.oof_rows, scores.train_rows) == (len(oof), 20)
