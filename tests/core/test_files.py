"""Files appear whole or not at all; names from elsewhere lie below the folder, on every system."""

import hashlib
import json
import os
import posixpath
import stat
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core import files
from kit.core.errors import KitError
from kit.core.files import atomic, is_safe, parse_json, read_json, sha256, write_json, write_text


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_writes_the_file_and_nothing_else(tmp_path):
    with atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
        assert temporary.parent == tmp_path  # a rename across file systems would not be atomic
        assert temporary.suffix == ".txt"  # savers choose the format by it
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("old", ["old", None])
def test_atomic_leaves_the_old_file_on_an_exception(tmp_path, old, error):
    if old:
        (tmp_path / "a.txt").write_text(old)

    def write_half():
        with atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert names(tmp_path) == (["a.txt"] if old else [])
    assert not old or (tmp_path / "a.txt").read_text() == old


def test_atomic_replaces_only_when_the_new_file_is_on_disk(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    seen = []

    def fsync(handle):
        seen.append((tmp_path / "a.txt").read_text())
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="disk full"):
        write_text(tmp_path / "a.txt", "new")
    assert seen == ["old"]
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "")
        after = os.umask(umask)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode
    assert after == umask  # left as it was


def test_atomic_makes_the_folders_above(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == b"gr\xc3\xbcn\n"


def test_json_is_readable_and_ends_with_a_line_end(tmp_path):
    value = {"b": [1, 0.1, None], "a": "grün"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.startswith('{\n  "b": [')
    assert text.endswith('"a": "grün"\n}\n')


@pytest.mark.parametrize("content", [b"", b"abc", os.urandom(100_000)])
def test_sha256_is_that_of_the_bytes(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_read_json_gives_back_what_was_written(tmp_path):
    value = {"b": [1, 0.1, None], "a": "grün"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json", "make it anew") == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "Expecting ',' delimiter: line 1 column 8 (char 7)"),
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b'"\xff"', "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
    ],
    ids=["cut", "empty", "not UTF-8"],
)
def test_read_json_of_a_damaged_file_says_what_to_do(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(KitError) as caught:
        read_json(path, "python -m kit run writes it anew")
    assert str(caught.value) == f"{path} is damaged ({reason}); python -m kit run writes it anew"


def test_read_json_of_what_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(KitError) as caught:
        read_json(tmp_path, "remove it")
    assert str(caught.value) == f"{tmp_path} is damaged ([Errno 21] Is a directory: '{tmp_path}'); remove it"


# Names from elsewhere

HOSTILE = [
    *("", ".", "..", "/", "../evil", "a/../../b", "a/..", "./a", "a/./b", "/etc/x", "//host/share", "a//b", "a/"),
    *("a\\b", "..\\evil", "C:\\x", "C:x", "a:stream", "\\\\host\\share", "~\\x", "a\x00b", "a\nb", "a\r", "\x7f"),
    *(" ", " a", "a ", "a/ b", "a.", "a./b", "...", "con", "NUL", "nul.txt", "a/Aux.tar.gz", "com1", "LPT9.log"),
    *("COM¹", "conin$", "nul .txt", "a*", "a?", 'a"', "a<b", "a|b", "\ud800", "a/" * 600 + "b", "x" * 256, "\x85"),
]
SAFE = [
    "a",
    "submission.csv",
    "runs/tiny/uniform/seed0/fold0/run.json",
    ".hidden",
    "a..b",
    "..a",
    "a b",
    "ü/~",
    "~/x",
]
SAFE += [
    "console",
    "nullable.txt",
    "com10",
    "x" * 255,
    "日本/語.png",
    "a.b.c",
    "__results__.html",
    "a,b;c=d&e'f(g)[h]",
]

PARTS = st.sampled_from(["..", ".", "", "a", "C:", "nul", "\\", "/", "x.y", " ", "com1", "~", "\n"])
NAMES = (
    st.text() | st.text(alphabet="./\\:aC nul~\x00") | st.lists(PARTS).map("/".join) | st.lists(PARTS).map("".join)
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name):
    assert not is_safe(name)


@pytest.mark.parametrize("name", SAFE)
def test_safe_names(name):
    assert is_safe(name)


@given(NAMES | st.text(alphabet=st.characters()))
@example("\ud800")
def test_what_is_accepted_stays_below_the_folder(name):
    if not is_safe(name):
        return
    assert posixpath.normpath(name) == name
    assert (PurePosixPath("/folder") / name).relative_to("/folder").as_posix() == name
    windows = PureWindowsPath("C:/folder") / name
    assert windows.parts == ("C:\\", "folder", *name.split("/"))
    assert not windows.is_reserved()
    assert os.path.realpath(f"/folder/{name}") == f"/folder/{name}"


@given(st.lists(st.text(alphabet="abcxyz0189_-", min_size=1, max_size=20), min_size=1, max_size=8))
def test_plain_names_are_accepted(parts):
    reserved = any(PureWindowsPath(part).is_reserved() for part in parts)
    assert is_safe("/".join(parts)) is not reserved


def test_json_that_lies_too_deep_is_damaged(tmp_path):
    (tmp_path / "a.json").write_text("[" * 100_000 + "]" * 100_000)
    assert refusal_of(read_json, tmp_path / "a.json", "remove it") == (
        f"{tmp_path / 'a.json'} is damaged (too many lists and objects in each other); remove it"
    )
    with pytest.raises(ValueError, match="too many"):
        parse_json('{"a": ' * 100_000)
    assert parse_json(b'{"a": [1, null]}') == {"a": [1, None]}
