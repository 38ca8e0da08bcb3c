"""A competition kit for image classification under F1, built around learning-rate policies.

from kit import load_experiment, run

result = run(load_experiment("configs/digits.yaml", ["training.epochs=3"]))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.core.errors import KitError
    from kit.experiment.config import load_experiment
    from kit.experiment.grade import grade
    from kit.experiment.options import RunOptions
    from kit.experiment.run import run

__all__ = ["KitError", "RunOptions", "grade", "load_experiment", "run"]

_WHERE = {
    "KitError": "kit.core.errors",
    "RunOptions": "kit.experiment.options",
    "grade": "kit.experiment.grade",
    "load_experiment": "kit.experiment.config",
    "run": "kit.experiment.run",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `python -m kit --help` does not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
