"""Hill's estimate of the tails of spectra: against the Pareto law, and against a slow obvious version."""

from fractions import Fraction

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.trainings import trainer_of

from kit.core.errors import KitError
from kit.model.groups import depth_groups
from kit.model.kinds import split_by_kind
from kit.training.tails import TailMeter, hill, spectrum

CONTROLLED = {"lr": 1e-2, "groups": "stage", "schedule": "constant", "controller": "temp_balance"}


def slow_alpha(weight):
    """A matrix at each place of the kernel, its singular values by numpy in float64, Hill's sum written out."""
    weight = weight.detach().double().numpy().reshape(*weight.shape[:2], -1)
    values = []
    for place in range(weight.shape[2]):
        values += [float(value) ** 2 for value in np.linalg.svd(weight[:, :, place], compute_uv=False)]
    values.sort(reverse=True)
    k = len(values) // 2
    return 1 + k / sum(np.log(values[i] / values[k]) for i in range(k))


def layers(model):
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def slow_tails(model, groups):
    """Means over the layers of a group, without the network's first and last and those with few eigenvalues."""
    tails = []
    for group in groups:
        alphas = []
        for name in list(layers(model))[1:-1]:
            weight = layers(model)[name]
            if name in group.parameters and min(weight.shape[:2]) * weight[0, 0].numel() >= 50:
                alphas.append(slow_alpha(weight))
        tails.append(np.mean(alphas) if alphas else np.nan)
    return tails


def spoilt(model, factor):
    """With weights of heavier tails than those of the start."""
    with torch.no_grad():
        for weight in layers(model).values():
            weight[: len(weight) // 3] *= factor
    return model


@pytest.mark.parametrize("alpha", [1.2, 2.0, 3.5, 6.0])
def test_the_exponent_of_a_pareto_law_is_found(alpha):
    """λ = u^(-1/(α-1)) has the density (α-1) λ^-α above 1; the estimate is within five standard errors."""
    count = 100_000
    values = np.random.default_rng(0).random(count) ** (-1 / (alpha - 1))
    found = float(hill(torch.from_numpy(np.sort(values)).float()))
    assert abs(found - alpha) < 5 * (alpha - 1) / np.sqrt(count / 2)


@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (7, 60, 1, 1), (20, 24, 3, 3), (60, 1, 3, 3), (9, 8, 5)])
def test_a_layers_estimate_is_that_of_a_slow_obvious_version(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert float(hill(spectrum(weight))) == pytest.approx(slow_alpha(weight), rel=1e-4)
    last = (
        torch.randn(shape[::-1], generator=torch.Generator().manual_seed(1)).T
        if len(shape) == 2
        else weight.half()
    )
    assert float(hill(spectrum(last))) == pytest.approx(slow_alpha(last), rel=1e-3)  # as it may lie in memory


@given(st.floats(-30, 30).map(lambda power: 10**power))
def test_the_scale_of_weights_does_not_matter(scale):
    """So the authors' factor for convolutions, the square root of a half, does not either."""
    weight = torch.randn((16, 16, 2, 2), generator=torch.Generator().manual_seed(2))
    assert float(hill(spectrum(scale * weight))) == pytest.approx(float(hill(spectrum(weight))), rel=1e-4)


def test_singular_values_over_three_decades():
    generator = np.random.default_rng(3)
    left, right = (np.linalg.qr(generator.standard_normal((80, 80)))[0] for _ in range(2))
    weight = torch.from_numpy(left * np.logspace(0, -3, 80) @ right)
    assert float(hill(spectrum(weight.float()))) == pytest.approx(slow_alpha(weight), rel=1e-3)


def test_a_layer_without_a_spectrum_has_no_estimate_and_a_singular_one_has():
    assert np.isnan(float(hill(spectrum(torch.zeros(60, 60)))))
    singular = torch.randn(60, 60, generator=torch.Generator().manual_seed(4))
    singular[20:] = 0
    assert 1 < float(hill(spectrum(singular))) < 1.5
    for value in (torch.nan, torch.inf):
        weight = torch.randn(60, 60)
        weight[3, 4] = value
        assert np.isnan(float(hill(spectrum(weight))))


@pytest.mark.parametrize(
    ("name", "cut"),
    [("test_resnet", "block"), ("test_vit", "block"), ("test_resnet", "coarse"), ("resnet18", "stage")],
)
def test_tails_of_depth_groups_are_the_means_of_their_layers(name, cut):
    torch.manual_seed(0)
    model = spoilt(timm.create_model(name, num_classes=3), 20)
    groups = depth_groups(model, cut)
    measured = TailMeter(model.to(memory_format=torch.channels_last), groups, 1).measure()
    assert measured.dtype == np.float64
    np.testing.assert_allclose(measured, slow_tails(model, groups), rtol=1e-3)
    assert np.isnan(measured[-1])  # the head is the last layer
    assert np.isfinite(measured).sum() >= 2


def test_kinds_of_one_depth_have_one_estimate_together():
    """So what a policy's `kinds` say of a norm beside its weights still holds."""
    model = timm.create_model("test_resnet", num_classes=3)
    groups = depth_groups(model, "block")
    whole = dict(zip([group.name for group in groups], TailMeter(model, groups, 1).measure(), strict=True))
    parts = split_by_kind(groups, ["norm", r"re:conv1\.0", r"re:.*conv2"])
    assert len(parts) > 2 * len(groups)
    for part, tail in zip(parts, TailMeter(model, parts, 1).measure(), strict=True):
        np.testing.assert_array_equal(tail, whole[part.name])


def test_a_layer_without_an_estimate_leaves_the_mean_to_the_others():
    model = timm.create_model("test_resnet", num_classes=3)
    groups = depth_groups(model, "block")
    before = TailMeter(model, groups, 1).measure()
    with torch.no_grad():
        model.layer1[0].conv1.weight.zero_()
        for conv in (model.layer2[0].conv1, model.layer2[0].conv2):
            conv.weight.fill_(torch.inf)
    after = TailMeter(model, groups, 1).measure()
    assert after[1] == pytest.approx(slow_alpha(model.layer1[0].conv2.weight), rel=1e-4)
    assert np.isnan(after[2])  # the third has 32 eigenvalues
    np.testing.assert_array_equal(after[3:], before[3:])


def test_with_nothing_to_compare_it_is_refused():
    model = timm.create_model("efficientnet_b0", num_classes=3)
    with pytest.raises(KitError, match=r"^controller: compares spectra, but of the 3 depth groups fewer than two"):
        TailMeter(model, depth_groups(model, "coarse"), 1)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 8))
def test_measured_at_the_start_and_then_at_the_first_update_of_each_period(steps_per_epoch, parts, whole):
    """Every `whole / parts` epochs, against exact fractions."""
    every = Fraction(whole, parts)
    model = timm.create_model("test_resnet", num_classes=3)
    meter = TailMeter(model, depth_groups(model, "stage"), float(every) * steps_per_epoch)
    measured = []
    meter.measure = lambda: measured.append(step) or np.zeros(6)
    for step in range(60):
        meter.at(step)
    due = [0]
    for step in range(1, 60):
        if int(step / (every * steps_per_epoch)) > int((step - 1) / (every * steps_per_epoch)):
            due.append(step)
    assert measured == due


@pytest.mark.parametrize(("every", "moments"), [(1, [0, 3, 6]), (2, [0, 6]), (0.5, [0, 2, 3, 5, 6, 8])])
def test_in_a_training_the_rates_follow_the_formula_an_epoch_apart(competition, tmp_path, every, moments):
    policy = CONTROLLED | {"lr": 0.1, "controller": {"name": "temp_balance", "every": every}}
    trainer = trainer_of(competition, tmp_path, policies={"uniform": policy}, training={"epochs": 3})
    meter, before = TailMeter(trainer.model, trainer.groups, 1), []
    before.append(meter.measure())
    trainer.train(on_step=lambda step: before.append(meter.measure()))
    assert trainer.plan.steps_per_epoch == 3
    recorded, multiplier = trainer.rates.signals["tail"], trainer.rates.multiplier
    for step in range(9):
        held = max(moment for moment in moments if moment <= step)
        np.testing.assert_array_equal(recorded[step], before[held])
        low, high = np.nanmin(before[held]), np.nanmax(before[held])
        by_hand = [1.0 if np.isnan(alpha) else 0.5 + (alpha - low) / (high - low) for alpha in before[held]]
        np.testing.assert_allclose(multiplier[step], by_hand, rtol=1e-12)
    assert (trainer.rates.lr == 0.1 * multiplier).all()
    assert (np.diff(recorded[:, :-1], axis=0) != 0).any(axis=1).sum() == len(moments) - 1


def test_a_signal_that_was_not_measured_is_found(competition, tmp_path):
    """The audit goes by the signals that were recorded."""
    trainer = trainer_of(competition, tmp_path, policies={"uniform": CONTROLLED})

    def meddle(step):
        if step == 4:
            trainer.rates.signals["tail"][2, 1] += 0.05

    with pytest.raises(KitError, match=r"step 2: depth group .* learned at .* but the policy says"):
        trainer.train(on_step=meddle)


def test_a_model_that_cannot_be_measured_is_refused_before_any_training(competition, tmp_path):
    policy = {"lr": 1e-2, "groups": "coarse", "controller": "temp_balance"}
    with pytest.raises(
        KitError, match=r"^policies.uniform.controller: compares spectra, .* choose smaller groups"
    ):
        trainer_of(competition, tmp_path, policies={"uniform": policy}, model={"name": "efficientnet_b0"})
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/uniform"))


@pytest.mark.gpu
def test_on_a_gpu_the_same_bits_twice_and_the_cpus_values():
    model = spoilt(timm.create_model("resnet18", num_classes=3), 20)
    groups = depth_groups(model, "block")
    expected = TailMeter(model, groups, 1).measure()
    model.cuda()
    first, second = (TailMeter(model, groups, 1).measure() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected, rtol=1e-3)
