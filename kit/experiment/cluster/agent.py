"""What a worker of Ray does with a task of the kit: unpack what it needs, and let a fresh process carry it out.

Nodes get it by value, as they may have another kit, or none: it needs the standard library and Ray alone. The kit
that was sent runs in a server of this worker's (`kit.experiment.cluster.server`).
"""

import base64
import bz2
import concurrent.futures
import contextlib
import hashlib
import io
import json
import math
import os
import platform
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

REPORT_SECONDS = 1.0
ANSWER_SECONDS = 10.0  # for an answer of the board
BEGIN_SECONDS = 60.0  # in which it is asked again whether a task may begin
USED_SECONDS = 600.0  # between two marks on what a task uses
KEPT_SECONDS = 14 * 86400.0  # what was unpacked and is not used so long is removed
LONGEST = 10_000  # characters of a line
_state: dict[str, Any] = {"server": None, "parcels": {}}  # of this worker


@dataclass(frozen=True)
class Parcel:
    """Files that travel to nodes by content, once a node.

    Attributes
    ----------
    digest : str
        SHA-256 of the archive.
    content : ray.ObjectRef
        The archive.
    """

    digest: str
    content: Any


@dataclass(frozen=True)
class Driver:
    """Where the command runs: a node on the same machine shares its caches.

    Attributes
    ----------
    machine : str
        As `machine()` returns it there.
    cache, folder : str
        Its cache, and where it was called.
    output : str
        Where it writes; "" where that does not matter.
    probe, secret : str
        A file there and its content: who reads it shares the folder.
    """

    machine: str
    cache: str
    folder: str
    output: str = ""
    probe: str = ""
    secret: str = ""


@dataclass(frozen=True)
class Call:
    """A task that is to be carried out.

    Attributes
    ----------
    number : int
        The driver's.
    task : str
        MODULE:FUNCTION of the kit.
    item : bytes
        What it is called with, as a pickle.
    bundle, parcel : Parcel
        The kit, and the files that the task needs.
    driver : Driver
    shared : bool or None
        Whether nodes write into the driver's folder; None where that is being found out.
    data_root : str or None
    threads, processes : int
    again : bool
    """

    number: int
    task: str
    item: bytes
    bundle: Parcel
    parcel: Parcel
    driver: Driver
    shared: bool | None
    data_root: str | None
    threads: int
    processes: int
    again: bool


@dataclass(frozen=True)
class Answer:
    """What became of a task.

    Attributes
    ----------
    how : str
        "made", "raised": `content` is a pickle of the kit's; "gone": the process ended before its time; "failed":
        this node could not begin it; "unbegun": it was not to begin any more; "unheard": nobody said whether
        it was to.
    content : bytes
        For "gone" the exit code, for "failed" why, as text.
    sees : bool
        Whether this node sees the driver's folder.
    host : str
    """

    how: str
    content: bytes
    sees: bool
    host: str


def machine() -> str:
    """Return what is the same for processes of one machine that see each other, and differs elsewhere."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.readlink('/proc/self/ns/mnt')}"
    except OSError:  # no Linux
        return platform.node()


def carry_out(call: Call, board: Any) -> Answer:
    """Carry out a task in a fresh process; a Ray task that runs once in a worker at a time."""
    host, sees = platform.node(), False
    try:
        wishes = _permission(board, call.number, host)
        if wishes is None or wishes["closed"]:
            return Answer("unheard" if wishes is None else "unbegun", b"", sees, host)
        cache = _cache(call.driver)
        sees = _sees(call.driver) if call.shared is None else call.shared
        output = call.driver.output if sees else str(cache / "outputs" / call.parcel.digest[:16])
        bundle, parcel = (_unpacked(each, cache) for each in (call.bundle, call.parcel))
        server = _server(bundle, call)
        with _folder(cache / "calls") as folder:
            (folder / "item").write_bytes(call.item)
            site = {
                "parcel": str(parcel),
                "output": output,
                "shared": sees,
                "cache": call.driver.cache if call.driver.machine == machine() else str(cache),
                "data_root": call.data_root,
                "threads": call.threads,
                "again": call.again,
                "ahead": wishes["ahead"],
            }
            errand = {"task": call.task, "folder": str(folder), "site": site, "processes": call.processes}
            server.begin({**errand, "visible": _gpus()})
            used = [bundle, parcel, folder, *([] if sees else [Path(output)])]
            how, content = _follow(server, call.number, board, wishes, used)
            return Answer(how, (folder / "made").read_bytes() if how == "made" else content, sees, host)
    except OSError as error:
        return Answer("failed", str(error).encode(), sees, host)


def _cache(driver: Driver) -> Path:
    """Return where this node keeps what was sent."""
    if driver.machine == machine():
        return Path(driver.cache) / "cluster"
    return Path(os.environ.get("KIT_CACHE") or Path.home() / ".cache" / "kit")


def _sees(driver: Driver) -> bool:
    """Whether this node reads the driver's probe file; a network's folder may show it a moment later."""
    for _ in range(4 if driver.probe and os.path.isdir(driver.output) else 0):
        with contextlib.suppress(OSError):
            os.listdir(driver.output)
            return Path(driver.probe).read_text(encoding="ascii") == driver.secret
        time.sleep(0.3)
    return False


def _gpus() -> str:
    """Return the GPUs that Ray gave to this task, as CUDA_VISIBLE_DEVICES names them; "" where it gave none."""
    return ",".join(map(str, ray.get_runtime_context().get_accelerator_ids().get("GPU", [])))


def _unpacked(parcel: Parcel, cache: Path) -> Path:
    """Return the folder of a parcel's files on this node; it appears whole, whoever unpacks it first."""
    known: dict[str, Path] = _state["parcels"]
    folder = cache / "parcels" / parcel.digest
    if known.get(parcel.digest) == folder and folder.is_dir():
        return folder
    archive = _get(parcel.content)
    if hashlib.sha256(archive).hexdigest() != parcel.digest:
        raise OSError(f"the files that were sent ({parcel.digest[:12]}) did not arrive as they were")
    _tidy(cache)
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(archive))) as tar:
        files = {each.name: tar.extractfile(each).read() for each in tar.getmembers()}  # type: ignore[union-attr]
    if not _is_whole(folder, files):
        _write(folder, files)
    os.utime(folder)
    known[parcel.digest] = folder
    return folder


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        draft.chmod(0o755)
        with contextlib.suppress(OSError):  # damaged; or another one's that was first
            if folder.exists() and not _is_whole(folder, files):
                os.replace(folder, Path(tempfile.mkdtemp(prefix=".", dir=folder.parent)) / "former")
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if not _is_whole(folder, files):
        raise OSError(f"{folder} cannot be written as it was sent")


def _is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    """Whether a folder holds the files as they were sent."""
    try:
        return folder.is_dir() and all((folder / name).read_bytes() == files[name] for name in files)
    except OSError:
        return False


def _tidy(cache: Path) -> None:
    """Remove what no command has used for long: other versions of the kit, what killed workers left."""
    before = time.time() - KEPT_SECONDS
    for kind in ("parcels", "calls", "outputs"):
        for folder in (cache / kind).iterdir() if (cache / kind).is_dir() else ():
            if not _changed_since(folder, before):
                shutil.rmtree(folder, ignore_errors=True)


def _changed_since(folder: Path, before: float) -> bool:
    """Whether a folder or something below it is newer; so it is where that cannot be seen."""
    try:
        return any(
            path.lstat().st_mtime > before
            for where, folders, files in os.walk(folder)
            for path in (Path(where), *(Path(where, name) for name in (*folders, *files)))
        )
    except OSError:
        return True


def _mark_used(folders: list[Path]) -> None:
    """Keep folders from being removed as long unused, on a node whose tasks take weeks."""
    for folder in folders:
        with contextlib.suppress(OSError):
            os.utime(folder)


@contextlib.contextmanager
def _folder(parent: Path) -> Any:
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _permission(board: Any, number: int, host: str) -> dict[str, Any] | None:
    """Ask whether a task may begin: `closed` where not, and how far the driver's clock is `ahead` of this node's.

    None where nobody answers for a while, or the board has begun anew and was told nothing since.
    """
    node, until = ray.get_runtime_context().get_node_id(), time.monotonic() + BEGIN_SECONDS
    while not (wishes := _ask(board.begin.remote(number, node, host))):
        if time.monotonic() > until:
            return None
        time.sleep(0.2)
    return wishes | {"ahead": wishes["now"] - time.monotonic()}


def _ask(reference: Any) -> dict[str, Any]:
    """Return what the board answers; nothing where it is not there for the moment."""
    try:
        answer: dict[str, Any] = _get(reference, ANSWER_SECONDS)
        return answer
    except (ray.exceptions.RayError, TimeoutError, concurrent.futures.TimeoutError):
        return {}


def _get(reference: Any, seconds: float | None = None) -> Any:
    """Return an object of Ray's. With `ray.get` this task's cores would be given to another one meanwhile."""
    return reference.future().result(seconds)


class _Server:
    """The process from which this worker's tasks are forked: it has the kit's libraries imported."""

    def __init__(self, bundle: Path, call: Call):
        read, write = os.pipe()
        os.set_blocking(read, False)
        threads = str(call.threads)
        stated = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        stated |= {"PYTHONPATH": str(bundle), "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        folder = call.driver.folder
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kit.experiment.cluster.server", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(write,),
            env=os.environ | stated,
            cwd=folder if call.driver.machine == machine() and os.path.isdir(folder) else str(bundle),
        )
        os.close(write)
        assert self.process.stdout is not None
        self.events, self.output = read, self.process.stdout.fileno()
        os.set_blocking(self.output, False)
        self._rest = {self.events: b"", self.output: b""}

    def begin(self, errand: dict[str, Any]) -> None:
        self.tell(json.dumps(errand))

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def lines(self, which: int) -> list[bytes] | None:
        """Return the whole lines that have come; None where none has, and no more will come."""
        over = False
        while not over:
            try:
                part = os.read(which, 1 << 20)
            except BlockingIOError:
                break
            self._rest[which] += part
            over = not part
        *whole, self._rest[which] = self._rest[which].split(b"\n")
        if which == self.output and (len(self._rest[which]) > LONGEST or (over and self._rest[which])):
            whole.append(self._rest[which])
            self._rest[which] = b""
        return None if over and not whole else whole

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.events)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def _server(bundle: Path, call: Call) -> _Server:
    """Return this worker's server: the one that is there, where it runs this kit with as many threads."""
    key = (str(bundle), call.threads)
    known = _state["server"]
    if known and (known[0] != key or known[1].process.poll() is not None):
        known[1].close()
        known = None
    if known is None:
        known = _state["server"] = (key, _Server(bundle, call))
    server: _Server = known[1]
    return server


def _follow(
    server: _Server, number: int, board: Any, before: dict[str, Any], used: list[Path]
) -> tuple[str, bytes]:
    """Pass on what the process says and what it is asked for, until it has ended; mark the folders `used`."""
    lines: list[str] = []
    progress: dict[str, Any] | None = None
    raised, ended = b"", None
    told, saves, reported, marked = 0, before["saves"], time.monotonic(), -math.inf
    while ended is None:
        try:
            select.select([server.events, server.output], [], [], 0.2)
            for text in server.lines(server.output) or ():
                lines.append(text.decode(errors="replace")[:LONGEST].rstrip("\r"))
            events = server.lines(server.events)
            for event in map(json.loads, events or ()):
                lines += [event["say"]] if "say" in event else []
                progress = event.get("progress", progress)
                raised = raised or base64.b64decode(event.get("raised", ""))
                ended = event.get("ended", ended)
            if ended is None and (events is None or server.process.poll() is not None):
                ended = {"code": server.process.wait()}
            if time.monotonic() - marked >= USED_SECONDS:
                marked = time.monotonic()
                _mark_used(used)
            if time.monotonic() - reported >= REPORT_SECONDS and ended is None:
                reported = time.monotonic()
                wishes = _ask(board.report.remote(number, lines, progress))
                lines, progress = [], None
                if wishes.get("stop", 0) and not told:
                    told = 1
                    server.tell("stop")
                if wishes.get("saves", 0) > saves:
                    saves = wishes["saves"]
                    server.tell("save")
        except KeyboardInterrupt:  # how Ray cancels what it takes for begun
            server.tell("stop")
    lines += [text.decode(errors="replace")[:LONGEST] for text in server.lines(server.output) or ()]
    board.end.remote(number, lines)
    if raised and not ended.get("killed"):  # else the others only missed the one that was killed
        return "raised", raised
    return ("made", b"") if ended["code"] == 0 else ("gone", str(ended["code"]).encode())
