"""The weights that count where they are not those of the last step: an optimizer's average, and norms for it.

A schedule-free optimizer (Defazio et al., arXiv 2405.15682) learns at weights y and is scored at an average x; its
`eval()` puts x into the model, `train()` y. Running statistics of batch norms are of y, so that those of x are
estimated anew on training batches; of a moving average of weights they can be, too.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import nn

from kit.model.modes import evaluating
from kit.training.norm_sync import together

BATCHES = 50  # on which norms are estimated for an optimizer that averages, as its authors advise


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether an optimizer has an average of the weights, which `eval()` puts in and `train()` takes out."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


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
    """

    def __init__(
        self,
        learning: nn.Module,
        counting: nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        count: int | None,
        batches: Callable[[int], Iterable[torch.Tensor]],
    ):
        self.learning, self.counting, self.optimizer, self.accelerator = learning, counting, optimizer, accelerator
        self.averages = averages(optimizer)
        self.count = (BATCHES if self.averages else 0) if count is None else count
        self.batches = batches

    def begin(self) -> None:
        """Let the model learn: called before the first update, and after a checkpoint is taken up."""
        if self.averages:
            self.optimizer.train()  # type: ignore[attr-defined] # `averages` asked for it

    def settle(self) -> None:
        """Bring the model into the state that counts, for good."""
        if self.averages:
            self.optimizer.eval()  # type: ignore[attr-defined] # `averages` asked for it
        if self.count:
            self._estimate_norms()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Bring the model into that state within, and back to the very bits that it learns with."""
        if not (self.averages or self.count):
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

    def _estimate_norms(self) -> None:
        """Give batch norms that learn the mean of the statistics of some training batches."""
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
            for inputs in self.batches(self.count):
                self.counting(inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
