"""What probes cost: a training with them beside the same one without, ResNet-18, digits at 32 px, batch 64.

    PYTHONPATH=. python benchmarks/probe_overhead.py

Both trainings take turns of `--turn` updates, who begins changes with every round, and ratios are formed within
the round, so that a machine whose speed drifts favours neither. User CPU time stands beside wall clock: it says
more where others use the machine (with `--threads 1`, as threads that wait for each other spend it, too).
Target: at most 1.05 at the default of every 10 updates. Then, by itself, what a sampled update costs more than
another, and what one moment of the butterfly costs, both in updates.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from side_by_side import BATCH, clocks, digits_trainer, machine

from kit.training.config import ProbesConfig
from kit.training.trainer import Trainer

LEARNING = ("before_update", "after_update")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--turn", type=int, default=60, help="updates of each training a round")
    parser.add_argument("--every", type=int, default=ProbesConfig().every)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        probes = {"every": options.every, "butterfly": [0]}
        plain = digits_trainer(Path(scratch), "without", options.model, {"lr": 1e-2})
        probed = digits_trainer(Path(scratch), "with", options.model, {"lr": 1e-2}, probes=probes)
        compare(plain, probed, options)


def compare(plain: Trainer, probed: Trainer, options: argparse.Namespace) -> None:
    measuring = Stopwatch(probed)
    trainings = {"without": plain.updates(), "with": probed.updates()}
    for updates in trainings.values():  # warmed up, to a multiple of `every`
        timed(updates, options.every)
    ratios, seconds = {"wall clock": [], "user CPU": []}, []
    for number in range(options.rounds):
        names = list(trainings) if number % 2 else list(trainings)[::-1]
        took = {name: timed(trainings[name], options.turn) for name in names}
        for place, clock in enumerate(ratios):
            ratios[clock].append(took["with"][place] / took["without"][place])
        seconds.append(took["without"])
        print(
            f"round {number + 1}: {ratios['wall clock'][-1]:.3f} wall, {ratios['user CPU'][-1]:.3f} CPU",
            flush=True,
        )
    print(f"{options.model}, 32 px, batch {BATCH}, {machine()}")
    update = [statistics.median(column) / options.turn for column in zip(*seconds, strict=True)]
    print(f"an update without probes: {1e3 * update[0]:.0f} ms, user CPU {1e3 * update[1]:.0f} ms")
    print(f"with probes every {options.every} updates, times as long ({options.rounds} rounds of {options.turn}):")
    for clock, values in ratios.items():
        print(f"  {clock:12}{statistics.median(values):.3f}  ({min(values):.3f} to {max(values):.3f})")
    print("a sampled update, more than another, user CPU:")
    for part, values in measuring.took.items():
        cost = statistics.median(values)
        print(f"  {part:15}{1e3 * cost:6.1f} ms  {cost / update[1]:.3f} updates")
    inputs = torch.randn(64, 3, 32, 32, device=probed.device)
    begun = clocks()
    probed.probes.measure_butterfly(0, inputs, multilabel=False)
    took = [now - then for now, then in zip(clocks(), begun, strict=True)]
    print(f"a moment of the butterfly (64 images, {len(probed.probes.groups)} groups): {took[0]:.2f} s, "
          f"{took[1] / update[1]:.1f} updates of user CPU")  # fmt: skip
    probed.probes.save(probed.dir.activations, probed.dir.learning)
    samples = len(probed.probes.steps)
    print(f"files: {size(probed.dir.activations) / samples:.1f} and {size(probed.dir.learning) / samples:.2f} KB "
          f"a sample ({samples} samples)")  # fmt: skip


class Stopwatch:
    """User CPU seconds that the parts of each sampled update took: `took[part]`.

    activations  looking at the outputs;  learning: the weights and gradients
    """

    def __init__(self, trainer: Trainer):
        self.took: dict[str, list[float]] = {"activations": [], "learning": []}
        from kit.training import probes

        looked_at, self._running = probes._looked_at, 0.0

        def timed_look(output):
            begun = clocks()[1]
            try:
                return looked_at(output)
            finally:
                self._running += clocks()[1] - begun

        probes._looked_at = timed_look
        for name in LEARNING:
            setattr(trainer.probes, name, self._timed(getattr(trainer.probes, name), trainer, name))

    def _timed(self, call, trainer: Trainer, name: str):
        def wrapped(*arguments):
            sampled = name == LEARNING[0] or trainer.probes.due(arguments[0])
            begun = clocks()[1]
            call(*arguments)
            took = clocks()[1] - begun
            if name == LEARNING[0]:
                self.took["learning"].append(took)
                self.took["activations"].append(self._running)
                self._running = 0.0
            elif sampled:
                self.took["learning"][-1] += took

        return wrapped


def timed(updates: Iterator[int], count: int) -> tuple[float, float]:
    """Wall clock and user CPU seconds of the next `count` updates."""
    begun = clocks()
    for _ in range(count):
        next(updates)
    return tuple(now - then for now, then in zip(clocks(), begun, strict=True))


def size(path: Path) -> float:
    """In KB."""
    return path.stat().st_size / 1e3


if __name__ == "__main__":
    main()
