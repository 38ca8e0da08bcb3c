"""Where training is in time, and where a group of parameters is in the depth of the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Clock:
    """A moment in training, or in a phase of it.

    Attributes
    ----------
    step : float
        How many optimizer updates were attempted before this one: 0 … total_steps − 1.
    total_steps : float
        How many updates the whole training has; within a phase those of the phase, which may be a fraction.
    steps_per_epoch : float or None
        How many updates an epoch has. Policies that count in epochs need it.
    """

    step: float
    total_steps: float
    steps_per_epoch: float | None = None

    @property
    def progress(self) -> float:
        """The share of the training or phase that is done: step / total_steps, in [0, 1)."""
        return self.step / self.total_steps

    @property
    def epoch(self) -> float:
        """The epochs that are done, with the fraction of the running one.

        Raises
        ------
        ValueError
            Where `steps_per_epoch` is None.
        """
        if self.steps_per_epoch is None:
            raise ValueError("steps_per_epoch: needed, because the policy counts in epochs")
        return self.step / self.steps_per_epoch


@dataclass(frozen=True)
class PolicyGroup:
    """A depth group as policies see it: the parameters at one depth of the network.

    Attributes
    ----------
    index : int
        Its place among the depth groups: 0 is the stem, count − 1 the head.
    count : int
        How many depth groups the network has.
    name : str
        Its name, like "layer4.0".
    n_params : int
        How many parameters it holds.
    kind : str
        What its parameters are for, where the policy tells kinds apart: then a depth of the network is several
        groups of one index and name. "" for the rest.
    """

    index: int
    count: int
    name: str = ""
    n_params: int = 0
    kind: str = ""

    @property
    def label(self) -> str:
        """The name, and the kind where there is one, like "layer4.0 norm"."""
        return f"{self.name} {self.kind}".rstrip()

    @property
    def depth(self) -> float:
        """The relative depth: 0 at the stem, 1 at the head. A single depth group is all head."""
        return self.index / (self.count - 1) if self.count > 1 else 1.0

    @property
    def above(self) -> int:
        """How many depth groups lie between this one and the output: 0 at the head."""
        return self.count - 1 - self.index


class SizedGroup(Protocol):
    """What policies need to know of a depth group: its name and its number of parameters."""

    @property
    def name(self) -> str: ...
    @property
    def n_params(self) -> int: ...


def policy_groups(groups: Sequence[SizedGroup] | Mapping[str, int]) -> list[PolicyGroup]:
    """Return depth groups as policies see them.

    Parameters
    ----------
    groups : sequence of depth groups, or mapping
        Stem first, head last; a mapping is from their names to their numbers of parameters.
    """
    if isinstance(groups, Mapping):
        return [PolicyGroup(index, len(groups), *each) for index, each in enumerate(groups.items())]
    index_of = {name: index for index, name in enumerate(dict.fromkeys(each.name for each in groups))}
    return [
        PolicyGroup(index_of[each.name], len(index_of), each.name, each.n_params, getattr(each, "kind", ""))
        for each in groups
    ]
