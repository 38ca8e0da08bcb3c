"""What it costs that nothing is lost: hashes, claims and checkpoints, beside the run that they belong to.

    PYTHONPATH=. python benchmarks/wholeness.py --config configs/digits.yaml --set training.epochs=12

Runs `kit run` with each of these functions watched in the thread that calls it: seconds of the clock and of the
processor, as shares of the whole command. What a thread beside the training takes counts like what the training
waits for.
"""

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from kit.core import claims, whole
from kit.data import pixel_cache
from kit.experiment import shared_folder
from kit.experiment.config import load_experiment
from kit.experiment.run import run
from kit.training.checkpoint import Checkpoints

WATCHED: tuple[tuple[str, Any, str], ...] = (
    ("checkpoints: copied", Checkpoints, "take"),
    ("checkpoints: copied", Checkpoints, "hold"),
    ("checkpoints: written", Checkpoints, "_write"),
    ("files hashed", whole, "sha256"),
    ("pixels hashed", pixel_cache, "_hash"),
    ("claims", claims.Claim, "beat"),
    ("claims", claims.Claim, "release"),
    ("claims", claims.Claim, "need"),
    ("claims", claims, "claim"),
    ("claims", shared_folder, "claim"),
)


def main() -> None:
    """Train, and print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/digits.yaml")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    spent: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for kind, place, name in WATCHED:
        setattr(place, name, watched(getattr(place, name), spent[kind]))
    experiment = load_experiment(options.config, options.set)
    with tempfile.TemporaryDirectory() as output:
        began, used = time.monotonic(), time.process_time()
        run(experiment, output, say=print)
        seconds, processor = time.monotonic() - began, time.process_time() - used
    print(f"the whole: {seconds:.0f} s, {processor:.0f} s of the processor")
    for kind, (times, wall, cpu) in spent.items():
        shares = f"{wall / seconds:.2%} of the time, {cpu / processor:.2%} of the processor"
        print(f"{kind}: {times} times, {wall:.2f} s, {cpu:.2f} s of the processor: {shares}")
    total = sum(cpu for _, _, cpu in spent.values()) / processor
    print(f"all: {total:.2%} of the processor")


def watched(function: Callable, spent: list[float]) -> Callable:
    """Return the function, which adds to its calls and to the seconds they took, by clock and processor."""

    @functools.wraps(function)
    def timed(*arguments: Any, **keywords: Any) -> Any:
        began, used = time.monotonic(), time.thread_time()
        try:
            return function(*arguments, **keywords)
        finally:
            spent[0] += 1
            spent[1] += time.monotonic() - began
            spent[2] += time.thread_time() - used

    return timed


if __name__ == "__main__":
    main()
