"""Outputs that fail: a full disk behind stdout, a reader that has gone, none at all; and ends of files."""

import errno
import os
import subprocess
import sys

import pytest
from support.commands import ROOT, kit_here

KIT = (sys.executable, "-m", "kit")
FULL = (
    "error: what is printed, or a temporary file, could not be written: the disk is full; make room, and give the "
    "command again"
)


def shell(command: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", "-c", command, "bash", *KIT], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("words", ["policies", "policies --json"])
def test_stdout_on_a_full_disk(words):
    made = shell(f'"$@" {words} > /dev/full')
    assert made.returncode == 1
    assert made.stderr.splitlines()[-1] == FULL
    assert "Traceback" not in made.stderr
    assert "Exception ignored" not in made.stderr


def test_a_reader_that_has_gone_hears_nothing():
    made = shell('"$@" policies | true; exit ${PIPESTATUS[0]}')
    assert (made.returncode, made.stderr) == (1, "")


@pytest.mark.parametrize("words", ["policies", "policies --json"])
def test_no_stdout_at_all(words):
    made = shell(f'"$@" {words} >&-')
    assert made.returncode == 0
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("encoder error -2"), "encoder error -2"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"),
            "a.png: No such file or directory",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "a", None, "b"),
            "b could not be written: the disk is full; make room, and the same command goes on from what is there",
        ),
        (
            RuntimeError("x\nunable to write to file </torch_1>: No space left on device (28)\n"),
            "a file could not be written: the disk is full (unable to write to file </torch_1>: No space left on "
            "device (28)); make room, and the same command goes on from what is there",
        ),
        (
            RuntimeError("Could not determine home directory."),
            "~ stands for your home, which this system does not tell: set HOME",
        ),
    ],
)
def test_every_oserror_is_a_line(monkeypatch, capsys, error, line, as_json):
    def fail():
        raise error

    monkeypatch.setattr("kit.cli.doctor.doctor", lambda *_: fail())
    code, out, err = kit_here(monkeypatch, capsys, "doctor", *(["--json"] if as_json else []))
    assert code == 1
    assert err == f"error: {line}\n"
    if as_json and isinstance(error, OSError):
        assert out == f'{{"error": "{line}"}}\n'


def test_an_end_of_file_is_no_ctrl_d(monkeypatch, capsys, tmp_path):
    import numpy as np

    (tmp_path / "empty.npy").touch()
    monkeypatch.setattr("kit.cli.doctor.doctor", lambda *_: np.load(tmp_path / "empty.npy"))
    code, out, err = kit_here(monkeypatch, capsys, "doctor")
    assert (code, out) == (1, "")
    assert err.startswith(
        "error: a file that was read, or what another process sent, is cut short: No data left in file"
    )
    assert err.count("\n") == 1


def test_a_fault_of_the_kits_own_keeps_its_traceback(monkeypatch):
    from kit.cli.main import main

    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("kit.cli.doctor.doctor", fail)
    monkeypatch.setattr(sys, "argv", ["kit", "doctor"])
    with pytest.raises(RuntimeError, match="a bug"):
        main()


def test_an_output_that_cannot_be_written_is_a_line(tmp_path):
    (tmp_path / "file").touch()
    words = ["init", str(tmp_path), "-o", str(tmp_path / "file" / "a.yaml")]
    made = subprocess.run([*KIT, *words], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert made.returncode == 1
    assert made.stderr.count("\n") == 1
    assert "cannot be written (a part of its path is a file, not a folder)" in made.stderr
