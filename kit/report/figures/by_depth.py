"""What happened at each depth of the network: distances, rotation, gradients, the butterfly."""

import math
from collections.abc import Callable, Mapping

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
    log_axis,
    log_span,
    panel_title,
    percent,
    places,
    plain,
    plain_axis,
    policy_keys,
    said,
    shortened,
    sig,
    styles_of,
    thinned,
)
from kit.report.material import ReportData

QUANTITIES: tuple[tuple[str, str, bool], ...] = (
    ("update", "relative update", True),
    ("distance", "distance from initial weights", True),
    ("rotation", "rotation, degrees", False),
    ("gradient", "gradient norm", True),
    ("rate", "effective rate, rate / ‖w‖²", True),
)


def distance_by_depth(material: ReportData) -> Figure | None:
    """How far each depth group is from its initial weights at the end, a line a policy."""
    return _by_depth(
        material,
        "distance",
        lambda learning: learning.distance[-1] if len(learning.steps) else None,
        "distance / ‖w₀‖",
        "Distance of each depth group from its initial weights at the last update that was measured, relative to "
        "their norm, from the stem (left) to the head.",
        _moved,
    )


def butterfly(material: ReportData) -> Figure | None:
    """How much a change at one depth changes the predictions, a line a policy, at the last moment measured."""
    return _by_depth(
        material,
        "butterfly",
        lambda learning: learning.butterfly[-1] if learning.butterfly.size else None,
        "KL divergence of the predictions",
        "The butterfly: how much the predictions change (Kullback–Leibler divergence, in nats) when the weights "
        f"of one depth group alone are moved{_by_how_much(material)}, at the last moment measured. A group "
        "whose blocks begin as identities (timm starts their last norm at zero) has next to no effect at first.",
        _strongest,
    )


def _by_how_much(material: ReportData) -> str:
    sizes = {policy.learning.relative for policy in material.policies if policy.learning is not None}
    return f" by {percent(sizes.pop())} of their norm" if len(sizes) == 1 else ""


def _by_depth(
    material: ReportData, name: str, value_of: Callable, axis: str, caption: str, tell: Callable
) -> Figure | None:
    shown = {
        policy.name: (policy.learning.groups, values)
        for policy in material.policies
        if policy.learning is not None and (values := value_of(policy.learning)) is not None
    }
    if not shown:
        return None
    styles, data, ends, height = styles_of(material), [], [], 340
    every = np.concatenate([np.asarray(values, dtype=np.float64) for _, values in shown.values()])
    floor, top = log_span(every)
    groups = list(dict.fromkeys(group for names, _ in shown.values() for group in names))
    place = {group: i for i, group in enumerate(groups)}
    for turn, (policy, (names, values)) in enumerate(shown.items()):
        style, extra = styles[policy], min(4, len(shown) - 1 - turn)  # equal lines lie on each other: all are seen
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [place[group] for group in names],
                "y": above_zero(values),
                "name": plain(policy),
                "text": [plain(group) for group in names],
                "line": {"color": style.colour, "width": 2 + extra, "dash": style.dash},
                "marker": {"symbol": style.symbol, "size": 6 + 1.5 * extra},
                "hovertemplate": "%{fullData.name}, %{text}: %{y:.3g}<extra></extra>",
            }
        )
        if values[-1] > 0 and place[names[-1]] == len(groups) - 1:
            ends.append((policy, style.colour, math.log10(max(float(values[-1]), floor))))
    ticks = places(len(groups), 10)
    layout = base_layout(height, margin={"l": 62, "r": end_room(material), "t": 10, "b": 70})
    layout |= {
        "xaxis": plain_axis(
            "", tickvals=ticks, ticktext=[plain(shortened(groups[i], 14)) for i in ticks], tickangle=-35
        ),
        "yaxis": log_axis(axis, floor / 1.5, top * 1.5),
        "annotations": end_labels(ends, [math.log10(floor / 1.5), math.log10(top * 1.5)], height - 80, "y"),
    }
    caption = f"{caption} {tell(shown)}"
    return Figure(name, caption, data, layout, key=policy_keys(material, shown), height=height)


def _moved(shown: Mapping[str, tuple[list[str], np.ndarray]]) -> str:
    """The group whose distance differs most between policies, in words."""
    groups = list(dict.fromkeys(group for names, _ in shown.values() for group in names))
    spread = {}
    for group in groups:
        here = [(float(v[n.index(group)]), policy) for policy, (n, v) in shown.items() if group in n]
        low, high = min(here), max(here)
        spread[group] = (high[0] / low[0] if low[0] > 0 else (math.inf if high[0] > 0 else 0), low, high)
    group = max(groups, key=lambda name: spread[name][0])
    _, low, high = spread[group]
    if low[1] == high[1]:
        first = float(next(iter(shown.values()))[1][0])
        return f"Under {high[1]}, {groups[0]} moved by {percent(first)} of its norm."
    least, most = f"{percent(low[0])} of its norm under {low[1]}", f"{percent(high[0])} under {high[1]}"
    return f"{group} moved by {least} and by {most}."


def _strongest(shown: Mapping[str, tuple[list[str], np.ndarray]]) -> str:
    lines = []
    for policy, (names, values) in list(shown.items())[:4]:
        strong, weak = int(np.nanargmax(values)), int(np.nanargmin(values))
        lines.append(
            f"under {policy} most at {names[strong]} ({said(float(values[strong]))}) and least at {names[weak]} "
            f"({said(float(values[weak]))})"
        )
    text = "; ".join(lines)
    return f"{text[0].upper()}{text[1:]}."


def learning(material: ReportData) -> list[Figure]:
    """Five measures of how each depth group learns, over the updates, a card a policy, one scale for all."""
    shown = [policy for policy in material.policies if policy.learning is not None]
    if not shown:
        return []
    spans = {}
    for name, _, log in QUANTITIES:
        every = np.concatenate([getattr(policy.learning, name).ravel() for policy in shown])
        spans[name] = log_span(every) if log else axis_span(every[np.isfinite(every)])
    height = 40 + 125 * len(QUANTITIES)
    figures = []
    for place, policy in enumerate(shown):
        made, data, notes, axes = policy.learning, [], [], {}
        groups = made.groups
        colours, at = depth_colours(len(groups)), thinned(len(made.steps), 80)
        for row, (name, title, log) in enumerate(QUANTITIES):
            number = "" if row == 0 else str(row + 1)
            domain = (1 - (row + 1) / len(QUANTITIES), 1 - row / len(QUANTITIES) - 22 / height)
            low, high = spans[name]
            axes[f"yaxis{number}"] = (
                log_axis("", low / 1.5, high * 1.5) if log else plain_axis("", range=[low, high])
            ) | {"domain": domain}
            notes.append(panel_title(title, domain[1]))
            values = getattr(made, name)[at]
            for depth, (group, colour) in enumerate(zip(groups, colours, strict=True)):
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines",
                        "x": made.steps[at].tolist(),
                        "y": above_zero(values[:, depth]) if log else sig(values[:, depth]),
                        "xaxis": "x",
                        "yaxis": f"y{number}",
                        "name": plain(group),
                        "line": {"color": colour, "width": 1.8},
                        "hovertemplate": "%{fullData.name}, update %{x}: %{y:.3g}<extra></extra>",
                    }
                )
        layout = base_layout(height, margin={"l": 52, "r": 8, "t": 4, "b": 40})
        layout |= axes | {"xaxis": plain_axis("update", anchor=f"y{len(QUANTITIES)}"), "annotations": notes}
        median = np.nanmedian(made.update.astype(np.float64), axis=0)
        caption = (
            f"{policy.shown}: the median relative update is {said(float(median[0]))} in {groups[0]} and "
            f"{said(float(median[-1]))} in {groups[-1]}."
        )
        keys = depth_keys(groups)
        figures.append(Figure(f"learning-{place}", caption, data, layout, policy.name, keys, height))
    return figures
