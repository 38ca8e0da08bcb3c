"""The commands that look at data, policies, runs and this machine: parse, call, print."""

from typing import Annotated

import typer

from kit.cli.options import Config, DataRoot, On, Overrides, Policies, run_options
from kit.cli.output import give, prints, say
from kit.core.errors import KitError
from kit.model.imports import explain_broken_imports


def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A competition's: tables and images.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The config to write; left out: the folder's name and .yaml."
        ),
    ] = None,
) -> None:
    """Look at a folder and write a first config: what was found, with guesses and questions in its comments."""
    from kit.cli.show import show_first_config
    from kit.experiment.init import init

    made = init(folder, output)
    give(made, show_first_config)
    if made.fault:
        raise KitError(f"{made.config} is written, but does not load yet; {made.fault}")


def audit(
    config: Config,
    overrides: Overrides = None,
    png: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw near-identical pairs there, not in OUTPUT/audit-NAME.png."),
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds cache/.")] = ".",
) -> None:
    """Look at the data before training: balance, duplicates, groups, sizes, broken files, and what to set."""
    from kit.core.files import need_output
    from kit.experiment.config import load_experiment

    experiment = load_experiment(config, overrides or [])
    need_output("--png", png, (".png", ".svg", ".pdf"))
    explain_broken_imports()
    from kit.cli.show_audit import show_audit
    from kit.report.audit import audit

    give(audit(experiment, output, png), show_audit)


def policies(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="List those beside it, too.")] = None,
) -> None:
    """List the ready policies, and what policies can be made of, with a sentence each."""
    from kit.cli.show import show_policies
    from kit.lr.registry import policies

    give(policies(config), lambda listed: show_policies(listed.ready, listed.blocks))


def lr(
    config: Config,
    overrides: Overrides = None,
    policy: Policies = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write the step × group matrix there.")] = None,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw lines and a heat map there.")] = None,
) -> None:
    """Show what a policy does to every depth group, step by step, without training."""
    from kit.core.files import need_output
    from kit.experiment.config import load_experiment

    experiment = load_experiment(config, overrides or [], policy or [])
    need_output("--csv", csv, (".csv",))
    need_output("--png", png, (".png", ".svg", ".pdf"))
    explain_broken_imports()
    from kit.cli.show import show_previews
    from kit.experiment.preview import draw, preview, write_table

    previewed = preview(experiment)
    give(previewed, show_previews)
    if csv and prints():
        write_table(previewed.policies, csv)
    if png and prints():
        draw(previewed.policies, png)


def find_lr(
    config: Config,
    overrides: Overrides = None,
    policy: Policies = None,
    start: Annotated[float, typer.Option(help="The first peak rate.")] = 1e-7,
    end: Annotated[float, typer.Option(help="The last peak rate.")] = 10.0,
    steps: Annotated[int, typer.Option(help="Updates from the first to the last.")] = 100,
    by_depth: Annotated[
        bool, typer.Option("--by-depth", help="Each depth group in turn, the others at the policy's rates.")
    ] = False,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write rates and losses there.")] = None,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the loss over the rate there.")] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds cache/.")] = ".",
    on: On = None,
    data_root: DataRoot = None,
) -> None:
    """Range test: raise all rates together until the loss diverges, and suggest a peak rate."""
    from kit.core.files import need_output
    from kit.experiment.config import load_experiment

    experiment = load_experiment(config, overrides or [], policy or [])
    need_output("--csv", csv, (".csv",))
    need_output("--png", png, (".png", ".svg", ".pdf"))
    explain_broken_imports()
    from kit.cli.show import show_found
    from kit.experiment.find_lr import RangeSearch, draw, find_lr, write_table

    search = RangeSearch(start, end, steps, by_depth)
    options = run_options(output, None, None, False, "auto", None, on=on, data_root=data_root)
    found = find_lr(experiment, search, options, say)
    if csv and prints():
        write_table(found, csv)
    if png and prints():
        draw(found, png)
    give(found, lambda found: show_found(found, experiment.policies[found.policy]))


def report(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Its name in OUTPUT/runs, or its folder.")
    ],
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/ and cache/.")] = ".",
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="Decoded images are there.")] = None,
) -> None:
    """Write report.html: what was compared, what it gave, and what happened inside."""
    from kit.report.gather import write_report

    give(write_report(experiment, output, cache, say), lambda written: print(f"Report: {written.file}"))


def probe(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Folders like runs/thread/uniform/seed0/fold0.")
    ],
    output: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Of the names of the pictures; left out: beside the run, or probes."),
    ] = None,
) -> None:
    """Draw what happened inside: activations over time, learning by depth, the butterfly; several side by side."""
    from kit.report.probes import probe

    give(probe(runs, output), lambda drawn: print(*drawn.files, sep="\n"))


def views(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Its name in OUTPUT/runs, or its folder.")
    ],
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="Left out: the one it began with.")] = None,
    views: Annotated[
        list[str] | None,
        typer.Option(metavar="LIST", help="Like hflip,d4,hflip+scale=0.8,size=280,tiles=2:max,hflip+logits."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N seeds; left out: all.")
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, cache/.")] = ".",
    cache: Annotated[str | None, typer.Option(metavar="DIR", help="Keep decoded images there.")] = None,
) -> None:
    """What views of the images at prediction give on out-of-fold rows, and what they cost."""
    explain_broken_imports()
    from kit.cli.show_views import show_views
    from kit.comparison.compare_views import compare_views

    give(compare_views(experiment, views or (), policy, seeds, output, cache, say=say), show_views)


def doctor(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUNS...]", help="runs/, experiments or single runs: check these instead."),
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Where runs/ and cache/ will be.")] = ".",
) -> None:
    """Check Python, packages, GPU, disk and folders, or the files of runs; and what to do about what is broken."""
    from kit.cli.doctor import doctor

    diagnosis = doctor(output, runs or ())
    if runs:
        from kit.cli.show_runs import show_runs

        give(diagnosis, lambda diagnosis: show_runs(diagnosis.folders))
    else:
        give(diagnosis, lambda diagnosis: print(*diagnosis.findings, sep="\n"))
    if diagnosis.broken:
        raise typer.Exit(1)
