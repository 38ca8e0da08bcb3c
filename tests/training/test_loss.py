"""Losses, class weights and mixing against timm, scikit-learn and the definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from kit.core.errors import KitError
from kit.data.loading import BatchPlan
from kit.training.config import TrainingConfig
from kit.training.loss import build_loss, build_mix, class_weights, row_weights

LOGITS = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(16) % 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_timms_label_smoothing(smoothing):
    ours = build_loss(TrainingConfig(label_smoothing=smoothing), None)(LOGITS, TARGETS)
    torch.testing.assert_close(ours, LabelSmoothingCrossEntropy(smoothing)(LOGITS, TARGETS))


def test_the_loss_of_mixed_targets_is_timms_soft_target_loss():
    shares = torch.softmax(LOGITS.flip(0), dim=1)
    ours = build_loss(TrainingConfig(mixup=0.2, label_smoothing=0.1), None)(LOGITS, shares)
    torch.testing.assert_close(ours, SoftTargetCrossEntropy()(LOGITS, shares))


def test_class_weights_weigh_the_rows():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    rows = -torch.log_softmax(LOGITS, dim=1)[torch.arange(16), TARGETS]
    expected = (rows * weights[TARGETS]).sum() / weights[TARGETS].sum()
    found = build_loss(TrainingConfig(), weights)(LOGITS, TARGETS)
    torch.testing.assert_close(found / row_weights(TrainingConfig(), weights, TARGETS.numpy()).mean(), expected)


@pytest.mark.parametrize("weights", [None, torch.tensor([10.0, 1.0, 0.2, 5.0, 1.0])])
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"mixup": 0.4}])
@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_loss_of_an_update_is_that_of_one_batch(accumulate, processes, multilabel, settings, weights):
    """Gradients, averaged as accelerate and DDP do, against torch's own of all samples at once."""
    config = TrainingConfig(batch_size=32 // accumulate // processes, accumulate=accumulate, **settings)
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(70, 8, generator=draw, dtype=torch.double)
    labels = torch.rand(70, 5, generator=draw) < 0.3 if multilabel else torch.randint(5, (70,), generator=draw)
    given = torch.softmax(torch.randn(70, 5, generator=draw), 1) if config.mixes else labels
    weights = None if weights is None else weights.double()
    counted = row_weights(config, weights, labels.numpy())
    loss, layer = build_loss(config, weights, multilabel), torch.nn.Linear(8, 5).double()
    plan = BatchPlan(3, 1, 70, config.batch_size, accumulate, processes)
    for step in range(plan.total_steps):
        samples, whole = plan.samples(step), torch.zeros(5, 8, dtype=torch.double)
        mean = 1.0 if counted is None else counted[samples].mean()
        for part in samples.reshape(-1, config.batch_size):
            layer.zero_grad()
            (loss(layer(inputs[part]), given[part]) / mean).backward()
            whole += layer.weight.grad / (accumulate * processes)
        rows = samples.ravel()
        layer.zero_grad()
        _torchs(config, weights, multilabel)(layer(inputs[rows]), given[rows]).backward()
        torch.testing.assert_close(whole, layer.weight.grad)


def _torchs(config, weights, multilabel):
    """torch's own loss of a whole batch."""
    if not multilabel:
        smoothing = 0.0 if config.mixes else config.label_smoothing
        return torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing)
    off = config.label_smoothing / 2
    return lambda logits, targets: torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets.double() * (1 - 2 * off) + off, pos_weight=weights
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balanced_weights_are_scikit_learns(targets):
    targets = np.array(targets)
    present = np.unique(targets)
    ours = class_weights(TrainingConfig(class_weights="balanced"), list("abcde"), targets).numpy()
    np.testing.assert_allclose(
        ours[present], compute_class_weight("balanced", classes=present, y=targets), rtol=1e-6
    )
    assert (np.delete(ours, present) == 0).all()


def test_weights_by_name_and_a_name_that_is_no_class():
    config = TrainingConfig(class_weights={"b": 2.5})
    assert class_weights(config, ["a", "b"], np.array([0, 1])).tolist() == [1.0, 2.5]
    assert TrainingConfig(class_weights={3: 2.0}).class_weights == {"3": 2.0}
    with pytest.raises(KitError, match=r"training.class_weights: 'z' is no class; they are a, b"):
        class_weights(TrainingConfig(class_weights={"z": 2.0}), ["a", "b"], np.array([0, 1]))


def test_mixup_mixes_pixels_and_targets_in_the_same_share():
    mix = build_mix(TrainingConfig(mixup=1.0, batch_size=2), n_classes=3)
    images = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    np.random.seed(0)
    mixed, targets, _ = mix(images.clone(), torch.tensor([0, 2]), None)
    share = 1 - mixed[0, 0, 0, 0].item()  # of the first image in the first
    assert 0 < share < 1
    torch.testing.assert_close(targets[0], torch.tensor([share, 0.0, 1 - share]))
    torch.testing.assert_close(mixed[0] + mixed[1], torch.ones(3, 4, 4))


def test_cutmix_replaces_a_box_of_the_share_in_the_targets():
    mix = build_mix(TrainingConfig(cutmix=1.0, batch_size=2), n_classes=2)
    images = torch.stack([torch.zeros(1, 32, 32), torch.ones(1, 32, 32)])
    np.random.seed(3)
    mixed, targets, _ = mix(images.clone(), torch.tensor([0, 1]), None)
    assert set(mixed.unique().tolist()) <= {0.0, 1.0}
    assert targets[0, 1].item() == pytest.approx(mixed[0].mean().item(), abs=1e-6)


def test_nothing_mixes_unless_asked():
    assert build_mix(TrainingConfig(), 3) is None
