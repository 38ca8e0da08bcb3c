"""What `temp_balance` costs: a training with it beside the same one without, ResNet-18, digits at 32 px, batch 64.

    PYTHONPATH=. python benchmarks/tail_overhead.py

Both trainings take turns of an epoch, in each of which the spectra are measured once; who begins changes with
every round, and ratios are formed within the round, so that a machine whose speed drifts favours neither. User CPU
time stands beside wall clock: it says more where others use the machine. Then, by itself, one measurement, in
updates: an epoch of n updates takes 1 + that / n times as long.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from side_by_side import BATCH, clocks, digits_trainer, machine

from kit.training.tails import TailMeter
from kit.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        trainers = {
            name: digits_trainer(Path(scratch), name, options.model, {"lr": 1e-2, "controller": controller})
            for name, controller in (("uniform", None), ("temp_balance", "temp_balance"))
        }
        compare(trainers, options)


def compare(trainers: dict[str, Trainer], options: argparse.Namespace) -> None:
    epoch = trainers["uniform"].plan.steps_per_epoch
    updates = {name: trainer.updates() for name, trainer in trainers.items()}

    def train(name: str) -> None:
        for _ in range(epoch):
            next(updates[name])

    ratios, update = {"wall clock": [], "user CPU": []}, []
    for number in range(-1, options.rounds):  # the first to warm up
        names = list(trainers) if number % 2 else list(trainers)[::-1]
        took = {name: timed(lambda name=name: train(name)) for name in names}
        if number >= 0:
            for place, clock in enumerate(ratios):
                ratios[clock].append(took["temp_balance"][place] / took["uniform"][place])
            update.append([seconds / epoch for seconds in took["uniform"]])
    print(f"{options.model}, 32 px, batch {BATCH}, {epoch} updates an epoch, {machine()}")
    print(f"temp_balance, times as long as uniform ({options.rounds} rounds of an epoch each):")
    for clock, values in ratios.items():
        print(f"  {clock:12}{statistics.median(values):.3f}  ({min(values):.3f} to {max(values):.3f})")
    trainer = trainers["temp_balance"]
    meter = TailMeter(trainer.model, trainer.groups, epoch)
    measured = [timed(meter.measure) for _ in range(options.rounds)]
    for place, clock in enumerate(ratios):
        cost, usual = (statistics.median(row[place] for row in rows) for rows in (measured, update))
        print(f"a measurement, {clock}: {1e3 * cost:.0f} ms; an update {1e3 * usual:.0f} ms, of which it is "
              f"{cost / usual:.2f}")  # fmt: skip


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and user CPU seconds of a call."""
    begun = clocks()
    call()
    return tuple(now - then for now, then in zip(clocks(), begun, strict=True))


if __name__ == "__main__":
    main()
