"""The `scoring` section."""

from typing import Annotated, Literal

from pydantic import Field

from kit.settings import Section


class ScoringConfig(Section):
    """The competition's metric, by scikit-learn's names and with its values.

    average        macro, micro or weighted
    beta           1 for F1; F-beta weighs recall beta times as much as precision
    zero_division  the value of a class that is neither there nor predicted: 0 or 1
    """

    average: Literal["macro", "micro", "weighted"] = "macro"
    beta: Annotated[float, Field(gt=0)] = 1.0
    zero_division: Literal[0, 1] = 0

    @property
    def title(self) -> str:
        return f"{self.average} F{self.beta:g}"
