"""What a probe found out about real sessions on Kaggle, kept in kernels/facts.json, and what follows from it.

Without a probe the figures are those that others report; whoever uses one says which of the two it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kit.core.errors import some
from kit.core.files import read_record, write_text
from kit.core.paths import mount_points
from kit.kaggle.image import KaggleImage

FACTS = Path("kernels/facts.json")  # below the folder that the command is told, or runs in
REPORT = "probe.json"  # the output of a probe that holds what it found out
PROBE = "python -m kit kernel probe"
REMEDY = f"remove it, and probe again: {PROBE}"
FRESH = 30  # days
MEMORY_GB = 30  # of a session, as others report
WORKING_GB = 20  # Kaggle's limit of /kaggle/working

Form = Literal["nested", "flat"]
Bytes = Annotated[int, Field(gt=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a later template may report more


class Started(_Record):
    """How Kaggle runs a script: by which command, as whom, in which folder.

    Attributes
    ----------
    executable : str
        The interpreter.
    command : list of str
        The whole command line.
    folder : str
        The current folder.
    script_folder_writable, notebook : bool
        Whether files may be written beside the script; whether it runs in a notebook's process.
    user : int
        Its number.
    start_method : str
        How multiprocessing starts processes unless told.
    """

    executable: str
    command: list[str]
    folder: str
    script_folder_writable: bool
    notebook: bool
    user: int
    start_method: str


class Cores(_Record):
    """The machine's cores, those that the session may use, and how many of them at a time (None: no limit)."""

    count: Annotated[int, Field(gt=0)]
    usable: Annotated[int, Field(gt=0)]
    quota: Annotated[float, Field(gt=0)] | None


class Disk(_Record):
    """Bytes of a file system."""

    total: Annotated[int, Field(ge=0)]
    free: Annotated[int, Field(ge=0)]


class Gpu(_Record):
    """A GPU: its name, bytes of memory, and compute capability, like "7.5"."""

    name: str
    memory: Bytes
    compute: str


class SessionFacts(_Record):
    """What a session on Kaggle reported of itself; None where it could not find out.

    Attributes
    ----------
    when : datetime
        In UTC.
    seconds : float
        How long it looked.
    python : str
        The interpreter's version.
    packages : dict
        Name of a package → version, of those that the kit asks for.
    system : str
        The operating system and its C library.
    started : Started
        How the script was run.
    environment : list of str
        Names of environment variables; no values.
    cores : Cores
        Of the machine, and what of them may be used.
    memory : int
        Bytes of main memory that the session may use.
    disks : dict
        / , /tmp, /dev/shm, /kaggle/working → their sizes.
    gpus : list of Gpu
        As torch sees them.
    driver : str
        Of the GPUs; "" without.
    tree : list of str
        What is below /kaggle/input to a bounded depth; folders end in "/".
    spawn, loader : str
        "works", or what was said instead: of processes that are spawned, and of a data loader with four workers.
    network : dict
        Host → "reached", or what was said instead.
    wrote : dict
        Files that it left, by name → SHA-256.
    """

    when: datetime
    seconds: float
    python: Annotated[str, Field(pattern=r"^3\.\d+")]
    packages: dict[str, str]
    system: str
    started: Started | None
    environment: list[str]
    cores: Cores | None
    memory: Bytes | None
    disks: dict[str, Disk] | None
    gpus: list[Gpu] | None
    driver: str | None
    tree: list[str] | None
    spawn: str | None
    loader: str | None
    network: dict[str, str] | None
    wrote: dict[str, str]


class EndFacts(_Record):
    """How a session ended that was made to end badly.

    Attributes
    ----------
    when : datetime
        When that was seen, in UTC.
    kernel : str
        The version that ran.
    status, failure : str
        Kaggle's status, and its words.
    files : list of str
        The outputs that are to be had.
    log_end : list of str
        The last lines of its log.
    """

    when: datetime
    kernel: str
    status: str
    failure: str
    files: list[str]
    log_end: list[str]


class Probed(_Record):
    """All that probes found out so far; None where none looked.

    Attributes
    ----------
    cpu, gpu : SessionFacts
        The last session of either kind.
    exit : EndFacts
        Of a kernel that ended with exit code 3.
    limit : EndFacts
        Of one that did not end within its limit of a minute.
    form : str
        Of the mounts: nested (/kaggle/input/competitions/<slug>) or flat (/kaggle/input/<slug>).
    came : dict
        Name of a file that the last session left → whole, damaged or missing, when it was fetched.
    """

    cpu: SessionFacts | None = None
    gpu: SessionFacts | None = None
    exit: EndFacts | None = None
    limit: EndFacts | None = None
    form: Form | None = None
    came: dict[str, Literal["whole", "damaged", "missing"]] = {}


def _with_python(image: dict[str, str]) -> dict[str, str]:
    if not image.get("python"):
        raise ValueError("python is missing")
    return image


class Facts(_Record):
    """What is known of real sessions.

    Attributes
    ----------
    when : datetime
        When the last session looked, in UTC.
    image : dict
        `python`, always, and name of a package → version, in that session.
    facts : Probed
        What it and those before it found.
    """

    when: datetime
    image: Annotated[dict[str, str], AfterValidator(_with_python)]
    facts: Probed

    @property
    def source(self) -> str:
        """Where the figures are from, in words."""
        return _source(self.when)

    def age(self, today: date | None = None) -> int:
        """Return how many days ago the older of the sessions looked of which facts are kept.

        `today` is that of UTC unless given.
        """
        looked = [session.when for session in (self.facts.cpu, self.facts.gpu) if session]
        return ((today or datetime.now(UTC).date()) - min(looked, default=self.when).date()).days

    def remark(self, today: date | None = None) -> str:
        """Return a sentence where the facts are older than 30 days; else ""."""
        if (age := self.age(today)) <= FRESH:
            return ""
        return f"what is known of Kaggle's sessions ({FACTS}) is {age} days old; {PROBE} looks again"

    def session(self, gpu: bool) -> SessionFacts | None:
        """Return what the last session with GPUs, or without, reported; None where none of the kind was probed."""
        return self.facts.gpu if gpu else self.facts.cpu


def read_facts(root: str | Path = ".") -> Facts | None:
    """Read kernels/facts.json below a folder; None where no probe ran. Raises Damaged for what is none."""
    path = Path(root).expanduser() / FACTS
    return read_record(path, Facts, REMEDY) if path.is_file() else None


def write_facts(root: str | Path, facts: Facts) -> Path:
    """Write kernels/facts.json below a folder, and return its path."""
    path = Path(root).expanduser() / FACTS
    write_text(path, facts.model_dump_json(indent=1) + "\n")
    return path


def _source(when: datetime) -> str:
    return f"probe of {when:%Y-%m-%d}"


@dataclass(frozen=True)
class SessionLimits:
    """What a session has, as far as a kernel could meet it.

    Attributes
    ----------
    memory_gb, working_gb : float
        Of main memory, and of /kaggle/working; 1 GB is 1e9 bytes.
    memory_source, working_source : str
        Where the figures are from: "probe of 2026-11-29", or "reported".
    """

    memory_gb: float = MEMORY_GB
    working_gb: float = WORKING_GB
    memory_source: str = "reported"
    working_source: str = "reported"


def session_limits(facts: Facts | None, gpu: bool) -> SessionLimits:
    """Return the limits of a session with GPUs or without: as probed, else as others report.

    Of /kaggle/working the smaller figure counts: a file system may be larger than what Kaggle keeps of it.
    """
    session = facts.session(gpu) if facts else None
    if session is None:
        return SessionLimits()
    limits, source = SessionLimits(), _source(session.when)
    if session.memory:
        limits = replace(limits, memory_gb=round(session.memory / 1e9, 1), memory_source=source)
    disk = (session.disks or {}).get("/kaggle/working")
    if disk and disk.total / 1e9 < WORKING_GB:
        limits = replace(limits, working_gb=round(disk.total / 1e9, 1), working_source=source)
    return limits


def mount_form(tree: Sequence[str] | None, references: Sequence[str]) -> Form | None:
    """Say in which form what was attached is mounted; None where nothing was, or it is at neither place.

    Parameters
    ----------
    tree : sequence of str
        Paths below /kaggle/input; folders end in "/".
    references : sequence of str
        What was attached, as `mount_points` takes it.
    """
    there = {path.rstrip("/").lower() for path in tree or ()}
    for reference in references:
        *nested, flat = (point.lower() for point in mount_points(reference))
        if there & set(nested):
            return "nested"
        if flat in there:
            return "flat"
    return None


def session_python(facts: Facts) -> str:
    """Return the Python of the last session that was probed, like "3.12"."""
    return ".".join(facts.image["python"].split(".")[:2])


def python_remark(facts: Facts, wanted: Sequence[str]) -> str:
    """Say that wheels for these Pythons, like "3.12", do not fit the session that was probed; "" where they do."""
    if (python := session_python(facts)) in wanted:
        return ""
    return f"these wheels are for Python {' and '.join(wanted)}, but the {facts.source} found Python {python}"


def image_differences(found: Mapping[str, str], image: KaggleImage) -> list[str]:
    """Say where a session's Python and packages are not those of the table of the image, a clause each."""
    python = ".".join(found["python"].split(".")[:2])
    told = [f"Python {python} instead of {image.python}"] if python != image.python else []
    for name, version in image.versions.items():
        if version and name in found and found[name].partition("+")[0] != version:
            told.append(f"{name} {found[name]} instead of {version}")
    return told


def why_missing(facts: Facts | None, names: Sequence[str], today: date | None = None) -> str:
    """Say where a probe saw files not come back, for a message about others that did not; "" where all came."""
    lost = [name for name, how in facts.facts.came.items() if how != "whole"] if facts else []
    if not facts or not lost or not names:
        return ""
    told = f"the {facts.source} left {some(map(repr, lost))}, which did not come back either"
    return f" ({'; '.join(filter(None, [told, facts.remark(today)]))})"
