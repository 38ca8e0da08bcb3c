"""`decode: fast`: the pixels of full decoding but for less than a grey level on average, the same errors."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from kit.core.zips import zip_directory
from kit.data import decode
from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder, open_image, reading_settings
from kit.data.images import ImageSet, cache_key, open_images
from kit.data.jpeg import jpeg_pixels, part_of
from kit.data.reading import Reading
from kit.data.resizing import Resizing, inner_size, middle_square, resized_by_torch
from kit.data.sources import Channels

METHODS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
PHOTOS = [Image.fromarray(pixels) for pixels in load_sample_images().images]  # 640 × 427


def fast(side: int = 16, channels: int = 3, resize: str = "squash", interpolation: str = "bicubic") -> Decoder:
    return Decoder(side, channels, resize, interpolation, Reading(fast=True, keeps_alpha=channels == 4))


def usual(side: int = 16, channels: int = 3, resize: str = "squash", interpolation: str = "bicubic") -> Decoder:
    return Decoder(side, channels, resize, interpolation, Reading(keeps_alpha=channels == 4))


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    """Noise that no filter overshoots: where values are clipped, it matters whether rows or columns come first."""
    return np.random.default_rng(seed).integers(64, 192, (height, width, *channels), dtype=np.uint8)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    assert one.shape == other.shape
    return abs(one.astype(int) - other.astype(int))


def by_hand(path: Path, side: int, resize: str, method: Image.Resampling) -> np.ndarray:
    """All pixels of a file, resized by Pillow."""
    image = ImageOps.exif_transpose(Image.open(path))
    square = (side, side)
    if resize == "crop":
        return np.asarray(ImageOps.fit(image, square, method))
    return np.asarray(ImageOps.pad(image, square, method) if resize == "pad" else image.resize(square, method))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("interpolation", METHODS)
@pytest.mark.parametrize("size", [(640, 427), (640, 424), (424, 640), (320, 212)])
@pytest.mark.parametrize("side", [24, 50, 105, 224])
def test_photos_are_within_a_grey_level_of_full_decoding(tmp_path, size, side, resize, interpolation):
    for number, photo in enumerate(PHOTOS):
        turned = photo if size[0] > size[1] else photo.transpose(Image.Transpose.ROTATE_90)
        path = saved(turned.resize(size), tmp_path / f"{number}.jpg", quality=90)
        full = by_hand(path, side, resize, METHODS[interpolation])
        decoded = fast(side, 3, resize, interpolation)(path)
        assert difference(decoded, full).mean() < 1
        np.testing.assert_array_equal(fast(side, 3, resize, interpolation).again(path), decoded)


def test_sizes_that_a_part_does_not_divide_are_nearer_than_with_usual_decoding(tmp_path):
    path = saved(PHOTOS[0], tmp_path / "a.jpg", quality=90)  # 427 lines, of which 1/4 is 106.75
    full = by_hand(path, 50, "squash", METHODS["bicubic"])
    assert difference(usual(50)(path), full).mean() > 1 > difference(fast(50)(path), full).mean()


@pytest.mark.parametrize(
    ("size", "least", "part"),
    [
        ((800, 800), 100, 8),
        ((800, 800), 101, 4),
        ((900, 799), 100, 4),
        ((801, 800), 100, 8),
        ((1600, 200), 100, 2),
        ((1600, 199), 100, 1),
        ((199, 199), 100, 1),
        ((8, 8), 1, 8),
    ],
)
def test_the_part_of_a_size(size, least, part):
    assert part_of(size, least) == part_of(size[::-1], least) == part


def test_a_large_jpeg_is_decoded_at_the_part(tmp_path, monkeypatch):
    seen = []
    resize = Resizing._resized
    monkeypatch.setattr(
        Resizing,
        "_resized",
        lambda self, picture, *how: (
            seen.append(picture.shape if isinstance(picture, np.ndarray) else picture.size)
            or resize(self, picture, *how)
        ),
    )
    path = saved(PHOTOS[0], tmp_path / "a.jpg")
    for read in (fast(50), fast(50).again, fast(50, interpolation="nearest").again, fast(150), fast(150).again):
        read(path)
    assert seen == [(160, 107), (160, 107), (640, 427), (640, 427), (427, 640, 3)]


# Resizing


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    to=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    colour=st.booleans(),
    interpolation=st.sampled_from(list(METHODS)),
    seed=st.integers(0, 99),
)
def test_torch_resizes_as_pillow_does(size, to, colour, interpolation, seed):
    pixels = noise(size[1], size[0], *([3] if colour else []), seed=seed)
    before = pixels.copy()
    resized = resized_by_torch(pixels, to, interpolation)
    by_pillow = np.asarray(Image.fromarray(pixels).resize(to, METHODS[interpolation]))
    assert resized.dtype == np.uint8
    assert difference(resized, by_pillow).max() <= 2
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("interpolation", METHODS)
def test_of_photos_hardly_a_value_differs(interpolation):
    for photo in PHOTOS:
        resized = resized_by_torch(np.array(photo), (224, 224), interpolation)
        assert difference(resized, np.asarray(photo.resize((224, 224), METHODS[interpolation]))).mean() < 0.02


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(2, 64), st.sampled_from(["RGB", "L", "RGBA"]))
def test_usual_resizing_is_that_of_pillow(width, height, side, mode):
    image = Image.fromarray(noise(height, width, 4)).convert(mode)
    method, square = Image.Resampling.BILINEAR, (side, side)
    cropped = np.asarray(ImageOps.fit(image, square, method))
    np.testing.assert_array_equal(Resizing(side, "crop", "bilinear")(image), cropped)
    if 0 not in inner_size(image.size, side):
        padded = np.asarray(ImageOps.pad(image, square, method))
        np.testing.assert_array_equal(Resizing(side, "pad", "bilinear")(image), padded)
    squashed = np.asarray(image.resize(square, method))
    np.testing.assert_array_equal(Resizing(side, "squash", "bilinear")(image), squashed)


def test_a_middle_square_is_resized_by_itself(tmp_path):
    path = saved(Image.fromarray(noise(20, 34, 3)), tmp_path / "a.png")
    expected = resized_by_torch(noise(20, 34, 3)[:, 7:27].copy(), (16, 16), "bicubic")
    np.testing.assert_array_equal(fast(16, 3, "crop")(path), expected)
    odd = saved(Image.fromarray(noise(20, 33, 3)), tmp_path / "b.png")
    np.testing.assert_array_equal(fast(16, 3, "crop")(odd), usual(16, 3, "crop")(odd))


def test_the_middle_square_may_begin_amid_a_pixel():
    assert middle_square((7, 4)) == (1.5, 0, 5.5, 4)
    assert middle_square((4, 8)) == (0, 2, 4, 6)


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("shape", [(20, 33), (20, 34), (33, 20), (16, 16), (900, 3), (1, 1)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("format", ["png", "jpg"])
def test_small_files_of_all_kinds(tmp_path, format, mode, shape, resize):
    if (format, mode) == ("jpg", "RGBA"):
        mode = "CMYK"
    path = saved(Image.fromarray(noise(*shape, 4)).convert(mode), tmp_path / f"a.{format}")
    for channels in (1, 3, 4, 2):
        for interpolation in ("bicubic", "nearest"):
            noticed, here = set(), set()
            expected = usual(16, channels, resize, interpolation)(path, noticed.add)
            decoded = fast(16, channels, resize, interpolation)(path, here.add)
            np.testing.assert_array_equal(fast(16, channels, resize, interpolation).again(path), decoded)
            assert difference(decoded, expected).max() <= (0 if interpolation == "nearest" else 2)
            assert here == noticed


# Reading


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (1, 1), (8, 90)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_pixels_of_a_jpeg_are_those_of_pillow(tmp_path, options, mode, size):
    path = saved(PHOTOS[1].resize(size).convert(mode), tmp_path / "a.jpg", **options)
    pixels = jpeg_pixels(path, mode, lambda size: True)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(path)))


def test_a_jpeg_of_red_green_and_blue(tmp_path):
    path = saved(PHOTOS[0].resize((40, 30)), tmp_path / "a.jpg", keep_rgb=True)
    np.testing.assert_array_equal(jpeg_pixels(path, "RGB", lambda size: True), np.asarray(Image.open(path)))


def test_what_pillow_has_to_read(tmp_path):
    photo, exif = PHOTOS[0].resize((40, 30)), Image.Exif()
    exif[0x0112] = 6
    whole = saved(photo, tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-20])
    others = [
        saved(photo.convert("CMYK"), tmp_path / "cmyk.jpg"),
        saved(photo.convert("L"), tmp_path / "grey.jpg"),
        saved(photo, tmp_path / "a.png"),
        saved(photo, tmp_path / "turned.jpg", exif=exif),
        tmp_path / "cut.jpg",
        tmp_path / "missing.jpg",
    ]
    assert [jpeg_pixels(path, "RGB", lambda size: True) for path in others] == [None] * 6
    asked = []
    assert jpeg_pixels(whole, "RGB", lambda size: asked.append(size)) is None
    assert asked == [(40, 30)]


@pytest.mark.parametrize("size", [(640, 427), (640, 424), (424, 640)])
def test_a_photo_that_lies_on_its_side(tmp_path, size):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(PHOTOS[0].resize(size), tmp_path / "a.jpg", exif=exif, quality=90)
    for resize in ("squash", "crop", "pad"):
        full = by_hand(path, 60, resize, METHODS["bicubic"])
        assert difference(fast(60, 3, resize)(path), full).mean() < 1


def test_a_jpeg_inside_a_zip_and_channels_of_several(tmp_path):
    path = saved(PHOTOS[0].resize((40, 30)), tmp_path / "a.jpg")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(path, "a.jpg")
    member = zip_directory(tmp_path / "all.zip", "image").member("a.jpg")
    np.testing.assert_array_equal(fast()(member), fast()(path))
    np.testing.assert_array_equal(fast().again(member), fast()(path))
    grey = saved(PHOTOS[1].resize((40, 30)).convert("L"), tmp_path / "b.jpg")
    both = Channels((grey, grey))
    assert difference(fast(16, 2)(both), usual(16, 2)(both)).max() <= 2


def error_of(decoder: Callable[[Path], np.ndarray], path: Path) -> str | np.ndarray:
    try:
        return decoder(path)
    except DecodeError as error:
        return str(error)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8\xff", bytes(1000)])
def test_what_is_no_image_is_said_as_usual(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    said = error_of(fast(), tmp_path / "a.jpg")
    assert isinstance(said, str)
    assert said == error_of(usual(), tmp_path / "a.jpg")


def test_a_truncated_jpeg_and_one_that_is_too_large_are_said_as_usual(tmp_path):
    path = saved(PHOTOS[0].resize((40, 30)), tmp_path / "a.jpg")
    limited = Decoder(16, 3, "squash", "bicubic", Reading(fast=True, megapixels=0.001))
    try:
        assert error_of(limited, path) == "0.0012 megapixels, more than data.megapixels = 0.001"
    finally:
        Reading().set_limits()
    path.write_bytes(path.read_bytes()[:-100])
    assert error_of(fast(), path) == error_of(fast().again, path) == error_of(usual(), path) == "truncated"


@settings(deadline=None, max_examples=150, derandomize=True)
@given(place=st.floats(0, 1), byte=st.integers(0, 255), cut=st.floats(0, 1) | st.none())
def test_damage_is_found_where_it_is_found_usually(tmp_path_factory, place, byte, cut):
    content = bytearray(JPEG)
    content[int(place * (len(content) - 1))] = byte
    path = tmp_path_factory.mktemp("damaged") / "a.jpg"
    path.write_bytes(content[: int(cut * len(content))] if cut is not None else content)
    expected, seen = error_of(usual(), path), error_of(fast(), path)
    if isinstance(expected, str):
        assert seen == expected
    else:
        assert difference(seen, expected).mean() < 1


def jpeg() -> bytes:
    content = io.BytesIO()
    PHOTOS[0].resize((40, 31)).save(content, "JPEG")
    return content.getvalue()


JPEG = jpeg()


def test_a_jpeg_is_whole_once_it_is_read(tmp_path):
    path = saved(PHOTOS[0].resize((40, 30)), tmp_path / "a.jpg")
    expected, image = np.asarray(Image.open(path)), open_image(path)
    path.unlink()
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_images_without_a_cache_are_read_by_pillow_once_and_then_fast(tmp_path, monkeypatch):
    path = saved(PHOTOS[0].resize((40, 30)), tmp_path / "a.jpg")
    read = []
    monkeypatch.setattr(decode, "jpeg_pixels", lambda *about: read.append(path) or jpeg_pixels(*about))
    images = open_images(["a"], [path], DataConfig(size=16, decode="fast", cache=False), tmp_path / "cache")
    assert read == []
    np.testing.assert_array_equal(images[0], fast()(path))
    assert read == [path]


# Caches


def test_caches_know_the_decoding_and_those_of_usual_decoding_are_still_good(tmp_path):
    path = saved(PHOTOS[0].resize((40, 30)), tmp_path / "a.jpg")
    decoders = [Decoder.of(DataConfig(size=16, decode=how)) for how in ("pillow", "fast")]
    plain = {"side": 16, "channels": 3, "resize": "squash", "interpolation": "bicubic"}
    assert [decoder.settings() for decoder in decoders] == [plain, plain | {"decode": "fast"}]
    keys = {cache_key(ImageSet(["a"], [path], decoder)) for decoder in decoders}
    assert len(keys) == 2
    assert reading_settings(decoders[1].reading) == {}  # hashes of images are of all pixels, whoever resizes them
