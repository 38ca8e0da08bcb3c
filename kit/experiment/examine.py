"""In what state runs on disk are: complete, going on from where, damaged, claimed by whom; and what lies about."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from kit.competition.folds import FoldPlan
from kit.core import manifest
from kit.core.claims import dead_claims
from kit.core.errors import Damaged, KitError, some
from kit.core.files import read_object
from kit.core.litter import litter_in
from kit.core.runs import PREDICTED_ANEW, TRAINED_ANEW, ExperimentDir, RunDir, RunRecord, read_predictions
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.shared_folder import MEMBER, holder_of_run, holders_of
from kit.training.records import RateRecord, read_history

RUNS = ("*/seed*/fold*", "tuning/fold*/*/seed*/fold*")  # below an experiment's folder
NEXT = "python -m kit run (or compare)"
BACK = "bring back the file as it was, or start the experiment anew with python -m kit run --replace"
STATES = ("complete", "claimed", "resumable", "begun", "stopped", "failed", "diverged", "damaged")


@dataclass(frozen=True)
class RunState:
    """In what state a run is.

    Attributes
    ----------
    run : str
        Which one, as policy/seed/fold.
    state : str
        complete; claimed: a process works on it; resumable: it has a checkpoint; begun: it has none yet; stopped,
        failed, diverged: the same, and why it ended is known; damaged.
    about : str
        By whom, from where, why.
    advice : str
        What to do about it, where there is something to do.
    """

    run: str
    state: str
    about: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file that all runs share, and what to do."""

    file: str
    about: str
    advice: str


@dataclass(frozen=True)
class FolderState:
    """In what state an experiment's folder, or that of one run, is.

    Attributes
    ----------
    folder : Path
    runs : list of RunState
    faults : list of Fault
        Of the files that all runs share.
    at_work : list of str
        The processes that train there, or write what all share.
    litter : list of str
        What processes left that are gone.
    unchecked : int
        Complete runs of early versions, which noted no digests: their files can be read, and no more is known.
    """

    folder: Path
    runs: list[RunState]
    faults: list[Fault] = field(default_factory=list)
    at_work: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    unchecked: int = 0

    @property
    def broken(self) -> bool:
        """Whether something is damaged."""
        return bool(self.faults) or any(run.state == "damaged" for run in self.runs)


def examine_runs(paths: Sequence[str | Path]) -> list[FolderState]:
    """Read the state of folders; every file that has a digest is read, and nothing is changed.

    Parameters
    ----------
    paths : sequence of path
        A folder of experiments (runs/, or the one that holds it), experiments, or single runs.

    Raises
    ------
    KitError
        Where one of them is none of these.
    """
    return [state for path in paths for state in _examine(Path(path).expanduser())]


def counts(states: Sequence[FolderState]) -> str:
    """Return how many runs are in which state, in words."""
    number = Counter(run.state for state in states for run in state.runs)
    each = [f"{number[name]} {name}" for name in STATES if number[name]]
    total = number.total()
    return f"{total} run{'s' * (total != 1)}" + (f": {', '.join(each)}" if each else "")


def glance_at(runs: Path) -> str:
    """Return how many experiments and runs a folder holds, as far as run.json says; no other file is read."""
    number: Counter[str] = Counter()
    experiments = [ExperimentDir(path) for path in sorted(runs.iterdir()) if _is_experiment(path)]
    for run in (run for experiment in experiments for run in _runs_in(experiment)):
        try:
            number["finished" if run.finished else run.record.status if run.begun else "begun"] += 1
        except KitError:
            number["damaged"] += 1
    each = ", ".join(f"{count} {name}" for name, count in sorted(number.items()))
    told = f"{len(experiments)} experiment{'s' * (len(experiments) != 1)}, {number.total()} runs"
    return told + (f": {each}" if each else "")


def _examine(path: Path) -> Iterator[FolderState]:
    if not path.is_dir():
        raise KitError(f"{path} is no folder; give runs/, an experiment in it, or a run like uniform/seed0/fold0")
    if _is_run(path):
        yield FolderState(path, [_state_of(RunDir(path))], litter=_litter(path))
    elif _is_experiment(path):
        yield _state_of_experiment(ExperimentDir(path))
    else:
        inner = path / "runs" if (path / "runs").is_dir() else path
        found = [folder for folder in sorted(inner.iterdir()) if _is_experiment(folder)]
        if not found:
            raise KitError(
                f"{path} holds no runs; give runs/, an experiment in it, or a run like uniform/seed0/fold0"
            )
        for folder in found:
            yield _state_of_experiment(ExperimentDir(folder))


def _is_run(path: Path) -> bool:
    return path.name.startswith("fold") and path.parent.name.startswith("seed")


def _is_experiment(path: Path) -> bool:
    return path.is_dir() and ((path / "experiment.yaml").is_file() or any(path.glob(RUNS[0])))


def _runs_in(folder: ExperimentDir) -> list[RunDir]:
    """The runs of an experiment, those that tune among them; not folders that are empty."""
    paths = (path for pattern in RUNS for path in sorted(folder.path.glob(pattern)))
    return [RunDir(path) for path in paths if any(path.iterdir())]


def _state_of_experiment(folder: ExperimentDir) -> FolderState:
    runs = _runs_in(folder)
    states = [_state_of(run) for run in runs]
    records = [record for run in runs if (record := _record(run)) is not None]
    early = sum(record.status == "finished" and not record.files for record in records)
    at_work = [str(holder) for holder in holders_of(folder, f"{MEMBER}-*", "experiment")]
    faults = list(_faults(folder, [record for run in folder.runs() if (record := _record(run)) is not None]))
    return FolderState(folder.path, states, faults, at_work, _litter(folder.path), early)


def _record(run: RunDir) -> RunRecord | None:
    try:
        return run.record if run.begun else None
    except KitError:
        return None


def _state_of(run: RunDir) -> RunState:
    place = run.path.resolve().parts
    name = "/".join(place[-5:] if place[-5:-4] == ("tuning",) else place[-3:])
    if holder := holder_of_run(run):
        lives = holder.owner is not None and holder.owner.alive
        far = "" if lives else "; of another machine: whether it lives is known after a minute"
        return RunState(name, "claimed", f"by {holder}{far}")
    try:
        record = run.record if run.begun else None
        if record and record.status == "finished":
            _need_whole(run, record)
            return RunState(name, "complete")
    except KitError as error:
        return _damaged(name, error, run)
    return _unfinished(name, run, record)


def _damaged(name: str, error: KitError, run: RunDir) -> RunState:
    about, _, advice = str(error).rpartition("; ")
    return RunState(name, "damaged", about.replace(f"{run.path}/", ""), advice)


def _need_whole(run: RunDir, record: RunRecord) -> None:
    """Read all that a finished run left; KitError for the first file that is not what was written."""
    needed = (*run.needed, run.oof, run.test)
    wrong = [path for path in run.artefacts if (run.left(path) or path in needed) and not run.is_whole(path)]
    if len(wrong) == 1:
        run.checked(wrong[0])
    elif wrong:
        mend = PREDICTED_ANEW if {*wrong} <= {run.oof, run.test} else TRAINED_ANEW
        raise Damaged(f"{some(path.name for path in wrong)} are damaged or missing; {mend}")
    if record.files:
        return
    for path in (run.oof, run.test):  # of an early version: whether they can be read
        read_predictions(path)
    RateRecord.load(run.rates)
    read_history(run.history)
    _read_weights(run.weights)


def _read_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise KitError(f"{path} is damaged ({error}); {TRAINED_ANEW}") from error


def _unfinished(name: str, run: RunDir, record: RunRecord | None) -> RunState:
    from kit.training.checkpoint import read_checkpoint  # it brings torch

    status = record.status if record else "begun"
    why = f"{status}: {record.error}; " if record and record.error else ""
    wrong = []
    for path in filter(Path.is_file, (run.checkpoint, run.checkpoint_before)):
        try:
            step = int(read_checkpoint(path)["step"])
        except Damaged as error:
            wrong.append(str(error).replace(f"{run.path}/", ""))
            continue
        told = "; ".join([f"{why}from update {step}, {_age(path)} old", *wrong])
        return RunState(name, "resumable", told, f"{NEXT} goes on")
    if wrong:
        return RunState(name, "damaged", "; ".join(wrong), f"{NEXT} begins this run anew")
    if status == "diverged":
        advice = "lower the policy's lr, or set training.clip_grad: as it is, it ends alike again"
        return RunState(name, status, (record.error or "") if record else "", advice)
    if status in ("failed", "stopped"):
        return RunState(name, status, (record.error or "") if record else "", f"{NEXT} begins it anew")
    return RunState(name, "begun", "without a checkpoint yet", f"{NEXT} begins it anew")


def _age(path: Path) -> str:
    seconds = max(0.0, time.time() - path.stat().st_mtime)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _faults(folder: ExperimentDir, records: Sequence[RunRecord]) -> Iterator[Fault]:
    """What is wrong with the files that all runs share; those that tune follow plans of their own."""
    shared: list[tuple[str, Callable[[], object]]] = [
        ("manifest.json", partial(manifest.listed, folder.path)),
        ("experiment.yaml", partial(_need_config, folder, bool(records))),
        ("folds.csv", partial(_need_plan, folder, records)),
    ]
    for file in (*sorted(folder.path.glob("*/scores.json")), folder.comparison):
        if file.is_file():
            name = file.relative_to(folder.path).as_posix()
            shared.append((name, partial(read_object, file, _remedy(name))))
    found = {name: fault for name, look in shared if (fault := _fault(folder, name, look))}
    yield from found.values()
    for file in () if "manifest.json" in found else manifest.damaged(folder.path):
        name = file.relative_to(folder.path).as_posix()
        if name not in found:
            yield Fault(name, "is not what was written" if file.exists() else "is missing", _remedy(name))


def _fault(folder: ExperimentDir, file: str, look: Callable[[], object]) -> Fault | None:
    """What a look at a file complains of; None where all is well."""
    try:
        look()
    except KitError as error:
        about, _, advice = str(error).rpartition("; ")
        return Fault(file, about.removeprefix(f"{folder.path}/{file}").lstrip(": "), advice)
    except OSError as error:
        return Fault(file, f"cannot be read ({error.strerror})", _remedy(file))
    return None


def _need_config(folder: ExperimentDir, needed: bool) -> None:
    """Raise KitError where the stored config is damaged, or is missing beside runs."""
    if needed and not folder.config.is_file():
        raise KitError(f"{folder.config} is missing; bring it along with the runs that it belongs to")
    try:
        stored_experiment(folder)
    except KitError as error:
        if str(error).endswith(BACK):
            raise
        raise KitError(f"{folder.config} cannot be read ({error}); {BACK}") from error


def _remedy(name: str) -> str:
    """What to do about a file that the manifest names."""
    if "/" in name:
        return f"{NEXT} writes it anew"
    if name.startswith("comparison"):
        return "python -m kit compare writes it anew"
    return BACK


def _need_plan(folder: ExperimentDir, records: Sequence[RunRecord]) -> None:
    """Raise KitError where there are runs, and the fold plan is not theirs."""
    if not records:
        return
    try:
        frame = pd.read_csv(folder.folds, dtype={"id": str}, keep_default_na=False)
        ids, fold = frame["id"].tolist(), frame["fold"].to_numpy(dtype="int64")
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise KitError(f"{folder.folds} is no fold plan ({reason}); {BACK}") from error
    there = {FoldPlan(ids, fold, forward=forward).digest for forward in (False, True)}
    if other := [record.key for record in records if record.depends_on.get("folds", "") not in {*there, ""}]:
        raise KitError(f"{folder.folds} is another fold plan than {other[0]} followed; {BACK}")


def _litter(folder: Path) -> list[str]:
    """What processes left that are known to be gone: temporary files, and claims."""
    files = [each.path for each in litter_in(folder) if each.alive is False]
    places = {folder, *(path for pattern in RUNS for path in folder.glob(pattern))}
    claims = [file for place in sorted(places) for file in dead_claims(place)]
    done = [path for run in map(RunDir, sorted(places)) for path in run.left_over]
    return [path.relative_to(folder).as_posix() for path in (*files, *claims, *done)]
