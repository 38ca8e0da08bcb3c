"""What fits into a budget: against every other choice there is, and simulated with known truth."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.core.runs import RunKey
from kit.experiment.budget import Cost, Pace, Work, as_told, by_unit, decide, makespans, sentence

POLICIES = ("flat", "steep")


def keys_of(seeds=2, folds=3, policies=2) -> list[RunKey]:
    """As the config lists them: by policy."""
    return [
        RunKey(policy, seed, fold)
        for policy in POLICIES[:policies]
        for seed in range(seeds)
        for fold in range(folds)
    ]


def in_order(keys):
    return by_unit(keys, sorted({key.seed for key in keys}), sorted({key.fold for key in keys}))


def slowly(costs, jobs, under_way):
    """A slow, obvious makespan: moments of time one after the other, in tenths."""
    waiting, running = [round(10 * cost) for cost in costs], [round(10 * left) for left in under_way]
    for now in count():
        running = [left for left in running if left > 0]
        while waiting and len(running) < jobs:
            running.append(waiting.pop(0))
            running = [left for left in running if left > 0]
        if not running:
            return now / 10
        running = [left - 1 for left in running]
    raise AssertionError


tenths = st.integers(0, 40).map(lambda number: number / 10)


@given(st.lists(tenths, max_size=8), st.integers(1, 4), st.data())
def test_makespan(costs, jobs, data):
    under_way = data.draw(st.lists(tenths, max_size=jobs))
    ends = [slowly(costs[:number], jobs, under_way) for number in range(len(costs) + 1)]
    assert makespans(costs, jobs, under_way) == pytest.approx(ends)


@st.composite
def situations(draw):
    """What is due (perhaps not all of the first unit), jobs, what is under way, and what is left."""
    keys = in_order(keys_of(draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 2))))
    keys = keys[draw(st.integers(0, 2)) :]
    costs = [
        Cost(key, plain + draw(st.floats(0, 5)), plain)
        for key in keys
        for plain in [draw(st.floats(0.1, 10, allow_subnormal=False))]
    ]
    jobs = draw(st.integers(1, 3))
    under_way = [
        Cost(RunKey("flat", 0, 0), 2 * left, left) for left in draw(st.lists(st.floats(0, 5), max_size=jobs))
    ]
    return costs, draw(st.floats(0, 120)), jobs, under_way


@given(situations(), st.booleans())
def test_a_decision_against_all_others(situation, views):
    """What is decided fits, and no choice that gives up less, or the later thing, would."""
    due, left, jobs, under_way = situation
    decision = decide(due, left, jobs, under_way, views)

    def fits(number, with_views):
        under = [cost.at(with_views) for cost in under_way]
        return makespans([cost.at(with_views) for cost in due[:number]], jobs, under)[-1] <= left

    number, keys = len(decision.runs), [cost.key for cost in due]
    assert (*decision.runs, *decision.given_up) == tuple(keys)
    if number:
        assert decision.seconds <= left  # never exceeds
    units = list(dict.fromkeys((key.seed, key.fold) for key in keys))
    whole = [sum((key.seed, key.fold) in units[:end] for key in keys) for end in range(len(units) + 1)]
    assert number in whole or number < whole[1]  # a unit goes for all policies alike, but where not even one fits
    assert not any(fits(more, False) for more in whole if more > number)  # no seed, no fold that would have fitted
    assert decision.views == (views and fits(number, True))  # nor views, without which more would not have fitted
    if decision.given_up and number in whole and number:
        kept = {(key.seed, key.fold) for key in decision.runs}
        assert all((key.seed, key.fold) > max(kept) for key in decision.given_up)  # the last seeds, the last folds


def test_the_order_of_giving_up():
    """Four seconds a run with views and three without; two policies, two seeds, two folds."""
    keys = in_order(keys_of(2, 2, 2))
    due = [Cost(key, 4.0, 3.0) for key in keys]
    made = {left: decide(due, left) for left in (32, 31.9, 24, 23.9, 18, 12, 11.9, 6, 5.9, 3, 2.9)}
    assert {left: (len(each.runs), each.views) for left, each in made.items()} == {
        32: (8, True),
        31.9: (8, False),
        24: (8, False),  # not six with views
        23.9: (6, False),
        18: (6, False),
        12: (4, False),
        11.9: (2, True),
        6: (2, False),
        5.9: (1, True),  # not a fold for both policies: for the first
        3: (1, False),
        2.9: (0, True),  # nothing is left to predict
    }
    assert as_told(made[12].given_up, keys) == ["seed 1"]
    assert as_told(made[18].given_up, keys, 6) == ["views (prediction.views) of 6 runs", "fold 1 of seed 1"]
    assert as_told(made[6].given_up, keys) == ["seed 1", "fold 1 of seed 0"]
    assert as_told(made[3].given_up, keys) == ["seed 1", "fold 1 of seed 0", "steep in fold 0 of seed 0"]
    assert as_told(made[2.9].given_up, keys, 1) == ["all runs"]
    assert as_told((), keys) == []


def test_in_one_line():
    keys = in_order(keys_of(2, 2, 2))
    decision = decide([Cost(key, 4000.0, 3000.0) for key in keys], 13000.0)
    assert sentence(decision, as_told(decision.given_up, keys, 4), 13000.0) == (
        "budget: what is due takes 8 h 53 m, 3 h 37 m are left for it; given up: views (prediction.views) of 4 "
        "runs; seed 1; the rest takes 3 h 20 m"
    )
    decision = decide([Cost(key, 4.0, 3.0) for key in keys], 32.0)
    assert (
        sentence(decision, [], 32.0) == "budget: what is due takes 32 s, 32 s are left for it; nothing is given up"
    )


def test_runs_take_turns_by_seed_fold_and_policy():
    """In the order of the config's seeds."""
    keys = [RunKey(policy, seed, fold) for policy in ("b", "a") for seed in (7, 3) for fold in (0, 2)]
    assert by_unit(keys, [7, 3], [0, 2]) == [
        RunKey(policy, seed, fold) for seed in (7, 3) for fold in (0, 2) for policy in ("b", "a")
    ]


def test_the_seconds_of_a_run():
    """30 updates, looked at after 10 and 20 and at the end; 5 held-out and 7 test images in two views."""
    work, pace = Work(30, 5, 3, 7, views=2, epoch=10), Pace(update=1.0, image=0.1, other=4.0)
    assert pace.of(work, views=False) == pytest.approx(4 + 30 + 3 * 0.5 + 0.7)
    assert pace.of(work, views=True) == pytest.approx(4 + 30 + 2 * 0.5 + 1.0 + 1.4)
    assert pace.between(work, 9) == pytest.approx(21 + 1.0)
    assert pace.between(work, 10) == pytest.approx(20 + 0.5)
    assert pace.between(work, 29) == pytest.approx(1)
    once = Work(30, 5, 1, 7)
    assert pace.of(once, views=True) == pytest.approx(4 + 30 + 0.5 + 0.7)
