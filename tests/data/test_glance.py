"""A glance at images: sizes, shapes, colour."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from support.pictures import exif_block

from kit.data.glance import glance


def save(path, width, height, colour=(200, 30, 30), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(colour, tuple) else "L", (width, height), colour).save(path, **how)


def test_sides_and_shapes(tmp_path):
    sizes = [(30, 60), (40, 40), (90, 45), (50, 100), (64, 64)]
    for row, (width, height) in enumerate(sizes):
        save(tmp_path / f"{row}.png", width, height)
    seen = glance(tmp_path, [f"{row}.png" for row in range(5)])
    shapes = [width / height for width, height in sizes]
    assert (seen.count, seen.side, seen.grey) == (5, 45, False)
    assert (seen.narrowest, seen.widest) == pytest.approx(tuple(np.percentile(shapes, [5, 95])))


def test_an_image_on_its_side_counts_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.jpg", 60, 30, exif=exif)
    assert glance(tmp_path, ["a.jpg"]).widest == 0.5


@pytest.mark.parametrize(("colour", "grey"), [(90, True), ((90, 90, 90), True), ((90, 90, 110), False)])
def test_grey_is_told_by_mode_or_by_pixels(tmp_path, colour, grey):
    save(tmp_path / "a.png", 20, 20, colour)
    assert glance(tmp_path, ["a.png"]).grey is grey


def test_what_cannot_be_read_is_passed_over(tmp_path):
    save(tmp_path / "a.png", 20, 30)
    (tmp_path / "b.png").write_bytes(b"no image")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "in/c.png")
        archive.writestr("d.png", b"no image")
    names = ["a.png", "b.png", "more.zip/in/c.png", "more.zip/d.png", "more.zip/e.png", "f.png"]
    assert glance(tmp_path, names).count == 2
    assert glance(tmp_path, ["b.png", "f.png"]) is None


def test_of_many_only_some_are_looked_at(tmp_path):
    for row in range(12):
        save(tmp_path / f"{row}.png", 20 + row, 50)
    seen = glance(tmp_path, [f"{row}.png" for row in range(12)], most=3)
    assert (seen.count, seen.side) == (3, 25)  # 20, 25 and 31


def test_an_orientation_that_is_no_number_is_left(tmp_path):
    as_text = exif_block((0x0112, 2, 2, b"6\0\0\0"))
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=as_text)
    seen = glance(tmp_path, ["a.jpg"])
    assert (seen.count, seen.side, seen.widest) == (1, 20, 2.0)
