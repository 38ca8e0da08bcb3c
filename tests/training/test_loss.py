"""Losses, class weights and mixing against timm, scikit-learn and the definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

from kit.core.errors import KitError
from kit.training.config import TrainingConfig
from kit.training.loss import build_loss, build_mix, class_weights

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
    torch.testing.assert_close(build_loss(TrainingConfig(), weights)(LOGITS, TARGETS), expected)


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
    mixed, targets = mix(images.clone(), torch.tensor([0, 2]))
    share = 1 - mixed[0, 0, 0, 0].item()  # of the first image in the first
    assert 0 < share < 1
    torch.testing.assert_close(targets[0], torch.tensor([share, 0.0, 1 - share]))
    torch.testing.assert_close(mixed[0] + mixed[1], torch.ones(3, 4, 4))


def test_cutmix_replaces_a_box_of_the_share_in_the_targets():
    mix = build_mix(TrainingConfig(cutmix=1.0, batch_size=2), n_classes=2)
    images = torch.stack([torch.zeros(1, 32, 32), torch.ones(1, 32, 32)])
    np.random.seed(3)
    mixed, targets = mix(images.clone(), torch.tensor([0, 1]))
    assert set(mixed.unique().tolist()) <= {0.0, 1.0}
    assert targets[0, 1].item() == pytest.approx(mixed[0].mean().item(), abs=1e-6)


def test_nothing_mixes_unless_asked():
    assert build_mix(TrainingConfig(), 3) is None
