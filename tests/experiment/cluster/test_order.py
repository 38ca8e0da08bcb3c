"""An experiment travels as files, and is opened beside data that are, or are not, those of the command."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.colours import write_competition
from support.refusals import refusal_of
from support.studies import left_by, study

from kit.core.errors import KitError
from kit.core.files import write_bytes
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.budget_plan import Plan
from kit.experiment.cluster.order import config_files, open_order, order_files
from kit.experiment.cluster.site import Site
from kit.experiment.cluster.train_there import Errand, _handed_over, _here, files_of, receive, train_there
from kit.experiment.config import load_experiment
from kit.experiment.options import RunOptions
from kit.experiment.prepare import prepare
from kit.experiment.run import run
from kit.experiment.timekeeping import Budget

KEY = RunKey("uniform", 0, 0)


def prepared(config, folder):
    return prepare(config, ExperimentDir(folder / "runs" / config.name), OutputDirs.at(folder))


@pytest.fixture
def travelling(tmp_path):
    """Unpacks files as a node does, and says where things are there."""

    def unpack(files, **site):
        for name, content in files.items():
            write_bytes(tmp_path / "parcel" / name, content)
        there = {"output": tmp_path / "node", "shared": False, "cache": tmp_path / "node-cache"} | site
        return Site(parcel=tmp_path / "parcel", **there)

    return unpack


@pytest.fixture
def data(tmp_path):
    """A competition of this test's own, which it may change."""
    return write_competition(tmp_path / "here" / "colours")


@pytest.mark.parametrize("unused", [None, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_it_depends_on_the_same_there(data, tmp_path, travelling, unused, whole):
    loaded, images = prepared(study(data), tmp_path)
    folds = dataclasses.replace(loaded.folds, unused=unused)
    folder = ExperimentDir(tmp_path / "runs/study/tuning")
    loaded = dataclasses.replace(
        loaded, folds=folds, folder=folder, depends_on=loaded.depends_on | {"folds": folds.digest}
    )
    site = travelling(order_files(loaded, images, tmp_path / "runs"))
    there, seen = open_order(site, whole)
    assert there.dependencies(KEY) == loaded.dependencies(KEY)
    assert list(there.dependencies(KEY)) == list(loaded.dependencies(KEY)), "in the order in which it is written"
    assert there.folder.path == tmp_path / "node/runs/study/tuning"
    assert there.folds.training_rows(0).tolist() == folds.training_rows(0).tolist()
    assert seen.recipe.normalisation == images.recipe.normalisation
    assert (seen.train[5] == images.train[5]).all()


def test_data_lie_below_the_data_root_by_their_name(data, tmp_path, travelling, monkeypatch):
    loaded, images = prepared(study(data), tmp_path)
    lines = []
    site = travelling(order_files(loaded, images, tmp_path / "runs"), data_root="$DATA", say=lines.append)
    monkeypatch.setenv("DATA", str(tmp_path / "there"))
    assert open_order(site)[0].competition.folder == data
    assert not lines, "nothing is told with every run that is told where the node is looked at"
    assert open_order(site, whole=True)[0].competition.folder == data
    line = f"there is no colours in {tmp_path / 'there'} (--data-root); takes {data}"
    assert [each for each in lines if "colours" in each] == [line]
    shutil.move(data, tmp_path / "there" / "colours")
    assert open_order(site)[0].competition.folder == tmp_path / "there/colours"
    shutil.rmtree(tmp_path / "there")
    message = refusal_of(lambda: open_order(site))
    assert message == f"it does not have colours in $DATA (--data-root), nor {data}; data and weights are not sent"
    message = refusal_of(lambda: open_order(dataclasses.replace(site, data_root=None)))
    assert message.startswith(
        f"it does not have {data}; data and weights are not sent: bring them, or say with --d"
    )


def other_label(data):
    table = (data / "train.csv").read_text().splitlines()
    table[3] = table[3].replace("red", "blue")
    (data / "train.csv").write_text("\n".join(table) + "\n")


def larger_image(data):
    Image.new("RGB", (60, 60)).save(data / "train/train004.png")


def fewer_tests(data):
    for name in ("test.csv", "sample_submission.csv"):
        lines = (data / name).read_text().splitlines()[:-1]
        (data / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "what"),
    [(other_label, "labels"), (larger_image, "training images"), (fewer_tests, "test set")],
)
def test_other_data_are_told_by_what_differs(data, tmp_path, travelling, change, what):
    loaded, images = prepared(study(data), tmp_path)
    site = travelling(order_files(loaded, images, tmp_path / "runs"))
    change(data)
    assert refusal_of(lambda: open_order(site)) == f"it has other {what} than this machine; bring the same there"


def test_own_code_beside_and_beyond_the_config_travels(data, tmp_path, travelling):
    (tmp_path / "configs").mkdir()
    (tmp_path / "mine.py").write_text("def loss(logits, targets):\n    return logits.logsumexp(1).mean()\n")
    content = study(data).model_dump(mode="json", exclude_defaults=True)
    content["training"]["loss"] = "../mine.py:loss"
    (tmp_path / "configs/my.yaml").write_text(json.dumps(content))
    config = load_experiment(tmp_path / "configs/my.yaml")
    loaded, images = prepared(config, tmp_path)
    site = travelling(order_files(loaded, images, tmp_path / "runs"))
    (tmp_path / "mine.py").unlink()
    there, _ = open_order(site, whole=True)
    assert there.dependencies(KEY) == loaded.dependencies(KEY)


def errand(key, budget):
    return Errand(key, False, 0, Plan(budget, [key], [key], {}, {}, jobs=2))


@pytest.fixture
def trained_there(data, tmp_path, travelling):
    """A run of the study, as a node has trained it in a folder of its own; and what came back."""
    loaded, images = prepared(study(data), tmp_path)
    site = travelling(order_files(loaded, images, tmp_path / "runs"), threads=1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return loaded, site, train_there(site, errand(KEY, Budget()))
    finally:
        torch.set_num_threads(before)


def test_what_comes_back_is_what_a_run_here_leaves(data, tmp_path, trained_there):
    loaded, site, outcome = trained_there
    assert outcome.done
    receive(loaded.folder.run(KEY), outcome.files, loaded, KEY)
    here = tmp_path / "local"
    run(study(data), RunOptions(here, jobs=1, threads=1, only=(KEY.place,)))
    assert left_by(loaded.folder.run(KEY).path) == left_by(here / "runs/study" / KEY.place)
    assert not (site.output / "runs/study" / KEY.place).exists(), "nobody reads it there any more"


def test_a_run_that_was_trained_there_and_did_not_arrive_is_handed_over(data, tmp_path, trained_there):
    _, site, outcome = trained_there
    there = ExperimentDir(site.output / "runs/study").run(KEY)
    for name, content in outcome.files.items():
        write_bytes(there.path / name, content)
    lines = []
    again = train_there(dataclasses.replace(site, say=lines.append), errand(KEY, Budget()))
    assert (again.done, again.files) == (False, outcome.files)
    assert lines == [f"{KEY}: was trained on its node before, and had not arrived"]
    for name, content in outcome.files.items():
        write_bytes(there.path / name, content if name != "oof.parquet" else content[:-1])
    assert train_there(site, errand(KEY, Budget())).done, "damaged, it is trained anew"


@pytest.mark.parametrize("odd", ["oof.parquet", "weights.safetensors", "run.json"])
def test_what_did_not_arrive_whole_is_not_written(trained_there, odd):
    loaded, _, outcome = trained_there
    files = outcome.files | {odd: outcome.files[odd].replace(b"a", b"b", 1)}
    run_dir = loaded.folder.run(KEY)
    with pytest.raises(KitError):
        receive(run_dir, files, loaded, KEY)
    assert not run_dir.begun
    with pytest.raises(KitError, match="did not arrive as the node wrote it"):
        receive(loaded.folder.run(RunKey("uniform", 0, 1)), outcome.files, loaded, RunKey("uniform", 0, 1))


def test_a_run_is_handed_over_where_another_command_looks_for_it_just_then(trained_there, monkeypatch):
    loaded, _, outcome = trained_there
    there, rmdir = loaded.folder.run(KEY), os.rmdir
    for name, content in outcome.files.items():
        write_bytes(there.path / name, content)

    def late(path, **options):
        if Path(path).name == there.path.name:
            raise OSError(errno.ENOTEMPTY, "a claim was made meanwhile")
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", late)
    assert _handed_over(there) == outcome.files
    assert not there.begun


def test_nothing_is_handed_over_of_a_run_that_has_not_ended(tmp_path, trained_there):
    loaded, _, outcome = trained_there
    run_dir = loaded.folder.run(KEY)
    receive(run_dir, outcome.files, loaded, KEY)
    assert files_of(run_dir) == outcome.files
    run_dir.write(run_dir.record.with_fields(status="stopped"))
    assert files_of(run_dir) == {}


def test_a_budget_goes_by_the_node_s_clock(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    plan = errand(KEY, Budget(600.0, since=5.0)).plan
    there = _here(plan, KEY, None, since=970.0)
    assert there.budget.left == 600.0 - 30.0 - there.budget.reserve


def test_paths_that_travel_are_absolute(data, monkeypatch):
    monkeypatch.chdir(data.parent)
    config = study(data)
    relative = config.model_copy(update={"competition": config.competition.model_copy(update={"path": "colours"})})
    assert f"path: {data}" in config_files(relative)["experiment.yaml"].decode()
