"""Profiles against fastai's numbers, timm's layer decay, and formulas written out."""

import math

import numpy as np
import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy.interpolate import PchipInterpolator
from support.strategies import PROFILES, groups
from timm.optim import param_groups_layer_decay

from kit.lr import Clock, PolicyGroup, policy
from kit.lr.clock import policy_groups
from kit.lr.config import Profile
from kit.lr.profiles import (
    BleedIn,
    BleedOut,
    Discriminative,
    Explicit,
    FreezeOut,
    GradualUnfreezing,
    HeadFirst,
    LateStart,
    LayerDecay,
    ProfileBase,
    Reverse,
    ScheduledLayerDecay,
    Spline,
    Table,
)
from kit.lr.schedules import Constant
from kit.model.groups import depth_groups

ANY = st.one_of(*PROFILES.values())
NOW = Clock(0, 100)


def multipliers(profile, count=4, clock=NOW):
    return [profile(clock, group) for group in groups(count)]


def frozen(profile, count=4, clock=NOW):
    return [profile.frozen(clock, group) for group in groups(count)]


def test_every_registered_profile_is_tested():
    registered = set(ProfileBase.members)
    assert registered == set(PROFILES)


@pytest.mark.parametrize(
    ("count", "rates"), [(3, [1e-6, 1e-4, 1e-2]), (5, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]), (1, [1e-2])]
)
def test_slice_is_fastais_even_mults(count, rates):
    given_rates = policy("slice(1e-6, 1e-2)", "constant").rates(NOW, groups(count)).lr
    np.testing.assert_allclose(given_rates, rates, rtol=1e-12)


def test_slice_of_one_rate_is_a_tenth_below_the_head():
    assert multipliers(HeadFirst()) == [0.1, 0.1, 0.1, 1]
    np.testing.assert_allclose(policy("slice(1e-2)", "constant").rates(NOW, groups(3)).lr, [1e-3, 1e-3, 1e-2])


def test_coarse_is_fastais_cut_of_a_resnet():
    """683k and 10.49M parameters, 95% of which learn at most at a hundredth under slice(1e-6, 1e-2)."""
    cut = depth_groups(timm.create_model("resnet18", num_classes=10), "coarse")
    sizes = [group.n_params for group in cut]
    assert sizes[:2] == [683_072, 10_493_440]
    lr = policy("slice(1e-6, 1e-2)", "constant").rates(NOW, policy_groups(cut)).lr
    assert sum(size for size, rate in zip(sizes, lr, strict=True) if rate <= 1e-4 * (1 + 1e-9)) / sum(sizes) > 0.95


def test_neighbours_are_ulmfits_factor_apart():
    assert multipliers(Discriminative(factor=2.6)) == pytest.approx([2.6**-3, 2.6**-2, 2.6**-1, 1])


def test_reverse_is_discriminative_upside_down():
    assert multipliers(Reverse(ratio=0.01)) == pytest.approx(multipliers(Discriminative(ratio=0.01))[::-1])
    assert multipliers(Reverse(ratio=0.01), count=1) == [1]
    np.testing.assert_allclose(
        policy("slice(1e-2, 1e-4)", "constant", "reverse").rates(NOW, groups(3)).lr, [1e-2, 1e-3, 1e-4]
    )


@pytest.mark.parametrize(
    "name",
    ["resnet18", "convnext_tiny", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0"],
)
@pytest.mark.parametrize(("decay", "min_scale"), [(0.75, 0.0), (0.5, 0.05)])
def test_layer_decay_is_timms_group_by_group(name, decay, min_scale):
    model = timm.create_model(name, num_classes=7)
    timms = {
        id(value): members["lr_scale"]
        for members in param_groups_layer_decay(model, layer_decay=decay, min_scale=min_scale)
        for value in members["params"]
    }
    ours = depth_groups(model, "block")
    lr = policy(1.0, "constant", LayerDecay(decay=decay, min_scale=min_scale)).rates(NOW, policy_groups(ours)).lr
    assert len(timms) == len(list(model.parameters()))
    for rate, group in zip(lr, ours, strict=True):
        (scale,) = {timms[id(value)] for value in group.parameters.values()}
        assert rate == pytest.approx(scale, rel=1e-12)


def test_layer_decay_in_numbers():
    cut = policy_groups(depth_groups(timm.create_model("resnet18"), "block"))
    lr = dict(
        zip([group.name for group in cut], policy(1.0, "constant", "layer_decay").rates(NOW, cut).lr, strict=True)
    )
    expected = {
        "conv1": 0.07508469,
        "layer1.0": 0.10011292,
        "layer4.0": 0.5625,
        "layer4.1": 0.75,
        "fc": 1.0,
    }
    assert len(lr) == 10
    assert {name: lr[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert len(depth_groups(timm.create_model("vit_tiny_patch16_224"), "block")) == 14


def test_explicit_by_name_prefix_stem_and_head():
    cut = policy_groups(depth_groups(timm.create_model("resnet18"), "block"))
    profile = Explicit(groups={"stem": 0, "layer1": 0.1, "layer4": 2, "layer4.1": 3, "head": 5}, other=0.5)
    assert [profile(NOW, group) for group in cut] == [0, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 2, 3, 5]
    assert [profile.frozen(NOW, group) for group in cut] == [True] + [False] * 9
    assert profile.bound == 5
    profile.check(cut, None)
    with pytest.raises(ValueError, match=r"'layer' matches no depth group; there are: conv1, layer1.0, "):
        Explicit(groups={"layer": 1}).check(cut, None)
    with pytest.raises(ValueError, match="fc and head name the same depth group"):
        Explicit(groups={"fc": 1, "head": 2}).check(cut, None)


@pytest.mark.parametrize(
    "keys",
    [{"stages.1": 0.1}, {"stages.1": 0.1, "stages.1.blocks.1": 0.2}, {"stages": 0.3, "stem": 0, "head": 5}],
)
def test_a_config_means_on_todays_names_what_it_meant_on_those_of_older_runs(keys):
    """The first block of a later stage was called as the stage: rates.npz of such runs still says so."""
    then = ["stem", "stages.0.blocks.0", "stages.1", "stages.1.blocks.1", "head"]
    now = ["stem", "stages.0.blocks.0", "stages.1.blocks.0", "stages.1.blocks.1", "head"]
    profile = Explicit(groups=keys)
    old, new = (policy_groups(dict.fromkeys(names, 10)) for names in (then, now))
    assert [profile(NOW, group) for group in new] == [profile(NOW, group) for group in old]


def test_table_has_a_number_for_each_group():
    table = Table(multipliers=(0, 0.5, 2))
    assert multipliers(table, 3) == [0, 0.5, 2]
    assert frozen(table, 3) == [True, False, False]
    with pytest.raises(ValueError, match=r"3 numbers for 4 depth groups \(layer0, layer1, layer2, layer3\)"):
        table.check(groups(4), None)


@pytest.mark.parametrize(("curve", "at_half"), [("linear", 0.25), ("cosine", (1 - math.cos(math.pi / 4)) / 2)])
def test_bleed_in_goes_from_uniform_to_discriminative_and_bleed_out_back(curve, at_half):
    """w is 0 up to .2, 1 from .6 on; at .3 a quarter of the way (or where half a cosine is)."""
    options = {"ratio": 0.01, "start": 0.2, "end": 0.6, "curve": curve}
    for step, weight in ((0, 0), (20, 0), (30, at_half), (60, 1), (99, 1)):
        clock = Clock(step, 100)
        depths = [0, 1 / 3, 2 / 3, 1]
        assert multipliers(BleedIn(**options), clock=clock) == pytest.approx(
            [0.01 ** ((1 - d) * weight) for d in depths]
        )
        assert multipliers(BleedOut(**options), clock=clock) == pytest.approx(
            [0.01 ** ((1 - d) * (1 - weight)) for d in depths]
        )


def test_gradual_unfreezing_wakes_a_group_an_epoch_from_the_head():
    profile = GradualUnfreezing()
    for epoch in range(5):
        clock = Clock(10 * epoch, 50, 10)
        assert frozen(profile, clock=clock) == [epoch < 3, epoch < 2, epoch < 1, False]
        awake = [
            0 if sleeps else 2.6**-above
            for sleeps, above in zip(frozen(profile, clock=clock), (3, 2, 1, 0), strict=True)
        ]
        assert multipliers(profile, clock=clock) == pytest.approx(awake)
        assert frozen(profile, clock=Clock(10 * epoch + 9, 50, 10)) == frozen(profile, clock=clock)
    assert frozen(GradualUnfreezing(every=0.5), clock=Clock(10, 50, 10)) == [True, False, False, False]


def test_unfreezing_that_would_not_reach_the_stem_is_refused():
    GradualUnfreezing().check(groups(3), 2.5)
    GradualUnfreezing(every=0.5).check(groups(4), 2)
    for profile, epochs in ((GradualUnfreezing(), 2), (GradualUnfreezing(every=0.5), 1)):
        with pytest.raises(ValueError, match=r"profile.every: depth group layer0 would never learn"):
            profile.check(groups(3), epochs)


def test_freeze_out_ends_at_t_early_layers_first():
    """Brock et al.: t_i linear from t0 to 1, cubed; rates scaled by 1/t_i; annealed by half a cosine."""
    ends = [(0.5 + 0.5 * depth / 3) ** 3 for depth in range(4)]
    profile = FreezeOut(t0=0.5)
    for step in range(100):
        clock = Clock(step, 100)
        expected = [
            (1 + math.cos(math.pi * step / 100 / end)) / 2 / end if step / 100 < end else 0.0 for end in ends
        ]
        assert multipliers(profile, clock=clock) == pytest.approx(expected, abs=1e-9)
        assert frozen(profile, clock=clock) == [step / 100 >= end - 1e-9 for end in ends]
    assert profile.bound == pytest.approx(8)
    plain = FreezeOut(t0=0.5, cubed=False, scaled=False)
    assert multipliers(plain) == [1, 1, 1, 1]
    assert frozen(plain, clock=Clock(66, 100)) == [True, False, False, False]


def test_scheduled_layer_decay_moves_between_two_layer_decays():
    profile = ScheduledLayerDecay()
    assert multipliers(profile) == pytest.approx(multipliers(LayerDecay(decay=0.35)))
    assert multipliers(profile, clock=Clock(50, 100)) == pytest.approx(multipliers(LayerDecay(decay=0.675)))
    late = ScheduledLayerDecay(first=0.9, last=0.5, end=0.5)
    assert multipliers(late, clock=Clock(75, 100)) == pytest.approx(multipliers(LayerDecay(decay=0.5)))


def test_a_spline_is_scipys_over_depth():
    knots = ((0.0, 0.1), (0.4, 2.0), (1.0, 0.5))
    depths = np.arange(7) / 6
    expected = PchipInterpolator(*np.array(knots).T)(depths)
    assert multipliers(Spline(knots=knots), count=7) == pytest.approx(list(expected), rel=1e-12)
    linear = np.interp(depths, *np.array(knots).T)
    assert multipliers(Spline(knots=knots, interpolation="linear"), count=7) == pytest.approx(list(linear))
    assert multipliers(Spline(knots=knots), count=1) == [0.5]  # a single depth group is the head
    assert Spline(knots=knots).bound == 2


@pytest.mark.parametrize(("curve", "at_half"), [("linear", 0.25), ("cosine", (1 - math.cos(math.pi / 4)) / 2)])
def test_a_spline_moves_from_one_curve_to_another(curve, at_half):
    first, last = ((0.0, 0.1), (1.0, 1.0)), ((0.0, 3.0), (0.5, 0.2), (1.0, 0.4))
    moving = Spline(knots=first, to=last, start=0.2, end=0.6, curve=curve)
    begin, end = np.array(multipliers(Spline(knots=first))), np.array(multipliers(Spline(knots=last)))
    for step, weight in ((0, 0), (20, 0), (30, at_half), (60, 1), (99, 1)):
        expected = (1 - weight) * begin + weight * end
        assert multipliers(moving, clock=Clock(step, 100)) == pytest.approx(list(expected))
    assert moving.bound == 3


def test_a_spline_freezes_what_is_and_stays_at_zero():
    zero_at_stem = ((0.0, 0.0), (0.5, 1.0), (1.0, 1.0))
    assert frozen(Spline(knots=zero_at_stem)) == [True, False, False, False]
    wakes = Spline(knots=zero_at_stem, to=((0.0, 1.0), (1.0, 1.0)), start=0.25, end=0.5)
    falls_asleep = Spline(knots=((0.0, 1.0), (1.0, 1.0)), to=zero_at_stem, end=0.5)
    for step, sleeps, asleep in ((0, True, False), (24, True, False), (25, False, False), (50, False, True)):
        assert frozen(wakes, clock=Clock(step, 100)) == [sleeps, False, False, False]
        assert frozen(falls_asleep, clock=Clock(step, 100)) == [asleep, False, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knots": [[0, 1]]}, "profile: knots: two or more are needed"),
        ({"knots": [[0, 1], [1, 1]], "to": [[1, 1], [0, 1]]}, "profile: to: 0 comes after 1"),
        ({"knots": [[0, 1], [1, 1]], "start": 0.2}, "profile: start, end and curve say how the spline moves"),
        ({"knots": [[0, 1], [1, 1]], "to": [[0, 1], [1, 0]], "start": 0.5, "end": 0.5}, "profile: end 0.5 has to"),
        ({"knots": [[0, -1], [1, 1]]}, r"profile.knots\[0\]\[1\] = -1: expected greater"),
    ],
)
def test_splines_that_cannot_be_drawn_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        policy(1e-2, profile={"name": "spline", **options})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_each_depth_group_has_a_warm_up_of_its_own(reverse, curve):
    """As long as `longest` at the stem, `shortest` at the head, on a line between: .6, .5, .4, .3 of the steps."""
    profile = LateStart(longest=0.6, shortest=0.3, start=0.1, curve=curve, reverse=reverse)
    alone = [Constant(warmup=w, start=0.1, warmup_curve=curve) for w in (0.6, 0.5, 0.4, 0.3)]
    for step in range(100):
        clock = Clock(step, 100)
        expected = [schedule(clock) for schedule in alone]
        assert multipliers(profile, clock=clock) == pytest.approx(expected[::-1] if reverse else expected)
    assert not any(frozen(profile))


def test_without_a_warm_up_the_head_starts_at_once():
    assert multipliers(LateStart()) == [0, 0, 0, 1]
    assert multipliers(LateStart(), clock=Clock(30, 100)) == [1, 1, 1, 1]
    assert multipliers(LateStart(reverse=True), clock=Clock(15, 100)) == pytest.approx([1, 1, 0.75, 0.5])
    with pytest.raises(ValueError, match=r"shortest 0\.4 is longer than longest 0\.3; swap them"):
        LateStart(shortest=0.4)


@given(ANY, st.floats(0, 0.999))
def test_every_profile_is_finite_and_within_its_bound(profile, progress):
    clock = Clock(progress * 1000, 1000, 100)
    for group in groups():
        multiplier = profile(clock, group)
        assert math.isfinite(multiplier)
        assert 0 <= multiplier <= profile.bound * (1 + 1e-12)
        if profile.frozen(clock, group):
            assert multiplier == 0


@given(ANY)
def test_a_profile_comes_back_from_its_plain_values(profile):
    assert TypeAdapter(Profile).validate_python(profile.model_dump(mode="json")) == profile


def test_a_single_group_is_the_head():
    only = [PolicyGroup(0, 1, "all", 10)]
    for name, config in {"a": Discriminative(ratio=0.1), "b": LayerDecay(), "c": GradualUnfreezing()}.items():
        assert policy(1e-2, "constant", config).rates(Clock(0, 100, 10), only).lr.tolist() == [1e-2], name
