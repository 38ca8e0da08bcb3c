"""What the kit's pictures share: colours, markers, axes and how they are saved."""

from pathlib import Path

from kit.core.files import atomic

# Okabe & Ito's colours, told apart by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


MARKERS = "osD^v"


def new_figure(width: float, height: float):
    """A figure without pyplot: no display is asked for and no global state of the user's notebook touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure, path: Path) -> None:
    """As PNG, or as PDF or SVG where the name says so."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, format=Path(path).suffix.lower().lstrip("."))
