"""What the kit's pictures share: colours, markers, and how figures are made and saved."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kit.core.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's colours, told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

DPI = 110  # of pictures

# matplotlib's markers, one a character.
MARKERS = "osD^v"


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, `width` by `height` inches.

    It is made without pyplot: no display is asked for, and no global state of the user's notebook is touched.
    """
    logging.getLogger("matplotlib").addFilter(_is_no_word_on_caches)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _is_no_word_on_caches(record: logging.LogRecord) -> bool:
    """Whether a word of matplotlib's is about something else than a home that cannot be written.

    It makes a temporary folder then, which serves as well.
    """
    return "MPLCONFIGDIR" not in str(record.msg) and "mkdir -p failed" not in str(record.msg)


def save(figure: "Figure", path: Path, source: str = "") -> None:
    """Save a figure in the format that the file's suffix names: .png, .pdf or .svg.

    Parameters
    ----------
    source : str
        What a .png was drawn from, which `source_of` reads.
    """
    stated = {"Source": source} if source else None
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=Path(path).suffix.lower().lstrip("."), metadata=stated)


def source_of(path: Path) -> str:
    """Return what a .png was drawn from, as `save` wrote it; "" where it is missing, damaged, or does not tell."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return str(image.info.get("Source", ""))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # PIL's words for a file that is none
        return ""
