"""Decoders of the user's own: their pixels are treated as those of a file, and what they may not give."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.refusals import refusal_of

from kit.data.config import DataConfig
from kit.data.decode import Decoder, open_image, try_decoder
from kit.data.hashes import hash_images
from kit.data.images import open_images, open_readable
from kit.data.reading import Reading
from kit.data.sources import Channels

MINE = """
import numpy as np
from PIL import Image
def array(path): return np.load(path)
def inverted(path, by=255): return np.uint8(by) - np.load(path)
def image(path): return Image.fromarray(np.load(path))
def unit(path): return np.load(path) / 255
def nothing(path): pass
def empty(path): return np.zeros((0, 4), np.uint8)
def deep(path): return np.zeros((1, 2, 3, 4), np.uint8)
def other(path): return np.random.randint(0, 255, (20, 20)).astype(np.uint8)
def fails(path): raise KeyError("PixelData")
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def config(folder: Path, decoder="mine.py:array", **options) -> DataConfig:
    return DataConfig.model_validate({"size": 16, "decoder": decoder} | options, context={"folder": folder})


def stored(folder: Path, *shape: int, name="image", seed=0) -> Path:
    """The same pixels as an array and, where that can be, as a PNG of the same name; returns the array's file."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    np.save(folder / f"{name}.npy", pixels)
    if len(shape) == 2 or shape[2] in (3, 4):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder / f"{name}.npy"


def plain(path: Path, **options) -> np.ndarray:
    return Decoder.of(DataConfig(size=16, **options))(path.with_suffix(".png"))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3, 4, 2])
@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (16, 16)])
@pytest.mark.parametrize("decoder", ["mine.py:array", "mine.py:image"])
def test_pixels_are_converted_and_resized_as_a_files(folder, decoder, shape, channels, resize):
    options = {"channels": channels, "resize": resize}
    path = stored(folder, *shape)
    seen = Decoder.of(config(folder, decoder, **options))(path)
    np.testing.assert_array_equal(seen, plain(path, **options))


def test_an_alpha_channel_is_left_out_where_colour_is_wanted(folder):
    path = stored(folder, 20, 20, 4)
    np.testing.assert_array_equal(Decoder.of(config(folder))(path), plain(path))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_as_many_channels_as_wanted_are_resized_one_by_one(folder, channels):
    path = stored(folder, 20, 30, channels)
    seen = Decoder.of(config(folder, channels=channels))(path)
    for channel in range(channels):
        grey = Image.fromarray(np.load(path)[:, :, channel]).resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(seen[:, :, channel], np.asarray(grey))


def test_one_channel_may_have_an_axis_of_its_own(folder):
    path = stored(folder, 20, 20)
    expected = plain(path)
    np.save(path, np.load(path)[:, :, None])
    np.testing.assert_array_equal(Decoder.of(config(folder))(path), expected)


def test_files_that_are_channels_are_each_read_by_it(folder):
    files = tuple(stored(folder, 20, 20, name=name, seed=seed) for seed, name in enumerate("ab"))
    seen = Decoder.of(config(folder, channels=2))(Channels(files))
    expected = [Decoder.of(config(folder, channels=1))(file)[:, :, 0] for file in files]
    np.testing.assert_array_equal(seen, np.stack(expected, axis=2))


def test_options_and_a_copy_for_another_process(folder):
    path = stored(folder, 16, 16, 3)
    decoder = Decoder.of(config(folder, {"name": "mine.py:inverted", "by": 250}))
    np.testing.assert_array_equal(decoder(path), np.uint8(250) - np.load(path))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(decoder))(path), decoder(path))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "unit",
            "gives float64 [20, 20, 3]; uint8 from 0 to 255, [height, width] or [height, width, channels], or ",
        ),
        ("nothing", "gives NoneType; uint8 from 0 to 255"),
        ("empty", "gives uint8 [0, 4]; uint8 from 0 to 255"),
        ("deep", "gives uint8 [1, 2, 3, 4]; uint8 from 0 to 255"),
        ("other", "the second time, so that no training could be repeated; random changes belong in data.augment"),
        ("fails", "mine.py:fails: mine.py:12: KeyError: 'PixelData'"),
        ("arry", "mine.py has no function or class 'arry'; did you mean array?"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_image(folder, name, line):
    path = stored(folder, 20, 20, 3)
    said = refusal_of(try_decoder, config(folder, f"mine.py:{name}"), path)
    assert said.startswith("data.decoder: ")
    assert line in said
    assert str(path) in said or name == "arry"


def test_a_number_of_channels_that_nothing_can_be_made_of(folder):
    path = stored(folder, 20, 20, 5)
    said = refusal_of(try_decoder, config(folder), path)
    assert said == f"data.decoder: {path}: mine.py:array gives 5 channels, but data.channels is 3"


def test_an_image_that_it_fails_on_is_broken_like_any_other(folder):
    files = [stored(folder, 20, 20, name=name) for name in "ab"]
    files[1].write_bytes(b"no array")
    readable = open_readable(list("ab"), files, config(folder), folder / "cache")
    assert readable.rows == [0]
    assert readable.broken[1].startswith(f"{files[1]} (mine.py:array: mine.py:4: ")
    assert "1 of 2 images cannot be read" in refusal_of(
        open_images, list("ab"), files, config(folder), folder / "cache"
    )


def opened(folder: Path, path: Path, **options) -> tuple[np.ndarray, Path]:
    images = open_images(["a"], [path], config(folder, **options), folder / "cache")
    assert images.cache
    return images[0].copy(), images.cache.file


def test_the_pixel_cache_is_of_the_code_and_its_options(folder):
    path = stored(folder, 16, 16, 3)
    first, cache = opened(folder, path)
    assert opened(folder, path)[1] == cache
    (folder / "mine.py").write_text(
        MINE.replace("return np.load(path)\ndef inv", "return np.load(path) // 2\ndef inv")
    )
    second, other = opened(folder, path)
    assert other != cache
    np.testing.assert_array_equal(second, first // 2)
    caches = {opened(folder, path, decoder={"name": "mine.py:inverted", "by": by})[1] for by in (255, 250)}
    assert len(caches | {cache, other}) == 4


def test_without_one_the_cache_is_that_of_before():
    stated = {"side": 16, "channels": 3, "resize": "squash", "interpolation": "bicubic"}
    assert Decoder.of(DataConfig(size=16)).settings() == stated


def test_hashes_are_of_the_same_pixels(folder):
    files = [stored(folder, 40, 40, name=name, seed=seed) for seed, name in enumerate("ab")]
    own = config(folder).decoder
    hashed = hash_images(files, folder / "cache", reading=Reading(own))
    expected = hash_images([file.with_suffix(".png") for file in files], folder / "cache")
    assert hashed.digests.tolist() == expected.digests.tolist()
    assert hashed.hashes.tolist() == expected.hashes.tolist()
    assert hashed.kinds.tolist() == ["NPY L", "NPY L"]
    (folder / "mine.py").write_text(MINE.replace("np.load(path)\ndef inv", "np.load(path) // 2\ndef inv"))
    again = hash_images(files, folder / "cache", reading=Reading(config(folder).decoder))
    assert again.digests.tolist() != hashed.digests.tolist()


def test_a_thumbnail_of_many_channels_is_their_mean(folder):
    path = stored(folder, 20, 20, 5)
    image = open_image(path, reading=Reading(config(folder).decoder))
    np.testing.assert_array_equal(np.asarray(image), np.load(path).astype(int).sum(axis=2) // 5)
