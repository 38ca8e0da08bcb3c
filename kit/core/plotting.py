"""What the kit's pictures share: colours, markers, and how figures are made and saved."""

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Save a figure in the format that the file's suffix names: .png, .pdf or .svg."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format=Path(path).suffix.lower().lstrip("."))
