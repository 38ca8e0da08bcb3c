"""The run directory: where everything of an experiment lies, and how predictions are read and pooled.

runs/<experiment>/
  experiment.yaml   folds.csv   manifest.json   curves.png   comparison.json   comparison.csv   report.html
  <policy>/
    seed<S>/fold<K>/   run.json  history.jsonl  rates.npz  weights.safetensors  oof.parquet  test.parquet
                       activations.npz  learning.npz      where probes are on
    oof.parquet  test.parquet  scores.json      pooled over folds and seeds
  tuning/fold<K>/   runs that tune a rate without that fold, laid out in the same way
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from kit.core.errors import Damaged, KitError, some
from kit.core.files import as_record, atomic, read_object, write_json
from kit.core.whole import digest, is_whole, need_sealed, need_whole, sealed

TRAINING, HEAD, SOUP = "training", "head", "soup"  # kinds of runs
_PIECE = 2**24  # probabilities that are written at a time: 64 MB
_ROWS = 65_536  # that are added at a time
TRAINED_ANEW = "remove the run's folder, and it is trained anew by python -m kit run"
PREDICTED_ANEW = "python -m kit run, or compare, predicts it anew with the saved weights"


@dataclass(frozen=True, order=True)
class RunKey:
    """One training: a policy, a seed, a fold."""

    policy: str
    seed: int
    fold: int

    def __str__(self) -> str:
        return f"{self.policy} seed {self.seed} fold {self.fold}"

    @property
    def place(self) -> str:
        """Where it lies below its experiment: policy/seed0/fold1."""
        return f"{self.policy}/seed{self.seed}/fold{self.fold}"


class RunRecord(BaseModel):
    """What run.json says of one training.

    Attributes
    ----------
    status : str
        running, stopped, finished, failed, or diverged.
    kind : str
        training; head, fitted to features, or soup, the mean of the weights of trainings: both without updates,
        rates and history.
    policy, seed, fold
        Which run it is.
    fingerprint : str
        Of `depends_on`: two runs with the same one give the same result.
    depends_on : dict of str to str
        A digest of each thing that decides the result.
    versions : dict of str to str
        Of Python and of the libraries that decide bits.
    device : str
        As torch names it.
    device_name : str
        The GPU's or the processor's; "" in early versions.
    driver : str
        The version of NVIDIA's driver; "" on a CPU, and where it is not told.
    threads : int, optional
        That torch computed with on the CPU, which change bits there.
    processes : int
        That trained together.
    precision : str
        fp32, fp16 or bf16.
    augmented_on : str
        cpu, or device: where images were augmented, which draws other numbers there.
    tf32 : bool, optional
        Whether fp32 may have been rounded to TF32 on the GPU, which the kit never lets it be; None on a CPU.
    error : str, optional
        Why it failed or diverged, in one line.
    test : str, optional
        The digest of the test set that it predicted.
    unread : list of str, optional
        Test rows whose image could not be read: what is predicted of them is the prior.
    never : list of str
        Classes without a row to train on, which are never predicted; early versions had none.
    test_pixels : str
        A digest of how the test images were read, where that differs from early versions; else "".
    reading : dict of str to object
        How images were read, by the config's keys: `background` and `levels`. Empty in early versions, which left
        transparency out and took 0 to 65535 for the levels of deeper files.
    initial_weights : str, optional
        A digest of the weights that it began with.
    groups : dict of str to int
        Parameters of each depth group, from the stem to the head.
    steps : int, optional
        Updates.
    seconds : dict of str to float
        Of `training`, and of the `whole` run; of an `update`, and of an `image` that is predicted in one view.
    views : str
        "none" where a budget of time gave up the views that `prediction` asks for; else "".
    predicted : dict of str to object, optional
        How its out-of-fold and test predictions were made, both alike: the views beside the plain one, the size
        where that is not the training's, and what was averaged. Of earlier versions None.
    images_per_second : float, optional
        While training.
    scores : dict of str to float
        By metric, of the held-out rows by the plain rule.
    files : dict of str to str
        The SHA-256 of each file that a finished run left in its folder, by name. Empty in early versions, whose
        files are read without a check.
    micro_batch : int, optional
        Images of a forward pass, where memory was too small for the config's batch_size.
    soup : dict of str to str
        Of a soup: the place of each run whose weights it is the mean of → the SHA-256 of these weights.
    nonfinite : list of dict
        What was done about losses that were not finite: `{skipped: step}` for an update that was left out;
        `{factor: f, step: s, error: text}` where the training was begun anew with its rates × `factor`.

    Notes
    -----
    The file has a further field, `digest`: the SHA-256 of all others (see `kit.core.whole.sealed`).
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    status: str = "unknown"
    kind: str = TRAINING
    policy: str
    seed: int
    fold: int
    fingerprint: str | None = None
    depends_on: dict[str, str] = {}
    versions: dict[str, str] = {}
    device: str = "cpu"
    device_name: str = ""
    driver: str = ""
    threads: int | None = None
    processes: int = 1
    precision: str = "fp32"
    augmented_on: str = "cpu"
    tf32: bool | None = None
    error: str | None = None
    test: str | None = None
    unread: list[str] | None = None
    never: list[str] = []
    test_pixels: str = ""
    reading: dict[str, Any] = {}
    initial_weights: str | None = None
    groups: dict[str, int] = {}
    steps: int | None = None
    seconds: dict[str, float] = {}
    images_per_second: float | None = None
    views: str = ""
    predicted: dict[str, Any] | None = None
    scores: dict[str, float] = {}
    files: dict[str, str] = {}
    micro_batch: int | None = None
    soup: dict[str, str] = {}
    nonfinite: list[dict[str, Any]] = []

    @property
    def factor(self) -> float:
        """What all rates of the policy were multiplied by, as it diverged at higher ones: else 1."""
        return float(next((each["factor"] for each in reversed(self.nonfinite) if "factor" in each), 1.0))

    @property
    def key(self) -> RunKey:
        """Which run it is."""
        return RunKey(self.policy, self.seed, self.fold)

    def with_fields(self, **fields: Any) -> "RunRecord":
        """Return the record with these fields changed or added."""
        return RunRecord.model_validate(self.model_dump(exclude_unset=True) | fields)


@dataclass(frozen=True)
class RunDir:
    """The files of one run."""

    path: Path

    @property
    def history(self) -> Path:
        """What was recorded in training: a line a step interval or an epoch."""
        return self.path / "history.jsonl"

    @property
    def rates(self) -> Path:
        """The rates that were written into the optimizer, of every step."""
        return self.path / "rates.npz"

    @property
    def activations(self) -> Path:
        """What probes measured of activations."""
        return self.path / "activations.npz"

    @property
    def learning(self) -> Path:
        """What probes measured of weights and updates."""
        return self.path / "learning.npz"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "weights.safetensors"

    @property
    def tracker(self) -> Path:
        """The folder of what a tracker keeps here."""
        return self.path / "tracker"

    @property
    def checkpoint(self) -> Path:
        """Where an interrupted training goes on from."""
        return self.path / "checkpoint.pt"

    @property
    def checkpoint_before(self) -> Path:
        """The checkpoint before that one."""
        return self.path / "checkpoint.before.pt"

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint."""
        return self.checkpoint.is_file() or self.checkpoint_before.is_file()

    @property
    def oof(self) -> Path:
        """The predictions of the held-out rows."""
        return self.path / "oof.parquet"

    @property
    def test(self) -> Path:
        """The predictions of the test rows."""
        return self.path / "test.parquet"

    @property
    def record(self) -> RunRecord:
        """What run.json says; Damaged where it is not what was written here, or the run has not begun."""
        file = self.path / "run.json"
        content = read_object(file, TRAINED_ANEW)
        if "digest" in content or content.get("files"):  # early versions have neither
            need_sealed(content, file, TRAINED_ANEW)
            content.pop("digest")
        record = as_record(content, RunRecord, file, TRAINED_ANEW)
        place = (record.policy, f"seed{record.seed}", f"fold{record.fold}")
        here = Path(os.path.abspath(self.path)).parts[-3:]
        if here != place and re.fullmatch(r"seed\d+", here[-2]):  # elsewhere it is a copy, and part of nothing
            raise Damaged(f"{file} is of another run ({record.key}) than its folder; {TRAINED_ANEW}")
        return record

    @property
    def begun(self) -> bool:
        """Whether there is a run.json."""
        return (self.path / "run.json").is_file()

    @property
    def finished(self) -> bool:
        """Whether it was trained to the end and all that it gave is there, or can be predicted anew."""
        if not self.begun or (record := self.record).status != "finished":
            return False
        needed = self.needed if record.files else (*self.needed, self.oof, self.test)
        return all(path.is_file() for path in needed)

    @property
    def needed(self) -> tuple[Path, ...]:
        """What a finished run cannot do without: the rest can be predicted anew, or is lost for pictures alone."""
        return (self.weights, self.rates) if self.record.kind == TRAINING else (self.weights,)

    @property
    def left_over(self) -> list[Path]:
        """Checkpoints of a finished run: it was killed when all was written and they were not removed yet."""
        there = [path for path in (self.checkpoint, self.checkpoint_before) if path.is_file()]
        try:
            return there if there and self.finished else []
        except KitError:  # of a damaged record nothing is known
            return []

    @property
    def diverged(self) -> bool:
        """Whether its training ended since the loss was not finite."""
        return self.begun and self.record.status == "diverged"

    def write(self, record: RunRecord) -> None:
        """Write run.json, with its digest."""
        write_json(self.path / "run.json", sealed(record.model_dump(exclude_unset=True)))

    @property
    def artefacts(self) -> tuple[Path, ...]:
        """What a finished run leaves, beside run.json and what a tracker keeps; not all have all of it."""
        of_all = (self.weights, self.oof, self.test, self.rates, self.history)
        return *of_all, self.activations, self.learning

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each of the artefacts that are there, by name."""
        return {path.name: digest(path) for path in self.artefacts if path.is_file()}

    def left(self, path: Path) -> bool:
        """Return whether the run left this artefact; in early versions, whether it is there."""
        files = self.record.files
        return path.name in files if files else path.is_file()

    def is_whole(self, path: Path) -> bool:
        """Return whether an artefact is there, and what the run wrote as far as that is known."""
        files = self.record.files
        return is_whole(path, files.get(path.name, "")) if files else path.is_file()

    def damaged(self) -> list[Path]:
        """Return the artefacts that are missing or not what the run wrote, as far as is known; all are read."""
        return [path for path in self.artefacts if self.left(path) and not self.is_whole(path)]

    def checked(self, path: Path) -> Path:
        """Return the path of an artefact, which is there and what the run wrote as far as that is known.

        Raises
        ------
        Damaged
            Where it is missing, is another file, or is not among what the run left.
        """
        remedy = TRAINED_ANEW
        if path in (self.oof, self.test) and self.record.files:
            remedy = PREDICTED_ANEW
        elif path in (self.history, self.activations, self.learning):
            remedy = f"bring it back from a copy (predictions do not need it, curves do), or {TRAINED_ANEW}"
        if not self.is_whole(path):
            need_whole(path, self.record.files.get(path.name, ""), remedy)
        return path

    def read_oof(self) -> pd.DataFrame:
        """Return the predictions of the held-out rows; Damaged where they are not what the run wrote."""
        return read_predictions(self.checked(self.oof))

    def read_test(self) -> pd.DataFrame:
        """Return the predictions of the test rows; Damaged where they are not what the run wrote."""
        return read_predictions(self.checked(self.test))


@dataclass(frozen=True)
class ExperimentDir:
    """The files of one experiment, below runs/."""

    path: Path

    @property
    def config(self) -> Path:
        """The config, with its defaults."""
        return self.path / "experiment.yaml"

    @property
    def folds(self) -> Path:
        """The fold plan."""
        return self.path / "folds.csv"

    @property
    def curves(self) -> Path:
        """The picture of the curves of training."""
        return self.path / "curves.png"

    @property
    def comparison(self) -> Path:
        """The comparison of the policies."""
        return self.path / "comparison.json"

    @property
    def report(self) -> Path:
        """The page about the experiment."""
        return self.path / "report.html"

    @property
    def pseudo(self) -> Path:
        """The folder of the labels that its models gave, on which other experiments train."""
        return self.path / "pseudo"

    def policy(self, name: str) -> Path:
        """Return the folder of a policy."""
        return self.path / name

    def runs(self, policy: str = "*") -> list[RunDir]:
        """Return the runs that have begun, of one policy or of all."""
        return [RunDir(path.parent) for path in sorted(self.path.glob(f"{policy}/seed*/fold*/run.json"))]

    def finished(self, policy: str) -> list[RunDir]:
        """Return the runs of one policy that are finished."""
        return [run for run in self.runs(policy) if run.finished]

    def run(self, key: RunKey) -> RunDir:
        """Return the folder of a run, which need not have begun."""
        return RunDir(self.path / key.place)


def predictions(ids: Sequence[str], probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Return probabilities [rows, classes] as a frame indexed by id, one float32 column a class."""
    frame = pd.DataFrame(np.asarray(probabilities, dtype=np.float32), columns=list(classes))
    return frame.set_index(pd.Index(list(ids), name="id"))


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame of predictions (see `predictions`) as Parquet, at once; those of other types as float32.

    Without dictionaries of values: nearly each is another one, and to find that out takes five times as long as to
    write them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = max(1, _PIECE // max(1, frame.shape[1]))
    names, kinds = ["id", *frame.columns], [pa.string(), *[pa.float32()] * frame.shape[1]]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
        for start in range(0, max(1, len(frame)), number):  # of no rows a piece as well
            piece = frame.iloc[start : start + number]
            values = np.ascontiguousarray(piece.to_numpy(dtype=np.float32).T)
            writer.write_table(pa.table([pa.array(piece.index.tolist(), pa.string()), *values], schema=schema))


def read_predictions(path: Path) -> pd.DataFrame:
    """Return the predictions of a file, indexed by id.

    Raises
    ------
    Damaged
        Where the file holds no predictions, an id twice, or what is no probability.
    """
    import pyarrow

    try:
        frame = pd.read_parquet(path).set_index("id")
        pyarrow.default_memory_pool().release_unused()  # what it has copied from; it keeps that for the next file
        values = frame.to_numpy(dtype=np.float32)
    except Exception as error:  # whatever a damaged file makes pyarrow raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Damaged(f"{path} holds no predictions ({reason}); {TRAINED_ANEW}") from error
    reason = ""
    if not frame.index.is_unique:
        reason = f"it has {some(frame.index[frame.index.duplicated()].unique(), 3)} twice"
    # What is not a number is in no range; the ends are those of float32's rounding.
    elif values.size and not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):
        reason = "not all of its values are probabilities"
    if reason:
        raise Damaged(f"{path} is damaged ({reason}); {TRAINED_ANEW}")
    return frame


def average(frames: Iterable[pd.DataFrame], ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the mean prediction of each id over all frames that hold it.

    Parameters
    ----------
    frames : iterable of DataFrame
        Predictions, indexed by id; one frame at least. With `ids` they are taken one after the other, and let go.
    ids : sequence of str, optional
        The order of the rows: those of these ids that a frame holds, and no others; memory is taken for all of
        them. Left out: that in which the ids first appear.

    Returns
    -------
    DataFrame
        float64, indexed by id.

    Raises
    ------
    KitError
        Where the frames are of different classes.
    """
    rows: dict[Any, int] | None = None  # id → row; None: each frame has all rows, in order
    if ids is None:
        frames = list(frames)
        index = frames[0].index.rename("id")
        if not all(frame.index.equals(index) for frame in frames[1:]):
            ids = list(chain.from_iterable(frame.index.tolist() for frame in frames))
    if ids is not None:
        rows = {name: row for row, name in enumerate(dict.fromkeys(ids))}
        index = pd.Index(list(rows), name="id")
    sum_of: _Sum | None = None
    for frame in frames:
        sum_of = sum_of or _Sum(len(index), frame.columns)
        sum_of.add(frame, np.arange(len(index)) if rows is None else rows_in(frame.index, rows))
    assert sum_of, "one frame at least"
    total, there = sum_of.mean()
    return pd.DataFrame(total, index=index if there.all() else index[there], columns=sum_of.columns, copy=False)


def rows_in(index: pd.Index, rows: Mapping[Any, int]) -> np.ndarray:
    """Return the row of each id, int64; −1 for one that `rows` does not have."""
    return np.fromiter((rows.get(name, -1) for name in index.tolist()), np.int64, len(index))


class _Sum:
    """The sum of predictions by row, and how many there are of each row."""

    def __init__(self, rows: int, columns: pd.Index) -> None:
        self.columns = columns
        self._total, self._count = np.zeros((rows, len(columns))), np.zeros(rows)

    def add(self, frame: pd.DataFrame, place: np.ndarray) -> None:
        """Add predictions to the rows at `place`, int64, of which −1 is none."""
        if set(frame.columns) != set(self.columns):
            odd = sorted(set(frame.columns) ^ set(self.columns))
            raise KitError(f"predictions of different classes cannot be averaged: not all have {some(odd, 5)}")
        values = (frame if frame.columns.equals(self.columns) else frame[self.columns]).to_numpy()
        for start in range(0, len(values), _ROWS):
            rows, block = place[start : start + _ROWS], values[start : start + _ROWS]
            if (known := rows >= 0).all():
                self._total[rows] += block
            else:
                self._total[rows[known]] += block[known]
            self._count[rows[known]] += 1

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the rows that were predicted, and which these are, bool; the sum is used up."""
        there = self._count > 0
        if not there.all():
            self._total, self._count = self._total[there], self._count[there]
        if (self._count > 1).any():
            self._total /= self._count[:, None]
        return self._total, there


def in_order(frame: pd.DataFrame, ids: Sequence[str] | pd.Index) -> pd.DataFrame:
    """Return predictions in the order of these ids, of which each is there; without a copy where they have it."""
    ids = pd.Index(ids, name="id")
    return frame.rename_axis("id") if frame.index.equals(ids) else frame.loc[ids].rename_axis("id")
