"""The state from which a killed run goes on, bit for bit."""

from pathlib import Path
from typing import Any

import torch

from kit.core.files import atomic


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts; the file appears whole or not at all."""
    with atomic(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the saved state, or None where there is none; nothing in the file is executed."""
    return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None
