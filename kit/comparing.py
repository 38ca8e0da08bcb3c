"""Which policy wins: trained on the same folds and seeds, checked to be comparable, compared with statistics."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kit.competition.folds import FoldPlan
from kit.competition.load import Competition, load_competition
from kit.config import Experiment
from kit.errors import Diverged, KitError, some
from kit.files import atomic, write_json
from kit.identity import digests, fold_plan, stored_experiment
from kit.locate import Places
from kit.pooling import Decided, decided
from kit.runs import ExperimentDir, RunDir, RunKey
from kit.scoring.compare import Resampled, bootstrap_many
from kit.scoring.compare import compare as compare_scores
from kit.settings import fingerprint
from kit.tuning import (
    Chosen,
    Trial,
    check_tuning,
    choose_rates,
    compared_folds,
    equalised,
    to_equalise,
    trial_folder,
    trial_scores,
    trials,
    variants,
)

if TYPE_CHECKING:  # it brings torch, which comparing stored runs does not need
    from kit.execution import Bench

POWER = 0.8
EQUALISED = (
    "Each policy rescaled so that its mean rate over parameters and updates is that of a uniform policy: what is "
    "left is the shape."
)

Say = Any
Pair = tuple[int, int]  # seed, fold


@dataclass(frozen=True)
class View:
    """One way to look at the policies: the runs of each by seed and fold.

    about  what it is, in a sentence;  note  what is to be borne in mind, or None
    """

    name: Literal["raw", "tuned", "equalised"]
    about: str
    runs: dict[str, dict[Pair, RunDir]]
    note: str | None = None


@dataclass(frozen=True)
class Compared:
    """What `compare` made: the experiment's folder, the content of comparison.json, how many runs it trained; and
    whether this process is the one that writes."""

    folder: Path
    content: dict[str, Any]
    trained: int
    main: bool = True


@dataclass(frozen=True)
class Evidence:
    """What the runs of an experiment are read with."""

    experiment: Experiment
    folder: ExperimentDir
    competition: Competition
    plan: FoldPlan
    depends_on: dict[str, str]

    @classmethod
    def of(cls, experiment: Experiment, folder: ExperimentDir, competition: Competition, plan: FoldPlan):
        return cls(experiment, folder, competition, plan, digests(experiment, competition, plan))


def compare(
    experiment: Experiment,
    output: str | Path = ".",
    replace: bool = False,
    say: Say = lambda line: None,
    *,
    stored: bool = False,
    folds: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | Literal["auto"] = "auto",
    seconds: float | None = None,
) -> Compared:
    """Trains what is not there yet of policies × seeds × folds, and of what tunes and equalises them; compares.

    stored  trains nothing, and compares the finished runs that are there
    The other arguments are those of `kit.experiment.run`.

    Writes comparison.json and comparison.csv. Raises KitError, before any training, for what cannot work; and for
    runs that are not comparable.
    """
    experiment = _with_baseline(experiment)
    check_tuning(experiment)
    whole = experiment.model_copy(update={"policies": experiment.policies | variants(experiment)})
    places = Places(Path(output).expanduser(), Path(cache).expanduser() if cache else None)
    folder = ExperimentDir(places.runs / experiment.name)
    if stored:
        evidence, main = _stored(whole, folder, places), True
        tuning, known, trained = _tuning(evidence, experiment), {}, 0
    else:
        from kit.execution import set_up

        bench = set_up(whole, output, replace, say, folds=folds, cache=cache, jobs=jobs, seconds=seconds)
        evidence, main = Evidence.of(whole, folder, bench.prepared.competition, bench.prepared.plan), bench.main
        tuning, known, trained = _train(experiment, bench, evidence)
    views = _views(experiment, evidence, tuning)
    content = _content(experiment, evidence, views, tuning, known)
    if main:
        write_json(folder.comparison, content)
        _write_table(content, folder.path / "comparison.csv")
    return Compared(folder.path, content, trained, main)


def _with_baseline(experiment: Experiment) -> Experiment:
    """With the baseline named. KitError where there is nothing to compare."""
    names, baseline = list(experiment.policies), experiment.compare.baseline
    if len(names) < 2:
        raise KitError(
            f"compare: {names[0]} is the only policy; name two or more, like --policies {names[0]},discriminative"
        )
    if baseline is not None and baseline not in names:
        raise KitError(
            f"compare.baseline: {baseline} is not among the policies ({some(names)}); add it, or set another"
        )
    chosen = experiment.compare.model_copy(update={"baseline": baseline or names[0]})
    return experiment.model_copy(update={"compare": chosen})


@dataclass(frozen=True)
class Tuning:
    """scores: of each trial, None where it diverged;  chosen: by policy and fold that is compared"""

    scores: dict[Trial, float | None]
    chosen: dict[str, dict[int, Chosen]]


def _train(
    experiment: Experiment, bench: "Bench", evidence: Evidence
) -> tuple[Tuning | None, dict[str, Decided], int]:
    """Everything that is compared: what tuned, the policies as they are scored, and how many runs were trained."""
    from kit.experiment import train_and_pool

    result = train_and_pool(experiment, bench)
    _need_all(result.left, result.trained)
    trained, known = result.trained, {name: each.decided for name, each in result.policies.items()}
    seeds, folds = experiment.seeds, experiment.folds.chosen
    names = [equalised(name, experiment.policies[name])[0] for name in to_equalise(experiment)]
    others = [RunKey(name, seed, fold) for name in names for seed in seeds for fold in folds]
    trained += _trained(bench, [key for key in others if key.policy not in experiment.policies], "equalised")
    if experiment.compare.tune is None:
        return None, known, trained
    each = trials(experiment)
    for within in dict.fromkeys(trial.within for trial in each):
        where = bench if within is None else bench.within(within, trial_folder(bench.folder, within))
        keys = [RunKey(trial.variant, trial.seed, trial.fold) for trial in each if trial.within == within]
        trained += _trained(where, keys, "tuning", tolerant=True)
    tuning = _tuning(evidence, experiment)
    keys = [RunKey(*key) for key in _tuned_runs(experiment, tuning).values()]
    try:
        return tuning, known, trained + _trained(bench, keys, "tuned")
    except Diverged as error:
        raise KitError(f"{error}; this rate was chosen among compare.tune.rates, so leave it out there") from error


def _trained(bench: "Bench", keys: Sequence[RunKey], what: str, tolerant: bool = False) -> int:
    if not keys:
        return 0
    due = len(bench.due(keys, tolerant))
    left = bench.train(keys, what, tolerant)
    _need_all(left, due - left)
    return due


def _need_all(left: int, trained: int) -> None:
    if left:
        raise KitError(
            f"the time limit allows no more than {trained} of {trained + left} runs; the same command trains the "
            "others and compares"
        )


def _stored(whole: Experiment, folder: ExperimentDir, places: Places) -> Evidence:
    """What the runs that are there are read with; KitError where they are of another config or other data."""
    if stored_experiment(folder) is None:
        raise KitError(f"{folder.path} holds no experiment; leave out --stored to train it")
    competition = load_competition(whole.competition)
    plan, reason = fold_plan(whole, folder, competition, places)
    if reason:
        raise KitError(f"{folder.path} was made from {reason}, so its runs are not those of this config")
    return Evidence.of(whole, folder, competition, plan)


def _tuning(evidence: Evidence, experiment: Experiment) -> Tuning | None:
    """What the trials that are there choose; None where the config tunes nothing, or a trial is missing."""
    tune, each = experiment.compare.tune, trials(experiment)
    if tune is None or not all(trial.settled(evidence.folder) for trial in each):
        return None
    for trial in each:
        _check_run(trial.run(evidence.folder), trial.variant, evidence, trial.within)
    scores = trial_scores(each, evidence.folder, evidence.competition, experiment.scoring)
    return Tuning(scores, choose_rates(scores, experiment, tune))


def _tuned_runs(experiment: Experiment, tuning: Tuning) -> dict[tuple[str, Pair], tuple[str, int, int]]:
    """The run (variant, seed, fold) that stands for a policy, seed and fold where rates are tuned."""
    return {
        (name, (seed, fold)): (by_fold[fold].variant, seed, fold)
        for name, by_fold in tuning.chosen.items()
        for seed in experiment.seeds
        for fold in compared_folds(experiment)
    }


def _views(experiment: Experiment, evidence: Evidence, tuning: Tuning | None) -> list[View]:
    """The ways to compare for which all runs are there."""
    folder, pairs = evidence.folder, [(s, f) for s in experiment.seeds for f in experiment.folds.chosen]
    raw = {
        name: {pair: run for pair in pairs if (run := folder.run(RunKey(name, *pair))).finished}
        for name in experiment.policies
    }
    views = [View("raw", "Each policy with the rates that it states.", raw)]
    if tuning:
        tuned: dict[str, dict[Pair, RunDir]] = {name: {} for name in experiment.policies}
        for (name, pair), key in _tuned_runs(experiment, tuning).items():
            if (run := folder.run(RunKey(*key))).finished:
                tuned[name][pair] = run
        views.append(View("tuned", _about_tuning(experiment), tuned, _edges(tuning)))
    if names := to_equalise(experiment):
        same = {
            name: {
                pair: run
                for pair in pairs
                if (run := folder.run(RunKey(equalised(name, experiment.policies[name])[0], *pair))).finished
            }
            for name in names
        }
        views.append(View("equalised", EQUALISED, same))
    return [views[0], *(view for view in views[1:] if all(view.runs.values()))]


def _about_tuning(experiment: Experiment) -> str:
    tune = experiment.compare.tune
    rates = some([f"{rate:g}" for rate in tune.rates], 20)
    if tune.folds == "nested":
        where = "within the other folds of each fold that is compared (trained on all but two, scored on one)"
    else:
        where = f"on fold {some(tune.folds)}; compared on the others"
    return f"The peak rate of each policy is the best of {rates} {where}, with one seed."


def _edges(tuning: Tuning) -> str | None:
    """Which policies would perhaps have liked a rate beyond those tried."""
    ends = {name: {c.rate for c in by_fold.values() if c.at_end} for name, by_fold in tuning.chosen.items()}
    lines = [f"{name} ({some([f'{rate:g}' for rate in sorted(rates)])})" for name, rates in ends.items() if rates]
    if not lines:
        return None
    return f"Chosen at the end of the rates that were tried: {some(lines, 20)}; further rates might do better."


def _content(
    experiment: Experiment,
    evidence: Evidence,
    views: Sequence[View],
    tuning: Tuning | None,
    known: Mapping[str, Decided],
) -> dict[str, Any]:
    """What comparison.json holds; `known`: policies that were pooled just now, as they are."""
    config = experiment.compare
    folds = experiment.folds.chosen
    plan = evidence.plan
    ratio = {fold: len(plan.validation_rows(fold)) / len(plan.training_rows(fold)) for fold in folds}
    compared = [
        _compared(view, experiment, evidence, ratio, known if view.name == "raw" else {}) for view in views
    ]
    records = [run.read() for view in views for runs in view.runs.values() for run in runs.values()]
    return {
        "experiment": experiment.name,
        "metric": experiment.scoring.title,
        "baseline": config.baseline,
        "level": config.level,
        "power": POWER,
        "margin": config.margin,
        "ratio": float(np.mean(list(ratio.values()))),
        "scoring": experiment.scoring.canonical(),
        "missing": _missing(experiment, views),
        "headline": _headline(compared, config.baseline, experiment.scoring.title),
        "views": compared,
        "ledger": _ledger(experiment, evidence, views, tuning),
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
        "updates": max(record["steps"] for record in records),
        "seconds": _seconds(views, tuning, evidence),
    }


def _compared(
    view: View,
    experiment: Experiment,
    evidence: Evidence,
    ratio: Mapping[int, float],
    known: Mapping[str, Decided],
) -> dict[str, Any]:
    """A view as it stands in comparison.json."""
    config = experiment.compare
    for runs in view.runs.values():
        for run in runs.values():
            _check_run(run, run.read()["policy"], evidence)
    _check_fair(view)
    results = {}
    for name, runs in view.runs.items():
        pooled_alike = name in known and {(r["seed"], r["fold"]) for r in known[name].runs} == set(runs)
        if runs:
            results[name] = known[name] if pooled_alike else _decided(runs.values(), evidence)
    scores = {name: {(r["seed"], r["fold"]): r["score"] for r in result.runs} for name, result in results.items()}
    scores |= {name: {} for name, runs in view.runs.items() if not runs}
    made = compare_scores(
        scores,
        config.baseline,
        ratio,
        margin=config.margin,
        level=config.level,
        power=POWER,
        bootstraps=_bootstraps(view, results, experiment, evidence),
        metric=experiment.scoring.title,
    )
    return {
        "name": view.name,
        "about": f"{view.about} {_size(view)}",
        "note": " ".join(filter(None, (view.note, _machines(view)))) or None,
        "policies": [
            {
                "policy": name,
                "oof": result.oof,
                "mean": float(np.mean([run["score"] for run in result.runs])),
                "runs": [_run_line(run, view.runs[name]) for run in result.runs],
            }
            for name, result in results.items()
        ],
        "comparisons": [each.to_json() for each in made],
    }


def _decided(runs, evidence: Evidence) -> Decided:
    return decided(list(runs), evidence.competition, evidence.plan, evidence.experiment.scoring)


def _run_line(scored: Mapping[str, Any], runs: Mapping[Pair, RunDir]) -> dict[str, Any]:
    record = runs[scored["seed"], scored["fold"]].read()
    return {
        "seed": scored["seed"],
        "fold": scored["fold"],
        "score": scored["score"],
        "variant": record["policy"],
        "fingerprint": record["fingerprint"],
        "updates": record["steps"],
        "initial_weights": record["initial_weights"],
    }


def _bootstraps(
    view: View, results: Mapping[str, Decided], experiment: Experiment, evidence: Evidence
) -> dict[str, Resampled]:
    """Of each policy against the baseline, on the runs that both have."""
    baseline, level = experiment.compare.baseline, experiment.compare.level
    if baseline not in results:
        return {}
    alike: dict[frozenset, list[str]] = {}
    for name, runs in view.runs.items():
        if name != baseline and (shared := frozenset(runs) & frozenset(view.runs[baseline])):
            alike.setdefault(shared, []).append(name)
    made: dict[str, Resampled] = {}
    for shared, names in alike.items():
        members = {}
        for name in (baseline, *names):
            runs = view.runs[name]
            whole = len(runs) == len(shared)
            members[name] = results[name] if whole else _decided([runs[pair] for pair in sorted(shared)], evidence)
        base = members[baseline]
        predicted = {
            name: each.predicted[each.ids.get_indexer(base.ids)] for name, each in members.items()
        }  # the same folds, so the same rows
        made |= bootstrap_many(
            base.truth, predicted, baseline, experiment.scoring, groups=base.groups, level=level
        )
    return made


def _check_run(run: RunDir, policy: str, evidence: Evidence, within: int | None = None) -> None:
    """KitError where the run is of another config, policy, data or kit than this experiment's."""
    record = run.read()
    then = record.get("depends_on", {})
    config = evidence.experiment.policies[policy]
    now = evidence.depends_on | {"policy": fingerprint(config.canonical())}
    if within is not None:
        now["folds"] = dataclasses.replace(evidence.plan, unused=within).digest
    if changed := [name for name, digest in now.items() if then.get(name) != digest]:
        where = run.path.relative_to(evidence.folder.path)
        raise KitError(
            f"{where}: was trained with other {' and '.join(changed)} than this config's (fingerprint "
            f"{record.get('fingerprint')}), so it is not compared; remove the run, and it is trained anew"
        )


def _check_fair(view: View) -> None:
    """KitError where runs of the same seed and fold did not start alike, or differ in updates."""
    by_pair: dict[Pair, list[tuple[str, dict[str, Any]]]] = {}
    for name, runs in view.runs.items():
        for pair, run in runs.items():
            by_pair.setdefault(pair, []).append((name, run.read()))
    for (seed, fold), members in sorted(by_pair.items()):
        for key, what in (("steps", "updates"), ("initial_weights", "initial weights")):
            values = {name: record[key] for name, record in members}
            if len(set(values.values())) > 1:
                told = some([f"{name} {value}" for name, value in values.items()], 20)
                raise KitError(
                    f"seed {seed} fold {fold}: the policies had different {what} ({told}), so they cannot be "
                    "compared; train them anew with one config, as many devices and one version of the kit"
                )


def _size(view: View) -> str:
    """How many folds and seeds each policy was trained on."""
    sizes = {}
    for name, runs in view.runs.items():
        folds, seeds = {fold for _, fold in runs}, {seed for seed, _ in runs}
        whole = len(runs) == len(folds) * len(seeds)
        text = f"{len(folds)} folds × {len(seeds)} seeds" + (
            "" if whole else f", not all of them ({len(runs)} runs)"
        )
        sizes.setdefault(text, []).append(name)
    if len(sizes) == 1:
        return f"{next(iter(sizes))}."
    return " ".join(f"{some(names, 20)}: {text}." for text, names in sizes.items())


def _machines(view: View) -> str | None:
    """Told where runs were not all trained on the same kind of device, in one precision and with one torch."""
    records = [run.read() for runs in view.runs.values() for run in runs.values()]
    kinds = {
        f"{record.get('device', 'cpu').partition(':')[0]} in {record.get('precision', 'fp32')}, "
        f"torch {record.get('versions', {}).get('torch', 'unknown')}"
        for record in records
    }
    return f"Runs were trained on different machines: {some(sorted(kinds), 5)}." if len(kinds) > 1 else None


def _missing(experiment: Experiment, views: Sequence[View]) -> list[str]:
    """What the config asks for and the runs that are there do not suffice for."""
    wanted = {"tuned": experiment.compare.tune is not None, "equalised": bool(to_equalise(experiment))}
    shown = [view.name for view in views]
    return [
        f"Not compared {name}: not all of its runs are there."
        for name, asked in wanted.items()
        if asked and name not in shown
    ]


def _headline(views: Sequence[Mapping[str, Any]], baseline: str, metric: str) -> str:
    """Which policies beat the baseline, in each view."""
    titles = {"raw": "As they are", "tuned": "Tuned", "equalised": "At equal mean rate"}
    lines = []
    for view in views:
        groups: dict[str, list[Mapping]] = {}
        for each in view["comparisons"]:
            groups.setdefault(each["verdict"], []).append(each)
        better = groups.get("better", [])
        worse = groups.get("worse", [])
        if len(worse) == len(view["comparisons"]):
            ahead = f"{-worse[0]['difference']:.3f} {metric}"
            text = f"{baseline} is better than all others, than {worse[0]['policy']} by {ahead}"
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
        lines.append(f"{titles[view['name']]}: {text}.")
    return " ".join(lines)


def _ledger(
    experiment: Experiment, evidence: Evidence, views: Sequence[View], tuning: Tuning | None
) -> list[dict[str, Any]]:
    """How many trainings each policy was given, and for what; `total` counts each training once."""
    by_view = {view.name: view.runs for view in views}
    each = list(tuning.scores) if tuning else []
    lines = []
    for name in experiment.policies:
        mine = {kind: list(runs.get(name, {}).values()) for kind, runs in by_view.items()}
        tried = [trial for trial in each if trial.policy == name]
        paths = {run.path for runs in mine.values() for run in runs}
        paths |= {trial.run(evidence.folder).path for trial in tried}
        chosen = tuning.chosen[name] if tuning else {}
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


def _seconds(views: Sequence[View], tuning: Tuning | None, evidence: Evidence) -> float:
    """Of all trainings, each counted once."""
    runs = {run.path: run for view in views for members in view.runs.values() for run in members.values()}
    runs |= {run.path: run for run in (trial.run(evidence.folder) for trial in (tuning.scores if tuning else ()))}
    return round(sum(run.read().get("seconds", {}).get("training", 0.0) for run in runs.values()), 1)


COLUMNS = (
    "view", "policy", "baseline", "runs", "score", "baseline_score", "difference", "low", "high", "p", "p_holm",
    "smallest_detectable", "bootstrap_low", "bootstrap_high", "verdict", "seeds_to_decide",
)  # fmt: skip


def _write_table(content: Mapping[str, Any], path: Path) -> None:
    """comparison.csv: a line a comparison."""
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for view in content["views"]:
            for each in view["comparisons"]:
                interval, resampled = each["interval"] or {}, each["bootstrap"] or {}
                table.writerow(
                    each
                    | {key: interval.get(key) for key in ("low", "high", "p")}
                    | {f"bootstrap_{key}": resampled.get(key) for key in ("low", "high")}
                    | {"view": view["name"]}
                )
