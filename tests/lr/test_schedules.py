"""Schedules against fastai's and timm's numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from timm.scheduler import CosineLRScheduler

from kit.lr import Clock
from kit.lr.schedules import Constant, Cosine, OneCycle, Schedule

SCHEDULES = st.one_of(
    st.just(Constant()),
    st.builds(
        OneCycle,
        div=st.floats(1, 1e3),
        div_final=st.floats(1, 1e6),
        pct=st.floats(0.01, 0.99),
        momentum_high=st.floats(0, 0.99),
        momentum_low=st.floats(0, 0.99),
    ),
    st.builds(Cosine, warmup=st.floats(0, 0.9), start=st.floats(0, 1), floor=st.floats(0, 1)),
)

# p → (rate at max 1e-2, momentum), measured with fastai 2.8.12, which rounds break points to float32.
FASTAI = {
    0.0: (4e-4, 0.95),
    0.05: (1.3167185e-3, 0.94045),
    0.125: (5.2e-3, 0.90),
    0.25: (1e-2, 0.85),
    0.5: (7.5000249e-3, 0.875),
    0.75: (2.5000747e-3, 0.925),
    0.9: (4.3236872e-4, 0.94568),
    0.99: (4.4857973e-6, 0.94996),
}


@pytest.mark.parametrize("p", FASTAI)
def test_one_cycle_has_fastais_rates_and_momentum(p):
    clock, (rate, momentum) = Clock(step=round(p * 1000), total_steps=1000), FASTAI[p]
    assert 1e-2 * OneCycle()(clock) == pytest.approx(rate, abs=2e-9)
    assert OneCycle().momentum(clock) == pytest.approx(momentum, abs=6e-6)


def test_one_cycle_peaks_at_step_4_of_16_where_torchs_peaks_at_3():
    ours = [OneCycle()(Clock(step, 16)) for step in range(16)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=16, pct_start=0.25, final_div_factor=1e5
    )
    rates = []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert max(range(16), key=ours.__getitem__) == 4
    assert max(range(16), key=rates.__getitem__) == 3
    assert rates[-1] == pytest.approx(1 / 25 / 1e5)
    assert ours[-1] > 1 / 1e5


@pytest.mark.parametrize(("warmup", "floor"), [(0, 0.0), (5, 0.0), (20, 0.1)])
def test_cosine_is_timms_with_its_warm_up_before_the_cosine(warmup, floor):
    total = 100
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    timms = CosineLRScheduler(
        optimizer,
        t_initial=total - warmup,
        lr_min=1e-3 * floor,
        warmup_t=warmup,
        warmup_lr_init=1e-5,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    ours = Cosine(warmup=warmup / total, start=0.01, floor=floor)
    for step in range(total):
        timms.step_update(step)
        assert 1e-3 * ours(Clock(step, total)) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_cosine_is_half_way_down_in_the_middle():
    assert Cosine(warmup=0)(Clock(50, 100)) == pytest.approx(0.5)
    assert Cosine(warmup=0, floor=0.2)(Clock(50, 100)) == pytest.approx(0.6)


@given(SCHEDULES, st.integers(1, 10_000), st.data())
def test_every_schedule_stays_between_0_and_1(schedule, total, data):
    clock = Clock(data.draw(st.integers(0, total - 1)), total)
    fraction = schedule(clock)
    assert math.isfinite(fraction)
    assert 0 <= fraction <= 1 + 1e-12
    momentum = schedule.momentum(clock)
    assert momentum is None or 0 <= momentum < 1


@given(SCHEDULES, st.integers(1, 500), st.integers(2, 7), st.data())
def test_stretching_the_steps_stretches_the_curve(schedule, total, factor, data):
    step = data.draw(st.integers(0, total - 1))
    assert schedule(Clock(step * factor, total * factor)) == pytest.approx(schedule(Clock(step, total)), abs=1e-12)


@given(SCHEDULES)
def test_a_schedule_comes_back_from_its_plain_values(schedule):
    assert TypeAdapter(Schedule).validate_python(schedule.model_dump(mode="json")) == schedule
