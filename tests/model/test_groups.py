"""Depth groups against timm's own layer decay, fastai's cut, and the order in which modules run."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from kit.core.errors import KitError
from kit.lr import Clock, policy
from kit.lr.clock import policy_groups
from kit.model.groups import depth_groups

FAMILIES = {
    "resnet18": 224,
    "convnext_atto": 224,
    "tf_efficientnet_lite0": 224,
    "efficientnet_b0": 224,
    "vit_tiny_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "mobilenetv3_small_100": 224,
    "regnety_002": 224,
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return timm.create_model(request.param, num_classes=7)


@pytest.mark.parametrize("cut", ["block", "stage", "coarse"])
def test_every_parameter_is_in_one_group(model, cut):
    grouped = [id(value) for group in depth_groups(model, cut) for value in group.parameters.values()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(value) for value in model.parameters()}


def test_blocks_are_the_layers_of_timms_layer_decay(model):
    """timm's groups carry lr_scale = decay^(layers − 1 − layer), which tells each parameter's layer."""
    scale_of = {
        id(value): group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.5)
        for value in group["params"]
    }
    ours = depth_groups(model, "block")
    for depth, group in enumerate(ours):
        scales = {scale_of[id(value)] for value in group.parameters.values()}
        assert scales == {0.5 ** (len(ours) - 1 - depth)}


@pytest.mark.parametrize("cut", ["block", "stage", "coarse"])
def test_groups_come_in_the_order_in_which_they_run(model, cut):
    depth_of = {
        id(value): depth
        for depth, group in enumerate(depth_groups(model, cut))
        for value in group.parameters.values()
    }
    first_run = {}

    def note(module, _):
        for value in module.parameters(recurse=False):
            first_run.setdefault(depth_of[id(value)], len(first_run))

    hooks = [module.register_forward_pre_hook(note) for module in model.modules()]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert [first_run[depth] for depth in sorted(first_run)] == sorted(first_run.values())


def test_norms_are_with_their_block(model):
    for cut in ("block", "stage"):
        depth_of = {
            name: depth for depth, group in enumerate(depth_groups(model, cut)) for name in group.parameters
        }
        for name in depth_of:
            prefix, _, leaf = name.rpartition(".")
            if leaf == "weight" and f"{prefix}.bias" in depth_of:
                assert depth_of[name] == depth_of[f"{prefix}.bias"]
        blocks = {}
        for name, depth in depth_of.items():
            if ".norm" in name or ".bn" in name:
                parent = name.rpartition(".")[0].rpartition(".")[0]
                blocks.setdefault(parent, set()).add(depth)
        assert all(len(depths) == 1 for depths in blocks.values())


def test_the_cuts_nest(model):
    fine, stages, three = (depth_groups(model, cut) for cut in ("block", "stage", "coarse"))
    for inner, outer in ((fine, stages), (stages, three)):
        where = {name: depth for depth, group in enumerate(outer) for name in group.parameters}
        homes = [{where[name] for name in group.parameters} for group in inner]
        assert all(len(home) == 1 for home in homes)
        depths = [home.pop() for home in homes]
        assert depths == sorted(depths)


def test_resnet18_is_cut_as_by_timm_and_fastai():
    model = timm.create_model("resnet18", num_classes=10)
    blocks = ["conv1", *(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)), "fc"]
    assert [group.name for group in depth_groups(model, "block")] == blocks
    assert [group.name for group in depth_groups(model, "stage")] == [
        "conv1", "layer1", "layer2", "layer3", "layer4", "fc",
    ]  # fmt: skip
    three = depth_groups(model, "coarse")
    assert [group.n_params for group in three] == [683_072, 10_493_440, 5_130]
    assert [group.name for group in three] == ["conv1…layer2", "layer3…layer4", "fc"]


def test_the_final_norm_of_swin_and_vit_is_in_the_last_block_under_every_cut():
    for name in ("swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"):
        model = timm.create_model(name)
        for cut in ("block", "stage", "coarse"):
            before_the_head = depth_groups(model, cut)[-2]
            assert "norm.weight" in before_the_head.parameters


def test_a_model_without_an_order_is_one_group():
    model = timm.create_model("pit_ti_224")
    (group,) = depth_groups(model)
    assert group.parameters == dict(model.named_parameters())


def test_an_order_that_loses_a_parameter_is_refused(monkeypatch):
    model = timm.create_model("test_resnet")
    body, last = [name for name, _ in model.named_parameters()][1:-1], "fc.bias"
    monkeypatch.setattr("kit.model.groups.group_parameters", lambda *_: {0: body, 1: [last]})
    with pytest.raises(KitError, match="does not hold every parameter once"):
        depth_groups(model)


def test_an_order_that_does_not_end_with_the_classifier_is_refused(monkeypatch):
    model = timm.create_model("test_resnet")
    names = [name for name, _ in model.named_parameters()]
    head = [name for name in names if name.startswith("fc.")]
    body = [name for name in names if not name.startswith("fc.")]
    monkeypatch.setattr("kit.model.groups.group_parameters", lambda *_: {0: head, 1: body})
    with pytest.raises(KitError, match="does not end with its classifier"):
        depth_groups(model)


def addressed(model, cut):
    """The depth groups that each printed name stands for as a key of `explicit`, by that name."""
    groups = policy_groups(depth_groups(model, cut))
    found = {}
    for name in [group.name for group in groups]:
        built = policy(1e-3, "constant", {"name": "explicit", "groups": {name: 0.1}})
        built.check(groups, 10, 5)
        rates = built.rates(Clock(0, 10, 5), groups).lr
        found[name] = [group.name for group, rate in zip(groups, rates, strict=True) if rate < 5e-4]
    return found


def check_every_name(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=5)
    for cut in ("block", "stage", "coarse"):
        for printed, found in addressed(model, cut).items():
            assert found == [printed], (name, cut)


@pytest.mark.parametrize(
    "name",
    [
        "convnext_atto", "cspnext_m", "davit_tiny", "dpn68", "efficientvim_m1", "efficientvit_m0", "inception_v4",
        "levit_128s", "nest_tiny", "resnet18", "selecsls42", "swin_tiny_patch4_window7_224", "tiny_vit_5m_224",
        "vit_tiny_patch16_224",
    ],
)  # fmt: skip
def test_every_printed_name_addresses_its_group_alone(name):
    check_every_name(name)


@pytest.mark.slow
def test_every_printed_name_addresses_its_group_alone_in_each_of_timms_families():
    families = {module: names[0] for module in timm.list_modules() if (names := timm.list_models(module=module))}
    refused = []
    for name in families.values():
        try:
            check_every_name(name)
        except KitError as error:
            refused.append(str(error))
    assert len(families) - len(refused) > 60
    assert [line for line in refused if "offers no" not in line and "too few stages" not in line] == []


def test_the_first_block_of_a_later_stage_is_named_as_its_siblings():
    for name, stage in (("convnext_atto", "stages"), ("swin_tiny_patch4_window7_224", "layers")):
        with torch.device("meta"):
            model = timm.create_model(name)
        groups = depth_groups(model, "block")
        names = [group.name for group in groups]
        assert names[3:5] == [f"{stage}.1.blocks.0", f"{stage}.1.blocks.1"]
        assert any(".downsample." in key for key in groups[3].parameters)
        both = policy(1e-3, "constant", {"name": "explicit", "groups": {f"{stage}.1": 0.1}})
        rates = both.rates(Clock(0, 10), policy_groups(groups)).lr
        assert [place for place, rate in enumerate(rates) if rate < 5e-4] == [3, 4]  # what the name was once


def test_names_whose_paths_part_say_the_first_and_the_last_child():
    with torch.device("meta"):
        names = [group.name for group in depth_groups(timm.create_model("dpn68"), "block")]
        stem = depth_groups(timm.create_model("inception_v4"), "block")[0]
    assert names[-2:] == ["features.conv5_3…conv5_bn_ac", "classifier"]
    assert stem.name == "features.0…2"


@pytest.mark.parametrize(
    "name", ["densenet121", "dla34", "dpn68", "vgg11", "inception_v3", "mixer_s16_224", "pvt_v2_b0"]
)
@pytest.mark.parametrize("cut", ["block", "stage"])
def test_every_group_has_a_name_of_its_own(name, cut):
    with torch.device("meta"):
        model = timm.create_model(name)
    names = [group.name for group in depth_groups(model, cut)]
    assert len(set(names)) == len(names)
    assert all(names)
