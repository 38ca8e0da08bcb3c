"""What happened over the updates: learning curves, rates, activations."""

from collections.abc import Mapping, Sequence

import numpy as np

from kit.report.figures.drawing import (
    Figure,
    above_zero,
    axis_span,
    base_layout,
    depth_colours,
    depth_keys,
    end_labels,
    end_room,
    faint,
    log_axis,
    panel_title,
    percent,
    plain,
    plain_axis,
    policy_keys,
    said,
    sig,
    styles_of,
    thinned,
)
from kit.report.material import PolicyData, ReportData
from kit.report.measured import heat_map, top_magnitude

MOST_CELLS = 170_000  # of all heat maps together, so that the page stays below 5 MB
MOST_LAYERS = 8
BINS = 40


def learning_curves(material: ReportData) -> Figure | None:
    """Training loss and held-out score over the epochs, the mean and the range over a policy's runs."""
    styles, height = styles_of(material), 560
    panels = (
        ("loss", "training loss", "", (0.55, 1.0)),
        ("valid_score", f"held-out {material.metric}", "2", (0, 0.45)),
    )
    data, notes, axes, lasts = [], [], {}, {}
    for column, title, number, domain in panels:
        ends, values = [], []
        for policy in material.policies:
            mean = _mean_and_range(policy.histories, column)
            if mean is None:
                continue
            style, (x, middle, low, high) = styles[policy.name], mean
            line = {
                "type": "scatter",
                "x": sig(x, 5),
                "xaxis": "x",
                "yaxis": f"y{number}",
                "name": plain(policy.name),
            }
            if len(policy.histories) > 1:
                band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
                fill = {"fill": "tonexty", "fillcolor": faint(style.colour, 0.13)}
                data += [line | band | {"y": sig(low)}, line | band | fill | {"y": sig(high)}]
            data.append(
                line
                | {
                    "mode": "lines+markers" if style.marks or len(x) < 2 else "lines",
                    "y": sig(middle),
                    "line": {"color": style.colour, "width": 2.2, "dash": style.dash},
                    "marker": {"symbol": style.symbol, "size": 6},
                    "hovertemplate": "%{fullData.name}<br>epoch %{x}: %{y}<extra></extra>",
                }
            )
            ends.append((policy.name, style.colour, float(middle[-1])))
            values += [low, high]
            lasts.setdefault(column, []).append((float(middle[-1]), policy.name))
        if ends:
            span = axis_span(np.concatenate(values))
            axes[f"yaxis{number}"] = plain_axis(title, domain=domain, range=span)
            room = (height - 60) * (domain[1] - domain[0])
            notes += end_labels(ends, span, room, f"y{number}")
    if not data:
        return None
    layout = base_layout(height, margin={"l": 58, "r": end_room(material), "t": 14, "b": 46})
    layout |= axes | {"xaxis": plain_axis("epoch", anchor="y2" if "yaxis2" in axes else "y"), "annotations": notes}
    caption = "Mean over a policy's runs, with the range over them. "
    if "valid_score" in lasts:
        best, worst = max(lasts["valid_score"]), min(lasts["valid_score"])
        caption += f"After the last epoch the held-out score, by the plain rule, is {best[0]:.3f} under {best[1]}"
        caption += "" if best == worst else f" and {worst[0]:.3f} under {worst[1]}"
        caption += ". "
    if "loss" in lasts:
        low, high = min(lasts["loss"]), max(lasts["loss"])
        caption += f"The training loss ends at {said(low[0])} under {low[1]}"
        caption += "." if low == high else f" and at {said(high[0])} under {high[1]}."
    return Figure("curves", caption, data, layout, key=policy_keys(material), height=height)


def _mean_and_range(histories, column: str) -> tuple[np.ndarray, ...] | None:
    """Epochs, mean, lowest and highest over runs, each read at the epochs of the run that has most of them."""
    lines = []
    for history in histories:
        points = {line["epoch"]: line[column] for line in history if column in line}
        if points:
            lines.append((np.array(sorted(points)), np.array([points[epoch] for epoch in sorted(points)])))
    if not lines:
        return None
    x = max(lines, key=lambda line: len(line[0]))[0]
    x = x[thinned(len(x))]
    values = np.stack([np.interp(x, *line) for line in lines])
    return x, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def rates(material: ReportData) -> list[Figure]:
    """Intended and realised rates of each depth group over the updates, a card a policy, one scale for all."""
    shown = [policy for policy in material.policies if policy.rates is not None]
    if not shown:
        return []
    above = np.concatenate([each.rates.lr[each.rates.lr > 0] for each in shown])
    low, high = (float(above.min()), float(above.max())) if len(above) else (1e-6, 1e-2)
    low = max(low, high * 1e-8)
    figures = []
    for place, policy in enumerate(shown):
        made, data = policy.rates, []
        at = thinned(len(made.lr))
        colours = depth_colours(len(made.groups))
        for depth, (group, colour) in enumerate(zip(made.groups, colours, strict=True)):
            line = {"type": "scatter", "mode": "lines", "x": made.steps[at].tolist(), "name": plain(group)}
            if made.intended is not None:
                pale = {"color": colour, "width": 8}
                y = above_zero(made.intended[at, depth])
                data.append(line | {"y": y, "line": pale, "opacity": 0.3, "hoverinfo": "skip"})
            thin = {"color": colour, "width": 1.8}
            hover = "%{fullData.name}<br>update %{x}: %{y:.3g}<extra></extra>"
            data.append(line | {"y": above_zero(made.lr[at, depth]), "line": thin, "hovertemplate": hover})
        gap = made.largest_difference
        caption = f"{policy.shown}: highest rate {said(float(np.nanmax(made.lr)))}. "
        if gap is None:
            caption += "What the policy intended is not known here."
        else:
            whose = "policy and controller" if made.controlled else "policy"
            caption += f"Largest relative difference to what the {whose} intended: {_gap(gap)}."
        layout = base_layout(230, margin={"l": 56, "r": 8, "t": 8, "b": 40})
        layout |= {
            "xaxis": plain_axis("update"),
            "yaxis": log_axis("", low / 2, high * 2),
        }
        keys = depth_keys(made.groups)
        figures.append(Figure(f"rates-{place}", caption, data, layout, policy.name, keys, 230))
    return figures


def _gap(gap: float) -> str:
    return "none" if gap == 0 else f"{gap:.1e}"


def activations(material: ReportData) -> list[Figure]:
    """Magnitudes of activations over the updates as heat maps, a card a policy, the layers one under the other.

    Each layer has the same axes and the same colours in all cards.
    """
    shown = [policy for policy in material.policies if policy.activations is not None]
    layers = list(dict.fromkeys(name for policy in shown for name in policy.activations.layers))
    if not layers:
        return []
    if len(layers) > MOST_LAYERS:
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, MOST_LAYERS).round().astype(int)]
    most = max(10, MOST_CELLS // (len(shown) * len(layers) * (BINS + 1)))
    maps: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    tops = {}
    for layer in layers:
        having = [policy for policy in shown if layer in policy.activations.layers]
        # The middle policy's: else one whose activations grow far would press all others flat.
        each = sorted(top_magnitude(policy.activations, _place(policy, layer)) for policy in having)
        tops[layer] = each[len(each) // 2] or 1.0
        for policy in having:
            made = policy.activations
            at = thinned(len(made.steps), most)
            counts = heat_map(made, _place(policy, layer), tops[layer], bins=BINS)
            maps[policy.name, layer] = made.steps[at], np.log10(1 + counts[:, at])
    brightest = {
        layer: max(float(heat.max()) for (_, name), (_, heat) in maps.items() if name == layer) for layer in layers
    }
    height = 40 + 112 * len(layers)
    figures = []
    for place, policy in enumerate(shown):
        data, notes, axes = [], [], {}
        for row, layer in enumerate(layers):
            number = "" if row == 0 else str(row + 1)
            domain = (1 - (row + 1) / len(layers), 1 - row / len(layers) - 22 / height)
            side = tops[layer] / BINS
            axes[f"yaxis{number}"] = plain_axis("", domain=domain, range=[0, side * (BINS + 1)], nticks=4)
            notes.append(panel_title(layer, domain[1]))
            if (policy.name, layer) not in maps:
                continue
            steps, heat = maps[policy.name, layer]
            data.append(
                {
                    "type": "heatmap",
                    "x": steps.tolist(),
                    "y": sig((np.arange(BINS + 1) + 0.5) * side),
                    "z": np.round(heat, 2).tolist(),
                    "zmin": 0,
                    "zmax": round(max(brightest[layer], 1e-9), 2),
                    "colorscale": "Cividis",
                    "showscale": False,
                    "xaxis": "x",
                    "yaxis": f"y{number}",
                    "name": plain(layer),
                    "hovertemplate": "%{fullData.name}, update %{x}<br>magnitude about %{y:.3g}<br>"
                    "log10(1 + count) = %{z}<extra></extra>",
                }
            )
        last = f"y{len(layers)}" if len(layers) > 1 else "y"
        layout = base_layout(height, margin={"l": 44, "r": 8, "t": 4, "b": 40})
        layout |= axes | {"xaxis": plain_axis("update", anchor=last), "annotations": notes}
        caption = _overflow(policy, layers, tops)
        figures.append(Figure(f"activations-{place}", caption, data, layout, policy.name, height=height))
    return figures


def _place(policy: PolicyData, layer: str) -> int:
    return policy.activations.layers.index(layer)


def _overflow(policy: PolicyData, layers: Sequence[str], tops: Mapping[str, float]) -> str:
    """What lay beyond the top of the axes, at most."""
    made = policy.activations
    worst = 0.0, "", 0
    for layer in layers:
        if layer in made.layers:
            heat = heat_map(made, _place(policy, layer), tops[layer], bins=BINS)
            share = heat[-1] / np.maximum(heat.sum(axis=0), 1)
            at = int(share.argmax())
            worst = max(worst, (float(share[at]), layer, int(made.steps[at])))
    if worst[0] == 0:
        return f"{policy.shown}: nothing lies beyond the top of the axes."
    return (
        f"{policy.shown}: beyond the top of the axes (the uppermost line) lies at most {percent(worst[0])}, in "
        f"{worst[1]} at update {worst[2]}."
    )
