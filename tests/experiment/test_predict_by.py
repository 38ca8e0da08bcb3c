"""One prediction of several images, the whole way: folds, scores, submission, predict, grade, compare, blend."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support.colours import COLOURS, experiment_content, write_competition
from support.commands import config_file, kit_here
from support.faults import as_left
from support.refusals import refusal_of

from kit import blend, compare, grade, predict, run
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.experiment.config import ExperimentConfig, validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.pooled_predictions import pooled
from kit.kaggle.rehearsal.hidden_test import write_variant
from kit.report.audit import audit

BY = {"rows": "{patient}_{side}", "pool": "max"}
CLASSES = sorted(COLOURS)


def write_observations(folder: Path) -> Path:
    """54 training rows of 18 observations (9 patients, two sides), one row at least each; 12 test rows of 4."""
    write_competition(folder, rows=54, test_rows=12, side=8)
    generator = np.random.default_rng(0)
    for part, count in (("train", 18), ("test", 4)):
        table = pd.read_csv(folder / f"{part}.csv", dtype=str)
        # Colours take turns, and so do observations: the first rows reach each, the others any of their colour.
        of = [list(range(colour, count, 3)) for colour in range(3)]
        chosen = [
            of[row % 3][row // 3] if row // 3 < len(of[row % 3]) else int(generator.choice(of[row % 3]))
            for row in range(len(table))
        ]
        table["patient"] = [f"{part[0]}{number // 2}" for number in chosen]
        table["side"] = ["LR"[number % 2] for number in chosen]
        table.to_csv(folder / f"{part}.csv", index=False)
        if part == "test":
            truth = {f"t{number // 2}_{'LR'[number % 2]}": CLASSES[number % 3] for number in range(count)}
    solution = pd.DataFrame({"prediction_id": truth.keys(), "label": truth.values()})
    solution.to_csv(folder / "solution.csv", index=False)
    solution.assign(label="red").to_csv(folder / "sample_submission.csv", index=False)
    return folder


def described(folder: Path, **sections) -> ExperimentConfig:
    stated = {"competition": {"predict_by": BY}, "seeds": [0, 1], "folds": {"k": 3}}
    stated |= {"policies": {"uniform": {"lr": 1e-2}, "slow": {"lr": 1e-4}}, "training": {"epochs": 1}}
    return validate(experiment_content(folder, **stated | sections), "test")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """data/ with a test image that is broken beside others of its observation, and one that is the only one."""
    root = tmp_path_factory.mktemp("observations")
    folder = write_observations(root / "data")
    table = pd.read_csv(folder / "test.csv", dtype=str)
    names = table["patient"] + "_" + table["side"]
    (folder / "test" / f"{table['id'][names == names[0]].iloc[0]}.png").write_bytes(b"broken")
    for name in table["id"][names == alone(names)]:
        (folder / "test" / f"{name}.png").write_bytes(b"broken")
    run(described(folder), root)
    return root


def alone(names: pd.Series) -> str:
    """An observation other than that of the first row: all its images are broken."""
    return sorted(set(names) - {names[0]})[0]


def slowly(frames: list[pd.DataFrame], table: pd.DataFrame, leave_out: set[str] = frozenset()) -> pd.DataFrame:
    """Means over seeds, then the highest of an observation's rows, shares of their sum."""
    mean = sum(frame[CLASSES].astype(float) for frame in frames) / len(frames)
    mean = mean.loc[[name for name in mean.index if name not in leave_out]]
    of = dict(zip(table["id"], table["patient"] + "_" + table["side"], strict=True))
    pooled = mean.groupby(mean.index.map(of)).max()
    return pooled.div(pooled.sum(axis=1), axis=0)


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path).set_index("id")


def runs_of(root: Path, policy: str, fold: int) -> list[RunDir]:
    return [RunDir(root / f"runs/tiny/{policy}/seed{seed}/fold{fold}") for seed in (0, 1)]


def out_of_fold(root: Path, policy: str) -> tuple[pd.DataFrame, pd.Series]:
    """The observations' predictions and labels, the slow way."""
    table = pd.read_csv(root / "data/train.csv", dtype=str)
    oof = pd.concat([slowly([read(run.oof) for run in runs_of(root, policy, fold)], table) for fold in range(3)])
    truth = table.groupby(table["patient"] + "_" + table["side"])["label"].first()
    return oof, truth.loc[oof.index]


def test_folds_keep_observations_together(trained):
    folds = pd.read_csv(trained / "runs/tiny/folds.csv", dtype=str)
    table = pd.read_csv(trained / "data/train.csv", dtype=str)
    names = table["patient"] + "_" + table["side"]
    assert folds["fold"].groupby(names).nunique().max() == 1 < folds.groupby("fold").size().min()
    assert folds["group"].groupby(names).nunique().max() == 1
    assert folds["group"].nunique() == names.nunique() == 18


def test_scores_are_of_observations_and_runs_predict_rows(trained):
    table = pd.read_csv(trained / "data/train.csv", dtype=str)
    folds = pd.read_csv(trained / "runs/tiny/folds.csv", dtype=str)
    for policy in ("uniform", "slow"):
        scores = json.loads((trained / f"runs/tiny/{policy}/scores.json").read_text())
        oof, truth = out_of_fold(trained, policy)
        assert scores["oof"] == pytest.approx(
            f1_score(truth, oof.idxmax(axis=1), average="macro", zero_division=0)
        )
        assert (scores["oof_rows"], scores["train_rows"]) == (18, 18)
        assert sum(row["rows"] for row in scores["per_class"]) == 18
        pd.testing.assert_frame_equal(
            read(trained / f"runs/tiny/{policy}/oof.parquet")[CLASSES].astype(float).sort_index(),
            oof.sort_index(), check_names=False, rtol=1e-5,
        )  # fmt: skip
        for scored in scores["runs"]:
            frame = read(trained / f"runs/tiny/{policy}/seed{scored['seed']}/fold{scored['fold']}/oof.parquet")
            assert sorted(frame.index) == sorted(
                folds["id"][folds["fold"] == str(scored["fold"])]
            )  # an image each
            one = slowly([frame], table)
            expected = f1_score(truth.loc[one.index], one.idxmax(axis=1), average="macro", zero_division=0)
            assert scored["score"] == pytest.approx(expected)


def test_the_submission_is_of_what_can_be_read(trained):
    table = pd.read_csv(trained / "data/test.csv", dtype=str)
    broken = {path.stem for path in (trained / "data/test").iterdir() if path.read_bytes() == b"broken"}
    frames = []
    for fold in range(3):
        runs = runs_of(trained, "uniform", fold)
        assert set(runs[0].record.unread) == broken
        made = slowly([read(run.test) for run in runs], table, broken)
        lost = alone(table["patient"] + "_" + table["side"])
        assert lost not in made.index
        prior = slowly([read(run.oof) for run in runs], pd.read_csv(trained / "data/train.csv", dtype=str)).mean()
        made.loc[lost] = prior
        frames.append(made.sort_index())
    mean = sum(frames) / 3
    stored = read(trained / "runs/tiny/uniform/test.parquet")[CLASSES].astype(float).sort_index()
    pd.testing.assert_frame_equal(stored, mean, check_names=False, rtol=1e-5)
    submission = pd.read_csv(trained / "submissions/tiny.csv").set_index("prediction_id")
    assert submission["label"].to_dict() == mean.idxmax(axis=1).to_dict()


def test_predict_in_a_kernel_gives_the_same(trained, tmp_path):
    said = []
    made = predict(
        described(trained / "data"), [trained / "runs"], tmp_path / "s.csv", output=tmp_path, say=said.append
    )
    ours = pd.read_csv(tmp_path / "s.csv").set_index("prediction_id")["label"]
    theirs = pd.read_csv(trained / "submissions/tiny.csv").set_index("prediction_id")["label"]
    lost = alone(pd.read_csv(trained / "data/test.csv", dtype=str).pipe(lambda t: t["patient"] + "_" + t["side"]))
    assert ours.drop(lost).to_dict() == theirs.drop(lost).to_dict()
    assert made.rows == 4
    assert any("those without one get the prior" in line for line in said)
    prior = out_of_fold(trained, "uniform")[0].mean()
    assert ours[lost] == prior.idxmax()


def test_grade_takes_the_solution_by_observation_or_by_row(trained, tmp_path):
    experiment, submission = described(trained / "data"), trained / "submissions/tiny.csv"
    solution = pd.read_csv(trained / "data/solution.csv").set_index("prediction_id")["label"]
    predicted = pd.read_csv(submission).set_index("prediction_id")["label"]
    expected = f1_score(solution, predicted.loc[solution.index], average="macro", zero_division=0)
    made = grade(submission, trained / "data/solution.csv", experiment)
    assert (made.value, made.rows) == (pytest.approx(expected), 4)
    table = pd.read_csv(trained / "data/test.csv", dtype=str)
    names = table["patient"] + "_" + table["side"]
    table.assign(label=names.map(solution)).to_csv(tmp_path / "rows.csv", index=False)
    assert grade(submission, tmp_path / "rows.csv", experiment) == made
    table.assign(label=[*names.map(solution)[:-1], "grey"]).to_csv(tmp_path / "rows.csv", index=False)
    assert "have rows with different labels" in refusal_of(grade, submission, tmp_path / "rows.csv", experiment)


def test_another_pooling_trains_nothing_and_is_scored_anew(trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    said = []
    mean = described(trained / "data", competition={"predict_by": {**BY, "pool": "mean"}})
    result = run(mean, tmp_path, say=said.append)
    assert any("12 of 12 runs are finished already" in line for line in said)
    table = pd.read_csv(trained / "data/train.csv", dtype=str)
    of = dict(zip(table["id"], table["patient"] + "_" + table["side"], strict=True))
    oof = pd.concat(
        [sum(read(run.oof).astype(float) for run in runs_of(trained, "uniform", fold)) / 2 for fold in range(3)]
    )
    oof = oof.groupby(oof.index.map(of)).mean()
    truth = out_of_fold(trained, "uniform")[1].loc[oof.index]
    expected = f1_score(truth, oof.idxmax(axis=1), average="macro", zero_division=0)
    assert result.policies["uniform"].scores.oof == pytest.approx(expected)
    for name in ("run.json", "weights.safetensors"):
        path = Path("runs/tiny/uniform/seed0/fold0") / name
        assert (tmp_path / path).read_bytes() == (trained / path).read_bytes()


def test_compare_and_blend_are_of_observations(trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    compare(described(trained / "data"), tmp_path)
    made = json.loads((tmp_path / "runs/tiny/comparison.json").read_text())
    assert made["scoring"]["predict_by"] == BY
    (raw,) = made["views"]
    for policy in raw["policies"]:
        oof, truth = out_of_fold(trained, policy["policy"])
        assert policy["oof"] == pytest.approx(
            f1_score(truth, oof.idxmax(axis=1), average="macro", zero_division=0)
        )
    assert raw["comparisons"][0]["bootstrap"]["low"] <= raw["comparisons"][0]["bootstrap"]["high"]
    blended = blend(["tiny", "tiny/slow"], tmp_path)
    assert (blended.record["oof_rows"], blended.record["train_rows"]) == (18, 18)
    assert (
        pd.read_csv(blended.submission)["prediction_id"].tolist()
        == pd.read_csv(trained / "data/sample_submission.csv")["prediction_id"].tolist()
    )
    assert len(read(blended.folder / "oof.parquet")) == 18


def test_tuning_scores_observations(trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    tuned = described(trained / "data", compare={"tune": {"rates": [1e-4, 1e-2], "folds": [0]}})
    compare(tuned, tmp_path)
    lines = json.loads((tmp_path / "runs/tiny/comparison.json").read_text())["tuning"]
    (line,) = [each for each in lines if each["policy"] == "uniform" and each["rate"] == 1e-2]
    table = pd.read_csv(trained / "data/train.csv", dtype=str)
    one = slowly([read(runs_of(trained, "uniform", 0)[0].oof)], table)
    truth = table.groupby(table["patient"] + "_" + table["side"])["label"].first().loc[one.index]
    assert line["score"] == pytest.approx(f1_score(truth, one.idxmax(axis=1), average="macro", zero_division=0))


def test_a_plan_that_cuts_observations_is_refused(trained, tmp_path):
    table = pd.read_csv(trained / "data/train.csv", dtype=str)
    plan = tmp_path / "folds.csv"
    pd.DataFrame({"id": table["id"], "fold": np.arange(54) // 2 % 3}).to_csv(plan, index=False)
    said = "observations (competition.predict_by) span folds ("
    assert said in refusal_of(run, described(trained / "data"), RunOptions(tmp_path, folds=plan))
    folder = tmp_path / "data"
    shutil.copytree(trained / "data", folder)
    table.assign(when=[str(year) for year in range(1950, 2004)]).to_csv(folder / "train.csv", index=False)
    timed = described(folder, folds={"k": 3, "time": "when"})
    assert said in refusal_of(run, timed, tmp_path)
    assert any(said in line for line in audit(timed, tmp_path).advice)


def test_runs_that_lack_a_part_of_an_observation_are_not_pooled(trained, tmp_path):
    shutil.copytree(trained / "runs", tmp_path / "runs")
    folder, experiment = ExperimentDir(tmp_path / "runs/tiny"), described(trained / "data")
    loaded = LoadedExperiment.open(experiment, folder, OutputDirs(tmp_path))
    oof = folder.finished("uniform")[0].oof
    read(oof).iloc[1:].reset_index().to_parquet(oof)
    as_left(folder.finished("uniform")[0])
    for one in folder.finished("uniform"):
        if one.record.seed == 1:
            shutil.rmtree(one.path)
    message = refusal_of(pooled, folder.finished("uniform"), loaded.competition, loaded.folds)
    assert "oof.parquet is of other rows than it should be (17 rows, not 18)" in message


@pytest.mark.parametrize("size", ["0", "1", "3", "x5"])
def test_a_rehearsal_with_another_test_set(trained, tmp_path, size):
    experiment = described(trained / "data")
    target = write_variant(experiment.competition, tmp_path / "variant", size)
    other = described(target)
    made = predict(other, [trained / "runs"], tmp_path / "s.csv", output=tmp_path)
    table = pd.read_csv(target / "test.csv", dtype=str)
    names = set(table["patient"] + "_" + table["side"])
    assert len(table) == {"0": 0, "1": 1, "3": 3, "x5": 60}[size]
    assert len(names) == made.rows
    assert size != "x5" or len(names) == 20
    assert set(pd.read_csv(tmp_path / "s.csv", dtype=str)["prediction_id"]) == names


def test_as_it_is_typed(trained, tmp_path, monkeypatch, capsys):
    """--set with a template, on the command line."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    sections = {"seeds": [0, 1], "training": {"epochs": 1}, "policies": {"uniform": {"lr": 1e-2}}}
    config = config_file(trained / "data", tmp_path / "c.yaml", **sections)
    by = "competition.predict_by={rows: '{patient}_{side}', pool: max}"
    code, output, _ = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path), "--set", by)
    assert code == 0
    assert "(18 rows)" in output
