"""How long a command with a budget may still take, and what it has learnt of how long things take.

All of it goes by `time.monotonic`, which neither a clock that is set nor a suspended machine moves; it is one
clock for all processes of a machine.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.core.runs import RunDir, RunRecord
from kit.experiment.budget import MARGIN, Pace, Work
from kit.experiment.views import gave_up

LEAST = 2.0  # seconds that are kept for the end at least
SHARE = 0.02  # of the budget, kept for the end until it was measured, LONGEST seconds at most
LONGEST = 60.0


@dataclass
class Budget:
    """How long a command may take, and what it has learnt of how long things take.

    Attributes
    ----------
    seconds : float
        Infinite where there is no budget.
    since : float
        When it began, by `time.monotonic`.
    reserve : float
        Seconds kept for pooling and writing.
    measured : bool
        Whether `paces` were measured by this command; else they are those of runs that were there.
    paces : dict of str to Pace
        By policy.
    views : bool
        Whether images are predicted in all views, as decided last.
    without_views : bool
        Whether that was given up for a run that is finished; then it is for all that follow.
    looked : bool
        Whether it was measured how long images take to predict.
    pooling : float, optional
        Seconds that it took to pool one run.
    drawing : float
        Seconds that it took to draw what is drawn at the end; 0 where that is not known yet.
    """

    seconds: float = float("inf")
    since: float = field(default_factory=time.monotonic)
    reserve: float = 0.0
    measured: bool = False
    paces: dict[str, Pace] = field(default_factory=dict)
    views: bool = True
    without_views: bool = False
    looked: bool = False
    pooling: float | None = None
    drawing: float = 0.0

    def __post_init__(self) -> None:
        if self.limited:
            self.reserve = self.reserve or max(LEAST, min(SHARE * self.seconds, LONGEST))

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        return self.seconds < float("inf")

    @property
    def left(self) -> float:
        """Seconds until work has to end so that what is finished can be handed in."""
        return self.since + self.seconds - self.reserve - time.monotonic()

    @property
    def over(self) -> bool:
        """Whether none are left."""
        return self.left <= 0

    def pace(self, policy: str) -> Pace | None:
        """Return that of a policy, of the slowest known where its own is not; None where nothing is known."""
        if policy in self.paces or not self.paces:
            return self.paces.get(policy)
        known = self.paces.values()
        return Pace(*(max(getattr(each, name) for each in known) for name in ("update", "image", "other")))

    def measure_handing_in(self, hand_in: Callable[[], object], pooled: int, runs: int) -> None:
        """Hand in what is finished, and keep as much time as it will take for all `runs`.

        Parameters
        ----------
        hand_in : callable
        pooled : int
            Runs that are finished.
        runs : int
            Runs that will be at most.
        """
        began = time.monotonic()
        hand_in()
        self.pooling = max(0.0, time.monotonic() - began - self.drawing) / max(1, pooled)
        self.reserve = max(LEAST, MARGIN * (self.pooling * runs + self.drawing))

    def draw(self, drawing: Callable[[], object]) -> None:
        """Draw where there is time for it, and note how long it takes."""
        if self.over and not 0 < MARGIN * self.drawing < self.left + self.reserve:
            return
        began = time.monotonic()
        drawing()
        self.drawing = time.monotonic() - began

    def allows(self, record: RunRecord, images: int, passes: float) -> bool:
        """Whether so many images can be predicted, by so many passes each, with the weights of a finished run."""
        speed = record.seconds.get("image") or 1 / (record.images_per_second or float("inf"))
        return not self.limited or MARGIN * images * passes * speed < self.left

    def learn(self, run: RunDir, work: Work, ours: bool, asked: Mapping[str, Any]) -> None:
        """Take the pace of a finished run that was to predict as `asked`, `ours` where this command trained it."""
        record = run.record
        without = gave_up(record, asked)
        pace, looked = pace_of(record, work, without), "image" in record.seconds
        if ours:
            self.without_views = self.without_views or without
        if pace and ours:
            self.take(record.policy, pace, looked)
        elif pace and not self.measured:
            self.paces[record.policy], self.looked = pace, self.looked or looked

    def take(self, policy: str, pace: Pace, looked: bool) -> None:
        """Take a pace that this command measured; those of runs that were there count no longer."""
        if not self.measured:
            self.paces, self.measured, self.looked = {}, True, False
        self.paces[policy], self.looked = pace, self.looked or looked


def pace_of(record: RunRecord, work: Work, without: bool = False) -> Pace | None:
    """Return the pace that run.json tells; None where it tells none. `without`: its views were given up.

    Earlier versions did not note how long an update and a prediction take: an image takes no longer to predict
    than to train on.
    """
    took, speed = record.seconds, record.images_per_second
    if not (speed and {"training", "whole"} <= took.keys()):
        return None
    update, image = took.get("update") or work.samples / speed, took.get("image") or 1 / speed
    pace = Pace(update, image)
    looking = image * (work.evaluations - 1) * work.evaluation + pace.at_the_end(work, not without)
    warming = max(0.0, took["training"] - update * work.updates)
    return Pace(update, image, max(0.0, took["whole"] - took["training"] - looking) + warming)
