"""How often `kit.comparison.intervals` err on simulated studies: the tables of docs/comparing.md.

    PYTHONPATH=. python benchmarks/comparison_simulation.py [--studies 20000] [--learners 4000]

A study is two policies over folds × seeds. Two kinds: drawn from the model of random effects, and of real learners
cross-validated on rows drawn anew. A false alarm: two policies of the same expected score are told apart at 5 %.
Coverage: the 95 % interval holds the expected difference; misses are the other studies. `corrected` is the kit's:
seeds averaged within each fold, then Nadeau & Bengio over the folds. `naive` takes the K · R runs for as many
repetitions. `plain` is the t test on fold means, without any correction.
"""

import argparse
from dataclasses import dataclass

import numpy as np

CLASSES, INPUTS, RIDGE = 4, 6, 1.0
KINDS = {
    "alike": {},
    "40, 10": {"second": 10},
    "40, 10, same inputs": {"second": 10, "apart": False},
}
LEARNERS = "| learners | K × R | rows | expected | common, fold, seed | correlation | corrected | naive | plain |"
_BATCH = 250  # studies at a time


def effects(folds: int, seeds: int, data: float, studies: int, seed: int, expected: float = 0.0) -> np.ndarray:
    """Differences [studies, folds, seeds] of variance 1: expected + c + b_f + e_fs.

    data: share of the variance that the data make: c + b_f, of which c, the same for all folds of a study, has
    1 / folds (Nadeau & Bengio's heuristic); the seed makes the rest.
    """
    generator = np.random.default_rng(seed)
    common, fold, noise = data / folds, data * (1 - 1 / folds), 1 - data
    return (
        expected
        + np.sqrt(common) * generator.standard_normal((studies, 1, 1))
        + np.sqrt(fold) * generator.standard_normal((studies, folds, 1))
        + np.sqrt(noise) * generator.standard_normal((studies, folds, seeds))
    )


@dataclass(frozen=True)
class World:
    """Two learners, and the studies of them.

    rows: of a fold, as many of each class; first, second: numbers of random features of the learners. apart: each
    learner sees a half of the inputs, exchangeable with the other's: with as many features, their expected scores
    are equal, but on given data one half happens to tell more. Else both see the same inputs, and the second takes
    some of the first's features.
    """

    folds: int = 5
    seeds: int = 3
    rows: int = 20
    first: int = 40
    second: int = 40
    apart: bool = True


def learners(world: World, studies: int, seed: int) -> np.ndarray:
    """Differences in macro F1 [studies, folds, seeds], first learner less second, in real cross-validation.

    Rows are drawn anew for each study from a Gaussian mixture of 4 classes. A learner is ridge regression on the
    classes, on tanh of random projections of 6 inputs; its seed draws the projections.
    """
    generator = np.random.default_rng(seed)
    batches = [_batch(world, min(_BATCH, studies - start), generator) for start in range(0, studies, _BATCH)]
    return np.concatenate(batches)


def _batch(world: World, studies: int, generator: np.random.Generator) -> np.ndarray:
    truth = np.tile(np.arange(CLASSES), (studies, world.folds, world.rows // CLASSES))
    centres = 0.7 * np.random.default_rng(7).standard_normal((CLASSES, INPUTS), np.float32)
    halves = [
        centres[truth] + generator.standard_normal((*truth.shape, INPUTS), np.float32)
        for _ in range(1 + world.apart)
    ]
    differences = np.empty((studies, world.folds, world.seeds))
    for run in range(world.seeds):
        drawn = [_projections(generator, studies, world.first)]
        drawn.append(_projections(generator, studies, world.second) if world.apart else drawn[0])
        first = _scores(halves[0], truth, drawn[0])
        second = _scores(halves[-1], truth, tuple(each[..., : world.second] for each in drawn[1]))
        differences[..., run] = first - second
    return differences


def _projections(generator: np.random.Generator, studies: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    weights = generator.standard_normal((studies, 1, INPUTS, features), np.float32) / np.float32(np.sqrt(INPUTS))
    return weights, 2 * generator.random((studies, 1, 1, features), np.float32) - 1


def _scores(inputs: np.ndarray, truth: np.ndarray, projections: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Macro F1 of each fold, trained on the others: [studies, folds]."""
    weights, biases = projections
    features = np.tanh(inputs @ weights + biases)
    features = np.concatenate([features, np.ones((*truth.shape, 1), np.float32)], axis=-1)
    turned = np.swapaxes(features, -1, -2)
    squares = turned @ features
    targets = turned @ ((truth[..., None] == np.arange(CLASSES)) - np.float32(1 / CLASSES))
    squares, targets = (each.sum(axis=1, keepdims=True) - each for each in (squares, targets))  # all but the fold
    solved = np.linalg.solve(squares + RIDGE * np.eye(squares.shape[-1], dtype=np.float32), targets)
    return macro_f1(truth, np.argmax(features @ solved, axis=-1))


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Macro F1 over the last axis of labels int [..., rows], over classes that are there or predicted."""
    shape, rows = truth.shape[:-1], truth.shape[-1]
    keys = np.arange(truth.size // rows)[:, None] * CLASSES
    truth, predicted = truth.reshape(-1, rows) + keys, predicted.reshape(-1, rows) + keys
    positive, chosen, hits = (
        np.bincount(each.ravel(), minlength=len(keys) * CLASSES).reshape(-1, CLASSES)
        for each in (truth, predicted, truth[truth == predicted])
    )
    either = positive + chosen
    f = (2 * hits / np.maximum(either, 1)).sum(axis=1) / np.count_nonzero(either, axis=1)
    return f.reshape(shape)


def outside(differences: np.ndarray, expected: float, ratio: float, level: float = 0.95) -> float:
    """Share of the studies whose corrected interval misses `expected`: the formula of `corrected_interval`.

    differences [studies, folds, seeds]. Of `naive(differences)` it is the formula for K · R repetitions.
    """
    from scipy.special import stdtrit

    means = differences.mean(axis=-1)
    folds = means.shape[1]
    error = np.sqrt(means.var(axis=1, ddof=1) * (1 / folds + ratio))
    return float(np.mean(np.abs(means.mean(axis=1) - expected) > stdtrit(folds - 1, (1 + level) / 2) * error))


def naive(differences: np.ndarray) -> np.ndarray:
    """Each run as if it were a fold of its own: [studies, folds · seeds, 1]."""
    return differences.reshape(len(differences), -1, 1)


def ratio_of(folds: int) -> float:
    """Held-out rows / training rows."""
    return 1 / (folds - 1)


def shares(differences: np.ndarray) -> tuple[float, float, float]:
    """Shares of the variance of a difference that are common to a study's folds, the fold's, and the seed's.

    differences [studies, folds, seeds]. With one seed the fold's share holds the seed's, which is nan.
    """
    _, folds, seeds = differences.shape
    means = differences.mean(axis=-1)
    seed = differences.var(axis=-1, ddof=1).mean() if seeds > 1 else np.nan
    between = means.var(axis=1, ddof=1).mean()
    common = means.mean(axis=1).var(ddof=1) - between / folds
    fold = between - np.nan_to_num(seed) / seeds
    whole = common + fold + np.nan_to_num(seed)
    return common / whole, fold / whole, seed / whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20000, help="of the model of random effects")
    parser.add_argument("--learners", type=int, default=4000, help="of real learners")
    options = parser.parse_args()
    print(f"Random effects, {options.studies:,} studies a line\n")
    print("| folds × seeds | data effects | false alarms: corrected | naive | plain | coverage: corrected |")
    print("|---|---|---|---|---|---|")
    for folds, seeds in ((5, 1), (5, 3), (10, 2), (3, 3)):
        for data in (0.98, 0.75, 0.5, 0.1):
            if seeds == 1 and data == 0.1:
                continue
            null = effects(folds, seeds, data, options.studies, 0)
            apart = effects(folds, seeds, data, options.studies, 1, expected=1.0)
            told = _told(null, 0, folds)
            covered = _percent(1 - outside(apart, 1.0, ratio_of(folds)))
            print(f"| {folds} × {seeds} | {data:.0%} | {told} | {covered} |", flush=True)
    print(f"\nReal learners, {options.learners:,} studies a line\n")
    print("| learners | K × R | rows | expected | common, fold, seed | correlation | corrected | naive | plain |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, kind in KINDS.items():
        for folds, seeds, rows in ((5, 1, 20), (5, 3, 20), (10, 2, 12), (3, 3, 32), (5, 3, 60)):
            world = World(folds, seeds, rows, **kind)
            drawn = learners(world, options.learners, 0)
            expected = 0.0
            if world.first != world.second:
                expected = float(learners(world, 4 * options.learners, 1).mean())
            common, fold, seed = shares(drawn)
            parts = ", ".join("–" if np.isnan(each) else f"{each:.0%}" for each in (common, fold, seed))
            correlation = f"{common / (common + fold):.2f} ({1 / folds:.2f})"
            told = _told(drawn, expected, folds)
            cells = (name, f"{folds} × {seeds}", f"{folds * rows}", f"{expected:+.3f}", parts, correlation, told)
            print(f"| {' | '.join(cells)} |", flush=True)


def _told(differences: np.ndarray, expected: float, folds: int) -> str:
    """Errors of the three formulas, as cells of a table."""
    ratio = ratio_of(folds)
    each = (
        outside(differences, expected, ratio),
        outside(naive(differences), expected, ratio),
        outside(differences, expected, 0),
    )
    return " | ".join(map(_percent, each))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
