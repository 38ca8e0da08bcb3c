"""Tests of kit/core/litter.py: what killed processes leave goes, what others do or may need stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit.core import files
from kit.core.claims import claim, holder_of
from kit.core.files import atomic, whole_folder, write_text
from kit.core.litter import litter_in, remove_litter, sweep
from kit.core.owner import Owner

WRITES = """
import os, signal, sys
from pathlib import Path
from kit.core import files
from kit.core.claims import claim
from kit.core.owner import Owner
folder = Path(sys.argv[1])
with files.atomic(folder / "run.json") as temporary:
    temporary.write_text("half")
    with files.atomic(folder / "none") as other, files.whole_folder(folder / "fold0") as draft:
        (draft / "weights").write_text("half")
        (folder / f"part-0123456789abcdef-{Owner.mine().tag}.npy").write_text("half")
        claim(folder / "thing", "works")
        print(Owner.mine().tag, flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "uniform/seed0").mkdir(parents=True)
    return tmp_path / "uniform/seed0"


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_owner() -> Owner:
    """A process of this machine that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Owner(Owner.mine().place, process.pid, 7)


def test_what_a_killed_process_left_is_removed_and_not_while_it_lives(folder, tmp_path):
    (folder / "run.json").write_text("old")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    tag = process.stdout.readline().strip()
    before = everything(folder)
    assert len(before) == 6
    assert sum(tag in name for name in before) == 4
    assert {(each.owner.pid, each.alive) for each in litter_in(tmp_path)} == {(process.pid, True)}
    assert remove_litter(tmp_path) == []
    assert everything(folder) == before
    process.communicate("\n")
    said: list[str] = []
    sweep([tmp_path, tmp_path / "not there"], said.append)
    assert said == ["removed 5 temporary files of processes that were killed"]
    assert everything(folder) == ["run.json"]
    assert (folder / "run.json").read_text() == "old"
    sweep([tmp_path], pytest.fail)


def test_what_is_not_temporary_or_of_others_stays(folder):
    dead, elsewhere = dead_owner().tag, Owner("0" * 16, 7, 7).tag
    for name in [
        f".run.json.{elsewhere}.abcdefgh.tmp.json",
        f"part-0123456789abcdef-{elsewhere}.npy",
        f".run.json.{Owner.mine().tag}.abcdefgh.tmp.json",
        f"part-0123456789abcdef-{Owner.mine().tag}.npy",
        f"run.json.{dead}.abcdefgh.tmp.json",
        f".run.json.{dead}.json",
        f"part-{dead}.npy",
        f"my-part-0123456789abcdef-{dead}.npy",
        ".run.json.abcdefgh.json",
        ".run.json",
        "weights.safetensors",
        "notes.tmp",
    ]:
        (folder / name).write_text("mine")
    before = everything(folder)
    with claim(folder / "held", "works"):
        assert remove_litter(folder) == []
        assert holder_of(folder / "held").owner == Owner.mine()
    assert everything(folder) == before
    assert [(each.path.name, each.alive) for each in litter_in(folder) if each.owner is None] == [
        (".run.json.abcdefgh.json", None)
    ]


def test_links_are_removed_and_not_what_they_lead_to(folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").write_text("mine")
    link = folder / f".a.{dead_owner().tag}.abcdefgh.tmp"
    link.symlink_to(tmp_path / "data")
    assert remove_litter(folder) == [link]
    assert (tmp_path / "data/mine").read_text() == "mine"


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_was_not_replaced_gets_its_name_back(folder, monkeypatch, there):
    """Killed between the two renames of `whole_folder`, or after them."""
    dead = dead_owner()
    former = folder / f".fold0.{dead.tag}.abcdefgh.former"
    former.mkdir()
    (former / "run.json").write_text("old")
    if there:
        write_text(folder / "fold0/run.json", "new")
    assert remove_litter(folder) == [former]
    assert everything(folder) == ["fold0"]
    assert (folder / "fold0/run.json").read_text() == ("new" if there else "old")


def test_the_names_are_those_of_whole_folder(folder, monkeypatch):
    write_text(folder / "fold0/run.json", "old")
    replaced, replace = [], os.replace
    monkeypatch.setattr(files.os, "replace", lambda *names: replaced.append(names) or replace(*names))
    with whole_folder(folder / "fold0") as draft:
        (draft / "run.json").write_text("new")
        assert [each.path for each in litter_in(folder)] == [draft]
    former = Path(replaced[0][1])
    former.mkdir()
    assert [(each.path, each.owner.tag) for each in litter_in(folder)] == [(former, Owner.mine().tag)]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "日" * 80 + ".json", "a." + "s" * 100])
def test_names_stay_within_what_file_systems_take(folder, name):
    with atomic(folder / name) as temporary:
        assert temporary.suffix == (Path(name).suffix or ".tmp")
        assert litter_in(folder)[0].owner.tag == Owner.mine().tag
        assert len(temporary.name.encode()) <= 255
    assert everything(folder) == [name]


@pytest.mark.parametrize("form", ["part-0123456789abcdef-{}.npy", ".part-0123456789abcdef-{}.npy.abcd_f0h.npy"])
def test_parts_of_earlier_versions_go_when_nobody_can_need_them(folder, form):
    """Their names tell the number of a process, and not of which machine."""
    dead, mine = folder / form.format(dead_owner().pid), folder / form.format(os.getpid())
    for path in (dead, mine):
        path.write_text("half")
    assert remove_litter(folder) == []
    for path in (dead, mine):
        os.utime(path, (10**9, 10**9))
    assert remove_litter(folder) == [dead]
    assert everything(folder) == [mine.name]
