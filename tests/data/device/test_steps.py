"""The device's steps beside albumentations': the same pixels of the same parameters, the same distributions."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from kit.data.config import DataConfig
from kit.data.device.known import known_step
from kit.data.device.uniforms import uniforms

SIDE = 40
SEEDS = np.arange(3000, dtype=np.uint64)


def picture(channels: int = 3, side: int = SIDE) -> np.ndarray:
    """Something smooth, so that what lies between two pixels is known."""
    rough = np.random.default_rng(channels).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    return cv2.resize(rough, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, channels)


def step_of(transform: A.BasicTransform, side: int = SIDE):
    made = known_step(transform, DataConfig(size=side))
    assert made is not None
    return made


def there(transform: A.BasicTransform, pixels: np.ndarray, drawn: np.ndarray | None = None) -> np.ndarray:
    """What the device makes of an image, where the middle of each range is drawn, or what is stated."""
    step = step_of(transform, pixels.shape[0])
    drawn = np.full((1, step.draws), 0.5) if drawn is None else drawn
    parameters = torch.from_numpy(step.parameters(drawn, pixels.shape[0]).astype(np.float32))
    images = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    return step.apply(images, parameters)[0].permute(1, 2, 0).numpy()


def away(transform: A.BasicTransform, pixels: np.ndarray) -> np.ndarray:
    """By how much the device's pixels are others than albumentations', in grey levels."""
    expected = transform(image=pixels)["image"].reshape(pixels.shape)
    return np.abs(expected.astype(int) - there(transform, pixels))


def forced(**parameters) -> A.Affine:
    """An Affine that has no choice."""
    return A.Affine(**{name: _both(value) for name, value in parameters.items()}, p=1)


def _both(value):
    if isinstance(value, tuple):
        return {axis: (each, each) for axis, each in zip("xy", value, strict=True)}
    return value if isinstance(value, int | bool) else (value, value)


@settings(max_examples=60, deadline=None)
@given(
    rotate=st.floats(-180, 180),
    scale=st.tuples(st.floats(0.6, 1.6), st.floats(0.6, 1.6)),
    shear=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    channels=st.sampled_from([1, 3, 4]),
)
def test_affine_is_within_few_grey_levels(rotate, scale, shear, shift, channels):
    difference = away(forced(rotate=rotate, scale=scale, shear=shear, translate_px=shift), picture(channels))
    assert difference.mean() < 0.5  # OpenCV 4 knows places to 1/32 of a pixel; with 5 it is 0.001, and 1 at most
    assert difference.max() <= 8


@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT])
@pytest.mark.parametrize("fill", [0, 200])
def test_borders(border, fill):
    difference = away(
        forced(rotate=33.0, scale=(0.7, 0.8), translate_px=(5, -4), border_mode=border, fill=fill), picture()
    )
    assert difference.max() <= 8


def test_affine_of_seven_channels():
    """A network may have as many as 32; OpenCV takes four at a time."""
    assert away(forced(rotate=10.0, scale=(0.9, 1.1)), picture(7)).max() <= 8


def test_affine_of_nearest_pixels():
    """Where a place is halfway between two pixels either may be taken, so most are the same."""
    turned = forced(rotate=17.0, scale=(1.1, 0.9), interpolation=cv2.INTER_NEAREST)
    assert (away(turned, picture()) > 0).mean() < 0.05


def test_an_affine_that_moves_nothing_changes_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(there(A.Affine(p=1), noise), noise)


def test_shifts_are_cut_to_whole_pixels():
    """A twentieth of 40 pixels is 2; 1.9 is 1, on both sides of 0."""
    for share, pixels in ((0.05, 2), (0.0475, 1), (-0.0475, -1), (0.02, 0)):
        moved = there(A.Affine(translate_percent=(share, share), p=1), picture())
        np.testing.assert_array_equal(moved, there(A.Affine(translate_px=pixels, p=1), picture()))


@settings(max_examples=40, deadline=None)
@given(contrast=st.floats(-0.9, 0.9), brightness=st.floats(-0.9, 0.9))
def test_brightness_and_contrast_are_the_same_pixels(contrast, brightness):
    all_values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    transform = A.RandomBrightnessContrast((brightness, brightness), (contrast, contrast), p=1)
    factor, summand = step_of(transform, 16).parameters(np.full((1, 2), 0.5), 16)[0]
    assert (factor, summand) == (1 + contrast, 255 * brightness)
    assert away(transform, all_values).max() == 0


@pytest.mark.parametrize("width", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("sigma", [0.5, 1.3, 3.0])
def test_blur_is_within_a_grey_level(width, sigma):
    difference = away(A.GaussianBlur((width, width), (sigma, sigma), p=1), picture())
    assert difference.mean() < 0.02
    assert difference.max() <= 1


@pytest.mark.parametrize("place", range(4))
def test_quarter_turns_are_numpys(place):
    pixels = picture()
    turned = there(A.RandomRotate90(p=1), pixels, np.array([[place / 4]]))
    np.testing.assert_array_equal(turned, np.rot90(pixels, place))


@pytest.mark.parametrize("transform", [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), A.Transpose(p=1)])
def test_flips_are_the_same_pixels(transform):
    assert away(transform, picture()).max() == 0


def test_all_eight_symmetries():
    pixels = picture()
    eight = {there(A.D4(p=1), pixels, np.array([[place / 8]])).tobytes() for place in range(8)}
    transform = A.D4(p=1)
    albumentations = {transform(image=pixels)["image"].tobytes() for _ in range(200)}
    assert len(eight) == 8
    assert albumentations <= eight


def test_holes_are_the_same_pixels():
    transform, pixels = A.CoarseDropout((1, 4), (0.1, 0.25), (0.1, 0.4), fill=7, p=1), picture(4)
    step = step_of(transform)
    for drawn in uniforms(SEEDS[:50], step.draws):
        edges = step.parameters(drawn[None], SIDE).reshape(-1, 4).astype(int)
        top, bottom, left, right = edges[edges[:, 1] > edges[:, 0]].T
        holes = np.stack([left, top, right, bottom], axis=1)
        expected = transform.apply(pixels.copy(), holes=holes, seed=0)
        np.testing.assert_array_equal(there(transform, pixels, drawn[None]), expected)


# Distributions: of each parameter, ours beside albumentations' own.


def drawn_by_albumentations(transform: A.BasicTransform, count: int = 3000) -> list[dict]:
    transform.set_random_state(np.random.Generator(np.random.Philox(0)), random.Random(0))
    pixels = picture()
    data = {"image": pixels}
    return [transform.get_params_dependent_on_data({"shape": pixels.shape}, data) for _ in range(count)]


def same_distribution(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ks_2samp(ours, theirs).pvalue > 1e-3


def test_affines_are_drawn_alike():
    transform = A.Affine(
        rotate=(-30, 20), scale=(0.7, 1.3), translate_percent=(-0.15, 0.1), shear={"x": (-10, 5), "y": (0, 8)}
    )
    step = step_of(transform)
    ours = step.parameters(uniforms(SEEDS, step.draws), SIDE)
    centre = SIDE / 2 - 0.5
    for number, drawn in enumerate(inverses := _inverses(transform)):
        middle = drawn[:2, :2] @ [centre, centre] + drawn[:2, 2] - centre  # in pixels, from the centre
        inverses[number] = np.concatenate([drawn[:2, :2].ravel(), middle * 2 / SIDE])
    theirs = np.array(inverses)[:, [0, 1, 4, 2, 3, 5]]
    assert all(same_distribution(ours[:, column], theirs[:, column]) for column in range(6))


def _inverses(transform: A.Affine) -> list[np.ndarray]:
    return [np.linalg.inv(drawn["matrix"]) for drawn in drawn_by_albumentations(transform)]


def test_one_scale_where_the_ratio_is_kept():
    step = step_of(A.Affine(scale=(0.5, 1.5), keep_ratio=True))
    a, b, _, c, d, _ = step.parameters(uniforms(SEEDS[:20], step.draws), SIDE).T
    np.testing.assert_array_equal(a, d)
    np.testing.assert_array_equal(np.stack([b, c]), 0)


def test_brightness_and_contrast_are_drawn_alike():
    transform = A.RandomBrightnessContrast(0.3, (-0.1, 0.2))
    ours = step_of(transform).parameters(uniforms(SEEDS, 2), SIDE)
    theirs = drawn_by_albumentations(transform)
    assert same_distribution(ours[:, 0], np.array([each["alpha"] for each in theirs]))
    assert same_distribution(ours[:, 1], np.array([each["beta"] for each in theirs]))


def test_blurs_are_drawn_alike():
    transform = A.GaussianBlur((3, 5))
    ours = step_of(transform).parameters(uniforms(SEEDS, 2), SIDE)
    theirs = np.array([each["kernel"].max() for each in drawn_by_albumentations(transform)])
    assert same_distribution(ours[:, 0], theirs)
    np.testing.assert_allclose(2 * ours.sum(axis=1) - ours[:, 0], 1)  # a pixel keeps its brightness


@pytest.mark.parametrize("sides", [((0.1, 0.25), (0.2, 0.3)), ((3, 8), (2, 5)), ((10, 60), (30, 90))])
def test_holes_are_drawn_alike(sides):
    transform = A.CoarseDropout((2, 4), *sides)
    step = step_of(transform)
    ours = step.parameters(uniforms(SEEDS, step.draws), SIDE).reshape(len(SEEDS), -1, 4)
    theirs = [each["holes"] for each in drawn_by_albumentations(transform)]
    numbers = ((ours[:, :, 1] > ours[:, :, 0]).sum(axis=1), np.array([len(each) for each in theirs]))
    assert same_distribution(*numbers)
    first = np.array([each[0] for each in theirs])[:, [1, 3, 0, 2]]
    assert all(same_distribution(ours[:, 0, column], first[:, column]) for column in range(4))
    assert ours.min() >= 0
    assert ours.max() <= SIDE


# What is not known.


@pytest.mark.parametrize(
    "transform",
    [
        A.MotionBlur(),
        A.OneOf([A.HorizontalFlip()]),
        A.Affine(fit_output=True),
        A.Affine(balanced_scale=True, scale=(0.5, 2)),
        A.Affine(interpolation=cv2.INTER_CUBIC),
        A.Affine(border_mode=cv2.BORDER_WRAP),
        A.Affine(fill=(1, 2, 3)),
        A.Affine(scale=(0, 1)),
        A.RandomBrightnessContrast(brightness_by_max=False),
        A.RandomBrightnessContrast(ensure_safe_range=True),
        A.GaussianBlur(blur_limit=0),
        A.GaussianBlur(blur_limit=(3, 99)),  # reaches beyond the mirrored image
        A.CoarseDropout(fill="random"),
        A.CoarseDropout(fill=0.5),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_what_the_device_does_not_know(transform):
    assert known_step(transform, DataConfig(size=32)) is None


def test_a_class_that_derives_from_a_known_one_may_do_anything():
    class Mine(A.HorizontalFlip):
        pass

    assert known_step(Mine(), DataConfig(size=32)) is None
