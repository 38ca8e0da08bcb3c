"""`kit doctor RUNS`: every state that a run's folder can be in, and what is said of damage."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from support.colours import experiment_content
from support.commands import kit_here
from support.foreign_claims import foreign
from support.refusals import refusal_of

from kit import doctor, run
from kit.core.claims import claim
from kit.core.owner import Owner
from kit.core.runs import PREDICTED_ANEW, TRAINED_ANEW, ExperimentDir, RunDir, RunKey, RunRecord
from kit.experiment.config import validate
from kit.experiment.examine import examine_runs
from kit.training.checkpoint import read_checkpoint

BACK = "bring back the file as it was, or start the experiment anew with python -m kit run --replace"


@pytest.fixture(scope="module")
def trained(competition, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    config = validate(experiment_content(competition, training={"epochs": 1}, folds={"run": [0, 1]}), "test")
    run(config, output)
    return output


@pytest.fixture
def folder(trained, tmp_path) -> ExperimentDir:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return ExperimentDir(tmp_path / "runs/tiny")


def run_of(folder: ExperimentDir, fold: int) -> RunDir:
    return folder.run(RunKey("uniform", 0, fold))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of(path: Path) -> dict[str, tuple[str, str, str]]:
    (state,) = examine_runs([path])
    return {each.run: (each.state, each.about, each.advice) for each in state.runs}


def test_an_experiment_that_is_whole(folder):
    (state,) = examine_runs([folder.path])
    assert not state.broken
    assert [each.state for each in state.runs] == ["complete", "complete"]
    assert (state.faults, state.at_work, state.litter, state.unchecked) == ([], [], [], 0)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("weights.safetensors", TRAINED_ANEW),
        ("oof.parquet", PREDICTED_ANEW),
        ("test.parquet", PREDICTED_ANEW),
        ("rates.npz", TRAINED_ANEW),
        (
            "history.jsonl",
            f"bring it back from a copy (predictions do not need it, curves do), or {TRAINED_ANEW}",
        ),
    ],
)
def test_a_bit_of_a_run_that_flipped(folder, name, advice):
    flip(run_of(folder, 1).path / name)
    assert of(folder.path) == {
        "uniform/seed0/fold0": ("complete", "", ""),
        "uniform/seed0/fold1": ("damaged", f"{name} is damaged (its content is not what was written)", advice),
    }
    assert of(run_of(folder, 1).path)["uniform/seed0/fold1"][0] == "damaged"


def test_a_record_that_is_not_what_was_written(folder):
    file = run_of(folder, 0).path / "run.json"
    file.write_text(file.read_text().replace('"finished"', '"finishes"'))
    state, about, advice = of(folder.path)["uniform/seed0/fold0"]
    assert (state, advice) == ("damaged", TRAINED_ANEW)
    assert about == "run.json is damaged (its content is not what was written)"


def test_what_is_missing(folder):
    run_of(folder, 0).weights.unlink()
    folder.config.unlink()
    (state,) = examine_runs([folder.path.parent])
    assert of(folder.path)["uniform/seed0/fold0"] == ("damaged", "weights.safetensors is missing", TRAINED_ANEW)
    faults = {fault.file: (fault.about, fault.advice) for fault in state.faults}
    assert faults == {"experiment.yaml": ("is missing", "bring it along with the runs that it belongs to")}


def test_files_that_all_runs_share(folder):
    flip(folder.folds)
    flip(folder.path / "uniform/oof.parquet")
    (folder.path / "uniform/scores.json").write_text("{")
    (state,) = examine_runs([folder.path])
    faults = {fault.file: (fault.about, fault.advice) for fault in state.faults}
    assert set(faults) == {"folds.csv", "uniform/oof.parquet", "uniform/scores.json"}
    assert faults["folds.csv"][1] == BACK
    assert faults["uniform/oof.parquet"] == (
        "is not what was written", "python -m kit run (or compare) writes it anew",
    )  # fmt: skip
    assert faults["uniform/scores.json"][0].startswith("is damaged")
    assert state.broken


def test_a_plan_of_other_folds_than_the_runs_followed(folder):
    """Of an early version, without a manifest."""
    (folder.path / "manifest.json").unlink()
    lines = folder.folds.read_text().splitlines()
    swapped = [line[:-1] + {"0": "1", "1": "0"}.get(line[-1], line[-1]) for line in lines[1:]]
    folder.folds.write_text("\n".join([lines[0], *swapped]) + "\n")
    (state,) = examine_runs([folder.path])
    (fault,) = state.faults
    assert fault.file == "folds.csv"
    assert "is another fold plan than uniform seed 0 fold 0 followed" in fault.about


def test_runs_of_an_early_version_are_read_and_told(folder):
    for fold in (0, 1):
        file = run_of(folder, fold).path / "run.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({name: content[name] for name in content if name not in ("files", "digest")}))
    (folder.path / "manifest.json").unlink()
    (state,) = examine_runs([folder.path])
    assert (state.broken, state.unchecked) == (False, 2)
    file = run_of(folder, 0).weights
    file.write_bytes(file.read_bytes()[:-100])
    assert of(folder.path)["uniform/seed0/fold0"][0] == "damaged"


@pytest.mark.parametrize("status", ["running", "failed", "diverged"])
def test_runs_that_have_not_ended(folder, status):
    record = RunRecord(status=status, policy="uniform", seed=0, fold=2)
    run_of(folder, 2).write(record if status == "running" else record.with_fields(error="the loss is nan"))
    state, about, _ = of(folder.path)["uniform/seed0/fold2"]
    assert state == {"running": "begun"}.get(status, status)
    assert about == ("without a checkpoint yet" if status == "running" else "the loss is nan")


def test_a_run_with_a_checkpoint_goes_on(competition, tmp_path, monkeypatch):
    """As a training leaves it that was stopped."""
    from kit.training import history

    content = experiment_content(competition, training={"checkpoint_minutes": 0}, folds={"run": [0]})
    append, lines = history.append_history, []

    def stop(file, line):
        append(file, line)
        lines.append(line)
        if line["step"] > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(history, "append_history", stop)
    with pytest.raises(KeyboardInterrupt):
        run(validate(content, "test"), tmp_path)
    path = tmp_path / "runs/tiny"
    state, about, advice = of(path)["uniform/seed0/fold0"]
    assert (state, advice) == ("resumable", "python -m kit run (or compare) goes on")
    assert about.startswith("from update ")
    newest, before = (path / f"uniform/seed0/fold0/checkpoint{kind}.pt" for kind in ("", ".before"))
    step = read_checkpoint(before)["step"]
    newest.write_bytes(newest.read_bytes()[:-200])
    state, about, _ = of(path)["uniform/seed0/fold0"]
    assert (state, about.partition(",")[0]) == ("resumable", f"from update {step}")
    assert about.endswith("old; checkpoint.pt is damaged (its end is missing)")
    before.write_bytes(b"")
    state, about, advice = of(path)["uniform/seed0/fold0"]
    assert state == "damaged"
    assert about == "checkpoint.pt is damaged (its end is missing); checkpoint.before.pt is damaged (it is empty)"
    assert "begins this run anew" in advice


def test_who_is_at_work_and_what_lies_about(folder, monkeypatch, capsys):
    with claim(run_of(folder, 2).path / "run.json", "trains uniform seed 0 fold 2"):
        foreign(run_of(folder, 0).path / "run.json")
        foreign(folder.path / "member-1")
        dead = dataclasses.asdict(dataclasses.replace(Owner.mine(), started=1))
        gone = run_of(folder, 1).path / "run.json.3.claim"
        gone.write_text(json.dumps({**dead, "what": "trains", "since": "", "beat": 0}))
        states = of(folder.path)
        assert states["uniform/seed0/fold2"][:2] == (
            "claimed", f"by {Owner.mine()} (trains uniform seed 0 fold 2, since {_since(folder)})",
        )  # fmt: skip
        assert states["uniform/seed0/fold0"][1] == (
            "by process 7 on elsewhere (works, since 2026-01-01); of another machine: whether it lives is known "
            "after a minute"
        )
        (state,) = examine_runs([folder.path])
        assert state.at_work == ["process 7 on elsewhere (works, since 2026-01-01)"]
        assert state.litter == ["uniform/seed0/fold1/run.json.3.claim"]
        assert not state.broken
        code, out, _ = kit_here(monkeypatch, capsys, "doctor", str(folder.path))
        assert code == 0
        assert out.splitlines()[0] == f"{folder.path}: 3 runs: 1 complete, 2 claimed"
        assert "  litter     uniform/seed0/fold1/run.json.3.claim" in out.splitlines()


def _since(folder: ExperimentDir) -> str:
    return json.loads((run_of(folder, 2).path / "run.json.1.claim").read_text())["since"]


def test_the_command_tells_damage_by_its_exit_code(folder, monkeypatch, capsys):
    flip(run_of(folder, 1).weights)
    code, out, _ = kit_here(monkeypatch, capsys, "doctor", str(folder.path.parent))
    assert code == 1
    assert out.splitlines() == [
        f"{folder.path}: 2 runs: 1 complete, 1 damaged",
        "  complete   uniform/seed0/fold0",
        "  DAMAGED    uniform/seed0/fold1: weights.safetensors is damaged (its content is not what was written)",
        f"             → {TRAINED_ANEW}",
    ]
    code, out, _ = kit_here(monkeypatch, capsys, "doctor", str(folder.path), "--json")
    assert code == 1
    told = json.loads(out)
    assert (told["broken"], told["findings"]) == (True, [])
    assert told["folders"][0]["runs"][1]["state"] == "damaged"


def test_runs_that_tune_are_among_them(folder):
    inner = folder.path / "tuning/fold1"
    shutil.copytree(folder.path / "uniform", inner / "uniform")
    for each in ExperimentDir(inner).runs():  # of a plan that leaves a fold out
        each.write(each.record.with_fields(depends_on=each.record.depends_on | {"folds": "other"}))
    (state,) = examine_runs([folder.path])
    assert not state.broken
    assert list(of(folder.path))[2:] == [f"tuning/fold1/uniform/seed0/fold{fold}" for fold in (0, 1)]


def test_what_holds_no_runs(tmp_path):
    assert refusal_of(doctor, ".", tmp_path / "no") == (
        f"{tmp_path / 'no'} is no folder; give runs/, an experiment in it, or a run like uniform/seed0/fold0"
    )
    assert refusal_of(doctor, ".", [tmp_path]).startswith(f"{tmp_path} holds no runs; ")
