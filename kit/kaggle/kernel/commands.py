"""The commands `kit kernel …` as functions of `kit`, named `kernel_…`: each gives one result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.core.errors import KitError, Say, ignore
from kit.kaggle.answers import PushedKernel, Session
from kit.kaggle.client import Kaggle
from kit.kaggle.facts import PROBE
from kit.kaggle.kernel import push as pushing
from kit.kaggle.kernel import sessions as waiting
from kit.kaggle.kernel.ended import EndedSession, expected_of
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.push import SESSIONS, pushed_kernel, select_kernels
from kit.kaggle.kernel.sessions import follow_log, log_of, session_of


@dataclass(frozen=True)
class KernelPushResult:
    """What was pushed.

    Attributes
    ----------
    kernels : list of PushedKernel
        The versions on Kaggle.
    ended : list of EndedSession
        How they ended; empty where it was not waited for.
    """

    kernels: list[PushedKernel]
    ended: list[EndedSession]


@dataclass(frozen=True)
class KernelWaitResult:
    """How the kernels ended that were waited for."""

    ended: list[EndedSession]


@dataclass(frozen=True)
class KernelStatus:
    """How far a kernel is; `pushed` and `session` are None where it was not pushed yet."""

    folder: KernelFolder
    pushed: PushedKernel | None
    session: Session | None

    def __str__(self) -> str:
        if self.session is None:
            return f"{self.folder.path}: not pushed yet"
        failure = f" ({self.session.failure})" if self.session.failure else ""
        return f"{self.pushed}: {self.session.status}{failure}"


@dataclass(frozen=True)
class KernelStatusResult:
    """How far several kernels are."""

    kernels: list[KernelStatus]


@dataclass(frozen=True)
class KernelLogs:
    """The lines of a kernel's log."""

    lines: list[str]


def push(
    folders: Sequence[str | Path] = (),
    *,
    everything: bool = False,
    wait: bool = False,
    sessions: int = SESSIONS,
    unrehearsed: bool = False,
    output: str | Path = ".",
    say: Say = ignore,
) -> KernelPushResult:
    """Send built kernels to Kaggle, which runs them; several are pushed as sessions get free, and waited for.

    Parameters
    ----------
    folders : sequence of path
        Built kernels.
    everything : bool
        Every train kernel in kernels/build below `output` instead.
    wait : bool
        Wait for a single one, too.
    sessions, unrehearsed
        As in `kit.kaggle.kernel.push.push_all`.
    """
    kernels = select_kernels(list(map(str, folders)), everything, Path(output))
    if probes := [str(kernel.path) for kernel in kernels if kernel.record.kind == "probe"]:
        raise KitError(f"{probes[0]} is a probe; {PROBE} pushes it, and reads what it reports")
    kaggle = Kaggle(say)
    if everything or len(kernels) > 1:
        ended = pushing.push_all(
            kernels, kaggle, sessions=sessions, unrehearsed=unrehearsed, output=output, say=say
        )
        return KernelPushResult([each.kernel for each in ended], ended)
    pushed = pushing.push(kernels[0].path, kaggle, unrehearsed=unrehearsed, output=output, say=say)
    return KernelPushResult([pushed], [_waited_for(kernels[0], kaggle, say)] if wait else [])


def wait(folder: str | Path, *, say: Say = ignore) -> KernelWaitResult:
    """Wait until the pushed version of a kernel has ended."""
    return KernelWaitResult([_waited_for(KernelFolder.at(folder), Kaggle(say), say)])


def status(
    folders: Sequence[str | Path] = (), *, everything: bool = False, output: str | Path = ".", say: Say = ignore
) -> KernelStatusResult:
    """Tell how far the pushed versions of kernels are; `folders` and `everything` as for `push`."""
    kaggle, told = Kaggle(say), []
    for kernel in select_kernels(list(map(str, folders)), everything, Path(output)):
        if everything and not kernel.push:
            told.append(KernelStatus(kernel, None, None))
            continue
        pushed = pushed_kernel(kernel.path)
        told.append(KernelStatus(kernel, pushed, session_of(pushed, kaggle)))
    return KernelStatusResult(told)


def logs(folder: str | Path, *, follow: bool = False, say: Say = ignore) -> KernelLogs:
    """Return the log of the pushed version; with `follow`, `say` takes its lines as they come, until it ends."""
    kaggle, kernel, lines = Kaggle(), pushed_kernel(folder), []
    for line in follow_log(kernel, kaggle) if follow else log_of(kernel, kaggle):
        say(line)
        lines.append(line)
    return KernelLogs(lines)


def _waited_for(folder: KernelFolder, kaggle: Kaggle, say: Say) -> EndedSession:
    return waiting.wait(
        pushed_kernel(folder.path),
        kaggle,
        say,
        needs=expected_of(folder),
        goes_on=f"python -m kit kernel wait {folder.path}",
    )
