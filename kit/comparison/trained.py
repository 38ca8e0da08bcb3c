"""What a comparison trains: an experiment's policies and what tunes and equalises them, or experiments in turn."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kit.comparison.contest import Entry
from kit.comparison.experiments import check_all, runners
from kit.comparison.tuning import baseline_of, equalised, to_equalise, trial_folder, trials
from kit.comparison.views import Tuning, tuned_runs, tuning_of
from kit.core.devices import kind_in_words
from kit.core.errors import Diverged, KitError, Say, some
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.experiment.config import ExperimentConfig
from kit.experiment.options import RunOptions
from kit.experiment.pool import ScoredRuns

if TYPE_CHECKING:  # it brings torch, which comparing stored runs does not need
    from kit.experiment.runner import Runner


def train_policies(
    experiment: ExperimentConfig, runner: "Runner"
) -> tuple[Tuning | None, dict[str, ScoredRuns], int, int]:
    """Train everything that is compared.

    Return what tuned, the policies as they are scored, how many runs were trained, and how many are left.
    """
    from kit.experiment.prepare import run_keys
    from kit.experiment.run import train_and_pool

    keys = run_keys(experiment)
    if not experiment.compare.mixed_devices:
        folder = runner.loaded.folder
        _need_one_kind(keys, runner, [run for policy in experiment.policies for run in folder.finished(policy)])
    baseline = [key for key in keys if key.policy == experiment.compare.baseline]
    first = _train_baseline(baseline, runner, "name another with --baseline")
    result = train_and_pool(experiment, runner, tolerant=True)
    if len(result.policies) < len(experiment.policies):  # not a run of each to compare
        _need_all(result.left, first + result.trained)
    trained, known = first + result.trained, {name: each.decided for name, each in result.policies.items()}
    if result.left:
        return None, known, trained, result.left
    seeds, folds = experiment.seeds, experiment.folds.chosen
    names = [equalised(name, experiment.policies[name])[0] for name in to_equalise(experiment)]
    others = [RunKey(name, seed, fold) for name in names for seed in seeds for fold in folds]
    trained += _trained(runner, [key for key in others if key.policy not in experiment.policies], "equalised")
    if experiment.compare.tune is None:
        return None, known, trained, 0
    each = trials(experiment)
    for within in dict.fromkeys(trial.within for trial in each):
        where = runner if within is None else runner.within(within, trial_folder(runner.loaded.folder, within))
        keys = [RunKey(trial.variant, trial.seed, trial.fold) for trial in each if trial.within == within]
        trained += _trained(where, keys, "tuning")
    tuning = tuning_of(runner.loaded, experiment)
    if tuning is None or baseline_of(experiment) not in tuning.chosen:  # nothing to compare with
        return tuning, known, trained, 0
    keys = [RunKey(*key) for key in tuned_runs(experiment, tuning).values()]
    return tuning, known, trained + _trained(runner, keys, "tuned"), 0


def _need_one_kind(keys: Sequence[RunKey], runner: "Runner", there: Iterable[RunDir]) -> None:
    """KitError where one of these runs that is due would be paired with one that was trained on another kind."""
    due = {(key.seed, key.fold) for key in runner.due(keys, tolerant=True)}
    kinds = runner.kinds() if due else set()
    for run in there:
        record, own = run.record, run.path.is_relative_to(runner.loaded.folder.path)
        where = "" if own else f"{run.path.parents[2].name}: "
        if (
            (record.seed, record.fold) in due
            and record.device_name
            and (kind := kind_in_words(record)) not in kinds
        ):
            raise KitError(
                f"{where}{record.key} was trained on {kind}; what is to be paired with it would be trained on "
                f"{some(sorted(kinds))}: train it where that was, remove the run to train it anew, or "
                "compare all the same with --mixed-devices (compare.mixed_devices: true)"
            )


def _train_baseline(keys: Sequence[RunKey], runner: "Runner", remedy: str) -> int:
    """Before all others: should it diverge, nothing can be compared with it. Under a budget one run alone."""
    keys = runner.due(keys)
    keys = keys[:1] if runner.budget.limited else keys
    if not keys:
        return 0
    try:
        trained = runner.train(keys, "baseline")
    except Diverged as error:
        raise KitError(f"{error}; it is the baseline: {remedy} to compare all the same") from error
    _need_all(trained.left, trained.here)
    return trained.here


def _trained(runner: "Runner", keys: Sequence[RunKey], what: str) -> int:
    if not keys:
        return 0
    from kit.experiment.predict_anew import predict_anew

    trained = runner.train(keys, what, tolerant=True)
    _need_all(trained.left, trained.here)
    runs = [runner.loaded.folder.run(key) for key in keys]
    predict_anew(runs, runner.loaded, runner.data, runner.say, with_test=False)
    return trained.here


def _need_all(left: int, trained: int) -> None:
    if left:
        raise KitError(
            f"the budget allowed no more than {trained} of {trained + left} runs; the same command trains the "
            "others and compares"
        )


def train_in_turn(
    configs: Sequence[ExperimentConfig], options: RunOptions, say: Say
) -> tuple[dict[str, Entry], bool, int, int]:
    """Train experiments one after the other.

    Return them by name, whether this process writes, how many runs were trained, and how many are left.
    """
    from kit.experiment.prepare import run_keys
    from kit.experiment.run import train_and_pool

    check_all(configs, options, say)
    entries: dict[str, Entry] = {}
    main, trained, left = True, 0, 0
    with runners(configs, options, say) as turns:
        for config, runner in turns:
            keys, (policy,) = run_keys(config), config.policies
            if not configs[0].compare.mixed_devices:
                folders = [(each, ExperimentDir(options.dirs.runs / each.name)) for each in configs]
                there = [run for each, folder in folders for run in folder.finished(next(iter(each.policies)))]
                _need_one_kind(keys, runner, there)
            if not entries:
                trained += _train_baseline(keys, runner, "name another first")
            result = train_and_pool(config, runner, tolerant=True)
            trained, left, main = trained + result.trained, left + result.left, runner.main
            if result.left and not result.policies:  # no run to compare
                _need_all(left, trained)
            entries[config.name] = Entry(policy, runner.loaded)
    return entries, main, trained, left
