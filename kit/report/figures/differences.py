"""Which policy is ahead: differences with their intervals, and every run's score."""

from typing import Any

import numpy as np

from kit.comparison.views import VIEWS
from kit.report.figures.drawing import (
    Figure,
    LegendEntry,
    full_height,
    interval_bar,
    plain,
    row_label,
    rows_layout,
    shortened,
    styles_of,
    view_symbol,
)
from kit.report.material import PolicyData, ReportData


def forest(material: ReportData) -> Figure | None:
    """The difference of each policy to the baseline, with its intervals, a row a policy and view."""
    rows = [
        (each, view["name"])
        for policy in material.policies
        for view in material.views()
        for each in view["comparisons"]
        if each["policy"] == policy.name
    ]
    if not rows:
        return None
    comparison, styles = material.comparison, styles_of(material)
    data, notes = [], []
    for place, (each, view) in enumerate(rows):
        style, interval, resampled = styles[each["policy"]], each["interval"], each["bootstrap"]
        symbol = view_symbol(view)
        told = in_full = f"{each['difference']:+.3f}"
        if interval:
            in_full += f" [{interval['low']:+.3f}, {interval['high']:+.3f}]"
            data.append(interval_bar(interval, place, style.colour, 4))
        if resampled:
            data.append(interval_bar(resampled, place + 0.16, style.colour, 1.2))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [each["difference"]],
                "y": [place],
                "marker": {"color": style.colour, "size": 11, "symbol": symbol},
                "name": plain(each["policy"]),
                "text": [plain(f"{each['policy']}, {VIEWS.get(view, view)}: {in_full}, {each['verdict']}")],
                "hoverinfo": "text",
            }
        )
        label = f"<b>{plain(shortened(each['policy'], 24))}</b> {VIEWS.get(view, view)}: {told}, {each['verdict']}"
        notes.append(row_label(label, place))
    margin = comparison["margin"]
    layout = rows_layout(len(rows), notes, f"difference of {comparison['metric']} to {comparison['baseline']}")
    layout["shapes"] = [
        full_height("rect", x0=-margin, x1=margin, fillcolor="#999999", opacity=0.25, line={"width": 0}),
        full_height("line", x0=0, x1=0, line={"color": "#444444", "width": 1}),
    ]
    each = max((row for row, _ in rows), key=lambda row: abs(row["difference"]))
    level = f"{comparison['level']:.0%}"
    caption = (
        f"The mean difference of {comparison['metric']} to {comparison['baseline']}, with its {level} interval "
        f"over folds and seeds (thick) and over resampled rows (thin, the models held fixed). The grey band, "
        f"±{margin:g}, is what counts as equal. The largest difference is {each['difference']:+.3f}, of "
        f"{each['policy']}."
    )
    views = [view for view in VIEWS if any(name == view for _, name in rows)]
    keys = tuple(LegendEntry(VIEWS[view], "#444444", view_symbol(view), "none") for view in views)
    return Figure("forest", caption, data, layout, key=keys if len(views) > 1 else (), height=layout["height"])


def by_fold(material: ReportData) -> Figure | None:
    """Every run's score by fold and seed, and the mean, a row a policy and view."""
    rows = []
    for policy in material.policies:
        seen = [(view["name"], each) for view in material.views() for each in view["policies"]]
        rows += [(policy.name, view, each["runs"]) for view, each in seen if each["policy"] == policy.name]
        if not seen and (runs := _runs_of(policy, material.metric)):
            rows.append((policy.name, "raw", runs))
    rows = [row for row in rows if row[2]]
    if not rows:
        return None
    styles, data, notes, several = styles_of(material), [], [], len(material.views()) > 1
    folds = sorted({run["fold"] for _, _, runs in rows for run in runs})
    for place, (name, view, runs) in enumerate(rows):
        style, mean = styles[name], float(np.mean([run["score"] for run in runs]))
        shift = {
            fold: 0.44 * (i / max(1, len(folds) - 1) - 0.5) if len(folds) > 1 else 0
            for i, fold in enumerate(folds)
        }
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [mean, mean],
                "y": [place - 0.26, place + 0.34],
                "line": {"color": "#222222", "width": 3},
                "hoverinfo": "skip",
            }
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [run["score"] for run in runs],
                "y": [place + 0.04 + shift[run["fold"]] for run in runs],
                "marker": {"color": style.colour, "size": 8, "opacity": 0.75, "symbol": view_symbol(view)},
                "name": plain(name),
                "text": [f"{plain(name)}: fold {r['fold']}, seed {r['seed']}: {r['score']:.4f}" for r in runs],
                "hoverinfo": "text",
            }
        )
        kind = f" {VIEWS.get(view, view)}" if several else ""
        notes.append(row_label(f"<b>{plain(shortened(name, 34))}</b>{kind}: mean {mean:.4f}", place))
    layout = rows_layout(len(rows), notes, material.metric)
    one_kind = [(name, runs) for name, view, runs in rows if view == rows[0][1]]
    means = [(float(np.mean([run["score"] for run in runs])), name) for name, runs in one_kind]
    best, worst = max(means), min(means)
    caption = (
        f"{material.metric} of every run on the fold that it held out; within a row the folds stand in order from "
        "the top, the bar is the mean. "
    )
    if len(rows) > 1:
        which = " as they are" if several else ""
        caption += f"The means{which} go from {worst[0]:.3f} ({worst[1]}) to {best[0]:.3f} ({best[1]})."
    else:
        caption += f"The mean of {len(rows[0][2])} run{'s' * (len(rows[0][2]) > 1)} is {best[0]:.3f}."
    return Figure("by-fold", caption, data, layout, height=layout["height"])


def _runs_of(policy: PolicyData, metric: str) -> list[dict[str, Any]]:
    """Scores of single runs, where nothing was compared: by the decision rule, else by the plain one."""
    if policy.scores and policy.scores.get("runs"):
        return policy.scores["runs"]
    return [
        {"seed": record["seed"], "fold": record["fold"], "score": record["scores"][metric]}
        for record in policy.finished
        if metric in record.get("scores", {})
    ]
