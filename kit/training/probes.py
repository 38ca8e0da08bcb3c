"""Probes: what happens inside a training. They look, and change not a bit of it.

Activations over time, learning by depth, and the butterfly (docs/probes.md). Off unless `training.probes` is set.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import get_total_norm

from kit.core.errors import KitError
from kit.core.seeds import derive
from kit.model.groups import DepthGroup, depth_groups
from kit.model.modes import evaluating, forget_kept
from kit.training.config import ProbesConfig
from kit.training.records import Activations, Learning

LOWEST, HIGHEST, PER_OCTAVE = -14, 14, 64  # powers of two: the histogram's bins
N_BINS = (HIGHEST - LOWEST) * PER_OCTAVE
MOST_VALUES = 2**18  # of an output that are looked at
NEAR_ZERO = 1e-2  # of the root mean square of an output
DIRECTIONS = 2  # in which each depth group is perturbed
MEASURES = ("update", "distance", "rotation", "gradient", "rate")  # of learning, in the order they are stacked


class Probes:
    """Samples a training every `config.every` updates, its first and its last update included.

    The results stay on the device until `collect`, `state_dict` or `save`.

    Parameters
    ----------
    config : ProbesConfig
        The section `training.probes`.
    model : Module
        The raw model (not one wrapped for several processes), whose initial weights are those it has now.
    total_steps : int
        Updates of the training.
    seed : int
        Of the run; the butterfly's directions are drawn from it.
    """

    def __init__(self, config: ProbesConfig, model: nn.Module, total_steps: int, seed: int):
        self.config, self.model, self.total, self.seed = config, model, total_steps, seed
        self.groups = _stages_of(model)
        self.layers = probed_layers(model, self.groups)
        self._parameters: list[list[torch.Tensor]] = [list(group.parameters.values()) for group in self.groups]
        self._initial = [[value.detach().clone() for value in group] for group in self._parameters]
        self._start = _norms(self._initial)
        self._scratch = [[torch.empty_like(value) for value in group] for group in self._initial]
        self._before: tuple[torch.Tensor, torch.Tensor] | None = None  # norms of weights and gradients
        self.steps: list[int] = []
        self.counts: list[torch.Tensor] = []  # int32 [layers, bins + 2] a sample
        self.moments: list[torch.Tensor] = []  # mean, spread, share near zero: float32 [layers, 3]
        self.learning: list[torch.Tensor] = []  # float32 [5, groups]
        self.butterfly: dict[int, torch.Tensor] = {}  # updates made before it → float32 [groups]
        self._collected = 0  # samples that have left the device
        self._moments = {round(share * total_steps) for share in config.butterfly}

    def due(self, step: int) -> bool:
        """Say whether update number `step` is sampled."""
        return step % self.config.every == 0 or step == self.total - 1

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Take the outputs of all layers in a forward pass of update `step`, which is made within."""
        if not self.due(step):
            yield
            return
        seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        handles = [module.register_forward_hook(_take(name, seen)) for name, module in self.layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if not self.counts:  # a module that the network names but does not run has no outputs to show
            self.layers = {name: module for name, module in self.layers.items() if name in seen}
        self.counts.append(torch.stack([seen[name][0] for name in self.layers]))
        self.moments.append(torch.stack([seen[name][1] for name in self.layers]))

    @torch.no_grad()
    def before_update(self, scale: float | torch.Tensor = 1.0) -> None:
        """Keep weights and the norms of gradients, right before the optimizer's step of an update that is due.

        Parameters
        ----------
        scale : float or Tensor
            What the gradients are still multiplied by (fp16); a tensor of one number, on the device.
        """
        for kept, group in zip(self._scratch, self._parameters, strict=True):
            torch._foreach_copy_(kept, group)
        gradients = [[value.grad for value in group if value.grad is not None] for group in self._parameters]
        self._before = _norms(self._parameters), _norms(gradients) / scale

    @torch.no_grad()
    def after_update(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Measure how the weights moved, right after the optimizer's step."""
        if self._before is None:
            return
        (before, gradient), now, start = self._before, _norms(self._parameters), self._start
        for kept, group in zip(self._scratch, self._parameters, strict=True):
            torch._foreach_sub_(kept, group)
        moved = _norms(self._scratch)
        for kept, group, first in zip(self._scratch, self._parameters, self._initial, strict=True):
            torch._foreach_copy_(kept, group)
            torch._foreach_sub_(kept, first)
        away = _norms(self._scratch)
        # ‖w/‖w‖ − w₀/‖w₀‖‖, the chord of the angle: an arc cosine would lose small angles in rounding.
        chord = ((away**2 - (now - start) ** 2).clamp(min=0) / (now * start)).sqrt()
        rotation = torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1)))
        rates = torch.tensor(self._rates(optimizer)).to(now.device, non_blocking=True) / before**2
        self.learning.append(torch.stack([moved / before, away / start, rotation, gradient, rates]))
        self.steps.append(step)
        self._before = None

    def leave_out(self, step: int) -> None:
        """Forget what was seen of an update that was left out."""
        if self.due(step):
            self.counts.pop()
            self.moments.pop()

    def _rates(self, optimizer: torch.optim.Optimizer) -> list[float]:
        """Return the rate of each depth group: the mean over its parameters where the policy cuts finer."""
        rate_of = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
        return [
            sum(rate_of[id(value)] * value.numel() for value in group) / sum(value.numel() for value in group)
            for group in self._parameters
        ]

    def butterfly_due(self, done: int) -> bool:
        """Say whether the butterfly is measured after `done` updates."""
        return done in self._moments and done not in self.butterfly

    def measure_butterfly(self, done: int, inputs: torch.Tensor, multilabel: bool) -> None:
        """Measure how far a change of the same relative size moves the output, by the depth group that is changed.

        Kept is the mean over images and directions of KL(p || q), p the output distribution as it is, q with each
        tensor w of the group moved by `relative` · ‖w‖ in a random direction; of several labels, the sum of each
        label's.

        Parameters
        ----------
        done : int
            Updates made before.
        inputs : Tensor
            Normalised images, float [images, channels, side, side].
        multilabel : bool
            Whether an image may have several labels.
        """
        with _still(self.model), torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            plain = _log_probabilities(self.model(inputs), multilabel)
            effects = []
            for place, group in enumerate(self._parameters):
                kept = [value.detach().clone() for value in group]
                effect = torch.zeros((), dtype=torch.float64)
                for direction in range(DIRECTIONS):
                    seed = derive("butterfly", self.seed, done, place, direction)
                    generator = torch.Generator().manual_seed(seed % 2**63)
                    for value in group:
                        noise = torch.randn(value.shape, generator=generator).to(value)
                        size = self.config.relative * value.norm() / noise.norm().clamp(min=1e-12)
                        value.add_(noise * size)
                    forget_kept(self.model)
                    moved = _log_probabilities(self.model(inputs), multilabel)
                    effect += (plain.exp() * (plain - moved)).sum(dim=(1, 2)).mean()
                    for value, before in zip(group, kept, strict=True):
                        value.copy_(before)
                effects.append(effect / DIRECTIONS)
            self.butterfly[done] = torch.stack(effects).float()

    def collect(self) -> None:
        """Take what was sampled from the device to memory: where the loop waits for the device anyway."""
        for samples in (self.counts, self.moments, self.learning):
            for place in range(self._collected, len(samples)):
                samples[place] = samples[place].cpu()
        self._collected = len(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return what was sampled so far, for a checkpoint."""
        self.collect()
        samples = {"counts": self.counts, "moments": self.moments, "learning": self.learning}
        stacked = {name: torch.stack(values) if values else torch.empty(0) for name, values in samples.items()}
        butterfly = {done: effects.cpu() for done, effects in self.butterfly.items()}
        return {"steps": list(self.steps), "layers": list(self.layers), **stacked, "butterfly": butterfly}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from a checkpoint; from one without samples (probes are new to the run) from here on."""
        if not state:
            return
        self.steps, self._collected = list(state["steps"]), len(state["steps"])
        self.layers = {name: self.layers[name] for name in state["layers"]}
        self.counts, self.moments, self.learning = (
            list(state[name].cpu().unbind()) for name in ("counts", "moments", "learning")
        )
        self.butterfly = {done: effects.cpu() for done, effects in state["butterfly"].items()}

    def save(self, activations: Path, learning: Path) -> None:
        """Write the two files of a run; what is in them: `kit.training.records`."""
        if not self.steps:  # probes were turned on when all updates had been made
            return
        self.collect()
        self._activations().save(activations)
        self._learning().save(learning)

    def _activations(self) -> Activations:
        moments = torch.stack(self.moments).numpy()
        edges = 2.0 ** (np.arange(N_BINS + 1) / PER_OCTAVE + LOWEST)
        return Activations(
            steps=np.array(self.steps),
            layers=list(self.layers),
            edges=edges.astype(np.float32),
            counts=torch.stack(self.counts).numpy().astype(np.uint32),
            mean=moments[:, :, 0],
            std=moments[:, :, 1],
            near_zero=moments[:, :, 2],
        )

    def _learning(self) -> Learning:
        measured = torch.stack(self.learning).numpy()
        moved = [self.butterfly[done].numpy() for done in sorted(self.butterfly)]
        return Learning(
            steps=np.array(self.steps),
            groups=[group.name for group in self.groups],
            n_params=np.array([group.n_params for group in self.groups]),
            **{name: measured[:, place] for place, name in enumerate(MEASURES)},
            butterfly_steps=np.array(sorted(self.butterfly), dtype=np.int64),
            butterfly=np.array(moved, dtype=np.float32).reshape(len(moved), len(self.groups)),
            relative=self.config.relative,
        )


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that probes of a model look at."""
    return probed_layers(model, _stages_of(model))


def probed_layers(model: nn.Module, groups: Sequence[DepthGroup]) -> dict[str, nn.Module]:
    """Return the layers that are looked at: the first convolution or linear layer, then the end of every stage.

    Stages are the modules that timm's feature_info names, without those of the stem; where a model has none, the
    last modules of the depth `groups` between stem and head.

    Returns
    -------
    dict of str to Module
        By name, from the input on.
    """
    modules = dict(model.named_modules())
    first = next(name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear))
    stem = {id(value) for value in groups[0].parameters.values()}
    info = getattr(model, "feature_info", None) or []
    named = [each["module"] for each in info if isinstance(each, dict) and each.get("module") in modules]
    beyond = _beyond(modules, stem)
    stages = [name for name in named if name in beyond] or [_last_module(group, modules) for group in groups[1:-1]]
    names = [first, *(_that_runs(name, modules) for name in stages)]
    return {name: modules[name] for name in dict.fromkeys(names)}


def _beyond(modules: dict[str, nn.Module], stem: set[int]) -> set[str]:
    """Name the modules that hold more than parameters of the stem, and those without any that follow them."""
    names, last = set(), False
    for name, module in modules.items():
        held = [id(value) not in stem for value in module.parameters()]
        if any(held) or (not held and last):
            names.add(name)
        if own := [id(value) not in stem for value in module.parameters(recurse=False)]:
            last = own[-1]
    return names


def _last_module(group: DepthGroup, modules: dict[str, nn.Module]) -> str:
    """Return the name of the largest module that ends with the group's last parameter and holds none of another's.

    The group's namesake is taken where it holds most of the group's parameters (a final norm may follow it).
    """
    mine = {id(value) for value in group.parameters.values()}
    if namesake := modules.get(group.name):
        held = sum(value.numel() for value in namesake.parameters() if id(value) in mine)
        if held > group.n_params / 2:
            return group.name
    name = list(group.parameters)[-1].rpartition(".")[0]
    while (parent := name.rpartition(".")[0]) and all(id(value) in mine for value in modules[parent].parameters()):
        name = parent
    return name


def _that_runs(name: str, modules: dict[str, nn.Module]) -> str:
    """Return the name of a module that is called: a list of modules never is, but its last one."""
    while isinstance(module := modules[name], nn.ModuleList) and len(module):
        name = f"{name}.{len(module) - 1}"
    return name


def _stages_of(model: nn.Module) -> list[DepthGroup]:
    """Return a depth group a stage, whatever the policy's own are; a block each, where timm knows no stages."""
    try:
        return depth_groups(model, "stage")
    except KitError:
        return depth_groups(model, "block")


def _take(name: str, seen: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Callable[[nn.Module, Any, Any], None]:
    """Return a forward hook that puts what is looked at of an output into `seen`."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        while isinstance(output, tuple | list):
            output = output[0]
        seen[name] = _looked_at(output.detach())

    return hook


@torch.no_grad()
def _looked_at(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return counts of magnitudes int32 [bins + 2] (below, the bins, above), and mean, spread, share near zero.

    Not a number counts as above. float32, also under autocast.
    """
    values = _evenly(output).float()
    magnitude = values.abs()
    place = ((magnitude.log2() - LOWEST) * PER_OCTAVE).floor()  # −inf for zero
    place = place.nan_to_num(N_BINS, N_BINS, -1).clamp(-1, N_BINS).long() + 1
    counts = torch.zeros(N_BINS + 2, dtype=torch.int32, device=place.device)
    counts.scatter_add_(0, place, torch.ones_like(place, dtype=torch.int32))  # bincount would wait
    near = (magnitude <= NEAR_ZERO * values.square().mean().sqrt()).float().mean()
    return counts, torch.stack([values.mean(), values.std(unbiased=False), near])


def _evenly(output: torch.Tensor) -> torch.Tensor:
    """Return at most 2**18 values, evenly spaced in memory, whichever axis runs fastest there.

    The step shares no factor with the number of values, and so with no axis: channels are met alike, and so are
    rows, columns and images.
    """
    last = output.ndim == 4 and not output.is_contiguous()  # channels_last: that view copies nothing
    flat = (output.permute(0, 2, 3, 1) if last else output).reshape(-1)
    step = -(-flat.numel() // MOST_VALUES)
    while math.gcd(step, flat.numel()) > 1:
        step += 1
    return flat[::step]


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Let the model predict within, and put its modes and buffers back.

    Batch norms use the statistics of what they are given, as running ones lag behind a young network.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with evaluating(model):
        for norm in norms:
            norm.training = True
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _log_probabilities(logits: torch.Tensor, multilabel: bool) -> torch.Tensor:
    """Return float64 [images, classes, outcomes]: a distribution over classes, or of yes and no for each label.

    In double precision, on the CPU: the divergence of two that are close is a small difference of large terms.
    """
    logits = logits.cpu().double()
    if multilabel:
        return torch.stack([nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)], dim=2)
    return logits.log_softmax(dim=1).unsqueeze(2)


def _norms(groups: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """Return Euclidean norms, float32 [groups], on the device; 0 of no tensors, as of a frozen group."""
    device = next((member.device for members in groups for member in members), None)
    none = torch.zeros((), device=device)  # torch's would be on the CPU
    return torch.stack([get_total_norm(members).float() if members else none for members in groups])
