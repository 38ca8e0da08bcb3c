"""The report's figures: what was gathered of an experiment → Plotly's data and layout, with a caption in words.

Plain dictionaries, as plotly.js takes them: they are the same for every version of the Python package.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kit.report.measured import Activations, Learning
from kit.report.rates import COLOURS

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
VIEWS = {"raw": "as they are", "tuned": "tuned", "equalised": "at equal mean rate"}
VIRIDIS = ("#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32")  # to .9
MOST_POINTS = 120  # of a line
MOST_CELLS = 170_000  # of all heat maps together, so that the page stays below 5 MB
MOST_LAYERS = 8
MOST_CLASSES = 30  # of a confusion matrix
BINS = 40
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GRID = "#e6e6e6"


@dataclass(frozen=True)
class Rates:
    """Realised and intended rates [steps, groups] of one run; intended is None where the policy cannot say.

    steps       the updates that these are of
    controlled  whether a controller multiplied them
    """

    steps: np.ndarray
    lr: np.ndarray
    intended: np.ndarray | None
    groups: list[str]
    controlled: bool = False

    @property
    def largest_difference(self) -> float | None:
        """Between realised and intended, relative to the intended; None where it is not known."""
        if self.intended is None or self.intended.shape != self.lr.shape:
            return None
        gap, size = np.abs(self.lr - self.intended), np.abs(self.intended)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(gap == 0, 0.0, gap / size)
        return float(np.nanmax(relative)) if np.isfinite(self.lr).any() else None


@dataclass(frozen=True)
class Outcome:
    """A policy's out-of-fold rows, decided by cross-fitted rules.

    truth, predicted  int [rows], or bool [rows, classes]
    doubt             float [rows]: how far the probabilities were from the truth, 0 … 1
    """

    ids: pd.Index
    truth: np.ndarray
    predicted: np.ndarray
    doubt: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        differs = self.truth != self.predicted
        return differs.any(axis=1) if differs.ndim == 2 else differs


@dataclass(frozen=True)
class PolicyData:
    """What is there of one policy; every part but the name may be missing.

    records    run.json of each run that has begun
    histories  history.jsonl of each run that is finished
    scores     scores.json
    shown      which run rates and probes are of, in words
    """

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    histories: list[list[dict[str, Any]]] = field(default_factory=list)
    scores: dict[str, Any] | None = None
    shown: str = ""
    rates: Rates | None = None
    activations: Activations | None = None
    learning: Learning | None = None
    outcome: Outcome | None = None

    @property
    def finished(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record.get("status") == "finished"]


@dataclass(frozen=True)
class Thumbnail:
    """An image that was often wrong.

    image      a data URI; None where it could not be read
    predicted  what most of those policies took it for that got it wrong: `wrong` policies `of` all
    """

    id: str
    image: str | None
    truth: str
    predicted: str
    wrong: int
    of: int


@dataclass(frozen=True)
class Material:
    """What the report is drawn from.

    comparison  the content of comparison.json, or None
    names       of the classes, for people
    without     why there are no labels and images; "" where they are there
    outdated    what the comparison is of that is no longer there, and why it is not shown; None where it is shown
    fold_plan   its hash
    """

    name: str
    metric: str
    baseline: str
    policies: list[PolicyData]
    comparison: dict[str, Any] | None = None
    classes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    multilabel: bool = False
    thumbnails: list[Thumbnail] = field(default_factory=list)
    without: str = ""
    outdated: str | None = None
    config: str = ""
    fold_plan: str = ""

    def styles(self) -> dict[str, "Style"]:
        return {policy.name: Style.of(place) for place, policy in enumerate(self.policies)}

    def views(self) -> list[dict[str, Any]]:
        return self.comparison["views"] if self.comparison else []

    def policy(self, name: str) -> PolicyData | None:
        return next((policy for policy in self.policies if policy.name == name), None)


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


@dataclass(frozen=True)
class Key:
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
    key: tuple[Key, ...] = ()
    height: int = 0


# Verdicts


def forest(material: Material) -> Figure | None:
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
    comparison, styles = material.comparison, material.styles()
    data, notes = [], []
    for place, (each, view) in enumerate(rows):
        style, interval, resampled = styles[each["policy"]], each["interval"], each["bootstrap"]
        symbol = _view_symbol(view)
        told = in_full = f"{each['difference']:+.3f}"
        if interval:
            in_full += f" [{interval['low']:+.3f}, {interval['high']:+.3f}]"
            data.append(_bar(interval, place, style.colour, 4))
        if resampled:
            data.append(_bar(resampled, place + 0.16, style.colour, 1.2))
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
        notes.append(_row_label(label, place))
    margin = comparison["margin"]
    layout = _rows_layout(len(rows), notes, f"difference of {comparison['metric']} to {comparison['baseline']}")
    layout["shapes"] = [
        _shape("rect", x0=-margin, x1=margin, fillcolor="#999999", opacity=0.25, line={"width": 0}),
        _shape("line", x0=0, x1=0, line={"color": "#444444", "width": 1}),
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
    keys = tuple(Key(VIEWS[view], "#444444", _view_symbol(view), "none") for view in views)
    return Figure("forest", caption, data, layout, key=keys if len(views) > 1 else (), height=layout["height"])


def by_fold(material: Material) -> Figure | None:
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
    styles, data, notes, several = material.styles(), [], [], len(material.views()) > 1
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
                "marker": {"color": style.colour, "size": 8, "opacity": 0.75, "symbol": _view_symbol(view)},
                "name": plain(name),
                "text": [f"{plain(name)}: fold {r['fold']}, seed {r['seed']}: {r['score']:.4f}" for r in runs],
                "hoverinfo": "text",
            }
        )
        kind = f" {VIEWS.get(view, view)}" if several else ""
        notes.append(_row_label(f"<b>{plain(shortened(name, 34))}</b>{kind}: mean {mean:.4f}", place))
    layout = _rows_layout(len(rows), notes, material.metric)
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


# Over time


def learning_curves(material: Material) -> Figure | None:
    """Training loss and held-out score over the epochs, the mean and the range over a policy's runs."""
    styles, height = material.styles(), 560
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
            span = _span(np.concatenate(values))
            axes[f"yaxis{number}"] = _axis(title, domain=domain, range=span)
            room = (height - 60) * (domain[1] - domain[0])
            notes += _end_labels(ends, span, room, f"y{number}")
    if not data:
        return None
    layout = _layout(height, margin={"l": 58, "r": _end_room(material), "t": 14, "b": 46})
    layout |= axes | {"xaxis": _axis("epoch", anchor="y2" if "yaxis2" in axes else "y"), "annotations": notes}
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
    return Figure("curves", caption, data, layout, key=_policy_keys(material), height=height)


def rates(material: Material) -> list[Figure]:
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
        at = _thinned(len(made.lr))
        colours = depth_colours(len(made.groups))
        for depth, (group, colour) in enumerate(zip(made.groups, colours, strict=True)):
            line = {"type": "scatter", "mode": "lines", "x": made.steps[at].tolist(), "name": plain(group)}
            if made.intended is not None:
                pale = {"color": colour, "width": 8}
                y = _above_zero(made.intended[at, depth])
                data.append(line | {"y": y, "line": pale, "opacity": 0.3, "hoverinfo": "skip"})
            thin = {"color": colour, "width": 1.8}
            hover = "%{fullData.name}<br>update %{x}: %{y:.3g}<extra></extra>"
            data.append(line | {"y": _above_zero(made.lr[at, depth]), "line": thin, "hovertemplate": hover})
        gap = made.largest_difference
        caption = f"{policy.shown}: highest rate {said(float(np.nanmax(made.lr)))}. "
        if gap is None:
            caption += "What the policy intended is not known here."
        else:
            whose = "policy and controller" if made.controlled else "policy"
            caption += f"Largest relative difference to what the {whose} intended: {_gap(gap)}."
        layout = _layout(230, margin={"l": 56, "r": 8, "t": 8, "b": 40})
        layout |= {
            "xaxis": _axis("update"),
            "yaxis": _log_axis("", low / 2, high * 2),
        }
        keys = _depth_keys(made.groups)
        figures.append(Figure(f"rates-{place}", caption, data, layout, policy.name, keys, 230))
    return figures


def activations(material: Material) -> list[Figure]:
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
        each = sorted(policy.activations.top(_place(policy, layer)) for policy in having)
        tops[layer] = each[len(each) // 2] or 1.0
        for policy in having:
            made = policy.activations
            at = _thinned(len(made.steps), most)
            counts = made.heat(_place(policy, layer), tops[layer], bins=BINS)
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
            axes[f"yaxis{number}"] = _axis("", domain=domain, range=[0, side * (BINS + 1)], nticks=4)
            notes.append(_panel_title(layer, domain[1]))
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
        layout = _layout(height, margin={"l": 44, "r": 8, "t": 4, "b": 40})
        layout |= axes | {"xaxis": _axis("update", anchor=last), "annotations": notes}
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
            heat = made.heat(_place(policy, layer), tops[layer], bins=BINS)
            share = heat[-1] / np.maximum(heat.sum(axis=0), 1)
            at = int(share.argmax())
            worst = max(worst, (float(share[at]), layer, int(made.steps[at])))
    if worst[0] == 0:
        return f"{policy.shown}: nothing lies beyond the top of the axes."
    return (
        f"{policy.shown}: beyond the top of the axes (the uppermost line) lies at most {_percent(worst[0])}, in "
        f"{worst[1]} at update {worst[2]}."
    )


# By depth

QUANTITIES: tuple[tuple[str, str, bool], ...] = (
    ("update", "relative update", True),
    ("distance", "distance from initial weights", True),
    ("rotation", "rotation, degrees", False),
    ("gradient", "gradient norm", True),
    ("rate", "effective rate, rate / ‖w‖²", True),
)


def distance_by_depth(material: Material) -> Figure | None:
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


def butterfly(material: Material) -> Figure | None:
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


def _by_how_much(material: Material) -> str:
    sizes = {policy.learning.relative for policy in material.policies if policy.learning is not None}
    return f" by {_percent(sizes.pop())} of their norm" if len(sizes) == 1 else ""


def _by_depth(
    material: Material, name: str, value_of: Callable, axis: str, caption: str, tell: Callable
) -> Figure | None:
    shown = {
        policy.name: (policy.learning.groups, values)
        for policy in material.policies
        if policy.learning is not None and (values := value_of(policy.learning)) is not None
    }
    if not shown:
        return None
    styles, data, ends, height = material.styles(), [], [], 340
    every = np.concatenate([np.asarray(values, dtype=np.float64) for _, values in shown.values()])
    floor, top = _log_span(every)
    groups = list(dict.fromkeys(group for names, _ in shown.values() for group in names))
    place = {group: i for i, group in enumerate(groups)}
    for turn, (policy, (names, values)) in enumerate(shown.items()):
        style, extra = styles[policy], min(4, len(shown) - 1 - turn)  # equal lines lie on each other: all are seen
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [place[group] for group in names],
                "y": _above_zero(values),
                "name": plain(policy),
                "text": [plain(group) for group in names],
                "line": {"color": style.colour, "width": 2 + extra, "dash": style.dash},
                "marker": {"symbol": style.symbol, "size": 6 + 1.5 * extra},
                "hovertemplate": "%{fullData.name}, %{text}: %{y:.3g}<extra></extra>",
            }
        )
        if values[-1] > 0 and place[names[-1]] == len(groups) - 1:
            ends.append((policy, style.colour, math.log10(max(float(values[-1]), floor))))
    ticks = _spread(len(groups), 10)
    layout = _layout(height, margin={"l": 62, "r": _end_room(material), "t": 10, "b": 70})
    layout |= {
        "xaxis": _axis(
            "", tickvals=ticks, ticktext=[plain(shortened(groups[i], 14)) for i in ticks], tickangle=-35
        ),
        "yaxis": _log_axis(axis, floor / 1.5, top * 1.5),
        "annotations": _end_labels(ends, [math.log10(floor / 1.5), math.log10(top * 1.5)], height - 80, "y"),
    }
    caption = f"{caption} {tell(shown)}"
    return Figure(name, caption, data, layout, key=_policy_keys(material, shown), height=height)


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
        return f"Under {high[1]}, {groups[0]} moved by {_percent(first)} of its norm."
    least, most = f"{_percent(low[0])} of its norm under {low[1]}", f"{_percent(high[0])} under {high[1]}"
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


def learning(material: Material) -> list[Figure]:
    """Five measures of how each depth group learns, over the updates, a card a policy, one scale for all."""
    shown = [policy for policy in material.policies if policy.learning is not None]
    if not shown:
        return []
    spans = {}
    for name, _, log in QUANTITIES:
        every = np.concatenate([getattr(policy.learning, name).ravel() for policy in shown])
        spans[name] = _log_span(every) if log else _span(every[np.isfinite(every)])
    height = 40 + 125 * len(QUANTITIES)
    figures = []
    for place, policy in enumerate(shown):
        made, data, notes, axes = policy.learning, [], [], {}
        groups = made.groups
        colours, at = depth_colours(len(groups)), _thinned(len(made.steps), 80)
        for row, (name, title, log) in enumerate(QUANTITIES):
            number = "" if row == 0 else str(row + 1)
            domain = (1 - (row + 1) / len(QUANTITIES), 1 - row / len(QUANTITIES) - 22 / height)
            low, high = spans[name]
            axes[f"yaxis{number}"] = (
                _log_axis("", low / 1.5, high * 1.5) if log else _axis("", range=[low, high])
            ) | {"domain": domain}
            notes.append(_panel_title(title, domain[1]))
            values = getattr(made, name)[at]
            for depth, (group, colour) in enumerate(zip(groups, colours, strict=True)):
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines",
                        "x": made.steps[at].tolist(),
                        "y": _above_zero(values[:, depth]) if log else sig(values[:, depth]),
                        "xaxis": "x",
                        "yaxis": f"y{number}",
                        "name": plain(group),
                        "line": {"color": colour, "width": 1.8},
                        "hovertemplate": "%{fullData.name}, update %{x}: %{y:.3g}<extra></extra>",
                    }
                )
        layout = _layout(height, margin={"l": 52, "r": 8, "t": 4, "b": 40})
        layout |= axes | {"xaxis": _axis("update", anchor=f"y{len(QUANTITIES)}"), "annotations": notes}
        median = np.nanmedian(made.update.astype(np.float64), axis=0)
        caption = (
            f"{policy.shown}: the median relative update is {said(float(median[0]))} in {groups[0]} and "
            f"{said(float(median[-1]))} in {groups[-1]}."
        )
        keys = _depth_keys(groups)
        figures.append(Figure(f"learning-{place}", caption, data, layout, policy.name, keys, height))
    return figures


# Classes


def confusion(material: Material) -> list[Figure]:
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
        layout = _layout(height, margin={"l": 12, "r": 8, "t": 8, "b": 12})
        ticks = {"tickvals": list(range(number)), "ticktext": names, "automargin": True, "showgrid": False}
        layout |= {
            "xaxis": _axis("predicted", **ticks),
            "yaxis": _axis("true", **ticks, autorange="reversed"),
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


def lowest_classes(material: Material) -> Figure | None:
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
    styles, data = material.styles(), []
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
    layout = _layout(height, margin={"l": 12, "r": 12, "t": 8, "b": 44})
    layout |= {
        "xaxis": _axis("F", range=[-0.02, 1.02]),
        "yaxis": _axis(
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
        Key(
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


def best_and_baseline(material: Material) -> list[tuple[str, PolicyData]]:
    """The best policy by its pooled out-of-fold score and the baseline (or the runner-up, where the baseline is
    the best), with their roles; those whose rows were decided."""
    return [(role, policy) for role, policy in _best_and_baseline(material) if policy.outcome is not None]


def _best_and_baseline(material: Material) -> list[tuple[str, PolicyData]]:
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


# What figures share


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


def _percent(share: float) -> str:
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def _gap(gap: float) -> str:
    return "none" if gap == 0 else f"{gap:.1e}"


def _thinned(length: int, most: int = MOST_POINTS) -> np.ndarray:
    """Places, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, most)).round().astype(np.int64))


def _spread(length: int, most: int) -> list[int]:
    return _thinned(length, most).tolist()


def _above_zero(values) -> list[float | None]:
    """For a log axis: a rate of 0 is a gap."""
    array = np.asarray(values, dtype=np.float64)
    return sig(np.where(array > 0, array, np.nan))


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
    x = x[_thinned(len(x))]
    values = np.stack([np.interp(x, *line) for line in lines])
    return x, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def _span(values: np.ndarray) -> list[float]:
    """The range of an axis, with some room."""
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return [0.0, 1.0]
    low, high = float(values.min()), float(values.max())
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def _log_span(values: np.ndarray) -> tuple[float, float]:
    """The lowest value above 0, at most eight decades below the highest, and the highest."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 1e-3, 1.0
    return max(float(values.min()), float(values.max()) * 1e-8), float(values.max())


def _layout(height: int, **more) -> dict[str, Any]:
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


def _axis(title: str, **more) -> dict[str, Any]:
    base = {"gridcolor": GRID, "zeroline": False, "linecolor": "#888888", "ticks": "outside", "ticklen": 3}
    return (
        base
        | {"title": {"text": plain(title), "standoff": 6}}
        | {key: list(value) if isinstance(value, tuple) else value for key, value in more.items()}
    )


def _log_axis(title: str, low: float, high: float) -> dict[str, Any]:
    """Ticks at whole powers of ten, of a short axis at 1, 2 and 5 times those."""
    within = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    if len(within) > 2:
        each = [10.0**power for power in within[:: -max(1, math.ceil(len(within) / 5))]]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        each = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    ticks = sorted(float(f"{tick:.3g}") for tick in each if low <= tick <= high)
    return _axis(
        title,
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[said(tick) if tick >= 0.001 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks],
    )


def _shape(kind: str, **more) -> dict[str, Any]:
    return {"type": kind, "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"} | more


def _bar(interval: Mapping[str, float], y: float, colour: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [interval["low"], interval["high"]],
        "y": [y, y],
        "line": {"color": colour, "width": width},
        "hoverinfo": "skip",
    }


def _rows_layout(rows: int, notes: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Of a figure with a row a policy, whose name stands above its row, so that a narrow screen holds it."""
    height = 56 + 58 * rows
    layout = _layout(height, margin={"l": 12, "r": 12, "t": 8, "b": 44})
    hidden = {"visible": False, "range": [rows - 0.5, -0.75], "fixedrange": True}
    return layout | {"xaxis": _axis(title, automargin=True), "yaxis": hidden, "annotations": notes}


def _row_label(text: str, place: float) -> dict[str, Any]:
    where = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "y", "y": place - 0.44, "yanchor": "middle"}
    return where | {"text": text, "showarrow": False, "font": {"size": 12}, "align": "left"}


def _panel_title(text: str, top: float) -> dict[str, Any]:
    where = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": top, "yanchor": "bottom"}
    return where | {"text": f"<b>{plain(shortened(text, 34))}</b>", "showarrow": False, "font": {"size": 11}}


def _end_room(material: Material) -> int:
    """Pixels at the right for the names of the policies."""
    return 28 + int(6.2 * max(len(shortened(policy.name, 16)) for policy in material.policies))


def _end_labels(ends: Sequence[tuple[str, str, float]], span, pixels: float, axis: str) -> list[dict[str, Any]]:
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


def _view_symbol(view: str) -> str:
    return {"raw": "circle", "tuned": "square", "equalised": "diamond"}.get(view, "circle")


def _policy_keys(material: Material, names=None) -> tuple[Key, ...]:
    styles = material.styles()
    return tuple(
        Key(name, style.colour, style.symbol if style.marks else "", style.dash)
        for name, style in styles.items()
        if names is None or name in names
    )


def _depth_keys(groups: Sequence[str]) -> tuple[Key, ...]:
    colours = depth_colours(len(groups))
    return tuple(Key(str(groups[i]), colours[i]) for i in _spread(len(groups), 6))
