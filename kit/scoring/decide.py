"""Choose a decision rule by its cross-fitted score, and decide the test rows with it. See docs/decisions.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.scoring.config import ScoringConfig, Transfer
from kit.scoring.f1 import score
from kit.scoring.fits import FittedRule, fit_rules
from kit.scoring.rules import FEWEST_ROWS, Argmax, ExpectedF, Half, Rule, rule_from_json
from kit.scoring.thresholds import label_limits

__all__ = ["TIE", "Rule", "RuleChoice", "choose_rule", "decide_test", "fit_rule", "plain_rule", "rule_from_json"]

TIE = 0.002  # cross-fitted scores this close are tied, and the simpler rule is taken
_PARTS = 5  # where there are no folds
_NONE = np.empty(0)


@dataclass(frozen=True)
class RuleChoice:
    """A decision rule and what it is worth.

    Attributes
    ----------
    rule : Rule
        Fitted on all rows.
    cross_fitted : float
        The score of `predicted`.
    optimistic : float
        The score of `rule` on the rows it was fitted on.
    predicted : ndarray
        Each row decided by the rule fitted on the other folds: int [rows] or bool [rows, classes]. Prevalence
        matching takes the shares from the other folds, and counts over all rows.
    folds : ndarray
        int [rows], by which the rules were cross-fitted: the folds given, or the parts made instead.
    by_fold : dict of int to Rule
        Fold → the rule fitted on the other folds.
    candidates : list of dict
        name, cross_fitted, optimistic and chosen of each candidate, from the simplest on.
    """

    rule: Rule
    cross_fitted: float
    optimistic: float
    predicted: np.ndarray
    folds: np.ndarray
    by_fold: dict[int, Rule]
    candidates: list[dict[str, Any]]


def choose_rule(
    probabilities: np.ndarray,
    truth: np.ndarray,
    folds: np.ndarray,
    config: ScoringConfig,
    row_groups: np.ndarray | None = None,
) -> RuleChoice:
    """Return the decision rule with the best cross-fitted score on out-of-fold rows.

    Of rules within `TIE` of the best it is the simplest. With `config.rule` other than auto it is that rule,
    cross-fitted as well.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    truth : ndarray
        int [rows] or bool [rows, classes].
    folds : ndarray
        int [rows], the fold that each row was held out in.
    config : ScoringConfig
        The metric, and which rules may be taken.
    row_groups : ndarray or None
        [rows], which rows belong together.

    Raises
    ------
    KitError
        Where there is nothing to fit on, or options do not fit.

    Notes
    -----
    Where there are fewer than two folds the rows are split into five parts, always the same, that keep row groups
    whole; if that gives one part only, the simplest rule is taken.
    """
    probabilities, truth = _checked(probabilities, truth)
    if len(folds) != len(truth):
        raise KitError(f"decision rule: {len(folds)} folds for {len(truth)} rows; give one fold a row")
    multilabel = truth.ndim == 2
    config.check(multilabel, probabilities.shape[1])
    if multilabel:
        least, most = label_limits(truth, config)
        config = config.model_copy(update={"at_least": least, "at_most": most})
    folds = _parts(np.asarray(folds), row_groups)
    names = config.rules(multilabel) if config.rule == "auto" else (config.rule,)
    if len(np.unique(folds)) < 2:  # a single row or group says nothing about a fitted rule
        names = names[:1]
    fitted = fit_rules(names, probabilities, truth, _kept(folds), config)
    tried: list[RuleChoice] = []
    best = -np.inf
    for name in names:
        tried.append(_tried(fitted.pop(name), probabilities, truth, folds, config))
        best = max(best, tried[-1].cross_fitted)
        # The labels of those that will not be chosen are let go: of many classes they take much memory.
        tried = [each if each.cross_fitted >= best - TIE else replace(each, predicted=_NONE) for each in tried]
    chosen = next(each for each in tried if each.cross_fitted >= best - TIE)
    candidates = [_candidate(name, each, each is chosen) for name, each in zip(names, tried, strict=True)]
    return RuleChoice(**{**vars(chosen), "candidates": candidates})


def _candidate(name: str, tried: RuleChoice, chosen: bool) -> dict[str, Any]:
    return {
        "name": name,
        "cross_fitted": tried.cross_fitted,
        "optimistic": tried.optimistic,
        "chosen": chosen,
    }


def fit_rule(name: str, probabilities: np.ndarray, truth: np.ndarray, config: ScoringConfig) -> Rule:
    """Return the rule of this name, fitted on these rows; shapes are as in `choose_rule`."""
    everything = np.ones((1, len(truth)), dtype=bool)
    return fit_rules([name], probabilities, truth, everything, config)[name][0].rule


def plain_rule(probabilities: np.ndarray, multilabel: bool, config: ScoringConfig) -> Rule:
    """Return the rule to take where no labels are at hand to fit one on.

    With one label a row it is the most probable class; with several the highest expected F if that is
    `config.rule`, else a threshold of .5.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes], out of fold: a threshold is moved to test rows by its share of them.
    multilabel : bool
        Whether a row may have several labels.
    config : ScoringConfig
        The fewest labels of a training row are not known: without `config.at_least` each row gets one at least, so
        no row without any label is made.
    """
    if not multilabel:
        return Argmax()
    at_most = probabilities.shape[1] if config.at_most is None else config.at_most
    at_least = 1 if config.at_least is None else config.at_least
    if config.rule == "expected_f":
        return ExpectedF(at_least, at_most, config.beta, config.zero_division)
    return Half(at_least, at_most, threshold=0.5, share=_share(probabilities, 0.5))


def decide_test(rule: Rule, by_fold: Sequence[np.ndarray], transfer: Transfer) -> np.ndarray:
    """Return the labels of the test rows.

    Parameters
    ----------
    rule : Rule
        Fitted on out-of-fold rows.
    by_fold : sequence of ndarray
        The probabilities of each fold's models, float [rows, classes]. Those of one fold are decided directly. Any
        number of rows, none included.
    transfer : {"quantile", "vote", "none"}
        How the rule meets a mean of models, which is less spread than the one model's probabilities that it was
        fitted on; see the notes.

    Returns
    -------
    ndarray
        int [rows] or bool [rows, classes].

    Raises
    ------
    KitError
        Where there are no test probabilities.

    Notes
    -----
    none
        The rule decides on the mean.
    quantile
        As `none`, with thresholds moved to where as large a share of the means lies at or above them as did of the
        rows it was fitted on; for offsets, the means are sharpened to the same mean highest probability. On fewer
        than `FEWEST_ROWS` rows shares mean little: `vote`; a threshold whose share rounds to none of the test rows
        stays where it was.
    vote
        The rule decides on each fold's probabilities, and the majority counts; ties go to the rule's decision on
        the mean (several labels a row) or to the higher mean probability (one label a row). Limits on the number
        of labels hold for the outcome, by the number of votes, then by the mean.
    """
    if len(by_fold) == 0:
        raise KitError("decision rule: no fold has test probabilities; predict the test rows first")
    mean = _mean(by_fold)
    if len(by_fold) == 1 or transfer == "none":
        return rule.decide(mean)
    if transfer == "quantile" and len(mean) >= FEWEST_ROWS:
        return rule.adapted(mean).decide(mean)
    decided = [rule.decide(each) for each in by_fold]
    return _majority(rule, decided, mean)


def _mean(by_fold: Sequence[np.ndarray]) -> np.ndarray:
    mean = by_fold[0].copy()
    for each in by_fold[1:]:
        mean += each
    return mean / len(by_fold)


def _majority(rule: Rule, decided: list[np.ndarray], mean: np.ndarray) -> np.ndarray:
    """Return the labels that most folds decided for."""
    count = len(decided)
    if decided[0].ndim == 1:
        votes = np.zeros(mean.shape)
        for labels in decided:
            votes[np.arange(len(mean)), labels] += 1
        return np.argmax(votes + mean / 2, axis=1)
    votes = np.sum(decided, axis=0)
    chosen = np.where(2 * votes == count, rule.decide(mean), 2 * votes > count)
    return rule.limited(chosen, votes + mean / 2)


def _tried(
    rules: list[FittedRule], probabilities: np.ndarray, truth: np.ndarray, folds: np.ndarray, config: ScoringConfig
) -> RuleChoice:
    """Return one rule, fitted on all rows and without each fold in their order, with what it is worth."""
    predicted = np.zeros(truth.shape, dtype=bool if truth.ndim == 2 else np.int64)
    for fold, fitted in zip(np.unique(folds), rules[1:], strict=True):
        held_out = folds == fold
        predicted[held_out] = fitted.decide(probabilities, held_out)
    return RuleChoice(
        rule=rules[0].rule,
        cross_fitted=score(truth, predicted, config, probabilities),
        optimistic=score(truth, rules[0].decide(probabilities), config, probabilities),
        predicted=predicted,
        folds=folds,
        by_fold={int(fold): each.rule for fold, each in zip(np.unique(folds), rules[1:], strict=True)},
        candidates=[],
    )


def _kept(folds: np.ndarray) -> np.ndarray:
    """Return the rows of each fit, bool [fits, rows]: all, then all without each fold; of one fold all."""
    present = np.unique(folds)
    others = [folds != fold if len(present) > 1 else np.ones(len(folds), dtype=bool) for fold in present]
    return np.stack([np.ones(len(folds), dtype=bool), *others])


def _parts(folds: np.ndarray, row_groups: np.ndarray | None) -> np.ndarray:
    """Return the folds if they are two or more, else five parts of the rows that keep row groups whole."""
    if len(np.unique(folds)) > 1:
        return folds
    members = np.arange(len(folds)) if row_groups is None else np.unique(row_groups, return_inverse=True)[1]
    number = members.max() + 1
    return (np.random.default_rng(0).permutation(number) % _PARTS)[members]


def _checked(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and truth in the types that rules are fitted on; KitError where they do not fit."""
    probabilities, truth = np.asarray(probabilities), np.asarray(truth)
    if probabilities.dtype not in (np.float32, np.float64):
        probabilities = probabilities.astype(np.float32)
    if len(truth) == 0:
        raise KitError("decision rule: there are no out-of-fold rows to fit it on; train a fold first")
    shape = (len(truth), *truth.shape[1:])
    if probabilities.shape[: len(shape)] != shape:
        raise KitError(
            f"decision rule: probabilities {list(probabilities.shape)} and truth {list(truth.shape)} "
            "are not of the same rows and classes"
        )
    if not (probabilities.min() >= 0 and probabilities.max() <= 1):  # false for NaN, too
        raise KitError(
            "decision rule: probabilities must lie in 0 to 1; look for NaN in the out-of-fold predictions"
        )
    if truth.ndim == 1 and not (truth.min() >= 0 and truth.max() < probabilities.shape[1]):
        raise KitError(
            f"decision rule: truth has classes {truth.min()} to {truth.max()}, but the probabilities have "
            f"{probabilities.shape[1]} columns; give class indices from 0"
        )
    return probabilities, truth.astype(bool if truth.ndim == 2 else np.int64, copy=False)


def _share(probabilities: np.ndarray, threshold: float) -> float:
    """Return the share of probabilities at or above a threshold."""
    if probabilities.size == 0:
        return 0.0
    return int(np.count_nonzero(probabilities >= probabilities.dtype.type(threshold))) / probabilities.size
