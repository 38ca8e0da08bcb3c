"""How the images of runs were read, and what was noticed of their pixels."""

from collections.abc import Sequence
from typing import Any

from kit.core.errors import KitError, Say
from kit.core.runs import ExperimentDir, RunRecord
from kit.core.settings import fingerprint
from kit.data.config import DataConfig
from kit.data.deep import FULL
from kit.data.images import ONE_VALUE, ImageSet
from kit.data.reading import USUAL

EARLY = {"background": "none", "levels": FULL}  # what versions did that did not write it down


def reading_of(images: ImageSet) -> dict[str, Any]:
    """Return how images are read, by the config's keys, for the records of runs."""
    reading = images.decoder.reading
    background = "#{:02x}{:02x}{:02x}".format(*reading.background) if reading.background else "none"
    return {"background": background, "levels": list(reading.levels) if reading.levels else "auto"}


def as_they_were_read(data: DataConfig, records: Sequence[RunRecord]) -> DataConfig:
    """Return the config with the reading of these runs: a model is to see what it was trained on.

    Where runs differ, their training images do not show it, and the reading that a run has written down counts.
    """
    written = next((record.reading for record in records if record.reading), EARLY)
    levels = written["levels"]
    return data.model_copy(update=written | {"levels": levels if isinstance(levels, str) else tuple(levels)})


def pixels_digest(images: ImageSet) -> str:
    """Return a digest of how pixels differ from those of early versions; "" where they do not."""
    return fingerprint(said) if (said := images.read_otherwise()) else ""


def test_pixels_digest(images: ImageSet) -> str:
    """Return `pixels_digest` for test images, whose limits decide, too, which of them are read."""
    reading = images.decoder.reading
    limits = (reading.megapixels, reading.text_chunk_mb)
    if limits == (USUAL.megapixels, USUAL.text_chunk_mb):
        return pixels_digest(images)
    return fingerprint(images.read_otherwise() | {"limits": limits})


def other_pixels(images: ImageSet, folder: ExperimentDir) -> str | None:
    """Say how the runs in the folder saw other pixels of these files; in words that fit behind "was made from"."""
    now = pixels_digest(images)
    for run in folder.runs():
        if run.record.depends_on.get("pixels", "") != now:
            said = ", ".join(f"{name}: {value}" for name, value in images.read_otherwise().items())
            early = not run.record.reading and not run.record.depends_on.get("pixels")
            hint = "; data.background=none and data.levels='[0, 65535]' read them as then" if early else ""
            place = run.path.relative_to(folder.path)
            return f"other pixels of the same files ({place}; now {said or 'as usual'}{hint})"
    return None


def tell_noticed(part: str, images: ImageSet, say: Say) -> None:
    """Say what was noticed of images that may spoil their pixels."""
    for line in images.remarks(part):
        say(line)


def need_something(images: ImageSet) -> None:
    """Raise KitError where every training image is one value once decoded."""
    if len(images) and images.count(ONE_VALUE) == len(images):
        raise KitError(
            f"{images.remarks('train')[0]}: nothing can be learnt from them; look at them, and at "
            "data.background, data.levels and data.resize"
        )
