"""What checkpoints cost a training at the default: its time and the processor's, beside the same without any.

    PYTHONPATH=. python benchmarks/checkpoints.py --minutes 6

One model (ResNet-50 has 25 M parameters) trains on random images under AdamW in epochs of some seconds. Blocks of
epochs with checkpoints as by default and blocks without any take turns within one training, so that a machine
whose speed drifts favours neither; what is compared is the mean seconds of an epoch. What the writing thread takes
of the processor, and what the copy takes of the loop, are measured where they happen: these are the cost where the
difference of the blocks is within its noise.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir
from kit.experiment.config import validate
from kit.experiment.prepare import prepare, run_keys
from kit.experiment.train_run import trainer_of
from kit.training.checkpoint import Checkpoints
from kit.training.device import make_accelerator


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_in(Path(scratch), options)
        spent = {"copy": 0.0, "written": 0, "thread wall": 0.0, "thread cpu": 0.0}
        watch(trainer.checkpoints, spent)
        epochs = {True: [], False: []}
        began, since, cpu = time.monotonic(), time.monotonic(), time.process_time()
        cpus = {True: [], False: []}
        with_them = [True]
        offer = trainer.checkpoints.offer
        trainer.checkpoints.offer = lambda *arguments: offer(*arguments) if with_them[0] else None
        first, trainer.logged = trainer.checkpoints.restore()
        for step in trainer.updates(first):
            done = step + 1
            if done % trainer.plan.steps_per_epoch:
                continue
            trainer._log_losses(trainer.logged, done)
            trainer.logged = done
            trainer.checkpoints.offer(done, done, True)
            now, used = time.monotonic(), time.process_time()
            epochs[with_them[0]].append(now - since)
            cpus[with_them[0]].append(used - cpu)
            since, cpu = now, used
            if now - began > 60 * options.minutes:
                break
            if (done // trainer.plan.steps_per_epoch) % options.block == 0:
                trainer.checkpoints.close()
                with_them[0] = not with_them[0]
        trainer.close()
        show(trainer, epochs, cpus, spent)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="updates an epoch")
    parser.add_argument("--block", type=int, default=5, help="epochs with or without, in turns")
    parser.add_argument("--minutes", type=float, default=6.0)
    return parser.parse_args()


def trainer_in(scratch: Path, options: argparse.Namespace):
    generator = np.random.default_rng(0)
    rows = max(90, 3 * options.batch * options.steps // 2 + 3)
    folder = scratch / "data"
    (folder / "train").mkdir(parents=True)
    for row in range(rows):
        pixels = generator.integers(0, 256, (options.size, options.size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train" / f"{row}.png")
    table = pd.DataFrame({"id": range(rows), "label": [row % 10 for row in range(rows)]})
    table.to_csv(folder / "train.csv", index=False)
    table[["id"]].head(1).to_csv(folder / "test.csv", index=False)
    table.head(1).to_csv(folder / "sample_submission.csv", index=False)
    content = {
        "name": "bench",
        "competition": {"path": str(folder), "train_images": "train/{id}.png", "test_images": "train/{id}.png"},
        "folds": {"k": 3, "seed": 0},
        "data": {"size": options.size, "workers": 0},
        "model": {"name": options.model, "weights": "none"},
        "policies": {"uniform": {"lr": 1e-4, "schedule": "constant"}},
        "training": {"epochs": 10**4, "batch_size": options.batch, "log_every": 10**6, "device": "cpu"},
    }
    experiment = validate(content, "benchmark")
    folder = ExperimentDir(scratch / "runs/bench")
    loaded, data = prepare(experiment, folder, OutputDirs(scratch), shown=False)
    key = run_keys(experiment)[0]
    run = folder.run(key)
    run.path.mkdir(parents=True)
    return trainer_of(key, loaded, data, run, make_accelerator(experiment.training))


def watch(checkpoints: Checkpoints, spent: dict[str, float]) -> None:
    """Add up what the loop waits for, and what the thread takes."""
    take, write = checkpoints.take, checkpoints._write

    def timed_take(*arguments) -> None:
        began = time.monotonic()
        take(*arguments)
        spent["copy"] += time.monotonic() - began

    def timed_write(*arguments) -> None:
        began, cpu = time.monotonic(), time.thread_time()
        write(*arguments)
        spent["thread wall"] += time.monotonic() - began
        spent["thread cpu"] += time.thread_time() - cpu
        spent["written"] += 1

    checkpoints.take, checkpoints._write = timed_take, timed_write


def show(trainer, epochs, cpus, spent) -> None:
    millions = sum(value.numel() for value in trainer.model.parameters()) / 1e6
    size = trainer.dir.checkpoint.stat().st_size / 1e6 if trainer.dir.resumable else 0
    print(f"{millions:.1f} M parameters, {len(epochs[True])} + {len(epochs[False])} epochs with and without")
    for name, each in (("wall", epochs), ("processor", cpus)):
        means = {kind: statistics.mean(values) for kind, values in each.items()}
        print(f"{name}: {means[True]:.3f} s an epoch with, {means[False]:.3f} s without")
    total, cpu = sum(epochs[True]), sum(cpus[True])
    of_processor = (spent["copy"] + spent["thread cpu"]) / cpu
    print(
        f"{spent['written']:.0f} checkpoints of {size:.0f} MB in {total:.0f} s: the loop waited "
        f"{spent['copy']:.2f} s, {spent['copy'] / total:.2%}; the thread wrote for "
        f"{spent['thread wall']:.2f} s; both took {of_processor:.2%} of the processor's time"
    )


if __name__ == "__main__":
    main()
