"""A random picture in every mode and depth that Pillow or the PNG standard writes, against numpy."""

import io
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.pictures import write_png

from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder
from kit.data.levels import with_levels

SIDE = 8
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pictures")


def noise(seed: int, *bands: int, top: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (SIDE, SIDE, *bands))


numbers = itertools.count()


def fresh(folder: Path, ending: str) -> Path:
    """A name that was not used before: what is known of a file goes by its time, which has a grain."""
    return folder / f"{next(numbers)}.{ending}"


def decode(path: Path, channels: int, **options) -> np.ndarray:
    config = with_levels(DataConfig(size=SIDE, channels=channels, **options), [path], path.parent)
    return Decoder.of(config)(path)


def check(path: Path, colours: np.ndarray, alpha: np.ndarray | None = None, background: str = "white") -> None:
    """Compare what is decoded with colours [8, 8, 3] and alpha [8, 8], both 0 to 255 and not rounded.

    Pillow rounds when it converts, when it composites and when it scales: each by 1 at most.
    """
    ground = np.array({"white": [255] * 3, "#204060": [0x20, 0x40, 0x60]}[background])
    share = np.ones((SIDE, SIDE, 1)) if alpha is None else alpha[..., None] / 255
    seen = colours * share + ground * (1 - share)
    assert abs(decode(path, 3, background=background) - seen).max() < 2
    assert abs(decode(path, 1, background=background)[..., 0] - seen @ LUMA).max() < 2.5
    full = decode(path, 4, background=background)
    opaque = np.full((SIDE, SIDE), 255) if alpha is None else alpha
    assert abs(full[..., 3] - opaque).max() <= 1
    there = opaque > 0  # of what cannot be seen at all, files need not keep the colour
    assert abs(full[..., :3] - colours)[there].max(initial=0) < 1.01


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


backgrounds = st.sampled_from(["white", "#204060"])
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None)
WITHOUT_LOSS = ["png", "tif", "webp", "bmp", "gif"]


@few
@given(seeds, st.sampled_from(WITHOUT_LOSS), st.sampled_from(["1", "L", "RGB"]))
def test_opaque(folder, seed, ending, mode):
    options = {"lossless": True} if ending == "webp" else {}
    values = noise(seed, 3) if mode == "RGB" else noise(seed)
    if ending == "gif" and mode == "RGB":
        mode, values = "L", values[..., 0]  # a GIF has 256 colours
    pixels = values > 127 if mode == "1" else values.astype(np.uint8)
    path = save(Image.fromarray(pixels), fresh(folder, ending), **options)
    grey = 255 * pixels if mode == "1" else values
    check(path, values if mode == "RGB" else repeated(grey))


@few
@given(seeds, st.sampled_from(["png", "tif", "webp"]), st.sampled_from(["LA", "RGBA"]), backgrounds)
def test_with_alpha(folder, seed, ending, mode, background):
    options = {"lossless": True, "exact": True} if ending == "webp" else {}
    values = noise(seed, len(mode)).astype(np.uint8)
    colours = values[..., :3] if mode == "RGBA" else repeated(values[..., 0])
    image = Image.merge(mode, [Image.fromarray(values[..., band]) for band in range(len(mode))])
    check(save(image, fresh(folder, ending), **options), colours, values[..., -1], background)


@few
@given(seeds, st.sampled_from(["png", "gif", "tif", "bmp"]), st.sampled_from(["", "one", "each"]), backgrounds)
def test_palette(folder, seed, ending, transparent, background):
    indices, colours = noise(seed, top=16), noise(seed + 1, 3, top=256).reshape(-1, 3)[:16]
    image = Image.frombytes("P", (SIDE, SIDE), indices.astype(np.uint8).tobytes())
    image.putpalette(colours.ravel().tolist())
    options, alphas = {}, np.full(16, 255)
    if transparent == "one" and ending in ("png", "gif"):
        options, alphas[5] = {"transparency": 5}, 0
    if transparent == "each" and ending == "png":
        alphas = noise(seed + 2).ravel()[:16]
        options = {"transparency": bytes(alphas.tolist())}
    path = save(image, fresh(folder, ending), **options)
    check(path, colours[indices], alphas[indices], background)


@few
@given(seeds, st.sampled_from([1, 2, 4, 8, 16]), st.booleans(), backgrounds)
def test_grey_png_of_any_depth_with_a_transparent_grey(folder, seed, depth, transparent, background):
    top = 2**depth - 1
    values = noise(seed, top=top + 1)
    values[0, 0] = top  # so that the range of 16 bits is all of them
    hidden = values[3, 4]
    path = write_png(fresh(folder, "png"), values, depth, (hidden,) if transparent else ())
    alpha = np.where(values == hidden, 0, 255) if transparent else None
    check(path, repeated(values * 255 / top), alpha, background)


@few
@given(seeds, st.sampled_from([8, 16]), st.booleans(), backgrounds)
def test_coloured_png_with_a_transparent_colour(folder, seed, depth, transparent, background):
    top = 2**depth - 1
    values = noise(seed, 3, top=top + 1)
    values[0, 0] = top
    hidden = tuple(values[3, 4])
    path = write_png(fresh(folder, "png"), values, depth, hidden if transparent else ())
    alpha = np.where((values == hidden).all(axis=2), 0, 255) if transparent else None
    check(path, values * 255 / top, alpha, background)


@few
@given(seeds, st.integers(5, 16), st.sampled_from([1, 2, 3, 4]), backgrounds)
def test_sixteen_bits_of_which_fewer_are_used(folder, seed, bits, bands, background):
    """Levels are of the colours; transparency has 16 bits whatever they are."""
    top = 2**bits - 1
    values = noise(seed, bands, top=top + 1)
    values[0, 0] = top
    alpha = None
    if bands in (2, 4):
        values[..., -1] = noise(seed + 1, top=65536)
        alpha = values[..., -1] * 255 / 65535
    colours = (values[..., :3] if bands > 2 else repeated(values[..., 0])) * 255 / top
    check(write_png(fresh(folder, "png"), values, 16), colours, alpha, background)


@few
@given(seeds, st.sampled_from(["I;16", "I;16B", "I"]), st.integers(3, 16))
def test_deep_grey_tiff(folder, seed, mode, bits):
    values = noise(seed, top=2**bits)
    values[0, 0] = 2**bits - 1
    stored = values.astype({"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode])
    image = Image.frombytes(mode, (SIDE, SIDE), stored.tobytes())
    check(save(image, fresh(folder, "tif")), repeated(values * 255 / (2**bits - 1)))


@few
@given(seeds, st.floats(-1000, 1000), st.floats(1e-3, 1e5))
def test_floating_point(folder, seed, low, span):
    values = (low + span * np.random.default_rng(seed).random((SIDE, SIDE))).astype(np.float32).astype(float)
    path = save(Image.fromarray(values.astype(np.float32)), fresh(folder, "tif"))
    check(path, repeated((values - values.min()) / (values.max() - values.min()) * 255))


@few
@given(seeds)
def test_signed_and_beyond_sixteen_bits(folder, seed):
    values = np.random.default_rng(seed).integers(-1000, 100_000, (SIDE, SIDE), dtype=np.int32)
    values[0, :2] = -1000, 99_999
    path = save(Image.fromarray(values), fresh(folder, "tif"))
    check(path, repeated((values + 1000) / (2**17 - 1 + 1000) * 255))


@few
@given(seeds)
def test_cmyk_is_its_colours(folder, seed):
    inks = noise(seed, 4).astype(np.uint8)
    image = Image.merge("CMYK", [Image.fromarray(inks[..., band]) for band in range(4)])
    light = (255 - inks.astype(float)) / 255
    check(save(image, fresh(folder, "tif")), light[..., :3] * light[..., 3:] * 255)


@few
@given(seeds)
def test_ycbcr_is_its_colours(folder, seed):
    luma = noise(seed, top=100) + 80
    blue, red = noise(seed + 1, top=40) + 108, noise(seed + 2, top=40) + 108  # so that no colour is beyond
    parts = [Image.fromarray(part.astype(np.uint8)) for part in (luma, blue, red)]
    path = save(Image.merge("YCbCr", parts), fresh(folder, "tif"))
    try:
        Image.open(path).load()
    except OSError:
        pytest.skip("Pillow before 13 does not read what it has written")
    blue, red = blue - 128, red - 128  # JFIF
    colours = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    check(path, np.stack(colours, axis=2))


def test_every_mode_is_decoded_or_refused_in_one_line(tmp_path):
    """Whatever else Pillow writes: nothing but pixels or a reason comes out."""
    reasons = []
    for ending in ("png", "tif", "webp", "bmp", "gif", "jpg", "ppm", "tga", "jp2", "ico", "sgi", "pcx"):
        for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"):
            path = tmp_path / f"a.{ending}"
            try:
                Image.new(mode, (SIDE, SIDE), 1).save(path)
            except (OSError, ValueError, KeyError, SystemError):
                continue
            try:
                seen = decode(path, 3)
            except DecodeError as error:
                reasons.append(str(error))
            else:
                assert seen.shape == (SIDE, SIDE, 3)
    assert all(reason and "\n" not in reason for reason in reasons)


def write_tiff(path: Path, values: np.ndarray, **options) -> Path:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="rgb", **options)
    path.write_bytes(file.getvalue())
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_in_colour_of_twelve_bits_turned(tmp_path, orientation, compression):
    pytest.importorskip("tifffile")
    values = noise(orientation, 3, top=4096)
    values[0, 0] = 4095
    tags = [(274, "H", 1, orientation, False)]
    path = write_tiff(tmp_path / "a.tif", values.astype(np.uint16), compression=compression, extratags=tags)
    turned = {
        1: values,
        2: values[:, ::-1],
        3: values[::-1, ::-1],
        4: values[::-1],
        5: values.swapaxes(0, 1),
        6: np.rot90(values, -1),
        7: values[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(values, 1),
    }[orientation]
    check(path, turned * 255 / 4095)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"planarconfig": "separate"},
            "TIFF RGB of 16 bits a band in planes of their own; data.decoder can name ",
        ),
        ({"extra": 2}, "a TIFF of 5 × 16 bits a pixel, which Pillow does not read; data.decoder can name "),
    ],
)
def test_tiff_that_cannot_be_read_whole_is_refused_with_what_it_is(tmp_path, options, reason):
    pytest.importorskip("tifffile")
    values = noise(0, 3 + options.pop("extra", 0), top=4096).astype(np.uint16)
    if options:
        values = np.moveaxis(values, 2, 0)
    path = write_tiff(tmp_path / "a.tif", values, **options)
    with pytest.raises(DecodeError) as raised:
        decode(path, 3)
    assert str(raised.value).startswith(reason)


def test_what_is_no_number_is_low_and_infinity_at_the_ends(folder):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(SIDE, SIDE)
    values[0, 1], values[0, 2], values[0, 3] = np.nan, np.inf, -np.inf
    with tempfile.TemporaryDirectory() as place:
        path = save(Image.fromarray(values), Path(place) / "a.tif")
        assert decode(path, 1)[0, :4, 0].tolist() == [0, 0, 255, 0]
        assert decode(path, 1)[-1, -1, 0] == 255
