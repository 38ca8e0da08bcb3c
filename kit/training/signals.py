"""What controllers are fed: norms of weights, gradients and updates, and tails of spectra, a depth group each."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn.utils import get_total_norm

from kit.lr.controllers import ControllerBase
from kit.model.groups import DepthGroup
from kit.training.tails import TailMeter


class SignalMeter:
    """Measures the signals that a controller declares (their meaning: `kit.lr.controllers`), and no others.

    It waits for the device once an update, or, where `tail` is the only signal, once a measurement of that;
    `direction` keeps a copy of the weights.

    Parameters
    ----------
    names : sequence of str
        The signals: weight, gradient, direction, decay, tail.
    groups : sequence of DepthGroup
        Stem first; on their device.
    weight_decay : float
        The optimizer's, which is the signal `decay`.
    tails : TailMeter, optional
        What measures `tail`, where that is among the signals.
    """

    def __init__(
        self,
        names: Sequence[str],
        groups: Sequence[DepthGroup],
        weight_decay: float,
        tails: TailMeter | None = None,
    ):
        self.names, self.weight_decay, self._tails = tuple(names), weight_decay, tails
        self._parameters = [list(group.parameters.values()) for group in groups]
        self._before: list[list[torch.Tensor]] = []
        device = self._parameters[0][0].device
        self._direction = torch.full((len(groups),), torch.nan, device=device)  # of the last update that moved

    @classmethod
    def of(
        cls,
        controller: ControllerBase,
        model: nn.Module,
        groups: Sequence[DepthGroup],
        weight_decay: float,
        steps_per_epoch: int,
    ) -> Self:
        """Return what measures the signals of this controller, over depth groups of this model.

        Raises
        ------
        KitError
            Where the model does not have what the controller wants measured.
        """
        period = controller.tail_every * steps_per_epoch
        tails = TailMeter(model, groups, period) if "tail" in controller.signals else None
        return cls(controller.signals, groups, weight_decay, tails)

    @torch.no_grad()
    def measure(self, step: int) -> dict[str, np.ndarray]:
        """Return the signals of update number `step`, float64 [groups] each.

        The gradients have to be there, unscaled.
        """
        measured = {}
        if "weight" in self.names:
            measured["weight"] = self._norms(self._parameters)
        if "gradient" in self.names:
            measured["gradient"] = self._norms(
                [[value.grad for value in group if value.grad is not None] for group in self._parameters]
            )
        if "direction" in self.names:
            measured["direction"] = self._direction
            self._before = [[value.detach().clone() for value in group] for group in self._parameters]
        signals = {}
        if measured:
            numbers = torch.stack(list(measured.values())).cpu().double().numpy()
            signals = dict(zip(measured, numbers, strict=True))
        if "decay" in self.names:
            signals["decay"] = np.full(len(self._parameters), self.weight_decay)
        if self._tails:
            signals["tail"] = self._tails.at(step)
        return signals

    @torch.no_grad()
    def after_update(self, rates: np.ndarray) -> None:
        """Measure how far the optimizer's step moved the weights, right after it used these `rates` [groups]."""
        if "direction" in self.names:
            moved = self._norms(
                [
                    [after - before for after, before in zip(group, olds, strict=True)]
                    for group, olds in zip(self._parameters, self._before, strict=True)
                ]
            )
            per_rate = moved / torch.from_numpy(rates).to(moved.device, torch.float32, non_blocking=True)
            # An update that fp16's scaler skipped, or one at a rate of 0, says nothing.
            self._direction = torch.where((moved > 0) & per_rate.isfinite(), per_rate, self._direction)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next measurement needs of the past, for a checkpoint."""
        return {"direction": self._direction} | ({"tail": self._tails.state_dict()} if self._tails else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._direction = state["direction"].to(self._direction.device)
        if self._tails:
            self._tails.load_state_dict(state["tail"])

    def _norms(self, groups: Sequence[Sequence[torch.Tensor | nn.Parameter]]) -> torch.Tensor:
        """Return Euclidean norms, float32 [groups], on the device; 0 of a group without members."""
        none = torch.zeros((), device=self._direction.device)  # torch's would be on the CPU
        return torch.stack([get_total_norm(members).float() if members else none for members in groups])
