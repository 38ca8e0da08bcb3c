"""Runs of an experiment on a real cluster of Ray: the same bytes as on one machine."""

import pytest
import torch
from support.clusters import add_node, ray_nodes
from support.colours import write_competition
from support.refusals import refusal_of
from support.studies import left_by, study

import kit.experiment.cluster.cluster as module
from kit.experiment.options import RunOptions
from kit.experiment.run import run

pytest.importorskip("ray", reason="Ray has no wheel here")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes of a core, each with a cache of its own for when they are other machines."""
    caches = [tmp_path_factory.mktemp("cache") for _ in range(2)]
    with ray_nodes([{"env_vars": {"KIT_CACHE": str(cache)}} for cache in caches]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone(competition, tmp_path_factory):
    """What the study leaves where one process trains it, with one thread."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(study(competition), RunOptions(folder, jobs=1, threads=1))
    finally:
        torch.set_num_threads(threads)
    return left_by(folder / "runs" / "study")


@pytest.fixture
def on(nodes, monkeypatch, tmp_path):
    """Options that train on the cluster."""
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    return lambda **more: RunOptions(tmp_path / "out", on="auto", **more)


@pytest.fixture
def unshared(monkeypatch):
    """Each node is another machine, which does not see the folder of the command."""
    probe = module._probe
    monkeypatch.setattr(module, "_probe", lambda output: probe(output) | {"secret": "x", "machine": "another"})


def same(folder, alone):
    """Whether the study left the same files with the same content."""
    left = left_by(folder / "runs" / "study")
    assert left.keys() == alone.keys()
    assert [name for name in alone if left[name] != alone[name]] == []


def test_a_study_on_a_shared_folder_leaves_what_one_process_leaves(competition, on, tmp_path, alone):
    lines = []
    result = run(study(competition), on(), say=lines.append)
    assert result.trained == 12
    same(tmp_path / "out", alone)
    (line,) = [line for line in lines if "runs at a time" in line]
    assert line.startswith("2 runs at a time, each with 1 thread, on ")
    assert f"they write into {tmp_path / 'out' / 'runs'}, which all nodes see" in line


@pytest.mark.slow
def test_a_study_without_a_shared_folder_too(competition, on, tmp_path, alone, unshared):
    lines = []
    assert run(study(competition), on(), say=lines.append).trained == 12
    same(tmp_path / "out", alone)
    assert any("finished runs are brought here, checkpoints stay on their node" in line for line in lines)


def test_a_node_with_other_data_is_left_out(competition, on, nodes, tmp_path):
    other = write_competition(tmp_path / "other" / competition.name, rows=30)
    late, lines = add_node(nodes, "2", env_vars={"DATA": str(other.parent)}), []
    try:
        made = run(study(competition), on(data_root="$DATA", only=("uniform/seed0/fold0",)), say=lines.append)
    finally:
        nodes.remove_node(late)
    assert made.trained == 1
    (line,) = [line for line in lines if "is left out" in line]
    assert line.endswith("it has other training rows than this machine; bring the same there")


def test_a_training_that_diverges_is_told_as_on_one_machine_and_not_tried_again(competition, on, tmp_path):
    too_fast = study(competition, policies={"slow": {"lr": 1e30, "groups": "stage"}})
    only, lines, threads = ("slow/seed0/fold0",), [], torch.get_num_threads()
    here = refusal_of(lambda: run(too_fast, RunOptions(tmp_path / "here", jobs=1, threads=1, only=only)))
    torch.set_num_threads(threads)
    assert refusal_of(lambda: run(too_fast, on(only=only), say=lines.append)) == here
    assert not [line for line in lines if "begun again" in line]
