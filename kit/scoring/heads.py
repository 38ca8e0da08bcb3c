"""Heads over frozen features: fitted by scikit-learn and numpy, kept as arrays, predicted by numpy alone.

What a head learns, its standardisation, its strength and its calibration, it learns from the rows it is given. The
strength (regularisation, neighbours) is the one whose predictions of left-out parts of these rows have the lowest
log loss.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, field_validator, model_serializer

from kit.core.errors import KitError
from kit.core.named import Named
from kit.core.settings import ConfigSection
from kit.scoring.calibration import calibrate, log_loss, probabilities

Arrays = dict[str, np.ndarray]
Positive = Annotated[float, Field(gt=0)]
MANY = 2_000_000  # similarities that are held at once
LEAST_CLASS = 2  # classes that there have to be for something to be told apart


@dataclass(frozen=True)
class HeadRows:
    """What a head is fitted on.

    Attributes
    ----------
    features : ndarray
        float32 [rows, numbers].
    targets : ndarray
        Class index int64 [rows]; where a row may have several labels, bool [rows, classes].
    classes : int
        How many there are; one that no row has is never predicted.
    parts : ndarray
        int64 [rows]: rows of one part are left out together where a strength is chosen; −1: never left out.
    """

    features: np.ndarray
    targets: np.ndarray
    classes: int
    parts: np.ndarray

    @property
    def several(self) -> bool:
        """Whether a row may have several labels."""
        return self.targets.ndim == 2

    def of(self, rows: np.ndarray) -> "HeadRows":
        """Return some of the rows, by a mask or their places."""
        return HeadRows(self.features[rows], self.targets[rows], self.classes, self.parts[rows])

    def standardised(self) -> tuple[np.ndarray, Arrays]:
        """Return roots of the features with mean 0 and deviation 1, float64, and what does it to others."""
        features = _roots(self.features)
        deviation, mean = features.std(axis=0), features.mean(axis=0)
        scale = np.where(deviation > 1e-12 * (1 + np.abs(features).max(axis=0)), deviation, 1.0)
        arrays = {"mean": mean, "scale": scale}
        return (features - mean) / scale, arrays

    @property
    def one_against_rest(self) -> np.ndarray:
        """bool [rows, classes]: which classes each row has."""
        return self.targets if self.several else self.targets[:, None] == np.arange(self.classes)


class Head(ConfigSection, Named):
    """A head and its options, as `features.heads` states it.

    Attributes
    ----------
    block : str, optional
        What its features are taken of, where not of `features.block`.
    """

    calibrated: ClassVar[bool] = True
    block: str | None = None

    @model_serializer(mode="wrap")
    def _with_its_name(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Name the kind even where defaults are left out: a name of the user's own does not tell it."""
        return {"name": vars(self)["name"], **rest(self)}

    @property
    @abstractmethod
    def strengths(self) -> Sequence[float]:
        """What is chosen from, the simplest first."""

    @abstractmethod
    def fits(self, features: np.ndarray, rows: HeadRows, strengths: Sequence[float]) -> Iterator[Arrays]:
        """Yield the arrays of a fit of each strength on standardised features, float64 [rows, numbers]."""

    @abstractmethod
    def scores(self, arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
        """Return scores [rows, classes] of standardised features: the higher, the likelier."""

    def fit(self, rows: HeadRows, step: Callable[[], object] = lambda: None) -> tuple[Arrays, float]:
        """Fit the head.

        Parameters
        ----------
        rows : HeadRows
            Nothing else decides any number of the head.
        step : callable
            Called after each part that was left out.

        Returns
        -------
        dict of str to ndarray
            What `predict` needs.
        float
            The strength that was chosen.

        Raises
        ------
        KitError
            Where features are not finite, or there are no two parts.
        """
        if not np.isfinite(rows.features).all():
            raise KitError("features are not finite; take training.precision=fp32 or another block")
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # the same bits with any number of cores; and no waiting for busy ones
            scores = self._left_out_scores(rows, step)
            kept = rows.of(rows.parts >= 0)
            tried = [self._calibration(each[rows.parts >= 0], kept) for each in scores]
            best = min(range(len(tried)), key=lambda place: tried[place][1])
            features, arrays = rows.standardised()
            (fitted,) = self.fits(features, rows, [self.strengths[best]])
        return arrays | fitted | tried[best][0] | {"several": np.array([rows.several])}, self.strengths[best]

    def predict(self, arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 [rows, classes], of features [rows, numbers], by what `fit` returned."""
        if features.shape[1] != len(arrays["mean"]):
            raise KitError(
                f"the head is of {len(arrays['mean'])} numbers an image, the features have {features.shape[1]}"
            )
        scores = self.scores(arrays, _standardise(arrays, features))
        return probabilities(scores, arrays["gain"], arrays["bias"], bool(arrays["several"][0]))

    def _left_out_scores(self, rows: HeadRows, step: Callable[[], object]) -> np.ndarray:
        """The scores [strengths, rows, classes] of each row by fits that did not see its part."""
        parts = [part for part in np.unique(rows.parts) if part >= 0]
        if len(parts) < 2:
            raise KitError("a head needs two parts of rows at least to choose and calibrate by")
        scores = np.full((len(self.strengths), len(rows.features), rows.classes), -np.inf)
        for part in parts:
            out = rows.parts == part
            seen = rows.of(~out)
            features, arrays = seen.standardised()
            left_out = _standardise(arrays, rows.features[out])
            for place, fitted in enumerate(self.fits(features, seen, self.strengths)):
                scores[place, out] = self.scores(fitted, left_out)
            step()
        return scores

    def _calibration(self, scores: np.ndarray, rows: HeadRows) -> tuple[Arrays, float]:
        """What makes probabilities of scores, and the log loss of these."""
        gain, bias = np.ones(rows.classes), np.zeros(rows.classes)
        if self.calibrated:
            gain, bias = calibrate(scores, rows.targets)
        return {"gain": gain, "bias": bias}, log_loss(
            probabilities(scores, gain, bias, rows.several), rows.targets
        )


class _Linear(Head):
    """A head whose scores are features @ coef + intercept."""

    def scores(self, arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
        return features @ arrays["coef"] + arrays["intercept"]


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or len(set(values)) < len(values):
        raise ValueError("one at least, and none twice")
    return tuple(sorted(values))


class Logistic(_Linear):
    """Logistic regression (scikit-learn's, L2): multinomial, or one for each label where a row may have several.

    Attributes
    ----------
    C
        Inverse strengths of the penalty to choose from; features are standardised.
    """

    calibrated: ClassVar[bool] = False
    name: Literal["logistic"] = "logistic"
    C: tuple[Positive, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)

    _sorted = field_validator("C")(_ascending)

    @property
    def strengths(self) -> Sequence[float]:
        return self.C

    def fits(self, features: np.ndarray, rows: HeadRows, strengths: Sequence[float]) -> Iterator[Arrays]:
        if not rows.several:
            yield from _logistic(features, rows.targets, rows.classes, strengths)
            return
        each = [list(_logistic(features, labels.astype(np.int64), 2, strengths)) for labels in rows.targets.T]
        for place in range(len(strengths)):
            chosen = [label[place] for label in each]
            yield {
                "coef": np.stack([fit["coef"][:, 1] - fit["coef"][:, 0] for fit in chosen], axis=1),
                "intercept": np.array([_finite_logit(fit["intercept"]) for fit in chosen]),
            }


def _finite_logit(intercept: np.ndarray) -> float:
    """The logit of a label against its absence, which is far from 0 and finite where all rows are alike."""
    return float(np.clip(intercept[1], -20, 20) - np.clip(intercept[0], -20, 20))


def _logistic(
    features: np.ndarray, targets: np.ndarray, classes: int, strengths: Sequence[float]
) -> Iterator[Arrays]:
    """Fits of each strength, each begun where the one before ended."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(targets)
    tolerance = 1e-4 if len(strengths) == 1 else 1e-3  # scikit-learn's own; to choose among some, less will do
    model: Any = LogisticRegression(max_iter=1000, warm_start=True, tol=tolerance)
    for strength in strengths:
        coef, intercept = np.zeros((features.shape[1], classes)), np.full(classes, -np.inf)
        intercept[present] = 0.0
        if len(present) >= LEAST_CLASS:
            model.set_params(C=strength).fit(features, targets)
            if len(present) == LEAST_CLASS:  # scikit-learn keeps the second class against the first alone
                coef[:, present[1]], intercept[present[1]] = model.coef_[0], model.intercept_[0]
            else:
                coef[:, present], intercept[present] = model.coef_.T, model.intercept_
        yield {"coef": coef, "intercept": intercept}


class Ridge(_Linear):
    """Ridge regression on ±1 for each class, as scikit-learn's RidgeClassifier; calibrated on left-out rows.

    Attributes
    ----------
    alphas
        Strengths of the penalty to choose from; features are standardised.
    """

    name: Literal["ridge"] = "ridge"
    alphas: tuple[Positive, ...] = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)

    _sorted = field_validator("alphas")(_ascending)

    @property
    def strengths(self) -> Sequence[float]:
        return self.alphas[::-1]

    def fits(self, features: np.ndarray, rows: HeadRows, strengths: Sequence[float]) -> Iterator[Arrays]:
        """One eigendecomposition serves all strengths."""
        there = rows.one_against_rest
        wanted = 2.0 * there - 1
        centre, mean = features.mean(axis=0), wanted.mean(axis=0)
        centred, wanted = features - centre, wanted - mean
        wide = features.shape[1] > len(features)
        values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
        right = vectors.T @ (wanted if wide else centred.T @ wanted)
        for strength in strengths:
            solved = vectors @ (right / (np.maximum(values, 0) + strength)[:, None])
            coef = centred.T @ solved if wide else solved
            intercept = mean - centre @ coef
            yield {"coef": coef, "intercept": _without_absent(intercept, there, rows.several)}


class Svm(_Linear):
    """Linear support vector machines, one a class (scikit-learn's LinearSVC); calibrated on left-out rows.

    Attributes
    ----------
    C
        Inverse strengths of the penalty to choose from; features are standardised.
    """

    name: Literal["svm"] = "svm"
    C: tuple[Positive, ...] = (1e-5, 1e-4, 1e-3, 1e-2)

    _sorted = field_validator("C")(_ascending)

    @property
    def strengths(self) -> Sequence[float]:
        return self.C

    def fits(self, features: np.ndarray, rows: HeadRows, strengths: Sequence[float]) -> Iterator[Arrays]:
        from sklearn.svm import LinearSVC

        there = rows.one_against_rest
        for strength in strengths:
            coef, intercept = np.zeros((features.shape[1], rows.classes)), np.zeros(rows.classes)
            for label, has in enumerate(there.T):
                if 0 < has.sum() < len(has):
                    model: Any = LinearSVC(C=strength, dual=False).fit(features, has)
                    coef[:, label], intercept[label] = model.coef_[0], model.intercept_[0]
                else:
                    intercept[label] = 1.0 if has.all() else -1.0
            yield {"coef": coef, "intercept": _without_absent(intercept, there, rows.several)}


def _without_absent(intercept: np.ndarray, there: np.ndarray, several: bool) -> np.ndarray:
    """Let no row have a class that no row had, where each has one label."""
    return intercept if several else np.where(there.any(axis=0), intercept, -np.inf)


class Knn(Head):
    """The share of each class among the nearest neighbours by the cosine, drawn a little to its share in all rows.

    With k neighbours, n of which have the class, and a share s of all rows that have it: (n + s) / (k + 1).

    Attributes
    ----------
    neighbours
        Numbers of them to choose from.
    """

    calibrated: ClassVar[bool] = False
    name: Literal["knn"] = "knn"
    neighbours: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3, 5, 10, 20, 50)

    _sorted = field_validator("neighbours")(_ascending)

    @property
    def strengths(self) -> Sequence[float]:
        return self.neighbours[::-1]

    def fits(self, features: np.ndarray, rows: HeadRows, strengths: Sequence[float]) -> Iterator[Arrays]:
        rows_of, labels = _unit(features).astype(np.float32), rows.one_against_rest
        for strength in strengths:
            yield {
                "rows": rows_of,
                "labels": labels,
                "neighbours": np.array([min(int(strength), len(labels))]),
                "several": np.array([rows.several]),
            }

    def scores(self, arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
        """Logarithms of shares; of a label against its absence where a row may have several."""
        known, labels, number = arrays["rows"], arrays["labels"].astype(np.float64), int(arrays["neighbours"][0])
        share, asked = labels.mean(axis=0), _unit(features).astype(np.float32)
        found = np.empty((len(features), labels.shape[1]))
        count = max(1, MANY // len(known))
        for first in range(0, len(asked), count):
            similar = asked[first : first + count] @ known.T
            nearest = np.argpartition(-similar, number - 1, axis=1)[:, :number]
            found[first : first + count] = labels[nearest].sum(axis=1)
        chance = (found + share) / (number + 1)
        with np.errstate(divide="ignore"):
            return (
                np.log(chance) - np.log1p(-np.minimum(chance, 1 - 1e-9))
                if arrays["several"][0]
                else np.log(chance)
            )


class Prototypes(Head):
    """The cosine to the mean of each class's rows, calibrated on left-out rows.

    Where a row may have several labels: to the mean of rows with the label, less that to the mean of the others.
    """

    name: Literal["prototypes"] = "prototypes"

    @property
    def strengths(self) -> Sequence[float]:
        return (0.0,)

    def fits(self, features: np.ndarray, rows: HeadRows, strengths: Sequence[float]) -> Iterator[Arrays]:
        unit, there = _unit(features), rows.one_against_rest.astype(np.float64)
        means = _unit(there.T @ unit)
        if rows.several:
            yield {"means": means, "others": _unit((1 - there).T @ unit)}
        else:
            yield {"means": means, "absent": np.asarray(there.sum(axis=0) == 0)}

    def scores(self, arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
        unit = _unit(features)
        scores = unit @ arrays["means"].T
        if "others" in arrays:
            return scores - unit @ arrays["others"].T
        return np.where(arrays["absent"].astype(bool), -np.inf, scores)


def _kind(value: Any) -> Any:
    """Return the name of the head that a value is meant to be."""
    return value.get("name") if isinstance(value, dict) else getattr(value, "name", None)


HeadConfig = Annotated[
    Annotated[Logistic, Tag("logistic")]
    | Annotated[Ridge, Tag("ridge")]
    | Annotated[Svm, Tag("svm")]
    | Annotated[Knn, Tag("knn")]
    | Annotated[Prototypes, Tag("prototypes")],
    Discriminator(_kind),
]
HEADS = tuple(Head.members)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; those of length 0 as they are."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def _standardise(arrays: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    return (_roots(features) - arrays["mean"]) / arrays["scale"]


def _roots(features: np.ndarray) -> np.ndarray:
    """Return square roots with the sign of the values, float64: features after a ReLU are far from symmetric.

    Power normalisation: Perronnin, Sánchez and Mensink 2010.
    """
    values = features.astype(np.float64)
    return np.sign(values) * np.sqrt(np.abs(values))
