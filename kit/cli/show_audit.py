"""An audit as tables on the terminal: what to do comes last, where one looks first."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kit.core.errors import some

if TYPE_CHECKING:  # for annotations alone
    import pandas as pd

    from kit.competition.find_groups import SuspectedGroups
    from kit.report.audit import Audit

FULL = 30  # classes, up to which all are shown
RAREST = 10  # that are shown where there are more
PAIRS = 15


def show_audit(audit: "Audit") -> None:
    """Print images, classes and folds, duplicates, row groups; then what to do."""
    _show_images(audit)
    _show_classes(audit)
    _show_pairs(audit)
    _show_suspects(audit.suspects)
    if audit.picture:
        print(f"The pairs as a picture: {audit.picture}")
    if not audit.advice:
        print("What to do: nothing; no fault was found.")
        return
    print("What to do:")
    for number, line in enumerate(audit.advice, 1):
        print(f"{number}. {line}")


def _show_images(audit: "Audit") -> None:
    caption = "width and height: smallest / median / largest; sizes: distinct ones; flat: one grey level, nearly"
    _print(audit.sizes, "Images", caption)
    _print(audit.kinds)
    if len(audit.broken):
        _print(audit.broken.head(PAIRS), f"Images that cannot be read ({len(audit.broken)})")


def _show_classes(audit: "Audit") -> None:
    """Print the rows of each class and fold; of many classes those of the rarest."""
    classes, caption = audit.classes, "rows of each class in each fold"
    title = f"{audit.rows} rows of {len(classes)} classes"
    if (classes["name"] == classes["class"]).all():
        classes = classes.drop(columns="name")
    if len(classes) > FULL:
        rows = classes["rows"]
        title += f", {rows.min()} to {rows.max()} rows each (median {rows.median():.0f})"
        caption += f"; the {RAREST} rarest"
        classes = classes.sort_values("rows", kind="stable").head(RAREST)
    _print(classes, title, caption)
    if len(audit.folds):
        what = "fewest and most: rows of a class; without: classes of which it holds no row"
        _print(audit.folds, f"{audit.k} folds", what)
    if len(audit.rare):
        counted = "groups" if "groups" in audit.rare else "rows"
        print(f"Rare, fewer {counted} than folds: {some(audit.rare['class'])}\n")


def _show_pairs(audit: "Audit") -> None:
    """Print how many images are alike, and the first pairs."""
    import pandas as pd

    from kit.report.audit_tables import first_pairs

    pairs, near = audit.pairs, "the same pixels"
    if audit.setting != "exact":
        near = f"the same pixels, or at most {audit.setting} of 64 bits and a correlation of .95"
    if pairs.empty:
        print(f"No images are alike ({near}).\n")
        return
    inside, across = pairs[~pairs["with_test"]], pairs[pairs["with_test"]]
    print(f"Images that are alike ({near}):")
    print(
        f"  inside train {len(inside)} pairs, {inside['same_pixels'].sum()} of the same pixels; "
        f"{inside['labels_differ'].sum()} with different labels; {inside['spans_folds'].sum()} span folds"
    )
    print(f"  train with test {len(across)} pairs, {across['same_pixels'].sum()} of the same pixels\n")
    _print(audit.pair_kinds, "Pairs of each kind", "other label: of two train images with different labels")
    shown = first_pairs(pairs, PAIRS)
    columns = {
        "first": shown["first"],
        "label": shown["first_label"],
        "second": shown["second"],
        "its label": shown["second_label"].where(~shown["with_test"], "(test)"),
        "how near": ["same pixels" if pair.same_pixels else f"{pair.bits} bits" for pair in shown.itertuples()],
        "": [", ".join(_remarks(pair)) for pair in shown.itertuples()],
    }
    more = f"{len(pairs) - len(shown)} more" if len(pairs) > len(shown) else ""
    _print(pd.DataFrame(columns), "Different labels first, then train, then test", more)


def _remarks(pair: Any) -> list[str]:
    """Return what is to be said of a row of the table of pairs."""
    remarks = {"different labels": pair.labels_differ, "span folds": pair.spans_folds}
    return [text for text, holds in remarks.items() if holds]


def _show_suspects(suspects: "list[SuspectedGroups]") -> None:
    if not suspects:
        print("No column, beginning of ids or run of ids looks like groups.\n")
        return
    for suspect in suspects:
        size = f"{suspect.groups} groups, {suspect.typical:.0f} rows in the median one, {suspect.largest} at most"
        print(f"Groups by {suspect.what}: {size}\n  {suspect.evidence}")
        print(f"  set {suspect.setting}\n" if suspect.setting else "  the config has set them; nothing to do\n")


def _print(frame: "pd.DataFrame", title: str | None = None, caption: str = "") -> None:
    table = Table(
        title=title and escape(title),
        caption=escape(caption) or None,
        title_justify="left",
        caption_justify="left",
    )
    for column in frame.columns:
        numbers = frame[column].dtype.kind in "iuf"
        table.add_column(escape(str(column)), justify="right" if numbers else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(value)) for value in row))
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)
