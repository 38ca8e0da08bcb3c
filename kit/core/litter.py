"""What processes leave that were killed while they wrote: found by its name, and removed with its owner dead."""

import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kit.core.claims import claim, dead_claims
from kit.core.errors import Say
from kit.core.owner import Owner

TAG = r"(?P<tag>[0-9a-f]{16}-\d+-\d+)"
TEMPORARY = re.compile(rf"\.(?P<name>.+)\.{TAG}\.\w+\.tmp(\.[^/]*)?")  # of `core.files`, and drafts of claims
FORMER = re.compile(rf"\.(?P<name>.+)\.{TAG}\.\w+\.former")  # what `whole_folder` replaces
PART = re.compile(rf"part-[0-9a-f]{{16}}-{TAG}\.npy")  # a pixel cache that is being filled, or has gaps
# Of earlier versions: their names tell no owner, or a number of a process alone.
EARLY_PART = re.compile(r"\.?part-[0-9a-f]{16}-(?P<pid>\d+)\.npy(\.\w{8}\.npy)?")
EARLY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(\.former|\.\w+)?")
CLAIM = re.compile(r"(?P<name>.+)\.\d+\.claim")
DAY = 86400.0  # seconds


@dataclass(frozen=True)
class Litter:
    """A temporary file or folder.

    Attributes
    ----------
    path : Path
    owner : Owner or None
        The process that made it; None where its name does not tell.
    alive : bool or None
        Whether that process lives; None where it cannot be known from here.
    """

    path: Path
    owner: Owner | None
    alive: bool | None


def litter_in(folder: Path) -> list[Litter]:
    """Return the temporary files and folders below a folder, whoever made them, by their paths.

    Claims are not among them. What an earlier version named without an owner is, where its name has the form and
    what it is to become stands beside it or may have.
    """
    found = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if (seen := _seen(Path(place) / name)) is not None:
                found.append(seen)
                if name in folders:
                    folders.remove(name)  # what is in it goes with it
    return sorted(found, key=lambda each: each.path)


def remove_litter(folder: Path) -> list[Path]:
    """Remove temporary files and folders below a folder whose owners are dead, and claims of dead owners.

    Owners are those of this machine alone: of others nothing is known. A folder that was to be replaced by another
    one, and was not, gets its name back.

    Returns
    -------
    list of Path
        What was removed.
    """
    gone = [each.path for each in litter_in(folder) if each.alive is False and _cleared(each.path)]
    for place, _, _ in os.walk(folder):
        for dead in dead_claims(Path(place)):
            with suppress(OSError):
                if (match := CLAIM.fullmatch(dead.name)) and _taken_away(dead.with_name(match["name"])):
                    gone.append(dead)
    return gone


def sweep(folders: Iterable[Path], say: Say) -> None:
    """Remove what is left in these folders, and say how much it was."""
    if count := sum(len(remove_litter(folder)) for folder in folders):
        say(f"removed {count} temporary {'file' if count == 1 else 'files'} of processes that were killed")


def _seen(path: Path) -> Litter | None:
    """Return what a file or a folder is, by its name; None where it is nothing temporary."""
    name = path.name
    if match := TEMPORARY.fullmatch(name) or FORMER.fullmatch(name) or PART.fullmatch(name):
        owner = Owner.of_tag(match["tag"])
        return Litter(path, owner, owner.alive if owner else None)
    if match := EARLY_PART.fullmatch(name):
        return Litter(path, None, False if _is_old(path) and not _is_used(int(match["pid"])) else None)
    return Litter(path, None, None) if EARLY.fullmatch(name) else None


def _is_old(path: Path) -> bool:
    """Whether nothing was written for a day, which is more than clocks of machines differ by."""
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > DAY
    return False


def _is_used(pid: int) -> bool:
    """Whether there is a process of this number here, whatever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _cleared(path: Path) -> bool:
    """Remove a file or a folder, or give a folder its name back; whether it is gone now."""
    with suppress(OSError):
        if (match := FORMER.fullmatch(path.name)) and not os.path.lexists(path.with_name(match["name"])):
            if len(path.name.encode()) > 250:  # the folder's own name may have been cut
                return False
            path.rename(path.with_name(match["name"]))
            return True
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True
    return False


def _taken_away(path: Path) -> bool:
    """Remove the dead claims on a path, as one who takes them over and has done: so no living one can be hit."""
    made = claim(path, "removes what a dead process left")
    if made:
        made.release()
    return made is not None
