"""How what is done beside training grows: tables, labels, folds, loading, choosing rules with pooling.

    PYTHONPATH=. python benchmarks/growth.py [--largest 0.1] [--steps loading pooling]

A competition without its images is made up: long-tailed classes, a tenth as many test rows as training rows, five
folds; of 100 classes for more and more rows, and of 20,000 rows for more and more classes. `pooling` is what
`kit run` does after the last training, for one policy: read what the folds predicted, pool it, choose the decision
rule among all candidates, cross-fitted, score, decide the test rows, write the files.

Each step runs in a process of its own, at three sizes. `busy` is its own CPU time over the wall's. GB is the most
memory that the process held, Python with its libraries (some .25 GB) and the input included; `memory` for pooling
what it held beyond the libraries, over the float32 probabilities that the folds predicted (each training row once,
each test row five times). The exponent is that of the CPU seconds from one size to the next: 1 is linear.
"""

import argparse
import importlib
import json
import math
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
SHARES = (0.1, 0.3, 1.0)  # of the largest size


def main() -> None:
    options = parse()
    if options.step:
        print(json.dumps(measure(options.step, options.rows, options.classes, Path(options.scratch))))
        return
    print("| step | rows × classes | CPU s | busy | GB | memory | exponent |\n|---|---|---|---|---|---|---|")
    for step in options.steps:
        before: tuple[float, float] | None = None
        for share in SHARES:
            rows, classes = sizes(step, share * options.largest)
            with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
                made = in_a_process(step, rows, classes, scratch)
            cpu = max(made["cpu"], 1e-3)
            exponent = f"{math.log(cpu / before[1]) / math.log(share / before[0]):.2f}" if before else ""
            memory = f"{made['grew'] / predicted_bytes(rows, classes):.2f}" if step.startswith("pooling") else ""
            figures = f"{cpu:.1f} | {made['busy']:.2f} | {made['peak'] / 1e9:.2f} | {memory} | {exponent}"
            print(f"| {step} | {rows:,} × {classes:,} | {figures} |", flush=True)
            before = share, cpu


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1.0, help="share of the sizes of docs/throughput.md")
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--scratch", help="where files are written, some 2 GB; left out: the system's folder")
    for name, kind in (("--step", str), ("--rows", int), ("--classes", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


def sizes(step: str, share: float) -> tuple[int, int]:
    """Rows and classes of a step at a share of the largest size."""
    return (20_000, int(5_000 * share)) if "of classes" in step else (int(1_000_000 * share), 100)


def predicted_bytes(rows: int, classes: int) -> int:
    """Of float32 probabilities of the training rows, and by each fold of the test rows."""
    return (rows + FOLDS * (rows // 10)) * classes * 4


def in_a_process(step: str, rows: int, classes: int, scratch: str) -> dict[str, float]:
    words = ["--step", step, "--rows", str(rows), "--classes", str(classes), "--scratch", scratch]
    made = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(f"{step} failed:\n{made.stderr}")
    return json.loads(made.stdout)


def measure(step: str, rows: int, classes: int, scratch: Path) -> dict[str, float]:
    prepare, act = STEPS[step] if step in STEPS else WRITERS[step]
    given = prepare(rows, classes, scratch)
    for library in (
        "kit.experiment.pool",
        "kit.competition.load",
        "kit.competition.folds",
        "sklearn.model_selection",
    ):
        importlib.import_module(library)
    before, wall, cpu = held(), time.perf_counter(), time.process_time()
    act(given)
    passed, used = time.perf_counter() - wall, time.process_time() - cpu
    return {"cpu": used, "busy": used / passed, "peak": held(), "grew": held() - before}


def held() -> float:
    """The most memory that this process has held, in bytes: kilobytes on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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


def write_competition(rows: int, classes: int, scratch: Path) -> Any:
    from kit.competition.config import CompetitionConfig

    counts = {"train": rows - rows // 10, "test": rows // 10}
    ids = {side: [f"{side}{row:08d}" for row in range(count)] for side, count in counts.items()}
    labels = [f"class{row % classes}" for row in range(counts["train"])]
    pd.DataFrame({"id": ids["train"], "label": labels}).to_csv(scratch / "train.csv", index=False)
    pd.DataFrame({"id": ids["test"], "label": "class0"}).to_csv(scratch / "sample.csv", index=False)
    for side, each in ids.items():
        (scratch / side).mkdir()
        for one in each:
            open(f"{scratch}/{side}/{one}.png", "wb").close()
    return CompetitionConfig(
        path=str(scratch),
        test=None,
        sample_submission="sample.csv",
        train_images="train/{id}.png",
        test_images="test/{id}.png",
    )


def load(config: Any) -> None:
    from kit.competition.load import load_competition

    load_competition(config)


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
        "name": "growth",
        "competition": {"path": ".", "train_images": "{id}.png", "test_images": "{id}.png"},
    }
    experiment = validate(content | {"policies": {"policy": {"lr": 0.1}}}, "growth")
    plan = FoldPlan(competition.ids, np.arange(rows) % FOLDS)
    loaded = LoadedExperiment(experiment, folder, competition, plan, {})
    pool_policy(
        "policy", folder.runs("policy"), experiment.scoring, loaded, scratch / "submission.csv", write=True
    )


STEPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "table": (write_table, read),
    "labels": (lambda rows, classes, _: table(rows, classes), encode),
    "labels, several": (lambda rows, classes, _: table(rows, classes, several=True), encode),
    "loading": (write_competition, load),
    "folds": dealing(several=False, grouped=False),
    "folds of groups": dealing(several=False, grouped=True),
    "folds, several": dealing(several=True, grouped=False),
    "folds of groups, several": dealing(several=True, grouped=True),
    "pooling": pooling(several=False),
    "pooling, several": pooling(several=True),
    "pooling of classes": pooling(several=False),
    "pooling of classes, several": pooling(several=True),
}
WRITERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "write-one": (lambda *given: given, lambda given: write_runs(*given[:2], False, given[2])),
    "write-several": (lambda *given: given, lambda given: write_runs(*given[:2], True, given[2])),
}


if __name__ == "__main__":
    main()
