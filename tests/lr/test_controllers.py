"""Controllers as pure functions: against timm's LARS and LAMB, and on a simulation whose answer is known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from support.strategies import CONTROLLERS
from timm.optim import Lamb, Lars

from kit.lr.config import Controller
from kit.lr.controllers import LAMB, LARS, ConstantUpdate, ControllerBase, TempBalance

ANY = st.one_of(*CONTROLLERS.values())
norms = st.lists(st.floats(0, 1e6) | st.just(float("nan")) | st.just(float("inf")), min_size=3, max_size=3).map(
    np.array
)


def test_every_registered_controller_is_tested():
    registered = set(ControllerBase.members)
    assert registered == set(CONTROLLERS)


def norm(tensors):
    return np.array([float(value.detach().norm()) for value in tensors])


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (8, 4), (2, 8))]


def test_lars_is_timms():
    """SGD without momentum, a tensor a group: five updates of both, and every weight the same."""
    ours, theirs = tensors(0), tensors(0)
    optimizer = Lars(theirs, lr=0.5, weight_decay=0.02, trust_coeff=0.01)
    controller = LARS(coefficient=0.01, lower=1e-9, upper=1e9)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        gradients = [torch.randn(value.shape, generator=generator) for value in ours]
        for value, gradient in zip(theirs, gradients, strict=True):
            value.grad = gradient.clone()
        optimizer.step()
        signals = {"weight": norm(ours), "gradient": norm(gradients), "decay": np.full(3, 0.02)}
        multiplier, _ = controller.step({}, signals, np.full(3, 0.5), 1.0)
        with torch.no_grad():
            for value, gradient, factor in zip(ours, gradients, multiplier, strict=True):
                value -= 0.5 * factor * (gradient + 0.02 * value)
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def test_lamb_is_timms_for_the_same_update():
    """Fed with the direction of the very update (the kit feeds it that of the one before), Adam's written out."""
    ours, theirs = tensors(1), tensors(1)
    optimizer = Lamb(theirs, lr=1e-2, weight_decay=0.1, max_grad_norm=None, trust_clip=False)
    controller, (beta1, beta2, eps) = LAMB(lower=1e-9, upper=1e9), (0.9, 0.999, 1e-6)
    first, second = [torch.zeros_like(value) for value in ours], [torch.zeros_like(value) for value in ours]
    for step in range(1, 5):
        generator = torch.Generator().manual_seed(step)
        gradients = [torch.randn(value.shape, generator=generator) for value in ours]
        for value, gradient in zip(theirs, gradients, strict=True):
            value.grad = gradient.clone()
        optimizer.step()
        directions = []
        for place, gradient in enumerate(gradients):
            first[place] = beta1 * first[place] + (1 - beta1) * gradient
            second[place] = beta2 * second[place] + (1 - beta2) * gradient**2
            scaled = (second[place] / (1 - beta2**step)).sqrt() + eps
            directions.append(first[place] / (1 - beta1**step) / scaled + 0.1 * ours[place].detach())
        signals = {"weight": norm(ours), "direction": norm(directions)}
        multiplier, _ = controller.step({}, signals, np.full(3, 1e-2), 1.0)
        with torch.no_grad():
            for value, direction, factor in zip(ours, directions, multiplier, strict=True):
                value -= 1e-2 * factor * direction
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_constant_update_finds_the_multiplier_that_is_right():
    """A world in which ‖Δw‖ = rate × direction, with directions a factor of 1,000 apart."""
    controller, total = ConstantUpdate(target=1e-3, gain=0.2, lower=1e-3, upper=1e3), 120
    weight, direction = np.array([2.0, 5.0, 10.0]), np.array([0.02, 1.0, 20.0])
    lr, state = np.array([1e-2, 1e-2, 3e-3]), controller.start(3)
    for _step in range(total):
        multiplier, state = controller.step(state, {"weight": weight, "direction": direction}, lr, fraction=1.0)
    np.testing.assert_allclose(lr * multiplier * direction / weight, 1e-3, rtol=1e-6)
    half, _ = controller.step(state, {"weight": weight, "direction": direction}, lr / 2, fraction=0.5)
    np.testing.assert_allclose(lr / 2 * half * direction / weight, 5e-4, rtol=1e-6)  # moves with the schedule
    first, _ = controller.step(controller.start(3), {"weight": weight, "direction": direction}, lr, fraction=1.0)
    wanted = 1e-3 * weight / (lr * direction)
    np.testing.assert_allclose(np.log(first), 0.2 * np.log(wanted), rtol=1e-9)  # slowly


def test_constant_update_stops_at_its_bounds_and_does_not_wind_up():
    controller = ConstantUpdate(target=1.0, gain=0.5, upper=2)
    state, signals = controller.start(1), {"weight": np.ones(1), "direction": np.ones(1)}
    for _ in range(100):
        multiplier, state = controller.step(state, signals, np.full(1, 1e-3), 1.0)
    assert multiplier.tolist() == pytest.approx([2])
    for _ in range(8):
        multiplier, state = controller.step(
            state, signals | {"direction": np.full(1, 1e4)}, np.full(1, 1e-3), 1e-3
        )
    assert multiplier[0] < 0.15  # it turns at once


@pytest.mark.parametrize("controller", [LARS(), LAMB()])
@pytest.mark.parametrize("missing", ["weight", "gradient", "direction"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_without_a_norm_a_trust_ratio_is_at_its_lower_bound(controller, missing, value):
    if missing in controller.signals and not (missing == "weight" and value == np.inf):
        signals = dict.fromkeys(("weight", "gradient", "direction"), np.ones(2)) | {"decay": np.zeros(2)}
        multiplier, _ = controller.step({}, signals | {missing: np.full(2, value)}, np.full(2, 1e-2), 1.0)
        assert multiplier.tolist() == [controller.lower] * 2


@pytest.mark.parametrize("missing", ["weight", "direction"])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_without_a_norm_constant_update_stays_where_it_is(missing, value):
    controller = ConstantUpdate()
    state = {"log_multiplier": [np.log(0.5), np.log(2)]}
    signals = {"weight": np.ones(2), "direction": np.ones(2), missing: np.full(2, value)}
    for _ in range(3):
        multiplier, state = controller.step(state, signals, np.full(2, 1e-2), 1.0)
    assert multiplier.tolist() == pytest.approx([0.5, 2])


def test_temp_balance_by_hand():
    """s₁ = .5, s₂ = 1.5: the heaviest tail learns at half the rate, the lightest at three halves."""

    def multipliers(*tail, **options):
        controller = TempBalance(**options)
        made, state = controller.step(
            controller.start(len(tail)), {"tail": np.array(tail)}, np.ones(len(tail)), 1.0
        )
        assert state == {}
        return made.tolist()

    assert multipliers(4.0, 2.0, 2.5, 3.0) == pytest.approx([1.5, 0.5, 0.75, 1.0])
    assert multipliers(4.0, 2.0, 2.5, lower=0.6, upper=1.4) == pytest.approx([1.4, 0.6, 0.8])
    assert multipliers(np.nan, 6.0, 2.0, 3.0, np.inf) == pytest.approx([1.0, 1.5, 0.5, 0.75, 1.0])
    assert multipliers(2.5, 2.5, np.nan) == [1.0, 1.0, 1.0]  # nothing to balance
    assert multipliers(np.nan, 2.5, np.nan) == [1.0, 1.0, 1.0]
    assert multipliers(np.nan, 3.0, 2.0, lower=1.2, upper=2) == pytest.approx([1.2, 2.0, 1.2])


@given(st.lists(st.floats(1.01, 20), min_size=2, max_size=9), st.floats(0.1, 10), st.floats(-0.5, 30))
def test_temp_balance_is_interpolation_and_free_of_scale(tail, scale, shift):
    """np.interp is what the authors' code does, wherever it is defined."""
    tail = np.array(tail)
    if np.ptp(tail) > 1e-3:
        step = TempBalance().step
        multipliers, _ = step({}, {"tail": tail}, np.ones(len(tail)), 1.0)
        np.testing.assert_allclose(multipliers, np.interp(tail, [tail.min(), tail.max()], [0.5, 1.5]))
        moved, _ = step({}, {"tail": scale * tail + shift}, np.full(len(tail), 1e-3), 0.1)
        np.testing.assert_allclose(moved, multipliers, rtol=1e-6)


@given(ANY, norms, norms, norms, norms, st.floats(0, 1))
def test_multipliers_are_finite_and_bounded(controller, weight, gradient, direction, tail, lr):
    state = controller.start(3)
    for _ in range(3):
        signals = {
            "weight": weight,
            "gradient": gradient,
            "direction": direction,
            "decay": np.full(3, 0.01),
            "tail": tail,
        }
        multiplier, state = controller.step(state, signals, np.full(3, lr), 1.0)
        assert np.isfinite(multiplier).all()
        assert (multiplier >= controller.lower * (1 - 1e-12)).all()
        assert (multiplier <= controller.upper * (1 + 1e-12)).all()


@given(ANY)
def test_a_controller_comes_back_from_its_plain_values(controller):
    assert TypeAdapter(Controller).validate_python(controller.model_dump(mode="json")) == controller


def test_bounds_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match="lower 3 is above upper 2"):
        LARS(lower=3, upper=2)
