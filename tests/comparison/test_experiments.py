"""Experiments compared with each other: known differences, one fold plan, what differs, what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.commands import config_file, kit_here
from support.planted import experiment, store
from support.refusals import refusal_of

from kit.cli.options import to_compare
from kit.comparison.compare import compare
from kit.comparison.experiments import alike, default_name, remarks_on, runners
from kit.comparison.record import read_comparison
from kit.competition.folds import read_folds, write_folds
from kit.core.errors import KitError
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.blend import blend
from kit.experiment.config import validate
from kit.experiment.examine import examine_runs
from kit.experiment.options import RunOptions
from kit.report.gather import gather, report, write_report
from kit.training.trainer import Trainer

UNIFORM, COSINE = {"uniform": {"lr": 1e-2}}, {"cosine": {"lr": 1e-2, "schedule": "cosine"}}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A competition of 300 rows, whose images nobody looks at."""
    return write_competition(tmp_path_factory.mktemp("wide") / "colours", rows=300, test_rows=3, side=1)


def three(wide, output, longer=True):
    """Experiments of which b is better and c worse than a, stored; b has another model, c another policy."""
    configs = [
        experiment(wide, UNIFORM, name="a", seeds=[0, 1], folds={"k": 5}),
        experiment(wide, UNIFORM, name="b", seeds=[0, 1], folds={"k": 5}, model={"name": "test_vit"}),
        experiment(wide, COSINE, name="c", seeds=[0, 1], folds={"k": 5}, training={"epochs": 4}),
    ]
    right = {"a": 0.7, "b": 0.95, "c": 0.4}
    other = {"b": {"initial_weights": "others"}, "c": {"steps": 102} if longer else {}}
    for config in configs:
        (policy,) = config.policies
        changes = {policy: other.get(config.name, {})}
        store(config, output, {policy: right[config.name]}, seeds=(0, 1), **changes)
    return configs


def test_planted_differences_between_experiments_are_found(wide, tmp_path):
    made = compare(three(wide, tmp_path), tmp_path, stored=True)
    content = made.content.to_json()
    compared = {each["policy"]: each for each in content["views"][0]["comparisons"]}
    assert {name: each["verdict"] for name, each in compared.items()} == {"b": "better", "c": "worse"}
    for name, truth in (("b", 0.25), ("c", -0.3)):
        assert compared[name]["interval"]["low"] <= truth + 0.03
        assert compared[name]["interval"]["high"] >= truth - 0.03
    assert made.folder == tmp_path / "runs/compare-a-b-c"
    assert content["headline"].startswith("As they are: b is better than a by")
    assert content["experiments"][2] | {"config": ""} == {"name": "c", "policy": "cosine", "config": ""}
    differs = {each["key"]: each["values"] for each in content["differs"]}
    assert differs["model.name"] == {"a": "test_resnet", "b": "test_vit", "c": "test_resnet"}
    assert differs["training.epochs"] == {"a": 2, "b": 2, "c": 4}
    assert differs["policy.schedule.name"] == {"a": "one_cycle", "b": "one_cycle", "c": "cosine"}
    assert not {"name", "seeds", "policy.schedule.div", "policy.schedule.floor"} & set(differs)
    note = content["views"][0]["note"]
    assert "Initial weights differ, as models do: the pairing is by fold and seed" in note
    assert "They made different numbers of updates: a 51, b 51, c 102." in note
    assert [(line["experiment"], line["runs"], line["training"]) for line in content["costs"]] == [
        ("a", 10, 1.0), ("b", 10, 1.0), ("c", 10, 1.0),
    ]  # fmt: skip
    assert read_comparison(made.folder / "comparison.json") == made.content


def test_what_differs_in_its_views_alone_is_told_to_train_the_same(wide):
    plain = experiment(wide, UNIFORM, name="a")
    flipped = experiment(wide, UNIFORM, name="b", prediction={"views": ["hflip"]})
    (line,) = remarks_on([plain, flipped])
    assert line.startswith("b: the trainings of a once more, as only `prediction` differs, which decides none; ")
    longer = experiment(wide, UNIFORM, name="b", prediction={"views": ["hflip"]}, training={"epochs": 4})
    other = experiment(wide, COSINE, name="b", prediction={"views": ["hflip"]})
    assert [remarks_on([plain, each]) for each in (longer, other)] == [[], []]


def test_the_statistics_are_those_of_the_same_runs_as_policies(wide, tmp_path):
    policies = {"first": {"lr": 1e-2}, "second": {"lr": 1e-3}, "third": {"lr": 1e-4}}
    whole = experiment(wide, policies, folds={"k": 5}, seeds=[0, 1])
    folder = store(whole, tmp_path, {"first": 0.7, "second": 0.8, "third": 0.72}, seeds=(0, 1))
    single = []
    for name, policy in policies.items():
        config = experiment(wide, {name: policy}, name=f"of-{name}", folds={"k": 5}, seeds=[0, 1])
        there = store(config, tmp_path, {name: 0.5}, seeds=(0, 1))
        for run in there.runs():
            shutil.copy(folder.run(run.record.key).oof, run.oof)
        single.append(config)
    one = compare(whole, tmp_path, stored=True).content.to_json()["views"][0]
    several = compare(single, tmp_path, stored=True).content.to_json()["views"][0]
    told = [(line["policy"], line["oof"], line["mean"]) for line in one["policies"]]
    assert [
        (line["policy"].removeprefix("of-"), *list(line.values())[1:3]) for line in several["policies"]
    ] == told
    numbers = (
        "runs",
        "score",
        "baseline_score",
        "difference",
        "interval",
        "p_holm",
        "bootstrap",
        "by_run",
        "verdict",
    )
    for each, other in zip(one["comparisons"], several["comparisons"], strict=True):
        assert {key: each[key] for key in numbers} == {key: other[key] for key in numbers}
        assert other["sentence"].replace("of-", "") == each["sentence"]


def test_the_report_and_those_that_look_for_experiments(wide, tmp_path):
    configs = three(wide, tmp_path, longer=False)
    made = compare(configs, tmp_path, stored=True)
    page = write_report("compare-a-b-c", tmp_path).file.read_text()
    for text in (
        "Which experiment wins",
        "What differs",
        "test_vit",
        "What each took",
        "macro F1 by experiment</h1>",
    ):
        assert text in page
    drawn = gather(ExperimentDir(made.folder), OutputDirs(tmp_path))
    assert [(each.name, len(each.finished)) for each in drawn.policies] == [("a", 10), ("b", 10), ("c", 10)]
    assert [each.folder.name for each in examine_runs([tmp_path / "runs"])] == ["a", "b", "c"]
    with pytest.raises(KitError, match="blend: compare-a-b-c is a comparison, which holds no runs"):
        blend(["a", "compare-a-b-c"], tmp_path)


def test_a_comparison_of_other_runs_is_told_and_not_shown(wide, tmp_path):
    made = compare(three(wide, tmp_path, longer=False), tmp_path, stored=True)
    run = ExperimentDir(tmp_path / "runs/b").run(RunKey("uniform", 1, 3))
    run.write(run.record.with_fields(fingerprint="another"))
    said = []
    page = report(made.folder, OutputDirs(tmp_path), say=said.append).read_text()
    assert said == [
        "without comparison.json: it is of another run of b uniform seed 1 fold 3; call python -m kit compare "
        "once more"
    ]
    assert "another run of b uniform seed 1 fold 3, so it is not shown" in page
    shutil.rmtree(tmp_path / "runs/b")
    message = refusal_of(lambda: report(made.folder, OutputDirs(tmp_path)))
    assert message.startswith("compare-a-b-c compares b under uniform, which is no longer in")


def test_predictions_that_were_made_anew_make_it_stale(wide, tmp_path):
    configs = three(wide, tmp_path, longer=False)
    run = ExperimentDir(tmp_path / "runs/a").run(RunKey("uniform", 0, 0))
    run.write(run.record.with_fields(files=run.digests()))
    made = compare(configs, tmp_path, stored=True)
    run.write(run.record.with_fields(files=run.record.files | {"oof.parquet": "0" * 64}))
    said = []
    with pytest.raises(KitError, match=r"oof\.parquet"):  # which the page itself reads, and finds damaged
        report(made.folder, OutputDirs(tmp_path), say=said.append)
    run.write(run.record.with_fields(files=run.digests(), test="another"))
    report(made.folder, OutputDirs(tmp_path), say=said.append)
    assert said == []


def test_what_is_the_firsts_is_said(wide, tmp_path):
    first = experiment(
        wide, UNIFORM | {"hot": {"lr": 1}}, name="a", seeds=[0, 1], compare={"tune": {"rates": [1, 2]}}
    )
    second = experiment(wide, UNIFORM, name="b", scoring={"average": "micro"}, compare={"margin": 0.2})
    store(first, tmp_path, {"uniform": 0.7}, seeds=(0, 1))
    store(second, tmp_path, {"uniform": 0.7}, seeds=(0, 1))
    said = []
    content = compare([first, second], tmp_path, stored=True, say=said.append).content
    assert said[:4] == [
        "The sections `scoring` differ; metric and rules are those of a, for all.",
        "The sections `compare` differ; margin, level and devices are those of a, for all.",
        "Seeds and folds are those of a, for all.",
        "Of a the first policy takes part alone.",
    ]
    assert all(line in content.views[0].note for line in said[:4])
    assert (content.metric, content.margin) == ("macro F1", 0.01)
    assert [len(each.runs) for each in content.views[0].policies] == [6, 6]
    assert content.missing == [
        "Not compared tuned or equalised (tune of a): experiments are compared with the rates they state."
    ]


def test_the_same_model_has_to_begin_alike_and_the_same_training_to_be_as_long(wide, tmp_path):
    pair = [
        experiment(wide, UNIFORM, name=name, data={"augment": how})
        for name, how in (("a", "light"), ("b", "none"))
    ]
    store(pair[0], tmp_path, {"uniform": 0.7})
    for changes, what in (({"initial_weights": "others"}, "initial weights"), ({"steps": 50}, "updates")):
        store(pair[1], tmp_path, {"uniform": 0.7}, uniform=changes)
        message = refusal_of(lambda: compare(pair, tmp_path, stored=True))
        assert f"the experiments had different {what} (a " in message


def test_what_is_no_network_tells_neither_weights_nor_updates(wide, tmp_path):
    pair = [experiment(wide, UNIFORM, name=name) for name in "ab"]
    store(pair[0], tmp_path, {"uniform": 0.7})
    store(pair[1], tmp_path, {"uniform": 0.7}, uniform={"initial_weights": None, "steps": None, "seconds": {}})
    content = compare(pair, tmp_path, stored=True).content
    assert "Initial weights" not in (content.views[0].note or "")
    assert (content.costs[1].training, content.costs[1].updates, content.differs) == (None, None, [])


def test_an_experiment_that_diverged_is_told_and_the_others_are_compared(wide, tmp_path):
    configs = three(wide, tmp_path, longer=False)
    run = ExperimentDir(tmp_path / "runs/b").run(RunKey("uniform", 1, 3))
    run.write(run.record.with_fields(status="diverged", error="the loss is nan"))
    made = compare(configs, tmp_path, stored=True)
    assert made.content.headline.endswith("; b diverged.")
    assert [each.policy for each in made.content.views[0].comparisons] == ["c"]
    page = report(made.folder, OutputDirs(tmp_path)).read_text()
    assert "<b>b</b> diverged at seed 1 fold 3, so it is not compared" in page
    assert [each.name for each in gather(ExperimentDir(made.folder), OutputDirs(tmp_path)).policies] == ["a", "c"]
    turned = [configs[1], configs[0]]
    message = refusal_of(lambda: compare(turned, tmp_path, stored=True))
    assert message.endswith("lower its lr, or name another experiment first")


def test_a_damaged_record_is_told_and_written_anew(wide, tmp_path):
    pair = [experiment(wide, UNIFORM, name=name) for name in "ab"]
    for config in pair:
        store(config, tmp_path, {"uniform": 0.7})
    made = compare(pair, tmp_path, stored=True)
    for name in ("comparison.json", "manifest.json"):
        (made.folder / name).write_text("{")
        with pytest.raises(KitError, match="damaged"):
            report(made.folder, OutputDirs(tmp_path))
        said = []
        assert compare(pair, tmp_path, stored=True, say=said.append).content == made.content
        assert any(name in line and "anew" in line for line in said)
        assert read_comparison(made.folder / "comparison.json") == made.content


def test_other_devices_are_refused_unless_the_first_says_so(wide, tmp_path):
    pair = [experiment(wide, UNIFORM, name=name) for name in "ab"]
    for config, device in zip(pair, ("Tesla T4", "NVIDIA L4"), strict=True):
        store(config, tmp_path, {"uniform": 0.7}, uniform={"device_name": device, "device": "cuda:0"})
    message = refusal_of(lambda: compare(pair, tmp_path, stored=True))
    assert message.startswith("seed 0 fold 0: a was trained on Tesla T4")
    mixed = [
        pair[0].model_copy(update={"compare": pair[0].compare.model_copy(update={"mixed_devices": True})}),
        pair[1],
    ]
    assert "3 pairs of different ones" in compare(mixed, tmp_path, stored=True).content.views[0].note
    assert "Tesla T4" in refusal_of(lambda: compare(mixed[::-1], tmp_path, stored=True))


def plan_turned(folder):
    """Another fold plan of the same rows: every fold is the next one."""
    plan = read_folds(folder.folds, [f"train{row:03d}" for row in range(300)])
    turned = type(plan)(plan.ids, (plan.fold + 1) % 3, plan.groups)
    write_folds(turned, folder.folds)
    for run in folder.runs():
        run.write(run.record.with_fields(depends_on=run.record.depends_on | {"folds": turned.digest}))


@pytest.mark.parametrize("stored", [True, False])
def test_another_fold_plan_is_refused_with_what_to_do(wide, tmp_path, stored, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a training began"))
    pair = [experiment(wide, UNIFORM, name=name, data={"size": 32}) for name in "ab"]
    store(pair[0], tmp_path, {"uniform": 0.7}, folds=[0])
    plan_turned(store(pair[1], tmp_path, {"uniform": 0.7}))
    message = refusal_of(lambda: compare(pair, tmp_path, stored=stored))
    assert f"{tmp_path}/runs/b follows another fold plan than {tmp_path}/runs/a" in message
    assert f"--folds {tmp_path}/runs/a/folds.csv --replace" in message


def others(wide, tmp_path, what):
    """A second experiment that is of another competition in one respect."""
    if what == "folds.k":
        return experiment(wide, UNIFORM, name="b", folds={"k": 4})
    if what == "same name":
        return experiment(wide, UNIFORM, name="a")
    folder = tmp_path / "other"
    shutil.copytree(wide, folder)
    table = folder / ("test.csv" if what == "test rows" else "train.csv")
    lines = table.read_text().splitlines()
    if what == "labels":
        lines[1] = lines[1].replace("blue", "red")
        table.write_text("\n".join([*lines, ""]))
    else:
        table.write_text("\n".join([*lines[:-1], ""]))
    if what == "test rows":
        sample = folder / "sample_submission.csv"
        sample.write_text("\n".join([*sample.read_text().splitlines()[:-1], ""]))
    return experiment(folder, UNIFORM, name="b")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("folds.k", "folds.k: 3 in a, 4 in b; compared experiments follow one fold plan"),
        ("same name", "compare: 2 experiments are named a, which is one folder in runs/"),
        ("training rows", "compare: b has other training rows than a (not both have train299)"),
        ("test rows", "compare: b has other test rows than a (not both have test002)"),
        ("labels", "compare: b has other labels than a; compare experiments of one competition"),
    ],
)
def test_what_is_no_pair_is_refused_before_anything_is_written(wide, tmp_path, what, expected):
    pair = [experiment(wide, UNIFORM, name="a"), others(wide, tmp_path, what)]
    assert refusal_of(lambda: compare(pair, tmp_path / "out")).startswith(expected)
    assert not (tmp_path / "out").exists()


def test_another_precision_is_refused_before_any_training(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a training began"))
    pair = [
        experiment(competition, UNIFORM, name=name, training={"precision": precision})
        for name, precision in (("a", "fp32"), ("b", "bf16"))
    ]
    message = refusal_of(lambda: compare(pair, tmp_path))
    assert message.startswith("compare: a would be trained on")
    assert "If that is what you compare, add --mixed-devices (compare.mixed_devices: true)" in message


def test_where_a_comparison_may_lie(wide, tmp_path):
    pair = [experiment(wide, UNIFORM, name=name) for name in "ab"]
    for config in pair:
        store(config, tmp_path, {"uniform": 0.7})
    assert compare(pair, tmp_path, stored=True, name="mine").folder == tmp_path / "runs/mine"
    for name, expected in (("a", "runs/a is an experiment"), ("../x", "letters, digits, dots")):
        assert expected in refusal_of(lambda name=name: compare(pair, tmp_path, stored=True, name=name))
    (tmp_path / "runs/mixed").mkdir()
    (tmp_path / "runs/mixed/blend.json").write_text("{}")
    assert "is a blend" in refusal_of(lambda: compare(pair, tmp_path, stored=True, name="mixed"))
    assert "leave it out" in refusal_of(lambda: compare(pair[0], tmp_path, name="mine"))
    assert "no experiment is given" in refusal_of(lambda: compare([], tmp_path))
    long = default_name(["a" * 60, "b" * 60])
    assert len(long) <= 80
    assert long != default_name(["a" * 60, "c" * 60])


def test_two_experiments_as_they_are_typed(competition, tmp_path, monkeypatch, capsys):
    """Both train under their own names, by the plan of the first; again nothing is trained, nor by `run`."""
    small = {"training": {"epochs": 1}, "folds": {"run": [0, 1]}}
    first = config_file(competition, tmp_path / "a.yaml", name="a", **small)
    second = config_file(competition, tmp_path / "b.yaml", name="b", data={"size": 24}, training={"epochs": 1})
    here = ("--output", str(tmp_path))
    code, out, err = kit_here(monkeypatch, capsys, "compare", str(first), str(second), *here)
    assert (code, err) == (0, "")
    for line in (
        "What differs: a | b",
        "  data.size: 32 | 24",
        "Seeds and folds are those of a, for all.",
        "what a run took",
    ):
        assert line in out
    assert f"Report: {tmp_path}/runs/compare-a-b/report.html" in out
    assert (tmp_path / "runs/a/folds.csv").read_bytes() == (tmp_path / "runs/b/folds.csv").read_bytes()
    assert {path.name for path in (tmp_path / "submissions").iterdir()} == {"a.csv", "b.csv"}
    content = json.loads((tmp_path / "runs/compare-a-b/comparison.json").read_text())
    runs = [run for each in content["views"][0]["policies"] for run in each["runs"]]
    assert len({run["initial_weights"] for run in runs}) == 1  # a CNN's do not depend on the size
    assert content["views"][0]["note"] == "Seeds and folds are those of a, for all."
    assert all(len(run["oof"]) == 64 for run in runs)
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("a training began"))
    code, out, err = kit_here(monkeypatch, capsys, "compare", str(first), str(second), *here, "--json")
    assert code == 0
    given = json.loads(out)
    assert (given["trained"], given["content"]["headline"]) == (0, content["headline"])
    code, out, err = kit_here(monkeypatch, capsys, "run", str(second), "--fold", "0,1", *here)
    assert (code, "Nothing to train" in out) == (0, True)
    for words, expected in (
        ((str(first), str(second), "--baseline", "a"), "of several experiments the first is the baseline"),
        ((str(first), str(second), "--policies", "uniform,flat_cos"), "under one policy each"),
        ((str(first), str(tmp_path / "c.yaml")), "does not exist"),
        ((str(first), str(second), "--vary", "data.size=[24]"), "--vary makes experiments of one config"),
    ):
        code, out, err = kit_here(monkeypatch, capsys, "compare", *words, *here)
        assert (code, expected in err) == (1, True), err


def test_heads_are_paired_with_trainings_at_one_seed(competition, tmp_path):
    trained = experiment(
        competition, UNIFORM, name="a", seeds=[0, 1], folds={"run": [0, 1]}, training={"epochs": 1}
    )
    content = experiment_content(competition, name="h", folds={"run": [0, 1]}, features={"heads": {"ridge": None}})
    content.pop("policies")
    said = []
    made = compare([trained, validate(content, "test")], tmp_path, say=said.append)
    (each,) = made.content.views[0].comparisons
    assert (each.policy, each.seeds, each.folds, made.trained) == ("h", [0], [0, 1], 6)
    assert said[0] == "h: the same for all seeds, so paired at seed 0 alone."
    other = validate(content | {"name": "i", "seeds": [1]}, "test")
    made = compare([trained, other], tmp_path, say=said.append)
    assert (made.content.views[0].comparisons[0].seeds, made.trained) == ([1], 2)
    later = trained.model_copy(update={"seeds": (3,)})
    told = "i: the same for all seeds, so paired at seed 3 alone."
    assert (remarks_on([later, other]), alike([later, other])[1].seeds) == ([told], (3,))
    assert remarks_on([trained.model_copy(update={"seeds": (1,)}), other]) == []
    differs = {line.key: list(line.values.values()) for line in made.content.differs}
    assert differs["policy.name"] == ["uniform", "ridge"]
    assert differs["features.block"] == [None, "last"]
    assert differs["policy.lr"] == [0.01, None]
    assert report(made.folder, OutputDirs(tmp_path)).is_file()


def test_a_number_of_seeds_is_of_those_that_train(competition, tmp_path):
    """--seeds beside heads, or a soup: both keep their one seed, as their config could not be read again else."""
    soup = {"soup": {"of": "a", "seeds": [0, 1]}, "model": {"weights": "hub"}}
    contents = {"a": {}, "heads": {"features": {"heads": "ridge"}}, "soup": soup}
    files = {name: tmp_path / f"{name}.yaml" for name in contents}
    for name, sections in contents.items():
        content = experiment_content(competition, name=name, seeds=[0], **sections)
        if name == "heads":
            content.pop("policies")
        files[name].write_text(yaml.safe_dump(content))
    made = to_compare([str(file) for file in files.values()], (), (), (), (3, 2))
    assert [(each.name, each.seeds, each.folds.chosen) for each in made] == [
        ("a", (0, 1, 2), (0, 1)),
        ("heads", (0,), (0, 1)),
        ("soup", (0,), (0, 1)),
    ]
    assert [each.seeds for each in alike(made)] == [(0, 1, 2), (0,), (0,)]
    for name, what in (("heads", "heads over features"), ("soup", "means of weights")):
        told = refusal_of(lambda name=name: to_compare([str(files[name]), str(files["a"])], (), (), (), (3, None)))
        assert told == f"--seeds 3: {name}: {what} are the same for each seed; leave it out"


def test_each_experiment_gets_an_equal_part_of_what_is_left(competition, tmp_path, monkeypatch):
    """Of six minutes, one of which is gone, the first gets a third; it leaves three, and so on."""
    shares, now = [], [60.0]

    class Idle:
        def __enter__(self):
            now[0] += 60

        def __exit__(self, *_):
            pass

    def set_up(config, options, say, keys):
        shares.append((config.name, options.budget, options.since))
        return Idle()

    monkeypatch.setattr("kit.comparison.experiments.time.monotonic", lambda: now[0])
    monkeypatch.setattr("kit.experiment.runner.Runner.set_up", set_up)
    configs = [experiment(competition, UNIFORM, name=name) for name in "abc"]
    with runners(configs, RunOptions(tmp_path, budget=360, since=0.0), print) as turns:
        assert [config.name for config, _ in turns] == ["a", "b", "c"]
    assert shares == [("a", 100.0, 60.0), ("b", 120.0, 120.0), ("c", 180.0, 180.0)]


def test_a_budget_that_is_over_trains_nothing_and_says_so(competition, tmp_path):
    pair = [experiment(competition, UNIFORM, name=name) for name in "ab"]
    message = refusal_of(lambda: compare(pair, RunOptions(tmp_path, budget=0.001)))
    assert message.startswith("budget: it was over")


def test_differences_are_summed_over_what_both_have(wide, tmp_path):
    pair = [experiment(wide, UNIFORM, name=name, folds={"k": 5}, seeds=[0, 1]) for name in "ab"]
    store(pair[0], tmp_path, {"uniform": 0.7}, seeds=(0, 1))
    store(pair[1], tmp_path, {"uniform": 0.7}, seeds=(0,), folds=[0, 1, 2])
    (view,) = compare(pair, tmp_path, stored=True).content.views
    (each,) = view.comparisons
    assert (each.folds, each.seeds, each.runs) == ([0, 1, 2], [0], 3)
    assert "a: 5 folds × 2 seeds. b: 3 folds × 1 seed." in view.about
    by_run = {(line["seed"], line["fold"]): line["difference"] for line in each.by_run}
    assert each.difference == pytest.approx(np.mean(list(by_run.values())))
    (tmp_path / "empty.yaml").write_text(yaml.safe_dump(experiment_content(wide, name="c", folds={"k": 5})))
    third = experiment(wide, UNIFORM, name="c", folds={"k": 5})
    message = refusal_of(lambda: compare([pair[0], third], tmp_path, stored=True))
    assert message == f"{tmp_path}/runs/c holds no experiment; leave out --stored to train it"


def test_weights_of_rows_are_a_change_like_any(tmp_path):
    folder = write_competition(tmp_path / "colours", side=8)
    table = pd.read_csv(folder / "train.csv")
    table.assign(w=[0.5, 1.0, 2.0] * 12).to_csv(folder / "train.csv", index=False)
    short = {"training": {"epochs": 1}, "folds": {"k": 3, "run": [0]}}
    plain = validate(experiment_content(folder, name="plain", **short), "test")
    weighed = validate(experiment_content(folder, name="weighed", competition={"weight": "w"}, **short), "test")
    content = compare([plain, weighed], tmp_path).content
    assert {each.key for each in content.differs} == {"competition.weight"}
    assert [each.policy for each in content.views[0].policies] == ["plain", "weighed"]


def test_what_a_cluster_cannot_do_is_refused_before_any_training(wide, tmp_path, monkeypatch):
    monkeypatch.setattr(RunOptions, "need_cluster", lambda options, processes: None)
    trained = validate(experiment_content(wide, name="net"), "test")
    heads = experiment_content(wide, name="heads", features={"heads": ["knn"]})
    heads.pop("policies")
    told = refusal_of(
        lambda: compare([trained, validate(heads, "test")], RunOptions(tmp_path, on="ray", folds=None))
    )
    assert told.startswith("--on: heads: heads over features are fitted on this machine")
    assert not (tmp_path / "runs").exists()
