"""Heads over features of any config: fitted, scored, and side by side by depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from kit.comparison.bootstrap import interval_of
from kit.core.errors import KitError, Say, ignore, some
from kit.core.notebook import ShownAsTables
from kit.core.plotting import COLOURS, new_figure, save
from kit.core.runs import ExperimentDir
from kit.core.settings import explain
from kit.experiment.config import ExperimentConfig
from kit.experiment.features.config import FeaturesConfig, spelled
from kit.experiment.options import RunOptions
from kit.experiment.pool import PolicyResult
from kit.experiment.run import run
from kit.training.config import PredictionConfig

ALL = "all"  # of --block: a head on each block
OF_A_BLOCK = "logistic"  # the head that is put on each


@dataclass(frozen=True)
class HeadScore:
    """What a head came to.

    Attributes
    ----------
    head, block : str
        Its name, and what its features are taken of.
    oof : float
        The cross-fitted score of the pooled out-of-fold rows.
    low, high : float
        Its 95 % interval, were there other rows (percentile bootstrap; row groups are drawn whole).
    folds : list of float
        The score of each fold.
    strength : list of float
        What was chosen in each fold: C, alpha, or the number of neighbours.
    seconds : float
        Of fitting, in all folds.
    features : float
        Seconds of computing features, or of reading them.
    submission : Path
    """

    head: str
    block: str
    oof: float
    low: float
    high: float
    folds: list[float]
    strength: list[float]
    seconds: float
    features: float
    submission: Path


@dataclass(frozen=True)
class FeaturesResult(ShownAsTables):
    """What `features` made.

    Attributes
    ----------
    folder : Path
        runs/<experiment>.
    metric : str
    heads : list of HeadScore
        In the order of the config; with blocks, from the stem on.
    picture : Path or None
        Of the scores by depth, where there is a head on each block.
    left : int
        Heads that are not fitted, as the time did not suffice.
    """

    folder: Path
    metric: str
    heads: list[HeadScore]
    picture: Path | None = None
    left: int = 0

    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Return a row a head."""
        rows = [
            {
                "head": each.head,
                "block": each.block,
                self.metric: each.oof,
                "from": each.low,
                "to": each.high,
                "chosen": some([f"{strength:g}" for strength in dict.fromkeys(each.strength)]),
                "seconds": each.seconds,
                "of features": each.features,
            }
            for each in self.heads
        ]
        return {f"{self.folder.name}, out of fold": pd.DataFrame(rows)}


def features(
    experiment: ExperimentConfig,
    options: RunOptions | str | Path | None = None,
    *,
    block: str | None = None,
    heads: str | Sequence[str] | Mapping[str, Any] = (),
    views: Sequence[str] | None = None,
    name: str | None = None,
    output: str | Path | None = None,
    say: Say = ignore,
) -> FeaturesResult:
    """Fit heads over the features of an experiment's network, and pool them as `run` does.

    Parameters
    ----------
    experiment : ExperimentConfig
        Any: its model, data, folds and scoring count; what it says of heads is where these begin.
    options, output, say
        As of `kit.run`.
    block : str, optional
        last, a depth group by name or number, or all: a logistic head on each.
    heads : str, sequence of str, or mapping
        As `features.heads` in a config; left out: those of the config, else logistic.
    views : sequence of str, optional
        As `features.views`.
    name : str, optional
        Of the experiment that is made; left out: its name and `-features`, `-blocks` with all blocks; the name of
        a config with `features` that no option changes stays.

    Raises
    ------
    KitError
        As `kit.run`, and for a block, head or view that is none.
    """
    made = config_of(experiment, block, heads, views, name)
    if not experiment.features and (left_out := _without(experiment)):
        say(f"{some(left_out)}: left out, as heads see the features of one image; --views hflip takes two")
    done = run(made, options, output=output, say=say)
    stated = made.features
    assert stated
    each = [
        _score(head, stated.taken_of(head), done.folder, outcome, made) for head, outcome in done.policies.items()
    ]
    picture = done.folder / "depth.png" if block == ALL and each else None
    if picture:
        draw(each, made.scoring.title, picture)
    return FeaturesResult(done.folder, made.scoring.title, each, picture, done.left)


def config_of(
    experiment: ExperimentConfig,
    block: str | None,
    heads: str | Sequence[str] | Mapping[str, Any],
    views: Sequence[str] | None,
    name: str | None,
) -> ExperimentConfig:
    """Return the experiment of heads that these options make of one; the parameters are those of `features`."""
    stated = experiment.features
    content: dict[str, Any] = stated.model_dump() if stated else {"heads": [OF_A_BLOCK]}
    if heads:
        content["heads"] = heads
    if views is not None:
        content["views"] = list(views)
    if block == ALL:
        if heads:
            raise KitError("--block all: puts a logistic head on each block; leave --head out")
        content["heads"] = _on_each(experiment)
    elif block is not None:
        content["block"] = block
    try:
        content["heads"] = spelled(content["heads"])
        made = FeaturesConfig.model_validate(content)
    except ValidationError as error:
        lines = explain(error, content, FeaturesConfig)
        raise KitError("\n".join(f"features.{line}" for line in lines)) from error
    except ValueError as error:
        raise KitError(f"features.heads: {error}") from error
    if name is None:
        added = "-blocks" if block == ALL else "-features"
        name = experiment.name if made == stated else f"{experiment.name}{added}"
    return experiment.with_features(made).model_copy(update={"name": name})


def _without(experiment: ExperimentConfig) -> list[str]:
    """The keys of `prediction` that a config of trainings states, and that heads do without."""
    usual, stated = PredictionConfig(), experiment.prediction
    return [
        f"prediction.{key}" for key in ("views", "size", "average") if getattr(stated, key) != getattr(usual, key)
    ]


def _on_each(experiment: ExperimentConfig) -> dict[str, Any]:
    """A logistic head on each block, named by its place; two blocks with the same output count once."""
    import torch

    from kit.model.build import build_model
    from kit.model.features import Taps, blocks

    data = experiment.data
    blank = experiment.model.model_copy(update={"weights": "none"})  # blocks depend on the architecture alone
    model = build_model(blank, 2, data.channels, data.size, experiment.seeds[0]).eval()
    names = blocks(model)
    noise = torch.rand(2, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = Taps(model, names)(noise)
    if len(names) > 1 and torch.equal(found[names[-1]], found[names[-2]]):
        names.pop()
    return {f"block{place:02d}": {"name": OF_A_BLOCK, "block": name} for place, name in enumerate(names)}


def _score(head: str, block: str, folder: Path, outcome: PolicyResult, config: ExperimentConfig) -> HeadScore:
    decided, records = outcome.decided, [run.record for run in ExperimentDir(folder).finished(head)]
    low, high = interval_of(
        decided.truth, decided.predicted, config.scoring, decided.groups, decided.probabilities
    )
    return HeadScore(
        head=head,
        block=block,
        oof=outcome.scores.oof,
        low=low,
        high=high,
        folds=[each.score for each in outcome.scores.runs],
        strength=[float((record.model_extra or {}).get("strength", np.nan)) for record in records],
        seconds=sum(record.seconds["training"] for record in records),
        features=sum(record.seconds["features"] for record in records),
        submission=outcome.submission,
    )


def draw(heads: Sequence[HeadScore], metric: str, path: Path) -> None:
    """Draw the out-of-fold score of each head over the depth of its block: its interval, and each fold."""
    figure = new_figure(max(6.0, 0.42 * len(heads) + 2), 4.2)
    axes, places = figure.subplots(), np.arange(len(heads))
    scores = [each.oof for each in heads]
    axes.fill_between(
        places, [each.low for each in heads], [each.high for each in heads], color=COLOURS[0], alpha=0.15
    )
    axes.plot(places, scores, color=COLOURS[0], marker="o", label="pooled, with its 95 % interval over rows")
    for place, each in zip(places, heads, strict=True):
        axes.plot([place] * len(each.folds), each.folds, ".", color=COLOURS[1], markersize=4)
    axes.plot([], [], ".", color=COLOURS[1], label="each fold")
    best = int(np.argmax(scores))
    axes.axvline(float(best), color="black", alpha=0.25, linestyle=":")
    axes.set_title(f"{OF_A_BLOCK} head by depth: best at {heads[best].block}, {scores[best]:.4f}")
    axes.set_xticks(places, [each.block for each in heads], rotation=60, ha="right", fontsize=8)
    axes.set_ylabel(f"{metric}, out of fold")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    save(figure, path)
