"""Models of the user's own, and of a hub or a folder: how they are called, their weights, their order of depth."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from kit.core.errors import KitError
from kit.model.build import build_model, normalisation, weights_digest
from kit.model.config import ModelConfig
from kit.model.groups import depth_groups
from kit.model.own import check_output

MINE = """
import timm, torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, in_chans, width=4, pretrained=False, drop_rate=0.0):
        super().__init__()
        self.called_with = (num_classes, in_chans, width, pretrained, drop_rate)
        self.first, self.second = nn.Conv2d(in_chans, width, 3), nn.Conv2d(width, width, 3)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, num_classes)
    def forward(self, x):
        return self.head(self.norm(self.second(self.first(x))).mean((2, 3)))
class Ordered(Net):
    def depth_groups(self):
        return [self.first, [self.second, self.norm.weight, self.norm.bias], self.head]
class Losing(Net):
    def depth_groups(self):
        return [self.first, self.head]
class Odd(Net):
    def depth_groups(self):
        return [self.first, "second"]
class Strange(Net):
    def depth_groups(self):
        return [self.first, nn.Linear(2, 2)]
class Failing(Net):
    def depth_groups(self):
        return [self.third]
def wrapped(num_classes, in_chans):
    return timm.create_model("test_vit", num_classes=num_classes, in_chans=in_chans, img_size=32)
def number(num_classes, in_chans): return 3
def failing(num_classes, in_chans): return undefined
"""


@pytest.fixture
def build(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def of(name, seed=0, **options):
        config = ModelConfig.model_validate({"name": f"mine.py:{name}"} | options, context={"folder": tmp_path})
        return build_model(config, 3, 3, 32, seed)

    return of


def test_it_is_called_as_timms_are(build):
    assert build("Net").called_with == (3, 3, 4, False, 0.0)
    assert build("Net", options={"width": 6}, drop=0.2, weights="hub").called_with == (3, 3, 6, True, 0.2)


def test_its_first_weights_depend_on_the_seed_alone(build):
    first, again, other = (weights_digest(build("Net", seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_its_own_order_of_depth_is_taken(build):
    groups = depth_groups(build("Ordered"))
    assert [sorted(group.parameters) for group in groups] == [
        ["first.bias", "first.weight"],
        ["norm.bias", "norm.weight", "second.bias", "second.weight"],
        ["head.bias", "head.weight"],
    ]
    assert [len(group.norms) for group in groups] == [0, 1, 0]
    assert [group.name for group in groups] == ["first", "second", "head"]
    assert len(depth_groups(build("Ordered"), "coarse")) == 3


@pytest.mark.parametrize("name", ["Net", "test_resnet"])
def test_patterns_say_the_order_in_place_of_the_models(build, name):
    depth = {"Net": ["first", "(second|norm)", "head"], "test_resnet": ["conv1|bn1", "layer", "fc"]}[name]
    config = {"depth": depth}
    model = build(name, **config) if name == "Net" else build_model(ModelConfig(name=name, **config), 3, 3, 32, 0)
    groups = depth_groups(model)
    assert len(groups) == 3
    assert sorted(key for group in groups for key in group.parameters) == sorted(dict(model.named_parameters()))
    assert all(key.startswith("layer") for key in groups[1].parameters) or name == "Net"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Losing", {}, r"Losing's depth order does not hold every parameter once: norm.bias, norm.weight, second"),
        ("Odd", {}, r"model: depth_groups\(\)\[1\] holds str; give modules or parameters"),
        ("Strange", {}, r"model: depth_groups\(\)\[1\] holds 2 parameters that are not the model's"),
        ("Failing", {}, r"model: depth_groups\(\) fails at mine.py:\d+: AttributeError: .*third"),
        (
            "Net",
            {"depth": ["first", "head"]},
            "model.depth: no pattern is of second.weight, second.bias, norm.weight",
        ),
        ("Net", {"depth": [".", "first"]}, "model.depth: 'first' is of no parameter"),
    ],
)
def test_an_order_that_cannot_be_is_refused(build, name, options, said):
    with pytest.raises(KitError, match=said):
        depth_groups(build(name, **options))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("number", {}, "model.name: mine.py:number gives int; a torch.nn.Module is needed"),
        ("failing", {}, r"model.name: mine.py:failing: mine.py:\d+: NameError: .*undefined"),
        ("Net", {"options": {"wide": 3}}, r"takes no option 'wide'; did you mean width\?"),
        (
            "wrapped",
            {"weights": "hub"},
            "is called with num_classes, in_chans, pretrained, but takes no pretrained",
        ),
    ],
)
def test_what_is_no_model_is_refused(build, name, options, said):
    with pytest.raises(KitError, match=said):
        build(name, **options)


def test_a_weight_file_is_its_whole_state(build, tmp_path):
    trained = build("Net", seed=5)
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    assert weights_digest(build("Net", weights=str(tmp_path / "trained.pt"))) == weights_digest(trained)
    with pytest.raises(
        KitError, match=r"model.weights: .* does not hold the weights of mine.py:Net: .*size mismatch"
    ):
        build("Net", weights=str(tmp_path / "trained.pt"), options={"width": 5})


def test_pixels_are_normalised_as_its_part_from_timm_wants(build):
    part = timm.get_pretrained_cfg("test_vit")
    assert normalisation("mine.py:wrapped", 3, build("wrapped")).mean == part.mean
    assert normalisation("mine.py:Net", 3, build("Net")).mean == timm.models.PretrainedCfg().mean


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda x: x.new_zeros(2, 4), r"gives shape \[2, 4\]; logits of shape \[2, 3\] are needed"),
        (lambda x: (x, x), "gives tuple; logits"),
        (lambda x: x.new_full((2, 3), torch.nan), "gives logits that are not finite"),
    ],
)
def test_its_output_is_checked(output, said):
    class Gives(nn.Module):
        def forward(self, x):
            return output(x)

    with pytest.raises(KitError, match=said):
        check_output(Gives(), 3, torch.zeros(2, 3, 8, 8), "mine.py:Gives")


def write_folder(folder):
    """A model as timm's `push_to_hf_hub` leaves it."""
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=7)
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    described = dict(model.pretrained_cfg) | {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 7}
    content = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": described}
    (folder / "config.json").write_text(json.dumps(content))
    return model


def test_a_model_in_a_folder_is_built_as_timm_builds_it(tmp_path):
    model = write_folder(tmp_path / "there")
    name = f"local-dir:{tmp_path / 'there'}"
    scratch = build_model(ModelConfig(name=name), 3, 3, 32, 0)
    assert weights_digest(scratch) != weights_digest(model)
    found = build_model(ModelConfig(name=name, weights="hub"), 3, 3, 32, 0)
    for key, value in model.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(found.state_dict()[key], value), key
    assert found.num_classes == 3
    np.testing.assert_allclose(normalisation(name, 3).mean, [0.1, 0.2, 0.3])
    assert len(depth_groups(found, "stage")) > 3


def test_a_model_of_a_hub_is_asked_for_by_its_name(tmp_path, monkeypatch):
    model = write_folder(tmp_path / "there")
    monkeypatch.setattr("kit.model.hub._is_cached", lambda repository: repository == "owner/name")
    monkeypatch.setattr(
        "timm.models._hub.hf_hub_download", lambda repo_id, filename, **_: str(tmp_path / "there" / filename)
    )
    found = build_model(ModelConfig(name="hf-hub:owner/name", weights="hub"), 3, 3, 32, 0)
    first = next(iter(model.state_dict()))
    assert torch.equal(found.state_dict()[first], model.state_dict()[first])


def test_a_model_of_a_hub_out_of_reach_is_told(monkeypatch):
    def refuse(address, ask):
        raise ConnectionError("https://huggingface.co does not answer within 4 s")

    monkeypatch.setattr("kit.model.hub._need_answer", refuse)
    with pytest.raises(KitError, match=r"hf-hub:owner/other cannot be had .* does not answer within 4 s"):
        build_model(ModelConfig(name="hf-hub:owner/other"), 3, 3, 32, 0)
