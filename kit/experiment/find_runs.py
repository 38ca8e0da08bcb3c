"""The finished runs of a policy, wherever they lie: what an infer kernel predicts with."""

from collections.abc import Sequence
from pathlib import Path

from kit.core.errors import Damaged, KitError, some
from kit.core.paths import OutputDirs, input_root, mounted, mounts
from kit.core.runs import RunDir, RunKey, RunRecord
from kit.core.whole import digest
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import as_now, config_digest, run_digest


def usual_sources(experiment: ExperimentConfig, dirs: OutputDirs) -> list[Path]:
    """Return the experiment's own folder, and in a kernel what is attached to it."""
    kernel = experiment.kernel
    attached = [mounted(ref) for ref in (*(kernel.kernels or ()), *kernel.datasets, *kernel.models)]
    if not attached or None in attached:  # by hand, or in a form that Kaggle has thought of since
        attached.append(input_root())
    return [folder for folder in (dirs.runs / experiment.name, *attached) if folder and folder.is_dir()]


def find_runs(experiment: ExperimentConfig, policy: str, sources: Sequence[str | Path]) -> list[RunDir]:
    """Return the finished runs of one policy, wherever they lie in the folders, by seed and fold.

    Raises
    ------
    KitError
        Where there is none, where one was trained under another config or two on different data, and where two
        folders hold different runs of one seed and fold.
    """
    found: dict[RunKey, RunDir] = {}
    passed: set[str] = set()
    folders = [Path(source).expanduser().resolve() for source in sources]
    for path in sorted({file.parent for folder in folders for file in folder.rglob("fold*/run.json")}):
        run, mine = RunDir(path), path.parts[-4:-2] == (experiment.name, policy)
        try:
            if not run.finished:
                continue
        except Damaged:
            if mine:
                raise
        if not mine:
            passed.add("/".join(path.parts[-4:-2]))
            continue
        record = run.record
        _need_same_config(experiment, policy, record, run)
        key = record.key
        if key in found and digest(found[key].weights) != digest(run.weights):
            raise KitError(
                f"{found[key].path} and {run.path} are different trainings of {key}; attach one of them"
            )
        found.setdefault(key, run)
    if not found:
        where = f"in {some(sources)}" if sources else "here, and nothing is attached"
        beside = f", only of {some(sorted(passed))}" if passed else ""
        raise KitError(
            f"there is no finished run of {experiment.name}/{policy} {where}{beside}; train one, or say what "
            f"holds them: --runs DIR, for a kernel kernel.kernels or kernel.datasets{mounts()}"
        )
    runs = [found[key] for key in sorted(found)]
    _need_same_data(runs, experiment)
    for run in runs:  # rather now than after the models before it have predicted
        run.checked(run.weights)
    return runs


def _need_same_config(experiment: ExperimentConfig, policy: str, record: RunRecord, run: RunDir) -> None:
    now = {"config": config_digest(experiment), "policy": run_digest(experiment, policy)}
    then = as_now(record.depends_on, experiment)
    if changed := [name for name in now if then.get(name) != now[name]]:
        raise KitError(
            f"{run.path} was trained under another {' and '.join(changed)} than this one; predict with the one "
            "that made it, the experiment.yaml above it (a rehearsal shortened by --set is of another, too)"
        )


def _need_same_data(runs: Sequence[RunDir], experiment: ExperimentConfig) -> None:
    first, *others = [as_now(run.record.depends_on, experiment) for run in runs]
    for run, then in zip(runs[1:], others, strict=True):
        if odd := [
            name
            for name in {**first, **then}
            if name not in ("seed", "fold") and then.get(name) != first.get(name)
        ]:
            raise KitError(
                f"{runs[0].path} and {run.path} were trained on different {' and '.join(odd)}, so their mean is "
                "of no one experiment; attach those that belong together"
            )
