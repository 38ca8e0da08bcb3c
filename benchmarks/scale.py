"""A large competition without its images: time and memory of tables, labels, folds and pooling.

    PYTHONPATH=. python benchmarks/scale.py --rows 1000000 --classes 200

Each step runs in a process of its own, on rows made up beforehand: seconds by the clock and of the processors
(all threads), and the most memory that the process held, its input and Python with its libraries (some 250 MB)
included. The last column is seconds of the processors at the whole size over those at a tenth: 10 where a step
grows with the rows, 100 where it grows with their square.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDS = 5
LABELS = 3  # a row, in the mean, where it may have several


def main() -> None:
    options = parse()
    if options.step:
        print(json.dumps(measure(options.step, options.rows, options.classes, Path(options.scratch))))
        return
    steps = options.steps.split(",") if options.steps else list(STEPS)
    print(f"{options.rows:,} rows × {options.classes} classes, {FOLDS} folds, {options.rows // 10:,} test rows")
    print(f"{'step':24} {'s':>8} {'CPU s':>8} {'GB':>6} {'CPU s at a tenth':>17} {'ratio':>6}")
    for step in steps:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            whole, tenth = (
                in_a_process(step, rows, options.classes, f"{scratch}/{rows}")
                for rows in (options.rows, options.rows // 10)
            )
        ratio = whole["cpu"] / max(tenth["cpu"], 1e-3)
        print(
            f"{step:24} {whole['wall']:8.1f} {whole['cpu']:8.1f} {whole['peak_gb']:6.2f} {tenth['cpu']:17.2f} "
            f"{ratio:6.1f}",
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--steps", help=f"some of {', '.join(STEPS)}, with commas between them")
    parser.add_argument("--scratch", help="where files are written, several GB; left out: the system's folder")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process(step: str, rows: int, classes: int, scratch: str) -> dict[str, float]:
    words = ["--step", step, "--rows", str(rows), "--classes", str(classes), "--scratch", scratch]
    made = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(f"{step} failed:\n{made.stderr}")
    return json.loads(made.stdout)


def measure(step: str, rows: int, classes: int, scratch: Path) -> dict[str, float]:
    scratch.mkdir(parents=True, exist_ok=True)
    prepare, act = STEPS[step]
    given = prepare(rows, classes, scratch)
    wall, cpu = time.perf_counter(), time.process_time()
    act(given)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,  # kilobytes on Linux
    }


# What is made up


def ids_of(rows: int) -> list[str]:
    return [f"image{row:08d}" for row in range(rows)]


def classes_of(classes: int) -> tuple[str, ...]:
    return tuple(f"class{place:04d}" for place in range(classes))


def shares(classes: int) -> np.ndarray:
    """How often each class is there: a long tail, 1 / rank."""
    weights = 1 / np.arange(1, classes + 1)
    return weights / weights.sum()


def targets_of(rows: int, classes: int, several: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    if not several:
        return generator.choice(classes, rows, p=shares(classes))
    found = np.zeros((rows, classes), dtype=bool)
    for _ in range(LABELS):
        found[np.arange(rows), generator.choice(classes, rows, p=shares(classes))] = True
    return found


def cells_of(targets: np.ndarray, classes: int) -> list[str]:
    from kit.competition.labels import MultiLabel, SingleLabel

    names = classes_of(classes)
    return (MultiLabel(names, " ") if targets.ndim == 2 else SingleLabel(names)).decode(targets)


def groups_of(rows: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, max(rows // 4, 2), rows)


def table(rows: int, classes: int, several: bool = False) -> pd.DataFrame:
    cells = cells_of(targets_of(rows, classes, several), classes)
    groups = [f"patient{group}" for group in groups_of(rows).tolist()]
    return pd.DataFrame({"id": ids_of(rows), "label": cells, "patient": groups})


# The steps: what is prepared, which is not measured, and what is


def write_table(rows: int, classes: int, scratch: Path) -> Path:
    table(rows, classes).to_csv(scratch / "train.csv", index=False)
    return scratch / "train.csv"


def read(path: Path) -> None:
    from kit.competition.tables import need_unique, read_table

    frame = read_table(path, "competition.train")
    need_unique(frame["id"], "competition.train")


def encode(frame: pd.DataFrame) -> None:
    from kit.competition.labels import MultiLabel, SingleLabel

    several = frame["label"].str.contains(" ", regex=False).any()
    form = MultiLabel.of(frame["label"], " ") if several else SingleLabel.of(frame["label"])
    form.encode(frame["label"].tolist(), "competition.label")


def find_images(given: tuple[Path, pd.DataFrame]) -> None:
    from kit.competition.templates import image_sources
    from kit.data.sources import missing_files

    folder, frame = given
    sources = image_sources(folder, frame, "train/{id}.jpg", "competition.train_images", None)
    assert len(missing_files(sources)) == len(frame)  # looked for, none is there


def dealing(several: bool, grouped: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def prepare(rows: int, classes: int, scratch: Path) -> tuple:
        frame = pd.DataFrame({"patient": groups_of(rows).astype(str)}, dtype=object)
        return ids_of(rows), targets_of(rows, classes, several), frame

    def act(given: tuple) -> None:
        from kit.competition.folds import make_folds
        from kit.competition.folds_config import FoldsConfig

        ids, targets, frame = given
        config = FoldsConfig(k=FOLDS, group="patient" if grouped else None)
        _ = make_folds(ids, targets, config, frame).digest

    return prepare, act


def pooling(several: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def prepare(rows: int, classes: int, scratch: Path) -> tuple:
        in_a_process("write-several" if several else "write-one", rows, classes, str(scratch))
        return rows, classes, several, scratch

    return prepare, pool


def write_runs(rows: int, classes: int, several: bool, scratch: Path) -> None:
    """The predictions of five fold models: right more often than not, as float32 in Parquet."""
    from kit.core.runs import ExperimentDir, RunKey, RunRecord, predictions, write_predictions

    targets, fold, folder = targets_of(rows, classes, several), np.arange(rows) % FOLDS, ExperimentDir(scratch)
    ids, names, generator = np.array(ids_of(rows), dtype=object), classes_of(classes), np.random.default_rng(2)

    def made(truth: np.ndarray) -> np.ndarray:
        logits = generator.standard_normal((len(truth), classes), dtype=np.float32)
        if several:
            logits += np.log(shares(classes)).astype(np.float32) + 4 * truth
            return 1 / (1 + np.exp(-logits))
        logits += np.log(shares(classes)).astype(np.float32)
        logits[np.arange(len(truth)), truth] += 3
        logits = np.exp(logits)
        return logits / logits.sum(axis=1, keepdims=True)

    for number in range(FOLDS):
        run, held_out = folder.run(RunKey("policy", 0, number)), fold == number
        write_predictions(predictions(ids[held_out].tolist(), made(targets[held_out]), names), run.oof)
        tested = made(targets[: rows // 10])
        write_predictions(predictions([f"test{row}" for row in range(rows // 10)], tested, names), run.test)
        run.write(RunRecord(status="finished", policy="policy", seed=0, fold=number))


def pool(given: tuple) -> None:
    """What `kit run` does after the last training: pool, choose the rule, score, decide the test rows, write."""
    from kit.competition.folds import FoldPlan
    from kit.competition.labels import MultiLabel, SingleLabel
    from kit.competition.load import Competition
    from kit.competition.submission import SubmissionFormat
    from kit.core.runs import ExperimentDir
    from kit.experiment.config import validate
    from kit.experiment.loaded import LoadedExperiment
    from kit.experiment.pool import pool_policy

    rows, classes, several, scratch = given
    names = classes_of(classes)
    form = MultiLabel(names, " ") if several else SingleLabel(names)
    test_ids = [f"test{row}" for row in range(rows // 10)]
    competition = Competition(
        folder=scratch,
        label_format=form,
        ids=ids_of(rows),
        targets=targets_of(rows, classes, several),
        train=pd.DataFrame(),
        train_images=[],
        test_ids=test_ids,
        test_images=[],
        submission=SubmissionFormat("labels", ("id", "label"), "id", tuple(test_ids), form, {}),
        names=dict(zip(names, names, strict=True)),
    )
    folder = ExperimentDir(scratch)
    content = {
        "name": "scale",
        "competition": {"path": ".", "train_images": "{id}.png", "test_images": "{id}.png"},
    }
    experiment = validate(content | {"policies": {"policy": {"lr": 0.1}}}, "scale")
    plan = FoldPlan(competition.ids, np.arange(rows) % FOLDS)
    loaded = LoadedExperiment(experiment, folder, competition, plan, {})
    pool_policy(
        "policy", folder.runs("policy"), experiment.scoring, loaded, scratch / "submission.csv", write=True
    )


STEPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "table": (write_table, read),
    "labels": (lambda rows, classes, _: table(rows, classes), encode),
    "labels, several": (lambda rows, classes, _: table(rows, classes, several=True), encode),
    "images looked for": (lambda rows, classes, scratch: (scratch, table(rows, classes)), find_images),
    "folds": dealing(several=False, grouped=False),
    "folds of groups": dealing(several=False, grouped=True),
    "folds, several": dealing(several=True, grouped=False),
    "folds of groups, several": dealing(several=True, grouped=True),
    "pooling": pooling(several=False),
    "pooling, several": pooling(several=True),
}
_WRITERS = {
    "write-one": (lambda *given: given, lambda given: write_runs(*given[:2], False, given[2])),
    "write-several": (lambda *given: given, lambda given: write_runs(*given[:2], True, given[2])),
}


if __name__ == "__main__":
    if len(sys.argv) > 2 and sys.argv[2] in _WRITERS:
        STEPS = _WRITERS
    main()
