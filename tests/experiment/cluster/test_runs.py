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


@pytest.fixture
def alone(tmp_path):
    """What a study leaves where one process trains it, with one thread."""

    def trained(config):
        folder, threads = tmp_path / "alone", torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            run(config, RunOptions(folder, jobs=1, threads=1))
        finally:
            torch.set_num_threads(threads)
        return left_by(folder / "runs" / "study")

    return trained


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


def test_what_is_trained_on_a_shared_folder_is_what_one_process_leaves(competition, on, tmp_path, alone):
    lines, config = [], study(competition, seeds=[0], folds={"k": 3, "run": [0, 1]})
    assert run(config, on(), say=lines.append).trained == 4
    same(tmp_path / "out", alone(config))
    (line,) = [line for line in lines if "at a time, each" in line]
    assert line.startswith("2 at a time, each with 1 thread, on ")
    assert f"they write into {tmp_path / 'out' / 'runs'}, which all nodes see" in line


@pytest.mark.slow
def test_a_study_of_twelve_runs_on_a_shared_folder(competition, on, tmp_path, alone):
    assert run(study(competition), on()).trained == 12
    same(tmp_path / "out", alone(study(competition)))


@pytest.mark.slow
def test_a_study_without_a_shared_folder_too(competition, on, tmp_path, alone, unshared):
    lines = []
    assert run(study(competition), on(), say=lines.append).trained == 12
    same(tmp_path / "out", alone(study(competition)))
    assert any("finished runs are brought here, checkpoints stay on their node" in line for line in lines)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_training_that_diverges_is_told_as_on_one_machine_and_not_tried_again(competition, on, tmp_path):
    too_fast = study(competition, policies={"slow": {"lr": 1e30, "groups": "stage"}})
    only, lines, threads = ("slow/seed0/fold0",), [], torch.get_num_threads()
    here = refusal_of(lambda: run(too_fast, RunOptions(tmp_path / "here", jobs=1, threads=1, only=only)))
    torch.set_num_threads(threads)
    assert refusal_of(lambda: run(too_fast, on(only=only), say=lines.append)) == here
    assert not [line for line in lines if "begun again" in line]
