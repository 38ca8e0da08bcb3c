"""Fetching a competition through the real client: what is unpacked lies in its folder, or nothing does."""

import io
import re
import stat
import struct
import time
import warnings
import zipfile
from collections import namedtuple
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.fake_kaggle import answer, drop
from support.refusals import refusal_of
from support.small_kernels import asked

from kit.kaggle import download as downloading
from kit.kaggle import retry as patience
from kit.kaggle.client import Kaggle
from kit.kaggle.download import _identity, fetch_data, unpack

CHUNK = 1 << 20  # the client writes whole chunks only
FILES = {"train.csv": b"id,label\n1,a\n", "test.csv": b"id\n2\n", "images/train/1.png": b"\x89PNG"}
ARCHIVE = "data/.digits.zip"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def quick(monkeypatch) -> list[float]:
    """The real client's own waits between its attempts, written down and not sat through."""
    own: list[float] = []
    monkeypatch.setattr(time, "sleep", own.append)
    return own


@pytest.fixture
def kaggle(server) -> Kaggle:
    return Kaggle(wait=lambda seconds: None)


def archive(files: dict[str, bytes] | list[tuple], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip; members are names, or ZipInfo objects that say more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as writer, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are there twice are meant to be
        for name, content in files.items() if isinstance(files, dict) else files:
            writer.writestr(name, content)
    return buffer.getvalue()


def large() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, 3 * CHUNK, dtype=np.uint8).tobytes()
    return archive({"train.bin": noise}, zipfile.ZIP_STORED)


def everything() -> dict[str, bytes]:
    """Every file below the folder that the command runs in."""
    files = sorted(path for path in Path().rglob("*") if path.is_file())
    return {path.as_posix(): path.read_bytes() for path in files}


def kept(data: bytes) -> dict[str, bytes]:
    """What is there of an archive that was downloaded and not unpacked: the archive, and which it is."""
    about = {name: content for name, content in everything().items() if name == f"{ARCHIVE}.json"}
    return {ARCHIVE: data} | about


def test_a_competition_is_downloaded_and_unpacked(server, kit):
    server.add_competition("digits", archive(FILES))
    code, told = kit("fetch-data", "digits")
    assert (code, told) == (0, "downloading digits, 0.0 MB\ndata/digits: 3 files\n")
    assert everything() == {f"data/digits/{name}": content for name, content in FILES.items()}
    assert list(Path("data").iterdir()) == [Path("data/digits")]
    assert kit("fetch-data", "digits") == (
        1,
        "error: data/digits is there already; remove it to download digits again, or give --to DIR\n",
    )
    assert kit("fetch-data", "digits", "--to", "elsewhere/here")[0] == 0
    assert Path("elsewhere/here/images/train/1.png").read_bytes() == b"\x89PNG"


def test_folders_may_be_in_the_archive_and_empty(server, kaggle):
    server.add_competition("digits", archive({"train/": b"", "train/1.png": b"1", "empty.csv": b""}))
    fetch_data("digits", kaggle, say=lambda line: None)
    assert everything() == {"data/digits/train/1.png": b"1", "data/digits/empty.csv": b""}


@pytest.mark.parametrize("slug", ["../digits", "a/b", "", ".", "-x", "a b", "https://www.kaggle.com/c/digits"])
def test_what_is_no_name_of_a_competition(server, kaggle, slug):
    assert refusal_of(fetch_data, slug, kaggle) == (
        f"{slug!r} is no competition's name; it is the last part of its address on Kaggle"
    )
    assert server.requests == []
    assert everything() == {}


def test_rules_that_are_not_accepted_and_unknown_names(server, kit):
    server.add_competition("digits", archive(FILES), joined=False)
    assert kit("fetch-data", "digits") == (
        1,
        "error: downloading digits: Kaggle answers 403: You must accept this competition's rules before you'll be "
        "able to do this.; not allowed: is the name right, is it yours, and are the competition's rules "
        "accepted?\n",
    )
    assert kit("fetch-data", "digitz") == (
        1,
        "error: downloading digitz: Kaggle answers 404: Not found: competition digitz; there is no such thing, or "
        "it is not yours to see\n",
    )
    assert everything() == {}


# Broken downloads


def test_a_dropped_download_goes_on_where_it_stopped(server, kaggle, quick):
    data = large()
    server.add_competition("digits", data)
    server.misbehave("GET", drop(after_bytes=CHUNK + 50_000), drop())
    fetch_data("digits", kaggle, say=lambda line: None)
    assert [request["range"] for request in asked(server, "GET")] == ["", f"bytes={CHUNK}-", f"bytes={CHUNK}-"]
    assert Path("data/digits/train.bin").stat().st_size == 3 * CHUNK


def test_another_command_goes_on_where_one_stopped(server, kit, kaggle, quick, monkeypatch):
    data = large()
    server.add_competition("digits", data)
    monkeypatch.setattr(patience, "ATTEMPTS", 1)
    server.misbehave("GET", drop(after_bytes=2 * CHUNK + 10), *[drop()] * 5)
    message = refusal_of(fetch_data, "digits", kaggle)
    assert message.startswith("downloading .digits.zip: given up after 1 attempts; the connection broke (")
    assert Path(ARCHIVE).read_bytes() == data[: 2 * CHUNK]
    server.requests.clear()
    code, told = kit("fetch-data", "digits")
    assert (code, told.splitlines()) == (
        0,
        ["downloading digits, 3.1 MB, of which 2.1 are here", "data/digits: 1 files"],
    )
    assert [request["range"] for request in asked(server, "GET")] == ["", f"bytes={2 * CHUNK}-"]
    assert sorted(everything()) == ["data/digits/train.bin"]


def interrupted(server, kaggle, monkeypatch) -> None:
    """Leaves the first chunk of the archive."""
    with monkeypatch.context() as patched:
        patched.setattr(patience, "ATTEMPTS", 1)
        server.misbehave("GET", drop(after_bytes=CHUNK + 10), *[drop()] * 5)
        refusal_of(fetch_data, "digits", kaggle)
    assert Path(ARCHIVE).stat().st_size == CHUNK


@pytest.mark.parametrize("change", ["its date", "its size", "the record", "nothing"])
def test_the_rest_of_an_archive_is_never_put_to_the_beginning_of_another(
    server, kaggle, quick, monkeypatch, change
):
    """Kaggle's client of before 2.2.5 would: what it finds when it is handed the file has to be right."""
    competition = server.add_competition("digits", large())
    interrupted(server, kaggle, monkeypatch)
    if change == "its date":
        competition.modified += timedelta(hours=1)
    elif change == "its size":
        competition.archive = archive(FILES)
    elif change == "the record":
        Path(f"{ARCHIVE}.json").write_text("{")
    found = []
    handed = kaggle.download_archive
    monkeypatch.setattr(
        kaggle, "download_archive", lambda *arguments: (found.append(Path(ARCHIVE).exists()), handed(*arguments))
    )
    fetch_data("digits", kaggle, say=lambda line: None)
    assert found == [change == "nothing"]
    with zipfile.ZipFile(io.BytesIO(competition.archive)) as packed:
        assert everything() == {f"data/digits/{name}": packed.read(name) for name in packed.namelist()}


def test_headers_that_do_not_tell_archives_apart():
    told = {"Content-Length": "9", "ETag": '"x"', "Other": "y"}
    assert _identity(SimpleNamespace(headers=told)) == {"Content-Length": "9", "ETag": '"x"', "Last-Modified": ""}
    assert _identity(SimpleNamespace(headers={"Content-Length": "9"})) == {}


def test_an_archive_of_the_users_own_is_left_alone(server, kaggle):
    server.add_competition("digits", archive(FILES))
    Path("data").mkdir()
    Path("data/digits.zip").write_bytes(b"downloaded by hand")
    fetch_data("digits", kaggle, say=lambda line: None)
    there = {f"data/digits/{name}": content for name, content in FILES.items()}
    assert everything() == there | {"data/digits.zip": b"downloaded by hand"}


def test_a_folder_that_has_come_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "digits.zip").write_bytes(archive(FILES))

    def extract(packed, member, draft):
        (tmp_path / "digits").mkdir(exist_ok=True)
        (tmp_path / "digits/mine.csv").write_bytes(b"mine")

    monkeypatch.setattr(zipfile.ZipFile, "extract", extract)
    assert refusal_of(unpack, tmp_path / "digits.zip", tmp_path / "digits") == (
        f"{tmp_path}/digits is there now; move it away and try again"
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["digits", "digits.zip", "mine.csv"]


def test_an_error_amid_a_download_is_never_its_content(server, kaggle, quick):
    """The client takes the words of an error, in answer to the request for the rest, for that rest."""
    data = large()
    server.add_competition("digits", data)
    server.misbehave("GET", drop(after_bytes=CHUNK), answer(503, "Busy"), answer(503, "Busy"))
    fetch_data("digits", kaggle, say=lambda line: None)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert everything() == {"data/digits/train.bin": packed.read("train.bin")}


def test_an_error_that_stays_never_becomes_content(server, kaggle, quick):
    server.add_competition("digits", large())
    server.misbehave("GET", drop(after_bytes=CHUNK), *[answer(410)] * 20)  # the client itself may try it again
    message = refusal_of(fetch_data, "digits", kaggle)
    assert re.fullmatch(r"downloading (digits|\.digits\.zip): Kaggle answers 410: Gone", message)
    server.behave("GET")
    fetch_data("digits", kaggle, say=lambda line: None)
    with zipfile.ZipFile(io.BytesIO(large())) as packed:
        assert everything() == {"data/digits/train.bin": packed.read("train.bin")}


# Hostile archives


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "member",
    [
        "../evil",
        "/etc/evil",
        "a\\b",
        "..\\evil",
        "C:/evil",
        "C:evil",
        "a/../../evil",
        "a//b",
        "nul.csv",
        "a\nb",
        "x .",
    ],
)
def test_names_that_lead_elsewhere(server, kit, tmp_path, member):
    server.add_competition("digits", data := archive(FILES | {member: b"evil"}))
    assert kit("fetch-data", "digits") == (
        1,
        f"downloading digits, 0.0 MB\nerror: {ARCHIVE}: not unpacked, as some names lead elsewhere: {member!r}\n",
    )
    assert everything() == kept(data)
    assert not list(tmp_path.rglob("evil"))


def test_links_are_refused(server, kaggle, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [(link("images"), str(outside).encode()), ("images/evil", b"evil")]
    server.add_competition("digits", archive(members))
    assert refusal_of(fetch_data, "digits", kaggle) == (
        f"{ARCHIVE}: not unpacked, as some names lead elsewhere: 'images'"
    )
    assert list(outside.iterdir()) == []
    assert sorted(everything()) == sorted(kept(b""))


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("a.csv", b"1"), ("A.CSV", b"2")], "a.csv, A.CSV"),
        ([("a.csv", b"1"), ("a.csv", b"2")], "a.csv, a.csv"),
        ([("a", b"1"), ("a/b", b"2")], "a"),
        ([("x/Y/z", b"1"), ("x/y", b"2")], "x/y"),
    ],
)
def test_files_that_would_overwrite_each_other(server, kaggle, members, told):
    server.add_competition("digits", data := archive(members))
    assert refusal_of(fetch_data, "digits", kaggle) == (
        f"{ARCHIVE}: not unpacked, as it holds files of the same name: {told}"
    )
    assert everything() == kept(data)


# Disk


def test_the_disk_is_too_small_for_the_archive(server, kit, monkeypatch):
    server.add_competition("digits", large())
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: Usage(0, 0, 5.03e8))
    assert kit("fetch-data", "digits") == (
        1,
        "error: data has 0.5 GB free, but the archive of digits takes 0.0 GB and some to spare\n",
    )
    assert everything() == {}


def test_the_disk_is_too_small_for_what_the_archive_holds(server, kit, monkeypatch):
    """A bomb: little to download, much to unpack."""
    server.add_competition("digits", data := archive({"zeros": bytes(20_000_000)}))
    assert len(data) < 100_000
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: Usage(0, 0, 5.1e8))
    assert kit("fetch-data", "digits") == (
        1,
        f"downloading digits, 0.0 MB\nerror: data has 0.5 GB free, but what {ARCHIVE} holds takes 0.0 GB and some "
        "to spare\n",
    )
    assert everything() == kept(data)
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda path: Usage(0, 0, 1e9))
    monkeypatch.setattr(Kaggle, "download_archive", None)  # what is here whole is not downloaded again
    assert kit("fetch-data", "digits")[0] == 0
    assert sorted(everything()) == ["data/digits/zeros"]


def test_an_archive_that_understates_what_it_holds(tmp_path):
    """The size that is checked is the most that is unpacked."""
    data = bytearray(archive({"zeros": bytes(1_000_000)}))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.index(signature) + offset, 10)
    (tmp_path / "bomb.zip").write_bytes(data)
    message = refusal_of(unpack, tmp_path / "bomb.zip", tmp_path / "bomb")
    assert message.startswith(f"{tmp_path}/bomb.zip is damaged (")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.zip"]


# Damage


def damaged(kind: str) -> bytes:
    noise = bytes(np.random.default_rng(0).integers(0, 30, 5000, dtype=np.uint8))
    data = bytearray(archive({"first.csv": b"1", "train.bin": noise}))
    if kind == "cut off":
        return bytes(data[: len(data) // 2])
    if kind == "no zip":
        return b"<html>sorry</html>"
    middle = data.index(b"train.bin") + 20
    data[middle : middle + 200] = b"\xff" * 200 if kind == "stream" else bytes(200)
    return bytes(data)


@pytest.mark.parametrize("kind", ["cut off", "no zip", "stream", "zeros"])
def test_a_damaged_archive(server, kit, kind):
    server.add_competition("digits", data := damaged(kind))
    code, told = kit("fetch-data", "digits")
    assert code == 1
    last = told.splitlines()[-1]
    assert last.startswith(f"error: {ARCHIVE} is damaged (")
    assert last.endswith("; remove it and download again")
    assert len(told.splitlines()) == 2
    assert everything() == kept(data)


def test_an_archive_with_a_password(server, kaggle):
    data = bytearray(archive({"a.csv": b"1"}))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.index(signature) + offset] |= 1
    server.add_competition("digits", bytes(data))
    assert refusal_of(fetch_data, "digits", kaggle) == (
        f"{ARCHIVE}: needs a password, or is packed as Python cannot; unpack it by hand"
    )
    assert sorted(everything()) == sorted(kept(b""))
