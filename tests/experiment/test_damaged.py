"""What `run` and `compare` make anew of damaged files, what they refuse, and what they do not even read."""

import shutil
from pathlib import Path

import pytest
from support.colours import experiment_content
from support.faults import damage
from support.refusals import refusal_of

from kit import compare, load_experiment, run
from kit.core import whole
from kit.core.runs import PREDICTED_ANEW, TRAINED_ANEW, ExperimentDir, RunDir, RunKey
from kit.experiment.config import validate
from kit.experiment.options import RunOptions
from kit.training.trainer import Trainer


def experiment(competition, **sections):
    return validate(
        experiment_content(competition, **{"folds": {"k": 2}, "training": {"epochs": 1}} | sections), "test"
    )


@pytest.fixture(scope="module")
def trained(competition, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    run(experiment(competition), output)
    return output


@pytest.fixture
def copied(trained, tmp_path, monkeypatch) -> Path:
    """A copy, in which nothing is trained."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(Trainer, "train", lambda *_, **__: pytest.fail("a training began"))
    return tmp_path


def run_in(output: Path, fold: int = 0) -> RunDir:
    return ExperimentDir(output / "runs/tiny").run(RunKey("uniform", 0, fold))


def test_predictions_that_come_out_otherwise_are_told_and_taken(competition, copied):
    """As on another device, or by other versions."""
    one, said = run_in(copied), list[str]()
    whole_oof = one.oof.read_bytes()
    one.write(one.record.with_fields(files=one.record.files | {"oof.parquet": "0" * 64}))
    run(experiment(competition), copied, say=said.append)
    assert [line for line in said if "anew" in line] == [
        f"{one.oof} was damaged or missing; predicted anew with the saved weights, to other bits, as on another "
        "device or by other versions"
    ]
    assert one.oof.read_bytes() == whole_oof
    assert one.damaged() == []
    said.clear()
    run(experiment(competition), copied, say=said.append)
    assert not [line for line in said if "anew" in line]


@pytest.mark.parametrize("name", ["oof.parquet", "test.parquet"])
def test_predictions_are_not_made_anew_with_damaged_weights(competition, copied, name):
    one = run_in(copied)
    damage(one.path / name, "zero4k")
    damage(one.weights, "flip3")
    before = (one.path / name).read_bytes()
    assert refusal_of(run, experiment(competition), copied) == (
        f"uniform seed 0 fold 0: {one.weights} is damaged (its content is not what was written); {TRAINED_ANEW}"
    )
    assert (one.path / name).read_bytes() == before


def test_weights_that_cannot_be_loaded_are_told_in_an_early_version_too(competition, copied):
    one = run_in(copied)
    one.write(one.record.with_fields(files={}, test="another test set"))
    one.weights.write_bytes(one.weights.read_bytes()[:-100])
    message = refusal_of(run, experiment(competition), copied)
    assert message.startswith(f"uniform seed 0 fold 0: {one.weights} is damaged or of another model (")


def test_weights_of_a_finished_run_are_not_read(competition, copied, monkeypatch):
    read = list[str]()
    hashed = whole.sha256
    monkeypatch.setattr(whole, "sha256", lambda path: read.append(path.name) or hashed(path))
    run(experiment(competition), copied)
    assert {"oof.parquet", "test.parquet"} <= set(read)
    assert "weights.safetensors" not in read
    damage(run_in(copied).weights, "empty")
    run(experiment(competition), copied)  # nor does it matter to it


def test_the_folder_of_a_damaged_run_is_removed_and_it_is_trained_anew(competition, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    one = run_in(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in one.artefacts if path.is_file()}
    pooled = (tmp_path / "runs/tiny/uniform/scores.json").read_bytes()
    damage(one.path / "run.json", "cut")
    assert refusal_of(run, experiment(competition), tmp_path).startswith(f"{one.path}/run.json is damaged (")
    shutil.rmtree(one.path)
    assert run(experiment(competition), tmp_path).trained == 1
    assert {path.name: path.read_bytes() for path in one.artefacts if path.is_file()} == before
    assert (tmp_path / "runs/tiny/uniform/scores.json").read_bytes() == pooled


@pytest.mark.parametrize("how", ["cut", "flip3", "zero4k", "empty"])
def test_folds_are_made_anew_where_they_are_those_of_the_runs(competition, copied, how):
    file, said = copied / "runs/tiny/folds.csv", list[str]()
    before = file.read_bytes()
    damage(file, how)
    run(experiment(competition), copied, say=said.append)
    assert f"{file} is damaged; the folds were made anew, and are those of the runs" in said
    assert file.read_bytes() == before


def test_folds_that_were_given_are_given_once_more(competition, tmp_path):
    """Those that the config makes are others than the runs'."""
    file, kept = tmp_path / "runs/tiny/folds.csv", tmp_path / "given.csv"
    ids = [f"train{row:03d}" for row in range(36)]
    kept.write_text("id,fold\n" + "".join(f"{name},{row // 18}\n" for row, name in enumerate(ids)))
    config, options = experiment(competition, folds={"k": 2, "run": [0]}), RunOptions(tmp_path, folds=kept)
    run(config, options)
    before = file.read_bytes()
    damage(file, "flip3")
    assert refusal_of(run, config, tmp_path) == (
        f"{file} is damaged (its content is not what was written); python -m kit run with --folds and a copy of "
        "it, like folds.csv in a kernel's output, writes it anew"
    )
    assert run(config, options).trained == 0
    assert file.read_bytes() == before


def test_a_damaged_stored_config_is_removed_and_written_anew(competition, copied):
    file = copied / "runs/tiny/experiment.yaml"
    before = file.read_bytes()
    damage(file, "cut")
    message = refusal_of(run, experiment(competition), copied)
    assert message.startswith(f"{file} is damaged (its content is not what was written); remove it, and ")
    assert refusal_of(load_experiment, file) == message  # given as the config of a command
    file.unlink()
    run(experiment(competition), copied)
    assert file.read_bytes() == before


def test_comparing_predicts_equalised_runs_anew(competition, tmp_path):
    policies = {"sliced": {"lr": "slice(1e-4, 1e-2)", "groups": "stage"}}
    config = experiment(competition, folds={"k": 2, "run": [0]}, policies=policies, compare={"equalise": True})
    content, said = compare(config, tmp_path).content, list[str]()
    one = ExperimentDir(tmp_path / "runs/tiny").run(RunKey("sliced-equalised", 0, 0))
    damage(one.oof, "flip3")
    assert refusal_of(lambda: compare(config, tmp_path, stored=True)) == (
        f"{one.oof} is damaged (its content is not what was written); {PREDICTED_ANEW}"
    )
    assert compare(config, tmp_path, say=said.append).content == content
    assert f"{one.oof} was damaged or missing; predicted anew with the saved weights, to the same bits" in said


def test_checkpoints_of_a_run_that_was_killed_at_its_very_end_are_removed(competition, copied):
    done, other = run_in(copied), RunDir(copied / "runs/tiny/late/seed0/fold0")
    other.write(done.record.with_fields(status="stopped", policy="late", files={}))
    for each in (done, other):
        each.checkpoint.write_bytes(b"whatever")
        each.checkpoint_before.write_bytes(b"whatever")
    assert done.left_over == [done.checkpoint, done.checkpoint_before]
    assert other.left_over == []
    run(experiment(competition), copied)
    assert not done.resumable
    assert other.checkpoint.is_file()
    assert other.checkpoint_before.is_file()
