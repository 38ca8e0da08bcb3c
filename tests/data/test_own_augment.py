"""Augmentations of the user's own: in order with albumentations', by the given random numbers, in workers."""

import multiprocessing
import pickle
import random
import threading

import albumentations as A
import numpy as np
import pytest
from support.pixel_caches import pixel_cache
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.images import ImageSet
from kit.data.loading import BatchPlan, training_batches
from kit.data.workers import Workers

MINE = """import albumentations as A
import numpy as np

def add_noise(pixels, random, scale=20):
    return np.clip(pixels + random.normal(0, scale, pixels.shape), 0, 255).astype(np.uint8)

class Brighter:
    def __init__(self, by):
        self.by = by
    def __call__(self, pixels, random):
        pixels += np.uint8(self.by)
        return pixels

class Masked(A.ImageOnlyTransform):
    def __init__(self, mask=1, p=0.5):
        super().__init__(p)
        self.mask = mask
    def apply(self, img, **params):
        if img[0, 0, 0] == 77:
            raise RuntimeError("masked")
        return img ^ self.mask

def halves(pixels, random): return pixels / 2
def lists(pixels, random): return pixels.tolist()
def smaller(pixels, random): return pixels[:4]
def others(pixels, random): return (pixels + np.random.randint(0, 255, pixels.shape)).astype(np.uint8)
def fails(pixels, random): return pixels + undefined
def one_only(pixels): return pixels
def where(pixels, random):
    import threading
    threading.seen = [*getattr(threading, "seen", []), threading.get_ident()]
    return pixels
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


def noise(seed=0, channels=3, side=8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def coins(seed) -> random.Random:
    """What albumentations draws from: Compose itself takes the first."""
    generator = random.Random(seed)
    generator.random()
    return generator


def line_of(text: str) -> int:
    """The number of the line of MINE that holds this text; of several, the first."""
    return min(number for number, line in enumerate(MINE.splitlines(), 1) if text in line)


def test_a_function_draws_from_the_generator_of_the_sample(config):
    seen = Augmentation(config({"mine.py:add_noise": {"scale": 9}}))(noise(), 5)
    generator = np.random.Generator(np.random.Philox(5))
    expected = np.clip(noise() + generator.normal(0, 9, (8, 8, 3)), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(seen, expected)


def test_p_is_how_often_it_is_applied(config):
    half = Augmentation(config({"mine.py:Brighter": {"by": 1, "p": 0.5}}))
    applied = [not np.array_equal(half(noise(), seed), noise()) for seed in range(400)]
    assert applied == [coins(seed).random() < 0.5 for seed in range(400)]
    always = Augmentation(config({"mine.py:Brighter": {"by": 1}}))
    assert all((always(noise(), seed) == noise() + np.uint8(1)).all() for seed in range(20))


def test_own_steps_stand_in_order_with_albumentations(config):
    steps = [{"mine.py:add_noise": {}}, {"HorizontalFlip": {"p": 0.5}}, {"mine.py:Masked": {"mask": 6, "p": 1}}]
    augment = Augmentation(config(*steps))
    for seed in range(20):
        generator, coin = np.random.Generator(np.random.Philox(seed)), coins(seed)
        expected = np.clip(noise() + generator.normal(0, 20, (8, 8, 3)), 0, 255).astype(np.uint8)
        expected = expected[:, ::-1] if coin.random() < 0.5 else expected
        np.testing.assert_array_equal(augment(noise(), seed), expected ^ 6)


def test_pixels_may_be_written_to_without_changing_the_image(config):
    pixels = noise()
    pixels.flags.writeable = False  # as the pixel cache's are
    augment = Augmentation(config({"mine.py:Brighter": {"by": 3}}))
    np.testing.assert_array_equal(augment(pixels, 0), noise() + np.uint8(3))
    np.testing.assert_array_equal(pixels, noise())


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels(config, channels):
    augment = Augmentation(config("mine.py:add_noise", channels=channels))
    assert augment(noise(channels=channels), 0).shape == (8, 8, channels)


def test_a_copy_for_another_process_gives_the_same(config):
    first = Augmentation(config({"mine.py:add_noise": {"p": 0.5}}, "mine.py:Masked", crop_pct=0.5))
    second = pickle.loads(pickle.dumps(first))
    for seed in range(10):
        np.testing.assert_array_equal(first(noise(side=16), seed), second(noise(side=16), seed))


PLAN = BatchPlan(seed=3, epochs=2, n=6, batch=2)


def images(tmp_path, first=None) -> ImageSet:
    pixels = np.stack([noise(seed) for seed in range(6)])
    pixels[4] = 77 if first == 77 else pixels[4]
    cache = pixel_cache(tmp_path / "pixels.npy", pixels)
    return ImageSet([f"id{row}" for row in range(6)], [], Decoder(8, 3, "squash", "bicubic"), cache)


def batches(tmp_path, augmentation, workers=0, first=None, step=0):
    made = training_batches(
        images(tmp_path, first), np.arange(6), np.arange(6), augmentation, PLAN, step, Workers(workers)
    )
    return [pixels.numpy().tobytes() for pixels, _ in made]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_do_not_change_a_byte(config, tmp_path, method):
    augmentation = Augmentation(config({"mine.py:add_noise": {"p": 0.7}}, "HorizontalFlip", "mine.py:Masked"))
    alone = batches(tmp_path, augmentation)
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        assert batches(tmp_path, augmentation, workers=1, step=2) == alone[2:]
    finally:
        multiprocessing.set_start_method(usual, force=True)


def test_own_code_runs_where_the_loop_does(config, tmp_path, monkeypatch):
    # It may draw from numpy's global generator, or seed it, as mixup of the same update does.
    augmentation = Augmentation(config({"OneOf": {"transforms": ["HorizontalFlip", {"mine.py:where": {"p": 1}}]}}))
    assert augmentation.has_own_code
    monkeypatch.setattr(threading, "seen", [], raising=False)
    batches(tmp_path, augmentation)
    assert set(threading.seen) == {threading.get_ident()}
    assert not Augmentation(config("HorizontalFlip")).has_own_code


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["fails_on_77", "Masked"])
def test_a_fault_in_training_is_one_line_with_the_image(config, tmp_path, workers, name):
    augmentation = Augmentation(config({f"mine.py:{name}": {"p": 1}}))
    said = refusal_of(batches, tmp_path, augmentation, workers, 77)
    text = "masked" if name == "Masked" else "seventy-seven"
    line = line_of(f'Error("{text}')
    fault = f"{name}: mine.py:{line}: RuntimeError: {text}"
    assert said == f"data.augment[0]: mine.py:{fault} (image id4, epoch 1)"


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ("mine.py:halves", "gives float64 (8, 8, 3), but training needs uint8 (8, 8, 3); leave out Normalize"),
        ("mine.py:lists", "mine.py:lists gives list; an array of pixels is needed"),
        ({"mine.py:smaller": {"p": 0.5}}, "gives uint8 (4, 8, 3), but training needs uint8 (8, 8, 3)"),
        (
            "mine.py:others",
            "gives other pixels for the same random numbers, so that no training could be repeated",
        ),
        (
            "mine.py:fails",
            f"mine.py:fails: mine.py:{line_of('undefined')}: NameError: name 'undefined' is not defined",
        ),
        (
            "mine.py:one_only",
            f"mine.py:one_only (mine.py:{line_of('one_only')}): is called with (pixels, random): too many",
        ),
        ({"mine.py:add_noise": {"scal": 1}}, "takes no option 'scal'; did you mean scale?"),
        ({"mine.py:add_noise": {"p": 1.5}}, "mine.py:add_noise: p = 1.5: expected a probability, 0 to 1"),
        ({"mine.py:add_noise": {"p": True}}, "mine.py:add_noise: p = True: expected a probability, 0 to 1"),
        ({"mine.py:Masked": {"masc": 1}}, "takes no option 'masc'; did you mean mask?"),
        ("mine.py:add_nois", "mine.py has no function or class 'add_nois'; did you mean add_noise?"),
        ("their.py:f", "their.py:f: there is no file their.py in"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_training(config, step, line):
    said = refusal_of(Augmentation, config(step))
    assert said.startswith("data.augment[0]: ")
    assert line in said


def test_a_step_that_is_always_taken_may_cut_to_the_size(config, tmp_path):
    (tmp_path / "mine.py").write_text("def corner(pixels, random): return pixels[:8, :8]")
    seen = Augmentation(config("mine.py:corner", crop_pct=0.5))(noise(side=16), 0)
    np.testing.assert_array_equal(seen, noise(side=16)[:8, :8])


def test_an_installed_transform_of_albumentations_kind_can_be_named(config):
    step = {"albumentations.augmentations.geometric.flip:HorizontalFlip": {"p": 1}}
    np.testing.assert_array_equal(Augmentation(config(step))(noise(), 0), noise()[:, ::-1])
    assert A.HorizontalFlip  # the same class by its short name


def test_a_fault_that_is_not_of_own_code_is_left_as_it_is(config):
    augment = Augmentation(config("mine.py:add_noise", "HorizontalFlip"))
    with pytest.raises(Exception, match=r".") as raised:
        augment("no pixels", 0)
    assert not isinstance(raised.value, KitError)
