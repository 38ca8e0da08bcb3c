"""The built-in losses against timm, torchvision and slow numpy loops; their weights, parts and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of
from support.trainings import trainer_of
from timm.loss import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from torchvision.ops import sigmoid_focal_loss

from kit.core.errors import KitError
from kit.data.loading import BatchPlan
from kit.training.class_weights import class_offsets, class_weights
from kit.training.config import TrainingConfig
from kit.training.loss import build_loss, check_loss, row_weights

DRAW = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(16, 5, generator=DRAW)
TARGETS = torch.randint(5, (16,), generator=DRAW)
LABELS = torch.rand(16, 5, generator=DRAW) < 0.4
SHARES = torch.softmax(2 * torch.randn(16, 5, generator=DRAW), 1)
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.1])
OF_ROWS = torch.tensor([0.5, 1.0, 2.0, 3.0] * 4)
KINDS = {"index": TARGETS, "labels": LABELS, "shares": SHARES}


def made(loss, weights=None, multilabel=False, targets=TARGETS, weighs=False, **training):
    config = TrainingConfig(loss=loss, **training)
    offsets = class_offsets(config, 5, targets.numpy(), multilabel=multilabel)
    return build_loss(config, weights, multilabel, weighs, offsets)


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_one_label_is_the_formula(gamma):
    p = torch.softmax(LOGITS.double(), 1)[torch.arange(16), TARGETS].numpy()
    rows = -((1 - p) ** gamma) * np.log(p)
    loss = {"name": "focal", "gamma": gamma}
    close(made(loss)(LOGITS, TARGETS), rows.mean())
    close(made(loss)(LOGITS, TARGETS, OF_ROWS), (rows * OF_ROWS.numpy()).mean())
    close(made(loss, WEIGHTS)(LOGITS, TARGETS), (rows * WEIGHTS.numpy()[TARGETS]).mean())


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_of_shares_is_a_slow_loop(weights):
    each = np.ones(5) if weights is None else weights.numpy()
    expected = 0.0
    for logits, shares in zip(LOGITS.double().numpy(), SHARES.numpy(), strict=True):
        p = np.exp(logits) / np.exp(logits).sum()
        for k in range(5):
            expected -= each[k] * shares[k] * (1 - p[k]) ** 2 * np.log(p[k])
    close(made("focal", weights)(LOGITS, SHARES), expected / 16)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["index", "shares"])
def test_focal_without_focus_is_cross_entropy(weights, smoothing, kind):
    loss = made({"name": "focal", "gamma": 0}, weights, label_smoothing=smoothing)
    plain = build_loss(TrainingConfig(label_smoothing=smoothing), weights, weighs=True)
    close(loss(LOGITS, KINDS[kind], OF_ROWS), plain(LOGITS, KINDS[kind], OF_ROWS))


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("kind", ["labels", "shares"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_of_several_labels_is_torchvisions(alpha, kind, smoothing):
    targets = KINDS[kind].float()
    smooth = targets * (1 - smoothing) + smoothing / 2
    rows = sigmoid_focal_loss(LOGITS, smooth, -1 if alpha is None else alpha, 2.0).mean(1)
    loss = made({"name": "focal", "alpha": alpha}, multilabel=True, label_smoothing=smoothing)
    close(loss(LOGITS, KINDS[kind]), rows.mean())
    close(loss(LOGITS, KINDS[kind], OF_ROWS), (rows * OF_ROWS).mean())


@pytest.mark.parametrize("gammas", [(4.0, 1.0), (2.0, 0.0), (0.0, 0.0), (3.0, 2.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_asymmetric_of_one_label_is_timms(gammas, smoothing):
    negative, positive = gammas
    timms = AsymmetricLossSingleLabel(positive, negative, eps=smoothing, reduction="none")(LOGITS, TARGETS)
    options = {"name": "asymmetric", "gamma_neg": negative, "gamma_pos": positive}
    close(made(options, label_smoothing=smoothing)(LOGITS, TARGETS), timms.mean())
    weighted = made(options, WEIGHTS, label_smoothing=smoothing)(LOGITS, TARGETS, OF_ROWS)
    close(weighted, (timms * WEIGHTS[TARGETS] * OF_ROWS).mean())


def test_asymmetric_of_one_label_without_smoothing_is_focal():
    close(made("asymmetric")(LOGITS, TARGETS), made({"name": "focal", "gamma": 1})(LOGITS, TARGETS))


@pytest.mark.parametrize("gammas", [(4.0, 1.0), (2.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("clip", [None, 0.0, 0.2])
@pytest.mark.parametrize("kind", ["labels", "shares"])
def test_asymmetric_of_several_labels_is_timms_over_the_number_of_images(gammas, clip, kind):
    """timm's sum over classes stays, also where an older one sums over images, too."""
    negative, positive = gammas
    timms = AsymmetricLossMultiLabel(negative, positive, 0.05 if clip is None else clip)
    rows = torch.stack([timms(LOGITS[row : row + 1], KINDS[kind][row : row + 1].float()) for row in range(16)])
    options = {"name": "asymmetric", "gamma_neg": negative, "gamma_pos": positive, "clip": clip}
    loss = made(options, multilabel=True)
    torch.testing.assert_close(loss(LOGITS, KINDS[kind]), rows.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss(LOGITS, KINDS[kind], OF_ROWS), (rows * OF_ROWS).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["focal", "asymmetric"])
def test_weights_of_classes_multiply_the_losses_of_positives(name):
    loss, weighted = made(name, multilabel=True), made(name, WEIGHTS, multilabel=True)
    unit = 5 if name == "focal" else 1  # a mean over classes, or a sum
    logits, labels = LOGITS[:1], torch.zeros(1, 5, dtype=torch.bool)
    close(weighted(logits, labels), loss(logits, labels))
    positive = torch.eye(5, dtype=torch.bool)[[1]]
    alone = made(name, torch.tensor([1.0, 0, 1, 1, 1]), multilabel=True)(logits, positive)
    close(weighted(logits, positive) - alone, 2 * (loss(logits, positive) - alone))
    assert loss(logits, positive) * unit > alone * unit


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("of_rows", [None, OF_ROWS])
def test_logit_adjusted_is_menons_equation_10(tau, of_rows):
    """log(1 + Σ_{k ≠ y} (π_k / π_y)^tau · exp(f_k − f_y)), with frequencies by the weights of rows."""
    counted = np.ones(16) if of_rows is None else of_rows.numpy()
    counts = np.bincount(TARGETS, counted, minlength=5)
    assert (counts > 0).all()
    rows = []
    for f, y in zip(LOGITS.double().numpy(), TARGETS.tolist(), strict=True):
        others = [k for k in range(5) if k != y]
        terms = [(counts[k] / counts[y]) ** tau * np.exp(f[k] - f[y]) for k in others]
        rows.append(np.log(1 + sum(terms)))
    config = TrainingConfig(loss={"name": "logit_adjusted", "tau": tau})
    offsets = class_offsets(config, 5, TARGETS.numpy(), None if of_rows is None else counted)
    loss = build_loss(config, None, weighs=of_rows is not None, offsets=offsets)
    beside = () if of_rows is None else (of_rows,)
    close(loss(LOGITS, TARGETS, *beside), (np.array(rows) * counted).mean())


@pytest.mark.parametrize("kind", ["index", "shares", "labels"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logit_adjusted_is_cross_entropy_of_adjusted_logits(kind, smoothing):
    targets, several = KINDS[kind], kind == "labels"
    counts = np.bincount(targets) if targets.ndim == 1 else targets.numpy().sum(axis=0)
    odds = np.log(counts / (16 - counts)) if several else np.log(counts / counts.sum())
    plain = build_loss(TrainingConfig(label_smoothing=smoothing), None, several)
    loss = made("logit_adjusted", multilabel=several, targets=targets, label_smoothing=smoothing)
    close(loss(LOGITS, targets), plain(LOGITS + torch.tensor(odds, dtype=torch.float32), targets))


def test_the_offset_of_a_class_without_rows_is_finite():
    config = TrainingConfig(loss="logit_adjusted")
    np.testing.assert_allclose(
        class_offsets(config, 3, np.array([0, 0, 0, 1])), np.log([3 / 4, 1 / 4, 1 / 8]), rtol=1e-6
    )
    several = np.array([[True, False, True], [True, False, False]])
    np.testing.assert_allclose(class_offsets(config, 3, several), np.log([4, 1 / 4, 1]), rtol=1e-6, atol=1e-7)
    assert class_offsets(TrainingConfig(), 3, several) is None


def test_adjusted_logits_even_out_what_frequencies_do():
    """Of two Gaussians with 9 rows to 1 a linear model under plain cross-entropy shifts its border by log 9."""
    draw = torch.Generator().manual_seed(1)
    targets = (torch.arange(40_000) % 10 == 0).long()
    inputs = torch.randn(40_000, 1, generator=draw) + 2.0 * targets[:, None] - 1  # log odds: 2x − log 9
    borders = {}
    for loss in (None, "logit_adjusted"):
        layer, config = torch.nn.Linear(1, 2), TrainingConfig(loss=loss)
        criterion = build_loss(config, None, offsets=class_offsets(config, 2, targets.numpy()))
        optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

        def closure(layer=layer, criterion=criterion, optimizer=optimizer):
            optimizer.zero_grad()
            value = criterion(layer(inputs), targets)
            value.backward()
            return value

        optimizer.step(closure)
        slope = (layer.weight[1] - layer.weight[0]).item()
        borders[loss] = -(layer.bias[1] - layer.bias[0]).item() / slope
    assert borders[None] == pytest.approx(np.log(9) / 2, abs=0.05)
    assert borders["logit_adjusted"] == pytest.approx(0, abs=0.05)


LOSSES = [
    {"name": "focal"},
    {"name": "focal", "gamma": 0.5},
    {"name": "asymmetric"},
    {"name": "asymmetric", "gamma_neg": 0.5, "gamma_pos": 0.5},
    {"name": "logit_adjusted", "tau": 0.7},
]


def loss_of(config, logits, targets, of_rows=None, multilabel=False):
    """The loss of an update, as the trainer makes it of its parts."""
    counted = None if of_rows is None else of_rows.double().numpy()
    weights = class_weights(config, list("abcde"), targets.numpy(), counted, multilabel)
    mean = row_weights(config, weights, targets.numpy(), counted, multilabel)
    offsets = class_offsets(config, 5, targets.numpy(), counted, multilabel)
    beside = () if of_rows is None else (of_rows,)
    value = build_loss(config, weights, multilabel, of_rows is not None, offsets)(logits, targets, *beside)
    return value / (1.0 if mean is None else mean.mean())


def kinds_of(loss):
    return ["index", "labels", "shares of labels"] + ["shares"] * (loss["name"] != "asymmetric")


CASES = [(loss, kind) for loss in LOSSES for kind in kinds_of(loss)]


@pytest.mark.parametrize(("loss", "kind"), CASES)
@pytest.mark.parametrize("training", [{}, {"class_weights": {"a": 3.0, "d": 0.2}}, {"label_smoothing": 0.1}])
def test_a_row_of_weight_2_is_the_row_twice(loss, kind, training):
    targets, several = KINDS[kind.split()[0]], "labels" in kind
    config, times = TrainingConfig(loss=loss, **training), torch.tensor([1, 2, 3, 1] * 4)
    layer = torch.nn.Linear(5, 5)
    weighted = loss_of(config, layer(LOGITS), targets, times.float(), several)
    gradient = torch.autograd.grad(weighted, layer.weight)[0]
    rows = torch.arange(16).repeat_interleave(times)
    repeated = loss_of(config, layer(LOGITS[rows]), targets[rows], None, several)
    torch.testing.assert_close(weighted, repeated)
    torch.testing.assert_close(gradient, torch.autograd.grad(repeated, layer.weight)[0])


@pytest.mark.parametrize(("loss", "kind"), CASES)
@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (4, 1), (2, 2)])
def test_an_update_is_one_batch_however_it_is_cut(loss, kind, accumulate, processes):
    targets, several = KINDS[kind.split()[0]], "labels" in kind
    config = TrainingConfig(
        loss=loss, class_weights={"b": 4.0}, batch_size=8 // accumulate // processes, accumulate=accumulate
    )
    weights = class_weights(config, list("abcde"), targets.numpy(), multilabel=several)
    counted = row_weights(config, weights, targets.numpy(), OF_ROWS.double().numpy(), several)
    offsets = class_offsets(config, 5, targets.numpy(), multilabel=several)
    loss, layer = build_loss(config, weights, several, True, offsets), torch.nn.Linear(5, 5)
    plan = BatchPlan(3, 1, 16, config.batch_size, accumulate, processes)
    for step in range(plan.total_steps):
        samples, whole = plan.samples(step), torch.zeros(5, 5)
        mean = counted[samples].mean()
        for part in samples.reshape(-1, config.batch_size):
            value = loss(layer(LOGITS[part]), targets[part], OF_ROWS[part]) / mean
            whole += torch.autograd.grad(value, layer.weight)[0] / (accumulate * processes)
        rows = samples.ravel()
        value = loss(layer(LOGITS[rows]), targets[rows], OF_ROWS[rows]) / mean
        torch.testing.assert_close(whole, torch.autograd.grad(value, layer.weight)[0], rtol=1e-4, atol=1e-6)


@settings(max_examples=30)
@given(st.sampled_from(CASES), st.sampled_from([0.0, 30.0, 200.0, 1e4]), st.integers(0, 9))
def test_values_and_gradients_are_finite_however_sure_the_model_is(case, scale, seed):
    loss, kind = case
    targets, several = KINDS[kind.split()[0]], "labels" in kind
    signs = torch.randn(16, 5, generator=torch.Generator().manual_seed(seed)).sign()
    if seed == 0:  # all right
        signs = 2 * (targets if targets.ndim == 2 else torch.nn.functional.one_hot(targets, 5)).float().round() - 1
    logits = (scale * signs).requires_grad_()
    value = made(loss, multilabel=several, targets=targets)(logits, targets)
    value.backward()
    assert value.isfinite()
    assert value >= -1e-6
    assert logits.grad.isfinite().all()


def told(multilabel=False, shares=False, **training):
    """What `check_loss` says; "" where the loss is taken."""
    try:
        check_loss(TrainingConfig(**training), None, 5, multilabel, shares)
    except KitError as error:
        return str(error)
    return ""


def test_what_a_formula_does_not_allow_is_refused_before_training():
    clip, alpha = {"name": "asymmetric", "clip": 0.1}, {"name": "focal", "alpha": 0.3}
    assert told(loss="asymmetric", shares=True).startswith("training.loss: asymmetric is of labels that are there")
    assert told(loss="asymmetric", mixup=0.2) == told(loss="asymmetric", shares=True)
    assert told(loss="asymmetric", shares=True, multilabel=True) == ""
    assert told(loss=clip) == "training.loss.clip: is for several labels a row; leave it out"
    assert told(loss=clip, multilabel=True) == ""
    assert told(loss=alpha).startswith("training.loss.alpha: is for several labels a row")
    assert told(loss=alpha, multilabel=True) == ""
    for name in ("focal", "logit_adjusted", "cross_entropy"):
        assert told(loss=name, shares=True, mixup=0.2) == ""


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("focale", "training.loss = 'focale': did you mean focal?"),
        (
            "dice",
            "training.loss = 'dice': expected one of 'cross_entropy', 'focal', 'asymmetric', 'logit_adj",
        ),
        ({"name": "focal", "gama": 2}, "training.loss.gama: unknown key; did you mean gamma?"),
        ({"name": "cross_entropy", "gamma": 2}, "training.loss.gamma: unknown key; known are name"),
        ({"name": "focal", "gamma": -1}, "training.loss.gamma = -1: expected greater than or equal to 0"),
        ({"gamma": 2}, "training.loss.name: missing"),
        ({"name": "logit_adjusted", "tau": 0}, "training.loss.tau = 0: expected greater than 0"),
        ({"name": "asymmetric", "clip": 0.1}, "training.loss.clip: is for several labels a row"),
    ],
)
def test_a_wrong_loss_is_told(competition, tmp_path, loss, message):
    assert message in refusal_of(lambda: trainer_of(competition, tmp_path, training={"loss": loss}))


def test_cross_entropy_by_name_is_the_default():
    assert TrainingConfig(loss="cross_entropy") == TrainingConfig()
    assert "loss" not in TrainingConfig(loss={"name": "cross_entropy"}).canonical()


def test_the_trainer_takes_frequencies_of_the_rows_that_train(competition, tmp_path):
    trainer = trainer_of(competition, tmp_path, training={"loss": "logit_adjusted", "label_smoothing": 0.1})
    targets = trainer.fold.targets[trainer.fold.train_rows]
    shares = np.bincount(targets) / len(targets)
    np.testing.assert_allclose(trainer.objective.loss.offsets, np.log(shares), rtol=1e-6)
    assert trainer.objective.loss.loss.label_smoothing == 0.1
    assert np.isfinite(trainer.train().score)
