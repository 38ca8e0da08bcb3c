"""The `scoring` section."""

from typing import Annotated, Literal

from pydantic import Field

from kit.settings import Section


class ScoringConfig(Section):
    """The competition's metric, by scikit-learn's names and with its values.

    average        macro, micro or weighted
    beta           1 for F1; F-beta weighs recall beta times as much as precision
    zero_division  scikit-learn's: the value of an average without any class; with one label a row there
                   is always one, so 0 and 1 give the same
    """

    average: Literal["macro", "micro", "weighted"] = "macro"
    beta: Annotated[float, Field(gt=0)] = 1.0
    zero_division: Literal[0, 1] = 0

    @property
    def title(self) -> str:
        return f"{self.average} F{self.beta:g}"
