"""How heavy the tail of the spectrum of each layer's weights is: Hill's estimate, a depth group each."""

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import torch
from torch import nn

from kit.core.errors import KitError
from kit.model.groups import DepthGroup

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
FEWEST = 50  # eigenvalues: with fewer an estimate says little, and a layer is left out, as in the authors' code


class TailMeter:
    """Measures the signal `tail`: Hill's estimate, the mean over the layers of each depth group.

    Layers are linear ones and convolutions of 50 eigenvalues or more. The first and the last of the network are
    left out. Parts of a depth group that a policy tells apart by kind have one estimate together. It waits for the
    device when it measures, and only then.

    Parameters
    ----------
    model : Module
        On its device.
    groups : sequence of DepthGroup
        Of this model, stem first.
    period : float
        Updates from one measurement to the next.

    Attributes
    ----------
    last : ndarray or None
        What was measured last, float64 [groups]; NaN where a group has no such layer, or none whose tail says
        anything. None before the first measurement.

    Raises
    ------
    KitError
        Where fewer than two depth groups have such a layer: there would be nothing to compare.

    References
    ----------
    Zhou et al., arXiv 2312.00359, and tempbalance.py in github.com/YefanZhou/TempBalance, where each layer stands
    for itself.
    """

    def __init__(self, model: nn.Module, groups: Sequence[DepthGroup], period: float):
        self.period = period
        self.last: np.ndarray | None = None
        names = list(dict.fromkeys(group.name for group in groups))
        self._depths = [names.index(group.name) for group in groups]  # parts told apart by kind are of one depth
        depth_of = {
            id(value): depth
            for depth, group in zip(self._depths, groups, strict=True)
            for value in group.parameters.values()
        }
        layers = {id(module.weight) for module in model.modules() if isinstance(module, LAYERS)}
        found = [(depth_of[id(value)], value) for value in model.parameters() if id(value) in layers]
        found.sort(key=itemgetter(0))
        self._layers = [(depth, value) for depth, value in found[1:-1] if _n_eigenvalues(value) >= FEWEST]
        if len({depth for depth, _ in self._layers}) < 2:
            raise KitError(
                f"controller: compares spectra, but of the {len(names)} depth groups fewer than two have a "
                f"linear or convolutional layer of {FEWEST} eigenvalues or more (the network's first and last do "
                "not count); choose smaller groups, another controller or another model"
            )

    def at(self, step: int) -> np.ndarray:
        """Return the signal at update number `step`, float64 [groups]: measured now, or what still holds."""
        if self.last is None or self._begins_a_period(step):
            self.last = self.measure()
        return self.last

    @torch.no_grad()
    def measure(self) -> np.ndarray:
        """Return the signal of the weights as they are, float64 [groups]."""
        tails = torch.stack([hill(spectrum(value)) for _, value in self._layers]).cpu().double().numpy()
        depths, there = np.array([depth for depth, _ in self._layers]), np.isfinite(tails)
        count = max(self._depths) + 1
        sums, counts = np.bincount(depths[there], tails[there], count), np.bincount(depths[there], minlength=count)
        means = np.divide(sums, counts, out=np.full(count, np.nan), where=counts > 0)
        return means[self._depths]

    def state_dict(self) -> list[float] | None:
        """Return what was measured last, for a checkpoint."""
        return None if self.last is None else self.last.tolist()

    def load_state_dict(self, state: list[float] | None) -> None:
        """Go on from a checkpoint."""
        self.last = None if state is None else np.array(state)

    def _begins_a_period(self, step: int) -> bool:
        periods = [math.floor(number / self.period + 1e-9) for number in (step - 1, step)]
        return periods[0] < periods[1]


def spectrum(weight: torch.Tensor) -> torch.Tensor:
    """Return the eigenvalues of WᵀW, in units of the largest squared weight, float32 [n], ascending.

    A convolution is one matrix for each place of its kernel, from channels to channels, and its eigenvalues are
    those of all of them. Of each matrix there are as many as its smaller side is long; what is below the rounding
    error of the largest counts as that. All are NaN where a weight is not finite, or none differs from 0.

    Parameters
    ----------
    weight : Tensor
        Of a linear layer [out, in] or a convolution [out, in, ...].
    """
    if weight.device.type == "mps":  # has no eigenvalues
        weight = weight.cpu()
    matrices = weight.detach().float().flatten(2).permute(2, 0, 1) if weight.ndim > 2 else weight.detach().float()
    largest = matrices.abs().amax()
    sound = largest.isfinite() & (largest > 0)
    matrices = torch.where(sound, matrices / largest, 0)  # of nan LAPACK makes an error
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mT
    values = torch.linalg.eigvalsh(matrices @ matrices.mT)
    values = torch.maximum(values, values[..., -1:] * torch.finfo(values.dtype).eps)
    return torch.where(sound, values.flatten().sort().values, torch.nan)


def hill(values: torch.Tensor) -> torch.Tensor:
    """Return Hill's estimate of the exponent α of a density that falls as λ^-α, from the larger half of values.

    α = 1 + k / Σ_{i=1..k} ln(λ_i / λ_{k+1}), with λ_1 the largest of n values and k = ⌊n/2⌋. A small α is a heavy
    tail.

    Parameters
    ----------
    values : Tensor
        [n], ascending.

    References
    ----------
    Hill, Annals of Statistics 3, 1975; PL_Alpha_Hill of Zhou et al., arXiv 2312.00359. Their code takes λ_k for
    the threshold, and still divides k by the sum.
    """
    k = len(values) // 2
    logs = values[-k - 1 :].log()
    return 1 + k / (logs[1:] - logs[0]).sum()


def _n_eigenvalues(weight: torch.Tensor) -> int:
    return math.prod(weight.shape[2:]) * min(weight.shape[:2])
