"""Features against timm's own pooling, and blocks against what their modules give."""

import pytest
import torch
from torch import nn

from kit.core.errors import KitError
from kit.model.build import build_model
from kit.model.config import ModelConfig
from kit.model.features import Taps, block_named, blocks, body_digest


def built(name: str, size: int = 32, classes: int = 3, seed: int = 0, **options) -> nn.Module:
    return build_model(ModelConfig(name=name, options=options), classes, 3, size, seed).eval()


def images(size: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_last_is_what_timm_gives_before_the_classifier(name):
    size = 160 if name == "test_vit" else 32
    model, inputs = built(name, size), images(size)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(inputs), pre_logits=True)
        found = Taps(model, ["last"])(inputs)["last"]
        torch.testing.assert_close(found, expected)
        if name != "test_vit":  # and the classifier makes the logits of it
            torch.testing.assert_close(model.get_classifier()(found), model(inputs))


def test_blocks_of_a_network_of_maps_are_the_means_of_their_modules():
    model, inputs = built("test_resnet"), images()
    assert blocks(model) == ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "last"]
    given = {}
    for name in ("bn1", "layer2.0"):
        module = model.get_submodule(name)  # whose output may be changed in place by what comes next
        module.register_forward_hook(lambda module, _, output, name=name: given.update({name: output.clone()}))
    with torch.inference_mode():
        found = Taps(model, ["layer2.0", "conv1"])(inputs)
    assert list(found) == ["layer2.0", "conv1"]
    torch.testing.assert_close(found["layer2.0"], given["layer2.0"].mean(dim=(2, 3)))
    torch.testing.assert_close(found["conv1"], given["bn1"].mean(dim=(2, 3)))  # the stem's norm comes last


def test_blocks_of_tokens_are_the_means_of_the_patches():
    model, inputs = built("test_vit", 160), images(160)
    given = {}
    model.blocks[1].register_forward_hook(lambda module, _, output: given.update(block=output))
    with torch.inference_mode():
        found = Taps(model, ["blocks.1"])(inputs)["blocks.1"]
    torch.testing.assert_close(found, given["block"][:, model.num_prefix_tokens :].mean(dim=1))


def test_all_blocks_at_once_are_each_alone_and_no_hook_stays():
    model, inputs = built("test_resnet"), images()
    with torch.inference_mode():
        every = Taps(model, blocks(model))(inputs)
        for name, values in every.items():
            torch.testing.assert_close(Taps(model, [name])(inputs)[name], values)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Own(nn.Module):
    """A network that is none of timm's."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, classes)

    def depth_groups(self):
        return [self.stem, self.norm, self.head]

    def forward(self, inputs):
        return self.head(self.norm(self.stem(inputs)).mean(dim=(2, 3)))


def test_of_own_models_last_is_what_the_last_linear_layer_takes():
    model, inputs = Own().eval(), images()
    with torch.inference_mode():
        found = Taps(model, ["stem", "last"])(inputs)
        torch.testing.assert_close(found["last"], model.norm(model.stem(inputs)).mean(dim=(2, 3)))
        torch.testing.assert_close(found["stem"], model.stem(inputs).mean(dim=(2, 3)))


def test_without_a_linear_layer_the_end_is_not_known():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    vars(model)["depth_groups"] = lambda: [model[0].weight, model[0].bias]
    with pytest.raises(KitError, match="where its features end is not known"):
        Taps(model, ["last"])(images())


@pytest.mark.parametrize(
    ("stated", "name"), [("0", "conv1"), ("2", "layer2.0"), ("-1", "layer4.0"), ("last", "last")]
)
def test_blocks_by_number(stated, name):
    assert block_named(built("test_resnet"), stated) == name


@pytest.mark.parametrize("stated", ["5", "fc", "layer", ""])
def test_blocks_that_are_none(stated):
    with pytest.raises(KitError, match=r"features.block: there is no .* in .*; take last, a number from 0 to 4"):
        block_named(built("test_resnet"), stated)


def test_the_digest_is_of_the_body_alone():
    model = built("test_resnet")
    digest = body_digest(model)
    with torch.no_grad():
        model.fc.weight += 1
    assert body_digest(model) == digest
    with torch.no_grad():
        model.bn1.running_mean += 1
    assert body_digest(model) != digest
    assert body_digest(built("test_resnet", seed=1)) != digest
