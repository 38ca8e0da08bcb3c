"""Predictions of other tools as members of a blend: the numbers of a run, and refused where folds differ."""

import json

import numpy as np
import pandas as pd
import pytest
from experiment.test_blend import CLASSES, known_by, refused, two, write_experiment  # noqa: F401
from typer.testing import CliRunner

from kit.cli.main import app
from kit.core.runs import ExperimentDir
from kit.experiment.blend import blend
from kit.experiment.config import load_experiment
from kit.scoring.stack import fit_stack


def written(output, experiment="two", name="theirs", by_fold=True, ending=".csv"):
    """The predictions of an experiment's runs as another tool would write them."""
    folder = output / name
    folder.mkdir()
    oof, test = [], []
    for run in ExperimentDir(output / "runs" / experiment).finished("cosine"):
        fold = "abc"[run.record.fold]
        oof.append(run.read_oof().assign(fold=fold))
        test.append(run.read_test().assign(fold=fold))
    made = {"oof": pd.concat(oof), "test": pd.concat(test)}
    if not by_fold:
        made["test"] = made["test"].groupby(level="id")[CLASSES].mean()
    for part, frame in made.items():
        shuffled = frame.reset_index().sample(frac=1, random_state=1)
        if ending == ".csv":
            shuffled.to_csv(folder / f"{part}.csv", index=False)
        else:
            shuffled.to_parquet(folder / f"{part}{ending}", index=False)
    return folder


def changed(folder, part, change) -> None:
    file = folder / f"{part}.csv"
    change(pd.read_csv(file, dtype={"id": str, "fold": str})).to_csv(file, index=False)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_they_count_as_the_runs_do(two, ending):  # noqa: F811
    folder = written(two, ending=ending)
    theirs, ours = blend(["one", str(folder)], two, "a"), blend(["one", "two"], two, "b")
    assert theirs.record["oof"] == ours.record["oof"]
    assert [each["weight"] for each in theirs.record["members"]] == [0.5, 0.5]
    for part in ("oof", "test"):
        found, known = (pd.read_parquet(each.folder / f"{part}.parquet") for each in (theirs, ours))
        assert found["id"].tolist() == known["id"].tolist()
        np.testing.assert_allclose(found[CLASSES], known[CLASSES], atol=1e-6)
    assert theirs.submission.read_text() == ours.submission.read_text()
    member = theirs.record["members"][1]
    assert (member["member"], set(member["files"])) == ("theirs", {f"oof{ending}", f"test{ending}"})


def test_the_mean_over_folds_does_for_test_rows(two):  # noqa: F811
    theirs, ours = blend(["one", str(written(two, by_fold=False))], two, "a"), blend(["one", "two"], two, "b")
    found, known = (pd.read_parquet(each.folder / "test.parquet") for each in (theirs, ours))
    np.testing.assert_allclose(found[CLASSES], known[CLASSES], atol=1e-6)


def test_as_typed_with_a_stack(two, monkeypatch):  # noqa: F811
    written(two)
    monkeypatch.chdir(two)
    said = CliRunner().invoke(app, ["blend", "one", "theirs/", "--method", "stack", "--name", "both"])
    assert said.exit_code == 0, said.output
    assert "stack ←" in said.output
    record = json.loads((two / "runs/both/blend.json").read_text())
    assert record["method"] == "stack"
    assert np.shape(record["stack"]["coefficients"]) == (3, 6)
    assert (two / "submissions/both.csv").is_file()
    found = pd.read_parquet(two / "runs/both/oof.parquet").set_index("id")
    config = load_experiment(two / "runs/one/experiment.yaml")
    each = {"one": next(iter(config.policies)), "two": "cosine"}
    runs = [ExperimentDir(two / "runs" / name).finished(policy) for name, policy in each.items()]
    known = [pd.concat([run.read_oof() for run in of_one]) for of_one in runs]
    labels = pd.read_csv(f"{config.competition.path}/train.csv").set_index("id")["label"]
    truth, folds = labels.map(CLASSES.index), pd.read_csv(two / "runs/one/folds.csv").set_index("id")["fold"]
    out, seen = folds[folds == 1].index, folds[folds != 1].index
    stack = fit_stack(
        [each.loc[seen].to_numpy() for each in known], truth[seen].to_numpy(), folds[seen].to_numpy()
    )
    expected = stack.combine([each.loc[out].to_numpy() for each in known])
    np.testing.assert_allclose(found.loc[out, CLASSES], expected, atol=1e-3)


def _swap(frame):
    """Two rows of different folds change places."""
    first, second = frame.index[frame["fold"] == "a"][0], frame.index[frame["fold"] == "b"][0]
    frame.loc[[first, second], "fold"] = ["b", "a"]
    return frame


FAULTS = {
    "folds": ("oof", _swap, "oof.csv: fold 'a' holds out rows of several folds of the experiments"),
    "split": (
        "oof",
        lambda frame: frame.assign(fold=np.where(frame.index == 0, "z", frame["fold"])),
        "oof.csv splits a fold of the experiments",
    ),
    "no fold": ("oof", lambda frame: frame.drop(columns="fold"), "oof.csv has no column 'fold'; fold tells which"),
    "row lost": ("oof", lambda frame: frame.iloc[1:], "oof.csv is of other rows of fold"),
    "unknown row": (
        "oof",
        lambda frame: frame.assign(id=["x", *frame["id"][1:]]),
        "oof.csv predicts rows that no fold holds out (x)",
    ),
    "twice": ("oof", lambda frame: pd.concat([frame, frame.iloc[:1]]), "oof.csv has "),
    "no class": ("oof", lambda frame: frame.drop(columns=CLASSES[0]), f"oof.csv has no column {CLASSES[0]!r}"),
    "odd class": ("test", lambda frame: frame.assign(pink=0.0), "test.csv has columns that are no class (pink)"),
    "one class twice": (
        "oof",
        lambda frame: frame.assign(**{f" {CLASSES[0]}": 0.0}),
        f"oof.csv: columns {CLASSES[0]!r}, {' ' + CLASSES[0]!r} are one class; leave one of them",
    ),
    "logits": ("oof", lambda frame: frame.assign(**{CLASSES[0]: 3.0}), "oof.csv holds what is no probability"),
    "text": ("oof", lambda frame: frame.assign(**{CLASSES[0]: "much"}), "oof.csv holds what is no probability"),
    "sum": (
        "test",
        lambda frame: frame.assign(**{CLASSES[0]: 0.9}),
        "test.csv: the probabilities of a row do not",
    ),
    "test rows": ("test", lambda frame: frame[frame["id"] != "test001"], "test.csv is of other test rows"),
    "test folds": ("test", lambda frame: frame.replace({"fold": {"a": "q"}}), "test.csv: column fold names other"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_refused(two, fault):  # noqa: F811
    part, change, told = FAULTS[fault]
    folder = written(two)
    changed(folder, part, change)
    assert told in refused(two, "one", str(folder))


def test_a_folder_alone_or_in_part(two):  # noqa: F811
    folder = written(two)
    assert "tell no competition and no metric; name an experiment" in refused(two, str(folder), "one")
    (folder / "test.csv").unlink()
    assert "has no test.csv; predictions of another tool are" in refused(two, "one", str(folder))


def test_a_fold_that_the_files_lack(competition, tmp_path):
    write_experiment(tmp_path, competition, "one", knows=known_by(0))
    write_experiment(tmp_path, competition, "two", ("cosine",), only=(0, 1))
    told = refused(tmp_path, "one", str(written(tmp_path)))
    assert (
        told == "blend: theirs has no predictions of fold 2, which one has; add them to its oof.csv and test.csv"
    )
    (tmp_path / "elsewhere").mkdir()
    folder = written(tmp_path, "two", "elsewhere/two")
    told = refused(tmp_path, "two", str(folder))
    assert told == "blend: two names an experiment and a folder of files; rename the folder"
