"""The pixel cache is known to be whole: damage of any kind is told, and other pixels are never seen."""

import errno
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.pixel_caches import pixel_cache
from support.refusals import refusal_of

from kit.core import claims
from kit.core.claims import claim, holder_of
from kit.core.errors import Damaged
from kit.data import pixel_cache as module
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.images import ImageSet, open_images, open_readable
from kit.data.loading import plain_batches
from kit.data.pixel_cache import Filling, NoRoom, PixelCache
from kit.data.workers import Workers

KEY, SHAPE = "0123456789abcdef", (5, 4, 6, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
IMAGE = 4 * 6 * 3  # bytes
BEHIND = 128 + PIXELS.size  # where the pixels end: numpy's header takes 128 bytes


@pytest.fixture
def file(tmp_path) -> Path:
    return pixel_cache(tmp_path / "pixels.npy", PIXELS, KEY).file


def flip(file: Path, place: int, bit: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= bit
    with open(file, "r+b") as opened:  # the same file, as a disk that forgets leaves it
        opened.write(content)


def cache(file: Path) -> PixelCache:
    return PixelCache(file, KEY, SHAPE).open()


def test_what_is_read_is_what_was_written(file):
    opened = cache(file)
    for row in (3, 0, 4, 3, -1, np.int64(2)):
        np.testing.assert_array_equal(opened.read(row), PIXELS[row])
    with pytest.raises(IndexError):
        opened.read(5)


def test_the_file_is_an_array_with_the_hashes_behind_it(file):
    np.testing.assert_array_equal(np.load(file, mmap_mode="r"), PIXELS)
    content = file.read_bytes()
    expected = [
        blake2b(PIXELS[row].tobytes(), digest_size=16, key=KEY.encode(), salt=bytes([row, *[0] * 7])).digest()
        for row in range(5)
    ]
    assert content[BEHIND:-32] == b"".join(expected)
    digest = blake2b(content[:128] + content[BEHIND:-32], digest_size=32, key=KEY.encode()).digest()
    assert content[-32:] == digest


@settings(deadline=None, max_examples=100, derandomize=True)
@given(place=st.integers(0, BEHIND + 5 * 16 + 31), bit=st.integers(0, 7))
def test_a_bit_that_is_flipped_anywhere_is_noticed(tmp_path_factory, place, bit):
    file = pixel_cache(tmp_path_factory.mktemp("cache") / "pixels.npy", PIXELS, KEY).file
    flip(file, place, 1 << bit)
    if 128 <= place < BEHIND:
        seen = [row for row in range(5) if cache(file).read(row) is None]
        assert seen == [(place - 128) // IMAGE]
    else:
        assert refusal_of(cache, file) == f"{file} is not what was written"


@pytest.mark.parametrize("size", [0, 1, 127, 128, BEHIND, BEHIND + 80, BEHIND + 111, BEHIND + 113])
def test_a_file_that_is_cut_or_too_long_is_refused(file, size):
    os.truncate(file, size)
    assert refusal_of(cache, file) == f"{file} has {size:,} bytes instead of {BEHIND + 112:,}"


def test_rows_of_another_place_and_other_caches_are_no_good(file, tmp_path):
    """Each byte is what some cache holds, but not there."""
    content = file.read_bytes()
    first, second = (content[128 + row * IMAGE :][:IMAGE] for row in (0, 1))
    file.write_bytes(content.replace(first + second, second + first))
    assert [row for row in range(5) if cache(file).read(row) is None] == [0, 1]
    with pytest.raises(Damaged, match="not what was written"):
        PixelCache(pixel_cache(tmp_path / "other.npy", PIXELS, "f" * 16).file, KEY, SHAPE).open()
    turned = (5, 6, 4, 3)
    with pytest.raises(Damaged, match="not what was written"):
        PixelCache(file, KEY, turned).open()


def test_a_row_is_checked_once_a_process_and_its_forks(file, monkeypatch):
    opened = cache(file)
    hashed, hash_of = [], module._hash
    monkeypatch.setattr(
        module, "_hash", lambda key, row, content: hashed.append(row) or hash_of(key, row, content)
    )
    opened.read(1)
    if not (child := os.fork()):
        opened.read(1)
        opened.read(2)
        os._exit(hashed != [1, 2])
    assert os.waitpid(child, 0)[1] == 0
    for row in (1, 2, 2, 0):
        opened.read(row)
    assert hashed == [1, 0]
    pickle.loads(pickle.dumps(opened)).read(1)  # in a process that is not forked
    assert hashed == [1, 0, 1]


def test_a_damaged_row_is_mended_by_its_own_pixels_alone(file):
    flip(file, 128 + 2 * IMAGE)
    opened = cache(file)
    assert opened.read(2) is None
    assert opened.mend(2, PIXELS[1]) is None
    assert opened.mend(2, PIXELS[2]) == 1
    np.testing.assert_array_equal(opened.read(2), PIXELS[2])
    np.testing.assert_array_equal(np.load(file), PIXELS)


def test_a_file_that_is_cut_while_it_is_open_kills_nobody(file):
    opened = cache(file)
    for row in range(5):
        opened.read(row)
    os.truncate(file, 128 + 2 * IMAGE + 5)
    assert [opened.read(row) is None for row in range(5)] == [False, False, True, True, True]


# Space


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_space_that_cannot_be_reserved(tmp_path, monkeypatch, code):
    def full(handle: int, offset: int, length: int) -> None:
        assert (offset, length) == (0, BEHIND + 112)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(NoRoom, match=r"pixels.npy takes 6e-07 GB, but the disk has .* GB free \("):
        Filling(tmp_path / "pixels.npy", KEY, SHAPE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("reserves", [True, False])
def test_space_is_there_before_the_pixels_are(tmp_path, monkeypatch, reserves):
    if not reserves:

        def refuse(*arguments: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(module.os, "posix_fallocate", refuse)
    shape = (10, 100, 100, 3)
    filling = Filling(tmp_path / "pixels.npy", KEY, shape)
    stat = (tmp_path / "pixels.npy").stat()
    assert stat.st_size == filling.bytes == 128 + 300_000 + 10 * 16 + 32
    assert not reserves or stat.st_blocks * 512 >= filling.bytes
    filling.give_up()
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_only_when_it_is_written_to(tmp_path, monkeypatch):
    filling = Filling(tmp_path / "pixels.npy", KEY, SHAPE)

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "pwrite", full)
    with pytest.raises(NoRoom, match=r"\(No space left on device\)"):
        filling(0, PIXELS[0])
    filling.give_up()


# Image sets


NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(NAMES):
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


def opened(folder: Path, say=pytest.fail, **options) -> ImageSet:
    config = DataConfig(**{"size": 8, "cache": True} | options)
    return open_images(NAMES, [folder / f"{name}.png" for name in NAMES], config, folder / "cache", say=say)


def decoded(folder: Path) -> np.ndarray:
    decoder = Decoder.of(DataConfig(size=8))
    return np.stack([decoder(folder / f"{name}.png") for name in NAMES])


def all_pixels(images: ImageSet) -> np.ndarray:
    return np.stack([images[row] for row in range(len(images))])


def kept(folder: Path, pattern: str) -> Path:
    (path,) = (folder / "cache").glob(pattern)
    return path


def test_damaged_rows_are_decoded_anew_written_back_and_told_once(folder, capfd):
    file = opened(folder).cache.file
    for row in (1, 3):
        flip(file, 128 + row * 192 + 7)
    images = opened(folder)
    np.testing.assert_array_equal(all_pixels(images), decoded(folder))
    said = f"{file}: the pixels of image b were damaged and are decoded anew (1 so far); "
    assert capfd.readouterr().err == f"{said}the disk or memory may be at fault\n"
    np.testing.assert_array_equal(np.load(file), decoded(folder))
    np.testing.assert_array_equal(all_pixels(opened(folder)), decoded(folder))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_notice_as_well(folder, capfd, monkeypatch, method, workers):
    file = opened(folder).cache.file
    flip(file, 128 + 4 * 192)
    images = opened(folder)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        batches = list(plain_batches(images, range(5), 8, 2, Workers(workers)))
    finally:
        multiprocessing.set_start_method(before, force=True)
    np.testing.assert_array_equal(np.concatenate(batches), decoded(folder))
    assert capfd.readouterr().err.count("the pixels of image e were damaged") == 1


def test_a_cache_that_cannot_be_written_back_is_not_trusted_later(folder, monkeypatch, capfd):
    file = opened(folder).cache.file
    flip(file, 128)
    images = opened(folder)
    monkeypatch.setattr(module, "_write", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    for _ in range(3):
        np.testing.assert_array_equal(images[0], decoded(folder)[0])
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("gone", [True, False])
def test_what_cannot_be_decoded_anew_is_one_line(folder, gone):
    file, whole = opened(folder).cache.file, decoded(folder)
    flip(file, 128 + 2 * 192)
    images = opened(folder)
    source, stat = folder / "c.png", (folder / "c.png").stat()
    if gone:
        source.write_bytes(b"")
    else:
        Image.open(folder / "a.png").save(source)
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    told = refusal_of(images.__getitem__, 2)
    assert told.startswith(f"{file}: the pixels of image c are damaged (the disk or memory may be at fault), and ")
    assert ("cannot be read any more" in told) == gone
    assert ("remove the cache file" in told) == (not gone)
    np.testing.assert_array_equal(images[3], whole[3])


def spoilt(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "another":
        with open(file, "wb") as opened:
            np.save(opened, np.zeros((5, 8, 8, 3), dtype=np.uint8))
        return
    if how == "of an earlier version":
        content = content[: 128 + 5 * 192] if file.suffix == ".npy" else content[:-65]
    else:
        content = {"cut": content[: len(content) // 2], "empty": b"", "zeroed": bytes(len(content))}[how]
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", "zeroed", "another", "of an earlier version"])
@pytest.mark.parametrize("pattern", ["pixels-*.npy", "checked-*.json"])
def test_a_cache_that_is_no_good_is_made_anew_and_that_is_said(folder, how, pattern):
    opened(folder)
    file = kept(folder, pattern)
    spoilt(file, how)
    said: list[str] = []
    np.testing.assert_array_equal(all_pixels(opened(folder, said.append)), decoded(folder))
    assert len(said) == 1
    assert str(file) in said[0]
    assert "anew" in said[0]
    np.testing.assert_array_equal(all_pixels(opened(folder)), decoded(folder))


def test_a_damaged_cache_makes_room_for_the_new_one(folder, monkeypatch):
    file = opened(folder).cache.file
    os.truncate(file, 1100)
    free = iter([0, 0, 0])
    usage = module.shutil.disk_usage(folder)
    monkeypatch.setattr("kit.data.images.shutil.disk_usage", lambda _: usage._replace(free=next(free)))
    assert opened(folder, lambda line: None).cache.file == file


@pytest.mark.parametrize("late", [True, False])
def test_without_room_auto_goes_on_and_true_says_what_to_do(folder, monkeypatch, late):
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if late:
        monkeypatch.setattr("kit.data.pixel_cache._write", full)
    else:
        monkeypatch.setattr("kit.data.pixel_cache.os.posix_fallocate", full)
    told = refusal_of(opened, folder)
    assert told.startswith(f"data.cache: {folder}/cache/part-")
    assert told.endswith("data.cache=false, a smaller data.size, or --cache DIR on another disk")
    assert list((folder / "cache").iterdir()) == []
    said: list[str] = []
    images = opened(folder, said.append, cache="auto")
    assert images.cache is None
    np.testing.assert_array_equal(all_pixels(images), decoded(folder))
    assert len(said) == 1
    assert said[0].startswith("No pixel cache: ")
    assert [path.name[:8] for path in (folder / "cache").iterdir()] == ["checked-"]


def test_a_file_that_may_not_be_so_large(folder):
    """As the system refuses it, here by the process' limit: a quota or a full disk looks the same."""
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
        said: list[str] = []
        images = opened(folder, said.append, cache="auto")
        right = (
            images.cache is None
            and "(File too large)" in said[0]
            and (all_pixels(images) == decoded(folder)).all()
        )
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


# One process at a time

OPENS = """
import sys, time
from pathlib import Path
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.images import open_images
folder = Path(sys.argv[1])
names = list("abcde")
decode, count = Decoder.__call__, []
def counted(*given):
    count.append(given)
    print("decodes", flush=True)
    while not (folder / "go").exists():
        time.sleep(0.01)
    return decode(*given)
Decoder.__call__ = counted
images = open_images(
    names, [folder / f"{name}.png" for name in names], DataConfig(size=8, cache=True), folder / "cache",
    say=lambda line: print(line, flush=True), what="decodes train images of tiny",
)
print(len(count), [int(images[row].sum()) for row in range(5)])
"""


def process(folder: Path) -> subprocess.Popen:
    """Start a process that opens the images, and stops at the first that it decodes until there is a file `go`."""
    return subprocess.Popen([sys.executable, "-c", OPENS, str(folder)], stdout=subprocess.PIPE, text=True)


def test_a_second_process_waits_with_a_line_and_decodes_nothing(folder):
    first = process(folder)
    assert first.stdout.readline().startswith("decodes")
    second = process(folder)
    waits = second.stdout.readline()
    (folder / "go").touch()
    sums = [int(image.sum()) for image in decoded(folder)]
    assert first.communicate(timeout=60)[0].splitlines()[-1] == f"5 {sums}"
    assert second.communicate(timeout=60)[0] == f"0 {sums}\n"
    assert waits.startswith(f"waits for process {first.pid} on ")
    assert "(decodes train images of tiny, since " in waits
    assert sorted(path.name[:7] for path in (folder / "cache").iterdir()) == ["checked", "pixels-"]


def test_who_waits_takes_over_when_the_other_is_killed(folder, monkeypatch):
    monkeypatch.setattr(claims, "LINE_AFTER", 0.0)
    first = process(folder)
    assert first.stdout.readline().startswith("decodes")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        first.send_signal(signal.SIGKILL)
        first.wait()

    np.testing.assert_array_equal(all_pixels(opened(folder, say)), decoded(folder))
    assert [line.startswith(f"waits for process {first.pid} on ") for line in said] == [True]
    first.stdout.close()


def test_the_waiting_ends_with_the_time(folder):
    place = opened(folder).cache.file
    kept(folder, "checked-*").unlink()
    paths, config = [folder / f"{name}.png" for name in NAMES], DataConfig(size=8, cache=True)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with claim(place, "decodes"):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    readable = open_readable(NAMES, paths, config, folder / "cache", expired=lambda: True)
    done.set()
    thread.join()
    assert (readable.rows, readable.broken) == ([], {})
    assert holder_of(place) is None
