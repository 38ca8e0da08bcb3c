"""Near-identical images side by side, so that one sees at a glance whether they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.core.plotting import COLOURS, new_figure, save
from kit.report.text import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 24  # pairs in a picture
ACROSS = 4  # pairs in a line
SIDE, GAP, ABOVE, BELOW, APART = 1.45, 0.07, 0.36, 0.3, 0.4  # inches: an image, and the room around it
LETTERS = 24  # of a text that fit above an image


@dataclass(frozen=True)
class PairPicture:
    """Two images that are drawn side by side.

    Attributes
    ----------
    first, second : ndarray
        uint8 [height, width], or [height, width, 3 or 4].
    first_text, second_text : str
        What stands above each image.
    below : str
        One line below both.
    labels_differ : bool
        Whether the two images have different labels.
    """

    first: np.ndarray
    second: np.ndarray
    first_text: str
    second_text: str
    below: str
    labels_differ: bool


def draw_pairs(pairs: Sequence[PairPicture], title: str, path: Path) -> None:
    """Draw a contact sheet of the first 24 pairs; those whose labels differ have a thick orange frame and say so.

    Parameters
    ----------
    pairs : sequence of PairPicture
        One at least.
    title : str
        Stands above the sheet.
    path : Path
        A PNG, PDF or SVG file.
    """
    pairs = pairs[:MOST]
    across = min(ACROSS, len(pairs))
    lines = -(-len(pairs) // across)
    width, height = across * (2 * SIDE + GAP + APART) + APART, lines * (ABOVE + SIDE + BELOW) + 0.5
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # it would set the images of a pair apart
    figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    for number, pair in enumerate(pairs):
        line, place = divmod(number, across)
        left = APART + place * (2 * SIDE + GAP + APART)
        bottom = height - 0.5 - (line + 1) * (ABOVE + SIDE + BELOW) + BELOW
        for image, text, shift in ((pair.first, pair.first_text, 0), (pair.second, pair.second_text, SIDE + GAP)):
            box = ((left + shift) / width, bottom / height, SIDE / width, SIDE / height)
            _draw_image(figure.add_axes(box), image, text, pair.labels_differ)
        figure.text(
            (left + SIDE + GAP / 2) / width,
            (bottom - 0.06) / height,
            f"DIFFERENT LABELS · {pair.below}" if pair.labels_differ else pair.below,
            ha="center",
            va="top",
            fontsize=8,
            fontweight="bold" if pair.labels_differ else "normal",
            color=COLOURS[1] if pair.labels_differ else "#333333",
        )
    save(figure, path)


def _draw_image(axes: "Axes", image: np.ndarray, text: str, marked: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    smooth = "antialiased" if max(image.shape[:2]) > 100 else "nearest"  # few pixels are shown as squares
    axes.imshow(_squared(image), cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    title = "\n".join(shortened(line, LETTERS) for line in text.split("\n"))
    axes.set_title(title, fontsize=7.5, pad=3, parse_math=False)
    for side in axes.spines.values():
        side.set(color=COLOURS[1] if marked else "#bbbbbb", linewidth=3 if marked else 0.8)


def _squared(image: np.ndarray) -> np.ndarray:
    """Return the image centred on a white square, so that all images of a sheet take the same room."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.full((side, side, *image.shape[2:]), 255, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square
