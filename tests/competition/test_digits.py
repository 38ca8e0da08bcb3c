from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kit.competition.config import CompetitionConfig
from kit.competition.digits import solution_path, write_digits
from kit.competition.load import load_competition


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder)
    return folder


@pytest.fixture(scope="module")
def labels(digits) -> dict[str, pd.Series]:
    """The labels of each part by id, as the tables tell."""
    tables = {"train": digits / "train.csv", "test": digits.parent / "digits-solution.csv"}
    return {part: pd.read_csv(path).set_index("id")["label"] for part, path in tables.items()}


def test_every_digit_is_one_file(digits):
    files = sorted(path.stem for path in digits.glob("*/*.png"))
    assert files == [f"d{row:04d}" for row in range(1797)]
    assert len(list((digits / "train").iterdir())) == 1437
    assert len(list((digits / "test").iterdir())) == 360


def test_pixels_are_those_of_scikit_learn(digits):
    """Each image, shrunk to 8 × 8 by averaging, is close to its original and most like it of all."""
    paths = sorted(digits.glob("*/*.png"), key=lambda path: path.stem)
    images = [Image.open(path) for path in paths]
    assert {(image.size, image.mode) for image in images} == {((32, 32), "L")}
    small = np.stack([np.asarray(image, dtype=float) for image in images]).reshape(-1, 8, 4, 8, 4).mean((2, 4))
    shrunk, truth = small.reshape(-1, 64) * 16 / 255, load_digits().data
    assert np.abs(shrunk - truth).mean() < 1  # of 16 grey levels
    likeness = np.corrcoef(shrunk, truth)[:1797, 1797:]
    assert likeness.argmax(axis=1).tolist() == list(range(1797))
    assert likeness.diagonal().min() > 0.98


def test_labels_are_those_of_scikit_learn(labels):
    target = load_digits().target
    for part in labels.values():
        assert part.tolist() == [target[int(name[1:])] for name in part.index]


def test_a_fifth_of_each_class_is_the_test_set(labels):
    test, train = (labels[part].value_counts().sort_index() for part in ("test", "train"))
    assert test.index.tolist() == list(range(10))
    assert (test - 0.2 * (test + train)).abs().max() < 1


def test_tables_agree_with_each_other_and_the_images(digits, labels):
    test, sample = pd.read_csv(digits / "test.csv"), pd.read_csv(digits / "sample_submission.csv")
    assert list(test.columns) == ["id"]
    assert list(sample.columns) == ["id", "label"]
    assert set(sample["label"]) == {0}
    assert test["id"].tolist() == sample["id"].tolist() == labels["test"].index.tolist()
    for part in ("train", "test"):
        assert sorted(labels[part].index) == sorted(path.stem for path in (digits / part).iterdir())


def test_test_labels_stand_outside_the_folder_only(digits):
    assert solution_path(digits) == digits.parent / "digits-solution.csv"
    assert solution_path(digits).is_file()
    assert sorted(path.name for path in digits.iterdir()) == [
        "sample_submission.csv",
        "test",
        "test.csv",
        "train",
        "train.csv",
    ]


def test_nothing_else_is_left_behind(digits):
    assert sorted(path.name for path in digits.parent.iterdir()) == ["digits", "digits-solution.csv"]


def test_a_second_call_changes_nothing(digits):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in digits.parent.rglob("*")}

    before = state()
    assert len(before) == 1797 + 2 + 5
    write_digits(digits)
    assert state() == before


def test_it_loads_as_a_competition(digits, monkeypatch):
    monkeypatch.chdir(digits.parent)
    config = CompetitionConfig(
        path="digits", embedded="digits", train_images="train/{id}.png", test_images="test/{id}.png"
    )
    competition = load_competition(config)
    assert competition.classes == tuple("0123456789")
    target = load_digits().target
    assert competition.targets.tolist() == [target[int(name[1:])] for name in competition.ids]
    assert len(competition.test_ids) == 360
