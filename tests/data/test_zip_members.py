"""Images inside zips through all that reads images: pixels, own decoders, levels, hashes, digests, faults."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.core.zips import ZipMember, zip_directory
from kit.data.config import DataConfig
from kit.data.decode import DecodeError, Decoder, open_image
from kit.data.hashes import hash_images
from kit.data.images import content_digest, open_readable
from kit.data.levels import with_levels
from kit.data.sources import Channels, files_key, missing_files

MINE = """
import numpy as np
from PIL import Image
def ending(path):
    assert path.suffix == ".png" and path.is_file()
    return Image.open(path)
def fails(path): raise KeyError("PixelData")
"""


def saved(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def noise(*shape: int, seed: int = 0, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, shape).astype(dtype)


def zipped(path: Path, *files: Path, method: int = zipfile.ZIP_DEFLATED) -> list[ZipMember]:
    with zipfile.ZipFile(path, "w", method) as made:
        for file in files:
            made.write(file, file.name)
    directory = zip_directory(path, "key")
    return [directory.member(file.name) for file in files]


def test_pixels_are_those_of_the_files(tmp_path):
    files = [saved(noise(20, 30, 3, seed=seed), tmp_path / f"{seed}.png") for seed in range(3)]
    large = tmp_path / "large.jpg"
    Image.fromarray(noise(300, 200, 3)).save(large)
    files.append(large)
    members = zipped(tmp_path / "a.zip", *files)
    for channels in (1, 3, 4):
        decoder = Decoder.of(DataConfig(size=16, channels=channels))
        for file, member in zip(files, members, strict=True):
            np.testing.assert_array_equal(decoder(member), decoder(file))
    decoder = Decoder.of(DataConfig(size=16, channels=3))
    inside, outside = Channels(tuple(members[:3])), Channels(tuple(files[:3]))
    np.testing.assert_array_equal(decoder(inside), decoder(outside))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_levels_are_those_of_the_files(tmp_path, ending, method):
    files = [
        saved(noise(9, 9, seed=seed, top=4000, dtype=np.uint16), tmp_path / f"{seed}.{ending}") for seed in (1, 2)
    ]
    members = zipped(tmp_path / "a.zip", *files, method=method)
    config = DataConfig(size=16)
    of_files = with_levels(config, files, tmp_path / "cache_of_files").levels
    assert of_files == (0.0, 4095.0)
    assert with_levels(config, members, tmp_path / "cache_of_zip").levels == of_files


def test_a_decoder_of_ones_own_gets_a_file_with_the_members_ending(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    file = saved(noise(20, 30, 3), tmp_path / "1.png")
    (member,) = zipped(tmp_path / "a.zip", file)
    expected = Decoder.of(DataConfig(size=16))(file)
    for name in ("ending", "fails"):
        config = DataConfig.model_validate(
            {"size": 16, "decoder": f"mine.py:{name}"}, context={"folder": tmp_path}
        )
        if name == "fails":
            with pytest.raises(DecodeError, match="PixelData"):
                Decoder.of(config)(member)
        else:
            np.testing.assert_array_equal(Decoder.of(config)(member), expected)
        assert not os.listdir(tmp_path / "temporary")


def test_hashes_are_those_of_the_files(tmp_path):
    files = [saved(noise(40, 30, 3, seed=seed), tmp_path / f"{seed}.png") for seed in range(3)]
    members = zipped(tmp_path / "a.zip", *files)
    outside, inside = hash_images(files, tmp_path / "one"), hash_images(members, tmp_path / "two")
    for name, values in vars(outside).items():
        np.testing.assert_array_equal(vars(inside)[name], values)


def test_digests_tell_changed_members(tmp_path):
    file = saved(noise(8, 8, 3), tmp_path / "1.png")
    first = zipped(tmp_path / "a.zip", file)
    found = [content_digest(first, tmp_path), files_key(first)]
    assert [content_digest(first, tmp_path), files_key(first)] == found
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1  # as many bytes
    file.write_bytes(changed)
    second = zipped(tmp_path / "a.zip", file)
    assert content_digest(second, tmp_path) != found[0]
    assert files_key(second) != found[1]
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "a.zip", tmp_path / "elsewhere" / "a.zip")
    moved = [zip_directory(tmp_path / "elsewhere" / "a.zip", "key").member("1.png")]
    assert content_digest(moved, tmp_path / "elsewhere") == content_digest(second, tmp_path)
    assert files_key(moved) != files_key(second)


def test_missing_members_are_found(tmp_path):
    (member,) = zipped(tmp_path / "a.zip", saved(noise(8, 8), tmp_path / "1.png"))
    lacking = zip_directory(tmp_path / "a.zip", "key").member("2.png")
    assert missing_files([member, lacking, lacking]) == [lacking]
    assert str(lacking) == f"{tmp_path}/a.zip/2.png"


def test_a_damaged_member_is_told_with_its_reason(tmp_path):
    members = zipped(tmp_path / "a.zip", *(saved(noise(30, 30, seed=n), tmp_path / f"{n}.png") for n in range(3)))
    whole = bytearray((tmp_path / "a.zip").read_bytes())
    start = members[1].entry.offset + 200
    whole[start : start + 100] = bytes(100)
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(DecodeError, match="damaged in the archive"):
        open_image(members[1])
    found = open_readable(["0", "1", "2"], members, DataConfig(size=16), tmp_path / "cache")
    assert found.rows == [0, 2]
    assert [(row, "damaged in the archive" in str(why)) for row, why in found.broken.items()] == [(1, True)]
    assert "damaged in the archive" in hash_images(members, tmp_path / "cache").faults[1]


def test_a_member_that_is_no_image_is_told(tmp_path):
    (tmp_path / "1.png").write_text("a page that asks for a password")
    (member,) = zipped(tmp_path / "a.zip", tmp_path / "1.png")
    with pytest.raises(DecodeError, match="no image"):
        open_image(member)
