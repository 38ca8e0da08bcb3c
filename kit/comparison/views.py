"""Which runs of an experiment stand for which policy, and whether they may be compared."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kit.comparison.contest import Contest
from kit.comparison.tuning import (
    ChosenRate,
    Trial,
    baseline_of,
    choose_rates,
    compared_folds,
    equalised,
    to_equalise,
    trial_scores,
    trials,
)
from kit.core.devices import kind_in_words, same_kind
from kit.core.errors import KitError, some
from kit.core.runs import ExperimentDir, RunDir, RunKey, RunRecord
from kit.experiment.compare_config import TuneConfig
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import as_now, run_digest
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.views import views_of as predicted_views

VIEWS = {"raw": "as they are", "tuned": "tuned", "equalised": "at equal mean rate"}  # in words
EQUALISED = (
    "Each policy rescaled so that its mean rate over parameters and updates is that of a uniform policy: what is "
    "left is the shape."
)


Pair = tuple[int, int]  # seed, fold


@dataclass(frozen=True)
class View:
    """One way to look at the policies: the runs of each by seed and fold.

    Attributes
    ----------
    about : str
        What it is, in a sentence.
    runs : dict
        Policy → (seed, fold) → run.
    diverged : dict
        Policies of which a run diverged, and all their runs: what they finished would flatter them, so it is not
        among `runs`.
    note : str, optional
        What is to be borne in mind.
    """

    name: Literal["raw", "tuned", "equalised"]
    about: str
    runs: dict[str, dict[Pair, RunDir]]
    diverged: dict[str, dict[Pair, RunDir]]
    note: str | None = None

    def diverged_as_told(self, policy: str) -> str:
        """In words."""
        runs = self.diverged[policy].items()
        where = some([f"seed {seed} fold {fold}" for (seed, fold), run in runs if run.diverged])
        return f"{policy} diverged at {where}"


@dataclass(frozen=True)
class Tuning:
    """What the trials gave.

    Attributes
    ----------
    scores : dict
        Of each trial; None where it diverged.
    chosen : dict
        The rate by policy and fold that is compared.
    """

    scores: dict[Trial, float | None]
    chosen: dict[str, dict[int, ChosenRate]]


def tuning_of(loaded: LoadedExperiment, experiment: ExperimentConfig) -> Tuning | None:
    """What the trials that are there choose; None where the config tunes nothing, or a trial is missing."""
    tune, each = experiment.compare.tune, trials(experiment)
    if tune is None or not all(trial.settled(loaded.folder) for trial in each):
        return None
    for trial in each:
        check_run(trial.run(loaded.folder), trial.variant, loaded, trial.within)
    scores = trial_scores(each, loaded.folder, loaded.competition, experiment.scoring)
    return Tuning(scores, choose_rates(scores, experiment, tune))


def tuned_runs(experiment: ExperimentConfig, tuning: Tuning) -> dict[tuple[str, Pair], tuple[str, int, int]]:
    """The run (variant, seed, fold) that stands for a policy, seed and fold where rates are tuned."""
    return {
        (name, (seed, fold)): (by_fold[fold].variant, seed, fold)
        for name, by_fold in tuning.chosen.items()
        for seed in experiment.seeds
        for fold in compared_folds(experiment)
    }


def views_of(
    experiment: ExperimentConfig, loaded: LoadedExperiment, tuning: Tuning | None
) -> tuple[list[View], list[str]]:
    """Return the ways to compare for which all runs are there, and why those are missing that the config asks for.

    Raises
    ------
    KitError
        Where the baseline has no runs, or diverged, with the rates that it states.
    """
    folder, baseline, tune = loaded.folder, baseline_of(experiment), experiment.compare.tune
    pairs = [(seed, fold) for seed in experiment.seeds for fold in experiment.folds.chosen]
    own = {(name, pair): RunKey(name, *pair) for name in experiment.policies for pair in pairs}
    raw = view_of("raw", "Each policy with the rates that it states.", _found(own, folder))
    if baseline in raw.diverged:
        told = raw.diverged_as_told(baseline)
        raise KitError(f"compare: the baseline {told}; lower its lr, or name another with --baseline")
    if not raw.runs[baseline]:
        raise KitError(f"compare: the baseline {baseline} has no finished runs; train it (leave out --stored)")
    others, missing = [], []
    if tuning and tune:
        keys = {place: RunKey(*key) for place, key in tuned_runs(experiment, tuning).items()}
        others.append(view_of("tuned", _about_tuning(tune), _found(keys, folder), _edges(tuning)))
        for name in experiment.policies:
            if name not in tuning.chosen:
                which = f"the baseline {name}" if name == baseline else name
                where = ", without one of the folds" if tune.folds == "nested" else ""
                missing.append(
                    f"Not compared tuned: {which} diverged at every rate that was tried{where}; try lower ones."
                )
    elif tune:
        missing.append("Not compared tuned: not all of its runs are there.")
    if names := to_equalise(experiment):
        same = {name: equalised(name, experiment.policies[name])[0] for name in names}
        keys = {(name, pair): RunKey(same[name], *pair) for name in names for pair in pairs}
        others.append(view_of("equalised", EQUALISED, _found(keys, folder)))
    views = [raw]
    for view in others:
        if baseline in view.diverged:
            missing.append(f"Not compared {view.name}: the baseline {view.diverged_as_told(baseline)}.")
        elif not all(view.runs.values()):
            missing.append(f"Not compared {view.name}: not all of its runs are there.")
        elif baseline in view.runs:
            views.append(view)
    return views, missing


def _found(keys: Mapping[tuple[str, Pair], RunKey], folder: ExperimentDir) -> dict[tuple[str, Pair], RunDir]:
    return {place: folder.run(key) for place, key in keys.items()}


def view_of(
    name: Literal["raw", "tuned", "equalised"],
    about: str,
    found: Mapping[tuple[str, Pair], RunDir],
    note: str | None = None,
) -> View:
    """Return the view of those runs that are there, of all that stand for an entry, seed and fold."""
    runs: dict[str, dict[Pair, RunDir]] = {entry: {} for entry, _ in found}
    for (entry, pair), run in found.items():
        if run.finished or run.diverged:
            runs[entry][pair] = run
    diverged = {name: each for name, each in runs.items() if any(run.diverged for run in each.values())}
    return View(name, about, {name: runs[name] for name in runs if name not in diverged}, diverged, note)


def _about_tuning(tune: TuneConfig) -> str:
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


def check_run(run: RunDir, policy: str, loaded: LoadedExperiment, within: int | None = None) -> None:
    """KitError where the run is of another config, policy, data or kit than this experiment's."""
    record = run.record
    then = as_now(record.depends_on, loaded.config)
    now = loaded.depends_on | {"policy": run_digest(loaded.config, policy)}
    if within is not None:
        now["folds"] = dataclasses.replace(loaded.folds, unused=within).digest
    if changed := [name for name, digest in now.items() if then.get(name) != digest]:
        where = run.path.relative_to(loaded.folder.path)
        raise KitError(
            f"{where}: was trained with other {' and '.join(changed)} than this config's (fingerprint "
            f"{record.fingerprint}), so it is not compared; remove the run, and it is trained anew"
        )


def check_fair(view: View, contest: Contest) -> None:
    """KitError where runs of the same seed and fold did not start alike, or differ in updates.

    Of experiments, those with the same model have to start alike, those with the same training and rows have to
    make as many updates, where they tell.
    """
    by_pair: dict[Pair, list[tuple[str, RunRecord]]] = {}
    for name, runs in view.runs.items():
        for pair, run in runs.items():
            by_pair.setdefault(pair, []).append((name, run.record))
    decided_by = {
        "steps": {name: contest.entries[name].length for name in view.runs},
        "initial_weights": {name: contest.entries[name].begins_with for name in view.runs},
    }
    for (seed, fold), members in sorted(by_pair.items()):
        for key, what in (("steps", "updates"), ("initial_weights", "initial weights")):
            alike: dict[str, dict[str, object]] = {}
            for name, record in members:
                value = getattr(record, key)
                if value is not None or not contest.several:  # what is no network has neither
                    alike.setdefault(decided_by[key][name], {})[name] = value
            for values in alike.values():
                if len(set(values.values())) > 1:
                    told = some([f"{name} {value}" for name, value in values.items()], 20)
                    raise KitError(
                        f"seed {seed} fold {fold}: the {contest.kinds} had different {what} ({told}), so they "
                        "cannot be compared; train them anew with one config, as many devices and one version of "
                        "the kit"
                    )


def unlike_notes(view: View) -> list[str]:
    """Return what is to be borne in mind where experiments began with other weights, or made other updates."""
    notes = []
    pairs = {pair for runs in view.runs.values() for pair in runs}
    began = [{runs[pair].record.initial_weights for runs in view.runs.values() if pair in runs} for pair in pairs]
    if any(len(each - {None}) > 1 for each in began):
        notes.append(
            "Initial weights differ, as models do: the pairing is by fold and seed of order and augmentation "
            "alone."
        )
    updates = {name: {run.record.steps for run in runs.values()} - {None} for name, runs in view.runs.items()}
    if len({frozenset(each) for each in updates.values() if each}) > 1:
        told = [f"{name} {_span(each)}" for name, each in updates.items() if each]
        notes.append(f"They made different numbers of updates: {some(told, 20)}.")
    return notes


def _span(values: Iterable[int | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return f"{known[0]}" if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def size_of(view: View) -> str:
    """How many folds and seeds each policy was trained on."""
    sizes: dict[str, list[str]] = {}
    for name, runs in view.runs.items():
        folds, seeds = {fold for _, fold in runs}, {seed for seed, _ in runs}
        whole = len(runs) == len(folds) * len(seeds)
        text = f"{_counted(len(folds), 'fold')} × {_counted(len(seeds), 'seed')}" + (
            "" if whole else f", not all of them ({len(runs)} runs)"
        )
        sizes.setdefault(text, []).append(name)
    if len(sizes) == 1:
        return f"{next(iter(sizes))}."
    return " ".join(f"{some(names, 20)}: {text}." for text, names in sizes.items())


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def unequal_views(view: View, contest: Contest) -> str | None:
    """Told where runs that should be predicted in the same views of the images are not, as for want of time.

    Those are all runs of an experiment; where experiments are compared, each may have views of its own.
    """
    groups: dict[str, Counter[str]] = {}
    for name, each in view.runs.items():
        config = contest.entries[name].loaded.config
        views = groups.setdefault(name if contest.several else "", Counter())
        views.update(str(predicted_views(run.record, config)) for run in each.values())
    if not (unlike := [counts for counts in groups.values() if len(counts) > 1]):
        return None
    told = ", ".join(f"{count} in {name}" for name, count in unlike[0].most_common())
    return (
        f"Of {unlike[0].total()} runs not all were predicted in the same views ({told}), which may decide a "
        "difference; python -m kit run, with enough time, predicts them alike."
    )


def mixed_pairs(view: View, baseline: str) -> dict[tuple[str, Pair], tuple[RunRecord, RunRecord]]:
    """Return the runs whose counterpart of the baseline was trained on another kind: both records."""
    base = {pair: run.record for pair, run in view.runs.get(baseline, {}).items()}
    each = (
        (name, pair, run.record)
        for name, runs in view.runs.items()
        for pair, run in runs.items()
        if pair in base and name != baseline
    )
    return {(name, pair): (base[pair], record) for name, pair, record in each if not same_kind(base[pair], record)}


def check_kinds(view: View, baseline: str) -> None:
    """KitError where runs would be paired that were trained on different kinds of device."""
    for (name, (seed, fold)), (base, record) in mixed_pairs(view, baseline).items():
        raise KitError(
            f"seed {seed} fold {fold}: {baseline} was trained on {kind_in_words(base)}; {name} on "
            f"{kind_in_words(record)}: what differs may be the device's; remove one of the two runs and train it "
            "anew where the other was, or compare all the same with --mixed-devices (compare.mixed_devices: true)"
        )


def devices_of(views: Iterable[View]) -> dict[str, int]:
    """Return how many runs were trained on which kind of device, each run counted once."""
    runs = {run.path: run.record for view in views for each in view.runs.values() for run in each.values()}
    return dict(Counter(sorted(kind_in_words(record) for record in runs.values())))


def machines_of(view: View, baseline: str) -> str | None:
    """Told where runs were not all trained on one kind of device, and how many pairs are of different ones."""
    records = [run.record for runs in view.runs.values() for run in runs.values()]
    if all(same_kind(records[0], record) for record in records[1:]):
        return None
    kinds = some(sorted({kind_in_words(record) for record in records}), 5)
    line = f"Runs were trained on different machines: {kinds}."
    if mixed := mixed_pairs(view, baseline):
        line += f" {_counted(len(mixed), 'pair')} of different ones: what differs there may be the device's."
    return line
