"""Column names as tables have them and as the config names them."""

from collections.abc import Iterable, Sequence

import pandas as pd

from kit.competition.spelling import Spelling, plain
from kit.core.errors import KitError, some


def column_named(columns: Iterable[str], name: str) -> str | None:
    """Return the column that a name means: the same, or the only one that differs in odd spaces; else None."""
    columns = list(columns)
    if name in columns:
        return name
    alike = [column for column in columns if plain(column) == plain(name)]
    return alike[0] if len(alike) == 1 else None


def plainly_named(
    table: pd.DataFrame, wanted: Sequence[str], place: str, labels: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Return a table whose columns are called as the config calls them, else without odd spaces, and what to tell.

    Parameters
    ----------
    table : DataFrame
    wanted : sequence of str
        The columns that the config names.
    place : str
        Where the table is, for messages.
    labels : sequence of str
        Columns that are labels: which text is which of them, `Spelling` says.

    Raises
    ------
    KitError
        Where two columns may be meant by one name.
    """
    known = [Spelling(each, apart=True) for each in (wanted, labels)]
    names = {
        column: next((each.labels[at] for each in known if (at := each.place(column)) is not None), plain(column))
        for column in table.columns
    }
    meant: dict[str, list[str]] = {}
    for column, name in names.items():
        meant.setdefault(name, []).append(column)
    for name, several in meant.items():
        if len(several) > 1 and (name in wanted or name in labels):
            raise KitError(
                f"{place}: the columns {some(map(repr, several))} have one name but for its spelling; rename one"
            )
    # What is named twice without its spaces, and by nobody, keeps them.
    renamed = {column: name for column, name in names.items() if column != name and len(meant[name]) == 1}
    if not renamed:
        return table, []
    told = [f"{column!r} as {name}" for column, name in renamed.items()]
    return table.rename(columns=renamed), [f"{place}: columns are read under plain names: {some(told, 5)}"]
