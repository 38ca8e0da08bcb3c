"""The kit's Affine and its late generator give, bit for bit, what albumentations gives without them."""

import random

import albumentations as A
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data import affine
from kit.data.augment import PRESETS, Augmentation
from kit.data.config import DataConfig
from kit.data.transforms import build_step

OURS = pytest.mark.skipif(A.__version__ not in affine.KNOWN, reason="albumentations' own serves")


def pixels(side: int, channels: int, width: int | None = None) -> np.ndarray:
    return np.random.default_rng(side).integers(0, 256, (side, width or side, channels), dtype=np.uint8)


def drawn(transform: A.BasicTransform, image: np.ndarray, seed: int) -> np.ndarray:
    transform.set_random_state(np.random.Generator(np.random.Philox(seed)), random.Random(seed))
    return transform(image=image)["image"]


ranges = st.tuples(st.floats(-1, 0), st.floats(0, 1))


@OURS
@given(
    seed=st.integers(0, 2**64 - 1),
    side=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    parameters=st.fixed_dictionaries(
        {},
        optional={
            "rotate": st.sampled_from([0, (-10, 10), (90, 90), (-180, 180)]),
            "scale": st.sampled_from([1, (0.9, 1.1), (1, 1), {"x": (0.5, 2), "y": (1, 1)}]),
            "shear": st.sampled_from([0, (-20, 20), {"x": (0, 30), "y": (0, 0)}]),
            "translate_percent": ranges,
            "keep_ratio": st.just(False),
            "fit_output": st.booleans(),
            "balanced_scale": st.booleans(),
            "border_mode": st.sampled_from([0, 1, 2, 4]),
            "interpolation": st.sampled_from([0, 1, 2]),
            "fill": st.sampled_from([0, 7.0, 255]),
        },
    ),
)
def test_affine_is_albumentations_own_to_the_bit(seed, side, width, channels, parameters):
    theirs, ours = A.Affine(p=0.8, **parameters), affine.Affine(p=0.8, **parameters)
    image = pixels(side, channels, width)
    wanted, given = drawn(theirs, image.copy(), seed), drawn(ours, image.copy(), seed)
    assert given.dtype == wanted.dtype
    np.testing.assert_array_equal(given, wanted)


@OURS
def test_what_moves_nothing_leaves_the_image():
    image = pixels(8, 3)
    still = affine.Affine(rotate=0, scale=1, translate_px=0, p=1)
    np.testing.assert_array_equal(drawn(still, image, 1), image)


@pytest.mark.parametrize("preset", ["light", "medium", "heavy"])
@pytest.mark.parametrize("channels", [1, 3])
def test_presets_are_albumentations_own_to_the_bit(preset, channels):
    config = DataConfig(size=16, crop_pct=0.8, channels=channels, augment=preset)
    augmentation = Augmentation(config)
    steps = [getattr(A, name)(**options) for step in PRESETS[preset] for name, options in step.items()]
    plain = A.Compose([*steps, A.RandomCrop(16, 16)])
    image = pixels(config.stored_size, channels)
    for seed in range(300):
        plain.set_random_state(np.random.Generator(np.random.Philox(seed)), random.Random(seed))
        np.testing.assert_array_equal(augmentation(image.copy(), seed), plain(image=image.copy())["image"])


def test_another_version_of_albumentations_serves_itself(monkeypatch):
    monkeypatch.setattr(A, "__version__", "2.9.9")
    assert type(build_step({"Affine": {"rotate": 5}}, "data.augment[0]", DataConfig(size=16))) is A.Affine
