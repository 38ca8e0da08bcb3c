"""Which run a command with a budget begins now, and what is given up."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kit.core.durations import in_words
from kit.core.errors import KitError, Say, ignore
from kit.core.runs import RunDir, RunKey
from kit.experiment.budget import MARGIN, Cost, Decision, Work, as_told, by_unit, decide, sentence
from kit.experiment.timekeeping import Budget
from kit.experiment.views import asked_views
from kit.training.records import read_history

if TYPE_CHECKING:  # they bring torch
    from kit.data.loading import BatchPlan
    from kit.experiment.loaded import LoadedExperiment
    from kit.experiment.run_clock import RunClock


@dataclass
class Plan:
    """The runs that one call trains within a budget; without one it knows of none.

    Attributes
    ----------
    budget : Budget
    due : list of RunKey
        Those that are not finished, by `by_unit`.
    keys : list of RunKey
        Those and the finished ones.
    work : dict of RunKey to Work
    runs : dict of RunKey to RunDir
    jobs : int
    asked : dict of str to object
        How the runs are to predict, as run.json says it.
    begun : dict of RunKey to float
        When each was begun here, by `time.monotonic`.
    free : list of RunKey
        Those that nobody has begun, as far as is known.
    """

    budget: Budget
    due: list[RunKey]
    keys: list[RunKey]
    work: dict[RunKey, Work]
    runs: dict[RunKey, RunDir]
    jobs: int = 1
    asked: Mapping[str, Any] = field(default_factory=dict)
    begun: dict[RunKey, float] = field(default_factory=dict)
    free: list[RunKey] = field(default_factory=list)
    _told: tuple[tuple[RunKey, ...], bool] | None = None
    _learnt: set[RunKey] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        budget: Budget,
        due: Sequence[RunKey],
        keys: Sequence[RunKey],
        loaded: "LoadedExperiment",
        batches: Callable[[int], "BatchPlan"],
        test: int,
    ) -> "Plan":
        """Return the plan of `due`, some of `keys`.

        Parameters
        ----------
        budget, due, keys
            As in the class.
        loaded : LoadedExperiment
        batches : callable
            Returns the batches of a training on so many rows.
        test : int
            Test images.
        """
        if not budget.limited:  # nothing is decided, and it goes along with each run
            return cls(budget, [], [], {}, {})
        config, runs = loaded.config, {key: loaded.folder.run(key) for key in keys}
        views = asked_views(config)

        def work_of(fold: int) -> Work:
            plan = batches(len(loaded.training_rows(fold)))
            every = config.training.evaluate_every * plan.steps_per_epoch
            return Work(
                updates=plan.total_steps,
                evaluation=len(loaded.folds.validation_rows(fold)),
                evaluations=1 + (plan.total_steps - 1) // every if every else 1,
                test=test,
                views=views.passes,
                one=views.one.passes,
                epoch=every,
                samples=plan.samples_per_update,
            )

        of_fold = {fold: work_of(fold) for fold in {key.fold for key in keys}}
        work = {key: of_fold[key.fold] for key in keys}
        ordered = by_unit(due, config.seeds, config.folds.chosen)
        made = cls(budget, ordered, list(keys), work, runs, asked=views.form())
        made.free = list(ordered)
        made.learn()
        return made

    def choose(
        self, free: Sequence[RunKey], say: Say, hand_in: Callable[[], object] | None = None
    ) -> RunKey | None:
        """Return the run to begin now; None where none is left, or the time does not suffice for one.

        Parameters
        ----------
        free : sequence of RunKey
            Those of `due` that are not finished, not begun here, and on which no other process works.
        say : callable
            Takes the projection, when it is first known and whenever what is decided has changed.
        hand_in : callable, optional
            Hands in what is finished; called once, to measure how long that takes.
        """
        others = set(free)
        self.free = [key for key in self.due if key in others]
        if not self.free or self.budget.over:
            return None
        self.learn()
        if hand_in and self.budget.pooling is None and (finished := self._finished):
            self.budget.measure_handing_in(hand_in, finished, len(self.keys))
        decision = self.decide(say)
        runs = decision.runs if decision else tuple(self.free)
        if not runs and not self.budget.measured and not self.begun:
            runs = tuple(self.free)  # what others measured stops nothing from being tried
        return next(iter(runs), None)

    def begin(self, key: RunKey) -> None:
        """Note that a run begins now."""
        self.begun[key] = time.monotonic()
        self.free = [each for each in self.free if each != key]

    def give_back(self, key: RunKey) -> None:
        """Note that a run did not begin, as another process was faster."""
        self.begun.pop(key, None)

    @property
    def _finished(self) -> int:
        return sum(run.finished for run in self.runs.values())

    def learn(self) -> None:
        """Take the pace of the runs that have been finished since."""
        for key, run in self.runs.items():
            if key not in self._learnt and run.finished:
                self._learnt.add(key)
                self.budget.learn(run, self.work[key], ours=key in self.begun, asked=self.asked)

    def decide(self, say: Say = ignore, mine: "RunClock | None" = None) -> Decision | None:
        """Decide by what is known now, and tell it where that is something new; None where nothing is known.

        `mine` is the run that this process trains now.
        """
        if not self.budget.paces:
            return None
        under_way = [self._still(key, mine) for key in self.begun if self._is_under_way(key)]
        views, left = any(work.several for work in self.work.values()), self.budget.left
        decision = decide(
            [self._cost(key) for key in self.free],
            left,
            self.jobs,
            under_way,
            views and not self.budget.without_views,
        )
        without = views and not decision.views
        if not (without or decision.given_up) or self.budget.looked:  # until then images count at their longest
            self.budget.views = not without
            self._tell(decision, left, len(decision.runs) + len(under_way) if without else 0, say)
        return decision

    def _tell(self, decision: Decision, left: float, without_views: int, say: Say) -> None:
        """Say what was decided, where that is something new."""
        anything = decision.runs or decision.given_up or decision.seconds
        if anything and (decision.given_up, bool(without_views)) != self._told:
            self._told = (decision.given_up, bool(without_views))
            say(sentence(decision, as_told(decision.given_up, self.keys, without_views), left))

    def _is_under_way(self, key: RunKey) -> bool:
        run = self.runs[key]
        return not run.begun or run.record.status == "running"

    def _cost(self, key: RunKey) -> Cost:
        pace, work, first = self.budget.pace(key.policy), self.work[key], _updates_done(self.runs[key])
        assert pace is not None, "only asked where one is known"
        return Cost(key, *(MARGIN * pace.of(work, views, first) for views in (True, False)))

    def _still(self, key: RunKey, mine: "RunClock | None") -> Cost:
        """What a run that has begun still takes."""
        if mine and mine.key == key:
            return mine.still()
        cost, gone = self._cost(key), time.monotonic() - self.begun[key]
        return replace(cost, with_views=max(0.0, cost.with_views - gone), without=max(0.0, cost.without - gone))

    def note(self) -> str:
        """Return how far it is, for the progress bar; "" without a budget."""
        if not self.budget.limited:
            return ""
        left = in_words(self.budget.left + self.budget.reserve)
        return f"plan: {len(self._learnt)}/{len(self.keys)} runs, {left} of {in_words(self.budget.seconds)} left"


def _updates_done(run: RunDir) -> int:
    """Return about how many updates a run's checkpoint spares; 0 where there is none."""
    if not run.resumable:
        return 0
    try:
        return max((int(line["step"]) for line in read_history(run.history)), default=0)
    except (KitError, KeyError, TypeError, ValueError):
        return 0  # it is told where the run goes on
