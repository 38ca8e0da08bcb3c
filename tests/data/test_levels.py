"""The levels of files with more than 8 bits: of the whole set, found once, the same for whoever reads."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import write_png

from kit.data import levels as module
from kit.data.config import DataConfig
from kit.data.hashes import hash_images
from kit.data.images import open_images
from kit.data.levels import with_levels
from kit.data.reading import Reading
from kit.data.sources import Channels


def saved(folder: Path, name: str, *values: float, kind: type = np.uint16) -> Path:
    """An image whose first pixels have these values; the others have the first."""
    pixels = np.full((8, 8), values[0], kind)
    pixels.flat[: len(values)] = values
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def found(folder: Path, *files: Path, **options) -> object:
    return with_levels(DataConfig(**options), files, folder / "cache").levels


@pytest.mark.parametrize(
    ("largest", "high"), [(5, 7), (255, 255), (256, 511), (1000, 1023), (4095, 4095), (4096, 8191), (65535, 65535)]
)
def test_whole_numbers_go_from_0_to_the_bits_that_hold_the_largest(tmp_path, largest, high):
    files = [saved(tmp_path, "a.png", 1, 2), saved(tmp_path, "b.png", 2, largest)]
    assert found(tmp_path, *files) == (0, high)


@pytest.mark.parametrize(
    ("values", "kind", "levels"),
    [
        ((-5, 700), np.int32, (-5, 1023)),
        ((0, 70_000), np.int32, (0, 131_071)),
        ((-7, -3), np.int32, (-7, 0)),
        ((0, 0), np.int32, (0, 1)),
        ((0.25, 0.75), np.float32, (0.25, 0.75)),
        ((-1.5, 1200.25), np.float32, (-1.5, 1200.25)),
        ((0.5, np.nan, np.inf, 0.75), np.float32, (0.5, 0.75)),
        ((2.5, 2.5), np.float32, (2.5, 3.5)),
    ],
)
def test_other_numbers(tmp_path, values, kind, levels):
    assert found(tmp_path, saved(tmp_path, "a.tif", *values, kind=kind)) == levels


def test_files_of_8_bits_have_no_part_in_it(tmp_path):
    Image.new("L", (8, 8), 200).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "text.tif").write_text("none")
    eight = [tmp_path / name for name in ("a.png", "a.jpg", "broken.png", "text.tif", "missing.png")]
    assert found(tmp_path, *eight) == "auto"
    assert not (tmp_path / "cache").exists()
    assert found(tmp_path, *eight, saved(tmp_path, "deep.png", 3)) == (0, 3)


def test_colours_count_and_transparency_does_not(tmp_path):
    values = np.full((8, 8, 4), 900)
    values[..., 3] = 65535
    assert found(tmp_path, write_png(tmp_path / "a.png", values, 16)) == (0, 1023)
    assert found(tmp_path, write_png(tmp_path / "b.png", values[..., :3], 16)) == (0, 1023)


def test_channels_are_looked_at_file_by_file(tmp_path):
    source = Channels((saved(tmp_path, "a.png", 3), saved(tmp_path, "b.png", 300)))
    assert with_levels(DataConfig(channels=2), [source], tmp_path / "cache").levels == (0, 511)


def test_what_is_stated_counts(tmp_path):
    files = [saved(tmp_path, "a.png", 0, 300)]
    assert found(tmp_path, *files, levels=[0, 4095]) == (0, 4095)
    seen = open_images(["a"], files, DataConfig(size=8, levels=[0, 1000], channels=1), tmp_path / "cache")[0]
    assert (seen[0, 0, 0], seen[0, 1, 0]) == (0, 300 * 255 // 1000)


def test_files_are_read_once_while_they_stay_as_they_are(tmp_path, monkeypatch):
    files = [saved(tmp_path, name, 0, 900) for name in ("a.png", "b.png")]
    read = []
    values_of = module.values_of
    monkeypatch.setattr(module, "values_of", lambda image: read.append(image.filename) or values_of(image))
    assert found(tmp_path, *files) == found(tmp_path, *files) == (0, 1023)
    assert sorted(read) == [str(file) for file in files]
    saved(tmp_path, "b.png", 0, 5000, 7000)
    assert found(tmp_path, *files) == (0, 8191)


def test_one_file_of_all_16_bits_settles_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)
    files = [saved(tmp_path, f"{place}.png", 0, 40_000) for place in range(9)]
    read = []
    values_of = module.values_of
    monkeypatch.setattr(module, "values_of", lambda image: read.append(image.filename) or values_of(image))
    assert found(tmp_path, *files) == (0, 65535)
    assert len(read) == 2


@pytest.mark.parametrize("cache", [True, False])
def test_pixels_of_12_bits_fill_8(tmp_path, cache):
    grey = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    config = with_levels(DataConfig(size=8, channels=1, cache=cache), [tmp_path / "a.png"], tmp_path / "cache")
    images = open_images(["a"], [tmp_path / "a.png"], config, tmp_path / "cache")
    np.testing.assert_array_equal(images[0][..., 0], grey.astype(int) * 255 // 4095)
    assert images.read_otherwise() == {"levels": [0, 4095]}


def test_true_16_bits_stay_as_they_were(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    colour = np.stack([grey, grey.T, grey[::-1]], axis=2)
    write_png(tmp_path / "b.png", colour, 16)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    config = with_levels(DataConfig(size=8), files, tmp_path / "cache")
    images = open_images(["a", "b"], files, config, tmp_path / "cache")
    np.testing.assert_array_equal(images[0][..., 0], grey // 257)
    np.testing.assert_array_equal(images[1], colour // 256)  # Pillow's upper bits, as before
    assert images.read_otherwise() == {}


def test_what_is_beyond_is_clipped_and_counted(tmp_path):
    files = [saved(tmp_path, "a.png", 0, 900), saved(tmp_path, "b.png", 0, 1023, 5000)]
    config = DataConfig(size=8, channels=1, levels=[10, 1023])
    images = open_images(["a", "b"], files, config, tmp_path / "cache")
    assert images[1][0, :3, 0].tolist() == [0, 255, 255]
    assert images.count("beyond") == 2
    line = "1 of 1 test images hold values beyond the levels 0 to 1023, which are clipped (data.levels) (b.png)"
    only = open_images(["b"], files[1:], DataConfig(size=8, levels=[0, 1023]), tmp_path / "cache")
    assert only.remarks("test") == [line]


def test_levels_that_nobody_knows_are_told(tmp_path):
    file = saved(tmp_path, "a.png", 0, 40_000)
    images = open_images(["a"], [file], DataConfig(size=8), tmp_path / "cache")
    assert images.remarks("test") == [
        "1 of 1 test images have more than 8 bits of unknown range, 0 to 65535 is taken; state data.levels (a.png)"
    ]


def test_hashes_see_the_levels(tmp_path):
    """Of 12 bits taken for 16 a hash sees 16 greys."""
    grey = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.fromarray((grey.astype(int) * 255 // 4095).astype(np.uint8)).save(tmp_path / "eight.png")
    config = with_levels(DataConfig(), [tmp_path / "deep.png"], tmp_path / "cache")
    deep = hash_images([tmp_path / "deep.png"], tmp_path / "cache", reading=Reading.of(config))
    eight = hash_images([tmp_path / "eight.png"], tmp_path / "cache")
    np.testing.assert_array_equal(deep.thumbnails, eight.thumbnails)
    assert deep.digests.tolist() == eight.digests.tolist()
