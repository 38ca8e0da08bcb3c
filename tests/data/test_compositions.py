"""Albumentations' compositions and advice: built as albumentations does, and checked as single steps are."""

import pickle
import random

import albumentations as A
import numpy as np
import pytest
from support.refusals import refusal_of

from kit.core.named import own_code_of
from kit.data.augment import Augmentation
from kit.data.config import DataConfig

FLIPS = [{"HorizontalFlip": {"p": 1}}, {"VerticalFlip": {"p": 1}}]
MINE = """import numpy as np
def inverted(pixels, random): return 255 - pixels
def floats(pixels, random): return pixels / 255
def others(pixels, random): return (pixels + np.random.randint(0, 255, pixels.shape)).astype(np.uint8)
def fails_on_77(pixels, random):
    if pixels[0, 0, 0] == 77:
        raise RuntimeError("seventy-seven")
    return pixels
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)

    def of(*steps, **options) -> DataConfig:
        content = {"size": 8, "augment": list(steps)} | options
        return DataConfig.model_validate(content, context={"folder": tmp_path})

    return of


def noise(side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, channels), dtype=np.uint8)


def outcomes(augment, seeds=range(300)) -> dict[str, int]:
    """How often an image came out as it was, mirrored left to right, top to bottom, or both."""
    pixels = noise()
    kinds = {"as is": pixels, "across": pixels[:, ::-1], "down": pixels[::-1], "both": pixels[::-1, ::-1]}
    counts = dict.fromkeys(kinds, 0)
    for seed in seeds:
        seen = augment(pixels, seed)
        counts[next(name for name, kind in kinds.items() if np.array_equal(seen, kind))] += 1
    return counts


def test_one_of_draws_one_by_the_weights(config):
    steps = [{"HorizontalFlip": {"p": 0.75}}, {"VerticalFlip": {"p": 0.25}}]
    counts = outcomes(Augmentation(config({"OneOf": {"transforms": steps, "p": 0.5}})))
    assert counts["both"] == 0
    assert 120 <= counts["as is"] <= 180  # 150 ± 3.5 sigma
    assert 85 <= counts["across"] <= 140
    assert 18 <= counts["down"] <= 60


def test_some_of_draws_so_many(config):
    three = [*FLIPS, {"Transpose": {"p": 0}}]
    counts = outcomes(Augmentation(config({"SomeOf": {"n": 2, "transforms": three}})))
    assert counts["as is"] == 0
    assert all(70 <= counts[kind] <= 130 for kind in ("across", "down", "both"))


def test_sequential_applies_all_or_none(config):
    counts = outcomes(Augmentation(config({"Sequential": {"transforms": FLIPS, "p": 0.5}})))
    assert counts["across"] == counts["down"] == 0
    assert 120 <= counts["both"] <= 180


def test_nested_to_any_depth_with_bare_names(config):
    inner = {"Sequential": {"transforms": [*FLIPS, {"OneOf": {"transforms": FLIPS, "p": 1}}], "p": 1}}
    outer = {"OneOf": {"transforms": [inner, "HorizontalFlip", {"VerticalFlip": None}], "p": 1}}
    counts = outcomes(Augmentation(config(outer)))
    assert counts["as is"] == counts["both"] == 0  # both flips and one of them again leave the other
    assert min(counts["across"], counts["down"]) > 100


@pytest.mark.parametrize("name", ["OneOf", "SomeOf", "RandomOrder", "Sequential", "OneOrOther"])
def test_what_comes_out_is_albumentations_own(config, name):
    """With the same random numbers; the crop behind it draws from them as well."""
    options = {"n": 2} if name in ("SomeOf", "RandomOrder") else {}
    steps = [{"RandomBrightnessContrast": {"p": 0.7}}, {"Affine": {"rotate": [-30, 30], "p": 0.6}}]
    ours = Augmentation(config({name: {"transforms": steps, "p": 0.8} | options}, crop_pct=0.8))
    inside = [A.RandomBrightnessContrast(p=0.7), A.Affine(rotate=(-30, 30), p=0.6)]
    theirs = A.Compose([getattr(A, name)(transforms=inside, p=0.8, **options), A.RandomCrop(8, 8)])
    for seed in range(20):
        theirs.set_random_state(np.random.Generator(np.random.Philox(seed)), random.Random(seed))
        np.testing.assert_array_equal(ours(noise(10), seed), theirs(image=noise(10))["image"])


def test_the_same_seed_gives_the_same_pixels_in_any_order_and_process(config):
    mine = {"mine.py:inverted": {"p": 0.5}}
    steps = [{"OneOf": {"transforms": [{"GaussNoise": {}}, mine, {"SomeOf": {"transforms": FLIPS}}], "p": 0.9}}]
    augment = Augmentation(config(*steps))
    forwards = [augment(noise(), seed) for seed in range(30)]
    again = pickle.loads(pickle.dumps(augment))
    backwards = [again(noise(), seed) for seed in reversed(range(30))]
    np.testing.assert_array_equal(forwards, backwards[::-1])
    assert len({each.tobytes() for each in forwards}) > 5


# Advice is no fault, an argument that is not taken is one.


@pytest.mark.parametrize(
    "step",
    [
        {"ShiftScaleRotate": {"shift_limit": 0.06, "scale_limit": 0.1, "rotate_limit": 15, "p": 0.5}},
        {"TimeReverse": {"p": 0.5}},
        {"TimeMasking": {"time_mask_param": 3}},
        {"FrequencyMasking": {"freq_mask_param": 3}},
        {"OneOf": {"transforms": [{"ShiftScaleRotate": {"rotate_limit": [-5, 5]}}]}},
    ],
)
def test_what_albumentations_only_advises_against_runs(config, step, recwarn):
    seen = Augmentation(config(step))(noise(), 3)
    assert (seen.shape, seen.dtype) == ((8, 8, 3), np.uint8)
    assert [each for each in recwarn if "lbumentations" in each.filename] == []


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"ShiftScaleRotate": {"shift": 0.1}}, "ShiftScaleRotate: Argument(s) 'shift' are not valid"),
        ({"MedianBlur": {"blur_limit": [4, 6]}}, "adjusted"),
        ({"HorizontalFlip": {"always_apply": True}}, "'always_apply' are not valid"),
    ],
)
def test_what_it_does_not_take_as_it_is_stays_a_fault(config, step, words):
    assert words in refusal_of(Augmentation, config(step))
    said = refusal_of(Augmentation, config("HorizontalFlip", {"OneOf": {"transforms": ["VerticalFlip", step]}}))
    assert said.startswith("data.augment[1].OneOf.transforms[1]: ")
    assert words in said


# What does not fit is named with its place.


def one_of(*steps, **options) -> dict:
    return {"OneOf": {"transforms": list(steps)} | options}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("OneOf", "data.augment[0].OneOf.transforms: expected a list of transforms; got None"),
        ({"SomeOf": {"n": 2}}, "data.augment[0].SomeOf.transforms: expected a list of transforms; got None"),
        (one_of(), "data.augment[0].OneOf.transforms: expected a list of transforms; got []"),
        (one_of("Flop"), "data.augment[0].OneOf.transforms[0]: 'Flop' is no transform of albumentations "),
        (one_of(one_of(3)), "data.augment[0].OneOf.transforms[0].OneOf.transforms[0]: one transform an entry, "),
        (one_of({"HorizontalFlip": 1}), "data.augment[0].OneOf.transforms[0].HorizontalFlip: expected a mapping"),
        (one_of(*FLIPS, p=2), "data.augment[0]: OneOf: p = 2: expected a probability, 0 to 1"),
        (one_of(*FLIPS, prob=1), "data.augment[0]: OneOf: OneOf.__init__() got an unexpected keyword "),
        (one_of({"HorizontalFlip": {"p": 0}}), "data.augment[0]: OneOf: each of its transforms has p: 0"),
        ({"SomeOf": {"n": 0, "transforms": FLIPS}}, "data.augment[0]: SomeOf: n = 0: expected how many"),
        ({"SomeOf": {"n": 3, "transforms": FLIPS}}, "data.augment[0]: SomeOf: `n` is greater than number of "),
        ({"OneOrOther": {"transforms": FLIPS[:1]}}, "data.augment[0]: OneOrOther: Length of transforms is not "),
        (one_of(*FLIPS, "Normalize"), "data.augment[0].OneOf.transforms[2]: gives float32 (8, 8, 3), but "),
        (one_of("mine.py:floats"), "data.augment[0].OneOf.transforms[0]: mine.py:floats: gives float64 (8, 8, 3)"),
        (one_of("mine.py:others"), "data.augment[0].OneOf.transforms[0]: gives other pixels for the same random "),
        (one_of("mine.py:other"), "data.augment[0].OneOf.transforms[0]: mine.py:other: mine.py has no function "),
        (
            one_of("HorizontalFlip", {"Resize": {"height": 4, "width": 4, "p": 1}}, p=1),
            "data.augment[0].OneOf.transforms[1]: gives uint8 (4, 4, 3), but training needs uint8 (8, 8, 3)",
        ),
        (
            {"SomeOf": {"transforms": [{"Resize": {"height": 4, "width": 4, "p": 1}}, "HorizontalFlip"]}},
            "data.augment[0].SomeOf.transforms[0]: gives uint8 (4, 4, 3), but training needs uint8 (8, 8, 3)",
        ),
    ],
)  # fmt: skip
def test_faults(config, step, said):
    assert refusal_of(Augmentation, config(step)).startswith(said)


def test_crops_to_the_size_may_be_drawn_from_where_one_is_sure(config):
    crops = [{"RandomCrop": {"height": 8, "width": 8}}, {"RandomResizedCrop": {"size": [8, 8]}}]
    augment = Augmentation(config(one_of(*crops, p=1), crop_pct=0.8))
    assert {augment(noise(10), seed).shape for seed in range(20)} == {(8, 8, 3)}
    said = refusal_of(Augmentation, config(one_of(*crops, p=0.5), crop_pct=0.8))
    assert said.startswith("data.augment[0]: gives uint8 (8, 8, 3), but training needs uint8 (10, 10, 3)")


# Own code inside.


def test_own_code_is_found_at_any_depth(config):
    steps = config("mine.py:inverted", one_of(*FLIPS, one_of({"mine.py:floats": {"p": 1}})))
    assert list(steps.references()) == [
        ("augment[0]", "mine.py:inverted"),
        ("augment[1].OneOf.transforms[2].OneOf.transforms[0]", "mine.py:floats"),
    ]
    assert [place for place, _ in own_code_of(steps, "data")] == [
        "data.augment[0]",
        "data.augment[1].OneOf.transforms[2].OneOf.transforms[0]",
    ]
    assert list(config(one_of(3, None), {"OneOf": {"transforms": 5}}).references()) == []


def test_own_code_inside_is_applied_and_its_faults_are_told(config):
    augment = Augmentation(config(one_of("mine.py:inverted", p=1)))
    np.testing.assert_array_equal(augment(noise(), 1), 255 - noise())
    fails = Augmentation(config(one_of("mine.py:fails_on_77", p=1)))
    said = refusal_of(fails, np.full((8, 8, 3), 77, np.uint8), 1)
    assert said.startswith(
        "data.augment[0].OneOf.transforms[0]: mine.py:fails_on_77: mine.py:7: RuntimeError: seventy"
    )
