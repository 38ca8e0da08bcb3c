"""What has become of the rows of submissions/log.csv.

It also tells how far CV scores order submissions as their public scores do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kit.core.errors import KitError, Say, some, tell
from kit.core.paths import OutputDirs
from kit.kaggle.answers import KaggleSubmission
from kit.kaggle.client import Kaggle
from kit.kaggle.retry import one_line
from kit.kaggle.submission_log import LogEntry, read_log, write_entry

SENDING = timedelta(hours=1)  # longer than all attempts to send a submission take
CLOCKS = timedelta(minutes=10)  # by which this machine's clock and Kaggle's may differ
BY_HAND = "BY HAND"  # Kaggle does not take it from here; the user may submit it on its page
UNDER_WAY = ("PENDING", "UNKNOWN", BY_HAND)  # statuses that Kaggle's list may change
LOG = "log.csv"  # in submissions/
OUTPUT = "submission.csv"  # the output of a kernel that is handed in
FEWEST_PAIRS = 3  # of two, the ranks agree or not by a coin's toss


@dataclass(frozen=True)
class Agreement:
    """How the CV scores of one competition's submissions order them, against their public scores.

    Attributes
    ----------
    competition : str
        Kaggle's name of it.
    pairs : int
        Submissions that were scored and have both; the same file counts once.
    correlation : float or None
        Spearman's rank correlation, from -1 to 1; None where there is none.
    reason : str
        Why there is none.
    """

    competition: str
    pairs: int
    correlation: float | None
    reason: str = ""


@dataclass(frozen=True)
class SubmissionsOverview:
    """The rows of the log, oldest first, and an agreement for each competition in it."""

    rows: list[LogEntry]
    agreements: list[Agreement]


def overview(dirs: OutputDirs, competition: str | None = None, say: Say = tell) -> SubmissionsOverview:
    """Return what was handed in, to one competition or to all; KitError where nothing was to the one."""
    rows = _rows_of(competition, dirs, say)
    slugs = dict.fromkeys(row.competition for row in rows)
    agreements = [_agreement(slug, [row for row in rows if row.competition == slug]) for slug in slugs]
    return SubmissionsOverview(rows, agreements)


def refresh(dirs: OutputDirs, kaggle: Kaggle, competition: str | None = None, say: Say = tell) -> list[LogEntry]:
    """Ask Kaggle for the scores that were not there yet, and log them; return the rows that have changed.

    It asks of a competition only where rows are under way, or scored without a public or a private score.
    """
    before = _rows_of(competition, dirs, say)
    for slug in dict.fromkeys(row.competition for row in before):
        catch_up(slug, dirs, kaggle, late=True, say=say)
    return [row for row in _rows_of(competition, dirs, say) if row not in before]


def _rows_of(competition: str | None, dirs: OutputDirs, say: Say) -> list[LogEntry]:
    rows = read_log(dirs, say)
    if competition is None or not rows:
        return rows
    if not (chosen := [row for row in rows if row.competition == competition]):
        there = some(dict.fromkeys(row.competition for row in rows))
        raise KitError(f"--competition {competition}: the log has no submission to it, but to {there}")
    return chosen


def _agreement(competition: str, rows: Sequence[LogEntry]) -> Agreement:
    """Compare two scores, of which higher is better in both: the kit's metrics are all F scores."""
    scored = {
        row.sha256: (_number(row.cv), _number(row.public))
        for row in rows
        if row.status == "COMPLETE" and row.cv and row.public
    }
    if len(scored) < FEWEST_PAIRS:
        has = "one has" if len(scored) == 1 else f"{len(scored) or 'none'} have"
        return Agreement(
            competition,
            len(scored),
            None,
            f"needs {FEWEST_PAIRS} submissions with CV and public score; {has} both",
        )
    cv, public = zip(*scored.values(), strict=True)
    for values, what in ((cv, "CV"), (public, "public")):
        if len(set(values)) == 1:
            return Agreement(competition, len(scored), None, f"all {what} scores are equal")
    from scipy.stats import spearmanr

    return Agreement(competition, len(scored), float(spearmanr(cv, public).statistic))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise KitError(
            f"submissions/log.csv: the score {text!r} is no number; mend it or empty the cell"
        ) from None


def catch_up(
    competition: str, dirs: OutputDirs, kaggle: Kaggle, late: bool = False, say: Say = tell
) -> list[LogEntry]:
    """Bring the rows whose end is not known up to date with what Kaggle lists; return them as they are then.

    Parameters
    ----------
    late : bool
        As well the rows that lack a score: private scores come when the competition ends. And it says which
        numbers that the user wrote are not Kaggle's.
    say : callable
        Takes lines about the log, and about who writes it at the same time.
    """
    rows = read_log(dirs, say)
    due = [row for row in rows if row.competition == competition and _may_change(row, late)]
    if not due:
        return []
    listed = kaggle.submissions(competition)
    by_ref, now = {str(each.ref): each for each in listed}, datetime.now(UTC)
    logged = {row.ref for row in rows}
    followed = []
    for row in due:
        if row.ref:
            current = as_listed(row, by_ref[row.ref]) if row.ref in by_ref else row
            if late and current.status == BY_HAND:
                say(not_listed(current, dirs))
        elif _is_ambiguous(row, due):
            say(f"{row.file}: another has the same message, so neither is looked for on Kaggle's list")
            current = row
        else:
            current = _found(row, [each for each in listed if str(each.ref) not in logged], now)
        if current != row:
            write_entry(current, dirs, row, say)
        logged.add(current.ref)
        followed.append(current)
    return followed


def _is_ambiguous(row: LogEntry, due: list[LogEntry]) -> bool:
    """Whether what may be handed in by hand, at any time, and another cannot be told apart on Kaggle's list."""
    names = row.message, _listed_name(row)
    alike = [each for each in due if not each.ref and (each.message, _listed_name(each)) == names]
    return len(alike) > 1 and any(each.status == BY_HAND for each in alike)


def perhaps_by_hand(row: LogEntry, dirs: OutputDirs, kaggle: Kaggle) -> list[KaggleSubmission]:
    """Return what was handed in since a row was denied, and no row of the log has: any of it may be that row."""
    logged = {each.ref for each in read_log(dirs)}
    listed = [each for each in kaggle.submissions(row.competition) if str(each.ref) not in logged]
    return [each for each in listed if each.file == _listed_name(row) and each.date >= _time(row) - CLOCKS]


def not_listed(row: LogEntry, dirs: OutputDirs) -> str:
    """Say what to do about a number that the user wrote into a row, and that Kaggle does not list."""
    return (
        f"{dirs.submissions / LOG}: ref {row.ref} of {row.file} is not on Kaggle's list of your submissions to "
        f"{row.competition}; correct it in the row of {row.time}, or empty that cell: the next submit of it tells "
        "what it may be"
    )


def seconds_since(row: LogEntry) -> float:
    """Return how long ago it was handed in, or denied."""
    return (datetime.now(UTC) - _time(row)).total_seconds()


def _listed_name(row: LogEntry) -> str:
    """Return the name under which Kaggle lists it: that of the file, or of the kernel's output."""
    return OUTPUT if re.fullmatch(r"[\w-]+/[\w-]+ version \d+", row.file) else Path(row.file).name


def _found(row: LogEntry, unlogged: list[KaggleSubmission], now: datetime) -> LogEntry:
    """Return a row without a ref with what it has become, among the submissions of which the log does not know.

    REFUSED only where nothing can be it: the sending is over, and there is neither one of this name and message,
    whenever it was made, nor another of its time, whose message may have been changed.
    """
    sent = _time(row)
    name = _listed_name(row)
    same = [each for each in unlogged if each.file == name and row.message in ("", one_line(each.message))]
    near = [each for each in unlogged if sent - CLOCKS <= each.date <= sent + SENDING]
    if both := [each for each in same if each in near]:
        return as_listed(row, min(both, key=lambda each: each.date))
    if row.status == BY_HAND:
        later = [each for each in same if each.date >= sent - CLOCKS]
        return as_listed(row, min(later, key=lambda each: each.date)) if later else row
    over = now > sent + SENDING
    return replace(row, status="REFUSED") if over and not same and not near else row


def _may_change(row: LogEntry, late: bool) -> bool:
    unscored = row.status == "COMPLETE" and bool(row.ref) and not (row.public and row.private)
    return row.status in UNDER_WAY or (late and unscored)


def as_listed(entry: LogEntry, found: KaggleSubmission) -> LogEntry:
    """Return the entry with what Kaggle lists of it."""
    public, private = _text(found.public) or entry.public, _text(found.private) or entry.private
    status = "ERROR" if found.status == "COMPLETE" and found.error else found.status  # as reported of reruns
    return replace(entry, ref=str(found.ref), status=status, public=public, private=private)


def _time(row: LogEntry) -> datetime:
    try:
        stated = datetime.fromisoformat(row.time)
        return stated if stated.tzinfo else stated.replace(tzinfo=UTC)
    except ValueError:
        raise KitError(
            f"submissions/log.csv: the time {row.time!r} of {row.file} should look like {timestamp()}"
        ) from None


def _text(score: float | None) -> str:
    return "" if score is None else f"{score:g}"


def timestamp() -> str:
    """Return the time now, as the log states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
