"""Which policy wins: trained on the same folds and seeds, checked to be comparable, compared with statistics."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kit.comparison.record import (
    Comparison,
    ViewRecord,
    content_of,
    read_comparison,
    write_comparison,
    write_table,
)
from kit.comparison.tuning import baseline_of, check_tuning, equalised, to_equalise, trial_folder, trials, variants
from kit.comparison.views import VIEWS, Tuning, tuned_runs, tuning_of, views_of
from kit.core.devices import kind_in_words
from kit.core.errors import Damaged, Diverged, KitError, Say, ignore, some
from kit.core.manifest import noting
from kit.core.notebook import ShownAsTables
from kit.core.runs import ExperimentDir, RunKey
from kit.core.stopping import telling
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.pool import ScoredRuns
from kit.experiment.shared_folder import writing

if TYPE_CHECKING:  # it brings torch, which comparing stored runs does not need
    from kit.experiment.runner import Runner


@dataclass(frozen=True)
class CompareResult(ShownAsTables):
    """What `compare` made.

    Attributes
    ----------
    folder : Path
        The experiment's.
    content : Comparison
        The content of comparison.json.
    trained : int
        How many runs this process trained.
    left : int
        Runs that are not finished, as the time did not suffice; the others are compared.
    main : bool
        Whether this process is the one that writes.
    """

    folder: Path
    content: Comparison
    trained: int
    left: int = 0
    main: bool = field(default=True, repr=False)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a table a view: each policy's scores, and its difference to the baseline."""
        content = self.content
        return {
            f"{VIEWS[view.name]}: {content.metric} against {content.baseline}": _view_table(view, content)
            for view in content.views
        }

    def remarks(self) -> list[str]:
        """Return which policy wins, and why views are missing."""
        return [*self.content.missing, self.content.headline]


def _view_table(view: ViewRecord, content: Comparison) -> pd.DataFrame:
    compared = {each.policy: each for each in view.comparisons}
    rows = []
    for each in view.policies:
        row: dict[str, object] = {"policy": each.policy, "pooled": each.oof, "mean of runs": each.mean}
        if against := compared.get(each.policy):
            interval = against.interval
            row |= {
                "difference": against.difference,
                f"{content.level:.0%} interval": f"{interval.low:+.3f} … {interval.high:+.3f}"
                if interval
                else "none",
                "Holm p": against.p_holm,
                "verdict": against.verdict,
            }
        else:
            row["verdict"] = "baseline" if each.policy == content.baseline else ""
        rows.append(row)
    rows += [{"policy": each.policy, "verdict": "diverged"} for each in view.diverged]
    table = pd.DataFrame(rows)
    return table[[*(name for name in table if name != "verdict"), "verdict"]]


@telling("while policies were compared; the runs are kept, and the same command compares them")
def compare(
    experiment: ExperimentConfig,
    options: RunOptions | str | Path | None = None,
    *,
    output: str | Path | None = None,
    say: Say = ignore,
    stored: bool = False,
) -> CompareResult:
    """Train what is not there yet of policies × seeds × folds, and of what tunes and equalises them; compare.

    Writes comparison.json and comparison.csv.

    Parameters
    ----------
    experiment : ExperimentConfig
    options : RunOptions or path, optional
        Where the runs go and how they are executed; a folder alone is the output folder.
    output : path, optional
        That folder, by its name.
    say : callable
        Takes lines about what happens.
    stored : bool
        Train nothing, and compare the finished runs that are there.

    Returns
    -------
    CompareResult

    Raises
    ------
    KitError
        Before any training, for what cannot work; and for runs that are not comparable.
    """
    experiment = _with_baseline(experiment)
    check_tuning(experiment)
    whole = experiment.model_copy(update={"policies": experiment.policies | variants(experiment)})
    options = RunOptions.of(options, output)
    if options.only:
        raise KitError("only: a comparison takes all runs of its policies; leave it out, or use kit.run")
    folder = ExperimentDir(options.dirs.runs / experiment.name)
    known: dict[str, ScoredRuns] = {}
    with ExitStack() as working:
        if stored:
            loaded, main = _open_stored(whole, folder, options, say), True
            tuning, trained, left = tuning_of(loaded, experiment), 0, 0
        else:
            from kit.experiment.prepare import run_keys
            from kit.experiment.runner import Runner

            wanted = run_keys(experiment)  # of variants only trials tell which
            runner = working.enter_context(Runner.set_up(whole, options, say, wanted))
            loaded, main = runner.loaded, runner.main
            tuning, known, trained, left = _train(experiment, runner)
        views, missing = views_of(experiment, loaded, tuning)
        content = content_of(experiment, loaded, views, missing, tuning, known)
        if main:
            with writing(folder, f"compares the policies of {experiment.name}", say):
                _write_down(content, folder, say)
    return CompareResult(folder.path, content, trained, left, main)


def _write_down(content: Comparison, folder: ExperimentDir, say: Say) -> None:
    """Write comparison.json and comparison.csv, and say what the one before was of that this one is not."""
    if lost := _compared_before(folder, say) - _compared_runs(content):
        what = some(list(dict.fromkeys(policy for _, policy, _, _ in sorted(lost))))
        say(f"{folder.comparison.name} was of {len(lost)} runs more, of {what}; this comparison replaces it")
    table = folder.path / "comparison.csv"
    with noting(folder.path, folder.comparison, table):
        write_comparison(content, folder.comparison)
        write_table(content, table)


def _compared_runs(content: Comparison) -> set[tuple[str, str, int, int]]:
    """View, policy, seed and fold of what stands in a comparison."""
    compared = {
        (view.name, each.policy, run.seed, run.fold)
        for view in content.views
        for each in view.policies
        for run in each.runs
    }
    return compared | {
        (view.name, each.policy, run.seed, run.fold)
        for view in content.views
        for each in view.diverged
        for run in each.runs
    }


def _compared_before(folder: ExperimentDir, say: Say) -> set[tuple[str, str, int, int]]:
    """`_compared_runs` of the comparison.json that is there; none where it is damaged, as it is made anew."""
    try:
        stored = read_comparison(folder.comparison)
    except Damaged as error:
        say(str(error).replace("python -m kit compare writes it anew", "it is written anew"))
        return set()
    return _compared_runs(stored) if stored else set()


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
    experiment: ExperimentConfig, runner: "Runner"
) -> tuple[Tuning | None, dict[str, ScoredRuns], int, int]:
    """Everything that is compared: what tuned, the policies as they are scored, how many runs were trained, and
    how many are left."""
    from kit.experiment.run import train_and_pool

    if not experiment.compare.mixed_devices:
        _need_one_kind(experiment, runner)
    first = _train_baseline(experiment, runner)
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


def _need_one_kind(experiment: ExperimentConfig, runner: "Runner") -> None:
    """KitError where a run that is due would be paired with one that was trained on another kind of device."""
    from kit.experiment.prepare import run_keys

    due = {(key.seed, key.fold) for key in runner.due(run_keys(experiment), tolerant=True)}
    kinds = runner.kinds() if due else set()
    for run in (run for policy in experiment.policies for run in runner.loaded.folder.finished(policy)):
        record = run.record
        if (
            (record.seed, record.fold) in due
            and record.device_name
            and (kind := kind_in_words(record)) not in kinds
        ):
            raise KitError(
                f"{record.key} was trained on {kind}; what is to be paired with it would be trained on "
                f"{some(sorted(kinds))}: train it where that was, remove the run to train it anew, or compare all "
                "the same with --mixed-devices (compare.mixed_devices: true)"
            )


def _train_baseline(experiment: ExperimentConfig, runner: "Runner") -> int:
    """Before all others: should it diverge, nothing can be compared with it. Under a budget one run alone."""
    from kit.experiment.prepare import run_keys

    baseline = experiment.compare.baseline
    keys = runner.due([key for key in run_keys(experiment) if key.policy == baseline])
    keys = keys[:1] if runner.budget.limited else keys
    if not keys:
        return 0
    try:
        trained = runner.train(keys, "baseline")
    except Diverged as error:
        raise KitError(
            f"{error}; it is the baseline: name another with --baseline to compare all the same"
        ) from error
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


def _open_stored(
    whole: ExperimentConfig, folder: ExperimentDir, options: RunOptions, say: Say
) -> LoadedExperiment:
    """The experiment of the runs that are there; KitError where they are of another config or other data."""
    if stored_experiment(folder) is None:
        raise KitError(f"{folder.path} holds no experiment; leave out --stored to train it")
    return LoadedExperiment.open(whole, folder, options.dirs, say=say)
