"""Schedules against fastai's, timm's and torch's numbers."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from support.strategies import READY, SCHEDULES, groups
from timm.scheduler import CosineLRScheduler, PolyLRScheduler

from kit.lr import Clock, policy
from kit.lr.config import Schedule
from kit.lr.schedules import (
    SGDR,
    Constant,
    Cosine,
    FlatCos,
    InverseSqrt,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    ScheduleBase,
    Step,
    WarmupStableDecay,
    cycle_of,
)

ANY = st.one_of(*SCHEDULES.values())

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


def test_every_registered_schedule_is_tested():
    registered = set(ScheduleBase.members)
    assert registered == set(SCHEDULES)


@pytest.mark.parametrize("p", FASTAI)
def test_one_cycle_has_fastais_rates_and_momentum(p):
    clock, (rate, momentum) = Clock(step=round(p * 1000), total_steps=1000), FASTAI[p]
    assert 1e-2 * OneCycle()(clock) == pytest.approx(rate, abs=2e-9)
    assert OneCycle().momentum(clock) == pytest.approx(momentum, abs=6e-6)


def sgd(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def rates_of(make, steps, lr=1.0):
    """What a torch scheduler writes before each of `steps` updates."""
    optimizer = sgd(lr)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return rates


def test_one_cycle_peaks_at_step_4_of_16_where_torchs_peaks_at_3():
    ours = [OneCycle()(Clock(step, 16)) for step in range(16)]
    make = lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(  # noqa: E731
        optimizer, 1.0, total_steps=16, pct_start=0.25, final_div_factor=1e5
    )
    rates = rates_of(make, 16)
    assert max(range(16), key=ours.__getitem__) == 4
    assert max(range(16), key=rates.__getitem__) == 3
    assert rates[-1] == pytest.approx(1 / 25 / 1e5)
    assert ours[-1] > 1 / 1e5


@pytest.mark.parametrize(
    ("p", "rate"), [(0.0, 1e-2), (0.74, 1e-2), (0.8, 9.045094e-3), (0.875, 5.00005e-3), (0.95, 9.550059e-4)]
)
def test_flat_cos_has_fastais_rates(p, rate):
    assert 1e-2 * FlatCos()(Clock(round(p * 1000), 1000)) == pytest.approx(rate, rel=1e-6)


def timms_cosine(steps, base=1e-3, **options):
    optimizer = sgd(base)
    timms = CosineLRScheduler(optimizer, t_in_epochs=False, **options)
    for step in range(steps):
        timms.step_update(step)
        yield optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(("warmup", "floor"), [(0, 0.0), (5, 0.0), (20, 0.1)])
@pytest.mark.parametrize("prefix", [True, False])
def test_cosine_is_timms_with_either_warm_up(warmup, floor, prefix):
    total = 100
    options = {"lr_min": 1e-3 * floor, "warmup_t": warmup, "warmup_lr_init": 1e-5, "warmup_prefix": prefix}
    timms = timms_cosine(total, t_initial=total - warmup * prefix, **options)
    ours = Cosine(warmup=warmup / total, start=0.01, floor=floor, prefix=prefix)
    for step, rate in enumerate(timms):
        assert 1e-3 * ours(Clock(step, total)) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize(("prefix", "at_5"), [(False, 9.93844e-4), (True, 1e-3)])
def test_timms_warm_up_in_numbers(prefix, at_5):
    total = 105 if prefix else 100
    ours = Cosine(warmup=5 / total, start=1e-3, prefix=prefix)
    assert 1e-3 * ours(Clock(4, total)) == pytest.approx(8.002e-4, rel=1e-9)
    assert 1e-3 * ours(Clock(5, total)) == pytest.approx(at_5, rel=1e-6)


@pytest.mark.parametrize(("t", "rate"), [(10, 5e-4), (20, 2.5e-4), (50, 1.25e-4), (70, 0)])
def test_timms_cycles_in_numbers(t, rate):
    cycles = Cosine(warmup=0, cycle=0.1, multiplier=2, decay=0.5, limit=3)
    assert 1e-3 * cycles(Clock(t, 100)) == pytest.approx(rate, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("multiplier", "limit"), [(2.0, 3), (1.0, 5), (1.5, 2)])
def test_cycles_are_timms(multiplier, limit):
    options = {"cycle_mul": multiplier, "cycle_decay": 0.5, "cycle_limit": limit, "lr_min": 1e-5}
    timms = timms_cosine(100, t_initial=10, **options)
    ours = Cosine(warmup=0, cycle=0.1, multiplier=multiplier, decay=0.5, limit=limit, floor=0.01)
    for step, rate in enumerate(timms):
        assert 1e-3 * ours(Clock(step, 100)) == pytest.approx(rate, rel=1e-9), step


@pytest.mark.parametrize(("t", "rate"), [(25, 9.619398e-4), (50, 7.220079e-4)])
def test_timms_k_decay_in_numbers(t, rate):
    assert 1e-3 * Cosine(warmup=0, k=1.5)(Clock(t, 100)) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(("cycles", "multiplier", "first"), [(3, 2.0, 10), (4, 1.0, 25)])
def test_sgdr_is_timms_cosine_whose_cycles_fill_the_training(cycles, multiplier, first):
    total = round(sum(first * multiplier**number for number in range(cycles)))
    timms = timms_cosine(total, t_initial=first, cycle_mul=multiplier, cycle_limit=cycles)
    ours = SGDR(cycles=cycles, multiplier=multiplier)
    rates = [ours(Clock(step, total)) for step in range(total)]
    for step, rate in enumerate(timms):
        assert 1e-3 * rates[step] == pytest.approx(rate, rel=1e-9), step
    assert [step for step in range(total) if rates[step] == pytest.approx(1.0)] == [
        round(first * sum(multiplier**number for number in range(cycle))) for cycle in range(cycles)
    ]


@given(st.floats(1, 5), st.floats(0.01, 1), st.floats(0, 1))
def test_the_cycles_lie_end_to_end(multiplier, first, along):
    number, within = cycle_of(along, first, multiplier)
    begin = first * sum(multiplier**before for before in range(number))
    assert 0 <= within < 1 + 1e-6
    assert begin + within * first * multiplier**number == pytest.approx(along, abs=1e-6)


def test_linear_polynomial_and_step_are_torchs():
    lrs, steps = torch.optim.lr_scheduler, 40
    pairs = [
        (Linear(floor=0.2), lambda o: lrs.LinearLR(o, 1.0, 0.2, total_iters=steps)),
        (Polynomial(power=2), lambda o: lrs.PolynomialLR(o, total_iters=steps, power=2)),
        (Step(), lambda o: lrs.MultiStepLR(o, [20, 30], gamma=0.1)),
        (Step(milestones=(0.1, 0.3, 0.7), gamma=0.5), lambda o: lrs.MultiStepLR(o, [4, 12, 28], gamma=0.5)),
    ]
    for ours, make in pairs:
        expected = rates_of(make, steps)
        assert [ours(Clock(step, steps)) for step in range(steps)] == pytest.approx(expected, rel=1e-9), ours


def test_polynomial_with_a_floor_is_timms():
    optimizer = sgd(1.0)
    timms = PolyLRScheduler(optimizer, t_initial=50, power=0.9, lr_min=0.1, t_in_epochs=False)
    for step in range(50):
        timms.step_update(step)
        assert Polynomial(floor=0.1)(Clock(step, 50)) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)


def test_inverse_square_root_is_the_transformers():
    """Vaswani et al.: min(step^−½, step·warmup^−1.5), whose peak at step = warmup is warmup^−½."""
    ours, warmup = InverseSqrt(warmup=0.1), 40
    for step in range(1, 400):
        theirs = min(step**-0.5, step * warmup**-1.5) / warmup**-0.5
        assert ours(Clock(step, 400)) == pytest.approx(theirs, rel=1e-12)


def test_warm_up_plateau_and_decay():
    wsd = WarmupStableDecay(warmup=0.1, decay=0.5, decay_curve="linear", floor=0.2)
    # after the warm-up 90 steps, of which the last 45 decay
    assert [wsd(Clock(step, 100)) for step in (0, 5, 10, 54)] == pytest.approx([0, 0.5, 1, 1])
    assert [wsd(Clock(step, 100)) for step in (55, 64, 91)] == pytest.approx(
        [1, 1 - 0.8 * 9 / 45, 1 - 0.8 * 36 / 45]
    )
    root = WarmupStableDecay(warmup=0, decay=0.5)
    assert root(Clock(62.5, 100)) == pytest.approx(1 - math.sqrt(0.25))
    with pytest.raises(ValueError, match="overlap"):
        WarmupStableDecay(warmup=0.6, decay=0.5, prefix=False)


@pytest.mark.parametrize(
    ("curve", "left"),
    [
        ("linear", lambda t: 1 - t),
        ("cosine", lambda t: (1 + math.cos(math.pi * t)) / 2),
        ("sqrt", lambda t: 1 - t**0.5),  # Hägele et al., equation of their (1-sqrt) cooldown
        ("lowered_linear", lambda t: 0.7 * (1 - t)),
    ],
)
def test_the_cooldowns_by_their_formulas(curve, left):
    wsd = WarmupStableDecay(warmup=0.1, decay=0.5, decay_curve=curve, floor=0.2)
    for step in range(45):  # after the warm-up 90 steps, of which the last 45 decay
        assert wsd(Clock(55 + step, 100)) == pytest.approx(0.2 + 0.8 * left(step / 45), rel=1e-6)
    assert [wsd(Clock(step, 100)) for step in (10, 30, 54)] == [1, 1, 1]


def test_the_ready_line_goes_to_zero_as_torchs():
    expected = rates_of(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=50), 51, lr=1e-2)
    line = READY["linear"].build()
    ours = [line.rates(Clock(step, 50), groups(1)).lr[0] for step in range(51)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert ours[50] == 0


def test_piecewise_goes_through_its_knots_and_is_flat_outside():
    knots = ((0.1, 0.2), (0.3, 1.0), (0.8, 0.0))
    for interpolation in ("linear", "monotone_cubic"):
        schedule = Piecewise(knots=knots, interpolation=interpolation)
        rates = [schedule(Clock(step, 10)) for step in (0, 1, 3, 8, 9)]
        assert rates == pytest.approx([0.2, 0.2, 1, 0, 0], abs=1e-12)
    assert Piecewise(knots=knots)(Clock(2, 10)) == pytest.approx(0.6)
    assert Piecewise(knots=knots)(Clock(4, 10)) == pytest.approx(0.8)


@given(st.integers(0, 999))
def test_piecewise_writes_out_a_trapezium_as_linear_warm_up_and_decay(step):
    """The same curve as WSD's with a linear decay and no floor, whose shares are 1/5 and of the rest 1/4."""
    trapezium = Piecewise(knots=((0, 0), (0.2, 1), (0.8, 1), (1, 0)))
    wsd = WarmupStableDecay(warmup=0.2, decay=0.25, decay_curve="linear")
    assert trapezium(Clock(step, 1000)) == pytest.approx(wsd(Clock(step, 1000)), abs=1e-9)


@pytest.mark.parametrize(
    ("knots", "message"),
    [
        ([], r"schedule: knots: two or more are needed"),
        ([[0, 1]], r"schedule: knots: two or more are needed, like \[\[0, 1\], \[1, 0\]\]"),
        ([[0.5, 1], [0.5, 0]], r"schedule: knots: 0.5 comes after 0.5; the first numbers have to rise"),
        ([[0.5, 1], [0.2, 0]], r"schedule: knots: 0.2 comes after 0.5"),
        ([[0, 0.5], [1, 0]], r"schedule: knots: the highest fraction is 0.5; it has to be 1"),
        ([[0, 2], [1, 0]], r"schedule: knots: the highest fraction is 2"),
        ([[0, 1], [1.5, 0]], r"schedule.knots\[1\]\[0\] = 1.5: expected less than or equal to 1"),
        ([[0, 1], [1, -1]], r"schedule.knots\[1\]\[1\] = -1: expected"),
        ([0, 1], r"schedule.knots\[0\] = 0: expected two numbers, a place and the value there, like \[0.5, 1\]"),
        ([[0, 1], [1]], r"schedule.knots\[1\] = \[1\]: expected two numbers"),
    ],
)
def test_knots_that_make_no_curve_are_refused(knots, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        policy(1e-2, {"name": "piecewise", "knots": knots})


def test_both_warm_ups_are_half_way_up_in_their_middle():
    linear, cosine = Constant(warmup=0.2, start=0.5), Constant(warmup=0.2, start=0.5, warmup_curve="cosine")
    for schedule, quarter in ((linear, 0.625), (cosine, 0.5 + 0.5 * (1 - math.cos(math.pi / 4)) / 2)):
        rates = [schedule(Clock(step, 100)) for step in (0, 5, 10, 20, 60)]
        assert rates == pytest.approx([0.5, quarter, 0.75, 1, 1])


def test_cosine_is_half_way_down_in_the_middle():
    assert Cosine(warmup=0)(Clock(50, 100)) == pytest.approx(0.5)
    assert Cosine(warmup=0, floor=0.2)(Clock(50, 100)) == pytest.approx(0.6)


@given(ANY, st.integers(1, 10_000), st.data())
def test_every_schedule_stays_between_0_and_1(schedule, total, data):
    clock = Clock(data.draw(st.integers(0, total - 1)), total)
    fraction = schedule(clock)
    assert math.isfinite(fraction)
    assert 0 <= fraction <= 1 + 1e-12
    momentum = schedule.momentum(clock)
    assert momentum is None or 0 <= momentum < 1


@given(ANY)
def test_a_schedule_comes_back_from_its_plain_values(schedule):
    assert TypeAdapter(Schedule).validate_python(schedule.model_dump(mode="json")) == schedule
