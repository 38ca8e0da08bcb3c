"""Writing, recording and auditing rates."""

import re

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trainings import trainer_of

from kit.core.errors import KitError
from kit.lr import Clock, policy
from kit.lr.policy import momenta
from kit.model.groups import depth_groups
from kit.training.config import OptimizerConfig
from kit.training.optimizer import build_optimizer
from kit.training.rates import RateWriter

STEPS = 12


@pytest.fixture
def training():
    return training_anew()


def training_anew():
    model = timm.create_model("test_resnet", num_classes=3)
    groups = depth_groups(model, "block")
    optimizer = build_optimizer(OptimizerConfig(), model, groups, torch.device("cpu"), 1e-2)
    return RateWriter(policy("slice(1e-5, 1e-2)"), groups, STEPS, 4), optimizer


def run(writer, optimizer, meddle=lambda step: None):
    for step in range(STEPS):
        writer.write(step, optimizer)
        meddle(step)
        writer.record(step, optimizer)
    writer.audit(range(STEPS))


def test_what_is_written_is_the_policys_for_both_halves_of_a_split_group(training):
    writer, optimizer = training
    for step in range(STEPS):
        writer.write(step, optimizer)
        intended = writer.policy.rates(Clock(step, STEPS), writer.groups)
        for group in optimizer.param_groups:
            assert group["lr"] == intended.lr[group["depth"]]
            assert group["betas"] == (intended.momentum, 0.999)


def test_the_record_is_the_policys_matrix(training, tmp_path):
    writer, optimizer = training
    run(writer, optimizer)
    expected = [writer.policy.rates(Clock(step, STEPS), writer.groups).lr for step in range(STEPS)]
    writer.save(tmp_path / "rates.npz")
    with np.load(tmp_path / "rates.npz") as saved:
        np.testing.assert_array_equal(saved["lr"], expected)
        assert saved["momentum"][0] == 0.95
        assert saved["groups"].tolist() == [group.name for group in writer.groups]


def test_sgd_gets_its_momentum():
    model = timm.create_model("test_resnet", num_classes=3)
    groups = depth_groups(model, "stage")
    optimizer = build_optimizer(OptimizerConfig(name="sgd"), model, groups, torch.device("cpu"), 1e-2)
    writer = RateWriter(policy(1e-2), groups, STEPS, 4)
    writer.write(3, optimizer)
    kept = [group["momentum"] for group in optimizer.param_groups]
    assert kept == pytest.approx([0.85] * len(kept))
    RateWriter(policy(1e-2, "constant"), groups, STEPS, 4).write(0, optimizer)  # has no momentum of its own
    assert [group["momentum"] for group in optimizer.param_groups] == kept


def test_an_overwritten_rate_is_found_with_its_step_and_group(training):
    writer, optimizer = training

    def meddle(step):
        if step == 7:
            for group in optimizer.param_groups:
                if group["depth"] == 2:
                    group["lr"] *= 2

    with pytest.raises(KitError, match=f"step 7: depth group {writer.groups[2].name} learned at"):
        run(writer, optimizer, meddle)


def test_a_scheduler_that_flattens_the_groups_is_found(training):
    writer, optimizer = training
    flat = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=STEPS + 1)
    with pytest.raises(KitError, match=f"step 0: depth group {writer.groups[0].name} learned at"):
        run(writer, optimizer, lambda step: (optimizer.step(), flat.step()))


def test_a_group_added_in_mid_run_is_found(training):
    writer, optimizer = training

    def meddle(step):
        if step == 5:
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})

    with pytest.raises(KitError, match="step 5: a parameter group without a depth"):
        run(writer, optimizer, meddle)


def test_a_depth_group_in_two_rates_is_found(training):
    writer, optimizer = training

    def meddle(step):
        optimizer.param_groups[1]["lr"] *= 3 if step == 1 else 1

    with pytest.raises(KitError, match=r"step 1: depth group .* is split in two rates"):
        run(writer, optimizer, meddle)


@settings(max_examples=30)
@given(
    rates=st.lists(st.tuples(st.integers(0, STEPS - 1), st.integers(0, 3)), max_size=3),
    momenta=st.lists(st.integers(0, STEPS - 1), max_size=2),
    first=st.integers(0, STEPS - 1),
)
def test_an_audit_names_the_first_difference_in_its_steps(rates, momenta, first):
    writer, optimizer = training_anew()
    run(writer, optimizer)
    for step, depth in rates:
        writer.lr[step, depth] *= 1 + 1e-6
    for step in momenta:
        writer.momentum[step] = 0.5
    wrong = sorted([(step, 0, depth) for step, depth in rates] + [(step, 1, 0) for step in momenta])
    expected = next((each for each in wrong if each[0] >= first), None)
    if expected is None:
        writer.audit(range(first, STEPS))
        return
    step, of_momentum, depth = expected
    what = "the momentum was 0.5" if of_momentum else f"depth group {writer.groups[depth].name} learned at"
    with pytest.raises(KitError, match=f"^step {step}: {re.escape(what)}"):
        writer.audit(range(first, STEPS))


def test_no_steps_are_audited_without_a_word(training):
    training[0].audit(range(3, 3))


def test_a_step_that_was_never_taken_is_found(training):
    writer, optimizer = training
    run(writer, optimizer)
    writer.lr[4] = np.nan
    with pytest.raises(KitError, match="step 4: depth group"):
        writer.audit(range(STEPS))


def added(optimizer, depth=None):
    extra = {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 1e-2}
    optimizer.add_param_group(extra | ({} if depth is None else {"depth": depth}))


def overwritten_betas(optimizer):
    for group in optimizer.param_groups[1:]:
        group["betas"] = (0.5, 0.999)


def flattening_hook(optimizer):
    def flatten(optimizer, *_):
        for group in optimizer.param_groups:
            group["lr"] = 1.0

    optimizer.register_step_pre_hook(flatten)


FAULTS = {
    "a group added": (added, "a parameter group without a depth was added"),
    "a group added to a depth": (
        lambda optimizer: added(optimizer, 1),
        "parameter group of depth group layer1.0 with others",
    ),
    "a group taken away": (lambda optimizer: optimizer.param_groups.pop(), "depth group fc are missing"),
    "a group emptied": (
        lambda optimizer: optimizer.param_groups[0]["params"].clear(),
        "depth group conv1 are missing",
    ),
    "a hook that flattens": (flattening_hook, "the rate of depth group conv1 was changed from .* to 1 within"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_between_two_updates_of_a_real_training_ends_it(competition, tmp_path, fault):
    plant, message = FAULTS[fault]
    trainer = trainer_of(
        competition, tmp_path, policies={"uniform": {"lr": "slice(1e-4, 1e-2)", "groups": "stage"}}
    )
    optimizer = trainer.optimizer.optimizer  # accelerate's wrapper hides hooks
    with pytest.raises(KitError, match=f"step 3: .*{message}"):
        trainer.train(on_step=lambda step: plant(optimizer) if step == 2 else None)


def test_a_momentum_that_something_else_writes_is_found(training):
    writer, optimizer = training
    with pytest.raises(KitError, match=r"step 4: depth group .* has the momentum 0.5, others 0.8"):
        run(writer, optimizer, lambda step: overwritten_betas(optimizer) if step == 4 else None)

    writer, optimizer = training_anew()

    def all_of_them(step):
        if step == 1:
            for group in optimizer.param_groups:
                group["betas"] = (0.5, 0.999)

    with pytest.raises(KitError, match=r"step 1: the momentum was 0.5, but the policy says 0.9"):
        run(writer, optimizer, all_of_them)


def test_an_optimizer_with_two_momenta_learns_at_both_or_is_found():
    """Muon moves matrices by `momentum`, and leaves the rest to AdamW's first beta."""
    model = timm.create_model("test_resnet", num_classes=3)
    groups = depth_groups(model)
    optimizer = build_optimizer(OptimizerConfig(name="muon"), model, groups, torch.device("cpu"), 1e-2)
    writer = RateWriter(policy(1e-2), groups, STEPS, 4)
    for step in range(2):
        writer.write(step, optimizer)
        expected = writer.intended(step).momentum
        assert {momenta(group) for group in optimizer.param_groups} == {(expected, expected)}
        writer.record(step, optimizer)
    assert writer.momentum[1] == expected
    writer.write(2, optimizer)
    for group in optimizer.param_groups:
        group["betas"] = (0.5, 0.95)
    with pytest.raises(KitError, match=r"step 2: .* the first beta .* and 0.5, but the policy"):
        writer.record(2, optimizer)
