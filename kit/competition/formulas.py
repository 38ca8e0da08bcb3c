"""Cells of CSV files that a spreadsheet would take for formulas, and run.

They are ids and labels of the competition's, which Kaggle wants back as they are: nothing is put before them.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kit.core.errors import some

_BEGINS_ONE = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)([eE][+-]?\d+)?%?")


def formulas_in(cells: Iterable[str]) -> list[str]:
    """Return the cells that begin like a formula (=, +, -, @, a tab, a carriage return); a number is none."""
    found = (cell for cell in map(str, cells) if cell.startswith(_BEGINS_ONE) and len(cell) > 1)
    return [cell for cell in found if not _NUMBER.fullmatch(cell)]


def line_on_formulas(cells: Mapping[Path, Iterable[str]]) -> str | None:
    """Return a line on the cells that would be run as formulas, by the file that they come to stand in.

    Parameters
    ----------
    cells : mapping
        Of each file, the ids and labels that are written into it.

    Returns
    -------
    str or None
        None where there are none.
    """
    found = {path: formulas for path, each in cells.items() if (formulas := formulas_in(each))}
    if not found:
        return None
    counts = some(f"{path} ({len(formulas)}, like {formulas[0]!r})" for path, formulas in found.items())
    return (
        f"ids or labels that a spreadsheet would run as formulas stand in {counts}; they are left as they are, as "
        "Kaggle wants them: open these files as text"
    )
