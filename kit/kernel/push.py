"""Built kernels to Kaggle, and what becomes of them there."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from kit.errors import KitError, some
from kit.kaggle.client import Kaggle, Pushed, Session
from kit.kaggle.folders import read_ref
from kit.kaggle.patience import Refused
from kit.kernel.folder import KernelFolder, built

Say = Callable[[str], None]

POLL = 15.0  # seconds between two looks at a session
NEWS = 60.0  # seconds between two lines that say the same
UNKNOWN = 120.0  # seconds for which Kaggle may not know a version that was just pushed
PROCESSING = 3600.0  # seconds that a dataset may take to become READY
SESSIONS = 2  # batch sessions with a GPU that Kaggle runs at once for a user
TAIL = 30  # lines of the log of a failed kernel

# Kaggle's failure → words in its message, words in the log's end (fewer: logs speak of much), what may help.
FAILURES = {
    "timeout": (
        ("time limit", "timeout", "timed out", "execution time", "allowed time"),
        ("time limit", "maximum execution time"),
        "fewer epochs, or fewer folds a kernel",
    ),
    "exceeded compute": (
        ("memory", "compute", "sigkill", "code 137", "disk", "no space left"),
        (
            "out of memory",
            "memory is too small",
            "want of memory",
            "exit code -9",
            "exit code 137",
            "no space left",
        ),
        "a smaller training.batch_size or data.cache_gb",
    ),
}


@dataclass(frozen=True)
class Ended:
    """How a kernel's session ended.

    outcome  complete, failed or cancelled
    failure  of a failed one: timeout, exception, exceeded compute or CSV not found, and what may help
    tail     the end of the log of a failed one
    """

    kernel: Pushed
    outcome: Literal["complete", "failed", "cancelled"]
    failure: str = ""
    tail: Sequence[str] = ()


def push(path: str | Path, kaggle: Kaggle, *, unrehearsed: bool = False, say: Say = print) -> Pushed:
    """Saves the built kernel on Kaggle, which runs it at once; remembered in push.json.

    unrehearsed  push what did not pass a rehearsal since it was built

    Waits until attached datasets are READY, and looks at the GPU quota first. Raises KitError for what would
    make the run worthless, before anything is pushed, and for every error in Kaggle's answer.
    """
    folder = KernelFolder.at(path)
    if not unrehearsed:
        need_rehearsed(folder)
    metadata = folder.metadata
    owner = _owner(metadata["id"], kaggle)
    if folder.code_dataset.is_dir():
        _send_code(folder, kaggle, say)
    for reference in metadata["dataset_sources"]:
        wait_for_dataset(reference, kaggle, say)
    if metadata["enable_gpu"]:
        need_quota(kaggle, folder.record.hours, say)
    with tempfile.TemporaryDirectory(prefix="kit-") as stage:
        shutil.copy2(folder.code_file, stage)
        complete = metadata | {"id": f"{owner}/{folder.record.slug}"}
        (Path(stage) / "kernel-metadata.json").write_text(json.dumps(complete), encoding="utf-8")
        pushed = kaggle.push(Path(stage), 3600 * folder.record.hours)
    folder.write_push(
        {
            "owner": pushed.owner,
            "slug": pushed.slug,
            "version": pushed.version,
            "url": pushed.url,
            "digest": folder.digest,
            "build": asdict(folder.record),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    say(f"pushed {pushed}: {pushed.url}")
    return pushed


def need_rehearsed(folder: KernelFolder) -> None:
    """KitError unless this build, or one that differs in its folds only, passed its last rehearsal."""
    family = folder.record.family
    kin = [other for other in _siblings(folder) if other.record.family == family and other.rehearsal]
    fresh = [other for other in kin if other.rehearsal["digest"] == other.digest]
    if any(other.rehearsal["passed"] for other in fresh):
        return
    how = f"python -m kit kernel rehearse {folder.path}, or push with --unrehearsed"
    if fresh:
        failed = [check["name"] for check in fresh[0].rehearsal["checks"] if not check["passed"]]
        raise KitError(f"{folder.path} failed its rehearsal ({some(failed)}): mend, build and {how}")
    since = "since it was built" if kin else "yet"
    raise KitError(f"{folder.path} was not rehearsed {since}: {how}")


def pushed_kernel(path: str | Path) -> Pushed:
    """The version that was pushed from a folder; KitError where none was."""
    folder = KernelFolder.at(path)
    record = folder.push
    if not record:
        raise KitError(f"{folder.path} was not pushed yet: python -m kit kernel push {folder.path}")
    return Pushed(record["owner"], record["slug"], record["version"], record["url"])


def wait_for_dataset(reference: str, kaggle: Kaggle, say: Say, wait: Callable[[float], None] = time.sleep) -> None:
    """Until the dataset is READY: a kernel that starts before runs without its files."""
    status = _processed(reference, kaggle, say, wait)
    if not status:
        raise KitError(f"there is no dataset {reference} on Kaggle that {kaggle.user} may see; upload it first")
    if status != "READY":
        raise KitError(f"the dataset {reference} is {status} on Kaggle; upload it again")


def _processed(reference: str, kaggle: Kaggle, say: Say, wait: Callable[[float], None] = time.sleep) -> str:
    """The dataset's status, "" for an unknown one, as soon as Kaggle is not at work on it."""
    begun, told = time.monotonic(), ""
    while (status := kaggle.dataset_status(reference)) not in ("", "READY", "FAILED", "DELETED"):
        if time.monotonic() - begun > PROCESSING:
            raise KitError(f"the dataset {reference} is still {status} after {PROCESSING / 60:.0f} minutes")
        if status != told:
            say(f"waiting for the dataset {reference}: {status}")
        told = status
        wait(POLL / 3)
    return status


def upload(folder: str | Path, kaggle: Kaggle, notes: str = "", say: Say = print) -> None:
    """Makes a folder with dataset-metadata.json a dataset, or a new version of it; waits until it is READY."""
    path = Path(folder)
    if not (path / "dataset-metadata.json").is_file():
        raise KitError(
            f"{folder} has no dataset-metadata.json; `python -m kit kernel weights` and `wheels` make such folders"
        )
    reference = read_ref(path)
    _send_dataset(path, kaggle, notes or datetime.now(UTC).isoformat(timespec="seconds"), say)
    wait_for_dataset(reference, kaggle, say)
    say(f"{reference} is READY")


def _send_dataset(folder: Path, kaggle: Kaggle, notes: str, say: Say) -> None:
    reference = read_ref(folder)
    _processed(reference, kaggle, say)  # meanwhile Kaggle would refuse a new version
    say(f"uploading {reference}")
    kaggle.upload_dataset(folder, notes)


def need_quota(kaggle: Kaggle, hours: float, say: Say) -> None:
    """KitError where no GPU time is left this week; a line where there may be too little."""
    quota = kaggle.gpu_quota()
    if quota is None:
        return
    stated = f"{quota.used:.1f} of {quota.total:.1f} GPU hours of this week are used"
    if quota.left <= 0:
        raise KitError(
            f"{stated}; nothing was pushed. Wait for the next week, or build with kernel.accelerator=none"
        )
    say(f"{stated}" + (f"; the kernel may take up to {hours:g} h" if quota.left < hours else ""))


def wait(
    kernel: Pushed,
    kaggle: Kaggle,
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
    needs: str | None = None,
) -> Ended:
    """Until this version of the kernel has ended. `needs` names an output without which it has failed."""
    underway = _Underway(kernel, needs, time.monotonic())
    while (ended := underway.look(kaggle, say)) is None:
        pause(POLL)
    return ended


def judge(kernel: Pushed, session: Session, kaggle: Kaggle, needs: str | None = None) -> Ended:
    """What an ended session means."""
    if session.status == "CANCEL_ACKNOWLEDGED":
        return Ended(kernel, "cancelled")
    if session.status == "COMPLETE" and needs is None:
        return Ended(kernel, "complete")
    if session.status == "COMPLETE":
        outputs = kaggle.outputs(kernel)
        if needs in outputs.files:
            return Ended(kernel, "complete")
        failure = f"CSV not found: there is no {needs} among its outputs"
        return Ended(kernel, "failed", failure, outputs.log[-TAIL:])
    tail: list[str] = []
    with contextlib.suppress(KitError):  # that it failed is known without its log
        tail = kaggle.outputs(kernel).log[-TAIL:]
    return Ended(kernel, "failed", _failure(session.failure, tail), tail)


def needed(folder: KernelFolder) -> str | None:
    """The output without which a kernel that ended well has failed all the same."""
    return "submission.csv" if folder.record.kind == "infer" else None


def _failure(message: str, tail: Sequence[str]) -> str:
    """Which of Kaggle's failures it is: by Kaggle's message, else by what the kernel said last."""
    stated = message or "as the log says"
    log = " ".join(tail).lower()
    for kind, (in_message, _, advice) in FAILURES.items():
        if any(word in message.lower() for word in in_message):
            return f"{kind} ({stated}); try {advice}"
    for kind, (_, in_log, advice) in FAILURES.items():
        if any(word in log for word in in_log):
            return f"{kind} ({stated}); try {advice}"
    return f"exception ({stated})"


def follow(kernel: Pushed, kaggle: Kaggle, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """The lines of this version's log as they come, until it has ended."""
    seen, begun = 0, time.monotonic()
    while not _session(kernel, kaggle, begun).ended:
        with contextlib.suppress(OSError, Refused):  # broken, or not begun: it comes again from the first line
            for number, line in enumerate(kaggle.log_stream(kernel)):
                if number >= seen:
                    yield line
                seen = max(seen, number + 1)
        pause(POLL / 3)
    yield from kaggle.outputs(kernel).log[seen:]


@dataclass
class _Underway:
    """A pushed kernel that is waited for; `told` is the status that was said last, and `last` when."""

    kernel: Pushed
    needs: str | None
    begun: float
    told: str = ""
    last: float = 0.0

    @classmethod
    def of(cls, folder: KernelFolder) -> "_Underway":
        return cls(pushed_kernel(folder.path), needed(folder), time.monotonic())

    def look(self, kaggle: Kaggle, say: Say) -> Ended | None:
        """Asks how far it is, says so where that is news, and gives how it ended once it has."""
        session, now = _session(self.kernel, kaggle, self.begun), time.monotonic()
        ended = judge(self.kernel, session, kaggle, self.needs) if session.ended else None
        if ended or session.status != self.told or now - self.last >= NEWS:
            say(f"{self.kernel}: {ended.outcome if ended else session.status}, {(now - self.begun) / 60:.0f} min")
            self.told, self.last = session.status, now
        return ended


def push_all(
    folders: Sequence[KernelFolder],
    kaggle: Kaggle,
    *,
    sessions: int = SESSIONS,
    unrehearsed: bool = False,
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
) -> list[Ended]:
    """Pushes kernels, no more than `sessions` running at a time, and waits for all of them.

    What was pushed as it is built now is not pushed again, but waited for. Where the quota is used up, or a
    push is refused, no further one is begun; the kernels under way are waited for before the error is raised,
    and the same call goes on later.
    """
    due = [folder for folder in folders if not _is_pushed(folder)]
    running = [_Underway.of(folder) for folder in folders if _is_pushed(folder)]
    ended: list[Ended] = []
    trouble: KitError | None = None
    while due or running:
        for each in list(running):
            if (end := each.look(kaggle, say)) is not None:
                running.remove(each)
                ended.append(end)
        while due and len(running) < sessions and not trouble:
            try:
                push(due[0].path, kaggle, unrehearsed=unrehearsed, say=say)
                running.append(_Underway.of(due.pop(0)))
            except KitError as error:
                if running and "session count" in str(error).lower():  # others of the user's are running
                    break
                trouble = error
        if trouble and not running:
            failed = [f"{each.kernel} {each.outcome}" for each in ended if each.outcome != "complete"]
            left = f"{len(due)} of {len(folders)} kernels are left; the same command goes on with them"
            raise KitError("\n".join(filter(None, [str(trouble), some(failed), left]))) from trouble
        if running:
            pause(POLL)
    return ended


def _session(kernel: Pushed, kaggle: Kaggle, begun: float) -> Session:
    """Of the version; a version that Kaggle does not know yet is queued."""
    try:
        return kaggle.session(kernel)
    except Refused as error:
        if error.status == 404 and time.monotonic() - begun < UNKNOWN:
            return Session("QUEUED", "")
        raise


def _owner(identity: str, kaggle: Kaggle) -> str:
    """The one in the metadata, or who is signed in; KitError where these are two, or none."""
    stated, slash, _ = identity.partition("/")
    if not slash and not kaggle.user:
        raise KitError("kernel.owner: missing; the credentials do not tell the user, so name yours there")
    if slash and kaggle.user and stated.lower() != kaggle.user.lower():
        raise KitError(f"kernel.owner is {stated}, but the credentials are those of {kaggle.user}")
    return stated if slash else kaggle.user


def _send_code(folder: KernelFolder, kaggle: Kaggle, say: Say) -> None:
    """The code that was too large for the code file, unless this very code is there."""
    mark = folder.path / "code.sent"
    if mark.is_file() and mark.read_text() == folder.record.sha256:
        return
    _send_dataset(folder.code_dataset, kaggle, folder.record.sha256, say)
    mark.write_text(folder.record.sha256)


def _is_pushed(folder: KernelFolder) -> bool:
    return folder.push.get("digest") == folder.digest


def _siblings(folder: KernelFolder) -> list[KernelFolder]:
    """The kernels built beside this one, itself among them."""
    return [KernelFolder(file.parent) for file in sorted(folder.path.parent.glob("*/build.json"))]


def chosen(paths: Sequence[str], everything: bool, root: Path, kind: str = "train") -> list[KernelFolder]:
    """The kernels that a command names, or with `everything` all of a kind that were built below `root`."""
    if bool(paths) == everything:
        raise KitError("name the folders of built kernels, or give --all for the train kernels in kernels/build")
    if not everything:
        return [KernelFolder.at(path) for path in paths]
    if not (folders := [folder for folder in built(root) if folder.record.kind == kind]):
        raise KitError(
            "no train kernel was built here; make some with: python -m kit kernel build CONFIG --kind train"
        )
    return folders
