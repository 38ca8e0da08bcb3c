"""An experiment opened with its data: what is refused, and what explains it comes first."""

import json

import pandas as pd
import pytest
from support.colours import experiment_content, write_competition
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey, RunRecord
from kit.experiment.config import validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.policy_scores import stored_scores
from kit.experiment.runner import Runner


@pytest.fixture
def failed(competition, tmp_path):
    """A folder with one failed run of a config, and another config of that name."""
    config = validate(experiment_content(competition), "test")
    folder = ExperimentDir(tmp_path / "runs/tiny")
    write_text(folder.config, config.to_yaml())
    folder.run(RunKey("uniform", 0, 0)).write(RunRecord(status="failed", policy="uniform", seed=0, fold=0))
    return validate(experiment_content(competition, training={"epochs": 9}), "test"), folder


def test_a_folder_of_another_config_is_refused(failed, tmp_path):
    config, folder = failed
    message = refusal_of(lambda: LoadedExperiment.open(config, folder, OutputDirs(tmp_path)))
    assert message == (
        f"{folder.path} was made from another config (training.epochs: 2 there, 9 here); give the experiment "
        "another name (--set name=...), or start it anew with python -m kit run --replace"
    )


def test_a_training_replaces_what_holds_no_finished_run(failed, tmp_path):
    config, folder = failed
    said = []
    with Runner.set_up(config, tmp_path, said.append) as runner:
        assert runner.loaded.differs is None
    assert said == [f"Replacing {folder.path}: it was made from another config (training.epochs: 2 there, 9 here)"]
    assert not folder.runs()


def test_a_hint_comes_before_the_refusal_that_it_explains(tmp_path):
    folder = write_competition(tmp_path / "data", rows=12)
    table = pd.read_csv(folder / "train.csv")
    table["label"] = ["a", "b"] * 5 + ["b", "a b"]
    table.to_csv(folder / "train.csv", index=False)
    config, said = validate(experiment_content(folder), "test"), []
    with pytest.raises(KitError, match="single row"):
        LoadedExperiment.open(config, ExperimentDir(tmp_path / "runs/tiny"), OutputDirs(tmp_path), say=said.append)
    assert any("competition.separator" in line for line in said)


def test_scores_of_an_older_kit_are_passed_over_or_filled_up(competition, tmp_path):
    experiment = validate(experiment_content(competition), "test")
    config, of = experiment.scoring, experiment.competition
    choosing = {name: value for name, value in config.canonical().items() if name != "transfer"}
    old = {"metric": "macro F1", "oof": 0.5, "optimistic": 0.6, "rule": {"kind": "argmax"}, "classes": ["a"]}
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(old | {"scoring": {"other": 1}}))
    assert stored_scores(file, config, of) is None
    file.write_text(json.dumps(old | {"scoring": choosing}))
    assert (stored_scores(file, config, of).oof, stored_scores(file, config, of).oof_rows) == (0.5, 0)


@pytest.mark.parametrize("text", ["5", "null", "[]", "{"])
def test_scores_that_are_none(competition, tmp_path, text):
    file = tmp_path / "scores.json"
    file.write_text(text)
    experiment = validate(experiment_content(competition), "test")
    message = refusal_of(stored_scores, file, experiment.scoring, experiment.competition)
    assert message.startswith(f"{file} is damaged (")
    assert message.endswith("); python -m kit run writes it anew")


def test_the_output_folder_may_be_named(tmp_path):
    assert RunOptions.of(None, tmp_path) == RunOptions.of(tmp_path) == RunOptions(tmp_path)
    assert RunOptions.of() == RunOptions(".")
    with pytest.raises(KitError, match="output: the options say already where runs go"):
        RunOptions.of(RunOptions(), tmp_path)
