"""A script is run the way Kaggle runs a kernel, and what that took is measured.

`/kaggle/input` is read-only, `/kaggle/working` starts empty, there is no network, no credentials, and neither
your project nor your home folder is to be seen. Three isolations do that, as well as the machine lets them:

- "bubblewrap", "unshare": Linux namespaces, see `namespaces`. All of the above holds.
- "redirect": anywhere else (macOS, Windows, containers that allow no namespaces). The script finds the folders
  through `KIT_INPUT` and `KIT_WORKING`; Python's sockets are held to this machine (`offline` tells how far);
  the environment is as bare. But inputs can be written by who may write them, and all other files are there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from kit.core.errors import KitError, some
from kit.core.files import need_writable
from kit.kaggle.rehearsal import namespaces, offline
from kit.kaggle.rehearsal.processes import ProcessEnd, Processes, follow

ISOLATIONS = ("bubblewrap", "unshare", "redirect")  # best first

PASSED_ON = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "SYSTEMROOT")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Mount:
    """A file or folder that is there to be read.

    Attributes
    ----------
    source : Path
        Where it lies here. Links in it that lead out of it lead nowhere inside.
    target : str
        Where it is seen, a POSIX path below `/kaggle/input`, e.g. "competitions/digits".
    """

    source: Path
    target: str


@dataclass(frozen=True)
class SandboxOutcome:
    """How a script ended.

    Attributes
    ----------
    exit_code : int or None
        The script's own; 128 + n where signal n ended it, as in a shell; None where time was up.
    seconds : float
        Wall clock, with what the isolation took to start (below 0.2 s).
    peak_memory : int
        Bytes of main memory, a lower bound of the true peak (see Notes).
    timed_out : bool
        Whether the time limit ended it.
    isolation : str
        The one it ran in.

    Notes
    -----
    The peak of memory is the larger of two figures. One is sampled: the processes' proportional shares (PSS: what
    several of them share counts once; the resident sizes where there is no PSS) are summed about ten times a
    second, and the largest sum counts. The other is exact: the largest resident size that any single process
    reached, however briefly, as the kernel keeps it (`ru_maxrss` of `wait4`; of the script and of all that it or
    its children waited for; not on Windows, nor where time was up). So a peak of one process is never missed; one
    of several together may be, if it lasts less than a tenth of a second. Files in `/tmp` and `/dev/shm`, which
    are memory in namespaces, count while mapped; GPU memory does not.

    A cgroup's `memory.peak` is not asked: it counts the page cache as well, so that a script which reads 40 GB of
    images would seem to need them as memory.
    """

    exit_code: int | None
    seconds: float
    peak_memory: int
    timed_out: bool
    isolation: str


def available() -> list[str]:
    """Return the isolations that work here, best first; each is tried once in this process's life."""
    return [isolation for isolation in ISOLATIONS if _refusal(isolation) is None]


def need_able(python: Path | str, isolation: str | None) -> None:
    """Raise KitError where `run_isolated` could not begin: no such interpreter, no such isolation here."""
    _need_isolation(isolation)
    _interpreter(str(python))


def run_isolated(
    script: Path,
    working: Path,
    mounts: Sequence[Mount],
    python: Path | str = sys.executable,
    time_limit: float | None = None,
    isolation: str | None = None,
    environment: Mapping[str, str] = {},
    on_line: Callable[[str], None] = print,
) -> SandboxOutcome:
    """Run one Python file as a kernel, with `/kaggle/working` as the current folder.

    However this ends, also by an exception of `on_line` or by KeyboardInterrupt, nothing that the script
    started is left running.

    Parameters
    ----------
    script : Path
        Is copied, and is `/kaggle/src/script.py` inside.
    working : Path
        Is made, and has to be empty; what the script wrote is there afterwards.
    mounts : sequence of Mount
        What is below `/kaggle/input`.
    python : Path or str
        The interpreter, by default this one; its packages come with it.
    time_limit : float, optional
        Seconds, no limit by default; then all that the script started is killed.
    isolation : str, optional
        One of `available()`, by default the best.
    environment : mapping
        Variables on top of the few that are set.
    on_line : callable
        Takes each line of the output (stdout and stderr as one) without its end, as it comes; a carriage return
        ends a line too, as progress bars write it.

    Returns
    -------
    SandboxOutcome

    Raises
    ------
    KitError
        Where the isolation, an argument, or the sandbox itself is at fault.
    """
    isolation = _need_isolation(isolation)
    _need_mounts(mounts)
    _need_empty(working)
    interpreter = _interpreter(str(python))
    with tempfile.TemporaryDirectory(prefix="kit-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).resolve()
        try:
            copied = shutil.copyfile(script, scratch / "script.py")
        except OSError as error:
            raise KitError(f"{script} cannot be read ({error.strerror}); give the Python file to run") from None
        job = _Job(isolation, copied, working.resolve(), mounts, interpreter, environment, scratch)
        return _run(job, time_limit, on_line)


@dataclass(frozen=True)
class _Interpreter:
    executable: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """What is to run, checked, and a scratch folder for it alone; it holds the script and nothing else."""

    isolation: str
    script: Path
    working: Path
    mounts: Sequence[Mount]
    interpreter: _Interpreter
    environment: Mapping[str, str]
    scratch: Path


def _need_isolation(isolation: str | None) -> str:
    if isolation is None:
        return available()[0]
    if isolation not in ISOLATIONS:
        raise KitError(f"isolation {isolation!r} is not known; it is one of {', '.join(ISOLATIONS)}")
    if reason := _refusal(isolation):
        raise KitError(f"isolation {isolation!r} does not work here ({reason}); use {available()[0]!r}")
    return isolation


def _need_mounts(mounts: Sequence[Mount]) -> None:
    targets = [PurePosixPath(mount.target) for mount in mounts]
    for mount, target in zip(mounts, targets, strict=True):
        if target.is_absolute() or ".." in target.parts or not target.parts:
            raise KitError(f"mount target {mount.target!r} has to be a path below /kaggle/input, as a/b")
        if not mount.source.exists():
            raise KitError(
                f"{mount.source} is not there, but is to be /kaggle/input/{target}; make or download it"
            )
        if targets.count(target) > 1 or any(target in other.parents for other in targets):
            raise KitError(f"mount target {mount.target!r} is given twice, or holds another; keep them apart")


def _need_empty(working: Path) -> None:
    need_writable(working)
    if names := sorted(path.name for path in working.iterdir()):
        raise KitError(f"{working} has to be empty and holds {some(names, 3)}; remove that or give another folder")


@cache
def _interpreter(python: str) -> _Interpreter:
    """Ask the interpreter itself: it may be a link, a wrapper, or in a virtual environment."""
    code = "import sys; print(sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix, sep='\\n')"
    try:
        answer = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True)
        executable, *prefixes = answer.stdout.splitlines()[-4:]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise KitError(f"{python} does not run as a Python interpreter ({type(error).__name__})") from None
    folder, name = os.path.split(executable)  # which may hold "..", through folders that are not there inside
    return _Interpreter(os.path.join(os.path.realpath(folder), name), tuple(map(os.path.abspath, prefixes)))


TRIAL = """\
import os
assert os.listdir() == [] and os.listdir("/kaggle/input") == ["trial"], "the folders are not as they have to be"
try:
    open("/kaggle/input/trial/written", "w")
except OSError:
    open("written", "w").close()
else:
    raise SystemExit("what has to be read-only can be written")
"""


@cache
def _refusal(isolation: str) -> str | None:
    """Say why an isolation does not work here; None where it does. Any step may be refused, so all are tried."""
    if isolation == "redirect":
        return None
    if sys.platform != "linux":
        return "it needs Linux"
    if namespaces.program(isolation) is None:
        return "it is not installed"
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        scratch = Path(folder).resolve()
        for name in ("trial", "working", "scratch"):
            (scratch / name).mkdir()
        script = scratch / "scratch" / "script.py"
        script.write_text(TRIAL, encoding="utf-8")
        mounts, interpreter = [Mount(scratch / "trial", "trial")], _interpreter(sys.executable)
        job = _Job(isolation, script, scratch / "working", mounts, interpreter, {}, scratch / "scratch")
        try:
            outcome = _run(job, 30.0, lines.append)
        except KitError as error:
            return (lines or [str(error)])[-1]
    return None if outcome.exit_code == 0 else (lines or ["it does not answer"])[-1]


# The three isolations


def _run(job: _Job, time_limit: float | None, on_line: Callable[[str], None]) -> SandboxOutcome:
    if job.isolation == "redirect":
        return _run_redirected(job, time_limit, on_line)
    return _run_in_namespaces(job, time_limit, on_line)


def _run_in_namespaces(job: _Job, time_limit: float | None, on_line: Callable[[str], None]) -> SandboxOutcome:
    """Run in namespaces; where nothing is reported, the sandbox failed, not the script."""
    last_line = ""

    def remember(line: str) -> None:
        nonlocal last_line
        last_line = line.strip() or last_line
        on_line(line)

    variables = _environment(job, {"HOME": "/root", "TMPDIR": "/tmp"}, SYSTEM_PATH)
    reading, writing = os.pipe()
    with os.fdopen(reading) as status:
        try:
            command = _namespaces_command(job, writing)
            process = _start(command, env=variables, pass_fds=(writing,))
        finally:
            os.close(writing)
        end = follow(process, Processes(process), time_limit, remember)
        report = "" if end.timed_out else status.read()
    if not report and not end.timed_out:
        raise KitError(f"the sandbox ({job.isolation}) failed: {last_line or 'it was killed'}")
    return _outcome(job, end, report)


def _outcome(job: _Job, end: ProcessEnd, report: str) -> SandboxOutcome:
    """Put together what was measured and what `namespaces.reporting` reported; "" where time was up."""
    if not report:
        return SandboxOutcome(None, end.seconds, end.peak_memory, end.timed_out, job.isolation)
    exit_code, largest = map(int, report.split())
    return SandboxOutcome(
        _as_in_a_shell(exit_code), end.seconds, max(end.peak_memory, largest), False, job.isolation
    )


def _namespaces_command(job: _Job, status: int) -> list[str]:
    """Return the command.

    This project and the home folder are left out inside, where they are part of the system's folders.
    """
    executable = job.interpreter.executable
    steps = namespaces.layout(
        executable,
        job.interpreter.prefixes,
        str(job.script),
        str(job.working),
        {str(PurePosixPath(mount.target)): str(mount.source.resolve()) for mount in job.mounts},
        hidden=[str(Path(__file__).resolve().parents[3]), *_home()],
    )
    if job.isolation == "bubblewrap":
        return namespaces.bubblewrap(steps, executable, status)
    root = job.scratch / "root"
    root.mkdir()
    return namespaces.unshare(steps, executable, status, str(root))


def _home() -> list[str]:
    """The home folder, of whoever has one: in a container a user need not."""
    try:
        return [str(Path.home().resolve())]
    except RuntimeError:
        return []


def _run_redirected(job: _Job, time_limit: float | None, on_line: Callable[[str], None]) -> SandboxOutcome:
    """Run with the folders told by variables. On POSIX a small process starts the script and reports its end."""
    for name in ("input", "home", "tmp", "path"):
        (job.scratch / name).mkdir()
    for mount in job.mounts:
        _link(mount.source.resolve(), job.scratch / "input" / mount.target)
    shutil.copyfile(offline.__file__, job.scratch / "path" / "sitecustomize.py")
    variables = _redirected_environment(job)
    mark = ("KIT_INPUT", variables["KIT_INPUT"])
    executable, script = job.interpreter.executable, str(job.script)
    if os.name != "posix":
        process = _start([executable, "-u", script], env=variables, cwd=job.working)
        end = follow(process, Processes(process, mark), time_limit, on_line)
        return _outcome(job, end, "" if end.timed_out else f"{process.returncode} 0")
    reading, writing = os.pipe()
    with os.fdopen(reading) as status:
        try:
            command = namespaces.reporting(executable, writing, script)
            process = _start(command, env=variables, cwd=job.working, pass_fds=(writing,))
        finally:
            os.close(writing)
        end = follow(process, Processes(process, mark), time_limit, on_line)
        report = "" if end.timed_out else status.read()
    return _outcome(job, end, report if report or end.timed_out else f"{process.returncode} 0")


def _redirected_environment(job: _Job) -> dict[str, str]:
    home, temporary, path = (str(job.scratch / name) for name in ("home", "tmp", "path"))
    folders = {"HOME": home, "USERPROFILE": home, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)}
    variables = _environment(job, folders, os.environ.get("PATH", os.defpath))
    return variables | {
        "KIT_INPUT": str(job.scratch / "input"),
        "KIT_WORKING": str(job.working),
        "PYTHONPATH": os.pathsep.join(filter(None, [path, variables.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",
    }


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:  # Windows wants a privilege for links
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _environment(job: _Job, folders: Mapping[str, str], path: str) -> dict[str, str]:
    """Return the few variables a kernel needs: nothing of yours but what says how to use the hardware."""
    return {
        "PATH": os.pathsep.join([os.path.dirname(job.interpreter.executable), path]),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "HF_HUB_OFFLINE": "1",
        **folders,
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **job.environment,
    }


def _start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command in a session of its own: Ctrl-C reaches only this process, which then ends the other."""
    flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            creationflags=flags,
            **options,
        )
    except OSError as error:
        raise KitError(f"{command[0]} cannot be started ({error.strerror})") from None


def _as_in_a_shell(code: int) -> int:
    return code if code >= 0 else 128 - code
