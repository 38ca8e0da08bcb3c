"""What happened over the updates: learning curves and rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.report.figures.drawing import (
    Figure,
    Style,
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
    plain_axis,
    policy_legend,
    right_margin,
    significant,
    styles_of,
    translucent,
)
from kit.report.material import RealisedRates, ReportData
from kit.report.text import short_number

CURVES_HEIGHT = 560


@dataclass(frozen=True)
class Curve:
    """A quantity over the epochs: its mean over a policy's runs, and its range, each float [epochs]."""

    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def learning_curves(report_data: ReportData) -> Figure | None:
    """Return training loss and held-out score over the epochs, the mean and the range over a policy's runs."""
    panels = (
        ("loss", "training loss", "", (0.55, 1.0)),
        ("valid_score", f"held-out {report_data.metric}", "2", (0, 0.45)),
    )
    styles = styles_of(report_data)
    data: list[Trace] = []
    notes: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    lasts: dict[str, list[tuple[float, str]]] = {}
    for column, title, number, domain in panels:
        curves = {
            policy.name: (curve, len(policy.histories) > 1)
            for policy in report_data.policies
            if (curve := _curve(policy.histories, column)) is not None
        }
        if not curves:
            continue
        for name, (curve, several) in curves.items():
            data += _curve_traces(name, curve, number, styles[name], several)
        span = axis_span(
            np.concatenate([each for curve, _ in curves.values() for each in (curve.low, curve.high)])
        )
        axes[f"yaxis{number}"] = plain_axis(title, domain=domain, range=span)
        lasts[column] = [(float(curve.mean[-1]), name) for name, (curve, _) in curves.items()]
        ends = [(name, styles[name].colour, last) for last, name in lasts[column]]
        notes += end_labels(ends, span, (CURVES_HEIGHT - 60) * (domain[1] - domain[0]), f"y{number}")
    if not data:
        return None
    layout = base_layout(CURVES_HEIGHT, margin={"l": 58, "r": right_margin(report_data), "t": 14, "b": 46})
    layout |= axes | {"xaxis": plain_axis("epoch", anchor="y2" if "yaxis2" in axes else "y"), "annotations": notes}
    whose = "an experiment's" if report_data.experiments else "a policy's"
    caption = f"Mean over {whose} runs, with the range over them. {_at_the_end(lasts)}"
    legend = policy_legend(report_data)
    return Figure("curves", caption, data, layout, legend=legend, height=CURVES_HEIGHT)


def _curve(histories: Sequence[Sequence[Mapping[str, Any]]], column: str) -> Curve | None:
    """Return a column of histories, each read at the epochs of the run that has most of them."""
    lines = []
    for history in histories:
        points = {line["epoch"]: line[column] for line in history if column in line}
        if points:
            lines.append((np.array(sorted(points)), np.array([points[epoch] for epoch in sorted(points)])))
    if not lines:
        return None
    epochs = max(lines, key=lambda line: len(line[0]))[0]
    epochs = epochs[evenly_spaced(len(epochs))]
    values = np.stack([np.interp(epochs, *line) for line in lines])
    return Curve(epochs, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def _curve_traces(name: str, curve: Curve, number: str, style: Style, several: bool) -> list[Trace]:
    """Return the line of the mean and, of several runs, the band of their range."""
    line: Trace = {
        "type": "scatter",
        "x": significant(curve.epochs, 5),
        "xaxis": "x",
        "yaxis": f"y{number}",
        "name": escaped(name),
    }
    band: Trace = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    fill: Trace = {"fill": "tonexty", "fillcolor": translucent(style.colour, 0.13)}
    mean: Trace = {
        "mode": "lines+markers" if style.marks or len(curve.epochs) < 2 else "lines",
        "y": significant(curve.mean),
        "line": {"color": style.colour, "width": 2.2, "dash": style.dash},
        "marker": {"symbol": style.symbol, "size": 6},
        "hovertemplate": "%{fullData.name}<br>epoch %{x}: %{y}<extra></extra>",
    }
    bounds = [line | band | {"y": significant(curve.low)}, line | band | fill | {"y": significant(curve.high)}]
    return [*(bounds if several else []), line | mean]


def _at_the_end(lasts: Mapping[str, Sequence[tuple[float, str]]]) -> str:
    """Return the highest and the lowest last value of each panel, in words."""
    text = ""
    if "valid_score" in lasts:
        best, worst = max(lasts["valid_score"]), min(lasts["valid_score"])
        text += f"After the last epoch the held-out score, by the plain rule, is {best[0]:.3f} under {best[1]}"
        text += "" if best == worst else f" and {worst[0]:.3f} under {worst[1]}"
        text += ". "
    if "loss" in lasts:
        low, high = min(lasts["loss"]), max(lasts["loss"])
        text += f"The training loss ends at {short_number(low[0])} under {low[1]}"
        text += "." if low == high else f" and at {short_number(high[0])} under {high[1]}."
    return text


def rates(report_data: ReportData) -> list[Figure]:
    """Return the rates of each depth group over the updates, a card a policy, on one scale for all."""
    shown = [(policy, policy.rates) for policy in report_data.policies if policy.rates is not None]
    if not shown:
        return []
    above = np.concatenate([rates.lr[rates.lr > 0] for _, rates in shown])
    low, high = (float(above.min()), float(above.max())) if len(above) else (1e-6, 1e-2)
    low = max(low, high * 1e-8)
    figures = []
    for place, (policy, realised) in enumerate(shown):
        layout = base_layout(230, margin={"l": 56, "r": 8, "t": 8, "b": 40})
        layout |= {
            "xaxis": plain_axis("update"),
            "yaxis": log_axis("", low / 2, high * 2),
        }
        caption = f"{policy.shown_run}: {_gap_in_words(realised)}"
        legend, data = depth_legend(realised.groups), _rate_traces(realised)
        figures.append(Figure(f"rates-{place}", caption, data, layout, policy.name, legend, 230))
    return figures


def _rate_traces(realised: RealisedRates) -> list[Trace]:
    """Return for each depth group a broad pale line of the intended rates, and a thin one of the realised."""
    data = []
    at = evenly_spaced(len(realised.lr))
    colours = depth_colours(len(realised.groups))
    for depth, (group, colour) in enumerate(zip(realised.groups, colours, strict=True)):
        line = {"type": "scatter", "mode": "lines", "x": realised.steps[at].tolist(), "name": escaped(group)}
        if realised.intended is not None:
            pale = {"color": colour, "width": 8}
            y = above_zero(realised.intended[at, depth])
            data.append(line | {"y": y, "line": pale, "opacity": 0.3, "hoverinfo": "skip"})
        thin = {"color": colour, "width": 1.8}
        hover = "%{fullData.name}<br>update %{x}: %{y:.3g}<extra></extra>"
        data.append(line | {"y": above_zero(realised.lr[at, depth]), "line": thin, "hovertemplate": hover})
    return data


def _gap_in_words(realised: RealisedRates) -> str:
    text = f"highest rate {short_number(float(np.nanmax(realised.lr)))}. "
    gap = realised.largest_difference
    if gap is None:
        return f"{text}What the policy intended is not known here."
    whose = "policy and controller" if realised.controlled else "policy"
    return (
        f"{text}Largest relative difference to what the {whose} intended: {'none' if gap == 0 else f'{gap:.1e}'}."
    )
