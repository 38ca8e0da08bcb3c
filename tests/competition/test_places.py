"""Images in several folders, of any ending, and inside zips: the same pixels wherever they lie."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.colours import experiment_content, write_competition
from support.commands import kit_here
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.images_config import FirstConfig, Images
from kit.competition.load import load_competition, load_labels, load_test
from kit.competition.templates import fields_of_images, image_sources, rows_of_files
from kit.core.zips import ZipMember
from kit.data.decode import open_image
from kit.kaggle.rehearsal.hidden_test import write_variant

ENDINGS = (".png", ".bmp", ".TIF")


def table(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"id": ids}, dtype=object)


def save(path: Path, seed: int = 0, side: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)).save(path)
    return path


def zipped(folder: Path, archive: Path, **options) -> Path:
    """All files below a folder in a zip, by their path below it."""
    with zipfile.ZipFile(archive, "w", **options) as made:
        for path in sorted(folder.rglob("*")):
            made.write(path, path.relative_to(folder).as_posix())
    return archive


def found(folder: Path, images: Images, *ids: str) -> list[str]:
    sources = image_sources(folder, table(*ids), images, "key", None)
    return [str(Path(str(source)).relative_to(folder)) for source in sources]


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(ENDINGS), min_size=1, max_size=8),
    sides=st.lists(st.integers(1, 6), min_size=8, max_size=8),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]),
)
def test_the_same_pixels_wherever_images_lie(tmp_path_factory, kinds, sides, method):
    folder = tmp_path_factory.mktemp("places")
    ids = [f"é{row}.{row}" for row in range(len(kinds))]
    for row, (name, kind) in enumerate(zip(ids, kinds, strict=True)):
        save(folder / "all" / f"{name}{kind}", row, sides[row])
        save(folder / f"part_{row % 2}" / f"{name}{kind}", row, sides[row])
    zipped(folder / "all", folder / "all.zip", compression=method)
    expected = [np.asarray(Image.open(folder / "all" / f"{n}{k}")) for n, k in zip(ids, kinds, strict=True)]
    for images in (
        "all/{id}.*",
        "part_*/{id}.*",
        "all.zip/{id}.*",
        FirstConfig(first=tuple(f"all/{{id}}{kind}" for kind in ENDINGS)),
        FirstConfig(first=("nowhere.zip/{id}", *(f"all.zip/{{id}}{kind}" for kind in ENDINGS))),
        FirstConfig(first=("part_0/{id}.*", "part_1/{id}.*")),
    ):
        sources = image_sources(folder, table(*ids), images, "key", None)
        for source, pixels in zip(sources, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(open_image(source)), pixels)


def test_the_first_place_counts_that_has_the_file(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.png")
    save(tmp_path / "b" / "2.png")
    first = FirstConfig(first=("a/{id}.png", "b/{id}.png"))
    assert found(tmp_path, first, "1", "2", "3") == ["a/1.png", "b/2.png", "a/3.png"]
    assert found(tmp_path, "*/{id}.png", "1", "2", "3") == ["a/1.png", "b/2.png", "*/3.png"]
    assert fields_of_images(first) == ["id", "id"]


def test_a_star_of_a_text_or_a_format_stands_for_itself(tmp_path):
    save(tmp_path / "a" / "1*.png")
    save(tmp_path / "a" / "1x.png")
    assert found(tmp_path, "a/{id}.*", "1*") == ["a/1*.png"]
    assert found(tmp_path, "*/{id:*>3}.png", "1") == ["*/**1.png"]


def test_what_is_no_image_is_not_taken_for_any_ending(tmp_path):
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "1.txt").write_text("a note")
    (tmp_path / "a" / "1.json").write_text("{}")
    assert found(tmp_path, "a/{id}.*", "1") == ["a/1.png"]


@pytest.mark.parametrize("packed", [False, True])
def test_two_files_of_one_stem_are_refused(tmp_path, packed):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "a" / "1.jpg")
    if packed:
        zipped(tmp_path / "a", tmp_path / "a.zip")
    template = "a.zip/{id}.*" if packed else "a/{id}.*"
    told = refusal_of(image_sources, tmp_path, table("1"), template, "key", None)
    assert "1.jpg, 1.png" in told
    assert "name the ending" in told


@pytest.mark.parametrize("template", ["a/x*{id}.png", "a/{id}*.png", "a/{id}.p*", "a/*"])
def test_a_star_within_a_name_is_refused(tmp_path, template):
    told = refusal_of(image_sources, tmp_path, table("1"), template, "key", None)
    assert told.startswith("key: ")


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    ids = [f"{row:05}" for row in range(20_000)]
    for part in range(4):
        (tmp_path / f"part_{part}").mkdir()
    for row, name in enumerate(ids):
        (tmp_path / f"part_{row % 4}" / f"{name}.png").touch()
    calls: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": calls.append(str(path)) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path=".": pytest.fail(f"{path} is listed"))
    sources = image_sources(tmp_path, table(*ids), "part_*/{id}.*", "key", None)
    assert len(calls) == 5
    assert [path.parent.name for path in sources[:5]] == ["part_0", "part_1", "part_2", "part_3", "part_0"]


def test_messages_show_the_star_as_it_is_written(tmp_path):
    for template, at in {
        "*/{no}.png": "'*/{no}.png' asks",
        "../*/{id}": "'../*/1' leads",
        "*/{id:d}": "'*/{id:d}' is",
    }.items():
        assert at in refusal_of(image_sources, tmp_path, table("1"), template, "key", None)
    assert "NUL" in refusal_of(image_sources, tmp_path, table("\0"), "a/{id}.*", "key", None)


# Rows from files.


def folders_of_classes(folder: Path) -> None:
    for row, name in enumerate(["cat/1", "cat/2", "dog/3", "dog/4"]):
        save(folder / "train" / f"{name}{ENDINGS[row % 2]}", row)
    (folder / "train" / "dog" / "notes.txt").write_text("none")
    save(folder / "train" / "__MACOSX" / "._1.png")


@pytest.mark.parametrize(
    "template",
    [
        "train/{label}/{id}.*",
        "train.zip/{label}/{id}.*",
        "inner.zip/train/{label}/{id}.*",
        FirstConfig(first=("train/{label}/{id}.png", "train/{label}/{id}.bmp")),
        FirstConfig(first=("train.zip/{label}/{id}.png", "train/{label}/{id}.*")),
    ],
)
def test_rows_are_read_from_files_wherever_they_lie(tmp_path, template):
    folders_of_classes(tmp_path)
    zipped(tmp_path / "train", tmp_path / "train.zip")
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as made:
        for path in (tmp_path / "train").rglob("*.*"):
            made.write(path, path.relative_to(tmp_path).as_posix())
    rows, files = rows_of_files(tmp_path, template, "key")
    assert rows[["label", "id"]].to_numpy().tolist() == [["cat", "1"], ["cat", "2"], ["dog", "3"], ["dog", "4"]]
    for row, file in enumerate(files):
        np.testing.assert_array_equal(
            np.asarray(open_image(file)),
            np.random.default_rng(row).integers(0, 256, (4, 4, 3)).astype(np.uint8),
        )


def test_rows_of_templates_with_other_columns_are_refused(tmp_path):
    folders_of_classes(tmp_path)
    both = FirstConfig(first=("train/{label}/{id}.*", "train/cat/{id}.*"))
    assert "key.first[1]: 'train/cat/{id}.*' has other columns" in refusal_of(rows_of_files, tmp_path, both, "key")


def test_a_zip_without_fitting_file_tells_what_it_holds(tmp_path):
    folders_of_classes(tmp_path)
    zipped(tmp_path / "train", tmp_path / "train.zip")
    told = refusal_of(rows_of_files, tmp_path, "train.zip/train/{label}/{id}.png", "key")
    assert "cat/1.png" in told


# Whole competitions.


def experiment(folder: Path, path: Path, competition: dict, **sections) -> Path:
    content = experiment_content(folder, **sections)
    content["competition"] |= competition
    path.write_text(yaml.safe_dump(content))
    return path


def competition(folder: Path, **keys) -> CompetitionConfig:
    return CompetitionConfig.model_validate(
        {"path": str(folder), "train_images": "train/{id}.png", "test_images": "test/{id}.png"} | keys
    )


@pytest.fixture
def packed(tmp_path) -> Path:
    folder = write_competition(tmp_path / "c")
    zipped(folder / "train", folder / "train.zip", compression=zipfile.ZIP_DEFLATED)
    zipped(folder / "test", folder / "test.zip")
    return folder


INSIDE = {"train_images": "train.zip/{id}.png", "test_images": "test.zip/{id}.*"}


def test_a_competition_inside_zips_is_the_one_on_disk(packed):
    files, inside = load_competition(competition(packed)), load_competition(competition(packed, **INSIDE))
    assert inside.ids == files.ids
    np.testing.assert_array_equal(inside.targets, files.targets)
    assert all(isinstance(image, ZipMember) for image in inside.train_images)
    assert load_labels(competition(packed, **INSIDE)).ids == files.ids
    assert inside.remarks == files.remarks


def test_labels_are_read_of_classes_in_places_with_a_star_or_several(tmp_path):
    folders_of_classes(tmp_path)
    pd.DataFrame({"id": ["9"], "label": ["cat"]}).to_csv(tmp_path / "sample_submission.csv", index=False)
    keys = {"train": None, "test": None, "id": "id", "label": "label"}
    for images in ("tr*/{label}/{id}.*", {"first": ["no/{label}/{id}.*", "train/{label}/{id}.*"]}):
        assert load_labels(competition(tmp_path, **keys, train_images=images)).ids == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("train.zip/{id}.jpg", ("36 of 36 images do not exist", "train.zip/train000.jpg", "holds train000.png")),
        ("train.zip/train/{id}.png", ("36 of 36 images do not exist", "holds train000.png")),
        ("train.zip/{id}.PNG", ("36 of 36", "train000.png")),
        ({"first": ["a/{id}.png", "b/{id}.png"]}, ("36 of 36", "a/{id}.png or b/{id}.png")),
        ("*/x{id}.*", ("36 of 36", "*/xtrain000.*")),
    ],
)
def test_missing_files_are_told(packed, images, expected):
    told = refusal_of(load_competition, competition(packed, train_images=images))
    for text in expected:
        assert text in told


def test_a_file_that_is_no_zip_is_one_line(packed):
    whole = (packed / "train.zip").read_bytes()
    (packed / "train.zip").write_bytes(whole[: len(whole) // 2])
    told = refusal_of(load_competition, competition(packed, **INSIDE))
    assert "competition.train_images" in told
    assert "is no zip file, or was not downloaded whole" in told


@pytest.mark.parametrize("images", [{"first": []}, {"first": "train/{id}"}, {"second": ["a/{id}"]}])
def test_a_bad_mapping_is_refused(tmp_path, monkeypatch, capsys, images):
    folder = write_competition(tmp_path / "c")
    config = experiment(folder, tmp_path / "c.yaml", {"train_images": images})
    code, _, told = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path / "runs"))
    assert code
    assert "train_images" in told
    assert "Traceback" not in told


def test_a_run_from_zips_is_the_run_from_files(packed, tmp_path, monkeypatch, capsys):
    written = []
    for name, images in {"files": {}, "zips": INSIDE}.items():
        data = {"size": 32, "augment": "light", "workers": 2, "cache": False}
        training = {"epochs": 1, "batch_size": 8, "device": "cpu"}
        config = experiment(packed, tmp_path / f"{name}.yaml", images, data=data, training=training)
        code, _, told = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path / name))
        assert code == 0, told
        runs = [path.parent for path in (tmp_path / name).rglob("oof.parquet")]
        written.append([pd.read_parquet(runs[0] / f"{part}.parquet") for part in ("oof", "test")])
    for files, zips in zip(*written, strict=True):
        pd.testing.assert_frame_equal(files, zips)


@pytest.mark.parametrize("test_images", ["test.zip/{id}.png", "test.zip/{id}.*", "test/{id}.*", "te*/{id}.png"])
@pytest.mark.parametrize("size", ["0", "1", "3", "x5"])
def test_a_rehearsed_test_set_has_its_images(packed, tmp_path, test_images, size):
    before = (packed / "test.zip").read_bytes()
    config = competition(packed, **INSIDE | {"test_images": test_images})
    copy = write_variant(config, tmp_path / "copy", size)
    made = load_test(config.model_copy(update={"path": copy})).images
    originals = load_test(config).images
    assert len(made) == (45 if size == "x5" else int(size))
    for image, original in zip(made, originals * 5, strict=False):
        np.testing.assert_array_equal(np.asarray(open_image(image)), np.asarray(open_image(original)))
    assert (packed / "test.zip").read_bytes() == before
