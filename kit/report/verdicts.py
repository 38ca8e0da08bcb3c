"""What the page says of comparison.json: which policy wins, and what the comparison took."""

from collections.abc import Sequence

from kit.comparison.record import Comparison, LedgerLine, PolicyComparison, TuningLine, ViewRecord
from kit.comparison.views import VIEWS
from kit.report.blocks import (
    PageSection,
    PageTable,
    PolicyVerdict,
    TableCell,
    count_cell,
    score_cell,
)
from kit.report.material import ReportData
from kit.report.tables import scores_table
from kit.report.text import counted, p_value


def verdict_section(report_data: ReportData) -> PageSection:
    """Return the verdicts in every view; where nothing is compared, the scores and what to do."""
    section = PageSection("verdict", f"Which {report_data.kind} wins")
    comparison = report_data.comparison
    if comparison is None:
        section.lead = _highest_score(report_data)
        section.texts.append(_why_not_compared(report_data))
        section.tables.append(scores_table(report_data))
        return section
    section.lead = comparison.headline
    for view in comparison.views:
        section.verdicts.append((_in_words(view), *_verdicts(view)))
        section.tables.append(_comparison_table(view, comparison))
    section.texts += comparison.missing
    return section


def _why_not_compared(report_data: ReportData) -> str:
    if report_data.outdated:
        return (
            f"The comparison that is there is of {report_data.outdated}, so it is not shown: python -m kit "
            "compare CONFIG makes it anew."
        )
    if len(report_data.policies) > 1 and not report_data.experiments:
        return "Nothing is compared yet: python -m kit compare CONFIG says which policy wins."
    return (
        "With one policy there is nothing to compare: python -m kit compare CONFIG --policies A,B "
        "trains and compares several."
    )


def _highest_score(report_data: ReportData) -> str:
    scored = [(policy.name, policy.scores) for policy in report_data.policies if policy.scores]
    if not scored:
        return "No policy's runs are pooled yet."
    name, scores = max(scored, key=lambda each: each[1].oof)
    runs = counted(len(scores.runs), "run")
    text = f"{name}: pooled out-of-fold {report_data.metric} {scores.oof:.4f} from {runs}"
    return (
        f"{text}."
        if len(scored) == 1
        else f"{text}, the highest of {len(scored)} policies; this is no comparison."
    )


def _in_words(view: ViewRecord) -> str:
    return VIEWS.get(view.name, view.name)


def _verdicts(view: ViewRecord) -> tuple[str, list[PolicyVerdict]]:
    """Return what a view is, and a verdict for each policy that is compared in it or diverged."""
    verdicts = [PolicyVerdict(each.policy, each.verdict, _sentence(each)) for each in view.comparisons]
    verdicts += [
        PolicyVerdict(each.policy, "diverged", f"{each.sentence.removeprefix(each.policy)}.")
        for each in view.diverged
    ]
    return " ".join(filter(None, (view.about, view.note))), verdicts


def _sentence(comparison: PolicyComparison) -> str:
    """Return a sentence that begins with the verdict and ends with a full stop."""
    verdict, sentence = comparison.verdict, comparison.sentence.rstrip(".")
    return f"{sentence}." if sentence.startswith(verdict) else f"{verdict}: {sentence}."


def _comparison_table(view: ViewRecord, comparison: Comparison) -> PageTable:
    against = {each.policy: each for each in view.comparisons}
    rows = []
    for scored in view.policies:
        row = [TableCell(scored.policy), score_cell(scored.oof), score_cell(scored.mean)]
        if each := against.get(scored.policy):
            row += _difference_cells(each)
        else:
            last = "baseline" if scored.policy == comparison.baseline else "—"
            row += [TableCell("—")] * 4 + [TableCell(last)]
        rows.append(row)
    rows += [[TableCell(each.policy), *[TableCell("—")] * 6, TableCell("diverged")] for each in view.diverged]
    columns = [
        (comparison.kind, False), ("pooled OOF", True), ("mean of runs", True), ("difference", True),
        (f"{comparison.level:.0%} interval", True), ("Holm p", True), ("smallest detectable", True),
        ("verdict", False),
    ]  # fmt: skip
    caption = f"{_in_words(view).capitalize()}: {comparison.metric}."
    return PageTable(f"comparison-{view.name}", columns, rows, caption)


def _difference_cells(comparison: PolicyComparison) -> list[TableCell]:
    """Return the cells from the difference to the verdict."""
    difference, interval = comparison.difference, comparison.interval
    return [
        TableCell(f"{difference:+.4f}", difference),
        TableCell(f"{interval.low:+.4f} to {interval.high:+.4f}", interval.low) if interval else TableCell("—"),
        _p_cell(comparison.p_holm),
        score_cell(comparison.smallest_detectable),
        TableCell(comparison.verdict),
    ]


def _p_cell(value: float | None) -> TableCell:
    return TableCell("—") if value is None else TableCell(p_value(value), value)


def training_cost(comparison: Comparison) -> str:
    """Return how long all trainings took that were compared."""
    return (
        f"All trainings that were compared, tuning among them: {comparison.seconds:.0f} seconds; at most "
        f"{comparison.updates} updates each."
    )


def training_tables(comparison: Comparison) -> list[PageTable]:
    """Return the tables of how many trainings each policy was given, and of those that tuned a rate."""
    tables = []
    if comparison.ledger:
        tables.append(_ledger_table(comparison.ledger))
    if comparison.tuning:
        tables.append(_tuning_table(comparison.tuning))
    return tables


def _ledger_table(lines: Sequence[LedgerLine]) -> PageTable:
    kinds = ("raw", "tuning", "tuned", "equalised", "total")
    rows = []
    for line in lines:
        chosen = ", ".join(f"fold {fold}: {rate:g}" for fold, rate in line.chosen.items())
        tried = ", ".join(f"{rate:g}" for rate in line.rates)
        rows.append(
            [
                TableCell(line.policy),
                *(count_cell(getattr(line, kind)) for kind in kinds),
                TableCell(tried or "—"),
                TableCell(chosen or "—"),
            ]
        )
    columns = [("policy", False), *((kind, True) for kind in kinds), ("rates tried", False), ("chosen", False)]
    return PageTable("ledger", columns, rows, "How many trainings each policy was given, and for what.")


def _tuning_table(trials: Sequence[TuningLine]) -> PageTable:
    rows = [
        [
            TableCell(trial.policy),
            TableCell(f"{trial.rate:g}", trial.rate),
            count_cell(trial.fold),
            count_cell(trial.seed),
            TableCell("diverged") if trial.score is None else score_cell(trial.score),
        ]
        for trial in trials
    ]
    columns = [("policy", False), ("rate", True), ("fold", True), ("seed", True), ("score", True)]
    return PageTable("tuning", columns, rows, "Trainings that tuned the peak rate.")
