"""The log of submissions as a table on the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # for annotations alone
    from kit.kaggle.submission_log import LogEntry
    from kit.kaggle.submissions import SubmissionsOverview


def show_submissions(overview: "SubmissionsOverview") -> None:
    """Print each submission with its scores, the newest last; then whether CV orders them as public scores do."""
    if not overview.rows:
        print("submissions/log.csv holds nothing yet: python -m kit submit FILE hands in a file and logs it")
        return
    table = Table(title="Submissions")
    for column in ("time", "competition", "file", "experiment", "CV", "public", "private", "status"):
        table.add_column(column, justify="right" if column in ("CV", "public", "private") else "left")
    for row in overview.rows:
        cells = (row.time[:16].replace("T", " "), row.competition, row.file, _name(row))
        table.add_row(*map(escape, (*cells, row.cv, row.public, row.private, row.status)))
    Console(width=None if Console().is_terminal else 180).print(table)
    for each in overview.agreements:
        if each.correlation is None:
            print(f"{each.competition}: no rank correlation of CV and public score: {each.reason}")
        else:
            print(
                f"{each.competition}: rank correlation (Spearman) of CV and public score {each.correlation:.2f} "
                f"over {each.pairs} submissions"
            )


def _name(row: "LogEntry") -> str:
    """Return the experiment, with the policy where it is known."""
    return f"{row.experiment}/{row.policy}" if row.policy else row.experiment
