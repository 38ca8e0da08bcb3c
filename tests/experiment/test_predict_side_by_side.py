"""Saved models on several GPUs: every row once, in order, the same bytes as on one."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from support.colours import experiment_content, write_competition

from kit import run
from kit.core.errors import KitError
from kit.core.runs import RunDir
from kit.data.images import ReadableImages
from kit.experiment import predict_side_by_side as side_by_side
from kit.experiment.config import validate
from kit.experiment.predict import predict_test
from kit.experiment.predict_side_by_side import Part, gpus_for, in_order, parts_of


@given(some.integers(1, 12), some.integers(1, 5), some.lists(some.integers(0, 99), min_size=1, unique=True))
def test_each_model_predicts_each_row_once_and_all_gpus_as_many(models, jobs, rows):
    rows = sorted(rows)
    runs = [SimpleNamespace(number=number) for number in range(models)]
    experiment = validate(experiment_content("data"), "test")
    parts = list(parts_of(experiment, runs, ReadableImages(None, rows, {}), jobs, 1e9))
    for number, run_ in enumerate(runs):
        mine = [part for part in parts if part.number == number]
        assert [row for part in mine for row in part.readable.rows] == rows
        assert [part.place for part in mine] == list(range(len(mine)))
        assert all(part.run is run_ for part in mine)
    for gpu in range(jobs):  # each takes the next part when it has done one, and all take as long
        mine = [part for place, part in enumerate(parts) if place % jobs == gpu] if len(rows) % jobs == 0 else []
        for place, part in enumerate(mine):
            to_come, size = sum(len(each.readable.rows) for each in mine[place:]), len(part.readable.rows)
            assert part.models - 1 < to_come / size <= part.models
    left = parts[models - models % jobs :]  # each of these has its share of a model
    assert all(len(part.readable.rows) <= -(-len(rows) // jobs) for part in left)


@pytest.mark.parametrize(
    ("kind", "processes", "models", "rows", "there", "expected"),
    [
        ("cuda", 1, 5, 1000, 2, 2),
        ("cuda", 1, 1, 5000, 4, 4),
        ("cuda", 1, 5, 999, 2, 1),  # too few to be worth it
        ("cuda", 1, 5, 1000, 1, 1),
        ("cuda", 2, 5, 1000, 2, 1),  # torchrun shares the rows
        ("cpu", 1, 5, 100_000, 0, 1),
    ],
)
def test_on_how_many(monkeypatch, kind, processes, models, rows, there, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    accelerator = SimpleNamespace(device=torch.device(kind), num_processes=processes)
    assert gpus_for(accelerator, models, rows, pytest.fail) == expected


def test_a_script_that_would_begin_anew_predicts_on_one_and_is_told(monkeypatch):
    def refuse(method):
        raise KitError("mine.py, line 3: below the guard")

    monkeypatch.setattr(side_by_side, "need_guard", refuse)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    accelerator, said = SimpleNamespace(device=torch.device("cuda"), num_processes=1), []
    assert gpus_for(accelerator, 5, 1000, said.append) == 1
    assert said == ["predicts on one of 2 GPUs: mine.py, line 3: below the guard"]


def test_of_models_that_were_not_done_in_time_the_whole_ones_count():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    made = [(2, frame, False), (0, frame[:2], True), (1, frame, True)]
    assert [number for number, *_ in in_order(made, 3)] == [1, 2]
    assert [number for number, *_ in in_order([(0, frame[:1], False), (1, frame[:2], False)], 3)] == [1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A competition, and what training three folds on it made."""
    root = tmp_path_factory.mktemp("trained")
    content = experiment_content(write_competition(root / "data", rows=30), training={"epochs": 1})
    run(validate(content, "test"), root)
    return root


@pytest.fixture
def predict(trained, tmp_path, monkeypatch):
    """Predicts on two devices; gives the submission's bytes and what was said."""
    monkeypatch.setattr(side_by_side, "gpus_for", lambda *_: 2)

    def call(**options):
        said = []
        file = tmp_path / "submission.csv"
        experiment = validate(experiment_content(trained / "data", training={"epochs": 1}), "test")
        predict_test(experiment, [trained / "runs"], file, tmp_path, say=said.append, **options)
        return file.read_bytes(), said

    return call


def here(task, parts, jobs):
    """`run_parallel` in this process: what ends first is not what began first."""
    return (task(part) for part in reversed(list(parts)))


def test_two_devices_write_what_one_does(trained, predict, monkeypatch):
    monkeypatch.setattr(side_by_side, "run_parallel", here)
    made, said = predict()
    assert made == (trained / "submissions/tiny.csv").read_bytes()
    assert said[1] == "predicts on 2 GPUs"
    assert [line.rpartition(":")[0] for line in said[2:]] == ["seed0 fold2", "seed0 fold1", "seed0 fold0"]


def test_a_model_whose_second_half_was_too_late_does_not_count(predict, monkeypatch):
    def late(part: Part):
        made = side_by_side_predict(part)
        frame = made.frame[:0] if (part.number, part.place) == (2, 1) else made.frame
        return side_by_side._Predicted(made.number, made.place, frame, made.in_one_view, made.seconds)

    side_by_side_predict = side_by_side._predict_part
    monkeypatch.setattr(side_by_side, "_predict_part", late)
    monkeypatch.setattr(side_by_side, "run_parallel", here)
    _, said = predict()
    assert said[-1] == "the time allows no more than 2 of 3 models"


def test_rows_that_come_back_otherwise_are_refused(predict, monkeypatch):
    def turned(part: Part):
        made = side_by_side_predict(part)
        return side_by_side._Predicted(made.number, made.place, made.frame[::-1], made.in_one_view, made.seconds)

    side_by_side_predict = side_by_side._predict_part
    monkeypatch.setattr(side_by_side, "_predict_part", turned)
    monkeypatch.setattr(side_by_side, "run_parallel", here)
    with pytest.raises(KitError, match="what a process predicted is of other rows"):
        predict()


@pytest.mark.slow
def test_two_processes_write_what_one_does(trained, predict):
    made, said = predict()
    assert made == (trained / "submissions/tiny.csv").read_bytes()
    assert len(said) == 5
    assert RunDir(trained / "runs/tiny/uniform/seed0/fold0").finished
