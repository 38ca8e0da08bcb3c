"""What views give and cost, as a table on the terminal."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # for annotations alone
    from kit.comparison.compare_views import ViewsResult


def show_views(found: "ViewsResult") -> None:
    """Print a row for each choice of views, what choosing the best honestly gives, and the notes."""
    print(
        f"{found.experiment}, {found.policy}: {found.metric} of {found.rows} out-of-fold rows, "
        f"{found.models} model{'s' * (found.models != 1)}"
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("views", "score", "to plain", f"{found.level:.0%} interval", "s / 1,000", "cost"):
        table.add_column(name, justify="left" if name == "views" else "right", no_wrap=name != "views")
    for each in found.candidates:
        plain = each is found.candidates[0]
        table.add_row(
            escape(each.name),
            f"{each.score:.4f}",
            "" if plain else f"{each.difference:+.4f}",
            "" if plain else f"{each.low:+.4f} … {each.high:+.4f}",
            f"{each.seconds:.2f}",
            f"× {each.cost:.1f}",
        )
    Console().print(table)
    for line in found.remarks():
        print(line)
