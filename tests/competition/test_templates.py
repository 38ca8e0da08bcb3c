"""From rows to image files, and from image files to rows."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.images_config import FirstConfig, PixelsConfig
from kit.competition.load import load_competition, load_labels
from kit.competition.templates import filled, image_paths, image_sources, pixel_table, rows_of_files
from kit.data.sources import Channels, PixelRow


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype=object)


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(folder / name)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("train/{id}.png", "train/a.7.png"),
        ("train/{id}", "train/a.7"),  # ids with an ending need none
        ("{site}/{id}.tif", "N 1/a.7.tif"),
        ("train/{id:0>6}.png", "train/000a.7.png"),
        ("train/{id:.2}/{id}.png", "train/a./a.7.png"),
        ("train/{{x}}/{id}.png", "train/{x}/a.7.png"),
        ("{file.name}", "f.jpg"),
    ],
)
def test_a_template_is_filled_with_the_rows_text(tmp_path, template, expected):
    rows = table(id=["a.7"], site=["N 1"], **{"file.name": ["f.jpg"]})
    assert image_paths(tmp_path, rows, template, "key") == [tmp_path / expected]


@given(
    cells=st.lists(st.tuples(*[st.text("ab.{}%é ", min_size=1)] * 2), min_size=1, max_size=4),
    template=st.sampled_from(["{a}", "x/{b}{a}.png", "{{{a}}}/{b}", "{a}{a}/{{}}%s{b}%"]),
)
def test_plain_columns_are_filled_in_as_by_str_format(cells, template):
    rows = table(a=[a for a, _ in cells], b=[b for _, b in cells])
    assert filled(template, rows, "key") == [template.format(a=a, b=b) for a, b in cells]


def test_of_several_templates_the_first_whose_file_is_there_is_each_rows(tmp_path):
    images(tmp_path, "one/a.png", "two/a.png", "two/b.png", "three/c.png")
    template = FirstConfig(first=["one/{id}.png", "two/{id}.png", "three/{id}.png"])
    names = ["one/a.png", "two/b.png", "three/c.png", "one/d.png"]
    found = image_paths(tmp_path, table(id=["a", "b", "c", "d"]), template, "key")
    assert found == [tmp_path / name for name in names]


def test_a_list_of_templates_is_a_file_a_channel_in_their_order(tmp_path):
    templates = ("{id}_red.png", "{id}_green.png", "{id}_blue.png")
    sources = image_sources(tmp_path, table(id=["a", "b"]), templates, "key", None)
    assert sources == [
        Channels((tmp_path / "a_red.png", tmp_path / "a_green.png", tmp_path / "a_blue.png")),
        Channels((tmp_path / "b_red.png", tmp_path / "b_green.png", tmp_path / "b_blue.png")),
    ]
    assert str(sources[0]) == f"{tmp_path / 'a_red.png'} and 2 more"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{file}.png", "key[1]: '{file}.png' asks for the column 'file'; the table has id"),
        ("x.png", "key[1]: 'x.png' names no column, so every row would have one image; try train/{id}"),
        ("{id.png", "key[1]: '{id.png' is no template of text cells: expected '}' before end of string"),
        (
            "{id:d}",
            "key[1]: '{id:d}' is no template of text cells: Unknown format code 'd' for object of type 'str'",
        ),
        ("../{id}", "key[1]: '../a' leads outside the competition folder FOLDER"),
    ],
)
def test_a_bad_template_among_several_is_named_by_its_place(tmp_path, template, said):
    message = refusal_of(image_sources, tmp_path, table(id=["a"]), ("{id}.png", template), "key", None)
    assert message == said.replace("FOLDER", str(tmp_path))


def test_a_row_that_leads_outside_is_refused(tmp_path):
    for name in ("../x", "/etc/passwd", "a/../../x"):
        message = refusal_of(image_paths, tmp_path, table(id=["a", name]), "{id}", "key")
        assert message == f"key: {name!r} leads outside the competition folder {tmp_path}"
    assert image_paths(tmp_path, table(id=["b/../a"]), "{id}", "key") == [tmp_path / "b/../a"]


class TestRowsOfFiles:
    """A folder a class: rows from the files."""

    def test_labels_and_ids_are_read_from_the_paths(self, tmp_path):
        images(tmp_path, "train/Fat Hen/x.png", "train/Black-grass/b.jpg", "train/Fat Hen/a.PNG", "train/no.png")
        (tmp_path / "train/Fat Hen/notes.txt").write_text("x")
        (tmp_path / "train/Fat Hen/.hidden.png").write_bytes(b"")
        (tmp_path / "train/Fat Hen/folder.png").mkdir()
        rows, paths = rows_of_files(tmp_path, "train/{species}/{file}", "key")
        assert rows.to_dict("list") == {
            "species": ["Black-grass", "Fat Hen", "Fat Hen"],
            "file": ["b.jpg", "a.PNG", "x.png"],
        }
        assert paths == [tmp_path / "train" / row.species / row.file for row in rows.itertuples()]

    def test_what_the_template_spells_out_has_to_be_there(self, tmp_path):
        images(tmp_path, "train/cat_1.png", "train/dog_2.png", "train/dog_3.jpg", "train/ox.png")
        rows, _ = rows_of_files(tmp_path, "train/{label}_{id}.png", "key")
        assert rows.to_dict("list") == {"label": ["cat", "dog"], "id": ["1", "2"]}

    def test_signs_of_patterns_are_themselves(self, tmp_path):
        images(tmp_path, "train [1]/a/b.png", "train 1/a/c.png")
        rows, _ = rows_of_files(tmp_path, "train [1]/{label}/{id}.png", "key")
        assert rows.to_dict("list") == {"label": ["a"], "id": ["b"]}

    @pytest.mark.parametrize("template", ["train/{label}/{id:0>3}.png", "{id}/{id}/{label}", "{label}/{id!r}"])
    def test_a_template_that_cannot_be_read_backwards_is_refused(self, tmp_path, template):
        assert refusal_of(rows_of_files, tmp_path, template, "key") == (
            f"key: {template!r}: to be read from file names, each field stands there once and plain"
        )

    @pytest.mark.parametrize(
        ("there", "said"),
        [
            (["train/a.png"], "; TRAIN holds a.png"),
            ([], "; FOLDER is empty"),
            (["other/cat/a.png"], "; FOLDER holds other"),
        ],
    )
    def test_no_file_that_is_like_it_is_told_with_what_there_is(self, tmp_path, there, said):
        images(tmp_path, *there)
        said = said.replace("TRAIN", str(tmp_path / "train")).replace("FOLDER", str(tmp_path))
        message = refusal_of(rows_of_files, tmp_path, "train/{label}/{id}", "key")
        assert message == f"key: no image file in {tmp_path} is like 'train/{{label}}/{{id}}'{said}"

    def test_a_template_outside_the_folder_is_refused(self, tmp_path):
        (tmp_path / "inner").mkdir()
        images(tmp_path, "cat/a.png")
        message = refusal_of(rows_of_files, tmp_path / "inner", "../{label}/{id}", "key")
        assert "leads outside the competition folder" in message


class TestFolderAClass:
    """A competition without tables."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        images(tmp_path, *(f"train/{label}/{label}{row}.png" for label in ("cat", "dog") for row in range(2)))
        images(tmp_path, "test/t1.png", "test/t0.png")
        (tmp_path / "sample_submission.csv").write_text("id,label\nt1.png,cat\nt0.png,cat\n")
        return tmp_path

    def config(self, folder: Path, **options) -> CompetitionConfig:
        stated = {"train": None, "test": None, "train_images": "train/{label}/{id}", "test_images": "test/{id}"}
        return CompetitionConfig(path=str(folder), **stated | options)

    def test_is_read_whole(self, folder):
        loaded = load_competition(self.config(folder))
        assert loaded.ids == ["cat0.png", "cat1.png", "dog0.png", "dog1.png"]
        assert loaded.classes == ("cat", "dog")
        assert loaded.targets.tolist() == [0, 0, 1, 1]
        assert loaded.train_images == [folder / "train" / name[:3] / name for name in loaded.ids]
        assert loaded.test_ids == ["t1.png", "t0.png"]
        assert loaded.train["label"].tolist() == ["cat", "cat", "dog", "dog"]

    def test_files_of_one_name_in_two_folders_are_told_apart_by_the_folder(self, folder):
        images(folder, "train/cat/same.png", "train/dog/same.png")
        ids = load_competition(self.config(folder)).ids
        assert ids[2:3] + ids[-1:] == ["cat/same.png", "dog/same.png"]
        assert "cat/cat0.png" in ids  # all of them, so that no id depends on what else is there
        assert len(set(ids)) == 6

    def test_a_list_of_classes_may_be_stated(self, folder):
        loaded = load_competition(self.config(folder, classes=["dog", "cat"]))
        assert (loaded.classes, loaded.targets.tolist()) == (("dog", "cat"), [1, 1, 0, 0])
        message = refusal_of(load_competition, self.config(folder, classes=["dog", "cat", "dodo"]))
        assert message.startswith("competition.classes: no training row has 'dodo'; leave out what cannot be")

    def test_a_template_without_the_label_is_told(self, folder):
        images(folder, "train/x.png")
        message = refusal_of(load_competition, self.config(folder, train_images="train/{id}"))
        assert message.startswith("competition.train_images: 'train/{id}' has no {label}, the column that")
        assert message.endswith("as in train/{label}/{id}")

    def test_without_the_training_images_there_are_no_labels_to_read(self, folder):
        (folder / "train").rename(folder / "gone")
        assert load_labels(self.config(folder)) is None

    def test_an_empty_folder_is_told(self, folder):
        for file in (folder / "train").rglob("*.png"):
            file.unlink()
        assert refusal_of(load_competition, self.config(folder)) == (
            f"competition.train_images: no image file in {folder} is like 'train/{{label}}/{{id}}'; "
            f"{folder / 'train'} holds cat, dog"
        )


class TestPixelsInTheTable:
    """Columns of pixels make up images."""

    def file(self, folder: Path, *columns: str) -> Path:
        (folder / "train.csv").write_text(",".join(columns) + "\n" + ",".join("0" for _ in columns) + "\n")
        return folder / "train.csv"

    def test_the_columns_like_the_pattern_in_the_tables_order_are_a_square(self, tmp_path):
        file = self.file(tmp_path, "label", "p1", "p0", "site", "p3", "p2")
        pixels = pixel_table(file, PixelsConfig(columns="p*"), "key")
        assert (pixels.columns, pixels.height, pixels.width) == (("p1", "p0", "p3", "p2"), 2, 2)

    @pytest.mark.parametrize(
        ("stated", "shape"), [({"height": 2}, (2, 3)), ({"width": 2}, (3, 2)), ({"height": 1, "width": 6}, (1, 6))]
    )
    def test_height_or_width_tells_the_other(self, tmp_path, stated, shape):
        file = self.file(tmp_path, *(f"pixel{place}" for place in range(6)))
        pixels = pixel_table(file, PixelsConfig(**stated), "key")
        assert (pixels.height, pixels.width) == shape

    @pytest.mark.parametrize(
        ("stated", "said"),
        [
            ({}, "2 × 2"),
            ({"height": 4}, "4 × 1"),
            ({"width": 5, "height": 2}, "2 × 5"),
            ({"height": 9}, "9 × 0"),
        ],
    )
    def test_columns_that_make_up_no_image_are_counted(self, tmp_path, stated, said):
        file = self.file(tmp_path, *(f"pixel{place}" for place in range(6)))
        assert refusal_of(pixel_table, file, PixelsConfig(**stated), "key") == (
            f"key: 6 columns like 'pixel*' are no image of {said} pixels; give height and width"
        )

    def test_no_column_like_the_pattern_is_told(self, tmp_path):
        file = self.file(tmp_path, "id", "label")
        assert refusal_of(pixel_table, file, PixelsConfig(), "key") == (
            f"key.columns: {file} has no column like 'pixel*'"
        )

    def test_each_row_is_an_image(self, tmp_path):
        file = self.file(tmp_path, "id", "pixel0")
        sources = image_sources(tmp_path, table(id=["a", "b"]), PixelsConfig(), "key", file)
        assert [type(source) for source in sources] == [PixelRow, PixelRow]
        assert [str(source) for source in sources] == [f"row 1 of {file}", f"row 2 of {file}"]
        message = refusal_of(image_sources, tmp_path, table(id=["a"]), PixelsConfig(), "key", None)
        assert message == "key: the pixels stand in a table, but there is none"
