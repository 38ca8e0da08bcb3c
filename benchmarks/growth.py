"""How a decision rule's choice and the loading of a competition grow: CPU seconds and memory at three sizes each.

    PYTHONPATH=. python benchmarks/growth.py [--largest 0.1] [--measures loading]

A rule is chosen, with all its candidates cross-fitted over five folds, on float32 probabilities: of 100 classes
for more and more rows, and of 20,000 rows for more and more classes. Loading is of empty files in one folder,
a tenth of them test rows. Each measure runs in its own process. `memory` is the most that the process held
beyond what it held before, the probabilities counted in, over the probabilities. The exponent is that of the CPU
seconds from one size to the next: 1 is linear. `busy`: its own CPU time over the wall's.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SHARES = (0.1, 0.3, 1.0)  # of the largest size
MEASURES = {
    "rows, one label": lambda share: (int(1_000_000 * share), 100),
    "rows, several": lambda share: (int(1_000_000 * share), 100),
    "classes, one label": lambda share: (20_000, int(5_000 * share)),
    "classes, several": lambda share: (20_000, int(5_000 * share)),
    "loading": lambda share: (int(1_000_000 * share), 10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1.0, help="share of the sizes of docs/throughput.md")
    parser.add_argument("--measures", nargs="*", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, rows, classes = options.one[0], *map(int, options.one[1:])
        made = loading(rows) if name == "loading" else choosing(rows, classes, name.endswith("several"))
        print(json.dumps(made))
        return
    print("| measure | rows × classes | CPU s | busy | memory | exponent |\n|---|---|---|---|---|---|")
    for name in options.measures:
        before: tuple[float, float] | None = None
        for share in SHARES:
            rows, classes = MEASURES[name](share * options.largest)
            made = in_a_process(name, rows, classes)
            exponent = math.log(made["cpu"] / before[1]) / math.log(share / before[0]) if before else math.nan
            memory = f"{made['memory']:.2f}" if made["memory"] else ""
            shown = f"{exponent:.2f}" if before else ""
            figures = f"{made['cpu']:.1f} | {made['busy']:.2f} | {memory} | {shown}"
            print(f"| {name} | {rows:,} × {classes:,} | {figures} |", flush=True)
            before = share, made["cpu"]


def in_a_process(name: str, rows: int, classes: int) -> dict[str, float]:
    words = [sys.executable, __file__, "--one", name, str(rows), str(classes)]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(f"{name} failed:\n{made.stderr}")
    return json.loads(made.stdout)


def held() -> float:
    """The most memory that this process has held, in bytes: kilobytes on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def choosing(rows: int, classes: int, several: bool) -> dict[str, float]:
    from kit.scoring.config import ScoringConfig
    from kit.scoring.decide import choose_rule

    before = held()
    probabilities, truth = drawn(rows, classes, several)
    wall, cpu = time.perf_counter(), time.process_time()
    choose_rule(probabilities, truth, np.arange(rows) % 5, ScoringConfig())
    used, passed = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": used, "busy": used / passed, "memory": (held() - before) / probabilities.nbytes}


def drawn(rows: int, classes: int, several: bool) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of long-tailed classes (1 / rank) that are right more often than not, float32, and labels."""
    generator, shares = np.random.default_rng(0), 1 / np.arange(1, classes + 1)
    shares /= shares.sum()
    truth = generator.choice(classes, rows, p=shares)
    if several:
        labels = np.zeros((rows, classes), dtype=bool)
        for each in (truth, *(generator.choice(classes, rows, p=shares) for _ in range(2))):
            labels[np.arange(rows), each] = True
    probabilities, step = np.empty((rows, classes), dtype=np.float32), max(1, 1_000_000 // classes)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        logits = generator.standard_normal((part.stop - start, classes), dtype=np.float32)
        logits += np.log(shares).astype(np.float32)
        if several:
            probabilities[part] = 1 / (1 + np.exp(-logits - 4 * labels[part]))
        else:
            logits[np.arange(len(logits)), truth[part]] += 3
            probabilities[part] = np.exp(logits)
            probabilities[part] /= probabilities[part].sum(axis=1, keepdims=True)
    return probabilities, labels if several else truth


def loading(rows: int) -> dict[str, float]:
    import pandas as pd

    from kit.competition.config import CompetitionConfig
    from kit.competition.load import load_competition

    with tempfile.TemporaryDirectory() as name:
        folder, test = Path(name), rows // 10
        counts = {"train": rows - test, "test": test}
        ids = {side: [f"{side}{row:08d}" for row in range(count)] for side, count in counts.items()}
        labels = [f"class{row % 10}" for row in range(counts["train"])]
        pd.DataFrame({"id": ids["train"], "label": labels}).to_csv(folder / "train.csv", index=False)
        pd.DataFrame({"id": ids["test"], "label": "class0"}).to_csv(folder / "sample.csv", index=False)
        for side, each in ids.items():
            (folder / side).mkdir()
            for one in each:
                open(f"{name}/{side}/{one}.png", "wb").close()
        config = CompetitionConfig(
            path=name,
            test=None,
            sample_submission="sample.csv",
            train_images="train/{id}.png",
            test_images="test/{id}.png",
        )
        wall, cpu = time.perf_counter(), time.process_time()
        load_competition(config)
        used, passed = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": used, "busy": used / passed, "memory": 0.0}


if __name__ == "__main__":
    main()
