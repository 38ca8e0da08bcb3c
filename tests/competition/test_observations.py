"""Rows of several images that make up one prediction: what they are, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from support.colours import write_competition
from support.refusals import refusal_of

from kit.competition.config import CompetitionConfig
from kit.competition.load import load_competition, load_labels, load_test


@pytest.fixture
def folder(tmp_path) -> Path:
    """12 training rows of 6 plants, two a plant; 6 test rows of 3."""
    folder = write_competition(tmp_path / "data", rows=12, test_rows=6, side=4)
    change(
        folder,
        "train",
        label=[str(row // 2 % 2) for row in range(12)],
        plant=[f"p{row // 2}" for row in range(12)],
    )
    change(folder, "test", plant=["q1", "q0", "q1", "q0", "q2", "q2"])
    pd.DataFrame({"plant": ["q0", "q1", "q2"], "label": "0"}).to_csv(folder / "sample_submission.csv", index=False)
    return folder


def change(folder: Path, name: str, **columns) -> None:
    path = folder / f"{name}.csv"
    pd.read_csv(path, dtype=str).assign(**columns).to_csv(path, index=False)


def config(folder: Path, predict_by="plant", **keys) -> CompetitionConfig:
    images = {"train_images": "train/{id}.png", "test_images": "test/{id}.png"}
    return CompetitionConfig(path=str(folder), predict_by=predict_by, **images | keys)


def test_rows_stay_rows_and_the_submission_has_the_observations(folder):
    loaded = load_competition(config(folder))
    assert loaded.ids == [f"train{row:03d}" for row in range(12)]
    assert loaded.observations.of == [f"p{row // 2}" for row in range(12)]
    assert loaded.observations.codes.tolist() == np.repeat(range(6), 2).tolist()
    assert loaded.test_ids == [f"test{row:03d}" for row in range(6)]  # the test table's order
    assert [image.name for image in loaded.test_images] == [f"test{row:03d}.png" for row in range(6)]
    assert loaded.test_observations.names == ["q1", "q0", "q2"]
    assert loaded.submission.ids == ("q0", "q1", "q2")
    assert (loaded.observations.pool, loaded.observations.exclusive) == ("mean", True)
    assert load_test(config(folder)).observations.of == loaded.test_observations.of
    assert load_labels(config(folder)).observations.of == loaded.observations.of


def test_a_template_makes_the_name_of_several_columns(folder):
    change(folder, "train", side=list("LR") * 6, label=["0", "1"] * 6)
    change(folder, "test", side=list("LRLRLR"))
    names = ["q0_R", "q1_L", "q2_L", "q2_R"]
    pd.DataFrame({"name": names, "label": "0"}).to_csv(folder / "sample_submission.csv", index=False)
    loaded = load_competition(config(folder, {"rows": "{plant}_{side}", "pool": "noisy-or"}))
    assert loaded.observations.of[:3] == ["p0_L", "p0_R", "p1_L"]
    assert set(loaded.submission.ids) == set(loaded.test_observations.of)
    assert loaded.observations.pool == "noisy-or"


def test_without_it_nothing_is_an_observation(folder):
    change(folder, "test", plant=[f"p{row}" for row in range(6)])
    sample = pd.DataFrame({"id": [f"test{row:03d}" for row in range(6)], "label": "0"})
    sample.to_csv(folder / "sample_submission.csv", index=False)
    loaded = load_competition(config(folder, None))
    assert loaded.observations is loaded.test_observations is None


@pytest.mark.parametrize(
    ("changes", "keys", "said"),
    [
        (
            {"train": {"label": ["0", "1"] + ["0"] * 10}}, {},
            "competition.predict_by: 1 of 6 observations have rows with different labels (p0; row train000 of p0 "
            "has '0', row train001 '1'); one prediction needs one label: mend them, or predict by something finer",
        ),
        (
            {"train": {"plant": ["", " "] + ["a"] * 10}}, {},
            "column 'plant' is empty in 2 of 12 rows (id train000, train001); fill them in",
        ),
        ({}, {"predict_by": "tree"}, "has no column 'tree'; it has id, label, plant"),
        ({}, {"predict_by": "{tree}_{plant}"}, "asks for the column 'tree'; the table has id, label, plant"),
        (
            {"train": {"a": ["1", "12"] * 6, "b": ["23", "3"] * 6, "label": "0"}}, {"predict_by": "{a}{b}"},
            "competition.predict_by: '{a}{b}' makes one text of different cells, like '123'; put something "
            "between its columns",
        ),
        (
            {"test": {"plant": ["q0", "q0", "q1", "q1", "q9", "q9"]}}, {},
            "1 observations (competition.predict_by) are only in the test table (q9), 1 only in the sample "
            "submission (q2)",
        ),
        (
            {}, {"test": None},
            "competition.predict_by: which images an observation has stands in the test table; name it in test",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_observation_is_refused(folder, changes, keys, said):
    for name, columns in changes.items():
        change(folder, name, **columns)
    if "label" in changes.get("train", {}) and changes["train"]["label"] == "0":
        change(folder, "train", label=["0"] * 11 + ["1"])
    assert said in refusal_of(load_competition, config(folder, **keys))


def test_noisy_or_of_three_classes_is_refused_before_any_training(folder):
    change(folder, "train", label=[str(row // 2 % 3) for row in range(12)])
    message = refusal_of(load_competition, config(folder, {"rows": "plant", "pool": "noisy-or"}))
    assert message.startswith("competition.predict_by: pool noisy-or is for an event, not for 3 classes")


def test_rows_with_the_same_labels_in_another_order_agree(folder):
    change(folder, "train", label=["0 1", "1 0"] * 6)
    assert load_competition(config(folder, separator=" ")).observations.exclusive is False


@pytest.mark.parametrize(
    "stated", [{"pool": "mean"}, {"rows": "plant", "pool": "median"}, {"rows": ""}, ["plant"], True]
)
def test_what_is_no_way_to_predict_is_no_config(folder, stated):
    with pytest.raises(ValidationError):
        config(folder, stated)


def test_observations_that_differ_in_a_space_are_refused(folder):
    change(folder, "train", plant=["p0", "p0 ", *(f"p{row // 2}" for row in range(2, 12))])
    assert "observations differ in odd spaces or Unicode form alone ('p0' and 'p0 ')" in refusal_of(
        load_competition, config(folder)
    )
