"""Kaggle is spoken to through its official client, in this one place, and every answer is checked.

The client's commands end with 0 although they failed, never retry a push, and mean the latest version of a
kernel. So its Python API is used, down to the requests it is made of, and what comes back is read.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from kit.core.disk import writing
from kit.core.errors import KitError, Say, some
from kit.core.files import atomic
from kit.kaggle.answers import (
    KaggleSubmission,
    Outputs,
    PushedKernel,
    Quota,
    Session,
    kernel_url,
    pushed_version,
    submission,
)
from kit.kaggle.logs import last_time, log_lines, streamed_lines
from kit.kaggle.retry import TAKEN, Found, NotSent, Refused, Retry, Unanswered, one_line
from kit.kaggle.sign_in import sign_in

PAGE = 200  # files a page
UPLOAD_FAILED = "Could not submit to competition"  # the client's words, in the answer that it makes up then


class Kaggle:
    """The signed-in client.

    Parameters
    ----------
    say : callable
        Takes a line about every attempt that failed.
    wait : callable
        What to sleep with between attempts; takes seconds.
    """

    def __init__(self, say: Say = lambda line: None, wait: Callable[[float], None] = time.sleep):
        self._say = say
        self._retry = Retry(say, wait)
        self._with_retries, self._once = self._retry.call, self._retry.once
        self._api, find_token = _client()
        sign_in(self._api, find_token, self._retry, say)

    def until(self, what: str, look: Callable[[], Found | None], seconds: float | None = None) -> Found | None:
        """Look, and look again for some minutes until there is something, as `Retry.until` does."""
        return self._retry.until(what, look, seconds)

    @property
    def user(self) -> str:
        """The name of who is signed in; "" where the credentials do not tell it."""
        return self._api.config_values.get("username") or ""

    def push(self, folder: Path, seconds: float, before: int | None) -> PushedKernel:
        """Save the kernel in `folder` as a new version, which Kaggle then runs for at most `seconds`.

        Parameters
        ----------
        before : int or None
            The version before it: as `latest_version` tells it, or a later one that is known to be there.

        Raises
        ------
        KitError
            Also for what the client passes over: an `error` in the answer, and sources that Kaggle does not
            know, without which the kernel would run all the same.
        """
        metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
        what = f"pushing {metadata['id']}"
        owner, slug = metadata["id"].split("/")

        if before is None:
            self._say(f"{what}: Kaggle does not tell its version; the answer to the push will")

        def send() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                return self._api.kernels_push(str(folder), str(int(seconds)))

        arrived = self._looks_for(what, owner, slug, before)
        answer: Any
        answer, there = self._once(what, send, arrived)
        if there:
            self._say(
                f"{what}: it had arrived, only the answer was lost; see on its page that all sources are there"
            )
            return there
        pushed = pushed_version(answer, owner, slug, what)
        if (pushed.owner, pushed.slug) != (owner, slug):
            self._say(f"{what}: Kaggle calls it {pushed.owner}/{pushed.slug}")
        return pushed

    def _looks_for(
        self, what: str, owner: str, slug: str, before: int | None
    ) -> Callable[[], PushedKernel | None]:
        """Return how to look whether a push arrived; `before` as in `push`."""
        patient = before == 0  # a kernel that is new may be refused for minutes, though the push arrived

        def told() -> int | None:
            return self.latest_version(owner, slug) or None

        def arrived() -> PushedKernel | None:
            nonlocal patient
            after = self.latest_version(owner, slug)
            if after == 0 and patient:
                patient = False
                after = self.until(f"{what}: no answer came", told) or 0
            if before is None or after is None or after < before:  # a second push might make a second session
                raise KitError(f"{what}: whether it arrived cannot be told")
            return PushedKernel(owner, slug, after, kernel_url(owner, slug)) if after > before else None

        return arrived

    def latest_version(self, owner: str, slug: str) -> int | None:
        """Return the number of the latest version of a kernel; 0 where there is none, None where none can be told.

        None it is after a lasting 5xx, with which Kaggle also answers for an id whose first push it refused.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelRequest

        request = _request(ApiGetKernelRequest, user_name=owner, kernel_slug=slug)
        try:
            answer = self._with_retries(f"asking for {owner}/{slug}", self._kernels("get_kernel"), request)
        except Refused as error:
            if error.status in (403, 404):
                return 0
            raise
        except Unanswered as error:
            if error.status >= 500:
                return None
            raise
        return int(answer.metadata.current_version_number or 0)

    def session(self, kernel: PushedKernel) -> Session:
        """Return how far this very version is: without its number, Kaggle tells of the latest."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = _request(ApiGetKernelSessionStatusRequest, **_kernel(kernel))
        answer = self._with_retries(f"asking for {kernel}", self._kernels("get_kernel_session_status"), request)
        return Session(answer.status.name, one_line(answer.failure_message or ""))

    def outputs(self, kernel: PushedKernel) -> Outputs:
        """Return the files of all pages, and the log, of this version."""
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        files: dict[str, str] = {}
        log, token = "", None
        while True:
            request = _request(
                ApiListKernelSessionOutputRequest, **_kernel(kernel), page_size=PAGE, page_token=token
            )
            page = self._with_retries(
                f"listing the outputs of {kernel}", self._kernels("list_kernel_session_output"), request
            )
            files |= {file.file_name: file.url for file in page.files or []}
            log, token = log or page.log or "", page.next_page_token
            if not token:
                return Outputs(files, list(log_lines(log)), last_time(log))

    def log_stream(self, kernel: PushedKernel) -> Iterator[str]:
        """Yield the lines of this version's log, from the first on, while it runs; ends when the stream does.

        Raises
        ------
        requests.RequestException
            Where the connection breaks: what was read comes again in the next stream.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionLogsStreamRequest

        request = _request(ApiGetKernelSessionLogsStreamRequest, **_kernel(kernel))
        with self._api.build_kaggle_client() as client:
            answer = client.kernels.kernels_api_client.get_kernel_session_logs_stream(request)
            if not (answer.headers.get("Content-Type") or "").lower().startswith("text/event-stream"):
                yield from log_lines(answer.content.decode("utf-8", "replace"))
                return
            yield from streamed_lines(answer.iter_lines())

    def download(self, url: str, target: Path) -> None:
        """Download one output file, whole or not at all. Raises Refused where its address holds no longer."""
        import requests

        def fetch() -> None:
            with requests.get(url, stream=True, timeout=300) as answer, atomic(target) as temporary:
                answer.raise_for_status()
                with open(temporary, "wb") as file:
                    for chunk in answer.iter_content(1 << 20):
                        file.write(chunk)
                expected = None if "Content-Encoding" in answer.headers else answer.headers.get("Content-Length")
                if expected and (size := temporary.stat().st_size) != int(expected):
                    raise requests.ConnectionError(f"{size} of {expected} bytes came")

        try:
            self._with_retries(f"downloading {target.name}", fetch)
        except Refused as error:
            raise Refused(
                f"{error}. Addresses of files expire: the same command asks for new ones", error.status
            ) from error

    def gpu_quota(self) -> Quota | None:
        """Return the GPU hours of this week; None where Kaggle does not tell."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetAcceleratorQuotaStatisticsRequest

        ask, request = self._kernels("get_accelerator_quota_statistics"), ApiGetAcceleratorQuotaStatisticsRequest()
        answer = self._with_retries("asking for the GPU quota", ask, request)
        if not (quota := answer.gpu_quota):
            return None
        reserved = getattr(quota, "time_reserved", None) or timedelta()
        used = (quota.time_used or timedelta()) + reserved
        return Quota(used.total_seconds() / 3600, (quota.total_time_allowed or timedelta()).total_seconds() / 3600)

    def dataset_status(self, reference: str) -> str:
        """Return READY, FAILED, or a stage before; "" where there is no such dataset."""
        try:
            status: str = self._with_retries(f"asking for {reference}", self._api.dataset_status, reference)
            return status.upper()
        except Refused as error:
            if error.status in (403, 404):
                return ""
            raise

    def dataset_version(self, reference: str) -> int:
        """Return the number of the dataset's current version."""
        from kagglesdk.datasets.types.dataset_api_service import ApiGetDatasetRequest

        owner, slug = reference.split("/")
        request = _request(ApiGetDatasetRequest, owner_slug=owner, dataset_slug=slug)
        answer = self._with_retries(f"asking for {reference}", self._datasets("get_dataset"), request)
        return int(answer.current_version_number or 0)

    def upload_dataset(self, folder: Path, notes: str) -> int:
        """Create the private dataset that `folder` describes (dataset-metadata.json), or a new version of it.

        Returns
        -------
        int
            The number of the version that this makes.

        Raises
        ------
        KitError
            Also where the client goes on after a file that it could not upload.
        """
        metadata = json.loads((folder / "dataset-metadata.json").read_text(encoding="utf-8"))
        reference = metadata["id"]
        what = f"uploading {reference}"

        there = self.dataset_status(reference)
        before = self.dataset_version(reference) if there else 0

        def send() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                return (
                    self._new_version(folder, reference, notes) if there else self._new_dataset(folder, metadata)
                )

        def arrived() -> str | None:
            status = self.dataset_status(reference)
            new = status not in ("", there) or (bool(status) and self.dataset_version(reference) > before)
            return status if new else None

        answer: Any
        answer, found = self._once(what, send, arrived)
        if found:
            self._say(f"{what}: it had arrived, only the answer was lost")
        elif answer.error or (answer.status or "ok").lower() != "ok":
            taken = not there and TAKEN in (answer.error or "").lower()
            again = "; where it is yours, Kaggle refused to tell of it: try again later" if taken else ""
            raise KitError(f"{what}: Kaggle says: {one_line(answer.error or answer.status)}{again}")
        return before + 1

    def submit_file(self, competition: str, file: Path, message: str) -> int:
        """Submit a file; return the number that Kaggle gives the submission."""

        def send() -> Any:
            with contextlib.redirect_stdout(io.StringIO()) as told:
                answer = self._api.competition_submit(str(file), message, competition, True)
            if not answer.ref and answer.message == UPLOAD_FAILED:
                raise NotSent(one_line(told.getvalue()) or "Kaggle did not take the file")
            return answer

        return self._submit(f"submitting {file.name} to {competition}", competition, file.name, message, send)

    def submit_kernel(self, competition: str, kernel: PushedKernel, file_name: str, message: str) -> int:
        """Submit the output of this version of a kernel, which Kaggle reruns on the hidden test set.

        Returns the number that Kaggle gives the submission.
        """
        name = f"{kernel.owner}/{kernel.slug}"

        def send() -> Any:
            return self._api.competition_submit_code(file_name, message, competition, name, kernel.version, True)

        return self._submit(f"submitting {kernel} to {competition}", competition, file_name, message, send)

    def _submit(self, what: str, competition: str, file_name: str, message: str, send: Callable[[], Any]) -> int:
        known = {each.ref for each in self.submissions(competition)}

        def arrived() -> KaggleSubmission | None:
            new = [each for each in self.submissions(competition) if each.ref not in known]
            return next((each for each in new if (each.file, each.message) == (file_name, message)), None)

        answer: Any
        answer, there = self._once(what, send, arrived)
        if there:
            return there.ref
        if not answer.ref:
            raise KitError(f"{what}: Kaggle says: {one_line(answer.message or '')}")
        return int(answer.ref)

    def submissions(self, competition: str) -> list[KaggleSubmission]:
        """Return all submissions of this user's team, latest first."""
        from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

        listed: list[KaggleSubmission] = []
        for page in range(1, 1000):
            request = _request(ApiListSubmissionsRequest, competition_name=competition, page=page)
            answer = self._with_retries(
                f"listing the submissions to {competition}", self._competitions("list_submissions"), request
            )
            new = [submission(each) for each in answer.submissions or []]
            known = {each.ref for each in listed}
            if not (new := [each for each in new if each.ref not in known]):
                break
            listed += new
        return sorted(listed, key=lambda each: each.date, reverse=True)

    def submissions_left(self, competition: str) -> int | None:
        """Return how many more submissions Kaggle takes today; None where it does not tell."""
        try:
            from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionLimitsRequest
        except ImportError:  # an older client
            return None
        request = _request(ApiGetSubmissionLimitsRequest, competition_name=competition)
        ask, what = self._competitions("get_submission_limits"), f"asking what {competition} takes today"
        try:
            return int(self._with_retries(what, ask, request).num_allowed_now)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def competition_archive(self, competition: str) -> Any:
        """Return the open answer to a request for all files: its headers tell size and address."""
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

        request = _request(ApiDownloadDataFilesRequest, competition_name=competition)
        return self._with_retries(f"downloading {competition}", self._competitions("download_data_files"), request)

    def download_archive(self, competition: str, answer: Any, target: Path) -> None:
        """Download what `competition_archive` opened; go on with what an interrupted download left."""
        import requests

        opened = [answer]

        def fetch() -> None:
            response = opened.pop() if opened else self.competition_archive(competition)
            with self._api.build_kaggle_client() as client, contextlib.redirect_stdout(io.StringIO()):
                try:
                    self._api.download_file(response, str(target), client.http_client(), True, True)
                except ValueError as error:  # it takes the words of an error for the rest of the file
                    target.unlink(missing_ok=True)
                    raise requests.ConnectionError(str(error)) from error

        with writing(target):
            self._with_retries(f"downloading {target.name}", fetch)

    def _new_dataset(self, folder: Path, metadata: dict[str, Any]) -> Any:
        from kagglesdk.datasets.types.dataset_api_service import ApiCreateDatasetRequest

        owner, slug = metadata["id"].split("/")
        request = _request(
            ApiCreateDatasetRequest,
            title=metadata["title"],
            slug=slug,
            owner_slug=owner,
            license_name=metadata["licenses"][0]["name"],
            is_private=True,
            files=[],
        )
        self._upload_files(request, folder)
        return self._datasets("create_dataset")(request)

    def _new_version(self, folder: Path, reference: str, notes: str) -> Any:
        from kagglesdk.datasets.types.dataset_api_service import (
            ApiCreateDatasetVersionRequest,
            ApiCreateDatasetVersionRequestBody,
        )

        owner, slug = reference.split("/")
        body = _request(ApiCreateDatasetVersionRequestBody, version_notes=notes, files=[])
        self._upload_files(body, folder)
        request = _request(ApiCreateDatasetVersionRequest, owner_slug=owner, dataset_slug=slug, body=body)
        return self._datasets("create_dataset_version")(request)

    def _upload_files(self, request: Any, folder: Path) -> None:
        """Let the client upload, and resume. Before 2.2.5 it leaves out a file that it gives up on, in silence."""
        from kaggle.api.kaggle_api_extended import ResumableUploadContext
        from kagglesdk.blobs.types.blob_api_service import ApiBlobType

        wanted = [path for path in folder.iterdir() if path.name != "dataset-metadata.json"]
        if folders := [path.name for path in wanted if not path.is_file()]:
            raise KitError(f"{folder}: sub-folders are not uploaded; move or pack {some(folders)}")
        with contextlib.suppress(ValueError), ResumableUploadContext() as context:  # a later client raises
            self._api.upload_files(request, None, str(folder), ApiBlobType.DATASET, context, True, "skip")
        if len(request.files) != len(wanted):
            raise KitError(f"not all {len(wanted)} files of {folder} could be uploaded; try again")

    def _kernels(self, method: str) -> Callable[..., Any]:
        return self._call("kernels", "kernels_api_client", method)

    def _datasets(self, method: str) -> Callable[..., Any]:
        return self._call("datasets", "dataset_api_client", method)

    def _competitions(self, method: str) -> Callable[..., Any]:
        return self._call("competitions", "competition_api_client", method)

    def _call(self, service: str, client_name: str, method: str) -> Callable[..., Any]:
        def call(request: Any) -> Any:
            with self._api.build_kaggle_client() as client:
                return getattr(getattr(getattr(client, service), client_name), method)(request)

        return call


def _client() -> tuple[Any, Callable[[], tuple[str | None, str | None]]]:
    """Return the client, signed in by nobody, and how it finds an access token."""
    try:
        try:
            api, session_request = _imported()
        except OSError:  # it makes a folder in the home as it is imported, which need not be writable
            for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
                del sys.modules[name]  # half of what was imported is left
            with _another_place_for_its_config():
                api, session_request = _imported()
    except ImportError as error:
        raise KitError(f"Kaggle's client cannot be imported ({error}); pip install -r requirements.txt") from error
    if not hasattr(session_request, "version_label"):
        raise KitError(
            "Kaggle's client is too old to ask for one version of a kernel; pip install -U kaggle kagglesdk"
        )
    try:
        from kagglesdk.kaggle_env import get_access_token_from_env
    except ImportError:  # before there were tokens
        return api, lambda: (None, None)
    return api, get_access_token_from_env


def _imported() -> tuple[Any, type]:
    """Return the client, and the request that tells how old it is."""
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        from kaggle.api.kaggle_api_extended import KaggleApi
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        return KaggleApi(), ApiListKernelSessionOutputRequest


@contextlib.contextmanager
def _another_place_for_its_config() -> Iterator[None]:
    before = os.environ.get("KAGGLE_CONFIG_DIR")
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        os.environ["KAGGLE_CONFIG_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["KAGGLE_CONFIG_DIR"]
            if before is not None:
                os.environ["KAGGLE_CONFIG_DIR"] = before


def _request(kind: type, **fields: Any) -> Any:
    request = kind()
    for name, value in fields.items():
        if value is not None:
            setattr(request, name, value)
    return request


def _kernel(kernel: PushedKernel) -> dict[str, str]:
    return {"user_name": kernel.owner, "kernel_slug": kernel.slug, "version_label": f"v{kernel.version}"}
