"""Decision rules on simulated fold models with known truth: the tables of docs/decisions.md.

    PYTHONPATH=.:tests/scoring python benchmarks/decision_rules.py

A rule is fitted on 5,000 out-of-fold rows of 28 long-tailed classes and meets 5,000 fresh rows, of one model and
of the mean of five. Means over replicates; `+-` is the largest standard error of a mean in the table.
"""

import argparse
from dataclasses import replace
from itertools import islice

import numpy as np
from simulation import KINDS, TRANSFERS, oracle, outcome

COLUMNS = ("cross_fitted", "optimistic", "fresh", *TRANSFERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=40)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--least", type=float, help="share of rows of the rarest class")
    parser.add_argument("--tables", type=int, default=len(KINDS), help="only the first ones")
    options = parser.parse_args()
    for title, (world, config) in islice(KINDS.items(), options.tables):
        world = world if options.least is None else replace(world, least=options.least)
        seeds = range(options.replicates)
        outcomes = [outcome(world, config, seed, options.rows) for seed in seeds]
        best = [oracle(world, config, seed, options.rows) for seed in seeds[: max(options.replicates // 4, 1)]]
        table = {
            name: np.array([[each[name][column] for column in COLUMNS] for each in outcomes])
            for name in (*config.rules(world.several), "shipped")
        }
        error = max(rows.std(axis=0, ddof=1).max() / len(rows) ** 0.5 for rows in table.values())
        print(f"\n{title}, {options.replicates} replicates, +- {shown(error)}\n")
        print("| rule | cross-fitted | optimistic | fresh, one model | mean: none | mean: quantile | mean: vote |")
        print("|---|---|---|---|---|---|---|")
        for name, rows in table.items():
            print(f"| {name} | {' | '.join(map(shown, rows.mean(axis=0)))} |")
        fresh, none = (shown(np.mean([each[key] for each in best])) for key in ("fresh", "none"))
        print(f"| oracle | | | {fresh} | {none} | | |")


def shown(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
