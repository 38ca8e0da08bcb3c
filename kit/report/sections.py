"""The sections of the page but the verdict: what is drawn, and a sentence for what cannot be drawn."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kit.core.runs import RunRecord
from kit.experiment.deviations import deviations
from kit.report import figures
from kit.report.blocks import PageSection
from kit.report.figures.drawing import Figure, LegendEntry
from kit.report.material import ReportData
from kit.report.tables import class_table, confused_pairs_table, rules_table
from kit.report.text import counted
from kit.report.verdicts import training_cost, training_tables

PROBES = "No {} were measured: runs record them with --set training.probes='{{every: 10}}' (docs/probes.md)."


def differences_section(report_data: ReportData) -> PageSection:
    """Return the differences of the policies to the baseline, with their intervals."""
    section = PageSection("differences", f"Differences to {report_data.baseline}")
    if figure := figures.forest(report_data):
        section.figures.append(figure)
    elif report_data.comparison:
        section.texts.append(f"No {report_data.kind} is left to compare with {report_data.baseline}.")
    else:
        section.texts.append("No differences: they come with python -m kit compare CONFIG.")
    return section


def folds_section(report_data: ReportData) -> PageSection:
    """Return the score of every run by fold."""
    section = PageSection("folds", f"Scores by fold ({report_data.metric})")
    if figure := figures.by_fold(report_data):
        section.figures.append(figure)
    else:
        section.texts.append("No run is finished yet: python -m kit run CONFIG goes on with them.")
    return section


def blocks_section(report_data: ReportData) -> PageSection:
    """Return at which depth a frozen body is best tapped."""
    section = PageSection("blocks", "Scores by depth of the body")
    if figure := figures.score_by_block(report_data):
        section.figures.append(figure)
    else:
        section.texts.append("No scores of several blocks: python -m kit features CONFIG --block all goes on.")
    return section


def curves_section(report_data: ReportData) -> PageSection:
    """Return the learning curves."""
    section = PageSection("curves", "Learning curves")
    if figure := figures.learning_curves(report_data):
        section.figures.append(figure)
    else:
        section.texts.append("No curves: they are drawn of finished runs (python -m kit run CONFIG).")
    return section


def rates_section(report_data: ReportData) -> PageSection:
    """Return the intended and the realised rates of each depth group."""
    section = PageSection("rates", "Intended and realised rates")
    if cards := figures.rates(report_data):
        about = (
            "The learning rate of each depth group over the updates, from the stem (dark) to the head (light), on "
            "one log scale: the thin line is what the optimizer used, the broad pale one beneath it what the "
            f"policy intended. {_largest_gap(report_data)}"
        )
        section.cards.append((about, _shared_legend(cards), cards))
    else:
        section.texts.append("No rates: they are recorded by python -m kit run CONFIG.")
    return section


def _largest_gap(report_data: ReportData) -> str:
    gaps = [
        (gap, policy.name)
        for policy in report_data.policies
        if policy.rates and (gap := policy.rates.largest_difference) is not None
    ]
    if not gaps:
        return ""
    gap, name = max(gaps)
    if gap == 0:
        return "Realised and intended rates are the same in all of them."
    return f"The largest relative difference between the two is {gap:.1e}, under {name}."


def activations_section(report_data: ReportData) -> PageSection:
    """Return the activations over time that the probes measured."""
    section = PageSection("activations", "Activations over time")
    if cards := figures.activations(report_data):
        about = (
            "How many activations have which magnitude (upwards) after each update (to the right), layer by "
            "layer. Blue: few; yellow: many (counts on a log scale). Every layer has the same axis of magnitudes "
            "and the same scale of colours in all cards; the uppermost line of each map is what lies beyond it."
        )
        section.cards.append((about, (), cards))
    else:
        section.texts.append(PROBES.format("activations"))
    return section


def learning_section(report_data: ReportData) -> PageSection:
    """Return how each depth group learned, as the probes measured it."""
    section = PageSection("learning", "Learning by depth")
    section.figures += filter(None, (figures.distance_by_depth(report_data), figures.butterfly(report_data)))
    if cards := figures.learning(report_data):
        about = (
            "Over the updates, by depth group from the stem (dark) to the head (light): the update relative to "
            "the weights, the distance from the initial weights, the rotation, the norm of the gradient, and the "
            "effective rate (rate / ‖w‖²). Every measure has the same scale in all cards."
        )
        section.cards.append((about, _shared_legend(cards), cards))
    if not section.figures and not section.cards:
        section.texts.append(PROBES.format("measures of learning"))
    elif not any(figure.name == "butterfly" for figure in section.figures):
        section.texts.append(
            "The butterfly (what a change at one depth does to the predictions) was not measured: "
            "training.probes.butterfly says at which moments it is."
        )
    return section


def _shared_legend(cards: Sequence[Figure]) -> tuple[LegendEntry, ...]:
    """Return the legend of all cards where it is the same, else an empty one."""
    return cards[0].legend if len({card.legend for card in cards}) == 1 else ()


def classes_section(report_data: ReportData) -> PageSection:
    """Return which classes were predicted well, and which were mistaken for which."""
    section = PageSection("classes", "Classes")
    if cards := figures.confusion(report_data):
        about = "Out-of-fold rows: a row of a matrix is a true class, a column what was predicted."
        section.cards.append((about, (), cards))
    elif figure := figures.lowest_classes(report_data):
        section.figures.append(figure)
    if report_data.unavailable:
        section.texts.append(f"What was mistaken for what cannot be shown: {report_data.unavailable}")
    if table := confused_pairs_table(report_data):
        section.tables.append(table)
    if table := class_table(report_data):
        section.tables.append(table)
    else:
        section.texts.append("No scores by class: python -m kit run CONFIG pools finished runs and writes them.")
    return section


def mistakes_section(report_data: ReportData) -> PageSection:
    """Return the images that most policies got wrong."""
    section = PageSection("mistakes", "Images most often wrong")
    if report_data.unavailable:
        section.texts.append(f"The images cannot be shown: {report_data.unavailable}")
    elif report_data.thumbnails:
        most = report_data.thumbnails[0]
        section.texts.append(
            f"Out-of-fold rows that the most {report_data.kinds} got wrong ({most.wrong} of {most.of} the first), "
            "those they were surest about first. Look at them: some labels may be wrong."
        )
        section.thumbnails = report_data.thumbnails
    elif any(policy.outcome is not None for policy in report_data.policies):
        section.texts.append("No out-of-fold row is wrong.")
    else:
        section.texts.append("They are found among the rows of finished runs (python -m kit run CONFIG).")
    return section


def rules_section(report_data: ReportData) -> PageSection:
    """Return how probabilities became labels, and the other rules that were tried."""
    section = PageSection("rules", "Decision rules")
    if (table := rules_table(report_data)) is None:
        section.texts.append("No rules: they are chosen when runs are pooled (python -m kit run CONFIG).")
        return section
    section.texts.append(
        "How probabilities become labels. The cross-fitted score decides: each fold by a rule fitted on the "
        "others. The optimistic one is of the rule fitted on all rows, on the same rows."
    )
    for policy in report_data.policies:
        if policy.scores and (rule := policy.scores.rule.get("said")):
            section.texts.append(
                f"{policy.name}: {rule} (cross-fitted {policy.scores.oof:.4f}, optimistic "
                f"{policy.scores.optimistic:.4f})."
            )
    section.tables.append(table)
    return section


def runs_section(report_data: ReportData) -> PageSection:
    """Return what was run: how many trainings, for how long, with which versions and on which devices."""
    section = PageSection("ran", "What was run")
    records = [record for policy in report_data.policies for record in policy.records]
    finished = [record for record in records if record.status == "finished"]
    seconds = sum(record.seconds.get("training", 0.0) for record in finished)
    states = Counter(record.status for record in records)
    others = "".join(f", {count} {state}" for state, count in sorted(states.items()) if state != "finished")
    section.texts.append(
        f"{counted(len(finished), 'run')} finished{others}, of {len(report_data.policies)} "
        f"{report_data.kind if len(report_data.policies) == 1 else report_data.kinds}; {seconds:.0f} seconds of "
        "training in them."
    )
    if report_data.comparison:
        section.texts.append(training_cost(report_data.comparison))
        section.tables += training_tables(report_data.comparison)
    for record in records:
        if record.error:
            place = f"{record.key}"
            section.texts.append(f"{place} {record.status}: {record.error}")
    section.texts += deviations(records)
    section.texts += _circumstances(finished or records, report_data)
    if report_data.config:
        section.folded.append(("The config", report_data.config))
    return section


def _circumstances(records: Sequence[RunRecord], report_data: ReportData) -> list[str]:
    """Return sentences about fold plan, fingerprints, versions and devices."""
    lines = [f"Fold plan: {report_data.fold_plan}."] if report_data.fold_plan else []
    shared = _shared([record.depends_on for record in records])
    if shared:
        lines.append(f"What all runs depend on: {_listed(shared.items())}.")
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            versions.setdefault(name, set()).add(str(version))
    if versions:
        listed = _listed((name, " and ".join(sorted(each))) for name, each in versions.items())
        lines.append(f"Versions: {listed}.")
    devices = Counter(
        (f"{record.device_name} ({record.device})" if record.device_name else record.device)
        + (f" with driver {record.driver}" if record.driver else "")
        + f", {record.precision if 'precision' in record.model_fields_set else 'unknown precision'}"
        + (", augmented there" if record.augmented_on == "device" else "")
        + (f", {record.processes} processes" if record.processes > 1 else "")
        + (f", threads: {record.threads}" if record.threads and record.device == "cpu" else "")
        for record in records
        if "device" in record.model_fields_set
    )
    if devices:
        listed = "; ".join(f"{name} ({counted(count, 'run')})" for name, count in sorted(devices.items()))
        lines.append(f"Devices: {listed}.")
    return lines


def _shared(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is the same in all mappings."""
    return {key: value for key, value in each[0].items() if all(o.get(key) == value for o in each)} if each else {}


def _listed(items: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in items)
