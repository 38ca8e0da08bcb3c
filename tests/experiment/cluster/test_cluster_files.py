"""The files with which clusters are started, against Ray's own schema and bash."""

import importlib.metadata
import subprocess

import pytest
import yaml
from packaging.requirements import Requirement
from support.commands import ROOT

FOLDER = ROOT / "configs/cluster"


def test_ray_takes_the_file_of_three_boxes(monkeypatch):
    pytest.importorskip("jsonschema")
    ray = pytest.importorskip("ray.autoscaler._private.util", reason="Ray is not installed")
    monkeypatch.chdir(ROOT)  # file_mounts are relative to where `ray up` is typed
    config = yaml.safe_load((FOLDER / "ray.yaml").read_text())
    prepared = ray.prepare_config(config)
    ray.validate_config(prepared)
    [node] = prepared["available_node_types"].values()
    assert (node["min_workers"], prepared["max_workers"]) == (2, 2)  # the boxes beside the head
    for commands in (prepared["head_start_ray_commands"], prepared["worker_start_ray_commands"]):
        for command in commands:
            assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
    for local in config["file_mounts"].values():
        assert (ROOT / local).is_file()


def test_ray_start_knows_the_options_of_the_file():
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed")
    known = {name for option in scripts.start.params for name in option.opts}
    config = yaml.safe_load((FOLDER / "ray.yaml").read_text())
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    used = {word.split("=")[0] for command in commands for word in command.split() if word.startswith("--")}
    assert "--ray-client-server-port" in used
    assert used - known == set()


def test_the_file_of_rented_machines():
    task = yaml.safe_load((FOLDER / "sky.yaml").read_text())
    assert set(task) == {"name", "num_nodes", "workdir", "resources", "envs", "file_mounts", "setup", "run"}
    for part in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=task[part], text=True, check=False).returncode == 0


def test_the_extra_needs_what_a_cluster_needs():
    lines = (ROOT / "requirements-ray.txt").read_text().splitlines()
    [ray] = [Requirement(line) for line in lines if line.startswith("ray")]
    assert {"default", "client"} <= ray.extras  # the dashboard and `ray up`; ray://
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("Ray is not installed")
    assert ray.specifier.contains(version)
