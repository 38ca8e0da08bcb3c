"""What the figures share: how a policy is drawn, axes, labels, numbers as they are said.

Plain dictionaries, as plotly.js takes them: they are the same for every version of the Python package.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.core.plotting import COLOURS
from kit.report.material import ReportData

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
VIRIDIS = ("#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32")  # to .9
MOST_POINTS = 120  # of a line
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GRID = "#e6e6e6"


@dataclass(frozen=True)
class Style:
    """How a policy is drawn: beyond seven policies marker and dash tell those of a colour apart."""

    colour: str
    symbol: str
    dash: str

    @classmethod
    def of(cls, place: int) -> "Style":
        turn = place // len(COLOURS)
        return cls(COLOURS[place % len(COLOURS)], SYMBOLS[turn % len(SYMBOLS)], DASHES[turn % len(DASHES)])

    @property
    def marks(self) -> bool:
        return self.symbol != SYMBOLS[0]


def styles_of(material: ReportData) -> dict[str, Style]:
    """How each policy is drawn, by its name."""
    return {policy.name: Style.of(place) for place, policy in enumerate(material.policies)}


@dataclass(frozen=True)
class LegendEntry:
    """A line of a figure's key."""

    label: str
    colour: str
    symbol: str = ""
    dash: str = "solid"


@dataclass(frozen=True)
class Figure:
    """A figure with its caption: what it shows, with the numbers in it.

    name  unique on the page;  title  above the figure, where several stand side by side
    """

    name: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    title: str = ""
    key: tuple[LegendEntry, ...] = ()
    height: int = 0


def plain(text: Any) -> str:
    """Text that Plotly shows as it stands: it would read tags in it."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shortened(text: str, letters: int) -> str:
    """The beginning and the end of a long text: names often differ at the end."""
    half = letters // 2
    return text if len(text) <= letters else f"{text[: letters - half - 1]}…{text[-half:]}"


def said(value: float) -> str:
    """A number to three digits, as one says it."""
    return f"{value:.3g}".replace("e-0", "e-")


def rows_of(number: int) -> str:
    return f"{number} row{'' if number == 1 else 's'}"


def sig(values, digits: int = 4) -> list[float | None]:
    """To so many digits, for a small file; None for what is not finite, as JSON knows no NaN."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in array.tolist()]


def depth_colours(number: int) -> list[str]:
    """Dark is the stem, light the head."""
    place = np.linspace(0, len(VIRIDIS) - 1, number) if number > 1 else np.array([0.0])
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in VIRIDIS])
    mixed = np.stack([np.interp(place, range(len(VIRIDIS)), anchors[:, i]) for i in range(3)], axis=1)
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in mixed.round().astype(int).tolist()]


def faint(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def percent(share: float) -> str:
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def thinned(length: int, most: int = MOST_POINTS) -> np.ndarray:
    """Places, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, most)).round().astype(np.int64))


def places(length: int, most: int) -> list[int]:
    return thinned(length, most).tolist()


def above_zero(values) -> list[float | None]:
    """For a log axis: a rate of 0 is a gap."""
    array = np.asarray(values, dtype=np.float64)
    return sig(np.where(array > 0, array, np.nan))


def axis_span(values: np.ndarray) -> list[float]:
    """The range of an axis, with some room."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def log_span(values: np.ndarray) -> tuple[float, float]:
    """The lowest value above 0, at most eight decades below the highest, and the highest."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 1e-3, 1.0
    return max(float(values.min()), float(values.max()) * 1e-8), float(values.max())


def base_layout(height: int, **more) -> dict[str, Any]:
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


def plain_axis(title: str, **more) -> dict[str, Any]:
    base = {"gridcolor": GRID, "zeroline": False, "linecolor": "#888888", "ticks": "outside", "ticklen": 3}
    return (
        base
        | {"title": {"text": plain(title), "standoff": 6}}
        | {key: list(value) if isinstance(value, tuple) else value for key, value in more.items()}
    )


def log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Ticks at whole powers of ten, of a short axis at 1, 2 and 5 times those."""
    within = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    if len(within) > 2:
        each = [10.0**power for power in within[:: -max(1, math.ceil(len(within) / 5))]]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        each = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    ticks = sorted(float(f"{tick:.3g}") for tick in each if low <= tick <= high)
    return plain_axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[said(tick) if tick >= 0.001 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks],
    )


def full_height(kind: str, **more) -> dict[str, Any]:
    return {"type": kind, "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"} | more


def interval_bar(interval: Mapping[str, float], y: float, colour: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [interval["low"], interval["high"]],
        "y": [y, y],
        "line": {"color": colour, "width": width},
        "hoverinfo": "skip",
    }


def rows_layout(rows: int, notes: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Of a figure with a row a policy, whose name stands above its row, so that a narrow screen holds it."""
    height = 56 + 58 * rows
    layout = base_layout(height, margin={"l": 12, "r": 12, "t": 8, "b": 44})
    hidden = {"visible": False, "range": [rows - 0.5, -0.75], "fixedrange": True}
    return layout | {"xaxis": plain_axis(title, automargin=True), "yaxis": hidden, "annotations": notes}


def row_label(text: str, place: float) -> dict[str, Any]:
    where = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "y", "y": place - 0.44, "yanchor": "middle"}
    return where | {"text": text, "showarrow": False, "font": {"size": 12}, "align": "left"}


def panel_title(text: str, top: float) -> dict[str, Any]:
    where = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": top, "yanchor": "bottom"}
    return where | {"text": f"<b>{plain(shortened(text, 34))}</b>", "showarrow": False, "font": {"size": 11}}


def end_room(material: ReportData) -> int:
    """Pixels at the right for the names of the policies."""
    return 28 + int(6.2 * max(len(shortened(policy.name, 16)) for policy in material.policies))


def end_labels(ends: Sequence[tuple[str, str, float]], span, pixels: float, axis: str) -> list[dict[str, Any]]:
    """Names at the ends of lines, pushed apart where lines end together.

    ends    name, colour and the end on the axis (its logarithm where the axis is one)
    pixels  the height of the panel
    """
    apart, notes, below = 13.0, [], -math.inf
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
                "text": f'<span style="color:{colour}">■</span> {plain(shortened(name, 16))}',
                "showarrow": False,
                "font": {"size": 11},
            }
        )
    return notes


def view_symbol(view: str) -> str:
    return {"raw": "circle", "tuned": "square", "equalised": "diamond"}.get(view, "circle")


def policy_keys(material: ReportData, names=None) -> tuple[LegendEntry, ...]:
    styles = styles_of(material)
    return tuple(
        LegendEntry(name, style.colour, style.symbol if style.marks else "", style.dash)
        for name, style in styles.items()
        if names is None or name in names
    )


def depth_keys(groups: Sequence[str]) -> tuple[LegendEntry, ...]:
    colours = depth_colours(len(groups))
    return tuple(LegendEntry(str(groups[i]), colours[i]) for i in places(len(groups), 6))
