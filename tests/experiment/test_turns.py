"""Whose turn it is, against a slow, obvious version that looks at every run every time; and of many runs."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.faketime import set_clock

import kit.experiment.turns as turns
from kit.core.claims import Holder
from kit.core.runs import ExperimentDir, RunKey, RunRecord
from kit.experiment.budget import Pace, Work, by_unit
from kit.experiment.budget_plan import Plan
from kit.experiment.timekeeping import Budget
from kit.experiment.turns import Turns

KEYS = [RunKey(policy, seed, fold) for policy in ("flat", "steep") for seed in range(2) for fold in range(2)]
WORK = Work(updates=10, evaluation=5, evaluations=1, test=5, views=2)


class SlowTurns(Turns):
    """The obvious version: whenever a run is asked for, all are looked at."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.begun, self.refused = set(), set()

    def __next__(self):
        if (key := self._next()) is None:
            raise StopIteration
        self.begun.add(key)
        self.plan.begin(key)
        return key

    def _next(self):
        due = self.due()
        if self.plan.budget.limited:
            return self.plan.choose([key for key in due if key not in self._elsewhere()], self.say)
        return next((key for key in due if key not in self._elsewhere()), None)

    def give_back(self, key):
        self.refused.add(key)
        self.plan.give_back(key)

    def _ask_again_for_refused(self):
        self.begun -= self.refused
        self.refused.clear()

    def due(self):
        return [key for key in self._order if key not in self.begun and not self.settled(key)]

    def _elsewhere(self):
        looked_at = ((key, turns.holder_of_run(self.folder.run(key))) for key in self.due())
        return {key: holder for key, holder in looked_at if holder}


class World:
    """What is on disk, a clock that waiting moves, and what other processes do as it moves."""

    def __init__(self, kind, seconds, later):
        self.finished, self.held, self.now, self.later = set(), {}, 0.0, sorted(later)
        self.said, self.looks = [], Counter()
        budget = Budget() if seconds is None else Budget(seconds, since=0.0, reserve=1.0)
        if seconds is not None:
            budget.take("flat", Pace(0.1, 0.01, 1.0), True)
        ordered = by_unit(KEYS, range(2), range(2))
        runs = {key: self.run_of(key) for key in KEYS}
        plan = Plan(budget, ordered, list(KEYS), dict.fromkeys(KEYS, WORK), runs)
        self.turns = kind(KEYS, SimpleNamespace(run=lambda key: key), self.is_finished, plan, self.said.append)

    def run_of(self, key):
        record = RunRecord(policy=key.policy, seed=key.seed, fold=key.fold, status="running")
        return SimpleNamespace(finished=False, begun=True, resumable=False, record=record)

    def is_finished(self, key):
        self.looks[key] += 1
        return key in self.finished

    def sleep(self, seconds):
        self.now += max(seconds, 0.01)
        while self.later and self.later[0][0] <= self.now:
            _, what, number = self.later.pop(0)
            self.happens(what, KEYS[number])

    def happens(self, what, key):
        """Another process claims a run, ends with it, or gives it up."""
        if what == "claimed" and key not in self.finished:
            self.held[key] = Holder(None, f"trains {key}")
        elif what == "finished":
            self.finished.add(key)
            self.held.pop(key, None)
        elif what == "given up":
            self.held.pop(key, None)

    def does(self, what, number):
        """Carry out one step of a story; what this process sees of it."""
        if what == "next":
            return next(self.turns, None)
        if what == "train":
            if (key := next(self.turns, None)) is not None:
                self.finished.add(key)
            return key
        if what == "refused":
            if (key := next(self.turns, None)) is not None:
                self.held[key] = Holder(None, "faster")
                self.turns.give_back(key)
            return key
        if what == "tell":
            return self.turns.tell()
        if what == "wait":
            return self.turns.wait()
        return self.happens(what, KEYS[number])


numbers = st.integers(0, len(KEYS) - 1)
others_do = st.sampled_from(["claimed", "finished", "given up"])
steps = st.tuples(st.sampled_from(["next", "train", "refused", "wait", "tell"]) | others_do, numbers)
events = st.tuples(st.floats(0, 100), others_do, numbers)


@settings(max_examples=300, deadline=None)
@given(
    story=st.lists(steps, max_size=25),
    later=st.lists(events, max_size=6),
    seconds=st.none() | st.floats(3, 60),
)
def test_as_a_slow_version_that_looks_at_all(story, later, seconds):
    seen = []
    for kind in (SlowTurns, Turns):
        with pytest.MonkeyPatch.context() as patch:
            world = World(kind, seconds, later)
            clock = SimpleNamespace(monotonic=lambda: world.now, sleep=world.sleep)  # noqa: B023
            patch.setattr(turns, "time", clock)
            set_clock(patch, clock)
            patch.setattr(turns, "holder_of_run", lambda key: world.held.get(key))  # noqa: B023
            seen.append(([world.does(*step) for step in story], world.said))
    assert seen[0] == seen[1]


def test_each_of_many_runs_is_looked_at_once(tmp_path):
    """Beside other processes as well, of which some hold runs that are first in the order."""
    keys = [RunKey("flat", seed, fold) for seed in range(2000) for fold in range(5)]
    looks, done = Counter(), set(keys[100:200])

    def settled(key):
        looks[key] += 1
        return key in done

    mine = Turns(keys, ExperimentDir(tmp_path / "many"), settled, Plan(Budget(), [], [], {}, {}), print)
    assert list(mine) == [key for key in keys if key not in done]
    assert set(looks.values()) == {1}


def test_a_run_held_elsewhere_costs_a_look_each_time_alone(monkeypatch):
    keys = [RunKey("flat", seed, 0) for seed in range(1000)]
    held, looks = set(keys[:3]), Counter()
    monkeypatch.setattr(turns, "holder_of_run", lambda key: Holder(None) if key in held else None)

    def settled(key):
        looks[key] += 1
        return False

    folder = SimpleNamespace(run=lambda key: key)
    mine = Turns(keys, folder, settled, Plan(Budget(), [], [], {}, {}), print)
    assert list(mine) == keys[3:]
    assert {looks[key] for key in keys[3:]} == {1}
    assert {looks[key] for key in held} == {998}
