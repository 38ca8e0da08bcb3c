"""Handing in: a file or a kernel's output, validated, logged in submissions/log.csv, waited for."""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from kit.competition.labels import SingleLabel
from kit.competition.load import load_test
from kit.competition.submission import validate_submission
from kit.competition.tables import read_table
from kit.config import Experiment, load_experiment
from kit.errors import KitError, some
from kit.files import atomic, sha256
from kit.identity import stored_experiment
from kit.kaggle.client import Kaggle, Lost
from kit.kernel.folder import KernelFolder
from kit.kernel.push import pushed_kernel
from kit.locate import Places
from kit.runs import ExperimentDir

Say = Callable[[str], None]

POLL = 10.0  # seconds between two looks at the score
PATIENCE = 12 * 3600.0  # seconds; a code competition runs the kernel again


@dataclass(frozen=True)
class Entry:
    """One row of submissions/log.csv.

    file     the submission file, or owner/slug and version of the kernel
    sha256   of the file, or of what was pushed
    policy   by the file's name; "" where it is not one that `kit run` gives
    cv       the pooled out-of-fold score of the experiment's policy
    ref      Kaggle's number of the submission
    status   PENDING, COMPLETE, ERROR, REFUSED where Kaggle did not take it, or UNKNOWN where the connection
             broke and it may have
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

    Raises KitError, before anything is sent, where the file is invalid, was submitted before, or no submission
    is left today.
    """
    file, places = Path(file), Places(Path(output).expanduser())
    if not file.is_file():
        raise KitError(f"{file} does not exist")
    name, _, later = file.stem.partition("+")
    experiment = load_experiment(config) if config else stored_experiment(ExperimentDir(places.runs / name))
    if experiment is None:
        raise KitError(f"{file}: runs/ holds no experiment {name!r}; say what the file is of with --config CONFIG")
    slug = _slug(experiment)
    _validate(file, experiment)
    policy = ""
    if name == experiment.name:
        begun_with = stored_experiment(ExperimentDir(places.runs / name)) or experiment
        policy = later or next(iter(begun_with.policies))
    entry = Entry(
        time=_now(),
        competition=slug,
        file=str(file),
        sha256=sha256(file),
        experiment=experiment.name,
        policy=policy,
        cv=_cv(places, experiment.name, policy),
    )
    _need_new(entry, places, kaggle, again)
    text = message or " ".join(filter(None, [file.stem, entry.cv and f"CV {entry.cv}"]))
    return _hand_in(entry, places, kaggle, lambda: kaggle.submit_file(slug, file, text), say, pause)


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

    Raises KitError where it has not ended well or left no submission.csv, was submitted before, or no
    submission is left today.
    """
    folder, kernel, places = KernelFolder.at(path), pushed_kernel(path), Places(Path(output).expanduser())
    record = folder.record
    if not (slug := record.competition["slug"]) or "/" in slug:
        raise KitError("competition.slug: missing; it says which competition to submit to")
    if (status := kaggle.session(kernel).status) != "COMPLETE":
        raise KitError(f"{kernel} is {status}; only a complete version can be submitted")
    if "submission.csv" not in kaggle.outputs(kernel).files:
        raise KitError(f'{kernel} left no submission.csv: Kaggle would answer "CSV not found"')
    policy = record.policies[0]
    entry = Entry(
        time=_now(),
        competition=slug,
        file=str(kernel),
        sha256=folder.push["digest"],
        experiment=record.experiment,
        policy=policy,
        cv=_cv(places, record.experiment, policy),
    )
    _need_new(entry, places, kaggle, again)
    text = message or " ".join(filter(None, [str(kernel), entry.cv and f"CV {entry.cv}"]))
    send = lambda: kaggle.submit_kernel(slug, kernel, "submission.csv", text)  # noqa: E731
    return _hand_in(entry, places, kaggle, send, say, pause)


def read_log(places: Places) -> list[Entry]:
    """The rows of submissions/log.csv, oldest first."""
    path = places.submissions / "log.csv"
    if not path.is_file():
        return []
    known = [field.name for field in fields(Entry)]
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if lacking := [name for name in known if name not in (rows.fieldnames or known)]:
            raise KitError(f"{path} has no column {some(lacking)}; it is not the kit's log: move it away")
        return [Entry(**{name: row[name] or "" for name in known}) for row in rows]


def _slug(experiment: Experiment) -> str:
    slug = experiment.competition.slug
    if not slug or "/" in slug:
        raise KitError("competition.slug: missing; it says which competition to submit to")
    return slug


def _validate(file: Path, experiment: Experiment) -> None:
    test = load_test(experiment.competition)
    given, columns = read_table(file, "submission"), list(test.sample.columns)
    train = test.folder / experiment.competition.train
    label = next(name for name in columns if name != test.sample_id)
    if train.is_file():
        labels = read_table(train, "competition.train")[experiment.competition.label]
    else:
        labels = given.get(label)
    if labels is None:
        raise KitError(f"{file}: the columns are {some(given.columns)}; expected {some(columns)}")
    validate_submission(given, columns, test.sample_id, test.ids, SingleLabel.of(labels), str(file))


def _cv(places: Places, experiment: str, policy: str) -> str:
    scores = ExperimentDir(places.runs / experiment).policy(policy) / "scores.json"
    if not policy or not scores.is_file():
        return ""
    return f"{json.loads(scores.read_text(encoding='utf-8'))['oof']:.5f}"


def _need_new(entry: Entry, places: Places, kaggle: Kaggle, again: bool) -> None:
    same = [
        old
        for old in read_log(places)
        if (old.sha256, old.competition) == (entry.sha256, entry.competition) and old.status != "REFUSED"
    ]
    if same and not again:
        last = same[-1]
        score = f", public score {last.public}" if last.public else ""
        was = "may have been submitted" if last.status == "UNKNOWN" else "was submitted"
        raise KitError(f"{entry.file} {was} on {last.time} as {last.file}{score}; --again submits it once more")
    if not again and kaggle.submissions_left(entry.competition) == 0:
        raise KitError(
            f"{entry.competition} takes no more submission of yours today; days begin at 0:00 UTC (--again tries "
            "all the same)"
        )


def _hand_in(
    entry: Entry,
    places: Places,
    kaggle: Kaggle,
    send: Callable[[], int],
    say: Say,
    pause: Callable[[float], None],
) -> Entry:
    """Sends, logs at once that it was sent, waits for the score, and logs that."""
    try:
        entry = _changed(entry, ref=str(send()), status="PENDING")
    except KitError as error:
        _log(_changed(entry, status="UNKNOWN" if isinstance(error, Lost) else "REFUSED"), places)
        raise
    _log(entry, places)
    say(f"submitted {entry.file} to {entry.competition}; waiting for the score (the log has it: Ctrl-C is safe)")
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        found = next((each for each in kaggle.submissions(entry.competition) if str(each.ref) == entry.ref), None)
        if found and found.status != "PENDING":
            entry = _changed(entry, status=found.status, public=_text(found.public), private=_text(found.private))
            _log(entry, places)
            if found.status == "ERROR":
                raise KitError(f"Kaggle could not score {entry.file}: {found.error or 'it does not say why'}")
            return entry
        pause(POLL)
    raise KitError(f"{entry.file}: no score after {PATIENCE / 3600:.0f} h; look on the competition's page")


def _log(entry: Entry, places: Places) -> None:
    """Adds the entry, or brings the one with its number up to date."""
    names = [field.name for field in fields(Entry)]
    rows = [old for old in read_log(places) if not entry.ref or old.ref != entry.ref]
    with (
        atomic(places.submissions / "log.csv") as temporary,
        open(temporary, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in [*rows, entry])


def _changed(entry: Entry, **changes: str) -> Entry:
    return Entry(**(asdict(entry) | changes))


def _text(score: float | None) -> str:
    return "" if score is None else f"{score:g}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
