"""What controllers are fed: norms of weights, gradients and updates, a depth group each."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.utils import get_total_norm

from kit.model.groups import DepthGroup


class SignalMeter:
    """Measures the signals that a controller declares (their meaning: `kit.lr.controllers`), and no others.

    Waits for the device once an update. `direction` keeps a copy of the weights.
    """

    def __init__(self, names: Sequence[str], groups: Sequence[DepthGroup], weight_decay: float):
        self.names, self.weight_decay = tuple(names), weight_decay
        self._parameters = [list(group.parameters.values()) for group in groups]
        self._before: list[list[torch.Tensor]] = []
        self._moved = self._norms([[value.new_zeros(1)] for (value, *_) in self._parameters]) * torch.nan
        self._rates = np.ones(len(groups))

    @torch.no_grad()
    def measure(self) -> dict[str, np.ndarray]:
        """The signals of this update, float64 [groups] each; the gradients have to be there, unscaled."""
        measured = {}
        if "weight" in self.names:
            measured["weight"] = self._norms(self._parameters)
        if "gradient" in self.names:
            measured["gradient"] = self._norms(
                [[value.grad for value in group if value.grad is not None] for group in self._parameters]
            )
        if "direction" in self.names:
            measured["direction"] = self._moved
            self._before = [[value.detach().clone() for value in group] for group in self._parameters]
        numbers = torch.stack(list(measured.values())).cpu().double().numpy()
        signals = dict(zip(measured, numbers, strict=True))
        if "direction" in self.names:
            with np.errstate(divide="ignore", invalid="ignore"):
                signals["direction"] = signals["direction"] / self._rates
        if "decay" in self.names:
            signals["decay"] = np.full(len(self._parameters), self.weight_decay)
        return signals

    @torch.no_grad()
    def note_update(self, rates: np.ndarray) -> None:
        """To be called after the optimizer's step, which used these `rates` [groups]."""
        if "direction" in self.names:
            self._moved = self._norms(
                [
                    [after - before for after, before in zip(group, olds, strict=True)]
                    for group, olds in zip(self._parameters, self._before, strict=True)
                ]
            )
            self._rates = rates.copy()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"moved": self._moved, "rates": torch.from_numpy(self._rates)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._moved, self._rates = state["moved"], state["rates"].cpu().numpy()

    @staticmethod
    def _norms(groups: Sequence[Sequence[torch.Tensor | nn.Parameter]]) -> torch.Tensor:
        """Euclidean norms, float32 [groups], on the device."""
        return torch.stack([get_total_norm(members).float() for members in groups])
