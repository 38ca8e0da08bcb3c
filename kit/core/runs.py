"""The run directory: where everything of an experiment lies, and how predictions are read and pooled.

runs/<experiment>/
  experiment.yaml   folds.csv   curves.png   comparison.json   comparison.csv   report.html
  <policy>/
    seed<S>/fold<K>/   run.json  history.jsonl  rates.npz  weights.safetensors  oof.parquet  test.parquet
                       activations.npz  learning.npz      where probes are on
    oof.parquet  test.parquet  scores.json      pooled over folds and seeds
  tuning/fold<K>/   runs that tune a rate without that fold, laid out in the same way
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.core.errors import KitError, some
from kit.core.files import atomic, write_json


@dataclass(frozen=True, order=True)
class RunKey:
    """One training: a policy, a seed, a fold."""

    policy: str
    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.policy} seed {self.seed} fold {self.fold}"


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def rates(self) -> Path:
        return self.path / "rates.npz"

    @property
    def activations(self) -> Path:
        return self.path / "activations.npz"

    @property
    def learning(self) -> Path:
        return self.path / "learning.npz"

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def oof(self) -> Path:
        return self.path / "oof.parquet"

    @property
    def test(self) -> Path:
        return self.path / "test.parquet"

    def read(self) -> dict[str, Any]:
        """run.json, or {} where the run has not begun."""
        path = self.path / "run.json"
        if not path.is_file():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise KitError(f"{path} is damaged ({error}); remove this run, and it is trained anew") from error

    @property
    def finished(self) -> bool:
        """Whether it was trained to the end and all that it gave is there."""
        there = self.weights.is_file() and self.oof.is_file() and self.test.is_file() and self.rates.is_file()
        return there and self.read().get("status") == "finished"

    @property
    def diverged(self) -> bool:
        """Whether its training ended since the loss was not finite."""
        return self.read().get("status") == "diverged"

    def write(self, record: dict[str, Any]) -> None:
        write_json(self.path / "run.json", record)


@dataclass(frozen=True)
class ExperimentDir:
    """The files of one experiment, below runs/."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "experiment.yaml"

    @property
    def folds(self) -> Path:
        return self.path / "folds.csv"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def policy(self, name: str) -> Path:
        return self.path / name

    def runs(self, policy: str = "*") -> list[RunDir]:
        """The runs that have begun, of one policy or of all."""
        return [RunDir(path.parent) for path in sorted(self.path.glob(f"{policy}/seed*/fold*/run.json"))]

    def run(self, key: RunKey) -> RunDir:
        return RunDir(self.policy(key.policy) / f"seed{key.seed}" / f"fold{key.fold}")


def predictions(ids: Sequence[str], probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Probabilities [rows, classes] as a frame indexed by id, one float32 column a class."""
    frame = pd.DataFrame(np.asarray(probabilities, dtype=np.float32), columns=list(classes))
    return frame.set_index(pd.Index(list(ids), name="id"))


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        frame.reset_index().to_parquet(temporary, index=False)


def read_predictions(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).set_index("id")
    except (ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
        reason = " ".join(str(error).split())[:200]
        raise KitError(
            f"{path} holds no predictions ({reason}); remove this run, and it is trained anew"
        ) from error


def average(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The mean prediction of each id over all frames that hold it, ids in the order they first appear.

    Raises KitError where the frames are of different classes.
    """
    total, count = None, None
    for frame in frames:
        if total is not None and set(frame.columns) != set(total.columns):
            odd = sorted(set(frame.columns) ^ set(total.columns))
            raise KitError(f"predictions of different classes cannot be averaged: not all have {some(odd, 5)}")
        values, ones = frame.astype(np.float64), pd.Series(1.0, index=frame.index)
        if total is None:
            total, count = values, ones
        elif total.index.equals(values.index):
            total, count = total + values, count + ones
        else:
            order = total.index.append(values.index.difference(total.index, sort=False))
            total = total.add(values, fill_value=0.0).loc[order, total.columns]
            count = count.add(ones, fill_value=0.0).loc[order]
    return total.div(count, axis=0).rename_axis("id")
