"""A probe is a small private kernel that reports what a real session on Kaggle is like; the kit goes by it."""

import contextlib
import hashlib
import pprint
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from kit.core.errors import Damaged, KitError, Say, ignore, some
from kit.core.files import is_safe, need_writable, read_record, sha256, write_json, write_text
from kit.core.stopping import telling
from kit.kaggle.answers import PushedKernel
from kit.kaggle.client import Kaggle
from kit.kaggle.facts import (
    FACTS,
    PROBE,
    REPORT,
    EndFacts,
    Facts,
    Probed,
    SessionFacts,
    image_differences,
    mount_form,
    read_facts,
    session_python,
    write_facts,
)
from kit.kaggle.image import read_table
from kit.kaggle.kernel.code_file import TEMPLATES
from kit.kaggle.kernel.folder import BUILT, BuildRecord, KernelFolder
from kit.kaggle.kernel.outputs import outputs_with
from kit.kaggle.kernel.push import push, pushed_kernel
from kit.kaggle.kernel.sessions import RunningSession
from kit.kaggle.rehearsal.rehearse import RehearsalOptions, rehearse
from kit.kaggle.retry import GRACE

Does = Literal["report", "exit", "limit"]

POLL = 15.0  # seconds between two looks at the session
SETTLED = 60.0  # seconds after which what is not listed beside the report will not be
LOG_END = 5  # lines
LEFT, OVERSLEPT = "before.txt", "after.txt"  # files of kernels that are to fail: at once, and past the limit
REFERENCE = re.compile(r"[\w-]+(/[\w-]+(/[\w.-]+/[\w.-]+(/\d+)?)?)?", re.ASCII)

# What a kernel does → end of its slug, limit of its session in seconds, and that in words.
KERNELS: dict[Does, tuple[str, int, str]] = {
    "report": ("", 900, "Reports what this session is like: interpreter, hardware, disks, mounts, network."),
    "exit": ("-exit", 300, "Leaves a file and ends with exit code 3, to see what becomes of the file."),
    "limit": ("-limit", 60, "Leaves a file and sleeps past its limit of a minute, to see what becomes of both."),
}


@dataclass(frozen=True)
class KernelProbeResult:
    """What a probe found out.

    Attributes
    ----------
    kernels : list of PushedKernel
        The versions that ran; empty for a rehearsal.
    file : Path or None
        kernels/facts.json; None for a rehearsal, which keeps nothing.
    facts : Facts
        What is known now; of a rehearsal, what it reported of this machine.
    notes : list of str
        What the user should know.
    """

    kernels: list[PushedKernel]
    file: Path | None
    facts: Facts
    notes: list[str]


def probe(
    *,
    gpu: bool = False,
    failures: bool = False,
    attach: Sequence[str] = (),
    rehearse: bool = False,
    output: str | Path = ".",
    say: Say = ignore,
    pause: Callable[[float], None] = time.sleep,
) -> KernelProbeResult:
    """Run a private kernel of two minutes on Kaggle that reports what a session is like, and keep what it says.

    The kit goes by kernels/facts.json from then on. A probe that was interrupted is taken up by the same call,
    and not pushed again.

    Parameters
    ----------
    gpu : bool
        A session with GPUs; else one without.
    failures : bool
        Run two more kernels, of a minute each: one ends with exit code 3, one is to be ended at its limit.
    attach : sequence of str
        What to attach, to see where it is mounted: slugs of competitions, OWNER/SLUG of datasets,
        OWNER/MODEL/FRAMEWORK/VARIATION/VERSION of models.
    rehearse : bool
        Run it on this machine alone. Nothing is pushed or kept.
    output : path
        Holds kernels/.
    pause : callable
        What to sleep with; takes seconds.

    Raises
    ------
    KitError
        For a wrong reference, where Kaggle refuses the kernel, and where it did not report.
    """
    root = Path(output).expanduser()
    before = read_facts(root)
    folders = {
        does: write_probe(root, does, gpu=gpu, attach=attach) for does in _chosen(failures and not rehearse)
    }
    if rehearse:
        if failures:
            raise KitError(
                "--failures: what becomes of a kernel that fails, Kaggle alone tells; leave out --rehearse"
            )
        return _rehearsed(folders["report"], gpu, attach, say)
    kaggle = Kaggle(say)
    with _going_on(folders.values()):
        kernels = {does: _push(folder, kaggle, say) for does, folder in folders.items()}
        facts = _read_report(folders["report"], before, gpu, attach, kaggle, say, pause)
        file = write_facts(root, facts)
        for does in ("exit", "limit"):
            if does in folders:
                facts = _with_end(facts, does, _read_end(folders[does], kaggle, say, pause))
                write_facts(root, facts)
    notes = _notes(facts, gpu, attach) + (_notes_of_ends(facts.facts) if failures else [])
    return KernelProbeResult(list(kernels.values()), file, facts, notes)


def _chosen(failures: bool) -> list[Does]:
    return ["report", "exit", "limit"] if failures else ["report"]


def write_probe(root: Path, does: Does, *, gpu: bool = False, attach: Sequence[str] = ()) -> KernelFolder:
    """Write the folder of a probe below kernels/build/; the same input gives the same bytes.

    Parameters
    ----------
    root : Path
        Holds kernels/.
    does : str
        report, exit or limit, as KERNELS tells.
    gpu, attach
        As in `probe`; of a report alone.

    Raises
    ------
    KitError
        For a wrong reference, and where nothing can be written there.
    """
    if wrong := [reference for reference in attach if not REFERENCE.fullmatch(reference)]:
        raise KitError(
            f"--attach {wrong[0]}: expected the slug of a competition, OWNER/SLUG of a dataset, or "
            "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION of a model"
        )
    end, limit, words = KERNELS[does]
    slug = f"kit-probe{end}"
    images = read_table(TEMPLATES / "image.txt").images
    template = (TEMPLATES / "probe/kernel.py").read_text(encoding="utf-8")
    facts = {
        "does": does,
        "limit": limit,
        "packages": sorted({name for image in images for name in image.versions}),
    }
    about = f"{slug.replace('-', ' ')}: a private kernel of the kit for image classification\n\n{words}\n"
    code = template.replace("{{about}}", textwrap.dedent(about)).replace('"{{kernel}}"', pprint.pformat(facts))
    folder = KernelFolder(root / BUILT / slug)
    need_writable(folder.path)
    write_text(folder.path / f"{slug}.py", code)
    reports = does == "report"
    write_json(folder.metadata_file, _metadata(slug, gpu=gpu and reports, attach=attach if reports else ()))
    digest = hashlib.sha256(code.encode()).hexdigest()
    folder.write_record(BuildRecord("probe", slug, "", [], [], [], {}, "", limit / 3600, digest, slug))
    return folder


def _metadata(slug: str, *, gpu: bool, attach: Sequence[str]) -> dict[str, Any]:
    parts = {reference: reference.count("/") for reference in attach}
    return {
        "id": slug,
        "title": slug.replace("-", " "),
        "code_file": f"{slug}.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": gpu,
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [reference for reference, slashes in parts.items() if slashes == 1],
        "competition_sources": [reference for reference, slashes in parts.items() if slashes == 0],
        "kernel_sources": [],
        "model_sources": [reference for reference, slashes in parts.items() if slashes > 1],
        "keywords": [],
        "docker_image_pinning_type": "latest",
        **({"machine_shape": "NvidiaTeslaT4"} if gpu else {}),
    }


def _rehearsed(folder: KernelFolder, gpu: bool, attach: Sequence[str], say: Say) -> KernelProbeResult:
    """Run the probe here, and return what it reports of this machine."""
    with tempfile.TemporaryDirectory(prefix="kit-") as empty:
        stand_ins = dict.fromkeys(attach, empty)
        verdict = rehearse(folder.path, RehearsalOptions(python=sys.executable, sources=stand_ins), say)
    if failed := [str(check) for check in verdict.checks if not check.passed]:
        raise KitError(f"{folder.path} failed its rehearsal: {some(failed)}")
    session = _report(verdict.working / REPORT)
    facts = _put_together(None, session, gpu, attach, {})
    return KernelProbeResult(
        [], None, facts, ["a rehearsal: these are facts of this machine, and nothing is kept"]
    )


@contextlib.contextmanager
def _going_on(folders: Iterable[KernelFolder]) -> Iterator[None]:
    """Where the work is broken off, say which sessions may be running on Kaggle, and how to go on."""

    def running() -> str:
        pushed = [folder.push for folder in folders if folder.push and not folder.push.get("read")]
        each = [f"{one['owner']}/{one['slug']} version {one['version']} ({one['url']})" for one in pushed]
        return f"{some(each)} may be running; the same command goes on with it" if each else ""

    try:
        with telling(lambda: f"while a probe was under way; {running() or 'nothing was pushed'}"):
            yield
    except KitError as error:
        if told := running():
            raise KitError(f"{error}; {told}") from error
        raise


def _push(folder: KernelFolder, kaggle: Kaggle, say: Say) -> PushedKernel:
    """Push a probe, unless this very one was pushed before and its end not yet seen."""
    if folder.push.get("digest") == folder.digest and not folder.push.get("read"):
        pushed = pushed_kernel(folder.path)
        say(f"{pushed} was pushed before: {pushed.url}")
        return pushed
    if folder.push and not folder.push.get("read"):
        before = pushed_kernel(folder.path)
        say(f"{before} was pushed before to ask otherwise, and may be running; it is left to itself: {before.url}")
    return push(folder.path, kaggle, unrehearsed=True, say=say)


def _ended(folder: KernelFolder, kaggle: Kaggle, say: Say, pause: Callable[[float], None]) -> Any:
    """Return how the pushed version has ended, an EndedSession, once it has."""
    underway = RunningSession(pushed_kernel(folder.path), None, time.monotonic())
    while (ended := underway.poll(kaggle, say)) is None:
        pause(POLL)
    return ended


def _read_report(
    folder: KernelFolder,
    before: Facts | None,
    gpu: bool,
    attach: Sequence[str],
    kaggle: Kaggle,
    say: Say,
    pause: Callable[[float], None],
) -> Facts:
    """Wait for the report, fetch it with what lies beside it, and return all that is known then."""
    ended = _ended(folder, kaggle, say, pause)
    if ended.outcome != "complete":
        _note_read(folder)
        raise KitError(
            f"{ended.kernel} reported nothing: {ended.outcome}"
            f"{f', {ended.failure}' if ended.failure else ''}; its log: python -m kit kernel logs {folder.path}"
        )
    listed = outputs_with(ended.kernel, kaggle, [REPORT]).files
    if REPORT not in listed:
        _note_read(folder)
        raise KitError(
            f"{ended.kernel} is complete, but {REPORT} is not listed among its outputs within "
            f"{GRACE / 60:.0f} minutes; its log has the report too: python -m kit kernel logs {folder.path}"
        )
    kaggle.download(listed[REPORT], folder.output / REPORT)
    try:
        session = _report(folder.output / REPORT)
    except Damaged:
        _note_read(folder)
        raise
    came = _came(session, ended.kernel, folder.output, kaggle)
    _note_read(folder)
    return _put_together(before, session, gpu, attach, came)


def _report(file: Path) -> SessionFacts:
    return read_record(file, SessionFacts, "probe again")


def _came(
    session: SessionFacts, kernel: PushedKernel, target: Path, kaggle: Kaggle
) -> dict[str, Literal["whole", "damaged", "missing"]]:
    """Fetch the odd files that the session left, and say how each came."""
    came: dict[str, Literal["whole", "damaged", "missing"]] = {}
    names = [name for name in session.wrote if is_safe(name)]
    listed = outputs_with(kernel, kaggle, names, SETTLED).files
    for name in names:
        came[name] = "missing"
        if name in listed:
            with contextlib.suppress(KitError):  # listed, and not to be had
                kaggle.download(listed[name], target / name)
                came[name] = "whole" if sha256(target / name) == session.wrote[name] else "damaged"
    return came


def _put_together(
    before: Facts | None,
    session: SessionFacts,
    gpu: bool,
    attach: Sequence[str],
    came: dict[str, Literal["whole", "damaged", "missing"]],
) -> Facts:
    """Return what is known, with a new session's report in the place of the last one of its kind."""
    probed = before.facts if before else Probed()
    changes: dict[str, Any] = {"gpu" if gpu else "cpu": session, "came": came}
    if form := mount_form(session.tree, attach):
        changes["form"] = form
    image = {"python": session.python, **session.packages}
    return Facts(when=session.when, image=image, facts=probed.model_copy(update=changes))


def _read_end(folder: KernelFolder, kaggle: Kaggle, say: Say, pause: Callable[[float], None]) -> EndFacts:
    """Wait for a kernel that is to fail, and return how it did."""
    say(f"{folder.path.name} is made to end badly; how it does is what is asked")
    kernel = _ended(folder, kaggle, say, pause).kernel
    session = kaggle.session(kernel)
    outputs = outputs_with(kernel, kaggle, [LEFT], SETTLED)
    _note_read(folder)
    when = datetime.now(UTC)
    return EndFacts(
        when=when,
        kernel=str(kernel),
        status=session.status,
        failure=session.failure,
        files=sorted(outputs.files),
        log_end=outputs.log[-LOG_END:],
    )


def _with_end(facts: Facts, does: Does, end: EndFacts) -> Facts:
    return facts.model_copy(update={"facts": facts.facts.model_copy(update={does: end})})


def _note_read(folder: KernelFolder) -> None:
    """Write down that the end of the pushed version was seen: the next probe is pushed anew."""
    folder.write_push(folder.push | {"read": True})


def _notes(facts: Facts, gpu: bool, attach: Sequence[str]) -> list[str]:
    """Return what the user should know of a session."""
    session, notes = facts.session(gpu), []
    assert session is not None  # it was just put there
    table, python = read_table(TEMPLATES / "image.txt"), session_python(facts)
    if told := image_differences(
        facts.image, table.image(python if python in table.pythons else table.pythons[-1])
    ):
        notes.append(f"kernels/image.txt is of another image: {some(told)}")
    if attach and not mount_form(session.tree, attach):
        notes.append(f"{some(attach)}: mounted neither nested nor flat; {FACTS} has what is below /kaggle/input")
    if not attach and facts.facts.form is None:
        notes.append(f"nothing was attached, so how it is mounted is not known: {PROBE} --attach SLUG")
    notes += [
        f"{name} did not work: {said}"
        for name, said in (("spawning processes", session.spawn), ("a loader with four workers", session.loader))
        if said != "works"
    ]
    if reached := [host for host, said in (session.network or {}).items() if said == "reached"]:
        notes.append(f"without internet, {some(reached)} was reached all the same")
    if lost := [f"{name!r} {how}" for name, how in facts.facts.came.items() if how != "whole"]:
        notes.append(f"of the files that it left, these did not come back as they were: {some(lost)}")
    return notes


def _notes_of_ends(probed: Probed) -> list[str]:
    """Return what the user should know of the sessions that were to fail."""
    notes = []
    if probed.exit and probed.exit.status == "COMPLETE":
        notes.append("a session that ended with exit code 3 is COMPLETE all the same")
    elif probed.exit and LEFT not in probed.exit.files:
        notes.append("what a session leaves that ends with exit code 3 is not to be had")
    if probed.limit and probed.limit.status == "COMPLETE":
        notes.append("a session is COMPLETE that slept past its limit of a minute")
    elif probed.limit and LEFT not in probed.limit.files:
        notes.append("what a session leaves that is ended at its limit is not to be had")
    if probed.limit and OVERSLEPT in probed.limit.files:
        notes.append("a session with a limit of a minute was not ended within five: limits are not kept")
    return notes
