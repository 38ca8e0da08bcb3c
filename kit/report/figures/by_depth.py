"""What happened at each depth of the network: distances, rotation, gradients, the butterfly."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kit.report.figures.drawing import (
    Figure,
    Trace,
    above_zero,
    axis_span,
    base_layout,
    depth_colours,
    depth_legend,
    end_labels,
    escaped,
    evenly_spaced,
    log_axis,
    log_span,
    panel_title,
    plain_axis,
    policy_legend,
    right_margin,
    significant,
    styles_of,
)
from kit.report.material import ReportData
from kit.report.text import percent, short_number, shortened
from kit.training.records import Learning

QUANTITIES: tuple[tuple[str, str, bool], ...] = (  # attribute of Learning, title, whether its axis is a log scale
    ("update", "relative update", True),
    ("distance", "distance from initial weights", True),
    ("rotation", "rotation, degrees", False),
    ("gradient", "gradient norm", True),
    ("rate", "effective rate, rate / ‖w‖²", True),
)

ByPolicy = Mapping[str, tuple[Sequence[str], np.ndarray]]  # policy → names of depth groups, a value of each


def distance_by_depth(report_data: ReportData) -> Figure | None:
    """Return how far each depth group is from its initial weights at the end, a line a policy."""
    shown = _by_policy(report_data, lambda learning: learning.distance[-1] if len(learning.steps) else None)
    if not shown:
        return None
    caption = (
        "Distance of each depth group from its initial weights at the last update that was measured, relative to "
        f"their norm, from the stem (left) to the head. {_largest_spread(shown)}"
    )
    return _lines_over_depth(report_data, shown, "distance", "distance / ‖w₀‖", caption)


def butterfly(report_data: ReportData) -> Figure | None:
    """Return how much a change at one depth changes the predictions, a line a policy, at the last moment."""
    shown = _by_policy(report_data, lambda learning: learning.butterfly[-1] if learning.butterfly.size else None)
    if not shown:
        return None
    caption = (
        "The butterfly: how much the predictions change (Kullback–Leibler divergence, in nats) when the weights "
        f"of one depth group alone are moved{_by_how_much(report_data)}, at the last moment measured. A group "
        "whose blocks begin as identities (timm starts their last norm at zero) has next to no effect at first. "
        f"{_strongest_and_weakest(shown)}"
    )
    return _lines_over_depth(report_data, shown, "butterfly", "KL divergence of the predictions", caption)


def _by_how_much(report_data: ReportData) -> str:
    sizes = {policy.learning.relative for policy in report_data.policies if policy.learning is not None}
    return f" by {percent(sizes.pop())} of their norm" if len(sizes) == 1 else ""


def _by_policy(report_data: ReportData, values_of: Callable[[Learning], np.ndarray | None]) -> ByPolicy:
    return {
        policy.name: (policy.learning.groups, values)
        for policy in report_data.policies
        if policy.learning is not None and (values := values_of(policy.learning)) is not None
    }


def _all_groups(shown: ByPolicy) -> list[str]:
    return list(dict.fromkeys(group for names, _ in shown.values() for group in names))


def _lines_over_depth(report_data: ReportData, shown: ByPolicy, name: str, axis: str, caption: str) -> Figure:
    """Return a figure with a line a policy over the depth groups, on a log scale."""
    styles, data, ends, height = styles_of(report_data), [], [], 340
    every = np.concatenate([np.asarray(values, dtype=np.float64) for _, values in shown.values()])
    floor, top = log_span(every)
    groups = _all_groups(shown)
    place = {group: i for i, group in enumerate(groups)}
    for turn, (policy, (names, values)) in enumerate(shown.items()):
        style, extra = styles[policy], min(4, len(shown) - 1 - turn)  # equal lines lie on each other: all are seen
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [place[group] for group in names],
                "y": above_zero(values),
                "name": escaped(policy),
                "text": [escaped(group) for group in names],
                "line": {"color": style.colour, "width": 2 + extra, "dash": style.dash},
                "marker": {"symbol": style.symbol, "size": 6 + 1.5 * extra},
                "hovertemplate": "%{fullData.name}, %{text}: %{y:.3g}<extra></extra>",
            }
        )
        if values[-1] > 0 and place[names[-1]] == len(groups) - 1:
            ends.append((policy, style.colour, math.log10(max(float(values[-1]), floor))))
    ticks = evenly_spaced(len(groups), 10).tolist()
    layout = base_layout(height, margin={"l": 62, "r": right_margin(report_data), "t": 10, "b": 70})
    layout |= {
        "xaxis": plain_axis(
            "", tickvals=ticks, ticktext=[escaped(shortened(groups[i], 14)) for i in ticks], tickangle=-35
        ),
        "yaxis": log_axis(axis, floor / 1.5, top * 1.5),
        "annotations": end_labels(ends, [math.log10(floor / 1.5), math.log10(top * 1.5)], height - 80, "y"),
    }
    return Figure(name, caption, data, layout, legend=policy_legend(report_data, shown), height=height)


def _largest_spread(shown: ByPolicy) -> str:
    """Return the depth group whose distance differs most between policies, in words."""
    groups = _all_groups(shown)
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


def _strongest_and_weakest(shown: ByPolicy) -> str:
    """Return the depth groups with the most and the least effect, of the first four policies, in words."""
    lines = []
    for policy, (names, values) in list(shown.items())[:4]:
        strong, weak = int(np.nanargmax(values)), int(np.nanargmin(values))
        lines.append(
            f"under {policy} most at {names[strong]} ({short_number(float(values[strong]))}) and least at "
            f"{names[weak]} ({short_number(float(values[weak]))})"
        )
    text = "; ".join(lines)
    return f"{text[0].upper()}{text[1:]}."


def learning(report_data: ReportData) -> list[Figure]:
    """Return five measures of how each depth group learns over the updates, a card a policy, on equal scales."""
    shown = [(policy, policy.learning) for policy in report_data.policies if policy.learning is not None]
    if not shown:
        return []
    spans = {}
    for name, _, log in QUANTITIES:
        every = np.concatenate([getattr(measured, name).ravel() for _, measured in shown])
        spans[name] = log_span(every) if log else axis_span(every[np.isfinite(every)])
    height = 40 + 125 * len(QUANTITIES)
    figures = []
    for place, (policy, measured) in enumerate(shown):
        data, notes, axes = [], [], {}
        for row, (name, title, log) in enumerate(QUANTITIES):
            number = "" if row == 0 else str(row + 1)
            domain = (1 - (row + 1) / len(QUANTITIES), 1 - row / len(QUANTITIES) - 22 / height)
            low, high = spans[name]
            axis = log_axis("", low / 1.5, high * 1.5) if log else plain_axis("", range=[low, high])
            axes[f"yaxis{number}"] = axis | {"domain": domain}
            notes.append(panel_title(title, domain[1]))
            data += _lines_over_time(measured, name, log, number)
        layout = base_layout(height, margin={"l": 52, "r": 8, "t": 4, "b": 40})
        layout |= axes | {"xaxis": plain_axis("update", anchor=f"y{len(QUANTITIES)}"), "annotations": notes}
        groups = measured.groups
        median = np.nanmedian(measured.update.astype(np.float64), axis=0)
        caption = (
            f"{policy.shown_run}: the median relative update is {short_number(float(median[0]))} in {groups[0]} "
            f"and {short_number(float(median[-1]))} in {groups[-1]}."
        )
        legend = depth_legend(groups)
        figures.append(Figure(f"learning-{place}", caption, data, layout, policy.name, legend, height))
    return figures


def _lines_over_time(measured: Learning, name: str, log: bool, number: str) -> list[Trace]:
    """Return a line a depth group of one measure, on the y axis of this number."""
    at = evenly_spaced(len(measured.steps), 80)
    values = getattr(measured, name)[at]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": measured.steps[at].tolist(),
            "y": above_zero(values[:, depth]) if log else significant(values[:, depth]),
            "xaxis": "x",
            "yaxis": f"y{number}",
            "name": escaped(group),
            "line": {"color": colour, "width": 1.8},
            "hovertemplate": "%{fullData.name}, update %{x}: %{y:.3g}<extra></extra>",
        }
        for depth, (group, colour) in enumerate(
            zip(measured.groups, depth_colours(len(measured.groups)), strict=True)
        )
    ]
