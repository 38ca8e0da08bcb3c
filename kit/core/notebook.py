"""How results show themselves in a notebook: as tables, and as pictures."""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.core.plotting import DPI, save

if TYPE_CHECKING:  # for annotations alone
    import pandas as pd
    from matplotlib.figure import Figure

MOST_ROWS = 60


class ShownAsTables:
    """A result that a notebook shows as tables; in a program it is what it is."""

    def tables(self) -> Mapping[str, "pd.DataFrame"]:
        """Return what is shown: title → table."""
        raise NotImplementedError

    def remarks(self) -> Sequence[str]:
        """Return the lines below the tables."""
        return ()

    def _repr_html_(self) -> str:
        parts = [_as_html(title, table) for title, table in self.tables().items() if len(table)]
        return "\n".join([*parts, *(f"<p>{html.escape(line)}</p>" for line in self.remarks())])


def _as_html(title: str, table: "pd.DataFrame") -> str:
    heading = f"<p><b>{html.escape(title)}</b></p>\n" if title else ""
    return heading + table.to_html(index=False, na_rep="", max_rows=MOST_ROWS, float_format="{:.4g}".format)


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows, whether or not pyplot was ever imported."""

    figure: "Figure"

    def save(self, path: str | Path) -> None:
        """Save it in the format that the file's suffix names: .png, .pdf or .svg."""
        save(self.figure, Path(path))

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.figure.savefig(written, dpi=DPI, format="png")
        return written.getvalue()
