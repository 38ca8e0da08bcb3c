"""What holds for every policy: the ready ones, and any that can be made of the parts."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.strategies import FILES, READY, any_policy, groups, groups_for, peaks, policy_configs, round_trip
from support.strategies import SCHEDULES as ANY_SCHEDULE

from kit.lr import Clock, PolicyConfig, fine_tune, policy
from kit.lr.clock import policy_groups
from kit.lr.phases import phase_spans
from kit.model.groups import depth_groups
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer
from kit.training.rates import RateWriter

PEAK = Clock(step=25, total_steps=100)  # one-cycle is at its peak a quarter of the way
clocks = st.tuples(st.integers(1, 8), st.integers(1, 40)).flatmap(
    lambda pair: st.integers(0, pair[0] * pair[1] - 1).map(lambda step: Clock(step, pair[0] * pair[1], pair[1]))
)


@settings(deadline=None)
@given(any_policy, clocks)
def test_rates_are_finite_not_negative_and_at_most_the_documented_bound(config, clock):
    members = groups_for(config)
    built = config.build()
    assume(fits(built, members, clock))
    rates = built.rates(clock, members)
    bound = built.bound(members, clock.total_steps, clock.steps_per_epoch)
    assert rates.lr.dtype == np.float64
    assert rates.lr.shape == rates.frozen.shape == (len(members),)
    assert np.isfinite(rates.lr).all()
    assert (rates.lr >= 0).all()
    assert (rates.lr <= bound * (1 + 1e-9)).all()
    assert rates.momentum is None or 0 <= rates.momentum < 1
    if not config.train_norm:
        assert (rates.lr[rates.frozen] == 0).all()


def fits(built, members, clock) -> bool:
    try:
        built.check(members, clock.total_steps, clock.steps_per_epoch)
    except ValueError:
        return False
    return True


@settings(deadline=None, max_examples=50)
@given(any_policy, st.permutations(range(12)))
def test_rates_do_not_depend_on_the_order_of_asking(config, order):
    built, members = config.build(), groups_for(config)
    assume(fits(built, members, Clock(0, 12, 4)))
    ask = lambda step: built.rates(Clock(step, 12, 4), members)  # noqa: E731
    forwards = {step: ask(step) for step in range(12)}
    for step in order:
        assert ask(step).lr.tolist() == forwards[step].lr.tolist()
        assert ask(step).frozen.tolist() == forwards[step].frozen.tolist()
    whole = built.matrix(members, 12, 4)
    assert whole.lr.tolist() == [forwards[step].lr.tolist() for step in range(12)]


@settings(deadline=None)
@given(any_policy, clocks, st.integers(2, 7))
def test_stretching_the_steps_stretches_the_curve(config, clock, factor):
    """But for the factor of `equalise`, which is of the updates that there are."""
    config = config.model_copy(update={"equalise": False})
    built, members = config.build(), groups_for(config)
    assume(fits(built, members, clock))
    longer = Clock(*(factor * value for value in (clock.step, clock.total_steps, clock.steps_per_epoch)))
    here, there = built.rates(clock, members), built.rates(longer, members)
    np.testing.assert_allclose(there.lr, here.lr, rtol=1e-6, atol=1e-9 * built.peak)
    assert there.frozen.tolist() == here.frozen.tolist()


@given(peaks, st.one_of(*ANY_SCHEDULE.values()), st.integers(1, 20), st.integers(0, 49))
def test_a_uniform_profile_is_the_plain_schedule(lr, schedule, count, step):
    clock = Clock(step, 50)
    rates = policy(lr, schedule).rates(clock, groups(count))
    assert rates.lr.tolist() == [lr * schedule(clock)] * count
    assert not rates.frozen.any()


@settings(deadline=None)
@given(any_policy)
def test_yaml_round_trip(config):
    assert round_trip(config) == config
    assert round_trip(config).canonical() == config.canonical()


@settings(deadline=None)
@given(policy_configs(), clocks)
def test_phases_meet_without_a_gap_or_an_overlap(config, clock):
    """Each step belongs to one phase, and the phases fill the training in their order."""
    built = config.build()
    assume(fits(built, groups(), clock))
    each = phase_spans(built.phases, clock.total_steps, clock.steps_per_epoch)
    assert each[0][0] == 0
    assert each[-1][1] == clock.total_steps
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(each))
    assert all(begin < end for begin, end in each)
    ((phase, begin, end),) = [
        (phase, begin, end)
        for phase, (begin, end) in zip(built.phases, each, strict=True)
        if begin - 1e-9 <= clock.step < end - 1e-9
    ]
    within = Clock(max(0.0, clock.step - begin), end - begin, clock.steps_per_epoch)
    assert 0 <= within.progress < 1
    rates, frozen = built.rates(clock, groups()), phase.frozen(within, groups())
    assert rates.frozen.tolist() == frozen.tolist()
    np.testing.assert_array_equal(rates.lr[~frozen], phase.lr(within, groups())[~frozen])


@pytest.mark.parametrize("name", READY)
def test_weight_decay_splits_never_change_a_rate(name):
    config = READY[name]
    model = timm.create_model("test_resnet", num_classes=3)
    members = depth_groups(model, config.groups)
    built = config.build()
    optimizer = build_optimizer(OptimizerConfig(), model, members, torch.device("cpu"), built.peak)
    writer = RateWriter(built, members, 30, 5)
    assert len({group["weight_decay"] for group in optimizer.param_groups}) == 2
    assert len(optimizer.param_groups) > len(members)
    for step in range(30):
        writer.write(step, optimizer)
        expected = built.rates(Clock(step, 30, 5), policy_groups(members)).lr
        assert all(group["lr"] == expected[group["depth"]] for group in optimizer.param_groups)


def test_every_ready_policy_says_what_it_is():
    assert len(FILES) >= 25
    assert [name for name, config in READY.items() if not config.description.strip()] == []
    assert len({config.description for config in READY.values()}) == len(READY)


def test_fine_tune_is_fastais():
    """Measured with fastai 2.8.12: three groups, base 2e-3."""
    built = fine_tune(2e-3)
    first, second = (built.rates(Clock(step, 30, 10), groups(3)) for step in (0, 10))
    np.testing.assert_allclose(first.lr, [8e-6, 8e-6, 8e-5], rtol=1e-9)
    np.testing.assert_allclose(second.lr, [2e-6, 2e-5, 2e-4], rtol=1e-9)
    assert first.frozen.tolist() == [True, True, False]
    assert second.frozen.tolist() == [False, False, False]
    peaks = built.matrix(groups(3), 3000, 1000).lr
    np.testing.assert_allclose(peaks[:1000].max(axis=0), [2e-4, 2e-4, 2e-3], rtol=1e-6)
    np.testing.assert_allclose(peaks[1000:].max(axis=0), [1e-5, 1e-4, 1e-3], rtol=1e-6)
    assert peaks[:1000, 2].argmax() == 990  # pct .99
    assert peaks[1000:, 2].argmax() == 600  # pct .3 of 2000


def test_a_sequence_of_phases_in_epochs_and_fractions():
    built = policy(
        1e-2,
        "constant",
        phases=[
            {"epochs": 2, "freeze_to": -1},
            {"fraction": 0.5, "lr": 1e-3},
            {"schedule": "linear", "profile": "layer_decay"},
        ],
    )
    matrix = built.matrix(groups(3), 40, 5)
    assert matrix.lr[:10].tolist() == [[1e-2] * 3] * 10
    assert matrix.frozen[:10].tolist() == [[True, True, False]] * 10
    assert matrix.lr[10:30].tolist() == [[1e-3] * 3] * 20
    np.testing.assert_allclose(matrix.lr[30], [1e-2 * 0.75**2, 1e-2 * 0.75, 1e-2])
    np.testing.assert_allclose(matrix.lr[35], matrix.lr[30] / 2)
    assert not matrix.frozen[10:].any()


def test_norms_that_do_not_learn_have_no_rate():
    frozen = fine_tune(2e-3)
    still = PolicyConfig(lr=2e-3, phases="fine_tune", train_norm=False).build()
    assert still.rates(Clock(0, 30, 10), groups(3)).lr.tolist() == pytest.approx([0, 0, 8e-5])
    assert (
        still.rates(Clock(15, 30, 10), groups(3)).lr.tolist()
        == frozen.rates(Clock(15, 30, 10), groups(3)).lr.tolist()
    )


@pytest.mark.parametrize("total", [10, 51, 2000])
@pytest.mark.parametrize(
    ("profile", "schedule"),
    [
        *itertools.product(
            [
                {"name": "layer_decay"},
                {"name": "bleed_in", "ratio": 0.01},
                {"name": "gradual_unfreezing"},
                {"name": "scheduled_layer_decay"},
                {"name": "spline", "knots": [[0, 0], [0.5, 2], [1, 1]], "to": [[0, 1], [1, 0.1]]},
                {"name": "late_start"},
            ],
            ["one_cycle", "constant", "cosine", {"name": "piecewise", "knots": [[0, 0.1], [0.3, 1], [1, 0]]}],
        ),
        ({"name": "freeze_out"}, "constant"),
    ],
    ids=str,
)
def test_equalised_policies_learn_as_much_as_uniform_on_the_mean(profile, schedule, total):
    members, epoch = groups(), total / 5
    sizes = np.array([group.n_params for group in members])
    uniform = policy(1e-2, schedule).matrix(members, total, epoch).lr
    ours = policy(1e-2, schedule, profile, equalise=True).matrix(members, total, epoch).lr
    plain = policy(1e-2, schedule, profile).matrix(members, total, epoch).lr
    assert (ours @ sizes).mean() == pytest.approx((uniform @ sizes).mean(), rel=1e-9)
    there = plain > 0
    assert np.ptp(ours[there] / plain[there]) < 1e-9 * (ours[there] / plain[there]).mean()  # one factor


def test_equalise_leaves_what_is_nearly_nothing():
    """A factor that makes up for it would be beyond the largest number."""
    nearly = policy(1e-2, "constant", {"name": "table", "multipliers": [5e-324, 5e-324, 5e-324]}, equalise=True)
    assert nearly.rates(Clock(4, 40, 10), groups(3)).lr.max() < 1e-300


def test_equalise_looks_at_the_groups_that_freeze_to_lets_learn():
    plain, equalised = fine_tune(2e-3), PolicyConfig(lr=2e-3, phases="fine_tune", equalise=True).build()
    head_only = [each.rates(Clock(4, 40, 10), groups(3)).lr[2] for each in (plain, equalised)]
    assert head_only[0] == pytest.approx(head_only[1], rel=1e-12)
    assert equalised.rates(Clock(20, 40, 10), groups(3)).lr[2] > plain.rates(Clock(20, 40, 10), groups(3)).lr[2]


def test_equalise_leaves_uniform_as_it_is():
    plain, equalised = policy(1e-2), policy(1e-2, equalise=True)
    np.testing.assert_allclose(equalised.rates(PEAK, groups()).lr, plain.rates(PEAK, groups()).lr, rtol=1e-12)


@pytest.mark.parametrize(
    "lr",
    ["fast", "slice()", "slice(1e-6 1e-2)", "slice(1,2,3)", 0, -1e-3, "slice(0, 1e-2)", "nan", "slice(-1, 1)"],
)
def test_what_is_no_rate_is_refused(lr):
    with pytest.raises(ValueError, match=r"^lr = .*(is not a learning rate|above 0)"):
        policy(lr)


def test_pythons_slice_is_fastais():
    assert policy(slice(1e-4, 1e-2)) == policy("slice(1e-4, 1e-2)")
    assert policy(slice(1e-2)) == policy("slice(1e-2)")


def test_faults_are_told_in_a_line_each_as_for_a_config():
    with pytest.raises(ValueError, match=r"^schedule = 'cosin': did you mean cosine\?$"):
        policy(1e-2, "cosin")
    with pytest.raises(ValueError, match=r"^scheduel: unknown key; did you mean schedule\?$"):
        policy(1e-2, scheduel="cosine")
    with pytest.raises(ValueError, match=r"^policy: lr = slice\(0.01, 0.0001\): falls towards the head"):
        policy(slice(1e-2, 1e-4))
    with pytest.raises(ValueError, match=r"depth_groups\(model, cut\)"):
        policy(1e-2, groups="stage")


@pytest.mark.parametrize(
    ("lr", "profile", "message"),
    [
        ("slice(1e-2, 1e-4)", None, "falls towards the head; swap the rates, or say `profile: reverse`"),
        ("slice(1e-4, 1e-2)", "reverse", "rises towards the head, but the profile is reverse"),
        ("slice(1e-4, 1e-2)", "layer_decay", "profile layer_decay says itself how rates differ by depth"),
        ("slice(1e-4, 1e-2)", {"name": "bleed_in", "ratio": 0.1}, "profile bleed_in says itself"),
        ("slice(1e-2)", "bleed_in", "profile bleed_in needs both ends of the slice"),
        (1e-2, "bleed_in", "profile bleed_in: needs `ratio`, or lr as a slice"),
        (1e-2, {"name": "discriminative", "ratio": 0.1, "factor": 2}, "give one of them"),
        (1e-2, {"name": "bleed_in", "ratio": 0.1, "start": 0.5, "end": 0.5}, "has to come after start"),
    ],
)
def test_rates_and_profiles_that_contradict_each_other_are_refused(lr, profile, message):
    with pytest.raises(ValueError, match=message):
        policy(lr, profile=profile)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"epochs": 2}, {"epochs": 3}], "phases: longer than the training: they take 5 of 4 epochs"),
        ([{"epochs": 4}, {}], "longer than the training: they take 4 of 4 epochs, and the last one needs some"),
        ([{"epochs": 1}, {"fraction": 0.5}], "they take only 3 of 4 epochs; leave out how long the last one is"),
        ([{}, {"epochs": 1}], r"phases\[0\]: only the last phase may leave out"),
        ([{"epochs": 1, "freeze_to": 3}, {}], r"phases\[0\].freeze_to: 3 leaves nothing to learn of 3"),
        (
            [{"epochs": 1}, {"profile": {"name": "explicit", "groups": {"nix": 1}}}],
            r"phases\[1\].profile.groups: 'nix' matches no depth group; there are: layer0, layer1, layer2",
        ),
    ],
)
def test_phases_that_do_not_fit_the_training_are_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        policy(1e-2, phases=phases).check(groups(3), 40, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": {"name": "table", "multipliers": [0, 0, 0]}}, "profile: freezes all depth groups at once"),
        ({"freeze_to": -1, "profile": {"name": "explicit", "groups": {"head": 0}}}, "freezes all depth groups"),
        (
            {"phases": [{"fraction": 0.51}, {"fraction": 0.01}, {}]},
            r"phases\[1\]: shorter than one update \(0.4 of 40\)",
        ),
    ],
)
def test_policies_under_which_nothing_would_learn_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        policy(1e-2, **options).check(groups(3), 40, 10)


def test_what_counts_in_epochs_asks_for_their_length():
    for options in ({"profile": "gradual_unfreezing"}, {"phases": [{"epochs": 1}, {}]}, {"phases": "fine_tune"}):
        with pytest.raises(ValueError, match="steps_per_epoch: needed, because the policy counts in epochs"):
            policy(1e-2, **options).check(groups(3), 40)
        policy(1e-2, **options).check(groups(3), 40, 10)


def test_phases_that_make_no_sense_are_refused_at_once():
    with pytest.raises(ValueError, match="at least one is needed"):
        policy(1e-2, phases=[])
    with pytest.raises(ValueError, match="give one of them"):
        policy(1e-2, phases=[{"epochs": 1, "fraction": 0.2}])
    with pytest.raises(ValueError, match="fine_tune brings its own"):
        policy("slice(1e-4, 1e-2)", phases="fine_tune")
    with pytest.raises(ValueError, match=r"phases\[1\]: lr = slice\(0.01, 0.0001\): falls"):
        policy(1e-2, phases=[{"epochs": 1}, {"lr": "slice(1e-2, 1e-4)"}])


@pytest.mark.parametrize("controller", ["lars", "lamb", "constant_update", "temp_balance"])
def test_a_controller_over_frozen_groups_is_refused(controller):
    for options in ({"freeze_to": -1}, {"profile": "gradual_unfreezing"}, {"profile": "freeze_out"}):
        with pytest.raises(
            ValueError, match=f"controller: {controller} cannot steer depth group layer0, which the"
        ):
            policy(1e-2, "constant", controller=controller, **options).check(groups(3), 40, 10)
    policy(1e-2, "constant", "layer_decay", controller=controller).check(groups(3), 40, 10)


def test_what_anneals_is_not_annealed_twice():
    """FreezeOut's layers travel as far as each other (`scaled`) under a constant schedule alone."""
    travelled = policy(1e-2, "constant", "freeze_out").matrix(groups(), 1000).lr.sum(axis=0)
    np.testing.assert_allclose(travelled, travelled[0], rtol=2e-3)
    message = (
        "^policy: {}profile freeze_out anneals each depth group itself, and {} would .* `schedule: constant`$"
    )
    with pytest.raises(ValueError, match=message.format("", "one_cycle")):
        policy(1e-2, profile="freeze_out")
    with pytest.raises(ValueError, match=message.format("", "cosine")):
        policy(1e-2, "cosine", "freeze_out")
    phases = [{"epochs": 1, "schedule": "constant"}, {"schedule": "linear", "profile": "freeze_out"}]
    with pytest.raises(ValueError, match=message.format(r"phases\[1\]: ", "linear")):
        policy(1e-2, "constant", phases=phases)
    policy(1e-2, "cosine", phases=[{"epochs": 1}, {"schedule": "constant", "profile": "freeze_out"}])


def test_one_spelling_of_a_rate_in_the_config():
    assert PolicyConfig(lr="slice(1e-6,1e-2)") == PolicyConfig(lr="slice( 1e-06 , 0.01)")
    assert PolicyConfig(lr="1e-2") == PolicyConfig(lr=0.01)
    assert PolicyConfig(lr="slice(1e-2)") == PolicyConfig(lr="slice(.01)")


def test_the_threads_pair_is_what_it_says():
    assert READY["uniform"].build().rates(PEAK, groups(3)).lr.tolist() == [1e-2] * 3
    np.testing.assert_allclose(READY["discriminative"].build().rates(PEAK, groups(3)).lr, [1e-6, 1e-4, 1e-2])
    assert {READY[name].groups for name in ("uniform", "discriminative")} == {"coarse"}


def test_the_room_is_worth_using_alone():
    code = "import sys; from kit.lr import policy; policy('slice(1e-6, 1e-2)'); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"
