"""What pseudo-labels do to the out-of-fold score and to fresh rows, with known truth (docs/extra-data.md).

    PYTHONPATH=. python benchmarks/pseudo.py [--replications 100]

Rows are drawn anew for each replication: Gaussian classes in many dimensions, a share of the labels wrong. Folds
and the choice of pseudo-labels are the kit's; multinomial logistic regression stands in place of networks. `mean`:
every fold trains on labels by the mean of all fold models. `fold by fold`: as `kit pseudo` does it. Fresh rows are
many, of the same kind, with labels as wrong; each fold model is scored on them.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from kit.competition.folds import FoldPlan, make_folds
from kit.competition.folds_config import FoldsConfig
from kit.experiment.pseudo_labels import PseudoOptions, labelled
from kit.scoring.config import ScoringConfig
from kit.scoring.f1 import score

WAYS = ("mean", "fold by fold")
METRIC = ScoringConfig(rule="argmax")


@dataclass(frozen=True)
class World:
    """classes: their centres lie at `distance` from the origin, each in a direction of its own, among `inputs` of
    variance 1. wrong: share of the rows whose label is drawn at random. rows: to train and to hold out."""

    classes: int = 3
    inputs: int = 80
    distance: float = 3.5
    wrong: float = 0.1
    rows: int = 150
    unlabelled: int = 600
    fresh: int = 4000
    folds: int = 5
    inverse_penalty: float = 0.1

    def draw(self, rows: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs [rows, inputs] and labels [rows]."""
        truth = generator.integers(0, self.classes, rows)
        inputs = generator.standard_normal((rows, self.inputs))
        inputs[np.arange(rows), truth] += self.distance
        wrong = generator.random(rows) < self.wrong
        return inputs, np.where(wrong, generator.integers(0, self.classes, rows), truth)

    def fit(self, inputs: np.ndarray, shares: np.ndarray) -> LogisticRegression:
        """A model of rows with shares of classes: each row stands there once a class, weighted by its share."""
        row, label = np.nonzero(shares)
        model = LogisticRegression(C=self.inverse_penalty, max_iter=500)
        return model.fit(inputs[row], label, sample_weight=shares[row, label])


KINDS = {
    "clear classes, a tenth of the labels wrong": World(),
    "weak signal, a third of the labels wrong": World(distance=2.5, wrong=1 / 3, inverse_penalty=1.0),
}
OPTIONS = {
    "hard, from .9": PseudoOptions(at_least=0.9),
    "soft, all": PseudoOptions(soft=True),
}


@dataclass(frozen=True)
class Drawn:
    """One replication's rows: inputs and labels of each kind, and the fold plan of the first."""

    inputs: np.ndarray
    labels: np.ndarray
    plan: FoldPlan
    unlabelled: np.ndarray
    fresh: np.ndarray
    fresh_labels: np.ndarray


def draw(world: World, seed: int) -> Drawn:
    """The rows of replication `seed`."""
    generator = np.random.default_rng(seed)
    inputs, labels = world.draw(world.rows, generator)
    unlabelled, _ = world.draw(world.unlabelled, generator)
    fresh, fresh_labels = world.draw(world.fresh, generator)
    plan = make_folds([str(row) for row in range(world.rows)], labels, FoldsConfig(k=world.folds, seed=seed))
    return Drawn(inputs, labels, plan, unlabelled, fresh, fresh_labels)


def train(world: World, drawn: Drawn, taken: Mapping[int, pd.DataFrame] | None = None) -> list[LogisticRegression]:
    """The model of each fold, on its training rows and the pseudo-labels of that fold."""
    models = []
    for fold in range(world.folds):
        rows = drawn.plan.training_rows(fold)
        inputs, shares = drawn.inputs[rows], np.eye(world.classes)[drawn.labels[rows]]
        if taken is not None:
            extra = taken[fold].index.to_numpy(dtype=int)
            inputs = np.concatenate([inputs, drawn.unlabelled[extra]])
            shares = np.concatenate([shares, taken[fold].to_numpy()])
        models.append(world.fit(inputs, shares))
    return models


def labels_of(
    models: Sequence[LogisticRegression], world: World, drawn: Drawn, way: str, options: PseudoOptions
) -> dict[int, pd.DataFrame]:
    """By fold, the pseudo-labels that it trains on."""
    names = [f"{row:06d}" for row in range(len(drawn.unlabelled))]
    each = [pd.DataFrame(model.predict_proba(drawn.unlabelled), index=names) for model in models]
    mean = sum(each[1:], each[0]) / len(each)
    return {fold: labelled(mean if way == "mean" else each[fold], options, False) for fold in range(world.folds)}


def scores(models: Sequence[LogisticRegression], drawn: Drawn) -> tuple[float, float]:
    """Macro F1 out of fold, and on fresh rows: the mean over the fold models."""
    oof = np.empty(len(drawn.labels), dtype=np.int64)
    for fold, model in enumerate(models):
        rows = drawn.plan.validation_rows(fold)
        oof[rows] = model.predict(drawn.inputs[rows])
    fresh = [score(drawn.fresh_labels, model.predict(drawn.fresh), METRIC) for model in models]
    return score(drawn.labels, oof, METRIC), float(np.mean(fresh))


def replication(
    world: World, options: PseudoOptions, seed: int, rounds: int = 1, ways: Sequence[str] = WAYS
) -> dict[str, tuple[float, float]]:
    """Out-of-fold and fresh score without pseudo-labels ("none") and after each way and round."""
    drawn = draw(world, seed)
    first = train(world, drawn)
    found = {"none": scores(first, drawn)}
    for way in ways:
        models = first
        for number in range(1, rounds + 1):
            models = train(world, drawn, labels_of(models, world, drawn, way, options))
            found[way if number == 1 else f"{way}, round {number}"] = scores(models, drawn)
    return found


def study(world: World, options: PseudoOptions, replications: int, rounds: int = 1) -> dict[str, np.ndarray]:
    """By way, [replications, 2]: out-of-fold and fresh scores."""
    each = [replication(world, options, seed, rounds) for seed in range(replications)]
    return {way: np.array([found[way] for found in each]) for way in each[0]}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval, by the t distribution."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replications", type=int, default=100)
    count = parser.parse_args().replications
    print("| rows | pseudo-labels | OOF | fresh | OOF − fresh | gain on fresh rows |")
    print("|---|---|---|---|---|---|")
    for kind, world in KINDS.items():
        for taken, options in OPTIONS.items():
            found = study(world, options, count, rounds=2)
            for way, values in found.items():
                if way == "none" and options is not OPTIONS["hard, from .9"]:
                    continue
                optimism = "{:+.3f} ± {:.3f}".format(*interval(values[:, 0] - values[:, 1]))
                gain = "{:+.3f} ± {:.3f}".format(*interval(values[:, 1] - found["none"][:, 1]))
                oof, fresh = values.mean(axis=0)
                about = "none" if way == "none" else f"{taken}; {way}"
                gain = "" if way == "none" else gain
                print(f"| {kind} | {about} | {oof:.3f} | {fresh:.3f} | {optimism} | {gain} |", flush=True)
                kind = ""


if __name__ == "__main__":
    main()
