"""Folders that are not as usual: data that cannot be written, no home, no place for temporary files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.colours import write_competition
from support.commands import ROOT, config_file


def kit(*words: str | Path, **variables: str) -> subprocess.CompletedProcess:
    keep = {name: value for name, value in os.environ.items() if name not in ("HOME", "TMPDIR", "MPLCONFIGDIR")}
    keep = {name: value for name, value in keep.items() if not name.startswith(("XDG_", "HF_HOME", "TORCH_HOME"))}
    command = [sys.executable, "-m", "kit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=keep | variables)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_run_without_a_home_says_nothing_of_it(tmp_path):
    """Pictures, models, augmentations: no library of them gets to talk."""
    folder = write_competition(tmp_path / "colours", rows=18, test_rows=3)
    before = listing(folder)  # below /dev/null not even root can write
    sections = {
        "folds": {"k": 2},
        "training": {"epochs": 1},
        "policies": {"uniform": {"lr": 1e-6, "groups": "stage"}},
    }
    config = config_file(folder, tmp_path / "tiny.yaml", **sections)
    made = kit("run", config, "--output", tmp_path / "out", HOME="/dev/null/me", TMPDIR="/dev/null/tmp")
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "out" / "runs" / "tiny" / "curves.png").is_file()
    assert "matplotlib" not in made.stdout.lower()
    assert listing(folder) == before


def test_a_path_with_a_tilde_and_no_home_to_put_there():
    code = (
        "import pwd, sys, runpy\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"  # as in a container that runs under a number of its own
        "sys.argv = ['kit', 'init', '~/colours']\n"
        "runpy.run_module('kit', run_name='__main__')\n"
    )
    variables = {name: value for name, value in os.environ.items() if name != "HOME"}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=variables)
    assert made.returncode == 1
    assert made.stderr == "error: ~ stands for your home, which this system does not tell: set HOME\n"


@pytest.mark.slow
def test_commands_on_a_read_only_data_folder(tmp_path):
    folder = write_competition(tmp_path / "colours")
    trial = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", trial], capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    sections = {"folds": {"k": 2}, "training": {"epochs": 1}}
    config = config_file(folder, tmp_path / "tiny.yaml", **sections)
    kit_ = f"{sys.executable} -m kit"
    output = f"--output {tmp_path}/out"
    steps = [
        trial,
        f"! touch {folder}/x 2>/dev/null",
        f"{kit_} init {folder} -o {tmp_path}/first.yaml",
        f"{kit_} audit {config} {output}",
        f"{kit_} run {config} {output}",
        f"{kit_} report {tmp_path}/out/runs/tiny",
        f"{kit_} kernel build {config} --kind train {output} --set competition.slug=colours",
        f"! {kit_} run {config} --output {folder}",
    ]
    made = subprocess.run(
        ["unshare", "-rm", "sh", "-ec", "\n".join(steps)], capture_output=True, text=True, cwd=ROOT, env=os.environ
    )
    assert made.returncode == 0, made.stderr
    assert made.stderr == (
        f"error: {folder}/runs cannot be written (Read-only file system); give --output DIR that can\n"
    )
