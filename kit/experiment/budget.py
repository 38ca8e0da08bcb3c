"""What of an experiment fits into a budget of time, and what is given up: seconds go in, a decision comes out.

Given up are, in this order, views (test-time augmentation), seeds (the last first) and folds (the last first),
for all policies alike.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from kit.core.durations import in_words
from kit.core.errors import some
from kit.core.runs import RunKey

MARGIN = 1.1  # what is to come may take this much longer than what was measured


@dataclass(frozen=True)
class Work:
    """What there is to do in one run.

    Attributes
    ----------
    updates : int
        Of the whole training.
    evaluation : int
        Held-out images, predicted at the end and wherever the training is looked at.
    evaluations : int
        How often, the end included.
    test : int
        Test images.
    views : float
        Forward passes of each image that is predicted, in all views; by their area, one being an image as it is
        trained on.
    epoch : int
        Updates between two evaluations; 0 where the end is the only one.
    samples : int
        Images of an update.
    one : float
        Forward passes in the plain view alone; an evaluation before the end takes 1.
    """

    updates: int
    evaluation: int
    evaluations: int
    test: int
    views: float = 1
    epoch: int = 0
    samples: int = 1
    one: float = 1

    @property
    def several(self) -> bool:
        """Whether there are views that can be given up."""
        return self.views > self.one

    def looked_at(self, updates: int) -> int:
        """Return how often held-out images are predicted after so many updates, before the end."""
        return min(self.evaluations - 1, updates // self.epoch) if self.epoch else 0


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds.

    Attributes
    ----------
    update : float
        An update.
    image : float
        A forward pass of one image that is predicted.
    other : float
        What a run takes besides: building the model, starting, writing.
    """

    update: float
    image: float
    other: float = 0.0

    def at_the_end(self, work: Work, views: bool) -> float:
        """Return the seconds of what follows the last update: predicting held-out and test images, writing."""
        return self.image * (work.evaluation + work.test) * (work.views if views else work.one)

    def between(self, work: Work, first: int) -> float:
        """Return the seconds from update number `first` to the last, with the evaluations between them."""
        looks = work.evaluations - 1 - work.looked_at(first)
        return self.update * (work.updates - first) + looks * self.image * work.evaluation

    def of(self, work: Work, views: bool, first: int = 0) -> float:
        """Return the seconds of a run from update number `first` on."""
        return self.other + self.between(work, first) + self.at_the_end(work, views)


@dataclass(frozen=True)
class Cost:
    """Seconds that a run takes, or still takes: with views, and without."""

    key: RunKey
    with_views: float
    without: float

    def at(self, views: bool) -> float:
        """Return those with or without views."""
        return self.with_views if views else self.without


@dataclass(frozen=True)
class Decision:
    """What is done of what is due, and what is given up.

    Attributes
    ----------
    runs : tuple of RunKey
        To be begun, in this order.
    given_up : tuple of RunKey
    views : bool
        Whether images are predicted in all the views that the config asks for.
    seconds : float
        Until the last of `runs` has ended, as projected.
    whole : float
        The same, were nothing given up.
    """

    runs: tuple[RunKey, ...]
    given_up: tuple[RunKey, ...]
    views: bool
    seconds: float
    whole: float


def decide(
    due: Sequence[Cost], left: float, jobs: int = 1, under_way: Sequence[Cost] = (), views: bool = True
) -> Decision:
    """Return as much of what is due as fits: as many seeds and folds as without views, then the views if they fit.

    Parameters
    ----------
    due : sequence of Cost
        By seed, then fold, then policy: what is given up is taken from the end.
    left : float
        Seconds in which everything has to have ended.
    jobs : int
        Runs side by side.
    under_way : sequence of Cost
        Runs that have begun; they go on, whatever is decided.
    views : bool
        Whether there are views, and they were not given up before.

    Returns
    -------
    Decision
        Where not even the first fold of the first seed fits for all policies, for as many as fit, in their order.
    """

    takes = {
        with_views: makespans([c.at(with_views) for c in due], jobs, [c.at(with_views) for c in under_way])
        for with_views in (True, False)
    }
    ends = [0]
    for _, unit in groupby(due, key=lambda cost: (cost.key.seed, cost.key.fold)):
        ends.append(ends[-1] + len(list(unit)))
    candidates = [*reversed(ends[1:]), *range(ends[min(1, len(ends) - 1)], -1, -1)]
    count = next((count for count in candidates if takes[False][count] <= left), 0)
    kept = views and takes[True][count] <= left
    return Decision(
        runs=tuple(cost.key for cost in due[:count]),
        given_up=tuple(cost.key for cost in due[count:]),
        views=kept,
        seconds=takes[kept][count],
        whole=takes[views][len(due)],
    )


def makespans(costs: Iterable[float], jobs: int, under_way: Sequence[float] = ()) -> list[float]:
    """Return the seconds until the last run has ended, each begun as soon as one of `jobs` is free.

    Parameters
    ----------
    costs : iterable of float
        Seconds of each run that is due.
    jobs : int
    under_way : sequence of float
        Seconds that those still take which have begun.

    Returns
    -------
    list of float
        Of none of the runs that are due, of the first, of the first two, and so on: one more than there are.
    """
    free = [0.0] * max(0, jobs - len(under_way)) + [max(0.0, left) for left in under_way]
    heapq.heapify(free)
    last = [max(free, default=0.0)]
    for cost in costs:
        end = heapq.heappop(free) + cost
        heapq.heappush(free, end)
        last.append(max(last[-1], end))
    return last


def by_unit(keys: Sequence[RunKey], seeds: Sequence[int], folds: Sequence[int]) -> list[RunKey]:
    """Return the runs in the order in which they are trained under a budget: by seed, then fold, then policy.

    So policies stay comparable wherever the time ends. They keep the order of `keys`; `seeds` and `folds` are in
    theirs.
    """

    def place(of: Sequence[int], value: int) -> tuple[int, int]:
        return (of.index(value), value) if value in of else (len(of), value)

    return sorted(keys, key=lambda key: (place(seeds, key.seed), place(folds, key.fold)))


def as_told(given_up: Sequence[RunKey], keys: Sequence[RunKey], views: int = 0) -> list[str]:
    """Return what was given up, in words.

    Parameters
    ----------
    given_up : sequence of RunKey
    keys : sequence of RunKey
        All runs, of which these are some.
    views : int
        How many runs predict without views.

    Returns
    -------
    list of str
        Like ["views (prediction.views) of 4 runs", "seed 1", "folds 3, 4 of seed 0"]; empty where nothing was.
    """
    if keys and set(given_up).issuperset(keys):
        return ["all runs"]
    told = [f"views (prediction.views) of {views} run{'s' * (views > 1)}"] * bool(views)
    lacking = set(given_up)
    several = len({key.seed for key in keys}) > 1
    for seed in sorted({key.seed for key in given_up}, reverse=True):
        of_seed = [key for key in keys if key.seed == seed]
        if lacking.issuperset(of_seed):
            told.append(f"seed {seed}")
            continue
        where = f" of seed {seed}" if several else ""
        folds = list(dict.fromkeys(key.fold for key in of_seed if key in lacking))
        whole = [fold for fold in folds if lacking.issuperset(key for key in of_seed if key.fold == fold)]
        if whole:
            told.append(f"fold{'s' * (len(whole) > 1)} {some(whole, 20)}{where}")
        for fold in (fold for fold in folds if fold not in whole):
            policies = some([key.policy for key in of_seed if key.fold == fold and key in lacking], 5)
            told.append(f"{policies} in fold {fold}{where}")
    return told


def sentence(decision: Decision, told: Sequence[str], left: float) -> str:
    """Return the projection in one line: what all takes, what there is, and what is given up (`as_told`)."""
    if math.isinf(left):
        return ""
    line = f"budget: what is due takes {in_words(decision.whole)}, {in_words(left)} are left for it"
    if not told:
        return f"{line}; nothing is given up"
    line += f"; given up: {'; '.join(told)}"
    if decision.seconds > left:  # of what is under way
        return (
            f"{line}; not even the rest fits ({in_words(decision.seconds)}): it is trained as far as a checkpoint"
        )
    return line + (f"; the rest takes {in_words(decision.seconds)}" if decision.runs or decision.seconds else "")
