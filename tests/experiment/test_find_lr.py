"""`kit find-lr`: all groups together and each in turn, as a user types it."""

import numpy as np
import pandas as pd
import pytest
import yaml
from support.colours import experiment_content
from support.commands import config_file, kit_here, kit_together
from support.refusals import refusal_of

from kit.core.yaml import parse_yaml
from kit.experiment import find_lr as module
from kit.experiment.config import load_experiment, validate
from kit.experiment.find_lr import FindLrResult, RangeSearch, find_lr
from kit.experiment.options import RunOptions
from kit.lr import PolicyConfig, PolicyGroup
from kit.training.range_test import RangeTestResult


@pytest.fixture
def kit(monkeypatch, capsys):
    """The command line in this process, where everything is imported already."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        return kit_here(monkeypatch, capsys, *map(str, arguments))

    return run


def config(competition, folder, policy, **training):
    content = experiment_content(competition, training={"optimizer": {"name": "sgd"}, **training})
    content["policies"] = {"mine": policy}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return validate(content, "test")


def test_all_groups_rise_together_with_the_policys_profile(competition, tmp_path):
    experiment = config(competition, tmp_path, {"lr": "slice(1e-4, 1e-2)", "groups": "stage"})
    found = find_lr(experiment, RangeSearch(1e-4, 1.0, 40), tmp_path)
    (test,) = found.tests.values()
    assert found.peak == 1e-2
    np.testing.assert_allclose(found.base, np.geomspace(1e-4, 1e-2, len(found.groups)), rtol=1e-9)
    np.testing.assert_allclose(test.rates, 1e-4 * 1e4 ** (np.arange(len(test.rates)) / 40), rtol=1e-9)
    assert set(test.suggestions()) == {"valley", "slide", "minimum", "steep"}
    assert not (tmp_path / "runs").exists()
    again = find_lr(experiment, RangeSearch(1e-4, 1.0, 40), tmp_path)
    assert again.tests["all"].losses.tolist() == test.losses.tolist()


@pytest.mark.parametrize(("devices", "epochs"), [(1, 14), (2, 40), (3, 40)])  # of 3 updates, and of one
def test_devices_that_share_an_update_take_more_epochs(competition, tmp_path, monkeypatch, devices, epochs):
    told = []

    def on_cluster(sweeps, key, loaded, data, options, say):
        told.append(data.recipe.training.epochs)
        return {}

    monkeypatch.setattr(module, "_on_cluster", on_cluster)
    monkeypatch.setattr(RunOptions, "need_cluster", lambda options, processes: None)
    experiment = config(competition, tmp_path, {"lr": 1e-2})
    find_lr(experiment, RangeSearch(steps=40), RunOptions(tmp_path, on="ray", devices=devices))
    assert told == [epochs]


def test_a_group_in_turn_leaves_the_others_at_their_rate(competition, tmp_path, monkeypatch):
    from kit.training.rates import RateWriter

    seen = []
    monkeypatch.setattr(
        RateWriter, "release", lambda writer: seen.append(writer.lr[~np.isnan(writer.lr).any(axis=1)]) or None
    )
    experiment = config(competition, tmp_path, {"lr": "slice(1e-4, 1e-2)", "groups": "coarse"})
    found = find_lr(experiment, RangeSearch(1e-5, 1e-1, 30, by_depth=True), tmp_path)
    assert list(found.tests) == [group.name for group in found.groups]
    for depth, rates in enumerate(seen):
        for other in range(3):
            if other == depth:
                np.testing.assert_allclose(rates[:, other], 1e-5 * 1e4 ** (np.arange(len(rates)) / 30), rtol=1e-9)
            else:
                np.testing.assert_allclose(rates[:, other], found.base[other], rtol=1e-12)
    starts = [test.losses[0] for test in found.tests.values()]
    assert len(set(starts)) == 1  # the same weights, the same first batch


def test_the_command_prints_suggestions_and_writes_csv_and_png(competition, tmp_path, kit):
    config(competition, tmp_path, {"lr": "slice(1e-4, 1e-2)", "groups": "stage"})
    code, printed, errors = kit(
        *("find-lr", "config.yaml", "--end", "1e3", "--csv", "lr.csv", "--png", "lr.png"), cwd=tmp_path
    )
    assert code == 0, errors
    assert "mine, all: valley " in printed
    pasted = printed.split("ready to paste (rates by depth keep their ratios):\n\n")[1].splitlines()[0]
    rate = PolicyConfig.model_validate(parse_yaml(pasted, "pasted")).build()
    assert rate.phases[0].profile.ratio == pytest.approx(0.01, rel=0.02)
    table = pd.read_csv(tmp_path / "lr.csv")
    assert list(table.columns) == ["curve", "lr", "loss", "smoothed"]
    assert 30 <= len(table) <= 100
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_suggested_profile_can_be_pasted_into_a_policy(competition, tmp_path, kit):
    experiment = config(competition, tmp_path, {"lr": 1e-2, "groups": "coarse"})
    code, printed, errors = kit(
        "find-lr", "config.yaml", "--by-depth", "--steps", 40, "--png", "lr.png", cwd=tmp_path
    )
    assert code == 0, errors
    pasted = printed.split("in place of the policy's:\n\n")[1]
    content = experiment_content(competition) | {"policies": {"found": parse_yaml(pasted, "pasted")}}
    (tmp_path / "next.yaml").write_text(yaml.safe_dump(content))
    policy = load_experiment(tmp_path / "next.yaml").policies["found"].build()
    found = find_lr(experiment, RangeSearch(steps=40, by_depth=True), tmp_path)
    top, multipliers = found.suggested_profile()
    assert policy.peak == pytest.approx(top, rel=1e-2)
    assert policy.phases[0].profile.groups == pytest.approx(multipliers, rel=1e-2)
    policy.check(found.groups, 6, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first": 1.0, "last": 0.1}, "--start 1 has to be above 0 and below --end 0.1"),
        ({"first": 0.0}, "--start 0 has to be above 0"),
        ({"steps": 5}, "--steps 5: at least 30 are needed"),
    ],
)
def test_searches_that_cannot_say_anything_are_refused(options, message):
    assert message in refusal_of(lambda: RangeSearch(**options))


def test_controllers_are_left_out_and_other_policies_named(competition, tmp_path):
    experiment = config(competition, tmp_path, {"lr": 1e-2, "groups": "stage", "controller": "lars"})
    more = experiment.model_copy(update={"policies": experiment.policies | {"other": PolicyConfig(lr=1e-3)}})
    lines = []
    find_lr(more, RangeSearch(1e-4, 1.0, 30), tmp_path, say=lines.append)
    assert lines[:2] == [
        "find-lr looks at one policy: mine (choose with --policy)",
        "The controller lars is left out: the static rates are tested",
    ]


def test_groups_that_the_policy_freezes_stay_frozen_in_what_is_pasted(competition, tmp_path, kit):
    policy = {
        "lr": 1e-2,
        "groups": "coarse",
        "equalise": True,
        "profile": {"name": "explicit", "groups": {"stem": 0}},
    }
    config(competition, tmp_path, policy)
    code, printed, errors = kit("find-lr", "config.yaml", "--by-depth", "--steps", 30, cwd=tmp_path)
    assert code == 0, errors
    pasted = PolicyConfig.model_validate(parse_yaml(printed.split("in place of the policy's:\n\n")[1], "pasted"))
    assert next(iter(pasted.profile.groups.values())) == 0
    assert max(pasted.profile.groups.values()) == 1
    assert (pasted.groups, pasted.equalise) == ("coarse", False)


def test_a_group_that_no_rate_harms_gets_the_highest_of_the_others():
    rates = np.geomspace(1e-6, 10, 60)

    def curve(lowest):  # the place of the lowest loss
        return RangeTestResult(rates, np.zeros(60), 1 + np.abs(np.log10(rates) - np.log10(lowest)), False, 60)

    groups = [PolicyGroup(index, 3, name, 10) for index, name in enumerate("abc")]
    tests = dict(zip("abc", [curve(10.0), curve(1e-1), curve(1e-2)], strict=True))
    assert [test.bounded for test in tests.values()] == [False, True, True]
    found = FindLrResult("mine", 1e-2, groups, np.full(3, 1e-2), tests)
    top, multipliers = found.suggested_profile()
    assert top == pytest.approx(1e-2, rel=0.3)
    assert multipliers == pytest.approx({"a": 1, "b": 1, "c": 0.1}, rel=0.3)


def test_phases_are_told_by_what_to_multiply(competition, tmp_path, kit):
    phases = [{"fraction": 0.5, "lr": 1e-3}, {"lr": 3e-3}]
    config(competition, tmp_path, {"lr": 1e-2, "groups": "stage", "phases": phases})
    code, printed, errors = kit("find-lr", "config.yaml", "--steps", 40, "--start", 1e-4, cwd=tmp_path)
    assert code == 0, errors
    factor = float(printed.split("multiply every lr of the policy and its phases by ")[1])
    assert factor == pytest.approx(float(printed.split("valley ")[1].split(",")[0]) / 3e-3, rel=0.02)
    code, printed, errors = kit("find-lr", "config.yaml", "--by-depth", cwd=tmp_path)
    assert errors == (
        "error: find-lr: --by-depth needs a policy of one phase, mine has 2; take a plain one, like "
        "--policy uniform\n"
    )


def test_a_gpu_that_is_too_small_is_told_with_what_to_lower(competition, tmp_path, monkeypatch):
    def update(*_):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr("kit.training.trainer.Trainer._update", update)
    experiment = config(competition, tmp_path, {"lr": 1e-2, "groups": "stage"})
    assert refusal_of(find_lr, experiment, RangeSearch(steps=30), tmp_path) == (
        "find-lr all: the GPU's memory is too small; halve training.batch_size and double training.accumulate"
    )


@pytest.mark.slow
def test_several_processes_make_the_updates_asked_for_and_print_once(competition, tmp_path, kit):
    """Two by torchrun, half a batch each: the losses, and so the suggestions, are those of one with the whole."""
    found = {}
    for count, size, device in ((1, 8, "cpu"), (2, 4, "auto")):
        file = config_file(
            competition,
            tmp_path / f"{count}.yaml",
            model={"name": "test_vit"},  # no batch norm, whose statistics are of half a batch
            policies={"mine": {"lr": 1e-3}},
            training={"batch_size": size, "device": device},
        )
        words = ("find-lr", file, "--steps", 40, "--end", 1e-2, "--csv", tmp_path / f"{count}.csv")
        words = (*words, "--output", tmp_path)
        if count == 1:
            code, printed, errors = kit(*words, cwd=tmp_path)
        else:
            process = kit_together(*words)
            code, printed, errors = process.returncode, process.stdout, process.stderr
        assert code == 0, errors
        found[count] = printed, pd.read_csv(tmp_path / f"{count}.csv")
    assert [len(table) for _, table in found.values()] == [40, 40]
    np.testing.assert_array_equal(found[2][1].lr, found[1][1].lr)
    np.testing.assert_allclose(found[2][1].loss, found[1][1].loss, rtol=1e-4)
    assert found[2][0] == found[1][0]  # once, and the same suggestions


@pytest.mark.slow
def test_rows_have_to_fill_an_update_of_all_processes(competition, tmp_path):
    file = config_file(competition, tmp_path / "config.yaml", training={"batch_size": 16})
    process = kit_together("find-lr", file, "--output", tmp_path)
    assert process.returncode != 0
    line = "error: training.batch_size: one update takes 32 samples (batch_size 16 × accumulate 1 × 2 devices)"
    assert line in process.stderr
