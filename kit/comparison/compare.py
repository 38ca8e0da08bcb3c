"""Which policy wins: trained on the same folds and seeds, checked to be comparable, compared with statistics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kit.comparison.record import content_of, write_table
from kit.comparison.tuning import check_tuning, equalised, to_equalise, trial_folder, trials, variants
from kit.comparison.views import Evidence, Tuning, tuned_runs, tuning_of, views_of
from kit.competition.load import load_competition
from kit.core.errors import Diverged, KitError, Say, some
from kit.core.files import write_json
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunKey
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import fold_plan
from kit.experiment.pool import ScoredRuns

if TYPE_CHECKING:  # it brings torch, which comparing stored runs does not need
    from kit.experiment.runner import Runner


@dataclass(frozen=True)
class CompareResult:
    """What `compare` made: the experiment's folder, the content of comparison.json, how many runs it trained; and
    whether this process is the one that writes."""

    folder: Path
    content: dict[str, Any]
    trained: int
    main: bool = True


def compare(
    experiment: ExperimentConfig,
    output: str | Path = ".",
    replace: bool = False,
    say: Say = lambda line: None,
    *,
    stored: bool = False,
    folds: str | Path | None = None,
    cache: str | Path | None = None,
    jobs: int | Literal["auto"] = "auto",
    seconds: float | None = None,
) -> CompareResult:
    """Trains what is not there yet of policies × seeds × folds, and of what tunes and equalises them; compares.

    stored  trains nothing, and compares the finished runs that are there
    The other arguments are those of `kit.experiment.run.run`.

    Writes comparison.json and comparison.csv. Raises KitError, before any training, for what cannot work; and for
    runs that are not comparable.
    """
    experiment = _with_baseline(experiment)
    check_tuning(experiment)
    whole = experiment.model_copy(update={"policies": experiment.policies | variants(experiment)})
    dirs = OutputDirs(Path(output).expanduser(), Path(cache).expanduser() if cache else None)
    folder = ExperimentDir(dirs.runs / experiment.name)
    if stored:
        evidence, main = _stored(whole, folder, dirs), True
        tuning, known, trained = tuning_of(evidence, experiment), {}, 0
    else:
        from kit.experiment.runner import set_up

        bench = set_up(whole, output, replace, say, folds=folds, cache=cache, jobs=jobs, seconds=seconds)
        evidence, main = Evidence.of(whole, folder, bench.prepared.competition, bench.prepared.plan), bench.main
        tuning, known, trained = _train(experiment, bench, evidence)
    views, missing = views_of(experiment, evidence, tuning)
    content = content_of(experiment, evidence, views, missing, tuning, known)
    if main:
        if lost := _compared_before(folder) - _compared_runs(content):
            what = some(list(dict.fromkeys(policy for _, policy, _, _ in sorted(lost))))
            say(f"{folder.comparison.name} was of {len(lost)} runs more, of {what}; this comparison replaces it")
        write_json(folder.comparison, content)
        write_table(content, folder.path / "comparison.csv")
    return CompareResult(folder.path, content, trained, main)


def _compared_runs(content: Mapping[str, Any]) -> set[tuple[str, str, int, int]]:
    """View, policy, seed and fold of what stands in a comparison."""
    return {
        (view["name"], each["policy"], run["seed"], run["fold"])
        for view in content["views"]
        for each in (*view["policies"], *view.get("diverged", ()))
        for run in each["runs"]
    }


def _compared_before(folder: ExperimentDir) -> set[tuple[str, str, int, int]]:
    """`_compared_runs` of the comparison.json that is there."""
    try:
        return _compared_runs(json.loads(folder.comparison.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _with_baseline(experiment: ExperimentConfig) -> ExperimentConfig:
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


def _train(
    experiment: ExperimentConfig, bench: "Runner", evidence: Evidence
) -> tuple[Tuning | None, dict[str, ScoredRuns], int]:
    """Everything that is compared: what tuned, the policies as they are scored, and how many runs were trained."""
    from kit.experiment.run import train_and_pool

    first = _train_baseline(experiment, bench)
    result = train_and_pool(experiment, bench, tolerant=True)
    _need_all(result.left, first + result.trained)
    trained, known = first + result.trained, {name: each.decided for name, each in result.policies.items()}
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
        trained += _trained(where, keys, "tuning")
    tuning = tuning_of(evidence, experiment)
    if experiment.compare.baseline not in tuning.chosen:  # nothing to compare the tuned policies with
        return tuning, known, trained
    keys = [RunKey(*key) for key in tuned_runs(experiment, tuning).values()]
    return tuning, known, trained + _trained(bench, keys, "tuned")


def _train_baseline(experiment: ExperimentConfig, bench: "Runner") -> int:
    """Before all others: should it diverge, nothing can be compared with it."""
    from kit.experiment.prepare import run_keys

    baseline = experiment.compare.baseline
    keys = bench.due([key for key in run_keys(experiment) if key.policy == baseline])
    if not keys:
        return 0
    try:
        left = bench.train(keys, "baseline")
    except Diverged as error:
        raise KitError(
            f"{error}; it is the baseline: name another with --baseline to compare all the same"
        ) from error
    _need_all(left, len(keys) - left)
    return len(keys)


def _trained(bench: "Runner", keys: Sequence[RunKey], what: str) -> int:
    if not keys:
        return 0
    due = len(bench.due(keys, tolerant=True))
    left = bench.train(keys, what, tolerant=True)
    _need_all(left, due - left)
    return due


def _need_all(left: int, trained: int) -> None:
    if left:
        raise KitError(
            f"the time limit allows no more than {trained} of {trained + left} runs; the same command trains the "
            "others and compares"
        )


def _stored(whole: ExperimentConfig, folder: ExperimentDir, dirs: OutputDirs) -> Evidence:
    """What the runs that are there are read with; KitError where they are of another config or other data."""
    if stored_experiment(folder) is None:
        raise KitError(f"{folder.path} holds no experiment; leave out --stored to train it")
    competition = load_competition(whole.competition)
    plan, reason = fold_plan(whole, folder, competition, dirs)
    if reason:
        raise KitError(f"{folder.path} was made from {reason}, so its runs are not those of this config")
    return Evidence.of(whole, folder, competition, plan)
