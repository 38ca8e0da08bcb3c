"""Hypothesis strategies: schedules, profiles, phases and controllers of every kind, and the ready policies."""

from pathlib import Path

import yaml
from hypothesis import strategies as st

from kit.core.yaml import read_yaml
from kit.lr import PolicyConfig, PolicyGroup
from kit.lr.config import FineTune, PhaseConfig
from kit.lr.controllers import LAMB, LARS, ConstantUpdate, TempBalance
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
    Reverse,
    ScheduledLayerDecay,
    Spline,
    Table,
    Uniform,
)
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
    Step,
    WarmupStableDecay,
)

FILES = sorted((Path(__file__).parents[2] / "configs/policies").glob("*.yaml"))
READY = {file.stem: PolicyConfig.model_validate(read_yaml(file)) for file in FILES}

fractions = st.floats(0, 1)
ratios = st.floats(1e-6, 1)
warm_up = {
    "warmup": st.floats(0, 0.9),
    "start": fractions,
    "warmup_curve": st.sampled_from(["linear", "cosine"]),
    "prefix": st.booleans(),
}
window = st.tuples(st.integers(0, 9), st.integers(1, 10)).map(
    lambda pair: (pair[0] / 20, pair[0] / 20 + pair[1] / 20)
)
curves = st.sampled_from(["linear", "cosine"])


interpolations = st.sampled_from(["linear", "monotone_cubic"])


def knots(values, top: bool = False):
    """Two to six knots over [0, 1], at hundredths; `top`: the highest value is made 1."""
    places = st.lists(st.integers(0, 100), min_size=2, max_size=6, unique=True).map(sorted)
    pairs = places.flatmap(lambda drawn: st.tuples(*[st.tuples(st.just(place / 100), values) for place in drawn]))
    if not top:
        return pairs
    return st.tuples(pairs, st.integers(0, 5)).map(
        lambda drawn: tuple(
            (place, 1.0 if index == drawn[1] % len(drawn[0]) else value)
            for index, (place, value) in enumerate(drawn[0])
        )
    )


def windowed(kind, **options):
    return st.tuples(window, st.fixed_dictionaries({"curve": curves, **options})).map(
        lambda drawn: kind(start=drawn[0][0], end=drawn[0][1], **drawn[1])
    )


SCHEDULES = {
    "constant": st.builds(Constant, **warm_up),
    "one_cycle": st.builds(
        OneCycle,
        div=st.floats(1, 1e3),
        div_final=st.floats(1, 1e6),
        pct_start=st.floats(0.01, 0.99),
        momentum_high=st.floats(0, 0.99),
        momentum_low=st.floats(0, 0.99),
    ),
    "cosine": st.builds(
        Cosine,
        floor=fractions,
        cycle=st.floats(0.05, 1),
        multiplier=st.floats(1, 4),
        decay=st.floats(0.1, 1),
        limit=st.integers(1, 9),
        k=st.floats(0.3, 3),
        **warm_up,
    ),
    "sgdr": st.builds(SGDR, floor=fractions, cycles=st.integers(1, 8), multiplier=st.floats(1, 4), **warm_up),
    "flat_cos": st.builds(FlatCos, pct_start=st.floats(0, 0.99), div_final=st.floats(1, 1e6), **warm_up),
    "linear": st.builds(Linear, floor=fractions, **warm_up),
    "polynomial": st.builds(Polynomial, floor=fractions, power=st.floats(0.1, 5), **warm_up),
    "step": st.builds(
        Step, milestones=st.lists(fractions, max_size=4).map(tuple), gamma=st.floats(0.01, 1), **warm_up
    ),
    "inverse_sqrt": st.builds(InverseSqrt, warmup=st.floats(0.01, 0.9), start=fractions),
    "wsd": st.builds(
        WarmupStableDecay,
        decay=st.floats(0.01, 0.1),
        decay_curve=st.sampled_from(["linear", "cosine", "sqrt", "lowered_linear"]),
        floor=fractions,
        **warm_up,
    ),
    "piecewise": st.builds(Piecewise, knots=knots(fractions, top=True), interpolation=interpolations),
}
PROFILES = {
    "uniform": st.just(Uniform()),
    "discriminative": st.builds(Discriminative, ratio=ratios) | st.builds(Discriminative, factor=st.floats(1, 5)),
    "head_first": st.builds(HeadFirst, body=fractions),
    "layer_decay": st.builds(LayerDecay, decay=st.floats(0.1, 1), min_scale=fractions),
    "reverse": st.builds(Reverse, ratio=ratios),
    "explicit": st.builds(
        Explicit,
        groups=st.fixed_dictionaries({"stem": st.floats(0, 10), "head": st.floats(0, 10)}),
        other=st.floats(0, 2),
    ),
    "table": st.builds(Table, multipliers=st.tuples(*[st.floats(0, 3)] * 4)),
    "bleed_in": windowed(BleedIn, ratio=ratios),
    "bleed_out": windowed(BleedOut, ratio=ratios),
    "gradual_unfreezing": st.builds(GradualUnfreezing, every=st.floats(0.1, 3), factor=st.floats(1, 5)),
    "freeze_out": st.builds(FreezeOut, t0=st.floats(0.1, 1), cubed=st.booleans(), scaled=st.booleans()),
    "scheduled_layer_decay": windowed(
        ScheduledLayerDecay, first=st.floats(0.1, 1), last=st.floats(0.1, 1), min_scale=fractions
    ),
    "spline": st.builds(Spline, knots=knots(st.floats(0, 10)), interpolation=interpolations)
    | windowed(
        Spline,
        knots=knots(st.just(0.0) | st.floats(0, 10)),
        to=knots(st.just(0.0) | st.floats(0, 10)),
        interpolation=interpolations,
    ),
    "late_start": st.tuples(st.floats(0.01, 0.99), fractions, fractions, curves, st.booleans()).map(
        lambda drawn: LateStart(
            longest=drawn[0], shortest=drawn[0] * drawn[1], start=drawn[2], curve=drawn[3], reverse=drawn[4]
        )
    ),
}
CONTROLLERS = {
    "lars": st.builds(LARS, coefficient=st.floats(1e-4, 1)),
    "lamb": st.builds(LAMB, lower=st.floats(0.01, 1), upper=st.floats(1, 20)),
    "constant_update": st.builds(ConstantUpdate, target=st.floats(1e-5, 1e-1), gain=st.floats(0.01, 1)),
    "temp_balance": st.builds(
        TempBalance, every=st.floats(0.1, 9), lower=st.floats(0.01, 1.2), upper=st.floats(1.2, 9)
    ),
}
peaks = st.floats(1e-8, 10)


PARTS = ("schedule", "profile")


@st.composite
def schedules_and_profiles(draw):
    """A schedule and a profile that go together: one that anneals is under `constant` alone."""
    profile = draw(st.one_of(*PROFILES.values()))
    return draw(SCHEDULES["constant"] if profile.anneals else st.one_of(*SCHEDULES.values())), profile


@st.composite
def policy_configs(draw):
    """Any policy over four groups: one phase, or up to three that fill the training."""
    options = {"lr": draw(peaks), "equalise": draw(st.booleans()), "train_norm": draw(st.booleans())}
    if draw(st.integers(0, 9)) == 0:
        return PolicyConfig(**options, phases=FineTune(freeze_epochs=draw(st.floats(0.1, 2))))
    schedule, profile = draw(schedules_and_profiles())
    options |= {"schedule": schedule, "profile": profile, "freeze_to": draw(st.integers(-4, 3))}
    if draw(st.booleans()):
        shares = draw(st.lists(st.floats(0.05, 0.4), min_size=1, max_size=2))
        options["phases"] = [
            PhaseConfig(
                fraction=share,
                **draw(
                    st.just({}) | schedules_and_profiles().map(lambda pair: dict(zip(PARTS, pair, strict=True)))
                ),
                freeze_to=draw(st.none() | st.integers(-4, 3)),
            )
            for share in [*shares, None]
        ]
    return PolicyConfig(**options)


any_policy = policy_configs() | st.sampled_from(sorted(READY)).map(READY.get)


def groups(count: int = 4) -> list[PolicyGroup]:
    """Depth groups that grow towards the head, as a ResNet's."""
    return [PolicyGroup(index, count, f"layer{index}", 10 * 4**index) for index in range(count)]


def groups_for(config: PolicyConfig) -> list[PolicyGroup]:
    return groups(3 if config.groups == "coarse" else 4)


def round_trip(config: PolicyConfig) -> PolicyConfig:
    return PolicyConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
