import shutil

import pandas as pd
import pytest
from PIL import Image
from support.colours import write_competition

from kit.competition import digits
from kit.competition.config import CompetitionConfig
from kit.competition.load import expected_submission, load_competition, load_test
from kit.core.errors import KitError


@pytest.fixture
def folder(tmp_path):
    return write_competition(tmp_path / "colours", rows=9, test_rows=3, side=4)


def _config(folder, **changes) -> CompetitionConfig:
    usual = {"path": str(folder), "train_images": "train/{id}.png", "test_images": "test/{id}.png"}
    return CompetitionConfig(**usual | changes)


def _refusal(folder, **changes) -> str:
    with pytest.raises(KitError) as caught:
        load_competition(_config(folder, **changes))
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


def _edit(path, change) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    (change(table)).to_csv(path, index=False)


def _images(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)


def test_a_competition_is_read(folder):
    competition = load_competition(_config(folder))
    assert competition.classes == ("blue", "green", "red")
    assert competition.ids == [f"train00{row}" for row in range(9)]
    assert competition.targets.tolist() == [0, 1, 2] * 3
    assert competition.train_images == [folder / "train" / f"train00{row}.png" for row in range(9)]
    assert competition.test_ids == ["test000", "test001", "test002"]
    assert competition.test_images == [folder / "test" / f"test00{row}.png" for row in range(3)]
    assert (competition.submission.columns, competition.submission.id_column) == (("id", "label"), "id")
    assert competition.submission.ids == ("test000", "test001", "test002")


def test_the_test_rows_stand_in_the_order_of_the_sample(folder):
    _images(folder, "deep/test002.png")
    _edit(folder / "sample_submission.csv", lambda sample: sample.iloc[[2, 0, 1]])
    _edit(folder / "test.csv", lambda test: test.assign(place=["test", "test", "deep"]))
    competition = load_competition(_config(folder, test_images="{place}/{id}.png"))
    assert competition.test_ids == ["test002", "test000", "test001"]
    assert competition.test_images == [
        folder / name for name in ("deep/test002.png", "test/test000.png", "test/test001.png")
    ]


def test_without_a_test_table_the_ids_are_those_of_the_sample(folder):
    (folder / "test.csv").unlink()
    _edit(folder / "sample_submission.csv", lambda sample: sample.iloc[[2, 0]].rename(columns={"id": "image"}))
    competition = load_competition(_config(folder, test=None))
    assert competition.test_ids == ["test002", "test000"]
    assert competition.test_images == [folder / "test" / "test002.png", folder / "test" / "test000.png"]
    assert competition.submission.id_column == "image"


@pytest.mark.parametrize("test", ["test.csv", None])
def test_there_may_be_no_test_rows(folder, test):
    for name in ("test.csv", "sample_submission.csv"):
        _edit(folder / name, lambda table: table.head(0))
    competition = load_competition(_config(folder, test=test))
    assert (competition.test_ids, competition.test_images, competition.submission.ids) == ([], [], ())


def test_leading_zeros_make_another_id(folder):
    _images(folder, "train/007.png", "train/7.png")
    new = pd.DataFrame({"id": ["007", "7"], "label": ["NA", "NA"]})
    _edit(folder / "train.csv", lambda train: pd.concat([train, new]))
    competition = load_competition(_config(folder))
    assert competition.ids[-2:] == ["007", "7"]
    assert [path.name for path in competition.train_images[-2:]] == ["007.png", "7.png"]
    assert competition.label_format.decode(competition.targets[-2:]) == ["NA", "NA"]


def test_columns_have_the_names_of_the_config(folder):
    _edit(folder / "train.csv", lambda train: train.rename(columns={"id": "image", "label": "species"}))
    _edit(folder / "test.csv", lambda test: test.rename(columns={"id": "image"}))
    competition = load_competition(
        _config(
            folder, id="image", label="species", train_images="train/{image}.png", test_images="test/{image}.png"
        )
    )
    assert (competition.ids[1], competition.classes[1], competition.test_ids[1]) == (
        "train001",
        "green",
        "test001",
    )


def test_the_sample_may_have_its_id_column_last(folder):
    _edit(folder / "sample_submission.csv", lambda sample: sample[["label", "id"]])
    competition = load_competition(_config(folder))
    assert (competition.submission.id_column, competition.test_ids[0]) == ("id", "test000")
    assert competition.submission.columns == ("label", "id")


def test_a_sample_of_ids_alone_is_refused(folder):
    pd.DataFrame({"id": ["test000"]}).to_csv(folder / "sample_submission.csv", index=False)
    assert _refusal(folder) == (
        "competition.sample_submission: a submission has a column of ids and at least one more; this one has 1: id"
    )


def test_a_sample_of_several_columns_has_to_name_the_classes(folder):
    table = pd.DataFrame([[f"test00{row}", "0", "0"] for row in range(3)], columns=["id", "red", "b"])
    table.to_csv(folder / "sample_submission.csv", index=False)
    assert _refusal(folder) == (
        "competition.sample_submission: with a column a class its columns have to be the classes: it has b, "
        "which is no class, and it lacks blue, green"
    )


def test_templates_pad_and_name_any_column(folder):
    _images(folder, *[f"train/0{label}/{name}.png" for label in (1, 2) for name in "ab"])
    table = pd.DataFrame({"id": ["a", "b", "a2", "b2"], "file": list("abab"), "label": list("1122")})
    table.to_csv(folder / "train.csv", index=False)
    competition = load_competition(_config(folder, train_images="train/{label:0>2}/{file}.png"))
    assert competition.train_images == [
        folder / "train" / name for name in ("01/a.png", "01/b.png", "02/a.png", "02/b.png")
    ]


def test_a_column_with_a_dot_in_its_name_can_stand_in_a_template(folder):
    _edit(folder / "test.csv", lambda test: test.assign(**{"image.name": test["id"]}))
    competition = load_competition(_config(folder, test_images="test/{image.name}.png"))
    assert competition.test_images[0] == folder / "test" / "test000.png"


def test_a_missing_folder_is_named(tmp_path):
    message = _refusal(tmp_path / "nowhere")
    assert message.startswith(f"competition.path: {tmp_path / 'nowhere'} is no folder")


@pytest.mark.parametrize("key", ["train", "test", "sample_submission"])
def test_a_missing_table_is_named(folder, key):
    name = f"{key}.csv"
    (folder / name).unlink()
    assert _refusal(folder).startswith(
        f"competition.{key}: {folder / name} does not exist; tables in that folder: "
    )


@pytest.mark.parametrize(
    ("table", "column", "key"),
    [("train", "id", "competition.id"), ("train", "label", "competition.label"), ("test", "id", "competition.id")],
)
def test_a_missing_column_is_named(folder, table, column, key):
    path = folder / f"{table}.csv"
    _edit(path, lambda table: table.rename(columns={column: "other"}))
    assert _refusal(folder).startswith(f"{key}: {path} has no column {column!r}; it has ")


@pytest.mark.parametrize("key", ["train", "test"])
def test_missing_images_are_counted_and_named(folder, key):
    gone = folder / key / f"{key}001.png"
    gone.unlink()
    count = {"train": 9, "test": 3}[key]
    assert _refusal(folder) == f"competition.{key}_images: 1 of {count} images do not exist ({gone})"


def test_a_folder_is_no_image(folder):
    (folder / "test" / "test001.png").unlink()
    (folder / "test" / "test001.png").mkdir()
    assert "1 of 3 images do not exist" in _refusal(folder)


def test_a_name_too_long_for_a_file_is_a_missing_image(folder):
    _edit(folder / "train.csv", lambda train: train.replace("train001", "x" * 300))
    assert "1 of 9 images do not exist" in _refusal(folder)


def test_a_wrong_template_is_suspected_where_no_image_exists(folder):
    message = _refusal(folder, train_images="train/{id}.jpg")
    assert message.startswith(
        f"competition.train_images: 9 of 9 images do not exist ({folder}/train/train000.jpg, "
    )
    assert message.endswith("is 'train/{id}.jpg' the right template?")


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        ("train/{name}.png", "'train/{name}.png' asks for the column 'name'; the table has id, label"),
        ("train/{}.png", "'train/{}.png' asks for the column ''; the table has id, label"),
        ("train/{id.real}.png", "'train/{id.real}.png' asks for the column 'id.real'"),
        ("train/{id.png", "'train/{id.png' is no template"),
        ("train/{id:05d}.png", "'train/{id:05d}.png'"),
        ("train/x.png", "'train/x.png' names no column"),
    ],
)
def test_a_bad_template_is_refused(folder, template, detail):
    assert _refusal(folder, train_images=template).startswith(f"competition.train_images: {detail}")


@pytest.mark.parametrize("key", ["train", "test", "sample_submission"])
@pytest.mark.parametrize("place", ["../other.csv", "train/../../other.csv", "/etc/passwd"])
def test_a_table_outside_the_folder_is_refused(folder, key, place):
    (folder.parent / "other.csv").write_text("id,label\na,b\n")
    assert _refusal(folder, **{key: place}) == (
        f"competition.{key}: {place!r} leads outside the competition folder {folder}"
    )


@pytest.mark.parametrize("key", ["train_images", "test_images"])
@pytest.mark.parametrize("template", ["../{id}.png", "/tmp/{id}.png"])
def test_a_template_that_leads_outside_the_folder_is_refused(folder, key, template):
    message = _refusal(folder, **{key: template})
    name = template.format(id=f"{key.removesuffix('_images')}000")
    assert message == f"competition.{key}: {name!r} leads outside the competition folder {folder}"


@pytest.mark.parametrize(
    ("template", "name"), [("{id}", "../x"), ("{id}", "/etc/passwd"), ("train/{id}", "../../colours2/x")]
)
def test_an_id_that_leads_outside_the_folder_is_refused(folder, template, name):
    new = pd.DataFrame({"id": [name], "label": ["red"]})
    _edit(folder / "train.csv", lambda train: pd.concat([new, train]))
    message = _refusal(folder, train_images=template)
    assert message == (
        f"competition.train_images: {template.format(id=name)!r} leads outside the competition folder {folder}"
    )


@pytest.mark.parametrize("key", ["train", "test", "sample_submission"])
def test_duplicate_ids_are_named(folder, key):
    path = folder / f"{key}.csv"
    _edit(path, lambda table: pd.concat([table, table.iloc[[1]]]))
    name = "train001" if key == "train" else "test001"
    assert _refusal(folder) == f"competition.{key}: {path}: 1 ids stand there twice ({name}); ids must be unique"


def test_an_empty_id_is_named_by_its_line(folder):
    path = folder / "train.csv"
    _edit(path, lambda train: train.replace("train001", ""))
    assert _refusal(folder) == f"competition.train: {path}: no id in 1 rows (row 2); every row needs one"


def test_a_missing_label_is_named_by_its_id(folder):
    path = folder / "train.csv"
    path.write_text(path.read_text().replace("train001,green", "train001,").replace("train004,green", "train004"))
    assert _refusal(folder).startswith(
        f"competition.train: {path}: no label in 2 of 9 rows (id train001, train004); "
    )


def test_a_train_table_without_rows_is_refused(folder):
    _edit(folder / "train.csv", lambda train: train.head(0))
    assert _refusal(folder) == f"competition.train: {folder / 'train.csv'} has no rows"


def test_one_class_only_is_refused(folder):
    _edit(folder / "train.csv", lambda train: train.assign(label="red"))
    assert _refusal(folder) == "competition.label: column 'label' holds one class only: 'red'"


def test_a_class_for_every_row_is_no_label(folder):
    assert _refusal(folder, label="id").startswith(
        "competition.label: every row of column 'id' has a class of its"
    )


def test_a_class_cannot_be_called_id(folder):
    _edit(folder / "train.csv", lambda train: train.replace("red", "id"))
    assert "a class cannot be called 'id'" in _refusal(folder)


def test_test_ids_that_the_sample_lacks_are_named(folder):
    _edit(folder / "sample_submission.csv", lambda sample: sample.iloc[[0, 2]])
    message = _refusal(folder)
    assert message.startswith(f"competition.test: {folder / 'test.csv'} and sample_submission.csv disagree: ")
    assert "1 ids are only in the test table (test001);" in message


def test_sample_ids_that_the_test_table_lacks_are_named(folder):
    _edit(folder / "test.csv", lambda test: test.iloc[[1]])
    assert "disagree: 2 only in the sample submission (test000, test002);" in _refusal(folder)


def test_test_ids_that_differ_both_ways_are_named(folder):
    _edit(folder / "test.csv", lambda test: test.replace("test001", "0test001"))
    assert ("1 ids are only in the test table (0test001), 1 only in the sample submission (test001);") in _refusal(
        folder
    )


def test_the_embedded_competition_is_written_below_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "write_digits", lambda path: write_competition(path, rows=9, test_rows=3, side=4))
    competition = load_competition(_config("~/data/digits", embedded="digits"))
    assert competition.folder == tmp_path / "data" / "digits"


@pytest.fixture
def attached(tmp_path, monkeypatch):
    """The folder that stands for Kaggle's /kaggle/input; the current folder is an empty one."""
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("KIT_INPUT", str(tmp_path / "input"))
    return tmp_path / "input"


class TestTestSide:
    """`load_test`: what predicting needs, and no more."""

    def test_is_that_of_the_whole_competition(self, folder):
        _edit(folder / "sample_submission.csv", lambda sample: sample.iloc[[2, 0, 1]][["label", "id"]])
        whole, test = load_competition(_config(folder)), load_test(_config(folder))
        assert test.ids == whole.test_ids == ["test002", "test000", "test001"]
        assert test.images == whole.test_images == [folder / "test" / f"{name}.png" for name in test.ids]
        assert (test.folder, test.sample_id) == (whole.folder, whole.submission.id_column) == (folder, "id")
        assert tuple(test.sample.columns) == whole.submission.columns == ("label", "id")

    def test_needs_no_train_side(self, folder):
        (folder / "train.csv").unlink()
        shutil.rmtree(folder / "train")
        assert load_test(_config(folder)).ids == ["test000", "test001", "test002"]

    def test_images_may_be_missing(self, folder):
        (folder / "test/test001.png").unlink()
        test = load_test(_config(folder))
        assert [path.is_file() for path in test.images] == [True, False, True]
        assert test.ids == ["test000", "test001", "test002"]

    def test_without_a_test_table(self, folder):
        (folder / "test.csv").unlink()
        assert load_test(_config(folder, test=None)).ids == ["test000", "test001", "test002"]

    def test_may_have_no_rows(self, folder):
        for name in ("test.csv", "sample_submission.csv"):
            _edit(folder / name, lambda table: table.head(0))
        test = load_test(_config(folder))
        assert (test.ids, test.images, len(test.sample)) == ([], [], 0)

    def test_tables_that_disagree_are_refused(self, folder):
        _edit(folder / "test.csv", lambda test: test.iloc[[1]])
        with pytest.raises(KitError, match=r"disagree: 2 only in the sample submission \(test000, test002\);"):
            load_test(_config(folder))

    def test_an_image_outside_the_folder_is_refused(self, folder):
        with pytest.raises(KitError, match=r"leads outside the competition folder"):
            load_test(_config(folder, test_images="../{id}.png"))


def test_a_submission_is_checked_against_the_classes_of_the_train_table_else_its_own(folder):
    submission = pd.DataFrame({"id": ["test000", "test001", "test002"], "label": ["red", "pink", "red"]})

    def classes(submission):
        return expected_submission(_config(folder), submission).labels.classes

    assert classes(submission) == classes(submission[["id"]]) == ("blue", "green", "red")
    _edit(folder / "train.csv", lambda train: train.rename(columns={"label": "colour"}))
    with pytest.raises(KitError, match=r"competition.label: .*train.csv has no column 'label'; it has id, colour"):
        classes(submission)
    (folder / "train.csv").unlink()
    assert classes(submission) == ("red", "pink")
    assert classes(submission[["id"]]) == ()


@pytest.mark.parametrize(
    ("slug", "point"),
    [("colours", "competitions/colours"), ("colours", "colours"), ("jo/colours", "datasets/jo/colours")],
)
def test_a_mounted_competition_is_found_by_its_slug(folder, attached, slug, point):
    mount = attached / point
    mount.parent.mkdir(parents=True)
    shutil.move(folder, mount)
    competition = load_competition(_config("data/colours", slug=slug))
    assert competition.folder == mount
    assert competition.train_images[0] == mount / "train/train000.png"


def test_an_embedded_competition_that_is_mounted_is_not_written(folder, attached, monkeypatch):
    attached.mkdir()
    shutil.move(folder, attached / "colours")
    monkeypatch.setattr(digits, "write_digits", lambda path: pytest.fail(f"written to {path}"))
    assert load_competition(_config("data/x", embedded="digits", slug="jo/colours")).folder == attached / "colours"


@pytest.mark.parametrize("slug", [None, "jo/colours"])
def test_an_embedded_competition_that_is_not_mounted_is_written(attached, monkeypatch, slug):
    attached.mkdir()
    monkeypatch.setattr(digits, "write_digits", lambda path: write_competition(path, rows=9, test_rows=3, side=4))
    competition = load_competition(_config("data/x", embedded="digits", slug=slug))
    assert competition.folder.resolve() == attached.parent / "working/data/x"
    assert len(competition.ids) == 9
