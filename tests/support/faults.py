"""Files that break, as disks, copies and people break them; and files that are changed on purpose."""

import random
from pathlib import Path

from kit.core.runs import RunDir

DAMAGES = ("cut", "flip3", "zero4k", "empty", "other")
PAGE = 4096  # bytes that a disk loses at once


def damage(path: Path, how: str, seed: int = 0, other: Path | None = None) -> None:
    """Damage a file in place.

    Parameters
    ----------
    path : Path
    how : str
        `cut`: ends earlier; `flip3`: three bits are others; `zero4k`: a page is zeros (all of a small file);
        `empty`: nothing is left; `other`: holds what another file does.
    seed : int
        Where it is damaged.
    other : Path, optional
        Whose content `other` puts there.
    """
    whole, chance = path.read_bytes(), random.Random(f"{path.name} {how} {seed}")
    content = bytearray(whole)
    if how == "cut":
        content = content[: chance.randrange(1, len(content))]
    elif how == "flip3":
        for bit in chance.sample(range(8 * len(content)), 3):
            content[bit // 8] ^= 1 << bit % 8
    elif how == "zero4k":
        start = PAGE * chance.randrange(-(-len(content) // PAGE))
        end = min(start + PAGE, len(content))
        content[start:end] = bytes(end - start)
    elif how == "empty":
        content.clear()
    else:
        assert other is not None, "say which file is put there"
        content = bytearray(other.read_bytes())
    assert bytes(content) != whole, f"{path} is as it was"
    path.write_bytes(content)


def as_left(run: RunDir, **fields: object) -> None:
    """Let a run whose files a test has changed on purpose have left them so; `fields` of run.json change, too."""
    run.write(run.record.with_fields(**{"files": run.digests()} | fields))
