"""The clock of one run: how long things take in it, and when it has to stop."""

import time

from kit.core.errors import Say, ignore
from kit.core.progress import WARM_UP
from kit.core.runs import RunKey
from kit.experiment.budget import MARGIN, Cost, Pace
from kit.experiment.budget_plan import Plan
from kit.experiment.timekeeping import Budget


class RunClock:
    """Measures one run while it is trained, and says when it has to stop, and whether it predicts in all views.

    Parameters
    ----------
    plan : Plan
        Of which it is a run.
    key : RunKey
    say : callable
        Takes what changes in the plan.
    """

    def __init__(self, plan: Plan, key: RunKey, say: Say = ignore):
        self.key, self._plan, self._say, self._budget = key, plan, say, plan.budget
        self._work = plan.work.get(key)
        self._began = self._mark = time.monotonic()  # the run, and when its pace began to count
        self._first: int | None = None  # the first update of this process
        self._done = self._marked = 0  # updates, and those until the pace began to count
        self._starting = self._updating = self._predicting = 0.0  # seconds: before that; since then
        self._images, self._looking = 0.0, 0.0  # passes of images that were predicted, and in how many seconds
        self._views, self._fixed = True, False  # whether predictions are in all views, and that it stays so

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    @property
    def without_views(self) -> bool:
        """Whether the run's predictions are in one view although the config asks for several."""
        return self._work is not None and self._work.several and not self._views

    def stepped(self, step: int) -> None:
        """Take note that update number `step` was made."""
        now, self._done = time.monotonic(), step + 1
        self._first = step if self._first is None else self._first
        seen = self._done - self._first
        if seen <= WARM_UP:
            self._mark, self._marked, self._predicting = now, self._done, 0.0
            self._starting = now - self._began - self._looking
            return
        self._updating = now - self._mark - self._predicting
        counted = self._done - self._marked
        if self._work and (counted & (counted - 1) == 0 or self._done >= self._work.updates - 1):
            self._project()

    def predicted(self, images: float, seconds: float) -> None:
        """Take note that so many passes of images were made in so many seconds."""
        self._predicting += seconds
        self._images, self._looking = self._images + images, self._looking + seconds
        if self._work and self._done < self._work.updates:  # at the end the record tells it all
            self._project()

    def all_views(self) -> bool:
        """Say whether a prediction that begins now is in all views; all after the last update are so alike."""
        if not self._fixed:
            self._views = self._budget.views
            if self._work and self._done >= self._work.updates:
                pace = self._pace()
                self._views &= pace is None or MARGIN * pace.at_the_end(self._work, True) <= self._budget.left
                self._fixed = True
        return self._views

    def settle(self) -> None:
        """Let what is predicted from now on be in as many views as the last prediction."""
        self._fixed = True

    def expired(self) -> bool:
        """Say whether the budget would end before this is asked again, if the run went on."""
        if self._work is None:
            return False
        pace, work, left = self._pace(), self._work, self._budget.left
        if left <= 0 or pace is None or not self._is_measured:  # what others measured stops nothing
            return left <= 0
        to_come = work.updates - self._done
        if to_come <= 1:
            gap = to_come * pace.update + pace.at_the_end(work, views=False)  # before it stops, views go
        else:
            looks = work.epoch and (self._done % work.epoch == 0 or (self._done + 1) % work.epoch == 0)
            gap = pace.update + (pace.image * work.evaluation if looks else 0.0)
        return MARGIN * gap > left

    def still(self) -> Cost:
        """Return what the run still takes."""
        pace, work = self._pace(), self._work
        if pace is None or work is None:
            raise AssertionError("only asked where something was measured")
        both = [pace.between(work, self._done) + pace.at_the_end(work, views) for views in (True, False)]
        return Cost(self.key, *(MARGIN * seconds for seconds in both))

    def timings(self) -> dict[str, float]:
        """Return what was measured, for run.json: the seconds of an `update` and of an `image`."""
        counted = self._done - self._marked
        updates = {"update": max(0.0, self._updating) / counted} if counted else {}
        return updates | ({"image": self._looking / self._images} if self._images else {})

    @property
    def _is_measured(self) -> bool:
        return self._updating > 0 or self._budget.measured

    def _pace(self) -> Pace | None:
        """What is known: measured, or by the runs before, or, of images, no longer than to train on one."""
        found, known = self.timings(), self._budget.pace(self.key.policy)
        if "update" not in found and known is None:
            return None
        update = found.get("update") or (known.update if known else 0.0)
        at_most = update / self._work.samples if self._work else 0.0
        image = found.get("image") or (
            known.image if known and (self._budget.measured or not at_most) else at_most
        )
        starting = max(0.0, self._starting - WARM_UP * update)
        return Pace(update, image, known.other if known and self._budget.measured else starting)

    def _project(self) -> None:
        pace = self._pace()
        if pace is None or not self._is_measured:
            return
        self._budget.take(self.key.policy, pace, bool(self._images))
        if self._plan.jobs == 1:  # of several, each would decide without knowing what the others do
            self._plan.decide(self._say, self)


def unlimited(key: RunKey) -> RunClock:
    """Return the clock of a run without a budget."""
    return RunClock(Plan(Budget(), [key], [key], {}, {}), key)
