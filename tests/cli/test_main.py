"""The command line as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.colours import experiment_content
from support.commands import config_file, kit_here

from kit.core.errors import KitError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(competition, tmp_path):
    path = tmp_path / "tiny.yaml"
    content = experiment_content(competition, folds={"run": [0]}, training={"epochs": 1})
    path.write_text(yaml.safe_dump(content))
    return path


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['kit', '--help']\n"
        "from kit.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'pandas', 'numpy', 'sklearn', 'pydantic', 'matplotlib'}\n"
        "print('loaded:', *(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert "grade" in printed
    assert printed.splitlines()[-1].split() == ["loaded:"]


def test_run_twice_and_grade(config, competition, tmp_path, monkeypatch, capsys):
    code, output, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert code == 0, errors
    assert "uniform seed 0 fold 0: macro F1" in output
    assert "pooled out-of-fold macro F1" in output
    assert "(12 of 36 rows)" in output
    code, output, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert code == 0, errors
    assert "Nothing to train: all 1 runs" in output
    files = (f"{tmp_path}/submissions/tiny.csv", f"{competition}/solution.csv")
    code, output, errors = kit_here(monkeypatch, capsys, "grade", *files, "--config", str(config))
    assert code == 0, errors
    assert output.startswith("macro F1 ")
    assert output.endswith("(9 rows)\n")


def test_an_invalid_submission_is_told_why_and_fails(config, competition, tmp_path, monkeypatch, capsys):
    lines = (competition / "solution.csv").read_text().splitlines()
    (tmp_path / "short.csv").write_text("\n".join(lines[:-2]) + "\n")
    words = ("grade", f"{tmp_path}/short.csv", f"{competition}/solution.csv", "--config", str(config))
    code, _, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 1
    assert errors == f"error: {tmp_path}/short.csv: 2 of 9 ids are missing (test007, test008)\n"


def test_grade_says_what_is_ignored_and_spelt_otherwise(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "colours"
    folder.mkdir()
    rows = [("a", "1", "Public"), ("b", "2", "Private"), ("c", "2", "Ignored"), ("d", "1", "Public")]
    for name, lines in {
        "train": [f"{row},{label}" for row, label, _ in rows],
        "solution": [",".join(row) for row in rows],
        "mine": [f"{row},{label}.0" for row, label, _ in rows],
    }.items():
        head = "id,label,Usage" if name == "solution" else "id, label" if name == "train" else "id,label"
        (folder / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
    config = config_file(folder, tmp_path / "c.yaml")
    words = ("grade", str(folder / "mine.csv"), str(folder / "solution.csv"), "--config", str(config))
    code, output, errors = kit_here(monkeypatch, capsys, *words)
    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        "macro F1 1.0000 (3 rows, 1 more are ignored)",
        f"{folder / 'mine.csv'}: labels are spelt otherwise, which counts where text is compared: '1.0' for '1' "
        "(in 2), '2.0' for '2' (in 1)",
    ]


def test_every_fault_of_a_config_is_a_line(config, tmp_path, monkeypatch, capsys):
    words = ("run", str(config), "--output", str(tmp_path), "--set", "training.epoch=3", "--set", "data.size=big")
    code, _, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 1
    lines = errors.splitlines()
    assert len(lines) == 2
    assert f"error: {config}: training.epoch: unknown key; did you mean epochs?" in lines
    assert any(line.startswith(f"error: {config}: data.size = 'big': expected") for line in lines)


def test_policy_and_fold_choose_what_is_trained(config, tmp_path, monkeypatch, capsys):
    words = (
        "run",
        str(config),
        "--output",
        str(tmp_path),
        "--policy",
        "discriminative",
        "--fold",
        "1",
        "--fold",
        "2",
    )
    code, output, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 0, errors
    assert "discriminative seed 0 fold 1" in output
    assert "discriminative seed 0 fold 2" in output
    assert "uniform" not in output
    assert not (tmp_path / "runs/tiny/discriminative/seed0/fold0").exists()


@pytest.mark.parametrize(("text", "number"), [("auto", "auto"), ("1", 1), ("12", 12)])
def test_how_many_jobs(config, monkeypatch, capsys, text, number):
    def asked(config, options, say):
        raise KitError(f"jobs is {options.jobs!r}")

    monkeypatch.setattr("kit.experiment.run.run", asked)
    code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), "--jobs", text)
    assert (code, errors) == (1, f"error: jobs is {number!r}\n")


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5", "²"])
def test_how_many_jobs_otherwise(config, monkeypatch, capsys, text):
    code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), f"--jobs={text}")
    assert code == 1
    assert errors == f"error: --jobs {text}: expected auto or a number from 1\n"


def test_too_little_time_is_told_and_fails(config, tmp_path, monkeypatch, capsys):
    """The prior is handed in, and the same command trains."""
    words = ("run", str(config), "--output", str(tmp_path), "--fold", "0,1")
    code, output, errors = kit_here(monkeypatch, capsys, *words, "--budget", "1e-9")
    assert code == 1
    assert "has the same for every row, what most training rows have" in output
    assert errors.splitlines()[-1].startswith("error: budget: it was over after 0 of 36 images were decoded")
    assert len((tmp_path / "submissions/tiny.csv").read_text().splitlines()) == 10
    code, output, errors = kit_here(monkeypatch, capsys, *words, "--seconds", "3600")
    assert code == 0, errors
    assert "are left for it; nothing is given up" in output
    assert "(24 of 36 rows)" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--budget", "8:30"),
            "--budget 8:30: expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0",
        ),
        (("--seconds=-1",), "--seconds -1: expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0"),
        (("--seconds", "9", "--budget", "9"), "--budget, --seconds: they are one thing; give one of the two"),
    ],
)
@pytest.mark.parametrize("command", ["run", "compare", "predict"])
def test_what_is_no_budget_is_refused(config, monkeypatch, capsys, command, options, message):
    code, _, errors = kit_here(monkeypatch, capsys, command, str(config), *options)
    assert (code, errors) == (1, f"error: {message}\n")


def test_an_override_of_a_policy_that_is_not_there_is_no_new_policy(config, tmp_path, monkeypatch, capsys):
    words = ("run", str(config), "--output", str(tmp_path), "--set", "policies.unifrom.lr=1")
    code, _, errors = kit_here(monkeypatch, capsys, *words)
    assert code == 1
    assert "there is no policy 'unifrom' in this experiment, but uniform" in errors


def test_an_output_that_cannot_be_written_is_told_before_training(config, tmp_path, monkeypatch, capsys):
    code, output, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(config))
    assert code == 1
    assert output == ""
    assert errors == f"error: {config}/runs cannot be written (Not a directory); give --output DIR that can\n"


def test_a_config_that_is_not_there(monkeypatch, capsys):
    code, _, errors = kit_here(monkeypatch, capsys, "run", "configs/digit.yaml")
    assert code == 1
    assert errors == "error: configs/digit.yaml does not exist; did you mean digits.yaml?\n"


def test_broken_imports_lead_to_the_doctor(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert code == 1
    assert "run: python -m kit doctor" in errors


def test_an_interruption_says_how_to_go_on(config, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.experiment.run.run", interrupted)
    code, _, errors = kit_here(monkeypatch, capsys, "run", str(config), "--output", str(tmp_path))
    assert code == 130
    assert errors == "interrupted\n"  # nothing was begun: nothing goes on


def test_the_doctor_is_content_here(tmp_path, monkeypatch, capsys):
    code, output, _ = kit_here(monkeypatch, capsys, "doctor", "--output", str(tmp_path))
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == ["ok"] * len(output.splitlines())
    subjects = [line.split()[1] for line in output.splitlines()]
    assert subjects == ["Python:", "packages:", "imports:", "GPU:", "disk:", "folders:"]


def test_without_any_package_the_kit_still_says_what_to_do():
    """`python -S` hides the installed packages."""
    command = [sys.executable, "-S", "-m", "kit", "doctor"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert told.returncode == 1
    assert "pip install -r requirements.txt" in told.stderr


@pytest.mark.parametrize("command", ["audit", "blend", "submit", "kernel"])
def test_what_several_processes_would_each_do_is_refused_once(monkeypatch, capsys, command):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = f"error: {command} takes one process; torchrun is for run, compare, find-lr, lr, predict\n"
    for rank, said in (("0", told), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert kit_here(monkeypatch, capsys, command, "status" if command == "kernel" else "x") == (1, "", said)
