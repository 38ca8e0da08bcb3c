"""Predicting within a training: from the weights as they are, and every mode as it was."""

import pytest
import torch
from support.stale_biases import NAMES, biases, built, keep_as_timm_1_0_26
from torch import nn

from kit.model.modes import evaluating, forget_kept


def predictions(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32))


def of_a_fresh_one(name: str, model: nn.Module) -> torch.Tensor:
    """What the model's weights predict, loaded into a new network."""
    fresh = built(name)
    fresh.load_state_dict(model.state_dict())
    return predictions(fresh.eval())


@torch.no_grad()
def move(model: nn.Module) -> None:
    for value in biases(model):
        value.add_(torch.linspace(-4, 4, value.numel()).view(value.shape))


@pytest.fixture(params=["as installed", "1.0.26"])
def timm_version(request, monkeypatch):
    if request.param == "1.0.26":
        keep_as_timm_1_0_26(monkeypatch)


@pytest.mark.usefixtures("timm_version")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_those_of_the_weights(name, training):
    model = built(name)
    model.train(training)  # the moving average of a training never is
    with evaluating(model):
        before = predictions(model)
    move(model)
    with evaluating(model):
        within = predictions(model)
    expected = of_a_fresh_one(name, model)
    torch.testing.assert_close(within, expected)
    assert not torch.allclose(before, expected, atol=1e-3)  # else there was nothing to be seen


@pytest.mark.usefixtures("timm_version")
def test_nothing_is_kept_from_one_look_to_the_next():
    model = built("levit_128s").eval()
    with evaluating(model):
        predictions(model)
        move(model)
        forget_kept(model)
        torch.testing.assert_close(predictions(model), of_a_fresh_one("levit_128s", model))
    move(model)
    torch.testing.assert_close(predictions(model), of_a_fresh_one("levit_128s", model))  # in a loop of the user's


def test_each_module_has_its_mode_again():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    model[1].eval()  # as a frozen norm
    before = [module.training for module in model.modules()]

    def fail():
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [module.training for module in model.modules()] == before == [True, True, False, True, True]
    forget_kept(model)
    assert [module.training for module in model.modules()] == before
