"""A metric of the user's own, named `file.py:name` in a config."""

import math
from collections.abc import Callable
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.core.named import OwnOptions


class MetricConfig(OwnOptions):
    """A metric of the user's own: a function of truth, predicted labels and the options beside its name.

    It gives a number, the higher the better; or it is a class that is made with the options and whose objects are
    such a function. Labels are class indices int64 [rows], or bool [rows, classes] where a row may have several;
    they cannot be written to.
    """

    @cached_property
    def _function(self) -> Callable[[np.ndarray, np.ndarray], float]:
        try:
            return self.code.bind(self.options, ("truth", "predicted"))
        except KitError as error:
            raise KitError(f"scoring.metric: {error}") from error

    def value(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        """Return the metric of labels.

        Raises
        ------
        KitError
            Where the user's code fails, or gives no finite number.
        """
        function = self._function
        try:
            value = function(_read_only(truth), _read_only(predicted))
        except Exception as error:
            raise KitError(f"scoring.metric: {self.name}: {self.code.fault(error)}") from error
        if not isinstance(value, Real) or not math.isfinite(value):
            found = f"an array {list(np.shape(value))}" if np.ndim(value) else repr(value)
            raise KitError(f"scoring.metric: {self.name} gives {found}; a finite number is needed")
        return float(value)

    def check(self, truth: np.ndarray) -> None:
        """Try the metric on the truth itself, and on the truth shuffled.

        Parameters
        ----------
        truth : ndarray
            Labels int [rows], or bool [rows, classes].

        Raises
        ------
        KitError
            Where it gives no finite number, another one the second time, or no higher one for the truth.
        """
        shuffled = truth[np.random.default_rng(0).permutation(len(truth))]
        best, worse = self.value(truth, truth), self.value(truth, shuffled)
        again = self.value(truth, truth), self.value(truth, shuffled)
        if again != (best, worse):
            raise KitError(
                f"scoring.metric: {self.name} gives {worse:g} and then {again[1]:g} for the same labels; a metric "
                "has to depend on them alone"
            )
        if best <= worse and not np.array_equal(truth, shuffled):
            raise KitError(
                f"scoring.metric: {self.name} gives {best:g} for the truth itself and {worse:g} for the truth "
                "shuffled; the higher has to be the better: of an error give the negative"
            )

    def identity(self) -> dict[str, Any]:
        """Return what tells this metric from others: name, options, its code's digest, None where that is gone."""
        try:
            return self.canonical() | {"code": self.code.digest()}
        except KitError:
            return self.canonical() | {"code": None}


def _read_only(labels: np.ndarray) -> np.ndarray:
    view = labels.view()
    view.flags.writeable = False
    return view
