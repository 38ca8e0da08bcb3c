"""Pictures of rates: a policy's over depth and time, and a range test's losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit.core.plotting import COLOURS, MARKERS, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


Matrices = Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]]


def draw_policies(matrices: Matrices, path: Path) -> None:
    """Draw `policies_figure` into a file: .png, .pdf or .svg."""
    save(policies_figure(matrices), path)


def policies_figure(matrices: Matrices) -> "Figure":
    """Return a picture of the rates of each policy by depth group over the updates, as lines and as a heat map.

    There is a row a policy. All rows share the scale of the rates. In the heat map grey is a rate of 0, hatching
    is frozen.

    Parameters
    ----------
    matrices : mapping of str to tuple
        Policy → lr [steps, depth groups], frozen [steps, depth groups], the depth groups' names.
    """
    lowest, highest = zip(*(rate_limits(lr) for lr, _, _ in matrices.values()), strict=True)
    floor, top = max(min(lowest), max(highest) * 1e-10), max(highest)
    figure = new_figure(11, 0.6 + 3.4 * len(matrices))
    panels = figure.subplots(len(matrices), 2, width_ratios=[1.1, 1], squeeze=False)
    for (policy, (lr, frozen, names)), (lines, heat) in zip(matrices.items(), panels, strict=True):
        draw_lines(lines, lr, names, frozen)
        lines.set_ylim(floor / 2, top * 2)
        lines.set_title(policy)
        lines.set_ylabel("learning rate")
        image = _draw_heat(heat, lr, frozen, names, floor, top)
        figure.colorbar(image, ax=heat, label="learning rate")
    return figure


def draw_lines(axes: "Axes", lr: np.ndarray, names: Sequence[str], frozen: np.ndarray | None = None) -> None:
    """Draw the rate of each depth group over the updates, on a log scale; dark is the stem, light the head.

    Where a depth group is frozen, but for norms that learn at its rate, its line is thin and dotted.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    lr : ndarray
        float [steps, depth groups].
    names : sequence of str
        The depth groups' names.
    frozen : ndarray or None
        bool [steps, depth groups]; None where nothing is frozen.
    """
    from matplotlib import colormaps

    labelled = range(len(names)) if len(names) <= 6 else np.linspace(0, len(names) - 1, 6).round().astype(int)
    for depth in reversed(range(len(names))):  # the head first, so that it is the first line of the legend
        along = depth / max(1, len(names) - 1)
        # Equal rates lie on each other: the deeper a group, the thicker its line, so all can be seen.
        colour = colormaps["viridis"](0.9 * along)
        learning = lr[:, depth] > 0
        if frozen is not None:
            still = learning & frozen[:, depth]
            learning &= ~frozen[:, depth]
            if still.any():
                axes.plot(np.where(still, lr[:, depth], np.nan), color=colour, linewidth=1.2, linestyle=":")
        axes.plot(
            np.where(learning, lr[:, depth], np.nan),
            color=colour,
            linewidth=1.2 + 3.0 * along,
            label=str(names[depth]) if depth in labelled else None,
        )
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, title="depth group", title_fontsize=7)


def _draw_heat(
    axes: "Axes", lr: np.ndarray, frozen: np.ndarray, names: Sequence[str], floor: float, top: float
) -> "AxesImage":
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    colours = colormaps["viridis"].with_extremes(bad="#dddddd")
    extent = (0, len(lr), -0.5, len(names) - 0.5)
    image = axes.imshow(
        np.ma.masked_less_equal(lr.T, 0),
        norm=LogNorm(floor, top if top > floor else floor * 10),
        cmap=colours,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=extent,
    )
    for depth in np.flatnonzero(frozen.any(axis=0)):
        axes.broken_barh(_runs(frozen[:, depth]), (depth - 0.5, 1), facecolor="none", hatch="////", linewidth=0)
    shown = range(len(names)) if len(names) <= 20 else range(0, len(names), -(-len(names) // 20))
    axes.set_yticks(list(shown), [str(names[depth]) for depth in shown], fontsize=7)
    axes.set_xlabel("update")
    axes.set_title("hatched, dotted: frozen; grey: rate 0" if frozen.any() or (lr == 0).any() else "", fontsize=10)
    return image


def _runs(on: np.ndarray) -> list[tuple[int, int]]:
    """Return where each run of True begins, and how long it is."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    return [(int(begin), int(end - begin)) for begin, end in edges.reshape(-1, 2)]


def draw_range_test(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    marks: Mapping[str, Mapping[str, float]],
    title: str,
    path: Path,
) -> None:
    """Draw the smoothed loss over the swept rate, a line a curve, with the suggested rates on it.

    Parameters
    ----------
    curves : mapping of str to tuple
        Curve → rates [steps], smoothed losses [steps].
    marks : mapping of str to mapping
        Curve → suggestion → rate.
    title : str
        The picture's title.
    path : Path
        The picture: .png, .pdf or .svg.
    """
    from matplotlib import colormaps

    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    for number, (name, (rates, losses)) in enumerate(curves.items()):
        along = number / max(1, len(curves) - 1)
        colour = colormaps["viridis"](0.9 * along) if len(curves) > 1 else "#444444"
        axes.plot(rates, losses, color=colour, label=name if len(curves) > 1 else None)
        for place, (suggestion, rate) in enumerate(marks.get(name, {}).items()):
            height = np.interp(np.log(rate), np.log(rates), losses)
            alone = len(curves) == 1
            axes.plot(
                rate,
                height,
                linestyle="none",
                marker=MARKERS[place % len(MARKERS)],
                color=COLOURS[place % len(COLOURS)] if alone else colour,
                markersize=8,
                label=f"{suggestion} {rate:.2g}" if alone else None,
            )
    everything = np.concatenate([losses for _, losses in curves.values()])
    start = np.median([losses[0] for _, losses in curves.values()])
    axes.set_ylim(everything.min() * 0.95, max(min(1.5 * start, everything.max() * 1.05), everything.min() * 1.1))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    save(figure, path)


def rate_limits(lr: np.ndarray) -> tuple[float, float]:
    """Return the lowest rate above 0 and the highest; 1e-12 and 1 where all are 0."""
    return (float(lr[lr > 0].min()), float(lr.max())) if (lr > 0).any() else (1e-12, 1.0)
