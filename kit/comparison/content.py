"""What a comparison says: statistics of each view, headline, ledger; of experiments what differs, and costs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kit.comparison.bootstrap import BootstrapResult, bootstrap
from kit.comparison.contest import Contest
from kit.comparison.costs import costs_of
from kit.comparison.differs import differing, experiments_of
from kit.comparison.record import POWER, Comparison, ExperimentComparison
from kit.comparison.statistics import compare as compare_scores
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
    unlike_notes,
)
from kit.core.errors import some
from kit.core.runs import RunDir
from kit.experiment.deviations import deviations
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.policy_scores import RunScore, score_identity
from kit.experiment.pool import ScoredRuns, decided


def content_of(
    contest: Contest,
    views: Sequence[View],
    missing: Sequence[str],
    tuning: Tuning | None,
    known: Mapping[str, ScoredRuns],
) -> Comparison:
    """Return what comparison.json holds.

    Parameters
    ----------
    contest : Contest
        What is compared.
    views : sequence of View
    missing : sequence of str
        Why views are missing, as `views_of` says it.
    tuning : Tuning or None
    known : mapping of str to ScoredRuns
        Policies that were pooled just now, with the rates that they state.
    """
    experiment, plan = contest.settings, contest.loaded.folds
    config, metric = experiment.compare, experiment.scoring.title
    folds = experiment.folds.chosen
    ratio = {fold: len(plan.validation_rows(fold)) / len(plan.training_rows(fold)) for fold in folds}
    compared = [_compared(view, contest, ratio, known if view.name == "raw" else {}) for view in views]
    records = [run.record for view in views for runs in view.runs.values() for run in runs.values()]
    content = {
        "experiment": contest.name,
        "metric": metric,
        "baseline": contest.baseline,
        "level": config.level,
        "power": POWER,
        "margin": config.margin,
        "ratio": float(np.mean(list(ratio.values()))),
        "scoring": score_identity(experiment.scoring, experiment.competition),
        "missing": list(missing),
        "devices": devices_of(views),
        "headline": _headline(compared, contest.baseline, metric, contest.kind),
        "views": compared,
        "ledger": _ledger(contest, views, tuning),
        "tuning": _trials(tuning),
        "updates": max(record.steps or 0 for record in records),
        "seconds": _seconds(views, tuning, contest.loaded),
    }
    if not contest.several:
        return Comparison.model_validate(content)
    content |= {
        "experiments": experiments_of(contest),
        "differs": differing(contest),
        "costs": costs_of(views[0]),
    }
    return ExperimentComparison.model_validate(content)


def _compared(
    view: View,
    contest: Contest,
    ratio: Mapping[int, float],
    known: Mapping[str, ScoredRuns],
) -> dict[str, Any]:
    """A view as it stands in comparison.json."""
    config, baseline, scoring = contest.settings.compare, contest.baseline, contest.settings.scoring
    for name, runs in (*view.runs.items(), *view.diverged.items()):
        for run in runs.values():
            check_run(run, run.record.policy, contest.entries[name].loaded)
    check_fair(view, contest)
    if not config.mixed_devices:
        check_kinds(view, baseline)
    results = {}
    for name, runs in view.runs.items():
        pooled_alike = name in known and {(r.seed, r.fold) for r in known[name].runs} == set(runs)
        if runs:
            results[name] = known[name] if pooled_alike else _decided(runs.values(), contest, name)
    scores = {name: {(r.seed, r.fold): r.score for r in result.runs} for name, result in results.items()}
    scores |= {name: {} for name, runs in view.runs.items() if not runs}
    made = (
        compare_scores(
            scores,
            baseline,
            ratio,
            margin=config.margin,
            level=config.level,
            power=POWER,
            bootstraps=_bootstraps(view, results, contest),
            metric=scoring.title,
        )
        if len(scores) > 1
        else []
    )
    unlike = unlike_notes(view) if contest.several else []
    notes = (view.note, *unlike, machines_of(view, baseline), unequal_views(view, contest), *_deviations(view))
    return {
        "name": view.name,
        "about": f"{view.about} {size_of(view)}",
        "note": " ".join(filter(None, notes)) or None,
        "policies": [
            {
                "policy": name,
                "oof": result.oof,
                "mean": float(np.mean([run.score for run in result.runs])),
                "runs": [_run_line(run, view.runs[name], contest.several) for run in result.runs],
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


def _decided(runs: Iterable[RunDir], contest: Contest, name: str) -> ScoredRuns:
    loaded = contest.entries[name].loaded
    return decided(list(runs), loaded.competition, loaded.folds, contest.settings.scoring)


def _run_line(scored: RunScore, runs: Mapping[Pair, RunDir], with_digest: bool) -> dict[str, Any]:
    record = runs[scored.seed, scored.fold].record
    digest = {"oof": record.files.get("oof.parquet")} if with_digest else {}
    return {
        "seed": scored.seed,
        "fold": scored.fold,
        "score": scored.score,
        "variant": record.policy,
        "fingerprint": record.fingerprint,
        "updates": record.steps,
        "initial_weights": record.initial_weights,
        "predicted": record.predicted,
        **digest,
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


def _bootstraps(view: View, results: Mapping[str, ScoredRuns], contest: Contest) -> dict[str, BootstrapResult]:
    """Of each policy against the baseline, on the runs that both have."""
    baseline, level, scoring = contest.baseline, contest.settings.compare.level, contest.settings.scoring
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
            those = [runs[pair] for pair in sorted(shared)]
            members[name] = results[name] if whole else _decided(those, contest, name)
        base = members[baseline]
        places = {
            name: each.ids.get_indexer(base.ids) for name, each in members.items()
        }  # the same folds and rows
        predicted = {name: _in_order(each, places[name]) for name, each in members.items()}
        made |= bootstrap(base.truth, predicted, baseline, scoring, groups=base.groups, level=level)
    return made


def _in_order(scored: ScoredRuns, places: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Its labels at these places, and its probabilities where the metric takes them."""
    labels = scored.predicted[places]
    return labels if scored.probabilities is None else (labels, scored.probabilities[places])


def _headline(views: Sequence[Mapping[str, Any]], baseline: str, metric: str, kind: str) -> str:
    """Which policies, or experiments, beat the baseline, in each view."""
    lines = []
    for view in views:
        groups: dict[str, list[Mapping]] = {}
        for each in view["comparisons"]:
            groups.setdefault(each["verdict"], []).append(each)
        better = groups.get("better", [])
        worse = groups.get("worse", [])
        if not view["comparisons"]:
            text = f"no {kind} is left to compare with {baseline}"
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
            text = f"no {kind} is shown to be better than {baseline}"
        for verdict in ("worse", "equivalent", "undecided"):
            if names := [each["policy"] for each in groups.get(verdict, [])]:
                text += f"; {some(names, 20)} {'are' if len(names) > 1 else 'is'} {verdict}"
        if names := [each["policy"] for each in view["diverged"]]:
            text += f"; {some(names, 20)} diverged"
        lines.append(f"{VIEWS[view['name']].capitalize()}: {text}.")
    return " ".join(lines)


def _ledger(contest: Contest, views: Sequence[View], tuning: Tuning | None) -> list[dict[str, Any]]:
    """How many trainings each policy was given, and for what; `total` counts each training once."""
    each = list(tuning.scores) if tuning else []
    lines = []
    for name, entry in contest.entries.items():
        mine = {
            view.name: [*view.runs.get(name, {}).values(), *view.diverged.get(name, {}).values()] for view in views
        }
        tried = [trial for trial in each if trial.policy == name]
        paths = {run.path for runs in mine.values() for run in runs}
        paths |= {trial.run(entry.loaded.folder).path for trial in tried}
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


def _trials(tuning: Tuning | None) -> list[dict[str, Any]]:
    """What was tried to tune rates, and its score; None where it diverged."""
    return [
        {
            "policy": trial.policy,
            "rate": trial.rate,
            "fold": trial.fold,
            "within": trial.within,
            "seed": trial.seed,
            "score": score,
        }
        for trial, score in (tuning.scores if tuning else {}).items()
    ]


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
