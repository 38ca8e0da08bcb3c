"""A competition is downloaded from Kaggle and unpacked into a folder; nothing outside it is touched."""

import re
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from kit.core.errors import KitError, Say, some
from kit.core.files import is_safe, need_writable, parse_json, whole_folder, write_json
from kit.kaggle.client import Kaggle

SPARE = 0.5e9  # bytes that stay free


def fetch_data(slug: str, kaggle: Kaggle, folder: str | Path | None = None, say: Say = print) -> Path:
    """Download a competition and unpack it into a folder.

    The archive lies beside the folder, as .<slug>.zip, until all is unpacked; an interrupted download goes on
    where it stopped, if Kaggle still has the same archive.

    Parameters
    ----------
    slug : str
        Kaggle's name of the competition.
    folder : str or Path, optional
        Must not be there; left out: data/<slug>.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    KitError
        Where the disk is too small, before anything is downloaded or unpacked, and for an archive with names that
        lead out of the folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", slug):
        raise KitError(f"{slug!r} is no competition's name; it is the last part of its address on Kaggle")
    target = Path(folder).expanduser() if folder else Path("data") / slug
    if target.exists():
        raise KitError(f"{target} is there already; remove it to download {slug} again, or give --to DIR")
    need_writable(target.parent)
    archive = target.parent / f".{slug}.zip"  # the kit's own: a <slug>.zip there is the user's
    about = archive.with_name(f"{archive.name}.json")
    answer = kaggle.competition_archive(slug)
    size = int(answer.headers.get("Content-Length") or 0)
    offered = _identity(answer)
    if not offered or offered != _read(about):
        # Some versions of Kaggle's client would append the rest of this archive to the beginning of another.
        archive.unlink(missing_ok=True)
    here = archive.stat().st_size if archive.is_file() else 0
    _need_space(target.parent, size - here, f"the archive of {slug}")
    say(f"downloading {slug}, {size / 1e6:.1f} MB" + (f", of which {here / 1e6:.1f} are here" if here else ""))
    if size and here == size:
        answer.close()
    else:
        write_json(about, offered)
        kaggle.download_archive(slug, answer, archive)
    count = unpack(archive, target)
    archive.unlink()
    about.unlink(missing_ok=True)
    say(f"{target}: {count} files")
    return target


def _identity(answer: Any) -> dict[str, str]:
    """Return what tells an archive from another or an older one, by the headers; {} where they do not."""
    headers = {name: answer.headers.get(name) or "" for name in ("Content-Length", "ETag", "Last-Modified")}
    return headers if headers["ETag"] or headers["Last-Modified"] else {}


def _read(about: Path) -> dict[str, str]:
    """Return the identity of what was downloaded; {} where there is none, or it is damaged."""
    try:
        identity: dict[str, str] = parse_json(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # then the download begins anew, which needs no word
        return {}
    return identity


def unpack(archive: Path, target: Path) -> int:
    """Unpack a zip file into the new folder `target`, whole or not at all; return the number of files."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.is_dir()]
            if hostile := [member.filename for member in members if not _is_plain(member)]:
                raise KitError(
                    f"{archive}: not unpacked, as some names lead elsewhere: {some(map(repr, hostile), 5)}"
                )
            if twice := _same_place([member.filename for member in members]):
                raise KitError(f"{archive}: not unpacked, as it holds files of the same name: {some(twice, 5)}")
            _need_space(target.parent, sum(member.file_size for member in members), f"what {archive} holds")
            with whole_folder(target) as draft:
                for member in members:
                    packed.extract(member, draft)
                if target.exists():  # since it was looked for: not to be replaced
                    raise KitError(f"{target} is there now; move it away and try again")
    except RuntimeError as error:
        raise KitError(f"{archive}: needs a password, or is packed as Python cannot; unpack it by hand") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise KitError(f"{archive} is damaged ({error}); remove it and download again") from error
    return len(members)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    """Return whether it is a file below the folder, and no link."""
    return is_safe(member.filename) and not stat.S_ISLNK(member.external_attr >> 16)


def _same_place(names: list[str]) -> list[str]:
    """Return the names of files that would lie where another file or folder does, whatever their case."""
    counts = Counter(name.lower() for name in names)
    folders = {str(folder) for name in counts for folder in PurePosixPath(name).parents}
    return [name for name in names if counts[name.lower()] > 1 or name.lower() in folders]


def _need_space(folder: Path, size: float, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise KitError(
            f"{folder} has {free / 1e9:.1f} GB free, but {what} takes {size / 1e9:.1f} GB and some to spare"
        )
