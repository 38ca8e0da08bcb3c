"""Every ready policy trained for real on one fold of a competition; a table of scores and times.

    PYTHONPATH=. python benchmarks/catalogue.py configs/digits.yaml --epochs 3

One fold and one seed, no rate tuned for any policy: a look at what each does, no ranking. Times are of training
alone. `--set` as in `python -m kit run`. The runs are kept in DIR/runs/catalogue, so that an interrupted command
goes on.
"""

import argparse
import json
import platform

import torch

from kit import load_experiment, run
from kit.lr.registry import policy_files, ready_policies


def main() -> None:
    options = parse()
    sentences = ready_policies()
    chosen = options.policy or [name for name in policy_files() if name in sentences]
    overrides = [f"training.epochs={options.epochs}", "folds.run=[0]", "name=catalogue", *options.set]
    result = run(load_experiment(options.config, overrides, chosen), options.output, say=print)
    print(f"\nPython {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| policy | macro F1 | seconds |\n|---|---|---|")
    for name in sorted(result.policies):
        record = json.loads((result.folder / name / "seed0/fold0/run.json").read_text())
        (score,) = record["scores"].values()  # before a decision rule
        print(f"| `{name}` | {score:.3f} | {record['seconds']['training']:.0f} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--policy", action="append", help="these alone (repeat)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", default=".", metavar="DIR")
    return parser.parse_args()


if __name__ == "__main__":
    main()
