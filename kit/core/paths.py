"""Where data is and where output goes: the one place that knows, at home and in a Kaggle kernel."""

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from kit.core.errors import KitError, some


@dataclass(frozen=True)
class OutputDirs:
    """The folders that the kit writes to.

    Attributes
    ----------
    root : Path
        The folder that holds the others; unless told otherwise, the one in which the command runs.
    pixels : Path or None
        Where decoded images are kept; None: in `cache` below the root.
    """

    root: Path = Path(".")
    pixels: Path | None = None

    @classmethod
    def at(cls, output: str | Path, cache: str | Path | None = None) -> "OutputDirs":
        """Return the folders below `output`, as the command line names it; `cache` in place of its own."""
        return cls(Path(output).expanduser(), Path(cache).expanduser() if cache else None)

    @property
    def runs(self) -> Path:
        """The folder of experiments."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """The folder of decoded images."""
        return self.pixels or self.root / "cache"

    @property
    def submissions(self) -> Path:
        """The folder of submissions and their log."""
        return self.root / "submissions"


def input_root() -> Path:
    """Return the folder in which Kaggle mounts what is attached to a kernel.

    The environment variable KIT_INPUT names another one, as rehearsals do.
    """
    return Path(os.environ.get("KIT_INPUT", "/kaggle/input"))


def mount_points(ref: str) -> list[str]:
    """Return the folders below the input root at which Kaggle may mount a source, likeliest first.

    Parameters
    ----------
    ref : str
        A competition's slug; owner/slug of a dataset or a kernel; owner/model/framework/variation[/version] of a
        model.
    """
    owner, *rest = ref.split("/")
    if not rest:
        return [f"competitions/{owner}", owner]
    if len(rest) <= 2:
        return [f"datasets/{owner}/{rest[0]}", f"notebooks/{owner}/{rest[0]}", rest[0]]
    return [f"models/{ref}", "/".join(rest)]


def mounted(ref: str) -> Path | None:
    """Return the folder at which `ref` (see `mount_points`) is mounted; None where it is not.

    Names are compared without regard to case: Kaggle's spelling of a folder may be in mixed case.
    """
    folders = (_below(input_root(), point) for point in mount_points(ref))
    return next((folder for folder in folders if folder), None)


def _below(root: Path, point: str) -> Path | None:
    """Return the folder `point` below another, its names in any case; one in just this case comes first."""
    folders = [root]
    for name in point.split("/"):
        entries = (entry for folder in folders for entry in _entries(folder))
        alike = [entry for entry in entries if entry.name.casefold() == name.casefold() and entry.is_dir()]
        folders = sorted(alike, key=lambda entry: entry.name != name)
    return folders[0] if folders else None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


BELOW = {"competitions": 1, "datasets": 2, "notebooks": 2, "models": 5}  # Kaggle's own folders → levels of names


def mounts() -> str:
    """Return what Kaggle mounted, as the end of a sentence that misses something; "" where this is no kernel."""
    root = input_root()
    if not root.is_dir():
        return ""
    places = []
    for top in _entries(root):
        levels = BELOW.get(top.name.casefold())
        places += (sorted(top.glob("/".join("*" * levels))) if levels else []) or [top]
    if not places:
        return f"; nothing is mounted in {root}"
    return f"; mounted in {root}: {some(place.relative_to(root).as_posix() for place in places)}"


def competition_folder(path: str, slug: str | None = None) -> Path:
    """Return the competition's folder: `path` where it is a folder, else the one where Kaggle mounts `slug`.

    Parameters
    ----------
    path : str
        As the config says it, relative to where the command runs; ~ is the user's home.
    slug : str or None
        The competition's name on Kaggle, where it has one.

    Raises
    ------
    KitError
        Where neither is there.
    """
    if found := data_folder(path, slug):
        return found
    folder = Path(path).expanduser()
    hint = f", and {slug} is not mounted" if slug and input_root().is_dir() else ""
    raise KitError(
        f"competition.path: {folder} is no folder{hint}; give the competition's with --set competition.path=FOLDER"
        f"{mounts() if slug else ''}"
    )


def data_folder(path: str, slug: str | None = None) -> Path | None:
    """Return `path` where it is a folder, else the one where Kaggle mounts `slug`; None where neither is there."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    return mounted(slug) if slug else None


def weight_file(path: str) -> Path:
    """Return the file of a model's weights, wherever it is mounted.

    Parameters
    ----------
    path : str
        As the config says it, relative to where the command runs; ~ is the user's home.

    Returns
    -------
    Path
        `path` where it is a file; else the one file of that name among what Kaggle mounted; where there is none,
        `path`, which does not exist.

    Raises
    ------
    KitError
        Where several mounted files have that name.
    """
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
    """Return the path `relative` below `folder`.

    Parameters
    ----------
    folder : Path
        The competition's folder.
    relative : str
        A path as the config says it.
    key : str
        The config's key that says it, for the error's message.

    Raises
    ------
    KitError
        Where the path leads out of the folder.
    """
    if os.sep == "/" and ".." not in relative and not relative.startswith("/"):
        return folder / relative  # a million rows have a million paths: no part of this one has to be looked at
    path = Path(relative)
    depth, absolute = 0, path.is_absolute()
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or absolute:
            raise KitError(f"{key}: {relative!r} leads outside the competition folder {folder}")
    return folder / path
