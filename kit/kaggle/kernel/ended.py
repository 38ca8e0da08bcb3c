"""How the session of a pushed kernel ended: told by Kaggle's status, and by what the kernel itself has left."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from kit.core.errors import Damaged, KitError
from kit.kaggle.answers import Outputs, PushedKernel, Session
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.outputs import LISTED, list_of, outputs_with

NEAR = 0.8  # of the limit: a session that was cancelled after that was ended by the limit
TAIL = 30  # lines of the log of a failed kernel
WIDTH = 1000  # characters of each: a traceback may quote the whole code file

# Kaggle's failure → words in its message, words in the log's end (fewer: logs speak of much), what may help.
FAILURES = {
    "timeout": (
        ("time limit", "timeout", "timed out", "execution time", "allowed time"),
        ("time limit", "maximum execution time", "the budget allowed no more than"),
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
class Expected:
    """What a pushed version has to leave, and the time it had.

    Attributes
    ----------
    output : str or None
        A file without which it has failed.
    runs : sequence of str
        Those that it was to train, as policy/seed0/fold1.
    limit : float
        Of its session, in seconds.
    pushed : datetime or None
        When it was pushed, where that is known.
    """

    output: str | None = None
    runs: Sequence[str] = ()
    limit: float = float("inf")
    pushed: datetime | None = None

    def at_limit(self, seconds: float | None) -> bool:
        """Return whether a session that has ended came near its limit.

        Parameters
        ----------
        seconds : float or None
            When its log was written last; without it, the time since the push decides.
        """
        if seconds is not None:
            return seconds >= NEAR * self.limit
        return self.pushed is not None and (datetime.now(UTC) - self.pushed).total_seconds() >= self.limit


def expected_of(folder: KernelFolder) -> Expected | None:
    """Return what the pushed version of a kernel has to leave; None for a probe, which keeps no list."""
    record = folder.pushed_record
    if record.kind == "probe":
        return None
    output = "submission.csv" if record.kind == "infer" else None
    return Expected(output, folder.pushed_runs, 3600 * record.hours, folder.pushed_at)


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
        Of a failed one: timeout, exception, exceeded compute, incomplete or CSV not found, and what may help.
    tail : sequence of str
        The end of the log of a failed one.
    missing : sequence of str
        Runs of a train kernel that are not finished, as policy/seed0/fold1.
    """

    kernel: PushedKernel
    outcome: Literal["complete", "failed", "cancelled"]
    failure: str = ""
    tail: Sequence[str] = ()
    missing: Sequence[str] = ()


def judge(kernel: PushedKernel, session: Session, kaggle: Kaggle, needs: Expected | None = None) -> EndedSession:
    """Return what an ended session means.

    COMPLETE alone is no proof: what the kernel has to leave has to be there, and its own list has to say that it
    came to a good end. A session that was cancelled near its limit was ended by that.

    Parameters
    ----------
    needs : Expected, optional
        What it has to leave; without it, Kaggle's status alone decides.
    """
    if session.status == "COMPLETE":
        return _by_outputs(kernel, kaggle, needs) if needs else EndedSession(kernel, "complete")
    outputs, missing = Outputs({}, []), list(needs.runs) if needs else []
    with contextlib.suppress(KitError):  # how it ended is known without them
        cancelled = session.status == "CANCEL_ACKNOWLEDGED"
        outputs = outputs_with(kernel, kaggle, [LISTED]) if cancelled and missing else kaggle.outputs(kernel)
        if missing and (listed := list_of(outputs, kaggle)):
            missing = listed.missing
    tail = _tail(outputs.log)
    if session.status == "CANCEL_ACKNOWLEDGED":
        if not (needs and needs.at_limit(outputs.seconds)):
            late = needs and needs.at_limit(None)  # a log may be silent at the end
            perhaps = "by hand, or by Kaggle at its limit" if late else ""
            failure = (perhaps + _next(needs, missing)).removeprefix("; ")
            return EndedSession(kernel, "cancelled", failure, missing=missing)
        how = "at" if outputs.seconds is not None else "as it seems at"  # its log tells no time
        stated = [f"Kaggle ended it {how} its limit of {needs.limit / 3600:g} h", *_counted(needs, missing)]
        failure = f"timeout ({'; '.join(stated)}); try {FAILURES['timeout'][-1]}"
    else:
        failure = _failure(session.failure, tail)
    return EndedSession(kernel, "failed", failure + _next(needs, missing), tail, missing)


def _by_outputs(kernel: PushedKernel, kaggle: Kaggle, needs: Expected) -> EndedSession:
    """Return what a version that Kaggle calls COMPLETE has come to."""
    outputs = outputs_with(kernel, kaggle, [*filter(None, [needs.output]), LISTED])
    tail = _tail(outputs.log)
    if needs.output and needs.output not in outputs.files:
        failure = f"CSV not found: there is no {needs.output} among its outputs"
        return EndedSession(kernel, "failed", failure, tail)
    try:
        listed = list_of(outputs, kaggle)
    except Damaged as error:
        return EndedSession(kernel, "failed", f"exception ({error})", tail, needs.runs)
    if listed is None:
        failure = f"exception (there is no {LISTED} among its outputs, so it did not reach its end)"
        return EndedSession(kernel, "failed", failure, tail, needs.runs)
    missing = listed.missing
    if listed.exit_code == 0 and not missing:
        return EndedSession(kernel, "complete")
    ended = f"python -m kit ended with exit code {listed.exit_code}"
    if listed.exit_code is None:
        ended = "it was ended before python -m kit was"
    failure = _failure("; ".join([*_counted(needs, missing), *([ended] if listed.exit_code != 0 else [])]), tail)
    if missing:
        failure = failure.replace("exception (", "incomplete (", 1)
    return EndedSession(kernel, "failed", failure + _next(needs, missing), tail, missing)


def _counted(needs: Expected, missing: Sequence[str]) -> list[str]:
    count = len(needs.runs)
    return [f"{count - len(missing)} of {count} runs are finished"] if count else []


def _next(needs: Expected | None, missing: Sequence[str]) -> str:
    """Return what to do where some runs are finished and some are not."""
    if needs and missing and len(missing) < len(needs.runs):
        return "; kernel fetch brings home what is finished, then the same push pushes the others"
    return ""


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
