"""Tests of kit/core/claims.py: with processes that live and die, and with claims of machines that do not exist."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.foreign_claims import foreign

from kit.core import claims
from kit.core.claims import Claim, claim, dead_claims, holder_of, holding, living_holder
from kit.core.errors import KitError
from kit.core.owner import Owner

CLAIMS = """
import sys, time
from pathlib import Path
from kit.core.claims import claim
made = claim(Path(sys.argv[1]), "works")
print("has" if made else "has not", flush=True)
time.sleep(600)
"""
COUNTS = """
import sys
from pathlib import Path
from kit.core.claims import holding
file = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with holding(file, "counts", tick=0.001):
        file.write_text(str(int(file.read_text()) + 1))
"""


def other(path: Path, code: str = CLAIMS, *arguments: str) -> subprocess.Popen:
    """Start another process on the path."""
    return subprocess.Popen([sys.executable, "-c", code, str(path), *arguments], stdout=subprocess.PIPE, text=True)


class Clock:
    """A monotonic clock that goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(claims.time, "monotonic", lambda: self.now)


@pytest.fixture
def thing(tmp_path: Path) -> Path:
    return tmp_path / "run" / "run.json"


def test_one_process_has_a_claim_until_it_gives_it_up(thing: Path):
    first = claim(thing, "works")
    assert isinstance(first, Claim)
    assert claim(thing, "works too") is None
    holder = holder_of(thing)
    assert holder is not None
    assert (holder.owner, holder.what) == (Owner.mine(), "works")
    first.release()
    assert holder_of(thing) is None
    with claim(thing, "works too"):
        assert holder_of(thing).what == "works too"
    assert os.listdir(thing.parent) == []


def test_two_things_in_one_folder_are_apart(tmp_path: Path):
    with claim(tmp_path / "a.json", ""), claim(tmp_path / "a.json.b", ""):
        assert claim(tmp_path / "a.json", "") is None


def test_a_claim_dies_with_its_process(thing: Path):
    process = other(thing)
    assert process.stdout
    assert process.stdout.readline() == "has\n"
    assert claim(thing, "works") is None
    assert str(holder_of(thing)).startswith(f"process {process.pid} on ")
    assert living_holder(thing).owner.pid == process.pid
    process.kill()
    process.wait()
    assert dead_claims(thing.parent) == [thing.with_name("run.json.1.claim")]
    assert living_holder(thing) is None
    with claim(thing, "works") as mine:
        assert mine.number == 2
        assert os.listdir(thing.parent) == ["run.json.2.claim"]  # what the dead one left is gone


def test_of_several_processes_that_count_no_count_is_lost(tmp_path: Path):
    file = tmp_path / "count"
    file.write_text("0")
    processes = [other(file, COUNTS, "40") for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert file.read_text() == "160"
    assert os.listdir(tmp_path) == ["count"]


def test_a_claim_of_another_machine_is_dead_when_its_heart_does_not_beat(thing: Path, monkeypatch):
    clock = Clock(monkeypatch)
    thing.parent.mkdir()
    file = foreign(thing)
    assert claim(thing, "works") is None
    clock.now += 50
    foreign(thing, beat=1)
    assert claim(thing, "works") is None
    clock.now += 59  # of the whole 109 s, but it has beaten meanwhile
    assert claim(thing, "works") is None
    assert living_holder(thing).owner.host == "elsewhere"
    clock.now += 2
    mine = claim(thing, "works")
    assert mine is not None
    assert mine.number == 2
    assert not file.exists()
    mine.release()


def test_clocks_of_files_do_not_matter(thing: Path, monkeypatch):
    clock = Clock(monkeypatch)
    thing.parent.mkdir()
    for age in (-(10**9), 10**9):
        file = foreign(thing)
        os.utime(file, (2 * 10**9 + age,) * 2)
        assert claim(thing, "works") is None
        clock.now += 30
        assert claim(thing, "works") is None
        file.unlink()
        assert holder_of(thing) is None


def test_who_was_taken_for_dead_finds_out_and_stands_in_nobodys_way(thing: Path):
    with claim(thing, "works") as mine:
        mine.need()
        foreign(thing, 2)
        mine.beat()
        assert os.listdir(thing.parent) == ["run.json.2.claim"]
        with pytest.raises(KitError, match=r"taken for dead.*by process 7 on elsewhere \(works"):
            mine.need()
    assert os.listdir(thing.parent) == ["run.json.2.claim"]


def test_a_new_claim_of_the_same_number_is_another(thing: Path):
    """Taken over, given up, and begun anew by a third, while its owner slept."""
    with claim(thing, "works") as mine:
        before = foreign(thing, 1).read_bytes()
        mine.beat()
        with pytest.raises(KitError, match="taken for dead"):
            mine.need()
    assert mine.file.read_bytes() == before


def test_who_takes_over_and_dies_does_not_free_what_a_living_process_holds(thing: Path, monkeypatch):
    clock = Clock(monkeypatch)
    with claim(thing, "works"):
        foreign(thing, 2)
        assert claim(thing, "too") is None
        clock.now += 61  # the second is dead, the first lives
        assert holder_of(thing).owner == Owner.mine()
        assert claim(thing, "too") is None
    with claim(thing, "too") as mine:
        assert mine.number == 3


def test_what_cannot_be_read_is_not_taken_for_gone(thing: Path, monkeypatch):
    clock = Clock(monkeypatch)
    thing.parent.mkdir()
    file = foreign(thing)
    read = Path.read_bytes

    def stale(path: Path) -> bytes:
        if path == file:
            raise OSError(116, "Stale file handle")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert claim(thing, "works") is None
    assert dead_claims(thing.parent) == []
    clock.now += 61
    assert dead_claims(thing.parent) == [file]


def test_a_beat_changes_the_claim_and_nothing_else(thing: Path):
    with claim(thing, "works") as mine:
        before = json.loads(mine.file.read_text())
        mine.beat()
        assert json.loads(mine.file.read_text()) == before | {"beat": 1}
        assert os.listdir(thing.parent) == ["run.json.1.claim"]


def test_hearts_beat_by_themselves(thing: Path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.01)
    monkeypatch.setattr(claims, "_beating", claims._Beating())
    beaten = threading.Event()
    beat = Claim.beat
    monkeypatch.setattr(Claim, "beat", lambda self: (beat(self), beaten.set()))
    with claim(thing, "works"):
        assert beaten.wait(60)


def test_a_beat_does_not_bring_back_what_is_given_up_meanwhile(thing: Path, monkeypatch):
    mine, replace = claim(thing, "works"), os.replace
    giving_up = threading.Thread(target=mine.release)

    def late(draft: Path, file: Path) -> None:
        giving_up.start()
        giving_up.join(0.1)
        replace(draft, file)

    monkeypatch.setattr(claims.os, "replace", late)
    mine.beat()
    giving_up.join()
    assert os.listdir(thing.parent) == []
    mine.beat()
    assert os.listdir(thing.parent) == []


def test_a_fork_neither_beats_nor_gives_up(thing: Path):
    with claim(thing, "works") as mine:
        if not (child := os.fork()):
            mine.beat()
            mine.release()
            os._exit(claim(thing, "works") is not None)
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(mine.file.read_text())["beat"] == 0


def test_a_claim_that_is_just_being_written_counts(thing: Path, monkeypatch):
    clock = Clock(monkeypatch)
    thing.parent.mkdir()
    thing.with_name("run.json.1.claim").write_bytes(b"")
    assert claim(thing, "works") is None
    assert str(holder_of(thing)) == "a process (at work)"
    clock.now += 61
    with claim(thing, "works") as mine:
        assert mine.number == 2


def test_where_files_cannot_be_linked_it_is_created_exclusively(thing: Path, monkeypatch):
    def refuse(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(claims.os, "link", refuse)
    with claim(thing, "works"):
        assert claim(thing, "works") is None
        assert holder_of(thing).owner == Owner.mine()
    with claim(thing, "works"):
        pass
    assert os.listdir(thing.parent) == []


def test_who_waits_says_for_whom_and_goes_on(thing: Path, monkeypatch):
    monkeypatch.setattr(claims, "LINE_AFTER", 0.0)
    process, said = other(thing), []

    def say(line: str) -> None:
        said.append(line)
        process.kill()
        process.wait()

    assert process.stdout
    assert process.stdout.readline() == "has\n"
    with holding(thing, "works", say, tick=0.01):
        assert holder_of(thing).owner == Owner.mine()
    assert len(said) == 1
    assert said[0].startswith(f"waits for process {process.pid} on ")
    assert "(works, since 2" in said[0]


def test_a_thread_does_not_wait_for_itself(thing: Path):
    with holding(thing, "works"), pytest.raises(RuntimeError, match="twice"), holding(thing, "works"):
        pass
