"""What a kernel made is brought home: verified, put into the run directory, pooled as if trained here."""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kit.competition.config import CompetitionConfig
from kit.competition.folds import FoldPlan, read_folds
from kit.competition.load import load_competition
from kit.core.errors import Damaged, KitError, Say, some
from kit.core.files import is_safe, sha256, whole_folder, write_bytes, write_text
from kit.core.manifest import need_listed, noting
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import as_now, changed_keys, digests, stored_experiment, with_what_was_run_before
from kit.experiment.fold_plan import REMEDY
from kit.experiment.own_files import files_of_code
from kit.experiment.shared_folder import claim_run, holder_of_run, writing
from kit.kaggle.answers import Outputs, PushedKernel, Session
from kit.kaggle.client import Kaggle
from kit.kaggle.facts import PROBE, Facts, read_facts, why_missing
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.outputs import LISTED, OutputList, outputs_with
from kit.kaggle.kernel.push import pushed_kernel
from kit.kaggle.kernel.sessions import session_of

KAGGLES_OWN = re.compile(r"__[^/]*|custom\.css")  # beside the kernel's outputs
OF_A_RUN = re.compile(r"runs/[^/]+/[^/]+/seed\d+/fold\d+(?=/)")
OF_NOTHING = hashlib.sha256(b"").hexdigest()
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
    that failed or was stopped, those that it had finished. Hidden and empty files, and names that no file can have
    on every system, are passed over with a line.

    Raises
    ------
    KitError
        Where the kernel has not ended or left no outputs, for files that are missing (also after some minutes, as
        Kaggle may list them late) or damaged, for runs of another config, fold plan, data or weights than those
        that are there, and where one would take the place of a run that is there.
    """
    folder, kernel = KernelFolder.at(path), pushed_kernel(path)
    if folder.pushed_record.kind == "probe":
        raise KitError(f"{path} is a probe; {PROBE} reads what it reports")
    record, session = folder.pushed_record, session_of(kernel, kaggle)
    if not session.ended:
        raise KitError(f"{kernel} is {session.status}, so it has no outputs yet: python -m kit kernel wait {path}")
    well, logs = session.status == "COMPLETE", f"python -m kit kernel logs {path}"
    outputs = kaggle.outputs(kernel) if session.status == "ERROR" else outputs_with(kernel, kaggle, [LISTED])
    if not well and LISTED not in outputs.files:
        raise KitError(f"{kernel} ended with {session.status}, not COMPLETE: {logs}")
    root = Path(output).expanduser()
    listed = _download(kernel, outputs, folder.output, kaggle, read_facts(root), say)
    say(f"{kernel}: {len(listed.files)} files in {folder.output}, as the kernel left them")
    trouble = _trouble(kernel, session, listed, logs)
    if record.kind == "infer":
        if not trouble and "submission.csv" not in listed.files:
            trouble = f"{kernel} left no submission.csv ({logs})"
        return FetchResult(folder.output, len(listed.files), [], None, trouble)
    try:
        experiment, runs = take_runs(folder, root, say)
    except KitError as error:
        raise KitError("; ".join(filter(None, [str(error), trouble]))) from error
    if missing := _missing(folder, root):
        wanted = len(folder.pushed_runs)
        trouble = trouble or f"{kernel} finished {wanted - len(missing)} of {wanted} runs"
        mend = f"python -m kit kernel push {path} trains these alone, python -m kit run trains them here"
        trouble += f"; missing: {some(missing, 5)}; {mend}"
    return FetchResult(folder.output, len(listed.files), runs, experiment, trouble)


def _trouble(kernel: PushedKernel, session: Session, listed: OutputList, logs: str) -> str:
    """Say how a version ended that did not end well; "" of one that did."""
    if session.status != "COMPLETE":
        return f"{kernel} ended with {session.status} ({logs})"
    if listed.exit_code is None:
        return f"{kernel} was ended before python -m kit was ({logs})"
    if listed.exit_code:
        return f"{kernel}: python -m kit ended with exit code {listed.exit_code} ({logs})"
    return ""


def _missing(folder: KernelFolder, root: Path) -> list[str]:
    """Return the runs of the pushed version that are not finished; all of the kernel's are noted."""
    record = folder.pushed_record
    ours = ExperimentDir(OutputDirs(root).runs / record.experiment)
    theirs = ExperimentDir(folder.output / "runs" / record.experiment)
    missing = [run for run in record.runs if not any(RunDir(each.path / run).finished for each in (theirs, ours))]
    folder.write_fetched({"version": folder.push["version"], "missing": missing})
    return [run for run in folder.pushed_runs if run in missing]


def _download(
    kernel: PushedKernel, outputs: Outputs, target: Path, kaggle: Kaggle, facts: Facts | None, say: Say
) -> OutputList:
    """Download all files that the kernel listed, whole and as they were; those that are here already are kept.

    Where the session was ended from outside, runs of which not all came are left out.

    Returns
    -------
    OutputList
        The kernel's, of the files that came.
    """
    if links := [str(path) for path in (target, *target.rglob("*")) if path.is_symlink()]:
        raise KitError(f"nothing is downloaded through links: remove {some(links, 5)}")
    if LISTED not in outputs.files:
        raise KitError(
            f"{kernel} has no {LISTED} among its {len(outputs.files)} outputs, so it did not reach its end"
        )
    kaggle.download(outputs.files[LISTED], target / LISTED)
    listed = OutputList.read(target / LISTED)
    due = _to_download(listed, outputs, facts, say)
    if late := [name for name in due if name not in outputs.files]:
        outputs = outputs_with(kernel, kaggle, late)
    _clear(target, {*due, LISTED})
    lost = [name for name in due if name not in outputs.files]
    for name in due:
        file = target / name
        if name in lost or (file.is_file() and sha256(file) == listed.files[name]):
            continue
        kaggle.download(outputs.files[name], file)
        if sha256(file) != listed.files[name]:
            file.unlink()
            if listed.exit_code is not None:
                raise KitError(f"{name} came damaged: it is not what the kernel wrote; fetch again")
            lost.append(name)
    if lost:
        due = _without(lost, due, listed, target, facts, say)
    return replace(listed, files={name: listed.files[name] for name in due})


def _to_download(listed: OutputList, outputs: Outputs, facts: Facts | None, say: Say) -> list[str]:
    """Return the names of the files to download; what is passed over is told."""
    odd = [name for name in {**listed.files, **outputs.files} if not is_safe(name)]
    if odd:
        say(f"passed over, as these are not names of files below a folder: {some(map(repr, odd), 5)}")
    kaggles = filter(KAGGLES_OWN.fullmatch, outputs.files)
    if extra := sorted({*outputs.files} - {*listed.files, *odd, LISTED, *kaggles}):
        say(f"passed over, as the kernel did not list them: {some(extra, 5)}")
    due = [name for name in listed.files if name not in odd]
    left_out = [name for name in due if name not in outputs.files and _may_be_left_out(name, listed)]
    if left_out:
        say(f"passed over, as Kaggle did not keep them: {some(left_out, 5)}{why_missing(facts, left_out)}")
    return [name for name in due if name not in left_out]


def _may_be_left_out(name: str, listed: OutputList) -> bool:
    """Whether Kaggle may not keep a file: a hidden or an empty one. Early versions listed these."""
    return any(part.startswith(".") for part in name.split("/")) or listed.files[name] == OF_NOTHING


def _without(
    lost: list[str], due: list[str], listed: OutputList, target: Path, facts: Facts | None, say: Say
) -> list[str]:
    """Return those of the files that came and are of use.

    Where the session was ended from outside, those of a run of which not all came are removed; else KitError.
    """
    runs = {name: found[0] for name in due if (found := OF_A_RUN.match(name))}
    if listed.exit_code is not None or not all(name in runs for name in lost):
        raise KitError(
            f"{len(lost)} files that the kernel wrote are not among its outputs: {some(lost, 5)}"
            f"{why_missing(facts, lost)}"
        )
    broken = list(dict.fromkeys(runs[name] for name in lost))
    say(f"left out, as not all of their files are what the kernel wrote: {some(broken, 5)}")
    for run in broken:
        shutil.rmtree(target / run, ignore_errors=True)
    return [name for name in due if runs.get(name) not in broken]


def _clear(target: Path, kept: set[str]) -> None:
    """Remove what an earlier version left, and folders that are empty then."""
    for path in [path for path in target.rglob("*") if path.is_file()]:
        if path.relative_to(target).as_posix() not in kept:
            path.unlink()
    for folder in sorted((path for path in target.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


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
    came = [(run, as_now(run.record.depends_on, experiment)) for run in dirs.values()]
    for mine in ours.runs():
        if mine.path.relative_to(ours.path) in dirs and not (mine.finished or mine.resumable):
            continue  # it gives way
        here = as_now(mine.record.depends_on, experiment)
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
