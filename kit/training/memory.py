"""Running out of memory, which the user mends: on a GPU or off it, whoever of torch's parts says so."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kit.core.errors import KitError

TRAIN_WITH_LESS = "halve training.batch_size and double training.accumulate"
END_OTHERS = "end what else uses it"

_OF_THE_DEVICE = (
    "out of memory",  # CUDA, HIP, XPU and MPS; NCCL's errors quote CUDA's
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",  # of optimizers that decompose matrices
)
_OF_THE_MACHINE = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "Cannot allocate memory",  # errno 12: pinned and shared memory
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory has run out, the device's or the machine's.

    torch has a class for it, but cuBLAS, cuDNN, Metal, CUDA where it tells later, and the CPU's allocator raise
    RuntimeErrors that only their text tells apart.
    """
    return _whose(error) is not None


@contextmanager
def advising_on_memory(advice: str, kind: type[KitError] = KitError) -> Iterator[None]:
    """Turn running out of memory within into a `kind` of KitError that ends with `advice`; other errors pass."""
    try:
        yield
    except Exception as error:
        if (whose := _whose(error)) is None:
            raise
        raise kind(f"{whose} memory is too small; {advice}") from error


def lacks_memory_of(device: torch.device, error: BaseException) -> bool:
    """Tell whether what ran out is the memory that a network's activations take on this device."""
    return _whose(error) == "the GPU's" or (
        device.type == "cpu" and any(phrase in str(error) for phrase in _OF_THE_MACHINE[:2])
    )


def _whose(error: BaseException) -> str | None:
    """Whose memory has run out; None where the error is of another kind, or told already."""
    if isinstance(error, torch.OutOfMemoryError):
        return "the GPU's"
    if isinstance(error, MemoryError):  # numpy's, too
        return "this machine's"
    if isinstance(error, RuntimeError | OSError):
        text = str(error)
        if any(phrase in text for phrase in _OF_THE_MACHINE):
            return "this machine's"
        if any(phrase in text for phrase in _OF_THE_DEVICE):
            return "the GPU's"
    return None
