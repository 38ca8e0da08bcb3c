"""The command line: its commands in the order of --help, and what becomes of errors."""

import os
import sys

import typer

from kit.cli.cluster import cluster_app
from kit.cli.hand_in import blend, fetch_data, grade, submissions, submit
from kit.cli.kernel import kernel_app
from kit.cli.look import audit, doctor, find_lr, init, lr, policies, probe, report, views
from kit.cli.output import Commands, all_printed, lines_of, print_errors, prints
from kit.cli.train import compare, features, predict, pseudo, run, soup
from kit.core.errors import KitError, some
from kit.core.stopping import OUT_OF_TIME, Stopped, handled

app = Commands(
    name="kit",
    help="Train fold models under a learning-rate policy, score them out of fold, hand in a submission.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    init,
    run,
    compare,
    features,
    report,
    probe,
    predict,
    audit,
    policies,
    lr,
    find_lr,
    fetch_data,
    submit,
    blend,
    soup,
    views,
    pseudo,
    submissions,
    grade,
    doctor,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(kernel_app, name="kernel")
app.add_typer(cluster_app, name="cluster")

SHARED = ("run", "compare", "find-lr", "lr", "predict")  # commands that several processes carry out together


@app.callback()
def _need_one_process(context: typer.Context) -> None:
    """Refuse to do with several processes, by torchrun, what each would do by itself."""
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        command = context.invoked_subcommand
        if command not in SHARED:
            if not prints():
                raise typer.Exit(1)
            raise KitError(f"{command} takes one process; torchrun is for {some(SHARED)}")


def main() -> None:
    """Runs the command line; errors, and what a signal stops, become lines on stderr and exit codes."""
    try:
        with all_printed(), handled():
            app()
    except Stopped as stopped:
        if stopped.code == OUT_OF_TIME:  # nobody asked for that
            print_errors(lines_of(stopped))
        elif prints():
            print(stopped, file=sys.stderr)
        sys.exit(stopped.code)
    except Exception as error:
        if not (lines := lines_of(error)):
            raise
        print_errors(lines)
        sys.exit(1)
