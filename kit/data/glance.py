"""A glance at some of the images: how large they are, of which shapes, and whether all are grey."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.core.errors import KitError
from kit.core.zips import MemberError, zip_directory
from kit.data.sources import File, readable

if TYPE_CHECKING:
    from PIL import Image

GREY = frozenset({"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L"})


@dataclass(frozen=True)
class Glance:
    """What some images look like.

    Attributes
    ----------
    count
        How many were looked at and could be read.
    side
        Median of their short sides, in pixels.
    narrowest, widest
        Width by height: the 5th and the 95th percentile.
    grey
        Whether none has a colour.
    """

    count: int
    side: int
    narrowest: float
    widest: float
    grey: bool


def glance(folder: Path, names: Sequence[str], most: int = 200, decoded: int = 16) -> Glance | None:
    """Look at some images, evenly spaced; None where none of them can be read.

    Parameters
    ----------
    folder : Path
        The folder they are below.
    names : sequence of str
        Their paths, with "/" between the parts; a.zip/b.png is in a zip.
    most : int
        So many headers are read.
    decoded : int
        So many images are decoded, where their header does not tell that they are grey.
    """
    from PIL import Image

    chosen = [names[at] for at in np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).astype(int))]
    sizes: list[tuple[int, int]] = []
    grey, looked = True, 0
    for name in chosen:
        try:
            with Image.open(readable(_file(folder, name))) as image:
                sizes.append(_upright(image))
                if grey and image.mode not in GREY and looked < decoded:
                    looked += 1
                    pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.int16)
                    grey = bool((np.ptp(pixels, axis=-1) <= 2).all())
        except (OSError, ValueError, SyntaxError, KitError, MemberError, Image.DecompressionBombError):
            continue
    if not sizes:
        return None
    width, height = np.array(sizes, dtype=float).T
    narrowest, widest = np.percentile(width / height, [5, 95])
    side = int(np.median(np.minimum(width, height)))
    return Glance(len(sizes), side, float(narrowest), float(widest), grey)


def _upright(image: "Image.Image") -> tuple[int, int]:
    """Width and height as it is shown."""
    from kit.data.reading import orientation_of

    width, height = image.size
    return (height, width) if orientation_of(image) >= 5 else (width, height)


def _file(folder: Path, name: str) -> File:
    path = folder / name
    container = next((each for each in path.parents if each.suffix.lower() == ".zip" and each.is_file()), None)
    if container is None:
        return path
    return zip_directory(container, "image").member(path.relative_to(container).as_posix())
