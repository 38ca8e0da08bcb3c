"""The log of submissions is written by one process at a time, and is known to be whole."""

import csv
import os
import subprocess
import sys
import threading
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_kaggle import Outcome
from support.refusals import refusal_of

import kit
from kit.core import claims
from kit.core.claims import claim
from kit.core.errors import KitError
from kit.core.paths import OutputDirs
from kit.kaggle import submission_log, submit
from kit.kaggle.client import Kaggle
from kit.kaggle.submission_log import LogEntry, read_log, write_entry

WRITES = """
import sys
from pathlib import Path
from kit.core.paths import OutputDirs
from kit.kaggle.submission_log import LogEntry, write_entry
name, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    entry = LogEntry("2026-11-20T10:00:00+00:00", "colours", f"{name}{number}.csv", name)
    write_entry(entry, OutputDirs(Path(sys.argv[3])))
"""
LOG, STAMP = Path("submissions/log.csv"), Path("submissions/log.csv.sha256")


def entry(number: int, **changes: str) -> LogEntry:
    stated = {"ref": str(number), "status": "COMPLETE", "public": f"0.{number}", "message": 'words, "quoted"'}
    return LogEntry("2026-11-20T10:00:00+00:00", "colours", f"tiny{number}.csv", str(number), **stated | changes)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


quick = settings(
    deadline=None, max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def whole(dirs) -> tuple[bytes, bytes]:
    """The log and its digest."""
    return LOG.read_bytes(), STAMP.read_bytes()


@pytest.fixture
def dirs() -> OutputDirs:
    for number in (1, 2, 3):
        write_entry(entry(number), OutputDirs(), say=pytest.fail)
    return OutputDirs()


def test_two_processes_that_write_a_hundred_rows_each_leave_two_hundred(tmp_path):
    call, home = [sys.executable, "-c", WRITES], Path(kit.__file__).parents[1]
    processes = [subprocess.Popen([*call, name, "100", str(tmp_path)], cwd=home) for name in "ab"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    with open(LOG, newline="") as file:
        files = [row["file"] for row in csv.DictReader(file)]
    for name in "ab":
        assert [file for file in files if file[0] == name] == [f"{name}{number}.csv" for number in range(100)]
    assert len(files) == 200
    assert sorted(os.listdir("submissions")) == ["log.csv", "log.csv.sha256"]
    assert len(read_log(OutputDirs(), pytest.fail)) == 200


def test_who_waits_says_for_whom(dirs, monkeypatch):
    monkeypatch.setattr(claims, "LINE_AFTER", 0.0)
    held, heard, said = threading.Event(), threading.Event(), []

    def hold() -> None:
        with claim(LOG, "writes the log of submissions"):
            held.set()
            heard.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    write_entry(entry(4), dirs, say=lambda line: (said.append(line), heard.set()))
    thread.join()
    assert [line.startswith(f"waits for process {os.getpid()} on ") for line in said] == [True]
    assert [row.ref for row in read_log(dirs)] == ["1", "2", "3", "4"]


def test_a_row_that_another_process_changed_is_not_written_twice(dirs):
    unknown = entry(4, ref="", status="UNKNOWN", public="")
    write_entry(unknown, dirs)
    for end in (replace(unknown, status="REFUSED"), replace(unknown, status="REFUSED")):
        write_entry(end, dirs, unknown)
    assert [row.status for row in read_log(dirs)[3:]] == ["REFUSED"]
    found = replace(unknown, ref="9", status="PENDING")
    write_entry(found, dirs, unknown)
    write_entry(replace(found, status="COMPLETE"), dirs, unknown)
    assert [(row.ref, row.status) for row in read_log(dirs)[3:]] == [("9", "COMPLETE")]


def test_what_refuses_a_row_sees_those_of_others(dirs):
    def refuse(rows: list[LogEntry]) -> None:
        raise KitError(f"{len(rows)} rows")

    before = LOG.read_bytes()
    assert refusal_of(partial(write_entry, entry(4), dirs, check=refuse)) == "3 rows"
    assert LOG.read_bytes() == before


# Known to be whole


def test_the_digest_is_that_of_sha256sum(dirs):
    first, *_ = STAMP.read_text().splitlines()
    expected = subprocess.run(["sha256sum", LOG], capture_output=True, text=True, check=True).stdout.split()[0]
    assert first == f"{expected}  3 rows"


def test_a_log_that_was_edited_is_told_once_and_taken_as_it_is(dirs):
    LOG.write_text(LOG.read_text().replace("0.2", "0.9"))
    said: list[str] = []
    assert read_log(dirs, said.append)[1].public == "0.9"
    assert said == [
        "submissions/log.csv was changed since the kit wrote it (3 rows then, 3 now), and is taken as it is now; "
        "where that was not you, bring it back from a copy"
    ]
    assert read_log(dirs, pytest.fail)[1].public == "0.9"
    LOG.write_text("".join(LOG.read_text().splitlines(keepends=True)[:-1]))
    write_entry(entry(5), dirs, say=said.append)
    assert "(3 rows then, 2 now)" in said[1]
    assert [row.ref for row in read_log(dirs, pytest.fail)] == ["1", "2", "5"]


def test_a_log_that_is_gone_is_told_once(dirs):
    LOG.unlink()
    said: list[str] = []
    assert read_log(dirs, said.append) == []
    assert said == [
        "submissions/log.csv is gone (3 rows when the kit wrote it), and a new one begins; where that was not "
        "you, bring it back from a copy"
    ]
    assert read_log(dirs, pytest.fail) == []


def test_a_log_of_an_earlier_version_is_read_without_a_word(dirs):
    STAMP.unlink()
    assert len(read_log(dirs, pytest.fail)) == 3


def test_what_excel_saves_is_a_log(dirs):
    LOG.write_bytes(b"\xef\xbb\xbf" + LOG.read_bytes().replace(b"\n", b"\r\n"))
    assert read_log(dirs, lambda line: None) == [entry(number) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: bytes(len(content)), "it holds zeros"),
        (lambda content: content[: content.rindex(b"0.3")], "line 4 has 10 cells, and its head 12"),
        (lambda content: content[:-1], "its last line has no end"),
        (lambda content: content[:-4], "unexpected end of data"),
        (lambda content: content.replace(b"0.2", b"0,2"), "line 3 has 13 cells, and its head 12"),
        (lambda content: content.replace(b"words", b"w\xffrds"), "'utf-8' codec can't decode byte 0xff"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_log_that_is_damaged_is_an_error_until_it_is_mended(dirs, spoil, reason, known):
    whole = LOG.read_bytes()
    LOG.write_bytes(spoil(whole))
    if not known:
        STAMP.unlink()
    for _ in range(2):
        for call in (read_log, lambda dirs: write_entry(entry(4), dirs)):
            told = refusal_of(call, dirs)
            assert told.startswith(f"submissions/log.csv is damaged ({reason}")
            assert told.endswith("); mend it, bring it back from a copy, or move it away to begin a new one")
    assert LOG.read_bytes() == spoil(whole)
    LOG.write_bytes(whole)
    assert len(read_log(dirs, pytest.fail)) == 3


@quick
@given(place=st.integers(0, 10**6), bit=st.none() | st.integers(0, 7))
def test_whatever_is_cut_or_flipped_is_told(dirs, whole, place, bit):
    log, stamp = whole
    content = bytearray(log)
    place %= len(log)
    if bit is None:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    LOG.write_bytes(content)
    STAMP.write_bytes(stamp)
    said: list[str] = []
    try:
        read_log(dirs, said.append)
    except KitError as error:
        said.append(str(error))
    assert len(said) == 1


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_write_that_is_interrupted_leaves_a_log_that_is_known(dirs, monkeypatch, at):
    """Before a digest is there, before the log is, and before the digest of it alone is there."""
    calls = []

    def interrupted(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == at:
            raise KeyboardInterrupt
        os.replace(source, target)
        return Path(target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_entry(entry(4), dirs)
    assert [row.ref for row in read_log(dirs, pytest.fail)] == ["1", "2", "3", "4"][: 3 + (at > 2)]


def test_a_log_that_is_being_written_is_not_taken_for_changed(dirs, monkeypatch):
    """Between the reading of log and digest, others write two rows."""
    known = submission_log._is_known
    once = iter([True])

    def late(path: Path, content: bytes | None) -> bool:
        if next(once, False):
            for number in (4, 5):
                write_entry(entry(number), dirs)
        return known(path, content)

    monkeypatch.setattr(submission_log, "_is_known", late)
    assert [row.ref for row in read_log(dirs, pytest.fail)] == ["1", "2", "3", "4", "5"]


# Two who submit the same


def test_of_two_processes_that_submit_the_same_one_is_refused(server, monkeypatch):
    """The other begins while this one asks how many submissions are left."""
    colours = server.add_competition("colours", b"")
    server.script_submission("colours", Outcome(public_score=0.5))
    dirs, mine = OutputDirs(), entry(7, ref="", status="", public="")
    other = replace(mine, time="2026-11-20T10:00:01+00:00", status="UNKNOWN")
    left = Kaggle.submissions_left
    monkeypatch.setattr(Kaggle, "submissions_left", lambda *given: (write_entry(other, dirs), left(*given))[1])
    hand_in = partial(submit._hand_in, again=False, say=lambda line: None, pause=pytest.fail)
    told = refusal_of(hand_in, mine, dirs, Kaggle(), pytest.fail)
    assert told.startswith("tiny7.csv may have been submitted on 2026-11-20T10:00:01+00:00 as tiny7.csv; --again")
    assert colours.submissions == []
    assert [astuple(row) for row in read_log(dirs)] == [astuple(other)]
