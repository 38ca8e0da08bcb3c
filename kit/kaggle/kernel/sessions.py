"""What becomes of pushed kernels on Kaggle: wait for them, tell why one failed, follow its log."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kit.core.errors import KitError, Say
from kit.kaggle.client import Kaggle, PushedKernel, Session, kernel_url
from kit.kaggle.kernel.ended import EndedSession, Expected, judge
from kit.kaggle.retry import Refused

POLL = 15.0  # seconds between two looks at a session
NEWS = 60.0  # seconds between two lines that say the same
UNKNOWN = 120.0  # seconds for which Kaggle may not know a version that was just pushed


def wait(
    kernel: PushedKernel,
    kaggle: Kaggle,
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
    needs: Expected | None = None,
) -> EndedSession:
    """Wait until this version of the kernel has ended.

    Parameters
    ----------
    pause : callable
        What to sleep with; takes seconds.
    needs : Expected, optional
        What it has to leave; without it, Kaggle's status alone decides.
    """
    underway = RunningSession(kernel, needs, time.monotonic())
    while (ended := underway.poll(kaggle, say)) is None:
        pause(POLL)
    return ended


def follow_log(kernel: PushedKernel, kaggle: Kaggle, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield the lines of this version's log as they come, until it has ended."""
    seen, begun = 0, time.monotonic()
    while not _session(kernel, kaggle, begun).ended:
        with contextlib.suppress(OSError, Refused):  # broken, or not begun: it comes again from the first line
            for number, line in enumerate(kaggle.log_stream(kernel)):
                if number >= seen:
                    yield line
                seen = max(seen, number + 1)
        pause(POLL / 3)
    yield from kaggle.outputs(kernel).log[seen:]


@dataclass
class RunningSession:
    """A pushed kernel that is waited for.

    Attributes
    ----------
    kernel : PushedKernel
        The version.
    needs : Expected or None
        What it has to leave.
    begun : float
        When the waiting began, by `time.monotonic`.
    told : str
        The status that was said last.
    last : float
        When that was said, by `time.monotonic`.
    """

    kernel: PushedKernel
    needs: Expected | None
    begun: float
    told: str = ""
    last: float = 0.0

    def status(self, kaggle: Kaggle, say: Say) -> Session:
        """Ask how far it is, and say so where it goes on and that is news."""
        session, now = _session(self.kernel, kaggle, self.begun), time.monotonic()
        if not session.ended and (session.status != self.told or now - self.last >= NEWS):
            say(f"{self.kernel}: {session.status}, {(now - self.begun) / 60:.0f} min")
            self.told, self.last = session.status, now
        return session

    def poll(self, kaggle: Kaggle, say: Say) -> EndedSession | None:
        """Ask how far it is; once it has ended, say how, and return that."""
        if not (session := self.status(kaggle, say)).ended:
            return None
        ended = judge(self.kernel, session, kaggle, self.needs)
        say(f"{self.kernel}: {ended.outcome}, {(time.monotonic() - self.begun) / 60:.0f} min")
        return ended


def wait_for_kernel(reference: str, kaggle: Kaggle, say: Say, pause: Callable[[float], None] = time.sleep) -> None:
    """Wait until the kernel, whose outputs are attached, has ended; KitError where it has not ended well.

    Parameters
    ----------
    reference : str
        owner/slug, of which Kaggle attaches the latest version, or owner/slug/version.
    """
    owner, slug, *stated = reference.split("/")
    version = int(stated[0]) if stated else kaggle.latest_version(owner, slug)
    if not version:  # unknown: Kaggle says so itself when the kernel is pushed
        return
    kernel = PushedKernel(owner, slug, version, kernel_url(owner, slug))
    underway = RunningSession(kernel, None, time.monotonic())
    while not (session := underway.status(kaggle, say)).ended:
        pause(POLL)
    if session.status != "COMPLETE":
        raise KitError(
            f"{kernel}, whose outputs this kernel attaches, ended with {session.status}; push that again first, "
            "or build this one without it (kernel.kernels)"
        )


def _session(kernel: PushedKernel, kaggle: Kaggle, begun: float) -> Session:
    """Return the session of the version; a version that Kaggle does not know yet is queued."""
    try:
        return kaggle.session(kernel)
    except Refused as error:
        if error.status == 404 and time.monotonic() - begun < UNKNOWN:
            return Session("QUEUED", "")
        raise
