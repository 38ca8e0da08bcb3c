"""What a kernel made is brought home: verified, put into the run directory, pooled as if trained here."""

import contextlib
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.competition.config import CompetitionConfig
from kit.competition.folds import FoldPlan, read_folds
from kit.competition.load import load_competition
from kit.core.errors import Damaged, KitError, Say, some
from kit.core.files import is_safe, parse_json, sha256, whole_folder, write_bytes, write_text
from kit.core.manifest import need_listed, noting
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import changed_keys, digests, stored_experiment, with_what_was_run_before
from kit.experiment.fold_plan import REMEDY
from kit.experiment.own_files import files_of_code
from kit.experiment.shared_folder import claim_run, holder_of_run, writing
from kit.kaggle.client import Kaggle, PushedKernel
from kit.kaggle.facts import PROBE
from kit.kaggle.kernel.folder import BuildRecord, KernelFolder
from kit.kaggle.kernel.push import pushed_kernel

KAGGLES_OWN = re.compile(r"__[^/]*|custom\.css")  # beside the kernel's outputs
LISTED = "outputs.json"
OF_ONE_RUN = ("policy", "seed", "fold")  # of what a run depends on, all else is what the runs share


@dataclass(frozen=True)
class FetchResult:
    """What was fetched of a kernel.

    Attributes
    ----------
    folder : Path
        Where the outputs lie.
    files : int
        How many came.
    runs : list of str
        Those that were put into the run directory, as policy/seed/fold.
    experiment : ExperimentConfig or None
        What a train kernel has trained.
    trouble : str
        Of a kernel that did not end well: how it ended, and which of its runs are missing; else "".
    """

    folder: Path
    files: int
    runs: list[str]
    experiment: ExperimentConfig | None
    trouble: str = ""


@dataclass
class FetchedKernels:
    """What was fetched of several kernels.

    Attributes
    ----------
    experiments : dict
        Name → experiment, with the policies of all kernels that trained it.
    troubles : list of str
        What went wrong, a line each.
    """

    experiments: dict[str, ExperimentConfig] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def fetch_kernels(
    kernels: Sequence[KernelFolder],
    kaggle: Kaggle,
    output: str | Path = ".",
    *,
    skip_unpushed: bool = False,
    say: Say = print,
) -> FetchedKernels:
    """Fetch several kernels; one that cannot be fetched does not keep the others from it.

    Parameters
    ----------
    kernels : sequence of KernelFolder
        Built kernels.
    output : str or Path
        Holds runs/.
    skip_unpushed : bool
        Whether kernels that were not pushed yet are passed over with a line; else they are troubles.
    """
    all_fetched = FetchedKernels()
    for kernel in kernels:
        if skip_unpushed and not kernel.push:
            say(f"{kernel.path}: not pushed yet")
            continue
        try:
            fetched = fetch(kernel.path, kaggle, output, say)
        except KitError as error:  # the others' outputs are worth having all the same
            all_fetched.troubles += str(error).splitlines()
            continue
        if fetched.trouble:
            all_fetched.troubles.append(fetched.trouble)
        if (new := fetched.experiment) is not None:
            before = all_fetched.experiments.get(new.name, new)
            policies = before.policies | new.policies
            all_fetched.experiments[new.name] = new.model_copy(update={"policies": policies})
    return all_fetched


def fetch(path: str | Path, kaggle: Kaggle, output: str | Path = ".", say: Say = print) -> FetchResult:
    """Download the outputs of the pushed version of a kernel, and put its runs into the run directory.

    The outputs go to kernels/build/<slug>/output, the runs of a train kernel into runs/ below `output`; of one
    that failed, those that it had finished.

    Raises
    ------
    KitError
        Where the kernel has not ended or left no outputs, for names that lead out of the folder, for files that
        are missing or damaged, for runs of another config, fold plan, data or weights than those that are there,
        and where one would take the place of a run that is there.
    """
    folder, kernel = KernelFolder.at(path), pushed_kernel(path)
    if folder.pushed_record.kind == "probe":
        raise KitError(f"{path} is a probe; {PROBE} reads what it reports")
    record, session = folder.pushed_record, kaggle.session(kernel)
    if not session.ended:
        raise KitError(f"{kernel} is {session.status}, so it has no outputs yet: python -m kit kernel wait {path}")
    well, logs = session.status == "COMPLETE", f"python -m kit kernel logs {path}"
    listed = kaggle.outputs(kernel).files
    if not well and LISTED not in listed:
        raise KitError(f"{kernel} ended with {session.status}, not COMPLETE: {logs}")
    files = _download(_wanted(listed, kernel), folder.output, kaggle, say)
    say(f"{kernel}: {len(files)} files in {folder.output}, as the kernel left them")
    trouble = "" if well else f"{kernel} ended with {session.status} ({logs})"
    if record.kind == "infer":
        return FetchResult(folder.output, len(files), [], None, trouble)
    root = Path(output).expanduser()
    try:
        experiment, runs = take_runs(folder, root, say)
    except KitError as error:
        raise error if well else KitError(f"{error}; {trouble}") from error
    if not well and (missing := _missing(record, ExperimentDir(OutputDirs(root).runs / record.experiment))):
        mend = "python -m kit run, or a kernel built with --fold, trains what is missing"
        trouble += f"; missing: {some(missing, 5)}; {mend}"
    return FetchResult(folder.output, len(files), runs, experiment, trouble)


def _wanted(listed: dict[str, str], kernel: PushedKernel) -> dict[str, str]:
    """Return those of the outputs that Kaggle lists which are the kernel's own."""
    if hostile := [name for name in listed if not is_safe(name)]:
        raise KitError(
            f"{kernel}: nothing was downloaded, as these are not names of files below a folder: "
            f"{some(map(repr, hostile), 5)}"
        )
    if LISTED not in listed:
        raise KitError(f"{kernel} has no {LISTED} among its {len(listed)} outputs, so it did not reach its end")
    return {name: url for name, url in listed.items() if not KAGGLES_OWN.fullmatch(name)}


def _missing(record: BuildRecord, ours: ExperimentDir) -> list[str]:
    """Return the runs of a kernel that are not finished here."""
    keys = [
        RunKey(policy, seed, fold) for policy in record.policies for seed in record.seeds for fold in record.folds
    ]
    return [str(key) for key in keys if not ours.run(key).finished]


def _download(wanted: dict[str, str], target: Path, kaggle: Kaggle, say: Say) -> dict[str, str]:
    """Download all files, whole and as they were; those that are here already are not downloaded again."""
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
    """Return the list of outputs, name → SHA-256; KitError where it is none."""
    try:
        hashes: dict[str, str] = parse_json(file.read_text(encoding="utf-8"))
        fine = all(is_safe(name) and re.fullmatch("[0-9a-f]{64}", digest) for name, digest in hashes.items())
    except (ValueError, TypeError, AttributeError) as error:
        raise KitError(f"{file} is no list of outputs: {error}") from error
    if not fine:
        raise KitError(f"{file} is no list of outputs: a name or a hash in it is none")
    return hashes


def take_runs(folder: KernelFolder, root: Path, say: Say) -> tuple[ExperimentConfig, list[str]]:
    """Put the finished runs in a kernel's outputs into the run directory, all or none.

    Returns
    -------
    ExperimentConfig
        What the kernel has trained, with the paths of this machine.
    list of str
        The runs that were put there, as policy/seed/fold.
    """
    record = folder.pushed_record
    theirs = ExperimentDir(folder.output / "runs" / record.experiment)
    ours = ExperimentDir(OutputDirs(root).runs / record.experiment)
    if (experiment := stored_experiment(theirs)) is None:
        raise KitError(f"{theirs.path} holds no experiment, so the kernel trained nothing")
    path = CompetitionConfig(**record.competition).path
    at_home: dict[str, Any] = {"competition": experiment.competition.model_copy(update={"path": path})}
    if record.weights:
        at_home["model"] = experiment.model.model_copy(update={"weights": record.weights})
    experiment = experiment.model_copy(update=at_home)
    came = [run for policy in record.policies for run in theirs.runs(policy) if run.finished]
    if not came:
        raise KitError(f"{theirs.path} holds no finished run of {some(record.policies)}")
    dirs = {run.path.relative_to(theirs.path): run for run in came}
    for run in came:  # all of it, before anything takes a place
        if damaged := run.damaged():
            raise Damaged(
                f"{damaged[0]} is not what the kernel's run.json says of it; nothing is taken: fetch again, or "
                "push the kernel again"
            )
    with writing(ours, f"takes runs that a kernel made of {record.experiment}", say), ExitStack() as claims:
        _need_same(experiment, theirs, ours, dirs)
        due = _claimed(_to_take(dirs, ours, say), ours, claims, say)
        _write_shared(experiment, theirs, ours)
        for place, run in due.items():
            with whole_folder(ours.path / place) as draft:
                shutil.copytree(run.path, draft, dirs_exist_ok=True)
    return experiment, [place.as_posix() for place in due]


def _write_shared(experiment: ExperimentConfig, theirs: ExperimentDir, ours: ExperimentDir) -> None:
    """Write what all runs share: the fold plan where there is none, the config, and the user's own code."""
    code, text = files_of_code(experiment, tolerant=True), with_what_was_run_before(experiment, ours).to_yaml()
    folds = [] if ours.folds.is_file() else [ours.folds]
    with noting(ours.path, *folds, ours.config, *(ours.path / name for name in code)):
        for path in folds:
            write_text(path, theirs.folds.read_text(encoding="utf-8"))
        for name, content in code.items():
            write_bytes(ours.path / name, content)
        write_text(ours.config, text)


def _to_take(dirs: dict[Path, RunDir], ours: ExperimentDir, say: Say) -> dict[Path, RunDir]:
    """Return those of the runs that came which are not here, and on which no process works here.

    Raises
    ------
    KitError
        Where what is here in the place of one is other work.
    """
    due = {}
    for place, run in dirs.items():
        mine = RunDir(ours.path / place)
        if holder := holder_of_run(mine):
            say(f"{place} is not taken: {holder} works on it here")
        elif _is_there(run, mine, say):
            say(f"{place} is here already")
        else:
            due[place] = run
    return due


def _claimed(due: dict[Path, RunDir], ours: ExperimentDir, claims: ExitStack, say: Say) -> dict[Path, RunDir]:
    """Claim the places of runs, and return those that could be had."""
    taken = {}
    for place, run in due.items():
        if (mine := claim_run(RunDir(ours.path / place), f"fetches {place}")) is None:
            say(f"{place} is not taken: another process has just begun to work on it here")
            continue
        claims.enter_context(mine)
        taken[place] = run
    return taken


def _is_there(run: RunDir, mine: RunDir, say: Say) -> bool:
    """Return whether a run is here already, undamaged; KitError where what is here in its place is other work."""
    if mine.finished:
        if mine.record.fingerprint == run.record.fingerprint:
            if damaged := mine.damaged():
                say(f"{damaged[0]} is damaged; the kernel's run takes its place")
            return not damaged
        raise KitError(f"{mine.path} is finished and another training than {run.path}; {_way_out(mine.path)}")
    if mine.resumable:
        raise KitError(
            f"{mine.path} is under way and holds a checkpoint, so {run.path} does not take its place; nothing is "
            "taken: let python -m kit run end it, or remove it"
        )
    return False


def _way_out(mine: Path) -> str:
    return f"nothing is taken: move {mine} away, or train under another name (--set name=...)"


def _need_same(
    experiment: ExperimentConfig, theirs: ExperimentDir, ours: ExperimentDir, dirs: dict[Path, RunDir]
) -> None:
    """Raise KitError unless the runs that came go together with what is here.

    They have to be of the config, the folds, the data and the weights of the runs that are here, and of the data
    and the weight file that are here.
    """
    if changed := changed_keys(experiment, ours):
        raise KitError(
            f"the kernel trained another config than {ours.path} holds ({some(changed, 5)}); {_way_out(ours.path)}"
        )
    came = [(run, run.record.depends_on) for run in dirs.values()]
    for mine in ours.runs():
        if mine.path.relative_to(ours.path) in dirs and not (mine.finished or mine.resumable):
            continue  # it gives way
        here = mine.record.depends_on
        for run, then in came:
            shared = [name for name in {**here, **then} if name not in OF_ONE_RUN]
            if odd := [name for name in shared if then.get(name) != here.get(name)]:
                raise KitError(
                    f"{run.path} was trained on other {' and '.join(odd)} than {mine.path}; {_way_out(ours.path)}"
                )
    side = ours if ours.folds.is_file() else theirs
    need_listed(side.path, plan := side.folds, REMEDY)
    if Path(experiment.competition.path).expanduser().is_dir():
        competition = load_competition(experiment.competition)
        forward = experiment.folds.time is not None
        now = digests(experiment, competition, read_folds(plan, competition.ids, forward))
    else:
        now = {"folds": _digest(plan, experiment.folds.time is not None)}
    for run, then in came:
        if odd := [name for name in now if then.get(name) != now[name]]:
            raise KitError(
                f"{run.path} was trained on other {' and '.join(odd)} than are here; nothing is taken: train it "
                "anew, or bring back what it was trained on"
            )


def _digest(plan: Path, forward: bool) -> str:
    """Return the digest of the fold plan in a file, whatever rows it is of."""
    import pandas as pd

    frame = pd.read_csv(plan, dtype={"id": str}, keep_default_na=False)
    return FoldPlan(frame["id"].tolist(), frame["fold"].to_numpy(), forward=forward).digest
