"""Extra rows in a kernel: in a dataset that is attached, or, of the competition's own images, in the bundle."""

from pathlib import Path
from typing import Any

from kit.competition.config import CompetitionConfig, ExtraConfig
from kit.competition.extra_tables import extra_folder
from kit.core.errors import KitError
from kit.core.paths import competition_folder, inside

FOLDER = "extra"  # in the bundle
LARGEST = 300_000  # bytes of a table that travels in the bundle


def extra_there(config: CompetitionConfig) -> dict[str, Any]:
    """Return what changes of the section for a kernel: where extra tables lie there."""
    if not config.extra:
        return {}
    return {
        "extra": tuple(
            each.model_copy(update={"path": _path_there(config, each, place)})
            for place, each in enumerate(config.extra)
        )
    }


def extra_sources(config: CompetitionConfig) -> list[str]:
    """Return owner/slug of what a kernel attaches for its extra rows."""
    return [each.slug for each in config.extra or () if each.slug]


def extra_files(config: CompetitionConfig) -> dict[str, bytes]:
    """Return the extra tables that travel in the bundle.

    Raises
    ------
    KitError
        Where a kernel would not find a table or its images.
    """
    files = {}
    for place, extra in enumerate(config.extra or ()):
        if extra.slug or _path_there(config, extra, place) is None:
            continue
        key = f"competition.extra[{place}]"
        beside = (
            "put it into a dataset of Kaggle's and name that as owner/slug in its slug, or lay it into the "
            "competition's folder and leave path out"
        )
        if not extra.side:
            raise KitError(f"{key}: a kernel does not find the images of {extra.table}; {beside}")
        path = inside(extra_folder(extra, Path(), key), extra.table, f"{key}.table")
        content = path.read_bytes() if path.is_file() else b""
        if not content:
            raise KitError(f"{key}.table: {path} is not there, or is empty")
        if len(content) > LARGEST:
            raise KitError(
                f"{key}: {path} has {len(content) / 1000:.0f} kB, more than the {LARGEST // 1000} kB that travel "
                f"with the code; {beside}"
            )
        files[f"{FOLDER}/{place}/{extra.table}"] = content
    return files


def _path_there(config: CompetitionConfig, extra: ExtraConfig, place: int) -> str | None:
    """Where an extra table lies in a kernel; None: in the competition's folder."""
    if extra.slug:
        return f"data/{extra.slug.rpartition('/')[2]}"
    if extra.path is None or _is_competition(config, extra.path):
        return None
    return f"{FOLDER}/{place}"


def _is_competition(config: CompetitionConfig, path: str) -> bool:
    """Whether a folder is that of the competition."""
    if not Path(config.path).expanduser().is_dir():
        return False
    return competition_folder(config.path).resolve() == Path(path).expanduser().resolve()
