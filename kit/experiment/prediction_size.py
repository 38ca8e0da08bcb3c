"""What the predictions of an experiment take of memory and disk, told before anything is decoded or trained."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.core.errors import KitError, Say
from kit.core.runs import RunKey
from kit.experiment.loaded import LoadedExperiment

NEAR = 0.5  # of what is free: from here on it is told, as images, model and other programs need some too
_FITTED = 50_000_000  # predictions that rules are fitted on at most (`scoring.thresholds.MANY`),
_FIT = 64  # bytes for each while one is: sorted values, their order, the metric at each cut
_LABELS = 7  # tables of labels, a byte each: the truth, that of the other folds, what four rules decide, a copy


@dataclass(frozen=True)
class PredictionSize:
    """The numbers that decide how much predictions take.

    Attributes
    ----------
    held_out : tuple of int
        Held-out rows of each fold that is trained.
    test_rows, classes, seeds, policies : int
        How many there are.
    several : bool
        Whether a row may have several labels.
    probabilities : bool
        Whether the metric takes probabilities, so that those of all policies are kept to be compared.
    """

    held_out: tuple[int, ...]
    test_rows: int
    classes: int
    seeds: int
    policies: int = 1
    several: bool = False
    probabilities: bool = False

    @property
    def rows(self) -> int:
        """All held-out rows."""
        return sum(self.held_out)

    @property
    def trained(self) -> int:
        """Bytes at the end of a training: its predictions (float32), and copies on their way into files."""
        return 4 * self.classes * (max(self.held_out) + max(2 * max(self.held_out), 4 * self.test_rows))

    @property
    def pooled(self) -> int:
        """Bytes while a policy is pooled: `kit.experiment.pool.pool_policy`.

        First the mean over seeds (float64), and the predictions of each run (float32) where a row has several;
        beside them rules are fitted and decide in two tables like it, and a run is scored in a copy of it. Then
        the mean as it is written (float32) and the test rows' predictions by fold (float64); beside them they are
        written (by three copies, float32), and then the test rows are decided (at most five times their mean:
        offsets). What is kept of each policy to compare it comes on top.
        """
        cells, test = self.rows * self.classes, self.test_rows * self.classes
        own = (4 * self.seeds * cells if self.seeds > 1 else 0) + (_LABELS * cells if self.several else 0)
        fit = 16 * cells + _FIT * min(cells, _FITTED)
        scored = 8 * (cells + max(self.held_out) * self.classes)
        chosen = own + 8 * cells + max(fit, scored if self.seeds > 1 else 0)
        written = 8 * test + 12 * max(cells, test)
        decided = own + 4 * cells + 8 * len(self.held_out) * test + max(written, 40 * test)
        kept = (cells if self.several else 8 * self.rows) + (8 * cells if self.probabilities else 0)
        return max(chosen, decided) + self.policies * kept

    @property
    def memory(self) -> int:
        """Bytes that are held at once, at most."""
        return max(self.trained, self.pooled)

    def stored(self, folds: Sequence[int]) -> int:
        """Return the bytes on the disk: of runs, each of the fold at this place, and of the pooled predictions.

        Parquet makes little less of them.
        """
        runs = sum(self.held_out[place] + self.test_rows for place in folds)
        return 4 * self.classes * (runs + (self.policies * (self.rows + self.test_rows) if folds else 0))


def need_room(loaded: LoadedExperiment, keys: Sequence[RunKey], say: Say) -> None:
    """Check that memory and disk hold the predictions of the runs that are to be trained.

    Parameters
    ----------
    loaded : LoadedExperiment
    keys : sequence of RunKey
        The runs; those that are finished take no more of the disk.
    say : callable
        Takes a line where it will be tight.

    Raises
    ------
    KitError
        With the figures, where they do not fit.
    """
    import psutil

    if not keys:
        return
    config, competition = loaded.config, loaded.competition
    folds = tuple(dict.fromkeys(key.fold for key in keys))
    size = PredictionSize(
        held_out=tuple(len(loaded.folds.validation_rows(fold)) for fold in folds),
        test_rows=len(competition.test_ids),
        classes=len(competition.classes),
        seeds=len({key.seed for key in keys}),
        policies=len({key.policy for key in keys}),
        several=competition.label_format.multilabel,
        probabilities=config.scoring.of_probabilities,
    )
    due = [folds.index(key.fold) for key in keys if not loaded.folder.run(key).finished]
    place = _existing(loaded.folder.path)
    about = (
        f"predictions: {size.rows:,} held-out and {size.test_rows:,} test rows × {size.classes:,} classes "
        f"({_gb(4 * size.rows * size.classes)} out of fold for a policy and seed)"
    )
    mend = "train fewer folds (folds.run), seeds or policies at a time"
    memory, disk = psutil.virtual_memory().available, shutil.disk_usage(place).free
    for needed, free, what, more in (
        (size.memory, memory, "of memory at once", "a machine with more memory"),
        (size.stored(due), disk, f"on the disk of {place}", "an --output on a larger disk"),
    ):
        line = f"{about}: they take {_gb(needed)} {what}, where {_gb(free)} are free; {mend}, or take {more}"
        if needed > free:
            raise KitError(line)
        if needed > NEAR * free:
            say(f"{line} if that is too little")


def _existing(path: Path) -> Path:
    """Return the folder itself, or the nearest above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
