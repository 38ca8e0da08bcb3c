"""Each file × each damage × each command: it is told, or what the command gives is what it gave before.

Never another number with exit code 0 and no word. A new artefact is a line in ARTEFACTS, a new command one in
COMMANDS.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.colours import experiment_content
from support.faults import DAMAGES, damage
from support.small_kernels import write_kernel, write_push

import kit.report.probes as pictures
from kit import run
from kit.comparison.compare import compare
from kit.core.errors import KitError, Say
from kit.core.manifest import listed
from kit.core.paths import OutputDirs
from kit.core.whole import sealed
from kit.experiment.blend import blend
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.examine import examine_runs
from kit.experiment.predict import predict_test
from kit.kaggle.commands import list_submissions
from kit.kaggle.kernel.build import build
from kit.kaggle.kernel.fetch import take_runs
from kit.kaggle.kernel.folder import KernelFolder
from kit.kaggle.kernel.travelling import travelling_files
from kit.kaggle.submissions import LogEntry, write_entry
from kit.kaggle.submit import _source
from kit.report.gather import write_report
from kit.training.trainer import Trainer

TOP = Path("runs/tiny")
POLICY, OTHER_POLICY = TOP / "uniform", TOP / "sliced"
RUN, OTHER_RUN = POLICY / "seed0/fold0", POLICY / "seed0/fold1"
BUILT = Path("kernels/build/small-train-fold-0")
ELSEWHERE = Path("elsewhere")  # files of another experiment

PIXELS = Path("cache/pixels-*.npy")
TEST_PIXELS, TRAIN_PIXELS = Path("cache/pixels of test images"), Path("cache/pixels of training images")
OF_CONFIG = ("run", "compare --stored", "report", "blend", "submit")
OF_SCORES = ("run", "report", "predict", "blend", "kernel build", "submit")

# Artefact → the file whose content "other" puts in its place, and the commands that read it.
ARTEFACTS: dict[Path, tuple[Path, tuple[str, ...]]] = {
    RUN / "run.json": (OTHER_RUN / "run.json", ("run", "compare --stored", "report", "probe", "predict", "blend")),
    RUN / "history.jsonl": (OTHER_RUN / "history.jsonl", ("report",)),
    RUN / "rates.npz": (OTHER_POLICY / "seed0/fold0/rates.npz", ("report",)),
    RUN / "weights.safetensors": (OTHER_RUN / "weights.safetensors", ("predict",)),
    RUN / "oof.parquet": (OTHER_RUN / "oof.parquet", ("run", "compare --stored", "report", "predict", "blend")),
    RUN / "test.parquet": (OTHER_RUN / "test.parquet", ("run", "blend")),
    RUN / "activations.npz": (OTHER_POLICY / "seed0/fold0/activations.npz", ("report", "probe")),
    RUN / "learning.npz": (OTHER_POLICY / "seed0/fold0/learning.npz", ("report", "probe")),
    POLICY / "oof.parquet": (OTHER_POLICY / "oof.parquet", ("run",)),
    POLICY / "test.parquet": (OTHER_POLICY / "test.parquet", ("run",)),
    POLICY / "scores.json": (
        OTHER_POLICY / "scores.json",
        ("run", "report", "predict", "blend", "kernel build", "submit"),
    ),
    TOP / "experiment.yaml": (
        ELSEWHERE / "experiment.yaml",
        OF_CONFIG,
    ),
    TOP / "folds.csv": (ELSEWHERE / "folds.csv", ("run", "compare --stored", "report", "blend")),
    TOP / "manifest.json": (ELSEWHERE / "manifest.json", OF_CONFIG),
    TOP / "comparison.json": (ELSEWHERE / "comparison.json", ("compare --stored", "report")),
    TEST_PIXELS: (TRAIN_PIXELS, ("predict",)),
    Path("submissions/log.csv"): (ELSEWHERE / "log.csv", ("submissions",)),
    Path("runs/blend-tiny-tiny.sliced/blend.json"): (ELSEWHERE / "blend.json", ("submit",)),
    **{
        BUILT / "output" / RUN / name: (BUILT / "output" / other / name, ("kernel fetch",))
        for name, other in {
            "run.json": OTHER_RUN,
            "history.jsonl": OTHER_RUN,
            "rates.npz": OTHER_POLICY / "seed0/fold0",
            "weights.safetensors": OTHER_RUN,
            "oof.parquet": OTHER_RUN,
            "test.parquet": OTHER_RUN,
        }.items()
    },
    BUILT / "output" / TOP / "experiment.yaml": (ELSEWHERE / "experiment.yaml", ("kernel fetch",)),
    BUILT / "output" / TOP / "folds.csv": (ELSEWHERE / "folds.csv", ("kernel fetch",)),
}


@dataclass(frozen=True)
class Finished:
    """A finished experiment, and what each command gives of it."""

    config: ExperimentConfig
    output: Path
    given: dict[str, Any]


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def run_again(config: ExperimentConfig, output: Path, say: Say) -> Any:
    outcome = run(config, output, say=say)
    tables = {name: table.to_dict() for name, table in outcome.tables().items()}
    files = contents(output, "runs/tiny/*/*.parquet", "runs/tiny/*/scores.json", "submissions/tiny*")
    return outcome.trained, tables, files


def compare_stored(config: ExperimentConfig, output: Path, say: Say) -> Any:
    content = compare(config, output, stored=True, say=say).content.to_json()
    return content, contents(output, "runs/tiny/comparison.*")


def report(config: ExperimentConfig, output: Path, say: Say) -> Any:
    return write_report("tiny", output, say=say).file.read_bytes()


def probe(config: ExperimentConfig, output: Path, say: Say) -> Any:
    """What would be drawn."""
    drawn: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_activations", "draw_learning", "draw_butterfly"):
            patch.setattr(pictures, name, lambda runs, path: drawn.append(str(sorted(map(repr, runs.values())))))
        pictures.probe([RUN], "probes.png")
    return drawn


def predict(config: ExperimentConfig, output: Path, say: Say) -> Any:
    made = predict_test(config, submission=output / "predicted.csv", output=output, say=say)
    return made.models, made.submission.read_bytes()


def blend_two(config: ExperimentConfig, output: Path, say: Say) -> Any:
    made = blend(["tiny", "tiny/sliced"], output, say=say)
    return made.record, contents(made.folder, "*.parquet"), made.submission.read_bytes()


def kernel_build(config: ExperimentConfig, output: Path, say: Say) -> Any:
    section = config.competition.model_copy(update={"slug": "colours"})
    attached = config.kernel.model_copy(update={"datasets": ("tester/runs",)})
    there = config.model_copy(update={"competition": section, "kernel": attached})
    packed = {
        name: content
        for name, content in travelling_files(there, "infer", output).items()
        if name.startswith("runs/")
    }
    return packed, build(there, "infer", output=output).notes


def kernel_fetch(config: ExperimentConfig, output: Path, say: Say) -> Any:
    """From where what was downloaded takes its place."""
    shutil.rmtree(output / "runs")
    _, taken = take_runs(KernelFolder(BUILT), output, say)
    return taken, contents(output, "runs/tiny/*/seed*/fold*/*", "runs/tiny/folds.csv")


def submissions(config: ExperimentConfig, output: Path, say: Say) -> Any:
    found = list_submissions(output=output, say=say)
    return found.rows, found.agreements


def submit(config: ExperimentConfig, output: Path, say: Say) -> Any:
    """The scores that it states beside a submission."""
    names = ("tiny.csv", "tiny+sliced.csv", "blend-tiny-tiny.sliced.csv")
    return [_source(output / "submissions" / name, None, OutputDirs(output)) for name in names]


def doctor(config: ExperimentConfig, output: Path, say: Say) -> Any:
    """In what state it says that all is, and what it says of it."""
    states = examine_runs([output / "runs"])
    for state in states:
        for each in (*state.faults, *(each for each in state.runs if each.state == "damaged")):
            say(str(each))
    return [(state.folder.name, state.runs, state.faults) for state in states]


COMMANDS: dict[str, Callable[[ExperimentConfig, Path, Say], Any]] = {
    "run": run_again,
    "compare --stored": compare_stored,
    "report": report,
    "probe": probe,
    "predict": predict,
    "blend": blend_two,
    "kernel build": kernel_build,
    "kernel fetch": kernel_fetch,
    "submissions": submissions,
    "submit": submit,
    "doctor": doctor,
}


def entry(number: int) -> LogEntry:
    return LogEntry(
        time=f"2026-11-2{number}T10:00:00+00:00",
        competition="colours",
        file=f"submissions/tiny{number}.csv",
        sha256=f"{number}" * 64,
        experiment="tiny",
        policy="uniform",
        cv=f"0.{number}5",
        ref=str(number),
        status="COMPLETE",
        public=f"0.{number}1",
        message=f"words {number}",
    )


def write_others(config: ExperimentConfig, output: Path) -> None:
    """The files of another experiment."""
    folder, here = output / ELSEWHERE, output / "runs/tiny"
    folder.mkdir()
    (folder / "experiment.yaml").write_text(config.model_copy(update={"seeds": (5,)}).to_yaml())
    plan = pd.read_csv(here / "folds.csv", dtype=str)
    plan.assign(fold=plan["fold"].to_numpy()[::-1]).to_csv(folder / "folds.csv", index=False)
    for name in ("comparison.json", "../blend-tiny-tiny.sliced/blend.json"):
        content = json.loads((here / name).read_text())
        key = "level" if "level" in content else "oof"
        (folder / Path(name).name).write_text(json.dumps(content | {key: 0.5}))
    files = dict.fromkeys(listed(here), "0" * 64)
    (folder / "manifest.json").write_text(json.dumps(sealed({"files": files})))
    for number in (5, 6):
        write_entry(entry(number), OutputDirs(output / "other-log"))
    shutil.move(output / "other-log/submissions/log.csv", folder / "log.csv")


@pytest.fixture(scope="module")
def finished(competition, tmp_path_factory) -> Finished:
    """Two policies, two folds, trained for an epoch, compared, reported, blended, fetched, handed in."""
    output = tmp_path_factory.mktemp("finished")
    content = experiment_content(
        competition,
        folds={"k": 2},
        training={"epochs": 1, "probes": {"every": 2}},
        policies={"sliced": {"lr": "slice(1e-4, 1e-2)", "groups": "stage"}},
    )
    config, here = validate(content, "test"), os.getcwd()
    run(config, output)
    for number in (1, 2, 3, 4):
        write_entry(entry(number), OutputDirs(output))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(output)
        about = config.competition.model_dump(mode="json")
        record = {"competition": about, "folds": [0, 1], "policies": ["uniform", "sliced"]}
        write_push(write_kernel(record=record), "tester")
        shutil.copytree(output / "runs", BUILT / "output/runs")
    compare(config, output, stored=True)
    blend(["tiny", "tiny/sliced"], output)
    write_others(config, output)
    assert os.getcwd() == here
    return Finished(config, output, {})


def outcome(finished: Finished, command: str, folder: Path, said: list[str]) -> Any:
    """What a command gives in a copy of the experiment; the places of files do not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Trainer, "train", lambda *_, **__: pytest.fail("a training began"))
        return COMMANDS[command](finished.config, Path(), said.append)


@pytest.fixture
def undamaged(finished, tmp_path) -> Callable[[str], Any]:
    def give(command: str) -> Any:
        if command not in finished.given:
            folder, said = tmp_path / "whole", list[str]()
            shutil.copytree(finished.output, folder)
            finished.given[command] = outcome(finished, command, folder, said)
            assert not [line for line in said if "damaged" in line]
            shutil.rmtree(folder)
        return finished.given[command]

    return give


ALL = sorted(product(map(str, ARTEFACTS), DAMAGES, COMMANDS))


def readers(artefact: str) -> tuple[str, ...]:
    """The commands that read an artefact; the doctor reads all of an experiment."""
    return (*ARTEFACTS[Path(artefact)][1], *(("doctor",) if artefact.startswith(f"{TOP}/") else ()))


def in_ci() -> list[tuple[str, str, str]]:
    """Each artefact with each command that reads it, and with each damage: a sample that is always the same."""
    reading = [case for case in ALL if case[2] in readers(case[0])]
    seen: set[tuple[str, str]] = set()
    kept = []
    for case in random.Random(16).sample(reading, len(reading)):
        if not {case[:2], case[::2]} <= seen:
            kept.append(case)
            seen |= {case[:2], case[::2]}
    return kept


def found(folder: Path, artefact: Path) -> Path:
    """The file of an artefact; of those whose names hold a hash the one of the test images, or of others."""
    if artefact not in (TEST_PIXELS, TRAIN_PIXELS):
        return folder / artefact
    smallest, *_, largest = sorted(folder.glob(str(PIXELS)), key=lambda file: file.stat().st_size)
    return smallest if artefact == TEST_PIXELS else largest


def check(finished: Finished, undamaged: Callable[[str], Any], folder: Path, case: tuple[str, str, str]) -> str:
    """Damage a copy, call the command, and return what became of it: told, or the same."""
    artefact, how, command = case
    expected = undamaged(command)
    shutil.copytree(finished.output, folder / "copy")
    broken, said, refusal = found(folder / "copy", Path(artefact)), list[str](), ""
    damage(broken, how, other=found(folder / "copy", ARTEFACTS[Path(artefact)][0]))
    try:
        given = outcome(finished, command, folder / "copy", said)
    except KitError as error:
        refusal = str(error)
    if refusal:
        assert len(refusal.splitlines()) == 1
        # A manifest of another experiment is whole: it is the files that are not those it names.
        assert broken.name in refusal or (broken.name, how) == ("manifest.json", "other"), refusal
        return "refused"
    told = any(broken.name in line for line in said)
    assert told or given == expected, f"{command} gives something else, and says {said}"
    return "told" if told else "the same"


@pytest.mark.parametrize("case", in_ci(), ids=" ".join)
def test_damage_is_noticed_where_the_file_is_read(finished, undamaged, tmp_path, case):
    # An image whose pixels are damaged is decoded anew, which may need no word.
    harmless = {"the same"} if case[0] == str(TEST_PIXELS) else set()
    assert check(finished, undamaged, tmp_path, case) in {"refused", "told"} | harmless


@pytest.mark.parametrize("command", COMMANDS)
def test_an_experiment_of_an_earlier_version_gives_the_same(finished, undamaged, tmp_path, command):
    """It has no manifest, and run.json names no files."""
    expected, said = undamaged(command), list[str]()
    shutil.copytree(finished.output, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("run.json"):
        record = json.loads(file.read_text())
        del record["files"], record["digest"]
        file.write_text(json.dumps(record))
    for file in (tmp_path / "copy").rglob("manifest.json"):
        file.unlink()
    given = outcome(finished, command, tmp_path / "copy", said)
    if command == "kernel fetch":  # what is taken is as it was left
        given, expected = given[0], expected[0]
    assert given == expected
    assert not [line for line in said if "damaged" in line]


@pytest.mark.slow
@pytest.mark.parametrize("artefact", list(map(str, ARTEFACTS)))
def test_every_damage_is_told_or_harmless_in_every_command(finished, undamaged, tmp_path, artefact):
    for number, case in enumerate(case for case in ALL if case[0] == artefact):
        check(finished, undamaged, tmp_path / str(number), case)
