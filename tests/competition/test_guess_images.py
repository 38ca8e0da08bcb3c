"""Which column of a table names the images, and where they lie."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.competition.guess_images import ImageIndex, guess_images


def guessed(images: list[str], side: str = "train", **columns: list[str]):
    return guess_images(pd.DataFrame(columns, dtype=str), ImageIndex(images), side)


@pytest.mark.parametrize(
    ("columns", "image_of", "template"),
    [
        ({"f": ["a.png", "b.png", "c.png"]}, "{f}", "{f}"),
        ({"f": ["a.png", "b.png", "c.png"]}, "train/{f}", "train/{f}"),
        ({"f": ["x/a.png", "x/b.png", "y/c.png"]}, "images/{f}", "images/{f}"),
        ({"f": ["7", "8", "9"]}, "all/deep/{f}.jpeg", "all/deep/{f}.jpeg"),
        ({"k": ["u", "v", "v"], "f": ["a", "b", "c"]}, "train/{k}/{f}.png", "train/{k}/{f}.png"),
        ({"f": ["a", "b", "c"], "k": ["0", "7", "7"]}, "t/{k:0>5}/{f}.png", "t/{k:0>5}/{f}.png"),
        ({"f": ["00ab", "01cd", "02ef"]}, "t/{f:.2}/{f}.png", "t/{f:.2}/{f}.png"),
        ({"f": ["aaa1", "bbb2", "ccc3"]}, "t/scan_{f}.png", "t/scan_{f}.png"),
        ({"f": ["a", "b", "c"]}, "set {{1}}/{f}.png", "set {{1}}/{f}.png"),
    ],
)
def test_forms_of_templates(columns, image_of, template):
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    guess = guessed([image_of.format(**row) for row in rows], **columns)
    assert (guess.images, guess.column, guess.share) == (template, "f", 1)


def test_of_two_folders_with_the_same_names_the_one_of_the_side():
    images = [f"{part}/{row}.png" for part in ("a_test", "train_images", "train.zip") for row in "123"]
    assert guessed(images, id=["1", "2", "3"]).images == "train_images/{id}.png"
    assert guessed(images, "test", id=["1", "2", "3"]).images == "a_test/{id}.png"
    assert "has such files, too" in guessed(images, id=["1", "2", "3"]).question


def test_a_file_a_channel_in_the_usual_order():
    images = [f"t/{name}_{colour}.png" for name in ("abc", "def", "ghi") for colour in ("blue", "extra", "red")]
    guess = guessed(images, id=["abc", "def", "ghi"])
    assert guess.images == ["t/{id}_red.png", "t/{id}_blue.png", "t/{id}_extra.png"]


def test_no_column_names_an_image():
    assert guessed(["t/a.png", "t/b.png"], id=["x", "y"], label=["u", "v"]) is None
    assert guessed(["t/a.png"], id=[]) is None


def test_some_rows_without_an_image():
    images = [f"t/{row}.png" for row in range(9)]
    assert guessed(images, id=[str(row) for row in range(10)]).share == 0.9


NAMES = st.lists(st.text("abcdefgh01", min_size=3, max_size=8), min_size=2, max_size=30, unique=True)


@given(NAMES, st.sampled_from(["train", "in/side"]), st.sampled_from([".png", ".JPG"]), st.booleans())
def test_a_guess_leads_to_the_images(names, place, ending, whole):
    cells = [name + ending if whole else name for name in names]
    images = [f"{place}/{name}{ending}" for name in names]
    guess = guessed(images, label=["x"] * len(names), file=cells)
    assert guess.column == "file"
    assert [guess.images.format(file=cell) for cell in cells] == images
