"""Running out of memory: every way in which torch says so, and no other error."""

import numpy as np
import pytest
import torch
from support.refusals import refusal_of

from kit.core.errors import KitError
from kit.training.memory import advising_on_memory, out_of_memory

GPU, MACHINE = "the GPU's", "this machine's"


def made_by(call) -> Exception:
    with pytest.raises(Exception) as caught:  # whatever the library raises
        call()
    return caught.value


WAYS = [  # the texts as torch 2.10 to 2.14 has them
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has"),
        GPU,
    ),
    (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), GPU),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), GPU),
    (
        torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
        GPU,
    ),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GPU),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), GPU),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), GPU),
    (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), MACHINE),
    (RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"), GPU),
    (RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB, other allocations: 1.00 GB)"), GPU),
    (made_by(lambda: torch.empty(2**47)), MACHINE),
    (made_by(lambda: np.empty(2**50)), MACHINE),
    (MemoryError(), MACHINE),
    (OSError(12, "Cannot allocate memory"), MACHINE),
]
OTHERS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."),
    OSError(28, "No space left on device"),
    ValueError("out of memory"),
    KitError("uniform seed 0 fold 0: the GPU's memory is too small; halve training.batch_size"),
]


@pytest.mark.parametrize(("error", "whose"), WAYS)
def test_it_is_told_with_whose_it_is_and_what_to_do(error, whose):
    def run():
        with advising_on_memory("buy more"):
            raise error

    assert out_of_memory(error)
    assert refusal_of(run) == f"{whose} memory is too small; buy more"


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_pass(error):
    assert not out_of_memory(error)
    with pytest.raises(type(error)) as caught, advising_on_memory("buy more"):
        raise error
    assert caught.value is error


@pytest.mark.gpu
def test_a_gpu_that_is_too_small():
    def run():
        with advising_on_memory("buy more"):
            torch.empty(2**43, device="cuda")

    assert refusal_of(run) == f"{GPU} memory is too small; buy more"
