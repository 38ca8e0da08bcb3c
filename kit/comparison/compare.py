"""Which policy, or experiment, wins: trained on the same folds and seeds, checked to be comparable, compared."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kit.comparison.content import content_of
from kit.comparison.contest import Contest
from kit.comparison.costs import COST_COLUMNS, cost_cells
from kit.comparison.differs import in_short
from kit.comparison.experiments import (
    alike,
    comparison_folder,
    contest_of,
    need_same_rows,
    not_compared,
    once,
    open_stored,
    remarks_on,
    view_of_experiments,
)
from kit.comparison.record import (
    Comparison,
    ExperimentComparison,
    ViewRecord,
    read_comparison,
    write_comparison,
    write_table,
)
from kit.comparison.trained import train_in_turn, train_policies
from kit.comparison.tuning import check_tuning, variants
from kit.comparison.views import VIEWS, tuning_of, views_of
from kit.core.errors import Damaged, KitError, Say, ignore, some
from kit.core.files import need_writable
from kit.core.manifest import mend, noting
from kit.core.notebook import ShownAsTables
from kit.core.runs import ExperimentDir
from kit.core.stopping import telling
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.pool import ScoredRuns
from kit.experiment.shared_folder import writing


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
        """Return a table a view: scores and differences to the baseline; of experiments what differs and costs."""
        content, made = self.content, dict[str, pd.DataFrame]()
        if isinstance(content, ExperimentComparison):
            made["what differs"] = pd.DataFrame(
                [
                    {"key": each.key, **{name: in_short(value) for name, value in each.values.items()}}
                    for each in content.differs
                ]
            )
        made |= {
            f"{VIEWS[view.name]}: {content.metric} against {content.baseline}": _view_table(view, content)
            for view in content.views
        }
        if isinstance(content, ExperimentComparison):
            made["what a run took"] = pd.DataFrame(map(cost_cells, content.costs), columns=COST_COLUMNS)
        return made

    def remarks(self) -> list[str]:
        """Return which policy wins, and why views are missing."""
        return [*self.content.missing, self.content.headline]


def _view_table(view: ViewRecord, content: Comparison) -> pd.DataFrame:
    compared = {each.policy: each for each in view.comparisons}
    rows = []
    for each in view.policies:
        row: dict[str, object] = {content.kind: each.policy, "pooled": each.oof, "mean of runs": each.mean}
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
    rows += [{content.kind: each.policy, "verdict": "diverged"} for each in view.diverged]
    table = pd.DataFrame(rows)
    return table[[*(name for name in table if name != "verdict"), "verdict"]]


@telling("while runs were compared; the runs are kept, and the same command compares them")
def compare(
    experiment: ExperimentConfig | Sequence[ExperimentConfig],
    options: RunOptions | str | Path | None = None,
    *,
    output: str | Path | None = None,
    say: Say = ignore,
    stored: bool = False,
    name: str | None = None,
) -> CompareResult:
    """Compare the policies of an experiment, or experiments with each other; train before what is not there yet.

    Of one experiment that is policies × seeds × folds, and what tunes and equalises them. Of several it is the
    first policy of each, on the folds and seeds of the first, which is the baseline and whose scoring and
    `compare` count. Writes comparison.json and comparison.csv.

    Parameters
    ----------
    experiment : ExperimentConfig, or a sequence of them
    options : RunOptions or path, optional
        Where the runs go and how they are executed; a folder alone is the output folder.
    output : path, optional
        That folder, by its name.
    say : callable
        Takes lines about what happens.
    stored : bool
        Train nothing, and compare the finished runs that are there.
    name : str, optional
        Of the comparison of several, whose folder in runs/ it is; left out: compare-<first>-<second>….

    Returns
    -------
    CompareResult

    Raises
    ------
    KitError
        Before any training, for what cannot work; and for runs that are not comparable.
    """
    each = [experiment] if isinstance(experiment, ExperimentConfig) else list(experiment)
    options = RunOptions.of(options, output)
    if options.only:
        raise KitError("only: a comparison takes all runs of its policies; leave it out, or use kit.run")
    if not each:
        raise KitError("compare: no experiment is given; give one, or several")
    if len(each) > 1:
        return _compare_experiments(each, options, say, stored, name)
    if name is not None:
        raise KitError("--name: policies of one experiment are compared in its folder; leave it out")
    return _compare_policies(each[0], options, say, stored)


def _compare_policies(experiment: ExperimentConfig, options: RunOptions, say: Say, stored: bool) -> CompareResult:
    experiment = _with_baseline(experiment)
    check_tuning(experiment)
    whole = experiment.model_copy(update={"policies": experiment.policies | variants(experiment)})
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
            tuning, known, trained, left = train_policies(experiment, runner)
        views, missing = views_of(experiment, loaded, tuning)
        contest = Contest.of_policies(experiment, loaded)
        content = content_of(contest, views, missing, tuning, known)
        if main:
            with writing(folder, f"compares the policies of {experiment.name}", say):
                _write_down(content, folder, say)
    return CompareResult(folder.path, content, trained, left, main)


def _compare_experiments(
    given: Sequence[ExperimentConfig], options: RunOptions, say: Say, stored: bool, name: str | None
) -> CompareResult:
    configs, say = alike(given), once(say)
    folder = comparison_folder(name, configs, options.dirs)
    need_same_rows(configs)
    for line in (remarks := remarks_on(given)):
        say(line)
    main, trained, left = True, 0, 0
    if stored:
        entries = open_stored(configs, options.dirs, say)
    else:
        entries, main, trained, left = train_in_turn(configs, options, say)
    contest = contest_of(folder.path.name, configs, entries)
    view = view_of_experiments(contest, " ".join(remarks) or None)
    content = content_of(contest, [view], not_compared(given), None, {})
    if main:
        need_writable(options.dirs.runs)
        with writing(folder, f"compares {some([config.name for config in configs])}", say):
            mend(folder.path, say)
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


def _open_stored(
    whole: ExperimentConfig, folder: ExperimentDir, options: RunOptions, say: Say
) -> LoadedExperiment:
    """The experiment of the runs that are there; KitError where they are of another config or other data."""
    if stored_experiment(folder) is None:
        raise KitError(f"{folder.path} holds no experiment; leave out --stored to train it")
    return LoadedExperiment.open(whole, folder, options.dirs, say=say)
