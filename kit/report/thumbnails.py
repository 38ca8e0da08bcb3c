"""The images that most policies got wrong, small enough to be held in the page."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit.competition.load import Competition
from kit.core.errors import KitError
from kit.data.sources import Source
from kit.report.material import PolicyData, Thumbnail

if TYPE_CHECKING:
    from PIL import Image

    from kit.data.reading import Reading

MOST_IMAGES = 24
SIDE = 96  # of a thumbnail, at most


def most_wrong(
    competition: Competition, policies: Sequence[PolicyData], reading: "Reading | None" = None
) -> list[Thumbnail]:
    """Return the 24 rows that the most policies got wrong, with their images.

    Of rows that equally many policies got wrong, those come first that the policies were surest about.
    """
    outcomes = [policy.outcome for policy in policies if policy.outcome is not None]
    if not outcomes:
        return []
    each = [pd.DataFrame({"wrong": o.wrong.astype(int), "doubt": o.doubt, "of": 1}, index=o.ids) for o in outcomes]
    table = pd.concat(each).groupby(level=0, sort=True).agg({"wrong": "sum", "doubt": "mean", "of": "sum"})
    table = table[table["wrong"] > 0].sort_values(["wrong", "doubt"], ascending=False, kind="stable")
    names = competition.observations.of if competition.observations else competition.ids
    place = {name: len(names) - 1 - row for row, name in enumerate(reversed(names))}  # of an observation the first
    made = []
    for name, wrong, of in table[["wrong", "of"]].head(MOST_IMAGES).itertuples(name=None):
        taken = Counter(
            _labels(outcome.predicted[at], competition)
            for outcome in outcomes
            if (at := outcome.ids.get_indexer(pd.Index([name]))[0]) >= 0 and outcome.wrong[at]
        )
        made.append(
            Thumbnail(
                id=str(name),
                image=thumbnail(competition.train_images[place[name]], reading),
                truth=_labels(competition.targets[place[name]], competition),
                predicted=min(taken, key=lambda text: (-taken[text], text)),
                wrong=int(wrong),
                of=int(of),
            )
        )
    return made


def _labels(label: np.ndarray, competition: Competition) -> str:
    """Return a row's label, or its labels, by name."""
    indices = np.flatnonzero(label) if np.ndim(label) else [int(label)]
    return ", ".join(competition.names[competition.classes[index]] for index in indices) or "none"


def thumbnail(source: Source, reading: "Reading | None" = None) -> str | None:
    """Return an image of at most 96 pixels a side as a data URI; None where it cannot be read.

    It is a JPEG or a PNG, whichever is smaller.
    """
    from kit.data.decode import DecodeError, open_image
    from kit.data.reading import USUAL

    reading = reading or USUAL
    try:
        image = reading.flat(open_image(source, SIDE, reading))
    except (DecodeError, KitError):
        return None
    image.thumbnail((SIDE, SIDE))
    if image.mode == "RGBA":
        image = image.convert("RGB")
    files = {
        "jpeg": _saved(image, "jpeg", quality=80),
        "png": _saved(image, "png", optimize=True),
    }
    smaller = min(files, key=lambda name: len(files[name]))
    return f"data:image/{smaller};base64,{base64.b64encode(files[smaller]).decode()}"


def _saved(image: "Image.Image", file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()
