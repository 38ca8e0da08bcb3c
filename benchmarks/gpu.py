"""What `make gpu` measures: the loop beside others, compiled and not, and what the same bits each time cost.

    PYTHONPATH=. python benchmarks/gpu.py

Part one calls benchmarks/throughput.py for each model and takes the ratios from what it prints. Part two times
updates of the kit's models on one resident batch, in turns within each round: as they are, compiled
(`training.compile`), and with and without `deterministic`, whose convolutions over each channel by itself
(ConvNeXt, EfficientNet) are in channels-last order. The table with the device's name comes at the end.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).parent
LOOPS = (  # model, side in pixels, images an update
    ("resnet50", 224, 128),
    ("convnext_tiny", 224, 128),
    ("vit_small_patch16_224", 224, 128),
    ("resnet18", 32, 128),
)
STEPS = (*LOOPS, ("efficientnet_b0", 224, 128))
WAYS = ("plain", "compiled", "graphs", "free")  # free: deterministic: false


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    value: str


def main() -> None:
    options = parse()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: `make gpu` needs one")
    if options.need:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the kit does: cuBLAS repeats its sums with it
    rows = [] if options.steps_only else [row for loop in LOOPS for row in beside_others(*loop, options)]
    for model, side, batch in STEPS:
        rows += ways_of(model, side, batch, options)
    width = max(len(row.what) for row in rows)
    print(f"\n{torch.cuda.get_device_name()}; torch {torch.__version__}, CUDA {torch.version.cuda}, bf16 or fp16")
    print(f"medians (lowest to highest) of {options.rounds} rounds; loops: columns as above\n")
    for row in rows:
        print(f"{row.what:{width}}  {row.value}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--need", action="store_true", help="only say whether there is a GPU")
    parser.add_argument("--steps-only", action="store_true", help="leave the loops beside others out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="updates a turn")
    return parser.parse_args()


def beside_others(model: str, side: int, batch: int, options: argparse.Namespace) -> list[Row]:
    """The kit's loop and others', by the benchmark of throughput, whose output is shown as well."""
    command = [sys.executable, str(HERE / "throughput.py"), "--model", model, "--size", str(side)]
    command += ["--batch", str(batch), "--steps", str(options.steps), "--rounds", str(options.rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    what = f"{model}, {side} px, batch {batch}"
    if done.returncode:
        return [Row(what, f"failed with exit code {done.returncode}")]
    return [Row(f"{what}: {name}", told) for name, told in lines_of(done.stdout)] or [Row(what, "see above")]


def lines_of(output: str) -> list[tuple[str, str]]:
    """The lines of the benchmark's table: who, and the numbers, as they stand in its columns."""
    return re.findall(r"^(\w+)  +(\d.*)$", output, re.MULTILINE)


def ways_of(model: str, side: int, batch: int, options: argparse.Namespace) -> list[Row]:
    """Updates on a resident batch in several ways, in turns."""
    turns = {way: update_of(model, side, batch, way) for way in WAYS}
    speeds: dict[str, list[float]] = {way: [] for way in turns}
    for number in range(options.rounds + 1):
        for way, (update, put_in_force) in turns.items():
            put_in_force()
            speed = batch / seconds_of(update, options.steps if number else 3)
            if number:  # the first is the warm-up, in which code is compiled
                speeds[way].append(speed)
    rows = []
    for way, values in speeds.items():
        ratios = [value / plain for value, plain in zip(values, speeds["plain"], strict=True)]
        told = f"{statistics.median(values):.0f} images/s, {statistics.median(ratios):.3f} of plain"
        rows.append(Row(f"{model}, {side} px: {way}", f"{told} ({min(ratios):.3f} to {max(ratios):.3f})"))
        print(rows[-1].what, rows[-1].value, flush=True)
    return rows


def update_of(model: str, side: int, batch: int, way: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """What makes an update, and what puts its numerics in force before a turn."""
    import timm

    from kit.training.compiled import Compiled
    from kit.training.device import resolve_precision
    from kit.training.numerics import set_numerics

    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=10, **({"img_size": side} if "vit" in model else {}))
    network = network.cuda().to(memory_format=torch.channels_last).train()
    if way in ("compiled", "graphs"):
        Compiled(network, graphs=way == "graphs")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    inputs = torch.randn(batch, 3, side, side, device="cuda").to(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (batch,), device="cuda")
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[resolve_precision("auto")]

    def update() -> None:
        with torch.autocast("cuda", kind):
            outputs = network(inputs)
        torch.nn.functional.cross_entropy(outputs.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update, lambda: set_numerics(on_gpu=True, deterministic=way != "free")


def seconds_of(update: Callable[[], None], steps: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        update()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


if __name__ == "__main__":
    main()
