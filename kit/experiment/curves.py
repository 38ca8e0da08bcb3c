"""One picture of an experiment: the rates each policy realised, by depth, and the score it reached."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.core.plotting import COLOURS, new_figure, save, source_of
from kit.core.runs import TRAINING, ExperimentDir, RunDir
from kit.lr.plots import draw_lines, rate_limits
from kit.training.records import history_of, rates_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 5  # panels side by side
MOST_CURVES = 8  # of scores in one panel that can be told apart


def draw_curves(folder: ExperimentDir, metric: str, order: Sequence[str] = ()) -> Path | None:
    """Draw curves.png from the finished runs of every policy; None where there is no finished run.

    A panel a policy: the rate of each depth group over the updates (of the first run). Last: the score of the
    held-out fold after each epoch, mean and range over a policy's runs; of more than eight policies the last
    scores alone.

    Parameters
    ----------
    folder : ExperimentDir
    metric : str
        Its name.
    order : sequence of str
        In which policies come; any others after them.
    """
    runs = _finished(folder, order)
    if not runs:
        return None
    columns = min(len(runs) + 1, COLUMNS)
    rows = -(-(len(runs) + 1) // columns)
    figure = new_figure(3.6 * (columns - 1) + 4.6, 3.8 * rows)
    widths = [3.6] * (columns - 1) + [4.2 if rows == 1 else 3.6]
    panels = figure.subplots(rows, columns, width_ratios=widths, squeeze=False).ravel()
    for axes in panels[len(runs) + 1 :]:
        figure.delaxes(axes)
    panels = panels[: len(runs) + 1]
    ranges = [_draw_rates(axes, *each) for axes, each in zip(panels, runs.items(), strict=False)]
    lowest, highest = zip(*ranges, strict=True)
    for axes in panels[:-1]:  # one scale for all, so that the policies can be compared
        axes.set_ylim(max(min(lowest), max(highest) * 1e-10) / 2, max(highest) * 2)
    panels[0].set_ylabel("learning rate")
    (_draw_scores if len(runs) <= MOST_CURVES else _draw_last_scores)(panels[-1], runs, metric)
    save(figure, folder.curves, _source(runs))
    return folder.curves


def are_drawn(folder: ExperimentDir, order: Sequence[str] = ()) -> bool:
    """Whether curves.png shows the runs that are finished now, in this order."""
    runs = _finished(folder, order)
    return not runs or source_of(folder.curves) == _source(runs)


def _source(runs: dict[str, list[RunDir]]) -> str:
    """Return a digest of what curves are drawn from: the rates and the scores of runs."""
    drawn = [(str(run.record.key), run.record.files) for members in runs.values() for run in members]
    parts = [f"{key} {files.get('rates.npz')} {files.get('history.jsonl')}" for key, files in drawn]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _finished(folder: ExperimentDir, order: Sequence[str]) -> dict[str, list[RunDir]]:
    runs: dict[str, list[RunDir]] = {policy: [] for policy in order}
    for run in folder.runs():
        if (record := run.record).status == "finished" and record.kind == TRAINING:
            runs.setdefault(record.policy, []).append(run)
    return {policy: members for policy, members in runs.items() if members}


def _draw_rates(axes: "Axes", policy: str, runs: list[RunDir]) -> tuple[float, float]:
    """Draws the first run's rates; the lowest one above 0 and the highest."""
    realised = rates_of(runs[0])
    draw_lines(axes, realised.lr, realised.groups, realised.frozen)
    axes.set_title(policy)
    return rate_limits(realised.lr)


def _draw_scores(axes: "Axes", runs: dict[str, list[RunDir]], metric: str) -> None:
    for (policy, members), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        by_epoch: dict[float, list[float]] = defaultdict(list)
        for run in members:
            for line in history_of(run):
                if "valid_score" in line:
                    by_epoch[line["epoch"]].append(line["valid_score"])
        epochs = sorted(by_epoch)
        scores = [by_epoch[epoch] for epoch in epochs]
        label = f"{policy} ({len(members)} run{'s' if len(members) > 1 else ''})"
        axes.plot(epochs, [np.mean(each) for each in scores], color=colour, marker="o", label=label)
        axes.fill_between(epochs, list(map(min, scores)), list(map(max, scores)), color=colour, alpha=0.15)
    axes.set_title("held-out fold")
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _draw_last_scores(axes: "Axes", runs: dict[str, list[RunDir]], metric: str) -> None:
    """A row a policy, the best on top: the last score of each run, and their mean."""
    last = {}
    for policy, members in runs.items():
        scores = [[line["valid_score"] for line in history_of(run) if "valid_score" in line] for run in members]
        if scores := [each[-1] for each in scores if each]:
            last[policy] = scores
    ordered = sorted(last, key=lambda policy: np.mean(last[policy]))
    for row, policy in enumerate(ordered):
        axes.plot(last[policy], [row] * len(last[policy]), "o", color=COLOURS[0], alpha=0.5, markersize=4)
        axes.plot(np.mean(last[policy]), row, "|", color="black", markersize=8)
    axes.set_yticks(range(len(ordered)), ordered, fontsize=min(8, 190 / max(1, len(ordered))))
    axes.set_title("held-out fold, last epoch")
    axes.set_xlabel(metric)
    axes.grid(alpha=0.25)
