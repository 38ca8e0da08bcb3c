"""The trained weights of a run, weights.safetensors: written, checked and read."""

from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from kit.core.errors import Damaged
from kit.core.files import atomic
from kit.core.runs import TRAINED_ANEW, RunDir


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights and buffers of a model."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        temporary.write_bytes(save(tensors))  # save_file makes a temporary file of its own, which a kill leaves


def load_weights(run: RunDir, model: nn.Module) -> None:
    """Let a model take the weights of a finished run.

    Raises
    ------
    Damaged
        Where the file is not what the run wrote, or of another model.
    """
    path = run.checked(run.weights)
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # safetensors raises its own kinds, torch RuntimeError for other names or shapes
        reason = " ".join(str(error).split())[:200]
        raise Damaged(f"{path} is damaged or of another model ({reason}); {TRAINED_ANEW}") from error
