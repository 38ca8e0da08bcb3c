"""Where and in which precision training runs: accelerate's Accelerator from the config."""

import gc
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list

from kit.core.errors import KitError
from kit.training.allocator import give_back_freed_memory, keep_freed_memory
from kit.training.config import TrainingConfig
from kit.training.numerics import rounds_to_tf32, set_numerics

Value = TypeVar("Value")
DRIVER = Path("/proc/driver/nvidia/version")
PROCESSOR = Path("/proc/cpuinfo")


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """Return a fresh Accelerator for one run: its count of accumulated batches starts at 0."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with this
    state = process_state(config)
    AcceleratorState._reset_state()  # else the precision of an earlier run in this process would stay
    cpu = config.device == "cpu" or bool(state._cpu)
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(precision := resolve_precision(config.precision, cpu), precision),
        cpu=cpu,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.accumulate, adjust_scheduler=False, sync_with_dataloader=False
        ),
    )
    set_numerics(accelerator.device.type == "cuda", config.deterministic)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def process_state(config: TrainingConfig) -> PartialState:
    """Return which process of how many this is, and on which device.

    It is made anew where an earlier experiment in this process ran on another kind of device. Processes that
    torchrun started train together, on the CPU where there is no GPU.

    Raises
    ------
    KitError
        Where more processes were started on this machine than it has GPUs.
    """
    wanted = config.device == "cpu"
    started = int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1  # by torchrun
    if not wanted:
        _need_a_gpu_each(int(os.environ.get("LOCAL_WORLD_SIZE", started)))
    state = _state(wanted)
    if state.num_processes == 1 and (wanted != bool(state._cpu) or started > 1):
        AcceleratorState._reset_state(reset_partial_state=True)
        state = _state(wanted or started > 1)  # without a GPU, accelerate lets each of several believe it is alone
    return state


def agreed(value: Value) -> Value:
    """Return the value that the first of the processes which train together gives, in each of them.

    What decides what they do together and may change at any time, like the state of a folder, is read by one.
    """
    said = [value]
    broadcast_object_list(said)
    return said[0]


def _state(cpu: bool) -> PartialState:
    return PartialState(cpu=cpu, timeout=timedelta(hours=12))  # the others wait while the first decodes all images


def _need_a_gpu_each(processes: int) -> None:
    """KitError where several processes would share a GPU, which their communication (NCCL) refuses."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise KitError(
            f"torchrun: {processes} processes on this machine, but GPUs for {gpus}; use --nproc_per_node {gpus}, "
            "or --set training.device=cpu"
        )


def resolve_precision(setting: str, cpu: bool = False) -> str:
    """Return the precision that a setting means on this machine.

    Parameters
    ----------
    setting : str
        fp32, fp16, bf16, or auto: bf16 where the GPU computes in it, fp16 on older ones, fp32 on a CPU.
    cpu : bool
        Whether the CPU computes, even where there is a GPU.

    Returns
    -------
    str
        fp32, fp16 or bf16.

    Raises
    ------
    KitError
        For fp16 without a GPU, and for bf16 on one that does not compute in it: torch would emulate it, slowly.
    """
    on_gpu = torch.cuda.is_available() and not cpu
    if setting == "fp16" and not on_gpu:
        raise KitError("training.precision: fp16 needs a GPU; bf16 and fp32 run on a CPU")
    if setting == "fp32" or not on_gpu:
        return "fp32" if setting == "auto" else setting
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    if setting == "bf16" and not native:
        raise KitError(
            f"training.precision: {torch.cuda.get_device_name()} does not compute in bf16, torch would emulate "
            "it, slowly; take fp16 or auto"
        )
    return ("bf16" if native else "fp16") if setting == "auto" else setting


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return what run.json says of the device beside its type: of two with the same facts, results are alike.

    Parameters
    ----------
    device : device

    Returns
    -------
    dict of str to object
        `device_name`: that of the GPU, or of the processor; `driver`: the version of NVIDIA's driver, "" where it
        is not told or the CPU computes; `threads`: those that torch computes with on the CPU; `tf32`, of a GPU:
        whether fp32 may be rounded to it.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "device_name": name,
        "driver": _driver() if device.type == "cuda" else "",
        "threads": torch.get_num_threads(),
        **({"tf32": rounds_to_tf32()} if device.type == "cuda" else {}),
    }


def processor_name() -> str:
    """Return the processor's name as the system tells it; its architecture where it tells none."""
    try:
        told = PROCESSOR.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        told = ""
    named = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)  # not on ARM
    return " ".join(named[1].split()) if named else platform.processor() or platform.machine()


def _driver() -> str:
    try:
        told = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:  # Windows, some containers
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", told)
    return found[1] if found else ""


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Compute on the CPU with so many threads of torch within, which change bits; None leaves them as they are."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)


def free_memory() -> None:
    """Give back what nothing uses: accelerate ties models into cycles, and memory is kept once it was freed."""
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def seed_device(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout and drop path draw from.

    Not torch.manual_seed: where CUDA is built in but absent, that formats a traceback at every call.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
