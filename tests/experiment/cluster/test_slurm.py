"""The script for Slurm: its words, and two elements of its array at work on one folder."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from support.colours import experiment_content, write_competition
from support.commands import ROOT, kit_here
from support.refusals import refusal_of

from kit import run
from kit.experiment.cluster.slurm import SlurmOptions, slurm_script
from kit.experiment.config import load_experiment


@pytest.fixture
def config(tmp_path):
    """Of a few quick runs on the CPU."""
    write_competition(tmp_path / "colours")
    content = experiment_content(
        tmp_path / "colours", training={"epochs": 1, "device": "cpu"}, data={"workers": 3}
    )
    (tmp_path / "my config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "my config.yaml"


def test_what_slurm_is_asked_for(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = SlurmOptions(4, "1d2h30m", gpus=2, sbatch=["--partition=long"])
    made = slurm_script("my config.yaml", options, ["training.epochs=2"], output="~/out")
    assert made.script.splitlines() == [
        "#!/bin/bash",
        "#SBATCH --job-name=kit-tiny",
        "#SBATCH --array=0-3",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        "#SBATCH --cpus-per-task=8",  # of two runs side by side, with three workers each
        "#SBATCH --gres=gpu:2",
        "#SBATCH --time=1-02:30:00",
        "#SBATCH --signal=TERM@300",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=slurm-%A_%a.log",
        "#SBATCH --partition=long",
        "set -euo pipefail",
        f"cd {tmp_path}",
        f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}",
        "# Each element trains runs that no other has claimed, and goes on with those that one has left.",
        f"exec srun --ntasks=1 --cpus-per-task=8 {sys.executable} -m kit run 'my config.yaml' "
        f"--set training.epochs=2 --output {os.path.expanduser('~/out')}",
    ]


@pytest.mark.parametrize(
    ("options", "words", "lacks"),
    [
        ({"gpus": 0}, ["--cpus-per-task=4"], ["--gres", "--time"]),
        ({"time": 600.5}, ["--time=0-00:10:01", "--signal=TERM@60"], []),
        ({"nodes": 1, "cpus": 16}, ["--array=0-0", "--cpus-per-task=16"], []),
        ({"command": "compare"}, ["-m kit compare"], ["-m kit run"]),
    ],
)
def test_other_options(config, options, words, lacks):
    script = slurm_script(config, SlurmOptions(**options)).script
    assert [word for word in words if word not in script] == []
    assert [word for word in lacks if word in script] == []
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"nodes": 0}, "--nodes 0: expected a number from 1"),
        ({"gpus": -1}, "--gpus -1: expected a number from 0"),
        ({"command": "predict"}, "--command predict: expected run or compare"),
        ({"sbatch": ["long"]}, "--sbatch 'long': expected an option of sbatch, like --partition=long"),
        ({"time": "soon"}, "--time soon: expected a time like 90s, 45m, 8h30m or 1d2h, or seconds, more than 0"),
    ],
)
def test_wrong_options(options, told):
    assert refusal_of(lambda: SlurmOptions(**options)) == told


def test_the_script_is_all_of_stdout(config, monkeypatch, capsys):
    code, output, errors = kit_here(
        monkeypatch, capsys, "cluster", "slurm", str(config), "--nodes", "3", "--gpus", "0"
    )
    assert code == 0
    assert output == slurm_script(config, SlurmOptions(3, gpus=0)).script
    assert "the nodes have to share" in errors
    code, output, errors = kit_here(monkeypatch, capsys, "cluster", "slurm", "none.yaml")
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")


@pytest.mark.slow
def test_two_elements_share_out_the_runs(config, tmp_path, monkeypatch):
    """With a stand-in for srun: each run is trained once, and all is as one command gives it."""
    overrides = ["data.workers=0"]
    alone = run(load_experiment(config, overrides), tmp_path / "alone")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    (tmp_path / "bin/srun").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    script = slurm_script(config, SlurmOptions(2, "1h", gpus=0), overrides, output="out").script
    (tmp_path / "job.sh").write_text(script)
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # they change bits
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    elements = [
        subprocess.Popen(
            ["bash", "job.sh"],
            env=os.environ | threads | {"PATH": path, "SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    printed = [element.communicate(timeout=300)[0] for element in elements]
    assert [element.returncode for element in elements] == [0, 0], printed
    runs = sorted(path.relative_to(alone.folder) for path in alone.folder.rglob("fold*/oof.parquet"))
    assert len(runs) > 1
    for run_file in (*runs, "uniform/oof.parquet", "uniform/test.parquet"):
        assert (tmp_path / "out/runs/tiny" / run_file).read_bytes() == (alone.folder / run_file).read_bytes()
    for number in range(len(runs)):
        assert sum(text.count(f"uniform seed 0 fold {number}: macro F1") for text in printed) == 1
