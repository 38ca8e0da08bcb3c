"""The clock of a command with a budget: what was measured, what is begun, and when a run has to stop.

All of it goes by `time.monotonic`, which neither a clock that is set nor a suspended machine moves; it is one
clock for all processes of a machine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kit.core.durations import in_words
from kit.core.errors import KitError, Say, ignore
from kit.core.runs import RunDir, RunKey, RunRecord
from kit.experiment.budget import MARGIN, Cost, Decision, Pace, Work, as_told, by_unit, decide, sentence
from kit.experiment.views import asked_views, gave_up
from kit.training.records import read_history

if TYPE_CHECKING:  # they bring torch
    from kit.data.loading import BatchPlan
    from kit.experiment.loaded import LoadedExperiment

WARM_UP = 3  # updates before the pace counts: the first ones compile, fill caches and start workers
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
