"""`--json`: one object on stdout, of the type that the command's function returns; lines for people on stderr."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import pytest
import yaml
from support.colours import experiment_content, write_competition
from support.commands import kit_here
from support.fake_kaggle import Outcome
from support.small_kernels import REF, pushed, write_kernel

import kit
from kit.cli.doctor import Finding
from kit.core.errors import KitError
from kit.core.jsonable import json_model

ROOT = Path(__file__).parents[2]
POLICIES = {"uniform": {"lr": 1e-2, "groups": "stage"}, "cosine": {"lr": 1e-3, "schedule": "cosine"}}


@pytest.fixture
def told(monkeypatch, capsys):
    """Runs a command with --json and returns its object, read by the type of its function, and the errors."""

    def call(function: str, *words: object, code: int = 0) -> tuple[dict, str]:
        ended, output, errors = kit_here(monkeypatch, capsys, *map(str, words), "--json")
        assert ended == code, errors
        assert output.count("\n") == 1
        json_model(get_type_hints(getattr(kit, function))["return"]).model_validate_json(output)
        return json.loads(output), errors

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a competition, a config, and the object that `run` gave."""
    folder = tmp_path_factory.mktemp("json")
    write_competition(folder / "colours")
    content = experiment_content(
        folder / "colours",
        folds={"run": [0, 1]},
        training={"epochs": 1, "probes": {"every": 1}},
        competition={"slug": "colours"},
        policies=POLICIES,
    )
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    command = [sys.executable, "-m", "kit", "run", folder / "tiny.yaml", "--output", folder, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return folder, ended


def test_run(trained):
    folder, ended = trained
    result = json.loads(ended.stdout)
    json_model(get_type_hints(kit.run)["return"]).model_validate_json(ended.stdout)
    stored = json.loads((folder / "runs/tiny/cosine/scores.json").read_text())
    assert result["policies"]["cosine"]["scores"] == stored
    assert (result["trained"], result["left"]) == (4, 0)
    assert result["folder"] == str(folder / "runs/tiny")
    for line in ("cosine seed 0 fold 1: macro F1", "pooled out-of-fold macro F1", "Everything else: "):
        assert line in ended.stderr


def test_what_is_there_already(trained, told):
    folder, _ = trained
    config, output = folder / "tiny.yaml", ("--output", folder)
    compared, lines = told("compare", "compare", config, "--stored", *output)
    assert compared["content"]["baseline"] == "uniform"
    assert compared["content"] == json.loads((folder / "runs/tiny/comparison.json").read_text())
    assert f"Report: {folder}/runs/tiny/report.html\n" in lines
    written, _ = told("write_report", "report", "tiny", *output)
    assert written == {"file": f"{folder}/runs/tiny/report.html"}
    drawn, _ = told("probe", "probe", folder / "runs/tiny/uniform/seed0/fold0", "--output", folder / "p")
    assert drawn == {"files": [f"{folder}/p-activations.png", f"{folder}/p-learning.png"]}
    handed_in = ("--submission", folder / "s.csv")
    predicted, _ = told("predict", "predict", config, "--runs", folder / "runs", *handed_in, *output)
    assert predicted == {
        "submission": f"{folder}/s.csv", "rows": 9, "models": 2, "of": 2, "unreadable": [], "late": [],
        "views": "one view", "in_one_view": 0,
    }  # fmt: skip
    seen, lines = told("views", "views", "tiny", "--views", "hflip", *output)
    assert [each["name"] for each in seen["candidates"]] == ["plain", "hflip"]
    assert "honest: choosing the best on the other folds scores" in lines
    blended, lines = told("blend", "blend", "tiny", "tiny/cosine", "--name", "both", *output)
    assert [each["member"] for each in blended["record"]["members"]] == ["tiny", "tiny/cosine"]
    assert "Submission: " in lines
    graded, lines = told("grade", "grade", folder / "s.csv", folder / "colours/solution.csv", "--config", config)
    assert graded["rows"] == 9
    assert lines == f"{graded['metric']} {graded['value']:.4f} (9 rows)\n"


def test_what_needs_no_training(trained, told, monkeypatch):
    folder, _ = trained
    config, output = folder / "tiny.yaml", ("--output", folder)
    seen, lines = told("audit", "audit", config, *output)
    assert seen["classes"][0] == {"class": "blue", "name": "blue", "rows": 12} | {f"fold {k}": 4 for k in range(3)}
    assert "What to do" in lines
    listed, _ = told("policies", "policies")
    assert {"one_cycle", "cosine"} <= set(listed["blocks"]["schedules"])
    previewed, _ = told("preview", "lr", config, "--csv", folder / "lr.csv")
    table = pd.read_csv(folder / "lr.csv")
    for policy in previewed["policies"]:
        mine = table[table["policy"] == policy["policy"]].dropna(axis=1, how="all")
        names = [group["name"] for group in policy["groups"]]
        assert policy["matrix"]["lr"] == mine[names].to_numpy().tolist()
    assert previewed["policies"][1]["matrix"]["momentum"] == [None, None, None]  # NaN: left to the optimizer
    found, _ = told("find_lr", "find-lr", config, "--steps", 30, "--policy", "uniform", *output)
    assert set(found["suggestions"]["all"]) == {"valley", "slide", "minimum", "steep"}
    assert len(found["tests"]["all"]["rates"]) == len(found["tests"]["all"]["losses"])
    monkeypatch.setattr("kit.cli.doctor._imports_and_gpu", lambda: [Finding("imports", "torch")])  # takes seconds
    examined, _ = told("doctor", "doctor", *output)
    assert [each["subject"] for each in examined["findings"]][:2] == ["Python", "packages"]
    listed, lines = told("submissions", "submissions", "--output", folder / "nowhere")
    assert listed == {"rows": [], "agreements": []}
    assert "holds nothing yet" in lines


def test_what_builds_kernels(trained, told, monkeypatch):
    folder, _ = trained
    monkeypatch.chdir(folder)
    built, _ = told("kernel_build", "kernel", "build", "tiny.yaml", "--kind", "train", "--fold-each")
    assert [each["folder"] for each in built["kernels"]] == [f"kernels/build/tiny-train-fold-{k}" for k in (0, 1)]
    code = Path(built["kernels"][0]["folder"], "tiny-train-fold-0.py").read_text()
    assert "--json" not in code.split('"""')[1]  # how it is told changes no byte of the kernel
    known, _ = told("kernel_image", "kernel", "image")
    assert known["changes"] is None
    (folder / "r.txt").write_text("numpy\n")
    wheels, lines = told("kernel_wheels", "kernel", "wheels", "w", "--dataset", "me/w", "--requirements", "r.txt")
    assert wheels == {"pythons": ["3.12"], "lacking": [], "wheels": []}
    assert "no wheels are needed" in lines
    (folder / "a.pth").write_bytes(b"weights")
    placed, _ = told("kernel_weights", "kernel", "weights", "a.pth", "--to", "me/some-weights")
    at = "kernels/datasets/some-weights"
    assert placed == {"file": f"{at}/a.pth", "folder": at, "ref": "me/some-weights"}
    mounted = ("--source", "colours=colours", "--isolation", "redirect")
    verdict, lines = told(
        "kernel_rehearse", "kernel", "rehearse", write_kernel(competition_sources=["colours"]), *mounted, code=1
    )
    assert not verdict["passed"]
    assert [check["name"] for check in verdict["checks"] if check["passed"]]
    assert "verdict (" in lines


def test_what_asks_kaggle(server, impatient, told, trained):
    folder, _ = trained
    path = write_kernel()
    sent, _ = told("kernel_push", "kernel", "push", path)
    (sent_one,) = sent["kernels"]
    assert sent_one["when"] == json.loads((path / "push.json").read_text())["when"]
    assert sent_one | {"url": "", "when": ""} == {
        "owner": "tester",
        "slug": path.name,
        "version": 1,
        "url": "",
        "folder": str(path),
        "when": "",
    }
    assert sent["ended"] == []
    state, lines = told("kernel_status", "kernel", "status", path)
    assert state["kernels"][0]["session"] | {"status": ""} == {"status": "", "failure": "", "ended": False}
    assert lines.startswith(f"{REF} version 1: ")
    server.finish(REF, "ERROR", "Your notebook tried to allocate more memory")
    waited, _ = told("kernel_wait", "kernel", "wait", path, code=3)
    assert waited["ended"][0]["outcome"] == "failed"
    server.log(REF, '[{"stream_name": "stdout", "time": 1.0, "data": "one\\n"}]')
    log, lines = told("kernel_logs", "kernel", "logs", path)
    assert "\n".join(log["lines"]) + "\n" == lines
    (folder / "d").mkdir()
    weights = folder / "b.pth"
    weights.write_bytes(b"weights")
    told("kernel_weights", "kernel", "weights", weights, "--to", "tester/some-weights", "--folder", "w")
    assert told("kernel_upload", "kernel", "upload", "w")[0] == {"dataset": "tester/some-weights"}


def test_what_kaggle_gives_and_takes(server, impatient, told, trained, monkeypatch):
    from io import BytesIO
    from zipfile import ZipFile

    folder, _ = trained
    archive = BytesIO()
    with ZipFile(archive, "w") as writer:
        writer.writestr("train.csv", "id,label\n1,a\n")
    colours = server.add_competition("colours", archive.getvalue())
    assert told("fetch_data", "fetch-data", "colours")[0] == {"folder": "data/colours"}
    server.script_submission("colours", Outcome("COMPLETE", 0.5, None))
    entry, lines = told("submit", "submit", folder / "submissions/tiny.csv", "--output", folder)
    assert (entry["public"], entry["private"], entry["experiment"]) == ("0.5", "", "tiny")
    assert lines.endswith(f"public score 0.5; CV {entry['cv']}\n")
    assert colours.submissions
    listed, _ = told("submissions", "submissions", "--output", folder)
    assert listed["rows"] == [entry]


def test_a_result_and_what_went_wrong_beside_it(server, told, monkeypatch, capsys):
    pushed(server, kit.kaggle.client.Kaggle(), {})
    write_kernel("small-train-fold-1")
    words = ("kernel", "fetch", "kernels/build/small-train-fold-1", "--json")
    code, output, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 1
    content = json.loads(output)
    assert content["experiments"] == {}
    assert content["error"] == "\n".join(content["troubles"])
    assert errors.splitlines()[-1] == f"error: {content['error']}"


def test_an_error_is_told_on_both(monkeypatch, capsys):
    code, output, errors = kit_here(monkeypatch, capsys, "run", "configs/digit.yaml", "--json")
    assert (code, errors) == (1, "error: configs/digit.yaml does not exist; did you mean digits.yaml?\n")
    assert json.loads(output) == {"error": "configs/digit.yaml does not exist; did you mean digits.yaml?"}


def test_words_that_no_command_knows_leave_stdout_empty(monkeypatch, capsys):
    code, output, errors = kit_here(monkeypatch, capsys, "grade", "--json")
    assert (code, output) == (2, "")
    assert "Missing argument" in errors


def test_an_interruption_is_told_on_both(trained, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.experiment.run.run", interrupted)
    code, output, errors = kit_here(monkeypatch, capsys, "run", str(trained[0] / "tiny.yaml"), "--json")
    assert code == 130
    assert {"error": errors.removesuffix("\n")} == json.loads(output)


def test_a_fault_of_the_kits_own_is_a_traceback(monkeypatch, capsys):
    def faulty(*_, **__):
        raise ValueError("of the kit")

    monkeypatch.setattr("kit.lr.registry.policies", faulty)
    with pytest.raises(ValueError, match="of the kit"):
        kit_here(monkeypatch, capsys, "policies", "--json")
    assert capsys.readouterr().out == ""


def test_of_several_processes_the_first_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    code, output, errors = kit_here(monkeypatch, capsys, "policies", "--json")
    assert (code, output, errors) == (0, "", "")


def test_without_json_all_is_as_before(monkeypatch, capsys):
    def unable(*_, **__):
        raise KitError("one\ntwo")

    monkeypatch.setattr("kit.lr.registry.policies", unable)
    code, output, errors = kit_here(monkeypatch, capsys, "policies")
    assert (code, output, errors) == (1, "", "error: one\nerror: two\n")


def test_what_other_processes_print_goes_to_stderr_too():
    code = (
        "import subprocess, sys\n"
        "from dataclasses import dataclass\n"
        "from kit.cli.output import Commands, give\n"
        "@dataclass\n"
        "class Result:\n"
        "    value: float\n"
        "app = Commands()\n"
        "@app.command()\n"
        "def one():\n"
        "    print('before')\n"
        "    subprocess.run([sys.executable, '-c', 'print(1234)'], check=True)\n"
        "    give(Result(float('nan')), lambda result: print('shown'))\n"
        "    print('after')\n"
        "try: app(['--json'])\n"
        "except SystemExit: pass\n"
        "print('free again')\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout == '{"value": null}\nfree again\n'
    assert sorted(told.stderr.split()) == ["1234", "after", "before", "shown"]
