"""Decision rules on simulated fold models with known truth: the tables of docs/decisions.md.

    PYTHONPATH=.:tests python benchmarks/decision_rules.py [--few]

A rule is fitted on 5,000 out-of-fold rows of 28 long-tailed classes and meets 5,000 fresh rows, of one model and
of the mean of five. Means over replicates; `+-` is the largest standard error of a mean in the table. `--few`: few
test rows, and the thresholds of which classes are moved to keep their share of them.
"""

import argparse
from dataclasses import replace
from itertools import islice

import numpy as np
from support.simulation import KINDS, TRANSFERS, World, draw, oracle, outcome

from kit.scoring.config import ScoringConfig
from kit.scoring.decide import fit_rule
from kit.scoring.f1 import score
from kit.scoring.rules import Prevalence, Thresholds
from kit.scoring.thresholds import threshold_at

COLUMNS = ("cross_fitted", "optimistic", "fresh", *TRANSFERS)
BOUNDS = (0, 0.2, 0.5, 1, 2, 5)  # rows that a class must be expected in for its threshold to be moved
FEW = (120, 200, 500, 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=40)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--least", type=float, help="share of rows of the rarest class")
    parser.add_argument("--tables", type=int, default=len(KINDS), help="only the first ones")
    parser.add_argument("--few", action="store_true", help="the table of few test rows only")
    options = parser.parse_args()
    if options.few:
        few_rows(options.replicates, options.rows)
    else:
        tables(options)


def tables(options: argparse.Namespace) -> None:
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


def few_rows(replicates: int, rows: int) -> None:
    """Macro F1 on the mean of five models, of few rows at a time, with a rarest class of .08 % of the rows."""
    config, scores = ScoringConfig(), {}
    for seed in range(replicates):
        drawn, fresh = (draw(World(least=0.0008), rows, 2 * seed + which) for which in (0, 1))
        mean = np.mean(fresh.by_fold, axis=0)
        for name in ("prevalence", "thresholds"):
            rule = fit_rule(name, drawn.oof, drawn.truth, config)
            for few in FEW:
                for start in range(0, rows - few + 1, max(few, 500)):
                    met = slice(start, start + few)
                    for bound in BOUNDS:
                        value = score(fresh.truth[met], moved(rule, mean[met], bound).decide(mean[met]), config)
                        scores.setdefault((name, few, bound), []).append(value)
    print(f"| rule, test rows | {' | '.join(map(str, BOUNDS))} |\n|---|{'---|' * len(BOUNDS)}")
    for name in ("prevalence", "thresholds"):
        for few in FEW:
            means = [shown(np.mean(scores[name, few, bound])) for bound in BOUNDS]
            print(f"| {name}, {few:,} | {' | '.join(means)} |")


def moved(rule: Prevalence | Thresholds, mean: np.ndarray, bound: float) -> Thresholds:
    """The thresholds of classes expected in `bound` or more of these rows, moved to keep their share."""
    columns = zip(rule.thresholds, rule.shares, mean.T, strict=True)
    thresholds = tuple(
        threshold_at(column, share) if threshold < np.inf and share * len(mean) >= bound else threshold
        for threshold, share, column in columns
    )
    return Thresholds(rule.at_least, rule.at_most, thresholds, rule.shares)


def shown(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
