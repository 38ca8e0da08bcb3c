"""The commands from Kaggle's data to its score: parse, call, print."""

from typing import TYPE_CHECKING, Annotated

import typer

from kit.cli.options import Overrides
from kit.cli.output import give, say

if TYPE_CHECKING:  # for annotations alone: --help has to be fast
    from kit.experiment.grade import Grade
    from kit.kaggle.submission_log import LogEntry


def fetch_data(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="The competition, as in its address on Kaggle.")],
    to: Annotated[str | None, typer.Option(metavar="DIR", help="Left out: data/SLUG.")] = None,
) -> None:
    """Download a competition from Kaggle and unpack it."""
    from kit.kaggle.commands import fetch_data

    give(fetch_data(slug, to, say=say), lambda fetched: None)  # it has said all


def blend(
    members: Annotated[
        list[str],
        typer.Argument(
            metavar="EXPERIMENT...",
            help="Two or more in runs/: EXPERIMENT is the policy it began with, EXPERIMENT/POLICY another; after "
            "the first also a folder with oof.csv and test.csv of another tool.",
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Left out: blend-MEMBER-MEMBER…")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD", help="single, mean, rank mean, greedy or stack; left out: the best but stack."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the first member: scoring.average=micro."),
    ] = None,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, submissions/.")] = ".",
) -> None:
    """Blend experiments by the method with the best cross-fitted score; write the submission."""
    from kit.cli.show import show_blend
    from kit.experiment.blend import blend

    give(blend(members, output, name, method=method, overrides=overrides or [], say=say), show_blend)


def submit(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="A file in submissions/.")] = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="DIR", help="An infer kernel instead, for a code competition.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="CONFIG", help="What FILE is of; left out: the experiment of its name.")
    ] = None,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Left out: the file's name and the CV score.")
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Even if the same was submitted before, or none is left today.")
    ] = False,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds runs/, submissions/.")] = ".",
) -> None:
    """Hand in a submission: validated, logged in submissions/log.csv, waits for the score."""
    from kit.kaggle.commands import submit

    def show(entry: "LogEntry") -> None:
        private = f", private {entry.private}" if entry.private else ""
        cv = f"; CV {entry.cv}" if entry.cv else ""
        print(f"{entry.file}: public score {entry.public or 'none'}{private}{cv}")

    give(
        submit(file, kernel=kernel, config=config, message=message, again=again, output=output, say=say),
        show,
    )


def submissions(
    competition: Annotated[str | None, typer.Option(metavar="SLUG", help="Those to this one alone.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask Kaggle for scores that came later.")] = False,
    output: Annotated[str, typer.Option(metavar="DIR", help="Holds submissions/.")] = ".",
) -> None:
    """Show what was handed in, and whether CV orders it as the public score does."""
    from kit.cli.show_submissions import show_submissions
    from kit.kaggle.commands import list_submissions

    give(list_submissions(competition, refresh=refresh, output=output, say=say), show_submissions)


def grade(
    submission: Annotated[str, typer.Argument(metavar="SUBMISSION", help="A submission file.")],
    solution: Annotated[
        str, typer.Argument(metavar="SOLUTION", help="The test labels: ids and labels, in any order.")
    ],
    config: Annotated[str, typer.Option(metavar="CONFIG", help="Tells label format and metric.")],
    overrides: Overrides = None,
) -> None:
    """The competition's metric of a submission, or precisely why it is invalid."""
    from kit.experiment.config import load_experiment
    from kit.experiment.grade import grade

    def show(graded: "Grade") -> None:
        ignored = f", {graded.ignored} more are ignored" if graded.ignored else ""
        print("\n".join([f"{graded.metric} {graded.value:.4f} ({graded.rows} rows{ignored})", *graded.notes]))

    give(grade(submission, solution, load_experiment(config, overrides or [])), show)
