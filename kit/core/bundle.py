"""Files are packed into one archive, whose bytes depend on nothing but them; and the files of a package."""

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
