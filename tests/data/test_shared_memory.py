"""How many workers shared memory has room for."""

import os
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.data import shared_memory
from kit.data.shared_memory import free_shared_memory, workers_that_fit
from kit.data.workers import Workers

MB = 10**6
quick = settings(deadline=None, derandomize=True, max_examples=100)


@quick
@given(st.integers(0, 64), st.integers(1, 10**8), st.integers(0, 10**10))
def test_batches_in_flight_fit_and_no_more_workers_would(wanted, batch, free):
    workers, ahead = workers_that_fit(wanted, batch, free)
    usable = int(0.9 * free)
    assert 0 <= workers <= wanted
    if workers:
        assert 2 <= ahead <= 4
        assert (workers * ahead + 2) * batch <= usable
    if workers < wanted:
        assert ((workers + 1) * 2 + 2) * batch > usable


@pytest.mark.parametrize(
    ("wanted", "free", "expected"),
    [
        (8, None, (8, 4)),  # nothing limits it
        (8, 2000 * MB, (8, 4)),
        (8, 64 * 2**20, (2, 2)),  # Docker's default: 60 MB usable are 6 batches of 9.6 MB, two of them in use
        (8, MB, (0, 0)),
        (8, 0, (0, 0)),
        (0, 0, (0, 0)),
        (0, None, (0, 0)),
    ],
)
def test_workers_of_usual_batches(wanted, free, expected):
    assert workers_that_fit(wanted, 64 * 224 * 224 * 3, free) == expected


def test_the_memory_is_what_the_file_system_says_is_free_for_this_user(monkeypatch):
    monkeypatch.setattr(shared_memory.sys, "platform", "linux")
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=5, f_bfree=9, f_frsize=4096))
    assert free_shared_memory() == 5 * 4096


def test_without_the_place_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory.sys, "platform", "linux")
    monkeypatch.setattr(shared_memory, "PLACE", tmp_path / "none")
    assert free_shared_memory() == 0
    monkeypatch.setattr(shared_memory.sys, "platform", "darwin")
    assert free_shared_memory() is None


def test_fewer_workers_are_said_and_processes_share_the_room(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("kit.data.workers.free_shared_memory", lambda: 64 * MB)
    workers = Workers(8, say=said.append)
    fitting = workers.fitting(10 * MB)
    assert (fitting.count, fitting.ahead) == (1, 3)
    assert said == [
        "/dev/shm has 64 MB free, and the batches of 8 data workers take up to 340 MB; goes on with 1 (docker run "
        "--shm-size=2g makes more, or lower data.workers)"
    ]
    assert Workers(8, processes=2).fitting(10 * MB).count == 0
    assert Workers(8, say=said.append).fitting(MB // 10).count == 8
    assert len(said) == 1
