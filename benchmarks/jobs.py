"""How long a study takes with `--jobs auto` against one run after the other, as typed: ResNet-18 at 32 px, digits.

    python benchmarks/jobs.py [--policies 4] [--epochs 6] [--pairs 1]

Both orders alternate. Wall seconds are what a user waits, CPU seconds what the cores worked; the machine's load
is told, as another process on it spoils both. The first measurement of auto is included.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=1)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it began")
    with tempfile.TemporaryDirectory() as place:
        ratios = []
        for pair in range(options.pairs):
            ways = ("1", "auto") if pair % 2 == 0 else ("auto", "1")
            taken = {jobs: _study(Path(place) / f"{pair}-{jobs}", jobs, options) for jobs in ways}
            ratios.append(taken["auto"] / taken["1"])
            print(f"pair {pair + 1}: auto / one after the other = {ratios[-1]:.2f}", flush=True)
    print(f"median {sorted(ratios)[len(ratios) // 2]:.2f}")


def _study(output: Path, jobs: str, options: argparse.Namespace) -> float:
    """Train it; print and return the wall seconds."""
    config = ROOT / "configs/digits.yaml"
    settings = [f"training.epochs={options.epochs}", f"competition.path={output / 'digits'}"]
    policies = {f"p{number}": {"lr": 1e-3 * 2**number} for number in range(options.policies)}
    settings.append(f"policies={policies}".replace("'", '"'))
    command = [sys.executable, "-m", "kit", "run", str(config), "--output", str(output), "--jobs", jobs]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    made = subprocess.run(
        [*command, *(part for setting in settings for part in ("--set", setting))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if made.returncode:
        sys.exit(made.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"--jobs {jobs}: {wall:.0f} s, {cpu:.0f} CPU seconds, load {os.getloadavg()[0]:.1f}")
    for line in made.stdout.splitlines() + made.stderr.splitlines():
        if "side by side" in line:
            print(f"  {line}", flush=True)
    return wall


if __name__ == "__main__":
    main()
