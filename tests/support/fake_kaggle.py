"""A Kaggle on 127.0.0.1 that the official client talks to as it is, without a patch.

    with FakeKaggle() as server:
        subprocess.run([...], env=server.child_environment(tmp_path))    # or, in this process:
        server.lead_here(monkeypatch, tmp_path)

`KAGGLE_API_ENVIRONMENT=LOCALHOST` sends the client to http://localhost, and `http_proxy` sends that to the port of
the server. The answers follow the types of kagglesdk: camelCase, enums by name. What the client's sources do not
tell is guessed:
- an unknown kernel is 403 (the client's own words for it say so), an unknown version or dataset 404;
- a run that is not over lists no files, though it has a log;
- a submission beyond the daily limit is 400. How many are left, the call GetSubmissionLimits tells;
- files of a dataset are kept as they were uploaded: archives are not unpacked.

Tests set the plain attributes of `FakeKaggle` and of what it keeps (`kernels`, `datasets`, `competitions`), script
what happens next (`finish`, `script_status`, `script_submission`), and queue faults (`misbehave`).
"""

import base64
import io
import itertools
import json
import os
import re
import sys
import tempfile
import threading
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import quote, urlsplit

Json = dict[str, Any]

_KEY = "0123456789abcdef" * 2
_API = "/api/v1/"
_LOG_STREAM = f"{_API}kernels/logs/stream/"
_LOG_STREAM_METHOD = "kernels.KernelsApiService/GetKernelSessionLogsStream"
_OVER = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
_OURS = {"HOME", "TMPDIR", "http_proxy"} | {
    f"KAGGLE_{name}" for name in ("CONFIG_DIR", "USERNAME", "KEY", "API_ENVIRONMENT")
}


def unset_variables(environ: Iterable[str]) -> list[str]:
    """The variables of `environ` that would lead the client past the server, or make it talk."""
    talk = ("VERBOSE", "VERBOSE_OUTPUT")
    return [
        name
        for name in environ
        if name not in _OURS and (name.startswith("KAGGLE_") or name.lower().endswith("_proxy") or name in talk)
    ]


# --- Faults ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What comes instead of a method's work or, where `acted`, after it; no `status`: a dropped connection."""

    status: int | None = None
    body: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    after_bytes: int = 0
    acted: bool = False


def answer(
    status: int,
    message: str = "",
    headers: Mapping[str, str] | None = None,
    after_bytes: int = 0,
    acted: bool = False,
) -> Fault:
    """An error; of an upload, the first `after_bytes` bytes are kept."""
    return Fault(status, {"code": status, "message": message}, headers or {}, after_bytes, acted)


def drop(after_bytes: int = 0, acted: bool = False) -> Fault:
    """A dropped connection: after so many bytes of an upload, else of the answer (0: before there is one)."""
    return Fault(after_bytes=after_bytes, acted=acted)


def instead(body: Json, acted: bool = False) -> Fault:
    """A 200 with this content."""
    return Fault(200, body, acted=acted)


# --- What Kaggle keeps -------------------------------------------------------------------------------------------


@dataclass
class KernelVersion:
    """One saved version of a kernel and its run."""

    owner: str
    slug: str
    number: int
    request: Json
    source: str
    mounted_datasets: list[str]  # the dataset sources that were there and READY at the push
    status: str = "QUEUED"
    failure_message: str = ""
    log: list[Json] = field(default_factory=list)  # {stream_name, time, data}
    files: Mapping[str, bytes] | Path = field(default_factory=dict)
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ref(self) -> str:
        return f"{self.owner}/{self.slug}"

    def outputs(self) -> dict[str, bytes | Path]:
        """What lies in the working folder after the run, by name; unless stated, the list of a good end."""
        if not self.files and self.status == "COMPLETE":
            return {"outputs.json": b'{"files": {}, "missing": [], "exit_code": 0}'}
        if not isinstance(self.files, Path):
            return dict(self.files)
        found = sorted(path for path in self.files.rglob("*") if path.is_file())
        return {path.relative_to(self.files).as_posix(): path for path in found}

    def log_text(self) -> str:
        """The log as Kaggle keeps it: a JSON array, an event a line."""
        return "[" + "\n,".join(map(json.dumps, self.log)) + "\n]" if self.log else ""

    def write(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            self.log.append({"stream_name": "stdout", "time": float(len(self.log)), "data": line})


@dataclass
class Dataset:
    """A dataset: each version as name -> bytes."""

    owner: str
    slug: str
    request: Json
    versions: list[dict[str, bytes]] = field(default_factory=list)
    status: str = "READY"
    script: deque[str] = field(default_factory=deque)  # what the next status requests find

    @property
    def ref(self) -> str:
        return f"{self.owner}/{self.slug}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.versions[-1]


@dataclass
class Upload:
    """A file on its way in, or arrived."""

    name: str
    length: int
    content: bytearray = field(default_factory=bytearray)
    complete: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a submission comes to, after it was seen PENDING `polls` times."""

    status: str = "COMPLETE"
    public_score: float | str | None = None
    private_score: float | str | None = None
    error: str = ""
    polls: int = 0


@dataclass
class Submission:
    """One submission: of a file (`content`), or of a kernel version's output."""

    ref: int
    file_name: str
    description: str
    content: bytes = b""
    kernel_version: KernelVersion | None = None
    outcome: Outcome | None = None
    date: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = "PENDING"

    def poll(self) -> None:
        if self.outcome is None or self.status != "PENDING":
            return
        if self.outcome.polls == 0:
            self.status = self.outcome.status
        else:
            self.outcome = replace(self.outcome, polls=self.outcome.polls - 1)


@dataclass
class Competition:
    """A competition, its data in one zip, and what was submitted to it."""

    slug: str
    archive: bytes
    daily_limit: int = 5
    used_before: int = 0  # of today's submissions
    code_only: bool = False
    joined: bool = True
    scorer: Callable[[str, bytes], tuple] | None = None  # (file name, content) -> the first fields of Outcome
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))
    submissions: list[Submission] = field(default_factory=list)
    outcomes: deque[Outcome] = field(default_factory=deque)  # of the submissions to come

    @property
    def used_today(self) -> int:
        return self.used_before + len(self.submissions)


# --- Answers -----------------------------------------------------------------------------------------------------


class Refusal(Exception):
    """An answer with a status of 400 or more."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Reply:
    """An answer as HTTP; a `stream` is sent in chunks, and `body` is unused."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


@dataclass(frozen=True)
class _Download:
    """What lies behind an address that the server gave out."""

    content: bytes | Path
    modified: datetime

    def read(self) -> bytes:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content


def _json(content: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


def _date(date: datetime) -> str:
    return date.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _score(value: float | str | None) -> str:
    return "" if value is None else str(value)


def _page(items: list, request: Json, largest: int) -> tuple[list, str]:
    """The page that `request` asks for, and the token of the next one ("": there is none)."""
    token = request.get("pageToken") or "0"
    if not token.isdecimal():
        raise Refusal(400, f"Invalid page token: {token}")
    size = min(request.get("pageSize") or largest, largest)
    end = int(token) + size
    return items[int(token) : end], str(end) if end < len(items) else ""


Method = Callable[["FakeKaggle", Json], Json | Reply]
_METHODS: dict[str, Method] = {}


def _method(path: str) -> Callable[[Method], Method]:
    """Registers what answers `POST /api/v1/<path>`."""

    def register(function: Method) -> Method:
        _METHODS[path] = function
        return function

    return register


# --- The server --------------------------------------------------------------------------------------------------


class FakeKaggle:
    """The server; a context manager.

    `runner` runs each pushed version, at most `sessions` at once: (version) -> (status, log text, output folder or
    name -> bytes, failure message). `code_scorer` scores a submitted version: (version, file name) -> (status,
    public score, private score, error). Without them, runs and submissions wait for the test's script.
    """

    def __init__(
        self,
        user: str = "tester",
        runner: Callable[[KernelVersion], tuple] | None = None,
        code_scorer: Callable[[KernelVersion, str], tuple] | None = None,
        sessions: int = 2,
    ):
        self.user, self.key = user, _KEY
        self.runner, self.code_scorer = runner, code_scorer

        self.requests: list[tuple[str, Json]] = []  # uploads, probes of uploads and downloads: PUT, PROBE, GET
        self.unknown: list[str] = []  # request lines that no method answers
        self.errors: list[BaseException] = []  # bugs of this file, or of a test's runner or scorer

        self.kernels: dict[str, list[KernelVersion]] = {}
        self.datasets: dict[str, Dataset] = {}
        self.competitions: dict[str, Competition] = {}
        self.uploads: dict[str, Upload] = {}  # by token; clear it to let uploads expire
        self.known_sources: set[str] = set()  # sources that a push may name, beside what is kept here

        self.output_page_size = 100  # the most that a page of outputs or data files has
        self.submission_page_size = 100
        self.stale_statuses = 0  # so many unpinned statuses after a push are still the previous run's
        self.dataset_statuses = ["READY"]  # what the status requests after a new dataset or version find
        self.gpu_quota: tuple[float, float] = (0, 30 * 3600)  # seconds: used, total
        self.tpu_quota: tuple[float, float] = (0, 20 * 3600)

        # As reported from live sessions; `lag_everything` sets them all.
        self.nested_errors = False  # {"error": {code, message, status}} instead of {code, message}
        self.kernel_lag = 0  # so many looks at a version that was just pushed are refused with `lag_status`
        self.dataset_lag = 0  # so many looks at a dataset that was just made are refused with 403
        self.output_lag = 0  # so many listings of an ended version's outputs are empty
        self.lag_status = 403
        self.slugs: dict[str, str] = {}  # slug that is pushed -> slug that Kaggle makes of it
        self.broken_ids: set[str] = set()  # GetKernel answers 500 for these, as after a refused first push
        self.denies_code_submissions = False

        self._lags: dict[str, int] = {}
        self._changed = threading.Condition(threading.RLock())  # held by whoever reads or writes the state
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._scripts: dict[str, deque[str]] = defaultdict(deque)
        self._stale: dict[str, int] = {}
        self._downloads: dict[str, _Download] = {}  # by path
        self._numbers = itertools.count(1)  # of uploads and downloads: none is given twice
        self._sessions = threading.Semaphore(sessions)
        self._closed = False
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> "FakeKaggle":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    # How a client gets here

    def environment(self, home: Path) -> dict[str, str]:
        """The variables with which a client talks to this server; those of `unset_variables` must be unset."""
        folders = {"HOME": home, "KAGGLE_CONFIG_DIR": home / "config", "TMPDIR": home / "tmp"}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {name: str(folder) for name, folder in folders.items()} | {
            "KAGGLE_USERNAME": self.user,
            "KAGGLE_KEY": self.key,
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "http_proxy": f"http://127.0.0.1:{self.port}",
        }

    def child_environment(self, home: Path) -> dict[str, str]:
        """The whole environment of a process whose client talks to this server."""
        unset = unset_variables(os.environ)
        return {name: value for name, value in os.environ.items() if name not in unset} | self.environment(home)

    def lead_here(self, monkeypatch, home: Path) -> None:
        """Makes the client in this process talk to this server until `monkeypatch` undoes it."""
        for name in unset_variables(os.environ):
            monkeypatch.delenv(name)
        for name, value in self.environment(home).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(tempfile, "tempdir", None)  # TMPDIR is read once only

        from kaggle.api.kaggle_api_extended import KaggleApi

        # Read from the environment when the class is made, which another test may have seen to.
        monkeypatch.setattr(KaggleApi, "args", ["--local"])
        monkeypatch.setattr(KaggleApi, "config_dir", str(home / "config"))
        monkeypatch.setattr(KaggleApi, "config", str(home / "config" / "kaggle.json"))

    # What a test scripts

    def misbehave(self, method: str, *faults: Fault) -> None:
        """Queues what the next calls of `method` meet: an API method's name, PUT, PROBE or GET."""
        with self._changed:
            self._faults[method].extend(faults)

    def behave(self, method: str) -> None:
        """Forgets what is queued for `method`."""
        with self._changed:
            self._faults[method].clear()

    def lag_everything(self, looks: int = 2) -> None:
        """Whatever may lag does so for some looks, and what may be refused once is; errors are nested."""
        self.nested_errors = True
        self.kernel_lag = self.dataset_lag = self.output_lag = looks
        self.stale_statuses = looks
        acts = ("SaveKernel", "CreateDataset", "CreateDatasetVersion", "CreateSubmission", "CreateCodeSubmission")
        for method in (*acts, "StartBlobUpload", "StartSubmissionUpload"):
            self.misbehave(method, answer(429, "Too many requests"))
        for path in _METHODS:
            if (method := path.rpartition("/")[2]) not in acts and not method.startswith(("Start", "Introspect")):
                self.misbehave(method, answer(503, "Service unavailable"))
        self.misbehave("GET", answer(503, "Service unavailable"))

    @property
    def pending(self) -> set[str]:
        """The methods for which faults are queued still."""
        return {name for name, faults in self._faults.items() if faults}

    def _lagging(self, what: str) -> bool:
        """Whether a look at `what` still comes too early; counts it."""
        left = self._lags.get(what, 0)
        self._lags[what] = max(0, left - 1)
        return left > 0

    def script_status(self, ref: str, statuses: Iterable[str]) -> None:
        """Each request for the status of the kernel moves it on to the next of these."""
        with self._changed:
            self._scripts[ref].extend(statuses)

    def log(self, ref: str, text: str, version: int | None = None) -> None:
        """Appends to the log of a run."""
        with self._changed:
            self._version(ref, version).write(text)
            self._changed.notify_all()

    def finish(
        self,
        ref: str,
        status: str = "COMPLETE",
        log: str = "",
        files: Mapping[str, bytes] | Path | None = None,
        failure_message: str = "",
        version: int | None = None,
    ) -> None:
        """Ends the run of the latest or the given version."""
        with self._changed:
            ended = self._version(ref, version)
            ended.write(log)
            ended.files = ended.files if files is None else files
            ended.status, ended.failure_message = status, failure_message or ""
            ended.modified = datetime.now(UTC)
            self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout: float = 10) -> None:
        """Until `condition` holds of the state; for what the runner and the scorer do in the background."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), "the server did not come to this in time"

    def add_competition(self, slug: str, archive: bytes, **fields: Any) -> Competition:
        """A competition whose data is the zip `archive`; `fields` are those of `Competition`."""
        self.competitions[slug] = Competition(slug, archive, **fields)
        return self.competitions[slug]

    def script_submission(self, slug: str, *outcomes: Outcome) -> None:
        """What the submissions that wait for an outcome come to, oldest first, then those that are yet to come."""
        with self._changed:
            competition = self.competitions[slug]
            waiting = [submission for submission in competition.submissions if submission.outcome is None]
            for submission, outcome in zip(waiting, outcomes, strict=False):
                submission.outcome = outcome
            competition.outcomes.extend(outcomes[len(waiting) :])

    # Kernels

    @_method("kernels.KernelsApiService/SaveKernel")
    def _save_kernel(self, request: Json) -> Json:
        owner, _, slug = request.get("slug", "").rpartition("/")
        owner = owner or self.user
        if owner != self.user or not slug:
            raise Refusal(403, "Permission 'kernels.update' was denied")
        if len(request.get("newTitle", "")) > 50:
            raise Refusal(500, "")
        slug = self.slugs.get(slug, slug)
        versions = self.kernels.setdefault(f"{owner}/{slug}", [])
        mounted = [source for source in request.get("datasetDataSources", []) if self._is_ready(source)]
        version = KernelVersion(owner, slug, len(versions) + 1, request, request.get("text", ""), mounted)
        versions.append(version)
        self._stale[version.ref] = self.stale_statuses
        self._lags |= {f"kernel {version.ref}": self.kernel_lag, f"outputs {version.ref}": self.output_lag}
        if self.runner is not None:
            self._in_background(self._run, version)
        return {
            "ref": f"/code/{version.ref}",
            "url": f"https://www.kaggle.com/code/{version.ref}",
            "versionNumber": version.number,
            "kernelId": 1 + list(self.kernels).index(version.ref),
            "invalidDatasetSources": self._unknown_among(request, "dataset", self.datasets),
            "invalidCompetitionSources": self._unknown_among(request, "competition", self.competitions),
            "invalidKernelSources": self._unknown_among(request, "kernel", self.kernels),
            "invalidModelSources": self._unknown_among(request, "model", ()),
        }

    def _unknown_among(self, request: Json, kind: str, here: Iterable[str]) -> list[str]:
        known = self.known_sources.union(here)
        sources = request.get(f"{kind}DataSources", [])
        return [source for source in sources if not {source, _without_version(source)} & known]

    def _is_ready(self, source: str) -> bool:
        dataset = self.datasets.get(_without_version(source))
        return source in self.known_sources if dataset is None else dataset.status == "READY"

    def _run(self, version: KernelVersion) -> None:
        with self._sessions:
            with self._changed:
                if self._closed:
                    return
                version.status = "RUNNING"
            status, log, files, failure_message = self.runner(version)
            self.finish(version.ref, status, log, files, failure_message, version.number)

    @_method("kernels.KernelsApiService/GetKernel")
    def _get_kernel(self, request: Json) -> Json:
        if f"{request.get('userName')}/{request.get('kernelSlug')}" in self.broken_ids:
            raise Refusal(500, "Internal error")
        version = self._requested(request)
        pushed = {name: value for name, value in version.request.items() if name not in ("text", "newTitle")}
        about = {
            "ref": version.ref,
            "author": version.owner,
            "slug": version.slug,
            "title": version.request.get("newTitle", version.slug),
            "currentVersionNumber": len(self.kernels[version.ref]),
        }
        code = {name: pushed.get(name, "") for name in ("language", "kernelType")}
        return {"metadata": pushed | about, "blob": code | {"source": version.source, "slug": version.slug}}

    @_method("kernels.KernelsApiService/GetKernelSessionStatus")
    def _get_kernel_session_status(self, request: Json) -> Json:
        version = self._requested(request)
        if version.number < len(self.kernels[version.ref]) and not request.get("versionLabel"):
            self._stale[version.ref] -= 1
        elif script := self._scripts[version.ref]:
            version.status = script.popleft()
            self._changed.notify_all()
        return {"status": version.status, "failureMessage": version.failure_message}

    @_method("kernels.KernelsApiService/ListKernelSessionOutput")
    def _list_kernel_session_output(self, request: Json) -> Json:
        version = self._requested(request)
        over = version.status in _OVER and not self._lagging(f"outputs {version.ref}")
        outputs = list(version.outputs().items()) if over else []
        page, token = _page(outputs, request, self.output_page_size)
        files = [{"fileName": name, "url": self._offer(content, name, version.modified)} for name, content in page]
        return {"files": files, "log": version.log_text(), "nextPageToken": token}

    @_method("kernels.KernelsApiService/DownloadKernelOutput")
    def _download_kernel_output(self, request: Json) -> Reply:
        version = self._version(f"{request['ownerSlug']}/{request['kernelSlug']}", request.get("versionNumber"))
        name = request.get("filePath", "")
        if version.status not in _OVER or name not in version.outputs():
            raise Refusal(404, f"File not found: {name}")
        return Reply(302, headers={"Location": self._offer(version.outputs()[name], name, version.modified)})

    @_method(_LOG_STREAM_METHOD)
    def _get_kernel_session_logs_stream(self, request: Json) -> Reply:
        version = self._requested(request)
        if version.status in _OVER:
            return Reply(body=version.log_text().encode(), headers={"Content-Type": "application/json"})
        return Reply(headers={"Content-Type": "text/event-stream"}, stream=self._events(version))

    def _events(self, version: KernelVersion) -> Iterator[bytes]:
        """The log as it grows, until the run is over."""
        sent, over = 0, False
        while not over:
            with self._changed:
                while len(version.log) == sent and not (over := self._closed or version.status in _OVER):
                    self._changed.wait()
                events = version.log[sent:]
            for event in events:
                yield f"data: {json.dumps(event)}\n\n".encode()
            sent += len(events)
        yield b"data: END_OF_LOG\n\n"

    @_method("kernels.KernelsApiService/GetAcceleratorQuotaStatistics")
    def _get_accelerator_quota_statistics(self, request: Json) -> Json:
        def quota(used: float, total: float) -> Json:
            return {"timeUsed": f"{used:.3f}s", "totalTimeAllowed": f"{total:.3f}s", "hasEverRun": used > 0}

        refresh = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return {
            "quotaRefreshTime": _date(refresh),
            "gpuQuota": quota(*self.gpu_quota),
            "tpuQuota": quota(*self.tpu_quota),
        }

    def _requested(self, request: Json) -> KernelVersion:
        """The version that `request` is about; without a label the latest, or still the one before it."""
        ref, label = f"{request.get('userName')}/{request.get('kernelSlug')}", request.get("versionLabel")
        if self._lagging(f"kernel {ref}"):
            raise Refusal(self.lag_status, "Permission 'kernels.get' was denied")
        if label:
            numbered = re.fullmatch(r"v([0-9]+)", label)
            if numbered is None:
                raise Refusal(404, f"Not found: version {label} of {ref}")
            return self._version(ref, int(numbered[1]))
        latest = self._version(ref)
        if self._stale[ref] > 0 and latest.number > 1:
            return self._version(ref, latest.number - 1)
        return latest

    def _version(self, ref: str, number: int | None = None) -> KernelVersion:
        if ref not in self.kernels:
            raise Refusal(403, "Permission 'kernels.get' was denied")
        number = len(self.kernels[ref]) if number is None else number
        if not 1 <= number <= len(self.kernels[ref]):
            raise Refusal(404, f"Not found: version {number} of {ref}")
        return self.kernels[ref][number - 1]

    # Datasets

    @_method("datasets.DatasetApiService/GetDatasetStatus")
    def _get_dataset_status(self, request: Json) -> Json:
        dataset = self._dataset(request)
        if dataset.script:
            dataset.status = dataset.script.popleft()
        return {"status": dataset.status}

    @_method("datasets.DatasetApiService/GetDataset")
    def _get_dataset(self, request: Json) -> Json:
        dataset = self._dataset(request)
        number, size = len(dataset.versions), sum(map(len, dataset.files.values()))
        return {"ref": dataset.ref, "currentVersionNumber": number, "totalBytes": size}

    @_method("datasets.DatasetApiService/CreateDataset")
    def _create_dataset(self, request: Json) -> Json:
        dataset = Dataset(request.get("ownerSlug", ""), request.get("slug", ""), request)
        if dataset.owner != self.user:
            raise Refusal(403, "Permission 'datasets.create' was denied")
        if dataset.ref in self.datasets:
            taken = f'The requested title "{request.get("title")}" is already in use by a dataset.'
            return {"status": "error", "error": taken}
        return self._add_version(dataset, request)

    @_method("datasets.DatasetApiService/CreateDatasetVersion")
    def _create_dataset_version(self, request: Json) -> Json:
        dataset = self._dataset(request)
        if dataset.status not in ("READY", "FAILED"):
            raise Refusal(403, "A version of this dataset is still being processed")
        return self._add_version(dataset, request["body"])

    def _add_version(self, dataset: Dataset, request: Json) -> Json:
        uploads = [self._uploaded(file["token"]) for file in request.get("files", [])]
        if not uploads:
            raise Refusal(400, "A dataset needs at least one file")
        dataset.versions.append({upload.name: bytes(upload.content) for upload in uploads})
        dataset.status, dataset.script = self.dataset_statuses[0], deque(self.dataset_statuses)
        self.datasets[dataset.ref] = dataset
        self._lags[f"dataset {dataset.ref}"] = self.dataset_lag
        return {"status": "ok", "ref": dataset.ref, "url": f"https://www.kaggle.com/datasets/{dataset.ref}"}

    def _dataset(self, request: Json) -> Dataset:
        ref = f"{request.get('ownerSlug')}/{request.get('datasetSlug')}"
        if ref not in self.datasets:
            raise Refusal(404, f"Not found: dataset {ref}")
        if self._lagging(f"dataset {ref}"):
            raise Refusal(403, "Permission 'datasets.get' was denied")
        return self.datasets[ref]

    # Uploads

    @_method("blobs.BlobApiService/StartBlobUpload")
    def _start_blob_upload(self, request: Json) -> Json:
        return self._start_upload(request["name"], request.get("contentLength", 0))

    @_method("competitions.CompetitionApiService/StartSubmissionUpload")
    def _start_submission_upload(self, request: Json) -> Json:
        self._competition(request)
        return self._start_upload(request["fileName"], request.get("contentLength", 0))

    def _start_upload(self, name: str, length: int) -> Json:
        token = f"token{next(self._numbers)}"
        self.uploads[token] = Upload(name, length)
        return {"token": token, "createUrl": f"http://localhost/upload/{token}"}

    def receive(self, path: str, content_range: str, body: bytes) -> Reply:
        """A resumable PUT, as Google's storage has it: the whole, the rest, or (`bytes */N`) how much is there."""
        token = path.removeprefix("/upload/")
        if token not in self.uploads:
            raise Refusal(404, "Upload expired")
        upload = self.uploads[token]
        if "*/" not in content_range:
            first = re.match(r"bytes ([0-9]+)-", content_range)
            start = int(first[1]) if first else 0
            if start <= len(upload.content):  # a gap is not filled: the client learns what is there
                upload.content[start:] = body
        upload.complete = upload.complete or len(upload.content) == upload.length
        if upload.complete:
            return _json({})
        arrived = {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}
        return Reply(308, headers=arrived)

    def _uploaded(self, token: str) -> Upload:
        if token not in self.uploads or not self.uploads[token].complete:
            raise Refusal(400, f"Nothing was uploaded for {token}")
        return self.uploads[token]

    # Downloads

    def _offer(self, content: bytes | Path, name: str, modified: datetime) -> str:
        """An address where `content` can be fetched; it ends as `name` does."""
        base = re.split(r"[\\/]", name)[-1]
        path = f"/download/{next(self._numbers)}/{quote(base)}"
        self._downloads[path] = _Download(content, modified.replace(microsecond=0))
        return f"http://localhost{path}"

    def fetch(self, path: str, wanted: str, unchanged_since: str) -> Reply:
        """A GET: the whole, or the range `wanted` of what has not changed since."""
        if path not in self._downloads:
            raise Refusal(404, f"Not found: {path}")
        content = self._downloads[path].read()
        modified = format_datetime(self._downloads[path].modified, usegmt=True)
        headers = {"Content-Type": "application/octet-stream", "Last-Modified": modified, "Accept-Ranges": "bytes"}
        limits = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", wanted)
        if limits is None or unchanged_since not in ("", modified):
            return Reply(200, content, headers)
        start, end = int(limits[1]), min(int(limits[2] or len(content) - 1), len(content) - 1)
        if start > end:
            return Reply(416, headers={"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return Reply(206, content[start : end + 1], headers)

    # Competitions

    @_method("competitions.CompetitionApiService/GetCompetition")
    def _get_competition(self, request: Json) -> Json:
        competition = self._competition(request, joined=False)
        return {
            "ref": f"https://www.kaggle.com/competitions/{competition.slug}",
            "title": competition.slug,
            "userHasEntered": competition.joined,
            "maxDailySubmissions": competition.daily_limit,
            "isKernelsSubmissionsOnly": competition.code_only,
        }

    @_method("competitions.CompetitionApiService/ListDataFiles")
    def _list_data_files(self, request: Json) -> Json:
        competition = self._competition(request)
        with zipfile.ZipFile(io.BytesIO(competition.archive)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        page, token = _page(entries, request, self.output_page_size)
        date = _date(competition.modified)
        files = [{"name": entry.filename, "totalBytes": entry.file_size, "creationDate": date} for entry in page]
        return {"files": files, "nextPageToken": token}

    @_method("competitions.CompetitionApiService/DownloadDataFiles")
    def _download_data_files(self, request: Json) -> Reply:
        competition = self._competition(request)
        name = f"{competition.slug}.zip"
        return Reply(302, headers={"Location": self._offer(competition.archive, name, competition.modified)})

    @_method("competitions.CompetitionApiService/DownloadDataFile")
    def _download_data_file(self, request: Json) -> Reply:
        competition, name = self._competition(request), request["fileName"]
        with zipfile.ZipFile(io.BytesIO(competition.archive)) as archive:
            if name not in archive.namelist():
                raise Refusal(404, f"Not found: {name}")
            return Reply(302, headers={"Location": self._offer(archive.read(name), name, competition.modified)})

    @_method("competitions.CompetitionApiService/CreateSubmission")
    def _create_submission(self, request: Json) -> Json:
        competition = self._competition(request)
        if competition.code_only:
            raise Refusal(400, "Submission not allowed: This competition only accepts Submissions from Notebooks.")
        upload = self._uploaded(request.get("blobFileTokens", ""))
        submission = self._submit(competition, upload.name, request)
        submission.content = bytes(upload.content)
        if competition.scorer is not None:
            submission.outcome = Outcome(*competition.scorer(upload.name, submission.content))
        return {"message": f"Successfully submitted to {competition.slug}", "ref": submission.ref}

    @_method("competitions.CompetitionApiService/CreateCodeSubmission")
    def _create_code_submission(self, request: Json) -> Json:
        competition, name = self._competition(request), request.get("fileName", "")
        if self.denies_code_submissions:
            raise Refusal(403, "Permission 'kernelSessions.get' was denied")
        version = self._version(f"{request['kernelOwner']}/{request['kernelSlug']}", request.get("kernelVersion"))
        if version.status != "COMPLETE" or name not in version.outputs():
            raise Refusal(400, f"Version {version.number} of {version.ref} has no output file {name}")
        submission = self._submit(competition, name, request)
        submission.kernel_version = version
        if self.code_scorer is not None:
            self._in_background(self._score, submission)
        return {"message": f"Successfully submitted to {competition.slug}", "ref": submission.ref}

    def _submit(self, competition: Competition, file_name: str, request: Json) -> Submission:
        if competition.used_today >= competition.daily_limit:
            raise Refusal(
                400,
                f"Submission not allowed: Your team has used its daily Submission allowance "
                f"({competition.daily_limit}) today, please try again tomorrow UTC.",
            )
        ref = 1 + sum(len(other.submissions) for other in self.competitions.values())
        submission = Submission(ref, file_name, request.get("submissionDescription", ""))
        submission.outcome = competition.outcomes.popleft() if competition.outcomes else None
        competition.submissions.append(submission)
        return submission

    def _score(self, submission: Submission) -> None:
        outcome = Outcome(*self.code_scorer(submission.kernel_version, submission.file_name))
        with self._changed:
            submission.outcome = outcome
            self._changed.notify_all()

    @_method("competitions.CompetitionApiService/ListSubmissions")
    def _list_submissions(self, request: Json) -> Json:
        newest_first = self._competition(request).submissions[::-1]
        size = min(request.get("pageSize") or self.submission_page_size, self.submission_page_size)
        number = max(1, request.get("page", 1))  # older clients ask for page -1
        start = request.get("pageToken") or str((number - 1) * size)
        page, token = _page(newest_first, {"pageToken": start}, size)
        return {"submissions": [self._told(submission) for submission in page], "nextPageToken": token}

    @_method("competitions.CompetitionApiService/GetSubmission")
    def _get_submission(self, request: Json) -> Json:
        every = [submission for other in self.competitions.values() for submission in other.submissions]
        found = [submission for submission in every if submission.ref == request.get("ref")]
        if not found:
            raise Refusal(404, f"Not found: submission {request.get('ref')}")
        return self._told(found[0])

    def _told(self, submission: Submission) -> Json:
        submission.poll()
        content: Json = {
            "ref": submission.ref,
            "fileName": submission.file_name,
            "description": submission.description,
            "date": _date(submission.date),
            "status": submission.status,
            "totalBytes": len(submission.content),
            "submittedBy": self.user,
            "teamName": self.user,
        }
        if submission.status != "PENDING":
            content["publicScore"] = _score(submission.outcome.public_score)
            content["privateScore"] = _score(submission.outcome.private_score)
            content["errorDescription"] = submission.outcome.error
        return content

    @_method("competitions.CompetitionApiService/GetSubmissionLimits")
    def _get_submission_limits(self, request: Json) -> Json:
        competition = self._competition(request)
        left = max(0, competition.daily_limit - competition.used_today)
        return {"numToday": competition.used_today, "numTotal": competition.used_today, "numAllowedNow": left}

    def _competition(self, request: Json, joined: bool = True) -> Competition:
        slug = request.get("competitionName", "")
        if slug not in self.competitions:
            raise Refusal(404, f"Not found: competition {slug}")
        if joined and not self.competitions[slug].joined:
            raise Refusal(403, "You must accept this competition's rules before you'll be able to do this.")
        return self.competitions[slug]

    # Who asks

    @_method("security.OAuthService/IntrospectToken")
    def _introspect_token(self, request: Json) -> Json:
        return {"active": request.get("token") == self.key, "username": self.user}

    def admits(self, authorization: str) -> bool:
        """Whether the header proves the user: the key as Basic, or as a token."""
        basic = base64.b64encode(f"{self.user}:{self.key}".encode()).decode()
        return authorization in (f"Basic {basic}", f"Bearer {self.key}")

    # What the handler calls

    def note(self, name: str, request: Json) -> Fault | None:
        """Records a request; the fault that it is to meet."""
        with self._changed:
            self.requests.append((name, request))
            return self._faults[name].popleft() if self._faults[name] else None

    def error(self, content: Json) -> Json:
        """The content of an error, in the form that is set."""
        nested = self.nested_errors and "message" in content
        return {"error": content | {"status": "REFUSED"}} if nested else content

    def call(self, path: str, request: Json) -> Reply:
        """The work of the API method at `path`."""
        result = _METHODS[path](self, request)
        return result if isinstance(result, Reply) else _json(result)

    def attempt(self, work: Callable[..., Reply], *arguments: Any) -> Reply:
        """What `work` answers, with the state to itself; a refusal is an answer too."""
        with self._changed:
            try:
                return work(*arguments)
            except Refusal as refusal:
                return _json(self.error({"code": refusal.status, "message": refusal.message}), refusal.status)
            except Exception as bug:
                self.errors.append(bug)
                return _json({"code": 500, "message": repr(bug)}, 500)
            finally:
                self._changed.notify_all()

    def _in_background(self, work: Callable[[Any], None], subject: KernelVersion | Submission) -> None:
        def guarded() -> None:
            try:
                work(subject)
            except Exception as error:
                self._fail(subject, error)

        threading.Thread(target=guarded, daemon=True).start()

    def _fail(self, subject: KernelVersion | Submission, error: Exception) -> None:
        """A runner or scorer that raises leaves a run or submission that failed, and the error for the test."""
        with self._changed:
            self.errors.append(error)
            if isinstance(subject, Submission):
                subject.outcome = Outcome("ERROR", error=repr(error))
            else:
                subject.status, subject.failure_message = "ERROR", repr(error)
            self._changed.notify_all()


def _without_version(source: str) -> str:
    """`owner/slug` of a source that may end in a version."""
    return "/".join(source.split("/")[:2])


# --- HTTP --------------------------------------------------------------------------------------------------------


class _Dropped(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    """Requests as a proxy gets them, `POST http://localhost/api/v1/…`, to what `FakeKaggle` answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: without delay between them
    server: "_Server"

    def handle_one_request(self) -> None:
        self.close_connection = True  # where the client goes away; a request that is read sets it anew
        try:
            super().handle_one_request()
        except (_Dropped, ConnectionError):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass

    @property
    def kaggle(self) -> FakeKaggle:
        return self.server.kaggle

    def do_POST(self) -> None:
        path, request = self._path(), json.loads(self._read() or b"{}")
        self._call(path.removeprefix(_API), request)

    def do_GET(self) -> None:
        path = self._path()
        if path.startswith(_LOG_STREAM):
            user, _, slug = path.removeprefix(_LOG_STREAM).partition("/")
            self._call(_LOG_STREAM_METHOD, {"userName": user, "kernelSlug": slug})
        elif path.startswith("/download/"):
            wanted = self.headers.get("Range", "")
            fault = self.kaggle.note("GET", {"path": path, "range": wanted})
            self._answer(fault, self.kaggle.fetch, path, wanted, self.headers.get("If-Range", ""))
        else:
            self._refuse_unknown({})

    def do_PUT(self) -> None:
        path, content_range = self._path(), self.headers.get("Content-Range", "")
        name = "PROBE" if "*/" in content_range else "PUT"
        fault = self.kaggle.note(name, {"path": path, "contentRange": content_range})
        if fault is None or fault.acted:
            self._answer(fault, self.kaggle.receive, path, content_range, self._read())
            return
        body = self._read(fault.after_bytes if fault.status is None else None)
        if kept := body[: fault.after_bytes]:
            self.kaggle.attempt(self.kaggle.receive, path, content_range, kept)
        self._answer(replace(fault, after_bytes=0), self.kaggle.receive)  # nothing is received twice

    def _call(self, path: str, request: Json) -> None:
        if path not in _METHODS:
            self._refuse_unknown(request)
            return
        name = path.rpartition("/")[2]
        fault = self.kaggle.note(name, request)
        if name == "IntrospectToken" or self.kaggle.admits(self.headers.get("Authorization", "")):
            self._answer(fault, self.kaggle.call, path, request)
        else:
            self._send(_json({"code": 401, "message": "Unauthenticated"}, 401))

    def _refuse_unknown(self, request: Json) -> None:
        self.kaggle.unknown.append(f"{self.command} {self.path}")
        self.kaggle.note(self.path.rpartition("/")[2], request)
        self._send(_json({"code": 404, "message": f"Not found: {self.path}"}, 404))

    def _answer(self, fault: Fault | None, work: Callable[..., Reply], *arguments: Any) -> None:
        """Sends what `work` answers, or what the fault makes of it."""
        if fault is None:
            self._send(self.kaggle.attempt(work, *arguments))
        elif fault.status is not None:
            if fault.acted:
                self.kaggle.attempt(work, *arguments)
            self._send(_json(self.kaggle.error(fault.body), fault.status, fault.headers))
        elif fault.acted or fault.after_bytes:
            reply = self.kaggle.attempt(work, *arguments)
            if fault.after_bytes:
                self._send(reply, fault.after_bytes)
            raise _Dropped
        else:
            raise _Dropped

    def _path(self) -> str:
        """The path on Kaggle; an address elsewhere stays whole and is unknown."""
        address = urlsplit(self.path)
        return address.path if address.netloc in ("", "localhost") else self.path

    def _read(self, limit: int | None = None) -> bytes:
        """The body of the request, or its first `limit` bytes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):  # so the client sends an empty file
            return b"".join(self._chunks())[:limit]
        length = int(self.headers.get("Content-Length", 0))
        return self.rfile.read(length if limit is None else min(limit, length))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, reply: Reply, limit: int | None = None) -> None:
        """The answer, or the first `limit` bytes of what was announced."""
        self.send_response(reply.status)
        framing = {"Transfer-Encoding": "chunked"} if reply.stream else {"Content-Length": str(len(reply.body))}
        for name, value in {**reply.headers, **framing}.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.stream is None:
            self.wfile.write(reply.body[:limit])
            return
        sent = 0
        for piece in reply.stream:
            kept = piece if limit is None else piece[: limit - sent]
            if kept:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(kept), kept))
            sent += len(kept)
            if sent == limit:
                return
        self.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1; not an HTTPServer, which asks DNS for the machine's name."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, kaggle: FakeKaggle):
        self.kaggle = kaggle
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *arguments: object) -> None:
        if not isinstance(error := sys.exception(), OSError):  # an OSError is a client that went away
            self.kaggle.errors.append(error)
