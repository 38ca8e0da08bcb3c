"""Files are packed into one archive, whose bytes depend on nothing but them, and which no secret gets into."""

import bz2
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from kit.core.errors import KitError, some

Files = Mapping[str, bytes]  # path in the archive, with /, → content

# What tools, editors and file managers leave behind: passed over without a word.
JUNK = re.compile(
    r"(^|/)(__pycache__|\.ipynb_checkpoints|\.git|\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini)(/|$)|"
    r"(\.py[co]|\.sw[a-p]|~)$"
)

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


def pack(files: Files) -> bytes:
    """Pack files into a tar archive (USTAR, names sorted, no times, owners or modes), compressed with bzip2.

    bzip2's format has one encoder that everyone uses, so its bytes are the same everywhere; zlib's are not.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o644
            try:
                archive.addfile(entry, io.BytesIO(files[name]))
            except ValueError as error:  # USTAR takes 100 bytes for the name, 155 for its folders
                raise KitError(f"{name}: the name does not fit into an archive ({error}); shorten it") from None
    return bz2.compress(raw.getvalue(), 9)


def package_files(package: Path) -> dict[str, bytes]:
    """Return every file of a package by its path from the package's parent, text with line ends as on Linux.

    Raises KitError for what must not leave the machine: files that git ignores, and links.
    """
    root = package.parent
    paths = [path for path in sorted(package.rglob("*")) if not JUNK.search(path.relative_to(root).as_posix())]
    if links := [path for path in paths if path.is_symlink()]:
        raise KitError(f"a bundle holds no links; replace by files: {some(links)}")
    paths = [path for path in paths if path.is_file()]
    if ignored := _ignored_by_git(paths, root):
        raise KitError(
            f"git ignores {some(ignored)}, so {'it is' if len(ignored) == 1 else 'they are'} not meant to leave "
            f"this machine; move out of {package}"
        )
    return {path.relative_to(root).as_posix(): _as_on_linux(path.read_bytes()) for path in paths}


def _as_on_linux(content: bytes) -> bytes:
    """Return text with LF; anything with a zero byte is no text, by which git, too, tells."""
    return content if b"\0" in content else content.replace(b"\r\n", b"\n")


def need_no_secrets(files: Files) -> None:
    """Raise KitError that names the files which hold a secret, or are called like one that does."""
    found = [f"{name} (by its name)" for name in files if SECRET_NAMES.search(name)]
    for kind, pattern in SECRET_TEXTS.items():
        found += [f"{name} ({kind})" for name, content in files.items() if re.search(pattern, content)]
    for variable in SECRET_VARIABLES:
        if len(secret := os.environ.get(variable, "").encode()) >= SHORTEST_SECRET:
            found += [f"{name} (your {variable})" for name, content in files.items() if secret in content]
    if found:
        raise KitError(f"a secret must not travel with the code; found in {some(dict.fromkeys(found))}")


def _ignored_by_git(paths: list[Path], root: Path) -> list[str]:
    """Return those that git ignores; none where this is no clone, or git is not there.

    Raises KitError where git cannot tell.
    """
    names = [path.relative_to(root).as_posix() for path in paths]
    # A clone of another user's, as in a container, counts all the same: this program is run from it.
    command = ["git", "-c", "safe.directory=*", "-C", str(root), "check-ignore", "-z", "--stdin"]
    try:
        answer = subprocess.run(
            command,
            input=b"\0".join(map(os.fsencode, names)),
            capture_output=True,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except OSError:
        return []
    if answer.returncode in (0, 1):
        return [os.fsdecode(name) for name in answer.stdout.split(b"\0") if name]
    if b"not a git repository" in answer.stderr:
        return []
    raise KitError(f"git cannot tell what it ignores in {root}: {some([os.fsdecode(answer.stderr)])}")
