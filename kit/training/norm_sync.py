"""Batch norms over the batches of all processes that train together, as one process would see them."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from kit.core.errors import KitError, some

_within: list[None] = []  # an entry a context in which all processes compute the same


@contextmanager
def together() -> Iterator[None]:
    """Let norms that `synchronise` changed wait for the other processes; elsewhere they see their own batch.

    What one process computes alone, like a probe, would wait for ever.
    """
    _within.append(None)
    try:
        yield
    finally:
        _within.pop()


def synchronise(model: nn.Module) -> None:
    """Let the batch norms of a model that learn take their statistics over all processes, `together`.

    Modules, names and state stay as they are; norms in `eval` mode, like frozen ones, compute as before.

    Raises
    ------
    KitError
        Where a layer takes statistics of a batch in a way of its own.
    """
    need_usual_norms(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign] # of this one alone


def need_usual_norms(model: nn.Module) -> None:
    """Raise KitError where a layer takes statistics of a batch in a way of its own, which cannot be shared."""
    others = {type(module).__name__ for module in model.modules() if _is_unusual(module)}
    if others:
        raise KitError(
            f"training.sync_batch_norm: {some(sorted(others))} of the model takes statistics of a batch in a way "
            "of its own, which processes cannot share; leave sync_batch_norm out, or take a model with usual norms"
        )


def _is_unusual(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return type(module).forward not in (_BatchNorm.forward, BatchNormAct2d.forward)
    learns = "weight" in module._parameters  # of a frozen one it is a buffer
    return "running_var" in module._buffers and learns and not isinstance(module, _InstanceNorm)


def _forward(norm: _BatchNorm, inputs: torch.Tensor) -> torch.Tensor:
    """What a batch norm gives, its statistics over all processes where it learns from them."""
    if not (_within and norm.training):
        return type(norm).forward(norm, inputs)
    norm._check_input_dim(inputs)
    outputs, mean, variance, count = _OverProcesses.apply(inputs, norm.weight, norm.bias, norm.eps)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
    return norm.act(norm.drop(outputs)) if isinstance(norm, BatchNormAct2d) else outputs


class _OverProcesses(torch.autograd.Function):
    """Normalises by mean and variance over the batches of all processes.

    Each process's gradient is that of the sum of all processes' losses, of weight and bias its share of it, which
    DistributedDataParallel averages: as torch's SyncBatchNorm, which computes on GPUs alone.
    """

    @staticmethod
    def forward(
        context: Any, inputs: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        values, over = _exact(inputs), _but_channels(inputs)
        variance, mean = torch.var_mean(values, dim=over, correction=0)
        count = torch.full_like(mean[:1], values.numel() / values.shape[1])
        mine = torch.cat([mean, variance, count])
        each = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(each, mine)
        means, variances, counts = torch.stack(each).split([len(mean), len(mean), 1], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = torch.rsqrt(variance + eps)
        context.save_for_backward(inputs, weight, mean, scale, count)
        context.mark_non_differentiable(mean, variance, count)
        outputs = (values - _wide(mean, inputs)) * _wide(scale, inputs)
        if weight is not None:
            outputs = outputs * _wide(weight, inputs)
        if bias is not None:
            outputs = outputs + _wide(bias, inputs)
        return outputs.to(inputs.dtype), mean, variance, count

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight, mean, scale, count = context.saved_tensors
        over = _but_channels(inputs)
        by_outputs = _exact(gradients[0])
        normal = (_exact(inputs) - _wide(mean, inputs)) * _wide(scale, inputs)
        by_bias, by_weight = by_outputs.sum(over), (by_outputs * normal).sum(over)
        by_inputs = None
        if context.needs_input_grad[0]:
            sums = torch.cat([by_bias, by_weight])
            dist.all_reduce(sums)
            of_bias, of_weight = (sums / count).chunk(2)
            by_inputs = by_outputs - _wide(of_bias, inputs) - normal * _wide(of_weight, inputs)
            by_inputs = by_inputs * _wide(scale if weight is None else scale * weight, inputs)
            by_inputs = by_inputs.to(inputs.dtype)
        needed = context.needs_input_grad
        return (
            by_inputs,
            by_weight.to(weight.dtype) if needed[1] else None,
            by_bias.to(weight.dtype) if needed[2] else None,
            None,
        )


def _exact(values: torch.Tensor) -> torch.Tensor:
    """Half precision is summed in float32, as torch's norms do."""
    return values if values.dtype == torch.float64 else values.float()


def _but_channels(values: torch.Tensor) -> list[int]:
    return [dimension for dimension in range(values.ndim) if dimension != 1]


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A value a channel, to be applied to inputs [batch, channels, ...]."""
    return values.reshape(1, -1, *[1] * (like.ndim - 2))
