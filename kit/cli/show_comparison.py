"""A comparison of policies as tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from kit.comparison.costs import COST_COLUMNS, COSTS, cost_cells
from kit.comparison.differs import differing_in_words, in_a_line
from kit.comparison.record import ExperimentComparison
from kit.comparison.statistics import signed
from kit.comparison.views import VIEWS
from kit.report.text import p_value

if TYPE_CHECKING:  # for annotations alone
    from kit.comparison.compare import CompareResult
    from kit.comparison.record import Comparison, LedgerLine, ViewRecord

MOST_LETTERS = 32  # of a name before it is broken
POOLED = "Pooled: predictions averaged over seeds, scored once; differences and verdicts are of single runs."


def show_comparison(compared: "CompareResult") -> None:
    """Print a table a view, each verdict in words, what the trainings were or cost, and the headline.

    Of experiments, what differs comes first.
    """
    content = compared.content
    if isinstance(content, ExperimentComparison):
        print(differing_in_words(content.experiments, content.differs))
        for key in content.differs:
            print(f"  {in_a_line(key)}")
    for view in content.views:
        _show_view(view, content)
    for line in content.missing:
        print(line)
    if len(content.devices) > 1:
        print("Runs by kind of device: " + "; ".join(f"{kind}: {runs}" for kind, runs in content.devices.items()))
    if isinstance(content, ExperimentComparison):
        Console().print(_costs_table(content))
    else:
        Console().print(_ledger_table(content.ledger))
    print(content.headline)
    print(f"Everything else: {compared.folder}")


def _show_view(view: "ViewRecord", content: "Comparison") -> None:
    Console().print(_view_table(view, content))
    for line in (view.about, POOLED, view.note):
        if line:
            print(line)
    for each in view.comparisons:
        named = "" if each.sentence.startswith(each.policy) else f"{each.policy}: "
        print(f"  {named}{each.sentence}")
    for diverged in view.diverged:
        print(f"  {diverged.sentence}")
    print()


def _view_table(view: "ViewRecord", content: "Comparison") -> Table:
    """Return the scores of a view, and the differences to the baseline."""
    level = f"{content.level:.0%}"
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=escape(f"{VIEWS[view.name]}: {content.metric} against {content.baseline}"),
    )
    kind = content.kind
    for column in (kind, "pooled", "runs", "diff.", f"{level} interval", "Holm p", "verdict"):
        words = column in (kind, "verdict")
        named = column == "policy"  # names of experiments may be long
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=named)
    by_policy = {each.policy: each for each in view.policies}
    base = by_policy[content.baseline]
    table.add_row(escape(base.policy), f"{base.oof:.3f}", f"{base.mean:.3f}", "", "", "", "baseline")
    for each in view.comparisons:
        scored, interval = by_policy[each.policy], each.interval
        table.add_row(
            escape(each.policy),
            f"{scored.oof:.3f}",
            f"{scored.mean:.3f}",
            signed(each.difference),
            f"{signed(interval.low)}…{signed(interval.high)}" if interval else "none",
            "" if each.p_holm is None else p_value(each.p_holm),
            each.verdict,
        )
    for diverged in view.diverged:
        table.add_row(escape(diverged.policy), "", "", "", "", "", "diverged")
    _leave_room_for_names(table, content)
    return table


def _leave_room_for_names(table: Table, content: "Comparison") -> None:
    """Keep names of experiments in one line, where the other columns still fit beside them."""
    if not isinstance(content, ExperimentComparison):
        return
    console = Console()
    table.columns[0].min_width = min(max(len(each.name) for each in content.experiments), MOST_LETTERS)
    if Measurement.get(console, console.options.update(width=1000), table).maximum > console.width:
        table.columns[0].min_width = None  # names are broken, else the last columns would be cut off


def _costs_table(content: ExperimentComparison) -> Table:
    """Return what a run of each experiment took."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="what a run took", caption=COSTS)
    for column in COST_COLUMNS:
        table.add_column(column, justify="left" if column == "experiment" else "right", overflow="fold")
    for line in content.costs:
        table.add_row(*map(escape, cost_cells(line)))
    _leave_room_for_names(table, content)
    return table


def _ledger_table(lines: "Sequence[LedgerLine]") -> Table:
    """Return how many trainings each policy was given, and for what."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="trainings given to each policy",
        caption="a training that serves several purposes counts once in total",
    )
    tuned = any(line.tuning for line in lines)
    equalised = any(line.equalised for line in lines)
    kinds = ["raw", *(["tuning", "tuned"] if tuned else []), *(["equalised"] if equalised else []), "total"]
    for column in ("policy", *kinds, *(["rates chosen"] if tuned else [])):
        table.add_column(column, justify="left" if column in ("policy", "rates chosen") else "right")
    for line in lines:
        rates = ", ".join(f"{rate:g}" for rate in sorted(set(line.chosen.values())))
        table.add_row(
            escape(line.policy), *(str(getattr(line, kind)) for kind in kinds), *([rates] if tuned else [])
        )
    return table
