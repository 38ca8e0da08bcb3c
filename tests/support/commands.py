"""The command line as a user types it: in a process of its own, in several, or in this one."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from support.colours import experiment_content

from kit.cli.main import main


def config_file(competition: Path, path: Path, **sections) -> Path:
    path.write_text(yaml.safe_dump(experiment_content(competition, **sections)))
    return path


ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "kit")


def kit_run(config: Path, output: Path, *launcher: str, extra: tuple[str, ...] = (), **keywords):
    command = [*(launcher or (sys.executable, "-m", "kit")), "run", str(config), "--output", str(output), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **keywords)


def kit_together(*words: str | Path) -> subprocess.CompletedProcess:
    """A command in two processes by torchrun, on a machine without a GPU."""
    command, variables = [*TORCHRUN, *map(str, words)], os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=variables)


def kit_here(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """The same in this process, which has imported torch already: (exit code, output, errors)."""
    monkeypatch.setattr(sys, "argv", ["kit", *words])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err
