"""Answers of Kaggle as live sessions report them, each with what the user is told."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import requests
from support.fake_kaggle import Outcome, Submission, answer, drop, instead
from support.kaggle_setting import no_pause
from support.refusals import refusal_of
from support.small_kernels import REF, SLUG, asked, dataset, pushed, rehearse, write_kernel

from kit.core.errors import NotWritten
from kit.core.paths import OutputDirs
from kit.core.stopping import Interrupted, Stopped, told
from kit.kaggle import datasets, retry
from kit.kaggle.answers import FINAL
from kit.kaggle.client import Kaggle
from kit.kaggle.datasets import upload, wait_for_dataset
from kit.kaggle.kernel import sessions
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.push import push, push_all, pushed_kernel, select_kernels
from kit.kaggle.kernel.sessions import wait, wait_for_kernel
from kit.kaggle.retry import Refused, Retry
from kit.kaggle.submission_log import read_log, write_entry
from kit.kaggle.submissions import catch_up

URL = f"https://www.kaggle.com/code/{REF}"
UNWATCHED = f"not watched any more, and may be running on Kaggle: {REF} version 1 ({URL})"


def test_a_nested_error_reaches_the_user(server, kaggle):
    server.nested_errors = True
    server.misbehave("SaveKernel", answer(400, "This kernel cannot use internet"))
    assert refusal_of(push, write_kernel(), kaggle) == (
        f"pushing {REF}: Kaggle answers 400: This kernel cannot use internet"
    )


@pytest.mark.parametrize("content", [{"error": {"code": 403, "message": "no"}}, {"code": 403, "message": "no"}])
def test_an_error_with_status_200_is_read_in_both_forms(content):
    response = requests.Response()
    response.status_code, response._content = 200, json.dumps(content).encode()

    def fail() -> None:
        raise requests.HTTPError(response=response)

    with pytest.raises(Refused, match="Kaggle answers 403: no") as refused:
        Retry(print).call("asking", fail)
    assert refused.value.status == 403


def test_a_title_in_use_is_not_tried_again(server, kaggle):
    server.misbehave("SaveKernel", *[answer(409, "The requested title is already in use")] * 9)
    assert "already in use" in refusal_of(push, write_kernel(), kaggle)
    assert len(asked(server, "SaveKernel")) == 1


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_version_just_pushed_is_looked_for_again(server, kaggle, said, status):
    server.kernel_lag, server.lag_status = 9, status
    path = pushed(server, kaggle)
    server.finish(REF)
    assert wait(pushed_kernel(path), kaggle, said.append, no_pause).outcome == "complete"
    line = f"{REF} version 1: Kaggle does not show it yet; looking again for up to 5 min"
    assert said.count(line) == 1


def test_the_grace_counts_from_the_push(server, kaggle, kit):
    """A version that was pushed an hour ago, and is refused now, is refused."""
    path = pushed(server, kaggle)
    record = json.loads((path / "push.json").read_text())
    record["when"] = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    (path / "push.json").write_text(json.dumps(record))
    server.misbehave("GetKernelSessionStatus", answer(403, "Permission was denied"))
    code, told = kit("kernel", "wait", path)
    assert code == 1
    assert f"a session may be running all the same: look at {URL}" in told
    assert f"where it was deleted, remove {path}/push.json" in told
    assert f"{UNWATCHED}; python -m kit kernel wait {path} goes on" in told
    assert len(asked(server, "GetKernelSessionStatus")) == 1


def test_a_version_that_cannot_be_told_is_taken_from_the_answer(server, kaggle, said):
    server.broken_ids = {REF}
    assert push(write_kernel(), kaggle, say=said.append).version == 1
    assert f"pushing {REF}: Kaggle does not tell its version; the answer to the push will" in said
    assert kaggle.latest_version("tester", SLUG) is None


def test_the_slug_of_the_answer_counts(server, kaggle, said):
    server.slugs = {SLUG: "another-slug"}
    path = write_kernel()
    assert push(path, kaggle, say=said.append).slug == "another-slug"
    assert json.loads((path / "push.json").read_text())["slug"] == "another-slug"
    assert f"pushing {REF}: Kaggle calls it tester/another-slug" in said
    server.slugs = {}
    assert push(path, kaggle, say=said.append).version == 2
    assert list(server.kernels) == ["tester/another-slug"]


def test_the_first_push_of_a_kernel_is_not_repeated_while_kaggle_may_not_tell_of_it(server, kaggle, said):
    """For minutes it answers 403 to looks at what has arrived; a second push would be a second session."""
    server.kernel_lag = 12
    server.misbehave("SaveKernel", drop(acted=True))
    assert push(write_kernel(), kaggle, say=said.append).version == 1
    assert [name for name, _ in server.requests].count("SaveKernel") == 1
    assert any("Kaggle may show it late" in line for line in said)


def test_an_interrupted_first_push_is_not_repeated_while_kaggle_may_not_tell_of_it(server, kaggle, said):
    path = write_kernel()
    assert push(path, kaggle, say=said.append).version == 1
    begun = {"digest": KernelFolder(path).digest, "owner": "tester", "version": 0, "only": []}
    KernelFolder(path).write_begun_push(begun)
    (path / "push.json").unlink()
    server.misbehave("GetKernel", *[answer(403, "No")] * 12)
    assert push(path, kaggle, say=said.append).version == 1
    assert [name for name, _ in server.requests].count("SaveKernel") == 1


def test_the_log_of_what_was_just_pushed(server, kit):
    path = pushed(server, Kaggle())
    server.misbehave("ListKernelSessionOutput", answer(403, "No"))
    code, text = kit("kernel", "logs", path)
    assert (code, text) == (
        1,
        f"error: {REF} version 1: Kaggle does not show it yet; try again in some minutes, or with --follow\n",
    )


def test_a_dataset_of_which_kaggle_refused_to_tell(server, kaggle, said):
    folder = dataset(a=b"1")
    upload(folder, kaggle, say=said.append)
    server.misbehave("GetDatasetStatus", answer(403, "No"), answer(403, "No"))
    message = refusal_of(upload, folder, kaggle)
    assert message.endswith("where it is yours, Kaggle refused to tell of it: try again later")


def test_an_older_version_is_not_taken_for_a_push_that_did_not_arrive(server, kaggle):
    """Kaggle may refuse to tell of the kernel before the push, and tell of its old version after it."""
    path = pushed(server, kaggle)
    (path / f"{SLUG}.py").write_text("print('another')\n")
    rehearse(path)
    server.misbehave("GetKernel", answer(403, "No"))
    server.misbehave("SaveKernel", answer(503, "Busy"))
    assert push(path, kaggle).version == 2
    assert [each.source for each in server.kernels[REF]][-1] == "print('another')\n"


def test_the_version_before_a_push_is_asked_for_once(server, kaggle):
    push(write_kernel(), kaggle)
    assert len(asked(server, "GetKernel")) == 1


def test_an_attached_kernel_that_was_just_pushed_is_waited_for(server, kaggle, said):
    """Also where Kaggle does not show it yet: without its outputs the kernel would run for nothing."""
    server.kernel_lag = 3
    kernel = pushed_kernel(pushed(server, kaggle))
    server.script_status(REF, ["RUNNING", "COMPLETE"])
    wait_for_kernel(REF, kaggle, said.append, no_pause, pushed=kernel)
    assert server.kernels[REF][0].status == "COMPLETE"


def test_a_dataset_just_made_is_looked_for_again(server, kaggle, said, impatient):
    server.dataset_lag = 3
    folder = dataset(a=b"1")
    assert upload(folder, kaggle, say=said.append) == "tester/small-data"
    assert "waiting for the dataset tester/small-data: Kaggle does not show it yet" in said


def test_a_dataset_that_never_shows(server, kaggle, said, monkeypatch):
    monkeypatch.setattr(datasets, "GRACE", -1)
    assert refusal_of(wait_for_dataset, "tester/none-such", kaggle, said.append, no_pause, 1) == (
        "there is no dataset tester/none-such on Kaggle that tester may see; upload it first"
    )


def test_until_looks_again_and_says_so_once(monkeypatch):
    lines, waits, found = [], [], iter([None, None, "there"])
    assert Retry(lines.append, waits.append).until("no CSV", lambda: next(found)) == "there"
    assert lines == ["no CSV; Kaggle may show it late: looking again for up to 5 min"]
    assert waits == [retry.GRACE_POLL] * 2
    assert Retry(lines.append, waits.append).until("no CSV", lambda: None, seconds=0) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(143)], ids=["plain", "signal"])
def test_an_interrupted_wait_names_what_runs(server, kaggle, said, error):
    path = pushed(server, kaggle)

    def pause(seconds: float) -> None:
        raise error

    with pytest.raises(Stopped) as stopped, told():
        wait(pushed_kernel(path), kaggle, said.append, pause)
    assert f"{UNWATCHED}; the same command goes on" in "\n".join([*said, str(stopped.value)])


def three_kernels() -> list[KernelFolder]:
    for fold in range(3):
        write_kernel(f"small-train-fold-{fold}")
    return select_kernels([], True, Path())


def running(server) -> list[str]:
    return [ref for ref, versions in server.kernels.items() if versions[-1].status not in FINAL]


@pytest.mark.parametrize(
    "fault", [answer(503), answer(429), answer(500), drop()], ids=["503", "429", "500", "lost"]
)
def test_a_short_outage_gives_no_slot_away(server, kaggle, said, monkeypatch, fault):
    """Of those that run nothing is known meanwhile: they count, and are looked at again."""
    monkeypatch.setattr(sessions, "GRACE", -1)  # they were pushed long ago
    kernels, looks = three_kernels(), []

    def pause(seconds: float) -> None:
        looks.append(len(running(server)))
        if len(looks) < 3:
            server.misbehave("GetKernelSessionStatus", *[fault] * 12)
        else:
            server.finish(running(server)[0])

    ended = push_all(kernels, kaggle, sessions=2, say=said.append, pause=pause)
    assert [each.outcome for each in ended] == ["complete"] * 3
    assert looks == [2, 2, 2, 2, 1]
    for fold in range(2):
        again = f"tester/small-train-fold-{fold} version 1 may be running: looking again for up to 60 min"
        assert sum(line.endswith(again) for line in said) == 1


def test_an_outage_that_lasts_ends_the_command_and_names_what_runs(server, kaggle, said, monkeypatch):
    monkeypatch.setattr(sessions, "OUTAGE", 0)

    def pause(seconds: float) -> None:
        server.misbehave("GetKernelSessionStatus", *[answer(503)] * 6)

    message = refusal_of(partial(push_all, say=said.append, pause=pause), three_kernels(), kaggle)
    assert message.startswith("asking for tester/small-train-fold-0 version 1: given up after 6 attempts")
    names = [f"tester/small-train-fold-{fold} version 1" for fold in range(2)]
    assert all(f"{name} (https://www.kaggle.com/code/{name.split()[0]})" in message for name in names)
    assert message.endswith("; the same command goes on")
    assert len(server.kernels) == 2


def test_a_kernel_that_kaggle_always_fails_at_does_not_end_the_watching_of_the_others(
    server, kaggle, said, monkeypatch
):
    monkeypatch.setattr(sessions, "OUTAGE", 0)
    monkeypatch.setattr(sessions, "GRACE", -1)

    def pause(seconds: float) -> None:
        server.behave("GetKernelSessionStatus")
        server.finish(running(server)[-1])
        if len(server.kernels) == 2:
            server.misbehave("GetKernelSessionStatus", *[answer(500)] * 6)

    ended = push_all(three_kernels(), kaggle, sessions=2, say=said.append, pause=pause)
    assert [each.outcome for each in ended] == ["failed", "complete", "complete"]
    assert "try again later, or look at https://www.kaggle.com/code/tester/small-train-fold-0" in ended[0].failure


@pytest.mark.parametrize("status", [401, 400])
def test_what_concerns_all_kernels_ends_the_command(server, kaggle, said, status):
    def pause(seconds: float) -> None:
        server.misbehave("GetKernelSessionStatus", answer(status, "who?"))

    message = refusal_of(partial(push_all, say=said.append, pause=pause), three_kernels(), kaggle)
    assert f"Kaggle answers {status}: who?" in message
    assert "may be running on Kaggle: tester/small-train-fold-0 version 1" in message
    assert "tester/small-train-fold-1 version 1" in message


def test_a_full_disk_while_an_end_is_judged_ends_the_command(server, kaggle, said, monkeypatch):
    def full(*_):
        raise NotWritten("the disk is full")

    monkeypatch.setattr(sessions, "judge", full)

    def pause(seconds: float) -> None:
        server.finish(running(server)[0])

    message = refusal_of(partial(push_all, say=said.append, pause=pause), three_kernels(), kaggle)
    assert message.startswith("the disk is full; not watched any more, and may be running on Kaggle: ")


def test_a_denied_code_submission(server, kaggle, kit, impatient):
    """It may be submitted in the browser; the row of the log finds that."""
    server.add_competition("colours", b"")
    record = {"kind": "infer", "competition": {"slug": "colours"}}
    path = pushed(server, kaggle, {"submission.csv": b"id,label\n"}, record=record)
    server.denies_code_submissions = True
    code, text = kit("submit", "--kernel", path)
    assert code == 1
    assert "Permission 'kernelSessions.get' was denied" in text
    assert "Probably today's submissions are used up, or the token's scope is too narrow" in text
    assert f"submit version 1 in the browser at {URL} with the description" in text
    (row,) = read_log(OutputDirs.at("."))
    assert row.status == "BY HAND"
    entry = replace(row, time="2026-01-05T10:00:00+00:00")
    write_entry(entry, OutputDirs.at("."), row)  # long ago: it is still looked for
    assert catch_up("colours", OutputDirs.at("."), kaggle) == [entry]

    server.denies_code_submissions = False
    server.script_submission("colours", Outcome(public_score=0.5))
    message = asked(server, "CreateCodeSubmission")[0]["submissionDescription"]
    version = pushed_kernel(path)
    kaggle.submit_kernel("colours", version, "submission.csv", message)  # as the browser does
    (row,) = catch_up("colours", OutputDirs.at("."), kaggle)
    assert (row.status, row.public) == ("COMPLETE", "0.5")


@pytest.mark.parametrize("method", ["GetKernelSessionStatus", "CreateCodeSubmission"])
def test_what_was_denied_can_be_sent_later(server, kit, impatient, method):
    server.add_competition("colours", b"")
    record = {"kind": "infer", "competition": {"slug": "colours"}}
    path = pushed(server, Kaggle(), {"submission.csv": b"id,label\n"}, record=record)
    content = json.loads((path / "push.json").read_text())
    (path / "push.json").write_text(json.dumps(content | {"when": "2026-01-05T10:00:00+00:00"}))
    server.script_submission("colours", Outcome(public_score=0.5))
    for _ in range(2):
        server.misbehave(method, answer(403, "Permission 'kernelSessions.get' was denied"))
        code, text = kit("submit", "--kernel", path)
        assert (code, len(read_log(OutputDirs.at(".")))) == (1, 1)
        assert f"submit version 1 in the browser at {URL} with the description" in text
    code, text = kit("submit", "--kernel", path)
    assert code == 0, text
    (row,) = read_log(OutputDirs.at("."))
    assert (row.status, row.public) == ("COMPLETE", "0.5")


def denied(server, kit) -> Path:
    """Two versions of an infer kernel that were denied with one message."""
    server.add_competition("colours", b"")
    record = {"kind": "infer", "competition": {"slug": "colours"}}
    for number in (1, 2):
        path = pushed(server, Kaggle(), {"submission.csv": b"id,label\n"}, record=record)
        server.misbehave("CreateCodeSubmission", answer(403, "Permission 'kernelSessions.get' was denied"))
        assert kit("submit", "--kernel", path, "-m", "words")[0] == 1
        if number == 1:
            (path / f"{SLUG}.py").write_text("print('another')\n")
    return path


def test_what_may_be_handed_in_by_hand_is_not_sent_again(server, kit, kaggle, impatient):
    """Of two that were denied with one message, one is on Kaggle's list: which, only the user knows."""
    path = denied(server, kit)
    server.script_submission("colours", Outcome(public_score=0.5), Outcome(public_score=0.6))
    first = replace(pushed_kernel(path), version=1)
    kaggle.submit_kernel("colours", first, "submission.csv", "words")  # as the browser does
    code, text = kit("submit", "--kernel", path, "-m", "words")
    one, two = read_log(OutputDirs.at("."))
    date = server.competitions["colours"].submissions[0].date.isoformat(timespec="seconds")
    assert (code, text.splitlines()[-1]) == (
        1,
        f"error: {REF} version 2 may have been submitted by hand: Kaggle lists 1 of {date} ('words'), of which "
        f"submissions/log.csv has no row. Where it is that, write its number as ref into the row of {two.time}, "
        "status BY HAND; where it is not, --again submits it",
    )
    assert len(server.competitions["colours"].submissions) == 1
    write_entry(replace(one, ref="1"), OutputDirs.at("."), one)  # as the message says
    assert kit("submit", "--kernel", path, "-m", "words")[0] == 0
    rows = [(row.file[-1], row.ref, row.public) for row in read_log(OutputDirs.at("."))]
    assert rows == [("1", "1", "0.5"), ("2", "2", "0.6")]


def test_what_was_handed_in_by_hand_with_other_words_may_be_it(server, kit, kaggle, impatient):
    path = denied(server, kit)
    server.script_submission("colours", Outcome(public_score=0.5), Outcome(public_score=0.6))
    kaggle.submit_kernel("colours", pushed_kernel(path), "submission.csv", "")
    assert "version 2 may have been submitted by hand" in kit("submit", "--kernel", path, "-m", "words")[1]
    assert kit("submit", "--kernel", path, "-m", "words", "--again")[0] == 0
    assert len(server.competitions["colours"].submissions) == 2


def test_what_cannot_be_a_kernels_output_is_not_asked_about(server, kit, impatient):
    """A CSV file of another name that was handed in on the page, say."""
    path = denied(server, kit)
    colours = server.competitions["colours"]
    colours.submissions.append(Submission(1, "tiny.csv", "words", outcome=Outcome(public_score=0.1)))
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", "--kernel", path, "-m", "words")[0] == 0
    assert [each.file_name for each in colours.submissions] == ["tiny.csv", "submission.csv"]


def test_a_file_whose_answer_was_lost_is_found_beside_kernels_that_were_denied(server, kit, kaggle, impatient):
    """They have one message, but not one name on Kaggle's list."""
    denied(server, kit)
    one = read_log(OutputDirs.at("."))[0]
    file = replace(one, file="submissions/tiny.csv", sha256="f", status="UNKNOWN")
    write_entry(file, OutputDirs.at("."))
    date, outcome = datetime.now(UTC), Outcome(public_score=0.5)
    server.competitions["colours"].submissions.append(
        Submission(1, "tiny.csv", "words", date=date, outcome=outcome)
    )
    rows = catch_up("colours", OutputDirs.at("."), kaggle, say=lambda line: None)
    assert [(row.ref, row.status) for row in rows] == [("", "BY HAND"), ("", "BY HAND"), ("1", "COMPLETE")]


def test_a_number_that_kaggle_does_not_list(server, kit, impatient):
    path = denied(server, kit)
    _, two = read_log(OutputDirs.at("."))
    wrong = replace(two, ref="77", time="2026-01-05T10:00:00+00:00")
    write_entry(wrong, OutputDirs.at("."), two)
    what = (
        f"submissions/log.csv: ref 77 of {REF} version 2 is not on Kaggle's list of your submissions to colours; "
        f"correct it in the row of {wrong.time}, or empty that cell: the next submit of it tells what it may be"
    )
    assert kit("submit", "--kernel", path, "-m", "words") == (1, f"error: {what}\n")
    code, text = kit("submissions", "--refresh")
    assert (code, text.count(what)) == (0, 1)
    assert server.competitions["colours"].submissions == []


def test_a_number_that_kaggle_lists_late(server, kit, kaggle, impatient, monkeypatch):
    """A short while after the denial, it may be that Kaggle does not list it yet."""
    path = denied(server, kit)
    _, two = read_log(OutputDirs.at("."))
    write_entry(replace(two, ref="1"), OutputDirs.at("."), two)
    server.script_submission("colours", Outcome(public_score=0.5))
    kaggle.submit_kernel("colours", pushed_kernel(path), "submission.csv", "words")  # as the browser does
    server.misbehave("ListSubmissions", *[instead({"submissions": []})] * 3)
    code, text = kit("submit", "--kernel", path, "-m", "words")
    assert (code, text.count(f"ref 1 of {REF} version 2 is not on Kaggle's list; Kaggle may show it late")) == (
        0,
        1,
    )
    assert len(server.competitions["colours"].submissions) == 1


def test_what_is_not_listed_twice_is_sent(server, kit, impatient):
    path = denied(server, kit)
    server.script_submission("colours", Outcome(public_score=0.5))
    assert kit("submit", "--kernel", path, "-m", "words")[0] == 0


def test_one_whose_answer_was_lost_is_not_taken_for_one_by_hand(server, kit, kaggle, impatient):
    path = denied(server, kit)
    rows = read_log(OutputDirs.at("."))
    write_entry(replace(rows[1], status="UNKNOWN"), OutputDirs.at("."), rows[1])
    kaggle.submit_kernel("colours", replace(pushed_kernel(path), version=1), "submission.csv", "words")
    lines = []
    rows = catch_up("colours", OutputDirs.at("."), kaggle, say=lines.append)
    assert [row.status for row in rows] == ["BY HAND", "UNKNOWN"]
    assert [line.partition(": ")[2] for line in lines] == [
        "another has the same message, so neither is looked for on Kaggle's list"
    ] * 2


def test_another_403_is_what_it_says(server, kit, impatient):
    server.add_competition("colours", b"")
    record = {"kind": "infer", "competition": {"slug": "colours"}}
    path = pushed(server, Kaggle(), {"submission.csv": b"id,label\n"}, record=record)
    server.misbehave("CreateCodeSubmission", answer(403, "You must accept this competition's rules"))
    code, text = kit("submit", "--kernel", path)
    assert code == 1
    assert "You must accept this competition's rules" in text
    assert "in the browser" not in text


def test_complete_with_an_error_text_is_a_failure(server, kaggle, kit, impatient):
    server.add_competition("colours", b"")
    record = {"kind": "infer", "competition": {"slug": "colours"}}
    path = pushed(server, kaggle, {"submission.csv": b"id,label\n"}, record=record)
    server.script_submission("colours", Outcome(error="Notebook Threw Exception"))
    code, text = kit("submit", "--kernel", path)
    assert code == 1
    assert text.endswith(f"error: Kaggle could not score {REF} version 1: Notebook Threw Exception\n")


def test_what_lags_and_is_refused_once_arrives(server, kaggle, said, impatient):
    server.lag_everything()
    folder = dataset(a=b"1")
    upload(folder, kaggle, say=said.append)
    path = pushed(server, kaggle, dataset_sources=["tester/small-data"])
    server.finish(REF)
    assert wait(pushed_kernel(path), kaggle, said.append, no_pause).outcome == "complete"
    assert server.kernels[REF][0].mounted_datasets == ["tester/small-data"]
    assert sessions.NOT_SHOWN in "".join(said)
