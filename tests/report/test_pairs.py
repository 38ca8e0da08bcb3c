"""The contact sheet of pairs."""

import numpy as np
import pytest
from PIL import Image

from kit.report.pairs import PairPicture, draw_pairs

ORANGE = (0xD5, 0x5E, 0x00)


def pair(differ: bool = False, shape: tuple[int, ...] = (8, 8, 3)) -> PairPicture:
    image = np.full(shape, 90, dtype=np.uint8)
    image[..., 3:] = 255  # opaque
    return PairPicture(image, image, "a$1_\ntrain, x", f"{'long ' * 20}\ntest", "2 of 64 bits differ", differ)


def drawn(pairs, path) -> np.ndarray:
    draw_pairs(pairs, "a title", path)
    return np.asarray(Image.open(path).convert("RGB"))


def is_orange(picture: np.ndarray) -> bool:
    return bool((picture == ORANGE).all(axis=2).any())


def test_pairs_with_different_labels_are_marked(tmp_path):
    assert not is_orange(drawn([pair()], tmp_path / "a.png"))
    assert is_orange(drawn([pair(), pair(differ=True)], tmp_path / "b.png"))


def test_a_sheet_holds_so_many_pairs_four_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.report.pairs.MOST", 9)
    one, four, five, many = (drawn([pair()] * count, tmp_path / "a.png").shape[:2] for count in (1, 4, 5, 99))
    assert one[0] == four[0] < five[0] < many[0]
    assert one[1] < four[1] == five[1] == many[1]
    assert many == drawn([pair()] * 9, tmp_path / "b.png").shape[:2]


@pytest.mark.parametrize("shape", [(8, 8), (40, 10, 3), (10, 40, 4), (300, 200, 3)])
def test_grey_and_transparent_images_of_any_shape(shape, tmp_path):
    picture = drawn([pair(shape=shape)], tmp_path / "a.png")
    grey = (abs(picture.astype(int) - 90) < 3).all(axis=2)
    assert grey.sum() > 2000  # two images, neither stretched to white nor to black


def test_other_formats(tmp_path):
    draw_pairs([pair()], "a title", tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
