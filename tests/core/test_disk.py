"""A file that cannot be written is told in one line, whichever library writes it; what was there stays."""

import errno
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.refusals import refusal_of

from kit.core import disk
from kit.core.disk import in_bytes, number_of, writing
from kit.core.errors import Damaged, KitError, NotWritten
from kit.core.files import append_text, atomic, whole_folder, write_bytes, write_json

ROOT = Path(__file__).parents[2]

# Writes a file of a megabyte with each library that the kit writes with, where no file may have more than 50 kB.
WRITERS = """
import os, resource, sys, zipfile
from pathlib import Path
import numpy as np, pandas as pd, torch
from safetensors.torch import save_file
from kit.core.errors import NotWritten
from kit.core.files import append_text, atomic, whole_folder, write_text
from kit.core.plotting import new_figure, save

folder, values = Path(sys.argv[1]), np.random.default_rng(0).random(150_000)

def picture():
    figure = new_figure(9, 9)
    figure.subplots().imshow(np.random.default_rng(0).random((400, 400)))
    save(figure, folder / "picture.png")

def to(name, write):
    def make():
        with atomic(folder / name) as temporary:
            write(temporary)
    return make

def opened(write, mode="wb"):
    def make(path):
        with open(path, mode) as file:
            write(file)
    return make

def archive(path):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a", values.tobytes())

def unpacked():
    with whole_folder(folder / "unpacked") as draft:
        (draft / "a").write_bytes(values.tobytes())

tensors = {"a": torch.from_numpy(values)}
makers = {
    "text": to("text", lambda path: path.write_text("x" * 100_000)),
    "savez": to("savez.npz", opened(lambda file: np.savez(file, a=values))),
    "compressed": to("compressed.npz", opened(lambda file: np.savez_compressed(file, a=values))),
    "npy": to("npy.npy", lambda path: np.save(path, values)),
    "torch": to("torch.pt", lambda path: torch.save(tensors, path)),
    "torch-file": to("torch-file.pt", opened(lambda file: torch.save(tensors, file))),
    "safetensors": to("safetensors.st", lambda path: save_file(tensors, path)),
    "parquet": to("parquet.parquet", lambda path: pd.DataFrame({"a": values}).to_parquet(path)),
    "csv": to("csv.csv", lambda path: pd.DataFrame({"a": values}).to_csv(path)),
    "zip": to("zip.zip", archive),
    "picture": picture,
    "unpacked": unpacked,
    "appended": lambda: append_text(folder / "appended", "y" * 60_000),
}
for name in makers:
    (folder / "before").mkdir(exist_ok=True)
(folder / "appended").write_text("old")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for name, make in makers.items():
    try:
        make()
        print(name, "written")
    except NotWritten as error:
        print(name, str(error).replace(str(folder) + os.sep, ""), sep="|")
"""


def test_every_library_that_meets_the_end_of_the_disk_is_understood(tmp_path):
    made = subprocess.run([sys.executable, "-c", WRITERS, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    told = dict(line.split("|") for line in made.stdout.splitlines())
    limit = "the file grows larger than the system allows (see `ulimit -f`); raise that limit, and "
    assert len(told) == 13
    for name, line in told.items():
        file = line.split()[0]
        assert file.partition(".")[0] == name
        if name in ("npy", "torch"):  # they do not tell why
            assert f"{file} could not be written: not all bytes could be written (" in line
        else:
            assert line == f"{file} could not be written: {limit}the same command goes on from what is there"
    assert sorted(os.listdir(tmp_path)) == ["appended", "before"]  # nothing half, nothing temporary
    assert (tmp_path / "appended").read_text() == "old"  # not 50,000 bytes of the line


def full(path, *_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_says_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: disk.shutil._ntuple_diskusage(10**9, 0, 3_000))
    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "a.bin").write_bytes(b"old")
    end = "make room, and the same command goes on from what is there"
    line = refusal_of(write_bytes, tmp_path / "a.bin", bytes(12_345))
    # What is free counts the bytes of the temporary file, which is gone when the user reads this.
    needed = "it needs 12.3 kB, and 15.3 kB are free"
    assert line == f"{tmp_path / 'a.bin'} could not be written: the disk is full; {needed}; {end}"

    def unknown():
        with atomic(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(bytes(2_000))

    assert f"it needs more than 2.0 kB, and 5.0 kB are free; {end}" in refusal_of(unknown)
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_disk_without_inodes(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_free", lambda folder: (10**9, 0))
    monkeypatch.setattr(os, "fsync", full)
    assert refusal_of(write_json, tmp_path / "a", 1) == (
        f"{tmp_path / 'a'} could not be written: the disk is full (all its inodes are used up: no further file "
        "fits); make room, and the same command goes on from what is there"
    )


@pytest.mark.parametrize(
    ("number", "reason", "mend"),
    [
        (errno.EROFS, "it lies on a disk that is read-only", "name a folder that can be written"),
        (errno.EDQUOT, "your share of the disk (its quota) is used up", "make room"),
        (errno.EIO, "the disk itself fails (input/output error)", "copy what is there to a sound disk"),
    ],
)
def test_other_reasons(tmp_path, monkeypatch, number, reason, mend):
    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    line = refusal_of(write_bytes, tmp_path / "a", b"new")
    assert line.startswith(f"{tmp_path / 'a'} could not be written: {reason}")
    assert mend in line


def test_places_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    within = tmp_path / "file" / "a" / "b.json"
    assert refusal_of(write_json, within, 1).startswith(
        f"{within} could not be written: a part of its path is a file"
    )
    beside = tmp_path / "file" / "b.json"
    assert "could not be written: a part of its path is a file" in refusal_of(write_json, beside, 1)
    long = tmp_path / ("x" * 300)
    assert "its name is longer than the file system allows; give the experiment" in refusal_of(write_json, long, 1)
    (tmp_path / "folder").mkdir()
    assert refusal_of(write_json, tmp_path / "folder", 1).startswith(
        f"{tmp_path / 'folder'} could not be written: Is a"
    )
    assert "could not be written" in refusal_of(append_text, tmp_path / "folder", "a")


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such column"),
        FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/input.csv"),
        PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.csv"),
        ConnectionError("the connection broke"),
        Damaged("a.npz is damaged"),
        RuntimeError("unexpected end of data"),
    ],
)
def test_errors_of_another_kind_pass_as_they_are(tmp_path, error, folder):
    def fail():
        with (whole_folder if folder else atomic)(tmp_path / "a"):
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error


def test_an_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(NotWritten("a could not be written")))
    assert isinstance(error, KitError)
    assert str(error) == "a could not be written"


def test_the_number_is_found_in_texts_and_in_causes():
    class SafetensorError(Exception): ...

    assert number_of(SafetensorError("I/O error: No space left on device (os error 28)")) == errno.ENOSPC
    assert number_of(RuntimeError("open file failed because of errno 30 on fopen: x")) == errno.EROFS
    assert number_of(RuntimeError("unable to write to file </torch_1>: Disk quota exceeded (122)")) == errno.EDQUOT
    error = RuntimeError("unexpected pos 576 vs 534")
    error.__context__ = OSError(errno.EFBIG, "File too large")
    assert number_of(error) == errno.EFBIG
    for other in (ValueError("28"), OSError(errno.ENOENT, "x"), OSError("x"), None):
        assert number_of(other) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5e12, "5000.0 GB")],
)
def test_sizes_for_people(size, text):
    assert in_bytes(size) == text


def test_a_short_write_is_gone_on_with(tmp_path, monkeypatch):
    """What a system may do with any write: take a part of it."""
    import io

    class Slow(io.FileIO):
        def write(self, content):
            return super().write(bytes(content[:3]))

    monkeypatch.setattr("builtins.open", lambda path, mode, buffering: Slow(path, mode))
    append_text(tmp_path / "a", "0123456789\n")
    append_text(tmp_path / "a", "zweite Zeile: ä\n")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text(encoding="utf-8") == "0123456789\nzweite Zeile: ä\n"


def namespaces() -> bool:
    trial = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=4k none /mnt"]
    try:
        return subprocess.run(trial, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not namespaces(), reason="needs user namespaces")
def test_a_disk_that_is_really_full(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path; from kit.core.errors import NotWritten\n"
        "from kit.core.files import append_text, atomic, write_bytes\n"
        "folder = Path(sys.argv[1])\n"
        "write_bytes(folder / 'a', b'x' * 4096); append_text(folder / 'log', 'first\\n')\n"
        "def failing(call, *arguments):\n"
        "    try: call(*arguments)\n"
        "    except NotWritten as error: print(error)\n"
        "def npy():\n"
        "    with atomic(folder / 'c.npy') as temporary: np.save(temporary, np.zeros(10_000))\n"
        "failing(write_bytes, folder / 'a', bytes(100_000)); failing(append_text, folder / 'log', 'y' * 100_000)\n"
        "failing(npy); print(len((folder / 'a').read_bytes()), (folder / 'log').read_text())\n"
    )
    shell = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", shell, "sh", sys.executable, "-c", code, str(tmp_path)]
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    first, second, third, last = made.stdout.strip().splitlines()
    free = r"\d+\.\d kB are free; make room, and the same command goes on from what is there"
    assert re.fullmatch(
        rf"{tmp_path}/a could not be written: the disk is full; it needs 100.0 kB, and {free}", first
    )
    assert re.fullmatch(
        rf"{tmp_path}/log could not be written: the disk is full; it needs 100.0 kB, and {free}", second
    )
    assert re.fullmatch(
        rf"{tmp_path}/c.npy could not be written: the disk is full; it needs more than .*{free}", third
    )
    assert last == "4096 first"


def test_nothing_is_told_where_nothing_is_wrong(tmp_path):
    with writing(tmp_path / "a"):
        pass
