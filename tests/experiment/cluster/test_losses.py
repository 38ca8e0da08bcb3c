"""A process, a node, the command is lost while a run trains on a cluster of Ray: it ends with the same bytes."""

import threading

import psutil
import pytest
import torch
from support.clusters import ray_nodes, until
from support.commands import kit_run
from support.quick import painting
from support.studies import left_by, study

import kit.experiment.cluster.cluster as module
from kit.experiment.options import RunOptions
from kit.experiment.run import run

pytest.importorskip("ray", reason="Ray has no wheel here")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("painted")]  # as by the command
SERVER = "kit.experiment.cluster.server"


@pytest.fixture(scope="module")
def long(competition):
    """A single run of many epochs."""
    training = {"epochs": 200, "batch_size": 8, "log_every": 5, "checkpoint_minutes": 0, "device": "cpu"}
    config = study(competition, training=training, seeds=[0], folds={"k": 3, "run": [0]})
    return config.model_copy(update={"policies": {"uniform": config.policies["uniform"]}})


@pytest.fixture(scope="module")
def alone(long, tmp_path_factory):
    """What it leaves where nothing is lost."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with painting():
            run(long, RunOptions(folder, jobs=1, threads=1))
    finally:
        torch.set_num_threads(threads)
    return left_by(folder / "runs" / "study")


def same(folder, alone):
    left = left_by(folder / "runs" / "study")
    assert left.keys() == alone.keys()
    assert [name for name in alone if left[name] != alone[name]] == []


def checkpoints(runs):
    return list(runs.glob("study/*/*/*/checkpoint.pt"))


def once_it_trains(runs, act):
    """Do something in a thread as soon as there is a checkpoint."""

    def wait():
        until(lambda: checkpoints(runs()), 120.0)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def servers():
    """The servers, on the nodes of this test's cluster, that have begun something."""
    mine = psutil.Process().children(recursive=True)
    return [each for each in mine if each.is_running() and SERVER in each.cmdline() and each.children()]


def kill_trainings():
    for server in servers():
        for child in server.children():
            child.kill()


def test_a_killed_process(long, alone, tmp_path, monkeypatch):
    lines, out = [], tmp_path / "out"
    with ray_nodes([{}, {}]) as nodes:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        thread = once_it_trains(lambda: out / "runs", kill_trainings)
        run(long, RunOptions(out, on="auto"), say=lines.append)
        thread.join()
    assert len([line for line in lines if "it is begun again (1 of 3)" in line]) == 1, lines
    assert [line for line in lines if "goes on from its last checkpoint" in line], lines
    same(out, alone)


@pytest.mark.parametrize("shared", [True, False])
def test_a_lost_node(long, alone, tmp_path, monkeypatch, shared):
    """Without a shared folder, each node being another machine, the checkpoints are lost with it."""
    if not shared:
        probe, elsewhere = module._probe, {"secret": "x", "machine": "another"}
        monkeypatch.setattr(module, "_probe", lambda output: probe(output) | elsewhere)
    lines, out = [], tmp_path / "out"
    caches = {name: tmp_path / name for name in ("1", "2")}
    with ray_nodes(
        [{"num_cpus": 0}, *({"env_vars": {"KIT_CACHE": str(each)}} for each in caches.values())]
    ) as nodes:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)

        def runs():
            there = (path for cache in caches.values() for path in cache.glob("outputs/*/runs"))
            return out / "runs" if shared else next(there, out)

        def lose():
            (server,) = servers()
            nodes.remove_node(nodes.named[server.environ()["NODE"]])

        thread = once_it_trains(runs, lose)
        run(long, RunOptions(out, on="auto"), say=lines.append)
        thread.join()
    assert any("its checkpoints were lost" in line for line in lines) is not shared, lines
    assert [line for line in lines if "the node is gone" in line], lines
    assert [line for line in lines if "begun again" in line], lines
    same(out, alone)


def test_the_command_is_killed_and_typed_again(long, alone, tmp_path):
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(long.to_yaml())
    with ray_nodes([{}, {}]) as nodes, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", nodes.address)
        first = kit_run(file, out, extra=("--on", "auto"))
        until(lambda: checkpoints(out / "runs"), 90.0)
        first.kill()
        first.communicate()
        second = kit_run(file, out, extra=("--on", "auto"))
        told, _ = second.communicate(timeout=200)
    assert second.returncode == 0, told
    assert "goes on from its last checkpoint" in told
    same(out, alone)
