"""By which chances an epoch draws its rows, where `training.sampler` asks for it."""

import numpy as np

from kit.data.loading import Drawing
from kit.training.config import SamplerConfig


class Sampler:
    """Which of the rows that train an epoch visits, and how often that is to be expected.

    Parameters
    ----------
    config : SamplerConfig or None
        None: each once.
    targets : ndarray
        Of the rows that train: class indices int64 [rows], bool or float32 (shares) [rows, classes].
    multilabel : bool
        Whether a row may have several labels.

    Attributes
    ----------
    drawing : Drawing or None
        What draws the rows of an epoch.
    """

    def __init__(self, config: SamplerConfig | None, targets: np.ndarray, multilabel: bool):
        self._chances = chances(config.power, targets, multilabel) if config else None
        self.drawing = None if self._chances is None else Drawing(self._chances)

    def counted(self, of_rows: np.ndarray | None) -> np.ndarray | None:
        """Return how often each row counts in an epoch, by its weight, float64 [rows]; None: all once.

        What balances classes has to know it, else it would balance a second time what is drawn evenly already.
        """
        if self._chances is None:
            return of_rows
        expected = self._chances * len(self._chances)
        return expected if of_rows is None else expected * of_rows


def chances(power: float, targets: np.ndarray, multilabel: bool) -> np.ndarray:
    """Return the chance of each row to be what a draw gives, float64 [rows]; their sum is 1.

    Parameters
    ----------
    power : float
        1 makes classes even, 0.5 half so on a logarithmic scale.
    targets : ndarray
        Class indices int64 [rows], bool or float32 (shares) [rows, classes].
    multilabel : bool
        Whether a row may have several labels.

    Notes
    -----
    With n_k rows in class k the chance of a row of class k is in proportion to n_k^−power. Of shares n_k is their
    sum, and a row's chance is the mean over its classes, by its shares. Where a row may have several labels, its
    rarest decides, the largest y_k · n_k^−power; rows without any label are a class of their own.

    References
    ----------
    The largest over a row's labels: Mahajan et al., arXiv 1805.00932, and the repeat factors of Gupta et al.
    (LVIS), arXiv 1908.03195, both with power 0.5 and a threshold above which classes stay as they are; here is
    none.
    """
    if targets.ndim == 1:
        counts = np.bincount(targets).astype(np.float64)
        of_rows = _of_classes(counts, power)[targets]
        return of_rows / of_rows.sum()
    shares = targets.astype(np.float64)
    if multilabel:
        shares = np.column_stack([shares, 1 - shares.max(axis=1)])  # the last: of no label
    of_classes = _of_classes(shares.sum(axis=0), power)
    of_rows = (shares * of_classes).max(axis=1) if multilabel else shares @ of_classes
    return of_rows / of_rows.sum()


def _of_classes(counts: np.ndarray, power: float) -> np.ndarray:
    """Return n^−power of each class, in units of the rarest's; 0 where there is no row."""
    there = counts > 0
    rarest = counts[there].min()
    return np.where(there, (np.where(there, counts, rarest) / rarest) ** -power, 0.0)
