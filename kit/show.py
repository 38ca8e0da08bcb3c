"""A result as tables on the terminal."""

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kit.experiment import Result


def show_result(result: Result, metric: str) -> None:
    """Scores of each policy, the classes of each, and where the files are."""
    if not result.trained:
        print(f"Nothing to train: all {result.kept} runs of {result.folder} are finished.")
    for policy, outcome in result.policies.items():
        scores = outcome.scores
        Console().print(_classes(policy, outcome.per_class))
        folds = ", ".join(f"{run['fold']}/{run['seed']} {run['score']:.4f}" for run in scores["runs"])
        print(f"{policy}: {metric} by fold/seed: {folds}")
        part = "" if scores["oof_rows"] == scores["train_rows"] else f" of {scores['train_rows']}"
        print(f"{policy}: pooled out-of-fold {metric} {scores['oof']:.4f} ({scores['oof_rows']}{part} rows)")
        if part:
            print(f"{policy}: only some folds were run, so this is no score of the whole train table")
        print(f"{policy}: submission {outcome.submission}, the mean of {len(scores['runs'])} models")
    print(f"Everything else: {result.folder}")


def _classes(policy: str, frame: pd.DataFrame) -> Table:
    table = Table(title=escape(f"{policy}, out of fold"))
    for column in frame.columns:
        table.add_column(column, justify="left" if column == "class" else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else escape(str(value)) for value in row))
    return table
