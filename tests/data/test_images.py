"""The pixel cache: the same pixels with it and without, made when needed and only then."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kit.core.errors import KitError
from kit.data import images as module
from kit.data.config import DataConfig
from kit.data.decode import Decoder
from kit.data.images import ImageSet, content_digest, open_images, open_readable

NAMES = ["a", "b", "c", "d", "e"]


def write_image(path: Path, seed: int, height: int = 12, width: int = 15) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(NAMES):
        write_image(tmp_path / f"{name}.png", seed)
    return tmp_path


def opened(folder: Path, names=NAMES, **options) -> ImageSet:
    config = DataConfig(**{"size": 8} | options)
    return open_images(names, [folder / f"{name}.png" for name in names], config, folder / "cache")


def all_pixels(images: ImageSet) -> np.ndarray:
    return np.stack([images[row] for row in range(len(images))])


def cached_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cache").glob("*.npy"))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("options", [{}, {"crop_pct": 0.8}, {"channels": 1}, {"channels": 4}])
def test_cache_or_not_the_pixels_are_those_of_the_decoder(folder, resize, options):
    with_cache = opened(folder, cache=True, resize=resize, **options)
    without = opened(folder, cache=False, resize=resize, **options)
    decoder = Decoder.of(DataConfig(size=8, resize=resize, **options))
    expected = np.stack([decoder(folder / f"{name}.png") for name in NAMES])
    assert with_cache.cache is not None
    assert without.cache is None
    np.testing.assert_array_equal(all_pixels(with_cache), expected)
    np.testing.assert_array_equal(all_pixels(without), expected)


def test_rows_come_in_the_order_of_the_ids(folder):
    forwards, backwards = opened(folder, cache=True), opened(folder, NAMES[::-1], cache=True)
    assert backwards.ids == NAMES[::-1]
    np.testing.assert_array_equal(all_pixels(backwards), all_pixels(forwards)[::-1])


def test_cache_is_reused_when_nothing_changed(folder, monkeypatch):
    first = opened(folder, cache=True)
    before = first.cache.file.stat()
    monkeypatch.setattr(Decoder, "__call__", lambda *_: pytest.fail("decoded again"))
    second = opened(folder, cache=True, augment="heavy", workers=3, cache_gb=1.0)
    after = second.cache.file.stat()
    assert second.cache == first.cache
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(cached_files(folder)) == 1


def test_cache_is_rebuilt_when_a_file_is_rewritten(folder):
    before = opened(folder, cache=True)
    old = all_pixels(before).copy()
    write_image(folder / "c.png", seed=99)
    after = opened(folder, cache=True)
    assert after.cache != before.cache
    changed = (all_pixels(after) != old).any(axis=(1, 2, 3))
    assert changed.tolist() == [False, False, True, False, False]


def test_cache_is_rebuilt_when_only_the_time_of_a_file_changed(folder):
    before = opened(folder, cache=True)
    stat = (folder / "c.png").stat()
    os.utime(folder / "c.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert opened(folder, cache=True).cache != before.cache


@pytest.mark.parametrize(
    "options",
    [{"size": 9}, {"resize": "crop"}, {"crop_pct": 0.5}, {"channels": 1}, {"interpolation": "nearest"}],
)
def test_cache_is_rebuilt_for_other_decoding(folder, options):
    before = opened(folder, cache=True)
    after = opened(folder, cache=True, **options)
    assert after.cache != before.cache
    np.testing.assert_array_equal(all_pixels(after), all_pixels(opened(folder, cache=False, **options)))


def test_cache_depends_on_the_version_of_the_decoder(folder, monkeypatch):
    before = opened(folder, cache=True)
    monkeypatch.setattr(Decoder, "version", Decoder.version + 1)
    assert opened(folder, cache=True).cache != before.cache


BAD = {
    "text": lambda whole: b"id,label\n",
    "empty": lambda whole: b"",
    "truncated JPEG": lambda whole: whole[: len(whole) // 2],
}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("kind", BAD)
def test_all_bad_files_are_named_at_once(folder, kind, cache):
    for name in ("b", "d"):
        Image.open(folder / f"{name}.png").resize((200, 200)).save(folder / f"{name}.png", format="JPEG")
        whole = (folder / f"{name}.png").read_bytes()
        (folder / f"{name}.png").write_bytes(BAD[kind](whole))
    with pytest.raises(KitError) as raised:
        opened(folder, cache=cache)
    message = str(raised.value)
    assert message.startswith("2 of 5 images cannot be read: ")
    assert [name for name in NAMES if f"{folder / name}.png (" in message] == ["b", "d"]
    assert "\n" not in message
    assert cached_files(folder) == []


def test_a_mended_file_is_read_after_a_failure(folder):
    (folder / "b.png").write_bytes(b"")
    with pytest.raises(KitError, match="1 of 5"):
        opened(folder, cache=True)
    write_image(folder / "b.png", seed=1)
    np.testing.assert_array_equal(all_pixels(opened(folder, cache=True)), all_pixels(opened(folder, cache=False)))


NEEDED = len(NAMES) * 8 * 8 * 3  # bytes of the cached pixels


@pytest.mark.parametrize(("bytes_allowed", "cached"), [(NEEDED + 1, True), (NEEDED - 1, False)])
def test_auto_caches_what_fits_cache_gb(folder, bytes_allowed, cached):
    images = opened(folder, cache="auto", cache_gb=bytes_allowed / 1e9)
    assert (images.cache is not None) == cached
    assert len(cached_files(folder)) == cached
    np.testing.assert_array_equal(all_pixels(images), all_pixels(opened(folder, cache=True)))


@pytest.mark.parametrize(("bytes_free", "cached"), [(2 * NEEDED, True), (2 * NEEDED - 2, False)])
def test_auto_caches_what_fits_half_of_the_free_disk(folder, monkeypatch, bytes_free, cached):
    usage = SimpleNamespace(total=10**12, used=0, free=bytes_free)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    assert (opened(folder, cache="auto").cache is not None) == cached


def test_without_a_cache_images_are_checked_once(folder, monkeypatch):
    opened(folder, cache=False)
    decoded = []
    decode = module.Decoder.__call__
    monkeypatch.setattr(module.Decoder, "__call__", lambda *given: decoded.append(given[1]) or decode(*given))
    images = opened(folder, cache=False)
    assert decoded == []
    images[2]
    assert decoded == [images.sources[2]]


def test_a_cache_that_is_there_is_used_though_it_took_the_space(folder, monkeypatch):
    usage = [SimpleNamespace(total=10**12, used=0, free=free) for free in (2 * NEEDED, NEEDED)]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage.pop(0))
    first, second = opened(folder, cache="auto"), opened(folder, cache="auto")
    assert first.cache == second.cache is not None


def test_a_cache_that_the_disk_cannot_hold_is_refused(folder, monkeypatch):
    usage = SimpleNamespace(total=10**12, used=0, free=NEEDED - 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(KitError, match=r"data.cache: the pixels take .* GB, but .* has .* GB free"):
        opened(folder, cache=True)


def test_true_caches_whatever_the_size(folder):
    assert opened(folder, cache=True, cache_gb=1e-12).cache is not None


@pytest.mark.parametrize("cache", [True, False])
def test_pickling_does_not_carry_the_pixels(folder, cache):
    images = opened(folder, cache=cache, size=200)
    pixels = all_pixels(images)
    pickled = pickle.dumps(images)
    assert len(pickled) < 5_000 < pixels.nbytes
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(all_pixels(copy), pixels)


@pytest.mark.parametrize("cache", [True, False])
def test_progress_is_reported_image_by_image(folder, cache):
    seen = []
    paths = [folder / f"{name}.png" for name in NAMES]
    config = DataConfig(size=8, cache=cache)
    open_images(NAMES, paths, config, folder / "cache", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_no_images_are_an_empty_set(folder):
    images = opened(folder, [])
    assert len(images) == 0
    assert cached_files(folder) == []


def test_content_digest_is_the_same_wherever_the_folder_lies(tmp_path):
    digests = []
    for place in ("here", "there"):
        (tmp_path / place / "train").mkdir(parents=True)
        (tmp_path / place / "train" / "a.png").write_bytes(b"12345")
        digests.append(content_digest([tmp_path / place / "train" / "a.png"], tmp_path / place))
    assert digests[0] == digests[1]


def test_content_digest_sees_another_size_name_or_number_of_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "b.png").write_bytes(b"12345")
    (tmp_path / "c.png").write_bytes(b"123456")
    lists = [["a"], ["b"], ["c"], ["a", "b"], ["a", "a"], []]
    digests = {content_digest([tmp_path / f"{name}.png" for name in names], tmp_path) for names in lists}
    assert len(digests) == len(lists)


def spoil(path: Path, kind: str) -> Path:
    """Makes of an image a file that is none; gives the path to ask for."""
    if kind == "name too long":
        return path.with_name("x" * 300)
    if kind in BAD:
        Image.open(path).resize((200, 200)).save(path, format="JPEG")
        path.write_bytes(BAD[kind](path.read_bytes()))
        return path
    path.unlink()
    if kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("kind", [*BAD, "missing", "folder", "name too long"])
def test_what_can_be_read_is_told_from_what_cannot(folder, kind, cache):
    paths, config = [folder / f"{name}.png" for name in NAMES], DataConfig(size=8, cache=cache)
    paths[3] = spoil(paths[3], kind)
    readable = open_readable(NAMES, paths, config, folder / "cache")
    assert (readable.rows, list(readable.broken)) == ([0, 1, 2, 4], [3])
    assert readable.broken[3].startswith(f"{paths[3]} (")
    decoder = Decoder.of(config)
    for row in readable.rows:
        np.testing.assert_array_equal(readable.images[row], decoder(paths[row]))
    assert open_readable(NAMES[::-1], paths[::-1], config, folder / "cache").rows == [0, 2, 3, 4]
    none = open_readable(NAMES[3:4], paths[3:4], config, folder / "cache")
    assert (none.rows, list(none.broken)) == ([], [0])


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """The paths that are decoded, one by one in their order."""
    paths, decode = [], Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda *given: paths.append(given[1]) or decode(*given))
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    return paths


@pytest.mark.parametrize("broken", [True, False])
def test_the_pass_that_finds_broken_images_fills_the_cache(folder, decoded, broken):
    paths, config = [folder / f"{name}.png" for name in NAMES], DataConfig(size=8, cache=True)
    if broken:
        paths[3].unlink()
    readable = open_readable(NAMES, paths, config, folder / "cache")
    assert [readable.images[row].shape for row in readable.rows] == [(8, 8, 3)] * (4 if broken else 5)
    assert decoded == paths
    assert len(cached_files(folder)) == 1


def test_a_cache_with_gaps_is_not_taken_for_a_whole_one(folder):
    (folder / "d.png").write_bytes(b"")
    paths, config = [folder / f"{name}.png" for name in NAMES], DataConfig(size=8, cache=True)
    assert open_readable(NAMES, paths, config, folder / "cache").rows == [0, 1, 2, 4]
    with pytest.raises(KitError, match="1 of 5 images cannot be read"):
        opened(folder, cache=True)
    assert cached_files(folder) == []
    assert open_readable(NAMES, paths, config, folder / "cache").rows == [0, 1, 2, 4]


@pytest.mark.parametrize("cache", [True, False])
def test_what_is_known_to_be_readable_is_not_decoded_again(folder, decoded, cache):
    paths, config = [folder / f"{name}.png" for name in NAMES], DataConfig(size=8, cache=cache)
    open_readable(NAMES, paths, config, folder / "cache")
    readable = open_readable(NAMES, paths, config, folder / "cache")
    opened(folder, cache=cache)
    assert (readable.rows, readable.broken, decoded) == ([0, 1, 2, 3, 4], {}, paths)


@pytest.mark.parametrize("cache", [True, False])
def test_no_image_is_decoded_after_time(folder, decoded, cache):
    paths, config = [folder / f"{name}.png" for name in NAMES], DataConfig(size=8, cache=cache)
    paths[1].unlink()
    readable = open_readable(NAMES, paths, config, folder / "cache", expired=lambda: len(decoded) == 3)
    assert (readable.rows, list(readable.broken), decoded) == ([0, 2], [1], paths[:3])
    write_image(paths[1], seed=1)
    decoded.clear()
    late = open_readable(NAMES, paths, config, folder / "cache", expired=lambda: len(decoded) == 2)
    assert (late.rows, late.broken) == ([0, 1], {})
    assert open_readable(NAMES, paths, config, folder / "cache").rows == [0, 1, 2, 3, 4]


def test_of_no_images_none_can_be_read(folder):
    readable = open_readable([], [], DataConfig(size=8), folder / "cache")
    assert (len(readable.images), readable.rows, readable.broken) == (0, [], {})
