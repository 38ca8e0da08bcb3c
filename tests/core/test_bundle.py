"""An archive of files: the same bytes for the same files; and what of a package goes into it."""

import bz2
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core.bundle import JUNK, pack, package_files

FIXED = {
    "kit/__init__.py": b'"""A kit."""\n',
    "kit/a/b.py": b"value = 1\n" * 300,
    "config.yaml": "name: Übung\n".encode(),
    "folds.csv": b"id,fold\n1,0\n2,1\n",
    "empty": b"",
}
FIXED_SHA256 = "9d6a8ebb16aed6f0a3d00ff9543539a611e33543fc666fcee7b9934e37b297ed"


def unpacked(archive: bytes, folder: Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(archive))) as tar:
        tar.extractall(folder, filter="data")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(root: Path, files: dict[str, bytes]) -> Path:
    """The package of some files; gives its folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root / "kit"


def git(folder: Path, *words: str) -> None:
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *options, "-C", folder, *words], check=True, capture_output=True)


# The same bytes


def test_the_bytes_of_a_known_archive():
    """Another value means that archives made elsewhere, or by another Python, would differ."""
    assert hashlib.sha256(pack(FIXED)).hexdigest() == FIXED_SHA256


def test_the_order_of_files_does_not_count():
    assert pack(dict(reversed(FIXED.items()))) == pack(FIXED)


def test_neither_times_nor_modes_nor_line_ends_count(tmp_path):
    text = {"kit/a.py": b"one\ntwo\n", "kit/b/c.py": b"\n\n", "kit/b/table.txt": b"x"}
    here = write(tmp_path / "here", text)
    there = write(tmp_path / "there", {name: body.replace(b"\n", b"\r\n") for name, body in text.items()})
    os.utime(there / "a.py", (0, 0))
    (there / "b/c.py").chmod(0o700)
    assert package_files(here) == package_files(there) == text
    assert pack(package_files(here)) == pack(package_files(there))


def test_what_is_no_text_keeps_its_bytes(tmp_path):
    package = write(tmp_path, {"kit/picture.png": b"\x89PNG\r\n\x1a\n\0\0\r\n"})
    assert package_files(package) == {"kit/picture.png": b"\x89PNG\r\n\x1a\n\0\0\r\n"}


def test_nothing_of_this_machine_is_in_it():
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(pack(FIXED)))) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == sorted(FIXED)
    told = {(entry.mtime, entry.mode, entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries}
    assert told == {(0, 0o644, 0, 0, "", "")}


def test_it_unpacks_to_what_went_in(tmp_path):
    assert unpacked(pack(FIXED), tmp_path) == FIXED


def test_long_names_fit_up_to_the_formats_end(tmp_path):
    long = {f"{'folder/' * 20}{'n' * 96}.py": b"1", f"kit/{'x' * 90}.py": b"2"}
    assert unpacked(pack(long), tmp_path) == long
    message = refusal_of(pack, {f"kit/{'x' * 101}": b""})
    assert message.startswith(f"kit/{'x' * 101}: the name does not fit into an archive")


NAMES = st.lists(st.text("abcäß0 _-.", min_size=1, max_size=8).filter(lambda part: part.strip(". ")), min_size=1)


@settings(max_examples=40, deadline=None)
@given(files=st.dictionaries(NAMES.map(lambda parts: "/".join(parts[:3]) + ".x"), st.binary(max_size=700)))
def test_any_files_come_back(files):
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(pack(files)))) as tar:
        back = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}
    assert back == files
    assert pack(dict(reversed(files.items()))) == pack(files)


# What is packed of a package


@pytest.fixture
def package(tmp_path) -> Path:
    return write(tmp_path / "project", {"kit/__init__.py": b"", "kit/room/a.py": b"a = 1\n"})


def test_what_tools_leave_behind_is_passed_over(package):
    junk = ["__pycache__/a.cpython-311.pyc", "room/.DS_Store", ".ipynb_checkpoints/a.py", "b.pyc", "room/a.py~"]
    junk += [".git/config", "room/.a.py.swp", "room/Thumbs.db", "room/._a.py"]
    write(package.parent, {f"kit/{name}": b"junk" for name in junk})
    (package / "empty").mkdir()
    assert set(package_files(package)) == {"kit/__init__.py", "kit/room/a.py"}


@pytest.mark.parametrize("name", ["kit/digit.py", "kit/.gitkeep", "kit/swap.py", "kit/pycache.py", "kit/a.swift"])
def test_only_junk_is_junk(name):
    assert not JUNK.search(name)


def test_links_are_refused(package, tmp_path):
    (tmp_path / "elsewhere.py").write_text("secret = 1\n")
    (package / "room/link.py").symlink_to(tmp_path / "elsewhere.py")
    (package / "folder").symlink_to(tmp_path)
    message = refusal_of(package_files, package)
    assert message == (
        f"a bundle holds no links; replace by files: {package / 'folder'}, {package / 'room/link.py'}"
    )


def test_what_git_ignores_is_refused(package):
    project = package.parent
    git(project, "init")
    (project / ".gitignore").write_text("*.bin\nnotes/\n__pycache__/\n")
    write(project, {"kit/room/weights.bin": b"1", "kit/__pycache__/a.pyc": b"2"})
    message = refusal_of(package_files, package)
    assert message == (
        f"git ignores kit/room/weights.bin, so it is not meant to leave this machine; move out of {package}"
    )
    write(project, {"kit/notes/my own.txt": b"3"})
    message = refusal_of(package_files, package)
    assert "git ignores kit/notes/my own.txt, kit/room/weights.bin, so they are not meant" in message
    (project / "kit/notes/my own.txt").unlink()
    git(project, "add", "-f", "kit/room/weights.bin")  # tracked all the same: no longer ignored
    assert set(package_files(package)) == {"kit/__init__.py", "kit/room/a.py", "kit/room/weights.bin"}


def test_names_beyond_ascii_are_looked_up_too(package):
    git(package.parent, "init")
    (package.parent / ".gitignore").write_text("geheim*\n", encoding="utf-8")
    write(package.parent, {"kit/geheimnis ä.txt": b"1", "kit/ö.txt": b"2"})
    assert "git ignores kit/geheimnis ä.txt, so it is not" in refusal_of(package_files, package)


def test_a_clone_that_git_cannot_read_is_refused(package):
    git(package.parent, "init")
    (package.parent / ".git/config").write_text("[core\n")
    message = refusal_of(package_files, package)
    assert message.startswith(f"git cannot tell what it ignores in {package.parent}: fatal: bad config")


def test_outside_a_clone_nothing_is_ignored(package):
    (package.parent / ".gitignore").write_text("*.py\n")
    assert set(package_files(package)) == {"kit/__init__.py", "kit/room/a.py"}


def test_it_works_without_git(package, monkeypatch, tmp_path):
    git(package.parent, "init")
    (package.parent / ".gitignore").write_text("*.py\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(package_files(package)) == {"kit/__init__.py", "kit/room/a.py"}
