"""A script for Slurm: an array of `kit run`s that share out the runs of an experiment by their claims."""

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import kit
from kit.core.durations import duration
from kit.core.errors import KitError
from kit.experiment.config import ExperimentConfig, load_experiment

WARNING_SECONDS = 300  # before the end of its time a command is asked to stop at its next checkpoint
SHARE_OF_TIME = 0.1  # or this share of it, where that is less; Slurm looks about once a minute
AUTO_WORKERS = 4  # processors for the data workers of a run where their number is `auto`


@dataclass(frozen=True)
class SlurmOptions:
    """What to ask Slurm for.

    Attributes
    ----------
    nodes : int
        Commands that work side by side, as elements of an array; each may get a node of its own.
    time : float or str, optional
        Seconds, or text like 8h30m, after which Slurm ends them; left out: the partition's default.
    gpus : int
        Of each command; it trains one run on each.
    cpus : int, optional
        Of each command; left out: the data workers of a run, and one, for each GPU.
    command : str
        run, or compare.
    sbatch : sequence of str
        Further options of sbatch, like --partition=long.
    """

    nodes: int = 2
    time: float | str | None = None
    gpus: int = 1
    cpus: int | None = None
    command: Literal["run", "compare"] = "run"
    sbatch: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value, least in (("nodes", self.nodes, 1), ("gpus", self.gpus, 0), ("cpus", self.cpus or 1, 1)):
            if value < least:
                raise KitError(f"--{name} {value}: expected a number from {least}")
        if self.command not in ("run", "compare"):
            raise KitError(f"--command {self.command}: expected run or compare")
        for words in self.sbatch:
            if not words.startswith("-") or "\n" in words:
                raise KitError(f"--sbatch {words!r}: expected an option of sbatch, like --partition=long")
        _ = self.seconds

    @property
    def seconds(self) -> int | None:
        """Seconds that each command has; None where the partition says it."""
        try:
            return None if self.time is None else math.ceil(duration(self.time))
        except KitError as error:
            raise KitError(f"--time {error}") from error


@dataclass(frozen=True)
class SlurmScript:
    """A script for `sbatch`.

    Attributes
    ----------
    script : str
        Its lines.
    notes : tuple of str
        What has to be so for it to work.
    """

    script: str
    notes: tuple[str, ...]


def slurm_script(
    config: str | Path,
    options: SlurmOptions | None = None,
    overrides: Sequence[str] = (),
    policies: Sequence[str] = (),
    output: str | Path = ".",
) -> SlurmScript:
    """Return a script that starts several `kit run`s of one experiment on a folder that the nodes share.

    Parameters
    ----------
    config : path
        A YAML file.
    options : SlurmOptions, optional
        What to ask for.
    overrides, policies : sequence of str
        As `kit run` takes them behind --set and --policy.
    output : path
        As `kit run` takes it; the nodes have to share it.

    Returns
    -------
    SlurmScript

    Raises
    ------
    KitError
        For a config that cannot be read, and for options that cannot be.
    """
    options = options or SlurmOptions()
    experiment = load_experiment(config, list(overrides), list(policies))
    words = [sys.executable, "-m", "kit", options.command, str(config)]
    words += [word for text in overrides for word in ("--set", text)]
    words += [f"--policies={','.join(policies)}"] if policies and options.command == "compare" else []
    words += [word for text in policies for word in ("--policy", text) if options.command == "run"]
    words += ["--output", str(Path(output).expanduser())]
    cpus, here, root = _cpus(experiment, options), Path.cwd(), Path(kit.__file__).resolve().parents[1]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {words}" for words in _asked_for(experiment.name, cpus, options)),
        "set -euo pipefail",
        f"cd {shlex.quote(str(here))}",
        f"export PYTHONPATH={shlex.quote(str(root))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "# Each element trains runs that no other has claimed, and goes on with those that one has left.",
        f"exec srun --ntasks=1 --cpus-per-task={cpus} {shlex.join(words)}",
    ]
    notes = (
        f"the nodes have to share {here}, the output folder and the data, and {sys.executable} with its libraries",
        "next: put the script into a file, and sbatch FILE; once more goes on with what was ended before its time",
    )
    return SlurmScript("\n".join(lines) + "\n", notes)


def _asked_for(name: str, cpus: int, options: SlurmOptions) -> list[str]:
    """Return the options of sbatch; those of the user come last and win."""
    warning, asked = (
        WARNING_SECONDS,
        [f"--job-name={shlex.quote(f'kit-{name}')}", f"--array=0-{options.nodes - 1}"],
    )
    asked += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}"]
    if options.gpus:
        asked.append(f"--gres=gpu:{options.gpus}")
    if seconds := options.seconds:
        warning = min(warning, max(1, int(SHARE_OF_TIME * seconds)))
        days, rest = divmod(seconds, 86400)
        asked.append(f"--time={days}-{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}")
    # Not to the shell, but to the command: it stops at its next checkpoint.
    asked += [f"--signal=TERM@{warning}", "--requeue", "--open-mode=append", "--output=slurm-%A_%a.log"]
    return [*asked, *options.sbatch]


def _cpus(experiment: ExperimentConfig, options: SlurmOptions) -> int:
    """Return the processors of a command: of each of its runs, one a GPU, the process and its data workers."""
    workers = experiment.data.workers
    each = 1 + (AUTO_WORKERS if workers == "auto" else int(workers))
    return options.cpus or max(1, options.gpus) * each
