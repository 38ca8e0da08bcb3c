"""A result as tables on the terminal."""

from rich.console import Console
from rich.table import Table

from kit.experiment import Result


def show_result(result: Result, metric: str) -> None:
    """Scores of each policy, the classes of each, and where the files are."""
    console = Console()
    if not result.trained:
        console.print(f"Nothing to train: all {result.kept} runs of {result.folder} are finished.")
    for policy, outcome in result.policies.items():
        scores = outcome.scores
        console.print(_classes(policy, outcome.per_class, metric))
        folds = ", ".join(f"{run['score']:.4f}" for run in scores["runs"])
        console.print(f"{policy}: {metric} of the folds: {folds}", highlight=False)
        part = "" if scores["oof_rows"] == scores["train_rows"] else f" of {scores['train_rows']}"
        console.print(
            f"{policy}: pooled out-of-fold {metric} [bold]{scores['oof']:.4f}[/bold] "
            f"({scores['oof_rows']}{part} rows)",
            highlight=False,
        )
        if part:
            console.print(f"{policy}: only some folds were run, so this is no score of the whole train table")
        console.print(f"{policy}: submission {outcome.submission}", highlight=False, soft_wrap=True)
    console.print(f"Everything else: {result.folder}", highlight=False, soft_wrap=True)


def _classes(policy: str, frame, metric: str) -> Table:
    table = Table(title=f"{policy}, out of fold")
    for column in frame.columns:
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    return table
