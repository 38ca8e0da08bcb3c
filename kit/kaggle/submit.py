"""A file or a kernel's output is submitted: validated, logged in submissions/log.csv, its score waited for.

A row is in the log before anything is sent, and a call that is stopped at any time is made good by a later one:
each begins with what Kaggle says of the rows whose end is not known.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kit.competition.config import CompetitionConfig
from kit.competition.load import expected_submission
from kit.competition.tables import read_submission
from kit.core.errors import KitError, Say, some
from kit.core.files import read_object, sha256
from kit.core.manifest import need_listed
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.blend import read_blend
from kit.experiment.config import load_experiment
from kit.experiment.fingerprint import stored_experiment
from kit.kaggle.answers import KaggleSubmission, PushedKernel
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.outputs import list_of, outputs_with
from kit.kaggle.kernel.push import pushed_kernel
from kit.kaggle.kernel.sessions import just_pushed, left_behind, session_of
from kit.kaggle.retry import GRACE, Lost, Refused, one_line
from kit.kaggle.submission_log import LogEntry, read_log, write_entry
from kit.kaggle.submissions import (
    BY_HAND,
    LOG,
    OUTPUT,
    UNDER_WAY,
    as_listed,
    catch_up,
    not_listed,
    perhaps_by_hand,
    seconds_since,
    timestamp,
)

POLL = 10.0  # seconds between two looks at the score
PATIENCE = 12 * 3600.0  # seconds; a code competition runs the kernel again


DENIED = "kernelSessions.get"  # the permission that Kaggle names, whatever it is that a code submission lacks


class ByHand(KitError):
    """Kaggle does not take it from here, but may on its page."""


@dataclass(frozen=True)
class _Source:
    """What a file is of: the competition, and as in `LogEntry` experiment or blend, policy, CV score."""

    competition: CompetitionConfig
    experiment: str
    policy: str
    cv: str


def submit_file(
    file: str | Path,
    kaggle: Kaggle,
    *,
    config: str | Path | None = None,
    message: str = "",
    again: bool = False,
    output: str | Path = ".",
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
) -> LogEntry:
    """Validate and submit a file that `kit run` or `kit blend` wrote, and wait for its score.

    Where the same file was submitted and its score was not known yet, it is not sent again, but waited for.

    Parameters
    ----------
    config : str or Path, optional
        What the file is of; left out: the experiment or the blend in runs/ whose name the file has.
    message : str
        What Kaggle shows beside it; left out: the file's name and its CV score.
    again : bool
        Submit although the same file was submitted before, or Kaggle says that none is left today.
    pause : callable
        What to sleep with; takes seconds.

    Returns
    -------
    LogEntry
        The row of the log, with the score.

    Raises
    ------
    KitError
        Before anything is sent, where the file is invalid, was submitted before, or no submission is left today;
        and where Kaggle could not score it.
    """
    file, dirs = Path(file), OutputDirs.at(output)
    if not file.is_file():
        raise KitError(f"{file} is no file" if file.exists() else f"{file} does not exist")
    source = _source(file, config, dirs)
    slug = _slug(source.competition.slug)
    _validate(file, source.competition, say)
    text = _message(message, file.stem, source.cv)
    entry = LogEntry(
        time=timestamp(),
        competition=slug,
        file=str(file),
        sha256=sha256(file),
        experiment=source.experiment,
        policy=source.policy,
        cv=source.cv,
        message=text,
    )
    send = lambda: kaggle.submit_file(slug, file, text)  # noqa: E731
    return _hand_in(entry, dirs, kaggle, send, again=again, say=say, pause=pause)


def submit_kernel(
    path: str | Path,
    kaggle: Kaggle,
    *,
    message: str = "",
    again: bool = False,
    output: str | Path = ".",
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
) -> LogEntry:
    """Submit the pushed version of an infer kernel to its code competition, and wait for the score.

    Where it was submitted and its score was not known yet, it is not submitted again, but waited for. Parameters
    and result are those of `submit_file`.

    Raises
    ------
    KitError
        Where it has not ended well or left no submission.csv, was submitted before, or no submission is left
        today; and where Kaggle could not score it.
    """
    folder, kernel, dirs = KernelFolder.at(path), pushed_kernel(path), OutputDirs.at(output)
    record = folder.pushed_record
    if record.kind == "probe":
        raise KitError(f"{path} is a probe; an infer kernel is submitted")
    slug = _slug(record.competition["slug"])
    if folder.push["digest"] != folder.digest:
        say(f"{folder.path} was built anew since it was pushed; {kernel} is handed in as it was pushed")
    denied = _need_submittable(kernel, kaggle)
    cv = _cv(dirs, record.experiment, record.policies[0])
    text = _message(message, str(kernel), cv)
    entry = LogEntry(
        time=timestamp(),
        competition=slug,
        file=str(kernel),
        sha256=folder.push["digest"],
        experiment=record.experiment,
        policy=record.policies[0],
        cv=cv,
        message=text,
    )

    def send() -> int:
        if denied:
            raise _by_hand(denied, kernel, text)
        try:
            return kaggle.submit_kernel(slug, kernel, OUTPUT, text)
        except Refused as error:
            raise _by_hand(error, kernel, text) if _is_denial(error) else error from None

    return _hand_in(entry, dirs, kaggle, send, again=again, say=say, pause=pause)


def _source(file: Path, config: str | Path | None, dirs: OutputDirs) -> _Source:
    name, _, later = file.stem.partition("+")
    stored = stored_experiment(ExperimentDir(dirs.runs / name))
    if stored is None and (blend := read_blend(dirs, file.stem)):
        stated = load_experiment(config).competition if config else None
        competition = stated or CompetitionConfig.model_validate(blend["competition"])
        return _Source(competition, blend["name"], "", f"{blend['oof']:.5f}")
    experiment = load_experiment(config) if config else stored
    if experiment is None:
        raise KitError(f"{file}: runs/ holds no experiment {name!r}; say what the file is of with --config CONFIG")
    policy = ""
    if name == experiment.name:
        policy = later or next(iter((stored or experiment).policies))
    return _Source(experiment.competition, experiment.name, policy, _cv(dirs, experiment.name, policy))


def _slug(slug: str | None) -> str:
    if not slug or "/" in slug:
        raise KitError("competition.slug: missing; it says which competition to submit to")
    return slug


def _validate(file: Path, competition: CompetitionConfig, say: Say) -> None:
    given = read_submission(file, "submission")
    form = expected_submission(competition, given)
    form.validate(given, str(file))
    for line in form.remarks(given):
        say(f"{file}: {line}")


def _cv(dirs: OutputDirs, experiment: str, policy: str) -> str:
    scores = ExperimentDir(dirs.runs / experiment).policy(policy) / "scores.json"
    if not policy or not scores.is_file():
        return ""
    remedy = "python -m kit run writes it anew"
    need_listed(scores.parents[1], scores, remedy)
    stored = read_object(scores, remedy)
    if not isinstance(stored.get("oof"), int | float):
        raise KitError(f"{scores} is damaged (it has no score); {remedy}")
    return f"{stored['oof']:.5f}"


def _message(stated: str, name: str, cv: str) -> str:
    return one_line(stated or f"{name} {cv and f'CV {cv}'}")


def _hand_in(
    entry: LogEntry,
    dirs: OutputDirs,
    kaggle: Kaggle,
    send: Callable[[], int],
    *,
    again: bool,
    say: Say,
    pause: Callable[[float], None],
) -> LogEntry:
    """Send what was not sent before, in the log already when it is sent, and waits for its score."""
    followed = catch_up(entry.competition, dirs, kaggle, say=say)
    sent = [row for row in followed if row.ref and _same(row, entry) and not again]
    for row in followed:
        if row.status not in UNDER_WAY and row not in sent:
            say(f"{row.file} of {row.time}: {_outcome(row)}")
    if sent:
        _need_listed(sent[-1], dirs, kaggle)
        say(f"{sent[-1].file} was submitted on {sent[-1].time}; it is not sent again, its score is waited for")
        with left_behind(lambda: _goes_on(sent[-1]), say):
            found = _awaited(sent[-1], kaggle, pause)
        return _scored(sent[-1], found, dirs, say)
    unanswered = replace(entry, status="UNKNOWN")
    by_hand = next((row for row in followed if row.status == BY_HAND and _same(row, entry)), None)
    if again:
        write_entry(unanswered, dirs, by_hand, say)
    else:
        _need_new(entry, read_log(dirs, say))
        if by_hand:
            _need_not_by_hand(by_hand, dirs, kaggle)
        _need_one_left(entry, kaggle)
        # Once more: another process may have begun to send the same meanwhile.
        write_entry(unanswered, dirs, by_hand, say, check=lambda rows: _need_new(entry, rows))
    try:
        entry = replace(entry, ref=str(send()), status="PENDING")
    except Lost:  # the row stays: what became of it is looked for by the next command
        raise
    except ByHand:
        write_entry(replace(entry, status=BY_HAND), dirs, unanswered, say)
        raise
    except KitError:
        write_entry(replace(entry, status="REFUSED"), dirs, unanswered, say)
        raise
    with left_behind(lambda: _goes_on(entry, again), say):
        write_entry(entry, dirs, unanswered, say)
        say(
            f"submitted {entry.file} to {entry.competition}; waiting for the score (Ctrl-C is safe: "
            f"{_same_command(again)} goes on waiting)"
        )
        found = _awaited(entry, kaggle, pause)
    return _scored(entry, found, dirs, say)


def _need_submittable(kernel: PushedKernel, kaggle: Kaggle) -> Refused | None:
    """Raise KitError where the version has not ended well with a submission; return the denial to tell of it."""
    try:
        status = kaggle.session(kernel).status
    except Refused as error:
        if _is_denial(error) and not just_pushed(kernel):
            return error
        status = session_of(kernel, kaggle).status
    if status != "COMPLETE":
        raise KitError(f"{kernel} is {status}; only a complete version can be submitted")
    outputs = outputs_with(kernel, kaggle, [OUTPUT])
    if OUTPUT not in outputs.files:
        raise KitError(f'{kernel} left no {OUTPUT}: Kaggle would answer "CSV not found"')
    if (listed := list_of(outputs, kaggle)) and listed.exit_code != 0:
        code = "was ended" if listed.exit_code is None else f"ended with exit code {listed.exit_code}"
        raise KitError(
            f"{kernel} is COMPLETE, but python -m kit {code} in it, so its {OUTPUT} may be the fallback: push it "
            "again"
        )
    return None


def _is_denial(error: Refused) -> bool:
    return error.status == 403 and DENIED in str(error)


def _by_hand(error: Refused, kernel: PushedKernel, message: str) -> ByHand:
    """Say what a denial of a code submission means: Kaggle's words name a permission, not the cause."""
    described = f" with the description {message!r}, by which the next command finds it" if message else ""
    return ByHand(
        f"{error}. Probably today's submissions are used up, or the token's scope is too narrow: submit version "
        f"{kernel.version} in the browser at {kernel.url}{described}"
    )


def _same(row: LogEntry, entry: LogEntry) -> bool:
    return (row.sha256, row.competition) == (entry.sha256, entry.competition)


def _need_new(entry: LogEntry, rows: list[LogEntry]) -> None:
    if same := [row for row in rows if _same(row, entry) and row.status not in ("REFUSED", BY_HAND)]:
        last = same[-1]
        score = f", public score {last.public}" if last.public else ""
        was = "may have been submitted" if last.status == "UNKNOWN" else "was submitted"
        raise KitError(f"{entry.file} {was} on {last.time} as {last.file}{score}; --again submits it once more")


def _need_not_by_hand(denied: LogEntry, dirs: OutputDirs, kaggle: Kaggle) -> None:
    if perhaps := perhaps_by_hand(denied, dirs, kaggle):
        each = [f"{one.ref} of {one.date.isoformat(timespec='seconds')} ({one.message!r})" for one in perhaps]
        raise KitError(
            f"{denied.file} may have been submitted by hand: Kaggle lists {some(each, 5)}, of which "
            f"{dirs.submissions / LOG} has no row. Where it is that, write its number as ref into the row of "
            f"{denied.time}, status {BY_HAND}; where it is not, --again submits it"
        )


def _need_one_left(entry: LogEntry, kaggle: Kaggle) -> None:
    if kaggle.submissions_left(entry.competition) == 0:
        raise KitError(
            f"{entry.competition} takes no more submission of yours today; days begin at 0:00 UTC (--again tries "
            "all the same)"
        )


def _need_listed(row: LogEntry, dirs: OutputDirs, kaggle: Kaggle) -> None:
    """Raise KitError where the user wrote a number into the row of a denied submission that is not Kaggle's.

    After the denial it is looked for again for some minutes, as Kaggle may list late.
    """
    if row.status != BY_HAND:  # else Kaggle listed it, or gave the number
        return

    def look() -> KaggleSubmission | None:
        return next((each for each in kaggle.submissions(row.competition) if str(each.ref) == row.ref), None)

    left = max(0.0, GRACE - seconds_since(row))
    if not kaggle.until(f"ref {row.ref} of {row.file} is not on Kaggle's list", look, left):
        raise KitError(not_listed(row, dirs))


def _same_command(again: bool) -> str:
    """Name the command that goes on: with --again, it would submit once more."""
    return "the same command" + (" without --again" if again else "")


def _goes_on(entry: LogEntry, again: bool = False) -> str:
    return (
        f"{entry.file} is handed in, and Kaggle goes on scoring it: {_same_command(again)} goes on waiting, and "
        "python -m kit submissions --refresh looks for the score"
    )


def _awaited(entry: LogEntry, kaggle: Kaggle, pause: Callable[[float], None]) -> KaggleSubmission | None:
    """Wait for what Kaggle lists of a submission that is scored or has failed; None where none came."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        listed = kaggle.submissions(entry.competition)
        for each in listed:
            if str(each.ref) == entry.ref and each.status != "PENDING":
                return each
        pause(POLL)
    return None


def _scored(entry: LogEntry, found: KaggleSubmission | None, dirs: OutputDirs, say: Say) -> LogEntry:
    """Log what became of a submission; KitError where it has no score."""
    if found is None:
        raise KitError(f"{entry.file}: no score after {PATIENCE / 3600:.0f} h; look on the competition's page")
    entry = as_listed(entry, found)
    write_entry(entry, dirs, say=say)
    if entry.status == "ERROR":
        raise KitError(f"Kaggle could not score {entry.file}: {found.error or 'it does not say why'}")
    return entry


def _outcome(row: LogEntry) -> str:
    if row.status == "REFUSED":
        return "it did not arrive"
    return f"public score {row.public or 'none'}" if row.status == "COMPLETE" else "Kaggle could not score it"
