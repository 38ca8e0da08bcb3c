"""`kit run` and signals, as from a shell or from Slurm: exit codes, lines, bits, and who is left."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.commands import ROOT, TORCHRUN, config_file, kit_here
from support.signals import of_session, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
RESULTS = ("weights.safetensors", "oof.parquet", "test.parquet", "rates.npz", "history.jsonl")
LONG = {"epochs": 12, "log_every": 1, "evaluate_every": 0}


@pytest.fixture
def begun():
    """`kit …` in a session of its own; afterwards nothing of it is left."""
    commands = []

    def begin(*words):
        command = [sys.executable, "-m", "kit", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        commands.append(subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes))
        return commands[-1]

    yield begin
    for command in commands:
        for pid in of_session(command.pid):
            os.kill(pid, signal.SIGKILL)
        command.kill()
        command.communicate()


def run_of(output, fold):
    return output / f"runs/tiny/uniform/seed0/fold{fold}"


def has_learned(output, fold=0, updates=3):
    history = run_of(output, fold) / "history.jsonl"
    return history.is_file() and len(history.read_text().splitlines()) >= updates


@pytest.mark.slow
def test_sigterm_with_workers_and_json_then_the_same_command(competition, tmp_path, monkeypatch, capsys, begun):
    config = config_file(competition, tmp_path / "a.yaml", training=LONG, folds={"run": [0]}, data={"workers": 2})
    words = ["run", str(config), "--json", "--output"]
    process = begun(*words, tmp_path / "cut")
    until(lambda: has_learned(tmp_path / "cut"))
    assert len(of_session(process.pid)) >= 2  # the loader's workers
    os.killpg(process.pid, signal.SIGTERM)  # all of them, as a job is ended
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors
    assert of_session(process.pid) == []
    last = errors.splitlines()[-1]
    assert last.startswith("stopped at update ")
    assert last.endswith(" of 36 of uniform seed 0 fold 0; the same command goes on from there")
    assert json.loads(output) == {"error": last}
    assert json.loads((run_of(tmp_path / "cut", 0) / "run.json").read_text())["status"] == "stopped"
    for name in ("cut", "whole"):
        code, output, errors = kit_here(monkeypatch, capsys, *words, str(tmp_path / name))
        assert code == 0
        assert ("goes on from its last checkpoint" in errors) == (name == "cut")
    for name in RESULTS:
        cut, whole = (run_of(tmp_path / which, 0) / name for which in ("cut", "whole"))
        assert cut.read_bytes() == whole.read_bytes(), name


@pytest.mark.slow
def test_ctrl_c_stops_all_runs_side_by_side_and_a_kill_leaves_nobody(competition, tmp_path, begun):
    config = config_file(
        competition,
        tmp_path / "a.yaml",
        training=LONG | {"epochs": 400},
        folds={"run": [0, 1]},
        data={"workers": 1},
    )
    words = ("run", config, "--jobs", 2, "--output", tmp_path)
    process = begun(*words)
    until(lambda: has_learned(tmp_path, 0) and has_learned(tmp_path, 1))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    lines = sorted(line.partition(" of 1200 of ")[2] for line in errors.splitlines())
    on = "the same command goes on from there"
    assert lines == [f"uniform seed 0 fold {fold}; {on}" for fold in (0, 1)]
    until(lambda: of_session(process.pid) == [], 30)
    for fold in (0, 1):
        assert json.loads((run_of(tmp_path, fold) / "run.json").read_text())["status"] == "stopped"
        assert (run_of(tmp_path, fold) / "checkpoint.pt").is_file()

    process = begun(*words)
    before = [len((run_of(tmp_path, fold) / "history.jsonl").read_text()) for fold in (0, 1)]
    until(
        lambda: all(
            len((run_of(tmp_path, fold) / "history.jsonl").read_text()) > before[fold] + 99 for fold in (0, 1)
        )
    )
    assert len(of_session(process.pid)) >= 4  # two that train, and their workers
    process.kill()
    process.communicate()
    until(lambda: of_session(process.pid) == [], 120)


def test_a_second_ctrl_c_ends_at_once_and_says_what_is_left(competition, tmp_path, monkeypatch, capsys):
    """The first comes in an update, the second before that has ended."""
    from kit.training.trainer import Trainer

    config = config_file(competition, tmp_path / "a.yaml", folds={"run": [0]}, training={"checkpoint_minutes": 0})
    original = Trainer._update

    def twice(trainer, step, batches):
        original(trainer, step, batches)
        if step == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_update", twice)
    code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    left = "the same command goes on from its last checkpoint"
    assert (code, errors) == (130, f"interrupted in uniform seed 0 fold 0; {left}\n")
    assert json.loads((run_of(tmp_path, 0) / "run.json").read_text())["status"] == "stopped"
    monkeypatch.setattr(Trainer, "_update", original)
    code, output, _ = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert code == 0
    assert "uniform seed 0 fold 0: goes on from its last checkpoint" in output


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "kit.experiment.prepare._Decoding.test",
            "interrupted while data and model were prepared; what is finished is kept, and the same command "
            "prepares them again",
        ),
        (
            "kit.experiment.run._pool_policies",
            "interrupted while runs were pooled; they are kept, and the same command pools them",
        ),
    ],
)
def test_elsewhere_what_is_said_is_true(competition, tmp_path, monkeypatch, capsys, place, told):
    config = config_file(competition, tmp_path / "a.yaml", folds={"run": [0]}, training={"epochs": 1})
    with monkeypatch.context() as during:
        during.setattr(place, lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert (code, errors) == (143, told + "\n")
    assert not (run_of(tmp_path, 0) / "checkpoint.pt").exists()


def test_between_two_runs_the_next_is_not_begun(competition, tmp_path, monkeypatch, capsys):
    """While the results of the first are written: those are whole."""
    from kit.experiment import train_run

    config = config_file(competition, tmp_path / "a.yaml", folds={"run": [0, 1]}, training={"epochs": 1})
    original = train_run.save_weights

    def with_signal(model, path):
        signal.raise_signal(signal.SIGTERM)
        original(model, path)

    monkeypatch.setattr(train_run, "save_weights", with_signal)
    code, output, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert (code, errors) == (143, "stopped before uniform seed 0 fold 1; the same command begins it\n")
    assert "uniform seed 0 fold 0: macro F1" in output
    assert json.loads((run_of(tmp_path, 0) / "run.json").read_text())["status"] == "finished"
    assert not any(run_of(tmp_path, 1).glob("*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["before", "after_in_parent", "init"])
def test_none_is_lost_while_workers_start(competition, tmp_path, monkeypatch, capsys, number, moment):
    """Around each fork, where Python drops what is raised, and as the loader has begun."""
    from torch.utils.data import dataloader

    forks = []

    def around():
        forks.append(os.getpid())
        if len(forks) == 2 and forks[0] == os.getpid():
            signal.raise_signal(number)

    if moment == "init":
        original = dataloader._MultiProcessingDataLoaderIter.__init__

        def begin(iterator, loader):
            forks.append(0)
            signal.raise_signal(number)
            original(iterator, loader)

        monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "__init__", begin)
    else:
        hooks = {"before": lambda: AROUND and AROUND[0](), "after_in_parent": lambda: AROUND and AROUND[1]()}
        if not REGISTERED:
            os.register_at_fork(**hooks)
            REGISTERED.append(True)
        nothing = int
        AROUND[:] = [around, nothing] if moment == "before" else [nothing, around]
    config = config_file(competition, tmp_path / "a.yaml", folds={"run": [0]}, data={"workers": 2})
    code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    AROUND.clear()
    assert forks
    assert code == 128 + number
    assert errors == "stopped at update 1 of 6 of uniform seed 0 fold 0; the same command goes on from there\n"


AROUND: list = []
REGISTERED: list = []


@pytest.mark.slow
def test_under_torchrun_all_stop_after_the_same_update_and_go_on(competition, tmp_path, begun):
    config = config_file(competition, tmp_path / "a.yaml", training=LONG | {"batch_size": 4}, folds={"run": [0]})
    results = {}
    for name in ("cut", "whole"):
        command = [*TORCHRUN, "run", str(config), "--output", str(tmp_path / name)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        if name == "cut":
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            until(lambda: has_learned(tmp_path / "cut"))
            process.terminate()
            _, errors = process.communicate(timeout=300)
            assert errors.count(" of uniform seed 0 fold 0; the same command goes on from there") == 1, errors
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert ("goes on from its last checkpoint" in ended.stdout) == (name == "cut")
        results[name] = [(run_of(tmp_path / name, 0) / file).read_bytes() for file in RESULTS]
    assert results["cut"] == results["whole"]
