"""Rehearsals: what the kernel sees, and the verdict on what it leaves. The kernels here are tiny scripts."""

import json
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from support.colours import write_competition
from support.session_facts import keep_facts
from support.small_kernels import write_push

from kit.competition.config import CompetitionConfig
from kit.kaggle.datasets import dataset_folder
from kit.kaggle.kernel.folder import BuildRecord, KernelFolder
from kit.kaggle.rehearsal.rehearse import RehearsalOptions, rehearse

SLUG = "colour-squares"

# What an infer kernel does, without a model. FOLDERS lets it run under any isolation.
FOLDERS = """
import csv, os, sys, time
INPUT = os.environ.get("KIT_INPUT", "/kaggle/input")
os.chdir(os.environ.get("KIT_WORKING", "/kaggle/working"))
PLACES = [f"{INPUT}/{name}" for name in ("competitions/colour-squares", "colour-squares", "datasets/me/squares")]
DATA = next(filter(os.path.isdir, PLACES))
ids = [row["id"] for row in csv.DictReader(open(f"{DATA}/test.csv"))]

def submit(rows, header="id,label", name="submission.csv"):
    with open(name, "w") as file:
        file.write("\\n".join([header, *rows]) + "\\n")
"""
ALL_RED = "submit([f'{name},red' for name in ids])"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project with a competition; commands run there."""
    folder = tmp_path / "project"
    write_competition(folder / f"data/{SLUG}", rows=6, test_rows=5, side=4)
    monkeypatch.chdir(folder)
    return folder


def write_kernel(code: str, slug: str = "squares-infer", kind: str = "infer", **options) -> str:
    """A built kernel whose code file is some text, in kernels/build/; gives its folder."""
    sources = {f"{name}_sources": options.pop(name, []) for name in ("dataset", "kernel", "model")}
    competition = options.pop("competition", {"slug": SLUG, "test_images": "test/{id}.png"})
    folder = KernelFolder(Path("kernels/build") / slug)
    folder.path.mkdir(parents=True, exist_ok=True)
    name = f"{slug}.py"
    (folder.path / name).write_text(FOLDERS + textwrap.dedent(code), encoding="utf-8")
    slugs = [ref for ref in [competition.get("slug")] if ref and "/" not in ref]
    usual = {"id": f"me/{slug}", "title": slug, "enable_gpu": False, "enable_internet": False}
    metadata = usual | {"code_file": name, "competition_sources": slugs} | sources
    folder.metadata_file.write_text(json.dumps(metadata))
    record = {
        "kind": kind,
        "slug": slug,
        "experiment": "squares",
        "policies": ["flat"],
        "seeds": [0],
        "folds": [0, 1],
        "competition": CompetitionConfig(**competition).model_dump(mode="json"),
        "weights": "",
        "hours": 1.0,
        "sha256": "",
        "family": slug,
    }
    folder.write_record(BuildRecord(**record | options))
    return str(folder.path)


@pytest.fixture
def verdict(project, kit):
    """Rehearses a kernel by the command line; gives the exit code, the verdict's lines, and all that was told."""

    def call(code: str, *words, **options):
        ended, told = kit("kernel", "rehearse", write_kernel(code, **options), *words)
        lines = told.partition("\nverdict ")[2].splitlines()
        return ended, {line[7:].partition(": ")[0]: line for line in lines[1:]}, told

    return call


# The verdict


def test_a_kernel_that_does_all_right(verdict):
    code, checks, told = verdict(f"print('hello')\n{ALL_RED}")
    assert code == 0
    assert list(checks) == ["exit code", "time", "memory", "submission.csv", "sizes"]
    assert checks["exit code"] == "ok     exit code: 0"
    assert checks["submission.csv"] == "ok     submission.csv: valid, 5 rows"
    assert checks["time"].endswith(" s of 3600 s")
    assert checks["sizes"].startswith("ok     sizes: 1 output files of 0.000 GB in all, of 20 (reported); ")
    assert all(line.startswith("ok ") for line in checks.values())
    source = Path(f"data/{SLUG}").resolve()
    assert told.splitlines()[:2] == [f"/kaggle/input/competitions/{SLUG} is {source}", "hello"]


def test_its_record(verdict):
    verdict(ALL_RED)
    folder = KernelFolder.at("kernels/build/squares-infer")
    record = folder.rehearsal
    assert record["passed"] is True
    assert record["digest"] == folder.digest
    assert (record["test_rows"], record["overrides"]) == (None, [])
    assert 0 < record["seconds"] < 60
    assert record["peak_memory"] > 1e6
    assert [check["name"] for check in record["checks"]] == [
        *("exit code", "time", "memory", "submission.csv", "sizes")
    ]
    assert record["checks"][3] == {"name": "submission.csv", "passed": True, "found": "valid, 5 rows"}
    assert (folder.path / "rehearsal/working/submission.csv").is_file()
    verdict("sys.exit(3)", "--test-rows", "1")
    record = folder.rehearsal
    assert (record["passed"], record["test_rows"], record["digest"]) == (False, "1", folder.digest)
    assert not (folder.path / "rehearsal/working/submission.csv").exists()


def test_a_rehearsal_that_does_not_come_to_an_end_leaves_no_verdict(verdict, project):
    verdict(ALL_RED)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearse("kernels/build/squares-infer", say=stop)
    assert KernelFolder.at("kernels/build/squares-infer").rehearsal == {}


def test_what_is_refused_leaves_the_last_rehearsal_as_it_was(verdict, project, kit):
    verdict(ALL_RED)
    folder = KernelFolder.at("kernels/build/squares-infer")
    before = folder.rehearsal

    def refused(*words: str) -> str:
        code, told = kit("kernel", "rehearse", str(folder.path), *words)
        assert code == 1
        assert folder.rehearsal == before
        assert (folder.path / "rehearsal/working/submission.csv").is_file()
        return told

    assert before["passed"]
    assert refused("--test-rows", "7") == "error: --test-rows 7: expected one of 0, 1, 3, x5\n"
    assert refused("--python", "python9") == (
        "error: python9 does not run as a Python interpreter (FileNotFoundError)\n"
    )
    write_kernel(ALL_RED, dataset=["me/wheels"])
    assert refused().startswith("error: nothing on this machine stands for me/wheels; ")
    (project / f"data/{SLUG}/test.csv").write_text("id\ntest999\n")
    assert "test.csv and sample_submission.csv disagree: " in refused("--test-rows", "3")
    (project / f"data/{SLUG}").rename(project / "moved")
    assert "the competition's folder when the kernel was built, is not there" in refused()
    folder.code_file.unlink()
    assert refused() == f"error: {folder.path}/squares-infer.py is not there; build the kernel again\n"


def test_an_exit_code_is_handed_on(verdict):
    code, checks, _ = verdict(f"{ALL_RED}\nsys.exit(3)")
    assert code == 1
    assert checks["exit code"] == "FAILED exit code: 3"
    assert checks["submission.csv"].startswith("ok")


def test_an_exception_fails(verdict):
    code, checks, told = verdict(f"{ALL_RED}\nraise ValueError('of the kernel')")
    assert (code, checks["exit code"]) == (1, "FAILED exit code: 1")
    assert "ValueError: of the kernel" in told


def test_the_clock_ends_what_takes_too_long(verdict):
    code, checks, _ = verdict(f"{ALL_RED}\ntime.sleep(60)", "--time-limit", "0.3")
    assert code == 1
    assert checks["exit code"] == "FAILED exit code: none, it was ended"
    assert checks["time"] == "FAILED time: ended at the limit of 0.3 s"
    code, checks, _ = verdict(f"{ALL_RED}\ntime.sleep(60)", hours=0.3 / 3600)
    assert checks["time"].startswith("FAILED")


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_of_nothing_is_refused(verdict, limit):
    code, _, told = verdict(ALL_RED, "--time-limit", limit)
    assert (code, told) == (1, f"error: --time-limit {limit}: expected seconds, more than 0\n")


BAD_SUBMISSIONS = {
    "pass": "not found in /kaggle/working",
    "os.makedirs('out'); os.chdir('out'); " + ALL_RED: "not found in /kaggle/working",
    "submit([f'{name},red' for name in ids], name='submission.CSV')": "not found in /kaggle/working",
    "submit([f'{name},red' for name in ids[1:]])": "1 of 5 ids are missing (test000)",
    "submit([f'{name},red' for name in [*ids, 'test999']])": "1 ids are not in the test set (test999)",
    "submit([f'{name},red' for name in [*ids, ids[2]]])": "1 ids stand there twice (test002); ids must be unique",
    "submit([f'{name},' if name == ids[3] else f'{name},red' for name in ids])": (
        "no label for 1 ids (test003); pandas writes NaN so"
    ),
    "submit([f'{name},nan' for name in ids])": (
        "'nan' is no class (in 5 rows); the classes are blue, green, red; NaN stands for a missing value"
    ),
    "submit([f'{name},0' for name in ids])": "'0' is no class (in 5 rows); the classes are blue, green, red",
    "submit([f'{name},red' for name in ids], 'id,target')": "the columns are id, target; expected id, label",
    "submit([f'red,{name}' for name in ids], 'label,id')": (
        "the columns are label, id; expected id, label (the same in another order)"
    ),
    "submit([f'0,{name},red' for name in ids], ',id,label')": (
        "the columns are Unnamed: 0, id, label; expected id, label (write it with index=False)"
    ),
    "submit(ids, 'id')": "the columns are id; expected id, label",
    "submit([])": "5 of 5 ids are missing (test000, test001, test002, test003, test004)",
}


@pytest.mark.parametrize("code", BAD_SUBMISSIONS)
def test_a_submission_that_kaggle_would_refuse(verdict, code):
    ended, checks, _ = verdict(code)
    assert (ended, checks["submission.csv"]) == (1, f"FAILED submission.csv: {BAD_SUBMISSIONS[code]}")
    assert checks["exit code"] == "ok     exit code: 0"


def test_an_empty_file_is_no_submission(verdict):
    code, checks, _ = verdict("open('submission.csv', 'w').close()")
    assert code == 1
    assert "is empty; a table needs at least a line of column names" in checks["submission.csv"]


def test_the_order_of_rows_is_free(verdict):
    code, checks, _ = verdict("submit([f'{name},blue' for name in reversed(ids)])")
    assert (code, checks["submission.csv"]) == (0, "ok     submission.csv: valid, 5 rows")


def test_without_a_train_table_any_label_goes_but_columns_and_ids_do_not(verdict, project):
    (project / f"data/{SLUG}/train.csv").unlink()
    assert verdict("submit([f'{name},0.5' for name in ids])")[0] == 0
    assert verdict("submit(ids, 'id')")[1]["submission.csv"].endswith("the columns are id; expected id, label")
    assert verdict("submit([f'{name},' for name in ids])")[0] == 1


# Another test set


@pytest.mark.parametrize(("size", "rows"), [("0", 0), ("1", 1), ("3", 3), ("x5", 25)])
@pytest.mark.parametrize("table", ["test.csv", "sample_submission.csv"])
def test_the_submission_has_to_be_of_the_test_set_that_was_given(verdict, size, rows, table):
    code, checks, _ = verdict(
        f"""
        ids = [row["id"] for row in csv.DictReader(open(f"{{DATA}}/{table}"))]
        assert all(os.path.isfile(f"{{DATA}}/test/{{name}}.png") for name in ids)
        {ALL_RED}
        """,
        *("--test-rows", size),
    )
    assert (code, checks["submission.csv"]) == (0, f"ok     submission.csv: valid, {rows} rows")


@pytest.mark.parametrize("size", ["0", "3", "x5"])
def test_an_answer_for_the_visible_test_set_is_none_for_the_hidden_one(verdict, size):
    code, checks, _ = verdict("submit([f'test{row:03d},red' for row in range(5)])", "--test-rows", size)
    assert code == 1
    assert checks["submission.csv"].startswith("FAILED submission.csv: ")
    assert ("are not in the test set" in checks["submission.csv"]) == (size != "x5")


def test_the_competition_is_as_before_and_the_variant_is_gone_with_the_next_rehearsal(verdict, project):
    before = {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()}
    verdict(ALL_RED, "--test-rows", "x5")
    assert Path("kernels/build/squares-infer/rehearsal/competition/test.csv").is_file()
    verdict(ALL_RED)
    assert not Path("kernels/build/squares-infer/rehearsal/competition").exists()
    assert before == {path: path.read_bytes() for path in (project / "data").rglob("*") if path.is_file()}


def test_an_embedded_competition_has_no_other_test_set(verdict):
    embedded = {"path": "data/digits", "embedded": "digits"}
    code, _, told = verdict(ALL_RED, "--test-rows", "3", competition=embedded)
    assert code == 1
    assert told == "error: --test-rows: the kernel writes its own, embedded competition; set competition.slug\n"


# What the kernel sees


def told_by(folder: str, **options) -> tuple[list[str], bool]:
    lines: list[str] = []
    passed = rehearse(folder, RehearsalOptions(**options), lines.append).passed
    return [line for line in lines if not line.startswith("/kaggle/input/")], passed


def test_the_environment_of_a_kernel(project, monkeypatch):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "mine")
    folder = write_kernel(f"""
        names = [name for name in os.environ if name.startswith(("KAGGLE", "HF_", "WANDB", "KIT_SE"))]
        print([f"{{name}}={{os.environ[name]}}" for name in sorted(names)])
        {ALL_RED}
        """)
    always = ["HF_HUB_OFFLINE=1", "KAGGLE_KERNEL_RUN_TYPE=Batch"]
    rerun = [*always, "KAGGLE_IS_COMPETITION_RERUN=1", "KIT_SECONDS=3600.0", "KIT_SET=[]"]
    assert told_by(folder, test_rows="3") == ([str(sorted(rerun))], True)
    shorter = [*always, "KIT_SECONDS=60.5", 'KIT_SET=["training.epochs=1"]']
    assert told_by(folder, time_limit=60.5, overrides=["training.epochs=1"]) == ([str(shorter)], True)
    assert KernelFolder.at(folder).rehearsal["overrides"] == ["training.epochs=1"]


@pytest.mark.parametrize("isolation", [None, "redirect"])
@pytest.mark.parametrize(
    ("form", "there"),
    [
        (
            "nested",
            [f"competitions/{SLUG}", "datasets/me/wheels", "models/g/m/pyTorch/b/1", "notebooks/me/a-train"],
        ),
        ("flat", ["a-train", SLUG, "m/pyTorch/b/1", "wheels"]),
    ],
)
def test_sources_are_mounted_in_either_form(project, kit, tmp_path, form, there, isolation):
    for name in ("wheels", "trained", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    folder = write_kernel(
        f"""
        found = [os.path.relpath(f, INPUT) for f, _, names in os.walk(INPUT, followlinks=True)
                 if {{"train.csv", "wheels.txt", "trained.txt", "model.txt"}} & set(names)]
        print(sorted(found))
        {ALL_RED}
        """,
        dataset=["me/wheels"],
        kernel=["me/a-train"],
        model=["g/m/pyTorch/b/1"],
    )
    stand_ins = {"me/wheels": "wheels", "me/a-train": "trained", "g/m/pyTorch/b/1": "model"}
    words = [word for ref, name in stand_ins.items() for word in ("--source", f"{ref}={tmp_path / name}")]
    words += ["--isolation", isolation] if isolation else []
    code, told = kit("kernel", "rehearse", folder, "--mounts", form, *words)
    assert code == 0, told
    assert f"{there}\n" in told
    used = KernelFolder.at(folder).rehearsal["isolation"]
    assert f"\nverdict ({used}; outputs in {folder}/rehearsal/working)\n" in told
    assert isolation in (None, used)


# Where sources come from


def test_a_source_that_nothing_stands_for(verdict):
    code, _, told = verdict(ALL_RED, dataset=["me/wheels"], model=["g/m/pyTorch/b/1"])
    assert code == 1
    assert told == (
        "error: nothing on this machine stands for me/wheels, g/m/pyTorch/b/1; say what does: "
        "--source me/wheels=FOLDER\n"
    )


def test_a_source_that_is_none(verdict, tmp_path):
    code, _, told = verdict(ALL_RED, "--source", f"me/wheel={tmp_path}", dataset=["me/wheels"])
    assert (code, told.count("\n")) == (1, 1)
    assert "is no source of kernels/build/squares-infer, which has colour-squares, me/wheels" in told
    code, _, told = verdict(ALL_RED, "--source", "me/wheels=nowhere", dataset=["me/wheels"])
    assert (code, told) == (1, "error: --source me/wheels=nowhere: nowhere is no folder\n")
    code, _, told = verdict(ALL_RED, "--source", "me/wheels")
    assert (code, told) == (1, "error: --source me/wheels: expected OWNER/SLUG=DIR\n")


def test_a_dataset_is_where_kernel_upload_has_it(verdict):
    dataset = Path("kernels/datasets/wheels")
    dataset.mkdir(parents=True)
    (dataset / "wheels.json").write_text("[]")
    code, _, told = verdict(f"print(os.listdir(INPUT + '/datasets/me/wheels'))\n{ALL_RED}", dataset=["me/wheels"])
    assert code == 0
    assert "['wheels.json']" in told


def test_the_code_as_a_dataset_is_in_the_kernels_folder(verdict):
    folder = Path(write_kernel("")) / "code"
    folder.mkdir()
    (folder / "bundle.bin").write_text("bundle")
    dataset_folder(folder, "me/squares-infer-code", "squares infer code")
    code, _, told = verdict(
        f"print(os.listdir(INPUT + '/squares-infer-code'))\n{ALL_RED}",
        *("--mounts", "flat"),
        dataset=["me/squares-infer-code"],
    )
    assert code == 0
    assert "'bundle.bin'" in told


def test_outputs_of_a_train_kernel_are_those_fetched_else_those_of_its_rehearsal(
    verdict, project, kit, monkeypatch
):
    train = Path(write_kernel("", slug="squares-train", kind="train"))
    infer = f"print(os.listdir(INPUT + '/notebooks/me/squares-train'))\n{ALL_RED}"
    _, _, told = verdict(infer, kernel=["me/squares-train"])
    assert "nothing on this machine stands for me/squares-train" in told
    (train / "rehearsal/working/rehearsed").mkdir(parents=True)
    assert "['rehearsed']" in verdict(infer, kernel=["me/squares-train"])[2]
    (train / "output/fetched").mkdir(parents=True)
    assert "['fetched']" in verdict(infer, kernel=["me/squares-train"])[2]
    monkeypatch.chdir("kernels/build/squares-infer")
    code, told = kit("kernel", "rehearse", ".", "--source", f"{SLUG}={project}/data/{SLUG}")
    assert (code, "['fetched']" in told) == (0, True), told
    monkeypatch.chdir(project)
    write_push(train, "someone-else")
    _, _, told = verdict(infer, kernel=["me/squares-train"])
    assert "nothing on this machine stands for me/squares-train" in told


def test_outputs_of_a_train_kernel_that_kaggle_named_otherwise_are_found(verdict, project):
    train = Path(write_kernel("", slug="squares-train", kind="train"))
    (train / "output/fetched").mkdir(parents=True)
    write_push(train, "me")
    record = json.loads((train / "push.json").read_text())
    (train / "push.json").write_text(json.dumps(record | {"slug": "squares-train-2"}))
    code = f"print(os.listdir(INPUT + '/notebooks/me/squares-train-2'))\n{ALL_RED}"
    assert "['fetched']" in verdict(code, kernel=["me/squares-train-2"])[2]
    assert "nothing on this machine stands for me/squares-train" in verdict(code, kernel=["me/squares-train"])[2]


def test_the_competition_may_be_elsewhere(verdict, project):
    moved = (project / f"data/{SLUG}").rename(project / "moved")
    code, _, told = verdict(ALL_RED, "--test-rows", "3")
    assert code == 1
    assert told == (
        f"error: data/{SLUG}, the competition's folder when the kernel was built, is not there; say what stands "
        f"for it: --source {SLUG}=FOLDER\n"
    )
    code, checks, _ = verdict(ALL_RED, "--test-rows", "3", "--source", f"{SLUG}={moved}")
    assert (code, checks["submission.csv"]) == (0, "ok     submission.csv: valid, 3 rows")


def test_a_competition_that_is_a_dataset(verdict):
    code, checks, _ = verdict(
        f"assert DATA == INPUT + '/datasets/me/squares'\n{ALL_RED}",
        *("--source", f"me/squares=data/{SLUG}"),
        competition={"slug": "me/squares", "test_images": "test/{id}.png"},
        dataset=["me/squares"],
    )
    assert (code, checks["submission.csv"]) == (0, "ok     submission.csv: valid, 5 rows")


# Train kernels

FINISHED = """
import json
for fold in (0, 1):
    run = f"runs/squares/flat/seed0/fold{fold}"
    os.makedirs(run)
    for name in ("weights.safetensors", "oof.parquet", "test.parquet", "rates.npz"):
        open(f"{run}/{name}", "w").close()
    record = {"status": "finished", "policy": "flat", "seed": 0, "fold": fold}
    json.dump(record, open(f"{run}/run.json", "w"))
"""


def test_a_train_kernel_has_to_finish_its_runs(verdict):
    code, checks, _ = verdict(FINISHED, slug="squares-train", kind="train")
    assert (code, checks["runs"]) == (0, "ok     runs: 2 of 2 finished")
    assert "submission.csv" not in checks
    code, checks, _ = verdict(
        FINISHED, slug="squares-train", kind="train", seeds=[0, 1], policies=["flat", "steep"]
    )
    assert code == 1
    missing = [(policy, seed, fold) for policy in ("flat", "steep") for seed in (0, 1) for fold in (0, 1)][2:]
    told = ", ".join(f"{policy}/seed{seed}/fold{fold}" for policy, seed, fold in missing[:5])
    assert checks["runs"] == f"FAILED runs: {told} and 1 more not finished"


@pytest.mark.parametrize(
    "spoilt",
    [
        "json.dump(record | {'status': 'running'}, open('runs/squares/flat/seed0/fold1/run.json', 'w'))",
        "os.remove('runs/squares/flat/seed0/fold1/weights.safetensors')",
        "os.remove('runs/squares/flat/seed0/fold1/run.json')",
    ],
)
def test_a_run_that_is_not_finished_is_named(verdict, spoilt):
    code, checks, _ = verdict(f"{FINISHED}\n{spoilt}", slug="squares-train", kind="train")
    assert (code, checks["runs"]) == (1, "FAILED runs: flat/seed0/fold1 not finished")


@pytest.mark.parametrize(
    ("exit_code", "told"),
    [
        (0, "ok     exit code: 0"),
        (1, "FAILED exit code: 0, to keep what is finished, but python -m kit ended with 1"),
        (None, "FAILED exit code: 0, but python -m kit had not ended"),
    ],
)
def test_an_exit_code_of_0_is_not_all_that_counts(verdict, exit_code, told):
    """A train kernel with something finished ends with 0, whatever became of the rest."""
    left = f"json.dump({{'files': {{}}, 'missing': [], 'exit_code': {exit_code}}}, open('outputs.json', 'w'))"
    code, checks, _ = verdict(f"{FINISHED}\n{left}", slug="squares-train", kind="train")
    assert (code, checks["exit code"]) == (0 if exit_code == 0 else 1, told)


# The folder


def test_a_folder_that_is_no_kernel(project, kit):
    code, told = kit("kernel", "rehearse", "kernels/build/none")
    assert code == 1
    assert told == (
        "error: kernels/build/none is no built kernel; make one with: python -m kit kernel build CONFIG\n"
    )
    write_kernel(ALL_RED)
    code, told = kit("kernel", "rehearse", "data")
    assert (code, told) == (1, "error: data is no built kernel; there are kernels/build/squares-infer\n")


@pytest.mark.parametrize("text", ["{", "{}", '{"kind": "train", "colour": "red"}'])
def test_a_damaged_record_says_so(project, kit, text):
    folder = write_kernel(ALL_RED)
    Path(folder, "build.json").write_text(text)
    code, told = kit("kernel", "rehearse", folder)
    assert code == 1
    assert told.startswith(f"error: {folder}/build.json is damaged (")
    assert told.endswith("); build the kernel again\n")


def test_a_notebook_runs_cell_by_cell(project, kit):
    folder = Path(write_kernel(""))
    cells = [
        {"cell_type": "markdown", "source": "no code"},
        {"cell_type": "code", "source": FOLDERS},
        {"cell_type": "code", "source": ["print('second')\n", ALL_RED]},
    ]
    notebook = folder / "squares-infer.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    (folder / "kernel-metadata.json").write_text(
        (folder / "kernel-metadata.json").read_text().replace("squares-infer.py", notebook.name)
    )
    assert KernelFolder(folder).source.endswith("print('second')\n" + ALL_RED)
    code, told = kit("kernel", "rehearse", folder)
    assert code == 0, told
    assert "second\n" in told
    assert len(pd.read_csv(folder / "rehearsal/working/submission.csv")) == 5


# What a probe found out


def test_the_limits_and_the_mounts_are_those_that_were_probed(verdict):
    disks = {"/kaggle/working": {"total": 1_000_000, "free": 1_000_000}}
    keep_facts(Path(), form="flat", memory=5_000_000, disks=disks)
    code, checks, told = verdict(f"open('large', 'wb').write(bytes(1_100_000))\n{ALL_RED}")
    assert code == 1
    assert checks["memory"].startswith("FAILED memory: at most 0.0 GB of 0 (probe of 2026-11-20)")
    assert checks["sizes"].startswith(
        "FAILED sizes: 2 output files of 0.001 GB in all, of 0 (probe of 2026-11-20)"
    )
    assert "mounts are flat, by the probe of 2026-11-20\n" in told
    assert f"/kaggle/input/{SLUG} is " in told


def test_what_was_probed_of_another_kind_of_session_is_no_limit(verdict):
    keep_facts(Path(), gpu=True, memory=1_000_000)
    code, checks, told = verdict(ALL_RED)
    assert code == 0
    assert checks["memory"].endswith(" GB of 30 (reported)")
    assert f"/kaggle/input/competitions/{SLUG} is " in told


def test_mounts_that_are_stated_count_more_than_a_probe(verdict):
    keep_facts(Path(), form="flat")
    _, _, told = verdict(ALL_RED, "--mounts", "nested")
    assert f"/kaggle/input/competitions/{SLUG} is " in told
    assert "mounts are" not in told


def test_facts_that_are_old_are_said_to_be(verdict):
    keep_facts(Path(), datetime.now(UTC) - timedelta(days=100))
    code, _, told = verdict(ALL_RED)
    assert code == 0
    assert " days old; python -m kit kernel probe looks again\n" in told


def test_facts_that_are_damaged_stop_a_rehearsal(verdict):
    Path("kernels").mkdir()
    Path("kernels/facts.json").write_text("{}")
    code, _, told = verdict(ALL_RED)
    assert (code, told.count("\n")) == (1, 1)
    assert "kernels/facts.json is damaged (when: Field required); remove it, and probe again" in told


def test_another_test_set_is_nothing_for_a_probe(verdict):
    code, _, told = verdict("", "--test-rows", "3", kind="probe")
    assert (code, told) == (1, "error: --test-rows: a probe predicts nothing; leave it out\n")


def test_a_probe_that_reports_nothing(verdict):
    code, checks, _ = verdict("", "--source", f"{SLUG}=data/{SLUG}", kind="probe")
    assert (code, checks["probe.json"]) == (1, "FAILED probe.json: not found in /kaggle/working")
