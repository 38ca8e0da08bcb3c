"""Every kind of image file, and several files as channels: pixels against arrays."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.refusals import refusal_of

from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder, open_image
from kit.data.images import content_digest, open_images, open_readable
from kit.data.sources import Channels, Member, files_key, files_of, in_container, missing_files

SIDE = 8


def decode(source, channels: int = 3, side: int = SIDE) -> np.ndarray:
    return Decoder(side, channels, "squash", "bicubic")(source)


def noise(*shape: int, seed: int = 0, top: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, path: Path, **options) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


# Formats and modes of one file.


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (SIDE, SIDE, 3)])
def test_a_format_without_loss_keeps_every_pixel(tmp_path, suffix, shape):
    written = noise(*shape)
    options = {"lossless": True} if suffix == "webp" else {}
    decoded = decode(saved(written, tmp_path / f"a.{suffix}", **options))
    np.testing.assert_array_equal(decoded, written if written.ndim == 3 else repeated(written))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_transparency_is_kept_or_composited_on_white(tmp_path, suffix):
    written = noise(SIDE, SIDE, 4)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    file = saved(written, tmp_path / f"a.{suffix}", **options)
    np.testing.assert_array_equal(decode(file, channels=4), written)
    assert abs(decode(file) - on_white(written[..., :3], written[..., 3])).max() <= 1


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_compressed_tiff(tmp_path, compression):
    written = noise(SIDE, SIDE, 3)
    np.testing.assert_array_equal(decode(saved(written, tmp_path / "a.tiff", compression=compression)), written)


def test_jpeg_is_near_what_was_written(tmp_path):
    smooth = np.tile(np.linspace(20, 230, SIDE).astype(np.uint8), (SIDE, 1))
    decoded = decode(saved(repeated(smooth), tmp_path / "a.jpg", quality=95))
    assert abs(decoded.astype(int) - repeated(smooth)).max() <= 6


def test_grey_jpeg_is_grey(tmp_path):
    decoded = decode(saved(np.full((SIDE, SIDE), 90, np.uint8), tmp_path / "a.jpg", quality=95))
    assert abs(decoded.astype(int) - 90).max() <= 2
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_cmyk_jpeg_has_its_colours(tmp_path):
    red = Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0))
    decoded = decode(saved(red, tmp_path / "a.jpg", quality=95))
    assert (decoded[..., 0] > 240).all()
    assert (decoded[..., 1:] < 15).all()


@pytest.mark.parametrize(("suffix", "mode"), [("png", "LA"), ("tif", "LA")])
def test_grey_with_transparency(tmp_path, suffix, mode):
    grey, alpha = noise(SIDE, SIDE), noise(SIDE, SIDE, seed=1)
    image = Image.merge(mode, [Image.fromarray(grey), Image.fromarray(alpha)])
    file = saved(image, tmp_path / f"a.{suffix}")
    expected = on_white(repeated(grey), alpha)
    assert abs(decode(file) - expected).max() <= 1
    np.testing.assert_array_equal(decode(file, channels=4)[..., 3], alpha)
    assert abs(decode(file, channels=1)[..., 0] - expected[..., 0]).max() <= 1


class TestPalettes:
    """A palette's numbers are no grey levels."""

    def palette(self, entries: int = 4) -> tuple[Image.Image, np.ndarray]:
        colours, indices = noise(entries, 3, seed=3), noise(SIDE, SIDE, top=entries)
        image = Image.fromarray(indices)
        image = image.convert("P") if image.mode != "L" else Image.frombytes("P", (SIDE, SIDE), indices.tobytes())
        image.putpalette(colours.ravel().tolist())
        return image, colours[indices]

    @pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp"])
    def test_become_their_colours(self, tmp_path, suffix):
        image, expected = self.palette()
        np.testing.assert_array_equal(decode(saved(image, tmp_path / f"a.{suffix}")), expected)

    def test_of_one_channel_become_grey_by_their_colours(self, tmp_path):
        image, expected = self.palette()
        grey = decode(saved(image, tmp_path / "a.png"), channels=1)[..., 0]
        assert abs(grey - expected @ [0.299, 0.587, 0.114]).max() <= 1

    def test_with_a_transparent_entry(self, tmp_path):
        image, expected = self.palette()
        decoded = decode(saved(image, tmp_path / "a.png", transparency=2), channels=4)
        indices = np.asarray(image)
        np.testing.assert_array_equal(decoded[..., 3], np.where(indices == 2, 0, 255))
        np.testing.assert_array_equal(decoded[..., :3], expected)

    def test_with_a_transparency_an_entry(self, tmp_path):
        image, _ = self.palette()
        decoded = decode(saved(image, tmp_path / "a.png", transparency=bytes([0, 80, 160, 255])), channels=4)
        np.testing.assert_array_equal(decoded[..., 3], np.array([0, 80, 160, 255])[np.asarray(image)])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_bit_is_black_and_white(tmp_path, suffix):
    white = noise(SIDE, SIDE) > 127
    for channels in (1, 3):
        decoded = decode(saved(Image.fromarray(white), tmp_path / f"a.{suffix}"), channels=channels)
        np.testing.assert_array_equal(decoded, np.stack([255 * white] * channels, axis=-1))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix, channels):
    deep = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    decoded = decode(saved(deep, tmp_path / f"a.{suffix}"), channels=channels)
    np.testing.assert_array_equal(decoded, np.stack([deep // 257] * channels, axis=-1))


def test_sixteen_bits_of_a_big_endian_tiff(tmp_path):
    deep = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    image = Image.frombytes("I;16B", (SIDE, SIDE), deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode(saved(image, tmp_path / "a.tif"), 1)[..., 0], deep // 257)


def test_thirty_two_bits_that_hold_sixteen(tmp_path):
    deep = np.linspace(0, 65535, SIDE * SIDE).astype(np.int32).reshape(SIDE, SIDE)
    np.testing.assert_array_equal(decode(saved(deep, tmp_path / "a.tif"), 1)[..., 0], deep // 257)


@pytest.mark.parametrize("level", [-1, 65536, 2**31 - 1])
def test_thirty_two_bits_beyond_sixteen_are_refused(tmp_path, level):
    file = saved(np.full((SIDE, SIDE), level, np.int32), tmp_path / "a.tif")
    with pytest.raises(DecodeError, match=r"^grey levels beyond 16 bits; state data.levels: "):
        decode(file)


def test_floating_point_is_refused(tmp_path):
    file = saved(np.full((SIDE, SIDE), 0.5, np.float32), tmp_path / "a.tif")
    with pytest.raises(DecodeError, match=r"^pixels are floating-point numbers; state data.levels: "):
        decode(file)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_photo_on_its_side_is_turned_upright(tmp_path, suffix):
    stored, exif = np.zeros((32, 64, 3), np.uint8), Image.Exif()
    stored[:, :32] = 250  # its left half is the top
    exif[0x0112] = 6
    file = saved(stored, tmp_path / f"a.{suffix}", exif=exif)
    decoded = decode(file, side=16)[..., 0]
    assert (decoded[:6] > 200).all()
    assert (decoded[-6:] < 50).all()


def test_images_of_any_size_become_squares(tmp_path):
    for size in ((1, 1), (1, 50), (300, 7), (9, 9)):
        file = saved(np.full((*size, 3), 77, np.uint8), tmp_path / f"{size}.png")
        np.testing.assert_array_equal(decode(file), np.full((SIDE, SIDE, 3), 77))


# Several files as channels.


def channels_of(folder: Path, *images: Image.Image | np.ndarray) -> Channels:
    return Channels(tuple(saved(image, folder / f"c{place}.png") for place, image in enumerate(images)))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_grey_files_are_channels_in_their_order(tmp_path, count):
    planes = [noise(SIDE, SIDE, seed=place) for place in range(count)]
    decoded = decode(channels_of(tmp_path, *planes), channels=count)
    np.testing.assert_array_equal(decoded, np.stack(planes, axis=-1))


def test_a_coloured_file_is_as_bright_as_its_brightest_colour(tmp_path):
    level = noise(SIDE, SIDE)
    black = np.zeros_like(level)
    red, green = np.stack([level, black, black], axis=-1), np.stack([black, level, black], axis=-1)
    alpha = noise(SIDE, SIDE, 1)
    decoded = decode(channels_of(tmp_path, red, green, level, np.concatenate([green, alpha], axis=-1)), channels=4)
    np.testing.assert_array_equal(decoded[..., :3], np.stack([level] * 3, axis=-1))
    assert abs(decoded[..., 3] - on_white(green, alpha[..., 0]).max(axis=-1)).max() <= 1


def test_channels_may_be_deep_or_have_a_palette(tmp_path):
    deep = np.linspace(0, 65535, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    palette = Image.new("P", (SIDE, SIDE), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    decoded = decode(channels_of(tmp_path, deep, palette, noise(SIDE, SIDE) > 127), channels=3)
    np.testing.assert_array_equal(decoded[..., 0], deep // 257)
    assert (decoded[..., 1] == 200).all()
    np.testing.assert_array_equal(decoded[..., 2], 255 * (noise(SIDE, SIDE) > 127))


def test_channels_are_resized_alike(tmp_path):
    plane = noise(20, 30)
    decoded = decode(channels_of(tmp_path, plane, plane), channels=2)
    expected = Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decoded, np.stack([np.asarray(expected)] * 2, axis=-1))


@pytest.mark.parametrize("shape", [(8, 16), (1, 8), (16, 16)])
def test_channels_of_different_sizes_are_refused(tmp_path, shape):
    source = channels_of(tmp_path, noise(8, 8), noise(*shape))
    said = rf"^channels of different sizes: 8 × 8, {shape[1]} × {shape[0]}$"
    with pytest.raises(DecodeError, match=said):
        decode(source, channels=2)
    with pytest.raises(DecodeError, match=said):
        open_image(source)


def test_the_picture_of_channels_is_their_mean(tmp_path):
    planes = [noise(4, 6, seed=place) for place in range(3)]
    image = open_image(channels_of(tmp_path, *planes))
    assert (image.mode, image.size) == ("L", (6, 4))
    np.testing.assert_array_equal(np.asarray(image), np.mean(planes, axis=0).astype(np.uint8))


def test_a_broken_channel_makes_the_image_unreadable_and_no_other(tmp_path):
    sources = [channels_of(tmp_path / name, noise(SIDE, SIDE), noise(SIDE, SIDE)) for name in "abc"]
    sources[1].files[1].write_bytes(b"no image")
    config = DataConfig(size=SIDE, channels=2)
    readable = open_readable(list("abc"), sources, config, tmp_path / "cache")
    assert (readable.rows, readable.broken) == ([0, 2], {1: f"{sources[1].files[0]} and 1 more (no image)"})
    assert refusal_of(open_images, list("abc"), sources, config, tmp_path / "cache").startswith(
        f"1 of 3 images cannot be read: {sources[1].files[0]} and 1 more (no image)"
    )


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_the_cache_is_another_when_any_channel_changes(tmp_path, changed):
    source = channels_of(tmp_path, *(noise(SIDE, SIDE, seed=place) for place in range(3)))
    before, config = files_key([source]), DataConfig(size=SIDE, augment="none")
    first = open_images(["a"], [source], config, tmp_path / "cache")[0].copy()
    saved(255 - noise(SIDE, SIDE, seed=changed), source.files[changed])
    os.utime(source.files[changed], ns=(1, 1))
    assert files_key([source]) != before
    again = open_images(["a"], [source], config, tmp_path / "cache")[0]
    assert [bool((again[..., place] == first[..., place]).all()) for place in range(3)] == [
        place != changed for place in range(3)
    ]


def test_channels_in_another_order_are_another_image(tmp_path):
    source = channels_of(tmp_path, noise(4, 4), noise(4, 4, seed=1))
    turned = Channels(source.files[::-1])
    assert files_key([source]) != files_key([turned])
    assert content_digest([source], tmp_path) != content_digest([turned], tmp_path)


def test_digests_of_files_are_those_of_earlier_runs(tmp_path):
    (tmp_path / "train").mkdir()
    files = [tmp_path / "train" / name for name in ("a.png", "b.png", "c.png")]
    for place, file in enumerate(files):
        file.write_bytes(b"x" * place)
    assert content_digest(files, tmp_path) == "6654e610e71f4e75"
    assert content_digest([Channels(tuple(files))], tmp_path) == "6654e610e71f4e75"


def test_files_as_channels_are_other_images_than_one_by_one(tmp_path):
    files = channels_of(tmp_path, *(noise(4, 4, seed=place) for place in range(4))).files
    pairs = [Channels(files[:2]), Channels(files[2:])]
    assert len({files_key(files), files_key(pairs), files_key([Channels(files)])}) == 3


def test_files_that_are_missing_are_named_once(tmp_path):
    source = channels_of(tmp_path, noise(4, 4), noise(4, 4))
    source.files[1].unlink()
    assert files_of(source) == source.files
    assert missing_files([source, source, tmp_path / "no.png", source.files[0]]) == [
        source.files[1],
        tmp_path / "no.png",
    ]


class TestManyFilesOfAFolder:
    """They are looked up in one listing of it; what is there is what is there one by one."""

    def test_are_looked_up_without_a_call_each(self, tmp_path, monkeypatch):
        folders = [tmp_path / name for name in ("a", "b")]
        there = [folder / f"{at}.png" for folder in folders for at in range(100)]
        for file in there:
            file.parent.mkdir(exist_ok=True)
            file.touch()
        asked, listed = [], []
        scandir = os.scandir
        monkeypatch.setattr(Path, "is_file", lambda self: asked.append(self) or os.path.isfile(self))
        monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
        gone = [folders[0] / "gone.png", folders[1] / "gone.png"]
        assert missing_files([*there, *gone, *there]) == gone
        assert listed == [str(folder) for folder in folders]
        assert asked == gone  # a disk may take other letters than it lists

    def test_a_link_to_a_file_is_one_and_a_folder_and_a_link_to_nothing_are_none(self, tmp_path):
        files = [tmp_path / f"{at:02}.png" for at in range(60)]
        for file in files[3:]:
            file.touch()
        files[0].symlink_to(files[5])
        files[1].symlink_to(tmp_path / "nothing")
        files[2].mkdir()
        assert missing_files(files) == files[1:3]

    def test_where_a_disk_does_not_tell_letters_apart(self, tmp_path, monkeypatch):
        files = [tmp_path / f"A{at:02}.png" for at in range(60)]
        for file in files:
            file.with_name(file.name.lower()).touch()
        monkeypatch.setattr(Path, "is_file", lambda self: os.path.isfile(self.with_name(self.name.lower())))
        assert missing_files(files) == []

    @pytest.mark.parametrize("beginning", ["", "./sub/../", "sub/"])
    def test_by_a_path_in_whatever_form(self, tmp_path, monkeypatch, beginning):
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path)
        files = [Path(f"{beginning}{at}.png") for at in range(60)]
        for file in files[1:]:
            file.touch()
        assert missing_files(files) == files[:1]

    def test_a_folder_that_cannot_be_listed_or_is_none(self, tmp_path, monkeypatch):
        def refused(folder):
            raise PermissionError(13, "Permission denied", folder)

        files = [tmp_path / f"{at}.png" for at in range(60)]
        for file in files[1:]:
            file.touch()
        gone = [tmp_path / f"none/{at}.png" for at in range(60)]
        monkeypatch.setattr(os, "scandir", refused)
        assert missing_files(files + gone) == files[:1] + gone


def test_a_path_that_leads_into_a_file_is_an_image_in_it(tmp_path):
    (tmp_path / "data/plain").mkdir(parents=True)
    (tmp_path / "data/all.h5").write_bytes(b"x")
    (tmp_path / "data/plain/one.png").touch()
    paths = [tmp_path / "data" / name for name in ("all.h5/a", "all.h5/deep/b", "plain/one.png", "gone/two.png")]
    inner, deep, plain, gone = in_container(paths, tmp_path / "data")
    assert (inner, deep) == (Member(tmp_path / "data/all.h5", "a"), Member(tmp_path / "data/all.h5", "deep/b"))
    assert (plain, gone) == (paths[2], paths[3])
    assert (inner.path, str(deep)) == (paths[0], str(paths[1]))
    assert missing_files([inner, deep, plain, gone]) == [paths[3]]
    # Nothing above the competition's folder is looked at, even if that were a file.
    assert in_container([tmp_path / "data/one.png"], tmp_path / "data") == [tmp_path / "data/one.png"]


def test_images_in_a_file_are_told_apart_by_their_names_and_the_file(tmp_path):
    (tmp_path / "all.h5").write_bytes(b"x")
    first, second = (Member(tmp_path / "all.h5", name) for name in "ab")
    keys = {files_key(images) for images in ([first], [second], [first, second], [second, first])}
    assert len(keys) == 4
    before = files_key([first])
    assert files_key([first]) == before
    (tmp_path / "all.h5").write_bytes(b"xy")
    assert files_key([first]) != before
    assert files_key([tmp_path / "all.h5"]) not in {before, files_key([first])}


def test_an_image_in_a_file_needs_a_decoder_that_finds_it(tmp_path):
    (tmp_path / "all.h5").write_bytes(b"x")
    with pytest.raises(DecodeError, match=r"all\.h5 is a file; data\.decoder has to name code of yours"):
        decode(Member(tmp_path / "all.h5", "a"))
