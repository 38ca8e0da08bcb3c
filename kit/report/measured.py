"""What probes measured in a run, as arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Activations:
    """activations.npz: outputs of some layers at some updates.

    steps      int [samples], the number of the update, from 0
    layers     names, from the input on
    edges      float [bins + 1], magnitudes between the bins; each is 2^(1/64) of the one before
    counts     [samples, layers, bins + 2]: of values whose magnitude lies below the first edge (zero among them),
               in each bin, above the last edge
    mean, std, near_zero  [samples, layers]: of the values; share of magnitudes within 1 % of the root mean square

    Of an output at most 2^18 values are looked at, evenly spaced.
    """

    steps: np.ndarray
    layers: list[str]
    edges: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    near_zero: np.ndarray

    def top(self, layer: int, share: float = 0.999) -> float:
        """The magnitude below which this share of all values of a layer lies, over all samples."""
        total = self.counts[:, layer].sum(axis=0, dtype=np.int64)
        place = int(np.searchsorted(np.cumsum(total), share * total.sum()))
        return float(self.edges[min(place, len(self.edges) - 1)])

    def heat(self, layer: int, top: float, bins: int = 40) -> np.ndarray:
        """Counts on a linear axis, float [bins + 1, samples]: `bins` from 0 to `top`, then all beyond.

        A logarithmic bin that spans several linear ones is shared out in proportion.
        """
        linear = np.linspace(0, top, bins + 1)
        lower = np.concatenate([[0.0], self.edges])
        upper = np.concatenate([self.edges, [np.inf]])
        finite = np.where(np.isfinite(upper), upper, lower + 1)
        width = finite - lower
        overlap = np.minimum(finite[:, None], linear[1:]) - np.maximum(lower[:, None], linear[:-1])
        inside = np.clip(overlap, 0, None) / width[:, None]
        inside[-1] = 0  # beyond the last edge: wherever that is, it is beyond every axis made from the data
        beyond = (1 - inside.sum(axis=1)).clip(min=0)
        return np.concatenate([inside, beyond[:, None]], axis=1).T @ self.counts[:, layer].T.astype(np.float64)


@dataclass(frozen=True)
class Learning:
    """learning.npz: how each depth group (a stage each) moved; w is all of its parameters, as one vector.

    What is divided by the norm of weights that are all 0 is not finite; so are gradients that overflowed fp16.

    steps     int [samples], the number of the update, from 0
    groups    names, stem first;  n_params  parameters of each
    update    ‖Δw‖ / ‖w‖ of the sampled update, w before it, float [samples, groups]
    distance  ‖w − w₀‖ / ‖w₀‖ after it, w₀ the initial weights
    rotation  degrees between w and w₀ (layer rotation: Carbonnelle & De Vleeschouwer 2019)
    gradient  norm of the gradient as the optimizer sees it
    rate      effective rate, rate / ‖w‖², w before the update (van Laarhoven 2017); where the policy has several
              rates within the group, their mean over its parameters
    butterfly_steps  int [moments], updates made before each; butterfly [moments, groups]: KL of the output, in
              nats, when each tensor of the group is moved by `relative` of its norm
    """

    steps: np.ndarray
    groups: list[str]
    n_params: np.ndarray
    update: np.ndarray
    distance: np.ndarray
    rotation: np.ndarray
    gradient: np.ndarray
    rate: np.ndarray
    butterfly_steps: np.ndarray
    butterfly: np.ndarray
    relative: float


def read_activations(path: Path) -> Activations:
    with np.load(path) as saved:
        arrays = dict(saved)
    return Activations(**arrays | {"layers": [str(name) for name in arrays["layers"]]})


def read_learning(path: Path) -> Learning:
    with np.load(path) as saved:
        arrays = dict(saved)
    changes = {"groups": [str(name) for name in arrays["groups"]], "relative": float(arrays["relative"])}
    return Learning(**arrays | changes)
