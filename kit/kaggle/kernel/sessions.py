"""What becomes of pushed kernels on Kaggle: wait for them, tell why one failed, follow its log."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kit.core.errors import KitError, Say, some
from kit.core.stopping import Interrupted, Stopped
from kit.kaggle.answers import PushedKernel, Session, kernel_url
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.ended import EndedSession, Expected, judge
from kit.kaggle.retry import GRACE, NOT_YET, Refused, Unanswered

POLL = 15.0  # seconds between two looks at a session
NOT_SHOWN = "Kaggle does not show it yet"
NEWS = 60.0  # seconds between two lines that say the same
OUTAGE = 3600.0  # seconds for which one of several kernels is watched on though Kaggle does not answer


def wait(
    kernel: PushedKernel,
    kaggle: Kaggle,
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
    needs: Expected | None = None,
    goes_on: str = "the same command",
) -> EndedSession:
    """Wait until this version of the kernel has ended.

    Parameters
    ----------
    pause : callable
        What to sleep with; takes seconds.
    needs : Expected, optional
        What it has to leave; without it, Kaggle's status alone decides.
    goes_on : str
        The command that goes on waiting, for who is interrupted.
    """
    underway = RunningSession(kernel, needs, time.monotonic())
    with watched([underway], say, goes_on):
        while (ended := underway.poll(kaggle, say)) is None:
            pause(POLL)
    return ended


@contextlib.contextmanager
def watched(running: Sequence["RunningSession"], say: Say, goes_on: str) -> Iterator[None]:
    """Say which sessions go on unwatched where what is inside ends by an error, Ctrl-C or SIGTERM.

    Parameters
    ----------
    running : sequence of RunningSession
        Is looked at when the end comes.
    goes_on : str
        The command that goes on.
    """

    def sentence() -> str:
        names = some([f"{each} ({each.url})" for each in (session.kernel for session in running)], 99)
        return f"not watched any more, and may be running on Kaggle: {names}; {goes_on} goes on" if running else ""

    with left_behind(sentence, say):
        yield


@contextlib.contextmanager
def left_behind(sentence: Callable[[], str], say: Say) -> Iterator[None]:
    """Say what goes on on Kaggle where what is inside ends by an error, Ctrl-C or SIGTERM.

    Parameters
    ----------
    sentence : callable
        Returns what to say, or "" where nothing goes on; called when the end comes.
    """
    try:
        yield
    except (KitError, KeyboardInterrupt) as error:
        if not (told := sentence()):
            raise
        if isinstance(error, KeyboardInterrupt):
            tell_interrupted(error, told, say)
            raise
        if isinstance(error, Stopped):
            raise Stopped(f"{error}; {told}", error.code) from error
        raise KitError(f"{error}; {told}") from error


def tell_interrupted(error: KeyboardInterrupt, sentence: str, say: Say) -> None:
    """Let the interrupted command end with a sentence, or say it where its end has one, or cannot have one."""
    if isinstance(error, Interrupted) and not error.told:
        error.told = f"({sentence})"
    else:
        say(sentence)


def follow_log(kernel: PushedKernel, kaggle: Kaggle, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield the lines of this version's log as they come, until it has ended."""
    seen, begun = 0, time.monotonic()
    while not session_of(kernel, kaggle, begun).ended:
        with contextlib.suppress(OSError, Refused):  # broken, or not begun: it comes again from the first line
            for number, line in enumerate(kaggle.log_stream(kernel)):
                if number >= seen:
                    yield line
                seen = max(seen, number + 1)
        pause(POLL / 3)
    yield from log_of(kernel, kaggle, "try again in some minutes")[seen:]


def log_of(
    kernel: PushedKernel, kaggle: Kaggle, advice: str = "try again in some minutes, or with --follow"
) -> list[str]:
    """Return the lines of this version's log as far as it is.

    Parameters
    ----------
    advice : str
        What to do where Kaggle does not show the version yet.

    Raises
    ------
    KitError
        Where Kaggle does not show the version, or not yet.
    """
    try:
        return kaggle.outputs(kernel).log
    except (Refused, Unanswered) as error:
        if error.status not in NOT_YET:
            raise
        if just_pushed(kernel):
            raise KitError(f"{kernel}: {NOT_SHOWN}; {advice}") from error
        raise KitError(f"{error}; {not_shown(kernel, error)}") from error


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
    silent : float or None
        Since when Kaggle does not answer, by `time.monotonic`; None while it does.
    """

    kernel: PushedKernel
    needs: Expected | None
    begun: float
    told: str = ""
    last: float = 0.0
    silent: float | None = None

    def status(self, kaggle: Kaggle, say: Say) -> Session:
        """Ask how far it is, and say so where it goes on and that is news."""
        session, now = session_of(self.kernel, kaggle, self.begun), time.monotonic()
        if session.failure == NOT_SHOWN:
            if not self.told:
                say(f"{self.kernel}: {NOT_SHOWN}; looking again for up to {GRACE / 60:.0f} min")
            self.told = self.told or NOT_SHOWN
        elif not session.ended and (session.status != self.told or now - self.last >= NEWS):
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

    def patient(self, kaggle: Kaggle, say: Say) -> EndedSession | None:
        """Ask as `poll` does; where Kaggle does not answer it may run all the same, for up to `OUTAGE` seconds."""
        try:
            ended = self.poll(kaggle, say)
        except Unanswered as error:
            now = time.monotonic()
            if self.silent is None:
                self.silent = now
                say(f"{error}; {self.kernel} may be running: looking again for up to {OUTAGE / 60:.0f} min")
            if now - self.silent >= OUTAGE:
                raise
            return None
        self.silent = None
        return ended


def wait_for_kernel(
    reference: str,
    kaggle: Kaggle,
    say: Say,
    pause: Callable[[float], None] = time.sleep,
    pushed: PushedKernel | None = None,
) -> None:
    """Wait until the kernel, whose outputs are attached, has ended; KitError where it has not ended well.

    Parameters
    ----------
    reference : str
        owner/slug, of which Kaggle attaches the latest version, or owner/slug/version.
    pushed : PushedKernel, optional
        A version that was pushed from here: Kaggle may not show it yet.
    """
    owner, slug, *stated = reference.split("/")
    version = int(stated[0]) if stated else kaggle.latest_version(owner, slug)
    if pushed and not stated and pushed.version > (version or 0) and (not version or just_pushed(pushed)):
        version = pushed.version
    if version is None:
        raise KitError(
            f"Kaggle does not tell how far {reference} is, whose outputs this kernel attaches; try later"
        )
    if not version:  # unknown: Kaggle says so itself when the kernel is pushed
        return
    known = pushed if pushed and pushed.version == version else None
    when, folder = (known.when, known.folder) if known else (None, None)
    kernel = PushedKernel(owner, slug, version, kernel_url(owner, slug), when, folder)
    underway = RunningSession(kernel, None, time.monotonic())
    with watched([underway], say, "the same command"):
        while not (session := underway.status(kaggle, say)).ended:
            pause(POLL)
    if session.status != "COMPLETE":
        raise KitError(
            f"{kernel}, whose outputs this kernel attaches, ended with {session.status}; push that again first, "
            "or build this one without it (kernel.kernels)"
        )


def session_of(kernel: PushedKernel, kaggle: Kaggle, begun: float | None = None) -> Session:
    """Return the session of the version; one that was pushed a short while ago, and is not shown yet, is queued.

    Parameters
    ----------
    begun : float, optional
        When the waiting began, by `time.monotonic`; counts where it is not known when the version was pushed.

    Raises
    ------
    Refused or Unanswered
        Where Kaggle does not show the version after `GRACE` seconds, or does not answer.
    """
    try:
        return kaggle.session(kernel)
    except (Refused, Unanswered) as error:
        if error.status not in NOT_YET:
            raise
        waiting = begun is not None and time.monotonic() - begun < GRACE
        if just_pushed(kernel) if kernel.when else waiting:
            return Session("QUEUED", NOT_SHOWN)
        advice = not_shown(kernel, error)
        raise type(error)(f"{error}; a session may be running all the same: {advice}", error.status) from error


def not_shown(kernel: PushedKernel, error: Refused | Unanswered) -> str:
    """Say what to do about a version that Kaggle does not show, though it was not pushed just now."""
    if error.status >= 500:
        return f"try again later, or look at {kernel.url}"
    token = "this token may not see it: make a new API token on kaggle.com/settings"
    gone = f"where it was deleted, remove {kernel.folder}/push.json, and push it anew"
    if kernel.folder is None:  # it is attached, and perhaps another's
        name = f"{kernel.owner}/{kernel.slug}"
        gone = f"where {name} is not there, or not yours, build this kernel without it (kernel.kernels)"
    return f"look at {kernel.url}; where it is there, {token}; {gone}"


def just_pushed(kernel: PushedKernel) -> bool:
    """Whether the version was pushed so lately that Kaggle may refuse to tell of it."""
    return kernel.when is not None and (datetime.now(UTC) - kernel.when).total_seconds() < GRACE
