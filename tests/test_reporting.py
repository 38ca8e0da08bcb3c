"""The report of an experiment: what is gathered from its folder, whole, unfinished or without its data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import experiment_content, refusal_of, write_competition

from kit.competition.folds import FoldPlan, write_folds
from kit.competition.load import load_competition
from kit.config import validate
from kit.files import write_json, write_text
from kit.locate import Places
from kit.lr import Group
from kit.pooling import pool_policy
from kit.reporting import gather, report
from kit.runs import ExperimentDir, RunKey, predictions, write_predictions
from kit.scoring.f1 import per_class

GROUPS = {"stem": 300, "layer1": 900, "layer2": 2500, "layer3": 7000, "layer4": 20000, "fc": 130}
POLICIES = {
    "uniform": {"lr": 1e-2},
    "discriminative": {"lr": "slice(1e-6, 1e-2)"},
    "layer_decay": {"lr": 1e-2, "profile": {"name": "layer_decay", "decay": 0.65}},
}
SKILL = (2.2, 0.9, 1.8, 2.0, 1.6, 1.5, 1.9, 2.1, 1.4, 1.7, 2.05)


def write_experiment(
    root: Path,
    data: Path,
    policies: dict | None = None,
    seeds: int = 2,
    steps: int = 60,
    samples: int = 0,
    compared: bool = True,
    skill: float = 1.0,
    **sections,
) -> ExperimentDir:
    """An experiment as `run` and `compare` leave it, its runs made up: the better a policy's SKILL, the more its
    probabilities know of the truth.

    data     the competition's folder
    samples  of the probes in the first seed's first fold; 0: no probes
    """
    policies = policies or POLICIES
    content = experiment_content(data, seeds=list(range(seeds)), **sections) | {"policies": policies}
    experiment = validate(content, "test")
    folder, loaded = ExperimentDir(root / "runs" / experiment.name), load_competition(experiment.competition)
    write_text(folder.config, experiment.to_yaml())
    plan = FoldPlan(loaded.ids, np.arange(len(loaded.ids)) // len(loaded.classes) % 3)
    write_folds(plan, folder.folds)
    groups = [Group(i, len(GROUPS), name, size) for i, (name, size) in enumerate(GROUPS.items())]
    for place, (name, config) in enumerate(experiment.policies.items()):
        matrix = config.build().matrix(groups, steps, steps // 2)
        for seed in range(seeds):
            for fold in range(3):
                generator = np.random.default_rng([place, seed, fold])
                run = folder.run(RunKey(name, seed, fold))
                _write_run(
                    run,
                    name,
                    seed,
                    fold,
                    loaded,
                    plan,
                    skill * SKILL[place % len(SKILL)],
                    steps,
                    matrix,
                    generator,
                )
                if samples and (seed, fold) == (0, 0):
                    write_probes(run, samples, steps, generator, slow=name == "discriminative")
        pool_policy(name, experiment, loaded, plan, folder, root / f"submissions/{name}.csv", write=True)
    if compared:
        write_json(folder.comparison, _comparison(experiment, folder))
    return folder


def _write_run(run, name, seed, fold, loaded, plan, skill, steps, matrix, generator) -> None:
    rows, classes = plan.validation_rows(fold), len(loaded.classes)
    truth = loaded.targets[rows] if loaded.format.multilabel else np.eye(classes)[loaded.targets[rows]]
    logits = skill * (2 * truth - 1) + generator.normal(0, 1.5, truth.shape)
    probabilities = 1 / (1 + np.exp(-logits))
    if not loaded.format.multilabel:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    write_predictions(predictions([loaded.ids[row] for row in rows], probabilities, loaded.classes), run.oof)
    test = np.full((len(loaded.test_ids), classes), 1 / classes)
    write_predictions(predictions(loaded.test_ids, test, loaded.classes), run.test)
    lines = []
    for step in range(steps // 10, steps + 1, steps // 10):
        lines.append(
            {"step": step, "epoch": step / (steps // 2), "loss": 2 / skill / step + generator.random() / 99}
        )
        lines.append({"step": step, "epoch": step / (steps // 2), "valid_score": 1 - 1 / (1 + step * skill / 9)})
    write_text(run.history, "".join(f"{json.dumps(line)}\n" for line in lines))
    np.savez(run.rates, lr=matrix.lr, frozen=matrix.frozen, momentum=matrix.momentum, groups=list(GROUPS))
    write_text(run.weights, "")
    run.write(
        {
            "status": "finished",
            "policy": name,
            "seed": seed,
            "fold": fold,
            "fingerprint": f"{name}{seed}{fold}",
            "depends_on": {"config": "c0ffee", "folds": "f01d", "policy": name},
            "versions": {"python": "3.13.1", "torch": "2.10.0"},
            "device": "cpu",
            "processes": 1,
            "precision": "fp32",
            "groups": GROUPS,
            "steps": steps,
            "initial_weights": f"ab{seed}",
            "seconds": {"training": 1.5, "whole": 2.0},
            "scores": {"macro F1": 0.5},
        }
    )


def write_probes(run, samples: int, steps: int, generator, slow: bool) -> None:
    """Activations that spread with time, more where not `slow`, and groups that move alike."""
    at = np.unique(np.linspace(0, steps - 1, samples).round().astype(int))
    layers = [*list(GROUPS)[:5], "head"]
    edges = 2.0 ** np.linspace(-8, 6, 141)
    magnitudes = np.concatenate([[0], edges])
    counts = np.zeros((len(at), len(layers), len(edges) + 1), dtype=np.uint32)
    for i, progress in enumerate(at / steps):
        for layer in range(len(layers)):
            spread = (1 + layer / 2) * (1 + progress * (0.3 * layer if slow else 2))
            counts[i, layer] = 30000 * np.exp(-magnitudes / spread) * magnitudes / spread + generator.integers(
                0, 3
            )
    zeros = np.zeros((len(at), len(layers)))
    np.savez_compressed(
        run.activations,
        steps=at,
        layers=layers,
        edges=edges,
        counts=counts,
        mean=zeros,
        std=zeros,
        near_zero=zeros,
    )
    depth, time = np.linspace(0, 1, len(GROUPS)), (at[:, None] + 1) / steps
    pace = 10.0 ** (-4 * (1 - depth)) if slow else np.ones(len(GROUPS))
    noise = 1 + 0.1 * generator.random((len(at), len(GROUPS)))
    np.savez_compressed(
        run.learning,
        steps=at,
        groups=list(GROUPS),
        n_params=list(GROUPS.values()),
        update=0.01 * pace * noise,
        distance=0.84 * pace * np.sqrt(time),
        rotation=40 * pace * np.sqrt(time),
        gradient=(0.3 + depth) * noise,
        rate=1e-3 * pace * noise,
        butterfly_steps=[0, steps],
        butterfly=[0.1 + 0.4 * (1 - depth), 0.01 + 0.09 * (1 - depth)],
        relative=0.05,
    )


def _comparison(experiment, folder) -> dict:
    """As comparison.json is: three views, of which the last is of two policies."""
    names = list(experiment.policies)
    scores = {name: json.loads((folder.policy(name) / "scores.json").read_text()) for name in names}
    views = [
        _view("raw", names, scores, names[0]),
        _view("tuned", names, scores, names[0]),
        _view("equalised", names[:2], scores, names[0]),
    ]
    return {
        "experiment": experiment.name,
        "metric": experiment.scoring.title,
        "baseline": names[0],
        "level": 0.95,
        "power": 0.8,
        "margin": 0.01,
        "ratio": 0.5,
        "headline": f"No policy is shown to be better than {names[0]} & that is that.",
        "views": views,
        "ledger": [
            {
                "policy": name,
                "raw": 6,
                "tuning": 2,
                "tuned": 6,
                "equalised": 0,
                "total": 12,
                "rates": [0.003, 0.01],
                "chosen": {"1": 0.01, "2": 0.003},
            }
            for name in names
        ],
        "tuning": [{"policy": names[0], "rate": 0.003, "fold": 0, "seed": 0, "score": None}],
        "updates": 60,
        "seconds": 123.4,
    }


def _view(view: str, names: list[str], scores: dict, baseline: str) -> dict:
    verdicts = ("worse", "undecided", "equivalent", "better")
    comparisons = []
    for place, name in enumerate(names[1:]):
        gap = scores[name]["oof"] - scores[baseline]["oof"]
        interval = {
            "difference": gap,
            "low": gap - 0.05,
            "high": gap + 0.06,
            "p": 0.01,
            "standard_error": 0.02,
            "df": 4,
        }
        comparisons.append(
            {
                "policy": name,
                "baseline": baseline,
                "folds": [0, 1, 2],
                "seeds": [0, 1],
                "runs": 6,
                "score": scores[name]["oof"],
                "baseline_score": scores[baseline]["oof"],
                "difference": gap,
                "interval": None if view == "equalised" else interval,
                "p_holm": None if view == "equalised" else 0.02,
                "smallest_detectable": None if view == "equalised" else 0.06,
                "bootstrap": {
                    "difference": gap,
                    "low": gap - 0.08,
                    "high": gap + 0.07,
                    "resamples": 9,
                    "units": "rows",
                },
                "verdict": verdicts[place % 4],
                "sentence": f"{name} differs from {baseline} by {gap:+.3f} macro F1.",
                "seeds_to_decide": None,
                "by_run": [],
            }
        )
    return {
        "name": view,
        "about": f"What the view {view} is.",
        "note": None,
        "policies": [
            {
                "policy": name,
                "oof": scores[name]["oof"],
                "mean": float(np.mean([run["score"] for run in scores[name]["runs"]])),
                "runs": [run | {"variant": name} for run in scores[name]["runs"]],
            }
            for name in names
        ],
        "comparisons": comparisons,
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, competition):
    """An experiment of which everything is there."""
    root = tmp_path_factory.mktemp("whole")
    return root, write_experiment(root, competition, samples=12)


@pytest.fixture(scope="module")
def gathered(whole):
    return gather(whole[1], Places(whole[0]))


def test_everything_that_is_there_is_gathered(gathered):
    assert [policy.name for policy in gathered.policies] == list(POLICIES)
    assert (gathered.baseline, gathered.metric, gathered.fold_plan) == ("uniform", "macro F1", "f01d")
    assert all(len(policy.finished) == len(policy.histories) == 6 for policy in gathered.policies)
    assert {policy.shown for policy in gathered.policies} == {"Seed 0, fold 0"}
    assert all(policy.activations and policy.learning and policy.rates for policy in gathered.policies)
    assert gathered.without == ""


def test_decided_rows_give_the_stored_scores(gathered):
    for policy in gathered.policies:
        table = per_class(policy.outcome.truth, policy.outcome.predicted, gathered.classes)
        assert table["f1"].mean() == pytest.approx(policy.scores["oof"], abs=1e-12)


def test_rates_are_compared_with_those_the_policy_intends(whole, gathered, tmp_path):
    assert [policy.rates.largest_difference for policy in gathered.policies] == [0, 0, 0]
    run = whole[1].run(RunKey("uniform", 0, 1))
    with np.load(run.rates) as saved:
        arrays = dict(saved)
    try:
        np.savez(run.rates, **arrays | {"lr": arrays["lr"] * np.where(np.arange(60) == 7, 1.25, 1.0)[:, None]})
        run.write(run.read())
        from kit.reporting import read_rates

        changed = read_rates(
            run, validate(experiment_content(tmp_path, policies=POLICIES), "t").policies["uniform"]
        )
        assert changed.largest_difference == pytest.approx(0.25)
    finally:
        np.savez(run.rates, **arrays)


def test_the_images_that_most_policies_got_wrong_come_first(gathered):
    shown = gathered.thumbnails
    assert 0 < len(shown) <= 24
    counts = [each.wrong for each in shown]
    assert counts == sorted(counts, reverse=True)
    outcomes = [policy.outcome for policy in gathered.policies]
    for each in shown:
        wrong = [o for o in outcomes if o.wrong[o.ids.get_loc(each.id)]]
        assert (each.wrong, each.of) == (len(wrong), 3)
        assert each.image.startswith("data:image/")
    assert all(each.truth in gathered.names for each in shown)


def test_the_same_runs_give_the_same_bytes(whole, tmp_path):
    root, folder = whole
    first = report(folder.path, Places(root))
    assert first == folder.report
    again = report(folder.path, Places(tmp_path), to=tmp_path / "again.html")
    assert first.read_bytes() == again.read_bytes()


def test_without_the_competition_the_rest_is_there(tmp_path):
    competition = write_competition(tmp_path / "colours")
    folder = write_experiment(tmp_path, competition, seeds=1)
    competition.rename(tmp_path / "elsewhere")
    said = []
    page = report(folder.path, Places(tmp_path), say=said.append).read_text(encoding="utf-8")
    assert "is no folder" in said[0]
    assert "The images cannot be shown:" in page
    assert "What was mistaken for what cannot be shown:" in page
    assert 'id="plot-forest"' in page
    assert 'id="table-per-class"' in page
    assert 'id="plot-confusion-0"' not in page


def test_an_image_that_is_broken_is_said_to_be(tmp_path):
    competition = write_competition(tmp_path / "colours")
    folder = write_experiment(tmp_path, competition, policies={"uniform": {"lr": 1e-2}}, seeds=1, skill=0.5)
    for file in (competition / "train").iterdir():
        file.write_bytes(b"no image")
    made = gather(folder, Places(tmp_path))
    assert made.thumbnails
    assert all(each.image is None for each in made.thumbnails)
    assert "cannot be read" in report(folder.path, Places(tmp_path)).read_text(encoding="utf-8")


def test_of_unfinished_runs_what_is_finished_is_shown(tmp_path, competition):
    folder = write_experiment(tmp_path, competition, seeds=1, compared=False)
    for run in folder.runs("uniform"):
        if run.read()["fold"] == 0:
            run.write(run.read() | {"status": "running"})
    for run in folder.runs("discriminative"):
        run.write(run.read() | {"status": "failed", "error": "out of <memory>"})
    (folder.policy("discriminative") / "scores.json").unlink()
    made = gather(folder, Places(tmp_path))
    assert [len(policy.finished) for policy in made.policies] == [2, 0, 3]
    assert {policy.shown for policy in made.policies if policy.finished} == {"Seed 0, fold 1"}
    page = report(folder.path, Places(tmp_path)).read_text(encoding="utf-8")
    assert "5 runs finished, 3 failed, 1 running" in page
    assert "out of &lt;memory&gt;" in page
    assert "Nothing is compared yet" in page


def test_a_folder_with_nothing_but_a_config_has_a_report(tmp_path, competition):
    folder = ExperimentDir(tmp_path / "runs/tiny")
    write_text(folder.config, validate(experiment_content(competition), "test").to_yaml())
    page = report(folder.path, Places(tmp_path)).read_text(encoding="utf-8")
    assert "No run is finished yet" in page


def test_what_is_no_experiment_or_damaged_is_refused(tmp_path, whole):
    assert "holds no experiment.yaml" in refusal_of(report, tmp_path, Places(tmp_path))
    folder = ExperimentDir(tmp_path / "runs/tiny")
    write_text(folder.config, whole[1].config.read_text())
    write_text(folder.comparison, "{")
    assert "is damaged" in refusal_of(report, folder.path, Places(tmp_path))


def test_variants_are_not_policies_of_the_report(tmp_path, competition):
    variants = {"uniform-lr0.003": {"lr": 3e-3}}
    folder = write_experiment(tmp_path, competition, policies=POLICIES | variants, seeds=1)
    content = json.loads(folder.comparison.read_text())
    for view in content["views"]:
        view["policies"] = [each for each in view["policies"] if each["policy"] not in variants]
        view["comparisons"] = [each for each in view["comparisons"] if each["policy"] not in variants]
    write_json(folder.comparison, content)
    assert [policy.name for policy in gather(folder, Places(tmp_path)).policies] == list(POLICIES)


def test_torch_is_not_needed(whole):
    code = (
        "import sys; from pathlib import Path; from kit.reporting import report; from kit.locate import Places; "
        f"report(Path({str(whole[1].path)!r}), Places(Path({str(whole[0])!r}))); "
        "assert 'torch' not in sys.modules and 'plotly.graph_objects' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_several_labels_a_row(tmp_path):
    folder = several_labels(tmp_path)
    made = gather(folder, Places(tmp_path))
    assert made.multilabel
    assert all(each.image for each in made.thumbnails)
    page = report(folder.path, Places(tmp_path)).read_text(encoding="utf-8")
    assert 'id="plot-lowest-classes"' in page
    assert 'id="table-confused"' in page
    assert 'id="plot-confusion-0"' not in page


def several_labels(root: Path, names=("day", "rain", "snow")) -> ExperimentDir:
    competition = write_competition(root / "tags", rows=60)
    truth = np.random.default_rng(0).random((60, 3)) < 0.5
    truth[~truth.any(axis=1), 0] = True
    cells = [" ".join(tag for tag, has in zip(names, row, strict=True) if has) for row in truth]
    pd.read_csv(competition / "train.csv").assign(label=cells).to_csv(competition / "train.csv", index=False)
    return write_experiment(
        root, competition, competition={"separator": " "}, scoring={"rule": "auto"}, seeds=1, skill=0.4
    )
