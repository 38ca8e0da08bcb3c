"""Activations over the updates, as heat maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kit.report.figures.drawing import (
    Figure,
    Trace,
    base_layout,
    escaped,
    evenly_spaced,
    panel_title,
    plain_axis,
    significant,
)
from kit.report.material import ReportData
from kit.report.measured import heat_map, top_magnitude
from kit.report.text import percent
from kit.training.records import Activations

MOST_CELLS = 170_000  # of all heat maps together, so that the page stays below 5 MB
MOST_LAYERS = 8
BINS = 40


@dataclass(frozen=True)
class HeatMaps:
    """The activations of several runs as heat maps whose scales are shared.

    Attributes
    ----------
    layers : list of str
        The layers that are shown, from the input on.
    tops : dict
        Layer → magnitude at the top of its axis.
    maps : dict
        (place of the run, layer) → numbers of the updates, int [samples], and the heat, log10(1 + count),
        float [bins + 1, samples].
    """

    layers: list[str]
    tops: dict[str, float]
    maps: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]

    def brightest(self, layer: str) -> float:
        """Return the highest heat of a layer in all runs."""
        return max(float(heat.max()) for (_, name), (_, heat) in self.maps.items() if name == layer)


def activations(report_data: ReportData) -> list[Figure]:
    """Return magnitudes of activations over the updates as heat maps, a card a policy, a row a layer.

    Each layer has the same axes and the same colours in all cards.
    """
    shown = [(policy, policy.activations) for policy in report_data.policies if policy.activations is not None]
    made = _heat_maps([measured for _, measured in shown])
    if not made.layers:
        return []
    rows = len(made.layers)
    height = 40 + 112 * rows
    brightest = {layer: made.brightest(layer) for layer in made.layers}
    figures = []
    for place, (policy, measured) in enumerate(shown):
        data, notes, axes = [], [], {}
        for row, layer in enumerate(made.layers):
            number = "" if row == 0 else str(row + 1)
            domain = (1 - (row + 1) / rows, 1 - row / rows - 22 / height)
            side = made.tops[layer] / BINS
            axes[f"yaxis{number}"] = plain_axis("", domain=domain, range=[0, side * (BINS + 1)], nticks=4)
            notes.append(panel_title(layer, domain[1]))
            if (place, layer) in made.maps:
                steps, heat = made.maps[place, layer]
                where = {"xaxis": "x", "yaxis": f"y{number}", "name": escaped(layer)}
                data.append(_heat_trace(steps, heat, side, brightest[layer]) | where)
        last = f"y{rows}" if rows > 1 else "y"
        layout = base_layout(height, margin={"l": 44, "r": 8, "t": 4, "b": 40})
        layout |= axes | {"xaxis": plain_axis("update", anchor=last), "annotations": notes}
        caption = f"{policy.shown_run}: {_overflow(measured, made.layers, made.tops)}"
        figures.append(Figure(f"activations-{place}", caption, data, layout, policy.name, height=height))
    return figures


def _heat_maps(shown: Sequence[Activations]) -> HeatMaps:
    layers = list(dict.fromkeys(name for measured in shown for name in measured.layers))
    if len(layers) > MOST_LAYERS:
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, MOST_LAYERS).round().astype(int)]
    tops = {layer: _top(layer, shown) for layer in layers}
    most = max(10, MOST_CELLS // max(1, len(shown) * len(layers) * (BINS + 1)))
    maps = {}
    for place, measured in enumerate(shown):
        at = evenly_spaced(len(measured.steps), most)
        for layer in layers:
            if layer in measured.layers:
                counts = heat_map(measured, measured.layers.index(layer), tops[layer], bins=BINS)
                maps[place, layer] = measured.steps[at], np.log10(1 + counts[:, at])
    return HeatMaps(layers, tops, maps)


def _top(layer: str, shown: Iterable[Activations]) -> float:
    """Return the top of a layer's axis: that of the run in the middle.

    With the highest of all, one run whose activations grow far would press the others flat.
    """
    tops = sorted(top_magnitude(each, each.layers.index(layer)) for each in shown if layer in each.layers)
    return tops[len(tops) // 2] or 1.0


def _heat_trace(steps: np.ndarray, heat: np.ndarray, side: float, brightest: float) -> Trace:
    """Return a heat map; `side` is the magnitude that a cell spans, `brightest` the end of the colours."""
    return {
        "type": "heatmap",
        "x": steps.tolist(),
        "y": significant((np.arange(BINS + 1) + 0.5) * side),
        "z": np.round(heat, 2).tolist(),
        "zmin": 0,
        "zmax": round(max(brightest, 1e-9), 2),
        "colorscale": "Cividis",
        "showscale": False,
        "hovertemplate": "%{fullData.name}, update %{x}<br>magnitude about %{y:.3g}<br>"
        "log10(1 + count) = %{z}<extra></extra>",
    }


def _overflow(measured: Activations, layers: Sequence[str], tops: Mapping[str, float]) -> str:
    """Return what share of the activations lay beyond the top of the axes, at most."""
    worst = 0.0, "", 0
    for layer in layers:
        if layer in measured.layers:
            heat = heat_map(measured, measured.layers.index(layer), tops[layer], bins=BINS)
            share = heat[-1] / np.maximum(heat.sum(axis=0), 1)
            at = int(share.argmax())
            worst = max(worst, (float(share[at]), layer, int(measured.steps[at])))
    if worst[0] == 0:
        return "nothing lies beyond the top of the axes."
    return (
        f"beyond the top of the axes (the uppermost line) lies at most {percent(worst[0])}, in "
        f"{worst[1]} at update {worst[2]}."
    )
