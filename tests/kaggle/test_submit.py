"""Submitting a file, or the output of a kernel, through the real client and the command line."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.colours import experiment_content
from support.fake_kaggle import Outcome, Submission, answer, drop, instead
from support.refusals import refusal_of
from support.small_kernels import REF, SLUG, asked, pushed, write_kernel

from kit.core.files import sha256, write_json
from kit.core.paths import OutputDirs
from kit.core.stopping import Interrupted, Stopped, told
from kit.kaggle import submit as submitting
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.submission_log import read_log
from kit.kaggle.submit import submit_file, submit_kernel

POLICIES = {"uniform": {"lr": 1e-2, "groups": "stage"}, "cosine": {"lr": 1e-3}}
OTHERS = {"label": ["red"] * 9}
WAITS = "waiting for the score (Ctrl-C is safe: the same command goes on waiting)\n"
ROWS = {"id": [f"test{row:03d}" for row in range(9)], "label": ["red", "green", "blue"] * 3}


@pytest.fixture
def colours(server):
    """The competition on Kaggle, where the first submission gets its score at once."""
    return server.add_competition("colours", b"")


@pytest.fixture
def content(competition) -> dict:
    content = experiment_content(competition, competition={"slug": "colours"})
    return content | {"policies": POLICIES}


@pytest.fixture
def file(colours, content) -> Path:
    """submissions/tiny.csv, the runs that it is of, and their scores."""
    home = Path("runs/tiny")
    home.mkdir(parents=True)
    (home / "experiment.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for policy, score in (("uniform", 0.7512345), ("cosine", 0.8)):
        write_json(home / policy / "scores.json", {"oof": score})
    return write(Path("submissions/tiny.csv"), **ROWS)


@pytest.mark.parametrize("text", ['{"oof": 0.7', "[]", '{"rule": {}}', "\xff"])
def test_scores_that_are_damaged_are_named(server, kit, file, text):
    Path("runs/tiny/uniform/scores.json").write_bytes(text.encode("latin-1"))
    code, told = kit("submit", file)
    assert (code, told.count("\n")) == (1, 1), told
    assert told.startswith("error: runs/tiny/uniform/scores.json is damaged (")
    assert told.endswith("); python -m kit run writes it anew\n")


def write(path: Path, **columns) -> Path:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def log() -> list[dict]:
    return pd.read_csv("submissions/log.csv", dtype=str, keep_default_na=False).to_dict("records")


def edit_log(**columns) -> None:
    """Overwrites columns; one that is None is dropped. Nothing is known of such a log, as of an earlier kit's."""
    Path("submissions/log.csv.sha256").unlink(missing_ok=True)
    rows = pd.DataFrame(log()).assign(**columns)
    dropped = [name for name, value in columns.items() if value is None]
    rows.drop(columns=dropped).to_csv("submissions/log.csv", index=False)


def ago(**time) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


def interrupt(monkeypatch, submit, *arguments, sent: bool = True) -> None:
    """Ctrl-C in `submit(*arguments)`, before its request or after Kaggle took it."""

    def interrupted(method):
        def call(*arguments):
            if sent:
                method(*arguments)
            raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patch:
        for name in ("submit_file", "submit_kernel"):
            patch.setattr(Kaggle, name, interrupted(getattr(Kaggle, name)))
        with pytest.raises(KeyboardInterrupt):
            submit(*arguments, Kaggle())


# Files


def test_a_file_is_handed_in_logged_and_scored(server, kit, impatient, colours, file):
    server.script_submission("colours", Outcome("COMPLETE", 0.76543, 0.5, polls=2))
    assert kit("submit", file) == (
        0,
        f"submitted submissions/tiny.csv to colours; {WAITS}"
        "submissions/tiny.csv: public score 0.76543, private 0.5; CV 0.75123\n",
    )
    (submission,) = colours.submissions
    assert submission.content == file.read_bytes()
    assert (submission.file_name, submission.description) == ("tiny.csv", "tiny CV 0.75123")
    (row,) = log()
    assert row.pop("time").endswith("+00:00")
    assert row == {
        "competition": "colours",
        "file": "submissions/tiny.csv",
        "sha256": sha256(file),
        "experiment": "tiny",
        "policy": "uniform",
        "cv": "0.75123",
        "ref": "1",
        "status": "COMPLETE",
        "public": "0.76543",
        "private": "0.5",
        "message": "tiny CV 0.75123",
    }


def test_the_policy_is_in_the_files_name(server, kit, impatient, colours, file):
    server.script_submission("colours", Outcome(public_score=0.5))
    later = write(Path("submissions/tiny+cosine.csv"), **ROWS)
    code, told = kit("submit", later, "-m", "my  words\n")
    assert (code, told.splitlines()[-1]) == (0, "submissions/tiny+cosine.csv: public score 0.5; CV 0.80000")
    assert colours.submissions[0].description == "my words"
    assert (log()[0]["policy"], log()[0]["message"]) == ("cosine", "my words")


def test_a_file_of_another_name_needs_the_config(server, kit, impatient, colours, file, content):
    """Of a blend, no policy's score is the CV."""
    server.script_submission("colours", Outcome(public_score=0.5))
    blend = write(Path("blend.csv"), **ROWS)
    assert kit("submit", blend) == (
        1,
        "error: blend.csv: runs/ holds no experiment 'blend'; say what the file is of with --config CONFIG\n",
    )
    assert server.requests == []
    Path("colours.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert kit("submit", blend, "--config", "colours.yaml")[1].splitlines()[-1] == "blend.csv: public score 0.5"
    assert [(row["experiment"], row["policy"], row["cv"]) for row in log()] == [("tiny", "", "")]
    assert colours.submissions[0].description == "blend"


@pytest.fixture
def blend(colours, content) -> Path:
    """submissions/best.csv, and the blend that it is of; its members are not here."""
    record = {"name": "best", "oof": 0.8123456, "competition": content["competition"]}
    write_json(Path("runs/best/blend.json"), record)
    return write(Path("submissions/best.csv"), **ROWS)


def test_a_blend_is_handed_in_with_its_own_score(server, kit, impatient, colours, blend):
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", blend)
    assert (code, told.splitlines()[-1]) == (0, "submissions/best.csv: public score 0.5; CV 0.81235")
    assert [(row["experiment"], row["policy"], row["cv"]) for row in log()] == [("best", "", "0.81235")]
    assert colours.submissions[0].description == "best CV 0.81235"


def test_a_blend_is_validated(server, kit, colours, blend):
    write(blend, **ROWS | {"label": ["pink", *ROWS["label"][1:]]})
    code, told = kit("submit", blend)
    assert (code, server.requests) == (1, [])
    assert "'pink' is no class" in told


def test_a_blend_that_an_experiment_took_the_name_of(server, kit, impatient, colours, blend, content):
    server.script_submission("colours", Outcome(public_score=0.5))
    Path("runs/best/experiment.yaml").write_text(yaml.safe_dump(content | {"name": "best"}, sort_keys=False))
    assert kit("submit", blend)[0] == 0
    assert [(row["experiment"], row["policy"], row["cv"]) for row in log()] == [("best", "uniform", "")]


def test_a_config_that_begins_with_another_policy(server, kit, impatient, colours, file, content):
    """The file without a policy in its name is of the one that the experiment began with."""
    server.script_submission("colours", Outcome(public_score=0.5))
    Path("other.yaml").write_text(yaml.safe_dump(content | {"policies": {"cosine": POLICIES["cosine"]}}))
    code, told = kit("submit", file, "--config", "other.yaml")
    assert code == 0, told
    assert (log()[0]["policy"], log()[0]["cv"]) == ("uniform", "0.75123")


def test_runs_elsewhere(server, kit, impatient, colours, file, tmp_path):
    server.script_submission("colours", Outcome(public_score=0.5))
    home = tmp_path / "home-of-runs"
    home.mkdir()
    Path("runs").rename(home / "runs")
    code, told = kit("submit", file, "--output", home)
    assert code == 0, told
    assert (home / "submissions/log.csv").is_file()
    assert not Path("submissions/log.csv").exists()


INVALID = {
    "columns": ({"id": ROWS["id"], "class": ROWS["label"]}, "the columns are id, class; expected id, label"),
    "twice": ({"id": [*ROWS["id"][:8], "test000"], "label": ROWS["label"]}, "test000"),
    "missing": (
        {name: values[:7] for name, values in ROWS.items()},
        "2 of 9 ids are missing (test007, test008)",
    ),
    "extra": (
        {"id": [*ROWS["id"], "other"], "label": [*ROWS["label"], "red"]},
        "1 ids are not in the test set (other)",
    ),
    "empty": (
        {"id": ROWS["id"], "label": ["", *ROWS["label"][1:]]},
        "no label for 1 ids (test000); pandas writes NaN so",
    ),
    "label": ({"id": ROWS["id"], "label": ["pink", *ROWS["label"][1:]]}, "pink"),
}


@pytest.mark.parametrize("fault", INVALID)
def test_an_invalid_file_is_refused_before_anything_is_sent(server, kit, colours, file, fault):
    columns, reason = INVALID[fault]
    write(file, **columns)
    code, told = kit("submit", file)
    assert code == 1
    assert told.startswith("error: submissions/tiny.csv: ")
    assert reason in told
    assert len(told.splitlines()) == (2 if fault == "twice" else 1)  # another id is then missing
    assert server.requests == []
    assert not Path("submissions/log.csv").exists()


def test_what_is_no_file(server, kit, file):
    assert kit("submit", "nothing.csv") == (1, "error: nothing.csv does not exist\n")
    assert kit("submit") == (
        1,
        "error: give a submission FILE, or --kernel DIR for a code competition\n",
    )
    assert kit("submit", file, "--kernel", "x")[0] == 1
    file.write_bytes(b"")
    code, told = kit("submit", file)
    assert (code, told) == (
        1,
        "error: submission: submissions/tiny.csv is empty; a table needs at least a line of column names\n",
    )


def test_no_competition_is_named(server, kit, file, content):
    content["competition"].pop("slug")
    Path("runs/tiny/experiment.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert kit("submit", file) == (
        1,
        "error: competition.slug: missing; it says which competition to submit to\n",
    )


def test_the_same_file_twice(server, kit, impatient, colours, file):
    server.script_submission("colours", Outcome(public_score=0.5), Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    copy = write(Path("submissions/tiny+cosine.csv"), **ROWS)
    code, told = kit("submit", copy)
    assert (code, told) == (
        1,
        f"error: submissions/tiny+cosine.csv was submitted on {log()[0]['time']} as submissions/tiny.csv, public "
        "score 0.5; --again submits it once more\n",
    )
    assert len(colours.submissions) == 1
    assert kit("submit", copy, "--again")[0] == 0
    assert [row["file"] for row in log()] == ["submissions/tiny.csv", "submissions/tiny+cosine.csv"]
    write(file, **ROWS | OTHERS)
    server.script_submission("colours", Outcome(public_score=0.25))
    assert kit("submit", file)[0] == 0
    assert [row["public"] for row in log()] == ["0.5", "0.5", "0.25"]


def test_none_is_left_today(server, kit, colours, file):
    colours.used_before = 5
    assert kit("submit", file) == (
        1,
        "error: colours takes no more submission of yours today; days begin at 0:00 UTC (--again tries all "
        "the same)\n",
    )
    assert asked(server, "StartSubmissionUpload") == []
    code, told = kit("submit", file, "--again")
    assert code == 1
    assert told.startswith(
        "error: submitting tiny.csv to colours: Kaggle answers 400: Submission not allowed: Your team has used "
    )
    assert [row["status"] for row in log()] == ["REFUSED"]
    colours.used_before = 0
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0  # what was refused was not submitted
    assert [row["status"] for row in log()] == ["REFUSED", "COMPLETE"]


def test_an_upload_that_fails_is_tried_again(server, kit, impatient, colours, file):
    """The client then says that it could not submit, and that it went well."""
    server.misbehave("PUT", answer(400))
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", file)
    assert code == 0, told
    assert told.startswith(
        "submitting tiny.csv to colours: the upload failed (Kaggle did not take the file); again in 0 s "
    )
    assert len(colours.submissions) == 1


def test_an_upload_that_is_dropped_arrives_whole(server, kit, impatient, colours, file):
    server.misbehave("PUT", drop(after_bytes=20))
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    assert [submission.content for submission in colours.submissions] == [file.read_bytes()]


def test_a_lost_answer_does_not_submit_twice(server, kit, impatient, colours, file):
    server.misbehave("CreateSubmission", drop(acted=True))
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", file)
    assert (code, len(colours.submissions)) == (0, 1), told
    assert [(row["ref"], row["status"]) for row in log()] == [("1", "COMPLETE")]


def test_what_may_have_arrived_is_not_submitted_again(server, kit, impatient, colours, file):
    server.misbehave("CreateSubmission", drop())
    server.misbehave("ListSubmissions", instead({}), *[answer(500, "Oops")] * 12)
    code, told = kit("submit", file)
    assert code == 1
    assert "submitting tiny.csv to colours: may have arrived, look on Kaggle before you send it again" in told
    assert [row["status"] for row in log()] == ["UNKNOWN"]
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", file)
    assert code == 1
    assert "tiny.csv may have been submitted on " in told
    assert told.endswith("; --again submits it once more\n")


def test_kaggle_could_not_score_it(server, kit, impatient, colours, file):
    server.script_submission("colours", Outcome("ERROR", error="Submission Scoring\n Error: wrong rows"))
    code, told = kit("submit", file)
    assert code == 1
    assert told.splitlines()[-1] == (
        "error: Kaggle could not score submissions/tiny.csv: Submission Scoring Error: wrong rows"
    )
    assert [(row["status"], row["public"]) for row in log()] == [("ERROR", "")]
    write(file, **ROWS | OTHERS)
    server.script_submission("colours", Outcome("ERROR"))
    assert kit("submit", file)[1].endswith("could not score submissions/tiny.csv: it does not say why\n")


def test_the_log_has_it_before_it_is_sent(server, kit, impatient, colours, file, monkeypatch):
    seen, send = [], Kaggle.submit_file

    def watched(*arguments):
        seen.extend(read_log(OutputDirs()))
        return send(*arguments)

    monkeypatch.setattr(Kaggle, "submit_file", watched)
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    assert [(row.ref, row.status, row.message) for row in seen] == [("", "UNKNOWN", "tiny CV 0.75123")]
    assert [(row["ref"], row["status"]) for row in log()] == [("1", "COMPLETE")]


def test_the_same_command_goes_on_waiting_for_the_score(server, kit, impatient, colours, file):
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_file(file, Kaggle(), say=lambda line: None, pause=interrupted)
    (entry,) = read_log(OutputDirs())
    assert (entry.ref, entry.status, entry.public, entry.cv) == ("1", "PENDING", "", "0.75123")
    server.script_submission("colours", Outcome(public_score=0.5, polls=2))
    assert kit("submit", file) == (
        0,
        f"submissions/tiny.csv was submitted on {entry.time}; it is not sent again, its score is waited for\n"
        "submissions/tiny.csv: public score 0.5; CV 0.75123\n",
    )
    assert len(colours.submissions) == 1
    assert [(row["ref"], row["status"], row["public"]) for row in log()] == [("1", "COMPLETE", "0.5")]
    assert kit("submit", file)[1].endswith("public score 0.5; --again submits it once more\n")


SCORED = (
    "submissions/tiny.csv is handed in, and Kaggle goes on scoring it: the same command goes on waiting, and "
    "python -m kit submissions --refresh looks for the score"
)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(143)], ids=["plain", "signal"])
def test_an_interrupted_wait_says_what_goes_on(server, colours, file, error):
    said = []

    def interrupted(seconds: float) -> None:
        raise error

    with pytest.raises(Stopped) as stopped, told():
        submit_file(file, Kaggle(), say=said.append, pause=interrupted)
    assert [*said, str(stopped.value)].count(SCORED) + str(stopped.value).count(f"({SCORED})") == 1
    assert stopped.value.code == (143 if isinstance(error, Interrupted) else 130)


def test_an_interruption_before_the_wait_says_what_goes_on(server, kit, colours, file, monkeypatch):
    """Kaggle has answered, and the row with its number is not written."""
    said, write = [], submitting.write_entry

    def interrupted(entry, *arguments, **named):
        if entry.status == "PENDING":
            raise KeyboardInterrupt
        write(entry, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(submitting, "write_entry", interrupted)
        with pytest.raises(KeyboardInterrupt):
            submit_file(file, Kaggle(), say=said.append)
    assert said == [SCORED]
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    assert len(colours.submissions) == 1


def test_with_again_another_command_goes_on_waiting(server, kit, impatient, colours, file):
    """The same would submit a third time."""
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    said = []

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit_file(file, Kaggle(), again=True, say=said.append, pause=interrupted)
    without = [WAITS.strip(), SCORED]
    without = [each.replace("the same command", "the same command without --again") for each in without]
    assert said == [f"submitted submissions/tiny.csv to colours; {without[0]}", without[1]]
    server.script_submission("colours", Outcome(public_score=0.25))
    assert kit("submit", file)[1].endswith("public score 0.25; CV 0.75123\n")
    assert [(row["ref"], row["status"]) for row in log()] == [("1", "COMPLETE"), ("2", "COMPLETE")]
    assert len(colours.submissions) == 2


def test_a_wait_that_breaks_off_says_what_goes_on(server, colours, file):
    def unreachable(seconds: float) -> None:
        server.misbehave("ListSubmissions", answer(401, "expired"))

    message = refusal_of(partial(submit_file, pause=unreachable), file, Kaggle())
    assert message.endswith(f"; {SCORED}")


def test_again_does_not_wait_for_an_earlier_one(server, kit, impatient, colours, file, monkeypatch):
    interrupt(monkeypatch, submit_file, file)
    server.script_submission("colours", Outcome(public_score=0.5), Outcome(public_score=0.25))
    code, told = kit("submit", file, "--again")
    assert (code, told.splitlines()[0]) == (0, f"submissions/tiny.csv of {log()[0]['time']}: public score 0.5")
    assert [(row["ref"], row["public"]) for row in log()] == [("1", "0.5"), ("2", "0.25")]


def test_an_interrupted_request_that_arrived(server, kit, impatient, colours, file, monkeypatch):
    """It is found by its name and message; one of before, and of another name or message, is another."""
    for name, message, date in (
        ("tiny.csv", "tiny CV 0.75123", ago(days=1)),
        ("other.csv", "tiny CV 0.75123", ago()),
        ("tiny.csv", "other words", ago()),
    ):
        ref = len(colours.submissions) + 1
        other = Submission(ref, name, message, date=date, outcome=Outcome(public_score=0.1))
        colours.submissions.append(other)
    interrupt(monkeypatch, submit_file, file)
    assert [(row["ref"], row["status"]) for row in log()] == [("", "UNKNOWN")]
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", file)
    assert (code, told.splitlines()[-1]) == (0, "submissions/tiny.csv: public score 0.5; CV 0.75123")
    assert len(colours.submissions) == 4
    assert [(row["ref"], row["status"], row["public"]) for row in log()] == [("4", "COMPLETE", "0.5")]


def test_two_interrupted_requests_are_two_submissions(server, colours, kit, file, monkeypatch, impatient):
    interrupt(monkeypatch, submit_file, file)
    first = log()[0]["time"]
    server.script_submission("colours", Outcome(public_score=0.5), Outcome(public_score=0.25))
    interrupt(monkeypatch, lambda *arguments: submit_file(*arguments, again=True), file)
    assert [(row["ref"], row["status"]) for row in log()] == [("1", "COMPLETE"), ("", "UNKNOWN")]
    code, told = kit("submit", file)
    assert (code, told.splitlines()[-1]) == (0, "submissions/tiny.csv: public score 0.25; CV 0.75123")
    assert [(row["ref"], row["public"]) for row in log()] == [("1", "0.5"), ("2", "0.25")]
    assert log()[0]["time"] == first


def test_an_interrupted_request_that_did_not_arrive(server, kit, impatient, colours, file, monkeypatch):
    """Another process may still be sending it, for an hour."""
    interrupt(monkeypatch, submit_file, file, sent=False)
    server.script_submission("colours", Outcome(public_score=0.5))
    assert "may have been submitted on " in kit("submit", file)[1]
    edit_log(time=ago(minutes=50).isoformat(timespec="seconds"))
    assert "may have been submitted on " in kit("submit", file)[1]
    assert colours.submissions == []
    then = ago(minutes=70).isoformat(timespec="seconds")
    edit_log(time=then)
    code, told = kit("submit", file)
    assert code == 0, told
    assert f"submissions/tiny.csv of {then}: it did not arrive" in told.splitlines()
    assert [(row["ref"], row["status"]) for row in log()] == [("", "REFUSED"), ("1", "COMPLETE")]


@pytest.mark.parametrize(
    ("message", "hours"),
    [("words changed on the page", 5), ("tiny CV 0.75123", 12)],  # clocks may be wrong
)
def test_what_may_be_the_interrupted_one(server, kit, colours, file, monkeypatch, message, hours):
    server.script_submission("colours", Outcome(public_score=0.5))
    interrupt(monkeypatch, submit_file, file, sent=False)
    then = ago(hours=5)
    edit_log(time=then.isoformat(timespec="seconds"))
    date = then - timedelta(hours=hours - 5)
    colours.submissions.append(Submission(1, "tiny.csv", message, date=date))
    assert "may have been submitted on " in kit("submit", file)[1]
    assert [(row["ref"], row["status"]) for row in log()] == [("", "UNKNOWN")]
    assert len(colours.submissions) == 1


def test_scores_that_came_meanwhile_are_logged(server, kit, impatient, colours, file, monkeypatch):
    interrupt(monkeypatch, submit_file, file)
    write(file, **ROWS | OTHERS)
    server.script_submission("colours", Outcome(public_score=0.5), Outcome("ERROR"), Outcome(public_score=0.25))
    interrupt(monkeypatch, submit_file, file)
    third = write(Path("submissions/tiny+cosine.csv"), **ROWS | {"label": ["blue"] * 9})
    code, told = kit("submit", third)
    assert code == 0
    assert told.splitlines()[0] == f"submissions/tiny.csv of {log()[1]['time']}: Kaggle could not score it"
    assert [(row["ref"], row["status"], row["public"]) for row in log()] == [
        ("1", "COMPLETE", "0.5"),
        ("2", "ERROR", ""),
        ("3", "COMPLETE", "0.25"),
    ]


def test_another_competitions_rows_are_left(server, kit, impatient, colours, file, monkeypatch):
    interrupt(monkeypatch, submit_file, file)
    edit_log(competition="flowers")
    server.script_submission("colours", Outcome(), Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    assert [(row["competition"], row["status"]) for row in log()] == [
        ("flowers", "UNKNOWN"),
        ("colours", "COMPLETE"),
    ]


def test_a_log_without_messages(server, kit, impatient, colours, file, monkeypatch):
    """As an earlier kit wrote it: name and time tell which submission it is."""
    interrupt(monkeypatch, submit_file, file)
    edit_log(message=None)
    assert [row.message for row in read_log(OutputDirs())] == [""]
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", file)[0] == 0
    assert [(row["ref"], row["public"], row["message"]) for row in log()] == [("1", "0.5", "")]


def test_a_time_that_cannot_be_read(server, kit, colours, file, monkeypatch):
    interrupt(monkeypatch, submit_file, file)
    edit_log(time="yesterday")
    code, told = kit("submit", file)
    assert code == 1
    assert told.splitlines()[-1].startswith(
        "error: submissions/log.csv: the time 'yesterday' of submissions/tiny.csv should look like 20"
    )


def test_a_score_that_does_not_come(server, colours, file, monkeypatch):
    monkeypatch.setattr(submitting, "PATIENCE", 0.05)
    monkeypatch.setattr(submitting, "POLL", 0.05)
    assert refusal_of(submit_file, file, Kaggle()) == (
        "submissions/tiny.csv: no score after 0 h; look on the competition's page"
    )
    assert log()[0]["status"] == "PENDING"


def test_a_log_that_is_not_the_kits(server, kit, colours, file):
    Path("submissions/log.csv").write_text("a,b\n1,2\n")
    code, told = kit("submit", file)
    assert (code, told) == (
        1,
        "error: submissions/log.csv has no column time, competition, file, sha256, experiment, policy, cv, ref, "
        "status, public and 1 more; it is not the kit's log: move it away\n",
    )
    assert Path("submissions/log.csv").read_text() == "a,b\n1,2\n"
    assert colours.submissions == []


def test_rules_that_are_not_accepted(server, kit, colours, file):
    colours.joined = False
    code, told = kit("submit", file)
    assert code == 1
    assert told.endswith("are the competition's rules accepted?\n")
    assert not Path("submissions/log.csv").exists()


# Kernels


@pytest.fixture
def infer(server, colours):
    """Pushes an infer kernel; `files` is what it has left, None while it runs."""
    record = {"kind": "infer", "competition": {"slug": "colours", "path": "data"}}

    def make(files: dict[str, bytes] | None) -> Path:
        return pushed(server, Kaggle(), files, record=record)

    return make


def test_a_version_of_a_kernel_is_submitted(server, kit, impatient, colours, infer):
    write_json(Path("runs/tiny/uniform/scores.json"), {"oof": 0.75})
    server.script_submission("colours", Outcome(public_score=0.5, polls=1))
    path = infer({"submission.csv": b"id,label\n"})
    infer({"submission.csv": b"id,label\n1,2\n"})
    server.kernels[REF].append(server.kernels[REF][0])  # a version by other hands
    assert kit("submit", "--kernel", path) == (
        0,
        f"submitted {REF} version 2 to colours; {WAITS}{REF} version 2: public score 0.5; CV 0.75000\n",
    )
    (request,) = asked(server, "CreateCodeSubmission")
    assert request == {
        "competitionName": "colours",
        "kernelOwner": "tester",
        "kernelSlug": SLUG,
        "kernelVersion": 2,
        "fileName": "submission.csv",
        "submissionDescription": f"{REF} version 2 CV 0.75000",
    }
    (row,) = log()
    digest = json.loads((path / "push.json").read_text())["digest"]
    assert (row["file"], row["sha256"], row["status"]) == (f"{REF} version 2", digest, "COMPLETE")
    code, told = kit("submit", "--kernel", path)
    assert (code, told) == (
        1,
        f"error: {REF} version 2 was submitted on {row['time']} as {REF} version 2, public score 0.5; --again "
        "submits it once more\n",
    )
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", "--kernel", path, "--again")[0] == 0
    assert len(colours.submissions) == 2


def test_a_kernel_built_anew_since_it_was_pushed(server, kit, impatient, colours, infer):
    """What is logged is what was pushed."""
    for policy, score in (("uniform", 0.75), ("cosine", 0.8)):
        write_json(Path(f"runs/tiny/{policy}/scores.json"), {"oof": score})
    path = infer({"submission.csv": b"id,label\n"})
    folder, digest = KernelFolder(path), KernelFolder(path).push["digest"]
    folder.write_record(replace(folder.record, policies=["cosine"], competition={"slug": "flowers"}))
    folder.code_file.write_text("print('another')\n")
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", "--kernel", path)
    assert code == 0
    assert told.splitlines()[0] == (
        f"{path} was built anew since it was pushed; {REF} version 1 is handed in as it was pushed"
    )
    (row,) = log()
    assert (row["policy"], row["cv"], row["sha256"]) == ("uniform", "0.75000", digest)


def test_an_interrupted_code_submission(server, kit, impatient, colours, infer, monkeypatch):
    path = infer({"submission.csv": b"id,label\n"})
    interrupt(monkeypatch, submit_kernel, path)
    assert [row["status"] for row in log()] == ["UNKNOWN"]
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", "--kernel", path)
    assert (code, told.splitlines()[-1]) == (0, f"{REF} version 1: public score 0.5")
    assert len(colours.submissions) == 1
    assert [(row["ref"], row["status"]) for row in log()] == [("1", "COMPLETE")]


@pytest.mark.parametrize("status", ["RUNNING", "ERROR"])
def test_a_kernel_that_is_not_complete(server, kit, infer, colours, status):
    path = infer(None)
    server.script_status(REF, [status])
    assert kit("submit", "--kernel", path) == (
        1,
        f"error: {REF} version 1 is {status}; only a complete version can be submitted\n",
    )
    assert colours.submissions == []


def test_a_kernel_without_a_submission(server, kit, infer, colours, impatient):
    code, told = kit("submit", "--kernel", infer({"other.csv": b""}))
    assert (code, told.splitlines()[-1]) == (
        1,
        f'error: {REF} version 1 left no submission.csv: Kaggle would answer "CSV not found"',
    )
    assert colours.submissions == []


def test_a_code_submission_whose_answer_was_lost(server, kit, impatient, infer, colours):
    path = infer({"submission.csv": b"id,label\n"})
    server.misbehave("CreateCodeSubmission", answer(503, "Busy"), drop(), drop(acted=True))
    server.script_submission("colours", Outcome(public_score=0.5))
    code, told = kit("submit", "--kernel", path)
    assert (code, len(colours.submissions)) == (0, 1), told


def test_a_kernel_of_no_competition(server, kit):
    path = pushed(server, Kaggle(), {}, record={"kind": "infer", "competition": {"slug": None}})
    assert kit("submit", "--kernel", path)[1] == (
        "error: competition.slug: missing; it says which competition to submit to\n"
    )
    other = write_kernel("other-kernel")
    assert kit("submit", "--kernel", other)[1].startswith(f"error: {other} was not pushed yet: ")
