"""Credentials that do not serve are told as what they are: no network, no token, a damaged file."""

import json

import pytest
from support.commands import ROOT
from support.fake_kaggle import answer, drop
from support.refusals import refusal_of

from kit.kaggle.client import Kaggle
from kit.kaggle.credentials import NONE, read_key

NEW = "make a new API token on kaggle.com/settings"


@pytest.fixture
def home(server, monkeypatch, tmp_path):
    """The home of who has no credentials yet, with an empty ~/.kaggle; the client talks to `server`."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    folder = tmp_path / "me" / ".kaggle"
    folder.mkdir(parents=True)
    monkeypatch.setattr(KaggleApi, "config_dir", str(folder))
    monkeypatch.setattr(KaggleApi, "config", str(folder / "kaggle.json"))
    return folder


def sign_in(said=None, waits=None) -> Kaggle:
    return Kaggle(([] if said is None else said).append, ([] if waits is None else waits).append)


def give_token(home, monkeypatch, where: str, token: str) -> None:
    if where == "KAGGLE_API_TOKEN":
        monkeypatch.setenv(where, token)
    else:
        (home / "access_token").write_text(token + "\n")


@pytest.mark.parametrize("where", ["KAGGLE_API_TOKEN", "~/.kaggle/access_token"])
def test_a_token_and_a_connection_that_breaks_are_tried_again(server, home, monkeypatch, where):
    give_token(home, monkeypatch, where, server.key)
    said, waits = [], []
    server.misbehave("IntrospectToken", drop(), answer(503, "busy"))
    assert sign_in(said, waits).user == "tester"
    assert [line.partition(";")[0].partition(" (")[0] for line in said] == [
        "signing in to Kaggle: the connection broke",
        "signing in to Kaggle: Kaggle answers 503: busy",
    ]
    assert len(waits) == 2


@pytest.mark.parametrize("where", ["KAGGLE_API_TOKEN", "~/.kaggle/access_token"])
def test_a_token_and_no_network_is_a_broken_connection(server, home, monkeypatch, where):
    give_token(home, monkeypatch, where, server.key)
    server.misbehave("IntrospectToken", *[drop()] * 6)
    waits = []
    line = refusal_of(sign_in, [], waits)
    assert line.startswith("signing in to Kaggle: given up after 6 attempts; the connection broke")
    assert len(waits) == 5
    assert [name for name, _ in server.requests] == ["IntrospectToken"] * 6


@pytest.mark.parametrize("where", ["KAGGLE_API_TOKEN", "~/.kaggle/access_token"])
def test_a_token_that_is_not_valid_is_told_with_its_place(server, home, monkeypatch, where):
    give_token(home, monkeypatch, where, "KGAT_expired")
    assert refusal_of(sign_in) == (
        f"the Kaggle access token in {where} is not valid, or not any more; {NEW}, and put it there"
    )


def test_a_key_serves_where_the_token_does_not(server, home, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_expired")
    (home / "kaggle.json").write_text(json.dumps({"username": "tester", "key": server.key}))
    assert sign_in().user == "tester"


def test_kaggles_own_refusal_of_a_token(server, home, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_0")
    server.misbehave("IntrospectToken", answer(401, "Unauthenticated"))
    assert refusal_of(sign_in) == (
        "signing in to Kaggle: Kaggle answers 401: Unauthenticated; the credentials are not accepted: make a new "
        "API token on kaggle.com/settings"
    )


@pytest.mark.parametrize(
    ("token", "wrong"), [("  ", "it is empty"), ("\ufeffKGAT_0", "it holds a character that no token has")]
)
def test_what_is_no_token(server, home, monkeypatch, token, wrong):
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    assert refusal_of(sign_in) == (
        f"the Kaggle access token in KAGGLE_API_TOKEN is damaged ({wrong}); {NEW}, and put it there"
    )
    assert server.requests == []


def test_no_credentials_at_all_and_an_empty_token(server, home, monkeypatch):
    assert refusal_of(sign_in) == NONE
    (home / "access_token").touch()
    assert refusal_of(sign_in) == f"{NONE} (~/.kaggle/access_token is empty)"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "")
    assert refusal_of(sign_in) == f"{NONE} (KAGGLE_API_TOKEN is empty)"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_kaggle_json_is_read_with_a_byte_order_mark_too(server, home, mark):
    (home / "kaggle.json").write_bytes(mark + json.dumps({"username": "tester", "key": server.key}).encode())
    kaggle = sign_in()
    assert kaggle.user == "tester"
    assert kaggle.latest_version("tester", "unknown") == 0  # the server takes the key


DAMAGED = [
    (b"", "it is empty"),
    (b'{"username": "me", "key": ', "it is no JSON"),
    (b"\xff\xfe{\x00}\x00", "it is no JSON"),
    (b'["me", "0"]', "it holds no object"),
    (b'{"username": "me"}', "it has no key"),
    (b'{"username": "", "key": "0"}', "it has no username"),
    (b'{"username": "me", "key": 7}', "its key is no text"),
    (b"[" * 100_000, "it is no JSON"),
]


@pytest.mark.parametrize(("content", "wrong"), DAMAGED)
def test_a_damaged_kaggle_json_is_named(server, home, content, wrong):
    (home / "kaggle.json").write_bytes(content)
    line = refusal_of(sign_in)
    assert line == f"{home / 'kaggle.json'} is damaged ({wrong}); {NEW}, and put it there"
    assert server.requests == []


def test_a_damaged_kaggle_json_is_no_matter_beside_what_serves(server, home, monkeypatch):
    (home / "kaggle.json").write_text("{")
    monkeypatch.setenv("KAGGLE_API_TOKEN", server.key)
    assert sign_in().user == "tester"
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_USERNAME", "tester")
    monkeypatch.setenv("KAGGLE_KEY", server.key)
    assert sign_in().user == "tester"


def test_a_kaggle_json_without_a_key_is_the_clients_settings(tmp_path):
    (tmp_path / "kaggle.json").write_text('{"competition": "digit-recognizer"}')
    assert read_key(tmp_path / "kaggle.json") == {"competition": "digit-recognizer"}
    assert read_key(tmp_path / "none.json") == {}
    (tmp_path / "folder.json").mkdir()
    assert refusal_of(read_key, tmp_path / "folder.json") == (
        f"{tmp_path / 'folder.json'} cannot be read (Is a directory); mend that, or {NEW}"
    )


def test_a_key_that_others_can_read_is_told(server, home):
    path = home / "kaggle.json"
    path.write_text(json.dumps({"username": "tester", "key": server.key}))
    path.chmod(0o644)
    said = []
    sign_in(said)
    assert said == [f"{path} can be read by others on this machine; run: chmod 600 {path}"]
    path.chmod(0o600)
    said.clear()
    sign_in(said)
    assert said == []


def test_a_home_that_cannot_be_written_needs_no_place_for_the_client(server, tmp_path):
    """The client makes a folder in the home as it is imported, which fails there, even for root."""
    import subprocess
    import sys

    code = (
        "from kit.kaggle.client import Kaggle; import os; print(Kaggle().user, 'KAGGLE_CONFIG_DIR' in os.environ)"
    )
    variables = server.child_environment(tmp_path) | {"HOME": "/dev/null/me"}
    del variables["KAGGLE_CONFIG_DIR"]
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, cwd=ROOT)
    assert (made.stdout, made.stderr) == ("tester False\n", "")
