"""Fetching what a kernel left, through the real client, and taking its runs into the run directory."""

import json
import os
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.colours import write_competition
from support.fake_kaggle import answer, drop
from support.faults import as_left
from support.foreign_claims import foreign
from support.refusals import refusal_of
from support.session_facts import keep_facts
from support.small_kernels import REF, SLUG, asked, listed, pushed, small_experiment, train_outputs, write_kernel

from kit.core.errors import KitError, some
from kit.core.files import whole_folder
from kit.core.manifest import noting
from kit.core.runs import ExperimentDir, RunDir, RunRecord
from kit.experiment.fingerprint import stored_experiment
from kit.kaggle.client import Kaggle
from kit.kaggle.kernel.fetch import FetchedKernels, fetch, fetch_kernels
from kit.kaggle.kernel.folder import KernelFolder, built
from kit.kaggle.kernel.pool import pool_fetched

FILES = {"submission.csv": b"id,label\n", "logs/kit.log": b"done\n", "big.bin": bytes(range(256)) * 400}
OUTPUT = Path(f"kernels/build/{SLUG}/output")
BRING_BACK = "nothing is taken: train it anew, or bring back what it was trained on"


def infer(server, kaggle, files: dict[str, bytes]) -> Path:
    """A pushed infer kernel that left these files."""
    return pushed(server, kaggle, files, record={"kind": "infer"})


def here(folder: Path = OUTPUT) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Files


def test_all_files_of_all_pages(server, kaggle, said):
    files = listed({f"runs/{number:02d}.txt": str(number).encode() for number in range(25)} | FILES)
    server.output_page_size = 4
    path = infer(server, kaggle, files | {"__results__.html": b"Kaggle's", "custom.css": b"Kaggle's", "odd": b"?"})
    fetched = fetch(path, kaggle, say=said.append)
    assert here() == files
    assert (fetched.folder, fetched.files, fetched.runs) == (OUTPUT, 28, [])
    assert len(asked(server, "ListKernelSessionOutput")) == 8
    assert said == [
        "passed over, as the kernel did not list them: odd",
        f"{REF} version 1: 28 files in {OUTPUT}, as the kernel left them",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/etc/x", "a\\b", "C:\\x", "a\x00b", "a\nb", "a//b", "a/", "", ".", "a/../b", "nul.txt"),
        *("x.", "__notebook__/../../evil", "x" * 300),
    ],
)
def test_hostile_names_are_passed_over_and_nothing_is_written(server, kaggle, said, name):
    """One such file does not block the others; nothing leads out of the folder."""
    files = listed(FILES)
    path = infer(server, kaggle, files | {name: b"evil"})
    before = here(Path())
    fetch(path, kaggle, say=said.append)
    after = here(Path())
    output = {f"{OUTPUT}/{name}": content for name, content in files.items()}
    assert after == before | output
    told = f"passed over, as these are not names of files below a folder: {some([repr(name)])}"
    assert said[-2:] == [told, f"{REF} version 1: 3 files in {OUTPUT}, as the kernel left them"]


@pytest.mark.parametrize("name", ["../evil", "/etc/x", "a\\b"])
def test_hostile_names_in_the_kernels_own_list(server, kaggle, said, name):
    files = listed(FILES | {name: b"evil"})
    path = infer(server, kaggle, files)
    before = here(Path())
    fetch(path, kaggle, say=said.append)
    output = {f"{OUTPUT}/{name}": content for name, content in (listed(FILES) | files).items()}
    del output[f"{OUTPUT}/{name}"]
    assert here(Path()) == before | output


@pytest.mark.parametrize("name", [".cache/a", "logs/.hidden", "empty.txt"])
def test_hidden_and_empty_files_do_not_block_a_fetch(server, kaggle, said, name):
    """Early versions listed them, and Kaggle may not keep them; those that are there come."""
    content = b"" if name == "empty.txt" else b"x"
    files = listed(FILES | {name: content})
    path = infer(server, kaggle, files)
    fetch(path, kaggle, say=said.append)
    assert here() == files
    shutil.rmtree(OUTPUT)
    del files[name]
    server.finish(REF, files=files)
    fetch(path, kaggle, say=said.append)
    assert here() == files
    assert f"passed over, as Kaggle did not keep them: {name}" in said


def test_files_that_did_not_come_are_compared_with_those_of_a_probe(server, kaggle, said):
    now = datetime.now(UTC)
    keep_facts(Path(), now, came={".dotfile": "missing", "with space.txt": "whole"})
    probes = f" (the probe of {now:%Y-%m-%d} left '.dotfile', which did not come back either)"
    files = listed(FILES | {".hidden": b"x"})
    del files[".hidden"]
    path = infer(server, kaggle, files)
    fetch(path, kaggle, say=said.append)
    assert f"passed over, as Kaggle did not keep them: .hidden{probes}" in said
    del files["big.bin"]
    server.finish(REF, files=files)
    shutil.rmtree(OUTPUT)
    assert refusal_of(fetch, path, kaggle).endswith(f"not among its outputs: big.bin{probes}")


@pytest.mark.parametrize("late", ["outputs.json", "big.bin"])
def test_what_is_listed_late_is_looked_for_again(server, said, late):
    """Kaggle may list outputs minutes after it says COMPLETE."""
    files, pauses = listed(FILES), []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            server.finish(REF, files=files)

    kaggle = Kaggle(said.append, pause)
    path = infer(server, kaggle, {name: content for name, content in files.items() if name != late})
    fetch(path, kaggle, say=said.append)
    assert here() == files
    assert len(pauses) == 3
    assert (
        len([line for line in said if line.startswith(f"not yet among the outputs of {REF} version 1: {late}")])
        == 1
    )


def test_nothing_is_written_through_links(server, kaggle, tmp_path):
    path = infer(server, kaggle, listed(FILES))
    outside = tmp_path / "outside"
    outside.mkdir()
    OUTPUT.mkdir()
    (OUTPUT / "logs").symlink_to(outside, target_is_directory=True)
    message = f"nothing is downloaded through links: remove {OUTPUT}/logs"
    assert refusal_of(fetch, path, kaggle) == message
    (OUTPUT / "logs").unlink()
    (OUTPUT / "submission.csv").symlink_to(outside / "planted")
    assert (
        refusal_of(fetch, path, kaggle) == f"nothing is downloaded through links: remove {OUTPUT}/submission.csv"
    )
    shutil.rmtree(OUTPUT)
    OUTPUT.symlink_to(outside, target_is_directory=True)
    assert refusal_of(fetch, path, kaggle) == f"nothing is downloaded through links: remove {OUTPUT}"
    assert list(outside.iterdir()) == []


def test_a_damaged_file(server, kaggle, said):
    files = listed(FILES)
    path = infer(server, kaggle, files | {"logs/kit.log": b"done!"})
    assert refusal_of(fetch, path, kaggle) == (
        "logs/kit.log came damaged: it is not what the kernel wrote; fetch again"
    )
    assert not (OUTPUT / "logs/kit.log").exists()
    server.finish(REF, files=files)
    fetch(path, kaggle, say=said.append)
    assert here() == files


def test_files_that_are_missing(server, kaggle, said):
    files = listed(FILES)
    del files["big.bin"], files["submission.csv"]
    path = infer(server, kaggle, files)
    assert refusal_of(fetch, path, kaggle) == (
        "2 files that the kernel wrote are not among its outputs: submission.csv, big.bin"
    )
    assert said[-1].startswith(f"not yet among the outputs of {REF} version 1: submission.csv, big.bin; ")


def test_no_list_of_outputs(server, kaggle):
    path = infer(server, kaggle, FILES)
    assert refusal_of(fetch, path, kaggle) == (
        f"{REF} version 1 has no outputs.json among its 3 outputs, so it did not reach its end"
    )
    assert not OUTPUT.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[1]",
        b"3",
        b"null",
        b'{"a": 3}',
        b'{"a": null}',
        b'{"a": "beef"}',
        b'{"": "x"}',
        b'{"files": {}, "missing": []}',
        b'{"files": {}, "missing": "all", "exit_code": 0}',
        b'{"files": {}, "missing": [3], "exit_code": 0}',
        b'{"files": {}, "missing": [], "exit_code": "0"}',
        b'{"files": {"a": "beef"}, "missing": [], "exit_code": 0}',
        b"\xff",
    ],
)
def test_a_list_of_outputs_that_is_none(server, kaggle, content):
    path = infer(server, kaggle, FILES | {"outputs.json": content})
    assert refusal_of(fetch, path, kaggle).startswith(f"{OUTPUT}/outputs.json is no list of outputs: ")
    assert list(here()) == ["outputs.json"]


def test_a_dropped_download_is_tried_again(server, kaggle, said):
    files = listed(FILES)
    path = infer(server, kaggle, files)
    server.misbehave("GET", drop(), answer(503, "Busy"), drop(after_bytes=1), answer(429, "Slow down"))
    fetch(path, kaggle, say=lambda line: None)
    assert here() == files
    assert [line.partition(":")[0] for line in said] == ["downloading outputs.json"] * 4


@pytest.mark.parametrize(("status", "words"), [(404, "404: Not Found"), (410, "410: Gone")])
def test_an_error_is_never_a_files_content(server, kaggle, said, status, words):
    files = listed(FILES)
    path = infer(server, kaggle, files)
    server.misbehave("GET", *[answer(503)] * 2, answer(status, "gone"))
    message = refusal_of(fetch, path, kaggle)
    assert message.startswith(f"downloading outputs.json: Kaggle answers {words}")
    assert here() == {}
    fetch(path, kaggle, say=said.append)
    assert here() == files


def test_what_is_here_is_not_downloaded_again(server, kaggle, said):
    files = listed(FILES)
    path = infer(server, kaggle, files)
    server.misbehave("GET", answer(503), answer(503))
    fetch(path, kaggle, say=said.append)
    server.requests.clear()
    fetch(path, kaggle, say=said.append)
    assert [Path(request["path"]).name for request in asked(server, "GET")] == ["outputs.json"]
    (OUTPUT / "logs/kit.log").write_bytes(b"changed here")
    server.requests.clear()
    fetch(path, kaggle, say=said.append)
    assert [Path(request["path"]).name for request in asked(server, "GET")] == ["outputs.json", "kit.log"]
    assert here() == files


def test_a_newer_versions_files_replace_the_older_ones(server, kaggle, said):
    fetch(infer(server, kaggle, listed(FILES)), kaggle, say=said.append)
    newer = listed({"submission.csv": b"id,label\n1,2\n", "logs/other.log": b"new"})
    fetch(infer(server, kaggle, newer), kaggle, say=said.append)
    assert here() == newer
    assert said[-1] == f"{REF} version 2: 2 files in {OUTPUT}, as the kernel left them"


def test_a_folder_of_the_older_version_gives_way_to_a_file(server, kaggle, said):
    fetch(infer(server, kaggle, listed({"a/b/c": b"1", "d": b"2"})), kaggle, say=said.append)
    newer = listed({"a": b"3", "d/e": b"4"})
    fetch(infer(server, kaggle, newer), kaggle, say=said.append)
    assert here() == newer


# States


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("RUNNING", "is RUNNING, so it has no outputs yet: python -m kit kernel wait {path}"),
        ("CANCEL_REQUESTED", "is CANCEL_REQUESTED, so it has no outputs yet: python -m kit kernel wait {path}"),
        ("ERROR", "ended with ERROR, not COMPLETE: python -m kit kernel logs {path}"),
        ("CANCEL_ACKNOWLEDGED", "ended with CANCEL_ACKNOWLEDGED, not COMPLETE: python -m kit kernel logs {path}"),
    ],
)
def test_a_version_that_has_not_come_to_its_list_of_outputs(server, kaggle, status, message):
    path = pushed(server, kaggle)
    server.finish(REF, status, files=FILES)
    assert refusal_of(fetch, path, kaggle) == f"{REF} version 1 {message.format(path=path)}"
    assert not OUTPUT.exists()


@pytest.mark.parametrize("status", ["ERROR", "CANCEL_ACKNOWLEDGED"])
def test_a_version_that_failed_and_listed_its_outputs(server, kaggle, said, status):
    files = listed(FILES)
    path = infer(server, kaggle, files)
    server.finish(REF, status, files=files)
    fetched = fetch(path, kaggle, say=said.append)
    assert here() == files
    assert fetched.trouble == f"{REF} version 1 ended with {status} (python -m kit kernel logs {path})"


def test_the_pushed_version_is_fetched_whatever_came_later(server, kaggle, said):
    files = listed(FILES)
    path = infer(server, kaggle, files)
    record = json.loads((path / "push.json").read_text())
    infer(server, kaggle, listed({"other": b""}))
    (path / "push.json").write_text(json.dumps(record))
    fetch(path, kaggle, say=said.append)
    assert here() == files


def test_what_was_not_pushed(server, kit):
    path = write_kernel()
    assert kit("kernel", "fetch", path) == (
        1,
        f"error: {path} was not pushed yet: python -m kit kernel push {path}\n",
    )


# Runs


@pytest.fixture
def experiment(competition):
    return small_experiment(competition)


def train(server, kaggle, outputs: dict[str, bytes], competition: Path, fold: int = 0, **record) -> Path:
    """A pushed kernel that left these runs; its record names the competition's folder on this machine."""
    about = small_experiment(competition).competition.model_dump(mode="json")
    record = {"competition": about, "folds": [fold]} | record
    return pushed(server, kaggle, outputs, slug=f"small-train-fold-{fold}", record=record)


def test_runs_are_taken_and_merged(server, kaggle, said, experiment, competition, tmp_path):
    for fold in (0, 2):
        outputs = train_outputs(tmp_path / f"fold{fold}", experiment, (fold,))
        fetched = fetch(train(server, kaggle, outputs, competition, fold), kaggle, say=said.append)
        assert fetched.runs == [f"uniform/seed0/fold{fold}"]
        assert fetched.experiment.competition == experiment.competition
    ours = ExperimentDir(Path("runs/tiny"))
    assert [run.path.name for run in ours.runs("uniform") if run.finished] == ["fold0", "fold2"]
    assert here(ours.path / "uniform/seed0/fold2") == here(tmp_path / "fold2/runs/tiny/uniform/seed0/fold2")
    assert ours.folds.read_bytes() == (tmp_path / "fold0/runs/tiny/folds.csv").read_bytes()
    stored = stored_experiment(ours)
    assert stored.folds.run == (0, 2)
    assert stored.competition.path == str(competition)  # of this machine, not of Kaggle's
    assert sorted(path.name for path in (ours.path / "uniform/seed0").iterdir()) == ["fold0", "fold2"]


def test_into_another_folder(server, kaggle, said, experiment, competition, tmp_path):
    outputs = train_outputs(tmp_path / "made", experiment)
    fetch(train(server, kaggle, outputs, competition), kaggle, tmp_path / "elsewhere", said.append)
    assert RunDir(tmp_path / "elsewhere/runs/tiny/uniform/seed0/fold0").finished
    assert not Path("runs").exists()


def test_runs_that_are_here_are_kept(server, kaggle, said, experiment, competition, tmp_path):
    path = train(server, kaggle, train_outputs(tmp_path / "made", experiment), competition)
    fetch(path, kaggle, say=said.append)
    (Path("runs/tiny/uniform/seed0/fold0") / "mark").write_text("here")
    assert fetch(path, kaggle, say=said.append).runs == []
    assert said[-1] == "uniform/seed0/fold0 is here already"
    assert (Path("runs/tiny/uniform/seed0/fold0") / "mark").is_file()


def test_another_training_takes_the_place_of_no_finished_run(
    server, kaggle, said, experiment, competition, tmp_path
):
    fetch(
        train(server, kaggle, train_outputs(tmp_path / "made", experiment), competition), kaggle, say=said.append
    )
    Path("runs/tiny/uniform/seed0/fold0/activations.npz").write_bytes(b"of a probe")
    before = here(Path("runs"))
    newer = train_outputs(tmp_path / "newer", experiment, (0, 1), fingerprint="g")
    assert refusal_of(fetch, train(server, kaggle, newer, competition), kaggle) == (
        "runs/tiny/uniform/seed0/fold0 is finished and another training than "
        f"{OUTPUT}/runs/tiny/uniform/seed0/fold0; nothing is taken: move "
        "runs/tiny/uniform/seed0/fold0 away, or train under another name (--set name=...)"
    )
    assert here(Path("runs")) == before


@pytest.mark.parametrize("data_is_here", [True, False])
@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("name", ["labels", "weights"])
def test_runs_that_have_less_in_common_than_their_config(
    server, kaggle, said, experiment, competition, tmp_path, data_is_here, fold, name
):
    folder = competition if data_is_here else tmp_path / "no-data"
    fetch(train(server, kaggle, train_outputs(tmp_path / "made", experiment), folder), kaggle, say=said.append)
    mine = RunDir(Path("runs/tiny/uniform/seed0/fold0"))
    mine.write(mine.record.with_fields(depends_on=mine.record.depends_on | {name: "other"}))
    before = here(Path("runs"))
    path = train(server, kaggle, train_outputs(tmp_path / "more", experiment, (fold,)), folder, fold)
    assert refusal_of(fetch, path, kaggle) == (
        f"{path}/output/runs/tiny/uniform/seed0/fold{fold} was trained on other {name} than "
        "runs/tiny/uniform/seed0/fold0; nothing is taken: move runs/tiny away, or train under another name "
        "(--set name=...)"
    )
    assert here(Path("runs")) == before


def test_an_unfinished_run_gives_way(server, kaggle, said, experiment, competition, tmp_path):
    run = RunDir(Path("runs/tiny/uniform/seed0/fold0"))
    run.path.mkdir(parents=True)
    run.write(RunRecord(status="running", policy="uniform", seed=0, fold=0, fingerprint="f"))
    run.history.write_text("")
    path = train(server, kaggle, train_outputs(tmp_path / "made", experiment), competition)
    fetch(path, kaggle, say=said.append)
    assert here(run.path) == here(tmp_path / "made/runs/tiny/uniform/seed0/fold0")
    assert [file.name for file in run.path.parent.iterdir()] == ["fold0"]


def test_a_run_that_is_trained_here_is_not_taken(server, kaggle, said, experiment, competition, tmp_path):
    """Its process has only just begun: there is no checkpoint, and its folder stays what it is."""
    run = RunDir(Path("runs/tiny/uniform/seed0/fold0"))
    file = foreign(run.path / "run.json")
    before = file.read_bytes()
    path = train(server, kaggle, train_outputs(tmp_path / "made", experiment, (0, 1)), competition)
    assert fetch(path, kaggle, say=said.append).runs == ["uniform/seed0/fold1"]
    holder = "process 7 on elsewhere (works, since 2026-01-01)"
    assert f"uniform/seed0/fold0 is not taken: {holder} works on it here" in said
    assert here(run.path) == {file.name: before}
    assert not list(Path("runs/tiny/uniform/seed0/fold1").glob("*.claim"))


def test_an_unfinished_run_with_a_checkpoint_does_not(server, kaggle, experiment, competition, tmp_path):
    run = RunDir(Path("runs/tiny/uniform/seed0/fold1"))
    run.path.mkdir(parents=True)
    path = train(server, kaggle, train_outputs(tmp_path / "made", experiment, (0, 1)), competition)
    depends_on = RunDir(tmp_path / "made/runs/tiny/uniform/seed0/fold1").record.depends_on
    key = {"policy": "uniform", "seed": 0, "fold": 1, "fingerprint": "f"}
    run.write(RunRecord(status="running", **key, depends_on=depends_on))
    run.checkpoint.write_bytes(b"hours")
    assert refusal_of(fetch, path, kaggle) == (
        f"{run.path} is under way and holds a checkpoint, so {OUTPUT}/runs/tiny/uniform/seed0/fold1 does not take "
        "its place; nothing is taken: let python -m kit run end it, or remove it"
    )
    assert sorted(here(Path("runs/tiny"))) == ["uniform/seed0/fold1/checkpoint.pt", "uniform/seed0/fold1/run.json"]


@pytest.mark.parametrize("data_is_here", [True, False])
def test_runs_of_another_config(server, kaggle, said, experiment, competition, tmp_path, data_is_here):
    folder = competition if data_is_here else tmp_path / "no-data"
    fetch(train(server, kaggle, train_outputs(tmp_path / "made", experiment), folder), kaggle, say=said.append)
    other = small_experiment(competition, training={"epochs": 9})
    path = train(server, kaggle, train_outputs(tmp_path / "other", other, (1,)), folder, 1)
    before = here(Path("runs"))
    assert refusal_of(fetch, path, kaggle) == (
        "the kernel trained another config than runs/tiny holds (training.epochs: 2 there, 9 here); nothing "
        "is taken: move runs/tiny away, or train under another name (--set name=...)"
    )
    assert here(Path("runs")) == before


@pytest.mark.parametrize("data_is_here", [True, False])
def test_runs_of_another_fold_plan(server, kaggle, said, experiment, competition, tmp_path, data_is_here):
    folder = competition if data_is_here else tmp_path / "no-data"
    fetch(train(server, kaggle, train_outputs(tmp_path / "made", experiment), folder), kaggle, say=said.append)
    plan = pd.read_csv("runs/tiny/folds.csv")
    with noting(Path("runs/tiny"), Path("runs/tiny/folds.csv")):
        plan.assign(fold=plan["fold"].to_numpy()[::-1]).to_csv("runs/tiny/folds.csv", index=False)
    path = train(server, kaggle, train_outputs(tmp_path / "other", experiment, (1,)), folder, 1)
    assert refusal_of(fetch, path, kaggle) == (
        f"{path}/output/runs/tiny/uniform/seed0/fold1 was trained on other folds than are here; {BRING_BACK}"
    )
    assert not Path("runs/tiny/uniform/seed0/fold1").exists()


def test_runs_of_other_data(server, kaggle, experiment, competition, tmp_path):
    path = train(
        server, kaggle, train_outputs(tmp_path / "made", experiment), write_competition(tmp_path / "new", seed=1)
    )
    assert refusal_of(fetch, path, kaggle) == (
        f"{OUTPUT}/runs/tiny/uniform/seed0/fold0 was trained on other images than are here; {BRING_BACK}"
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize("content", [None, b"those that it began with", b"other ones"])
def test_the_weights_that_a_kernel_began_with(server, kaggle, said, competition, tmp_path, content):
    """They are compared with the file that the config names, where that is here."""
    file = tmp_path / "first.safetensors"
    file.write_bytes(b"those that it began with")
    outputs = train_outputs(tmp_path / "made", small_experiment(competition, model={"weights": str(file)}))
    path = train(server, kaggle, outputs, competition, weights=str(file))
    file.unlink() if content is None else file.write_bytes(content)
    if content == b"other ones":
        assert refusal_of(fetch, path, kaggle) == (
            f"{OUTPUT}/runs/tiny/uniform/seed0/fold0 was trained on other weights than are here; {BRING_BACK}"
        )
    else:
        assert fetch(path, kaggle, say=said.append).runs == ["uniform/seed0/fold0"]


def test_what_was_pushed_counts_and_not_what_was_built_since(
    server, kaggle, said, experiment, competition, tmp_path
):
    path = train(server, kaggle, train_outputs(tmp_path / "made", experiment), competition)
    folder = KernelFolder(path)
    folder.write_record(replace(folder.record, experiment="other", kind="infer", policies=["late"]))
    assert fetch(path, kaggle, say=said.append).runs == ["uniform/seed0/fold0"]
    assert RunDir(Path("runs/tiny/uniform/seed0/fold0")).finished


def test_what_a_failed_kernel_had_finished(server, kaggle, said, experiment, competition, tmp_path):
    outputs = train_outputs(tmp_path / "made", experiment)
    path = train(server, kaggle, outputs, competition, folds=[0, 1, 2])
    server.finish(REF, "ERROR", files=outputs)
    fetched = fetch(path, kaggle, say=said.append)
    assert fetched.runs == ["uniform/seed0/fold0"]
    assert stored_experiment(ExperimentDir(Path("runs/tiny"))).folds.run == (0,)
    assert fetched.trouble == (
        f"{REF} version 1 ended with ERROR (python -m kit kernel logs {path}); missing: uniform/seed0/fold1, "
        f"uniform/seed0/fold2; python -m kit kernel push {path} trains these alone, python -m kit run trains them "
        "here"
    )


MISSING = ["uniform/seed0/fold1", "uniform/seed0/fold2"]


@pytest.mark.parametrize(
    ("status", "exit_code", "trouble"),
    [
        ("COMPLETE", 1, ": python -m kit ended with exit code 1 ({logs})"),
        ("COMPLETE", 0, " finished 1 of 3 runs"),
        ("CANCEL_ACKNOWLEDGED", None, " ended with CANCEL_ACKNOWLEDGED ({logs})"),
    ],
)
def test_what_a_stopped_kernel_had_finished(
    server, kaggle, said, experiment, competition, tmp_path, status, exit_code, trouble
):
    """COMPLETE is no proof: the kernel's list says what is missing."""
    outputs = listed(train_outputs(tmp_path / "made", experiment), MISSING, exit_code)
    path = train(server, kaggle, outputs, competition, folds=[0, 1, 2])
    server.finish(REF, status, files=outputs)
    fetched = fetch(path, kaggle, say=said.append)
    assert fetched.runs == ["uniform/seed0/fold0"]
    assert fetched.trouble == (
        f"{REF} version 1{trouble.format(logs=f'python -m kit kernel logs {path}')}; missing: {MISSING[0]}, "
        f"{MISSING[1]}; python -m kit kernel push {path} trains these alone, python -m kit run trains them here"
    )
    assert KernelFolder(path).fetched == {"version": 1, "missing": MISSING}


@pytest.mark.parametrize("lost", [True, False])
def test_of_a_session_that_was_killed_a_run_that_is_not_whole_is_left_out(
    server, kaggle, said, experiment, competition, tmp_path, lost
):
    """Its file was not kept, or was being written; the other runs are worth having."""
    outputs = listed(train_outputs(tmp_path / "made", experiment, (0, 1)), MISSING[1:], None)
    name = "runs/tiny/uniform/seed0/fold1/weights.safetensors"
    if lost:
        del outputs[name]
    else:
        outputs[name] = b"half"
    path = train(server, kaggle, outputs, competition, folds=[0, 1, 2])
    server.finish(REF, "CANCEL_ACKNOWLEDGED", files=outputs)
    fetched = fetch(path, kaggle, say=said.append)
    assert fetched.runs == ["uniform/seed0/fold0"]
    assert f"missing: {MISSING[0]}, {MISSING[1]}; " in fetched.trouble
    assert not (OUTPUT / name).parent.exists()
    told = "left out, as not all of their files are what the kernel wrote: runs/tiny/uniform/seed0/fold1"
    assert told in said


def test_an_infer_kernel_that_came_to_no_good_end(server, kaggle, said):
    path = infer(server, kaggle, listed(FILES, [], 1))
    logs = f"python -m kit kernel logs {path}"
    trouble = fetch(path, kaggle, say=said.append).trouble
    assert trouble == f"{REF} version 1: python -m kit ended with exit code 1 ({logs})"
    server.finish(REF, files=listed({"kit.log": b"done"}, []))
    assert fetch(path, kaggle, say=said.append).trouble == f"{REF} version 1 left no submission.csv ({logs})"


def test_a_failed_kernel_that_had_finished_nothing(server, kaggle, experiment, competition, tmp_path):
    path = train(server, kaggle, {}, competition)
    server.finish(REF, "ERROR", files=listed({"kit.log": b"?"}))
    assert refusal_of(fetch, path, kaggle) == (
        f"{OUTPUT}/runs/tiny holds no experiment, so the kernel trained nothing; {REF} version 1 ended with ERROR "
        f"(python -m kit kernel logs {path})"
    )


def test_a_kernel_that_trained_nothing(server, kaggle, experiment, competition, tmp_path):
    path = train(server, kaggle, listed({"kit.log": b"?"}), competition)
    assert (
        refusal_of(fetch, path, kaggle) == f"{OUTPUT}/runs/tiny holds no experiment, so the kernel trained nothing"
    )
    outputs = train_outputs(tmp_path / "made", experiment)
    left = {name: content for name, content in outputs.items() if "weights" not in name and "outputs" not in name}
    path = train(server, kaggle, listed(left), competition)
    assert refusal_of(fetch, path, kaggle) == f"{OUTPUT}/runs/tiny holds no finished run of uniform"
    assert not Path("runs").exists()


def test_a_run_that_is_damaged_here_gives_way_to_the_same_of_the_kernel(
    server, kaggle, said, experiment, competition, tmp_path
):
    train_outputs(tmp_path / "made", experiment)
    as_left(RunDir(tmp_path / "made/runs/tiny/uniform/seed0/fold0"))
    path = train(server, kaggle, listed(here(tmp_path / "made")), competition)
    fetch(path, kaggle, say=said.append)
    mine = RunDir(Path("runs/tiny/uniform/seed0/fold0"))
    before = here(mine.path)
    assert fetch(path, kaggle, say=said.append).runs == []
    mine.weights.write_bytes(b"g")
    assert fetch(path, kaggle, say=said.append).runs == ["uniform/seed0/fold0"]
    assert said[-1] == f"{mine.weights} is damaged; the kernel's run takes its place"
    assert here(mine.path) == before


def test_a_run_that_is_not_what_its_record_says_takes_no_place(server, kaggle, experiment, competition, tmp_path):
    """The kernel's list of outputs was made of what was damaged already."""
    train_outputs(tmp_path / "made", experiment)
    as_left(run := RunDir(tmp_path / "made/runs/tiny/uniform/seed0/fold0"))
    run.weights.write_bytes(b"g")
    path = train(server, kaggle, listed(here(tmp_path / "made")), competition)
    assert refusal_of(fetch, path, kaggle) == (
        f"{OUTPUT}/runs/tiny/uniform/seed0/fold0/weights.safetensors is not what the kernel's run.json says of "
        "it; nothing is taken: fetch again, or push the kernel again"
    )
    assert not Path("runs").exists()


def test_a_fetch_that_was_killed_leaves_no_half_run(
    server, kaggle, said, experiment, competition, tmp_path, monkeypatch
):
    path = train(server, kaggle, train_outputs(tmp_path / "made", experiment), competition)

    def killed(source, target, **_):
        shutil.copy(source / "run.json", target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(path, kaggle, say=said.append)
    assert sorted(here(Path("runs"))) == ["tiny/experiment.yaml", "tiny/folds.csv", "tiny/manifest.json"]
    assert fetch(path, kaggle, say=said.append).runs == ["uniform/seed0/fold0"]


@pytest.mark.parametrize(
    ("failing", "left"),
    [
        ((), {"a/new": b"new"}),
        ((0,), {"a/b/old": b"old"}),
        ((1,), {"a/b/old": b"old"}),
        ((1, 2), {".a.*.former/b/old": b"old"}),  # as if killed between the two
    ],
)
def test_a_folder_takes_the_place_of_another_or_that_is_kept(tmp_path, monkeypatch, failing, left):
    """Whichever of the renames does not happen."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/old").write_bytes(b"old")
    number, rename = count(), os.replace

    def replace_sometimes(source, target):
        if next(number) in failing:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace_sometimes)
    with pytest.raises(KeyboardInterrupt) if failing else nullcontext(), whole_folder(tmp_path / "a") as draft:
        (draft / "new").write_bytes(b"new")
    there = {re.sub(r"^(\.a\.).*(\.former)", r"\1*\2", name): content for name, content in here(tmp_path).items()}
    assert there == left
    assert len(list(tmp_path.iterdir())) == 1


def test_several_kernels_of_which_two_failed(server, kit, impatient, kaggle, experiment, competition, tmp_path):
    """What is finished is taken all the same; where the data is not here, it is not pooled."""
    folder = tmp_path / "no-data"
    train(server, kaggle, outputs := train_outputs(tmp_path / "fold0", experiment, (0,)), folder, 0, folds=[0, 1])
    server.finish("tester/small-train-fold-0", "ERROR", files=outputs)
    train(server, kaggle, {}, folder, 1)
    server.finish("tester/small-train-fold-1", "ERROR")
    train(server, kaggle, train_outputs(tmp_path / "fold2", experiment, (2,)), folder, 2)
    code, told = kit("kernel", "fetch", "--all")
    assert code == 1
    assert told.splitlines()[-3:] == [
        f"{folder} is not here, so the runs are not pooled; python -m kit run does it",
        "error: tester/small-train-fold-0 version 1 ended with ERROR (python -m kit kernel logs "
        "kernels/build/small-train-fold-0); missing: uniform/seed0/fold1; python -m kit kernel push "
        "kernels/build/small-train-fold-0 trains these alone, python -m kit run trains them here",
        "error: tester/small-train-fold-1 version 1 ended with ERROR, not COMPLETE: python -m kit kernel logs "
        "kernels/build/small-train-fold-1",
    ]
    assert yaml.safe_load(Path("runs/tiny/experiment.yaml").read_text())["folds"]["run"] == [0, 2]


def test_what_was_not_pushed_is_no_failure_of_all(server, kit, kaggle, experiment, competition, tmp_path):
    folder = tmp_path / "no-data"
    train(server, kaggle, train_outputs(tmp_path / "fold0", experiment, (0,)), folder, 0)
    write_kernel("small-train-fold-1")
    code, told = kit("kernel", "fetch", "--all")
    assert code == 0, told
    assert "kernels/build/small-train-fold-1: not pushed yet\n" in told
    code, told = kit("kernel", "fetch", "kernels/build/small-train-fold-1")
    assert code == 1
    assert "small-train-fold-1 was not pushed yet: python -m kit kernel push" in told


def test_kernels_of_two_policies_pool_both(server, kaggle, experiment, competition, tmp_path, monkeypatch):
    monkeypatch.setattr("kit.kaggle.kernel.pool.pool", lambda experiment, output: list(experiment.policies))
    for fold, policy in enumerate(("uniform", "other")):
        part = experiment.model_copy(update={"policies": {policy: experiment.policies["uniform"]}})
        outputs = train_outputs(tmp_path / policy, part, (fold,), policy=policy)
        train(server, kaggle, outputs, competition, fold, policies=[policy])
    fetched = fetch_kernels(built(Path()), kaggle)
    assert fetched.troubles == []
    assert [pooled for _, pooled in pool_fetched(fetched)] == [["uniform", "other"]]


def test_an_experiment_that_cannot_be_pooled_does_not_keep_others_from_it(experiment, competition, monkeypatch):
    def pool(experiment, output):
        if experiment.name == "bad":
            raise KitError("one\ntwo")
        return "pooled"

    monkeypatch.setattr("kit.kaggle.kernel.pool.pool", pool)
    lines = []
    away = experiment.competition.model_copy(update={"path": "nowhere"})
    fetched = FetchedKernels(
        {
            "bad": experiment.model_copy(update={"name": "bad"}),
            "away": experiment.model_copy(update={"name": "away", "competition": away}),
            "good": experiment.model_copy(update={"name": "good"}),
        },
        ["zero"],
    )
    assert [(each.name, result) for each, result in pool_fetched(fetched, say=lines.append)] == [
        ("good", "pooled")
    ]
    assert fetched.troubles == ["zero", "one", "two"]
    assert lines == ["nowhere is not here, so the runs are not pooled; python -m kit run does it"]
