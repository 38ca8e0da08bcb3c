"""A metric of probabilities from the command line: run, compare, blend, grade, predict."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.commands import kit_here

MINE = """
def soft_f1(truth, probabilities):
    hits = probabilities[truth == 1].sum()
    return 2 * hits / (truth.sum() + probabilities.sum())
"""


def soft_f1(truth: pd.Series, second: pd.Series) -> float:
    hits = second[truth == 1].sum()
    precision, recall = hits / second.sum(), hits / (truth == 1).sum()
    return 2 * precision * recall / (precision + recall)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a competition of two classes that asks for the probability of the second, and its config."""
    home = tmp_path_factory.mktemp("home")
    folder = write_competition(home / "data", rows=36, test_rows=12)
    for name in ("train", "solution"):
        table = pd.read_csv(folder / f"{name}.csv")
        table.assign(label=(table["label"] == "red").astype(int)).to_csv(folder / f"{name}.csv", index=False)
    sample = pd.read_csv(folder / "sample_submission.csv")
    sample.assign(label=0.5).to_csv(folder / "sample_submission.csv", index=False)
    content = experiment_content(folder, folds={"k": 3}, scoring={"metric": "mine.py:soft_f1", "rule": "auto"})
    content["policies"] = {"slow": {"lr": 1e-4}, "fast": {"lr": 1e-2}}
    (home / "mine.py").write_text(MINE)
    (home / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return home


@pytest.fixture
def kit(home, monkeypatch, capsys):
    """Runs a command; returns what it says."""

    def command(*words: str, fails: bool = False) -> str:
        code, said, errors = kit_here(monkeypatch, capsys, *words)
        assert (code != 0) == fails, errors
        return " ".join((errors if fails else said).split())

    if not (home / "out").exists():
        command("compare", str(home / "config.yaml"), "--output", str(home / "out"))
    return command


def truth_of(home: Path, rows: pd.Index) -> pd.Series:
    return pd.read_csv(home / "data/train.csv").set_index("id")["label"].loc[rows]


def test_scores_are_of_the_probabilities(kit, home):
    for policy in ("slow", "fast"):
        folder = home / "out/runs/tiny" / policy
        oof = pd.read_parquet(folder / "oof.parquet").set_index("id")
        scores = json.loads((folder / "scores.json").read_text())
        assert scores["oof"] == scores["optimistic"]
        assert scores["oof"] == pytest.approx(soft_f1(truth_of(home, oof.index), oof["1"]), rel=1e-5)
        assert [each["name"] for each in scores["rules"]] == ["argmax"]
        assert (scores["metric"], scores["submission"]) == ("soft_f1", "probabilities")
        for each in scores["runs"]:
            run = folder / f"seed0/fold{each['fold']}"
            held_out = pd.read_parquet(run / "oof.parquet").set_index("id")
            expected = soft_f1(truth_of(home, held_out.index), held_out["1"])
            assert each["score"] == pytest.approx(expected, rel=1e-5)
            last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
            assert last["valid_score"] == pytest.approx(expected, rel=1e-5)


def test_policies_are_compared_by_it_and_its_bootstrap(kit, home):
    folder = home / "out/runs/tiny"
    comparison = json.loads((folder / "comparison.json").read_text())
    (found,) = comparison["views"][0]["comparisons"]
    oof = {name: pd.read_parquet(folder / name / "oof.parquet").set_index("id")["1"] for name in ("slow", "fast")}
    truth = truth_of(home, oof["slow"].index)
    whole = {name: soft_f1(truth, each.loc[truth.index]) for name, each in oof.items()}
    sampled = found["bootstrap"]
    assert sampled["difference"] == pytest.approx(whole["fast"] - whole["slow"], abs=1e-5)
    assert sampled["low"] < sampled["difference"] < sampled["high"]


def test_a_submission_of_probabilities_is_graded(kit, home):
    submission, solution = home / "out/submissions/tiny.csv", home / "data/solution.csv"
    handed_in = pd.read_csv(submission).set_index("id")["label"]
    expected = soft_f1(pd.read_csv(solution).set_index("id")["label"].loc[handed_in.index], handed_in)
    said = kit("grade", str(submission), str(solution), "--config", str(home / "config.yaml"))
    assert said == f"soft_f1 {expected:.4f} (12 rows)"
    assert np.unique(handed_in.round(2)).size > 2  # no labels
    said = kit(
        *("grade", str(submission), str(solution), "--config", str(home / "config.yaml")),
        *("--set", "competition.submission=labels"),
        fails=True,
    )
    assert "is no class" in said or "are no class" in said


def test_labels_cannot_be_graded_by_it(kit, home, tmp_path):
    labels = pd.read_csv(home / "data/solution.csv")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    said = kit(
        *("grade", str(tmp_path / "labels.csv"), str(home / "data/solution.csv")),
        *("--config", str(home / "config.yaml"), "--set", "competition.submission=labels"),
        fails=True,
    )
    assert "holds labels, but the metric takes probabilities; set competition.submission: probabilities" in said


def test_a_blend_and_a_prediction_go_by_it(kit, home):
    kit("blend", "tiny", "tiny/fast", "--name", "both", "--output", str(home / "out"))
    record = json.loads((home / "out/runs/both/blend.json").read_text())
    mean = next(each for each in record["candidates"] if each["method"] == "mean")
    oof = [
        pd.read_parquet(home / f"out/runs/tiny/{name}/oof.parquet").set_index("id")["1"]
        for name in ("slow", "fast")
    ]
    truth = truth_of(home, oof[0].index)
    expected = soft_f1(truth, (oof[0] + oof[1].loc[truth.index]) / 2)
    assert mean["cross_fitted"] == pytest.approx(expected, rel=1e-5)
    again = home / "out/again.csv"
    kit("predict", str(home / "config.yaml"), "--output", str(home / "out"), "--submission", str(again))
    assert again.read_text() == (home / "out/submissions/tiny.csv").read_text()


def test_where_labels_are_handed_in_it_is_said(kit, home):
    said = kit(
        *("run", str(home / "config.yaml"), "--output", str(home / "labels"), "--policy", "fast"),
        *("--fold", "0", "--set", "competition.submission=labels"),
    )
    assert (
        "soft_f1 takes probabilities, but labels are handed in; is competition.submission: probabilities" in said
    )
