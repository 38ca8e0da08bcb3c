"""Pseudo-labels, on the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # for annotations alone
    from kit.experiment.pseudo import PseudoResult

LEFT = ("classes",)


def show_pseudo(made: "PseudoResult") -> None:
    """Print what each fold's models labelled, which rounds came before, and what to type next."""
    for title, frame in made.tables().items():
        table = Table(title=escape(title))
        for column in frame.columns:
            table.add_column(column, justify="left" if column in LEFT else "right")
        for row in frame.itertuples(index=False):
            table.add_row(*map(_cell, row))
        Console().print(table)
    if len(made.rounds) > 1:
        print(f"rounds: {' → '.join(made.rounds)}")
    print(f"labels: {made.table}")
    print(f"config of the next round: {made.config}")
    print(*(f"{word}: {command}" for word, command in zip(("next", "then"), made.next, strict=True)), sep="\n")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return escape(str(value))
