"""What is beside the pixels of a file does not spoil them: EXIF blocks, limits, backgrounds, thin sides."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydantic import ValidationError
from support.pictures import exif_block, write_png

from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder, open_image
from kit.data.images import open_readable
from kit.data.reading import Reading, shortened
from kit.data.sources import Channels


def decode(path: Path, side: int = 8, **options) -> np.ndarray:
    return Decoder.of(DataConfig(size=side, interpolation="nearest", **options))(path)


@pytest.fixture(autouse=True)
def _pillow_as_it_was():
    """Its limits are those of the process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of broken EXIF blocks
        yield
    Reading().set_limits()


# Orientation.

SIDEWAYS = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
AFTER_TWO = struct.pack("<I", 8 + 2 + 2 * 12 + 4)  # where values begin behind a table of two entries
AFTER_ONE = struct.pack("<I", 8 + 2 + 12 + 4)
TURNED = {
    "alone": exif_block(SIDEWAYS),
    "as a long number": exif_block((0x0112, 4, 1, struct.pack("<I", 6))),
    "beside a resolution as text": exif_block(SIDEWAYS, (0x011A, 2, 3, b"72\0\0")),
    "beside an exposure bias of -2/0": exif_block(
        SIDEWAYS, (0x9204, 10, 1, AFTER_TWO), values=struct.pack("<ii", -2, 0)
    ),
    "beside a maker note that is cut": exif_block(SIDEWAYS, (0x927C, 7, 100, AFTER_TWO), values=b"x" * 10),
    "beside a table elsewhere": exif_block(SIDEWAYS, (0x8769, 4, 1, struct.pack("<I", 99_999))),
    "beside a table that is this one": exif_block(SIDEWAYS, (0x8769, 4, 1, struct.pack("<I", 8))),
    "beside a cut entry": exif_block(SIDEWAYS, SIDEWAYS)[:-10],
}
AS_STORED = {
    "as text": exif_block((0x0112, 2, 2, b"6\0\0\0")),
    "as a fraction": exif_block((0x0112, 5, 1, AFTER_ONE), values=struct.pack("<II", 6, 1)),
    "9": exif_block((0x0112, 3, 1, struct.pack("<HH", 9, 0))),
    "0": exif_block((0x0112, 3, 1, struct.pack("<HH", 0, 0))),
    "no block": b"Exif\0\0garbage garbage",
    "an empty block": b"Exif\0\0",
    "a cut block": b"Exif\0\0II*\0",
}
LEFT_IS_WHITE = np.repeat(np.array([255, 0], np.uint8), 16)[None].repeat(16, axis=0)
UPRIGHT = np.repeat(np.array([True, False]), 4)[:, None].repeat(8, axis=1)  # its left side is the top


def sideways(path: Path, exif: bytes) -> np.ndarray:
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(LEFT_IS_WHITE).convert("RGB").save(path, exif=exif, **options)
    return decode(path)[..., 0] > 127


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", TURNED)
def test_orientation_is_read_whatever_is_beside_it(tmp_path, exif, ending):
    np.testing.assert_array_equal(sideways(tmp_path / f"a.{ending}", TURNED[exif]), UPRIGHT)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", AS_STORED)
def test_an_orientation_that_is_none_is_left(tmp_path, exif, ending):
    np.testing.assert_array_equal(sideways(tmp_path / f"a.{ending}", AS_STORED[exif]), UPRIGHT.T)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_orientation_in_xmp(tmp_path, ending):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp.decode())
    options = {"pnginfo": text} if ending == "png" else {"xmp": xmp}
    image = Image.fromarray(LEFT_IS_WHITE).convert("RGB")
    image.save(tmp_path / f"a.{ending}", **options, **({"lossless": True} if ending == "webp" else {}))
    np.testing.assert_array_equal(decode(tmp_path / f"a.{ending}")[..., 0] > 127, UPRIGHT)


def test_the_first_picture_of_an_mpo_is_turned(tmp_path):
    first, second = (Image.fromarray(each).convert("RGB") for each in (LEFT_IS_WHITE, 255 - LEFT_IS_WHITE))
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second], exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "a.mpo")[..., 0] > 127, UPRIGHT)


def test_the_block_stays_as_it_is(tmp_path):
    """It is rewritten nowhere, which is what fails on odd tags."""
    sideways(tmp_path / "a.jpg", TURNED["beside a resolution as text"])
    image = open_image(tmp_path / "a.jpg")
    assert image.size == (16, 32)


# Pillow's limits, and its text.


def text_chunk(size: int) -> tuple[bytes, bytes]:
    return b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * size)


def test_a_large_text_beside_the_pixels_names_its_key(tmp_path):
    values = np.arange(64).reshape(8, 8)
    path = write_png(tmp_path / "a.png", values, 8, chunks=[text_chunk(2**20 + 1)])
    with pytest.raises(DecodeError) as raised:
        decode(path)
    assert str(raised.value) == "a text beside the pixels is larger than data.text_chunk_mb = 1 allows"
    np.testing.assert_array_equal(decode(path, channels=1, text_chunk_mb=1.5)[..., 0], values)
    with pytest.raises(DecodeError, match=r"data\.text_chunk_mb = 1 "):
        decode(path)  # the limit of one config is not that of the next


def test_many_texts_that_are_large_together(tmp_path):
    chunks = [text_chunk(2**18)] * 65
    path = write_png(tmp_path / "a.png", np.zeros((8, 8), int), 8, chunks=chunks)
    with pytest.raises(DecodeError, match=r"data\.text_chunk_mb = 0\.25 "):
        decode(path, text_chunk_mb=0.25)
    assert decode(path, text_chunk_mb=0.5).shape == (8, 8, 3)


def test_more_megapixels_than_the_limit_names_its_key(tmp_path):
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    with pytest.raises(DecodeError) as raised:
        decode(tmp_path / "a.png", megapixels=0.05)
    assert str(raised.value) == "0.06 megapixels, more than data.megapixels = 0.05"
    assert decode(tmp_path / "a.png", megapixels=0.07).shape == (8, 8, 3)


def test_the_usual_limits_are_pillows():
    usual = (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    Reading(megapixels=1, text_chunk_mb=7).set_limits()
    assert usual != (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    Reading.of(DataConfig()).set_limits()
    assert usual == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    assert usual == (89_478_485, 2**20, 2**26)


def test_a_reason_is_cut_between_words_once_it_has_said_something():
    words = " ".join(f"word{number}" for number in range(60))
    assert shortened("short") == "short"
    cut = shortened(words)
    assert 190 <= len(cut) <= 200
    assert cut.endswith(" …")
    assert words.startswith(cut.removesuffix("…"))


def test_a_long_reason_of_a_library_is_told(tmp_path, monkeypatch):
    said = "the plugin begins with eighty characters that say nothing at all of what it has found here:\nbad table"
    monkeypatch.setattr(Image, "open", lambda *_: (_ for _ in ()).throw(ValueError(said)))
    with pytest.raises(DecodeError, match=r"found here: bad table$"):
        decode(tmp_path / "a.png")


# Background.


@pytest.fixture
def half(tmp_path) -> Path:
    """Red whose left half is transparent, above green."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4], pixels[:, 4:] = (0, 200, 0, 0), (200, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    ("background", "left"),
    [
        ("white", [255, 255, 255]),
        ("black", [0, 0, 0]),
        ("#10a0FF", [16, 160, 255]),
        ("rgb(1, 2, 3)", [1, 2, 3]),
        ("none", [0, 200, 0]),
    ],
)
def test_transparent_pixels_are_of_the_background(half, background, left):
    seen = decode(half, background=background)
    assert (seen[:, :4] == left).all()
    assert (seen[:, 4:] == [200, 0, 0]).all()
    assert decode(half, background=background, channels=4)[0, 0].tolist() == [0, 200, 0, 0]


def test_a_channels_file_is_composited(half, tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "b.png")
    seen = Decoder.of(DataConfig(size=8, channels=2))(Channels((half, tmp_path / "b.png")))
    assert (seen[:, :4, 0] == 255).all()
    assert (seen[:, 4:, 0] == 200).all()
    assert (seen[..., 1] == 7).all()


def test_more_channels_than_files_have_are_composited(half):
    seen = decode(half, channels=5)
    assert (seen[:, :4] == 255).all()


def test_what_is_composited_leaves_no_rim_of_the_colour_beneath(half):
    """The transparent green is gone before pixels are mixed by the resizing."""
    green = Decoder.of(DataConfig(size=17, interpolation="bicubic"))(half).astype(int)
    assert (green[..., 1] <= green[..., 2] + 1).all()


def test_one_colour_is_one_setting_however_it_is_spelt():
    assert DataConfig(background="#FFF").background_colour == DataConfig().background_colour
    assert DataConfig(background="Red").background_colour == DataConfig(background="#ff0000").background_colour
    assert DataConfig(background="red").background_colour != DataConfig().background_colour


@pytest.mark.parametrize("background", ["whitish", "#12", "#ffffff80", 7, ["white"], None])
def test_what_is_no_colour_is_refused(background):
    with pytest.raises(ValidationError, match="expected a colour"):
        DataConfig(background=background)


@pytest.mark.parametrize(
    "levels", [[5, 5], [9, 1], [1], [1, 2, 3], "full", [0, "high"], 7, None, [False, True], [0, float("nan")]]
)
def test_levels_are_a_low_and_a_high(levels):
    with pytest.raises(ValidationError, match=r"expected auto, or \[low, high\] with low below high"):
        DataConfig(levels=levels)


# Thin images.


@pytest.mark.parametrize(("width", "height"), [(500, 6), (65, 1), (3000, 10)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_padding_leaves_a_line_of_a_thin_image(tmp_path, width, height, channels):
    grey = np.full((height, width), 200, np.uint8)
    Image.fromarray(grey).save(tmp_path / "lies.png")
    Image.fromarray(grey.T).save(tmp_path / "stands.png")
    lies = decode(tmp_path / "lies.png", 32, resize="pad", channels=channels)
    stands = decode(tmp_path / "stands.png", 32, resize="pad", channels=channels)
    assert (lies[..., 0] > 0).sum() == 32
    assert (lies[np.flatnonzero(lies[..., 0].any(axis=1))[0], :, 0] == 200).all()
    np.testing.assert_array_equal(stands, lies.swapaxes(0, 1))


def test_a_line_is_where_a_thicker_image_would_be(tmp_path):
    Image.new("L", (100, 2), 200).save(
        tmp_path / "two.png"
    )  # a line of .64 pixels, rounded to 1: as it always was
    Image.new("L", (100, 1), 200).save(tmp_path / "one.png")  # .32 pixels
    expected = decode(tmp_path / "two.png", 32, resize="pad")
    np.testing.assert_array_equal(decode(tmp_path / "one.png", 32, resize="pad"), expected)


# What is noticed.


def test_what_was_noticed_is_known_without_decoding_again(tmp_path, half, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "black.png")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "plain.png")
    paths = [tmp_path / "black.png", half, tmp_path / "plain.png", tmp_path / "black.png"]
    for cache in (True, False):
        config, folder = DataConfig(size=8, cache=cache), tmp_path / f"cache-{cache}"
        first = open_readable(list("abcd"), paths, config, folder).images
        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "__call__", lambda *_: pytest.fail("decoded again"))
            again = open_readable(list("abcd"), paths, config, folder).images
        assert first.noticed == again.noticed
        assert (again.count("one value"), again.count("transparent"), again.count("thin")) == (2, 1, 0)
        assert again.remarks("train") == ["2 of 4 train images are one value once decoded (black.png, black.png)"]
        assert again.read_otherwise() == {"background": "#ffffff"}


def test_a_cache_without_its_notes_is_filled_anew(tmp_path, half):
    config = DataConfig(size=8, cache=True)
    first = open_readable(["a"], [half], config, tmp_path / "cache").images
    for notes in (tmp_path / "cache").glob("checked-*"):
        notes.write_text("1 images were decoded without a fault\n")
    again = open_readable(["a"], [half], config, tmp_path / "cache").images
    assert again.cache == first.cache
    assert again.noticed == first.noticed != {}


def test_an_opaque_alpha_channel_is_nothing_to_notice(tmp_path):
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    images = open_readable(["a"], [tmp_path / "a.png"], DataConfig(size=8), tmp_path / "cache").images
    assert images.noticed == {}
    assert images.read_otherwise() == {}
