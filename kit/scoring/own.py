"""A metric of the user's own, named `file.py:name` in a config."""

import inspect
import math
from collections.abc import Callable
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.core.named import OwnOptions

PROBABILITIES = "probabilities"  # a parameter of this name takes them


class MetricConfig(OwnOptions):
    """A metric of the user's own: a function of truth, prediction and the options beside its name.

    It gives a number, the higher the better; or it is a class that is made with the options and whose objects are
    such a function. It takes (truth, predicted); or (truth, probabilities) or (truth, predicted, probabilities)
    where a parameter has this name. Labels are class indices int64 [rows], or bool [rows, classes] where a row may
    have several. Probabilities are float [rows, classes]; of two classes with one label a row they are those of
    the second, [rows]. None can be written to.
    """

    @cached_property
    def given(self) -> tuple[str, ...]:
        """What it is called with: truth, and predicted labels, probabilities or both.

        Raises
        ------
        KitError
            Where it cannot be loaded, or takes probabilities at another place.
        """
        try:
            target = self.code.load()
        except KitError as error:
            raise KitError(f"scoring.metric: {error}") from error
        place = _place_of_probabilities(target)
        if place is None:
            return ("truth", "predicted")
        if place not in (1, 2):
            raise KitError(
                f"scoring.metric: {self.name}: probabilities has to be its second or its third parameter, as in "
                "(truth, probabilities) or (truth, predicted, probabilities)"
            )
        return ("truth", *(("predicted",) if place == 2 else ()), PROBABILITIES)

    @property
    def of_probabilities(self) -> bool:
        """Whether it takes probabilities."""
        return PROBABILITIES in self.given

    @property
    def of_labels(self) -> bool:
        """Whether it takes predicted labels; if not, no decision rule changes its value."""
        return "predicted" in self.given

    @cached_property
    def _function(self) -> Callable[..., float]:
        try:
            return self.code.bind(self.options, self.given)
        except KitError as error:
            raise KitError(
                str(error) if "scoring.metric: " in str(error) else f"scoring.metric: {error}"
            ) from error

    def value(
        self, truth: np.ndarray, predicted: np.ndarray | None, probabilities: np.ndarray | None = None
    ) -> float:
        """Return the metric of predictions.

        Parameters
        ----------
        truth : ndarray
            int [rows] or bool [rows, classes].
        predicted : ndarray or None
            In the form of `truth`; None where the metric takes none.
        probabilities : ndarray or None
            float [rows, classes]; None where there are none, or the metric takes none.

        Raises
        ------
        KitError
            Where probabilities are needed and there are none, and where the user's code fails, or gives no finite
            number.
        """
        function, at_hand = self._function, {"truth": truth, "predicted": predicted}
        if self.of_probabilities:
            if probabilities is None:
                raise KitError(f"scoring.metric: {self.name} takes probabilities, but here are only labels")
            second = truth.ndim == 1 and probabilities.shape[1] == 2
            at_hand[PROBABILITIES] = probabilities[:, 1] if second else probabilities
        arrays = [_read_only(each) for name in self.given if (each := at_hand[name]) is not None]
        try:
            value = function(*arrays)
        except Exception as error:
            raise KitError(f"scoring.metric: {self.name}: {self.code.fault(error)}") from error
        if not isinstance(value, Real) or not math.isfinite(value):
            found = f"an array {list(np.shape(value))}" if np.ndim(value) else repr(value)
            raise KitError(f"scoring.metric: {self.name} gives {found}; a finite number is needed")
        return float(value)

    def check(self, truth: np.ndarray, n_classes: int | None = None) -> None:
        """Try the metric on the truth itself, and on the truth shuffled; as probabilities, they are 0 and 1.

        Parameters
        ----------
        truth : ndarray
            Labels int [rows], or bool [rows, classes].
        n_classes : int, optional
            Number of classes; left out: as many as the labels need.

        Raises
        ------
        KitError
            Where it gives no finite number, another one the second time, or no higher one for the truth.
        """
        shuffled = truth[np.random.default_rng(0).permutation(len(truth))]
        count = truth.shape[1] if truth.ndim == 2 else n_classes or int(truth.max()) + 1

        def of(labels: np.ndarray) -> float:
            return self.value(truth, labels, _as_probabilities(labels, count) if self.of_probabilities else None)

        best, worse = of(truth), of(shuffled)
        again = of(truth), of(shuffled)
        if again != (best, worse):
            raise KitError(
                f"scoring.metric: {self.name} gives {worse:g} and then {again[1]:g} for the same "
                f"{'probabilities' if self.of_probabilities else 'labels'}; a metric has to depend on them alone"
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


def _place_of_probabilities(target: Callable[..., Any]) -> int | None:
    """Return which parameter of a function, or of a class's objects, takes probabilities; None where none does.

    One that is given by its name alone has no place: −1.
    """
    try:
        signature = inspect.signature(target.__call__ if isinstance(target, type) else target)
    except (TypeError, ValueError):  # of C, which does not say
        return None
    names = list(signature.parameters)[1:] if isinstance(target, type) else list(signature.parameters)  # self
    if PROBABILITIES not in names:
        return None
    by_name = signature.parameters[PROBABILITIES].kind is inspect.Parameter.KEYWORD_ONLY
    return -1 if by_name else names.index(PROBABILITIES)


def _as_probabilities(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return labels int [rows] or bool [rows, classes] as probabilities of 0 and 1, float32 [rows, classes]."""
    return labels.astype(np.float32) if labels.ndim == 2 else np.eye(n_classes, dtype=np.float32)[labels]


def _read_only(labels: np.ndarray) -> np.ndarray:
    view = labels.view()
    view.flags.writeable = False
    return view
