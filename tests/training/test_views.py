"""Views: against PIL and numpy, image by image; how they are named, united, averaged and written down."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from support.refusals import refusal_of
from torchvision.transforms.functional import five_crop

from kit.model.sizes import at_size, need_sides
from kit.training.config import PredictionConfig
from kit.training.views import TURNS, View, Views, tile_edges

STORED, SIDE = 14, 11
PIXELS = np.random.default_rng(0).integers(0, 256, (3, STORED, STORED, 2), dtype=np.uint8)
TENSOR = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float()
PLAIN = PIXELS[:, 1:12, 1:12]

BY_PIL = {
    "hflip": Image.Transpose.FLIP_LEFT_RIGHT,
    "vflip": Image.Transpose.FLIP_TOP_BOTTOM,
    "rot90": Image.Transpose.ROTATE_90,
    "rot180": Image.Transpose.ROTATE_180,
    "rot270": Image.Transpose.ROTATE_270,
    "transpose": Image.Transpose.TRANSPOSE,
    "transverse": Image.Transpose.TRANSVERSE,
}


def seen(view: View) -> np.ndarray:
    """[batch, side, side, channels]"""
    made = view.of(TENSOR, SIDE)
    assert made.is_contiguous(memory_format=torch.channels_last)
    return made.permute(0, 2, 3, 1).numpy()


def by_pil(pixels: np.ndarray, change) -> np.ndarray:
    """`change` of each image and channel by itself, in floats."""
    channels = [[change(Image.fromarray(image[..., c].astype(np.float32))) for c in (0, 1)] for image in pixels]
    return np.stack([np.stack([np.asarray(each) for each in image], axis=2) for image in channels])


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_is_that_of_pil(name):
    np.testing.assert_array_equal(
        seen(View(SIDE, name)), by_pil(PLAIN, lambda image: image.transpose(BY_PIL[name]))
    )


def test_crops_are_those_of_torchvision():
    corners = five_crop(TENSOR[:, :, :13, :13], [SIDE, SIDE])  # an even margin, of which there is one middle
    for crop, name in zip(corners, ("corner 0 0", "corner 0 1", "corner 1 0", "corner 1 1", "plain"), strict=True):
        assert torch.equal(View(SIDE, name).of(TENSOR[:, :, :13, :13], SIDE), crop)


@pytest.mark.parametrize("side", [7, 18])
def test_a_scale_is_the_plain_view_resized_by_pil(side):
    expected = by_pil(PLAIN, lambda image: image.resize((side, side), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(seen(View(side, "scale 1.3")), expected, atol=1e-3)


@pytest.mark.parametrize("count", [2, 3])
def test_tiles_are_parts_of_the_stored_image(count):
    edges = [tile_edges(STORED, count, number) for number in range(count)]
    assert (edges[0][0], edges[-1][1]) == (0, STORED)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(edges))
    row, column = count - 1, 0
    part = PIXELS[:, edges[row][0] :, : edges[0][1]]
    expected = by_pil(part, lambda image: image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(seen(View(SIDE, f"tile {count} {row} {column}")), expected, atol=1e-3)


def chosen(*views, **options) -> Views:
    return PredictionConfig(views=views, **options).chosen(10)


def test_several_are_a_union_with_the_plain_view_first():
    assert [view.name for view in chosen()] == ["plain"]
    assert [view.name for view in chosen("rot90", "hflip")] == ["plain", "hflip", "rot90", "rot180", "rot270"]
    assert chosen("d4", "hflip", "rot90") == chosen("d4") == chosen("rot90", "d4", "vflip")
    everything = chosen("d4", "five_crops", {"scales": [1.2, 0.5]}, {"scales": [0.5]}, {"tiles": 2}, {"tiles": 2})
    assert len(list(everything)) == 8 + 4 + 2 + 4
    assert everything.passes == pytest.approx(8 + 4 + 0.25 + 1.44 + 4)
    assert chosen("hflip", size=15).passes == pytest.approx(2 * 2.25)
    assert chosen("hflip", size=15).one.passes == pytest.approx(2.25)
    assert chosen(average="logits") == chosen()  # of one view it is the same
    assert (chosen("hflip").need_all, everything.need_all) == (False, True)


VIEWS = st.lists(
    st.sampled_from(["hflip", "vflip", "rot90", "d4", "five_crops"])
    | st.builds(lambda scale: {"scales": [scale]}, st.sampled_from([0.5, 0.8, 1.25]))
    | st.builds(lambda n, pool: {"tiles": n, "pool": pool}, st.integers(2, 3), st.sampled_from(["mean", "max"])),
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VIEWS, st.sampled_from([None, 10, 13]), st.sampled_from(["probabilities", "logits"]))
def test_what_the_record_says_is_read_as_it_was(names, size, average):
    views = chosen(*names, size=size, average=average)
    form = json.loads(json.dumps(views.form()))
    assert Views.of_form(form, 10) == views
    assert (form == {}) == (views == Views.plain(10))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VIEWS, st.sampled_from(["probabilities", "logits"]), st.booleans(), st.integers(0, 99))
def test_the_mean_over_votes_against_an_obvious_one(names, average, multilabel, seed):
    views = chosen(*names, average=average)
    generator = np.random.default_rng(seed)
    logits = {view: generator.normal(size=(5, 3)).astype(np.float32) for view in views}

    def activate(values):
        powers = np.exp(values)
        return powers / (1 + powers) if multilabel else powers / powers.sum(axis=1, keepdims=True)

    votes = []
    for vote in views.votes:
        each = [logits[view] if average == "logits" else activate(logits[view]) for view in vote.views]
        pooled = np.max(each, axis=0) if vote.pool == "max" else np.mean(each, axis=0)
        if vote.pool == "max" and average != "logits" and not multilabel:
            pooled /= pooled.sum(axis=1, keepdims=True)
        votes.append(pooled)
    expected = np.mean(votes, axis=0)
    expected = activate(expected) if average == "logits" else expected
    made = views.combined(
        lambda view: torch.from_numpy(logits[view]),
        lambda values: values.sigmoid() if multilabel else values.softmax(dim=1),
        multilabel,
    )
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)
    if not multilabel:
        np.testing.assert_allclose(made.numpy().sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"tta": "hflip", "views": ["d4"]}, "both are stated"),
        ({"tta": "flip"}, "expected none or hflip"),
        ({"views": ["flip"]}, "hflip"),
        ({"views": [{"scales": [1.0]}]}, "not 1"),
        ({"views": [{"scales": []}]}, "one at least"),
        ({"views": [{"tiles": 1}]}, "greater than or equal to 2"),
        ({"views": [{"tiles": 2, "pool": "min"}]}, "mean"),
        ({"average": "votes"}, "logits"),
    ],
)
def test_what_is_no_prediction(content, said):
    with pytest.raises(ValidationError, match=said):
        PredictionConfig.model_validate(content)


def test_the_earlier_name():
    assert PredictionConfig(tta="hflip") == PredictionConfig(views=["hflip"]) == PredictionConfig(views="hflip")
    assert PredictionConfig(tta="none") == PredictionConfig()
    assert PredictionConfig(tta="none", views=[]) == PredictionConfig()


def test_a_vit_of_another_size_is_a_copy_that_timm_resampled():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=2, depth=1).eval()
    before = model.pos_embed.clone()
    larger = at_size(model, 48, 32)
    assert torch.equal(model.pos_embed, before)
    assert tuple(larger.pos_embed.shape) == (1, 10, 192)
    other = timm.create_model("vit_tiny_patch16_224", img_size=48, num_classes=2, depth=1).eval()
    weights = timm.models.vision_transformer.checkpoint_filter_fn(
        model.state_dict(), other, interpolation="bicubic"
    )
    other.load_state_dict(weights)
    inputs = torch.rand(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(larger(inputs), other(inputs))
    need_sides(model, [32, 48], 32, 3, "vit")
    assert refusal_of(lambda: need_sides(model, [50], 32, 3, "vit")).startswith(
        "prediction: vit, built for 32 px, cannot predict images of 50 px (it takes multiples of 16 px); change "
    )


def test_a_model_of_one_size_is_refused():
    mixer = timm.create_model("mixer_s32_224", img_size=32, num_classes=2)
    assert refusal_of(lambda: need_sides(mixer, [32, 64], 32, 3, "mixer")).startswith(
        "prediction: mixer, built for 32 px, cannot predict images of 64 px ("
    )
    assert mixer.training
    resnet = timm.create_model("test_resnet", num_classes=2)
    assert at_size(resnet, 64, 32) is resnet
    need_sides(resnet, [31, 64], 32, 3, "resnet")


def test_other_views_are_other_words():
    assert str(chosen()) == "one view"
    assert str(chosen("d4", size=12, average="logits")) == "plain + d4 at 12 px, mean of logits"
    assert str(chosen("hflip", "five_crops", {"scales": [0.5]}, {"tiles": 2})) == (
        "plain + hflip + five_crops + scale 0.5 + 2 × 2 tiles (mean)"
    )
    assert dataclasses.replace(chosen("hflip"), turns=()) == chosen()
