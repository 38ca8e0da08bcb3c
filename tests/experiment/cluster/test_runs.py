"""Runs of an experiment on a real cluster of Ray: the same bytes as on one machine, whatever is lost on the way."""

import json
import os
import shutil
import signal
import threading

import pytest
import torch
from support.clusters import add_node, ray_nodes, until
from support.refusals import refusal_of
from support.studies import left_by, study

import kit.experiment.cluster.cluster as module
from kit.experiment.options import RunOptions
from kit.experiment.run import run

pytest.importorskip("ray", reason="Ray has no wheel here")


@pytest.fixture(scope="module")
def nodes():
    """Two nodes of a core."""
    with ray_nodes([{}, {}]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone(competition, tmp_path_factory):
    """What the study leaves where one process trains it, with one thread."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
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
    """No node sees the folder of the command."""
    probe = module._probe
    monkeypatch.setattr(module, "_probe", lambda output: probe(output) | {"secret": "another"})


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


def test_a_study_without_a_shared_folder_too(competition, on, tmp_path, alone, unshared):
    lines = []
    assert run(study(competition), on(), say=lines.append).trained == 12
    same(tmp_path / "out", alone)
    assert any("finished runs are brought here, checkpoints stay on their node" in line for line in lines)
