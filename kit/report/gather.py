"""The command `report`: everything that an experiment's folder holds, gathered and written as one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.comparison.bootstrap import interval_of
from kit.comparison.record import ComparedRun, Comparison, DivergedRun, ExperimentComparison, read_comparison
from kit.competition.load import Competition, load_competition
from kit.core.errors import KitError, Say, ignore
from kit.core.files import write_text
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.data.reading import Reading
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.fold_plan import read_plan
from kit.experiment.pixels import as_they_were_read
from kit.experiment.policy_scores import score_identity, stored_scores
from kit.experiment.pooled_predictions import pooled
from kit.experiment.shared_folder import writing
from kit.lr import Clock, PolicyConfig
from kit.lr.clock import policy_groups
from kit.report.material import PolicyData, PolicyOutcome, RealisedRates, ReportData, raw_policies
from kit.report.page import render
from kit.report.thumbnails import most_wrong
from kit.training.records import activations_of, history_of, learning_of, rates_of

MOST_STEPS = 3000  # of which rates are compared with the intended ones


def find_experiment(experiment: str, output: str | Path = ".") -> Path:
    """Return the folder of an experiment, or of a comparison of several.

    Parameters
    ----------
    experiment : str
        Its name in output/runs, or its folder.
    output : str or Path
        The folder that holds runs/.

    Raises
    ------
    KitError
        Where there is no such experiment.
    """
    folder = OutputDirs.at(output).runs / experiment
    folder = folder if folder.is_dir() else Path(experiment).expanduser()
    there = ExperimentDir(folder)
    if not (there.config.is_file() or there.comparison.is_file()):
        raise KitError(
            f"{experiment}: there is no such experiment in {Path(output) / 'runs'}, and no folder of one"
        )
    return folder


@dataclass(frozen=True)
class ReportResult:
    """The page that was written."""

    file: Path


def write_report(
    experiment: str | Path, output: str | Path = ".", cache: str | Path | None = None, say: Say = ignore
) -> ReportResult:
    """Write report.html into an experiment's folder: what was compared, what it gave, what happened inside.

    Parameters
    ----------
    experiment : str or Path
        Its name in output/runs, or its folder.
    output, cache : path
        Hold runs/ and cache/; decoded images.
    say : callable
        Takes lines about what is left out.

    Raises
    ------
    KitError
        Where there is no such experiment, or a file of it is damaged.
    """
    folder = find_experiment(str(experiment), output)
    return ReportResult(report(folder, OutputDirs.at(output, cache), say=say))


def report(
    experiment_folder: Path, dirs: OutputDirs, to: Path | None = None, say: Say = lambda line: None
) -> Path:
    """Write report.html from what is in the folder of an experiment, or of a comparison of several.

    Nothing is trained, and what is missing is left out.

    Parameters
    ----------
    experiment_folder : Path
        The experiment's folder, as `find_experiment` returns it.
    dirs : OutputDirs
        Where output goes.
    to : Path, optional
        The file to write instead of report.html in the folder.
    say : callable, optional
        Takes lines about what is left out.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    KitError
        Where the folder holds no experiment, or a damaged file.
    """
    folder = ExperimentDir(Path(experiment_folder))
    if to:
        return _report(folder, dirs, Path(to), say)
    with writing(folder, f"writes the report of {folder.path.name}", say):
        return _report(folder, dirs, folder.report, say)


def _report(folder: ExperimentDir, dirs: OutputDirs, path: Path, say: Say) -> Path:
    report_data = gather(folder, dirs)
    if report_data.outdated:
        say(
            f"without {folder.comparison.name}: it is of {report_data.outdated}; call python -m kit compare once "
            "more"
        )
    if report_data.unavailable:
        say(f"without images and confusions: {report_data.unavailable}")
    write_text(path, render(report_data))
    return path


def gather(folder: ExperimentDir, dirs: OutputDirs) -> ReportData:
    """Return everything that the report is drawn from.

    Raises
    ------
    KitError
        Where the folder holds no experiment, or a damaged file.
    """
    experiment = stored_experiment(folder)
    if experiment is None and folder.comparison.is_file():
        return gather_compared(folder)
    if experiment is None:
        raise KitError(f"{folder.path} holds no experiment.yaml; give the folder of an experiment in {dirs.runs}")
    comparison = read_comparison(folder.comparison)
    outdated = _outdated(comparison, experiment, {}, folder) if comparison else None
    if outdated:
        comparison = None
    shown = {name: Shown(name, experiment, folder) for name in _policies(experiment, comparison, folder)}
    baseline = comparison.baseline if comparison else experiment.compare.baseline
    return replace(
        _gathered(experiment.name, experiment, shown, comparison, baseline, outdated),
        config=folder.config.read_text(encoding="utf-8"),
        blocks=experiment.features.by_block if experiment.features else {},
    )


def gather_compared(folder: ExperimentDir) -> ReportData:
    """Return what the report on a comparison of experiments is drawn from, out of the folders of these beside it.

    Raises
    ------
    KitError
        Where one of them is no longer there, or a file is damaged.
    """
    comparison = read_comparison(folder.comparison)
    if not isinstance(comparison, ExperimentComparison):
        raise KitError(f"{folder.comparison} compares no experiments; give the folder of an experiment")
    shown = {}
    for each in comparison.experiments:
        there = ExperimentDir(folder.path.parent / each.name)
        experiment = stored_experiment(there)
        if experiment is None or each.policy not in experiment.policies:
            raise KitError(
                f"{folder.path.name} compares {each.name} under {each.policy}, which is no longer in "
                f"{there.path.parent}; bring it back, or compare anew"
            )
        shown[each.name] = Shown(each.policy, experiment, there)
    first = shown[comparison.baseline]
    outdated = _outdated(comparison, first.experiment, shown, first.folder)
    compared, baseline = (None if outdated else comparison), comparison.baseline
    if compared:
        shown = {each.policy: shown[each.policy] for each in raw_policies(compared)}
    made = _gathered(folder.path.name, first.experiment, shown, compared, baseline, outdated)
    if not all(each.rates for each in made.policies):
        made = replace(made, policies=[replace(each, rates=None) for each in made.policies])
    return replace(made, experiments=True)


@dataclass(frozen=True)
class Shown:
    """One that the report shows: a policy, and the experiment that it is of."""

    policy: str
    experiment: ExperimentConfig
    folder: ExperimentDir


def _gathered(
    title: str,
    experiment: ExperimentConfig,
    shown: Mapping[str, Shown],
    comparison: Comparison | None,
    baseline: str | None,
    outdated: str | None,
) -> ReportData:
    """All but the config, by the metric of `experiment`, whose competition tells labels and images."""
    names = list(shown)
    finished = {name: each.folder.finished(each.policy) for name, each in shown.items()}
    shared = _first_shared(finished, experiment)
    competition, unavailable = _competition(experiment, next(iter(shown.values())).folder)
    policies = [_policy(name, shown[name], experiment, finished[name], shared, competition) for name in names]
    digests = {record.depends_on.get("folds") for each in policies for record in each.finished}
    classes = list(competition.classes) if competition else _classes(policies)
    records = [run.record for each in finished.values() for run in each]
    reading = Reading.of(as_they_were_read(experiment.data, records))
    return ReportData(
        name=title,
        metric=experiment.scoring.title,
        metric_key=experiment.scoring.key,
        baseline=baseline if baseline in names else names[0],
        policies=policies,
        comparison=comparison,
        classes=classes,
        names=[competition.names[name] for name in classes] if competition else classes,
        multilabel=competition.label_format.multilabel if competition else _several_labels(policies),
        thumbnails=most_wrong(competition, policies, reading) if competition else [],
        unavailable=unavailable,
        outdated=outdated,
        fold_plan=" and ".join(sorted(filter(None, digests))),
    )


def _policies(experiment: ExperimentConfig, comparison: Comparison | None, folder: ExperimentDir) -> list[str]:
    """Return the policies of the report.

    They are those compared as they are, without variants and without those that diverged; where nothing is
    compared, those that have begun.
    """
    if raw := raw_policies(comparison):
        return [each.policy for each in raw]
    return [name for name in experiment.policies if folder.runs(name)] or list(experiment.policies)


def _outdated(
    comparison: Comparison, experiment: ExperimentConfig, shown: Mapping[str, Shown], folder: ExperimentDir
) -> str | None:
    """Return why a comparison is not of the runs and the metric that are there now; None where it is."""
    if comparison.scoring not in (None, score_identity(experiment.scoring, experiment.competition)):
        return f"another scoring section than {folder.config.name}"
    for view in comparison.views:
        lines: list[tuple[str, str, ComparedRun | DivergedRun]] = []
        lines += [("finished", each.policy, line) for each in view.policies for line in each.runs]
        lines += [("diverged", each.policy, line) for each in view.diverged for line in each.runs]
        for status, name, line in lines:
            if line.fingerprint is None or line.variant is None:
                continue
            where = shown[name].folder if name in shown else folder
            run = where.run(RunKey(line.variant, line.seed, line.fold))
            if not run.begun or (run.record.status, run.record.fingerprint) != (status, line.fingerprint):
                of = f"{name} {line.variant}" if shown else line.variant
                return f"another run of {of} seed {line.seed} fold {line.fold}"
            if isinstance(line, ComparedRun) and run.record.predicted != line.predicted:
                return f"other views than {line.variant} seed {line.seed} fold {line.fold} is predicted in now"
            digest = getattr(line, "oof", None)
            if digest and run.record.files.get(run.oof.name) != digest:
                return f"other predictions of {name} seed {line.seed} fold {line.fold}"
    return None


def _competition(experiment: ExperimentConfig, folder: ExperimentDir) -> tuple[Competition | None, str]:
    """Return the competition; where it cannot be loaded, None and why."""
    try:
        competition = load_competition(experiment.competition, trains=False)
        read_plan(experiment, folder, competition)  # refuses rows that are others than those of the runs
    except KitError as error:
        return None, f"{error}."
    return competition, ""


def _classes(policies: Sequence[PolicyData]) -> list[str]:
    return next((policy.scores.classes for policy in policies if policy.scores), [])


def _several_labels(policies: Sequence[PolicyData]) -> bool:
    """Return whether a row may have several labels, which the rules that were tried tell."""
    rules = next((policy.scores.rules for policy in policies if policy.scores), [])
    return any(rule.name in ("half", "thresholds", "prevalence", "expected_f") for rule in rules)


def _first_shared(finished: dict[str, list[RunDir]], experiment: ExperimentConfig) -> tuple[int, int] | None:
    """Return the first seed and fold that all policies with finished runs have finished."""
    pairs = [{(run.record.seed, run.record.fold) for run in runs} for runs in finished.values() if runs]
    shared = set.intersection(*pairs) if pairs else set()
    return min(shared, key=lambda pair: (*_seed_order(pair[0], experiment.seeds), pair[1]), default=None)


def _seed_order(seed: int, seeds: Sequence[int]) -> tuple[int, int]:
    """Return what seeds are sorted by: those of the config first, in its order."""
    return (seeds.index(seed) if seed in seeds else len(seeds)), seed


def _policy(
    name: str,
    shown: Shown,
    scored_by: ExperimentConfig,
    finished: list[RunDir],
    shared: tuple[int, int] | None,
    competition: Competition | None,
) -> PolicyData:
    policy, experiment, folder = shown.policy, shown.experiment, shown.folder
    records = [run.record for run in folder.runs(policy)]
    file = folder.policy(policy) / "scores.json"
    scores = stored_scores(file, scored_by.scoring, scored_by.competition)
    if not finished:
        return PolicyData(name, records, scores=scores)
    run = folder.run(RunKey(policy, *shared)) if shared else finished[0]
    record = run.record
    return PolicyData(
        name=name,
        records=records,
        histories=[history_of(each) for each in finished],
        scores=scores,
        shown_run=f"Seed {record.seed}, fold {record.fold}",
        rates=read_rates(run, experiment.policies.get(policy)),
        activations=activations_of(run),
        learning=learning_of(run),
        outcome=_outcome(finished, scored_by, shown, competition),
    )


def read_rates(run: RunDir, config: PolicyConfig | None) -> RealisedRates | None:
    """Return the rates that a run recorded, and those that its policy intended, at up to 3000 of its updates.

    None where the run recorded none.
    """
    if not run.left(run.rates):
        return None
    realised = rates_of(run)
    lr, names, multiplier = realised.lr, realised.groups, realised.multiplier
    steps = np.unique(np.linspace(0, len(lr) - 1, min(len(lr), MOST_STEPS)).round().astype(np.int64))
    intended = _intended(run, config, names, len(lr), steps)
    if intended is not None and multiplier is not None:
        intended = intended * multiplier[steps]
    return RealisedRates(steps, lr[steps], intended, names, controlled=multiplier is not None)


def _intended(
    run: RunDir, config: PolicyConfig | None, names: list[str], total: int, steps: np.ndarray
) -> np.ndarray | None:
    """Return the policy's rates at these updates, [steps, groups]; None where policy or groups are not known."""
    sizes = run.record.groups
    epochs = [line for line in history_of(run) if line.get("epoch")]
    if config is None or list(sizes) != names:
        return None
    per_epoch = round(epochs[-1]["step"] / epochs[-1]["epoch"]) if epochs else None
    groups = policy_groups(sizes)
    policy = config.build()
    try:
        return np.array([policy.rates(Clock(int(step), total, per_epoch), groups).lr for step in steps])
    except ValueError:  # a policy that counts in epochs, and a run that does not tell them
        return None


def _outcome(
    runs: Sequence[RunDir], scored_by: ExperimentConfig, shown: Shown, competition: Competition | None
) -> PolicyOutcome | None:
    """Return the pooled out-of-fold rows of finished runs, decided; None without the competition."""
    if competition is None:
        return None
    plan = read_plan(shown.experiment, shown.folder, competition)
    pool = pooled(runs, competition, plan, with_test=False)
    scoring, probabilities = scored_by.scoring, pool.oof.to_numpy()
    predicted, interval = pool.choose(scoring).predicted, None
    if shown.experiment.features and shown.experiment.features.by_block:
        taken = probabilities if scoring.of_probabilities else None
        interval = interval_of(pool.truth, predicted, scoring, pool.groups, taken)
    if pool.truth.ndim == 2:
        doubt = np.abs(probabilities - pool.truth).mean(axis=1)
    else:
        doubt = 1 - probabilities[np.arange(len(pool.truth)), pool.truth]
    return PolicyOutcome(pool.oof.index, pool.truth, predicted, doubt, interval)
