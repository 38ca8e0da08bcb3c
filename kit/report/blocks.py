"""What the page is made of: a section and its blocks, which page.html knows how to show."""

import math
from dataclasses import dataclass, field

from kit.report.figures.drawing import Figure, LegendEntry
from kit.report.material import Thumbnail


@dataclass(frozen=True)
class TableCell:
    """A cell: the text in it, and the number that it is sorted by where it is one."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class PageTable:
    """A table that the reader can sort.

    Attributes
    ----------
    name : str
        Unique on the page.
    columns : list of tuple of (str, bool)
        The name of each column, and whether it holds numbers.
    rows : list of list of TableCell
        A cell for each column.
    caption : str
        Stands above the table.
    """

    name: str
    columns: list[tuple[str, bool]]
    rows: list[list[TableCell]]
    caption: str


@dataclass(frozen=True)
class PolicyVerdict:
    """The verdict about one policy, as a word and as a sentence."""

    policy: str
    verdict: str
    sentence: str


@dataclass
class PageSection:
    """A section of the page; its blocks are shown in the order of the attributes from `lead` on.

    Attributes
    ----------
    name : str
        Unique on the page.
    title : str
        The heading.
    lead : str
        The most important sentence, in large letters.
    verdicts : list of tuple of (str, str, list of PolicyVerdict)
        For each view of a comparison: its name, what it is, and the verdicts.
    texts : list of str
        Paragraphs.
    figures : list of Figure
        Figures of the page's width.
    cards : list of tuple of (str, tuple of LegendEntry, list of Figure)
        For each group of small figures: what they show, the legend that they share, and the figures.
    tables : list of PageTable
        Tables.
    thumbnails : list of Thumbnail
        Images.
    folded : list of tuple of (str, str)
        For each text that a click unfolds: its title and the text.
    """

    name: str
    title: str
    lead: str = ""
    verdicts: list[tuple[str, str, list[PolicyVerdict]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    cards: list[tuple[str, tuple[LegendEntry, ...], list[Figure]]] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    thumbnails: list[Thumbnail] = field(default_factory=list)
    folded: list[tuple[str, str]] = field(default_factory=list)

    @property
    def all_figures(self) -> list[Figure]:
        """All figures of the section, those on cards among them."""
        return [*self.figures, *(figure for _, _, cards in self.cards for figure in cards)]


def score_cell(value: float | None) -> TableCell:
    """Return a cell with a number to four decimals; a dash where there is none."""
    return TableCell("—") if value is None or not math.isfinite(value) else TableCell(f"{value:.4f}", float(value))


def count_cell(value: int) -> TableCell:
    """Return a cell with a whole number."""
    return TableCell(str(value), int(value))
