"""Where the predictions are wrong: confusion matrices, or the labels with the lowest F."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kit.report.figures.drawing import (
    Figure,
    LegendEntry,
    base_layout,
    plain,
    plain_axis,
    rows_of,
    shortened,
    sig,
    styles_of,
)
from kit.report.material import PolicyData, ReportData

MOST_CLASSES = 30  # of a confusion matrix


def confusion(material: ReportData) -> list[Figure]:
    """Confusion matrices of the best policy and the baseline; for several labels or many classes nothing."""
    if material.multilabel or len(material.classes) > MOST_CLASSES:
        return []
    figures, number = [], len(material.classes)
    names = [plain(shortened(name, 14)) for name in material.names]
    for role, policy in best_and_baseline(material):
        outcome = policy.outcome
        counts = np.zeros((number, number), dtype=np.int64)
        np.add.at(counts, (outcome.truth, outcome.predicted), 1)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        height = 110 + (34 if number <= 12 else 20) * number
        heat = {
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
        notes = []
        if number <= 15:
            notes = [
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
        layout = base_layout(height, margin={"l": 12, "r": 8, "t": 8, "b": 12})
        ticks = {"tickvals": list(range(number)), "ticktext": names, "automargin": True, "showgrid": False}
        layout |= {
            "xaxis": plain_axis("predicted", **ticks),
            "yaxis": plain_axis("true", **ticks, autorange="reversed"),
            "annotations": notes,
        }
        off = counts * (1 - np.eye(number, dtype=np.int64))
        wrong = int(off.sum())
        caption = f"{role}: {wrong} of {int(counts.sum())} out-of-fold rows are wrong"
        if wrong:
            true, taken = np.unravel_index(int(off.argmax()), off.shape)
            caption += (
                f", most often {material.names[true]} as {material.names[taken]} ({rows_of(off[true, taken])})"
            )
        caption += "; colours are the share of the true class, from 0 (blue) to 1 (yellow)."
        figures.append(Figure(f"confusion-{len(figures)}", caption, [heat], layout, policy.name, height=height))
    return figures


def lowest_classes(material: ReportData) -> Figure | None:
    """F of the 30 classes that the best policy does worst on; where a confusion matrix is not for the labels."""
    if not (material.multilabel or len(material.classes) > MOST_CLASSES):
        return None
    pairs = [(role, policy) for role, policy in _best_and_baseline(material) if policy.scores]
    tables = [(role, policy, class_scores(policy.scores)) for role, policy in pairs]
    tables = [each for each in tables if each[2]]
    if not tables:
        return None
    best = tables[0][2]
    chosen = sorted(best, key=lambda name: (best[name][1], name))[:MOST_CLASSES]
    styles, data = styles_of(material), []
    named = [best[name][0] for name in chosen]
    for _, policy, table in reversed(tables):
        style = styles[policy.name]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": sig([table[name][1] if name in table else math.nan for name in chosen]),
                "y": list(range(len(chosen))),
                "name": plain(policy.name),
                "text": [plain(name) for name in named],
                "marker": {
                    "color": style.colour,
                    "size": 9,
                    "symbol": "circle" if policy is tables[0][1] else "diamond",
                },
                "hovertemplate": "%{fullData.name}, %{text}: %{x:.3f}<extra></extra>",
            }
        )
    height = 70 + 20 * len(chosen)
    layout = base_layout(height, margin={"l": 12, "r": 12, "t": 8, "b": 44})
    layout |= {
        "xaxis": plain_axis("F", range=[-0.02, 1.02]),
        "yaxis": plain_axis(
            "",
            tickvals=list(range(len(chosen))),
            ticktext=[plain(shortened(name, 20)) for name in named],
            automargin=True,
            range=[len(chosen) - 0.5, -0.5],
        ),
    }
    first = chosen[0]
    caption = (
        f"F of the {len(chosen)} labels that {tables[0][1].name} does worst on, by cross-fitted rules; the lowest "
        f"is {best[first][0]}, {best[first][1]:.3f} on {rows_of(best[first][2])}."
    )
    keys = tuple(
        LegendEntry(
            f"{policy.name} ({role.lower()})",
            styles[policy.name].colour,
            "circle" if i == 0 else "diamond",
            "none",
        )
        for i, (role, policy, _) in enumerate(tables)
    )
    return Figure("lowest-classes", caption, data, layout, key=keys, height=height)


def class_scores(scores: Mapping[str, Any]) -> dict[str, tuple[str, float, int]]:
    """Class → name, F and number of rows, from scores.json."""
    table = {}
    for row in scores.get("per_class", []):
        value = next((row[key] for key in row if key[0] == "f" and key[1:].replace(".", "").isdigit()), None)
        if value is not None:
            table[row["class"]] = (str(row.get("name", row["class"])), float(value), int(row["rows"]))
    return table


def best_and_baseline(material: ReportData) -> list[tuple[str, PolicyData]]:
    """The best policy by its pooled out-of-fold score and the baseline (or the runner-up, where the baseline is
    the best), with their roles; those whose rows were decided."""
    return [(role, policy) for role, policy in _best_and_baseline(material) if policy.outcome is not None]


def _best_and_baseline(material: ReportData) -> list[tuple[str, PolicyData]]:
    scored = [policy for policy in material.policies if policy.scores]
    raw = next((view["policies"] for view in material.views() if view["name"] == "raw"), [])
    compared = {each["policy"]: each["oof"] for each in raw}
    ranked = sorted(scored, key=lambda policy: -compared.get(policy.name, policy.scores["oof"]))
    if not ranked:
        return []
    best, others = ranked[0], ranked[1:]
    if best.name == material.baseline:
        return [("Best, and the baseline", best), *(("The best of the others", each) for each in others[:1])]
    return [("Best", best), *(("Baseline", each) for each in others if each.name == material.baseline)]
