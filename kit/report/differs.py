"""What the page says of compared experiments beside scores: in which keys they differ, and what each took."""

from kit.comparison.costs import COST_COLUMNS, COSTS, CostLine, cost_cells
from kit.comparison.differs import in_short
from kit.comparison.record import ExperimentComparison
from kit.report.blocks import PageSection, PageTable, TableCell
from kit.report.material import ReportData


def differs_section(report_data: ReportData) -> PageSection:
    """Return in which keys the configs differ."""
    section = PageSection("differs", "What differs")
    comparison = report_data.comparison
    if not isinstance(comparison, ExperimentComparison):
        section.texts.append("What differs is told by a comparison of the runs that are there.")
        return section
    names = [each.name for each in comparison.experiments]
    rows = [
        [TableCell(each.key), *(TableCell(in_short(each.values.get(name))) for name in names)]
        for each in comparison.differs
    ]
    if rows:
        columns = [("key", False), *((name, False) for name in names)]
        caption = "Keys of the config whose values differ, defaults among them; a dash: none."
        section.tables.append(PageTable("differs", columns, rows, caption))
    else:
        section.texts.append("Nothing differs but the names.")
    return section


def costs_section(report_data: ReportData) -> PageSection:
    """Return what a run of each experiment took."""
    section = PageSection("costs", "What each took")
    comparison = report_data.comparison
    if not isinstance(comparison, ExperimentComparison):
        section.texts.append("What runs took is told by a comparison of the runs that are there.")
        return section
    columns = [(name, name != COST_COLUMNS[0]) for name in COST_COLUMNS]
    rows = [_cells(line) for line in comparison.costs]
    section.tables.append(PageTable("costs", columns, rows, COSTS))
    return section


def _cells(line: CostLine) -> list[TableCell]:
    values = (
        *(line.runs, line.updates, line.training, line.prediction),
        *(line.image, line.images_per_second, line.parameters),
    )
    first, *others = cost_cells(line)
    return [TableCell(first), *(TableCell(text, value) for text, value in zip(others, values, strict=True))]
