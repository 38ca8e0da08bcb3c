"""What is computed from the activations that probes measured, to be drawn."""

import numpy as np

from kit.training.records import Activations


def top_magnitude(activations: Activations, layer: int, share: float = 0.999) -> float:
    """Return the magnitude below which this share of all values of a layer lies, over all samples."""
    total = activations.counts[:, layer].sum(axis=0, dtype=np.int64)
    place = int(np.searchsorted(np.cumsum(total), share * total.sum()))
    return float(activations.edges[min(place, len(activations.edges) - 1)])


def heat_map(activations: Activations, layer: int, top: float, bins: int = 40) -> np.ndarray:
    """Return the counts of a layer's magnitudes on a linear axis.

    A logarithmic bin that spans several linear ones is shared out in proportion.

    Parameters
    ----------
    activations : Activations
        What a run recorded.
    layer : int
        Which layer, from 0.
    top : float
        Where the axis ends, which begins at 0.
    bins : int
        Of the axis.

    Returns
    -------
    ndarray
        float [bins + 1, samples]: the bins from 0 to `top`, then all beyond.
    """
    linear = np.linspace(0, top, bins + 1)
    lower = np.concatenate([[0.0], activations.edges])
    upper = np.concatenate([activations.edges, [np.inf]])
    finite = np.where(np.isfinite(upper), upper, lower + 1)
    width = finite - lower
    overlap = np.minimum(finite[:, None], linear[1:]) - np.maximum(lower[:, None], linear[:-1])
    inside = np.clip(overlap, 0, None) / width[:, None]
    inside[-1] = 0  # beyond the last edge: wherever that is, it is beyond every axis made from the data
    beyond = (1 - inside.sum(axis=1)).clip(min=0)
    counts = activations.counts[:, layer].T.astype(np.float64)
    return np.concatenate([inside, beyond[:, None]], axis=1).T @ counts
