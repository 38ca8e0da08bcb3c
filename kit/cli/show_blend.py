"""A blend as a table on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # for annotations alone
    from kit.experiment.blend import BlendResult


def show_blend(blended: "BlendResult") -> None:
    """Weights of the members, what each method was worth, the score and the files."""
    record = blended.record
    _print(
        "members",
        ("member", record["metric"], "weight"),
        [
            (each["member"], f"{each['oof']:.4f}", f"{each['weight']:.2f}" if each["weight"] else "·")
            for each in record["members"]
        ],
    )
    _print(
        "methods, weights and rule chosen on the other folds",
        ("method", "rule", record["metric"], "on the rows themselves", "weights"),
        [
            (
                each["method"] + (" ←" if each["chosen"] else ""),
                each["rule"],
                f"{each['cross_fitted']:.4f}",
                f"{each['optimistic']:.4f}",
                " ".join(f"{weight:.2f}" for weight in each["weights"]),
            )
            for each in record["candidates"]
        ],
    )
    rows, of = record["oof_rows"], record["train_rows"]
    part = "" if rows == of else f" of {of}"
    if record["method"] == "single":
        (taken,) = [each["member"] for each in record["members"] if each["weight"]]
        print(f"No blend is better than the best member, so this is {taken}.")
    if record["rule"]["kind"] != "argmax":
        print(f"Decided by {record['rule']['said']}")
    print(f"Out-of-fold {record['metric']} {record['oof']:.4f} ({rows}{part} rows)")
    print(f"Submission: {blended.submission}; everything else: {blended.folder}")


def _print(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=escape(title))
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 or column == "rule" else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if Console().is_terminal else 120).print(table)
