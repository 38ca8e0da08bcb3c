"""Batches that are copied to the device while the one before is computed with."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, TypeVar

import torch

Batch = TypeVar("Batch")


def ahead(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """Yield batches (a tensor, or a tuple of tensors) on the device, in their order.

    To a GPU each is copied on a stream of its own, while the one before it is computed with; from pinned memory
    nothing waits for that. Elsewhere they are what `batches` yields.
    """
    return _copied(batches, device) if device.type == "cuda" else batches


def _copied(batches: Generator[Any, None, None], device: torch.device) -> Generator[Any, None, None]:
    stream = torch.cuda.Stream(device)
    with closing(batches):
        following = _begun(batches, device, stream)
        while following is not None:
            current = torch.cuda.current_stream(device)
            current.wait_stream(stream)  # before the next copy is begun, for which it would wait, too
            batch = following
            for tensor in _tensors(batch):
                tensor.record_stream(current)  # else its memory is given to the next copy while it is in use
            following = _begun(batches, device, stream)
            yield batch
            del batch


def _begun(batches: Iterator[Any], device: torch.device, stream: Any) -> Any:
    """Begin to copy the next batch; None where there is none."""
    batch = next(batches, None)
    if batch is None:
        return None
    with torch.cuda.stream(stream):
        if isinstance(batch, torch.Tensor):
            return batch.to(device, non_blocking=True)
        return tuple(tensor.to(device, non_blocking=True) for tensor in batch)


def _tensors(batch: Any) -> tuple[torch.Tensor, ...]:
    return (batch,) if isinstance(batch, torch.Tensor) else batch
