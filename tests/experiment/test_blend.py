"""Blending experiments on disk: joined by id, refused where that would be wrong, written like a run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from support.colours import COLOURS, experiment_content, write_competition
from support.refusals import refusal_of

import kit.scoring.blend as scoring_blend
from kit.cli.show import show_blend
from kit.competition.folds import FoldPlan, make_folds, read_folds, write_folds
from kit.competition.load import load_competition
from kit.core.files import write_json, write_text
from kit.core.manifest import noting
from kit.core.paths import OutputDirs
from kit.core.runs import TRAINED_ANEW, ExperimentDir, RunKey, RunRecord, predictions, write_predictions
from kit.experiment.blend import blend, default_name, read_blend
from kit.experiment.config import validate
from kit.experiment.fingerprint import labels_digest, stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pool import pool_policy

CLASSES = sorted(COLOURS)


def write_experiment(
    output: Path,
    home: Path,
    name: str = "one",
    policies: tuple[str, ...] = ("uniform",),
    *,
    knows=lambda row: True,
    classes=CLASSES,
    folds: FoldPlan | None = None,
    only=(0, 1, 2),
    seeds=(0,),
    shuffled: int | None = None,
    **sections,
) -> ExperimentDir:
    """An experiment as `kit run` leaves it, but for what blends do not read.

    knows     which rows (by number) its models are sure and right of; of the others they say next to nothing
    shuffled  a seed by which the rows of its files are permuted
    """
    content = experiment_content(home, **sections) | {"name": name}
    content["policies"] = {policy: {"lr": 1e-2} for policy in policies}
    experiment = validate(content, "test")
    data = load_competition(experiment.competition)
    plan = folds or make_folds(data.ids, data.targets, experiment.folds, data.train)
    folder = ExperimentDir(output / "runs" / name)
    write_text(folder.config, experiment.to_yaml())
    write_folds(plan, folder.folds)
    labels = labels_digest(data)
    test_truth = pd.read_csv(home / "solution.csv").set_index("id")["label"]
    train_truth = dict(zip(data.ids, data.label_format.decode(data.targets), strict=True))
    for policy in policies:
        for seed in seeds:
            for fold in only:
                run = folder.run(RunKey(policy, seed, fold))
                depends_on = {"folds": plan.digest, "labels": labels}
                key = {"policy": policy, "seed": seed, "fold": fold, "fingerprint": f"{name} {seed} {fold}"}
                run.write(RunRecord(status="finished", **key, depends_on=depends_on))
                held_out = [data.ids[row] for row in plan.validation_rows(fold)]
                for ids, truth, file in ((held_out, train_truth, run.oof), (data.test_ids, test_truth, run.test)):
                    if shuffled is not None:
                        ids = list(np.random.default_rng(shuffled).permutation(ids))
                    write_predictions(predictions(ids, says(ids, truth, knows), CLASSES)[list(classes)], file)
                run.weights.touch()
                run.rates.touch()
    return folder


def says(ids, truth, knows) -> np.ndarray:
    """Probabilities [rows, classes]: of a row it does not know, a wrong class a little more than the others."""
    rows = []
    for name in ids:
        right, number = CLASSES.index(truth[name]), int(name[-3:])
        values = np.full(3, 0.05) if knows(number) else np.full(3, 0.33)
        values[right if knows(number) else (right + 1) % 3] += 0.85 if knows(number) else 0.01
        rows.append(values / values.sum())
    return np.array(rows)


def known_by(part: int):
    """Rows in turn: a member of part 0 knows the first of each three and the next, and so on."""
    return lambda row: (row // 3) % 3 != part


@pytest.fixture
def two(competition, tmp_path):
    """Members of which each knows what the other does not: (output)."""
    write_experiment(tmp_path, competition, "one", knows=known_by(0))
    write_experiment(tmp_path, competition, "two", ("cosine", "flat"), knows=known_by(1), shuffled=3)
    return tmp_path


def refused(output, *names, **options) -> str:
    before = [path for path in sorted(output.rglob("*")) if path.is_file()]
    message = refusal_of(lambda: blend(names, output, **options))
    assert [path for path in sorted(output.rglob("*")) if path.is_file()] == before
    return message


def test_what_is_written(two, competition):
    blended = blend(["one", "two"], two)
    assert blended.submission == two / "submissions/blend-one-two.csv"
    handed_in = pd.read_csv(blended.submission)
    solution = pd.read_csv(competition / "solution.csv")
    assert handed_in["id"].tolist() == pd.read_csv(competition / "sample_submission.csv")["id"].tolist()
    assert f1_score(solution["label"], handed_in["label"], average="macro") == 1
    record = read_blend(OutputDirs(two), "blend-one-two")
    assert record == json.loads((two / "runs/blend-one-two/blend.json").read_text()) == blended.record
    assert (record["method"], record["metric"], record["oof"]) == ("mean", "macro F1", 1.0)
    assert [(each["member"], each["policy"], each["weight"]) for each in record["members"]] == [
        ("one", "uniform", 0.5),
        ("two", "cosine", 0.5),
    ]
    assert all(each["oof"] < 0.8 for each in record["members"])
    assert [each["method"] for each in record["candidates"]] == ["single", "mean", "greedy"]
    assert (record["oof_rows"], record["train_rows"], record["classes"]) == (36, 36, CLASSES)
    assert {path.name for path in blended.folder.iterdir()} == {
        "blend.json", "oof.parquet", "test.parquet", "manifest.json",
    }  # fmt: skip


def test_rows_are_joined_by_id_and_columns_by_name(two, competition, tmp_path):
    """However the rows and columns of a member's files are ordered."""
    write_experiment(two, competition, "three", knows=known_by(1), classes=CLASSES[::-1], shuffled=7)
    blended = blend(["one", "three"], two)
    oof = pd.read_parquet(blended.folder / "oof.parquet").set_index("id")
    truth = pd.read_csv(competition / "train.csv").set_index("id")["label"]
    assert (oof.idxmax(axis=1) == truth.loc[oof.index]).all()
    parts = [
        pd.concat([pd.read_parquet(path) for path in two.glob(f"runs/{name}/*/seed*/fold*/oof.parquet")])
        for name in ("one", "three")
    ]
    mean = sum(part.set_index("id").loc[oof.index, CLASSES] for part in parts) / 2
    np.testing.assert_allclose(oof[CLASSES], mean, rtol=1e-6)
    test = pd.read_parquet(blended.folder / "test.parquet").set_index("id")
    assert test.index.tolist() == [f"test{row:03d}" for row in range(9)]
    same = blend(["one", "two"], two).record
    assert (same["oof"], same["candidates"]) == (blended.record["oof"], blended.record["candidates"])


def test_what_rows_counted_in_training_is_no_other_label(tmp_path):
    home = write_competition(tmp_path / "data")
    table = pd.read_csv(home / "train.csv")
    table.assign(trust=[0.5, 1.0, 2.0] * 12).to_csv(home / "train.csv", index=False)
    write_experiment(tmp_path, home, "one", knows=known_by(0))
    write_experiment(tmp_path, home, "two", knows=known_by(1), competition={"weight": "trust"})
    assert blend(["one", "two"], tmp_path).record["oof"] == 1.0
    assert blend(["two", "one"], tmp_path, "other").record["oof"] == 1.0


def test_the_best_member_where_no_blend_is_better(competition, tmp_path, capsys):
    write_experiment(tmp_path, competition, "one", knows=known_by(0))
    write_experiment(tmp_path, competition, "two")
    blended = blend(["one", "two"], tmp_path)
    assert (blended.record["method"], blended.record["oof"]) == ("single", 1.0)
    assert [each["weight"] for each in blended.record["members"]] == [0.0, 1.0]
    show_blend(blended)
    assert "No blend is better than the best member, so this is two." in capsys.readouterr().out


def test_what_is_shown(two, capsys):
    show_blend(blend(["one", "two"], two))
    told = capsys.readouterr().out
    assert "Out-of-fold macro F1 1.0000 (36 rows)" in told
    assert "mean ←" in told


def test_several_seeds_are_averaged(two, competition):
    write_experiment(two, competition, "three", seeds=(0, 1), knows=known_by(2))
    blended = blend(["one", "three"], two)
    assert [each["runs"] for each in blended.record["members"]] == [3, 6]


def test_folds_that_were_not_run_by_any(competition, tmp_path):
    for name, part in (("one", 0), ("two", 1)):
        write_experiment(tmp_path, competition, name, knows=known_by(part), only=(0, 2))
    record = blend(["one", "two"], tmp_path).record
    assert (record["oof_rows"], record["train_rows"]) == (24, 36)


def test_the_metric_is_the_first_members_or_as_set(two):
    record = blend(["one", "two"], two, overrides=["scoring.average=micro"]).record
    assert (record["metric"], record["scoring"]["average"]) == ("micro F1", "micro")
    assert refused(two, "one", "two", name="other", overrides=["model.name=resnet18"]).startswith(
        "--set model.name"
    )


def test_scores_of_the_members_are_those_that_run_told(two):
    """By the file that pooling writes, of which the score alone is another here."""
    folder, experiment = ExperimentDir(two / "runs/one"), stored_experiment(ExperimentDir(two / "runs/one"))
    competition = load_competition(experiment.competition)
    plan = read_folds(folder.folds, competition.ids)
    loaded = LoadedExperiment(experiment, folder, competition, plan, {})
    runs, file = folder.finished("uniform"), two / "submissions/one.csv"
    pool_policy("uniform", runs, experiment.scoring, loaded, file, write=True)
    file = folder.policy("uniform") / "scores.json"
    with noting(folder.path, file):
        write_json(file, json.loads(file.read_text()) | {"oof": 0.1234})
    first, _ = blend(["one", "two"], two).record["members"]
    assert first["oof"] == 0.1234
    with noting(folder.path, file):
        write_json(file, json.loads(file.read_text()) | {"scoring": {"average": "micro"}})
    first, _ = blend(["one", "two"], two).record["members"]
    assert first["oof"] != 0.1234


def test_several_labels_a_row(competition, tmp_path):
    """Ranks are tried as well, and no test row is empty where no training row is."""
    sections = {"competition": {"separator": " "}, "scoring": {"rule": "auto"}}
    for name, part in (("one", 0), ("two", 1)):
        write_experiment(tmp_path, competition, name, knows=known_by(part), **sections)
    blended = blend(["one", "two"], tmp_path)
    assert "rank mean" in [each["method"] for each in blended.record["candidates"]]
    assert (pd.read_csv(blended.submission)["label"].str.len() > 0).all()


def test_test_rows_are_ranked_among_their_folds_rows(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring_blend, "METHODS", ("rank mean",))
    sections = {"competition": {"separator": " "}, "scoring": {"rule": "auto"}}
    for name, part in (("one", 0), ("two", 1)):
        folder = write_experiment(tmp_path, competition, name, knows=known_by(part), shuffled=part, **sections)
        for fold in range(3):  # each fold's models speak on a scale of their own
            for file in folder.path.glob(f"uniform/seed0/fold{fold}/*.parquet"):
                frame = pd.read_parquet(file).set_index("id")
                write_predictions(frame ** (fold + 1), file)
    blended = blend(["one", "two"], tmp_path)
    expected = 0
    for name in ("one", "two"):
        for fold in range(3):
            run = tmp_path / f"runs/{name}/uniform/seed0/fold{fold}"
            oof, test = (pd.read_parquet(run / f"{part}.parquet").set_index("id") for part in ("oof", "test"))
            below = lambda column, oof=oof: [  # noqa: E731
                (np.mean(oof[column.name] < each) + np.mean(oof[column.name] <= each)) / 2 for each in column
            ]
            expected = expected + test.sort_index().apply(below) / 6
    found = pd.read_parquet(blended.folder / "test.parquet").set_index("id")
    np.testing.assert_allclose(found[CLASSES], expected[CLASSES], atol=1e-6)


def test_scores_that_are_damaged(two):
    write_text(two / "runs/one/uniform/scores.json", "{")
    assert "runs/one/uniform/scores.json is damaged" in refused(two, "one", "two")


# Names


def test_names(two):
    assert blend(["one", "two/flat"], two).record["name"] == "blend-one-two.flat"
    assert blend(["one/uniform", "two"], two).record["name"] == "blend-one-two"  # the policy it began with
    assert blend(["one", "two"], two, "best").submission == two / "submissions/best.csv"
    assert blend(["one", "two"], two, "best").record["name"] == "best"  # again


def test_a_name_too_long_is_cut(two):
    class Titled:
        def __init__(self, title):
            self.title = title

    long = [Titled(f"experiment-{number}/policy-{number}") for number in range(9)]
    name = default_name(long)
    assert len(name) <= 80
    assert name.startswith("blend-experiment-0.policy-0-experiment-1")
    assert default_name(long[:-1]) != name


def test_names_that_are_taken(two):
    other = "give the blend another name with --name NAME"
    assert refused(two, "one", "two", name="one") == f"{two}/runs/one is an experiment; {other}"
    assert refused(two, "one", "two", name="a+b").startswith("--name 'a+b': letters, digits")
    write_text(two / "submissions/mine.csv", "id\n")
    assert (
        refused(two, "one", "two", name="mine") == f"{two}/submissions/mine.csv is there, and of no blend; {other}"
    )


# What is refused


def test_members_that_are_not_there(two, tmp_path):
    assert refused(two, "one", "other") == (
        f"blend: {two}/runs holds no experiment 'other'; it holds one, two, two/flat"
    )
    assert refused(two, "one", "two/other") == "blend: two has no policy 'other'; it has cosine, flat"
    assert refused(two, "one", "") == f"blend: {two}/runs holds no experiment ''; it holds one, two, two/flat"
    assert refused(two, "one") == (
        "blend: needs two members or more, as EXPERIMENT or EXPERIMENT/POLICY; runs/ holds one, two, two/flat"
    )
    for path in two.glob("runs/two/flat/seed0/fold*/weights.safetensors"):
        path.unlink()
    assert refused(two, "one", "two/flat") == (
        "blend: two/flat has no finished run of flat; train it with python -m kit run"
    )


def test_the_same_member_twice(two):
    assert refused(two, "one", "two", "one/uniform") == (
        "blend: one stands there twice; name each member once (weights are found)"
    )


def test_a_blend_of_blends(two):
    blend(["one", "two"], two)
    assert refusal_of(lambda: blend(["one", "blend-one-two"], two)) == (
        "blend: blend-one-two is a blend itself; name its members, with the others, instead"
    )


def test_other_folds(two, competition):
    write_experiment(two, competition, "three", folds=other_plan(competition))
    assert refused(two, "one", "three") == (
        "blend: one and three have different folds, so a row may have been trained on by one and held out by the "
        f"other; train one anew with --folds {two}/runs/one/folds.csv"
    )


def other_plan(home: Path) -> FoldPlan:
    experiment = validate(experiment_content(home, folds={"seed": 7}), "test")
    data = load_competition(experiment.competition)
    return make_folds(data.ids, data.targets, experiment.folds, data.train)


def test_folds_that_were_edited(two):
    for name in ("one", "two"):
        rows = pd.read_csv(two / f"runs/{name}/folds.csv")
        rows["fold"] = (rows["fold"] + 1) % 3
        rows.to_csv(two / f"runs/{name}/folds.csv", index=False)
    assert refused(two, "one", "two") == (
        "blend: one was trained by other folds (uniform/seed0/fold0) than its folds.csv says; train it anew"
    )


def test_other_training_rows(two):
    file = two / "runs/two/folds.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    assert refused(two, "one", "two").startswith("blend: one and two are of different training rows: ")


def test_other_labels(two):
    run = ExperimentDir(two / "runs/two").run(RunKey("cosine", 0, 1))
    run.write(run.record.with_fields(depends_on=run.record.depends_on | {"labels": "others"}))
    message = refused(two, "one", "two")
    assert message.startswith("blend: two was trained on other labels (cosine/seed0/fold1) than those in ")
    assert message.endswith("by which one is scored; blend members of the same labels")


def test_other_classes(two):
    for path in two.glob("runs/two/cosine/seed0/fold*/*.parquet"):
        pd.read_parquet(path).rename(columns={"red": "pink"}).to_parquet(path, index=False)
    assert refused(two, "one", "two") == (
        "blend: two has other classes than one (not both have pink, red); blend members of the same classes"
    )


def test_missing_folds(two, competition):
    write_experiment(two, competition, "three", only=(0, 1))
    for names in (("one", "three"), ("three", "one")):
        assert refused(two, *names) == (
            "blend: three has no finished run of fold 2, which one has; train it with python -m kit run"
        )


def test_rows_that_were_not_predicted(two):
    path = two / "runs/two/cosine/seed0/fold1/oof.parquet"
    pd.read_parquet(path).head(5).to_parquet(path, index=False)
    assert refused(two, "one", "two") == (
        f"{path} is of other rows than it should be (5 rows, not 12); {TRAINED_ANEW}"
    )


def test_other_test_rows(two, competition):
    path = two / "runs/two/cosine/seed0/fold1/test.parquet"
    pd.read_parquet(path).replace({"id": {"test003": "other"}}).to_parquet(path, index=False)
    assert refused(two, "one", "two") == (
        f"blend: two predicted other test rows than {competition} has now (not both have other, test003); "
        "python -m kit run predicts them anew with its weights"
    )
