"""Where data is and where output goes: the one place that knows."""

from dataclasses import dataclass
from pathlib import Path

from kit.errors import KitError


@dataclass(frozen=True)
class Places:
    """The folders the kit writes to, below `root` (where the command runs unless told otherwise)."""

    root: Path = Path(".")

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"


def competition_folder(path: str) -> Path:
    """The competition's folder; a relative path counts from where the command runs."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise KitError(
            f"competition.path: {folder} is no folder; give the competition's with --set competition.path=FOLDER"
        )
    return folder


def inside(folder: Path, relative: str, key: str) -> Path:
    """`folder`/`relative`, refused where the text leads out of the folder."""
    parts = Path(relative).parts
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or Path(relative).is_absolute():
            raise KitError(f"{key}: {relative!r} leads outside the competition folder {folder}")
    return folder / relative
