"""The report of an experiment, gathered from its folder: everything that is there, and why something is not."""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.load import Competition, load_competition
from kit.core.errors import KitError
from kit.core.files import write_text
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir, RunKey
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.fold_plan import read_plan
from kit.experiment.pool import pooled, stored_scores
from kit.lr import Clock, PolicyConfig, PolicyGroup
from kit.report.material import PolicyData, PolicyOutcome, RealisedRates, ReportData, Thumbnail
from kit.report.page import render
from kit.training.records import Activations, Learning, RateRecord, read_history

MOST_IMAGES = 24
SIDE = 96  # of a thumbnail, at most
MOST_STEPS = 3000  # of which rates are compared with the intended ones


def report(
    experiment_folder: Path,
    dirs: OutputDirs,
    to: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes report.html of what is in the experiment's folder; nothing is trained, what is missing is left out.

    dirs    where output goes
    to      the file, instead of report.html in the folder

    Raises KitError where the folder holds no experiment, or a damaged file.
    """
    folder = ExperimentDir(Path(experiment_folder))
    material = gather(folder, dirs)
    if material.outdated:
        say(
            f"without {folder.comparison.name}: it is of {material.outdated}; call python -m kit compare once more"
        )
    if material.without:
        say(f"without images and confusions: {material.without}")
    path = Path(to) if to else folder.report
    write_text(path, render(material))
    return path


def gather(folder: ExperimentDir, dirs: OutputDirs) -> ReportData:
    """All that the report is drawn from."""
    experiment = stored_experiment(folder)
    if experiment is None:
        raise KitError(f"{folder.path} holds no experiment.yaml; give the folder of an experiment in {dirs.runs}")
    comparison = _read_json(folder.comparison, "python -m kit compare")
    outdated = _outdated(comparison, experiment, folder) if comparison else None
    if outdated:
        comparison = None
    names = _policies(experiment, comparison, folder)
    finished = {name: [run for run in folder.runs(name) if run.finished] for name in names}
    shared = _first_shared(finished, experiment)
    competition, without = _competition(experiment, folder)
    policies = [_policy(name, experiment, folder, finished[name], shared, competition) for name in names]
    digests = {record.get("depends_on", {}).get("folds") for each in policies for record in each.finished}
    classes = list(competition.classes) if competition else _classes(policies)
    baseline = comparison["baseline"] if comparison else experiment.compare.baseline
    return ReportData(
        name=experiment.name,
        metric=experiment.scoring.title,
        baseline=baseline if baseline in names else names[0],
        policies=policies,
        comparison=comparison,
        classes=classes,
        names=[competition.names[name] for name in classes] if competition else classes,
        multilabel=competition.format.multilabel if competition else _several_labels(policies),
        thumbnails=thumbnails(competition, policies) if competition else [],
        without=without,
        outdated=outdated,
        config=folder.config.read_text(encoding="utf-8"),
        fold_plan=" and ".join(sorted(filter(None, digests))),
    )


def _policies(experiment: ExperimentConfig, comparison: dict[str, Any] | None, folder: ExperimentDir) -> list[str]:
    """Those compared as they are, without variants and without those that diverged; else those that have begun."""
    views = comparison["views"] if comparison else []
    if raw := next((view["policies"] for view in views if view["name"] == "raw"), None):
        return [each["policy"] for each in raw]
    return [name for name in experiment.policies if folder.runs(name)] or list(experiment.policies)


def _outdated(comparison: dict[str, Any], experiment: ExperimentConfig, folder: ExperimentDir) -> str | None:
    """Why a comparison is not of the runs and the metric that are there now."""
    if comparison.get("scoring", experiment.scoring.canonical()) != experiment.scoring.canonical():
        return f"another scoring section than {folder.config.name}"
    for view in comparison["views"]:
        lines = [("finished", line) for policy in view["policies"] for line in policy["runs"]]
        lines += [("diverged", line) for policy in view.get("diverged", ()) for line in policy["runs"]]
        for status, line in lines:
            if "fingerprint" not in line:
                continue
            record = folder.run(RunKey(line["variant"], line["seed"], line["fold"])).read()
            if (record.get("status"), record.get("fingerprint")) != (status, line["fingerprint"]):
                return f"another run of {line['variant']} seed {line['seed']} fold {line['fold']}"
    return None


def _read_json(path: Path, command: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KitError(f"{path} is damaged ({error}); {command} writes it anew") from error


def _competition(experiment: ExperimentConfig, folder: ExperimentDir) -> tuple[Competition | None, str]:
    """The competition, or why it is not to be had."""
    try:
        competition = load_competition(experiment.competition)
        read_plan(experiment, folder, competition)  # else the rows are others than those of the runs
    except KitError as error:
        return None, f"{error}."
    return competition, ""


def _classes(policies: Sequence[PolicyData]) -> list[str]:
    return next((list(policy.scores["classes"]) for policy in policies if policy.scores), [])


def _several_labels(policies: Sequence[PolicyData]) -> bool:
    """By the simplest rule that was tried."""
    rules = next((policy.scores.get("rules", []) for policy in policies if policy.scores), [])
    return any(rule["name"] in ("half", "thresholds", "prevalence", "expected_f") for rule in rules)


def _first_shared(finished: dict[str, list[RunDir]], experiment: ExperimentConfig) -> tuple[int, int] | None:
    """The first seed and fold that all policies with finished runs have finished."""
    pairs = [
        {(record["seed"], record["fold"]) for record in map(RunDir.read, runs)}
        for runs in finished.values()
        if runs
    ]
    shared = set.intersection(*pairs) if pairs else set()
    return min(shared, key=lambda pair: (*_place(pair[0], experiment.seeds), pair[1]), default=None)


def _place(seed: int, seeds: Sequence[int]) -> tuple[int, int]:
    return (seeds.index(seed) if seed in seeds else len(seeds)), seed


def _policy(
    name: str,
    experiment: ExperimentConfig,
    folder: ExperimentDir,
    finished: list[RunDir],
    shared: tuple[int, int] | None,
    competition: Competition | None,
) -> PolicyData:
    records = [run.read() for run in folder.runs(name)]
    scores = stored_scores(folder.policy(name) / "scores.json", experiment.scoring)
    if not finished:
        return PolicyData(name, records, scores=scores)
    run = folder.run(RunKey(name, *shared)) if shared else finished[0]
    record = run.read()
    return PolicyData(
        name=name,
        records=records,
        histories=[read_history(each.history) for each in finished],
        scores=scores,
        shown=f"Seed {record['seed']}, fold {record['fold']}",
        rates=read_rates(run, experiment.policies.get(name)),
        activations=_activations(run),
        learning=_learning(run),
        outcome=_outcome(finished, experiment, folder, competition),
    )


def read_rates(run: RunDir, config: PolicyConfig | None) -> RealisedRates | None:
    """The rates that a run recorded, and those that its policy intended, at up to 3000 of its updates."""
    if not run.rates.is_file() or not run.rates.stat().st_size:
        return None
    realised = RateRecord.load(run.rates)
    lr, names, multiplier = realised.lr, realised.groups, realised.multiplier
    steps = np.unique(np.linspace(0, len(lr) - 1, min(len(lr), MOST_STEPS)).round().astype(np.int64))
    intended = _intended(run, config, names, len(lr), steps)
    if intended is not None and multiplier is not None:
        intended = intended * multiplier[steps]
    return RealisedRates(steps, lr[steps], intended, names, controlled=multiplier is not None)


def _intended(
    run: RunDir, config: PolicyConfig | None, names: list[str], total: int, steps: np.ndarray
) -> np.ndarray | None:
    """The policy's rates at these updates; None where policy or groups are not known."""
    sizes = run.read().get("groups", {})
    epochs = [line for line in read_history(run.history) if line.get("epoch")]
    if config is None or list(sizes) != names:
        return None
    per_epoch = round(epochs[-1]["step"] / epochs[-1]["epoch"]) if epochs else None
    groups = [PolicyGroup(index, len(sizes), name, count) for index, (name, count) in enumerate(sizes.items())]
    policy = config.build()
    try:
        return np.array([policy.rates(Clock(int(step), total, per_epoch), groups).lr for step in steps])
    except ValueError:  # a policy that counts in epochs, and a run that does not tell them
        return None


def _activations(run: RunDir) -> Activations | None:
    return Activations.load(run.activations) if run.activations.is_file() else None


def _learning(run: RunDir) -> Learning | None:
    return Learning.load(run.learning) if run.learning.is_file() else None


def _outcome(
    runs: Sequence[RunDir], experiment: ExperimentConfig, folder: ExperimentDir, competition: Competition | None
) -> PolicyOutcome | None:
    if competition is None:
        return None
    plan = read_plan(experiment, folder, competition)
    pool = pooled(runs, competition, plan, with_test=False)
    predicted, probabilities = pool.choose(experiment.scoring).predicted, pool.oof.to_numpy()
    if pool.truth.ndim == 2:
        doubt = np.abs(probabilities - pool.truth).mean(axis=1)
    else:
        doubt = 1 - probabilities[np.arange(len(pool.truth)), pool.truth]
    return PolicyOutcome(pool.oof.index, pool.truth, predicted, doubt)


def thumbnails(competition: Competition, policies: Sequence[PolicyData]) -> list[Thumbnail]:
    """The rows that the most policies got wrong, of equal ones those they were surest about, with their images."""
    outcomes = [policy.outcome for policy in policies if policy.outcome is not None]
    if not outcomes:
        return []
    each = [pd.DataFrame({"wrong": o.wrong.astype(int), "doubt": o.doubt, "of": 1}, index=o.ids) for o in outcomes]
    table = pd.concat(each).groupby(level=0, sort=True).agg({"wrong": "sum", "doubt": "mean", "of": "sum"})
    table = table[table["wrong"] > 0].sort_values(["wrong", "doubt"], ascending=False, kind="stable")
    place = {name: row for row, name in enumerate(competition.ids)}
    made = []
    for name, row in table.head(MOST_IMAGES).iterrows():
        taken = Counter(
            _said(outcome.predicted[at], competition)
            for outcome in outcomes
            if (at := outcome.ids.get_indexer([name])[0]) >= 0 and outcome.wrong[at]
        )
        made.append(
            Thumbnail(
                id=str(name),
                image=thumbnail(competition.train_images[place[name]]),
                truth=_said(competition.targets[place[name]], competition),
                predicted=min(taken, key=lambda text: (-taken[text], text)),
                wrong=int(row["wrong"]),
                of=int(row["of"]),
            )
        )
    return made


def _said(label: np.ndarray, competition: Competition) -> str:
    """A row's label, or its labels, by name."""
    indices = np.flatnonzero(label) if np.ndim(label) else [int(label)]
    return ", ".join(competition.names[competition.classes[index]] for index in indices) or "none"


def thumbnail(source) -> str | None:
    """At most 96 pixels a side, as a data URI: JPEG or PNG, whichever is smaller; None where it cannot be read."""
    from PIL import Image

    from kit.data.decode import DecodeError, open_image

    try:
        image = open_image(source, reduce_to=SIDE)
    except DecodeError:
        return None
    image.thumbnail((SIDE, SIDE))
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    files = {}
    for kind, options in (("jpeg", {"quality": 80}), ("png", {"optimize": True})):
        file = io.BytesIO()
        image.save(file, kind, **options)
        files[kind] = file.getvalue()
    kind = min(files, key=lambda name: len(files[name]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}"
