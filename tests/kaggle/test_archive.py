"""No secret travels with what leaves this machine."""

from pathlib import Path

import pytest
from support.refusals import refusal_of

import kit
from kit.core.bundle import package_files
from kit.kaggle.archive import SECRET_TEXTS, SECRET_VARIABLES, need_no_secrets


@pytest.fixture(autouse=True)
def _no_secrets_here(monkeypatch):
    for variable in SECRET_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


# Secrets. The samples are put together here, so that this file holds none.

HEX32, HEX40 = "0123456789abcdef" * 2, "0123456789abcdef0123456789abcdef01234567"
LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fGhI"

SAMPLES = {
    "a Kaggle API token": ["token = '" + "KGAT" + "_" + HEX32 + "'"],
    "a Kaggle API key": [
        '{"username":"someone","key":"' + HEX32 + '"}',
        '{\n  "username": "someone",\n  "key" : "' + HEX32 + '"\n}',
        "export KAGGLE_" + "KEY=" + HEX32,
        'os.environ["KAGGLE_' + 'KEY"] = "' + HEX32 + '"',
        "os.environ['KAGGLE_" + "KEY']='" + HEX32 + "'",
        'os.environ.setdefault("KAGGLE_' + 'KEY", "' + HEX32 + '")',
        'env: {"KAGGLE_' + 'KEY": "' + HEX32 + '"}',
        "KAGGLE_" + "API_TOKEN: " + HEX32,
    ],
    "a private key": [
        "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE",
        "-----BEGIN " + "PRIVATE KEY-----\\nMIIE",
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----\n",
    ],
    "a Hugging Face token": ["login('" + "hf" + "_" + LETTERS + "')"],
    "a GitHub token": ["gh" + "p_" + LETTERS + "ab", "github" + "_pat_" + LETTERS + "_" + LETTERS],
    "an AWS key": ["aws_access_key_id = " + "AKIA" + "IOSFODNN7EXAMPLE"],
    "a Google API key": ["key=" + "AIza" + LETTERS + "X"],
    "a Slack token": ["xox" + "b-123456789012-" + LETTERS],
    "an API key": ["OPENAI = '" + "sk" + "-proj-" + LETTERS + "'"],
    "a Weights & Biases key": [
        "WANDB_API" + "_KEY=" + HEX40,
        'os.environ["WANDB_API' + '_KEY"] = "' + HEX40 + '"',
        "wandb.login(key='" + "wandb" + "_v1_" + LETTERS + LETTERS + "')",
    ],
}

HARMLESS = [
    'fingerprint = "' + HEX32 + '"',
    "sha256 " + HEX32 * 2,
    '"key": "' + HEX32 * 2 + '"',  # a sha256
    '"key": "value"',
    "KAGGLE_KEY = os.environ['KAGGLE_KEY']",
    "export KAGGLE_KEY=your key",
    'KAGGLE_API_TOKEN = "xxxxxxxx"',
    "tokens look like KGAT_ and hf_ and sk-",
    "hf_hub_download(repo_id)",
    "HF_HUB_OFFLINE = 1",
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "task-specific-" + "a" * 40,
    "sk-learn",
    "WANDB_API_KEY=",
    "ghp_short",
]


def test_there_is_a_sample_of_every_kind():
    assert set(SAMPLES) == set(SECRET_TEXTS)


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in SAMPLES.items() for text in texts], ids=lambda value: None
)
def test_a_secret_is_found_by_how_it_looks(kind, text):
    message = refusal_of(need_no_secrets, {"kit/a.py": b"a = 1\n", "kit/b.py": f"# {text}\n".encode()})
    assert message == f"a secret must not travel with the code; found in kit/b.py ({kind})"


@pytest.mark.parametrize(
    "name",
    [
        *("kaggle.json", "kit/Kaggle.JSON", ".kaggle/access_token", ".env", "kit/.env.local", "prod.env"),
        *(".netrc", "_netrc", ".git-credentials", ".npmrc", ".pypirc", "credentials", "credentials.json"),
        *("secrets.toml", "kit/secret.yaml", "id_rsa", ".ssh/id_ed25519", "server.pem", "a.key", "b.p12", "c.PFX"),
    ],
)
def test_a_secret_is_found_by_its_name(name):
    message = refusal_of(need_no_secrets, {"kit/a.py": b"", name: b""})
    assert message == f"a secret must not travel with the code; found in {name} (by its name)"


def test_what_only_looks_a_little_like_a_secret_passes():
    names = [
        "keys.py",
        "monkey.py",
        "credentials.py",
        "secrets.py",
        "environment.yaml",
        "kaggle.json.py",
        "id_rsa.py",
    ]
    names += ["kit/key.py", "kit/pem.py", "kit/env.py", "access_tokens.md", "kit/kaggle/json.py", "kit/.envrc.py"]
    files = dict.fromkeys(names, b"") | {f"{row}.txt": text.encode() for row, text in enumerate(HARMLESS)}
    need_no_secrets(files)


@pytest.mark.parametrize("variable", SECRET_VARIABLES)
def test_your_own_secret_is_found_whatever_it_looks_like(monkeypatch, variable):
    monkeypatch.setenv(variable, "correct horse battery")
    message = refusal_of(need_no_secrets, {"config.yaml": b"name: x # correct horse battery\n", "a": b"correct"})
    assert message == f"a secret must not travel with the code; found in config.yaml (your {variable})"


def test_a_placeholder_in_the_environment_is_no_secret(monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "key")
    need_no_secrets({"a.py": b"the key of a mapping"})


def test_the_kit_itself_passes_and_is_source_only():
    files = package_files(Path(kit.__file__).resolve().parent)
    need_no_secrets(files)
    assert {"kit/__main__.py", "kit/cli/main.py", "kit/lr/schedules.py", "kit/kaggle/kernel/build.py"} <= set(
        files
    )
    assert {name.partition("/")[0] for name in files} == {"kit"}
    assert {Path(name).suffix for name in files} == {".py", ".html", ".typed"}
    assert not [name for name in files if "test_" in name or "/build/" in name or "pycache" in name.lower()]
