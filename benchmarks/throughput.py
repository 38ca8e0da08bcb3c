"""Images a second of training and of prediction: the kit, a bare loop (the floor), timm, fastai and Lightning.

    PYTHONPATH=. python benchmarks/throughput.py --model resnet18 --size 128 --batch 32
    PYTHONPATH=. python benchmarks/throughput.py --predict --contenders kit bare

Each has a process of its own, trains the same timm model (channels last) from the same PNG files under AdamW in
the same precision, and they take turns for `--rounds` rounds of `--steps` batches; the first `--warmup` batches of
a turn do not count. What each does is said in `contenders.py`. Ratios are formed within a round, so that a machine
whose speed drifts favours nobody: by the clock, and in CPU seconds, which a busy machine changes less. `share`
says how busy it was: the CPU seconds that a contender got, of those that its threads could have had by the clock.
"""

import argparse
import multiprocessing
import platform
import statistics
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from contenders import CONTENDERS, Times, available
from PIL import Image

CLASSES = 10


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        options.folder = write_images(Path(scratch) / "data", options)
        names = [name for name in options.contenders if available(name, options.predict)]
        processes = {name: Contender(name, options) for name in names}
        times: dict[str, list[Times]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name, process in processes.items():
                times[name].append(process.turn())
        for process in processes.values():
            process.end()
    show(times, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images; a prediction takes twice as many at a time")
    parser.add_argument("--steps", type=int, default=12, help="batches a turn, the warm-up not counted")
    parser.add_argument("--warmup", type=int, default=2, help="batches before the clocks start")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--augment", default="light", choices=["none", "light", "medium", "heavy"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "fp16", "bf16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on a CPU")
    parser.add_argument("--predict", action="store_true", help="predict in place of training")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    return parser.parse_args()


def write_images(folder: Path, options: argparse.Namespace) -> Path:
    """A competition of random images, half of which train: a batch more than a turn takes, so no epoch ends."""
    generator = np.random.default_rng(0)
    rows = 2 * options.batch * (options.steps + options.warmup + 1)
    (folder / "train").mkdir(parents=True)
    for row in range(rows):
        pixels = generator.integers(0, 256, (options.size, options.size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "train" / f"{row}.png", compress_level=1)
    table = pd.DataFrame({"id": range(rows), "label": [row % CLASSES for row in range(rows)]})
    table.to_csv(folder / "train.csv", index=False)
    table.head(0).to_csv(folder / "sample_submission.csv", index=False)
    return folder


class Contender:
    """A process that makes a turn each time it is asked; nothing of one contender is in the process of another."""

    def __init__(self, name: str, options: argparse.Namespace):
        self.name, context = name, multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(name, options, there), daemon=True)
        self.process.start()
        there.close()  # else its end would not be noticed

    def turn(self) -> Times:
        self.pipe.send("turn")
        return self.pipe.recv()  # EOFError where it failed, which it has said

    def end(self) -> None:
        self.pipe.send("end")
        self.process.join()


def serve(name: str, options: argparse.Namespace, pipe: Connection) -> None:
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        contender = CONTENDERS[name](options, Path(scratch))
        while pipe.recv() == "turn":
            pipe.send(contender.predict() if options.predict else contender.train())


def show(times: dict[str, list[Times]], options: argparse.Namespace) -> None:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{options.threads} CPU threads"
    images = options.batch * (2 if options.predict else 1)
    print(
        f"\n{options.model}, {options.size} px, {'predicts' if options.predict else 'trains'} {images} at a time, "
        f"augment {options.augment}, {device}; Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{options.rounds} rounds of {options.steps} batches; medians, of ratios to bare with their range\n")
    print(f"{'':12}{'images/s':>10}{'ms':>8}{'CPU ms':>8}{'share':>7}{'by the clock':>24}{'in CPU seconds':>24}")
    for name, turns in times.items():
        wall, cpu = (statistics.median(getattr(each, what) for each in turns) for what in ("wall", "cpu"))
        share = statistics.median(each.cpu / each.wall / options.threads for each in turns)
        ratios = [ratio_to(times.get("bare", turns), turns, what) for what in ("wall", "cpu")]
        print(
            f"{name:12}{images / wall:10.1f}{1e3 * wall:8.1f}{1e3 * cpu:8.1f}{share:7.2f}"
            + "".join(f"{ratio:>24}" for ratio in ratios)
        )


def ratio_to(floor: list[Times], turns: list[Times], what: str) -> str:
    """The speed by that of the floor in the same round."""
    ratios = [getattr(there, what) / getattr(here, what) for there, here in zip(floor, turns, strict=True)]
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


if __name__ == "__main__":
    main()
