"""Policies: rates over depth against fastai's slices, and what holds for every one of them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.lr import Clock, Group, PolicyConfig, policy

PEAK = Clock(step=25, total_steps=100)  # one-cycle is at its peak a quarter of the way


def groups(count):
    return [Group(index, count) for index in range(count)]


def rates_at_peak(lr, count):
    return policy(lr).rates(PEAK, groups(count)).lr


def test_slice_is_geometric_from_the_stem_to_the_head():
    np.testing.assert_allclose(rates_at_peak("slice(1e-6, 1e-2)", 3), [1e-6, 1e-4, 1e-2], rtol=1e-12)
    np.testing.assert_allclose(rates_at_peak("slice(1e-6, 1e-2)", 5), [1e-6, 1e-5, 1e-4, 1e-3, 1e-2], rtol=1e-12)


def test_slice_of_a_single_group_is_its_upper_rate():
    assert rates_at_peak("slice(1e-6, 1e-2)", 1).tolist() == [1e-2]


def test_slice_of_one_rate_gives_a_tenth_below_the_head():
    np.testing.assert_allclose(rates_at_peak("slice(1e-2)", 4), [1e-3, 1e-3, 1e-3, 1e-2], rtol=1e-12)


def test_a_plain_rate_is_uniform():
    assert rates_at_peak(1e-2, 4).tolist() == [1e-2] * 4
    assert rates_at_peak("1e-2", 4).tolist() == [1e-2] * 4


def test_ratios_between_groups_stay_the_same_over_time():
    discriminative = policy("slice(1e-6, 1e-2)")
    for step in range(100):
        lr = discriminative.rates(Clock(step, 100), groups(5)).lr
        np.testing.assert_allclose(lr[1:] / lr[:-1], 10, rtol=1e-9)


@pytest.mark.parametrize(
    "lr", ["fast", "slice()", "slice(1e-6 1e-2)", "slice(1,2,3)", 0, -1e-3, "slice(0, 1e-2)", "nan"]
)
def test_what_is_no_rate_is_refused(lr):
    with pytest.raises(ValueError, match=r"learning rate|not above 0"):
        policy(lr)


def test_a_slice_that_falls_towards_the_head_is_refused():
    with pytest.raises(ValueError, match="falls towards the head"):
        policy("slice(1e-2, 1e-4)")


POLICIES = st.builds(
    policy,
    st.one_of(
        st.floats(1e-8, 10),
        st.floats(1e-8, 10).map("slice({})".format),
        st.tuples(st.floats(1e-8, 1e-3), st.floats(1e-3, 10)).map("slice{}".format),
    ),
    st.sampled_from(["one_cycle", "cosine", "constant"]),
)


@given(POLICIES, st.integers(1, 300), st.integers(1, 30), st.data())
def test_rates_are_finite_and_at_most_the_peak(policy, total, count, data):
    lr = policy.rates(Clock(data.draw(st.integers(0, total - 1)), total), groups(count)).lr
    assert lr.dtype == np.float64
    assert lr.shape == (count,)
    assert np.isfinite(lr).all()
    assert (lr >= 0).all()
    assert (lr <= policy.peak * (1 + 1e-12)).all()
    assert (np.diff(lr) >= 0).all()  # none of the slices falls towards the head


@given(POLICIES, st.permutations(range(12)))
def test_rates_do_not_depend_on_the_order_of_asking(policy, order):
    forwards = {step: policy.rates(Clock(step, 12), groups(4)).lr.tolist() for step in range(12)}
    assert {step: policy.rates(Clock(step, 12), groups(4)).lr.tolist() for step in order} == forwards


@given(st.floats(1e-8, 10), st.integers(1, 20), st.integers(0, 49))
def test_a_uniform_profile_is_the_plain_schedule(lr, count, step):
    uniform = policy(lr, "cosine")
    clock = Clock(step, 50)
    assert uniform.rates(clock, groups(count)).lr.tolist() == [lr * uniform.schedule(clock)] * count


def test_one_spelling_of_a_rate_in_the_config():
    assert PolicyConfig(lr="slice(1e-6,1e-2)") == PolicyConfig(lr="slice( 1e-06 , 0.01)")
    assert PolicyConfig(lr="1e-2") == PolicyConfig(lr=0.01)
    assert PolicyConfig(lr="slice(1e-2)") == PolicyConfig(lr="slice(.01)")


def test_the_threads_pair_is_what_it_says():
    from kit.config import load_experiment

    pair = load_experiment("configs/digits.yaml", policies=["uniform", "discriminative"]).policies
    assert pair["uniform"].build().rates(PEAK, groups(3)).lr.tolist() == [1e-2] * 3
    np.testing.assert_allclose(pair["discriminative"].build().rates(PEAK, groups(3)).lr, [1e-6, 1e-4, 1e-2])
    assert {member.groups for member in pair.values()} == {"coarse"}


def test_the_room_is_worth_using_alone():
    code = "import sys; from kit.lr import policy; policy('slice(1e-6, 1e-2)'); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "False"
