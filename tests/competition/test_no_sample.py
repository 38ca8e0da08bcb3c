"""Competitions without a sample submission: the config says what to hand in, tables or files which rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.load import expected_submission, load_competition, load_test
from kit.experiment.config import validate
from kit.experiment.grade import grade

BARE = {
    "test": None,
    "sample_submission": None,
    "submission": {"id": "image", "label": "colour"},
    "train_images": "train/{id}.png",
    "test_images": "test/{id}.png",
}


@pytest.fixture
def folder(tmp_path):
    """A table of labels and two folders, and nothing else; solution.csv lies elsewhere."""
    folder = write_competition(tmp_path / "colours", rows=9, test_rows=4, side=2)
    (folder / "test.csv").unlink()
    (folder / "sample_submission.csv").unlink()
    (folder / "solution.csv").rename(tmp_path / "solution.csv")
    return folder


def config_of(folder: Path, **keys) -> CompetitionConfig:
    return CompetitionConfig(path=str(folder), **BARE | keys)


def test_test_rows_are_the_files_in_the_order_of_their_paths(folder):
    found = load_competition(config_of(folder))
    assert found.test_ids == ["test000", "test001", "test002", "test003"]
    assert [path.name for path in found.test_images] == [f"{name}.png" for name in found.test_ids]
    made = found.submission.make(np.array([0, 1, 2, 0]), np.eye(4, 3))
    assert made.to_dict("list") == {"image": found.test_ids, "colour": ["blue", "green", "red", "blue"]}
    assert found.remarks == ()


def test_the_id_may_be_the_name_of_the_file(folder):
    train = pd.read_csv(folder / "train.csv").rename(columns={"id": "filename"})
    train.assign(filename=train["filename"] + ".png").to_csv(folder / "train.csv", index=False)
    found = load_test(
        config_of(
            folder,
            id="filename",
            train_images="train/{filename}",
            test_images="test/{filename}",
            submission={"id": "filename", "label": "label"},
        )
    )
    assert found.ids[0] == "test000.png"
    assert (found.sample_id, list(found.sample.columns)) == ("filename", ["filename", "label"])


def test_files_of_the_test_folder_that_do_not_fit_are_told(folder):
    (folder / "test/more.jpg").touch()
    (folder / "test/.ipynb_checkpoints").mkdir()
    (folder / "test/.ipynb_checkpoints/test000-checkpoint.png").touch()
    found = load_competition(config_of(folder))
    assert len(found.test_ids) == 4
    assert found.remarks == (
        f"competition.test_images: 2 of 6 files below {folder}/test are the image of no row (1 .jpg, 1 .png; one "
        "of them is .ipynb_checkpoints/test000-checkpoint.png)",
    )


def test_a_test_table_tells_the_rows_in_its_order(folder):
    pd.DataFrame({"id": ["test002", "test000"]}).to_csv(folder / "test.csv", index=False)
    assert load_competition(config_of(folder, test="test.csv")).test_ids == ["test002", "test000"]


@pytest.mark.parametrize(
    ("submission", "kind", "cells"),
    [
        ({"label": ["green", "red", "blue"]}, "columns", {"green": "1", "red": "0", "blue": "0"}),
        (
            {"label": ["green", "red", "blue"], "kind": "probabilities"},
            "probabilities",
            {"green": "0.5", "red": "0.25", "blue": "0.25"},
        ),
    ],
)
def test_a_column_a_class(folder, submission, kind, cells):
    found = load_competition(config_of(folder, submission={"id": "id"} | submission)).submission
    made = found.make(np.array([1] * 4), np.array([[0.25, 0.5, 0.25]] * 4))
    assert (found.kind, made.iloc[0].to_dict()) == (kind, {"id": "test000"} | cells)


def test_columns_that_are_no_class_are_refused(folder):
    config = config_of(folder, submission={"id": "id", "label": ["green", "red", "violet"]})
    assert refusal_of(load_competition, config) == (
        "competition.submission.label: with a column a class its columns have to be the classes: it has violet, "
        "which is no class, and it lacks blue"
    )


def test_a_sample_that_is_not_there_names_both_ways_on(folder):
    config = config_of(folder, sample_submission="sample_submission.csv", submission="auto")
    assert refusal_of(load_competition, config) == (
        f"competition.sample_submission: {folder}/sample_submission.csv does not exist; tables in that folder: "
        "train.csv; name the file that tells ids and columns, or where there is none set sample_submission: null "
        "and submission: {id: COLUMN, label: COLUMN}, the columns to hand in"
    )


def test_a_test_table_that_is_not_there_says_what_null_does(folder):
    assert refusal_of(load_competition, config_of(folder, test="test.csv")) == (
        f"competition.test: {folder}/test.csv does not exist; tables in that folder: train.csv; with test: null "
        "the rows are the files that fit test_images"
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sample_submission": None}, "sample_submission: null: say what to hand in, as in submission: {id: "),
        ({"submission": {"id": "id", "label": "l"}}, "leave one out, as with sample_submission: null"),
        ({"sample_submission": None, "submission": {"id": "a", "label": "a"}}, "a name of its own"),
        ({"sample_submission": None, "submission": {"id": "a", "label": "id"}}, "id is the column of ids"),
        (
            {"sample_submission": None, "submission": {"id": "a", "label": ["x", "y"], "kind": "labels"}},
            "labels stand in one column",
        ),
    ],
)
def test_what_does_not_go_together(keys, said):
    with pytest.raises(ValueError, match=said):
        CompetitionConfig(path="x", **keys)


def test_a_template_that_does_not_tell_the_id_or_fits_nothing(folder):
    assert refusal_of(load_test, config_of(folder, test_images="test/{name}.png")) == (
        "competition.test_images: 'test/{name}.png' has no {id}, the column that competition.id names; without a "
        "test table and a sample submission it is read from the path, as in test/{id}"
    )
    assert "no image file in" in refusal_of(load_test, config_of(folder, test_images="test/{id}.jpg"))


def test_an_empty_test_folder_is_no_rows(folder):
    for file in (folder / "test").iterdir():
        file.unlink()
    assert load_test(config_of(folder)).ids == []


def test_a_submission_is_validated(folder):
    given = pd.DataFrame({"image": ["test003", "test000", "test001", "test002"], "colour": "red"})
    expected_submission(config_of(folder), given).validate(given, "s.csv")
    for wrong, said in (
        (given.rename(columns={"colour": "label"}), "s.csv: the columns are image, label; expected image, colour"),
        (given[1:], "s.csv: 1 of 4 ids are missing (test003)"),
        (given.assign(colour="violet"), "s.csv: 'violet' is no class (in 4 rows)"),
    ):
        message = refusal_of(expected_submission(config_of(folder), wrong).validate, wrong, "s.csv")
        assert message.startswith(said)


@pytest.mark.parametrize("columns", [["id", "label"], ["image", "colour"]])
def test_grade_takes_the_columns_of_either(folder, tmp_path, columns):
    truth = pd.read_csv(tmp_path / "solution.csv")  # blue, green, red, blue
    truth.set_axis(columns, axis=1).to_csv(tmp_path / "truth.csv", index=False)
    mine = pd.DataFrame({"image": truth["id"], "colour": ["blue", "green", "red", "red"]})
    mine.to_csv(tmp_path / "mine.csv", index=False)
    experiment = validate(experiment_content(folder, competition=BARE), "test")
    found = grade(tmp_path / "mine.csv", tmp_path / "truth.csv", experiment)
    assert (found.rows, found.value) == (4, pytest.approx((2 / 3 + 1 + 2 / 3) / 3))


def test_grade_takes_a_solution_in_long_form(folder, tmp_path):
    long = [("train000", "a b"), ("train000", "c"), ("train001", "c"), ("train002", "a b"), ("train002", "c")]
    pd.DataFrame(long, columns=["id", "label"]).to_csv(folder / "train.csv", index=False)
    truth = [("test000", "c"), ("test000", "a b"), ("test001", "c"), ("test002", "a b"), ("test003", "c")]
    pd.DataFrame(truth, columns=["id", "label"]).to_csv(tmp_path / "truth.csv", index=False)
    mine = {"image": [f"test{row:03d}" for row in range(4)], "colour": ["a b;c", "c", "c", "c"]}
    pd.DataFrame(mine).to_csv(tmp_path / "mine.csv", index=False)
    keys = {"long_form": True, "separator": ";"}
    experiment = validate(
        experiment_content(folder, competition=BARE | keys, scoring={"average": "micro", "rule": "half"}), "test"
    )
    found = grade(tmp_path / "mine.csv", tmp_path / "truth.csv", experiment)
    # true: c, ab, c, ab, c; handed in: ab, c, c, c, c; both: 4
    assert found.value == pytest.approx(2 * 4 / (5 + 5))
