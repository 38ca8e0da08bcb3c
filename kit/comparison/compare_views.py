"""What views, sizes and averages give on out-of-fold rows, and what they cost: `python -m kit views`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from kit.comparison.bootstrap import bootstrap
from kit.comparison.predicted_views import PredictedViews, PredictionsOfViews
from kit.core.errors import KitError, Say, ignore, some
from kit.core.notebook import ShownAsTables
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.core.settings import explain
from kit.core.stopping import telling
from kit.experiment.config import ExperimentConfig
from kit.experiment.fingerprint import stored_experiment
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pooled_predictions import PooledPredictions, pooled_frames
from kit.experiment.views import asked_views
from kit.scoring.config import ScoringConfig
from kit.scoring.decide import RuleChoice, choose_rule
from kit.scoring.f1 import score
from kit.training.config import PredictionConfig
from kit.training.views import Views

PLAIN = "plain"
LARGER, STEP = 1.25, 16  # where no size is named: how much larger, and of what it is a multiple (ViTs' patches)
FORMS = "a choice is like hflip, d4+scale=0.8, size=280, tiles=2:max or hflip+logits"
OPTIMISTIC = (
    "the best of several on the same rows is better than it will be on others; `honest` scores each fold by the "
    "views that were best on the other folds"
)


@dataclass(frozen=True)
class ViewsRow:
    """What one choice of views gives and costs.

    Attributes
    ----------
    name : str
        As in --views.
    views : str
        In words.
    score : float
        Of the out-of-fold rows, by a rule that was cross-fitted on them.
    difference, low, high : float
        To the plain view, and the ends of its bootstrap interval.
    seconds : float
        Of computing a thousand images, on this device.
    cost : float
        These as a multiple of the plain view's.
    passes : float
        Forward passes, by their area.
    """

    name: str
    views: str
    score: float
    difference: float
    low: float
    high: float
    seconds: float
    cost: float
    passes: float


@dataclass(frozen=True)
class HonestChoice:
    """What comes of choosing the best views, scored on rows that had no part in the choice.

    Attributes
    ----------
    score : float
        Each fold by the views, and the decision rule, that were best on the other folds.
    difference, low, high : float
        To the plain view, and the ends of its bootstrap interval.
    by_fold : dict of int to str
        The views that were chosen for a fold.
    """

    score: float
    difference: float
    low: float
    high: float
    by_fold: dict[int, str]


@dataclass(frozen=True)
class ViewsResult(ShownAsTables):
    """What `views` found.

    Attributes
    ----------
    experiment, policy, metric : str
    rows : int
        Out-of-fold rows, or observations.
    models : int
        Runs that predicted.
    level : float
        Of the intervals.
    candidates : list of ViewsRow
        The plain view first.
    honest : HonestChoice, optional
        Where there are two folds at least.
    notes : list of str
    """

    experiment: str
    policy: str
    metric: str
    rows: int
    models: int
    level: float
    candidates: list[ViewsRow]
    honest: HonestChoice | None = None
    notes: list[str] = field(default_factory=list)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a row a candidate."""
        return {f"{self.policy}, {self.metric} out of fold": pd.DataFrame(map(vars, self.candidates))}

    def remarks(self) -> list[str]:
        """Return the honest figure, and what is to be borne in mind."""
        return [*([honest_line(self.honest)] if self.honest else []), *self.notes]


def honest_line(honest: HonestChoice) -> str:
    """Return in a line what choosing the best gives."""
    chosen = some([f"fold {fold}: {name}" for fold, name in honest.by_fold.items()], 20)
    return (
        f"honest: choosing the best on the other folds scores {honest.score:.4f}, {honest.difference:+.4f} to the "
        f"plain view ({honest.low:+.4f} … {honest.high:+.4f}); chosen: {chosen}"
    )


@telling("while views were compared; nothing is kept of that, the same command begins again")
def compare_views(
    experiment: str | Path,
    views: str | Sequence[str] = (),
    policy: str | None = None,
    seeds: int | None = None,
    output: str | Path = ".",
    cache: str | Path | None = None,
    say: Say = ignore,
) -> ViewsResult:
    """Score the out-of-fold rows of finished runs in several choices of views, and measure what these cost.

    Each model predicts each view once, whatever choices it is part of. Nothing is written but decoded images.

    Parameters
    ----------
    experiment : str or path
        Its name in output/runs, or its folder.
    views : str or sequence of str
        Choices to compare with the plain view, like "hflip,d4" or ["hflip+scale=0.8", "size=280", "tiles=2:max"];
        `logits` averages these. Left out: some of each kind.
    policy : str, optional
        Left out: the one that the experiment began with.
    seeds : int, optional
        So many of the first ones; left out: all.
    output, cache : path
        Hold runs/ and cache/; decoded images.
    say : callable
        Takes lines about what happens.

    Raises
    ------
    KitError
        Where there is no finished run, and for views that the model or the stored images do not have.
    """
    dirs = OutputDirs.at(output, cache)
    folder = _folder(experiment, dirs)
    if (config := stored_experiment(folder)) is None:
        there = some(sorted(file.parent.name for file in dirs.runs.glob("*/experiment.yaml"))) or "none"
        raise KitError(f"{folder.path} holds no experiment; {dirs.runs} holds {there}")
    if config.features:
        raise KitError(
            f"{folder.path.name}: heads over features have their views in features.views; state others there"
        )
    policy = policy or next(iter(config.policies))
    if policy not in config.policies:
        raise KitError(f"--policy {policy}: {folder.path.name} has {some(config.policies)}")
    loaded = LoadedExperiment.open(config, folder, dirs, say=say)
    runs = _runs(loaded, policy, seeds)
    trained, notes = config.data.size, [OPTIMISTIC]
    names = [views] if isinstance(views, str) else list(views)
    asked = [part.strip() for name in names for part in name.split(",") if part.strip()]
    named = {name: views_named(name, config) for name in asked or _usual(config, notes)}
    candidates = {PLAIN: Views.plain(trained)} | _possible(named, loaded, None if asked else notes)
    now = asked_views(config)
    if now not in candidates.values():
        candidates["prediction"] = now
    made = PredictedViews(loaded, runs, candidates, dirs, say).all()
    return _result(loaded, policy, runs, candidates, made, notes + made.notes)


def _folder(experiment: str | Path, dirs: OutputDirs) -> ExperimentDir:
    path = Path(experiment)
    return ExperimentDir(path if path.is_dir() and len(path.parts) > 1 else dirs.runs / str(experiment))


def _runs(loaded: LoadedExperiment, policy: str, seeds: int | None) -> list[RunDir]:
    runs = loaded.folder.finished(policy)
    there = list(dict.fromkeys(seed for seed in loaded.config.seeds))[:seeds]
    runs = [run for run in runs if run.record.seed in there]
    if not runs:
        raise KitError(f"{loaded.folder.path} holds no finished run of {policy}; python -m kit run trains them")
    for run in runs:
        run.checked(run.weights)
    return runs


def _usual(config: ExperimentConfig, notes: list[str]) -> list[str]:
    """The choices that are compared where none are named."""
    trained = config.data.size
    size = next(
        size for size in (round(LARGER * trained / STEP) * STEP, round(LARGER * trained)) if size > trained
    )
    names = ["hflip", "vflip", "rot90", "d4", "scale=0.8+scale=1.25", f"size={size}"]
    if config.data.stored_size > config.data.size:
        names.insert(4, "five_crops")
    else:
        notes.append("without five_crops: images are kept at data.size, so that all crops are the same")
    return [*names, "hflip+logits"]


def _possible(named: Mapping[str, Views], loaded: LoadedExperiment, notes: list[str] | None) -> dict[str, Views]:
    """Those that the model takes; where there are `notes`, they say of which it does not.

    Raises
    ------
    KitError
        Without `notes`, where there is one.
    """
    from kit.model.build import build_model
    from kit.model.sizes import need_sides

    config, possible = loaded.config, {}
    data, scratch = config.data, config.model.model_copy(update={"weights": "none"})
    model = build_model(scratch, len(loaded.competition.classes), data.channels, data.size, seed=0)
    for name, views in named.items():
        try:
            need_sides(model, {view.side for view in views}, data.size, data.channels, config.model.name)
            possible[name] = views
        except KitError as error:
            if notes is None:
                raise
            notes.append(f"without {name}: {str(error).removeprefix('prediction: ').partition(';')[0]}")
    return possible


def views_named(text: str, config: ExperimentConfig) -> Views:
    """Return the views that a choice of --views names; KitError where it names none."""
    content: dict[str, Any] = {"views": []}
    for part in text.split("+"):
        name, _, value = (each.strip() for each in part.partition("="))
        if name == "logits" and not value:
            content["average"] = "logits"
        elif name == "size":
            content["size"] = value
        elif name in ("scale", "scales"):
            content["views"].append({"scales": [value]})
        elif name == "tiles":
            count, _, pool = value.partition(":")
            content["views"].append({"tiles": count, **({"pool": pool} if pool else {})})
        elif name != PLAIN:
            content["views"].append(name)
    try:
        chosen = PredictionConfig.model_validate(content)
        ExperimentConfig.model_validate({**dict(config), "prediction": chosen})
    except ValidationError as error:
        lines = explain(error, content, PredictionConfig)
        raise KitError(f"--views {text}: {'; '.join(lines)}; {FORMS}") from error
    return chosen.chosen(config.data.size)


def _result(
    loaded: LoadedExperiment,
    policy: str,
    runs: Sequence[RunDir],
    candidates: Mapping[str, Views],
    made: PredictionsOfViews,
    notes: list[str],
) -> ViewsResult:
    config, scoring, level = loaded.config, loaded.config.scoring, loaded.config.compare.level
    pools = {name: pooled_frames(each, loaded.competition, loaded.folds) for name, each in made.frames.items()}
    choices = {name: pool.choose(scoring) for name, pool in pools.items()}
    plain, truth = pools[PLAIN], pools[PLAIN].truth
    decided = {name: _taken(choice.predicted, pools[name], scoring) for name, choice in choices.items()}
    seconds = {name: _seconds(views, made) for name, views in candidates.items()}
    # Of several that score the same the one of fewest passes: seconds would choose another each time.
    found = _choose_by_fold(pools, sorted(candidates, key=lambda name: candidates[name].passes), scoring)
    if found:
        decided["honest"] = found.decided if scoring.of_probabilities else found.decided[0]
    against = bootstrap(truth, decided, PLAIN, scoring, plain.groups, level=level) if len(decided) > 1 else {}

    def interval(name: str) -> tuple[float, float, float]:
        return (
            (0.0, 0.0, 0.0) if name == PLAIN else (against[name].difference, against[name].low, against[name].high)
        )

    rows = [
        ViewsRow(
            name,
            str(views),
            choices[name].cross_fitted,
            *interval(name),
            seconds=1000 * seconds[name],
            cost=seconds[name] / max(seconds[PLAIN], 1e-12),
            passes=views.passes,
        )
        for name, views in candidates.items()
    ]
    honest = HonestChoice(found.score, *interval("honest"), found.by_fold) if found else None
    return ViewsResult(config.name, policy, scoring.title, len(truth), len(runs), level, rows, honest, notes)


def _taken(labels: np.ndarray, pool: PooledPredictions, config: ScoringConfig) -> Any:
    """Labels, and the probabilities where the metric takes these."""
    return (labels, pool.oof.to_numpy()) if config.of_probabilities else labels


def _seconds(views: Views, made: PredictionsOfViews) -> float:
    """Seconds of an image."""
    return sum(made.seconds[views.side, view] for view in views) / max(1, made.images)


@dataclass(frozen=True)
class _Found:
    score: float
    decided: tuple[np.ndarray, np.ndarray]
    by_fold: dict[int, str]


def _choose_by_fold(
    pools: Mapping[str, PooledPredictions], names: Sequence[str], config: ScoringConfig
) -> _Found | None:
    """Choose, for each fold, the views and the rule that score best on the others; the first of `names` that do.

    None where there is no other fold.
    """
    plain = pools[PLAIN]
    folds = np.unique(plain.folds)
    if len(folds) < 2:
        return None
    predicted, taken = np.empty_like(plain.truth), np.empty(plain.oof.shape)
    by_fold: dict[int, str] = {}
    for fold in folds:
        mine = plain.folds == fold
        groups = None if plain.groups is None else plain.groups[~mine]
        tried: dict[str, RuleChoice] = {}
        for name in names:
            others = pools[name].oof.to_numpy()[~mine]
            tried[name] = choose_rule(others, plain.truth[~mine], plain.folds[~mine], config, groups)
        best = max(names, key=lambda name: tried[name].cross_fitted)
        probabilities = pools[best].oof.to_numpy()
        predicted[mine] = tried[best].rule.decide_among(probabilities, mine)
        taken[mine], by_fold[int(fold)] = probabilities[mine], best
    return _Found(score(plain.truth, predicted, config, taken), (predicted, taken), by_fold)
