"""Probes: what happens inside a training. They look, and change not a bit of it.

Activations over time, learning by depth, and the butterfly (docs/probes.md). Off unless `training.probes` is set.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import get_total_norm

from kit.files import atomic
from kit.model.groups import DepthGroup, depth_groups
from kit.seeds import derive
from kit.training.config import ProbesConfig

LOWEST, HIGHEST, PER_OCTAVE = -14, 14, 64  # powers of two: the histogram's bins
N_BINS = (HIGHEST - LOWEST) * PER_OCTAVE
MOST_VALUES = 2**18  # of an output that are looked at
NEAR_ZERO = 1e-2  # of the root mean square of an output
DIRECTIONS = 2  # in which each group is perturbed


class Probes:
    """Samples a training every `config.every` updates, its first and its last update included.

    model  the raw model, whose initial weights are those it has now

    The results stay on the device until `save` or `state_dict`.
    """

    def __init__(self, config: ProbesConfig, model: nn.Module, total_steps: int, seed: int):
        self.config, self.model, self.total, self.seed = config, model, total_steps, seed
        self.groups = depth_groups(model, "stage")
        self.layers = probed_layers(model, self.groups)
        self._parameters = [list(group.parameters.values()) for group in self.groups]
        self._initial = [[value.detach().clone() for value in group] for group in self._parameters]
        self._before: list[list[torch.Tensor]] | None = None
        self._gradient: torch.Tensor | None = None
        self.steps: list[int] = []
        self.counts: list[torch.Tensor] = []  # int64 [layers, bins + 2] a sample
        self.moments: list[torch.Tensor] = []  # mean, spread, share near zero: float64 [layers, 3]
        self.learning: list[torch.Tensor] = []  # float64 [5, groups]
        self.butterfly: dict[int, torch.Tensor] = {}  # update → float64 [groups]
        self._moments = {round(share * total_steps) for share in config.butterfly}

    def due(self, step: int) -> bool:
        """Whether update number `step` is sampled."""
        return step % self.config.every == 0 or step == self.total - 1

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Around a forward pass of update `step`: takes the outputs of all layers."""
        if not self.due(step):
            yield
            return
        seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        handles = [
            module.register_forward_hook(_take(place, seen)) for place, module in enumerate(self.layers.values())
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self.counts.append(torch.stack([seen[place][0] for place in range(len(self.layers))]))
        self.moments.append(torch.stack([seen[place][1] for place in range(len(self.layers))]))

    @torch.no_grad()
    def before_update(self, step: int, scale: float = 1.0) -> None:
        """Right before the optimizer's step: keeps the weights, and the norms of the gradients over `scale`."""
        if not self.due(step):
            return
        self._before = [[value.detach().clone() for value in group] for group in self._parameters]
        gradients = [[value.grad for value in group if value.grad is not None] for group in self._parameters]
        self._gradient = _norms(gradients) / scale

    @torch.no_grad()
    def after_update(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Right after the optimizer's step."""
        if self._before is None:
            return
        now, start = _norms(self._parameters), _norms(self._initial)
        moved = _norms(_differences(self._parameters, self._before)) / _norms(self._before)
        away = _norms(_differences(self._parameters, self._initial)) / start
        # From the chord between the unit vectors: an arc cosine would lose small angles in rounding.
        units = [
            torch._foreach_sub(torch._foreach_mul(group, 1 / size), torch._foreach_mul(first, 1 / begun))
            for group, first, size, begun in zip(self._parameters, self._initial, now, start, strict=True)
        ]
        chord = _norms(units)
        rotation = torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1)))
        rates = torch.tensor(self._rates(optimizer), device=now.device) / now**2
        self.learning.append(torch.stack([moved, away, rotation, self._gradient, rates]))
        self.steps.append(step)
        self._before = self._gradient = None

    def _rates(self, optimizer: torch.optim.Optimizer) -> list[float]:
        """The rate of each group: the mean over its parameters where the policy cuts finer."""
        rate_of = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
        return [
            sum(rate_of[id(value)] * value.numel() for value in group) / sum(value.numel() for value in group)
            for group in self._parameters
        ]

    def butterfly_due(self, done: int) -> bool:
        """Whether the butterfly is measured after `done` updates."""
        return done in self._moments and done not in self.butterfly

    def measure_butterfly(self, done: int, inputs: torch.Tensor, multilabel: bool) -> None:
        """How far a change of the same relative size moves the output, by the group that is changed.

        inputs  normalised images, float [images, channels, side, side]

        The mean over images and directions of KL(p || q), p the output distribution as it is, q with each tensor w
        of the group moved by `relative` · ‖w‖ in a random direction; of several labels, the sum of each label's.
        """
        with _still(self.model), torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            plain = _log_probabilities(self.model(inputs).float(), multilabel)
            effects = []
            for place, group in enumerate(self._parameters):
                kept = [value.detach().clone() for value in group]
                effect = torch.zeros((), device=inputs.device)
                for direction in range(DIRECTIONS):
                    seed = derive("butterfly", self.seed, done, place, direction)
                    generator = torch.Generator().manual_seed(seed % 2**63)
                    for value in group:
                        noise = torch.randn(value.shape, generator=generator).to(value)
                        size = self.config.relative * value.norm() / noise.norm().clamp(min=1e-12)
                        value.add_(noise * size)
                    moved = _log_probabilities(self.model(inputs).float(), multilabel)
                    effect += (plain.exp() * (plain - moved)).sum(dim=(1, 2)).mean()
                    for value, before in zip(group, kept, strict=True):
                        value.copy_(before)
                effects.append(effect / DIRECTIONS)
            self.butterfly[done] = torch.stack(effects)

    def state_dict(self) -> dict[str, Any]:
        """What was sampled so far, for a checkpoint."""
        return {
            "steps": list(self.steps),
            "counts": list(self.counts),
            "moments": list(self.moments),
            "learning": list(self.learning),
            "butterfly": dict(self.butterfly),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("steps", "counts", "moments", "learning"):
            setattr(self, name, list(state[name]))
        self.butterfly = dict(state["butterfly"])

    def save(self, activations: Path, learning: Path) -> None:
        """Writes the two files of a run; what is in them: `kit.report.measured`."""
        moments = torch.stack(self.moments).cpu().numpy().astype(np.float32)
        edges = 2.0 ** (np.arange(N_BINS + 1) / PER_OCTAVE + LOWEST)
        _write(
            activations,
            steps=np.array(self.steps),
            layers=np.array(list(self.layers)),
            edges=edges.astype(np.float32),
            counts=torch.stack(self.counts).cpu().numpy().astype(np.uint32),
            mean=moments[:, :, 0],
            std=moments[:, :, 1],
            near_zero=moments[:, :, 2],
        )
        measured = torch.stack(self.learning).cpu().numpy().astype(np.float32)
        names = ("update", "distance", "rotation", "gradient", "rate")
        moved = [self.butterfly[done].cpu().numpy() for done in sorted(self.butterfly)]
        _write(
            learning,
            steps=np.array(self.steps),
            groups=np.array([group.name for group in self.groups]),
            n_params=np.array([group.n_params for group in self.groups]),
            **{name: measured[:, place] for place, name in enumerate(names)},
            butterfly_steps=np.array(sorted(self.butterfly), dtype=np.int64),
            butterfly=np.array(moved, dtype=np.float32).reshape(len(moved), len(self.groups)),
            relative=np.array(self.config.relative),
        )


def probed_layers(model: nn.Module, groups: Sequence[DepthGroup]) -> dict[str, nn.Module]:
    """By name, from the input on: the first convolution or linear layer, then the end of every stage.

    Stages are the modules that timm's feature_info names, without those of the stem; where a model has none, the
    modules that the depth groups are named after.
    """
    modules = dict(model.named_modules())
    first = next(name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear))
    stem = {id(value) for value in groups[0].parameters.values()}
    info = getattr(model, "feature_info", None) or []
    named = [each["module"] for each in info if isinstance(each, dict) and each.get("module") in modules]
    stages = [name for name in named if any(id(value) not in stem for value in modules[name].parameters())]
    if not stages:
        stages = named[1:] or [group.name for group in groups[1:-1] if group.name in modules]
    return {name: modules[name] for name in dict.fromkeys([first, *stages])}


def _take(place: int, seen: dict[int, tuple[torch.Tensor, torch.Tensor]]):
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        while isinstance(output, tuple | list):
            output = output[0]
        seen[place] = _looked_at(output.detach())

    return hook


@torch.no_grad()
def _looked_at(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts of magnitudes int64 [bins + 2] (below, the bins, above), and mean, spread, share near zero."""
    values = _evenly(output).float()
    magnitude = values.abs()
    place = ((magnitude.log2() - LOWEST) * PER_OCTAVE).floor()  # −inf for zero
    place = place.nan_to_num(N_BINS, N_BINS, -1).clamp(-1, N_BINS).long() + 1
    counts = torch.bincount(place, minlength=N_BINS + 2)
    near = (magnitude <= NEAR_ZERO * values.square().mean().sqrt()).float().mean()
    return counts, torch.stack([values.mean(), values.std(unbiased=False), near])


def _evenly(output: torch.Tensor) -> torch.Tensor:
    """At most 2**18 values, evenly spaced in memory; the step is odd and no multiple of 3 or 5, so that channels,
    which come in multiples of these, are met alike."""
    flat = output.permute(0, 2, 3, 1).reshape(-1) if output.ndim == 4 else output.reshape(-1)
    step = -(-flat.numel() // MOST_VALUES)
    if step > 1:
        while step % 2 == 0 or step % 3 == 0 or step % 5 == 0:
            step += 1
    return flat[::step]


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """The model predicts, its batch norms by the statistics of what it is given (running ones lag behind a young
    network); modes and buffers are put back."""
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _log_probabilities(logits: torch.Tensor, multilabel: bool) -> torch.Tensor:
    """float [images, classes, outcomes]: a distribution over the classes, or one of yes and no for each label."""
    if multilabel:
        return torch.stack([nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)], dim=2)
    return logits.log_softmax(dim=1).unsqueeze(2)


def _differences(groups, others) -> list[list[torch.Tensor]]:
    return [torch._foreach_sub(group, other) for group, other in zip(groups, others, strict=True)]


def _norms(groups: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Euclidean norms, float32 [groups], on the device; 0 of no tensors."""
    return torch.stack([get_total_norm(members).float() for members in groups])


def _write(path: Path, **arrays: np.ndarray) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
