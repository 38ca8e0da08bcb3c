"""How long commands take that have nothing to train, beside what it takes to import torch and timm.

An experiment of digits is made once (two policies, three folds, an epoch at 16 px). Then the commands take turns,
each in a process of its own. Printed are seconds of the processors (user and system) and of the wall clock, median
and range; what the processors' are over those of `import torch, timm`; and the share of a core it got:
below 1 the machine was busy with other things, or it waited for the disk.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
YARDSTICK = "import torch, timm"
SMALL = ("--set", "name=small", "--set", "training.epochs=1", "--set", "folds.k=3", "--set", "data.size=16")


def seconds_of(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command and return its seconds of the processors and of the wall clock."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


def commands_of(number: int) -> dict[str, list[str]]:
    """Return the commands of a round by what they are called."""
    config = [str(ROOT / "configs/digits.yaml"), *SMALL]
    both = ["--policies", "uniform,discriminative", "--jobs", "1"]
    kit = [sys.executable, "-m", "kit"]
    return {
        YARDSTICK: [sys.executable, "-c", YARDSTICK],
        "kit --help": [*kit, "--help"],
        "kit run, all runs finished": [*kit, "run", *config],
        "kit compare --stored": [*kit, "compare", *config, *both, "--stored"],
        "kit report": [*kit, "report", "small"],
        "kit features, features kept, a new head": [
            *(*kit, "features", *config, "--head", "ridge", "--name", f"heads{number}"),
        ],
    }


def main() -> None:
    """Make the experiment, let the commands take turns, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        folder, taken = Path(scratch), dict[str, list[tuple[float, float]]]()
        first = commands_of(0)
        compare = [word for word in first["kit compare --stored"] if word != "--stored"]
        for command in (compare, first["kit features, features kept, a new head"]):
            seconds_of(command, folder)
        for number in range(1, rounds + 1):
            for name, command in commands_of(number).items():
                taken.setdefault(name, []).append(seconds_of(command, folder))
    yardstick = median(cpu for cpu, _ in taken[YARDSTICK])
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {rounds} rounds")
    print(f"{'':42}{'CPU s':>24}{'wall s':>24}{'/ import':>10}{'of a core':>11}")
    for name, each in taken.items():
        cpu, wall = zip(*each, strict=True)
        spans = [f"{median(kind):.2f} ({min(kind):.2f} to {max(kind):.2f})" for kind in (cpu, wall)]
        print(f"{name:42}{spans[0]:>24}{spans[1]:>24}{median(cpu) / yardstick:10.2f}{sum(cpu) / sum(wall):11.2f}")


if __name__ == "__main__":
    main()
