"""Pictures of probes: activations over time, learning by depth, the butterfly; several runs on the same scales."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kit.report.measured import Activations, Learning
from kit.report.rates import COLOURS, new_figure, save

BINS = 48
MEASURES = {
    "update": "relative update ‖Δw‖ / ‖w‖",
    "distance": "distance ‖w − w₀‖ / ‖w₀‖",
    "rotation": "rotation from w₀, degrees",
    "gradient": "gradient norm",
    "rate": "effective rate, rate / ‖w‖²",
}


def draw_activations(runs: Mapping[str, Activations], path: Path) -> None:
    """A column a run, a row a layer: magnitude over time, log counts; below, what went beyond the scale, and mean,
    spread and share near zero over time."""
    layers = next(iter(runs.values())).layers
    rows = len(layers) + 3
    figure = new_figure(3.4 * len(runs) + 1.2, 1.55 * rows + 0.8)
    panels = figure.subplots(rows, len(runs), squeeze=False, sharex="col")
    for row, layer in enumerate(layers):
        top = max(each.top(row) for each in runs.values())
        heats = {name: each.heat(row, top, BINS) for name, each in runs.items()}
        shares = {name: heat / heat.sum(axis=0) for name, heat in heats.items()}
        most = max(share[:-1].max() for share in shares.values())
        for column, (name, each) in enumerate(runs.items()):
            axes = panels[row, column]
            image = _heat(axes, each.steps, shares[name][:-1], top, most)
            beyond = shares[name][-1].max()
            axes.set_title(f"{name}\n{layer}" if row == 0 else layer, fontsize=9)
            axes.text(0.99, 0.96, f"beyond: at most {beyond:.1%}", transform=axes.transAxes, ha="right", va="top",
                      fontsize=6.5, color="white")  # fmt: skip
            if column == 0:
                axes.set_ylabel("magnitude", fontsize=8)
        figure.colorbar(image, ax=panels[row, :].tolist(), label="share of outputs", pad=0.01)
    for row, (what, title) in enumerate(
        {"mean": "mean", "std": "spread", "near_zero": "share near zero"}.items(), start=len(layers)
    ):
        limits = [getattr(each, what) for each in runs.values()]
        low, high = min(each.min() for each in limits), max(each.max() for each in limits)
        for column, each in enumerate(runs.values()):
            axes = panels[row, column]
            _by_depth(axes, each.steps, getattr(each, what), layers)
            axes.set_ylim(low - 0.05 * (high - low + 1e-12), high + 0.05 * (high - low + 1e-12))
            axes.set_title(title, fontsize=9)
    for column in range(len(runs)):
        panels[-1, column].set_xlabel("update")
    panels[len(layers), 0].legend(fontsize=6, ncols=2)
    save(figure, path)


def draw_learning(runs: Mapping[str, Learning], path: Path) -> None:
    """A column a run, a row a measure, a line a depth group; dark is the stem."""
    groups = next(iter(runs.values())).groups
    figure = new_figure(3.4 * len(runs) + 0.6, 2.1 * len(MEASURES))
    panels = figure.subplots(len(MEASURES), len(runs), squeeze=False, sharex="col", sharey="row")
    for row, (measure, title) in enumerate(MEASURES.items()):
        values = np.concatenate([getattr(each, measure) for each in runs.values()])
        positive = values[values > 0]
        for column, (name, each) in enumerate(runs.items()):
            axes = panels[row, column]
            _by_depth(axes, each.steps, getattr(each, measure), groups)
            if len(positive):
                axes.set_yscale("log")
                axes.set_ylim(max(positive.min(), positive.max() * 1e-8) / 2, positive.max() * 2)
            axes.set_title(f"{name}\n{title}" if row == 0 else title, fontsize=9)
    for column in range(len(runs)):
        panels[-1, column].set_xlabel("update")
    panels[0, 0].legend(fontsize=6, ncols=2, title="depth group", title_fontsize=6)
    save(figure, path)


def draw_butterfly(runs: Mapping[str, Learning], path: Path) -> None:
    """A panel a run: how far the output moves when each depth group is perturbed alike, a line a moment."""
    figure = new_figure(3.6 * len(runs) + 0.6, 3.6)
    panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for axes, (name, each) in zip(panels, runs.items(), strict=True):
        for place, (done, effect) in enumerate(zip(each.butterfly_steps, each.butterfly, strict=True)):
            axes.plot(effect, marker="os^Dv"[place % 5], color=COLOURS[place % len(COLOURS)],
                      label=f"after {done} updates")  # fmt: skip
        axes.set_yscale("log")
        axes.set_xticks(range(len(each.groups)), each.groups, rotation=40, ha="right", fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7)
    panels[0].set_ylabel(f"KL of the output, nats\n(weights moved by {each.relative:.0%})", fontsize=8)
    save(figure, path)


def _heat(axes, steps: np.ndarray, shares: np.ndarray, top: float, most: float):
    from matplotlib.colors import LogNorm

    edges = np.concatenate([steps, [steps[-1] + max(1, steps[-1] - steps[-2] if len(steps) > 1 else 1)]])
    image = axes.pcolormesh(
        edges,
        np.linspace(0, top, len(shares) + 1),
        np.maximum(shares, most * 1e-5),
        norm=LogNorm(most * 1e-5, most),
        cmap="viridis",
    )
    axes.set_facecolor("#440154")
    return image


def _by_depth(axes, steps: np.ndarray, values: np.ndarray, names) -> None:
    from matplotlib import colormaps

    for place, name in enumerate(names):
        colour = colormaps["viridis"](0.92 * place / max(1, len(names) - 1))
        shown = (
            np.where(values[:, place] > 0, values[:, place], np.nan) if (values >= 0).all() else values[:, place]
        )
        axes.plot(steps, shown, color=colour, linewidth=1.6, label=name)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
