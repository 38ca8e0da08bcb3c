"""What a GPU would be waited for, found on the CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {"cpu", "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__"}  # methods of a tensor


class BlockingCopies(TorchDispatchMode):
    """Notes each copy to the meta device that a GPU would be waited for.

    The meta device has shapes and no values: what reads one there fails by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        devices = {each.device.type for each in tensors}
        copies = function.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_)
        waits = not (kwargs or {}).get("non_blocking", copies and len(args) > 2 and bool(args[2]))
        if copies and waits and "cpu" in devices and made.device.type == "meta":
            self.found.append(str(function))
        # An index on the CPU, or a mask there, is copied to the device first.
        if function.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_) and len(devices) > 1:
            self.found.append(str(function))
        return made


class MadeThere(TorchFunctionMode):
    """Notes tensors made of Python's numbers right on the meta device: a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta"
        if there and function in (torch.tensor, torch.as_tensor, torch.asarray):
            self.found.append(function.__name__)
        return function(*args, **kwargs)


class Reads(TorchFunctionMode):
    """Counts how often Python reads numbers out of tensors, each of which a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(function, "__name__", "")) in READS and hasattr(torch.Tensor, name):
            self.found.append(name)
        return function(*args, **(kwargs or {}))
