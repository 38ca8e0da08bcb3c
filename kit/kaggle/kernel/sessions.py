"""What becomes of pushed kernels on Kaggle: wait for them, tell why one failed, follow its log."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from kit.core.errors import KitError, Say, some
from kit.core.stopping import Interrupted, Stopped
from kit.kaggle.client import Kaggle, PushedKernel, Session, kernel_url
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.retry import GRACE, NOT_YET, Refused, Unanswered

POLL = 15.0  # seconds between two looks at a session
NOT_SHOWN = "Kaggle does not show it yet"
NEWS = 60.0  # seconds between two lines that say the same
TAIL = 30  # lines of the log of a failed kernel
WIDTH = 1000  # characters of each: a traceback may quote the whole code file

# Kaggle's failure → words in its message, words in the log's end (fewer: logs speak of much), what may help.
FAILURES = {
    "timeout": (
        ("time limit", "timeout", "timed out", "execution time", "allowed time"),
        ("time limit", "maximum execution time"),
        "fewer epochs, or fewer folds a kernel",
    ),
    "exceeded compute": (
        ("memory", "compute", "sigkill", "code 137", "disk", "no space left"),
        (
            "out of memory",
            "memory is too small",
            "want of memory",
            "exit code -9",
            "exit code 137",
            "no space left",
        ),
        "a smaller training.batch_size or data.cache_gb",
    ),
}


@dataclass(frozen=True)
class EndedSession:
    """How a kernel's session ended.

    Attributes
    ----------
    kernel : PushedKernel
        The version that ran.
    outcome : str
        complete, failed or cancelled.
    failure : str
        Of a failed one: timeout, exception, exceeded compute or CSV not found, and what may help.
    tail : sequence of str
        The end of the log of a failed one.
    """

    kernel: PushedKernel
    outcome: Literal["complete", "failed", "cancelled"]
    failure: str = ""
    tail: Sequence[str] = ()


def wait(
    kernel: PushedKernel,
    kaggle: Kaggle,
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
    needs: str | None = None,
    goes_on: str = "the same command",
) -> EndedSession:
    """Wait until this version of the kernel has ended.

    Parameters
    ----------
    pause : callable
        What to sleep with; takes seconds.
    needs : str, optional
        An output without which the kernel has failed.
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
    try:
        yield
    except (KitError, KeyboardInterrupt) as error:
        if not running:
            raise
        names = some([f"{each} ({each.url})" for each in (session.kernel for session in running)], 99)
        sentence = f"not watched any more, and may be running on Kaggle: {names}; {goes_on} goes on"
        if isinstance(error, KeyboardInterrupt):
            tell_interrupted(error, sentence, say)
            raise
        if isinstance(error, Stopped):
            raise Stopped(f"{error}; {sentence}", error.code) from error
        raise KitError(f"{error}; {sentence}") from error


def tell_interrupted(error: KeyboardInterrupt, sentence: str, say: Say) -> None:
    """Let the interrupted command end with a sentence, or say it where its end has one, or cannot have one."""
    if isinstance(error, Interrupted) and not error.told:
        error.told = f"({sentence})"
    else:
        say(sentence)


def judge(kernel: PushedKernel, session: Session, kaggle: Kaggle, needs: str | None = None) -> EndedSession:
    """Return what an ended session means; `needs` as in `wait`."""
    if session.status == "CANCEL_ACKNOWLEDGED":
        return EndedSession(kernel, "cancelled")
    if session.status == "COMPLETE" and needs is None:
        return EndedSession(kernel, "complete")
    if session.status == "COMPLETE":
        outputs = kaggle.outputs(kernel)
        if needs in outputs.files:
            return EndedSession(kernel, "complete")
        failure = f"CSV not found: there is no {needs} among its outputs"
        return EndedSession(kernel, "failed", failure, _tail(outputs.log))
    tail: list[str] = []
    with contextlib.suppress(KitError):  # that it failed is known without its log
        tail = _tail(kaggle.outputs(kernel).log)
    return EndedSession(kernel, "failed", _failure(session.failure, tail), tail)


def required_output(folder: KernelFolder) -> str | None:
    """Return the output without which a kernel that ended well has failed all the same."""
    return "submission.csv" if folder.record.kind == "infer" else None


def _tail(log: Sequence[str]) -> list[str]:
    return [line if len(line) <= WIDTH else f"{line[:WIDTH]} …" for line in log[-TAIL:]]


def _failure(message: str, tail: Sequence[str]) -> str:
    """Say which of Kaggle's failures it is: by Kaggle's message, else by what the kernel said last."""
    stated = message or "as the log says"
    log = " ".join(tail).lower()
    for kind, (in_message, _, advice) in FAILURES.items():
        if any(word in message.lower() for word in in_message):
            return f"{kind} ({stated}); try {advice}"
    for kind, (_, in_log, advice) in FAILURES.items():
        if any(word in log for word in in_log):
            return f"{kind} ({stated}); try {advice}"
    return f"exception ({stated})"


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
    yield from kaggle.outputs(kernel).log[seen:]


@dataclass
class RunningSession:
    """A pushed kernel that is waited for.

    Attributes
    ----------
    kernel : PushedKernel
        The version.
    needs : str or None
        An output without which it has failed.
    begun : float
        When the waiting began, by `time.monotonic`.
    told : str
        The status that was said last.
    last : float
        When that was said, by `time.monotonic`.
    """

    kernel: PushedKernel
    needs: str | None
    begun: float
    told: str = ""
    last: float = 0.0

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
    if pushed and not stated and pushed.version > (version or 0) and (not version or _just_pushed(pushed)):
        version = pushed.version
    if version is None:
        raise KitError(
            f"Kaggle does not tell how far {reference} is, whose outputs this kernel attaches; try later"
        )
    if not version:  # unknown: Kaggle says so itself when the kernel is pushed
        return
    when = pushed.when if pushed and pushed.version == version else None
    kernel = PushedKernel(owner, slug, version, kernel_url(owner, slug), when)
    underway = RunningSession(kernel, None, time.monotonic())
    with watched([underway], say, "the same command"):
        while not (session := underway.status(kaggle, say)).ended:
            pause(POLL)
    if session.status != "COMPLETE":
        raise KitError(
            f"{kernel}, whose outputs this kernel attaches, ended with {session.status}; push that again first, "
            "or build this one without it (kernel.kernels)"
        )


def session_of(kernel: PushedKernel, kaggle: Kaggle, begun: float) -> Session:
    """Return the session of the version; one that was pushed a short while ago, and is not shown yet, is queued.

    Parameters
    ----------
    begun : float
        When the waiting began, by `time.monotonic`; counts where it is not known when the version was pushed.

    Raises
    ------
    KitError
        Where Kaggle does not show the version after `GRACE` seconds, or does not answer.
    """
    try:
        return kaggle.session(kernel)
    except (Refused, Unanswered) as error:
        if error.status not in NOT_YET:
            raise
        if _just_pushed(kernel) if kernel.when else time.monotonic() - begun < GRACE:
            return Session("QUEUED", NOT_SHOWN)
        raise KitError(f"{error}. A session may be running all the same: look at {kernel.url}") from error


def _just_pushed(kernel: PushedKernel) -> bool:
    return kernel.when is not None and (datetime.now(UTC) - kernel.when).total_seconds() < GRACE
