"""The weights that count where they are not those of the last step: an optimizer's average, and norms for it.

A schedule-free optimizer (Defazio et al., arXiv 2405.15682) learns at weights y and is scored at an average x; its
`eval()` puts x into the model, `train()` y. Running statistics of batch norms are of y, so that those of x are
estimated anew on training batches; so it is for a mean of weights (Izmailov et al., arXiv 1803.05407), and of a
moving average they can be, too.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from kit.model.modes import evaluating
from kit.training.config import AverageConfig, TrainingConfig
from kit.training.norm_sync import together

BATCHES = 50  # on which norms are estimated for an optimizer that averages, as its authors advise


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether an optimizer has an average of the weights, which `eval()` puts in and `train()` takes out."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


class LastWeights:
    """The plain mean of the weights after each of the last updates of a training.

    Stochastic weight averaging (Izmailov et al., arXiv 1803.05407) as torch.optim.swa_utils does it, after each
    update instead of each epoch.

    Parameters
    ----------
    model : Module
        What is trained.
    first : int
        The first update whose weights count.

    Attributes
    ----------
    averaged : AveragedModel
        With `module`, the mean, and `n_averaged`, over how many updates: on the CPU, wherever the model is.
    """

    def __init__(self, model: nn.Module, first: int):
        self.averaged, self._mean_with = AveragedModel(model), get_swa_multi_avg_fn()
        self.first = first

    @classmethod
    def of(cls, config: AverageConfig, model: nn.Module, total: int) -> "LastWeights":
        """Return that over a share of `total` updates, of one at least."""
        return cls(model, total - max(1, round(config.last * total)))

    @property
    def module(self) -> nn.Module:
        """The model with the mean of the weights, and with the buffers of the last update."""
        return self.averaged.module

    @property
    def begun(self) -> bool:
        """Whether an update is in the mean."""
        return bool(self.averaged.n_averaged > 0)

    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update number `step`."""
        if step >= self.first:
            self._take(model)

    def follow(self, model: nn.Module) -> None:
        """Before the first update that counts: take the weights as they are."""
        self._take(model)  # the first is copied
        self.averaged.n_averaged.zero_()

    @torch.no_grad()
    def _take(self, model: nn.Module) -> None:
        """What `AveragedModel.update_parameters` does, which waits for the device to read the number there."""
        before, mean = self.averaged.n_averaged, [value.data for value in self.module.parameters()]
        now = [value.data for value in model.parameters()]
        if before > 0:
            self._mean_with(mean, now, before)
        else:
            torch._foreach_copy_(mean, now)
        for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
        before += 1


def build_average(config: TrainingConfig, model: nn.Module, total: int) -> ModelEmaV3 | LastWeights | None:
    """Return what averages the weights of a training of `total` updates; None: nothing does."""
    if config.ema:
        return ModelEmaV3(model, decay=config.ema, use_warmup=True)
    return LastWeights.of(config.average, model, total) if config.average else None


class Settling:
    """Brings a model into the state in which it is scored and saved, for a while or for good.

    Parameters
    ----------
    learning : Module
        What is trained.
    counting : Module
        What is scored and saved: the same, or the moving average of its weights.
    optimizer : Optimizer
        The bare one.
    accelerator : Accelerator
        Says the precision of the forward passes.
    count : int or None
        Batches on which norms are estimated; None: 50 where the optimizer averages, else none.
    batches : callable
        Takes a number and gives so many batches of network inputs, the same each time.
    last : LastWeights, optional
        Whose module `counting` is.
    """

    def __init__(
        self,
        learning: nn.Module,
        counting: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        count: int | None,
        batches: Callable[[int], Iterable[torch.Tensor]],
        last: LastWeights | None = None,
    ):
        self.learning, self.counting, self.optimizer, self.accelerator = learning, counting, optimizer, accelerator
        self.averages = averages(optimizer)
        self.count = (BATCHES if self.averages or last else 0) if count is None else count
        self.batches, self.last = batches, last

    def begin(self) -> None:
        """Let the model learn: called before the first update, and after a checkpoint is taken up."""
        if self.averages:
            self.optimizer.train()  # type: ignore[attr-defined] # `averages` asked for it

    def settle(self) -> None:
        """Bring the model into the state that counts, for good."""
        if self.averages:
            self.optimizer.eval()  # type: ignore[attr-defined] # `averages` asked for it
        if self.last and not self.last.begun:  # norms are of these weights
            self.last.follow(self.learning)
        elif self.count:
            self.estimate_norms(self.count)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Bring the model into that state within, and back to the very bits that it learns with."""
        if not (self.averages or self.count or self.last):
            yield
            return
        tensors = [*self.counting.parameters(), *self.counting.buffers()]
        kept = [tensor.detach().clone() for tensor in tensors]
        self.settle()
        try:
            yield
        finally:
            self.begin()
            with torch.no_grad():  # the way back would round
                for tensor, before in zip(tensors, kept, strict=True):
                    tensor.copy_(before)

    def estimate_norms(self, count: int = BATCHES) -> None:
        """Give batch norms that learn the mean of the statistics of `count` training batches."""
        learning = dict(self.learning.named_modules())
        norms = [
            module
            for name, module in self.counting.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
            if learning[name].training  # one that is frozen keeps its statistics
        ]
        if not norms:
            return
        momenta = [norm.momentum for norm in norms]
        with evaluating(self.counting), torch.no_grad(), self.accelerator.autocast(), together():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain mean
                norm.train()
            for inputs in self.batches(count):
                self.counting(inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
