"""The report as one HTML page: sections of sentences, figures and tables, rendered by page.html.

The page holds everything it needs: Plotly's script (from the installed package, packed), the figures as JSON, the
thumbnails. It asks for nothing over the network.
"""

import base64
import gzip
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kit.report import differs, sections, verdicts
from kit.report.figures.drawing import FONT
from kit.report.material import ReportData

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).with_name("page.html")
SECTIONS = (
    verdicts.verdict_section,
    sections.differences_section,
    sections.folds_section,
    sections.blocks_section,
    sections.curves_section,
    sections.rates_section,
    sections.activations_section,
    sections.learning_section,
    sections.classes_section,
    sections.mistakes_section,
    sections.rules_section,
    sections.runs_section,
)

# What was measured by depth is of networks of one kind; each experiment's own report shows it.
OF_EXPERIMENTS = (
    verdicts.verdict_section,
    differs.differs_section,
    differs.costs_section,
    sections.differences_section,
    sections.folds_section,
    sections.curves_section,
    sections.rates_section,
    sections.classes_section,
    sections.mistakes_section,
    sections.rules_section,
    sections.runs_section,
)

# What heads over features and means of weights have not.
OF_TRAININGS = (
    sections.curves_section,
    sections.rates_section,
    sections.activations_section,
    sections.learning_section,
)

# What only heads have that differ in the block of a body.
OF_BLOCKS = (sections.blocks_section,)


def render(report_data: ReportData) -> str:
    """Return the page as text; the same data give the same page."""
    chosen = OF_EXPERIMENTS if report_data.experiments else SECTIONS
    left_out = [*(() if report_data.trained else OF_TRAININGS), *(() if report_data.blocks else OF_BLOCKS)]
    made = [section(report_data) for section in chosen if section not in left_out]
    figures = [figure for section in made for figure in section.all_figures]
    return _template().render(
        report_data=report_data,
        sections=made,
        content={figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures},
        plotly=_packed_plotly(),
        font=FONT,
    )


@cache
def _template() -> "Template":
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


@cache
def _packed_plotly() -> str:
    """Return Plotly's script, packed, as text; packing it takes longer than all the rest of a page."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
