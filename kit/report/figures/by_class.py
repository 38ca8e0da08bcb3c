"""Where the predictions are wrong: confusion matrices, or the labels with the lowest F."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kit.experiment.policy_scores import PolicyScores
from kit.report.figures.drawing import (
    Figure,
    LegendEntry,
    Trace,
    base_layout,
    escaped,
    plain_axis,
    significant,
    styles_of,
)
from kit.report.material import PolicyData, PolicyOutcome, ReportData
from kit.report.text import counted, shortened

MOST_CLASSES = 30  # of a confusion matrix

ClassScores = dict[str, tuple[str, float, int]]  # class → name, F, number of rows


def has_confusion_matrix(report_data: ReportData) -> bool:
    """Return whether the labels fit a confusion matrix: one label a row, and at most 30 classes."""
    return not report_data.multilabel and len(report_data.classes) <= MOST_CLASSES


def confusion(report_data: ReportData) -> list[Figure]:
    """Return confusion matrices of the best policy and the baseline; none where the labels do not fit one."""
    if not has_confusion_matrix(report_data):
        return []
    figures = []
    number = len(report_data.classes)
    height = 110 + (34 if number <= 12 else 20) * number
    names = [escaped(shortened(name, 14)) for name in report_data.names]
    ticks = {"tickvals": list(range(number)), "ticktext": names, "automargin": True, "showgrid": False}
    for place, (role, policy, outcome) in enumerate(best_and_baseline(report_data)):
        counts = np.zeros((number, number), dtype=np.int64)
        np.add.at(counts, (outcome.truth, outcome.predicted), 1)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        layout = base_layout(height, margin={"l": 12, "r": 8, "t": 8, "b": 12})
        layout |= {
            "xaxis": plain_axis("predicted", **ticks),
            "yaxis": plain_axis("true", **ticks, autorange="reversed"),
            "annotations": _counts_in_cells(counts, share) if number <= 15 else [],
        }
        caption = f"{role}: {_most_confused(counts, report_data.names)}"
        heat = _confusion_map(counts, share, names)
        figures.append(Figure(f"confusion-{place}", caption, [heat], layout, policy.name, height=height))
    return figures


def _confusion_map(counts: np.ndarray, share: np.ndarray, names: Sequence[str]) -> Trace:
    number = len(names)
    return {
        "type": "heatmap",
        "x": list(range(number)),
        "y": list(range(number)),
        "z": np.round(share, 3).tolist(),
        "customdata": counts.tolist(),
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Cividis",
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "text": [
            [f"true {names[i]}, predicted {names[j]}: {counts[i, j]}" for j in range(number)]
            for i in range(number)
        ],
        "hovertemplate": "%{text} rows (%{z:.1%})<extra></extra>",
    }


def _counts_in_cells(counts: np.ndarray, share: np.ndarray) -> list[dict[str, Any]]:
    """Return annotations with the number of rows in each cell that has any."""
    number = len(counts)
    return [
        {
            "x": j,
            "y": i,
            "text": str(counts[i, j]),
            "showarrow": False,
            "font": {"size": 11, "color": "#ffffff" if share[i, j] < 0.5 else "#000000"},
        }
        for i in range(number)
        for j in range(number)
        if counts[i, j]
    ]


def _most_confused(counts: np.ndarray, names: Sequence[str]) -> str:
    off = counts * (1 - np.eye(len(counts), dtype=np.int64))
    wrong = int(off.sum())
    text = f"{wrong} of {int(counts.sum())} out-of-fold rows are wrong"
    if wrong:
        true, taken = divmod(int(off.argmax()), len(counts))
        text += f", most often {names[true]} as {names[taken]} ({counted(off[true, taken], 'row')})"
    return f"{text}; colours are the share of the true class, from 0 (blue) to 1 (yellow)."


def lowest_classes(report_data: ReportData) -> Figure | None:
    """Return F of the 30 classes that the best policy does worst on; None where a confusion matrix is drawn."""
    if has_confusion_matrix(report_data):
        return None
    tables = [
        (role, policy.name, class_scores(policy.scores))
        for role, policy in _best_and_baseline(report_data)
        if policy.scores
    ]
    tables = [each for each in tables if each[2]]
    if not tables:
        return None
    _, best, scores = tables[0]
    chosen = sorted(scores, key=lambda name: (scores[name][1], name))[:MOST_CLASSES]
    named = [scores[name][0] for name in chosen]
    colours = {name: style.colour for name, style in styles_of(report_data).items()}
    symbols = {policy: "circle" if policy == best else "diamond" for _, policy, _ in tables}
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": significant([table[name][1] if name in table else math.nan for name in chosen]),
            "y": list(range(len(chosen))),
            "name": escaped(policy),
            "text": [escaped(name) for name in named],
            "marker": {"color": colours[policy], "size": 9, "symbol": symbols[policy]},
            "hovertemplate": "%{fullData.name}, %{text}: %{x:.3f}<extra></extra>",
        }
        for _, policy, table in reversed(tables)
    ]
    height = 70 + 20 * len(chosen)
    layout = base_layout(height, margin={"l": 12, "r": 12, "t": 8, "b": 44})
    layout |= {
        "xaxis": plain_axis("F", range=[-0.02, 1.02]),
        "yaxis": plain_axis(
            "",
            tickvals=list(range(len(chosen))),
            ticktext=[escaped(shortened(name, 20)) for name in named],
            automargin=True,
            range=[len(chosen) - 0.5, -0.5],
        ),
    }
    name, lowest, rows = scores[chosen[0]]
    caption = (
        f"F of the {len(chosen)} labels that {best} does worst on, by cross-fitted rules; the lowest "
        f"is {name}, {lowest:.3f} on {counted(rows, 'row')}."
    )
    legend = tuple(
        LegendEntry(f"{policy} ({role.lower()})", colours[policy], symbols[policy], "none")
        for role, policy, _ in tables
    )
    return Figure("lowest-classes", caption, data, layout, legend=legend, height=height)


def class_scores(scores: PolicyScores) -> ClassScores:
    """Return the name, F and the number of rows of each class in a scores.json."""
    table = {}
    for row in scores.per_class:
        value = next((row[key] for key in row if key[0] == "f" and key[1:].replace(".", "").isdigit()), None)
        if value is not None:
            table[row["class"]] = (str(row.get("name", row["class"])), float(value), int(row["rows"]))
    return table


def best_and_baseline(report_data: ReportData) -> list[tuple[str, PolicyData, PolicyOutcome]]:
    """Return the best policy and the baseline, each with its role and its decided rows.

    The best is that with the highest pooled out-of-fold score; where it is the baseline, the runner-up stands for
    the others. A policy whose rows are not decided is left out.
    """
    return [
        (role, policy, policy.outcome)
        for role, policy in _best_and_baseline(report_data)
        if policy.outcome is not None
    ]


def _best_and_baseline(report_data: ReportData) -> list[tuple[str, PolicyData]]:
    compared = report_data.compared_scores()
    scored = [
        (compared.get(policy.name, policy.scores.oof), policy) for policy in report_data.policies if policy.scores
    ]
    ranked = [policy for _, policy in sorted(scored, key=lambda each: -each[0])]
    if not ranked:
        return []
    best, others = ranked[0], ranked[1:]
    if best.name == report_data.baseline:
        return [("Best, and the baseline", best), *(("The best of the others", each) for each in others[:1])]
    return [("Best", best), *(("Baseline", each) for each in others if each.name == report_data.baseline)]
