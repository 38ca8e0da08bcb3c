"""The predictions of several rows pooled into one, where what is predicted has more than one image."""

from typing import Literal

import numpy as np

from kit.core.errors import KitError

Pool = Literal["mean", "max", "noisy-or"]
_COLUMNS = 16  # that are pooled at a time


def pool_rows(probabilities: np.ndarray, observation: np.ndarray, pool: Pool, exclusive: bool) -> np.ndarray:
    """Return one prediction an observation, of the predictions of its rows.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes].
    observation : ndarray
        int64 [rows]: which observation a row is of, numbered from 0 without gaps.
    pool : {"mean", "max", "noisy-or"}
        See the notes.
    exclusive : bool
        Whether a row has one label, so that its probabilities are shares of one; else each class is for itself.

    Returns
    -------
    ndarray
        float64 [observations, classes].

    Raises
    ------
    KitError
        For noisy-or with three or more classes that exclude each other: it tells of one event whether any row
        shows it.

    Notes
    -----
    Of the probabilities p of a class in the rows of an observation, mean is Σp/n, max the highest, and noisy-or
    1 − Π(1 − p), the probability that at least one row shows it if each does so independently (Pearl 1988,
    Probabilistic Reasoning in Intelligent Systems, section 4.3.2). Of two exclusive classes the second is pooled
    so, and the first gets the rest; of more, the pooled values are divided by their sum.
    """
    values = np.asarray(probabilities)
    classes = values.shape[1]
    need_poolable(pool, exclusive, classes)
    binary = exclusive and classes == 2
    pooled = _pooled(values[:, 1:] if binary else values, np.asarray(observation), pool)
    if binary:
        return np.concatenate([1 - pooled, pooled], axis=1)
    return pooled / pooled.sum(axis=1, keepdims=True) if exclusive else pooled


def need_poolable(pool: Pool, exclusive: bool, classes: int) -> None:
    """Raise KitError where predictions of so many classes cannot be pooled in this way; see `pool_rows`."""
    if exclusive and classes > 2 and pool == "noisy-or":
        raise KitError(
            f"competition.predict_by: pool noisy-or is for an event, not for {classes} classes of which a row has "
            "one; take mean or max"
        )


def _pooled(values: np.ndarray, observation: np.ndarray, pool: Pool) -> np.ndarray:
    """Each column for itself, some at a time, so that a large table is not held twice."""
    counts = np.bincount(observation)
    made = np.empty((len(counts), values.shape[1]))
    if not len(counts):
        return made
    order, starts = np.argsort(observation, kind="stable"), np.cumsum(counts) - counts
    for first in range(0, values.shape[1], _COLUMNS):
        part = slice(first, first + _COLUMNS)
        rows = values[order, part].astype(np.float64)
        if pool == "max":
            made[:, part] = np.maximum.reduceat(rows, starts, axis=0)
        elif pool == "mean":
            made[:, part] = np.add.reduceat(rows, starts, axis=0) / counts[:, None]
        else:
            made[:, part] = 1 - np.multiply.reduceat(1 - rows, starts, axis=0)
    return made
