"""What a kernel made, brought home: verified, put into the run directory, pooled as if trained here."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.competition.config import CompetitionConfig
from kit.competition.folds import FoldPlan, read_folds
from kit.competition.load import load_competition
from kit.config import Experiment
from kit.errors import KitError, some
from kit.files import sha256, write_text
from kit.identity import changed_keys, digests, stored_experiment, with_what_was_run_before
from kit.kaggle.client import Kaggle
from kit.kaggle.names import is_safe
from kit.kernel.folder import KernelFolder
from kit.kernel.push import pushed_kernel
from kit.locate import Places
from kit.runs import ExperimentDir, RunDir

Say = Callable[[str], None]

KAGGLES_OWN = re.compile(r"__[^/]*|custom\.css")  # beside the kernel's outputs
LISTED = "outputs.json"


@dataclass(frozen=True)
class Fetched:
    """files  how many came;  runs  those that are in the run directory now, as policy/seed/fold"""

    folder: Path
    files: int
    runs: list[str]
    experiment: Experiment | None


def fetch(path: str | Path, kaggle: Kaggle, output: str | Path = ".", say: Say = print) -> Fetched:
    """Downloads the outputs of the pushed version into kernels/build/<slug>/output, and puts the runs of a
    train kernel into runs/ below `output`.

    Raises KitError where the kernel has not ended well, for names that lead out of the folder, for files that
    are missing or damaged, and for runs of another config, fold plan or data than those that are there.
    """
    folder, kernel = KernelFolder.at(path), pushed_kernel(path)
    session = kaggle.session(kernel)
    if session.status != "COMPLETE":
        if session.ended:
            raise KitError(f"{kernel} ended with {session.status}, not COMPLETE: python -m kit kernel logs {path}")
        raise KitError(f"{kernel} is {session.status}, so it has no outputs yet: python -m kit kernel wait {path}")
    listed = kaggle.outputs(kernel).files
    if hostile := [name for name in listed if not is_safe(name)]:
        raise KitError(
            f"{kernel}: nothing was downloaded, as these are not names of files below a folder: "
            f"{some(map(repr, hostile), 5)}"
        )
    wanted = {name: url for name, url in listed.items() if not KAGGLES_OWN.fullmatch(name)}
    if LISTED not in wanted:
        raise KitError(f"{kernel} has no {LISTED} among its {len(listed)} outputs, so it did not reach its end")
    files = _download(wanted, folder.output, kaggle, say)
    say(f"{kernel}: {len(files)} files in {folder.output}, as the kernel left them")
    if folder.record.kind == "infer":
        return Fetched(folder.output, len(files), [], None)
    experiment, runs = take_runs(folder, Path(output).expanduser(), say)
    return Fetched(folder.output, len(files), runs, experiment)


def _download(wanted: dict[str, str], target: Path, kaggle: Kaggle, say: Say) -> dict[str, str]:
    """All files, whole and as they were; those that are here already are not downloaded again."""
    if links := [str(path) for path in (target, *target.rglob("*")) if path.is_symlink()]:
        raise KitError(f"nothing is downloaded through links: remove {some(links, 5)}")
    kaggle.download(wanted[LISTED], target / LISTED)
    hashes = _hashes(target / LISTED)
    if missing := [name for name in hashes if name not in wanted]:
        raise KitError(f"{len(missing)} files that the kernel wrote are not among its outputs: {some(missing, 5)}")
    here = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    for name in here - {*hashes, LISTED}:  # of an earlier version
        (target / name).unlink()
    for folder in sorted((path for path in target.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    for name, digest in hashes.items():
        file = target / name
        if file.is_file() and sha256(file) == digest:
            continue
        kaggle.download(wanted[name], file)
        if sha256(file) != digest:
            file.unlink()
            raise KitError(f"{name} came damaged: it is not what the kernel wrote; fetch again")
    if extra := sorted({*wanted} - {*hashes, LISTED}):
        say(f"passed over, as the kernel did not list them: {some(extra, 5)}")
    return hashes


def _hashes(file: Path) -> dict[str, str]:
    try:
        hashes = json.loads(file.read_text(encoding="utf-8"))
        fine = all(is_safe(name) and re.fullmatch("[0-9a-f]{64}", digest) for name, digest in hashes.items())
    except (ValueError, TypeError, AttributeError) as error:
        raise KitError(f"{file} is no list of outputs: {error}") from error
    if not fine:
        raise KitError(f"{file} is no list of outputs: a name or a hash in it is none")
    return hashes


def take_runs(folder: KernelFolder, root: Path, say: Say) -> tuple[Experiment, list[str]]:
    """Puts the finished runs in a kernel's outputs into the run directory, and tells which."""
    record = folder.record
    theirs = ExperimentDir(folder.output / "runs" / record.experiment)
    ours = ExperimentDir(Places(root).runs / record.experiment)
    if (experiment := stored_experiment(theirs)) is None:
        raise KitError(f"{theirs.path} holds no experiment, so the kernel trained nothing")
    at_home = {"competition": CompetitionConfig(**record.competition)}
    if record.weights:
        at_home["model"] = experiment.model.model_copy(update={"weights": record.weights})
    experiment = experiment.model_copy(update=at_home)
    came = [run for policy in record.policies for run in theirs.runs(policy) if run.finished]
    if not came:
        raise KitError(f"{theirs.path} holds no finished run of {some(record.policies)}")
    _need_same(experiment, theirs, ours, came)
    taken = []
    for run in came:
        place = run.path.relative_to(theirs.path)
        mine = RunDir(ours.path / place)
        if mine.finished and mine.read().get("fingerprint") == run.read().get("fingerprint"):
            say(f"{place} is here already")
            continue
        _copy(run.path, mine.path)
        taken.append(place.as_posix())
    if not ours.folds.is_file():
        write_text(ours.folds, theirs.folds.read_text(encoding="utf-8"))
    write_text(ours.config, with_what_was_run_before(experiment, ours).to_yaml())
    return experiment, taken


def _need_same(experiment: Experiment, theirs: ExperimentDir, ours: ExperimentDir, came: list[RunDir]) -> None:
    """KitError unless the runs that came are of the config, the folds and the data that are here."""
    if stored_experiment(ours) and (changed := changed_keys(experiment, ours)):
        raise KitError(
            f"the kernel trained another config than {ours.path} holds ({some(changed, 5)}); nothing is taken"
        )
    if not Path(experiment.competition.path).expanduser().is_dir():
        if ours.folds.is_file() and _plan(ours) != _plan(theirs):
            raise KitError(f"the kernel trained on another fold plan than {ours.folds}; nothing taken")
        return
    competition = load_competition(experiment.competition)
    plan = read_folds((ours if ours.folds.is_file() else theirs).folds, competition.ids)
    now = digests(experiment, competition, plan)
    for run in came:
        then = run.read().get("depends_on", {})
        if odd := [name for name in now if name != "weights" and then.get(name) != now[name]]:
            raise KitError(
                f"{run.path.name} was trained on other {' and '.join(odd)} than are here; nothing is taken"
            )


def _plan(folder: ExperimentDir) -> str:
    import pandas as pd

    frame = pd.read_csv(folder.folds, dtype={"id": str}, keep_default_na=False)
    return FoldPlan(frame["id"].tolist(), frame["fold"].to_numpy()).digest


def _copy(source: Path, target: Path) -> None:
    """The whole folder or nothing of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copytree(source, draft, dirs_exist_ok=True)
        draft.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
