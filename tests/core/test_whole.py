"""Whether a file is what was written: hashlib's digests, read once, and records that carry their own."""

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import refusal_of

from kit.core import whole
from kit.core.errors import Damaged
from kit.core.whole import digest, is_whole, need_sealed, need_whole, sealed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    file, read = tmp_path / "a", list[str]()
    monkeypatch.setattr(
        whole, "sha256", lambda path: read.append(path.name) or hashlib.sha256(path.read_bytes()).hexdigest()
    )
    file.write_bytes(b"first")
    assert digest(file) == digest(file) == hashlib.sha256(b"first").hexdigest()
    assert read == ["a"]
    times = os.stat(file).st_mtime_ns
    with open(file, "r+b") as same:  # the same inode, size and time of writing
        same.write(b"other")
    os.utime(file, ns=(times, times))
    assert digest(file) == hashlib.sha256(b"other").hexdigest()
    (link := tmp_path / "link").symlink_to(file)
    assert digest(link) == digest(file)
    assert read == ["a", "a"]


def test_what_is_missing_and_what_is_another(tmp_path):
    file = tmp_path / "a.bin"
    expected = hashlib.sha256(b"as written").hexdigest()
    assert not is_whole(file, expected)
    assert refusal_of(need_whole, file, expected, "do that") == f"{file} is missing; do that"
    file.write_bytes(b"as written")
    need_whole(file, expected, "do that")
    file.write_bytes(b"as writtem")
    with pytest.raises(Damaged):
        need_whole(file, expected, "do that")
    assert refusal_of(need_whole, file, expected, "do that") == (
        f"{file} is damaged (its content is not what was written); do that"
    )


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_sealed_record_survives_json_and_nothing_else(tmp_path_factory, content):
    content.pop("digest", None)
    file = tmp_path_factory.getbasetemp() / "record.json"
    stored = json.loads(json.dumps(sealed(content), indent=2, ensure_ascii=False))
    need_sealed(stored, file, "do that")
    need_sealed(dict(reversed(stored.items())), file, "do that")  # the order of keys says nothing
    for changed in (stored | {"more": 1}, stored | {"digest": "0" * 64}, {**content}):
        with pytest.raises(Damaged):
            need_sealed(changed, file, "do that")
    for key in content:
        with pytest.raises(Damaged):
            need_sealed({name: value for name, value in stored.items() if name != key}, file, "do that")


def test_the_digest_is_of_sorted_json_without_spaces():
    told = '{"a":[1,0.5,null],"b":{"c":"\\u00e9"}}'
    assert sealed({"b": {"c": "é"}, "a": [1, 0.5, None]})["digest"] == hashlib.sha256(told.encode()).hexdigest()
