"""The report as one HTML page: sections of sentences, figures and tables, rendered by page.html.

The page holds everything it needs: Plotly's script (from the installed package, packed), the figures as JSON, the
thumbnails. It asks for nothing over the network.
"""

import base64
import gzip
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kit.comparison.views import VIEWS
from kit.report import figures
from kit.report.figures.drawing import FONT, Figure, LegendEntry
from kit.report.material import ReportData

MOST_PAIRS = 20  # of labels that are mistaken for each other
MOST_ROWS = 300  # of a table of classes
TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class TableCell:
    """What stands in a cell, and the number it is sorted by where that is one."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class PageTable:
    """columns  a name, and whether it holds numbers"""

    name: str
    columns: list[tuple[str, bool]]
    rows: list[list[TableCell]]
    caption: str


@dataclass(frozen=True)
class PolicyVerdict:
    policy: str
    verdict: str
    sentence: str


@dataclass
class PageSection:
    """A part of the page; its blocks come in this order."""

    name: str
    title: str
    texts: list[str] = field(default_factory=list)
    lead: str = ""
    verdicts: list[tuple[str, str, list[PolicyVerdict]]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    cards: list[tuple[str, tuple[LegendEntry, ...], list[Figure]]] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    thumbnails: list = field(default_factory=list)
    folded: list[tuple[str, str]] = field(default_factory=list)


def render(material: ReportData) -> str:
    """The page as text; the same for the same material."""
    import jinja2
    from plotly.offline import get_plotlyjs

    sections = [make(material) for make in SECTIONS]
    drawn = [each for section in sections for each in _figures_of(section)]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        material=material,
        sections=sections,
        content={figure.name: {"data": figure.data, "layout": figure.layout} for figure in drawn},
        plotly=base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode(),
        font=FONT,
    )


def _figures_of(section: PageSection) -> list[Figure]:
    return [*section.figures, *(figure for _, _, cards in section.cards for figure in cards)]


# Sections


def verdict(material: ReportData) -> PageSection:
    section = PageSection("verdict", "Which policy wins")
    comparison = material.comparison
    if comparison is None:
        section.lead = _standing(material)
        if material.outdated:
            section.texts.append(
                f"The comparison that is there is of {material.outdated}, so it is not shown: python -m kit "
                "compare CONFIG makes it anew."
            )
        elif len(material.policies) > 1:
            section.texts.append("Nothing is compared yet: python -m kit compare CONFIG says which policy wins.")
        else:
            section.texts.append(
                "With one policy there is nothing to compare: python -m kit compare CONFIG --policies A,B "
                "trains and compares several."
            )
        section.tables.append(_scores_table(material))
        return section
    section.lead = comparison["headline"]
    for view in comparison["views"]:
        lines = [PolicyVerdict(each["policy"], each["verdict"], _sentence(each)) for each in view["comparisons"]]
        lines += [
            PolicyVerdict(each["policy"], "diverged", f"{each['sentence'].removeprefix(each['policy'])}.")
            for each in view.get("diverged", ())
        ]
        about = " ".join(filter(None, (view.get("about"), view.get("note"))))
        section.verdicts.append((VIEWS.get(view["name"], view["name"]), about, lines))
        section.tables.append(_comparison_table(view, comparison))
    section.texts += comparison.get("missing", ())
    return section


def _sentence(comparison: Mapping[str, Any]) -> str:
    """It begins with the verdict and ends with a full stop."""
    verdict, sentence = comparison["verdict"], comparison["sentence"].rstrip(".")
    return f"{sentence}." if sentence.startswith(verdict) else f"{verdict}: {sentence}."


def _standing(material: ReportData) -> str:
    scored = [policy for policy in material.policies if policy.scores]
    if not scored:
        return "No policy's runs are pooled yet."
    best = max(scored, key=lambda policy: policy.scores["oof"])
    runs = len(best.scores.get("runs", []))
    text = f"{best.name}: pooled out-of-fold {material.metric} {best.scores['oof']:.4f} from {_runs(runs)}"
    return (
        f"{text}."
        if len(scored) == 1
        else f"{text}, the highest of {len(scored)} policies; this is no comparison."
    )


def _scores_table(material: ReportData) -> PageTable:
    rows = []
    for policy in material.policies:
        scores = policy.scores or {}
        rows.append(
            [
                TableCell(policy.name),
                _number(scores.get("oof")),
                _number(scores.get("optimistic")),
                _count(len(policy.finished)),
                _count(len(policy.records)),
            ]
        )
    columns = ["pooled OOF", "optimistic", "finished runs", "begun"]
    return PageTable("scores", [("policy", False), *((name, True) for name in columns)], rows, "Scores by policy.")


def _comparison_table(view: Mapping[str, Any], comparison: Mapping[str, Any]) -> PageTable:
    against = {each["policy"]: each for each in view["comparisons"]}
    rows = []
    for scored in view["policies"]:
        row = [TableCell(scored["policy"]), _number(scored["oof"]), _number(scored["mean"])]
        if each := against.get(scored["policy"]):
            interval = each["interval"]
            row += [
                TableCell(f"{each['difference']:+.4f}", each["difference"]),
                TableCell(f"{interval['low']:+.4f} to {interval['high']:+.4f}", interval["low"])
                if interval
                else TableCell("—"),
                _p(each["p_holm"]),
                _number(each["smallest_detectable"]),
                TableCell(each["verdict"]),
            ]
        else:
            last = "baseline" if scored["policy"] == comparison["baseline"] else "—"
            row += [TableCell("—")] * 4 + [TableCell(last)]
        rows.append(row)
    rows += [
        [TableCell(each["policy"]), *[TableCell("—")] * 6, TableCell("diverged")]
        for each in view.get("diverged", ())
    ]
    columns = [
        ("policy", False), ("pooled OOF", True), ("mean of runs", True), ("difference", True),
        (f"{comparison['level']:.0%} interval", True), ("Holm p", True), ("smallest detectable", True),
        ("verdict", False),
    ]  # fmt: skip
    caption = f"{VIEWS.get(view['name'], view['name']).capitalize()}: {comparison['metric']}."
    return PageTable(f"comparison-{view['name']}", columns, rows, caption)


def differences(material: ReportData) -> PageSection:
    section = PageSection("differences", f"Differences to {material.baseline}")
    if figure := figures.forest(material):
        section.figures.append(figure)
    elif material.comparison:
        section.texts.append(f"No policy is left to compare with {material.baseline}.")
    else:
        section.texts.append("No differences: they come with python -m kit compare CONFIG.")
    return section


def folds(material: ReportData) -> PageSection:
    section = PageSection("folds", f"Scores by fold ({material.metric})")
    if figure := figures.by_fold(material):
        section.figures.append(figure)
    else:
        section.texts.append("No run is finished yet: python -m kit run CONFIG goes on with them.")
    return section


def curves(material: ReportData) -> PageSection:
    section = PageSection("curves", "Learning curves")
    if figure := figures.learning_curves(material):
        section.figures.append(figure)
    else:
        section.texts.append("No curves: they are drawn of finished runs (python -m kit run CONFIG).")
    return section


def rates(material: ReportData) -> PageSection:
    section = PageSection("rates", "Intended and realised rates")
    if cards := figures.rates(material):
        about = (
            "The learning rate of each depth group over the updates, from the stem (dark) to the head (light), on "
            "one log scale: the thin line is what the optimizer used, the broad pale one beneath it what the "
            f"policy intended. {_largest_gap(material)}"
        )
        section.cards.append((about, _shared_key(cards), cards))
    else:
        section.texts.append("No rates: they are recorded by python -m kit run CONFIG.")
    return section


def _largest_gap(material: ReportData) -> str:
    gaps = [
        (gap, policy.name)
        for policy in material.policies
        if policy.rates and (gap := policy.rates.largest_difference) is not None
    ]
    if not gaps:
        return ""
    gap, name = max(gaps)
    if gap == 0:
        return "Realised and intended rates are the same in all of them."
    return f"The largest relative difference between the two is {gap:.1e}, under {name}."


def activations(material: ReportData) -> PageSection:
    section = PageSection("activations", "Activations over time")
    if cards := figures.activations(material):
        about = (
            "How many activations have which magnitude (upwards) after each update (to the right), layer by "
            "layer. Blue: few; yellow: many (counts on a log scale). Every layer has the same axis of magnitudes "
            "and the same scale of colours in all cards; the uppermost line of each map is what lies beyond it."
        )
        section.cards.append((about, (), cards))
    else:
        section.texts.append(PROBES.format("activations"))
    return section


PROBES = "No {} were measured: runs record them with --set training.probes='{{every: 10}}' (docs/probes.md)."


def learning(material: ReportData) -> PageSection:
    section = PageSection("learning", "Learning by depth")
    section.figures += filter(None, (figures.distance_by_depth(material), figures.butterfly(material)))
    if cards := figures.learning(material):
        about = (
            "Over the updates, by depth group from the stem (dark) to the head (light): the update relative to "
            "the weights, the distance from the initial weights, the rotation, the norm of the gradient, and the "
            "effective rate (rate / ‖w‖²). Every measure has the same scale in all cards."
        )
        section.cards.append((about, _shared_key(cards), cards))
    if not section.figures and not section.cards:
        section.texts.append(PROBES.format("measures of learning"))
    elif not any(figure.name == "butterfly" for figure in section.figures):
        section.texts.append(
            "The butterfly (what a change at one depth does to the predictions) was not measured: "
            "training.probes.butterfly says at which moments it is."
        )
    return section


def _shared_key(cards: Sequence[Figure]) -> tuple[LegendEntry, ...]:
    """The key of all cards, where it is the same."""
    return cards[0].key if len({card.key for card in cards}) == 1 else ()


def classes(material: ReportData) -> PageSection:
    section = PageSection("classes", "Classes")
    if cards := figures.confusion(material):
        about = "Out-of-fold rows: a row of a matrix is a true class, a column what was predicted."
        section.cards.append((about, (), cards))
    elif figure := figures.lowest_classes(material):
        section.figures.append(figure)
    if material.without:
        section.texts.append(f"What was mistaken for what cannot be shown: {material.without}")
    if table := _confused_pairs(material):
        section.tables.append(table)
    if table := _class_table(material):
        section.tables.append(table)
    else:
        section.texts.append("No scores by class: python -m kit run CONFIG pools finished runs and writes them.")
    return section


def _confused_pairs(material: ReportData) -> PageTable | None:
    """The 20 pairs that the best policy mistakes most; where a confusion matrix is not for the labels."""
    if not (material.multilabel or len(material.classes) > figures.MOST_CLASSES):
        return None
    if not (shown := figures.best_and_baseline(material)):
        return None
    counts = [_confusions(policy.outcome.truth, policy.outcome.predicted) for _, policy in shown]
    foremost = sorted(counts[0], key=lambda pair: (-counts[0][pair], pair))[:MOST_PAIRS]
    rows = [
        [
            TableCell(material.names[true]),
            TableCell(material.names[taken]),
            *(_count(each[true, taken]) for each in counts),
        ]
        for true, taken in foremost
    ]
    first = "missed" if material.multilabel else "true"
    second = "predicted without being true" if material.multilabel else "predicted"
    columns = [(first, False), (second, False), *((policy.name, True) for _, policy in shown)]
    caption = f"The {len(rows)} pairs that {shown[0][1].name} mistakes most, in rows."
    return PageTable("confused", columns, rows, caption) if rows else None


def _confusions(truth: np.ndarray, predicted: np.ndarray) -> Counter:
    """(true, predicted) → rows; of several labels a row, what was missed with what was predicted wrongly."""
    if truth.ndim == 1:
        wrong = truth != predicted
        return Counter(zip(truth[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    missed, excess = (truth & ~predicted).astype(np.int64), (predicted & ~truth).astype(np.int64)
    table = missed.T @ excess
    return Counter({(int(i), int(j)): int(table[i, j]) for i, j in zip(*table.nonzero(), strict=True)})


def _class_table(material: ReportData) -> PageTable | None:
    tables = {policy.name: figures.class_scores(policy.scores) for policy in material.policies if policy.scores}
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
            _count(known[key][2]),
            *(_number(table[key][1] if key in table else None) for table in tables.values()),
        ]
        for key in order
    ]
    return PageTable(
        "per-class", [("class", False), ("rows", True), *((name, True) for name in tables)], rows, caption
    )


def mistakes(material: ReportData) -> PageSection:
    section = PageSection("mistakes", "Images most often wrong")
    if material.without:
        section.texts.append(f"The images cannot be shown: {material.without}")
    elif material.thumbnails:
        most = material.thumbnails[0]
        section.texts.append(
            f"Out-of-fold rows that the most policies got wrong ({most.wrong} of {most.of} the first), those they "
            "were surest about first. Look at them: some labels may be wrong."
        )
        section.thumbnails = material.thumbnails
    elif any(policy.outcome is not None for policy in material.policies):
        section.texts.append("No out-of-fold row is wrong.")
    else:
        section.texts.append("They are found among the rows of finished runs (python -m kit run CONFIG).")
    return section


def rules(material: ReportData) -> PageSection:
    section = PageSection("rules", "Decision rules")
    rows = []
    for policy in material.policies:
        for rule in (policy.scores or {}).get("rules", []):
            rows.append(
                [
                    TableCell(policy.name),
                    TableCell(rule["name"]),
                    _number(rule["cross_fitted"]),
                    _number(rule["optimistic"]),
                    TableCell("chosen" if rule["chosen"] else ""),
                ]
            )
    if not rows:
        section.texts.append("No rules: they are chosen when runs are pooled (python -m kit run CONFIG).")
        return section
    section.texts.append(
        "How probabilities become labels. The cross-fitted score decides: each fold by a rule fitted on the "
        "others. The optimistic one is of the rule fitted on all rows, on the same rows."
    )
    for policy in material.policies:
        if said := (policy.scores or {}).get("rule", {}).get("said"):
            section.texts.append(
                f"{policy.name}: {said} (cross-fitted {policy.scores['oof']:.4f}, optimistic "
                f"{policy.scores['optimistic']:.4f})."
            )
    columns = [("policy", False), ("rule", False), ("cross-fitted", True), ("optimistic", True), ("", False)]
    section.tables.append(PageTable("rules", columns, rows, f"{material.metric} of every rule that was tried."))
    return section


def ran(material: ReportData) -> PageSection:
    """What was run."""
    section = PageSection("ran", "What was run")
    records = [record for policy in material.policies for record in policy.records]
    finished = [record for record in records if record.get("status") == "finished"]
    seconds = sum(record.get("seconds", {}).get("training", 0.0) for record in finished)
    states = Counter(record.get("status", "unknown") for record in records)
    others = "".join(f", {count} {state}" for state, count in sorted(states.items()) if state != "finished")
    section.texts.append(
        f"{_runs(len(finished))} finished{others}, of {len(material.policies)} "
        f"polic{'y' if len(material.policies) == 1 else 'ies'}; {seconds:.0f} seconds of training in them."
    )
    if material.comparison:
        comparison = material.comparison
        section.texts.append(
            f"All trainings that were compared, tuning among them: {comparison['seconds']:.0f} seconds; at most "
            f"{comparison['updates']} updates each."
        )
    for record in records:
        if record.get("error"):
            place = f"{record['policy']} seed {record['seed']} fold {record['fold']}"
            section.texts.append(f"{place} {record['status']}: {record['error']}")
    section.texts += _circumstances(finished or records, material)
    if material.comparison and material.comparison.get("ledger"):
        section.tables.append(_ledger(material.comparison["ledger"]))
    if material.comparison and material.comparison.get("tuning"):
        section.tables.append(_tuning(material.comparison["tuning"]))
    if material.config:
        section.folded.append(("The config", material.config))
    return section


def _circumstances(records: Sequence[Mapping[str, Any]], material: ReportData) -> list[str]:
    lines = [f"Fold plan: {material.fold_plan}."] if material.fold_plan else []
    shared = _shared([record.get("depends_on", {}) for record in records])
    if shared:
        lines.append(f"What all runs depend on: {_pairs(shared.items())}.")
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.get("versions", {}).items():
            versions.setdefault(name, set()).add(str(version))
    if versions:
        lines.append(f"Versions: {_pairs((name, ' and '.join(sorted(each))) for name, each in versions.items())}.")
    devices = Counter(
        f"{record['device']}, {record.get('precision', 'unknown precision')}"
        + (f", {record['processes']} processes" if record.get("processes", 1) > 1 else "")
        for record in records
        if "device" in record
    )
    if devices:
        lines.append(
            f"Devices: {'; '.join(f'{name} ({_runs(count)})' for name, count in sorted(devices.items()))}."
        )
    return lines


def _shared(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same in all."""
    return {key: value for key, value in each[0].items() if all(o.get(key) == value for o in each)} if each else {}


def _pairs(items: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in items)


def _ledger(lines: Sequence[Mapping[str, Any]]) -> PageTable:
    kinds = ("raw", "tuning", "tuned", "equalised", "total")
    rows = []
    for line in lines:
        chosen = ", ".join(f"fold {fold}: {rate:g}" for fold, rate in line.get("chosen", {}).items())
        tried = ", ".join(f"{rate:g}" for rate in line.get("rates", []))
        rows.append(
            [
                TableCell(line["policy"]),
                *(_count(line[kind]) for kind in kinds),
                TableCell(tried or "—"),
                TableCell(chosen or "—"),
            ]
        )
    columns = [("policy", False), *((kind, True) for kind in kinds), ("rates tried", False), ("chosen", False)]
    return PageTable("ledger", columns, rows, "How many trainings each policy was given, and for what.")


def _tuning(trials: Sequence[Mapping[str, Any]]) -> PageTable:
    rows = [
        [
            TableCell(trial["policy"]),
            TableCell(f"{trial['rate']:g}", trial["rate"]),
            _count(trial["fold"]),
            _count(trial["seed"]),
            TableCell("diverged") if trial["score"] is None else _number(trial["score"]),
        ]
        for trial in trials
    ]
    columns = [("policy", False), ("rate", True), ("fold", True), ("seed", True), ("score", True)]
    return PageTable("tuning", columns, rows, "Trainings that tuned the peak rate.")


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _number(value: float | None) -> TableCell:
    return TableCell("—") if value is None or not math.isfinite(value) else TableCell(f"{value:.4f}", float(value))


def _count(value: int) -> TableCell:
    return TableCell(str(value), int(value))


def _p(value: float | None) -> TableCell:
    if value is None:
        return TableCell("—")
    return TableCell("<.001" if value < 0.001 else f"{value:.3f}", value)


SECTIONS = (verdict, differences, folds, curves, rates, activations, learning, classes, mistakes, rules, ran)
