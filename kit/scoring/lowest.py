"""The lowest F of all classes while a threshold or an offset moves: the minimum of step functions, one a class."""

import numpy as np

SHARE = 1e-3  # of the mean F, added to the lowest: it decides where a change leaves the lowest as it is


def lowest_of_steps(owner: np.ndarray, at: np.ndarray, values: np.ndarray, cuts: int) -> np.ndarray:
    """Return the minimum of several step functions at the cuts 0 to `cuts`.

    Parameters
    ----------
    owner : ndarray
        Which function each step is of, int [steps]: 0, 1, 2 …, each with a step at 0.
    at : ndarray
        The first cut at which its value holds, int [steps], no two alike of one function.
    values : ndarray
        float [steps].
    cuts : int
        The last cut.

    Returns
    -------
    ndarray
        float64 [cuts + 1].

    Notes
    -----
    Functions are joined two by two, all pairs at once, and steps that change nothing are left out, so that about
    half of them are left each time: O(steps · log steps).
    """
    functions = int(owner.max()) + 1
    owner, at, values = owner.astype(np.int64), at.astype(np.int64), values.astype(np.float64)
    while functions > 1:
        if functions % 2:
            owner, at, values = np.append(owner, functions), np.append(at, 0), np.append(values, np.inf)
            functions += 1
        owner, at, values = _joined(owner, at, values, cuts)
        functions //= 2
    order = np.argsort(at)
    return np.repeat(values[order], np.diff(np.append(at[order], cuts + 1)))


def _joined(
    owner: np.ndarray, at: np.ndarray, values: np.ndarray, cuts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps of the minimum of the functions 0 and 1, of 2 and 3 …, by function and cut."""
    order = np.argsort((owner >> 1) * (cuts + 1) + at, kind="stable")
    at, values, odd = at[order], values[order], (owner[order] & 1).astype(bool)
    owner = owner[order] >> 1
    place = np.arange(len(at))
    # What each of the two is worth from here on; both have a step at 0, after which these are of this very pair.
    last = [np.maximum.accumulate(np.where(mine, place, 0)) for mine in (odd, ~odd)]
    values = np.minimum(values[last[0]], values[last[1]])
    whole = np.append((owner[1:] != owner[:-1]) | (at[1:] != at[:-1]), True)  # where both step, after the second
    owner, at, values = owner[whole], at[whole], values[whole]
    moves = np.append(True, (owner[1:] != owner[:-1]) | (values[1:] != values[:-1]))
    return owner[moves], at[moves], values[moves]
