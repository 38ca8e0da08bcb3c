"""Whether a command finds all that it would make: every run finished, and predicted as the config asks for.

It is found by what a run is checked by before it is trained: config, labels, files of images, folds, weights, own
code, the reading of pixels, views, test set, and the digests of the files of predictions. For that no model is
built, and torch is not imported.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from kit.core.claims import Claim
from kit.core.errors import Say
from kit.core.files import need_writable
from kit.core.manifest import mend
from kit.core.runs import ExperimentDir, RunKey
from kit.core.stopping import telling
from kit.experiment.config import ExperimentConfig
from kit.experiment.due import due_of
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.prediction_size import need_room
from kit.experiment.prepare import kept
from kit.experiment.settle import settle
from kit.experiment.shared_folder import tidy
from kit.training.tracker import need_tracker


@dataclass(frozen=True)
class AllThere:
    """An experiment whose runs are all finished, in whose folder this process works.

    As a context manager it tells others, at the end, that it no longer does.
    """

    loaded: LoadedExperiment
    member: Claim

    def __enter__(self) -> "AllThere":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.member.release()


@telling("while it was looked at what is there; the same command looks again")
def all_is_there(
    config: ExperimentConfig, options: RunOptions, keys: Sequence[RunKey], say: Say
) -> AllThere | None:
    """Return the experiment where every run is finished and predicted as the config asks for.

    Parameters
    ----------
    config : ExperimentConfig
    options : RunOptions
    keys : sequence of RunKey
        The runs that are asked for.
    say : callable
        Takes lines about what is odd in the data; none where there is something to do, as `Runner.set_up` tells
        the same then.

    Returns
    -------
    AllThere or None
        None where anything is to be trained, predicted or decoded, where it is of another config or of other data,
        and where a budget, a cluster or several processes have a part in it.

    Raises
    ------
    KitError
        As `Runner.set_up` does, for what the data and the options cannot be.
    """
    dirs = options.dirs
    folder = ExperimentDir(dirs.runs / config.name)
    apart = options.on is not None or options.replace or int(os.environ.get("WORLD_SIZE", 1)) > 1
    if apart or options.limit(config.budget).limited or not all(folder.run(key).finished for key in keys):
        return None
    for path in (dirs.runs, dirs.cache, dirs.submissions):
        need_writable(path)
    lines: list[str] = []
    if (loaded := _opened(config, folder, options, keys, lines.append)) is None:
        return None
    if (looked := kept(loaded, dirs, lines.append)) is None:
        return None
    loaded, train, test = looked
    runs = [run for name in config.policies for run in folder.runs(name)]
    if loaded.differs or any(due_of(run, loaded, test, with_test=True, views=True) for run in runs):
        return None
    for line in lines:
        say(line)
    tidy(folder, dirs, say)
    if (member := settle(loaded, train, dirs, False, options.fold_file, say)) is None:
        return None
    return AllThere(loaded, member)


def _opened(
    config: ExperimentConfig, folder: ExperimentDir, options: RunOptions, keys: Sequence[RunKey], say: Say
) -> LoadedExperiment | None:
    """Open the experiment as `prepare.check` does; None where the folder is of another config or of other data."""
    mend(folder.path, say)
    loaded = LoadedExperiment.open(config, folder, options.dirs, folds=options.fold_file, replace=True, say=say)
    need_room(loaded, keys, say)
    need_tracker(config.training.tracker)
    return None if loaded.differs else loaded
