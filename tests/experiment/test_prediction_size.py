"""What predictions take is said with the figure before a training, and is what pooling them really takes."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support.colours import experiment_content
from support.refusals import refusal_of

from kit.competition.folds import FoldPlan
from kit.competition.labels import MultiLabel, SingleLabel
from kit.competition.load import Competition
from kit.competition.submission import SubmissionFormat
from kit.core.runs import ExperimentDir, RunRecord, predictions, write_predictions
from kit.experiment import prediction_size
from kit.experiment.config import validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pool import pool_policy
from kit.experiment.prediction_size import PredictionSize, need_room
from kit.experiment.prepare import run_keys
from kit.experiment.run import run

CLASSES = 300


@pytest.fixture
def written(tmp_path):
    """An experiment with finished runs of noise, as large as asked for."""

    def of(rows: int, test_rows: int, seeds: int, several: bool, folds: int = 3, classes: int = CLASSES):
        generator = np.random.default_rng(0)
        names = tuple(f"class{place}" for place in range(classes))
        form = MultiLabel(names) if several else SingleLabel(names)
        ids, test_ids = [f"row{row}" for row in range(rows)], [f"test{row}" for row in range(test_rows)]
        plan = FoldPlan(ids, np.arange(rows) % folds)
        targets = generator.random((rows, classes)) < 0.01 if several else generator.integers(0, classes, rows)
        submission = SubmissionFormat("labels", ("id", "label"), "id", tuple(test_ids), form, {})
        competition = Competition(
            tmp_path,
            form,
            ids,
            targets,
            pd.DataFrame(),
            [],
            test_ids,
            [],
            submission,
            dict(zip(names, names, strict=True)),
        )
        content = experiment_content(tmp_path, folds={"k": folds}, scoring={"rule": "auto"})
        config = validate(content | {"seeds": list(range(seeds))}, "test")
        folder = ExperimentDir(tmp_path / "runs/tiny")
        for key in run_keys(config):
            held_out = [ids[row] for row in plan.validation_rows(key.fold)]
            values = generator.random((len(held_out) + test_rows, classes), dtype=np.float32)
            write_predictions(predictions(held_out, values[: len(held_out)], names), folder.run(key).oof)
            write_predictions(predictions(test_ids, values[len(held_out) :], names), folder.run(key).test)
            folder.run(key).write(RunRecord(status="finished", policy=key.policy, seed=key.seed, fold=key.fold))
        return LoadedExperiment(config, folder, competition, plan, {})

    return of


@pytest.mark.parametrize(
    ("rows", "test_rows", "seeds", "several"),
    [
        (6000, 600, 1, False),
        (6000, 600, 1, True),
        (1500, 6000, 1, False),
        pytest.param(3000, 300, 3, True, marks=pytest.mark.slow),
    ],
)
def test_the_figure_is_what_pooling_takes(written, rows, test_rows, seeds, several, monkeypatch):
    monkeypatch.setattr("kit.scoring.thresholds.MANY", 20_000)  # of so few rows what rules are fitted on is most
    monkeypatch.setattr("kit.scoring.offsets.MANY", 20_000)
    monkeypatch.setattr(prediction_size, "_FITTED", 20_000)
    loaded = written(rows, test_rows, seeds, several)
    folder = loaded.folder
    runs = folder.runs("uniform")
    tracemalloc.start()
    pool_policy("uniform", runs, loaded.config.scoring, loaded, folder.path / "submission.csv", write=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    figure = PredictionSize((rows // 3,) * 3, test_rows, CLASSES, seeds, several=several).pooled
    assert 0.7 * figure < peak < 1.05 * figure  # indices and ids are not counted, Arrow's copies not seen


def test_one_fold_of_many_takes_no_more_than_its_own_rows(written, monkeypatch):
    for module in ("kit.scoring.thresholds.MANY", "kit.scoring.offsets.MANY"):
        monkeypatch.setattr(module, 20_000)
    monkeypatch.setattr(prediction_size, "_FITTED", 20_000)
    loaded = written(12_000, 100, 1, False, folds=10)
    runs = [run for run in loaded.folder.runs("uniform") if run.record.fold == 0]
    tracemalloc.start()
    pool_policy("uniform", runs, loaded.config.scoring, loaded, loaded.folder.path / "submission.csv", write=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.3 * PredictionSize((1_200,), 100, CLASSES, 1).pooled + 200 * 12_000  # ids of all rows, too


def free(monkeypatch, memory: float, disk: float) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=memory))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=disk))


def herbarium(tmp_path) -> LoadedExperiment:
    """A million rows of 32,000 classes in five folds, of which nothing is made."""
    config = validate(experiment_content(tmp_path, folds={"k": 5}) | {"seeds": [0, 1]}, "test")
    form = SingleLabel(tuple(f"species{place}" for place in range(32_000)))
    submission = SubmissionFormat("labels", ("id", "label"), "id", (), form, {})
    plan = FoldPlan([], np.arange(1_000_000) % 5)
    test_ids = ["test"] * 200_000
    competition = Competition(tmp_path, form, [], np.zeros(0), pd.DataFrame(), [], test_ids, [], submission, {})
    return LoadedExperiment(config, ExperimentDir(tmp_path / "runs/tiny"), competition, plan, {})


def test_a_herbarium_is_refused_with_the_figure(tmp_path, monkeypatch):
    loaded = herbarium(tmp_path)
    keys = run_keys(loaded.config)
    free(monkeypatch, 400e9, 1e15)
    cells, test = 1_000_000 * 32_000, 200_000 * 32_000
    # Both seeds' predictions, the mean as it is written, by three copies; the test rows' by fold, and their mean.
    memory = 8 * cells + 4 * cells + 12 * cells + 5 * 8 * test + 8 * test + 8_000_000
    assert refusal_of(need_room, loaded, keys, print) == (
        "predictions: 1,000,000 held-out and 200,000 test rows × 32,000 classes (128.0 GB out of fold for a "
        f"policy and seed): they take {memory / 1e9:,.1f} GB of memory at once, where 400.0 GB are free; train "
        "fewer folds (folds.run), seeds or policies at a time, or take a machine with more memory"
    )
    free(monkeypatch, 1e15, 400e9)
    stored = 4 * (2 * cells + 10 * test + cells + test)  # runs of two seeds, and what is pooled
    said = refusal_of(need_room, loaded, keys, print)
    assert f"they take {stored / 1e9:,.1f} GB on the disk of {tmp_path}, where 400.0 GB are free" in said
    assert said.endswith("or take an --output on a larger disk")
    free(monkeypatch, 1.5 * memory, 1.5 * stored)
    lines = []
    need_room(loaded, keys, lines.append)
    assert [line.rpartition(" or take ")[2] for line in lines] == [
        "a machine with more memory if that is too little",
        "an --output on a larger disk if that is too little",
    ]
    free(monkeypatch, 3 * memory, 3 * stored)
    need_room(loaded, keys, refusal_of)
    free(monkeypatch, 0, 0)
    need_room(loaded, (), refusal_of)  # as find-lr, which predicts nothing


def test_finished_runs_take_no_more_of_the_disk(written, monkeypatch):
    loaded = written(300, 30, 1, several=False, classes=20)
    keys = run_keys(loaded.config)
    whole = 4 * 20 * (300 + 3 * 30 + 300 + 30)
    free(monkeypatch, 1e15, whole - 1)
    assert "on the disk" in refusal_of(need_room, loaded, keys, print)
    for key in keys[:2]:
        for file in (loaded.folder.run(key).weights, loaded.folder.run(key).rates):
            file.touch()
    need_room(loaded, keys, [].append)
    free(monkeypatch, 1e15, whole - 4 * 20 * (2 * 100 + 2 * 30) - 1)
    assert "on the disk" in refusal_of(need_room, loaded, keys, print)


def test_a_run_says_it_before_anything_is_decoded(competition, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.experiment.prepare.open_images", lambda *_: pytest.fail("decoded"))
    free(monkeypatch, 1000, 1e15)
    said = refusal_of(run, validate(experiment_content(competition), "test"), tmp_path)
    assert said.startswith("predictions: 36 held-out and 9 test rows × 3 classes (0.0 GB out of fold")
    assert not list((tmp_path / "runs").rglob("*"))
