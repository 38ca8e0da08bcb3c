"""Several commands at once on one folder: each run is trained once, and the results are those of one command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import ROOT, config_file
from support.zygote import Child

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and looks into /proc")

POLICIES = {"uniform": {"lr": 1e-2, "groups": "stage"}, "late": {"lr": 3e-3}}
TRAINED = re.compile(r"^(\w+ seed \d fold \d): macro F1", re.M)
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture(scope="module")
def config(competition, tmp_path_factory) -> Path:
    training = {"epochs": 4, "batch_size": 6, "log_every": 2, "checkpoint_minutes": 0}
    file = tmp_path_factory.mktemp("several") / "config.yaml"
    return config_file(competition, file, training=training, policies=POLICIES)


@pytest.fixture(scope="module")
def alone(zygote, config) -> Path:
    """What one command gives that has the folder for itself."""
    output = config.parent / "alone"
    child = zygote.start("run", config, "--output", output, log=config.parent / "alone.log")
    assert zygote.wait(child) == 0, child.told
    return output


def contents(output: Path) -> dict[str, bytes]:
    """The files of an experiment that are the same wherever and whenever it was run."""
    kinds = ("weights.safetensors", "oof.parquet", "test.parquet", "rates.npz", "history.jsonl", "scores.json")
    runs = output / "runs/tiny"
    files = [path for kind in kinds for path in runs.rglob(kind)] + [runs / "folds.csv", runs / "experiment.yaml"]
    files += (output / "submissions").glob("*.csv")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def trained(*children: Child) -> list[str]:
    return sorted(name for child in children for name in TRAINED.findall(child.told))


@pytest.mark.slow
def test_two_commands_that_begin_at_once_share_the_runs(zygote, config, alone, tmp_path):
    """One wants a policy more than the other; both see the folder empty."""
    words = ("run", config, "--output", tmp_path)
    few = zygote.start(*words, "--policy", "late", log=tmp_path / "few.log")
    all_of_them = zygote.start(*words, log=tmp_path / "all.log")
    assert (zygote.wait(few), zygote.wait(all_of_them)) == (0, 0), few.told + all_of_them.told
    each = [f"{policy} seed 0 fold {fold}" for policy in POLICIES for fold in range(3)]
    assert trained(few, all_of_them) == sorted(each)
    assert contents(tmp_path).keys() == contents(alone).keys()
    one, other = contents(tmp_path), contents(alone)
    config_of = "runs/tiny/experiment.yaml"
    assert {name: one[name] for name in one if name != config_of} == {
        name: other[name] for name in other if name != config_of
    }
    assert all(f"  {policy}:" in one[config_of].decode() for policy in POLICIES)
    assert not list(tmp_path.rglob("*.claim"))


@pytest.mark.slow  # test_kills has it with more of them
def test_when_one_is_killed_the_other_goes_on_from_where_it_was(zygote, config, alone, tmp_path):
    words = ("run", config, "--output", tmp_path)
    first, second = (zygote.start(*words, log=tmp_path / f"{number}.log") for number in (1, 2))
    mine = re.compile(rf'"pid": {first.pid},')
    while not (held := _with_checkpoint(tmp_path, mine)):
        assert zygote.wait(first, 0) is None, first.told
        time.sleep(0.005)
    first.send(signal.SIGKILL, everyone=True)
    assert zygote.wait(first) == -signal.SIGKILL
    (claim,) = held.glob("run.json.*.claim")
    assert zygote.wait(second) == 0, second.told
    key = f"{held.parts[-3]} seed 0 fold {held.name[-1]}"
    assert re.search(
        rf"^{key}: process {first.pid} on .*, which worked on it, is gone; it is taken over$", second.told, re.M
    )
    assert f"{key}: goes on from" in second.told
    assert not claim.exists()
    assert contents(tmp_path) == contents(alone)


def _with_checkpoint(output: Path, mine: re.Pattern[str]) -> Path | None:
    """The folder of a run that a process trains and that has a checkpoint."""
    for checkpoint in output.glob("runs/tiny/*/seed0/fold*/checkpoint.pt"):
        claims = list(checkpoint.parent.glob("run.json.*.claim"))
        if any(mine.search(claim.read_text()) for claim in claims):
            return checkpoint.parent
    return None


def test_nothing_is_replaced_while_another_command_trains(zygote, config, tmp_path):
    words = ("run", config, "--output", tmp_path)
    first = zygote.start(*words, "--set", "training.epochs=80", log=tmp_path / "first.log")
    while not (runs := list(tmp_path.glob("runs/tiny/*/seed0/fold*/run.json"))):
        assert zygote.wait(first, 0) is None, first.told
        time.sleep(0.005)
    second = zygote.start(*words, "--replace", "--set", "training.epochs=3", log=tmp_path / "second.log")
    assert zygote.wait(second) == 1
    said = second.told.splitlines()[-1]
    assert said.startswith(
        f"error: {tmp_path / 'runs/tiny'} was made from another config (training.epochs: 80 there"
    )
    assert f"and process {first.pid} on " in said
    assert runs[0].is_file()
    first.send(signal.SIGKILL, everyone=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="has no unshare")
def test_commands_in_containers_of_their_own_know_each_other_by_their_hearts(config, alone, tmp_path):
    """Each sees its own processes alone, as machines that share a folder do."""
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make namespaces")
    command = [*UNSHARE, sys.executable, "-m", "kit", "run", str(config), "--output", str(tmp_path)]
    variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    logs = [tmp_path / f"{number}.log" for number in (1, 2)]
    started = []
    for log in logs:
        with open(log, "w") as file:
            started.append(
                subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | variables, cwd=ROOT)
            )
    assert [process.wait(timeout=300) for process in started] == [0, 0], "".join(log.read_text() for log in logs)
    each = sorted(name for log in logs for name in TRAINED.findall(log.read_text()))
    assert each == sorted(f"{policy} seed 0 fold {fold}" for policy in POLICIES for fold in range(3))
    assert contents(tmp_path) == contents(alone)
