"""The plug-in rule for F averaged over rows: the labels with the highest expected F under the probabilities."""

import numpy as np

EXACT = 40  # classes of a row, the most probable ones, whose number is followed exactly
_ROWS = 1024  # rows in a block: 14 MB for their distributions


def expected_f(
    probabilities: np.ndarray,
    beta: float = 1.0,
    zero_division: float = 0,
    at_least: int = 0,
    at_most: int | None = None,
) -> np.ndarray:
    """Return for each row the labels with the highest expected F-beta.

    The labels of a row are taken to be independent, with these probabilities.

    Parameters
    ----------
    probabilities : ndarray
        float [rows, classes] in [0, 1].
    beta : float
        That of F-beta.
    zero_division : float
        What it is worth to predict no label for a row that has none.
    at_least : int
        Fewest labels of a row.
    at_most : int or None
        Most labels of a row; None: all classes.

    Returns
    -------
    ndarray
        bool [rows, classes]; of equally good sets of labels the smallest.

    Notes
    -----
    The best set of size k is the k most probable classes, and with TP and R the numbers of true labels among them
    and among the rest, E[F] = Σ P(TP = a) P(R = b) (1 + β²) a / (k + β² (a + b)).

    Beyond the `EXACT` most probable classes the number of true labels is taken to be its mean, and (unless
    `at_least` asks for them) none is predicted.

    References
    ----------
    Ye, Chai, Lee and Chieu 2012, "Optimizing F-measures: A Tale of Two Approaches".
    """
    chosen = np.zeros(probabilities.shape, dtype=bool)
    for start in range(0, len(probabilities), _ROWS):
        block = probabilities[start : start + _ROWS].astype(np.float64)
        order = np.argsort(-block, axis=1, kind="stable")
        values = _expected_by_size(np.take_along_axis(block, order, axis=1), beta, zero_division, at_least)
        last = values.shape[1] if at_most is None else min(values.shape[1], at_most + 1)
        sizes = at_least + np.argmax(values[:, at_least:last], axis=1)
        ranks = np.arange(block.shape[1])[None, :]
        np.put_along_axis(chosen[start : start + _ROWS], order, ranks < sizes[:, None], axis=1)
    return chosen


def _expected_by_size(ordered: np.ndarray, beta: float, zero_division: float, at_least: int) -> np.ndarray:
    """Return E[F] of the k most probable classes [rows, exact + 1]; probabilities descending [rows, classes]."""
    exact = min(ordered.shape[1], max(EXACT, at_least))
    tail = ordered[:, exact:].sum(axis=1)
    rest = _rest(ordered[:, :exact])
    top = np.zeros((len(ordered), exact + 1))
    top[:, 0] = 1
    values = np.empty((len(ordered), exact + 1))
    values[:, 0] = zero_division * np.prod(1 - ordered, axis=1)
    square = beta**2
    for k in range(1, exact + 1):
        top = _with_one_more(top, ordered[:, k - 1])
        hits, others = np.arange(k + 1), np.arange(exact - k + 1)
        weighted = (1 + square) * hits * top[:, : k + 1]
        if ordered.shape[1] == exact:
            share = weighted @ (1 / (k + square * np.add.outer(hits, others)))
        else:
            number = np.add.outer(hits, others)[None] + tail[:, None, None]
            share = np.einsum("ra,rab->rb", weighted, 1 / (k + square * number))
        values[:, k] = (share * rest[k][:, : exact - k + 1]).sum(axis=1)
    return values


def _rest(ordered: np.ndarray) -> list[np.ndarray]:
    """Return, for each k, the distribution of the number of true labels without the first k: [rows, exact + 1]."""
    rows, exact = ordered.shape
    rest = [np.zeros((rows, exact + 1))]
    rest[0][:, 0] = 1
    for index in reversed(range(exact)):
        rest.append(_with_one_more(rest[-1], ordered[:, index]))
    return rest[::-1]


def _with_one_more(distribution: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the Poisson binomial distribution with one more independent label."""
    p = probability[:, None]
    longer = distribution * (1 - p)
    longer[:, 1:] += distribution[:, :-1] * p
    return longer
