"""NVIDIA's MPS, by a stand-in of its control program."""

import os

import pytest

from kit.experiment import mps
from kit.experiment.mps import sharing_gpus

CONTROL = """#!/bin/sh
echo "$@ $(if [ "$1" != -d ]; then cat; fi) $CUDA_MPS_PIPE_DIRECTORY" >> {log}
{fault}
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Puts a control program on PATH, which notes how it is called; `fault` ends it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setattr(mps, "USUAL", tmp_path / "usual")
    log = tmp_path / "log"

    def install(fault=""):
        file = tmp_path / mps.CONTROL
        file.write_text(CONTROL.format(log=log, fault=fault))
        file.chmod(0o755)
        return log

    return install


def test_it_is_started_with_folders_of_its_own_and_ended(control):
    log, said = control(), []
    with pytest.raises(ZeroDivisionError), sharing_gpus(said.append):  # noqa: PT012
        folder = os.environ[mps.PIPES]
        assert os.environ[mps.LOGS] == folder
        assert os.path.isdir(folder)
        raise ZeroDivisionError
    assert log.read_text().splitlines() == [f"-d  {folder}", f" quit {folder}"]
    assert mps.PIPES not in os.environ
    assert not os.path.exists(folder)
    assert said == ["processes share a GPU through NVIDIA's MPS, which is started for that and ended afterwards"]


def test_one_that_runs_is_used_and_left_running(control, tmp_path):
    log, said = control(), []
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual/control").touch()
    with sharing_gpus(said.append):
        assert mps.PIPES not in os.environ
    assert not log.exists()
    assert said == ["processes share a GPU through NVIDIA's MPS, which runs already"]


def test_where_it_does_not_begin_that_is_told(control, monkeypatch):
    log, said = control("echo 'no GPU' >&2; exit 3"), []
    monkeypatch.setenv(mps.PIPES, "/mine")
    with sharing_gpus(said.append):
        assert mps.PIPES not in os.environ  # what is not there would be looked for
    assert os.environ[mps.PIPES] == "/mine"
    assert len(log.read_text().splitlines()) == 1
    assert said == ["NVIDIA's MPS does not begin (no GPU): processes that share a GPU compute in turns"]


def test_without_it_processes_compute_in_turns(monkeypatch):
    monkeypatch.setattr(mps, "CONTROL", "not-installed-anywhere")
    said = []
    with sharing_gpus(said.append):
        pass
    assert said == ["not-installed-anywhere is not on PATH: processes that share a GPU compute in turns"]
