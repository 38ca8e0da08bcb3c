"""Images augmented a second: on the device in batches, and by albumentations one at a time, in turns.

    PYTHONPATH=. python benchmarks/augment.py --size 32 --batch 64

Each turn augments `--batches` batches of random pixels; a round has one turn of each, and its ratio is formed
within the round. On a CPU seconds are those of this process' processor time, on a GPU those of the clock, with the
device waited for at the end of a turn. What is drawn is told apart: on a GPU that is all that the CPU computes.
"""

import argparse
import os
import platform
import statistics
import time

import numpy as np
import torch

from kit.data.augment import Augmentation
from kit.data.config import DataConfig
from kit.data.device.augment import DeviceAugmentation
from kit.data.device.resident import to_device


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    began, busy = time.monotonic(), time.process_time()
    device = torch.device(options.device)
    print(f"{options.size} px, batches of {options.batch}; {named(device)}, torch {torch.__version__}")
    print(f"{'augment':8} {'albumentations':>16} {'device':>12} {'of it draws':>12}   device / albumentations")
    for preset in ("light", "medium", "heavy"):
        show(preset, measured(preset, device, options))
    used, passed = time.process_time() - busy, time.monotonic() - began
    print(f"{used:.0f} s of processor time in {passed:.0f} s; {os.getloadavg()[0]:.1f} processes wanted to run")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=10, help="a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "a CPU"


def measured(preset: str, device: torch.device, options: argparse.Namespace) -> list[tuple[float, float, float]]:
    """Of each round the seconds an image: albumentations, the device, and the draws for the device."""
    config = DataConfig(size=options.size, channels=options.channels, augment=preset)
    shape = (options.batch, options.size, options.size, options.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    there, one_by_one, at_once = to_device(pixels, device), Augmentation(config), DeviceAugmentation(config)

    def albumentations(seeds: np.ndarray) -> None:
        np.stack([one_by_one(image, int(seed)) for image, seed in zip(pixels, seeds, strict=True)])

    def on_device(seeds: np.ndarray) -> None:
        at_once(there, to_device(at_once.draw(seeds), device))

    turns = (albumentations, on_device, at_once.draw)
    for turn in turns:
        seconds(turn, device, options, 0)
    return [
        tuple(seconds(turn, device, options, number) for turn in turns)  # type: ignore[misc]
        for number in range(1, options.rounds + 1)
    ]


def seconds(turn, device: torch.device, options: argparse.Namespace, number: int) -> float:
    """Seconds an image of a turn."""
    clock = time.monotonic if device.type == "cuda" else time.process_time
    generator = np.random.default_rng(number)
    each = generator.integers(0, 2**64, (options.batches, options.batch), dtype=np.uint64)
    began = clock()
    for seeds in each:
        turn(seeds)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - began) / each.size


def show(preset: str, rounds: list[tuple[float, float, float]]) -> None:
    speeds = [1 / statistics.median(column) for column in zip(*rounds, strict=True)]
    ratios = sorted(one / other for one, other, _ in rounds)
    print(
        f"{preset:8} {speeds[0]:12,.0f} /s {speeds[1]:10,.0f} /s {speeds[1] / speeds[2]:11.0%}   "
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
