"""The fake Kaggle, driven by the official client as it is: what the one says is what the other understands."""

import io
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import requests
from support.fake_kaggle import FakeKaggle, Outcome, answer, drop, instead, unset_variables

KERNEL, DATASET = "tester/small-kernel", "tester/small-dataset"
BYTES = bytes(range(256)) * 400  # more than one read of a socket


@pytest.fixture
def server(monkeypatch, tmp_path):
    with FakeKaggle() as server:
        server.lead_here(monkeypatch, tmp_path / "home")
        yield server
    assert server.errors == []
    assert server.unknown == []


@pytest.fixture
def api(server):
    return client()


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The client's waits, written down and not sat through."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def client():
    from kaggle.api.kaggle_api_extended import KaggleApi

    api = KaggleApi()
    api.authenticate()
    return api


def push(api, folder: Path, **metadata):
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text("print('hello')\n")
    content = {"id": KERNEL, "title": "Small kernel", "code_file": "main.py", "language": "python"}
    content |= {"kernel_type": "script", "enable_internet": False} | metadata
    (folder / "kernel-metadata.json").write_text(json.dumps(content))
    return api.kernels_push(str(folder))


def status(api, label: str | None = None) -> str:
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

    with api.build_kaggle_client() as kaggle:
        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = KERNEL.split("/")
        request.version_label = label
        return kaggle.kernels.kernels_api_client.get_kernel_session_status(request).status.name


def outputs(api, **fields):
    from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

    with api.build_kaggle_client() as kaggle:
        request = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = KERNEL.split("/")
        for name, value in fields.items():
            setattr(request, name, value)
        return kaggle.kernels.kernels_api_client.list_kernel_session_output(request)


def dataset_folder(folder: Path, **files: bytes) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    content = {"id": DATASET, "title": "Small dataset", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(content))
    return str(folder)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as writer:
        for name, content in files.items():
            writer.writestr(name, content)
    return buffer.getvalue()


def status_code(call, *arguments) -> int:
    """The status of the HTTP error that the client raises."""
    with pytest.raises(requests.HTTPError) as caught:
        call(*arguments)
    return caught.value.response.status_code


# Who asks


def test_the_command_line_client_in_a_process_of_its_own(tmp_path):
    with FakeKaggle() as server:
        server.gpu_quota = (3600, 7200)
        result = subprocess.run(
            [sys.executable, "-m", "kaggle", "quota", "--csv"],
            env=server.child_environment(tmp_path),
            capture_output=True,
            text=True,
        )
    assert "GPU,1.00h,1.00h,2.00h" in result.stdout, result.stderr


def test_a_wrong_key_is_refused(server, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "f" * 32)
    assert status_code(client().quota_view) == 401


def test_a_token_is_admitted_too(server, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", server.key)
    assert client().quota_view().gpu_quota.total_time_allowed.total_seconds() == 30 * 3600


def test_variables_that_lead_elsewhere():
    environ = ["PATH", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HTTPS_PROXY", "no_proxy", "http_proxy", "VERBOSE"]
    assert unset_variables(environ) == ["KAGGLE_API_TOKEN", "HTTPS_PROXY", "no_proxy", "VERBOSE"]


def test_what_no_method_answers_is_recorded(tmp_path, monkeypatch):
    with FakeKaggle() as server:
        server.lead_here(monkeypatch, tmp_path)
        assert requests.get("http://example.org/page").status_code == 404
        assert requests.post("http://localhost/api/v1/x.Y/Z", json={"a": 1}).json()["code"] == 404
    assert server.unknown == ["GET http://example.org/page", "POST http://localhost/api/v1/x.Y/Z"]
    assert server.requests[1] == ("Z", {"a": 1})


# Kernels


def test_push_keeps_the_source_and_names_unknown_sources(server, api, tmp_path):
    server.known_sources.add("someone/known-data")
    server.add_competition("digits", archive())
    response = push(
        api,
        tmp_path / "kernel",
        enable_gpu=True,
        dataset_sources=["someone/known-data", "someone/other-data"],
        competition_sources=["digits", "letters"],
        kernel_sources=["tester/other-kernel"],
        model_sources=["a/b/pyTorch/c/1"],
    )
    assert (response.version_number, response.error) == (1, "")
    assert response.invalid_dataset_sources == ["someone/other-data"]
    assert response.invalid_competition_sources == ["letters"]
    assert response.invalid_kernel_sources == ["tester/other-kernel"]
    assert response.invalid_model_sources == ["a/b/pyTorch/c/1"]
    version = server.kernels[KERNEL][0]
    assert version.source == "print('hello')\n"
    assert version.request["enableGpu"] is True
    assert version.mounted_datasets == ["someone/known-data"]
    assert push(api, tmp_path / "kernel").version_number == 2
    assert [name for name, _ in server.requests] == ["SaveKernel", "SaveKernel"]


def test_faults_come_in_order_before_or_after_the_work(server, api, tmp_path):
    busy = "Maximum batch GPU session count of 2 reached."
    server.misbehave("SaveKernel", answer(429, "Slow down", {"Retry-After": "7"}), drop(), drop(acted=True))
    server.misbehave("SaveKernel", drop(after_bytes=10), instead({"error": busy}))
    with pytest.raises(requests.HTTPError, match="Slow down") as caught:
        push(api, tmp_path)
    assert caught.value.response.headers["Retry-After"] == "7"
    for saved in (0, 1, 2):
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            push(api, tmp_path)
        assert len(server.kernels.get(KERNEL, [])) == saved
    assert push(api, tmp_path).error == busy
    assert push(api, tmp_path).version_number == 3


def test_status_of_a_pinned_version_and_of_the_latest(server, api, tmp_path):
    server.stale_statuses = 2
    push(api, tmp_path)
    server.finish(KERNEL, "ERROR", failure_message="Out of memory")
    assert api.kernels_status(KERNEL).failure_message == "Out of memory"
    push(api, tmp_path)
    server.script_status(KERNEL, ["QUEUED", "RUNNING", "COMPLETE"])
    assert status(api, "v2") == "QUEUED"
    assert [status(api) for _ in range(5)] == ["ERROR", "ERROR", "RUNNING", "COMPLETE", "COMPLETE"]
    assert status(api, "v1") == "ERROR"
    assert status_code(status, api, "2") == 404
    assert status_code(status, api, "v3") == 404
    with pytest.raises(ValueError, match="Cannot access kernel"):
        api.kernels_status("tester/unknown-kernel")


def test_output_comes_in_pages_and_by_version(server, api, tmp_path):
    push(api, tmp_path / "kernel")
    files = {"submission.csv": b"id,label\n", "runs/x/run.json": b"{}", "big.bin": BYTES}
    server.finish(KERNEL, log="one\ntwo\n", files=files)
    push(api, tmp_path / "kernel")
    server.finish(KERNEL, files={"other.txt": b"second"})
    assert [file.file_name for file in outputs(api).files] == ["other.txt"]
    server.output_page_size = 2
    first = outputs(api, version_label="v1")
    rest = outputs(api, version_label="v1", page_token=first.next_page_token)
    assert [file.file_name for file in first.files + rest.files] == list(files)
    assert not rest.next_page_token
    assert [requests.get(file.url).content for file in first.files + rest.files] == list(files.values())
    assert [event["data"] for event in json.loads(first.log)] == ["one\n", "two\n"]


def test_the_clients_own_download_of_outputs(server, api, tmp_path):
    push(api, tmp_path / "kernel")
    assert outputs(api).files == []  # not over yet
    (tmp_path / "work" / "runs").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "work" / "runs" / f"{number}.txt").write_text(str(number))
    server.output_page_size = 2
    server.finish(KERNEL, log="done\n", files=tmp_path / "work")
    api.kernels_output(KERNEL, str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").rglob("*.txt")} == {"0.txt", "1.txt", "2.txt"}
    assert "done" in (tmp_path / "out" / "small-kernel.log").read_text()


def test_names_of_outputs_may_be_hostile(server, api, tmp_path):
    push(api, tmp_path)
    names = ["../evil", "/etc/x", "a\\b", "C:\\x", "with space?#%.txt", "ü"]
    server.finish(KERNEL, files={name: name.encode() for name in names})
    files = outputs(api).files
    assert [file.file_name for file in files] == names
    assert [requests.get(file.url).content.decode() for file in files] == names


def test_one_output_file_by_version_number(server, api, tmp_path):
    from kagglesdk.kernels.types.kernels_api_service import ApiDownloadKernelOutputRequest

    push(api, tmp_path)
    server.finish(KERNEL, files={"a/b.txt": b"first"})
    push(api, tmp_path)
    request = ApiDownloadKernelOutputRequest()
    request.owner_slug, request.kernel_slug = KERNEL.split("/")
    request.file_path, request.version_number = "a/b.txt", 1
    with api.build_kaggle_client() as kaggle:
        assert kaggle.kernels.kernels_api_client.download_kernel_output(request).content == b"first"


def test_logs_while_it_runs_and_after(server, api, tmp_path):
    push(api, tmp_path)
    server.log(KERNEL, "one\n")
    stream = api.kernels_logs_stream(KERNEL)
    assert next(stream)["data"] == "one\n"
    server.log(KERNEL, "two\n")
    assert next(stream)["data"] == "two\n"
    server.finish(KERNEL, log="three\n")
    assert [event["data"] for event in stream] == ["three\n"]
    assert [event["data"] for event in api.kernels_logs_stream(KERNEL)] == ["one\n", "two\n", "three\n"]
    assert [event["data"] for event in json.loads(api.kernels_logs(KERNEL))] == ["one\n", "two\n", "three\n"]


def test_a_dropped_stream_of_logs_is_an_error_to_the_client(server, api, tmp_path):
    push(api, tmp_path)
    server.log(KERNEL, "one\ntwo\n")
    server.misbehave("GetKernelSessionLogsStream", drop(after_bytes=70))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        list(api.kernels_logs_stream(KERNEL))


def test_pushed_versions_run_in_the_background(monkeypatch, tmp_path):
    def runner(version):
        if version.number == 2:
            raise RuntimeError("broken runner")
        return "COMPLETE", "ran\n", {"out.txt": version.source.encode()}, ""

    with FakeKaggle(runner=runner, sessions=1) as server:
        server.lead_here(monkeypatch, tmp_path / "home")
        api = client()
        push(api, tmp_path / "kernel")
        push(api, tmp_path / "kernel")
        first, second = server.kernels[KERNEL]
        server.wait(lambda: (first.status, second.status) == ("COMPLETE", "ERROR"))
        assert first.outputs() == {"out.txt": b"print('hello')\n"}
        assert "broken runner" in second.failure_message
        assert str(server.errors) == "[RuntimeError('broken runner')]"


def test_the_kernel_as_kaggle_has_it(server, api, tmp_path):
    push(api, tmp_path / "kernel")
    api.kernels_pull(KERNEL, str(tmp_path / "pulled"), metadata=True)
    assert (tmp_path / "pulled" / "small-kernel.py").read_text() == "print('hello')\n"
    assert json.loads((tmp_path / "pulled" / "kernel-metadata.json").read_text())["title"] == "Small kernel"


# Datasets


def test_a_dataset_its_versions_and_its_statuses(server, api, tmp_path):
    server.dataset_statuses = ["BLOBS_RECEIVED", "READY"]
    assert status_code(api.dataset_status, DATASET) == 404
    folder = dataset_folder(tmp_path / "data", first=b"1", empty=b"")
    assert api.dataset_create_new(folder, quiet=True).status == "ok"
    assert server.datasets[DATASET].files == {"first": b"1", "empty": b""}
    assert status_code(api.dataset_create_version, folder, "too early", True) == 403
    assert api.dataset_status(DATASET) == "blobs_received"
    push(api, tmp_path / "kernel", dataset_sources=[DATASET])
    assert server.kernels[KERNEL][0].mounted_datasets == []  # it was not READY
    assert [api.dataset_status(DATASET) for _ in range(2)] == ["ready", "ready"]
    dataset_folder(tmp_path / "data", second=b"2")
    assert api.dataset_create_version(folder, "more", quiet=True).status == "ok"
    assert sorted(server.datasets[DATASET].files) == ["empty", "first", "second"]
    assert len(server.datasets[DATASET].versions) == 2
    assert "already" in api.dataset_create_new(folder, quiet=True).error


def test_an_interrupted_upload_goes_on_where_it_stopped(server, api, tmp_path, waits):
    server.misbehave("PUT", drop(after_bytes=1000), answer(503, after_bytes=70_000))
    api.dataset_create_new(dataset_folder(tmp_path / "data", file=BYTES), quiet=True)
    assert server.datasets[DATASET].files == {"file": BYTES}
    uploads = [body["contentRange"] for name, body in server.requests if name in ("PUT", "PROBE")]
    size = len(BYTES)
    assert uploads == ["", "", f"bytes */{size}", f"bytes 70000-{size - 1}/{size}"]


def test_an_expired_upload_makes_no_dataset(server, api, tmp_path, waits):
    """A client before 2.2.5 leaves the file out, and asks for a dataset of none; the server refuses that."""
    server.misbehave("PUT", answer(404))
    with pytest.raises((ValueError, requests.HTTPError)):
        api.dataset_create_new(dataset_folder(tmp_path / "data", file=BYTES), quiet=True)
    assert server.datasets == {}


# Competitions


def test_a_dropped_download_goes_on_where_it_stopped(server, api, tmp_path, waits):
    data, chunk = archive(train=BYTES * 20), 1 << 20  # the client writes whole chunks only
    server.add_competition("digits", data)
    server.misbehave("GET", drop(after_bytes=chunk + 50_000), drop())
    api.competition_download_files("digits", str(tmp_path))
    assert (tmp_path / "digits.zip").read_bytes() == data
    ranges = [body["range"] for name, body in server.requests if name == "GET"]
    assert ranges == ["", f"bytes={chunk}-", f"bytes={chunk}-"]
    assert len(waits) == 2


def test_files_of_a_competition(server, api, tmp_path):
    server.add_competition("digits", archive(**{"train.csv": b"id\n", "test.csv": b"id\n1\n"}))
    listed = api.competition_list_files("digits")
    assert {file.name: file.total_bytes for file in listed.files} == {"train.csv": 3, "test.csv": 5}
    api.competition_download_file("digits", "test.csv", str(tmp_path), quiet=True)
    assert (tmp_path / "test.csv").read_bytes() == b"id\n1\n"


def test_a_file_is_submitted_scored_and_listed(server, api, tmp_path):
    competition = server.add_competition("digits", archive(), daily_limit=2)
    server.script_submission("digits", Outcome("COMPLETE", 0.75, 0.5, polls=1), Outcome("ERROR", error="No rows"))
    (tmp_path / "submission.csv").write_text("id,label\n1,2\n")
    for message in ("first", "second"):
        api.competition_submit(str(tmp_path / "submission.csv"), message, "digits", quiet=True)
    assert competition.submissions[0].content == b"id,label\n1,2\n"
    assert [shown.status.name for shown in api.competition_submissions("digits")] == ["ERROR", "PENDING"]
    second, first = api.competition_submissions("digits")
    assert (first.status.name, first.public_score, first.private_score) == ("COMPLETE", "0.75", "0.5")
    assert (first.file_name, first.description) == ("submission.csv", "first")
    assert second.error_description == "No rows"
    limits = api.competition_get_submission_limits("digits")
    assert (limits.num_today, limits.num_allowed_now) == (2, 0)
    assert status_code(api.competition_submit, str(tmp_path / "submission.csv"), "third", "digits", True) == 400


def test_submissions_come_in_pages_newest_first(server, api, tmp_path):
    server.add_competition("digits", archive(), scorer=lambda name, content: ("COMPLETE", len(content)))
    (tmp_path / "s.csv").write_text("id\n")
    for number in range(5):
        api.competition_submit(str(tmp_path / "s.csv"), str(number), "digits", quiet=True)
    pages = [api.competition_submissions("digits", page_number=page, page_size=2) for page in (1, 2, 3, 4)]
    assert [[shown.description for shown in page] for page in pages] == [["4", "3"], ["2", "1"], ["0"], []]
    assert pages[0][0].public_score == "3"


def test_a_rejected_upload_is_only_a_message(server, api, tmp_path):
    server.add_competition("digits", archive())
    server.misbehave("PUT", answer(400))
    (tmp_path / "s.csv").write_text("id\n")
    assert api.competition_submit(str(tmp_path / "s.csv"), "", "digits", True).message.startswith("Could not")


def test_a_kernel_version_is_submitted_and_scored(monkeypatch, tmp_path):
    def scorer(version, name):
        return "COMPLETE", float(version.outputs()[name]), None, ""

    with FakeKaggle(code_scorer=scorer) as server:
        server.lead_here(monkeypatch, tmp_path / "home")
        api = client()
        competition = server.add_competition("digits", archive(), code_only=True)
        push(api, tmp_path / "kernel")

        def submit(version):
            return api.competition_submit_code("submission.csv", "note", "digits", KERNEL, version)

        assert status_code(submit, 1) == 400  # the run is not over
        server.finish(KERNEL, files={"submission.csv": b"0.5"})
        assert status_code(submit, 2) == 404
        submit(1)
        server.wait(lambda: competition.submissions[0].outcome is not None)
        [shown] = api.competition_submissions("digits")
        assert (shown.status.name, shown.public_score) == ("COMPLETE", "0.5")
        (tmp_path / "s.csv").write_text("id\n")
        assert status_code(api.competition_submit, str(tmp_path / "s.csv"), "", "digits", True) == 400


def test_a_competition_not_joined_is_refused(server, api, tmp_path):
    server.add_competition("digits", archive(), joined=False)
    assert status_code(api.competition_download_files, "digits", str(tmp_path)) == 403
