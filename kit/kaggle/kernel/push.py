"""Built kernels are pushed to Kaggle, one or several, and what they need is brought there first."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from kit.core.errors import Damaged, KitError, Say, some
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.kaggle.answers import PushedKernel, kernel_url
from kit.kaggle.client import Kaggle
from kit.kaggle.datasets import read_ref, send_dataset, wait_for_dataset
from kit.kaggle.kernel.ended import EndedSession, expected_of
from kit.kaggle.kernel.folder import KernelFolder, built, built_beside
from kit.kaggle.kernel.outputs import list_of
from kit.kaggle.kernel.sessions import RunningSession, tell_interrupted, wait_for_kernel, watched
from kit.kaggle.retry import NOT_YET, Lost, Refused, Unanswered

POLL = 15.0  # seconds between two looks at the kernels
SESSIONS = 2  # batch sessions with a GPU that Kaggle runs at once for a user


def push(
    path: str | Path,
    kaggle: Kaggle,
    *,
    unrehearsed: bool = False,
    output: str | Path = ".",
    say: Say = print,
) -> PushedKernel:
    """Save the built kernel on Kaggle, which runs it at once; it is remembered in push.json.

    Waits until attached datasets are READY and attached kernels have ended, and looks at the GPU quota first. A
    push that was interrupted before its answer came is recognised, and not repeated. Of a train kernel that was
    pushed as it is built now, and whose finished runs were fetched, what is left is pushed alone.

    Parameters
    ----------
    path : str or Path
        The folder of the built kernel.
    unrehearsed : bool
        Push what did not pass a rehearsal since it was built.
    output : str or Path
        Holds runs/, where the finished runs of an earlier version are.

    Raises
    ------
    KitError
        For what would make the run worthless, before anything is pushed, and for every error in Kaggle's answer.
    """
    folder = KernelFolder.at(path)
    if not unrehearsed:
        need_rehearsed([folder])
    owner = _owner(folder.metadata["id"], kaggle)
    only = _left(folder, kaggle, output, say)
    text = folder.source_for(only) if only else None
    if pushed := _interrupted(folder, owner, only, kaggle):
        say(f"{pushed} had arrived before the push was interrupted; see on its page that all sources are there")
    else:
        _make_ready(folder, kaggle, say)
        slug = _slug(folder, owner)
        same = (owner, slug) == (folder.push.get("owner"), folder.push.get("slug"))
        known = folder.push["version"] if same else 0
        before = kaggle.latest_version(owner, slug)
        before = None if before is None else max(before, known)
        folder.write_begun_push({"digest": folder.digest, "owner": owner, "version": before, "only": only})
        pushed = _send(folder, kaggle, f"{owner}/{slug}", text, before, say)
        say(f"pushed {pushed}: {pushed.url}")
    _remember(folder, pushed, only)
    return pushed_kernel(path)


def _send(
    folder: KernelFolder, kaggle: Kaggle, identity: str, text: str | None, before: int | None, say: Say
) -> PushedKernel:
    """Push the kernel as owner/slug, with `text` as its code where that is not all of the code file.

    `before` is the version before it, as far as that is known.
    """
    begun = f"{identity} ({kernel_url(*identity.split('/'))})"
    with tempfile.TemporaryDirectory(prefix="kit-") as stage:
        shutil.copy2(folder.code_file, stage)
        if text:
            (Path(stage) / folder.code_file.name).write_text(text, encoding="utf-8")
        complete = folder.metadata | {"id": identity}
        (Path(stage) / "kernel-metadata.json").write_text(json.dumps(complete), encoding="utf-8")
        try:
            return kaggle.push(Path(stage), 3600 * folder.record.hours, before)
        except Lost as error:
            raise Lost(f"{error}; a session of {begun} may be running; the same command finds out") from error
        except KeyboardInterrupt as error:
            tell_interrupted(error, f"a session of {begun} may be running; the same command goes on", say)
            raise
        except KitError:  # what came of it is known, and is not what is wanted
            folder.forget_begun_push()
            raise


def _slug(folder: KernelFolder, owner: str) -> str:
    """Return Kaggle's name of the kernel, which it tells when it is pushed; before that, ours."""
    then = folder.push
    same = then and then["owner"] == owner and then["build"].get("slug") == folder.record.slug
    return str(then["slug"]) if same else folder.record.slug


def _remember(folder: KernelFolder, pushed: PushedKernel, only: Sequence[str]) -> None:
    """Write down what was pushed, and which runs it trains where these are not all."""
    folder.write_push(
        {
            "owner": pushed.owner,
            "slug": pushed.slug,
            "version": pushed.version,
            "url": pushed.url,
            "digest": folder.digest,
            "build": asdict(folder.record),
            "only": list(only),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def left_over(folder: KernelFolder, output: str | Path) -> list[str] | None:
    """Return the runs that are left of the pushed version: it did not finish them, and here they are not either.

    None where it was not fetched yet, is not what is built now, or had all.
    """
    if not _is_pushed(folder) or folder.fetched.get("version") != folder.push["version"]:
        return None
    ours = ExperimentDir(OutputDirs.at(output).runs / folder.record.experiment)
    missing = folder.fetched["missing"]
    return [place for place in missing if not RunDir(ours.path / place).finished] if missing else None


def _left(folder: KernelFolder, kaggle: Kaggle, output: str | Path, say: Say) -> list[str]:
    """Return the runs that a push has to train; none where these are all.

    KitError where the version before finished some, and these are not here yet.
    """
    if (left := left_over(folder, output)) is not None:
        if not left:
            raise KitError(f"{folder.path}: all of its runs are here; there is nothing to push")
        say(f"{pushed_kernel(folder.path)} has finished its other runs; pushes what is left: {some(left, 5)}")
        return left
    if not _is_pushed(folder) or folder.record.kind != "train":
        return []
    kernel, runs = pushed_kernel(folder.path), folder.pushed_runs
    if folder.fetched.get("version") == kernel.version:
        return []
    again = list(folder.push.get("only") or [])  # what was pushed is pushed once more
    try:
        if not kaggle.session(kernel).ended:
            return again
        listed = list_of(kaggle.outputs(kernel), kaggle)
    except (Refused, Unanswered) as error:
        if error.status not in NOT_YET:
            raise
        return again  # of a version that cannot be seen nothing is kept
    except Damaged:
        return again
    if listed and listed.missing and len(listed.missing) < len(runs):
        raise KitError(
            f"{kernel} has finished {len(runs) - len(listed.missing)} of {len(runs)} runs, which were not fetched "
            f"yet: python -m kit kernel fetch {folder.path}, then the same push pushes the others"
        )
    return again


def _interrupted(folder: KernelFolder, owner: str, only: list[str], kaggle: Kaggle) -> PushedKernel | None:
    """Return the version that an interrupted push of this very build made; None where it did not arrive."""
    begun, slug = folder.begun_push, _slug(folder, owner)
    if (begun.get("digest"), begun.get("owner"), begun.get("only", [])) != (folder.digest, owner, only):
        return None
    before, version = begun["version"], kaggle.latest_version(owner, slug)
    if before is not None and version is not None and (version == 0 or version < before):  # it may be refused yet
        what = f"the interrupted push of {owner}/{slug} does not show"
        version = kaggle.until(what, lambda: kaggle.latest_version(owner, slug) or None) or 0
    if before is None or version is None or version < before:
        raise KitError(
            f"whether the interrupted push of {owner}/{slug} arrived cannot be told: look at "
            f"{kernel_url(owner, slug)}; where no session runs there, remove {folder.path / 'pushing.json'} and "
            "push again"
        )
    return PushedKernel(owner, slug, version, kernel_url(owner, slug)) if version > before else None


def _make_ready(folder: KernelFolder, kaggle: Kaggle, say: Say) -> None:
    """Wait until all that the kernel attaches is there; KitError where it will not be, or no GPU time is left."""
    metadata = folder.metadata
    if folder.code_dataset.is_dir():
        _send_code(folder, kaggle, say)
    for reference in metadata["dataset_sources"]:
        wait_for_dataset(reference, kaggle, say)
    for reference in metadata["kernel_sources"]:
        wait_for_kernel(reference, kaggle, say, pushed=_pushed_beside(folder, reference))
    if metadata["enable_gpu"]:
        need_quota(kaggle, folder.record.hours, say)


def _pushed_beside(folder: KernelFolder, reference: str) -> PushedKernel | None:
    """Return the version of an attached kernel that was pushed from a folder beside this one."""
    pushed = [pushed_kernel(each.path) for each in built_beside(folder) if each.push]
    return next((each for each in pushed if f"{each.owner}/{each.slug}" == reference), None)


def need_rehearsed(folders: Sequence[KernelFolder]) -> None:
    """Raise KitError, a line each, for those that did not pass their last rehearsal since they were built.

    One that had none passes where another passed that differs in its folds only.
    """
    if reasons := [reason for folder in folders if (reason := _unrehearsed(folder))]:
        raise KitError("\n".join(reasons))


def _unrehearsed(folder: KernelFolder) -> str | None:
    kin = [each for each in built_beside(folder) if each.record.family == folder.record.family]
    rehearsed = [each for each in kin if each.rehearsal]
    fresh = {each.path.name: each.rehearsal for each in rehearsed if each.rehearsal["digest"] == each.digest}
    own = fresh.get(folder.path.name)
    if own["passed"] if own else any(each["passed"] for each in fresh.values()):
        return None
    how = f"python -m kit kernel rehearse {folder.path}, or push with --unrehearsed"
    if failed := own or next(iter(fresh.values()), None):
        checks = [check["name"] for check in failed["checks"] if not check["passed"]]
        offline = "; it may use the network on Kaggle, which a rehearsal has not" if _needs_network(folder) else ""
        return f"{folder.path} failed its rehearsal ({some(checks)}){offline}: mend, build and {how}"
    since = "since it was built" if rehearsed else "yet"
    return f"{folder.path} was not rehearsed {since}: {how}"


def _needs_network(folder: KernelFolder) -> bool:
    return folder.metadata["enable_internet"]


def pushed_kernel(path: str | Path) -> PushedKernel:
    """Return the version that was pushed from a folder; KitError where none was."""
    folder = KernelFolder.at(path)
    record = folder.push
    if not record:
        raise KitError(f"{folder.path} was not pushed yet: python -m kit kernel push {folder.path}")
    named = record["owner"], record["slug"], record["version"], record["url"]
    return PushedKernel(*named, folder.pushed_at, folder.path)


def need_quota(kaggle: Kaggle, hours: float, say: Say) -> None:
    """Raise KitError where no GPU time is left this week; say so where there may be too little."""
    quota = kaggle.gpu_quota()
    if quota is None:
        return
    stated = f"{quota.used:.1f} of {quota.total:.1f} GPU hours of this week are used"
    if quota.left <= 0:
        raise KitError(
            f"{stated}; nothing was pushed. Wait for the next week, or build with kernel.accelerator=none"
        )
    say(f"{stated}" + (f"; the kernel may take up to {hours:g} h" if quota.left < hours else ""))


def push_all(
    folders: Sequence[KernelFolder],
    kaggle: Kaggle,
    *,
    sessions: int = SESSIONS,
    unrehearsed: bool = False,
    output: str | Path = ".",
    say: Say = print,
    pause: Callable[[float], None] = time.sleep,
) -> list[EndedSession]:
    """Push kernels, no more than `sessions` running at a time, and wait for all of them.

    What was pushed as it is built now is not pushed again, but waited for; of a train kernel whose finished runs
    were fetched, what is left is pushed. Where the quota is used up, or a push is refused, no further one is
    begun; those under way are waited for before the error is raised, and the same call goes on later. One has
    failed where Kaggle will not tell how it ended; the others are waited for. Where Kaggle does not answer, they
    are looked at again, and count as running.

    Parameters
    ----------
    folders : sequence of KernelFolder
        Built kernels.
    sessions : int
        How many may run at once.
    unrehearsed : bool
        Whether also those are pushed that did not pass a rehearsal since they were built; else that is an error.
    output : str or Path
        As in `push`; `pause` is what to sleep with, in seconds.

    Returns
    -------
    list of EndedSession
        In the order in which they ended.
    """
    due, waited = _due_and_pushed(folders, output, say)
    if not unrehearsed:
        need_rehearsed(due)
    running, ended = [_underway(folder) for folder in waited], list[EndedSession]()
    trouble: KitError | None = None
    with watched(running, say, "the same command"):
        while due or running:
            for each in list(running):
                if (end := _polled(each, kaggle, say)) is not None:
                    running.remove(each)
                    ended.append(end)
            while due and len(running) < sessions and not trouble:
                try:
                    push(due[0].path, kaggle, unrehearsed=unrehearsed, output=output, say=say)
                    running.append(_underway(due.pop(0)))
                except KitError as error:
                    if running and "session count" in str(error).lower():  # others of the user's are running
                        break
                    trouble = error
                    if running:
                        say(f"{error}; no further kernel is pushed, those under way are waited for")
            if trouble and not running:
                raise KitError(_with_what_is_left(trouble, ended, len(due), len(folders))) from trouble
            if running:
                pause(POLL)
    return ended


def _polled(running: RunningSession, kaggle: Kaggle, say: Say) -> EndedSession | None:
    """Return how a kernel has ended, once that is known; a failure where Kaggle will not tell it."""
    try:
        return running.patient(kaggle, say)
    except (Damaged, Refused, Unanswered) as error:
        if not isinstance(error, Damaged) and error.status not in NOT_YET:  # not of this kernel alone
            raise
        kernel = running.kernel
        place = "" if kernel.url in str(error) else f" ({kernel.url})"
        failure = (
            f"how it ended is not known: {error}; not watched any more, and may be running on Kaggle{place}; the "
            "same command goes on"
        )
        say(f"{kernel}: {failure}")
        return EndedSession(kernel, "failed", failure, missing=running.needs.runs if running.needs else ())


def _with_what_is_left(trouble: KitError, ended: Sequence[EndedSession], due: int, kernels: int) -> str:
    """Return what went wrong, a line each: the trouble, kernels that did not end well, those that are left."""
    failed = [f"{each.kernel} {each.outcome}" for each in ended if each.outcome != "complete"]
    left = f"{due} of {kernels} kernels are left; the same command goes on with them"
    return "\n".join(filter(None, [str(trouble), some(failed), left]))


def _due_and_pushed(
    folders: Sequence[KernelFolder], output: str | Path, say: Say
) -> tuple[list[KernelFolder], list[KernelFolder]]:
    """Return which kernels are to be pushed, also for what is left of them, and which are waited for alone."""
    due: list[KernelFolder] = []
    waited: list[KernelFolder] = []
    for folder in folders:
        left = left_over(folder, output)
        if left == []:
            say(f"{folder.path}: all of its runs are here")
        else:
            (due if left or not _is_pushed(folder) else waited).append(folder)
    return due, waited


def _owner(identity: str, kaggle: Kaggle) -> str:
    """Return the owner in the metadata, or who is signed in; KitError where these are two, or none."""
    stated, slash, _ = identity.partition("/")
    if not slash and not kaggle.user:
        raise KitError("kernel.owner: missing; the credentials do not tell the user, so name yours there")
    if slash and kaggle.user and stated.lower() != kaggle.user.lower():
        raise KitError(f"kernel.owner is {stated}, but the credentials are those of {kaggle.user}")
    return stated if slash else kaggle.user


def _send_code(folder: KernelFolder, kaggle: Kaggle, say: Say) -> None:
    """Upload the code that was too large for the code file, unless this very code is there."""
    code = {"reference": read_ref(folder.code_dataset), "sha256": folder.record.sha256}
    if folder.sent_code == code and kaggle.dataset_status(code["reference"]):
        return
    version = send_dataset(folder.code_dataset, kaggle, code["sha256"], say)
    wait_for_dataset(code["reference"], kaggle, say, version=version)
    folder.write_sent_code(code)


def _underway(folder: KernelFolder) -> RunningSession:
    return RunningSession(pushed_kernel(folder.path), expected_of(folder), time.monotonic())


def _is_pushed(folder: KernelFolder) -> bool:
    return folder.push.get("digest") == folder.digest


def select_kernels(paths: Sequence[str], everything: bool, root: Path, kind: str = "train") -> list[KernelFolder]:
    """Return the kernels that a command names, or with `everything` all of a kind that were built below `root`."""
    if bool(paths) == everything:
        raise KitError("name the folders of built kernels, or give --all for the train kernels in kernels/build")
    if not everything:
        return [KernelFolder.at(path) for path in paths]
    if not (folders := [folder for folder in built(root) if folder.record.kind == kind]):
        raise KitError(
            "no train kernel was built here; make some with: python -m kit kernel build CONFIG --kind train"
        )
    return folders
