"""Policies compared: from config to verdict, on real small trainings and on stored runs whose truth is known."""

import csv
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.commands import kit_here
from support.miniatures import write_plant_pathology
from support.planted import experiment, store
from support.refusals import refusal_of

from kit.comparison.compare import compare
from kit.comparison.tuning import variants
from kit.core.errors import KitError
from kit.core.paths import OutputDirs
from kit.core.runs import RunDir, RunKey
from kit.core.settings import fingerprint
from kit.experiment.config import of_size, validate
from kit.report.gather import report
from kit.training.trainer import Trainer


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A competition of 300 rows, whose images nobody looks at."""
    return write_competition(tmp_path_factory.mktemp("wide") / "colours", rows=300, test_rows=3, side=1)


TWO = {"uniform": {"lr": 1e-2}, "sliced": {"lr": "slice(1e-4, 1e-2)"}}


def of(content, view=0):
    return {each["policy"]: each for each in content["views"][view]["comparisons"]}


def test_a_planted_difference_is_found_and_a_planted_null_is_not(wide, tmp_path):
    policies = {name: {"lr": rate} for name, rate in (("base", 1), ("worse", 2), ("same", 3), ("better", 4))}
    config = experiment(wide, policies, folds={"k": 5}, seeds=[0, 1], compare={"margin": 0.05})
    store(config, tmp_path, {"base": 0.7, "worse": 0.4, "same": 0.7, "better": 0.95}, seeds=(0, 1))
    content = compare(config, tmp_path, stored=True).content.to_json()
    made = of(content)
    assert {name: each["verdict"] for name, each in made.items() if name != "same"} == {
        "better": "better",
        "worse": "worse",
    }
    assert made["same"]["verdict"] in ("undecided", "equivalent")
    for name, truth in (("worse", -0.3), ("better", 0.25), ("same", 0)):
        assert made[name]["interval"]["low"] <= truth + 0.03
        assert made[name]["interval"]["high"] >= truth - 0.03
        assert made[name]["bootstrap"]["low"] <= made[name]["difference"] <= made[name]["bootstrap"]["high"]
    assert content["headline"].startswith("As they are: better is better than base by")
    assert "worse is worse" in content["headline"]


def test_nulls_are_rarely_called_different(wide, tmp_path):
    """Ten studies of one null each: at a level of 95 % three false alarms or more have a chance of 1/90."""
    policies = {"base": {"lr": 1}, "same": {"lr": 2}}
    config = experiment(wide, policies, folds={"k": 5}, seeds=[0, 1])
    verdicts = []
    for study in range(10):
        store(config, tmp_path / str(study), dict.fromkeys(policies, 0.7), seeds=(0, 1), seed=study)
        verdicts.append(
            of(compare(config, tmp_path / str(study), stored=True).content.to_json())["same"]["verdict"]
        )
    assert sum(verdict in ("better", "worse") for verdict in verdicts) <= 2


@pytest.fixture(scope="module")
def trained(competition, tmp_path_factory):
    """A whole study that was trained: (config, output, content)."""
    output = tmp_path_factory.mktemp("trained")
    policies = TWO | {"idle": {"lr": 1e-12, "groups": "stage"}}
    compared = {"baseline": "uniform", "tune": {"rates": [1e-3, 1e-2], "folds": [0]}, "equalise": ["sliced"]}
    config = experiment(competition, policies, compare=compared, training={"epochs": 4})
    return config, output, compare(config, output)


def test_a_study_leaves_what_it_compared(trained):
    _, output, made = trained
    top = output / "runs/tiny"
    content = json.loads((top / "comparison.json").read_text())
    assert content == made.content.to_json()
    assert [view["name"] for view in content["views"]] == ["raw", "tuned", "equalised"]
    tuned = [line for line in content["ledger"] if set(line["chosen"].values()) != {own(line["policy"])}]
    assert made.trained == 9 + 3 + (1 + 1 + 2) + 2 * len(tuned)  # raw, equalised, trials and tuned at other rates
    lines = list(csv.DictReader((top / "comparison.csv").open()))
    assert [(line["view"], line["policy"]) for line in lines][:2] == [("raw", p) for p in order(content)]
    assert float(lines[0]["difference"]) == content["views"][0]["comparisons"][0]["difference"]
    assert {path.name for path in (output / "submissions").iterdir()} == {
        "tiny.csv", "tiny+sliced.csv", "tiny+idle.csv",
    }  # fmt: skip


def own(policy):
    return {"uniform": 1e-2, "sliced": 1e-2, "idle": 1e-12}[policy]


def order(content):
    return [each["policy"] for each in content["views"][0]["comparisons"]]


def test_the_idle_policy_is_found_to_be_worse_until_it_is_tuned(trained):
    made = of(trained[2].content.to_json())
    assert made["idle"]["difference"] < -0.3
    assert made["idle"]["bootstrap"]["high"] < -0.2
    tuned = of(trained[2].content.to_json(), 1)
    assert tuned["idle"]["folds"] == [1, 2]
    assert tuned["idle"]["difference"] > made["idle"]["difference"] + 0.2


def test_the_ledger_states_how_many_trainings_each_was_given(trained):
    ledger = {line["policy"]: line for line in trained[2].content.to_json()["ledger"]}
    for line in ledger.values():
        assert (line["raw"], line["tuning"], line["tuned"]) == (3, 2, 2)
        assert line["rates"] == [1e-3, 1e-2]
        assert set(line["chosen"]) == {"1", "2"}
    assert ledger["uniform"]["total"] == len(
        list((trained[1] / "runs/tiny").glob("uniform*/seed0/fold*/run.json"))
    )
    assert (ledger["sliced"]["equalised"], ledger["idle"]["equalised"]) == (3, 0)


def test_the_tuned_view_holds_the_runs_at_the_rates_that_won(trained):
    content = trained[2].content.to_json()
    scores = {(each["policy"], each["rate"]): each["score"] for each in content["tuning"]}
    for line in content["ledger"]:
        rates = sorted(line["rates"], key=lambda rate: (-scores[line["policy"], rate], rate))
        assert set(line["chosen"].values()) == {rates[0]}
        tuned = next(each for each in content["views"][1]["policies"] if each["policy"] == line["policy"])
        expected = line["policy"] if rates[0] == own(line["policy"]) else f"{line['policy']}-lr{rates[0]:g}"
        assert {run["variant"] for run in tuned["runs"]} == {expected}


def test_all_policies_start_alike_and_make_as_many_updates(trained):
    runs = [
        run for view in trained[2].content.to_json()["views"] for each in view["policies"] for run in each["runs"]
    ]
    assert len({run["initial_weights"] for run in runs}) == 1
    assert len({run["updates"] for run in runs}) == 1


def test_comparing_again_trains_nothing_and_gives_the_same_numbers(trained, monkeypatch):
    config, output, first = trained
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a training began"))
    again = compare(config, output)
    assert (again.trained, again.content.to_json()) == (0, first.content.to_json())
    assert compare(config, output, stored=True).content == first.content


def test_nested_trials_are_trained_apart_and_again_not_at_all(competition, tmp_path, monkeypatch):
    compared = {"tune": {"rates": [1e-2, 1e-1], "folds": "nested"}}
    config = experiment(competition, TWO, compare=compared, folds={"run": [1, 2]}, training={"epochs": 1})
    first = compare(config, tmp_path)
    top = tmp_path / "runs/tiny"
    inner = [json.loads(path.read_text()) for path in top.glob("tuning/fold1/*/seed0/fold2/run.json")]
    assert {record["policy"] for record in inner} == {"uniform", "uniform-lr0.1", "sliced", "sliced-lr0.1"}
    outer = json.loads((top / "uniform/seed0/fold2/run.json").read_text())
    assert inner[0]["steps"] < outer["steps"]
    assert inner[0]["depends_on"]["folds"] != outer["depends_on"]["folds"]
    assert first.content.to_json()["views"][1]["comparisons"][0]["folds"] == [1, 2]
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a training began"))
    assert compare(config, tmp_path).content == first.content


def test_a_rate_at_which_a_policy_diverges_is_not_chosen(competition, tmp_path):
    compared = {"tune": {"rates": [1e-2, 1e30], "folds": [0]}}
    config = experiment(competition, TWO, compare=compared, training={"epochs": 1, "log_every": 1})
    said = []
    content = compare(config, tmp_path, say=said.append).content.to_json()
    scores = {(each["policy"], each["rate"]): each["score"] for each in content["tuning"]}
    assert scores["uniform", 1e30] is None
    assert scores["uniform", 1e-2] is not None
    assert any("lower the policy's lr" in line for line in said)
    assert compare(config, tmp_path).trained == 0


def test_a_policy_that_diverges_is_told_and_the_others_are_compared(competition, tmp_path, monkeypatch):
    policies = TWO | {"hot": {"lr": 1e30, "schedule": "constant"}}
    config = experiment(competition, policies, folds={"run": [0, 1]}, training={"epochs": 1, "log_every": 1})
    made = compare(config, tmp_path)
    (view,) = made.content.to_json()["views"]
    assert [each["policy"] for each in view["comparisons"]] == ["sliced"]
    assert [each["policy"] for each in view["policies"]] == ["uniform", "sliced"]
    (hot,) = view["diverged"]
    assert hot["sentence"].startswith("hot diverged at seed 0 fold 0, seed 0 fold 1")
    assert "the loss is" in hot["runs"][0]["error"]
    assert made.content.to_json()["headline"].endswith("; hot diverged.")
    assert [line["raw"] for line in made.content.to_json()["ledger"]] == [2, 2, 2]
    lines = list(csv.DictReader((made.folder / "comparison.csv").open()))
    assert [(line["policy"], line["baseline"]) for line in lines] == [("sliced", "uniform"), ("hot", "uniform")]
    assert lines[1]["verdict"] == "diverged"
    page = report(made.folder, OutputDirs(tmp_path)).read_text()
    assert hot["sentence"].removeprefix("hot") in page
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a training began"))
    assert compare(config, tmp_path).content.to_json() == made.content.to_json()
    other = config.model_copy(update={"compare": config.compare.model_copy(update={"baseline": "hot"})})
    assert "the baseline hot diverged at seed 0 fold 0" in refusal_of(
        lambda: compare(other, tmp_path, stored=True)
    )


def test_a_baseline_that_diverges_ends_the_comparison_at_once(competition, tmp_path):
    config = experiment(
        competition,
        {"cool": {"lr": 1e-3}, "hot": {"lr": 1e30, "schedule": "constant"}},
        training={"epochs": 1, "log_every": 1},
        compare={"baseline": "hot"},
    )
    message = refusal_of(compare, config, tmp_path)
    assert message.startswith("hot seed 0 fold 0: the loss is")
    assert message.endswith("it is the baseline: name another with --baseline to compare all the same")
    assert not (tmp_path / "runs/tiny/cool").exists()


def test_a_policy_that_diverged_once_is_counted_but_not_compared(wide, tmp_path):
    config = experiment(wide, TWO | {"hot": {"lr": 1}})
    folder = store(config, tmp_path, {"uniform": 0.6, "sliced": 0.5, "hot": 0.95})
    run = folder.run(RunKey("hot", 0, 1))
    run.write(run.record.with_fields(status="diverged", error="the loss is nan"))
    content = compare(config, tmp_path, stored=True).content.to_json()
    (view,) = content["views"]
    assert [each["policy"] for each in view["comparisons"]] == ["sliced"]
    assert view["diverged"][0]["sentence"] == "hot diverged at seed 0 fold 1, so it is not compared; lower its lr"
    assert [line["total"] for line in content["ledger"]] == [3, 3, 3]
    assert content["seconds"] == 9.0
    page = report(folder.path, OutputDirs(tmp_path)).read_text()
    assert "<b>hot</b> diverged at seed 0 fold 1" in page
    run.write(run.record.with_fields(status="finished"))
    page = report(folder.path, OutputDirs(tmp_path)).read_text()
    assert "makes it anew" in page


def test_what_trainings_did_otherwise_than_their_config_says_is_told(wide, tmp_path):
    config = experiment(wide, TWO)
    lowered = [{"factor": 1 / 3, "step": 4, "error": "the loss is nan"}]
    left_out = [{"skipped": 2}, {"skipped": 7}]
    changes = {"sliced": {"nonfinite": lowered, "micro_batch": 4}, "uniform": {"nonfinite": left_out}}
    folder = store(config, tmp_path, {"uniform": 0.6, "sliced": 0.5}, folds=[0], **changes)
    (view,) = compare(config, tmp_path, stored=True).content.to_json()["views"]
    assert "not of the peak that their policy states: sliced seed 0 fold 0 at × 0.333." in view["note"]
    assert "Updates were left out, as their loss was not finite: uniform seed 0 fold 0: 2 of " in view["note"]
    assert "fewer images at a time: sliced seed 0 fold 0: 4 images." in view["note"]
    page = report(folder.path, OutputDirs(tmp_path)).read_text()
    assert page.count("not of the peak that their policy states: sliced seed 0 fold 0 at × 0.333.") == 2


def test_without_a_run_of_the_baseline_nothing_is_compared(wide, tmp_path):
    config = experiment(wide, TWO)
    store(config, tmp_path, {"sliced": 0.6}, sliced={"status": "diverged", "error": "the loss is nan"})
    message = refusal_of(lambda: compare(config, tmp_path, stored=True))
    assert message == "compare: the baseline uniform has no finished runs; train it (leave out --stored)"


@pytest.mark.slow
def test_two_processes_compare_as_one_does(competition, tmp_path):
    """Started by torchrun: both take part in each training, one writes; a trial that diverges ends for both."""
    content = experiment_content(
        competition,
        policies={"uniform": {"lr": 1e-3}, "sliced": {"lr": "slice(1e-5, 1e-3)"}},
        model={"name": "test_vit"},  # no batch norm, whose statistics are of half a batch
        folds={"run": [0, 1]},
        training={"epochs": 1, "batch_size": 4, "log_every": 1},
        compare={"tune": {"rates": [1e-3, 1e30], "folds": [0]}},
    )
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "kit"]
    command = [*launcher, "compare", str(path), "--output", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report: ") == 1
    two = json.loads((tmp_path / "two/runs/tiny/comparison.json").read_text())
    one = compare(
        validate(content | {"training": content["training"] | {"batch_size": 8}}, "one"), tmp_path
    ).content.to_json()
    assert [view["name"] for view in two["views"]] == ["raw", "tuned"]
    for mine, other in zip(two["views"], one["views"], strict=True):
        for each, alone in zip(mine["policies"], other["policies"], strict=True):
            assert each["policy"] == alone["policy"]
            assert each["oof"] == pytest.approx(alone["oof"], abs=0.03)
    assert two["ledger"] == one["ledger"]


def test_several_labels_and_folds_in_time_are_compared(tmp_path):
    write_plant_pathology(tmp_path / "data", rows=48)
    table = pd.read_csv(tmp_path / "data/train.csv").assign(day=np.arange(48))
    table.to_csv(tmp_path / "data/train.csv", index=False)
    content = experiment_content(
        tmp_path / "data",
        competition={"id": "image", "label": "labels", "separator": " ", "test": None}
        | {"train_images": "train_images/{image}", "test_images": "test_images/{image}"},
        folds={"k": 3, "time": "day"},
        training={"epochs": 1, "batch_size": 4},
        scoring={"average": "samples", "rule": "half"},
    )
    config = validate(content | {"policies": TWO}, "test")
    content = compare(config, tmp_path).content.to_json()
    (made,) = content["views"][0]["comparisons"]
    assert (made["folds"], made["bootstrap"]["rows"]) == ([0, 1, 2], 36)  # the first quarter is trained on alone
    assert content["ratio"] == pytest.approx((12 / 12 + 12 / 24 + 12 / 36) / 3)


def test_tuned_policies_that_diverge_are_told(wide, tmp_path):
    policies = TWO | {"hot": {"lr": 1e-2}}
    config = experiment(wide, policies, compare={"tune": {"rates": [1e-3, 1e-1], "folds": [0]}})
    whole = config.model_copy(update={"policies": config.policies | variants(config)})
    wild = {"status": "diverged", "error": "the loss is nan"}
    accuracy = {name: 0.9 if name.endswith("lr0.1") else 0.5 for name in whole.policies}
    folder = store(whole, tmp_path, accuracy, **{"hot-lr0.001": wild})
    run = folder.run(RunKey("sliced-lr0.1", 0, 2))
    run.write(run.record.with_fields(**wild))
    content = compare(config, tmp_path, stored=True).content.to_json()
    assert [each["policy"] for each in content["views"][1]["comparisons"]] == ["hot"]
    assert [each["policy"] for each in content["views"][1]["diverged"]] == ["sliced"]
    assert content["headline"].endswith("; sliced diverged.")
    assert content["views"][1]["diverged"][0]["sentence"].endswith(
        "leave the rate of sliced-lr0.1 out of compare.tune.rates"
    )
    store(whole, tmp_path, accuracy, **dict.fromkeys(["hot-lr0.001", "hot-lr0.1"], wild))
    content = compare(config, tmp_path, stored=True).content.to_json()
    assert content["missing"] == ["Not compared tuned: hot diverged at every rate that was tried; try lower ones."]
    assert [each["policy"] for each in content["views"][1]["comparisons"]] == ["sliced"]
    assert content["ledger"][2]["chosen"] == {}
    assert content["missing"][0] in report(folder.path, OutputDirs(tmp_path)).read_text()


def test_a_rate_that_had_to_be_lowered_is_not_chosen(wide, tmp_path):
    """Its trial was begun anew at a third of it, and says nothing about the rate itself."""
    config = experiment(wide, TWO, compare={"tune": {"rates": [1e-3, 1e-1], "folds": [0]}})
    whole = config.model_copy(update={"policies": config.policies | variants(config)})
    accuracy = {name: 0.9 if name.endswith("lr0.1") else 0.5 for name in whole.policies}
    lowered = {"nonfinite": [{"factor": 1 / 3, "step": 4, "error": "the loss is nan"}]}
    for changes, rate in (({}, 0.1), ({"sliced-lr0.1": lowered}, 0.001)):
        store(whole, tmp_path, accuracy, **changes)
        ledger = compare(config, tmp_path, stored=True).content.to_json()["ledger"]
        assert set(ledger[1]["chosen"].values()) == {rate}


def test_a_comparison_of_fewer_policies_says_what_it_replaces(wide, tmp_path):
    config = experiment(wide, TWO | {"third": {"lr": 3e-2}})
    store(config, tmp_path, dict.fromkeys(config.policies, 0.7))
    said = []
    compare(config, tmp_path, stored=True, say=said.append)
    fewer = config.model_copy(update={"policies": {name: config.policies[name] for name in TWO}})
    compare(fewer, tmp_path, stored=True, say=said.append)
    assert said == ["comparison.json was of 3 runs more, of third; this comparison replaces it"]
    said.clear()
    compare(fewer, tmp_path, stored=True, say=said.append)
    assert said == []
    folds = fewer.folds.model_copy(update={"run": (0, 1)})
    compare(fewer.model_copy(update={"folds": folds}), tmp_path, stored=True, say=said.append)
    assert said == ["comparison.json was of 2 runs more, of sliced, uniform; this comparison replaces it"]


@pytest.mark.parametrize("changed", ["run", "metric"])
def test_a_comparison_of_other_runs_or_another_metric_is_not_reported(wide, tmp_path, changed):
    config = experiment(wide, TWO, folds={"k": 3})
    folder = store(config, tmp_path, {"uniform": 0.9, "sliced": 0.4})
    headline = compare(config, tmp_path, stored=True).content.to_json()["headline"]
    page = report(folder.path, OutputDirs(tmp_path)).read_text()
    assert headline in page
    if changed == "run":
        run = folder.run(RunKey("sliced", 0, 1))
        run.write(run.record.with_fields(fingerprint="another"))
    else:
        folder.config.write_text(experiment(wide, TWO, scoring={"average": "micro"}).to_yaml())
    said = []
    page = report(folder.path, OutputDirs(tmp_path), say=said.append).read_text()
    assert headline not in page
    assert "makes it anew" in page
    assert any("call python -m kit compare once more" in line for line in said)


def test_an_interrupted_trial_chooses_nothing(wide, tmp_path):
    """Else the rate that it tried would be taken for one that diverges."""
    config = experiment(wide, TWO, compare={"tune": {"rates": [1e-3, 1e-2], "folds": [0]}})
    whole = config.model_copy(update={"policies": config.policies | variants(config)})
    store(whole, tmp_path, dict.fromkeys(whole.policies, 0.7))
    assert [view["name"] for view in compare(config, tmp_path, stored=True).content.to_json()["views"]] == [
        "raw",
        "tuned",
    ]
    run = RunDir(tmp_path / "runs/tiny/sliced-lr0.001/seed0/fold0")
    run.write(run.record.with_fields(status="running"))
    content = compare(config, tmp_path, stored=True).content.to_json()
    assert [view["name"] for view in content["views"]] == ["raw"]
    assert content["missing"] == ["Not compared tuned: not all of its runs are there."]


def test_whole_groups_are_resampled(wide, tmp_path):
    groups = {"k": 5, "group": "id", "group_pattern": r"^(train\d\d)"}
    config = experiment(wide, TWO, folds=groups)
    store(config, tmp_path, dict.fromkeys(TWO, 0.7))
    made = of(compare(config, tmp_path, stored=True).content.to_json())["sliced"]
    assert (made["bootstrap"]["units"], made["bootstrap"]["rows"]) == ("groups", 300)


@pytest.mark.parametrize("name", ["run.json", "oof.parquet"])
def test_a_damaged_file_is_named(wide, tmp_path, name):
    config = experiment(wide, TWO)
    folder = store(config, tmp_path, dict.fromkeys(TWO, 0.7))
    file = folder.run(RunKey("sliced", 0, 1)).path / name
    file.write_bytes(file.read_bytes()[:40])
    message = refusal_of(lambda: compare(config, tmp_path, stored=True))
    assert str(file) in message
    assert "trained anew" in message


def mixed(folder):
    return experiment(folder, TWO, compare={"mixed_devices": True})


NAMED = {"device_name": "AMD EPYC", "versions": {"torch": "2.9.0", "timm": "1.0.26", "python": "3.12.1"}}


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (
            {},
            {"device": "cuda:0", "precision": "bf16"},
            ("cpu in fp32, torch unknown", "cuda in bf16, torch unknown"),
        ),
        (
            NAMED,
            NAMED | {"device_name": "Intel Xeon"},
            ("AMD EPYC in fp32, torch 2.9.0, timm 1.0.26", "Intel Xeon in"),
        ),
        (NAMED, NAMED | {"augmented_on": "device"}, ("in fp32, torch 2.9.0", "in fp32, augmented there, torch")),
        (NAMED, NAMED | {"precision": "bf16"}, ("AMD EPYC in fp32", "AMD EPYC in bf16")),
        (NAMED, NAMED | {"versions": {"torch": "2.9.0", "timm": "1.0.31"}}, ("timm 1.0.26", "timm 1.0.31")),
    ],
)
def test_runs_of_different_devices_are_paired_only_where_that_is_asked_for(wide, tmp_path, one, other, told):
    store(experiment(wide, TWO), tmp_path, dict.fromkeys(TWO, 0.7), uniform=one, sliced=other)
    line = refusal_of(lambda: compare(experiment(wide, TWO), tmp_path, stored=True))
    assert line.startswith("seed 0 fold 0: uniform was trained on ")
    assert "--mixed-devices" in line
    content = compare(mixed(wide), tmp_path, stored=True).content
    for text in told:
        assert text in line
        assert text in content.views[0].note
    assert "3 pairs of different ones" in content.views[0].note
    assert sorted(content.devices.values()) == [3, 3]


@pytest.mark.parametrize(
    "other",
    [
        {"versions": NAMED["versions"] | {"python": "3.11.7"}},  # of an early version, which told no name
        NAMED | {"threads": 4, "driver": "", "versions": NAMED["versions"] | {"torchvision": "0.24"}},
    ],
)
def test_runs_are_paired_by_what_both_tell(wide, tmp_path, other):
    store(experiment(wide, TWO), tmp_path, dict.fromkeys(TWO, 0.7), uniform=NAMED, sliced=other)
    assert compare(experiment(wide, TWO), tmp_path, stored=True).content.views[0].comparisons


def test_folds_may_be_of_different_devices_where_each_pair_is_of_one(wide, tmp_path):
    config, both = experiment(wide, TWO), dict.fromkeys(TWO, 0.7)
    folder = store(config, tmp_path, both, uniform=NAMED, sliced=NAMED)
    for policy in TWO:
        run = folder.run(RunKey(policy, 0, 1))
        run.write(run.record.with_fields(device_name="Intel Xeon"))
    content = compare(config, tmp_path, stored=True).content
    assert "different machines: AMD EPYC in fp32" in content.views[0].note
    assert "pair" not in content.views[0].note
    assert content.devices == {
        "AMD EPYC in fp32, torch 2.9.0, timm 1.0.26": 4,
        "Intel Xeon in fp32, torch 2.9.0, timm 1.0.26": 2,
    }


def test_what_could_not_be_paired_is_not_trained(wide, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.experiment.runner.Runner.train", lambda *_, **__: pytest.fail("it trains"))
    config = experiment(wide, TWO)
    folder = store(config, tmp_path, {"uniform": 0.7}, uniform=NAMED | {"device_name": "Tesla T4"})
    line = refusal_of(lambda: compare(config, tmp_path))
    assert line.startswith("uniform seed 0 fold 0 was trained on Tesla T4 in fp32, torch 2.9.0, ")
    assert "--mixed-devices" in line
    for run in folder.runs():
        run.write(run.record.with_fields(device_name="", device="cpu"))  # of an early version, which tells no name
    with pytest.raises(pytest.fail.Exception, match="it trains"):
        compare(config, tmp_path)


def test_mixed_devices_leaves_the_runs_as_they_are(wide):
    assert fingerprint(mixed(wide).canonical()) == fingerprint(experiment(wide, TWO).canonical())


def test_policies_without_a_shared_fold_and_seed_are_refused(wide, tmp_path):
    config = experiment(wide, TWO)
    store(config, tmp_path, {"uniform": 0.7}, folds=[0])
    store(config, tmp_path, {"sliced": 0.7}, folds=[1])
    message = refusal_of(lambda: compare(config, tmp_path, stored=True))
    assert "seed 0 fold 1" in message
    assert "seed 0 fold 0" in message


def test_unequal_updates_and_other_initial_weights_are_refused(wide, tmp_path):
    config = experiment(wide, TWO)
    both = dict.fromkeys(TWO, 0.7)
    store(config, tmp_path / "a", both, sliced={"steps": 60})
    message = refusal_of(lambda: compare(config, tmp_path / "a", stored=True))
    assert "different updates (uniform 51, sliced 60)" in message
    store(config, tmp_path / "b", both, sliced={"initial_weights": "other"})
    assert "different initial weights" in refusal_of(lambda: compare(config, tmp_path / "b", stored=True))


def test_runs_of_another_fingerprint_are_refused(wide, tmp_path):
    config = experiment(wide, TWO)
    store(config, tmp_path, dict.fromkeys(TWO, 0.7))
    run = RunDir(tmp_path / "runs/tiny/sliced/seed0/fold1")
    run.write(run.record.with_fields(depends_on=run.record.depends_on | {"policy": "0" * 16}))
    message = refusal_of(lambda: compare(config, tmp_path, stored=True))
    assert "sliced/seed0/fold1" in message
    assert "other policy" in message
    other = experiment(wide, TWO, training={"epochs": 7})
    assert "was made from another config" in refusal_of(lambda: compare(other, tmp_path, stored=True))


def test_of_one_seed_and_one_fold_it_says_what_cannot_be_concluded(wide, tmp_path):
    config = experiment(wide, TWO, folds={"k": 3, "run": [1]})
    store(config, tmp_path, {"uniform": 0.9, "sliced": 0.4}, folds=[1])
    made = of(compare(config, tmp_path, stored=True).content.to_json())["sliced"]
    assert (made["verdict"], made["interval"], made["p_holm"]) == ("undecided", None, None)
    assert "cannot be concluded" in made["sentence"]
    assert made["bootstrap"]["high"] < -0.3
    assert made["bootstrap"]["rows"] == 100


def test_partly_trained_policies_are_compared_on_what_they_share(wide, tmp_path):
    config = experiment(wide, TWO, folds={"k": 5})
    store(config, tmp_path, {"uniform": 0.8}, seeds=(0, 1))
    store(config.model_copy(update={"seeds": (0, 1)}), tmp_path, {"sliced": 0.8}, folds=[1, 2, 4])
    made = of(compare(config, tmp_path, stored=True).content.to_json())["sliced"]
    assert (made["folds"], made["seeds"], made["runs"]) == ([1, 2, 4], [0], 3)


@pytest.mark.parametrize(
    ("policies", "compared", "expected"),
    [
        ({"uniform": {"lr": 1e-2}}, {}, "uniform is the only policy"),
        (TWO, {"baseline": "other"}, "compare.baseline: other is not among the policies (uniform, sliced)"),
        (TWO, {"equalise": ["other"]}, "compare.equalise: other is not among the policies"),
        (TWO, {"equalise": ["uniform"]}, "name a policy other than the baseline"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(wide, tmp_path, policies, compared, expected):
    config = experiment(wide, policies, compare=compared)
    assert expected in refusal_of(compare, config, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_without_runs_stored_says_so(wide, tmp_path):
    assert "leave out --stored" in refusal_of(lambda: compare(experiment(wide, TWO), tmp_path, stored=True))


def test_seeds_and_folds_by_number(wide):
    config = experiment(wide, TWO, seeds=[4, 9], folds={"k": 5})
    assert of_size(config, 4, 2).seeds == (4, 9, 10, 11)
    assert of_size(config, 1).seeds == (4,)
    assert of_size(config, None, 2).folds.chosen == (0, 1)
    assert of_size(config, None, 5).folds.run == "all"
    with pytest.raises(KitError, match="the plan has 5 folds"):
        of_size(config, None, 6)


def test_the_section_survives_yaml(wide):
    config = experiment(wide, TWO, compare={"tune": {"rates": [1e-3, 1e-2], "folds": "nested"}, "equalise": True})
    assert validate(yaml.safe_load(config.to_yaml()), "again") == config


def test_the_commands_as_they_are_typed(wide, tmp_path, monkeypatch, capsys):
    config = experiment(wide, TWO, folds={"k": 5}, seeds=[0, 1])
    folder = store(config, tmp_path, {"uniform": 0.95, "sliced": 0.4}, seeds=(0, 1))
    file = tmp_path / "tiny.yaml"
    file.write_text(config.to_yaml())
    here = ("--output", str(tmp_path))
    words = (
        "compare",
        str(file),
        "--policies",
        "uniform,sliced",
        "--seeds",
        "2",
        "--folds",
        "5",
        "--stored",
        *here,
    )
    code, out, err = kit_here(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    assert "sliced is worse than uniform by" in out
    assert "As they are: uniform is better than all others, than sliced by" in out
    assert f"Report: {folder.report}" in out
    assert folder.report.stat().st_size < 5_000_000
    code, out, err = kit_here(monkeypatch, capsys, "report", "tiny", *here)
    assert (code, err) == (0, "")
    code, out, err = kit_here(monkeypatch, capsys, "report", "tinny", *here)
    assert code == 1
    assert err.startswith("error: tinny: there is no such experiment in")
    code, out, err = kit_here(monkeypatch, capsys, "probe", str(folder.run(RunKey("sliced", 0, 1)).path))
    assert code == 1
    assert "trained without probes" in err
    code, out, err = kit_here(monkeypatch, capsys, "compare", str(file), "--stored", "--seconds", "9", *here)
    assert code == 1
    assert "leave out --replace and --budget" in err
    code, out, err = kit_here(monkeypatch, capsys, "compare", str(file), "--policies", "uniform,other", *here)
    assert code == 1
    assert "there is no policy 'other'" in err
