"""Out-of-fold and fresh rows of fold models, with known truth.

Each row has log-odds of its labels; a fold model knows them up to noise that all fold models share (what the data
do not tell) and noise of its own. An out-of-fold row is predicted by one model, a fresh row by each of them.
"""

from dataclasses import dataclass

import numpy as np

from kit.scoring.config import ScoringConfig
from kit.scoring.decide import choose_rule, decide_test, fit_rule
from kit.scoring.f1 import score

FOLDS = 5
TRANSFERS = ("none", "quantile", "vote")


@dataclass(frozen=True)
class World:
    """classes, from the share of positive rows `most` down to `least`, evenly in the logarithm.

    clarity: spread of the true log-odds within a class; shared, own: spreads of the noises; bias: spread over the
    classes of what all models add to a class's log-odds.
    """

    several: bool = True
    classes: int = 28
    most: float = 0.3
    least: float = 0.007
    clarity: float = 4.0
    shared: float = 0.5
    own: float = 1.5
    bias: float = 0.7


@dataclass(frozen=True)
class Drawn:
    """truth bool [rows, classes] or int [rows]; folds int [rows]; oof float32 [rows, classes]; by_fold, a list of
    each fold model's probabilities of all rows."""

    truth: np.ndarray
    folds: np.ndarray
    oof: np.ndarray
    by_fold: list[np.ndarray]


KINDS = {
    "several labels a row, macro F1": (World(), ScoringConfig()),
    "several labels a row, samples F1": (World(), ScoringConfig(average="samples")),
    "one label a row, macro F1": (World(several=False, clarity=2.5, own=1.0), ScoringConfig()),
}


def draw(world: World, rows: int, seed: int) -> Drawn:
    generator = np.random.default_rng(seed)
    shape = (rows, world.classes)
    shares = np.geomspace(world.most, world.least, world.classes)
    spread = world.clarity * generator.standard_normal(shape, np.float32)
    if world.several:
        # A logistic of a normal has its mean near sigmoid(b / sqrt(1 + π σ² / 8)).
        wide = np.sqrt(1 + np.pi * world.clarity**2 / 8)
        odds = spread + (wide * np.log(shares / (1 - shares))).astype(np.float32)
        truth = generator.random(shape, np.float32) < _sigmoid(odds)
    else:
        odds = spread + np.log(shares).astype(np.float32)
        truth = np.argmax(odds + generator.gumbel(size=shape), axis=1)
    bias = world.bias * np.random.default_rng(world.classes).standard_normal(world.classes, np.float32)
    known = odds + bias + world.shared * generator.standard_normal(shape, np.float32)
    squash = _sigmoid if world.several else _softmax
    by_fold = [squash(known + world.own * generator.standard_normal(shape, np.float32)) for _ in range(FOLDS)]
    folds = _stratified(truth, generator)
    return Drawn(truth, folds, np.stack(by_fold)[folds, np.arange(rows)], by_fold)


def _stratified(truth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows dealt to the folds in turns, by their rarest label: the classes are ordered by frequency."""
    rarest = truth if truth.ndim == 1 else np.where(truth.any(1), truth.shape[1] - np.argmax(truth[:, ::-1], 1), 0)
    order = np.lexsort((generator.random(len(truth)), rarest))
    folds = np.empty(len(truth), dtype=np.int64)
    folds[order] = np.arange(len(truth)) % FOLDS
    return folds


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def _softmax(odds: np.ndarray) -> np.ndarray:
    powers = np.exp(odds - odds.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def outcome(world: World, config: ScoringConfig, seed: int, rows: int = 5000) -> dict[str, dict[str, float]]:
    """Scores of each rule and of the shipped one, fitted on `rows` rows and met by as many fresh ones.

    rule → cross_fitted, optimistic, fresh (one model), and each transfer to the mean of the fold models.
    """
    drawn, fresh = draw(world, rows, 2 * seed), draw(world, rows, 2 * seed + 1)
    choice = choose_rule(drawn.oof, drawn.truth, drawn.folds, config)
    outcomes = {}
    for candidate in choice.candidates:
        rule = fit_rule(candidate["name"], drawn.oof, drawn.truth, config)
        outcomes[candidate["name"]] = {
            "cross_fitted": candidate["cross_fitted"],
            "optimistic": candidate["optimistic"],
            "fresh": score(fresh.truth, rule.decide(fresh.by_fold[0]), config),
            **{each: score(fresh.truth, decide_test(rule, fresh.by_fold, each), config) for each in TRANSFERS},
        }
        if candidate["chosen"]:
            outcomes["shipped"] = outcomes[candidate["name"]]
    return outcomes


def oracle(world: World, config: ScoringConfig, seed: int, rows: int = 5000) -> dict[str, float]:
    """Fresh scores of the richest rule, fitted on eight times as many rows of the very kind it decides."""
    many, fresh = draw(world, 8 * rows, 10_000 + seed), draw(world, rows, 2 * seed + 1)
    name = config.rules(world.several)[-1]
    scores = {}
    for key, seen, met in (
        ("fresh", many.by_fold[0], fresh.by_fold[0]),
        ("none", np.mean(many.by_fold, axis=0), np.mean(fresh.by_fold, axis=0)),
    ):
        scores[key] = score(fresh.truth, fit_rule(name, seen, many.truth, config).decide(met), config)
    return scores
