"""The kit's side of Kaggle's client, which is the real one, against Kaggle on 127.0.0.1."""

import json
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import requests
from support.fake_kaggle import FakeKaggle, Outcome, answer, drop, instead
from support.refusals import refusal_of
from support.small_kernels import REF, asked, dataset, pushed

from kit.kaggle import retry as patience
from kit.kaggle.answers import PushedKernel, Quota
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.push import pushed_kernel
from kit.kaggle.logs import log_lines
from kit.kaggle.retry import Lost

BYTES = bytes(range(256)) * 400  # more than one read of a socket
DATA = "tester/small-data"
GONE = ". Addresses of files expire: the same command asks for new ones"


@pytest.fixture
def quick(monkeypatch) -> list[float]:
    """The real client's own waits between its attempts, written down and not sat through."""
    own: list[float] = []
    monkeypatch.setattr(time, "sleep", own.append)
    return own


# Who asks


def test_no_credentials(server, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    assert refusal_of(Kaggle) == (
        "no Kaggle credentials; make an API token on kaggle.com/settings and put it where it says, or set "
        "KAGGLE_USERNAME and KAGGLE_KEY"
    )


def test_a_client_that_knows_no_versions(server, monkeypatch):
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    monkeypatch.delattr(ApiListKernelSessionOutputRequest, "version_label")
    assert refusal_of(Kaggle) == (
        "Kaggle's client is too old to ask for one version of a kernel; pip install -U kaggle kagglesdk"
    )


def test_who_is_signed_in(server, kaggle, monkeypatch):
    assert kaggle.user == "tester"
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.setenv("KAGGLE_API_TOKEN", server.key)
    assert Kaggle().user == "tester"


# What is asked


def test_the_latest_version(server, kaggle):
    assert kaggle.latest_version("tester", "unknown-kernel") == 0
    path = pushed(server, kaggle)
    pushed(server, kaggle)
    assert kaggle.latest_version("tester", path.name) == 2
    server.misbehave("GetKernel", answer(401, "Who are you?"))
    assert "Who are you?" in refusal_of(kaggle.latest_version, "tester", path.name)


def test_questions_are_asked_again(server, kaggle, said, waits):
    server.misbehave("GetAcceleratorQuotaStatistics", drop(), answer(500, "Oops"), drop(after_bytes=20))
    server.gpu_quota = (2 * 3600, 30 * 3600)
    assert kaggle.gpu_quota() == Quota(2.0, 30.0)
    assert kaggle.gpu_quota().left == 28.0
    assert [line.partition(" (")[0] for line in said] == [
        "asking for the GPU quota: the connection broke",
        "asking for the GPU quota: Kaggle answers 500: Oops; again in 2 s",
        "asking for the GPU quota: the connection broke",
    ]
    assert len(waits) == 3


def test_questions_are_given_up(server, kaggle, waits, monkeypatch):
    monkeypatch.setattr(patience, "ATTEMPTS", 3)
    server.misbehave("GetAcceleratorQuotaStatistics", *[drop()] * 5)
    message = refusal_of(kaggle.gpu_quota)
    assert message.startswith("asking for the GPU quota: given up after 3 attempts; the connection broke (")
    assert (len(asked(server, "GetAcceleratorQuotaStatistics")), len(waits)) == (3, 2)


def test_no_quota_is_told(server, kaggle):
    server.misbehave("GetAcceleratorQuotaStatistics", instead({}))
    assert kaggle.gpu_quota() is None


def test_an_answer_from_somebody_else(server, kaggle, said, monkeypatch):
    """A proxy's page, which says that it is JSON."""
    real, pages = FakeKaggle.call, iter([b"<html>"])

    def call(self, path, request):
        from support.fake_kaggle import Reply

        page = next(pages, None)
        return Reply(200, page, {"Content-Type": "application/json"}) if page else real(self, path, request)

    monkeypatch.setattr(FakeKaggle, "call", call)
    assert kaggle.gpu_quota().total == 30
    assert said == ["asking for the GPU quota: the answer is not Kaggle's; again in 1 s (1 of 6 attempts)"]


def test_every_page_of_the_outputs(server, kaggle):
    files = {f"runs/{number}.txt": str(number).encode() for number in range(7)}
    path = pushed(server, kaggle, files)
    server.log(REF, "one\ntwo\n")
    server.output_page_size = 3
    outputs = kaggle.outputs(pushed_kernel(path))
    assert list(outputs.files) == list(files)
    assert [requests.get(url).content for url in outputs.files.values()] == list(files.values())
    assert outputs.log == ["one", "two"]
    assert len(asked(server, "ListKernelSessionOutput")) == 3


def test_outputs_and_status_are_of_the_version_that_is_asked_for(server, kaggle):
    path = pushed(server, kaggle, {"first.txt": b"1"})
    first = pushed_kernel(path)
    second = pushed_kernel(pushed(server, kaggle, {"second.txt": b"2"}))
    server.finish(REF, "ERROR", files={"second.txt": b"2"}, failure_message="It\n broke")
    assert [list(kaggle.outputs(kernel).files) for kernel in (first, second)] == [["first.txt"], ["second.txt"]]
    assert (kaggle.session(first).status, kaggle.session(second).status) == ("COMPLETE", "ERROR")
    assert kaggle.session(second).failure == "It broke"
    unknown = PushedKernel("tester", path.name, 9, "")
    assert refusal_of(kaggle.session, unknown).startswith(f"asking for {REF} version 9: Kaggle answers 404: ")


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ("", []),
        ("one\ntwo", ["one", "two"]),
        ("one\n\ntwo\n", ["one", "", "two"]),
        ('[{"data": "on"},\n{"data": "e\\ntwo\\n"}]', ["one", "two"]),
        ("10%\r100%\r\nnext\x85one\u2028line\n", ["100%", "next\x85one\u2028line"]),
        ('{"no": "list"}', ['{"no": "list"}']),
        ('[{"stream_name": "stdout"}]', ['[{"stream_name": "stdout"}]']),
        ("[1, 2]", ["[1, 2]"]),
    ],
)
def test_the_lines_of_a_log(log, lines):
    assert list(log_lines(log)) == lines


# Downloads


def address(server, content: bytes) -> str:
    from datetime import UTC, datetime

    return server._offer(content, "weights.bin", datetime.now(UTC))


def test_a_download_that_breaks_begins_again_and_nothing_half_is_left(server, kaggle, tmp_path, said, monkeypatch):
    target = tmp_path / "files" / "weights.bin"
    server.misbehave("GET", drop(), drop(after_bytes=1000), answer(503, "Busy"))
    kaggle.download(address(server, BYTES), target)
    assert target.read_bytes() == BYTES
    assert len(said) == 3
    assert said[2].startswith("downloading weights.bin: Kaggle answers 503: Service Unavailable; again in ")
    assert not any("/download/" in line for line in said)  # addresses are signed
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    server.misbehave("GET", drop(after_bytes=1000), drop(after_bytes=2000))
    message = refusal_of(kaggle.download, address(server, b"new" * 1000), target)
    assert message.startswith("downloading weights.bin: given up after 2 attempts; the connection broke (")
    assert target.read_bytes() == BYTES
    assert [path.name for path in target.parent.iterdir()] == ["weights.bin"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "Kaggle answers 404: Not Found; there is no such thing, or it is not yours to see"),
        (410, "Kaggle answers 410: Gone"),
        (400, "Kaggle answers 400: Bad Request"),
    ],
)
def test_an_address_that_holds_no_longer_is_an_error_and_no_file(server, kaggle, tmp_path, waits, status, reason):
    server.misbehave("GET", answer(status, "Not found"))
    assert refusal_of(kaggle.download, address(server, BYTES), tmp_path / "weights.bin") == (
        f"downloading weights.bin: {reason}{GONE}"
    )
    assert not (tmp_path / "weights.bin").exists()
    assert waits == []


def test_an_empty_file_is_a_file(server, kaggle, tmp_path):
    kaggle.download(address(server, b""), tmp_path / "empty.bin")
    assert (tmp_path / "empty.bin").read_bytes() == b""


# Uploads


def test_an_interrupted_upload_is_taken_up(server, kaggle, quick):
    server.misbehave("PUT", drop(after_bytes=1000), answer(503, after_bytes=70_000))
    kaggle.upload_dataset(dataset(file=BYTES), "first")
    assert server.datasets[DATA].files == {"file": BYTES}
    uploads = [request["contentRange"] for name, request in server.requests if name in ("PUT", "PROBE")]
    size = len(BYTES)
    resumed = ["", "", f"bytes */{size}", f"bytes 70000-{size - 1}/{size}"]
    assert uploads == (["", "", ""] if version("kaggle") == "2.0.2" else resumed)  # that one begins anew


def test_a_file_that_the_client_leaves_out_is_an_error(server, kaggle):
    server.misbehave("PUT", answer(400))
    folder = dataset(first=b"1", second=b"2")
    assert refusal_of(kaggle.upload_dataset, folder, "") == (
        f"not all 2 files of {folder} could be uploaded; try again"
    )
    assert server.datasets == {}
    kaggle.upload_dataset(folder, "")
    assert server.datasets[DATA].files == {"first": b"1", "second": b"2"}


@pytest.mark.parametrize("fault", [drop(acted=True), answer(502, "Bad gateway", acted=True)])
@pytest.mark.parametrize("status", ["READY", "BLOBS_RECEIVED"])
def test_an_upload_whose_answer_was_lost_is_recognised(server, kaggle, said, fault, status):
    folder = dataset(first=b"1")
    server.misbehave("CreateDataset", fault)
    server.dataset_statuses = [status]
    kaggle.upload_dataset(folder, "")
    assert len(server.datasets[DATA].versions) == 1
    assert said[1] == f"uploading {DATA}: it had arrived, only the answer was lost"
    server.datasets[DATA].status = "READY"
    server.misbehave("CreateDatasetVersion", fault)
    kaggle.upload_dataset(folder, "")
    assert len(server.datasets[DATA].versions) == 2
    assert len(asked(server, "CreateDatasetVersion")) == 1


def test_an_upload_that_did_not_arrive_is_sent_again(server, kaggle, said):
    folder = dataset(first=b"1")
    server.misbehave("CreateDataset", drop(), answer(409, "Busy"))
    kaggle.upload_dataset(folder, "")
    server.misbehave("CreateDatasetVersion", drop(), answer(503, "Busy"))
    kaggle.upload_dataset(folder, "")
    assert len(server.datasets[DATA].versions) == 2
    assert len(said) == 4


def test_the_status_of_a_dataset(server, kaggle):
    assert kaggle.dataset_status(DATA) == ""
    kaggle.upload_dataset(dataset(first=b"1"), "")
    assert kaggle.dataset_status(DATA) == "READY"
    server.misbehave("GetDatasetStatus", answer(403, "Not yours"), answer(401, "Who are you?"))
    assert kaggle.dataset_status(DATA) == ""
    assert refusal_of(kaggle.dataset_status, DATA).startswith(
        f"asking for {DATA}: Kaggle answers 401: Who are you?"
    )


# Submissions


@pytest.fixture
def digits(server):
    return server.add_competition("digits", b"")


@pytest.fixture
def file() -> Path:
    Path("small.csv").write_text("id,label\n1,2\n")
    return Path("small.csv")


def test_a_submission_and_its_number(server, kaggle, digits, file):
    server.script_submission("digits", Outcome("COMPLETE", 0.75, None))
    assert kaggle.submit_file("digits", file, "first") == 1
    assert digits.submissions[0].content == file.read_bytes()
    (listed,) = kaggle.submissions("digits")
    assert (listed.ref, listed.file, listed.message, listed.status) == (1, "small.csv", "first", "COMPLETE")
    assert (listed.public, listed.private, listed.error) == (0.75, None, "")
    assert listed.date.tzinfo is not None


def test_all_pages_of_the_submissions_latest_first(server, kaggle, digits, file):
    server.submission_page_size = 2
    for number in range(5):
        kaggle.submit_file("digits", file, str(number))
    assert [each.message for each in kaggle.submissions("digits")] == ["4", "3", "2", "1", "0"]


def test_a_failed_upload_of_a_submission_is_tried_again(server, kaggle, digits, file, said):
    server.misbehave("PUT", answer(400), answer(400))
    assert kaggle.submit_file("digits", file, "first") == 1
    assert len(digits.submissions) == 1
    assert said[0] == (
        "submitting small.csv to digits: the upload failed (Kaggle did not take the file); again in 1 s "
        "(1 of 6 attempts)"
    )
    server.misbehave("PUT", *[answer(400)] * 10)
    assert refusal_of(kaggle.submit_file, "digits", file, "second") == (
        "submitting small.csv to digits: given up after 6 attempts; the upload failed (Kaggle did not take the "
        "file)"
    )
    assert len(digits.submissions) == 1


TAKEN = [
    drop(acted=True),
    drop(after_bytes=5),
    *[answer(status, "Busy", acted=True) for status in (408, 500, 502, 503, 504)],
]


@pytest.mark.parametrize("fault", TAKEN)
def test_a_submission_whose_answer_was_lost_is_recognised(server, kaggle, digits, file, fault):
    kaggle.submit_file("digits", file, "again and again")
    server.misbehave("CreateSubmission", fault)
    assert kaggle.submit_file("digits", file, "again and again") == 2
    assert len(digits.submissions) == 2


def test_a_submission_that_did_not_arrive_is_sent_again(server, kaggle, digits, file):
    server.misbehave("StartSubmissionUpload", drop())
    server.misbehave("CreateSubmission", drop(), answer(429, "Slow down"))
    assert kaggle.submit_file("digits", file, "first") == 1
    assert len(digits.submissions) == 1


def test_a_submission_of_which_nothing_is_known(server, kaggle, digits, file):
    server.misbehave("CreateSubmission", drop(acted=True))
    kaggle.submissions("digits")
    server.misbehave("ListSubmissions", *[instead({})] * 2)
    server.misbehave("CreateSubmission", *[drop()] * 4)
    server.misbehave("ListSubmissions", *[answer(500)] * 20)
    with pytest.raises(Lost, match=r"^submitting small.csv to digits: may have arrived, look on Kaggle"):
        kaggle.submit_file("digits", file, "first")


def test_kaggles_refusal_of_a_submission(server, kaggle, digits, file, waits):
    digits.daily_limit = 0
    assert refusal_of(kaggle.submit_file, "digits", file, "first").startswith(
        "submitting small.csv to digits: Kaggle answers 400: Submission not allowed: Your team has used its daily"
    )
    server.misbehave("CreateSubmission", instead({"message": "Competition\nis over"}))
    assert refusal_of(kaggle.submit_file, "digits", file, "first") == (
        "submitting small.csv to digits: Kaggle says: Competition is over"
    )
    assert waits == []


def test_how_many_submissions_are_left(server, kaggle, digits):
    digits.used_before = 3
    assert kaggle.submissions_left("digits") == 2
    digits.used_before = 5
    assert kaggle.submissions_left("digits") == 0
    server.misbehave("GetSubmissionLimits", answer(404, "Unknown method"))
    assert kaggle.submissions_left("digits") is None
    digits.joined = False
    assert refusal_of(kaggle.submissions_left, "digits").endswith(
        "; not allowed: is the name right, is it yours, and are the competition's rules accepted?"
    )


def test_metadata_is_read_as_utf_8(server, kaggle):
    folder = dataset(first=b"1")
    metadata = json.loads((folder / "dataset-metadata.json").read_text())
    (folder / "dataset-metadata.json").write_text(
        json.dumps(metadata | {"title": "Größen der Würfel"}, ensure_ascii=False), encoding="utf-8"
    )
    kaggle.upload_dataset(folder, "")
    assert server.datasets[DATA].request["title"] == "Größen der Würfel"
