"""A rehearsal: the built kernel runs here as it would on Kaggle, and is judged by what Kaggle looks at."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.labels import SingleLabel
from kit.competition.load import TestSet, load_test, sample_columns
from kit.competition.submission import validate_submission
from kit.competition.tables import need_columns, read_table
from kit.competition.variant import write_variant
from kit.errors import KitError, some
from kit.kaggle.sandbox import Mount, Outcome, run_isolated
from kit.kernel.folder import BUILT, KernelFolder, built
from kit.locate import mount_points
from kit.runs import ExperimentDir, RunKey

WORKING_GB = 20  # Kaggle's limit of /kaggle/working
MEMORY_GB = 30  # of a session with T4s
CODE_MB = 1  # the often quoted limit of a code file

Form = Literal["nested", "flat"]


@dataclass(frozen=True)
class Check:
    """One thing Kaggle looks at."""

    name: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok' if self.passed else 'FAILED':7}{self.name}: {self.found}"


@dataclass(frozen=True)
class Verdict:
    """checks    in the order of Kaggle's own
    working     the folder that was /kaggle/working
    isolation   how the kernel was kept apart
    """

    checks: list[Check]
    working: Path
    isolation: str
    outcome: Outcome

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def rehearse(
    path: str | Path,
    *,
    test_rows: str | None = None,
    time_limit: float | None = None,
    form: Form = "nested",
    sources: Mapping[str, str | Path] | None = None,
    python: str | Path = sys.executable,
    isolation: str | None = None,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Verdict:
    """Runs the kernel built in a folder, with its sources mounted as Kaggle does, and judges the outcome.

    test_rows   `0`, `1`, `3` or `x5`: another test set than the one at hand, as in Kaggle's rerun
    time_limit  seconds; left out: the config's kernel.hours
    form        of the mounts: `nested` (/kaggle/input/competitions/<slug>) or `flat` (/kaggle/input/<slug>)
    sources     folders that stand for sources, by their owner/slug. Without: for a kernel what was fetched of
                it, or its own rehearsal; for a dataset kernels/datasets/<slug>; for the competition its folder
    python      the interpreter, e.g. of an environment with the image's versions
    overrides   changes of the config for this rehearsal, like training.epochs=1: the same file, sooner done
    isolation   bubblewrap, unshare or redirect; left out: the best that works here

    The verdict is kept in rehearsal.json, the outputs in rehearsal/.
    """
    folder = KernelFolder.at(path)
    limit = 3600 * folder.record.hours if time_limit is None else time_limit
    if limit <= 0:
        raise KitError(f"--time-limit {limit:g}: expected seconds, more than 0")
    given = _given(folder, sources or {})
    stage = folder.path / "rehearsal"
    shutil.rmtree(stage, ignore_errors=True)
    folder.forget_rehearsal()
    working = stage / "working"
    working.mkdir(parents=True)
    competition = _competition(folder, stage, test_rows, given)
    mounts = _mounts(folder, competition, given, form)
    for mount in mounts:
        say(f"/kaggle/input/{mount.target} is {mount.source}")
    digest = folder.digest
    with tempfile.TemporaryDirectory(prefix="kit-") as draft:
        script = Path(draft) / "script.py"
        script.write_text(source_code(folder.code_file), encoding="utf-8")
        environment = {"KIT_SET": json.dumps(list(overrides))}
        if test_rows:
            environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
        outcome = run_isolated(
            script,
            working,
            mounts,
            python=python,
            time_limit=limit,
            isolation=isolation,
            environment=environment,
            on_line=say,
        )
    checks = [*_run_checks(outcome, limit), *_output_checks(folder, working, competition), _size(working, folder)]
    verdict = Verdict(checks, working, outcome.isolation, outcome)
    folder.write_rehearsal(_record(digest, verdict, test_rows, overrides))
    return verdict


def source_code(code_file: Path) -> str:
    """The Python code of a script, or of a notebook's cells."""
    text = code_file.read_text(encoding="utf-8")
    if code_file.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _given(folder: KernelFolder, sources: Mapping[str, str | Path]) -> dict[str, Path]:
    """What the user says stands for sources of the kernel."""
    given, wanted = {reference: Path(path).expanduser() for reference, path in sources.items()}, _wanted(folder)
    for reference, path in given.items():
        if reference not in wanted:
            attached = f"has {some(wanted)}" if wanted else "has none"
            raise KitError(f"--source {reference}={path}: is no source of {folder.path}, which {attached}")
        if not path.is_dir():
            raise KitError(f"--source {reference}={path}: {path} is no folder")
    return given


def _wanted(folder: KernelFolder) -> list[str]:
    """The sources that the kernel attaches."""
    kinds = ("competition_sources", "dataset_sources", "kernel_sources", "model_sources")
    return [reference for kind in kinds for reference in folder.metadata[kind]]


def _competition(
    folder: KernelFolder, stage: Path, test_rows: str | None, given: Mapping[str, Path]
) -> CompetitionConfig:
    """The competition as the kernel is to see it."""
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
    if not test_rows:
        return config
    variant = write_variant(config, stage / "competition", test_rows)
    return config.model_copy(update={"path": str(variant.resolve())})


def _mounts(
    folder: KernelFolder, competition: CompetitionConfig, given: Mapping[str, Path], form: Form
) -> list[Mount]:
    metadata, here, home = folder.metadata, dict(given), folder.path.resolve()
    root = home.parents[2] if home.parent.name == BUILT.name else Path(".")
    if competition.slug:
        here[competition.slug] = Path(competition.path)
    for reference in metadata["dataset_sources"]:
        slug = reference.split("/")[1]
        apart = folder.code_dataset if slug.endswith("-code") else Path()
        here.setdefault(reference, apart if apart.name and apart.is_dir() else root / "kernels/datasets" / slug)
    for reference in metadata["kernel_sources"]:
        here.setdefault(reference, _outputs_of(reference, root))
    wanted = _wanted(folder)
    if missing := [reference for reference in wanted if reference not in here or not here[reference].is_dir()]:
        raise KitError(
            f"nothing on this machine stands for {some(missing)}; say what does: --source {missing[0]}=FOLDER"
        )
    return [Mount(here[reference].resolve(), _mount_point(reference, metadata, form)) for reference in wanted]


def _mount_point(reference: str, metadata: dict[str, Any], form: Form) -> str:
    points = mount_points(reference)
    if form == "flat":
        return points[-1]
    return points[1] if reference in metadata["kernel_sources"] else points[0]


def _outputs_of(reference: str, root: Path) -> Path:
    """What was fetched of a kernel; before it ran on Kaggle, what its rehearsal gave."""
    owner, slug = reference.split("/")[:2]
    for folder in built(root):
        if folder.record.slug == slug and folder.push.get("owner", owner) == owner:
            return folder.output if folder.output.is_dir() else folder.path / "rehearsal/working"
    return Path("nowhere")


def _run_checks(outcome: Outcome, limit: float) -> list[Check]:
    code = "none, it was ended" if outcome.exit_code is None else str(outcome.exit_code)
    time = f"{outcome.seconds:.0f} s of {limit:g} s"
    memory = outcome.peak_memory / 1e9
    return [
        Check("exit code", outcome.exit_code == 0, code),
        Check("time", not outcome.timed_out, f"ended at the limit of {limit:g} s" if outcome.timed_out else time),
        Check("memory", memory <= MEMORY_GB, f"at most {memory:.1f} GB of {MEMORY_GB}"),
    ]


def _output_checks(folder: KernelFolder, working: Path, competition: CompetitionConfig) -> list[Check]:
    record = folder.record
    if record.kind == "infer":
        return [_submission(working / "submission.csv", competition)]
    runs = ExperimentDir(working / "runs" / record.experiment)
    keys = [RunKey(*key) for policy in record.policies for key in _keys(policy, record.seeds, record.folds)]
    missing = [str(key) for key in keys if not runs.run(key).finished]
    found = f"{some(missing, 5)} not finished" if missing else f"{len(keys)} of {len(keys)} finished"
    return [Check("runs", not missing, found)]


def _keys(policy: str, seeds: list[int], folds: list[int]) -> list[tuple[str, int, int]]:
    return [(policy, seed, fold) for seed in seeds for fold in folds]


def _submission(path: Path, competition: CompetitionConfig) -> Check:
    """Whether submission.csv is valid for the test set that the kernel was given."""
    if not path.is_file():
        return Check("submission.csv", False, "not found in /kaggle/working")
    try:
        test = load_test(competition)
        given = read_table(path, "submission")
        columns = list(test.sample.columns)
        validate_submission(given, columns, test.sample_id, test.ids, _labels(competition, given, test), path.name)
    except KitError as error:
        return Check("submission.csv", False, str(error).removeprefix(f"{path.name}: "))
    return Check("submission.csv", True, f"valid, {len(given)} rows")


def _labels(competition: CompetitionConfig, given: pd.DataFrame, test: TestSet) -> SingleLabel:
    """The classes of the train table; without one, whatever the submission says."""
    train = Path(competition.path) / competition.train
    if train.is_file():
        table = read_table(train, "competition.train")
        need_columns(table, {"competition.label": competition.label}, train)
        return SingleLabel.of(table[competition.label])
    return SingleLabel(tuple(given.get(sample_columns(test.sample, competition.id)[1], pd.Series()).unique()))


def _size(working: Path, folder: KernelFolder) -> Check:
    files = [path for path in working.rglob("*") if path.is_file()]
    size, code = sum(path.stat().st_size for path in files) / 1e9, folder.code_file.stat().st_size / 1e6
    found = f"{len(files)} output files of {size:.3f} GB in all, of {WORKING_GB}; code {code:.2f} MB, of {CODE_MB}"
    return Check("sizes", size <= WORKING_GB and code <= CODE_MB, found)


def _record(digest: str, verdict: Verdict, test_rows: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    return {
        "passed": verdict.passed,
        "digest": digest,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "isolation": verdict.isolation,
        "test_rows": test_rows,
        "overrides": list(overrides),
        "seconds": round(verdict.outcome.seconds, 1),
        "peak_memory": verdict.outcome.peak_memory,
        "checks": [asdict(check) for check in verdict.checks],
    }
