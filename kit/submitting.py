"""Handing in: a file or a kernel's output, validated, logged in submissions/log.csv, waited for.

A row is in the log before anything is sent, and a call that is stopped at any time is made good by a later one:
each begins with what Kaggle says of the rows whose end is not known.
"""

import csv
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kit.competition.load import load_test, submission_format
from kit.competition.submission import validate_submission
from kit.competition.tables import read_table
from kit.config import Experiment, load_experiment
from kit.errors import KitError, some
from kit.files import atomic, sha256
from kit.identity import stored_experiment
from kit.kaggle.client import Kaggle, Submitted
from kit.kaggle.patience import Lost
from kit.kernel.folder import KernelFolder
from kit.kernel.push import pushed_kernel
from kit.locate import Places
from kit.runs import ExperimentDir

Say = Callable[[str], None]

POLL = 10.0  # seconds between two looks at the score
PATIENCE = 12 * 3600.0  # seconds; a code competition runs the kernel again
SENDING = timedelta(hours=1)  # longer than all attempts to send a submission take
CLOCKS = timedelta(minutes=10)  # by which this machine's clock and Kaggle's may differ
UNDER_WAY = ("PENDING", "UNKNOWN")  # statuses that Kaggle's list may change
OUTPUT = "submission.csv"  # the output of a kernel that is handed in


@dataclass(frozen=True)
class Entry:
    """One row of submissions/log.csv.

    file     the submission file, or owner/slug and version of the kernel
    sha256   of the file, or of what was pushed
    policy   by the file's name; "" where it is not one that `kit run` gives
    cv       the pooled out-of-fold score of the experiment's policy
    ref      Kaggle's number of the submission; "" until it is known
    status   PENDING, COMPLETE, ERROR, REFUSED where Kaggle did not take it, or UNKNOWN from before it is sent
             until Kaggle's answer, and on where that was lost
    message  what Kaggle shows beside it, in one line; "" in a log of an older kit
    """

    time: str
    competition: str
    file: str
    sha256: str
    experiment: str = ""
    policy: str = ""
    cv: str = ""
    ref: str = ""
    status: str = ""
    public: str = ""
    private: str = ""
    message: str = ""


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
) -> Entry:
    """Validates and submits a file that `kit run` wrote, and waits for its score.

    config  what the file is of; left out: the experiment in runs/ whose name the file has
    again   submit although the same file was submitted before, or Kaggle says that none is left today

    Where the same file was submitted and its score was not known yet, it is not sent again, but waited for.
    Raises KitError, before anything is sent, where the file is invalid, was submitted before, or no submission
    is left today.
    """
    file, places = Path(file), Places(Path(output).expanduser())
    if not file.is_file():
        raise KitError(f"{file} is no file" if file.exists() else f"{file} does not exist")
    name, _, later = file.stem.partition("+")
    experiment = load_experiment(config) if config else stored_experiment(ExperimentDir(places.runs / name))
    if experiment is None:
        raise KitError(f"{file}: runs/ holds no experiment {name!r}; say what the file is of with --config CONFIG")
    slug = _slug(experiment.competition.slug)
    _validate(file, experiment)
    policy = ""
    if name == experiment.name:
        begun_with = stored_experiment(ExperimentDir(places.runs / name)) or experiment
        policy = later or next(iter(begun_with.policies))
    cv = _cv(places, experiment.name, policy)
    text = _message(message, file.stem, cv)
    entry = Entry(
        time=_now(),
        competition=slug,
        file=str(file),
        sha256=sha256(file),
        experiment=experiment.name,
        policy=policy,
        cv=cv,
        message=text,
    )
    send = lambda: kaggle.submit_file(slug, file, text)  # noqa: E731
    return _hand_in(entry, places, kaggle, send, again=again, say=say, pause=pause)


def submit_kernel(
    path: str | Path,
    kaggle: Kaggle,
    *,
    message: str = "",
    again: bool = False,
    output: str | Path = ".",
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
) -> Entry:
    """Submits the pushed version of an infer kernel to its code competition, and waits for the score.

    Where it was submitted and its score was not known yet, it is not submitted again, but waited for. Raises
    KitError where it has not ended well or left no submission.csv, was submitted before, or no submission is
    left today.
    """
    folder, kernel, places = KernelFolder.at(path), pushed_kernel(path), Places(Path(output).expanduser())
    record = folder.pushed_record
    slug = _slug(record.competition["slug"])
    if folder.push["digest"] != folder.digest:
        say(f"{folder.path} was built anew since it was pushed; {kernel} is handed in as it was pushed")
    if (status := kaggle.session(kernel).status) != "COMPLETE":
        raise KitError(f"{kernel} is {status}; only a complete version can be submitted")
    if OUTPUT not in kaggle.outputs(kernel).files:
        raise KitError(f'{kernel} left no {OUTPUT}: Kaggle would answer "CSV not found"')
    cv = _cv(places, record.experiment, record.policies[0])
    text = _message(message, str(kernel), cv)
    entry = Entry(
        time=_now(),
        competition=slug,
        file=str(kernel),
        sha256=folder.push["digest"],
        experiment=record.experiment,
        policy=record.policies[0],
        cv=cv,
        message=text,
    )
    send = lambda: kaggle.submit_kernel(slug, kernel, OUTPUT, text)  # noqa: E731
    return _hand_in(entry, places, kaggle, send, again=again, say=say, pause=pause)


def read_log(places: Places) -> list[Entry]:
    """The rows of submissions/log.csv, oldest first."""
    path = places.submissions / "log.csv"
    if not path.is_file():
        return []
    known = [field.name for field in fields(Entry) if field.name != "message"]
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if lacking := [name for name in known if name not in (rows.fieldnames or known)]:
            raise KitError(f"{path} has no column {some(lacking)}; it is not the kit's log: move it away")
        return [Entry(**{field.name: row.get(field.name) or "" for field in fields(Entry)}) for row in rows]


def _slug(slug: str | None) -> str:
    if not slug or "/" in slug:
        raise KitError("competition.slug: missing; it says which competition to submit to")
    return slug


def _validate(file: Path, experiment: Experiment) -> None:
    test = load_test(experiment.competition)
    given, columns = read_table(file, "submission"), list(test.sample.columns)
    format = submission_format(experiment.competition, test, given)
    validate_submission(given, columns, test.sample_id, test.ids, format, str(file))


def _cv(places: Places, experiment: str, policy: str) -> str:
    scores = ExperimentDir(places.runs / experiment).policy(policy) / "scores.json"
    if not policy or not scores.is_file():
        return ""
    return f"{json.loads(scores.read_text(encoding='utf-8'))['oof']:.5f}"


def _message(stated: str, name: str, cv: str) -> str:
    return _line(stated or f"{name} {cv and f'CV {cv}'}")


def _hand_in(
    entry: Entry,
    places: Places,
    kaggle: Kaggle,
    send: Callable[[], int],
    *,
    again: bool,
    say: Say,
    pause: Callable[[float], None],
) -> Entry:
    """Sends what was not sent before, in the log already when it is sent, and waits for its score."""
    followed = _catch_up(entry.competition, places, kaggle)
    sent = [row for row in followed if row.ref and _same(row, entry) and not again]
    for row in followed:
        if row.status not in UNDER_WAY and row not in sent:
            say(f"{row.file} of {row.time}: {_outcome(row)}")
    if sent:
        say(f"{sent[-1].file} was submitted on {sent[-1].time}; it is not sent again, its score is waited for")
        return _scored(sent[-1], places, kaggle, pause)
    if not again:
        _need_new(entry, places, kaggle)
    unanswered = _changed(entry, status="UNKNOWN")
    _log(unanswered, places)
    try:
        entry = _changed(entry, ref=str(send()), status="PENDING")
    except Lost:
        raise
    except KitError:
        _log(_changed(entry, status="REFUSED"), places, unanswered)
        raise
    _log(entry, places, unanswered)
    say(
        f"submitted {entry.file} to {entry.competition}; waiting for the score (Ctrl-C is safe: the same command "
        "goes on waiting)"
    )
    return _scored(entry, places, kaggle, pause)


def _catch_up(competition: str, places: Places, kaggle: Kaggle) -> list[Entry]:
    """Brings the rows whose end is not known up to date with what Kaggle lists; returns them as they are then."""
    rows = read_log(places)
    due = [row for row in rows if row.competition == competition and row.status in UNDER_WAY]
    if not due:
        return []
    listed = kaggle.submissions(competition)
    by_ref = {str(each.ref): each for each in listed}
    logged = {row.ref for row in rows}
    followed = []
    for row in due:
        if row.status == "PENDING":
            current = _as_listed(row, by_ref[row.ref]) if row.ref in by_ref else row
        else:
            current = _looked_for(row, [each for each in listed if str(each.ref) not in logged])
        if current != row:
            _log(current, places, row)
        logged.add(current.ref)
        followed.append(current)
    return followed


def _looked_for(row: Entry, unlogged: list[Submitted]) -> Entry:
    """An UNKNOWN row, with what it has become, among the submissions of which the log does not know.

    REFUSED only where nothing can be it: the sending is over, and there is neither one of this name and message,
    whenever it was made, nor another of its time, whose message may have been changed.
    """
    sent = _time(row)
    name = OUTPUT if re.fullmatch(r"[\w-]+/[\w-]+ version \d+", row.file) else Path(row.file).name
    alike = [each for each in unlogged if each.file == name and row.message in ("", _line(each.message))]
    near = [each for each in unlogged if sent - CLOCKS <= each.date <= sent + SENDING]
    if both := [each for each in alike if each in near]:
        return _as_listed(row, min(both, key=lambda each: each.date))
    over = datetime.now(UTC) > sent + SENDING
    return _changed(row, status="REFUSED") if over and not alike and not near else row


def _same(row: Entry, entry: Entry) -> bool:
    return (row.sha256, row.competition) == (entry.sha256, entry.competition)


def _need_new(entry: Entry, places: Places, kaggle: Kaggle) -> None:
    if same := [row for row in read_log(places) if _same(row, entry) and row.status != "REFUSED"]:
        last = same[-1]
        score = f", public score {last.public}" if last.public else ""
        was = "may have been submitted" if last.status == "UNKNOWN" else "was submitted"
        raise KitError(f"{entry.file} {was} on {last.time} as {last.file}{score}; --again submits it once more")
    if kaggle.submissions_left(entry.competition) == 0:
        raise KitError(
            f"{entry.competition} takes no more submission of yours today; days begin at 0:00 UTC (--again tries "
            "all the same)"
        )


def _scored(entry: Entry, places: Places, kaggle: Kaggle, pause: Callable[[float], None]) -> Entry:
    """Waits until Kaggle has scored it, and logs that."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        found = next((each for each in kaggle.submissions(entry.competition) if str(each.ref) == entry.ref), None)
        if found and found.status != "PENDING":
            entry = _as_listed(entry, found)
            _log(entry, places)
            if found.status == "ERROR":
                raise KitError(f"Kaggle could not score {entry.file}: {found.error or 'it does not say why'}")
            return entry
        pause(POLL)
    raise KitError(f"{entry.file}: no score after {PATIENCE / 3600:.0f} h; look on the competition's page")


def _log(entry: Entry, places: Places, before: Entry | None = None) -> None:
    """Writes the entry in the place of `before`, or of the row with its ref; at the end where there is neither."""
    rows = read_log(places)
    earlier = (at for at, row in enumerate(rows) if row == before or (entry.ref and row.ref == entry.ref))
    at = next(earlier, len(rows))
    rows[at : at + 1] = [entry]
    with (
        atomic(places.submissions / "log.csv") as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(Entry)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def _as_listed(entry: Entry, found: Submitted) -> Entry:
    public, private = _text(found.public), _text(found.private)
    return _changed(entry, ref=str(found.ref), status=found.status, public=public, private=private)


def _outcome(row: Entry) -> str:
    if row.status == "REFUSED":
        return "it did not arrive"
    return f"public score {row.public or 'none'}" if row.status == "COMPLETE" else "Kaggle could not score it"


def _time(row: Entry) -> datetime:
    try:
        stated = datetime.fromisoformat(row.time)
        return stated if stated.tzinfo else stated.replace(tzinfo=UTC)
    except ValueError:
        raise KitError(
            f"submissions/log.csv: the time {row.time!r} of {row.file} should look like {_now()}"
        ) from None


def _changed(entry: Entry, **changes: str) -> Entry:
    return Entry(**(asdict(entry) | changes))


def _line(text: str) -> str:
    return " ".join(text.split())


def _text(score: float | None) -> str:
    return "" if score is None else f"{score:g}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
