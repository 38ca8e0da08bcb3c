"""What asking a policy costs through the door of own code, beside the kit's own twin of it.

    PYTHONPATH=. python benchmarks/own_policy.py

Both are a cosine without a warm-up over layer decay, for ten depth groups; rounds alternate, in one process. The
ratio is of CPU seconds.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from kit.lr import Clock, PolicyConfig, PolicyGroup

CODE = """
import math
def cosine(clock): return (1 + math.cos(math.pi * clock.progress)) / 2
def decay(clock, group): return 0.75 ** group.above
"""
GROUPS = [PolicyGroup(index, 10, f"g{index}", 100) for index in range(10)]
STEPS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(CODE)
        contents = {
            "built in": {"lr": 1e-2, "schedule": {"name": "cosine", "warmup": 0}, "profile": "layer_decay"},
            "own code": {"lr": 1e-2, "schedule": "mine.py:cosine", "profile": "mine.py:decay"},
        }
        policies = {
            name: PolicyConfig.model_validate(content, context={"folder": Path(folder)}).build()
            for name, content in contents.items()
        }
        first, second = (policy.matrix(GROUPS, 50).lr for policy in policies.values())
        assert abs(first - second).max() < 1e-15
        seconds: dict[str, list[float]] = {name: [] for name in policies}
        for _ in range(rounds):
            for name, policy in policies.items():
                begun = time.process_time()
                for step in range(STEPS):
                    policy.rates(Clock(step, STEPS, 100), GROUPS)
                seconds[name].append((time.process_time() - begun) / STEPS)
    for name, each in seconds.items():
        print(f"{name}: {1e6 * statistics.median(each):.1f} µs ({1e6 * min(each):.1f} to {1e6 * max(each):.1f})")
    ratios = [own / ours for ours, own in zip(seconds["built in"], seconds["own code"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
