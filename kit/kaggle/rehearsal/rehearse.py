"""In a rehearsal the built kernel runs here as it would on Kaggle, and is judged by what Kaggle looks at."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kit.competition.config import CompetitionConfig
from kit.competition.load import expected_submission, load_test
from kit.competition.tables import read_submission
from kit.core.errors import KitError, some
from kit.core.paths import mount_points
from kit.core.runs import ExperimentDir, RunDir
from kit.kaggle.datasets import read_ref
from kit.kaggle.facts import REPORT, Form, SessionLimits, read_facts, session_limits
from kit.kaggle.kernel.folder import BUILT, KernelFolder, built_beside
from kit.kaggle.kernel.outputs import LISTED, OutputList
from kit.kaggle.rehearsal.hidden_test import SIZES, write_variant
from kit.kaggle.rehearsal.sandbox import Mount, SandboxOutcome, need_able, run_isolated

CODE_MB = 1  # the often quoted limit of a code file


@dataclass(frozen=True)
class Check:
    """One thing Kaggle looks at.

    Attributes
    ----------
    name : str
        What it is.
    passed : bool
        Whether Kaggle would take it.
    found : str
        What was found.
    """

    name: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok' if self.passed else 'FAILED':7}{self.name}: {self.found}"


@dataclass(frozen=True)
class RehearsalVerdict:
    """What a rehearsal found.

    Attributes
    ----------
    checks : list of Check
        In the order of Kaggle's own.
    working : Path
        The folder that was /kaggle/working.
    isolation : str
        How the kernel was kept apart.
    outcome : SandboxOutcome
        How the kernel ended.
    """

    checks: list[Check]
    working: Path
    isolation: str
    outcome: SandboxOutcome

    @property
    def passed(self) -> bool:
        """Whether all checks have passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class RehearsalOptions:
    """How a kernel is rehearsed.

    Attributes
    ----------
    test_rows : str, optional
        `0`, `1`, `3` or `x5`: another test set than the one at hand, as in Kaggle's rerun.
    time_limit : float, optional
        Seconds, also for the kernel itself to keep to; left out: the config's kernel.hours, for an infer kernel
        kernel.infer_hours.
    form : str, optional
        Of the mounts: `nested` (/kaggle/input/competitions/<slug>) or `flat` (/kaggle/input/<slug>); left out: as
        the last probe found them, else nested.
    sources : mapping
        Folders that stand for sources, by their owner/slug. Without: for a kernel what was fetched of it, or its
        own rehearsal; for a dataset kernels/datasets/<slug>; for the competition its folder.
    python : str or Path
        The interpreter, e.g. of an environment with the image's versions.
    isolation : str, optional
        bubblewrap, unshare or redirect; left out: the best that works here.
    overrides : sequence of str
        Changes of the config for this rehearsal, like training.epochs=1: the same file, sooner done.
    """

    test_rows: str | None = None
    time_limit: float | None = None
    form: Form | None = None
    sources: Mapping[str, str | Path] = field(default_factory=dict)
    python: str | Path = sys.executable
    isolation: str | None = None
    overrides: Sequence[str] = ()


def rehearse(
    path: str | Path, options: RehearsalOptions | None = None, say: Callable[[str], None] = print
) -> RehearsalVerdict:
    """Run the kernel built in a folder, with its sources mounted as Kaggle does, and judge the outcome.

    The verdict is kept in rehearsal.json, the outputs in rehearsal/; those of the last rehearsal are there until
    this one begins. Raises KitError where an option is wrong, or nothing stands for a source.

    Parameters
    ----------
    path : str or Path
        The folder of the built kernel.
    options : RehearsalOptions, optional
        Left out: all as by default.
    say : callable
        Takes each line of what is told, the kernel's own output among it.
    """
    options = options or RehearsalOptions()
    folder = KernelFolder.at(path)
    limit = 3600 * folder.record.hours if options.time_limit is None else options.time_limit
    if not limit > 0:  # not a number, too
        raise KitError(f"--time-limit {limit:g}: expected seconds, more than 0")
    digest, code = folder.digest, folder.source
    need_able(options.python, options.isolation)
    limits, form = _known(folder, options.form, say)
    competition, stand_ins = _resolved(folder, options.sources, options.test_rows)
    stage = folder.path / "rehearsal"
    shutil.rmtree(stage, ignore_errors=True)
    folder.forget_rehearsal()
    working = stage / "working"
    working.mkdir(parents=True)
    if options.test_rows and competition:
        variant = write_variant(competition, stage / "competition", options.test_rows)
        competition = competition.model_copy(update={"path": str(variant.resolve())})
        assert competition.slug is not None  # else `_competition` has refused test_rows
        stand_ins[competition.slug] = variant
    mounts = _mounts(folder, stand_ins, form)
    for mount in mounts:
        say(f"/kaggle/input/{mount.target} is {mount.source}")
    outcome = _run(code, working, mounts, limit, options, say)
    checks = [
        *_run_checks(outcome, limit, limits, working / LISTED),
        *_output_checks(folder, working, competition),
        _size(working, folder, limits),
    ]
    verdict = RehearsalVerdict(checks, working, outcome.isolation, outcome)
    folder.write_rehearsal(_record(digest, verdict, options))
    return verdict


def _known(folder: KernelFolder, form: Form | None, say: Callable[[str], None]) -> tuple[SessionLimits, Form]:
    """Return a session's limits and the form of mounts; say what of it a probe found, and how old that is."""
    facts = read_facts(_root(folder))
    probed = facts.facts.form if facts else None
    if facts and probed and not form and any(_wanted(folder.metadata)):
        say(f"mounts are {probed}, by the {facts.source}")
    if facts and (remark := facts.remark()):
        say(remark)
    return session_limits(facts, folder.metadata["enable_gpu"]), form or probed or "nested"


def _root(folder: KernelFolder) -> Path:
    """Return the folder that holds kernels/build/, where this is one of those."""
    home = folder.path.resolve()
    return home.parents[2] if home.parent.name == BUILT.name else Path()


def _run(
    code: str,
    working: Path,
    mounts: Sequence[Mount],
    limit: float,
    options: RehearsalOptions,
    say: Callable[[str], None],
) -> SandboxOutcome:
    """Run the kernel's code as Kaggle would."""
    environment = {"KIT_SET": json.dumps(list(options.overrides)), "KIT_SECONDS": str(limit)}
    if options.test_rows:
        environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    with tempfile.TemporaryDirectory(prefix="kit-") as draft:
        script = Path(draft) / "script.py"
        script.write_text(code, encoding="utf-8")
        return run_isolated(
            script,
            working,
            mounts,
            python=options.python,
            time_limit=limit,
            isolation=options.isolation,
            environment=environment,
            on_line=say,
        )


def _resolved(
    folder: KernelFolder, sources: Mapping[str, str | Path], test_rows: str | None
) -> tuple[CompetitionConfig | None, dict[str, Path]]:
    """Return the competition at hand (None for a probe), and the folder that stands for each attached source.

    Raises KitError for all that there is to refuse: the last rehearsal is still there.
    """
    wanted, given = _wanted(folder.metadata), _given(folder, sources)
    competition = _competition(folder, given, test_rows)
    if competition and competition.slug:
        given[competition.slug] = Path(competition.path)
    for extra in (competition.extra if competition else None) or ():
        if extra.slug in wanted and extra.path:
            given.setdefault(extra.slug, Path(extra.path).expanduser())
    found = {reference: given.get(reference) or _usual(folder, reference) for reference in wanted}
    stand_ins = {reference: path for reference, path in found.items() if path and path.is_dir()}
    if missing := [reference for reference in wanted if reference not in stand_ins]:
        raise KitError(
            f"nothing on this machine stands for {some(missing)}; say what does: --source {missing[0]}=FOLDER"
        )
    return competition, stand_ins


def _wanted(metadata: dict[str, Any]) -> list[str]:
    """Return the sources that the kernel attaches."""
    kinds = ("competition_sources", "dataset_sources", "kernel_sources", "model_sources")
    return [reference for kind in kinds for reference in metadata[kind]]


def _given(folder: KernelFolder, sources: Mapping[str, str | Path]) -> dict[str, Path]:
    """Return the folders that stand for sources of the kernel, as the user says."""
    given, wanted = {ref: Path(path).expanduser() for ref, path in sources.items()}, _wanted(folder.metadata)
    for reference, path in given.items():
        if reference not in wanted:
            attached = f"has {some(wanted)}" if wanted else "has none"
            raise KitError(f"--source {reference}={path}: is no source of {folder.path}, which {attached}")
        if not path.is_dir():
            raise KitError(f"--source {reference}={path}: {path} is no folder")
    return given


def _competition(
    folder: KernelFolder, given: Mapping[str, Path], test_rows: str | None
) -> CompetitionConfig | None:
    """Return the competition where it lies here; KitError where the wanted test set cannot be made of it.

    None for a probe, which is of none.
    """
    if folder.record.kind == "probe":
        if test_rows:
            raise KitError("--test-rows: a probe predicts nothing; leave it out")
        return None
    config = CompetitionConfig(**folder.record.competition)
    if config.slug is None:
        if test_rows:
            raise KitError("--test-rows: the kernel writes its own, embedded competition; set competition.slug")
        return config
    found = given.get(config.slug, Path(config.path).expanduser())
    if not found.is_dir():
        raise KitError(
            f"{found}, the competition's folder when the kernel was built, is not there; say what stands for it: "
            f"--source {config.slug}=FOLDER"
        )
    config = config.model_copy(update={"path": str(found.resolve())})
    if test_rows:
        if test_rows not in SIZES:
            raise KitError(f"--test-rows {test_rows}: expected one of {', '.join(SIZES)}")
        load_test(config)
    return config


def _usual(folder: KernelFolder, reference: str) -> Path | None:
    """Say where a dataset, a model or the outputs of a kernel are unless the user says otherwise.

    None for a competition.
    """
    metadata, home = folder.metadata, folder.path.resolve()
    if reference in metadata["kernel_sources"]:
        return _outputs_of(reference, KernelFolder(home))
    if reference in metadata["competition_sources"]:
        return None
    if folder.code_dataset.is_dir() and reference == read_ref(folder.code_dataset):
        return folder.code_dataset
    return (
        _root(folder) / "kernels/datasets" / reference.split("/")[1]
    )  # where `kernel weights` and `wheels` put them


def _outputs_of(reference: str, beside: KernelFolder) -> Path | None:
    """Return the folder of what was fetched of a kernel; before it ran on Kaggle, of what its rehearsal gave."""
    owner, slug = reference.split("/")[:2]
    for folder in built_beside(beside):
        pushed = folder.push  # Kaggle may have given it another slug than ours
        if pushed.get("slug", folder.record.slug) == slug and pushed.get("owner", owner) == owner:
            return folder.output if folder.output.is_dir() else folder.path / "rehearsal/working"
    return None


def _mounts(folder: KernelFolder, stand_ins: Mapping[str, Path], form: Form) -> list[Mount]:
    kernels = folder.metadata["kernel_sources"]
    return [Mount(path.resolve(), _mount_point(ref, kernels, form)) for ref, path in stand_ins.items()]


def _mount_point(reference: str, kernels: Sequence[str], form: Form) -> str:
    points = mount_points(reference)
    if form == "flat":
        return points[-1]
    return points[1] if reference in kernels else points[0]


def _run_checks(outcome: SandboxOutcome, limit: float, limits: SessionLimits, listed: Path) -> list[Check]:
    code, fine = (
        "none, it was ended" if outcome.exit_code is None else str(outcome.exit_code),
        outcome.exit_code == 0,
    )
    if fine and listed.is_file() and (of_kit := OutputList.read(listed).exit_code) != 0:
        kept = f"0, to keep what is finished, but python -m kit ended with {of_kit}"
        code, fine = "0, but python -m kit had not ended" if of_kit is None else kept, False
    time = f"{outcome.seconds:.0f} s of {limit:g} s"
    memory = outcome.peak_memory / 1e9
    return [
        Check("exit code", fine, code),
        Check("time", not outcome.timed_out, f"ended at the limit of {limit:g} s" if outcome.timed_out else time),
        Check(
            "memory",
            memory <= limits.memory_gb,
            f"at most {memory:.1f} GB of {limits.memory_gb:g} ({limits.memory_source})",
        ),
    ]


def _output_checks(folder: KernelFolder, working: Path, competition: CompetitionConfig | None) -> list[Check]:
    record = folder.record
    if competition is None:
        there = (working / REPORT).is_file()
        return [Check(REPORT, there, "there" if there else "not found in /kaggle/working")]
    if record.kind == "infer":
        return [_submission(working / "submission.csv", competition)]
    runs = ExperimentDir(working / "runs" / record.experiment)
    missing = [place for place in record.runs if not RunDir(runs.path / place).finished]
    found = f"{some(missing, 5)} not finished" if missing else f"{len(record.runs)} of {len(record.runs)} finished"
    return [Check("runs", not missing, found)]


def _submission(path: Path, competition: CompetitionConfig) -> Check:
    """Check whether submission.csv is valid for the test set that the kernel was given."""
    if not path.is_file():
        return Check("submission.csv", False, "not found in /kaggle/working")
    try:
        given = read_submission(path, "submission")
        expected_submission(competition, given).validate(given, path.name)
    except KitError as error:
        return Check("submission.csv", False, str(error).replace(f"{path.name}: ", "").replace("\n", "; "))
    return Check("submission.csv", True, f"valid, {len(given)} rows")


def _size(working: Path, folder: KernelFolder, limits: SessionLimits) -> Check:
    files = [path for path in working.rglob("*") if path.is_file()]
    size, code = sum(path.stat().st_size for path in files) / 1e9, folder.code_file.stat().st_size / 1e6
    room = limits.working_gb
    of = f"of {room:g} ({limits.working_source}); code {code:.2f} MB, of {CODE_MB}"
    found = f"{len(files)} output files of {size:.3f} GB in all, {of}"
    return Check("sizes", size <= room and code <= CODE_MB, found)


def _record(digest: str, verdict: RehearsalVerdict, options: RehearsalOptions) -> dict[str, Any]:
    return {
        "passed": verdict.passed,
        "digest": digest,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "isolation": verdict.isolation,
        "test_rows": options.test_rows,
        "overrides": list(options.overrides),
        "seconds": round(verdict.outcome.seconds, 1),
        "peak_memory": verdict.outcome.peak_memory,
        "checks": [asdict(check) for check in verdict.checks],
    }
