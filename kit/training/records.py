"""The files of numbers that a training leaves in its run directory, each with its writer and its reader.

Numpy alone is needed to read them; nothing here knows torch.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.errors import Damaged
from kit.core.files import append_text, atomic, parse_json, write_text
from kit.core.runs import TRAINED_ANEW, RunDir

SIGNAL = "signal_"  # begins the names of a controller's signals in rates.npz


@dataclass(frozen=True)
class RateRecord:
    """The rates that a run realised, as rates.npz holds them.

    Attributes
    ----------
    groups : list of str
        Names of the depth groups, stem first.
    lr : ndarray
        float64 [steps, groups]; NaN for updates that were not attempted.
    frozen : ndarray or None
        bool [steps, groups]; None in runs of an earlier version.
    momentum : ndarray or None
        float64 [steps], NaN where the optimizer has none; None in runs of an earlier version.
    multiplier : ndarray or None
        What the controller multiplied the policy's rates by, float64 [steps, groups]; None without a controller.
    signals : mapping of str to ndarray
        What the controller was fed, float64 [steps, groups] each.
    within : ndarray or None
        What the optimizer itself multiplies rates by, float64 [groups, 2]: the smallest and the largest factor
        over a group's parameters, NaN where none has learned; None where the optimizer does not say.
    """

    groups: list[str]
    lr: np.ndarray
    frozen: np.ndarray | None = None
    momentum: np.ndarray | None = None
    multiplier: np.ndarray | None = None
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    within: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything but the names of the groups, each by its name in the file."""
        each = {
            "lr": self.lr,
            "frozen": self.frozen,
            "momentum": self.momentum,
            "multiplier": self.multiplier,
            "within": self.within,
            **{SIGNAL + name: values for name, values in self.signals.items()},
        }
        return {name: values for name, values in each.items() if values is not None}

    def save(self, path: Path) -> None:
        """Write rates.npz."""
        _write(path, {"groups": self.groups, **self.arrays()}, np.savez)

    @classmethod
    def load(cls, path: Path) -> "RateRecord":
        """Read rates.npz, also of earlier versions.

        Raises
        ------
        Damaged
            Where the file is not what was written.
        """
        saved = _read(path, ("groups", "lr"))
        shape = saved["lr"].shape
        if len(shape) != 2 or shape[1:] != saved["groups"].shape:
            raise _damaged(path, f"its rates {list(shape)} are not of its {len(saved['groups'])} depth groups")
        return cls(
            groups=saved["groups"].tolist(),
            lr=saved["lr"],
            frozen=saved.get("frozen"),
            momentum=saved.get("momentum"),
            multiplier=saved.get("multiplier"),
            signals={
                name.removeprefix(SIGNAL): values for name, values in saved.items() if name.startswith(SIGNAL)
            },
            within=saved.get("within"),
        )


@dataclass(frozen=True)
class Activations:
    """Outputs of some layers at some updates, as activations.npz holds them.

    Of an output at most 2^18 values are looked at, evenly spaced.

    Attributes
    ----------
    steps : ndarray
        int [samples]: the number of the update, from 0.
    layers : list of str
        Names, from the input on.
    edges : ndarray
        float [bins + 1]: magnitudes between the bins; each is 2^(1/64) of the one before.
    counts : ndarray
        [samples, layers, bins + 2]: of values whose magnitude lies below the first edge (zero among them), in each
        bin, above the last edge.
    mean, std : ndarray
        [samples, layers]: of the values.
    near_zero : ndarray
        [samples, layers]: share of magnitudes within 1 % of the root mean square.
    """

    steps: np.ndarray
    layers: list[str]
    edges: np.ndarray
    counts: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    near_zero: np.ndarray

    def save(self, path: Path) -> None:
        """Write activations.npz."""
        _write(path, vars(self), np.savez_compressed)

    @classmethod
    def load(cls, path: Path) -> "Activations":
        """Read activations.npz.

        Raises
        ------
        Damaged
            Where the file is not what was written.
        """
        saved: dict[str, Any] = _read_all(path, cls)
        return cls(**saved | {"layers": saved["layers"].tolist()})


@dataclass(frozen=True)
class Learning:
    """How each depth group (a stage each) moved, as learning.npz holds it.

    Below, w is all parameters of a group as one vector and w₀ their initial values. What is divided by the norm of
    weights that are all 0 is not finite; so are gradients that overflowed fp16.

    Attributes
    ----------
    steps : ndarray
        int [samples]: the number of the update, from 0.
    groups : list of str
        Names of the depth groups, stem first.
    n_params : ndarray
        int [groups]: parameters of each.
    update : ndarray
        float [samples, groups]: ‖Δw‖ / ‖w‖ of the sampled update, w before it.
    distance : ndarray
        float [samples, groups]: ‖w − w₀‖ / ‖w₀‖ after it.
    rotation : ndarray
        float [samples, groups]: degrees between w and w₀ (layer rotation: Carbonnelle & De Vleeschouwer 2019).
    gradient : ndarray
        float [samples, groups]: norm of the gradient as the optimizer sees it.
    rate : ndarray
        float [samples, groups]: effective rate, rate / ‖w‖², w before the update (van Laarhoven 2017); where the
        policy has several rates within the group, their mean over its parameters.
    butterfly_steps : ndarray
        int [moments]: updates made before each moment of the butterfly.
    butterfly : ndarray
        float [moments, groups]: KL of the output, in nats, when each tensor of the group is moved by `relative` of
        its norm.
    relative : float
        Size of that move.
    """

    steps: np.ndarray
    groups: list[str]
    n_params: np.ndarray
    update: np.ndarray
    distance: np.ndarray
    rotation: np.ndarray
    gradient: np.ndarray
    rate: np.ndarray
    butterfly_steps: np.ndarray
    butterfly: np.ndarray
    relative: float

    def save(self, path: Path) -> None:
        """Write learning.npz."""
        _write(path, vars(self), np.savez_compressed)

    @classmethod
    def load(cls, path: Path) -> "Learning":
        """Read learning.npz.

        Raises
        ------
        Damaged
            Where the file is not what was written.
        """
        saved: dict[str, Any] = _read_all(path, cls)
        return cls(**saved | {"groups": saved["groups"].tolist(), "relative": float(saved["relative"])})


def append_history(path: Path, line: Mapping[str, float]) -> None:
    """Add one line to history.jsonl.

    Parameters
    ----------
    path : Path
        The file, made where it is not there.
    line : mapping of str to float
        `step` and `epoch` (updates and epochs done), and what was measured then.
    """
    append_text(path, json.dumps(line) + "\n")


def write_history(path: Path, lines: Iterable[Mapping[str, float]]) -> None:
    """Write history.jsonl anew with these lines, as a run does that goes on from its checkpoint."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the lines of history.jsonl; none where there is no such file.

    Raises
    ------
    Damaged
        Where the file is empty, or a line is damaged, like one that was cut while it was written.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        lines = [parse_json(line) for line in text.splitlines()]
    except ValueError as error:
        raise _damaged(path, error) from error
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or not _is_number(line.get("step")):
            raise _damaged(path, f"line {number} names no step")
    if not text.endswith("\n"):
        raise _damaged(path, "its last line is cut" if text else "it is empty")
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def history_of(run: RunDir) -> list[dict[str, Any]]:
    """Return the history of a finished run; none where an early version left none.

    Raises
    ------
    Damaged
        Where it is not what the run wrote, or does not reach to the last update.
    """
    if not run.left(run.history):
        return []
    lines, steps = read_history(run.checked(run.history)), run.record.steps
    if steps is not None and lines[-1]["step"] != steps:
        raise _damaged(run.history, f"it ends with update {lines[-1]['step']} of {steps}")
    return lines


def rates_of(run: RunDir) -> RateRecord:
    """Return the rates that a finished run realised; Damaged where they are not what it wrote."""
    rates, steps = RateRecord.load(run.checked(run.rates)), run.record.steps
    if steps is not None and len(rates.lr) != steps:
        raise _damaged(run.rates, f"it has the rates of {len(rates.lr)} updates of {steps}")
    return rates


def activations_of(run: RunDir) -> Activations | None:
    """Return what probes measured of activations; None without, Damaged where it is not what they wrote."""
    return Activations.load(run.checked(run.activations)) if run.left(run.activations) else None


def learning_of(run: RunDir) -> Learning | None:
    """Return what probes measured of depth groups; None without, Damaged where it is not what they wrote."""
    return Learning.load(run.checked(run.learning)) if run.left(run.learning) else None


def _write(path: Path, arrays: Mapping[str, Any], save: Callable[..., None]) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        save(file, **arrays)


def _read(path: Path, needed: Iterable[str]) -> dict[str, np.ndarray]:
    """Read all arrays of a file that has to hold those that are `needed`."""
    try:
        with np.load(path) as saved:
            arrays = dict(saved)
    except Exception as error:  # whatever a damaged file makes zipfile and numpy raise
        raise _damaged(path, error) from error
    if missing := [name for name in needed if name not in arrays]:
        raise _damaged(path, f"it has no {missing[0]}")
    return arrays


def _read_all(path: Path, record: type) -> dict[str, np.ndarray]:
    """Read one array for each field of a dataclass."""
    names = [each.name for each in fields(record)]
    saved = _read(path, names)
    return {name: saved[name] for name in names}


def _damaged(path: Path, reason: object) -> Damaged:
    short = " ".join(str(reason).split())[:200]
    return Damaged(f"{path} is damaged ({short}); {TRAINED_ANEW}")
