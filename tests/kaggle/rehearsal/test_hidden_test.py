"""A competition with another test set: right tables, the same images, and the original as it was."""

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest
from support.colours import write_competition
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.formats import write_like
from kit.competition.load import load_competition, load_test
from kit.kaggle.rehearsal.hidden_test import write_variant

TEMPLATES = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}


def config_of(folder: Path, **options) -> CompetitionConfig:
    return CompetitionConfig(path=str(folder), **TEMPLATES | options)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def variant(config: CompetitionConfig, target: Path, size: str) -> CompetitionConfig:
    return config.model_copy(update={"path": str(write_variant(config, target, size))})


@pytest.fixture
def original(tmp_path) -> Path:
    return write_competition(tmp_path / "colours", rows=12, test_rows=6, side=4)


def test_tables_that_own_code_reads_cannot_be_written(original, tmp_path):
    said = refusal_of(write_variant, config_of(original, tables="pandas:read_csv"), tmp_path / "copy", "3")
    assert said == (
        "--test-rows: tables of another size are written as CSV files, which pandas:read_csv may not read; "
        "rehearse with the test set as it is"
    )


def rename(folder: Path, names: dict[str, str], suffix: str = ".png") -> None:
    """Gives test rows other ids, in the tables and to the images."""
    for table in ("test.csv", "sample_submission.csv"):
        frame = pd.read_csv(folder / table, dtype=str)
        frame.assign(id=frame["id"].map(names)).to_csv(folder / table, index=False)
    for old, new in names.items():
        (folder / "test" / f"{old}.png").rename(folder / "test" / f"{new}{suffix}")


@pytest.mark.parametrize(("size", "rows"), [("0", 0), ("1", 1), ("3", 3), ("x5", 30)])
def test_tables_and_images_are_of_so_many_rows(original, tmp_path, size, rows):
    before, config = contents(original), config_of(original)
    changed = variant(config, tmp_path / "other", size)
    test, whole = load_test(changed), load_test(config)
    assert len(test.ids) == len(set(test.ids)) == rows
    assert test.ids[:6] == whole.ids[:rows]
    assert [path.read_bytes() for path in test.images] == [path.read_bytes() for path in (whole.images * 5)[:rows]]
    assert test.sample["label"].tolist() == ["red"] * rows
    assert pd.read_csv(tmp_path / "other/test.csv", dtype=str)["id"].tolist() == test.ids
    assert sorted(os.listdir(tmp_path / "other/test")) == sorted(path.name for path in test.images)
    assert load_competition(changed).ids == load_competition(config).ids
    assert contents(original) == before


def test_more_rows_than_there_are_is_all_of_them(tmp_path):
    original = write_competition(tmp_path / "colours", rows=6, test_rows=2, side=4)
    assert load_test(variant(config_of(original), tmp_path / "other", "3")).ids == ["test000", "test001"]


def test_what_has_not_changed_is_linked_and_the_originals_stay_apart(original, tmp_path):
    write_variant(config_of(original), tmp_path / "other", "1")
    for name in ("train/train000.png", "test/test000.png", "train.csv", "solution.csv"):
        assert (tmp_path / "other" / name).samefile(original / name), name
    for name in ("test.csv", "sample_submission.csv"):
        assert not (tmp_path / "other" / name).samefile(original / name), name


def test_where_links_are_refused_files_are_copied(original, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    write_variant(config_of(original), tmp_path / "other", "3")
    there = tmp_path / "other/train/train000.png"
    assert there.read_bytes() == (original / "train/train000.png").read_bytes()
    assert not there.samefile(original / "train/train000.png")


def test_images_that_are_links_become_files(original, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    for path in [*(original / "test").iterdir(), *(original / "train").iterdir()]:
        moved = path.rename(store / path.name)
        path.symlink_to(moved)
    write_variant(config_of(original), tmp_path / "other", "x5")
    files = list((tmp_path / "other").rglob("*.png"))
    assert len(files) == 12 + 30
    assert not any(path.is_symlink() for path in files)


@pytest.mark.parametrize(
    ("ids", "third_copy"),
    [
        (["7", "12", "3", "9", "10", "11"], ["207", "212", "203", "209", "210", "211"]),
        (["007", "008", "009", "010", "011", "1000"], ["20007", "20008", "20009", "20010", "20011", "21000"]),
        (["a", "a_2", "b", "c", "d", "e"], ["a__2", "a_2__2", "b__2", "c__2", "d__2", "e__2"]),
        (["7", "007", "1", "2", "3", "4"], ["7_2", "007_2", "1_2", "2_2", "3_2", "4_2"]),
    ],
)
def test_new_ids_are_of_the_kind_of_the_old_ones_and_all_differ(original, tmp_path, ids, third_copy):
    rename(original, dict(zip([f"test{row:03d}" for row in range(6)], ids, strict=True)))
    config = config_of(original)
    test, whole = load_test(variant(config, tmp_path / "other", "x5")), load_test(config)
    assert test.ids[:6] == whole.ids == ids
    assert test.ids[12:18] == third_copy
    assert len(set(test.ids)) == 30
    assert [path.read_bytes() for path in test.images] == [path.read_bytes() for path in whole.images * 5]


def test_ids_that_are_file_names_keep_their_ending(original, tmp_path):
    rename(original, {f"test{row:03d}": f"test{row:03d}.png" for row in range(6)}, suffix="")
    config = config_of(original, test_images="test/{id}")
    test = load_test(variant(config, tmp_path / "other", "x5"))
    assert test.ids[6] == "test000_1.png"
    assert {path.suffix for path in test.images} == {".png"}
    assert all(path.is_file() for path in test.images)


def test_without_a_test_table_the_sample_tells_the_ids(original, tmp_path):
    (original / "test.csv").unlink()
    test = load_test(variant(config_of(original, test=None), tmp_path / "other", "3"))
    assert test.ids == ["test000", "test001", "test002"]
    assert all(path.is_file() for path in test.images)
    assert not (tmp_path / "other/test.csv").exists()


def test_columns_beyond_the_id_are_kept_and_may_name_the_image(original, tmp_path):
    table = pd.read_csv(original / "test.csv")
    table.assign(file=table["id"] + ".png", site=["N", "", "NA", "1.0", "007", "x,y"]).to_csv(
        original / "test.csv", index=False
    )
    config = config_of(original, test_images="test/{file}")
    test = load_test(variant(config, tmp_path / "other", "x5"))
    given = pd.read_csv(tmp_path / "other/test.csv", dtype=str, keep_default_na=False)
    assert list(given.columns) == ["id", "file", "site"]
    assert given["site"].tolist() == ["N", "", "NA", "1.0", "007", "x,y"] * 5
    assert [path.name for path in test.images] == [f"test{row:03d}.png" for row in range(6)] * 5
    assert all(path.is_file() for path in test.images)


def test_the_sample_may_call_its_id_otherwise_and_order_it_otherwise(original, tmp_path):
    sample = pd.read_csv(original / "sample_submission.csv")[::-1].rename(columns={"id": "image"})
    sample.to_csv(original / "sample_submission.csv", index=False)
    test = load_test(variant(config_of(original), tmp_path / "other", "3"))
    assert (test.sample_id, test.ids) == ("image", ["test005", "test004", "test003"])
    assert pd.read_csv(tmp_path / "other/test.csv")["id"].tolist() == test.ids


def test_an_image_that_is_missing_stays_missing(original, tmp_path):
    (original / "test/test001.png").unlink()
    test = load_test(variant(config_of(original), tmp_path / "other", "3"))
    assert [path.is_file() for path in test.images] == [True, False, True]


def test_a_target_inside_the_competition_does_not_hold_itself(original):
    target = original / "kernels/build/it/rehearsal/competition"
    write_variant(config_of(original), target, "1")
    assert (target / "train.csv").is_file()
    assert not list(target.rglob("competition"))


def test_an_unknown_size_is_refused(original, tmp_path):
    message = refusal_of(write_variant, config_of(original), tmp_path / "other", "7")
    assert message == "a test set of '7' rows: expected one of 0, 1, 3, x5"
    assert not (tmp_path / "other").exists()


BARE = {"sample_submission": None, "submission": {"id": "id", "label": "label"}}


@pytest.mark.parametrize(("size", "rows"), [("0", 0), ("1", 1), ("3", 3), ("x5", 30)])
@pytest.mark.parametrize("table", ["test.csv", None])
def test_without_a_sample_the_table_or_the_files_are_of_so_many_rows(original, tmp_path, size, rows, table):
    (original / "sample_submission.csv").unlink()
    config = config_of(original, test=table, **BARE)
    whole, test = load_test(config), load_test(variant(config, tmp_path / "other", size))
    assert len(set(test.ids)) == rows
    assert {path.read_bytes() for path in test.images} == {path.read_bytes() for path in whole.images[:rows]}
    assert len(os.listdir(tmp_path / "other/test")) == rows
    assert not (tmp_path / "other/sample_submission.csv").exists()


@pytest.mark.parametrize("ending", ["tsv", "parquet", "json", "jsonl", "csv.gz", "csv.zip"])
def test_tables_are_written_in_the_format_that_they_have(original, tmp_path, ending):
    sample = f"sample.{ending}"
    for name, target in (("test.csv", f"test.{ending}"), ("sample_submission.csv", sample)):
        write_like(original / target, pd.read_csv(original / name, dtype=str).assign(site="007"))
        (original / name).unlink()
    config = config_of(original, test=f"test.{ending}", sample_submission=sample)
    test = load_test(variant(config, tmp_path / "other", "x5"))
    assert (len(test.ids), set(test.table["site"])) == (30, {"007"})
    assert all(path.is_file() for path in test.images)


def test_of_several_files_the_first_has_the_rows(original, tmp_path):
    table = pd.read_csv(original / "test.csv")
    table[:2].to_csv(original / "a.csv", index=False)
    table[2:].to_csv(original / "b.csv", index=False)
    config = config_of(original, test=["a.csv", "b.csv"])
    test = load_test(variant(config, tmp_path / "other", "3"))
    assert test.ids == ["test000", "test001", "test002"]
    assert (tmp_path / "other/b.csv").read_text() == "id\n"


def test_what_is_joined_by_id_has_the_new_ids_too(original, tmp_path):
    rows = [(f"test{row:03d}", "test") for row in range(6)] + [(f"train{row:03d}", "train") for row in range(12)]
    pd.DataFrame(rows, columns=["id", "place"]).to_csv(original / "places.csv", index=False)
    join = {"join": {"table": "places.csv", "on": "id"}, "test_images": "{place}/{id}.png"}
    config = config_of(original, **join)
    changed = variant(config, tmp_path / "other", "x5")
    test = load_test(changed)
    assert (len(set(test.ids)), set(test.table["place"])) == (30, {"test"})
    assert all(path.is_file() for path in test.images)
    assert load_competition(changed).ids == load_competition(config).ids
    assert len(pd.read_csv(original / "places.csv")) == 18


def test_rows_of_a_long_form_keep_together(original, tmp_path):
    table = pd.DataFrame({"id": [f"test{row:03d}" for row in range(6) for _ in range(2)], "box": range(12)})
    table.to_csv(original / "test.csv", index=False)
    config = config_of(original, long_form=True)
    test = load_test(variant(config, tmp_path / "other", "x5"))
    assert len(test.ids) == 30
    written = pd.read_csv(tmp_path / "other/test.csv")
    assert written["box"].tolist() == [*range(12)] * 5
    assert written["id"].drop_duplicates().tolist() == test.ids


def test_images_in_one_file_stay_there_and_get_no_new_names(original, tmp_path):
    (original / "test.h5").write_bytes(b"all of them")
    config = config_of(original, test_images="test.h5/{id}")
    test, whole = load_test(variant(config, tmp_path / "other", "3")), load_test(config)
    assert test.ids == whole.ids[:3]
    assert [image.name for image in test.images] == test.ids
    assert {image.container for image in test.images} == {tmp_path / "other/test.h5"}
    assert (tmp_path / "other/test.h5").read_bytes() == b"all of them"
    assert refusal_of(write_variant, config, tmp_path / "more", "x5") == (
        "--test-rows: new ids have no images in test.h5; rehearse with fewer rows, or with the test set as it is"
    )


def test_columns_with_odd_spaces_are_copied_under_plain_names(original, tmp_path):
    table = pd.read_csv(original / "test.csv", dtype=str)
    table.rename(columns={"id": " id"}).to_csv(original / "test.csv", index=False)
    config = config_of(original)
    test = load_test(variant(config, tmp_path / "other", "x5"))
    assert len(set(test.ids)) == 30
    assert all(path.is_file() for path in test.images)
