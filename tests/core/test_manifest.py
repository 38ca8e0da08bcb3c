"""The manifest of an experiment: noted while files are written, and checked when they are read."""

import hashlib
import json

import pytest
from support.refusals import refusal_of

from kit.core.errors import Damaged
from kit.core.files import write_text
from kit.core.manifest import NAME, damaged, listed, mend, need_listed, noting

REMEDY = "do that"


def test_files_are_noted_as_they_are_after_they_were_written(tmp_path):
    one, two, gone = tmp_path / "one.txt", tmp_path / "policy/two.txt", tmp_path / "gone.txt"
    assert listed(tmp_path) == {}
    with noting(tmp_path, one, two, gone):
        write_text(one, "1")
        write_text(two, "2")
    expected = {
        "one.txt": hashlib.sha256(b"1").hexdigest(),
        "policy/two.txt": hashlib.sha256(b"2").hexdigest(),
    }
    assert listed(tmp_path) == json.loads((tmp_path / NAME).read_text())["files"] == expected
    with noting(tmp_path, one):
        write_text(one, "11")
    assert listed(tmp_path) == expected | {"one.txt": hashlib.sha256(b"11").hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "one.txt", "policy"]  # no claim is left


def test_a_file_that_is_another_is_told(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    for path in (one, two):
        path.write_text("0")
    need_listed(tmp_path, one, REMEDY)  # of an earlier version: nothing is known of it
    with noting(tmp_path, one):
        write_text(one, "1")
    need_listed(tmp_path, one, REMEDY)
    need_listed(tmp_path, two, REMEDY)
    assert damaged(tmp_path) == []
    one.write_text("2")
    assert damaged(tmp_path) == [one]
    assert refusal_of(need_listed, tmp_path, one, REMEDY) == (
        f"{one} is damaged (its content is not what was written); do that"
    )
    one.unlink()
    need_listed(tmp_path, one, REMEDY)  # who reads it says that it is missing
    assert damaged(tmp_path) == [one]


def test_who_is_killed_while_it_writes_leaves_files_that_are_not_checked(tmp_path):
    one = tmp_path / "one.txt"
    with noting(tmp_path, one):
        write_text(one, "1")

    def killed():
        with noting(tmp_path, one):
            write_text(one, "2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert listed(tmp_path) == {}
    need_listed(tmp_path, one, REMEDY)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {}}', '{"files": {}, "digest": "0"}'])
def test_a_damaged_manifest_is_told_and_mended(tmp_path, content):
    one, said = tmp_path / "one.txt", list[str]()
    mend(tmp_path, said.append)
    with noting(tmp_path, one):
        write_text(one, "1")
    mend(tmp_path, said.append)
    assert said == []
    (tmp_path / NAME).write_text(content)
    with pytest.raises(Damaged, match=rf"^{tmp_path}/{NAME} is damaged .*; python -m kit run or compare writes"):
        need_listed(tmp_path, one, REMEDY)
    mend(tmp_path, said.append)
    assert said == [f"{tmp_path}/{NAME} is damaged; it is written anew"]
    need_listed(tmp_path, one, REMEDY)


def test_a_file_that_is_written_while_it_is_read_is_not_damaged(tmp_path, monkeypatch):
    """The writer forgets it first, so that who looks again knows."""
    import kit.core.manifest as manifest

    one = tmp_path / "one.txt"
    with noting(tmp_path, one):
        write_text(one, "1")
    before = listed(tmp_path)
    one.write_text("2")
    looks = iter([before, {}])
    monkeypatch.setattr(manifest, "listed", lambda folder: next(looks))
    need_listed(tmp_path, one, REMEDY)
