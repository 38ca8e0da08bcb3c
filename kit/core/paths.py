"""Where data is and where output goes: the one place that knows, at home and in a Kaggle kernel."""

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from kit.core.errors import KitError, some


@dataclass(frozen=True)
class OutputDirs:
    """The folders the kit writes to, below `root` (where the command runs unless told otherwise).

    pixels  where decoded images are kept; left out: `cache` below the root
    """

    root: Path = Path(".")
    pixels: Path | None = None

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.pixels or self.root / "cache"

    @property
    def submissions(self) -> Path:
        return self.root / "submissions"


def input_root() -> Path:
    """Where Kaggle mounts what is attached to a kernel. KIT_INPUT names another folder (rehearsals do)."""
    return Path(os.environ.get("KIT_INPUT", "/kaggle/input"))


def mount_points(ref: str) -> list[str]:
    """Below the input root, the folders at which Kaggle may mount `ref`, likeliest first.

    ref  a competition's slug; owner/slug of a dataset or a kernel; owner/model/framework/variation[/version]
         of a model
    """
    owner, *rest = ref.split("/")
    if not rest:
        return [f"competitions/{owner}", owner]
    if len(rest) <= 2:
        return [f"datasets/{owner}/{rest[0]}", f"notebooks/{owner}/{rest[0]}", rest[0]]
    return [f"models/{ref}", "/".join(rest)]


def mounted(ref: str) -> Path | None:
    """The folder at which `ref` (see `mount_points`) is mounted; None where it is not."""
    folders = (input_root() / point for point in mount_points(ref))
    return next((folder for folder in folders if folder.is_dir()), None)


def competition_folder(path: str, slug: str | None = None) -> Path:
    """The competition's folder: `path`, counted from where the command runs, else Kaggle's mount of `slug`."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if slug and (mount := mounted(slug)):
        return mount
    hint = f", and {slug} is not mounted" if slug and input_root().is_dir() else ""
    raise KitError(
        f"competition.path: {folder} is no folder{hint}; give the competition's with --set competition.path=FOLDER"
    )


def weight_file(path: str) -> Path:
    """The weight file `path`; where it is not there, the one file of that name among what Kaggle mounted."""
    file = Path(path).expanduser()
    if file.is_file() or not input_root().is_dir():
        return file
    depths = ("*", "datasets/*/*", "notebooks/*/*", "*/*/*/*", "models/*/*/*/*/*")
    name = glob.escape(file.name)
    found = sorted({match for depth in depths for match in input_root().glob(f"{depth}/{name}")})
    if len(found) > 1:
        raise KitError(f"model.weights: {file.name} is attached {len(found)} times: {some(found)}; attach one")
    return found[0] if found else file


def inside(folder: Path, relative: str, key: str) -> Path:
    """`folder`/`relative`, refused where the text leads out of the folder."""
    parts = Path(relative).parts
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or Path(relative).is_absolute():
            raise KitError(f"{key}: {relative!r} leads outside the competition folder {folder}")
    return folder / relative
