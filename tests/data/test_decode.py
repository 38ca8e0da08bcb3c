"""Files → pixels, against arrays that were written and against PIL done by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder
from kit.data.resizing import Resizing

METHODS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def decode(path: Path, side: int = 8, channels: int = 3, resize: str = "squash", interpolation: str = "bicubic"):
    return Decoder(side, channels, resize, interpolation)(path)


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def saved(pixels: np.ndarray, path: Path, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 8)), (3, (8, 8, 3)), (4, (8, 8, 4))])
def test_png_of_native_size_keeps_every_pixel(tmp_path, channels, shape, resize):
    written = noise(*shape)
    decoded = decode(saved(written, tmp_path / "a.png"), channels=channels, resize=resize)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, written.reshape(8, 8, channels))


UPRIGHT = {  # EXIF orientation → how the stored pixels are turned to stand upright (EXIF 2.32, tag 0x0112)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(tmp_path, orientation):
    stored, exif = noise(8, 8, 3), Image.Exif()
    exif[0x0112] = orientation
    path = saved(stored, tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode(path), UPRIGHT[orientation](stored))


def test_exif_orientation_is_applied_before_a_photo_is_cropped(tmp_path):
    stored, exif = np.zeros((300, 600, 3), dtype=np.uint8), Image.Exif()
    stored[:, :300] = 255  # lying on its side: the left half of the file is the top of the photo
    exif[0x0112] = 6
    path = saved(stored, tmp_path / "a.jpg", exif=exif, quality=95)
    white = decode(path, 16, resize="crop")[..., 0] > 127
    np.testing.assert_array_equal(white, np.arange(16)[:, None].repeat(16, axis=1) < 8)


def test_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((3, 1), 1)
    image.save(tmp_path / "a.png")
    decoded = decode(tmp_path / "a.png")
    assert decoded[1, 3].tolist() == [200, 100, 50]
    assert (np.delete(decoded.reshape(64, 3), 11, axis=0) == [10, 20, 30]).all()


def test_transparent_entry_of_a_palette_has_alpha_0(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png", transparency=1)
    decoded = decode(tmp_path / "a.png", channels=4)
    assert decoded[0, 0].tolist() == [10, 20, 30, 255]
    assert decoded[5, 5].tolist() == [200, 100, 50, 0]


def test_grey_is_repeated_in_colour_channels_and_opaque(tmp_path):
    grey = noise(8, 8)
    path = saved(grey, tmp_path / "a.png")
    np.testing.assert_array_equal(decode(path), np.stack([grey] * 3, axis=-1))
    opaque = np.full_like(grey, 255)
    np.testing.assert_array_equal(decode(path, channels=4), np.stack([grey, grey, grey, opaque], axis=-1))


def test_black_and_white_becomes_0_and_255(tmp_path):
    white = noise(8, 8) > 127
    np.testing.assert_array_equal(decode(saved(white, tmp_path / "a.png"), channels=1)[..., 0], 255 * white)


def test_alpha_is_composited_on_white_for_three_channels(tmp_path):
    written = noise(8, 8, 4)
    alpha = written[..., 3:] / 255
    expected = written[..., :3] * alpha + 255 * (1 - alpha)
    assert abs(decode(saved(written, tmp_path / "a.png")) - expected).max() <= 1


def test_colour_becomes_grey_by_its_luma(tmp_path):
    written = noise(8, 8, 3)
    luma = written @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert abs(decode(saved(written, tmp_path / "a.png"), channels=1)[..., 0] - luma).max() <= 1


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    decoded = decode(saved(grey, tmp_path / "a.png"), channels=1)[..., 0].astype(int)
    assert abs(decoded - grey / 257).max() <= 1


@pytest.mark.parametrize("interpolation", METHODS)
@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (5, 9)])
def test_squash_is_a_plain_resize(tmp_path, height, width, interpolation):
    path = saved(noise(height, width, 3), tmp_path / "a.png")
    by_hand = Image.open(path).resize((12, 12), METHODS[interpolation])
    np.testing.assert_array_equal(decode(path, 12, interpolation=interpolation), np.asarray(by_hand))


@pytest.mark.parametrize("interpolation", METHODS)
@pytest.mark.parametrize(("height", "width"), [(20, 30), (31, 20), (5, 9)])
def test_crop_is_the_middle_square_resized(tmp_path, height, width, interpolation):
    path = saved(noise(height, width, 3), tmp_path / "a.png")
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    by_hand = Image.open(path).resize((12, 12), METHODS[interpolation], box)
    decoded = decode(path, 12, resize="crop", interpolation=interpolation)
    np.testing.assert_array_equal(decoded, np.asarray(by_hand))


@pytest.mark.parametrize("interpolation", METHODS)
@pytest.mark.parametrize(
    ("height", "width", "inner"), [(20, 30, (12, 8)), (30, 20, (8, 12)), (3, 9, (12, 4)), (12, 12, (12, 12))]
)
def test_pad_is_the_whole_image_between_black_bars(tmp_path, height, width, inner, interpolation):
    path = saved(noise(height, width, 3), tmp_path / "a.png")
    by_hand = Image.new("RGB", (12, 12))
    by_hand.paste(
        Image.open(path).resize(inner, METHODS[interpolation]), ((12 - inner[0]) // 2, (12 - inner[1]) // 2)
    )
    decoded = decode(path, 12, resize="pad", interpolation=interpolation)
    np.testing.assert_array_equal(decoded, np.asarray(by_hand))


@pytest.mark.parametrize(
    ("resize", "columns"),
    [("squash", "RRRRGGGGBBBB"), ("crop", "GGGGGGGGGGGG"), ("pad", "RRRRGGGGBBBB")],
)
def test_resize_modes_on_a_wide_flag(tmp_path, resize, columns):
    flag = np.zeros((12, 36, 3), dtype=np.uint8)
    for third in range(3):
        flag[:, 12 * third : 12 * (third + 1), third] = 255
    decoded = decode(saved(flag, tmp_path / "a.png"), 12, resize=resize, interpolation="nearest")
    assert "".join("RGB"[channel] for channel in decoded[6].argmax(axis=-1)) == columns
    bars = 4 if resize == "pad" else 0
    assert (decoded.max(axis=(1, 2)) == 0).tolist() == [True] * bars + [False] * (12 - 2 * bars) + [True] * bars


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A JPEG of 1200 × 800: soft blobs with some grain."""
    blobs = Image.fromarray(noise(32, 48, 3)).resize((1200, 800), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(1).integers(-25, 26, (800, 1200, 3))
    pixels = np.clip(np.asarray(blobs).astype(int) + grain, 0, 255).astype(np.uint8)
    return saved(pixels, tmp_path_factory.mktemp("photo") / "a.jpg", quality=92)


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("side", [40, 100, 300, 500])
def test_large_jpeg_decoded_at_a_fraction_looks_like_full_decoding(photo, resize, side):
    full = Resizing(side, resize, "bicubic")(Image.open(photo).convert("RGB"))
    difference = abs(decode(photo, side, resize=resize).astype(int) - full.astype(int))
    assert difference.mean() < 1.2
    assert difference.max() <= 8


def test_large_jpeg_is_not_decoded_whole_for_a_small_side(photo, monkeypatch):
    decoded = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, *how: decoded.append(image.size) or resize(image, *how)
    )
    decode(photo, 40)
    assert decoded == [(150, 100)]  # an eighth, and still more than twice 40


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_truncated_file_is_a_decode_error(tmp_path, format, share):
    path = saved(noise(40, 40, 3), tmp_path / "whole", format=format)
    data = path.read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    assert decode(path, 40).shape == (40, 40, 3)
    with pytest.raises(DecodeError):
        decode(tmp_path / "cut", 40)


def test_truncated_jpeg_is_called_truncated(tmp_path):
    path = saved(noise(40, 40, 3), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DecodeError, match=r"^truncated$"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"id,label\n1,red\n", b"<html>404</html>", bytes(1000)])
def test_file_without_an_image_is_a_decode_error(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DecodeError, match=r"^no image$"):
        decode(tmp_path / "a.png")


def test_missing_file_is_a_decode_error(tmp_path):
    with pytest.raises(DecodeError):
        decode(tmp_path / "a.png")


def test_decoder_of_a_config_keeps_images_at_size_over_crop_pct():
    config = DataConfig(size=224, crop_pct=0.875, channels=1, resize="crop", interpolation="bilinear")
    assert Decoder.of(config) == Decoder(256, 1, "crop", "bilinear")
