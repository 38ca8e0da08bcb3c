"""From a config to a score, through the real client: two fold kernels, their pool, an infer kernel, a code
submission; in a world where all that may lag lags, and all that may be refused once is refused once."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.kaggle_setting import runs_kernels

from kit.competition.digits import solution_path, write_digits

CONFIG = {
    "name": "small",
    "competition": {
        "slug": "handwritten-digits",
        "train_images": "train/{id}.png",
        "test_images": "test/{id}.png",
    },
    "data": {"size": 32, "augment": "light", "workers": 0},
    "model": {"name": "test_resnet"},
    "policies": {"flat": {"lr": 1e-2}},
    "training": {"epochs": 1, "batch_size": 64},
    "kernel": {"owner": "tester", "hours": 0.1},
}


@pytest.fixture
def competition() -> Path:
    """Digits in Kaggle's layout, where `kit fetch-data` would have put them; every fourth training row."""
    folder = Path("data/handwritten-digits")
    write_digits(folder)
    train = pd.read_csv(folder / "train.csv")
    train[::4].to_csv(folder / "train.csv", index=False)
    return folder


def test_fold_kernels_pool_into_the_scores_of_the_local_run(
    server, kit, impatient, competition, tmp_path, monkeypatch
):
    folds = 2

    def score(version, file_name):
        submission = (version.files / file_name).read_text()
        given = pd.read_csv(version.files / file_name).set_index("id")["label"]
        truth = pd.read_csv(solution_path(competition)).set_index("id")["label"]
        assert submission.startswith("id,label\n")
        return "COMPLETE", f"{(given.loc[truth.index] == truth).mean():.5f}", None, ""

    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    server.runner = runs_kernels(server, tmp_path, {"handwritten-digits": competition.resolve()})
    server.code_scorer = score
    server.add_competition("handwritten-digits", b"", code_only=True)
    Path("small.yaml").write_text(yaml.safe_dump(CONFIG | {"folds": {"k": folds}}))
    server.output_page_size = 7
    server.lag_everything()

    code, told = kit("run", "small.yaml", "--output", "home", "--jobs", "1")
    assert code == 0, told
    code, told = kit("kernel", "build", "small.yaml", "--kind", "train", "--fold-each")
    assert code == 0, told
    kernels = sorted(path.name for path in Path("kernels/build").iterdir())
    assert kernels == [f"small-train-fold-{fold}" for fold in range(folds)]

    code, told = kit("kernel", "push", "--all")
    assert code == 1
    assert "was not rehearsed yet: python -m kit kernel rehearse kernels/build/small-train-fold-0" in told
    code, told = kit("kernel", "rehearse", "kernels/build/small-train-fold-0", "--mounts", "flat")
    assert code == 0, told
    assert "ok     runs: 1 of 1 finished" in told

    code, told = kit("kernel", "push", "--all")
    assert code == 0, told
    assert told.count(": complete\n") == folds
    code, told = kit("kernel", "fetch", "--all")
    assert code == 0, told
    assert "pooled out-of-fold macro F1" in told
    local, fetched = Path("home/runs/small/flat"), Path("runs/small/flat")
    assert (local / "oof.parquet").read_bytes() == (fetched / "oof.parquet").read_bytes()
    assert (local / "test.parquet").read_bytes() == (fetched / "test.parquet").read_bytes()
    assert json.loads((local / "scores.json").read_text()) == json.loads((fetched / "scores.json").read_text())
    assert Path("home/submissions/small.csv").read_bytes() == Path("submissions/small.csv").read_bytes()

    code, told = kit("run", "small.yaml")
    assert code == 0, told
    assert f"Nothing to train: all {folds} runs" in told

    code, told = kit("kernel", "build", "small.yaml", "--kind", "infer")
    assert code == 0, told
    metadata = json.loads(Path("kernels/build/small-infer/kernel-metadata.json").read_text())
    assert metadata["kernel_sources"] == [f"tester/{name}" for name in kernels]
    assert (metadata["enable_internet"], metadata["is_private"]) == (False, True)
    code, told = kit("kernel", "rehearse", "kernels/build/small-infer", "--test-rows", "3")
    assert code == 0, told
    assert "ok     submission.csv: valid, 3 rows" in told
    code, told = kit("kernel", "push", "kernels/build/small-infer", "--wait")
    assert code == 0, told
    code, told = kit("submit", "--kernel", "kernels/build/small-infer")
    assert code == 0, told

    met = {"SaveKernel", "GetKernel", "GetKernelSessionStatus", "ListKernelSessionOutput", "CreateCodeSubmission"}
    assert not server.pending & (met | {"ListSubmissions", "GetSubmissionLimits", "GET"})
    version = server.kernels["tester/small-infer"][-1]
    assert (version.files / "submission.csv").read_bytes() == Path("submissions/small.csv").read_bytes()
    (entry,) = pd.read_csv("submissions/log.csv").to_dict("records")
    assert (entry["competition"], entry["status"]) == ("handwritten-digits", "COMPLETE")
    assert f"public score {entry['public']:g}" in told
    assert entry["file"] == "tester/small-infer version 1"
    assert os.listdir("submissions")
