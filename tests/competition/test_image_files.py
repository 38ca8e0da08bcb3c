"""What is there and what is taken: hidden folders, files of no row, and names that are spelt otherwise."""

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from support.colours import write_competition
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.load import load_competition
from kit.competition.templates import rows_of_files

IMAGES = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def folder(tmp_path):
    return write_competition(tmp_path / "colours", rows=9, test_rows=3, side=2)


@pytest.fixture
def classes(folder):
    """The same, a folder a class."""
    for name, label in pd.read_csv(folder / "train.csv").itertuples(index=False, name=None):
        (folder / "train" / label).mkdir(exist_ok=True)
        (folder / f"train/{name}.png").rename(folder / f"train/{label}/{name}.png")
    return folder


def load(folder: Path, **keys):
    return load_competition(CompetitionConfig(path=str(folder), **IMAGES | keys))


def load_classes(folder: Path, template: str = "train/{label}/{id}"):
    return load(folder, train=None, train_images=template)


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints/train000-checkpoint.png",
        "__MACOSX/cat/._train000.png",
        "@eaDir/train000.png",
        "red/.thumbnails.png",
        "red/._train002.png",
        ".DS_Store",
        "red/Thumbs.db",
    ],
)
def test_a_hidden_folder_is_no_class_and_a_hidden_file_no_row(classes, hidden):
    touch(classes / "train", hidden)
    found = load_classes(classes)
    assert (found.classes, len(found.ids)) == (("blue", "green", "red"), 9)
    nested = [".ipynb_checkpoints/train000-checkpoint.png", "@eaDir/train000.png"]
    assert bool(found.remarks) == (hidden in nested)


def test_a_hidden_folder_between_the_folders_gives_no_rows(tmp_path):
    touch(tmp_path, "a/one/x.png", "a/.git/y.png", ".cache/one/z.png", "a/one/.v.png")
    _, paths = rows_of_files(tmp_path, "{site}/{label}/{id}", "k")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["a/one/x.png"]


def test_a_hidden_folder_that_the_template_names_is_meant(tmp_path):
    touch(tmp_path, ".data/cat/x.png", ".data/.cache/y.png")
    assert rows_of_files(tmp_path, ".data/{label}/{id}", "k")[0]["label"].tolist() == ["cat"]


def test_an_ending_that_the_template_tells_is_one_of_images(tmp_path):
    touch(tmp_path, "t/a.dcm", "t/b.dcm", "t/c.npy", "t/d.png")
    assert rows_of_files(tmp_path, "t/{id}.dcm", "k")[0]["id"].tolist() == ["a", "b"]
    assert rows_of_files(tmp_path, "t/{id}", "k")[0]["id"].tolist() == ["d.png"]


class TestUnusedFiles:
    def test_of_a_folder_a_class(self, classes):
        touch(classes / "train", "red/deep/a.png", "loose.jpg", "red/notes.txt", ".cache/b.png", ".cache/b.json")
        assert load_classes(classes).remarks == (
            f"competition.train_images: 4 of 13 files below {classes}/train are the image of no row (2 .png, 1 "
            ".jpg, 1 .txt; one of them is .cache/b.png)",
        )

    def test_other_endings_than_the_templates(self, classes):
        for name in ("train000", "train003"):
            (classes / f"train/blue/{name}.png").rename(classes / f"train/blue/{name}.JPEG")
        found = load_classes(classes, "train/{label}/{id}.png")
        assert len(found.ids) == 7
        assert found.remarks[0].endswith("(2 .jpeg; one of them is blue/train000.JPEG)")

    def test_of_a_table(self, folder):
        assert load(folder).remarks == ()
        touch(folder / "train", "more.png", "deep/more.png")
        assert load(folder).remarks == (
            f"competition.train_images: 2 of 11 files below {folder}/train are the image of no row (2 .png; one "
            "of them is deep/more.png)",
        )

    def test_of_neither_train_nor_test_where_both_share_a_folder(self, folder):
        for image in (folder / "test").iterdir():
            image.rename(folder / "train" / image.name)
        assert load(folder, test_images="train/{id}.png").remarks == ()
        touch(folder / "train", "x.png")
        (only,) = load(folder, test_images="train/{id}.png").remarks
        assert "1 of 13 files" in only

    def test_beside_the_tables_images_alone_count(self, folder):
        for image in [*(folder / "train").iterdir(), *(folder / "test").iterdir()]:
            image.rename(folder / image.name)
        flat = {"train_images": "{id}.png", "test_images": "{id}.png"}
        assert load(folder, **flat).remarks == ()
        touch(folder, "x.png")
        (only,) = load(folder, **flat).remarks
        assert only == (
            f"competition.train_images: 1 of 13 files below {folder} are the image of no row (1 .png; one of them "
            "is x.png)"
        )

    def test_tables_among_the_images_are_none(self, folder):
        (folder / "train.csv").rename(folder / "train/train.csv")
        assert load(folder, train="train/train.csv").remarks == ()

    def test_each_folder_of_the_channels(self, folder):
        for name in ("b", "c"):
            (folder / name).mkdir()
            for image in (folder / "train").iterdir():
                (folder / name / image.name).touch()
        touch(folder, "b/x.png", "c/y.png")
        found = load(folder, train_images=["train/{id}.png", "b/{id}.png", "c/{id}.png"])
        assert [line.split(" files below ")[1].split(" are ")[0] for line in found.remarks] == [
            *(f"{folder}/b", f"{folder}/c")
        ]

    def test_a_loop_of_links_ends_and_linked_folders_are_looked_into(self, folder, tmp_path):
        touch(tmp_path, "elsewhere/deep/a.png")
        (folder / "train/linked").symlink_to(tmp_path / "elsewhere")
        (folder / "train/loop").symlink_to(folder / "train")
        (folder / "train/self").symlink_to("self")
        (only,) = load(folder).remarks
        assert "2 of 11 files" in only  # the link to itself is a name that leads nowhere
        assert "(1 .png, 1 no ending; one of them is linked/deep/a.png)" in only


NFC, NFD = "caf\u00e9", "cafe\u0301"


class TestUnicodeForms:
    @pytest.fixture
    def accented(self, folder):
        """A table that says café in one form, and files that say it in another."""
        if unicodedata.is_normalized("NFD", os.fsdecode(os.fsencode(NFC))):
            pytest.skip("a file system that has one form alone")
        train = pd.read_csv(folder / "train.csv", dtype=str)
        (folder / "train/train000.png").rename(folder / f"train/{NFD}.png")
        train.replace("train000", NFC).to_csv(folder / "train.csv", index=False)
        return folder

    def test_a_file_is_found(self, accented):
        found = load(accented)
        assert found.ids[0] == NFC
        assert found.train_images[0] == accented / f"train/{NFD}.png"
        assert found.remarks == ()

    def test_a_folder_is_found(self, accented):
        (accented / "train").rename(accented / f"{NFC} au lait")
        found = load(accented, train_images=f"{NFD} au lait/{{id}}.png")
        assert found.train_images[1] == accented / f"{NFC} au lait/train001.png"
        assert found.train_images[0] == accented / f"{NFC} au lait/{NFD}.png"

    def test_the_file_of_the_same_form_is_taken_where_there_are_both(self, accented):
        touch(accented / "train", f"{NFC}.png")
        assert load(accented).train_images[0] == accented / f"train/{NFC}.png"

    def test_channels_are_found(self, accented):
        found = load(accented, train_images=["train/{id}.png", "train/{id}.png"])
        assert found.train_images[0].files == (accented / f"train/{NFD}.png",) * 2

    def test_test_rows_too(self, accented):
        for name in ("test", "sample_submission"):
            table = pd.read_csv(accented / f"{name}.csv", dtype=str)
            table.replace("test000", NFD).to_csv(accented / f"{name}.csv", index=False)
        (accented / "test/test000.png").rename(accented / f"test/{NFC}.png")
        assert load(accented).test_images[0] == accented / f"test/{NFC}.png"

    def test_tables_that_disagree_in_it_alone_say_so(self, accented):
        for name, form in (("test", NFC), ("sample_submission", NFD)):
            table = pd.read_csv(accented / f"{name}.csv", dtype=str)
            table.replace("test000", form).to_csv(accented / f"{name}.csv", index=False)
        with pytest.raises(Exception, match=r"disagree: .*; they differ in Unicode form only \(NFC and NFD\)"):
            load(accented)


class TestMissing:
    def refusal(self, folder, **keys) -> str:
        return refusal_of(lambda: load(folder, **keys)).replace(f"{folder}/", "")

    def test_capital_letters(self, folder):
        for row in (0, 4):
            (folder / f"train/train00{row}.png").rename(folder / f"train/Train00{row}.PNG")
        assert self.refusal(folder) == (
            "competition.train_images: 2 of 9 images do not exist (train/train000.png, train/train004.png); "
            "train/Train000.PNG is there: 2 of the names differ in capital and small letters only"
        )

    def test_the_letters_of_a_folder(self, folder):
        (folder / "train").rename(folder / "Train")
        assert self.refusal(folder).endswith(
            "Train/train000.png is there: 9 of the names differ in capital and small letters only; is "
            "'train/{id}.png' the right template?"
        )

    def test_the_ending(self, folder):
        (folder / "train/train000.png").rename(folder / "train/train000.jpg")
        assert self.refusal(folder).endswith(
            "(train/train000.png); train/train000.jpg is there: 1 of the names differ in the ending only"
        )

    def test_what_is_not_there_at_all(self, folder):
        (folder / "train/train000.png").unlink()
        assert self.refusal(folder).endswith("1 of 9 images do not exist (train/train000.png)")


def test_test_images_that_are_trained_on_are_told(folder):
    ids = ["train000", "train001", "train002"]
    pd.DataFrame({"id": ids, "label": "red"}).to_csv(folder / "sample_submission.csv", index=False)
    (line,) = [
        line
        for line in load(folder, test_images="train/{id}.png", test=None).remarks
        if line.startswith("competition.test_images")
    ]
    assert line == (
        "competition.test_images: 3 of 3 test images are the images of training rows, too "
        f"({folder}/train/train000.png, {folder}/train/train001.png and 1 more)"
    )
