"""Which policy is ahead: differences with their intervals, and every run's score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kit.comparison.record import PolicyComparison
from kit.comparison.views import VIEWS
from kit.report.figures.drawing import (
    Figure,
    LegendEntry,
    Style,
    Trace,
    escaped,
    full_height,
    interval_bar,
    row_label,
    rows_layout,
    styles_of,
    view_symbol,
)
from kit.report.material import PolicyData, ReportData
from kit.report.text import counted, shortened


def forest(report_data: ReportData) -> Figure | None:
    """Return the difference of each policy to the baseline, with its intervals, a row a policy and view."""
    comparison = report_data.comparison
    rows = [
        (each, view.name)
        for policy in report_data.policies
        for view in report_data.views()
        for each in view.comparisons
        if each.policy == policy.name
    ]
    if comparison is None or not rows:
        return None
    styles = styles_of(report_data)
    data, notes = [], []
    for place, (each, view) in enumerate(rows):
        data += _difference_traces(each, view, place, styles[each.policy])
        name = escaped(shortened(each.policy, 24))
        label = f"<b>{name}</b> {_in_words(view)}: {each.difference:+.3f}, {each.verdict}"
        notes.append(row_label(label, place))
    margin = comparison.margin
    layout = rows_layout(len(rows), notes, f"difference of {comparison.metric} to {comparison.baseline}")
    layout["shapes"] = [
        full_height("rect", x0=-margin, x1=margin, fillcolor="#999999", opacity=0.25, line={"width": 0}),
        full_height("line", x0=0, x1=0, line={"color": "#444444", "width": 1}),
    ]
    largest = max((row for row, _ in rows), key=lambda row: abs(row.difference))
    level = f"{comparison.level:.0%}"
    caption = (
        f"The mean difference of {comparison.metric} to {comparison.baseline}, with its {level} interval "
        f"over folds and seeds (thick) and over resampled rows (thin, the models held fixed). The grey band, "
        f"±{margin:g}, is what counts as equal. The largest difference is {largest.difference:+.3f}, of "
        f"{largest.policy}."
    )
    views = [view for view in VIEWS if any(name == view for _, name in rows)]
    legend = tuple(LegendEntry(VIEWS[view], "#444444", view_symbol(view), "none") for view in views)
    shown_legend = legend if len(views) > 1 else ()
    return Figure("forest", caption, data, layout, legend=shown_legend, height=layout["height"])


def _difference_traces(each: PolicyComparison, view: str, place: int, style: Style) -> list[Trace]:
    """Return the intervals of a policy's difference to the baseline, and its mark."""
    difference, interval, resampled = each.difference, each.interval, each.bootstrap
    text = f"{each.policy}, {_in_words(view)}: {difference:+.3f}"
    traces = []
    if interval:
        text += f" [{interval.low:+.3f}, {interval.high:+.3f}]"
        traces.append(interval_bar(interval.low, interval.high, place, style.colour, 4))
    if resampled:
        traces.append(interval_bar(resampled.low, resampled.high, place + 0.16, style.colour, 1.2))
    mark = {
        "type": "scatter",
        "mode": "markers",
        "x": [difference],
        "y": [place],
        "marker": {"color": style.colour, "size": 11, "symbol": view_symbol(view)},
        "name": escaped(each.policy),
        "text": [escaped(f"{text}, {each.verdict}")],
        "hoverinfo": "text",
    }
    return [*traces, mark]


def _in_words(view: str) -> str:
    return VIEWS.get(view, view)


@dataclass(frozen=True)
class RunScore:
    """The score of one run on the fold that it held out."""

    seed: int
    fold: int
    score: float


@dataclass(frozen=True)
class PolicyRuns:
    """The scores of a policy's runs in one view."""

    policy: str
    view: str
    runs: list[RunScore]

    @property
    def mean(self) -> float:
        """The mean score of the runs."""
        return float(np.mean([run.score for run in self.runs]))


def by_fold(report_data: ReportData) -> Figure | None:
    """Return every run's score by fold and seed, and the mean, a row a policy and view."""
    rows = _scored_runs(report_data)
    if not rows:
        return None
    several = len(report_data.views()) > 1
    shift = _shifts(sorted({run.fold for row in rows for run in row.runs}))
    styles = styles_of(report_data)
    data, notes = [], []
    for place, row in enumerate(rows):
        data += _run_traces(row, place, styles[row.policy], shift)
        view = f" {_in_words(row.view)}" if several else ""
        name = escaped(shortened(row.policy, 34))
        notes.append(row_label(f"<b>{name}</b>{view}: mean {row.mean:.4f}", place))
    layout = rows_layout(len(rows), notes, report_data.metric)
    means = [(row.mean, row.policy) for row in rows if row.view == rows[0].view]
    best, worst = max(means), min(means)
    caption = (
        f"{report_data.metric} of every run on the fold that it held out; within a row the folds stand in order "
        "from the top, the bar is the mean. "
    )
    if len(rows) > 1:
        which = " as they are" if several else ""
        caption += f"The means{which} go from {worst[0]:.3f} ({worst[1]}) to {best[0]:.3f} ({best[1]})."
    else:
        caption += f"The mean of {counted(len(rows[0].runs), 'run')} is {best[0]:.3f}."
    return Figure("by-fold", caption, data, layout, height=layout["height"])


def _shifts(folds: Sequence[int]) -> dict[int, float]:
    """Return how far below the middle of a row each fold's marks stand."""
    if len(folds) < 2:
        return dict.fromkeys(folds, 0)
    return {fold: 0.44 * (i / max(1, len(folds) - 1) - 0.5) for i, fold in enumerate(folds)}


def _run_traces(row: PolicyRuns, place: int, style: Style, shift: Mapping[int, float]) -> list[Trace]:
    """Return the bar of the mean and the marks of the runs."""
    name = escaped(row.policy)
    bar = {
        "type": "scatter",
        "mode": "lines",
        "x": [row.mean, row.mean],
        "y": [place - 0.26, place + 0.34],
        "line": {"color": "#222222", "width": 3},
        "hoverinfo": "skip",
    }
    marks = {
        "type": "scatter",
        "mode": "markers",
        "x": [run.score for run in row.runs],
        "y": [place + 0.04 + shift[run.fold] for run in row.runs],
        "marker": {"color": style.colour, "size": 8, "opacity": 0.75, "symbol": view_symbol(row.view)},
        "name": name,
        "text": [f"{name}: fold {run.fold}, seed {run.seed}: {run.score:.4f}" for run in row.runs],
        "hoverinfo": "text",
    }
    return [bar, marks]


def _scored_runs(report_data: ReportData) -> list[PolicyRuns]:
    """Return the runs of each policy in each view; without a comparison, those that are there."""
    rows = []
    for policy in report_data.policies:
        for view in report_data.views():
            rows += [
                PolicyRuns(
                    policy.name,
                    view.name,
                    [RunScore(run.seed, run.fold, run.score) for run in each.runs],
                )
                for each in view.policies
                if each.policy == policy.name
            ]
        if not report_data.comparison:
            key = report_data.metric_key or report_data.metric
            rows.append(PolicyRuns(policy.name, "raw", _own_runs(policy, key)))
    return [row for row in rows if row.runs]


def _own_runs(policy: PolicyData, metric: str) -> list[RunScore]:
    """Return the runs that were scored by the decision rule; where none were, those scored by the plain one."""
    if policy.scores and policy.scores.runs:
        return [RunScore(run.seed, run.fold, run.score) for run in policy.scores.runs]
    return [
        RunScore(record.seed, record.fold, record.scores[metric])
        for record in policy.finished
        if metric in record.scores
    ]
