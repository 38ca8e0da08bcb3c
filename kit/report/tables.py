"""The page's tables of what each policy gave: scores, classes, confused pairs, decision rules."""

from collections import Counter

import numpy as np

from kit.report import figures
from kit.report.blocks import PageTable, TableCell, count_cell, score_cell
from kit.report.material import ReportData

MOST_PAIRS = 20  # of labels that are mistaken for each other
MOST_ROWS = 300  # of a table of classes


def scores_table(report_data: ReportData) -> PageTable:
    """Return the pooled score of each policy, and how many of its runs are finished."""
    rows = []
    for policy in report_data.policies:
        scores = policy.scores
        rows.append(
            [
                TableCell(policy.name),
                score_cell(scores.oof if scores else None),
                score_cell(scores.optimistic if scores else None),
                count_cell(len(policy.finished)),
                count_cell(len(policy.records)),
            ]
        )
    columns = ["pooled OOF", "optimistic", "finished runs", "begun"]
    return PageTable("scores", [("policy", False), *((name, True) for name in columns)], rows, "Scores by policy.")


def confused_pairs_table(report_data: ReportData) -> PageTable | None:
    """Return the 20 pairs that the best policy mistakes most; None where a confusion matrix shows them all."""
    if figures.has_confusion_matrix(report_data):
        return None
    if not (shown := figures.best_and_baseline(report_data)):
        return None
    counts = [_confusions(outcome.truth, outcome.predicted) for _, _, outcome in shown]
    foremost = sorted(counts[0], key=lambda pair: (-counts[0][pair], pair))[:MOST_PAIRS]
    rows = [
        [
            TableCell(report_data.names[true]),
            TableCell(report_data.names[taken]),
            *(count_cell(each[true, taken]) for each in counts),
        ]
        for true, taken in foremost
    ]
    first = "missed" if report_data.multilabel else "true"
    second = "predicted without being true" if report_data.multilabel else "predicted"
    columns = [(first, False), (second, False), *((policy.name, True) for _, policy, _ in shown)]
    caption = f"The {len(rows)} pairs that {shown[0][1].name} mistakes most, in rows."
    return PageTable("confused", columns, rows, caption) if rows else None


def _confusions(truth: np.ndarray, predicted: np.ndarray) -> Counter[tuple[int, int]]:
    """Return the number of rows of each pair (true, predicted).

    Where a row may have several labels, each that was missed makes a pair with each that was predicted wrongly.
    """
    if truth.ndim == 1:
        wrong = truth != predicted
        return Counter(zip(truth[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    missed, excess = (truth & ~predicted).astype(np.int64), (predicted & ~truth).astype(np.int64)
    table = missed.T @ excess
    return Counter({(int(i), int(j)): int(table[i, j]) for i, j in zip(*table.nonzero(), strict=True)})


def class_table(report_data: ReportData) -> PageTable | None:
    """Return F of each class under each policy; of many classes the 300 with the lowest. None without scores."""
    tables = {policy.name: figures.class_scores(policy.scores) for policy in report_data.policies if policy.scores}
    tables = {name: table for name, table in tables.items() if table}
    if not tables:
        return None
    known = {key: row for table in reversed(tables.values()) for key, row in table.items()}
    order = list(dict.fromkeys(key for table in tables.values() for key in table))
    caption = "F of each class, by cross-fitted rules, on the pooled out-of-fold rows."
    if len(order) > MOST_ROWS:
        mean = {key: np.mean([table[key][1] for table in tables.values() if key in table]) for key in order}
        order = sorted(order, key=lambda key: (mean[key], key))[:MOST_ROWS]
        caption += f" The {MOST_ROWS} lowest of {len(known)}; all are in scores.json."
    rows = [
        [
            TableCell(known[key][0]),
            count_cell(known[key][2]),
            *(score_cell(table[key][1] if key in table else None) for table in tables.values()),
        ]
        for key in order
    ]
    columns = [("class", False), ("rows", True), *((name, True) for name in tables)]
    return PageTable("per-class", columns, rows, caption)


def rules_table(report_data: ReportData) -> PageTable | None:
    """Return every decision rule that was tried, with its scores; None where none was."""
    rows = [
        [
            TableCell(policy.name),
            TableCell(rule.name),
            score_cell(rule.cross_fitted),
            score_cell(rule.optimistic),
            TableCell("chosen" if rule.chosen else ""),
        ]
        for policy in report_data.policies
        for rule in (policy.scores.rules if policy.scores else ())
    ]
    if not rows:
        return None
    columns = [("policy", False), ("rule", False), ("cross-fitted", True), ("optimistic", True), ("", False)]
    return PageTable("rules", columns, rows, f"{report_data.metric} of every rule that was tried.")
