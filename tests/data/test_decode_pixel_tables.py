"""Pixels in a table: which they are, what spoils them, and what caches and runs know of them."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.refusals import refusal_of

from kit.data import decode as decode_module
from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder, open_image
from kit.data.images import content_digest, open_images, open_readable
from kit.data.sources import PixelRow, PixelTable, files_key

SIDE = 8


def decode(source, channels: int = 3) -> np.ndarray:
    return Decoder(SIDE, channels, "squash", "bicubic")(source)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def pixel_table(folder: Path, pixels: np.ndarray, **cells: dict) -> PixelTable:
    """`pixels` [rows, height, width] as a table with other columns around; `cells`: "r<row>p<place>" → text."""
    rows, height, width = pixels.shape
    names = [f"pixel{place}" for place in range(height * width)]
    frame = pd.DataFrame(pixels.reshape(rows, -1), columns=names).astype(object)
    for key, text in cells.items():
        row, place = map(int, key[1:].split("p"))
        frame.iloc[row, place] = text
    frame.insert(0, "label", "x")
    frame["site"] = "y"
    frame.to_csv(folder / "train.csv", index=False)
    return PixelTable(folder / "train.csv", tuple(names), height, width)


def rows_of(table: PixelTable, count: int) -> list[PixelRow]:
    return [PixelRow(table, row) for row in range(count)]


def test_pixels_of_a_table_are_those_that_stand_there_row_by_row(tmp_path):
    pixels = noise(3, SIDE, SIDE)
    sources = rows_of(pixel_table(tmp_path, pixels), 3)
    for row in (2, 0, 1):
        np.testing.assert_array_equal(decode(sources[row], channels=1)[..., 0], pixels[row])
        np.testing.assert_array_equal(decode(sources[row]), np.stack([pixels[row]] * 3, axis=-1))


def test_an_image_that_is_no_square_keeps_its_shape(tmp_path):
    pixels = noise(2, 3, 5)
    image = open_image(rows_of(pixel_table(tmp_path, pixels), 2)[1])
    assert image.size == (5, 3)
    np.testing.assert_array_equal(np.asarray(image), pixels[1])


def test_the_order_of_the_columns_is_the_configs(tmp_path):
    table = pixel_table(tmp_path, noise(1, 2, 2))
    turned = PixelTable(table.path, table.columns[::-1], 2, 2)
    np.testing.assert_array_equal(
        np.asarray(open_image(PixelRow(turned, 0))), np.asarray(open_image(PixelRow(table, 0)))[::-1, ::-1]
    )


@pytest.mark.parametrize("text", ["256", "-1", "0.5", "", "dark", "nan", "inf", "1e9"])
def test_a_value_that_is_no_grey_level_spoils_its_row_alone(tmp_path, text):
    pixels = noise(3, 2, 2)
    sources = rows_of(pixel_table(tmp_path, pixels, r1p2=text), 3)
    readable = open_readable(list("abc"), sources, DataConfig(size=SIDE, channels=1), tmp_path / "cache")
    reason = f"row 2 of {tmp_path / 'train.csv'} (pixels are whole numbers from 0 to 255)"
    assert (readable.rows, readable.broken) == ([0, 2], {1: reason})
    np.testing.assert_array_equal(np.asarray(open_image(sources[2])), pixels[2])
    assert refusal_of(open_images, list("abc"), sources, DataConfig(size=SIDE), tmp_path / "cache") == (
        f"1 of 3 images cannot be read: {reason}; mend or remove them and their rows"
    )


@pytest.mark.parametrize("text", ["7.0", " 7", "007", "7e0"])
def test_a_whole_number_may_be_spelt_otherwise(tmp_path, text):
    (source,) = rows_of(pixel_table(tmp_path, noise(1, 2, 2), r0p3=text), 1)
    assert np.asarray(open_image(source))[1, 1] == 7


def test_a_table_that_was_written_anew_is_read_anew(tmp_path):
    table = pixel_table(tmp_path, np.zeros((1, 2, 2), np.uint8))
    before = files_key([PixelRow(table, 0)])
    assert np.asarray(open_image(PixelRow(table, 0))).max() == 0
    pixel_table(tmp_path, np.full((1, 2, 2), 9, np.uint8))
    os.utime(table.path, ns=(5, 5))
    assert np.asarray(open_image(PixelRow(table, 0))).min() == 9
    assert files_key([PixelRow(table, 0)]) != before


def test_each_row_and_shape_of_a_table_is_another_image_for_the_cache(tmp_path):
    table = pixel_table(tmp_path, noise(2, 2, 3))
    turned = PixelTable(table.path, table.columns, 3, 2)
    keys = {files_key([PixelRow(each, row)]) for each in (table, turned) for row in (0, 1)}
    assert len(keys) == 4
    digests = {content_digest([PixelRow(table, row)], tmp_path) for row in (0, 1)}
    assert len(digests) == 2


def other_layouts(table: PixelTable) -> list[PixelTable]:
    """Tables of the same file, the first column first in all, that hold other images in the same rows."""
    first, second, *others = table.columns
    return [
        table,
        PixelTable(table.path, (first, *others, second), table.height, table.width),
        PixelTable(table.path, table.columns, table.height, 1),
        PixelTable(table.path, table.columns, 1, table.width),
    ]


def test_another_layout_of_a_table_is_another_image_for_caches_and_runs(tmp_path):
    tables = other_layouts(pixel_table(tmp_path, noise(2, 2, 2)))
    assert len({files_key([PixelRow(table, 0)]) for table in tables}) == len(tables)
    assert len({content_digest([PixelRow(table, 0)], tmp_path) for table in tables}) == len(tables)


def test_the_cache_of_one_layout_is_not_taken_for_another(tmp_path):
    table, turned, *_ = other_layouts(pixel_table(tmp_path, noise(1, 2, 2)))
    config = DataConfig(size=SIDE, channels=1, augment="none")
    first = open_images(["a"], [PixelRow(table, 0)], config, tmp_path / "cache")[0].copy()
    assert (open_images(["a"], [PixelRow(turned, 0)], config, tmp_path / "cache")[0] != first).any()


def test_the_digest_of_a_table_is_of_its_content_and_not_of_the_place_or_time(tmp_path):
    digests = []
    for place, level in (("here", 7), ("there", 7), ("changed", 8)):
        (tmp_path / place).mkdir()
        table = pixel_table(tmp_path / place, np.full((3, 2, 2), level, np.uint8))
        os.utime(table.path, ns=(9, 9))
        digests.append(content_digest(rows_of(table, 3), tmp_path / place))
    assert digests[0] == digests[1] != digests[2]
    assert table.path.stat().st_size == (tmp_path / "here" / "train.csv").stat().st_size


def test_a_table_is_hashed_once_however_many_rows(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr("kit.data.images.file_sha256", lambda path: hashed.append(path) or "x")
    table = pixel_table(tmp_path, noise(3, 2, 2))
    content_digest(rows_of(table, 3), tmp_path)
    assert hashed == [table.path]


@pytest.mark.parametrize("lines", ["7,1,2,3,4,5\n7,1,2,3,4,5\n", "7,1,2,3,4\n7,1,2,3,4,5\n"])
def test_a_table_with_too_many_cells_holds_no_images_and_is_read_once(tmp_path, monkeypatch, lines):
    (tmp_path / "train.csv").write_text("label,p0,p1,p2,p3\n" + lines)
    sources = rows_of(PixelTable(tmp_path / "train.csv", ("p0", "p1", "p2", "p3"), 2, 2), 2)
    line = 2 if lines.startswith("7,1,2,3,4,5") else 3
    looked, look = [], decode_module.first_overlong_line
    monkeypatch.setattr(decode_module, "first_overlong_line", lambda path: looked.append(path) or look(path))
    for source in sources:
        with pytest.raises(DecodeError, match=f"^more cells in line {line} than there are column names$"):
            open_image(source)
    assert len(looked) == 1


def test_a_table_without_one_of_the_columns_is_read_once(tmp_path):
    table = pixel_table(tmp_path, noise(2, 2, 2))
    lacking = PixelTable(table.path, (*table.columns[:3], "none"), 2, 2)
    before = decode_module._parsed.cache_info().misses
    for source in rows_of(lacking, 2):
        with pytest.raises(DecodeError):
            open_image(source)
    assert decode_module._parsed.cache_info().misses == before + 1


def test_a_long_table_is_read_piece_by_piece(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9_000, 1, 2)).astype(np.uint8)
    table = pixel_table(tmp_path, pixels, r8500p1="x")
    read, whole, fault = decode_module._parsed(table, 0)
    assert (np.flatnonzero(~whole).tolist(), fault) == ([8500], "")
    np.testing.assert_array_equal(read[whole], pixels[whole])


def test_a_table_is_not_read_where_its_pixels_are_in_the_cache(tmp_path, monkeypatch):
    sources = rows_of(pixel_table(tmp_path, noise(3, 2, 2)), 3)
    config = DataConfig(size=SIDE, channels=1, augment="none", cache=True)
    first = [open_images(list("abc"), sources, config, tmp_path / "cache")[row].copy() for row in range(3)]
    monkeypatch.setattr(decode_module, "_parsed", lambda *_: pytest.fail("the table was read"))
    images = open_images(list("abc"), sources, config, tmp_path / "cache")
    in_worker = pickle.loads(pickle.dumps(images))
    for row in range(3):
        np.testing.assert_array_equal(images[row], first[row])
        np.testing.assert_array_equal(in_worker[row], first[row])


def test_a_row_beyond_the_table_cannot_be_read(tmp_path):
    table = pixel_table(tmp_path, noise(2, 2, 2))
    with pytest.raises(DecodeError):
        open_image(PixelRow(table, 2))
