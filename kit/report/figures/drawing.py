"""What the figures share: how a policy is drawn, axes, labels.

Plain dictionaries, as plotly.js takes them: they are the same for every version of the Python package.
"""

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kit.core.plotting import COLOURS
from kit.report.material import ReportData
from kit.report.text import short_number, shortened

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
VIRIDIS = ("#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32")  # to .9
MOST_POINTS = 120  # of a line
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GRID = "#e6e6e6"

Trace = dict[str, Any]  # one of the things that a figure draws, as plotly.js takes it


@dataclass(frozen=True)
class Style:
    """How a policy is drawn: beyond seven policies, symbol and dash tell those of one colour apart.

    Attributes
    ----------
    colour : str
        As `#rrggbb`.
    symbol, dash : str
        Plotly's names of the marker and of the line's dashes.
    """

    colour: str
    symbol: str
    dash: str

    @classmethod
    def of(cls, place: int) -> "Style":
        """Return the style of the policy at this place, counted from 0."""
        turn = place // len(COLOURS)
        return cls(COLOURS[place % len(COLOURS)], SYMBOLS[turn % len(SYMBOLS)], DASHES[turn % len(DASHES)])

    @property
    def marks(self) -> bool:
        """Whether lines need markers to be told apart."""
        return self.symbol != SYMBOLS[0]


def styles_of(report_data: ReportData) -> dict[str, Style]:
    """Return how each policy is drawn, by its name."""
    return {policy.name: Style.of(place) for place, policy in enumerate(report_data.policies)}


@dataclass(frozen=True)
class LegendEntry:
    """A line of a figure's legend; without a symbol no marker is shown, with the dash `none` no line."""

    label: str
    colour: str
    symbol: str = ""
    dash: str = "solid"


@dataclass(frozen=True)
class Figure:
    """A figure with its caption.

    Attributes
    ----------
    name : str
        Unique on the page.
    caption : str
        What the figure shows, with the numbers in it.
    data, layout : list of dict, dict
        As plotly.js takes them.
    title : str
        Stands above the figure, where several stand side by side.
    legend : tuple of LegendEntry
        Shown beside the figure.
    height : int
        In pixels.
    """

    name: str
    caption: str
    data: list[Trace]
    layout: dict[str, Any]
    title: str = ""
    legend: tuple[LegendEntry, ...] = ()
    height: int = 0


def escaped(text: str) -> str:
    """Return text that Plotly shows as it stands: it would read tags in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def significant(values: npt.ArrayLike, digits: int = 4) -> list[float | None]:
    """Return values rounded to significant digits, for a small file.

    What is not finite becomes None, as JSON knows no NaN.
    """
    array = np.asarray(values, dtype=np.float64).ravel()
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in array.tolist()]


def depth_colours(number: int) -> list[str]:
    """Return a colour for each depth group: dark is the stem, light the head."""
    place = np.linspace(0, len(VIRIDIS) - 1, number) if number > 1 else np.array([0.0])
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in VIRIDIS])
    mixed = np.stack([np.interp(place, range(len(VIRIDIS)), anchors[:, i]) for i in range(3)], axis=1)
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in mixed.round().astype(int).tolist()]


def translucent(colour: str, opacity: float) -> str:
    """Return a colour through which one sees what lies beneath; an opacity of 1 hides it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def evenly_spaced(length: int, most: int = MOST_POINTS) -> np.ndarray:
    """Return at most so many indices of a sequence, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, most)).round().astype(np.int64))


def above_zero(values: npt.ArrayLike) -> list[float | None]:
    """Return values for a log axis: None, a gap, for what is not above 0."""
    array = np.asarray(values, dtype=np.float64)
    return significant(np.where(array > 0, array, np.nan))


def axis_span(values: np.ndarray) -> list[float]:
    """Return the range of an axis, with some room."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def log_span(values: np.ndarray) -> tuple[float, float]:
    """Return the lowest value above 0, at most eight decades below the highest, and the highest."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 1e-3, 1.0
    return max(float(values.min()), float(values.max()) * 1e-8), float(values.max())


def base_layout(height: int, **more: Any) -> dict[str, Any]:
    """Return the layout that all figures share, with more settings."""
    return {
        "height": height,
        "autosize": True,
        "showlegend": False,
        "hovermode": "closest",
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": FONT, "size": 12, "color": "#222222"},
        "dragmode": False,
    } | more


def plain_axis(title: str, **more: Any) -> dict[str, Any]:
    """Return the settings that all axes share, with more settings."""
    base = {"gridcolor": GRID, "zeroline": False, "linecolor": "#888888", "ticks": "outside", "ticklen": 3}
    return (
        base
        | {"title": {"text": escaped(title), "standoff": 6}}
        | {key: list(value) if isinstance(value, tuple) else value for key, value in more.items()}
    )


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Return a log axis with ticks at whole powers of ten; a short one also has them at 2 and 5 times those."""
    within = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    if len(within) > 2:
        candidates = [10.0**power for power in within[:: -max(1, math.ceil(len(within) / 5))]]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        candidates = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    ticks = sorted(float(f"{tick:.3g}") for tick in candidates if low <= tick <= high)
    return plain_axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[short_number(tick) if tick >= 0.001 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks],
    )


def full_height(shape: str, **more: Any) -> dict[str, Any]:
    """Return a shape, `line` or `rect`, that reaches over the whole height of a figure."""
    return {"type": shape, "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"} | more


def interval_bar(low: float, high: float, y: float, colour: str, width: float) -> Trace:
    """Return a horizontal line from the lower to the upper end of an interval."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [low, high],
        "y": [y, y],
        "line": {"color": colour, "width": width},
        "hoverinfo": "skip",
    }


def rows_layout(rows: int, notes: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Return the layout of a figure with a row a policy.

    The name stands above its row, so that a narrow screen holds it.
    """
    height = 56 + 58 * rows
    layout = base_layout(height, margin={"l": 12, "r": 12, "t": 8, "b": 44})
    hidden = {"visible": False, "range": [rows - 0.5, -0.75], "fixedrange": True}
    return layout | {"xaxis": plain_axis(title, automargin=True), "yaxis": hidden, "annotations": notes}


def row_label(text: str, place: float) -> dict[str, Any]:
    """Return the annotation above a row."""
    where = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "y", "y": place - 0.44, "yanchor": "middle"}
    return where | {"text": text, "showarrow": False, "font": {"size": 12}, "align": "left"}


def panel_title(text: str, top: float) -> dict[str, Any]:
    """Return the annotation above a panel whose upper end is at this share of the figure's height."""
    where = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": top, "yanchor": "bottom"}
    return where | {"text": f"<b>{escaped(shortened(text, 34))}</b>", "showarrow": False, "font": {"size": 11}}


def right_margin(report_data: ReportData) -> int:
    """Return the pixels that the names of the policies need at the right."""
    return 28 + int(6.2 * max(len(shortened(policy.name, 16)) for policy in report_data.policies))


def end_labels(
    ends: Sequence[tuple[str, str, float]], span: Sequence[float], pixels: float, axis: str
) -> list[dict[str, Any]]:
    """Return annotations with names at the ends of lines, pushed apart where lines end together.

    Parameters
    ----------
    ends : sequence of tuple of (str, str, float)
        Name, colour and the end of each line on the axis: its logarithm where that is a log axis.
    span : sequence of float
        The lower and the upper end of the axis.
    pixels : float
        The height of the panel.
    axis : str
        Plotly's name of the axis, like `y2`.
    """
    apart, below = 13.0, -math.inf
    notes: list[dict[str, Any]] = []
    scale = pixels / (span[1] - span[0])
    placed = []
    for name, colour, value in sorted(ends, key=lambda end: end[2]):
        at = max((value - span[0]) * scale, below + apart)
        placed.append((name, colour, value, at))
        below = at
    above = pixels + apart
    for name, colour, value, at in reversed(placed):
        at = above = min(at, above - apart)  # where the uppermost were pushed out, those below make room
        notes.append(
            {
                "xref": "paper",
                "x": 1,
                "xanchor": "left",
                "yref": axis,
                "y": value,
                "yshift": round(at - (value - span[0]) * scale, 1),
                "text": f'<span style="color:{colour}">■</span> {escaped(shortened(name, 16))}',
                "showarrow": False,
                "font": {"size": 11},
            }
        )
    return notes


def view_symbol(view: str) -> str:
    """Return the marker of a view of the comparison."""
    return {"raw": "circle", "tuned": "square", "equalised": "diamond"}.get(view, "circle")


def policy_legend(report_data: ReportData, names: Container[str] | None = None) -> tuple[LegendEntry, ...]:
    """Return the legend of policies, of these names alone where there are any."""
    return tuple(
        LegendEntry(name, style.colour, style.symbol if style.marks else "", style.dash)
        for name, style in styles_of(report_data).items()
        if names is None or name in names
    )


def depth_legend(groups: Sequence[str]) -> tuple[LegendEntry, ...]:
    """Return the legend of depth groups; of many, of six evenly spaced."""
    colours = depth_colours(len(groups))
    return tuple(LegendEntry(groups[i], colours[i]) for i in evenly_spaced(len(groups), 6).tolist())
