"""What asking a policy and writing its rates costs, as a share of an update of ResNet-18 at 32 px, batch 64.

    PYTHONPATH=. python benchmarks/policy_overhead.py

One group a block. Beside it timm's layer decay: its cosine scheduler's `step_update` over its own groups. Each
round times the update and the writing of every contender right after one another; shares are formed within the
round.
"""

import argparse
import platform
import statistics
import time

import timm
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler

from kit.lr import PolicyConfig
from kit.lr.registry import policy_content, policy_files
from kit.model.groups import depth_groups
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer
from kit.training.rates import RateWriter

CHOSEN = ("uniform", "discriminative_tenth", "layer_decay", "bleed_in", "freeze_out", "fine_tune")
STEPS = 100_000  # planned; only a few are made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=300, help="calls of a contender a round")
    parser.add_argument("--all", action="store_true", help="every ready policy without a controller")
    options = parser.parse_args()
    update = make_update()
    contenders = {"timm's layer decay": timms()}
    for name in sorted(policy_files()) if options.all else CHOSEN:
        config = PolicyConfig.model_validate(policy_content(name, policy_files()[name]))
        if not config.controller:
            contenders[name] = kits(config.model_copy(update={"groups": "block"}) if name != "table" else config)
    for _ in range(3):
        update()
    shares = {name: [] for name in contenders}
    costs = {name: [] for name in contenders}
    for _ in range(options.rounds):
        seconds = timed(update, 5)
        for name, write in contenders.items():
            costs[name].append(timed(write, options.calls))
            shares[name].append(costs[name][-1] / seconds)
    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    print(f"ResNet-18, 32 px, batch 64, {device}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"one update: {1e3 * seconds:.1f} ms (last round); medians of {options.rounds} rounds\n")
    for name in contenders:
        percent = [100 * share for share in shares[name]]
        print(
            f"{name:24}{1e6 * statistics.median(costs[name]):8.0f} µs  {statistics.median(percent):.3f} % of an "
            f"update ({min(percent):.3f} to {max(percent):.3f})"
        )


def timed(call, times: int) -> float:
    """Seconds a call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def make_update():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = timm.create_model("resnet18", num_classes=10).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inputs = torch.randn(64, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (64,), device=device)

    def update():
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def kits(config: PolicyConfig):
    """Rates, writing, recording and checking, as the loop does around every update."""
    model = timm.create_model("resnet18", num_classes=10)
    groups, policy = depth_groups(model, config.groups), config.build()
    optimizer = build_optimizer(OptimizerConfig(), model, groups, torch.device("cpu"), policy.peak)
    writer = RateWriter(policy, groups, STEPS, STEPS // 10)
    step = iter(range(STEPS))

    def write():
        now = next(step)
        writer.write(now, optimizer)
        writer.record(now, optimizer)
        writer.confirm(now, optimizer)

    return write


def timms():
    model = timm.create_model("resnet18", num_classes=10)
    optimizer = create_optimizer_v2(param_groups_layer_decay(model, layer_decay=0.75), opt="adamw", lr=1e-3)
    scheduler = CosineLRScheduler(optimizer, t_initial=STEPS, t_in_epochs=False)
    step = iter(range(STEPS))
    return lambda: scheduler.step_update(next(step))


if __name__ == "__main__":
    main()
