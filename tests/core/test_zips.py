"""Files inside zips: what zipfile reads, in threads and processes, and what is wrong with broken ones."""

import os
import struct
import threading
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core.zips import MemberError, ZipMember, zip_directory

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
BYTES = os.urandom(3000) + b"abc" * 500


def archive(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in contents.items():
            made.writestr(name, content)
    return path


def member(path: Path, name: str = "a") -> ZipMember:
    return zip_directory(path, "key").member(name)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("ab/é ", min_size=1).filter(lambda name: name[-1] != "/"), st.binary(), max_size=6),
    st.sampled_from(METHODS),
    st.integers(0, 40),
)
def test_the_content_is_what_zipfile_reads(tmp_path_factory, contents, method, first):
    path = archive(tmp_path_factory.mktemp("zip") / "a.zip", contents, method)
    directory = zip_directory(path, "key")
    with zipfile.ZipFile(path) as truth:
        assert list(directory.entries) == truth.namelist()
        for name in contents:
            assert directory.member(name).read() == truth.read(name)
            assert directory.member(name).read_first(first) == truth.read(name)[:first]


def test_extra_fields_and_what_stands_before_the_archive_are_skipped(tmp_path):
    info = zipfile.ZipInfo("a")
    info.extra = struct.pack("<HH", 0x7777, 900) + b"x" * 900
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as made:
        made.writestr(info, BYTES)
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" + (tmp_path / "plain.zip").read_bytes())
    assert member(path).read() == BYTES


def test_names_are_found_in_whatever_form(tmp_path):
    path = archive(tmp_path / "a.zip", {"e\u0301.png": b"1", "folder/": b""})
    assert member(path, "\u00e9.png").read() == b"1"
    assert list(zip_directory(path, "key").entries) == ["e\u0301.png"]


def test_a_changed_archive_is_read_anew(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": b"old"})
    assert member(path).read() == b"old"
    archive(path, {"a": b"other"})
    assert member(path).read() == b"other"


def test_a_member_of_an_earlier_archive_is_no_other_content(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": b"old", "b": b"x"}, zipfile.ZIP_STORED)
    earlier = member(path)
    archive(path, {"a": b"new", "b": b"x"}, zipfile.ZIP_STORED)
    with pytest.raises(MemberError, match="other CRC-32"):
        earlier.read()


def test_threads_read_at_the_same_time(tmp_path):
    contents = {str(number): os.urandom(2000 + number) for number in range(40)}
    directory = zip_directory(archive(tmp_path / "a.zip", contents), "key")
    start = threading.Barrier(8)

    def read(_: int) -> bool:
        start.wait()
        return all(directory.member(name).read() == content for name, content in contents.items())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_processes_read_at_the_same_time(tmp_path, way):
    contents = {str(number): os.urandom(2000) for number in range(30)}
    directory = zip_directory(archive(tmp_path / "a.zip", contents), "key")
    members = [directory.member(name) for name in contents]
    assert members[0].read() == contents["0"]
    with ProcessPoolExecutor(2, mp_context=get_context(way)) as pool:
        assert list(pool.map(ZipMember.read, members * 4, chunksize=10)) == list(contents.values()) * 4


# Faults.


def changed(path: Path, at: int, content: bytes) -> Path:
    """The archive with other bytes at a place of the content of its first file, `a`."""
    whole = bytearray(path.read_bytes())
    start = 30 + 1 + at
    whole[start : start + len(content)] = content
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_file_is_told(tmp_path, method):
    path = archive(tmp_path / "a.zip", {"a": BYTES, "b": BYTES}, method)
    changed(path, 600, bytes(200))
    with pytest.raises(MemberError, match="damaged in the archive"):
        member(path).read()
    assert member(path, "b").read() == BYTES


def test_a_header_that_is_gone_is_told(tmp_path):
    path = changed(archive(tmp_path / "a.zip", {"a": BYTES}), -31, b"nope")
    with pytest.raises(MemberError, match="does not stand where"):
        member(path).read()


def with_directory(path: Path, at: int, value: int) -> Path:
    """The archive with another number, two bytes, in the directory's entry of the first file."""
    whole = bytearray(path.read_bytes())
    start = whole.index(b"PK\x01\x02") + at
    whole[start : start + 2] = struct.pack("<H", value)
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(8, 1, "encrypted"), (10, 9, "Deflate64"), (10, 14, "LZMA"), (10, 77, "unknown")],
)
def test_what_is_not_read_is_told(tmp_path, at, value, reason):
    path = with_directory(archive(tmp_path / "a.zip", {"a": BYTES}), at, value)
    with pytest.raises(MemberError, match=reason) as caught:
        member(path).read()
    assert "unpack" in str(caught.value)


def test_an_archive_that_was_cut_after_it_was_opened_is_told(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": BYTES}, zipfile.ZIP_STORED)
    opened = member(path)
    os.truncate(path, 1000)
    with pytest.raises(MemberError, match="ends within it"):
        opened.read()


def test_what_claims_to_be_larger_than_it_says_does_not_fill_the_memory(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": bytes(10**7)})
    whole = member(path)
    small = ZipMember(path, "a", whole.entry._replace(size=100))
    with pytest.raises(MemberError, match="101 bytes of 100"):
        small.read()


def test_a_file_that_is_not_there_is_told(tmp_path):
    path = archive(tmp_path / "a.zip", {"a": BYTES})
    with pytest.raises(MemberError, match="no such file"):
        member(path, "b").read()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_zip_is_one_line(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    told = refusal_of(zip_directory, tmp_path / "a.zip", "competition.train_images")
    assert told.startswith("competition.train_images: ")
    assert "is no zip file, or was not downloaded whole" in told
