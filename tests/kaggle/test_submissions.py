"""The log of submissions: shown, compared with CV, and brought up to date with Kaggle's scores."""

from datetime import UTC, datetime

import pytest
from support.fake_kaggle import Outcome, Submission
from support.refusals import refusal_of
from support.small_kernels import asked

from kit.cli.show_submissions import show_submissions
from kit.core.paths import OutputDirs
from kit.kaggle.client import Kaggle
from kit.kaggle.submission_log import LogEntry, read_log, write_entry
from kit.kaggle.submissions import overview, refresh


def entry(number: int, **changes) -> LogEntry:
    values = {
        "time": f"2026-11-2{number}T10:00:00+00:00",
        "competition": "colours",
        "file": f"submissions/tiny{number}.csv",
        "sha256": str(number),
        "experiment": f"tiny{number}",
        "policy": "uniform",
        "ref": str(number),
        "status": "COMPLETE",
        "message": f"words {number}",
    }
    return LogEntry(**values | changes)


def written(*entries: LogEntry) -> OutputDirs:
    for each in entries:
        write_entry(each, OutputDirs())
    return OutputDirs()


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shown(dirs: OutputDirs, capsys) -> str:
    capsys.readouterr()
    show_submissions(overview(dirs))
    return capsys.readouterr().out


def test_nothing_yet(capsys):
    assert overview(OutputDirs()).agreements == []
    assert shown(OutputDirs(), capsys) == (
        "submissions/log.csv holds nothing yet: python -m kit submit FILE hands in a file and logs it\n"
    )


def test_rows_and_the_rank_correlation(capsys):
    pairs = [("0.70000", "0.71"), ("0.80000", "0.79"), ("0.75000", "0.80"), ("0.90000", "0.95")]
    dirs = written(*(entry(number, cv=cv, public=public) for number, (cv, public) in enumerate(pairs)))
    (agreement,) = overview(dirs).agreements
    assert (agreement.competition, agreement.pairs) == ("colours", 4)
    assert agreement.correlation == pytest.approx(0.8)  # 1 - 6 (1 + 1) / (4 · 15)
    told = shown(dirs, capsys)
    assert told.endswith("colours: rank correlation (Spearman) of CV and public score 0.80 over 4 submissions\n")
    lines = [line for line in told.splitlines() if "submissions/tiny" in line]
    assert [line.split("│")[3].strip() for line in lines] == [
        f"submissions/tiny{number}.csv" for number in range(4)
    ]
    assert "2026-11-20 10:00" in lines[0]
    assert "tiny0/uniform" in lines[0]


def test_what_counts_as_a_pair():
    """Scored, with both scores, each file once."""
    dirs = written(
        entry(1, cv="0.7", public="0.7"),
        entry(2, cv="0.8", public="0.8"),
        entry(3, cv="0.9", public="0.9", status="ERROR"),
        entry(4, cv="", public="0.5"),
        entry(5, cv="0.5", public=""),
        entry(6, cv="0.8", public="0.8", sha256="2"),
    )
    (agreement,) = overview(dirs).agreements
    assert (agreement.pairs, agreement.correlation) == (2, None)
    assert agreement.reason == "needs 3 submissions with CV and public score; 2 have both"


@pytest.mark.parametrize(("constant", "what"), [("cv", "CV"), ("public", "public")])
def test_scores_that_are_all_equal(constant, what, capsys):
    rows = [{"cv": f"0.{number}", "public": f"0.{number}"} | {constant: "0.5"} for number in range(1, 5)]
    dirs = written(*(entry(number, **row) for number, row in enumerate(rows)))
    (agreement,) = overview(dirs).agreements
    assert (agreement.correlation, agreement.reason) == (None, f"all {what} scores are equal")
    assert f"no rank correlation of CV and public score: all {what} scores are equal" in shown(dirs, capsys)


def test_each_competition_by_itself():
    dirs = written(
        *(entry(number, cv=f"0.{number}", public=f"0.{number}") for number in (1, 2, 3)),
        *(entry(number, cv=f"0.{number}", public=f"0.{9 - number}", competition="leaves") for number in (4, 5, 6)),
    )
    assert [(each.competition, each.correlation) for each in overview(dirs).agreements] == [
        ("colours", pytest.approx(1)),
        ("leaves", pytest.approx(-1)),
    ]
    assert [row.ref for row in overview(dirs, "leaves").rows] == ["4", "5", "6"]
    assert refusal_of(overview, dirs, "birds") == (
        "--competition birds: the log has no submission to it, but to colours, leaves"
    )


def test_a_score_that_is_no_number():
    dirs = written(*(entry(number, cv="good", public="0.5") for number in (1, 2, 3)))
    assert refusal_of(overview, dirs) == (
        "submissions/log.csv: the score 'good' is no number; mend it or empty the cell"
    )


# Scores that come later


@pytest.fixture
def colours(server):
    return server.add_competition("colours", b"")


def listed(ref: int, outcome: Outcome) -> Submission:
    return Submission(ref, f"tiny{ref}.csv", f"words {ref}", date=datetime(2026, 11, 20 + ref, 10, tzinfo=UTC),
                      outcome=outcome)  # fmt: skip


def test_private_scores_come_when_the_competition_ends(server, colours):
    dirs = written(
        entry(1, public="0.5"),
        entry(2, status="PENDING"),
        entry(3, public="0.5", private="0.4"),
        entry(4, status="UNKNOWN", ref="", time="2026-11-24T10:00:00+00:00"),
        entry(5, status="ERROR"),
        entry(6, status="REFUSED", ref=""),
    )
    colours.submissions += [
        listed(1, Outcome(public_score=0.5, private_score=0.45)),
        listed(2, Outcome(public_score=0.6, private_score=0.55)),
        listed(3, Outcome(public_score=0.9, private_score=0.9)),
        listed(4, Outcome(public_score=0.7)),
    ]
    changed = refresh(dirs, Kaggle())
    assert [(row.ref, row.status, row.public, row.private) for row in changed] == [
        ("1", "COMPLETE", "0.5", "0.45"),
        ("2", "COMPLETE", "0.6", "0.55"),
        ("4", "COMPLETE", "0.7", ""),
    ]
    after = read_log(dirs)
    assert [row.ref for row in after] == ["1", "2", "3", "4", "5", ""]
    assert (after[2].public, after[2].private) == ("0.5", "0.4")
    assert after[0].message == "words 1"


def test_nothing_to_ask_for(server, colours):
    dirs = written(entry(1, public="0.5", private="0.4"), entry(2, status="ERROR"))
    assert refresh(dirs, Kaggle()) == []
    assert asked(server, "ListSubmissions") == []


def test_what_kaggle_no_longer_tells_stays(server, colours):
    dirs = written(entry(1, public="0.5"), entry(2, public="0.6"))
    colours.submissions.append(listed(1, Outcome(private_score=0.4)))
    refresh(dirs, Kaggle())
    assert [(row.public, row.private) for row in read_log(dirs)] == [("0.5", "0.4"), ("0.6", "")]


def test_one_competition_is_asked(server, colours):
    server.add_competition("leaves", b"")
    dirs = written(entry(1, public="0.5"), entry(2, public="0.5", competition="leaves"))
    refresh(dirs, Kaggle(), "leaves")
    assert [each["competitionName"] for each in asked(server, "ListSubmissions")] == ["leaves"]
