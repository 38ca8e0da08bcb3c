"""No secret travels with what leaves this machine."""

import os
import re
from hashlib import sha256

from kit.core.bundle import Files
from kit.core.errors import KitError, some

SECRET_NAMES = re.compile(
    r"(^|/)(kaggle\.json|access_token|\.env(\.[^/]*)?|\.netrc|_netrc|\.git-credentials|\.npmrc|\.pypirc|"
    r"(credentials|secrets?)(\.(?!py$)\w+)?|id_(rsa|dsa|ecdsa|ed25519)|[^/]*\.(env|pem|key|p12|pfx|keystore))$",
    re.IGNORECASE,
)

SECRET_TEXTS = {
    "a Kaggle API token": rb"KGAT_[A-Za-z0-9]{16,}",
    "a Kaggle API key": rb"""(["']key["']\s*:|KAGGLE_(KEY|API_TOKEN)["'\]]*\s*[=:,])\s*["']?[0-9a-f]{32}\b""",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": rb"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    "an AWS key": rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google API key": rb"\bAIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"\bxox[baprs]-[0-9A-Za-z-]{20,}",
    "an API key": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "a Weights & Biases key": rb"""WANDB_API_KEY["'\]]*\s*[=:,]\s*["']?[0-9a-f]{40}\b|\bwandb_v1_\w{40,}""",
}

# Variables that hold the user's own, whatever it looks like.
SECRET_VARIABLES = ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY")
SHORTEST_SECRET = 12  # characters; a shorter value is a placeholder, which may well stand in any file


_looked_at: dict[bytes, frozenset[str]] = {}  # SHA-256 → kinds: of several kernels most files are the same


def _kinds_in(content: bytes) -> frozenset[str]:
    """Return the kinds of secrets that a file holds."""
    digest = sha256(content).digest()
    if digest not in _looked_at:
        _looked_at[digest] = frozenset(kind for kind, text in SECRET_TEXTS.items() if re.search(text, content))
    return _looked_at[digest]


def need_no_secrets(files: Files) -> None:
    """Raise KitError that names the files which hold a secret, or are called like one that does."""
    found = [f"{name} (by its name)" for name in files if SECRET_NAMES.search(name)]
    held = {name: _kinds_in(content) for name, content in files.items()}
    for kind in SECRET_TEXTS:
        found += [f"{name} ({kind})" for name, kinds in held.items() if kind in kinds]
    for variable in SECRET_VARIABLES:
        if len(secret := os.environ.get(variable, "").encode()) >= SHORTEST_SECRET:
            found += [f"{name} (your {variable})" for name, content in files.items() if secret in content]
    if found:
        raise KitError(f"a secret must not travel with the code; found in {some(dict.fromkeys(found))}")
