"""The `scoring` section of the config: the competition's metric, and how labels are decided."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kit.core.errors import KitError
from kit.core.settings import ConfigSection, fingerprint
from kit.scoring.own import MetricConfig

Average = Literal["macro", "micro", "weighted", "samples", "binary", "lowest"]
RuleName = Literal["auto", "argmax", "half", "threshold", "prevalence", "expected_f", "thresholds", "offsets"]
Transfer = Literal["quantile", "vote", "none"]


class ScoringConfig(ConfigSection):
    """The competition's metric, by scikit-learn's names and with its values, and how labels are decided.

    Attributes
    ----------
    average : {"macro", "micro", "weighted", "samples", "binary", "lowest"}
        macro, micro or weighted; samples with several labels a row; binary with two classes and one label a row,
        of which the second class is the positive one; lowest: no average, the lowest F of all classes.
    beta : float
        1 for F1; F-beta weighs recall beta times as much as precision.
    zero_division : {0, 1}
        scikit-learn's: the F of a class or a row that has no label, neither true nor predicted.
    rule : str
        auto: the decision rule with the best cross-fitted score; or one rule by its name. Several labels a row:
        half, threshold, prevalence, expected_f (average samples), thresholds. One label a row: argmax, offsets
        (average macro, weighted or lowest), threshold (average binary).
    at_least : int or None
        Fewest labels of a predicted row; None: the fewest that a training row has.
    at_most : int or None
        Most labels of a predicted row; None: all classes.
    transfer : {"quantile", "vote", "none"}
        How a rule fitted on out-of-fold rows (one model each) meets test rows (the mean of several); see
        docs/decisions.md.
    metric : MetricConfig or None
        The user's own in place of F, like "mine.py:min_f1" or {name: "mine.py:min_f1", weight: 2}. Then rules are
        those that fit no F: argmax with one label a row; half and prevalence with several, or half alone where it
        takes probabilities and no labels.
    """

    later: ClassVar[frozenset[str]] = frozenset({"metric"})

    average: Average = "macro"
    beta: Annotated[float, Field(gt=0)] = 1.0
    zero_division: Literal[0, 1] = 0
    rule: RuleName = "auto"
    at_least: Annotated[int, Field(ge=0)] | None = None
    at_most: Annotated[int, Field(ge=1)] | None = None
    transfer: Transfer = "quantile"
    metric: MetricConfig | None = None

    @model_validator(mode="after")
    def _of_one_metric(self) -> Self:
        for key in ("average", "beta", "zero_division"):
            if self.metric and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} is of F, metric another one in its place; leave one of them out")
        return self

    @property
    def title(self) -> str:
        """The metric's name for a reader, like `macro F1`."""
        if self.metric:
            return self.metric.code.name
        return f"{self.average} F{self.beta:g}" + (" of all classes" if self.average == "lowest" else "")

    @property
    def key(self) -> str:
        """What the metric's values are stored under: its title, and of the user's own a digest as well."""
        return f"{self.title} {fingerprint(self.metric.identity())[:8]}" if self.metric else self.title

    def identity(self) -> dict[str, Any]:
        """Return what decides scores, as plain values: `canonical`, with the digest of the user's metric."""
        return self.canonical() | ({"metric": self.metric.identity()} if self.metric else {})

    @property
    def of_probabilities(self) -> bool:
        """Whether the metric takes probabilities; KitError where the user's own cannot be loaded."""
        return self.metric is not None and self.metric.of_probabilities

    def rules(self, multilabel: bool) -> tuple[str, ...]:
        """Return the names of the decision rules for this average, from the simplest on."""
        if self.metric:
            if not multilabel:
                return ("argmax",)
            return ("half", "prevalence") if self.metric.of_labels else ("half",)
        if multilabel:
            expected = ("expected_f",) if self.average == "samples" else ()
            return ("half", "threshold", "prevalence", *expected, "thresholds")
        if self.average == "binary":
            return ("argmax", "threshold")
        return ("argmax", "offsets") if self.average in ("macro", "weighted", "lowest") else ("argmax",)

    def check(self, multilabel: bool, n_classes: int) -> None:
        """Check that these options fit the labels.

        Parameters
        ----------
        multilabel : bool
            Whether a row may have several labels.
        n_classes : int
            Number of classes, or columns.

        Raises
        ------
        KitError
            With the path of the key that does not fit.
        """
        if self.average == "samples" and not multilabel:
            raise KitError("scoring.average: samples needs several labels a row; take macro, micro or weighted")
        if self.average == "binary" and (multilabel or n_classes != 2):
            found = "several labels a row" if multilabel else f"{n_classes} classes"
            raise KitError(
                f"scoring.average: binary needs exactly two classes with one label a row, not {found}; "
                "take macro, micro or weighted"
            )
        allowed = self.rules(multilabel)
        if self.rule != "auto" and self.rule not in allowed:
            labels = "several labels a row" if multilabel else "one label a row"
            what = "a metric of your own" if self.metric else f"average {self.average}"
            raise KitError(
                f"scoring.rule: {self.rule} is not for {labels} with {what}; "
                f"take auto, {' or '.join(', '.join(allowed).rsplit(', ', 1))}"
            )
        for key in ("at_least", "at_most"):
            value = getattr(self, key)
            if value is None:
                continue
            if not multilabel:
                raise KitError(f"scoring.{key}: is for several labels a row; leave it out")
            if value > n_classes:
                raise KitError(f"scoring.{key}: {value} is more than the {n_classes} classes; lower it")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise KitError(f"scoring.at_least: {self.at_least} is more than at_most, {self.at_most}; lower it")
