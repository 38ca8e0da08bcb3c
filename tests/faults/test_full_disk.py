"""A disk that is full at each write of a run: one line, the old file as it was, and the same bits in the end."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.colours import experiment_content
from support.refusals import refusal_of

import kit.training.records
from kit import run
from kit.core.errors import NotWritten
from kit.experiment.config import validate

# The writes of `kit run`, in the order in which they come, each by a part of its path.
WRITES = (
    "/experiment.yaml",
    "/folds.csv",
    "/seed0/fold0/run.json",
    "/seed0/fold0/history.jsonl",
    "/seed0/fold0/checkpoint.pt",
    "/seed0/fold0/rates.npz",
    "/seed0/fold0/oof.parquet",
    "/seed0/fold0/test.parquet",
    "/seed0/fold0/weights.safetensors",
    "/seed0/fold1/checkpoint.pt",
    "/seed0/fold1/weights.safetensors",
    "/uniform/oof.parquet",
    "/uniform/test.parquet",
    "/uniform/scores.json",
    "/submissions/tiny.csv",
    "/curves.png",
)


@pytest.fixture
def full_at(monkeypatch) -> Callable[[str | None], None]:
    """Lets the disk be full whenever a file whose path ends so is flushed, or added to."""
    place: str | None = None
    fsync, append = os.fsync, kit.training.records.append_text

    def failing_fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        final = path.parent / path.name.removeprefix(".")
        if place and f"{place}." in str(final):
            os.truncate(path, path.stat().st_size // 2)
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(handle)

    def failing_append(path, text):
        if place and str(path).endswith(place):
            with open(path, "a") as file:  # the worst that can be: half of a line stays
                file.write(text[: len(text) // 2])
            raise NotWritten(f"{path} could not be written: the disk is full")
        append(path, text)

    monkeypatch.setattr(os, "fsync", failing_fsync)
    monkeypatch.setattr(kit.training.records, "append_text", failing_append)

    def set_place(name: str | None) -> None:
        nonlocal place
        place = name

    return set_place


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but run.json, which holds times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_disk_that_is_full_at_one_write_after_the_other(competition, tmp_path, full_at):
    experiment = validate(
        experiment_content(competition, folds={"k": 2}, training={"checkpoint_minutes": 0}), "test"
    )
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "output"
    run(experiment, undisturbed)
    for write in WRITES:
        before = contents(output) if output.is_dir() else {}
        full_at(write)
        line = refusal_of(run, experiment, output)
        assert f"{write} could not be written: the disk is full" in line
        assert "\n" not in line
        after = contents(output)
        name = next((name for name in before if name.endswith(write)), None)
        if name and not write.endswith((".jsonl", "checkpoint.pt")):
            assert after[name] == before[name]  # as it was
        assert not [name for name in after if name.endswith(".tmp") or "/." in name]
    full_at(None)
    run(experiment, output)
    assert contents(output) == contents(undisturbed)


def test_a_run_whose_failure_cannot_be_noted_tells_the_first_error(competition, tmp_path, monkeypatch):
    """The disk is full for all: of the checkpoint's end and of run.json, the checkpoint's is the news."""
    experiment = validate(
        experiment_content(competition, folds={"k": 2}, training={"checkpoint_minutes": 0}), "test"
    )
    fsync = os.fsync
    full = False

    def failing_fsync(handle):
        nonlocal full
        full = full or "checkpoint.pt" in os.readlink(f"/proc/self/fd/{handle}")
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(handle)

    monkeypatch.setattr(os, "fsync", failing_fsync)
    line = refusal_of(run, experiment, tmp_path)
    assert line.startswith("uniform seed 0 fold 0: ")
    assert "checkpoint.pt could not be written: the disk is full; it needs " in line
