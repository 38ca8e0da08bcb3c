"""`kit lr`: the step × group matrix without training, as a user types it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from support.colours import experiment_content
from support.commands import config_file, kit_here
from support.refusals import refusal_of

from kit.cli.show import BARS, scaled, sketch
from kit.experiment.config import validate
from kit.experiment.preview import preview
from kit.experiment.run import run
from kit.lr.registry import building_blocks, policy_files, ready_policies

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kit(tmp_path, monkeypatch, capsys):
    """The command line in a folder of its own, in a wide terminal: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *words: kit_here(monkeypatch, capsys, *words)


def test_what_is_shown_is_what_training_realises(competition, tmp_path):
    policies = {
        "tune": {"lr": 2e-3, "groups": "coarse", "phases": "fine_tune"},
        "bleed": {"lr": "slice(1e-4, 1e-2)", "groups": "stage", "profile": "bleed_in", "equalise": True},
    }
    content = experiment_content(competition, folds={"run": [1]})
    experiment = validate(content | {"policies": policies}, "test")
    result = run(experiment, tmp_path)
    for each in preview(experiment).policies:
        with np.load(result.folder / each.policy / "seed0/fold1/rates.npz") as realised:
            np.testing.assert_allclose(each.matrix.lr, realised["lr"], rtol=1e-12)
            np.testing.assert_array_equal(each.matrix.frozen, realised["frozen"])
            np.testing.assert_allclose(each.matrix.momentum, realised["momentum"], rtol=1e-12)
            assert [group.name for group in each.groups] == realised["groups"].tolist()


def test_the_command_shows_a_table_and_writes_csv_and_png(competition, tmp_path, kit):
    content = experiment_content(competition, training={"epochs": 4})
    content["policies"] = {"tune": {"lr": 2e-3, "groups": "coarse", "phases": "fine_tune"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    code, printed, errors = kit("lr", "config.yaml", "--csv", "out/rates.csv", "--png", "out/rates.png")
    assert code == 0, errors
    assert "tune: 12 updates, 3 an epoch" in printed
    assert "8e-06*" in printed  # frozen but for norms
    assert not (tmp_path / "runs").exists()
    table = pd.read_csv(tmp_path / "out/rates.csv")
    assert list(table.columns[:5]) == ["policy", "step", "epoch", "momentum", "frozen"]
    assert len(table) == 12
    (first,) = preview(validate(content, "test")).policies
    np.testing.assert_allclose(table.iloc[:, 5:], first.matrix.lr, rtol=1e-12)
    assert table["frozen"][0] == " ".join(group.name for group in first.groups[:-1])
    assert table["frozen"].isna().tolist() == [False] * 3 + [True] * 9
    assert (tmp_path / "out/rates.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            {"lr": 1e-2, "profile": {"name": "explicit", "groups": {"layer9": 0}}},
            r"policies.mine.profile.groups: 'layer9' matches no depth group; there are: conv1, layer1.0, layer2.0",
        ),
        ({"lr": 1e-2, "phases": [{"epochs": 3}, {}]}, "policies.mine.phases: longer than the training"),
        (
            {"lr": 1e-2, "controller": "lars", "freeze_to": -1},
            "policies.mine.controller: lars cannot steer depth group conv1, which the policy freezes",
        ),
        (
            {"lr": 1e-2, "profile": {"name": "table", "multipliers": [1, 2]}},
            "policies.mine.profile.multipliers: 2 numbers for",
        ),
        (
            {"lr": 1e-2, "groups": "stage", "profile": "gradual_unfreezing"},
            "policies.mine.profile.every: depth group conv1 would never learn: its turn comes after 5 of 2 epochs",
        ),
        ({"lr": 1e-2, "freeze_to": 40}, "policies.mine.freeze_to: 40 leaves nothing to learn"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_before_any_training(competition, tmp_path, policy, message):
    content = experiment_content(competition)
    content["policies"] = {"mine": policy}
    experiment = validate(content, "test")
    for refused in (refusal_of(preview, experiment), refusal_of(run, experiment, tmp_path)):
        assert refused.startswith(message), refused
    assert not list(tmp_path.glob("runs/*/*"))


def test_all_ready_policies_and_parts_are_listed(tmp_path, kit):
    code, printed, errors = kit("policies")
    assert code == 0, errors
    lines = {line.split()[0]: line for line in printed.splitlines() if line.startswith("  ") and line.strip()}
    ready = ready_policies()
    assert set(ready) == {file.stem for file in (ROOT / "configs/policies").glob("*.yaml")}
    for name in [*ready, *(name for members in building_blocks().values() for name in members)]:
        assert name in lines, name
    assert {"schedules", "profiles", "phases", "controllers"} == set(building_blocks())
    assert all(len(sentence) > 15 for members in building_blocks().values() for sentence in members.values())


def test_a_policy_beside_the_config_hides_the_kits_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/uniform.yaml").write_text("lr: 1")
    (tmp_path / "configs/policies").mkdir(parents=True)
    (tmp_path / "configs/policies/step.yaml").write_text("lr: 2")
    files = policy_files(tmp_path / "config.yaml")
    assert files["uniform"] == tmp_path / "policies/uniform.yaml"
    assert files["step"] == Path("configs/policies/step.yaml")
    assert files["cosine"].parent == ROOT / "configs/policies"


def test_a_policy_file_that_is_none_is_named_when_listing(tmp_path, kit):
    folder = tmp_path / "configs/policies"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("lr: 1e-2\nprofil: uniform\n")
    code, _, errors = kit("policies")
    assert code == 1
    assert errors == "error: configs/policies/mine.yaml: profil: unknown key; did you mean profile?\n"


def test_a_sketch_is_on_a_log_scale():
    rates = np.geomspace(1e-5, 1e-2, 24)
    bars = sketch(rates, rates, width=24)
    assert bars[0] == BARS[0]
    assert bars[-1] == BARS[-1]
    assert [BARS.index(bar) for bar in bars] == sorted(BARS.index(bar) for bar in bars)
    assert np.ptp(np.bincount([BARS.index(bar) for bar in bars])) <= 1  # each as wide
    still = np.arange(24) < 6
    assert sketch(rates, rates, still) == "*" * 6 + bars[6:]
    assert sketch(np.zeros(24), rates, still) == "·" * 24
    assert sketch(np.zeros(9), rates, width=9) == "·" * 9
    assert sketch(np.zeros(9), np.zeros(9), width=4) == "····"
    assert sketch(np.full(5, 3.0), np.full(5, 3.0), width=5) == "█████"


def test_a_rate_is_scaled_as_it_is_written():
    assert scaled(1e-2, 0.5) == "0.005"
    assert scaled("slice(1e-4, 1e-2)", 2) == "slice(0.0002, 0.02)"
    assert scaled("slice(1e-2)", 2) == "slice(0.02)"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--png", "x.txt"), "--png x.txt: the name has to end in .png or .svg or .pdf"),
        (("--csv", "x.png"), "--csv x.png: the name has to end in .csv"),
        (("--png", "folder.png"), "--png folder.png: is a folder"),
        (
            ("--png", "file/x.png"),
            "--png file/x.png: cannot be written (a part of its path is a file, not a folder)",
        ),
    ],
)
@pytest.mark.parametrize("command", ["lr", "find-lr"])
def test_output_that_cannot_be_written_is_found_before_any_work(
    competition, tmp_path, command, option, message, kit
):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(experiment_content(competition)))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    code, printed, errors = kit(command, "config.yaml", *option)
    assert (code, errors, printed) == (1, f"error: {message}\n", "")


def test_policies_beside_a_config_are_listed_with_it(tmp_path, kit):
    (tmp_path / "deep/policies").mkdir(parents=True)
    (tmp_path / "deep/policies/mine.yaml").write_text("lr: 1e-2\ndescription: My own idea.")
    assert "My own idea." in kit("policies", "deep/config.yaml")[1]
    assert "My own idea." not in kit("policies")[1]
    (tmp_path / "deep/policies/empty.yaml").write_text("")
    assert kit("policies", "deep/config.yaml")[2] == (
        "error: deep/policies/empty.yaml: is empty; a policy has at least `lr`\n"
    )


def test_own_code_is_listed_beside_the_kits_and_not_run(tmp_path, kit):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/zigzag.yaml").write_text("lr: 1e-2\nschedule: 'own.py:zigzag'")
    (tmp_path / "policies/own.py").write_text(
        'def zigzag(clock):\n    """Up and down. Again."""\nraise ValueError'
    )
    (tmp_path / "mine.py").write_text('class Slow:\n    """Stem at a\n    crawl."""\n')
    (tmp_path / "config.yaml").write_text("policies: {a: {lr: 1, profile: 'mine.py:Slow'}, b: {lr: x}, c: null}")
    code, printed, _ = kit("policies", "config.yaml")
    assert code == 0
    for told in ("own.py:zigzag", "Up and down", "mine.py:Slow", "Stem at a crawl", "zigzag"):
        assert told in printed
    assert "mine.py:Slow" not in kit("policies")[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_of_torchrun_share_the_updates_and_one_prints(competition, kit, monkeypatch, tmp_path, rank):
    """24 rows train, 8 an update: 3 updates an epoch; for two processes 1, as the second is not whole."""
    state = SimpleNamespace(num_processes=2, process_index=rank, is_main_process=rank == 0)
    monkeypatch.setattr("kit.experiment.preview.process_state", lambda training: state)
    monkeypatch.setenv("RANK", str(rank))
    config_file(competition, tmp_path / "config.yaml")
    code, printed, errors = kit("lr", "config.yaml")
    assert code == 0, errors
    assert ("uniform: 2 updates, 1 an epoch" in printed) == (rank == 0)
    assert bool(printed) == (rank == 0)
