"""With which runs an infer kernel was built: Kaggle mounts the latest version of a kernel, whichever that is then.

The kernel compares them with what is mounted before it predicts (`need_attached_runs` in kernels/launcher.py).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kit.core.errors import Damaged, KitError, some
from kit.core.files import sha256
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.views import views_of_runs
from kit.kaggle.kernel.folder import KernelFolder, built

ANEW_THERE = (
    "state these, or predict anew here (python -m kit run) and attach runs/ as a dataset instead of the kernels"
)
AttachedRuns = Mapping[str, Mapping[str, str]]  # kernel → folder of a run in its outputs → SHA-256 of its run.json


def fetched_runs(experiment: ExperimentConfig, root: Path) -> dict[str, dict[str, str]]:
    """Return the runs that an infer kernel predicts with, of the kernels that it attaches, as they were fetched.

    Of a run stands the SHA-256 of its run.json, which holds those of its other files.

    Parameters
    ----------
    experiment : ExperimentConfig
        Its first policy predicts; `kernel.kernels` are attached.
    root : Path
        Holds kernels/build/.

    Returns
    -------
    dict of str to dict of str to str
        owner/slug → folder of the run in its outputs → SHA-256. A kernel without fetched runs is left out.

    Raises
    ------
    KitError
        Where a run that was fetched is damaged.
    """
    attached = experiment.kernel.kernels or ()
    found = {reference_of(folder): folder for folder in built(root) if folder.push}
    runs = {reference: _runs(found[reference], experiment) for reference in attached if reference in found}
    return {reference: each for reference, each in runs.items() if each}


def reference_of(folder: KernelFolder) -> str:
    """Return owner/slug of a kernel that was pushed."""
    return f"{folder.push['owner']}/{folder.push['slug']}"


def _runs(folder: KernelFolder, experiment: ExperimentConfig) -> dict[str, str]:
    if _older(folder):  # what Kaggle mounts is another
        return {}
    theirs = ExperimentDir(folder.output / "runs" / experiment.name)
    try:
        finished = theirs.finished(next(iter(experiment.policies)))
    except Damaged as error:
        raise KitError(f"{error.args[0].partition(';')[0]}; python -m kit kernel fetch {folder.path}") from error
    return {run.path.relative_to(folder.output).as_posix(): sha256(run.path / "run.json") for run in finished}


def views_notes(experiment: ExperimentConfig, attached: AttachedRuns, root: Path) -> list[str]:
    """Return what to know of the views in which an infer kernel predicts: those of out-of-fold predictions.

    Parameters are those of `attached_notes`; where no fetched run is attached, the runs here are looked at.

    Raises
    ------
    KitError
        Where the kernel would refuse the runs, as they were predicted at different sizes.
    """
    folders = {reference_of(folder): folder for folder in built(root) if folder.push}
    runs = [RunDir(folders[reference].output / place) for reference in attached for place in attached[reference]]
    here = ExperimentDir(OutputDirs(root).runs / experiment.name)
    notes: list[str] = []
    if runs:
        views_of_runs(runs, experiment, notes.append, ANEW_THERE)
    elif runs := list(here.finished(next(iter(experiment.policies)))):
        views_of_runs(runs, experiment, notes.append)
    return notes


def _older(folder: KernelFolder) -> int | None:
    """Return the version that was fetched, where another was pushed since; else None."""
    version = folder.fetched.get("version")
    return None if version in (None, folder.push["version"]) else version


def attached_notes(experiment: ExperimentConfig, attached: AttachedRuns, root: Path) -> list[str]:
    """Return what the user should know of the kernels that an infer kernel attaches.

    Parameters
    ----------
    experiment, root
        As in `fetched_runs`.
    attached : mapping
        What `fetched_runs` has found.
    """
    kernels = experiment.kernel.kernels or ()
    if not kernels:
        return []
    notes = [f"attaches the outputs of {some(kernels)}: on Kaggle the latest complete version of each"]
    unknown = [reference for reference in kernels if reference not in attached]
    older = {reference_of(folder): folder for folder in built(root) if folder.push and _older(folder)}
    notes += [_note_of_older(older[reference]) for reference in unknown if reference in older]
    if unfetched := [reference for reference in unknown if reference not in older]:
        notes.append(
            f"{some(unfetched)}: not fetched here, so the kernel cannot tell whether what Kaggle mounts is what "
            "you mean (python -m kit kernel fetch, then build again)"
        )
    if left := _not_attached(experiment, attached, root, unknown):
        also = experiment.kernel.datasets or experiment.kernel.models
        notes.append(
            f"WARNING: it predicts without {some(left, 5)}: finished here, but in no kernel that it attaches"
            f"{f', unless {some(also)} holds them' if also else ''}; pack runs/ into an archive in a dataset, "
            "which Kaggle unpacks, and name that in kernel.datasets"
        )
    return notes


def _note_of_older(folder: KernelFolder) -> str:
    return (
        f"{reference_of(folder)}: version {_older(folder)} was fetched here, and version {folder.push['version']} "
        "was pushed since, which Kaggle mounts once it is complete: the kernel cannot tell whether its runs are "
        f"what you mean (python -m kit kernel fetch {folder.path}, then build again)"
    )


def _not_attached(
    experiment: ExperimentConfig, attached: AttachedRuns, root: Path, unknown: Sequence[str]
) -> list[str]:
    """Return the runs that are finished here, and that no attached kernel holds, nor should hold."""
    here = ExperimentDir(OutputDirs(root).runs / experiment.name)
    there = {run for runs in attached.values() for run in runs}
    for folder in built(root):
        same = folder.push and folder.pushed_record.experiment == experiment.name
        if same and reference_of(folder) in unknown:
            there |= {f"runs/{experiment.name}/{place}" for place in folder.pushed_runs}
    finished: Sequence[RunDir] = here.finished(next(iter(experiment.policies)))
    return [str(run.record.key) for run in finished if run.path.relative_to(root).as_posix() not in there]
