"""Small files of the cache folder count only where they are whole, and under their own names."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.data.config import DataConfig
from kit.data.hashes import hash_images
from kit.data.kept import is_kept, keep_json, keeping, kept_json
from kit.data.levels import with_levels

VALUE = {"thin": [3, [1, 2]], "grün": None}
same_folder = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def file(tmp_path) -> Path:
    keep_json(tmp_path / "a.json", VALUE)
    return tmp_path / "a.json"


def test_what_was_kept_is_given_back(file):
    assert kept_json(file, pytest.fail) == VALUE
    content, _, digest = file.read_bytes().rpartition(b"\n")
    assert json.loads(content) == VALUE
    assert digest.decode() == sha256(b"a.json\n" + content).hexdigest()
    assert kept_json(file.with_name("b.json"), pytest.fail) is None


@same_folder
@given(place=st.integers(0, 10**6), bit=st.none() | st.integers(0, 7))
def test_whatever_is_cut_or_flipped_is_told(file, place, bit):
    whole = file.read_bytes()
    content = bytearray(whole)
    if bit is None:
        del content[place % len(whole) :]
    else:
        content[place % len(whole)] ^= 1 << bit
    file.write_bytes(content)
    said: list[str] = []
    assert kept_json(file, said.append) is None
    assert said == [f"{file} is damaged, or of an earlier version: it is made anew"]
    file.write_bytes(whole)


def test_another_file_under_its_name_is_told(file):
    said: list[str] = []
    assert not is_kept(file.rename(file.with_name("b.json")), said.append)
    assert len(said) == 1


def test_files_larger_than_a_part(tmp_path):
    with keeping(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(bytes(3_000_000))
    assert is_kept(tmp_path / "a.bin", pytest.fail)
    content = bytearray((tmp_path / "a.bin").read_bytes())
    content[2_500_000] = 1
    (tmp_path / "a.bin").write_bytes(content)
    assert not is_kept(tmp_path / "a.bin")


def test_hashes_and_levels_are_made_anew(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 1000, (9, 9), dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sources, cache = [tmp_path / "a.png"], tmp_path / "cache"
    levels = with_levels(DataConfig(size=8), sources, cache, say=pytest.fail).levels
    digests = hash_images(sources, cache, say=pytest.fail).digests.tolist()
    assert levels == (0.0, 1023.0)
    for path in list(cache.iterdir()):
        content = bytearray(path.read_bytes())
        content[1] ^= 8  # where it was a digit: another level
        path.write_bytes(content)
    said: list[str] = []
    assert with_levels(DataConfig(size=8), sources, cache, say=said.append).levels == levels
    assert hash_images(sources, cache, say=said.append).digests.tolist() == digests
    assert [Path(line.split(" is damaged")[0]).suffix for line in said] == [".json", ".npz"]
    assert with_levels(DataConfig(size=8), sources, cache, say=pytest.fail).levels == levels
    assert hash_images(sources, cache, say=pytest.fail).digests.tolist() == digests
