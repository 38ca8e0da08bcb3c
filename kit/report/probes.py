"""The command `probe`: pictures of what probes measured, of several runs on the same scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.core.errors import KitError, some
from kit.core.files import need_output
from kit.core.plotting import COLOURS, MARKERS, new_figure, save
from kit.core.runs import RunDir
from kit.report.measured import heat_map, top_magnitude
from kit.report.text import counted
from kit.training.records import Activations, Learning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

BINS = 48
DECADES = 3  # of the colours, below the fullest bin beyond the lowest (which holds the zeros of ReLUs)
MOST_LAYERS = 13  # rows of heat maps; of more layers these, evenly spaced
MEASURES = {
    "update": "relative update ‖Δw‖ / ‖w‖",
    "distance": "distance ‖w − w₀‖ / ‖w₀‖",
    "rotation": "rotation from w₀, degrees",
    "gradient": "gradient norm",
    "rate": "effective rate, rate / ‖w‖²",
}
SUMMARIES = {"mean": "mean", "std": "spread", "near_zero": "share near zero (within 1 % of the rms)"}


def draw_activations(runs: Mapping[str, Activations], path: Path) -> None:
    """Draw activations over time, a column a run and a row a layer.

    Each panel shows magnitudes from 0 over time, with log counts: yellow is more, blue is fewer. The strip on top
    is what lies beyond the axis. A row has one axis, which holds 99.9 % of all values of each run, and one scale
    of colours. Below them are mean, spread and share near zero over time.

    Parameters
    ----------
    runs : mapping of str to Activations
        Label → what was measured in the run, all of the same layers.
    path : Path
        The file to write.
    """
    layers = next(iter(runs.values())).layers
    shown = np.linspace(0, len(layers) - 1, min(len(layers), MOST_LAYERS)).round().astype(int).tolist()
    rows = len(shown) + len(SUMMARIES)
    figure = new_figure(3.4 * len(runs) + 1.2, 1.55 * rows + 1.2)
    panels = figure.subplots(rows, len(runs), squeeze=False, sharex="col")
    for place, layer in enumerate(shown):
        _draw_layer(figure, panels[place], runs, layer)
    for row, (what, title) in enumerate(SUMMARIES.items(), start=len(shown)):
        values = np.concatenate([getattr(each, what)[:, shown].ravel() for each in runs.values()])
        values = values[np.isfinite(values)]
        low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
        for axes, each in zip(panels[row], runs.values(), strict=True):
            _draw_by_depth(axes, each.steps, getattr(each, what)[:, shown], [layers[layer] for layer in shown])
            if low < high:
                axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            axes.set_title(title, fontsize=9)
    for axes, name in zip(panels[0], runs, strict=True):
        axes.set_title(f"{name}\n{axes.get_title()}", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("update", fontsize=8)
    _draw_legend(figure, panels[-1, 0], "layer")
    save(figure, path)


def _draw_layer(figure: "Figure", panels: np.ndarray, runs: Mapping[str, Activations], layer: int) -> None:
    """Draw a row of heat maps: of one layer, in each run."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    top = max(top_magnitude(each, layer) for each in runs.values())
    heats = [heat_map(each, layer, top, BINS) for each in runs.values()]
    shares = [heat / heat.sum(axis=0).clip(min=1) for heat in heats]
    most = max(share[1:-1].max() for share in shares) or 1.0
    norm = LogNorm(most / 10**DECADES, most, clip=True)
    for axes, each, share in zip(panels, runs.values(), shares, strict=True):
        _draw_heat(axes, each.steps, share, top, norm)
        axes.set_title(f"{each.layers[layer]} (at most {100 * share[-1].max():.1g} % beyond)", fontsize=9)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("magnitude", fontsize=8)
    scale = figure.colorbar(ScalarMappable(norm, "viridis"), ax=panels.tolist(), pad=0.01, extend="both")
    scale.set_label("share of outputs", fontsize=8)
    scale.ax.tick_params(labelsize=7)


def draw_learning(runs: Mapping[str, Learning], path: Path) -> None:
    """Draw how each depth group learned: a column a run, a row a measure, a line a depth group.

    Dark is the stem. On a log scale 0 is a gap.

    Parameters
    ----------
    runs : mapping of str to Learning
        Label → what was measured in the run, all of the same depth groups.
    path : Path
        The file to write.
    """
    groups = next(iter(runs.values())).groups
    figure = new_figure(3.4 * len(runs) + 0.6, 2.1 * len(MEASURES) + 0.6)
    panels = figure.subplots(len(MEASURES), len(runs), squeeze=False, sharex="col", sharey="row")
    for row, (measure, title) in enumerate(MEASURES.items()):
        values = np.concatenate([getattr(each, measure) for each in runs.values()])
        positive = values[np.isfinite(values) & (values > 0)]
        for column, (name, each) in enumerate(runs.items()):
            axes = panels[row, column]
            measured = getattr(each, measure)
            _draw_by_depth(axes, each.steps, np.where(measured > 0, measured, np.nan), groups)
            if len(positive):
                axes.set_yscale("log")
                axes.set_ylim(max(positive.min(), positive.max() * 1e-10) / 2, positive.max() * 2)
            axes.set_title(f"{name}\n{title}" if row == 0 else title, fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("update", fontsize=8)
    _draw_legend(figure, panels[-1, 0], "depth group (a gap: stands still)")
    save(figure, path)


def draw_butterfly(runs: Mapping[str, Learning], path: Path) -> None:
    """Draw how far the output moves when each depth group is perturbed alike: a panel a run, a line a moment.

    A hollow mark at the foot means not at all, as of residual branches whose last norm is still 0.

    Parameters
    ----------
    runs : mapping of str to Learning
        Label → what was measured in the run, in each of them the butterfly.
    path : Path
        The file to write.
    """
    figure = new_figure(3.6 * len(runs) + 0.6, 3.8)
    panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    values = np.concatenate([each.butterfly.ravel() for each in runs.values()])
    positive = values[np.isfinite(values) & (values > 0)]
    foot = positive.min(initial=1.0) / 3
    for axes, (name, each) in zip(panels, runs.items(), strict=True):
        places = np.arange(len(each.groups))
        for turn, (done, effect) in enumerate(zip(each.butterfly_steps, each.butterfly, strict=True)):
            colour, marker = COLOURS[turn % len(COLOURS)], MARKERS[turn % len(MARKERS)]
            moved = effect > 0
            label = f"after {counted(done, 'update')}"
            axes.plot(places, np.where(moved, effect, np.nan), color=colour, marker=marker, label=label)
            axes.plot(places[~moved], np.full((~moved).sum(), foot), marker, color=colour, fillstyle="none")
        axes.set_yscale("log")
        axes.set_ylim(foot / 1.5, positive.max(initial=foot * 3) * 2)
        axes.set_xticks(places, each.groups, rotation=40, ha="right", fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.25)
        axes.tick_params(axis="y", labelsize=7)
    panels[0].legend(fontsize=7)
    sizes = " or ".join(sorted({f"{100 * each.relative:g} %" for each in runs.values()}))
    hollow = "; hollow: 0" if len(positive) < len(values) else ""
    panels[0].set_ylabel(f"KL of the output, nats\n(weights moved by {sizes}{hollow})", fontsize=8)
    save(figure, path)


def _draw_heat(axes: "Axes", steps: np.ndarray, shares: np.ndarray, top: float, norm: "Normalize") -> None:
    """Draw shares [bins + 1, samples]: each sample reaches to the next one, the last as far as the one before."""
    ends = np.append(steps, steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1))
    axes.pcolormesh(ends, np.linspace(0, top, len(shares)), shares[:-1], norm=norm, cmap="viridis")
    axes.pcolormesh(ends, [1.03 * top, 1.1 * top], shares[-1:], norm=norm, cmap="viridis")
    axes.set_ylim(0, 1.1 * top)


def _draw_by_depth(axes: "Axes", steps: np.ndarray, values: np.ndarray, names: Sequence[str]) -> None:
    """Draw a line a layer or depth group of values [samples, lines]; dark is the stem."""
    from matplotlib import colormaps

    for place, name in enumerate(names):
        colour = colormaps["viridis"](0.92 * place / max(1, len(names) - 1))
        # A value between two gaps makes no line, but a mark.
        marker = "." if len(steps) < 40 else None
        axes.plot(steps, values[:, place], color=colour, linewidth=1.6, marker=marker, markersize=4, label=name)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)


def _draw_legend(figure: "Figure", axes: "Axes", title: str) -> None:
    """Draw one legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, title=title, title_fontsize=7, loc="outside lower center", ncols=5)


@dataclass(frozen=True)
class ProbeResult:
    """The pictures that were drawn."""

    files: list[Path]


def probe(runs: Sequence[str | Path], prefix: str | None = None) -> ProbeResult:
    """Draw activations, learning by depth and, where it was measured, the butterfly.

    Parameters
    ----------
    runs : sequence of str or Path
        Folders like runs/thread/uniform/seed0/fold0.
    prefix : str, optional
        How the names of the files begin; left out: `probes` in the run's folder, of several runs where the command
        runs.

    Returns
    -------
    ProbeResult

    Raises
    ------
    KitError
        For a folder that is no run, a run without probes, and runs of different networks.
    """
    members = {label: RunDir(Path(folder)) for label, folder in _labelled(runs).items()}
    activations = {label: Activations.load(run.checked(run.activations)) for label, run in members.items()}
    learning = {label: Learning.load(run.checked(run.learning)) for label, run in members.items()}
    for what, names in (
        ("layers", {label: each.layers for label, each in activations.items()}),
        ("depth groups", {label: each.groups for label, each in learning.items()}),
    ):
        _need_same(what, names)
    start = Path(prefix) if prefix else (Path(runs[0]) if len(runs) == 1 else Path()) / "probes"
    files = [start.with_name(f"{start.name}-{what}.png") for what in ("activations", "learning", "butterfly")]
    need_output("--output", str(files[0]), (".png",))
    draw_activations(activations, files[0])
    draw_learning(learning, files[1])
    measured = {label: each for label, each in learning.items() if len(each.butterfly_steps)}
    if not measured:
        return ProbeResult(files[:2])
    draw_butterfly(measured, files[2])
    return ProbeResult(files)


def _labelled(runs: Sequence[str | Path]) -> dict[str, str | Path]:
    """Return label → run: its policy, with its seed and fold where several runs of a policy are shown."""
    if len(set(map(str, runs))) < len(runs):
        raise KitError("probe: the same run stands there twice")
    labels = {}
    for folder in runs:
        run = RunDir(Path(folder))
        if not run.begun:
            raise KitError(
                f"{folder}: is no run (it holds no run.json); give a folder like runs/digits/uniform/seed0/fold0"
            )
        if not (run.left(run.activations) and run.left(run.learning)):
            raise KitError(
                f"{folder}: was trained without probes; set training.probes={{every: 10}} (and runs: all there, "
                "for more than the first seed and fold) and train it anew under another name (--set name=...)"
            )
        labels[folder] = (run.record.policy, str(run.record.key))
    short = [short for short, _ in labels.values()]
    named = {(pair[0] if short.count(pair[0]) == 1 else pair[1]): folder for folder, pair in labels.items()}
    if len(named) == len(runs):
        return named
    return {str(folder): folder for folder in runs}  # of several experiments


def _need_same(what: str, names: Mapping[str, list[str]]) -> None:
    """Raise KitError where the names of layers or depth groups are not the same in all runs."""
    (first, expected), *others = names.items()
    for label, found in others:
        if found != expected:
            raise KitError(
                f"{label} has other {what} than {first} ({some(found, 5)} against {some(expected, 5)}): only runs "
                "of the same network are drawn side by side"
            )
