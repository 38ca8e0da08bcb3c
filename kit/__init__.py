"""A competition kit for image classification under F1, built around learning-rate policies.

from kit import load_experiment, run

result = run(load_experiment("configs/digits.yaml", ["training.epochs=3"]))
"""

__all__ = ["KitError", "grade", "load_experiment", "run"]

_WHERE = {
    "KitError": "kit.core.errors",
    "grade": "kit.experiment.grade",
    "load_experiment": "kit.experiment.config",
    "run": "kit.experiment.run",
}


def __getattr__(name: str):
    """Imports on first use, so that `python -m kit --help` does not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
