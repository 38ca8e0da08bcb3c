"""A comparison written down: statistics of each view, headline, ledger; comparison.json and comparison.csv."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from kit.comparison.bootstrap import BootstrapResult, bootstrap
from kit.comparison.statistics import compare as compare_scores
from kit.comparison.tuning import baseline_of
from kit.comparison.views import (
    VIEWS,
    Pair,
    Tuning,
    View,
    check_fair,
    check_kinds,
    check_run,
    devices_of,
    machines_of,
    size_of,
    unequal_views,
)
from kit.core.errors import some
from kit.core.files import atomic, read_record, write_json
from kit.core.manifest import need_listed
from kit.core.runs import RunDir
from kit.experiment.config import ExperimentConfig
from kit.experiment.deviations import deviations
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pool import RunScore, ScoredRuns, decided, score_identity

POWER = 0.8
COLUMNS = (
    "view", "policy", "baseline", "runs", "score", "baseline_score", "difference", "low", "high", "p", "p_holm",
    "smallest_detectable", "bootstrap_low", "bootstrap_high", "verdict", "seeds_to_decide",
)  # fmt: skip


class _Record(BaseModel):
    """A part of comparison.json; keys of other versions of the kit are kept."""

    model_config = ConfigDict(extra="allow")


class ComparedRun(_Record):
    """A run that is compared, and its score on the rows that it held out."""

    seed: int
    fold: int
    score: float
    variant: str | None = None
    fingerprint: str | None = None
    updates: int | None = None
    initial_weights: str | None = None
    predicted: dict[str, Any] | None = None


class ComparedPolicy(_Record):
    """A policy in a view: its pooled out-of-fold score, the mean score of its runs, and these."""

    policy: str
    oof: float
    mean: float
    runs: list[ComparedRun]


class DivergedRun(_Record):
    """A run that diverged, and why."""

    seed: int
    fold: int
    variant: str | None = None
    fingerprint: str | None = None
    error: str | None = None


class DivergedPolicy(_Record):
    """A policy that diverged, its runs that did, and what to do."""

    policy: str
    runs: list[DivergedRun]
    sentence: str


class IntervalRecord(_Record):
    """The interval of a difference (see `kit.comparison.intervals.Interval`)."""

    difference: float
    low: float
    high: float
    p: float


class BootstrapRecord(_Record):
    """The bootstrap interval of a difference (see `kit.comparison.bootstrap.BootstrapResult`)."""

    difference: float
    low: float
    high: float


class PolicyComparison(_Record):
    """A policy against the baseline (see `kit.comparison.statistics.PairedComparison`)."""

    policy: str
    baseline: str
    folds: list[int] = []
    seeds: list[int] = []
    runs: int | None = None
    score: float
    baseline_score: float
    difference: float
    interval: IntervalRecord | None = None
    p_holm: float | None = None
    smallest_detectable: float | None = None
    bootstrap: BootstrapRecord | None = None
    verdict: str
    sentence: str
    seeds_to_decide: int | None = None
    by_run: list[dict[str, Any]] = []


class ViewRecord(_Record):
    """One way to look at the policies, with its comparisons."""

    name: str
    about: str | None = None
    note: str | None = None
    policies: list[ComparedPolicy]
    comparisons: list[PolicyComparison]
    diverged: list[DivergedPolicy] = []


class LedgerLine(_Record):
    """How many trainings a policy was given, and for what; the rates that were tried, and chosen by fold."""

    policy: str
    raw: int
    tuning: int
    tuned: int
    equalised: int
    total: int
    rates: list[float] = []
    chosen: dict[str, float] = {}


class TuningLine(_Record):
    """A training that tuned a rate; `score` is None where it diverged."""

    policy: str
    rate: float
    fold: int
    within: int | None = None
    seed: int
    score: float | None


class Comparison(_Record):
    """What comparison.json says.

    Attributes
    ----------
    missing : list of str
        Why views that the config asks for are missing.
    devices : dict of str to int
        How many of the runs that are compared were trained on which kind of device; empty in early versions.
    headline : str
        Which policies beat the baseline, in each view.
    views : list of ViewRecord
    ledger : list of LedgerLine
    tuning : list of TuningLine
    updates : int
        Of a training, at most.
    seconds : float
        Of all trainings that are compared, or tuned.
    """

    experiment: str = ""
    metric: str
    baseline: str
    level: float
    power: float = POWER
    margin: float
    ratio: float | None = None
    scoring: dict[str, Any] | None = None
    missing: list[str] = []
    devices: dict[str, int] = {}
    headline: str
    views: list[ViewRecord]
    ledger: list[LedgerLine] = []
    tuning: list[TuningLine] = []
    updates: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return self.model_dump(exclude_unset=True)


def read_comparison(path: Path) -> Comparison | None:
    """Read a comparison.json; None where there is none, Damaged where it is not what was written."""
    if not path.is_file():
        return None
    remedy = "python -m kit compare writes it anew"
    need_listed(path.parent, path, remedy)
    return read_record(path, Comparison, remedy)


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write comparison.json."""
    write_json(path, comparison.to_json())


def content_of(
    experiment: ExperimentConfig,
    loaded: LoadedExperiment,
    views: Sequence[View],
    missing: Sequence[str],
    tuning: Tuning | None,
    known: Mapping[str, ScoredRuns],
) -> Comparison:
    """Return what comparison.json holds.

    Parameters
    ----------
    experiment : ExperimentConfig
        The policies that are compared.
    loaded : LoadedExperiment
        With their variants, too.
    views : sequence of View
    missing : sequence of str
        Why views are missing, as `views_of` says it.
    tuning : Tuning or None
    known : mapping of str to ScoredRuns
        Policies that were pooled just now, with the rates that they state.
    """
    config = experiment.compare
    folds = experiment.folds.chosen
    plan = loaded.folds
    ratio = {fold: len(plan.validation_rows(fold)) / len(plan.training_rows(fold)) for fold in folds}
    compared = [_compared(view, experiment, loaded, ratio, known if view.name == "raw" else {}) for view in views]
    records = [run.record for view in views for runs in view.runs.values() for run in runs.values()]
    content = {
        "experiment": experiment.name,
        "metric": experiment.scoring.title,
        "baseline": baseline_of(experiment),
        "level": config.level,
        "power": POWER,
        "margin": config.margin,
        "ratio": float(np.mean(list(ratio.values()))),
        "scoring": score_identity(experiment.scoring, experiment.competition),
        "missing": list(missing),
        "devices": devices_of(views),
        "headline": _headline(compared, baseline_of(experiment), experiment.scoring.title),
        "views": compared,
        "ledger": _ledger(experiment, loaded, views, tuning),
        "tuning": [
            {
                "policy": trial.policy,
                "rate": trial.rate,
                "fold": trial.fold,
                "within": trial.within,
                "seed": trial.seed,
                "score": score,
            }
            for trial, score in (tuning.scores if tuning else {}).items()
        ],
        "updates": max(record.steps or 0 for record in records),
        "seconds": _seconds(views, tuning, loaded),
    }
    return Comparison.model_validate(content)


def _compared(
    view: View,
    experiment: ExperimentConfig,
    loaded: LoadedExperiment,
    ratio: Mapping[int, float],
    known: Mapping[str, ScoredRuns],
) -> dict[str, Any]:
    """A view as it stands in comparison.json."""
    config = experiment.compare
    for runs in (*view.runs.values(), *view.diverged.values()):
        for run in runs.values():
            check_run(run, run.record.policy, loaded)
    check_fair(view)
    if not config.mixed_devices:
        check_kinds(view, baseline_of(experiment))
    results = {}
    for name, runs in view.runs.items():
        pooled_alike = name in known and {(r.seed, r.fold) for r in known[name].runs} == set(runs)
        if runs:
            results[name] = known[name] if pooled_alike else _decided(runs.values(), loaded)
    scores = {name: {(r.seed, r.fold): r.score for r in result.runs} for name, result in results.items()}
    scores |= {name: {} for name, runs in view.runs.items() if not runs}
    made = (
        compare_scores(
            scores,
            baseline_of(experiment),
            ratio,
            margin=config.margin,
            level=config.level,
            power=POWER,
            bootstraps=_bootstraps(view, results, experiment, loaded),
            metric=experiment.scoring.title,
        )
        if len(scores) > 1
        else []
    )
    told = (machines_of(view, baseline_of(experiment)), unequal_views(view, loaded.config), *_deviations(view))
    return {
        "name": view.name,
        "about": f"{view.about} {size_of(view)}",
        "note": " ".join(filter(None, (view.note, *told))) or None,
        "policies": [
            {
                "policy": name,
                "oof": result.oof,
                "mean": float(np.mean([run.score for run in result.runs])),
                "runs": [_run_line(run, view.runs[name]) for run in result.runs],
            }
            for name, result in results.items()
        ],
        "comparisons": [each.to_json() for each in made],
        "diverged": [
            {
                "policy": name,
                "runs": [_diverged_line(run) for run in runs.values() if run.diverged],
                "sentence": f"{view.diverged_as_told(name)}, so it is not compared; {_advice(view, runs)}",
            }
            for name, runs in view.diverged.items()
        ],
    }


def _deviations(view: View) -> list[str]:
    return deviations(run.record for runs in view.runs.values() for run in runs.values())


def _decided(runs: Iterable[RunDir], loaded: LoadedExperiment) -> ScoredRuns:
    return decided(list(runs), loaded.competition, loaded.folds, loaded.config.scoring)


def _run_line(scored: RunScore, runs: Mapping[Pair, RunDir]) -> dict[str, Any]:
    record = runs[scored.seed, scored.fold].record
    return {
        "seed": scored.seed,
        "fold": scored.fold,
        "score": scored.score,
        "variant": record.policy,
        "fingerprint": record.fingerprint,
        "updates": record.steps,
        "initial_weights": record.initial_weights,
        "predicted": record.predicted,
    }


def _advice(view: View, runs: Mapping[Pair, RunDir]) -> str:
    if view.name == "tuned":
        names = sorted({run.record.policy for run in runs.values() if run.diverged})
        return f"leave the rate of {some(names)} out of compare.tune.rates"
    return "lower its lr"


def _diverged_line(run: RunDir) -> dict[str, Any]:
    record = run.record
    return {
        "seed": record.seed,
        "fold": record.fold,
        "variant": record.policy,
        "fingerprint": record.fingerprint,
        "error": record.error,
    }


def _bootstraps(
    view: View, results: Mapping[str, ScoredRuns], experiment: ExperimentConfig, loaded: LoadedExperiment
) -> dict[str, BootstrapResult]:
    """Of each policy against the baseline, on the runs that both have."""
    baseline, level = baseline_of(experiment), experiment.compare.level
    if baseline not in results:
        return {}
    alike: dict[frozenset, list[str]] = {}
    for name, runs in view.runs.items():
        if name != baseline and (shared := frozenset(runs) & frozenset(view.runs[baseline])):
            alike.setdefault(shared, []).append(name)
    made: dict[str, BootstrapResult] = {}
    for shared, names in alike.items():
        members = {}
        for name in (baseline, *names):
            runs = view.runs[name]
            whole = len(runs) == len(shared)
            members[name] = results[name] if whole else _decided([runs[pair] for pair in sorted(shared)], loaded)
        base = members[baseline]
        places = {
            name: each.ids.get_indexer(base.ids) for name, each in members.items()
        }  # the same folds and rows
        predicted = {name: _in_order(each, places[name]) for name, each in members.items()}
        made |= bootstrap(base.truth, predicted, baseline, experiment.scoring, groups=base.groups, level=level)
    return made


def _in_order(scored: ScoredRuns, places: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Its labels at these places, and its probabilities where the metric takes them."""
    labels = scored.predicted[places]
    return labels if scored.probabilities is None else (labels, scored.probabilities[places])


def _headline(views: Sequence[Mapping[str, Any]], baseline: str, metric: str) -> str:
    """Which policies beat the baseline, in each view."""
    lines = []
    for view in views:
        groups: dict[str, list[Mapping]] = {}
        for each in view["comparisons"]:
            groups.setdefault(each["verdict"], []).append(each)
        better = groups.get("better", [])
        worse = groups.get("worse", [])
        if not view["comparisons"]:
            text = f"no policy is left to compare with {baseline}"
        elif len(worse) == len(view["comparisons"]):
            ahead = f"{-worse[0]['difference']:.3f} {metric}"
            others = "all others that are compared" if view["diverged"] else "all others"
            text = f"{baseline} is better than {others}, than {worse[0]['policy']} by {ahead}"
        elif better:
            best = better[0]
            text = f"{best['policy']} is better than {baseline} by {best['difference']:.3f} {metric}"
            if len(better) > 1:
                text += f", and so are {some([each['policy'] for each in better[1:]])}"
        else:
            text = f"no policy is shown to be better than {baseline}"
        for verdict in ("worse", "equivalent", "undecided"):
            if names := [each["policy"] for each in groups.get(verdict, [])]:
                text += f"; {some(names, 20)} {'are' if len(names) > 1 else 'is'} {verdict}"
        if names := [each["policy"] for each in view["diverged"]]:
            text += f"; {some(names, 20)} diverged"
        lines.append(f"{VIEWS[view['name']].capitalize()}: {text}.")
    return " ".join(lines)


def _ledger(
    experiment: ExperimentConfig, loaded: LoadedExperiment, views: Sequence[View], tuning: Tuning | None
) -> list[dict[str, Any]]:
    """How many trainings each policy was given, and for what; `total` counts each training once."""
    each = list(tuning.scores) if tuning else []
    lines = []
    for name in experiment.policies:
        mine = {
            view.name: [*view.runs.get(name, {}).values(), *view.diverged.get(name, {}).values()] for view in views
        }
        tried = [trial for trial in each if trial.policy == name]
        paths = {run.path for runs in mine.values() for run in runs}
        paths |= {trial.run(loaded.folder).path for trial in tried}
        chosen = tuning.chosen.get(name, {}) if tuning else {}
        lines.append(
            {
                "policy": name,
                "raw": len(mine["raw"]),
                "tuning": len(tried),
                "tuned": len(mine.get("tuned", [])),
                "equalised": len(mine.get("equalised", [])),
                "total": len(paths),
                "rates": sorted({trial.rate for trial in tried}),
                "chosen": {str(fold): each.rate for fold, each in chosen.items()},
            }
        )
    return lines


def _seconds(views: Sequence[View], tuning: Tuning | None, loaded: LoadedExperiment) -> float:
    """Of all trainings, each counted once."""
    runs = {
        run.path: run
        for view in views
        for members in (*view.runs.values(), *view.diverged.values())
        for run in members.values()
    }
    runs |= {run.path: run for run in (trial.run(loaded.folder) for trial in (tuning.scores if tuning else ()))}
    return round(sum(run.record.seconds.get("training", 0.0) for run in runs.values()), 1)


def write_table(comparison: Comparison, path: Path) -> None:
    """Write comparison.csv: a line a comparison, and one a policy that diverged."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for view in comparison.views:
            for each in view.comparisons:
                ends = {key: getattr(each.interval, key, None) for key in ("low", "high", "p")}
                resampled = {f"bootstrap_{key}": getattr(each.bootstrap, key, None) for key in ("low", "high")}
                table.writerow(each.model_dump() | ends | resampled | {"view": view.name})
            for diverged in view.diverged:
                told = {"baseline": comparison.baseline, "runs": None, "verdict": "diverged"}
                table.writerow(diverged.model_dump() | told | {"view": view.name})
