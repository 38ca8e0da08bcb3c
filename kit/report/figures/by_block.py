"""At which depth a frozen body is best tapped: the scores of heads that differ in their block alone."""

from collections.abc import Sequence
from typing import Any

from kit.core.plotting import COLOURS
from kit.experiment.policy_scores import PolicyScores
from kit.report.figures.drawing import (
    Figure,
    LegendEntry,
    Trace,
    base_layout,
    escaped,
    evenly_spaced,
    plain_axis,
    significant,
    translucent,
)
from kit.report.material import ReportData
from kit.report.text import shortened

Scored = tuple[str, PolicyScores]  # a block, and the scores of the head on it


def score_by_block(report_data: ReportData) -> Figure | None:
    """Return the out-of-fold score of a head on each block of a body, its interval over rows, and each fold."""
    known = {policy.name: policy for policy in report_data.policies}
    shown = [(block, known[head]) for head, block in report_data.blocks.items() if head in known]
    scored = [(block, policy.scores) for block, policy in shown if policy.scores]
    if len(scored) < 2:
        return None
    intervals = [policy.outcome.interval for _, policy in shown if policy.outcome and policy.outcome.interval]
    band = [_band(intervals)] if len(intervals) == len(scored) == len(shown) else []
    ticks = evenly_spaced(len(scored), 20).tolist()
    layout = base_layout(360, margin={"l": 62, "r": 12, "t": 10, "b": 80})
    layout |= {
        "xaxis": plain_axis(
            "", tickvals=ticks, ticktext=[escaped(shortened(scored[at][0], 14)) for at in ticks], tickangle=-35
        ),
        "yaxis": plain_axis(f"{report_data.metric}, out of fold"),
    }
    best, last = max(scored, key=lambda each: each[1].oof), scored[-1]
    caption = (
        f"{report_data.metric} of a head on the pooled output of each block, in the order of the config, which of "
        f"--block all is from the stem on: best at {best[0]} ({best[1].oof:.4f}), at the last, {last[0]}, "
        f"{last[1].oof:.4f}. "
    )
    caption += "The band is the 95 % interval, were there other rows; the heads held fixed. " if band else ""
    caption += "The best of many blocks on the same rows looks better than it is."
    legend = (
        LegendEntry("all folds, pooled", COLOURS[0], "circle"),
        LegendEntry("each fold", COLOURS[1], "circle", "none"),
    )
    traces = [*band, _folds(scored), _pooled(scored)]
    return Figure("score-by-block", caption, traces, layout, legend=legend, height=360)


def _band(intervals: Sequence[tuple[float, float]]) -> Trace:
    """Return the area between the ends of intervals: there and back."""
    places = list(range(len(intervals)))
    low, high = zip(*intervals, strict=True)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*places, *reversed(places)],
        "y": significant([*high, *reversed(low)]),
        "fill": "toself",
        "fillcolor": translucent(COLOURS[0], 0.15),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _folds(scored: Sequence[Scored]) -> Trace:
    runs = [(place, block, run) for place, (block, each) in enumerate(scored) for run in each.runs]
    marker = {"color": COLOURS[1], "size": 5}
    texts = [f"{escaped(block)}, fold {run.fold}: {run.score:.4f}" for _, block, run in runs]
    return _points([place for place, *_ in runs], [run.score for *_, run in runs], texts, marker=marker)


def _pooled(scored: Sequence[Scored]) -> Trace:
    texts = [f"{escaped(block)}: {each.oof:.4f}" for block, each in scored]
    line = {"color": COLOURS[0], "width": 2}
    return _points(range(len(scored)), [each.oof for _, each in scored], texts, mode="lines+markers", line=line)


def _points(places: Sequence[int], scores: Sequence[float], texts: Sequence[str], **more: Any) -> Trace:
    base = {"type": "scatter", "mode": "markers", "hoverinfo": "text"}
    return base | {"x": list(places), "y": significant(scores), "text": list(texts)} | more
