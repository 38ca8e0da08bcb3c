"""Labels from the config to what is handed in, by whole runs: classes without rows, zeros in front, weights."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, read_predictions
from kit.experiment.config import load_experiment, validate
from kit.experiment.predict import predict_test
from kit.experiment.prepare import prepare
from kit.experiment.run import run
from kit.experiment.runner import Runner
from kit.report.audit import audit

NUMBERS = {"blue": "01", "green": "02", "red": "03"}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Colours that are called 01, 02 and 03."""
    folder = write_competition(tmp_path / "colours", rows=12, test_rows=3, side=16)
    for name in ("train", "sample_submission"):
        table = pd.read_csv(folder / f"{name}.csv", dtype=str)
        table.replace({"label": NUMBERS}).to_csv(folder / f"{name}.csv", index=False)
    return folder


def config(folder: Path, **sections):
    quick = {"folds": {"k": 2}, "training": {"epochs": 1, "batch_size": 4, "device": "cpu"}}
    return validate(experiment_content(folder, **quick | sections), "test")


@pytest.mark.parametrize("several", [False, True])
def test_a_class_without_rows_is_never_predicted(folder, tmp_path, several):
    sections = {
        "competition": {"classes": ["01", "04", "02", "03"], "classes_without_rows": "allowed"}
        | ({"separator": " "} if several else {}),
        "scoring": {"rule": "auto", **({"at_least": 3} if several else {})},
        "training": {"epochs": 1, "batch_size": 4, "device": "cpu", "class_weights": "balanced"},
    }
    lines: list[str] = []
    run(config(folder, **sections), output=tmp_path / "out", say=lines.append)
    assert "competition.classes: no training row has '04': never predicted" in lines
    assert not any("hold none of it" in line for line in lines)
    policy = tmp_path / "out/runs/tiny/uniform"
    for name in ("oof", "test"):
        frame = read_predictions(policy / f"{name}.parquet")
        assert list(frame.columns) == ["01", "04", "02", "03"]
        assert (frame["04"] == 0).all()
        assert (frame.drop(columns="04") > 0).all(axis=None)
        if not several:
            np.testing.assert_allclose(frame.sum(axis=1), 1, rtol=1e-5)
    submission = (tmp_path / "out/submissions/tiny.csv").read_text()
    assert "04" not in submission
    assert audit(config(folder, **sections), tmp_path / "out").rare["class"].tolist() == ["04"]
    # Without the train table, as in a kernel.
    (folder / "train.csv").unlink()
    predict_test(config(folder, **sections), submission=tmp_path / "again.csv", output=tmp_path / "out")
    assert (tmp_path / "again.csv").read_text() == submission


def test_without_rows_and_with_more_labels_than_can_be(folder, tmp_path):
    experiment = config(
        folder,
        competition={"classes": ["01", "04", "02", "03"], "classes_without_rows": "allowed", "separator": " "},
        scoring={"at_least": 4, "rule": "auto"},
    )
    assert refusal_of(lambda: run(experiment, output=tmp_path / "out")) == (
        "scoring.at_least: only 3 classes have a training row; lower it"
    )


def test_the_score_of_classes_without_rows_is_scikit_learns(folder, tmp_path):
    sections = {"competition": {"classes": ["01", "04", "02", "03"], "classes_without_rows": "allowed"}}
    result = run(config(folder, **sections), output=tmp_path / "out")
    oof = read_predictions(tmp_path / "out/runs/tiny/uniform/oof.parquet")
    truth = pd.read_csv(folder / "train.csv", dtype=str).set_index("id")["label"].loc[oof.index]
    expected = f1_score(truth, oof.idxmax(axis=1), average="macro", zero_division=0)
    assert result.policies["uniform"].scores.oof == pytest.approx(expected)


def test_a_config_as_typed_hands_in_what_the_train_table_says(folder, tmp_path):
    (tmp_path / "c.yaml").write_text(
        f"name: tiny\ncompetition: {{path: '{folder}', train_images: 'train/{{id}}.png', test_images: "
        "'test/{id}.png', classes: [03, 01, 2], names: {01: blue, 2: green}}\nfolds: {k: 2}\n"
        "data: {size: 16, augment: none, workers: 0}\nmodel: {name: test_resnet}\npolicies: uniform\n"
        "training: {epochs: 1, batch_size: 4, device: cpu, class_weights: {1: 2, 02: .5}}\n"
    )
    experiment = load_experiment(tmp_path / "c.yaml", ["competition.names.03=1e3"])
    assert experiment.competition.classes == ("03", "01", "2")
    assert experiment.competition.names == {"01": "blue", "2": "green", "03": "1e3"}
    folder_of_runs = ExperimentDir(tmp_path / "out/runs/tiny")
    lines: list[str] = []
    with Runner.set_up(experiment, tmp_path / "out", lines.append) as runner:
        loaded, data = runner.loaded, runner.data
    assert loaded.competition.classes == ("03", "01", "02")
    assert loaded.competition.names == {"03": "1e3", "01": "blue", "02": "green"}
    assert data.recipe.training.class_weights == {"01": 2.0, "02": 0.5}
    assert "competition.classes: the train table spells labels otherwise: '2' is '02'; it counts" in lines
    stored = load_experiment(folder_of_runs.config)
    assert stored.canonical() == experiment.canonical()
    assert stored.to_yaml() == experiment.to_yaml()
    made = loaded.competition.submission.make(np.array([0, 1, 2]), np.zeros((3, 3)))
    assert made["label"].tolist() == ["03", "01", "02"]


def test_a_class_that_is_weighed_twice_is_refused(folder, tmp_path):
    experiment = config(folder, training={"class_weights": {"1": 2.0, "01": 3.0}, "device": "cpu"})
    assert refusal_of(prepare, experiment, ExperimentDir(tmp_path / "r"), OutputDirs.at(tmp_path)) == (
        "training.class_weights: '01' is class '01', which stands there already"
    )


def test_the_lowest_f_is_no_score_where_a_class_has_no_row(folder, tmp_path):
    stated = {"classes": ["01", "02", "03", "04"], "classes_without_rows": "allowed", "separator": " "}
    sections = {"competition": stated, "scoring": {"average": "lowest", "rule": "auto"}}
    assert refusal_of(lambda: run(config(folder, **sections), output=tmp_path / "out")) == (
        "scoring.average: lowest is 0 whatever is predicted, as no training row has 04; leave these classes out, "
        "set scoring.zero_division=1, or take another average"
    )
    sections["scoring"]["zero_division"] = 1
    assert run(config(folder, **sections), output=tmp_path / "out").trained == 2


def test_runs_of_other_classes_are_other_runs(folder, tmp_path):
    columns = {"submission": "columns", "classes_without_rows": "allowed"}
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str)[["id"]]
    for names in (["01", "02", "03", "x"], ["01", "02", "03", "x", "y"]):
        sample.assign(**dict.fromkeys(names, "0")).to_csv(folder / "sample_submission.csv", index=False)
        if names[-1] == "x":
            run(config(folder, competition=columns), output=tmp_path / "out")
    said = refusal_of(lambda: run(config(folder, competition=columns), output=tmp_path / "out"))
    assert "was made from other labels" in said
