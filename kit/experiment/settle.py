"""What all runs of an experiment share is written down, by one process at a time, before its first run begins."""

import shutil
from pathlib import Path

from kit.competition.folds import write_folds
from kit.competition.formulas import line_on_formulas
from kit.core.claims import Claim
from kit.core.errors import KitError, Say
from kit.core.files import write_bytes, write_text
from kit.core.manifest import noting
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.data.images import ImageSet
from kit.experiment.fingerprint import difference, with_what_was_run_before
from kit.experiment.fold_plan import read_plan
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.own_files import files_of_code
from kit.experiment.pixels import other_pixels
from kit.experiment.shared_folder import EXPERIMENT, join, need_nobody, others_at_work, writing


def settle(
    loaded: LoadedExperiment, train: ImageSet, dirs: OutputDirs, replace: bool, given: Path | None, say: Say
) -> Claim | None:
    """Write down the config, the fold plan and own code, and say to others that this process works in the folder.

    Other processes may have done so since the experiment was prepared: what is in the folder is looked at again.

    Parameters
    ----------
    loaded : LoadedExperiment
    train : ImageSet
        All training images.
    dirs : OutputDirs
    replace : bool
        Whether runs of another config or other data are thrown away.
    given : Path or None
        The fold plan that the command line names.
    say : callable
        Takes lines about what happens.

    Returns
    -------
    Claim or None
        What says that this process works here, until it is given up. None where another process has changed the
        folder meanwhile, so that the experiment has to be prepared again.

    Raises
    ------
    KitError
        Where the folder was made from something else and may not be replaced: there are runs and `replace` was not
        said, or another process is at work.
    """
    folder = loaded.folder
    with writing(folder, f"sets up {loaded.config.name}", say):
        differs = difference(loaded.config, folder, loaded.competition, loaded.depends_on, loaded.folds)
        differs = differs or other_pixels(train, folder)
        if bool(differs) != bool(loaded.differs):
            return None
        if loaded.differs:
            if not replace and any(run.finished or run.resumable for run in folder.runs()):
                loaded.need_same()
            need_nobody(folder, loaded.differs, say)
            say(f"Replacing {folder.path}: it was made from {loaded.differs}")
            _clear(folder)
        elif others_at_work(folder) and folder.folds.is_file():
            plan = read_plan(loaded.config, folder, loaded.competition)
            if plan.digest != loaded.folds.digest:
                if given:
                    raise KitError(
                        f"--folds {given}: {others_at_work(folder)[0]} works in {folder.path} and follows another "
                        "plan; leave --folds out, or give the experiment another name (--set name=...)"
                    )
                return None
        _write_down(loaded, dirs, say)
        return join(folder, f"runs {loaded.config.name}")


def _clear(folder: ExperimentDir) -> None:
    """Remove all that is in the folder, but the claim under which that happens."""
    for path in list(folder.path.iterdir()):
        if path.name.startswith(f"{EXPERIMENT}.") and path.suffix == ".claim":
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _write_down(loaded: LoadedExperiment, dirs: OutputDirs, say: Say) -> None:
    """Write the fold plan, the config, and the user's own code, by which the stored config goes."""
    config, folder, code = loaded.config, loaded.folder, files_of_code(loaded.config, tolerant=True)
    text = with_what_was_run_before(config, folder).to_yaml()
    with noting(folder.path, folder.folds, folder.config, *(folder.path / name for name in code)):
        write_folds(loaded.folds, folder.folds)
        for name, content in code.items():
            write_bytes(folder.path / name, content)
        write_text(folder.config, text)
    submission = dirs.submissions / f"{config.name}.csv"
    submitted = [*loaded.competition.submission.ids, *loaded.competition.classes]
    if line := line_on_formulas({folder.folds: loaded.folds.ids, submission: submitted}):
        say(line)
