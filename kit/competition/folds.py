"""The fold plan: folds.csv, made once, hashed, reused by every policy."""

import warnings
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.config import FoldsConfig
from kit.errors import KitError, some
from kit.files import write_text


@dataclass(frozen=True)
class FoldPlan:
    """fold: int64 [rows], aligned with `ids`; a row of fold f is predicted by the model that left f out."""

    ids: list[str]
    fold: np.ndarray

    def training_rows(self, fold: int) -> np.ndarray:
        return np.flatnonzero(self.fold != fold)

    def validation_rows(self, fold: int) -> np.ndarray:
        return np.flatnonzero(self.fold == fold)

    @property
    def digest(self) -> str:
        """A hash of who is in which fold, whatever the order of the rows."""
        lines = sorted(f"{name}\t{fold}" for name, fold in zip(self.ids, self.fold, strict=True))
        return sha256("\n".join(lines).encode()).hexdigest()[:16]


def check_folds(config: FoldsConfig, classes: tuple[str, ...], targets: np.ndarray) -> None:
    """Fails where a class has one row only: a model either trains on it or is scored on it."""
    alone = [classes[index] for index, count in enumerate(np.bincount(targets)) if count == 1]
    if alone:
        raise KitError(
            f"folds: class {some(map(repr, alone))} has a single row, which {config.k} folds cannot both train "
            "on and score; remove the class, merge it with another, or add images"
        )
    if config.k > (most := np.bincount(targets).max()):
        raise KitError(f"folds.k: {config.k} folds, but no class has more than {most} rows; lower k")
    if (beyond := [fold for fold in config.chosen if fold >= config.k]) or not config.chosen:
        raise KitError(f"folds.run: there are folds 0 to {config.k - 1}; got {some(beyond) or 'none'}")


def rare_classes(config: FoldsConfig, classes: tuple[str, ...], targets: np.ndarray) -> list[str]:
    """A line for each class with fewer rows than folds: its score rests on very little."""
    return [
        f"class {classes[index]!r} has {count} rows, so {config.k - count} of {config.k} folds hold none of it"
        for index, count in enumerate(np.bincount(targets))
        if 1 < count < config.k
    ]


def make_folds(ids: list[str], targets: np.ndarray, config: FoldsConfig) -> FoldPlan:
    """Stratified folds (scikit-learn's StratifiedKFold), the same for any order of the rows."""
    from sklearn.model_selection import StratifiedKFold

    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    fold = np.empty(len(ids), dtype=np.int64)
    splitter = StratifiedKFold(config.k, shuffle=True, random_state=config.seed)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The least populated class", UserWarning
        )  # rare classes: see check_folds
        for number, (_, held_out) in enumerate(splitter.split(order, targets[order])):
            fold[order[held_out]] = number
    return FoldPlan(ids, fold)


def write_folds(plan: FoldPlan, path: Path) -> None:
    write_text(path, folds_text(plan))


def folds_text(plan: FoldPlan) -> str:
    """The plan as it stands in folds.csv."""
    return pd.DataFrame({"id": plan.ids, "fold": plan.fold}).to_csv(index=False, lineterminator="\n")


def read_folds(path: Path, ids: list[str]) -> FoldPlan:
    """The plan in `path`, aligned with `ids`; refused where it is of other rows."""
    try:
        frame = pd.read_csv(path, dtype={"id": str, "fold": np.int64}, keep_default_na=False).set_index("id")
        frame["fold"].to_numpy()
    except KeyError as error:
        raise KitError(f"{path} is no fold plan (columns id and fold): it has no column {error}") from error
    except ValueError as error:
        raise KitError(f"{path} is no fold plan (columns id and fold): {' '.join(str(error).split())}") from error
    if not frame.index.is_unique or set(frame.index) != set(ids):
        raise KitError(
            f"{path} is of other rows than the train table ({len(frame)} against {len(ids)}), or has one twice"
        )
    return FoldPlan(ids, frame.loc[ids, "fold"].to_numpy())
