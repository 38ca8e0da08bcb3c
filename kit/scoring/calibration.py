"""Probabilities of scores: a gain and a bias for each class, fitted by maximum likelihood.

With one label a row it is temperature scaling with a bias a class (Guo and others 2017, "vector scaling" with one
gain), with several Platt's (1999) for each label.
"""

import numpy as np

PENALTY = 1e-4  # of the squares of gain (in deviations of the scores) and biases: finite where all is told apart
LEAST = 1e-9  # probability that a logarithm is taken of


def probabilities(scores: np.ndarray, gain: np.ndarray, bias: np.ndarray, several: bool) -> np.ndarray:
    """Return probabilities of scores [rows, classes]; a score of −inf is a class that cannot be.

    Parameters
    ----------
    scores : ndarray
    gain, bias : ndarray
        [classes].
    several : bool
        Whether a row may have several labels, each with a probability of its own (sigmoid); else softmax.
    """
    logits = np.where(np.isneginf(scores), -np.inf, gain * np.where(np.isneginf(scores), 0.0, scores) + bias)
    if several:
        return 0.5 * (1 + np.tanh(logits / 2))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(chances: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of −log of the probability of what is true: class index [rows], or bool [rows, classes]."""
    if targets.ndim == 2:
        right = np.where(targets, chances, 1 - chances)
    else:
        right = chances[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(right, LEAST)).mean())


def calibrate(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gain and the bias of each class, [classes] each, under which the targets are likeliest.

    A class of which these rows tell nothing, as the scores of none of its own know it, keeps a bias of 0.

    Parameters
    ----------
    scores : ndarray
        float [rows, classes], of rows that did not decide them.
    targets : ndarray
        Class index [rows]: one gain for all classes; or bool [rows, classes]: one for each.
    """
    from scipy.optimize import minimize

    several, classes = targets.ndim == 2, scores.shape[1]
    if not several:  # rows of a class that these scores do not know tell nothing
        known = np.isfinite(scores[np.arange(len(targets)), targets])
        scores, targets = scores[known], targets[known]
    usable = np.isfinite(scores)
    if not several:  # else a class of one part alone would seem never to be right, and get no probability
        usable &= np.isin(np.arange(classes), targets)
    filled = np.where(usable, scores, 0.0)
    size = max(float(filled[usable].std()) if usable.any() else 0.0, 1e-12)
    there = targets.astype(float) if several else np.eye(classes)[targets]
    if not len(targets):
        return np.ones(classes), np.zeros(classes)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        gain, bias = values[:-classes], values[-classes:]
        gains = np.broadcast_to(gain, classes)
        logits = np.where(usable, filled / size, -np.inf)
        chances = probabilities(logits, gains, bias, several)
        error = np.where(usable, chances - there, 0.0) / len(there)
        slope = (error * filled / size).sum(axis=0)
        wrong = log_loss(chances, targets) * (classes if several else 1)
        step = np.concatenate([slope if several else [slope.sum()], error.sum(axis=0)])
        return wrong + PENALTY * float((values**2).sum()), step + 2 * PENALTY * values

    begin = np.concatenate([np.ones(classes if several else 1), np.zeros(classes)])
    bounds = [(0.0, None)] * (len(begin) - classes) + [(None, None)] * classes
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds).x
    return np.broadcast_to(found[:-classes], classes) / size, found[-classes:]
