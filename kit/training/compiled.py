"""Compiling what a model computes while it learns (training.compile), block by block."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn

from kit.core import stopping
from kit.core.errors import KitError
from kit.training.config import TrainingConfig
from kit.training.probes import layers_of

BACKEND = "inductor"
_codes: dict[tuple[type[nn.Module], str, bool, bool], Callable[..., Any]] = {}
MOST = 1024  # graphs of one class of blocks: each kind, with each set of its parameters frozen; torch's 8 are few


class Compiled:
    """A model whose learning passes run as compiled code.

    Compiled is each of the blocks that the network repeats (the same code serves all that are alike), or the whole
    model where it repeats none, or with `graphs`. Modules, their names and their state stay as they are, and so do
    copies of the model. What predicts, and what is computed without gradients, runs as it does without: a
    prediction depends on the weights alone, and needs no compiler.

    Shapes are constants of the code, so that its bits do not depend on which were seen before. Random numbers are
    drawn as without: from torch's generators, which the loop seeds before each update; CUDA graphs take the seed
    from the device's memory as they are replayed.

    Parameters
    ----------
    model : Module
    graphs : bool
        Whether the whole model runs as CUDA graphs, which launch all its kernels at once; without a GPU it is
        compiled as a whole.

    Attributes
    ----------
    blocks : list of Module
        That are compiled.
    """

    def __init__(self, model: nn.Module, graphs: bool = False):
        for name, most in (("cache_size_limit", MOST), ("accumulated_cache_size_limit", 8 * MOST)):
            setattr(torch._dynamo.config, name, max(most, getattr(torch._dynamo.config, name)))
        self.blocks = [model] if graphs else repeated_blocks(model) or [model]
        for block in self.blocks:
            block.forward = MethodType(_in_graphs if graphs else _compiled, block)
        self._graphs, self._on_gpu = graphs, any(value.is_cuda for value in model.parameters())
        self._before = self._told = _count()
        # It tells of a CUDA toolkit without a GPU; that there is none is seen elsewhere.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

    def notice(self) -> str:
        """Say that compiling comes first, where this process has compiled nothing yet; else ""."""
        if self._before:
            return ""
        line = "training.compile: the model is compiled in its first update; that may take minutes"
        return f"{line}; without a GPU there are no CUDA graphs" if self._graphs and not self._on_gpu else line

    def news(self, done: int) -> str:
        """Say how many graphs were compiled since this was last asked, after `done` updates; "" for none."""
        if (count := _count()) == self._told:
            return ""
        new, self._told = count - self._told, count
        graphs = "graph" if new == 1 else "graphs"
        return f"training.compile: {new} {graphs} compiled by update {done} ({count - self._before} in all)"


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that a network repeats, like the residual blocks of a ResNet or the layers of a ViT.

    They are the members of its lists and sequences that consist of three parts or more, and whose class occurs
    there more than once; of those within each other the innermost.
    """
    members = [
        member
        for module in model.modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
        for member in module
        if not isinstance(member, nn.Sequential | nn.ModuleList) and _has_parts(member)
    ]
    times = Counter(type(member) for member in members)
    found = {id(member): member for member in members if times[type(member)] > 1}
    outer = {
        key
        for key, member in found.items()
        if any(id(part) in found for part in member.modules() if part is not member)
    }
    return [member for key, member in found.items() if key not in outer]


def _has_parts(module: nn.Module) -> bool:
    return sum(1 for part in module.modules() if any(True for _ in part.parameters(recurse=False))) > 2


def need_compilable(model: nn.Module, training: TrainingConfig, processes: int) -> None:
    """Check, before any training, that the learning passes of a model can be compiled here.

    Raises
    ------
    KitError
        Without a compiler for this device, where probes would look at what lies within compiled code, and for
        graphs where several processes train together.
    """
    if training.compile == "graphs" and processes > 1:
        raise KitError(
            "training.compile: graphs is for one process; take compile: true where several train together"
        )
    _need_compiler(on_gpu=training.device == "auto" and torch.cuda.is_available())
    blocks = repeated_blocks(model) or [model]
    inner = {id(part) for block in blocks for part in block.modules() if part is not block}
    if training.probes and any(id(layer) in inner for layer in layers_of(model).values()):
        raise KitError(
            f"training.compile: {type(model).__name__} repeats no blocks that probes could look between; leave "
            "compile or probes out"
        )


def _need_compiler(on_gpu: bool) -> None:
    """Raise KitError where torch cannot compile for this device."""
    try:
        torch.compile(_compiled)
    except RuntimeError as error:  # for a Python, or a system, that it does not know
        raise KitError(f"training.compile: {error}; leave compile out") from error
    if on_gpu:
        from torch.utils._triton import has_triton

        if not has_triton():
            raise KitError(
                "training.compile: compiling for this GPU needs Triton, and a GPU of compute capability 7.0 or "
                "above; leave compile out"
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # of several kinds, by system and version
        raise KitError(
            "training.compile: compiling for a CPU needs a C++ compiler, and there is none; install g++ (or name "
            "one in the variable CXX), or leave compile out"
        ) from error


@contextmanager
def telling_what_fails(compiled: Compiled | None) -> Iterator[None]:
    """Turn errors of the compiler within into a line; without a compiled model they pass."""
    try:
        yield
    except Exception as error:
        if compiled is None or not isinstance(error, _errors_of_compiler()):
            raise
        # A signal to the whole process group, as a terminal sends it, ends the C++ compiler.
        stopping.need_go_on("while the model was compiled; the same command goes on")
        reason = _reason(str(error)) or type(error).__name__
        raise KitError(f"training.compile: the model cannot be compiled ({reason}); leave compile out") from error


def _reason(text: str) -> str:
    """Return in a line what a compiler said: the first error, of a C++ compiler without its command."""
    _, command, said = text.partition("Output:")
    if command and not said.strip():
        return "the C++ compiler ended without a word; it may have been killed, as when memory runs out"
    lines = [line for line in said.splitlines() if "error" in line.lower()]
    return " ".join((lines[0] if lines else said or text).split())[:200]


def _errors_of_compiler() -> tuple[type[Exception], ...]:
    from torch._inductor import exc

    of_inductor = (getattr(exc, name) for name in ("InductorError", "CppCompileError") if hasattr(exc, name))
    return (torch._dynamo.exc.TorchDynamoException, *of_inductor)


def _count() -> int:
    """How many graphs this process has compiled."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _compiled(block: nn.Module, *arguments: Any, **named: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return type(block).forward(block, *arguments, **named)
    return _code_of(type(block), BACKEND)(block, *arguments, **named)


def _in_graphs(block: nn.Module, *arguments: Any, **named: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return type(block).forward(block, *arguments, **named)
    torch.compiler.cudagraph_mark_step_begin()  # nothing is left of the update before
    return _code_of(type(block), BACKEND, graphs=True)(block, *arguments, **named)


def _code_of(kind: type[nn.Module], backend: str, graphs: bool = False) -> Callable[..., Any]:
    """Return the compiled `forward` of a class: of one function, so that blocks that are alike share it.

    Where the same bits are wanted, nothing that changes them is chosen by what is faster now, like the padding of
    matrices.
    """
    same_bits = torch.are_deterministic_algorithms_enabled()
    if (key := (kind, backend, graphs, same_bits)) not in _codes:
        options: dict[str, Any] = {"triton.cudagraphs": graphs, "fallback_random": True}
        options |= {"deterministic": True} if same_bits else {}
        of_backend = options if backend == "inductor" else None
        _codes[key] = torch.compile(kind.forward, backend=backend, dynamic=False, options=of_backend)
    return _codes[key]
