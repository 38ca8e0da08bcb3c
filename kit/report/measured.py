"""What probes measured in a run, as arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Activations:
    """The outputs of some layers at some updates, as activations.npz holds them.

    Of an output at most 2^18 values are looked at, evenly spaced.

    Attributes
    ----------
    steps : ndarray
        int [samples], the number of the update, from 0.
    layers : list of str
        Names, from the input on.
    edges : ndarray
        float [bins + 1], the magnitudes between the bins; each is 2^(1/64) of the one before.
    counts : ndarray
        uint32 [samples, layers, bins + 2]: how many values have a magnitude below the first edge (zero among
        them), in each bin, and above the last edge.
    mean, std : ndarray
        float [samples, layers], of the values.
    near_zero : ndarray
        float [samples, layers], the share of magnitudes within 1 % of the root mean square.
    """

    steps: np.ndarray
    layers: list[str]
    edges: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    near_zero: np.ndarray

    def top(self, layer: int, share: float = 0.999) -> float:
        """Return the magnitude below which this share of all values of a layer lies, over all samples."""
        total = self.counts[:, layer].sum(axis=0, dtype=np.int64)
        place = int(np.searchsorted(np.cumsum(total), share * total.sum()))
        return float(self.edges[min(place, len(self.edges) - 1)])

    def heat(self, layer: int, top: float, bins: int = 40) -> np.ndarray:
        """Return the counts of a layer on a linear axis.

        A logarithmic bin that spans several linear ones is shared out in proportion.

        Parameters
        ----------
        layer : int
            The layer's place in `layers`.
        top : float
            The magnitude at which the axis ends; it begins at 0.
        bins : int
            How many bins the axis has.

        Returns
        -------
        ndarray
            float [bins + 1, samples]; the last row is of all values beyond `top`.
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
    """How each depth group moved at some updates, as learning.npz holds it.

    Below, w is all parameters of a depth group as one vector, and w₀ their initial values. What is divided by the
    norm of weights that are all 0 is not finite; so are gradients that overflowed fp16.

    Attributes
    ----------
    steps : ndarray
        int [samples], the number of the update, from 0.
    groups : list of str
        Names of the depth groups, stem first; each is a stage of the network.
    n_params : ndarray
        int [groups], the number of parameters.
    update : ndarray
        float [samples, groups], ‖Δw‖ / ‖w‖ of the sampled update, w before it.
    distance : ndarray
        float [samples, groups], ‖w − w₀‖ / ‖w₀‖ after it.
    rotation : ndarray
        float [samples, groups], degrees between w and w₀ (layer rotation [1]_).
    gradient : ndarray
        float [samples, groups], the norm of the gradient as the optimizer sees it.
    rate : ndarray
        float [samples, groups], the effective rate [2]_, rate / ‖w‖², w before the update; where the policy has
        several rates within the depth group, their mean over its parameters.
    butterfly_steps : ndarray
        int [moments], how many updates were made before each moment.
    butterfly : ndarray
        float [moments, groups], KL divergence of the output, in nats, when each tensor of the depth group is moved
        by `relative` of its norm.
    relative : float
        The size of that perturbation.

    References
    ----------
    .. [1] Carbonnelle & De Vleeschouwer 2019, Layer rotation.
    .. [2] van Laarhoven 2017, L2 regularization versus batch and weight normalization.
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
