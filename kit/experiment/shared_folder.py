"""An experiment's folder in which several processes work, of this machine or of others that share it.

Three kinds of claims (see `kit.core.claims`) keep them apart: on a run, by who trains it or predicts with it; on
the experiment, by who writes what all runs share (config, fold plan, pooled files, comparison, report); and as a
member, by each process that trains there, from before its first run to its end.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kit.core.claims import Claim, Holder, claim, claimed, dead_claims, holder_of, holding, living_holder
from kit.core.errors import KitError, Say, ignore
from kit.core.litter import sweep
from kit.core.owner import Owner
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey

RUN, EXPERIMENT, MEMBER = "run.json", "experiment", "member"
WORK = (f"*/seed*/fold*/{RUN}", f"tuning/*/*/seed*/fold*/{RUN}", f"{MEMBER}-*")  # what who trains claims


@contextmanager
def writing(folder: ExperimentDir, what: str, say: Say = ignore) -> Iterator[None]:
    """Be the one process that writes what all runs of an experiment share; others wait.

    Parameters
    ----------
    folder : ExperimentDir
    what : str
        What is done, for those that wait: "pools tiny".
    say : callable
        Takes a line where this process waits.
    """
    missing = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        with holding(folder.path / EXPERIMENT, what, say):
            yield
    finally:
        for path in missing:  # nothing was written, as it was refused
            with suppress(OSError):
                path.rmdir()


def tidy(folder: ExperimentDir, dirs: OutputDirs, say: Say) -> None:
    """Remove what processes left that were killed: temporary files, and checkpoints of finished runs."""
    sweep((folder.path, dirs.cache, dirs.submissions), say)
    for file in folder.path.rglob("fold*/run.json"):
        for checkpoint in RunDir(file.parent).left_over:
            checkpoint.unlink(missing_ok=True)


def join(folder: ExperimentDir, what: str) -> Claim:
    """Say that this process works in the folder, until the claim is given up or the process ends."""
    for file in dead_claims(folder.path):
        if file.name.startswith(f"{MEMBER}-"):
            file.unlink(missing_ok=True)
    while (made := claim(folder.path / f"{MEMBER}-{secrets.token_hex(4)}", what)) is None:
        pass  # a name that another has drawn, too
    return made


def holders_of(folder: ExperimentDir, *patterns: str) -> list[Holder]:
    """Return the processes that hold claims on things of such paths below the folder and live, or may live."""
    holders = (holder_of(thing) for pattern in patterns for thing in claimed(folder.path, pattern))
    return [holder for holder in holders if holder]


def others_at_work(folder: ExperimentDir) -> list[Holder]:
    """Return the other processes that train in the folder, or may do so, those with a run first."""
    return [holder for holder in holders_of(folder, *WORK) if holder.owner != Owner.mine()]


def need_nobody(folder: ExperimentDir, why: str, say: Say = ignore) -> None:
    """Raise KitError where another process trains in the folder, whose runs would have to be thrown away.

    Whether one of another machine lives is known after a minute at most.

    Parameters
    ----------
    folder : ExperimentDir
    why : str
        What the folder was made from, as `LoadedExperiment.differs` says it.
    say : callable
        Takes a line where that has to be waited for.
    """
    if not others_at_work(folder):
        return
    for pattern in WORK:
        for thing in claimed(folder.path, pattern):
            holder = living_holder(thing, say)
            if holder and holder.owner != Owner.mine():
                raise KitError(
                    f"{folder.path} was made from {why}, and {holder} is at work there, so it is not replaced; "
                    "wait until that has ended, end it, or give the experiment another name (--set name=...)"
                )


def claim_run(run: RunDir, what: str) -> Claim | None:
    """Claim a run; None where another process works on it, or may do so."""
    return claim(run.path / RUN, what)


def claim_training(
    run: RunDir, key: RunKey, settled: Callable[[RunKey], bool], say: Say = ignore, surely: bool = False
) -> Claim | None:
    """Claim a run in order to train it.

    Parameters
    ----------
    run : RunDir
    key : RunKey
    settled : callable
        Whether there is nothing left to do; asked again when the run is claimed.
    say : callable
        Takes a line where it is taken over from a process that is gone.
    surely : bool
        Find out whether a process of another machine that holds it lives, which may take a minute.

    Returns
    -------
    Claim or None
        None where another process has it, or has done it.
    """
    made = claim_run(run, f"trains {key}")
    if made is None and surely and living_holder(run.path / RUN) is None:
        made = claim_run(run, f"trains {key}")
    if made is None:
        return None
    if settled(key):
        made.release()
        return None
    if made.after:
        say(f"{key}: {made.after.owner or 'a process'}, which worked on it, is gone; it is taken over")
    return made


def holder_of_run(run: RunDir) -> Holder | None:
    """Return who works on a run and lives, or may live."""
    return holder_of(run.path / RUN)


@contextmanager
def holding_run(run: RunDir, what: str, say: Say = ignore) -> Iterator[Callable[[], None]]:
    """Hold a run while the context is open, waiting for it; yields what is asked before a file is written."""
    with holding(run.path / RUN, what, say) as mine:
        yield mine.need
