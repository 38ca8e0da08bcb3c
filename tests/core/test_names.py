"""Names from elsewhere: whatever is accepted lies below the folder, on every system."""

import os
import posixpath
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kit.core.files import is_safe

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
