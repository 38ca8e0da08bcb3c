"""How a session ended: Kaggle's status, and the list that the kernel has left, through the real client."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.fake_kaggle import answer
from support.refusals import refusal_of
from support.small_kernels import REF, listed, pushed

from kit.kaggle import retry
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.ended import Expected, expected_of, judge
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.outputs import outputs_with
from kit.kaggle.kernel.push import pushed_kernel
from kit.kaggle.logs import last_time
from kit.kaggle.retry import Refused

RUNS = [f"uniform/seed0/fold{fold}" for fold in range(5)]
NEXT = "; kernel fetch brings home what is finished, then the same push pushes the others"
LIMIT = 1800  # seconds, of the small kernels


@pytest.fixture
def path(server, kaggle) -> Path:
    """A pushed train kernel of five runs."""
    return pushed(server, kaggle, record={"folds": list(range(5))})


def ended(server, kaggle, path, status: str, files: dict[str, bytes], seconds: float | None = None, log: str = ""):
    """How the version ended that left these files, and whose log was written last after so many seconds."""
    server.finish(REF, status, log, files)
    if seconds is not None:
        server.kernels[REF][-1].log.append({"stream_name": "stdout", "time": seconds, "data": "the end\n"})
    kernel = pushed_kernel(path)
    return judge(kernel, kaggle.session(kernel), kaggle, expected_of(KernelFolder(path)))


def pushed_before(path: Path, **ago: float) -> None:
    """Make the push be so long ago."""
    record = KernelFolder(path).push
    KernelFolder(path).write_push(record | {"when": (datetime.now(UTC) - timedelta(**ago)).isoformat()})


def test_complete_is_what_the_kernels_own_list_says(server, kaggle, path):
    assert ended(server, kaggle, path, "COMPLETE", listed({"a": b"1"}, [])).outcome == "complete"
    assert ended(server, kaggle, path, "COMPLETE", listed({"a": b"1"})).outcome == "complete"  # an early version's


@pytest.mark.parametrize(
    ("missing", "exit_code", "log", "failure"),
    [
        (
            RUNS[3:],
            1,
            "error: the budget allowed no more than 3 of 5 runs; the same command trains the others\n",
            "timeout (3 of 5 runs are finished; python -m kit ended with exit code 1); try fewer epochs, or fewer "
            f"folds a kernel{NEXT}",
        ),
        (
            RUNS[1:],
            -9,
            "exit code -9 after 60 s, 3 files\n",
            "exceeded compute (1 of 5 runs are finished; python -m kit ended with exit code -9); try a smaller "
            f"training.batch_size or data.cache_gb{NEXT}",
        ),
        (
            RUNS[4:],
            1,
            "KeyError\n",
            f"incomplete (4 of 5 runs are finished; python -m kit ended with exit code 1){NEXT}",
        ),
        (RUNS[4:], 0, "", f"incomplete (4 of 5 runs are finished){NEXT}"),
        (
            RUNS[4:],
            None,
            "",
            f"incomplete (4 of 5 runs are finished; it was ended before python -m kit was){NEXT}",
        ),
        ([], 1, "KeyError\n", "exception (5 of 5 runs are finished; python -m kit ended with exit code 1)"),
        (RUNS, 1, "", "incomplete (0 of 5 runs are finished; python -m kit ended with exit code 1)"),
    ],
)
def test_complete_with_runs_that_are_missing_is_a_failure(server, kaggle, path, missing, exit_code, log, failure):
    end = ended(server, kaggle, path, "COMPLETE", listed({"a": b"1"}, missing, exit_code), log=log)
    assert (end.outcome, end.failure, list(end.missing)) == ("failed", failure, missing)
    assert list(end.tail) == log.splitlines()


def test_complete_without_a_list_is_a_failure(server, kaggle, said, path):
    end = ended(server, kaggle, path, "COMPLETE", {"a": b"1"})
    failure = "exception (there is no outputs.json among its outputs, so it did not reach its end)"
    assert (end.outcome, end.failure, end.missing) == ("failed", failure, RUNS)
    (line,) = said
    assert line.startswith(f"not yet among the outputs of {REF} version 1: outputs.json")


def test_an_infer_kernel_whose_kit_failed(server, kaggle):
    path = pushed(server, kaggle, record={"kind": "infer"})
    files = {"submission.csv": b"id,label\n"}
    assert ended(server, kaggle, path, "COMPLETE", listed(files, [], 0)).outcome == "complete"
    end = ended(server, kaggle, path, "COMPLETE", listed(files, [], 1), log="KeyError\n")
    assert (end.outcome, end.failure) == ("failed", "exception (python -m kit ended with exit code 1)")


@pytest.mark.parametrize("late", ["outputs.json", "submission.csv"])
def test_outputs_that_are_listed_late(server, said, late):
    files, pauses = listed({"submission.csv": b"id,label\n"}, []), []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            server.finish(REF, files=files)

    kaggle = Kaggle(said.append, pause)
    path = pushed(server, kaggle, record={"kind": "infer"})
    first = {name: content for name, content in files.items() if name != late}
    assert ended(server, kaggle, path, "COMPLETE", first | {"a": b"1"}).outcome == "complete"
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("seconds", "hours_ago", "timeout"),
    [
        (0.8 * LIMIT, 0, True),
        (LIMIT, 0, True),
        (0.79 * LIMIT, 9, False),  # the log says better than the clock when it ended
        (None, 0.51, True),
        (None, 0.49, False),
    ],
)
def test_a_session_that_was_cancelled_near_its_limit_is_a_timeout(
    server, kaggle, path, seconds, hours_ago, timeout
):
    pushed_before(path, hours=hours_ago)
    files = listed({"a": b"1"}, RUNS[3:], None)
    end = ended(server, kaggle, path, "CANCEL_ACKNOWLEDGED", files, seconds)
    assert list(end.missing) == RUNS[3:]
    if timeout:
        how = "as it seems at" if seconds is None else "at"
        stated = f"timeout (Kaggle ended it {how} its limit of 0.5 h; 3 of 5 runs are finished)"
        assert (end.outcome, end.failure) == (
            "failed",
            f"{stated}; try fewer epochs, or fewer folds a kernel{NEXT}",
        )
    else:
        perhaps = "by hand, or by Kaggle at its limit" if hours_ago == 9 else ""
        assert (end.outcome, end.failure) == ("cancelled", (perhaps + NEXT).removeprefix("; "))


def test_a_first_listing_that_is_refused_is_not_taken_for_nothing_finished(server, kaggle, path):
    server.misbehave("ListKernelSessionOutput", answer(403, "No"))
    end = ended(server, kaggle, path, "CANCEL_ACKNOWLEDGED", listed({"a": b"1"}, RUNS[3:], None), LIMIT)
    assert list(end.missing) == RUNS[3:]
    assert "3 of 5 runs are finished" in end.failure


def test_a_refusal_at_the_last_look_keeps_what_was_listed(server, kaggle, path, monkeypatch):
    monkeypatch.setattr(retry, "GRACE", 25.0)  # of pauses of ten seconds: looks at 0, 10, 20 and 30
    server.finish(REF, files={"a": b"1"})
    listing = kaggle.outputs
    looks = iter([listing, listing, listing, None])

    def outputs(kernel):
        if (look := next(looks)) is None:
            raise Refused("listing: Kaggle answers 403: No", 403)
        return look(kernel)

    monkeypatch.setattr(kaggle, "outputs", outputs)
    assert list(outputs_with(pushed_kernel(path), kaggle, ["outputs.json"]).files) == ["a"]
    assert next(looks, "over") == "over"


def test_a_listing_that_is_always_refused_is(server, kaggle, path, monkeypatch):
    monkeypatch.setattr(retry, "GRACE", 25.0)
    server.misbehave("ListKernelSessionOutput", *[answer(403, "No")] * 4)
    assert "Kaggle answers 403: No" in refusal_of(outputs_with, pushed_kernel(path), kaggle, ["outputs.json"])


@pytest.mark.parametrize("content", [b"<html>", b'{"files": {}}', b"[]"])
def test_a_list_that_is_none_is_a_failure_of_that_kernel(server, kaggle, path, content):
    end = ended(server, kaggle, path, "COMPLETE", {"outputs.json": content})
    assert end.outcome == "failed"
    assert end.failure.startswith("exception (its outputs.json is no list of outputs: ")


def test_a_listing_that_is_refused_after_the_end_is_looked_at_again(server, kaggle, path):
    server.misbehave("ListKernelSessionOutput", answer(403, "No"), answer(404, "No"))
    assert ended(server, kaggle, path, "COMPLETE", listed({"a": b"1"})).outcome == "complete"


def test_a_timeout_that_left_nothing(server, kaggle, path):
    end = ended(server, kaggle, path, "CANCEL_ACKNOWLEDGED", {"kit.log": b"?"}, LIMIT)
    stated = "timeout (Kaggle ended it at its limit of 0.5 h; 0 of 5 runs are finished)"
    assert (end.outcome, end.missing) == ("failed", RUNS)
    assert end.failure == f"{stated}; try fewer epochs, or fewer folds a kernel"


def test_what_is_expected_of_a_part_is_that_part(path):
    folder = KernelFolder(path)
    folder.write_push(folder.push | {"only": RUNS[3:]})
    expected = expected_of(folder)
    assert (expected.runs, expected.output, expected.limit) == (RUNS[3:], None, LIMIT)
    assert expected_of(folder).pushed == datetime.fromisoformat(folder.push["when"])


def test_a_push_whose_time_is_not_known_is_at_no_limit(path):
    folder = KernelFolder(path)
    for when in ("yesterday", None):
        folder.write_push(folder.push | {"when": when})
        assert expected_of(folder).pushed is None
    assert not Expected(limit=1).at_limit(None)


@pytest.mark.parametrize(
    ("log", "time"),
    [
        (json.dumps([{"time": 1.5, "data": "a"}, {"time": 7.25, "data": "b"}]), 7.25),
        ("[]", None),
        ("", None),
        ("plain text", None),
        ('[{"data": "a"}]', None),
        ('{"time": 3}', None),
    ],
)
def test_when_a_log_was_written_last(log, time):
    assert last_time(log) == time
