"""Schedules, profiles and controllers of the user's own: the same numbers as the kit's, and what is refused."""

import pickle

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.lr import Clock, PolicyConfig, PolicyGroup

GROUPS = [PolicyGroup(index, 4, f"g{index}", 10 * (index + 1)) for index in range(4)]

TWINS = """
import math
class OneCycle:
    def __init__(self, pct_start=0.25): self.start = pct_start
    def part(self, p, a, b, c):
        s, e, t = (a, b, p / self.start) if p < self.start else (b, c, (p - self.start) / (1 - self.start))
        return s + (1 + math.cos(math.pi * (1 - t))) * (e - s) / 2
    def __call__(self, clock): return self.part(clock.progress, 1 / 25, 1.0, 1e-5)
    def momentum(self, clock): return self.part(clock.progress, 0.95, 0.85, 0.95)
def decay(clock, group, factor=0.75): return factor ** group.above
class Thaw:
    def __call__(self, clock, group): return 0.0 if self.frozen(clock, group) else 1.0
    def frozen(self, clock, group): return clock.progress < 0.125 * group.above
def ready(clock): return 1.0
class Lars:
    signals = ("weight", "gradient", "decay")
    def step(self, state, signals, lr, fraction):
        steps = state.get("steps", 0) + 1
        weight, gradient, decay = (signals[name] for name in self.signals)
        return 1e-3 * weight / (gradient + decay * weight), {"steps": steps}
"""


DECAY = {"name": "layer_decay", "decay": 0.75}


@pytest.fixture
def own(tmp_path):
    """A policy of what mine.py has."""
    (tmp_path / "mine.py").write_text(TWINS)

    def of(text=None, **content):
        if text is not None:
            (tmp_path / "mine.py").write_text(text)
        return PolicyConfig.model_validate({"lr": 1e-2} | content, context={"folder": tmp_path})

    return of


@pytest.mark.parametrize(
    ("mine", "ours"),
    [
        ({"schedule": "mine.py:OneCycle"}, {"schedule": "one_cycle"}),
        (
            {"schedule": {"name": "mine.py:OneCycle", "pct_start": 0.4}},
            {"schedule": {"name": "one_cycle", "pct_start": 0.4}},
        ),
        ({"profile": "mine.py:decay"}, {"profile": DECAY}),
        (
            {"profile": {"name": "mine.py:decay", "factor": 0.5}},
            {"profile": DECAY | {"decay": 0.5}},
        ),
        (
            {"profile": "mine.py:decay", "equalise": True},
            {"profile": DECAY, "equalise": True},
        ),
    ],
)
def test_a_twin_of_one_of_the_kits_gives_its_numbers(own, mine, ours):
    first, second = (own(**content).build().matrix(GROUPS, 50, 10) for content in (mine, ours))
    for part in ("lr", "frozen", "momentum"):
        np.testing.assert_allclose(getattr(first, part), getattr(second, part), rtol=1e-12)


def test_an_own_profile_freezes(own):
    policy = own(schedule="constant", profile="mine.py:Thaw").build()
    policy.check(GROUPS, 50, 10)
    frozen = policy.matrix(GROUPS, 50, 10).frozen
    assert frozen.sum(axis=0).tolist() == [19, 13, 7, 0]


def test_an_own_controller_gives_the_kits_multipliers_within_its_bounds(own):
    mine = own(controller={"name": "mine.py:Lars", "lower": 1e-4, "upper": 1.0}).build().controller
    ours = own(controller="lars").build().controller
    mine.check(GROUPS)
    assert mine.signals == ours.signals
    signals = {
        "weight": np.array([1.0, 2, 0, 1e9]),
        "gradient": np.array([1.0, 1e-9, 1, 1]),
        "decay": np.full(4, 0.01),
    }
    first, state = mine.step(mine.start(4), signals, np.ones(4), 1.0)
    assert state == {"steps": 1}
    np.testing.assert_allclose(first, ours.step({}, signals, np.ones(4), 1.0)[0])


def test_an_own_controller_says_how_often_tails_are_measured(own):
    text = "class f:\n signals = ('tail',)\n def step(self, state, signals, lr, fraction): return lr, state"
    assert own(text, controller="mine.py:f").build().controller.tail_every == 1
    assert own(text + "\n every = 2.5", controller="mine.py:f").build().controller.tail_every == 2.5


def test_it_is_the_same_after_a_journey_to_another_process_and_in_yaml(own):
    config = own(schedule={"name": "mine.py:OneCycle", "pct_start": 0.4}, profile="mine.py:decay")
    policy = config.build()
    expected = policy.matrix(GROUPS, 20).lr
    assert (pickle.loads(pickle.dumps(policy)).matrix(GROUPS, 20).lr == expected).all()
    assert config.canonical()["schedule"] == {"name": "mine.py:OneCycle", "pct_start": 0.4}
    assert own(**config.model_dump(mode="json")).build().matrix(GROUPS, 20).lr.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("text", "content", "said"),
    [
        ("def f(clock): return 2", "schedule", "schedule: mine.py:f gives 2 at progress 0; a fraction"),
        ("def f(clock): return -.1", "schedule", "gives -0.1 at progress 0"),
        ("def f(clock): return 'x'", "schedule", "schedule: mine.py:f gives 'x'; a finite number is needed"),
        ("def f(clock): return float('nan')", "schedule", "gives nan; a finite number is needed"),
        ("def f(clock):\n return clock.now", "schedule", "schedule: mine.py:f: mine.py:2: AttributeError: .*now"),
        ("def f(clock): return clock.progress + .5", "schedule", r"gives 1\.\d+ at progress 0\.5"),
        ("import random\ndef f(clock): return random.random()", "schedule", "a policy is a pure function"),
        ("def f(clock): return 1", "profile", r"profile: mine.py:f \(mine.py:1\): is called with"),
        ("def f(clock, group): return -1", "profile", "gives -1 for depth group g0 at progress 0; 0 or more"),
        ("class f:\n bound = 2\n def __call__(self, clock, group): return 3", "profile", "0 to its bound, 2, is"),
        ("import time\ndef f(clock):\n time.sleep(.06)\n return 1", "schedule", r"takes \d+ ms, and is asked"),
        ("class f:\n pass", "schedule", r"has no __call__\(clock\)"),
        ("class f:\n pass", "controller", r"controller: mine.py:f: has no step\(state, signals, lr, fraction\)"),
        ("class f:\n signals = ('x',)\n def step(self, s, i, l, f): ...", "controller", "wants the signal 'x'"),
        ("class f:\n every = 0\n def step(self, s, i, l, f): return l, s", "controller", "every = 0; epochs"),
        ("class f:\n def step(self, s, i, l, f): return 1, s", "controller", r"shape \[\]; one for each of"),
        ("class f:\n def step(self, s, i, l, f): return l, {'a': l}", "controller", "no checkpoint can hold"),
        ("class f:\n def step(self, s, i, l, f): return -l, s", "controller", "above 0 is needed"),
        ("class f:\n def step(self, s, i, l, f): return l / 0, s", "controller", "above 0 is needed"),
        (
            "class f:\n n = 0\n def step(self, s, i, l, f):\n  self.n += 1\n  return l * self.n, s",
            "controller",
            "other multipliers for the same state",
        ),
    ],
)  # fmt: skip
def test_what_it_gives_is_tried_before_any_training(own, text, content, said):
    policy = own(text, **{content: "mine.py:f"}).build()
    with pytest.raises(ValueError, match=said):
        policy.check(GROUPS, 50, 10)


def test_without_the_file_a_policy_can_be_read_but_not_followed(own, tmp_path):
    """As that of a stored config whose code is gone."""
    config = own(schedule="mine.py:OneCycle")
    (tmp_path / "mine.py").unlink()
    policy = own(**config.model_dump(mode="json")).build()
    with pytest.raises(KitError, match=r"mine.py:OneCycle: there is no file mine.py"):
        policy.rates(Clock(0, 10), GROUPS)
