"""The command line of `python -m kit cluster …`: parse, call, print."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kit.cli.options import Config, Output, Overrides, Policies
from kit.cli.output import Commands, give

if TYPE_CHECKING:  # for annotations alone: --help has to be fast
    from kit.experiment.cluster.slurm import SlurmScript

cluster_app = Commands(
    help="The experiment on several machines: a script for Slurm.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cluster_app.callback()
def _group() -> None:
    """Keep the command's name: of a group with one command typer would drop it."""


@cluster_app.command()
def slurm(
    config: Config,
    nodes: Annotated[int, typer.Option(min=1, metavar="N", help="Commands side by side.")] = 2,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of each, like 8h30m; left out: the partition's default."),
    ] = None,
    gpus: Annotated[int, typer.Option(min=0, metavar="N", help="Of each; 0: it trains on the CPU.")] = 1,
    cpus: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of each; left out: data workers and one, for each GPU."),
    ] = None,
    command: Annotated[
        Literal["run", "compare"], typer.Option(help="What each starts.", show_default=True)
    ] = "run",
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="A further one of sbatch: --sbatch=--partition=long; repeatable."),
    ] = None,
    overrides: Overrides = None,
    policy: Policies = None,
    output: Output = ".",
) -> None:
    """Print a script for sbatch: an array of `kit run`s that work on one folder, which the nodes share."""
    from kit.experiment.cluster.slurm import SlurmOptions, slurm_script

    options = SlurmOptions(nodes, time, gpus, cpus, command, tuple(sbatch or ()))
    give(slurm_script(config, options, overrides or (), policy or (), output), _show_script)


def _show_script(made: "SlurmScript") -> None:
    """Print the script on stdout, which is to become a file, and the notes on stderr."""
    print(made.script, end="")
    print(*made.notes, sep="\n", file=sys.stderr)
