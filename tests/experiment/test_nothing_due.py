"""A command that finds all that it would make: what it looks at, and what it neither changes nor imports."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.colours import experiment_content
from support.commands import ROOT, config_file

from kit import run
from kit.core.runs import RunDir
from kit.experiment import nothing_due
from kit.experiment.config import validate
from kit.experiment.nothing_due import all_is_there
from kit.experiment.options import RunOptions
from kit.experiment.prepare import run_keys

POLICIES = {"uniform": {"lr": 1e-2}, "sliced": {"lr": "slice(1e-4, 1e-2)", "groups": "coarse"}}
SECTIONS = {"policies": POLICIES, "training": {"epochs": 1}, "folds": {"k": 2}}

# What only trainings, predictions and pictures need: seconds of the processor.
TRAINS = {"torch", "torchvision", "timm", "accelerate", "albumentations", "cv2", "safetensors", "sklearn"}

COMMANDS = """
import json, sys
from kit.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["kit", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
    print("imported", json.dumps(sorted(set(sys.modules))), flush=True)
"""


@pytest.fixture(scope="module")
def made(competition, tmp_path_factory):
    """A folder with data and a finished experiment of two policies and two folds."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(competition, folder / "data")
    run(experiment(folder), folder)
    return folder


@pytest.fixture
def there(made, tmp_path):
    """A copy, but for the data, which images are kept of by their paths."""
    for place in ("runs", "submissions", "cache"):
        shutil.copytree(made / place, tmp_path / place)
    (tmp_path / "data").symlink_to(made / "data")
    return tmp_path


def experiment(folder, **sections):
    data = (folder / "data").resolve()
    return validate(experiment_content(data, **SECTIONS | sections), "test")


def found(folder, lines=None, options=None, only=(), **sections):
    """Whether all is there, of the experiment in the folder; `only`: of these policies."""
    config = experiment(folder, **sections)
    if only:
        config = config.model_copy(update={"policies": {name: config.policies[name] for name in only}})
    told = lines.append if lines is not None else lambda line: None
    taken = all_is_there(config, options or RunOptions(folder), run_keys(config), told)
    if taken:
        with taken:
            assert list(folder.glob("runs/tiny/member-*"))
    return taken


def digests(folder):
    """The content of all files that a run leaves, but of the cache."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for place in ("runs", "submissions")
        for path in sorted((folder / place).rglob("*"))
        if path.is_file()
    }


def imported_after(folder, *commands):
    """What a process has imported after each of the commands."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        capture_output=True, text=True, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    lines = [line.removeprefix("imported ") for line in done.stdout.splitlines() if line.startswith("imported ")]
    return [set(json.loads(line)) for line in lines], done.stdout


def test_what_trains_is_imported_where_something_trains(there):
    config = config_file((there / "data").resolve(), there / "tiny.yaml", **SECTIONS)
    before = digests(there)
    commands = ["run", config.name], ["compare", config.name, "--stored"], ["report", "tiny"]
    after, said = imported_after(there, *commands)
    assert "Nothing to train" in said
    assert after[0] & (TRAINS | {"scipy", "matplotlib", "plotly"}) == set()
    assert after[-1] & (TRAINS | {"matplotlib"}) == set()
    unchanged = digests(there)
    assert {name: unchanged[name] for name in before if name != "runs/tiny/manifest.json"} == {
        name: digest for name, digest in before.items() if name != "runs/tiny/manifest.json"
    }


def test_the_result_is_that_of_a_run_that_is_set_up(there, monkeypatch):
    lines, files = [], digests(there)
    quick = run(experiment(there), there, say=lines.append)
    assert digests(there) == files
    monkeypatch.setattr("kit.experiment.run.all_is_there", lambda *_: None)
    set_up: list[str] = []
    whole = run(experiment(there), there, say=set_up.append)
    assert lines == set_up
    assert (quick.folder, quick.trained, quick.kept, quick.left) == (whole.folder, 0, 4, 0)
    for name, outcome in whole.policies.items():
        assert quick.policies[name].scores == outcome.scores
        pd.testing.assert_frame_equal(quick.policies[name].per_class, outcome.per_class)
    assert digests(there) == files


def of_run(folder, name="uniform"):
    return RunDir(folder / f"runs/tiny/{name}/seed0/fold1")


def other_status(folder):
    one = of_run(folder)
    one.write(one.record.with_fields(status="running"))


def other_weights(folder):
    of_run(folder, "sliced").weights.unlink()


def other_predictions(folder):
    file = of_run(folder).oof
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def no_test_predictions(folder):
    of_run(folder).test.unlink()


def no_cache(folder):
    shutil.rmtree(folder / "cache")


def damaged_notes(folder):
    for file in folder.glob("cache/checked-*.json"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    "change",
    [other_status, other_weights, other_predictions, no_test_predictions, no_cache, damaged_notes],
)
def test_what_is_not_as_it_was_left_is_for_a_run_that_is_set_up(there, change):
    change(there)
    lines: list[str] = []
    before = digests(there)
    assert found(there, lines) is None
    assert lines == []
    assert digests(there) == before


def other_labels(folder):
    table = pd.read_csv(folder / "data/train.csv")
    table["label"] = np.roll(table["label"], 1)
    table.to_csv(folder / "data/train.csv", index=False)


def other_image(folder):
    """Other pixels in a file of the same name."""
    name = pd.read_csv(folder / "data/train.csv")["id"][0]
    (file,) = folder.glob(f"data/train*/{name}.*")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file)


def same_size(folder):
    """An image that was touched: what is kept of it may be of other pixels."""
    name = pd.read_csv(folder / "data/train.csv")["id"][0]
    (file,) = folder.glob(f"data/train*/{name}.*")
    os.utime(file, (1, 1))


def other_test_set(folder):
    for name in ("sample_submission.csv", "test.csv"):
        table = pd.read_csv(folder / "data" / name)
        table.iloc[:-1].to_csv(folder / "data" / name, index=False)


def test_data_that_has_changed_is_for_a_run_that_is_set_up(made, tmp_path):
    shutil.copytree(made / "runs", tmp_path / "runs")
    shutil.copytree(made / "data", tmp_path / "data")
    assert found(tmp_path) is None  # no image of these paths is kept
    run(experiment(tmp_path), tmp_path)
    before = digests(tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "as-it-was")
    for change in (other_labels, other_image, same_size, other_test_set):
        assert found(tmp_path), change
        change(tmp_path)
        assert found(tmp_path) is None, change
        shutil.copytree(tmp_path / "as-it-was", tmp_path / "data", dirs_exist_ok=True)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"epochs": 2}},
        {"data": {"size": 24}},
        {"seeds": [0, 1]},
        {"folds": {"k": 3}},
        {"policies": {"uniform": {"lr": 2e-2}}},
        {"policies": POLICIES | {"third": {"lr": 1e-3}}},
        {"prediction": {"views": ["hflip"]}},
        {"budget": "1h"},
    ],
)
def test_a_config_that_asks_for_more_is_for_a_run_that_is_set_up(there, sections):
    assert found(there, **sections) is None


def test_options_that_have_a_part_in_it_are_for_a_run_that_is_set_up(there, monkeypatch):
    for options in ({"on": "ray"}, {"replace": True}, {"budget": 3600.0}):
        assert found(there, options=RunOptions(there, **options)) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert found(there) is None


def test_a_metric_alone_decides_nothing_that_is_there(there):
    assert found(there, scoring={"average": "weighted"})
    stored = (there / "runs/tiny/experiment.yaml").read_text()
    assert "average: weighted" in stored


def test_some_of_the_policies_and_folds_are_enough(there):
    assert found(there, only=["sliced"])
    assert found(there, folds={"k": 2, "run": [1]})
    stored = (there / "runs/tiny/experiment.yaml").read_text()
    assert "uniform" in stored
    assert "run: all" in stored


def test_another_process_that_has_changed_the_folder_meanwhile(there, monkeypatch):
    monkeypatch.setattr(nothing_due, "settle", lambda *_: None)
    assert found(there) is None
