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
from kit.training.class_weights import class_weights
from kit.training.config import TrainingConfig
from kit.training.loss import build_loss, build_mix, row_weights

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


SHARES = torch.softmax(LOGITS.flip(0) * 2, dim=1)
OF_ROWS = torch.tensor([0.5, 1.0, 2.0, 3.0] * 4)
SETTINGS = [{}, {"label_smoothing": 0.2}, {"class_weights": "balanced"}]


def loss_of(config, logits, targets, of_rows=None, multilabel=False):
    """The loss of an update, as the trainer makes it of its parts."""
    counted = None if of_rows is None else of_rows.double().numpy()
    weights = class_weights(config, list("abcde"), targets.numpy(), counted, multilabel)
    mean = row_weights(config, weights, targets.numpy(), counted, multilabel)
    beside = () if of_rows is None else (of_rows,)
    value = build_loss(config, weights, multilabel, of_rows is not None)(logits, targets, *beside)
    return value / (1.0 if mean is None else mean.mean())


def kinds_of_targets():
    several = torch.rand(16, 5, generator=torch.Generator().manual_seed(2))
    return [(TARGETS, False), (SHARES, False), (several < 0.4, True), (several, True)]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", range(4))
def test_a_row_of_weight_2_is_the_row_twice(kind, settings):
    """Loss and gradient, in an update by hand; balanced class weights count rows by their weights, too."""
    targets, multilabel = kinds_of_targets()[kind]
    config, times = TrainingConfig(**settings), torch.tensor([1, 2, 3, 1] * 4)
    layer = torch.nn.Linear(5, 5)
    weighted = loss_of(config, layer(LOGITS), targets, times.float(), multilabel)
    gradient = torch.autograd.grad(weighted, layer.weight)[0]
    rows = torch.arange(16).repeat_interleave(times)
    repeated = loss_of(config, layer(LOGITS[rows]), targets[rows], None, multilabel)
    torch.testing.assert_close(weighted, repeated)
    torch.testing.assert_close(gradient, torch.autograd.grad(repeated, layer.weight)[0])


def test_shares_are_timms_soft_targets_and_weights_weigh_them():
    rows = torch.nn.functional.cross_entropy(LOGITS, SHARES, reduction="none")
    torch.testing.assert_close(loss_of(TrainingConfig(), LOGITS, SHARES), SoftTargetCrossEntropy()(LOGITS, SHARES))
    expected = (rows * OF_ROWS).sum() / OF_ROWS.sum()
    torch.testing.assert_close(loss_of(TrainingConfig(), LOGITS, SHARES, OF_ROWS), expected)
    smoothed = torch.nn.functional.cross_entropy(LOGITS, SHARES, label_smoothing=0.2)
    torch.testing.assert_close(loss_of(TrainingConfig(label_smoothing=0.2), LOGITS, SHARES), smoothed)


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_hot_shares_are_indices(settings):
    config, hot = TrainingConfig(**settings), torch.nn.functional.one_hot(TARGETS, 5).float()
    for of_rows in (None, OF_ROWS):
        found = loss_of(config, LOGITS, hot, of_rows)
        torch.testing.assert_close(found, loss_of(config, LOGITS, TARGETS, of_rows))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=40))
def test_balanced_weights_of_weighted_rows_are_those_of_repeated_ones(rows):
    targets, times = (np.array(each) for each in zip(*rows, strict=True))
    config, hot = TrainingConfig(class_weights="balanced"), np.eye(5, dtype=np.float32)[targets]
    repeated = targets.repeat(times)
    present = np.unique(targets)
    expected = compute_class_weight("balanced", classes=present, y=repeated)
    for each in (targets, hot):
        ours = class_weights(config, list("abcde"), each, times.astype(float), False).numpy()
        np.testing.assert_allclose(ours[present], expected, rtol=1e-6)
    several = class_weights(config, list("abcde"), hot > 0, times.astype(float)).numpy()
    np.testing.assert_allclose(
        several,
        class_weights(
            config, list("abcde"), hot[targets.argsort()] > 0, times[targets.argsort()].astype(float)
        ).numpy(),
        rtol=1e-6,
    )


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixing_by_shares_mixes_as_timm_and_weights_alike(method, smoothing):
    config = TrainingConfig(**{method: 1.0}, batch_size=16, label_smoothing=smoothing)
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = []
    for matrix, targets in ((False, TARGETS), (True, TARGETS), (True, torch.nn.functional.one_hot(TARGETS, 5))):
        np.random.seed(4)
        made.append(build_mix(config, 5, matrix=matrix)(images.clone(), targets, None))
    for inputs, targets, _ in made[1:]:
        torch.testing.assert_close(inputs, made[0][0])
        torch.testing.assert_close(targets, made[0][1].float())
    np.random.seed(4)
    plain = TrainingConfig(**{method: 1.0}, batch_size=16)
    _, shares, _ = build_mix(plain, 16, matrix=True)(images.clone(), torch.arange(16), None)
    assert 0 < shares[0, 0] < 1
    np.random.seed(4)
    _, targets, weights = build_mix(config, 5, matrix=True)(images.clone(), TARGETS, OF_ROWS)
    torch.testing.assert_close(weights, shares @ OF_ROWS)
    own = torch.nn.functional.cross_entropy  # each image's own label counts by its share and its weight
    for row in range(16):
        logits = LOGITS[row].expand(16, 5)
        each = own(logits, TARGETS, label_smoothing=smoothing, reduction="none")
        found = weights[row] * own(logits[:1], targets[row : row + 1])
        torch.testing.assert_close(found, (shares[row] * OF_ROWS * each).sum())


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (4, 1), (2, 2)])
def test_weighted_rows_are_one_batch_however_it_is_cut(accumulate, processes, multilabel):
    config = TrainingConfig(batch_size=16 // accumulate // processes, accumulate=accumulate, label_smoothing=0.1)
    draw = torch.Generator().manual_seed(1)
    inputs, of_rows = torch.randn(40, 8, generator=draw), torch.rand(40, generator=draw) * 3 + 0.1
    targets = torch.softmax(torch.randn(40, 5, generator=draw) * 3, 1)
    counted = row_weights(config, None, targets.numpy(), of_rows.numpy(), multilabel)
    loss, layer = build_loss(config, None, multilabel, True), torch.nn.Linear(8, 5)
    plan = BatchPlan(3, 1, 40, config.batch_size, accumulate, processes)
    for step in range(plan.total_steps):
        samples, whole = plan.samples(step), torch.zeros(5, 8)
        for part in samples.reshape(-1, config.batch_size):
            value = loss(layer(inputs[part]), targets[part], of_rows[part]) / counted[samples].mean()
            whole += torch.autograd.grad(value, layer.weight)[0] / (accumulate * processes)
        rows = samples.ravel()
        logits, weights = layer(inputs[rows]), of_rows[rows]
        smooth = targets[rows] * 0.9 + (0.05 if multilabel else 0.02)
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(1)
        if not multilabel:
            each = -(smooth * logits.log_softmax(1)).sum(1)
        expected = torch.autograd.grad((each * weights).sum() / weights.sum(), layer.weight)[0]
        torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-6)


def own_loss(tmp_path, code, **sections):
    (tmp_path / "mine.py").write_text(f"import torch\ndef loss(logits, targets):\n    return {code}\n")
    content = {"loss": "mine.py:loss"} | sections
    return build_loss(TrainingConfig.model_validate(content, context={"folder": tmp_path}), None, weighs=True)


def test_own_losses_get_shares_and_weights(tmp_path):
    each = own_loss(tmp_path, "-(targets * logits.log_softmax(1)).sum(1)")
    each.check(5, multilabel=False, mixed=False, shares=True, weighs=True)
    rows = torch.nn.functional.cross_entropy(LOGITS, SHARES, reduction="none")
    torch.testing.assert_close(each(LOGITS, SHARES, OF_ROWS), (rows * OF_ROWS).mean())
    mean = own_loss(tmp_path, "torch.nn.functional.cross_entropy(logits, targets)")
    mean.check(5, multilabel=False, mixed=False, shares=True)
    with pytest.raises(KitError, match="gives a mean; for rows with weights"):
        mean.check(5, multilabel=False, mixed=False, shares=True, weighs=True)
    of_indices = own_loss(tmp_path, "-logits.log_softmax(1)[torch.arange(len(targets)), targets]")
    with pytest.raises(KitError, match=r"training.loss: mine.py:loss"):
        of_indices.check(5, multilabel=False, mixed=False, shares=True)
