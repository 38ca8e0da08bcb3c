"""`kit soup`: one model a fold, the mean of its seeds' weights, kept where it is no worse than all of them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kit.core.errors import KitError, Say, ignore, some
from kit.core.notebook import ShownAsTables
from kit.core.paths import OutputDirs
from kit.core.runs import SOUP, ExperimentDir
from kit.core.stopping import telling
from kit.experiment.blend_members import BlendMember, member_of
from kit.experiment.compare_config import CompareConfig
from kit.experiment.config import ExperimentConfig
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.options import RunOptions
from kit.experiment.pool import decided
from kit.experiment.run import run
from kit.experiment.soup.average import need_same_beginning
from kit.experiment.soup.config import SoupConfig
from kit.experiment.views import asked_views, views_of
from kit.scoring.decide import TIE


@dataclass(frozen=True)
class SoupResult(ShownAsTables):
    """What `soup` made.

    Attributes
    ----------
    folder : Path
        runs/<experiment>-soup; where it was not kept, it is not there.
    metric : str
    soup : float
        The cross-fitted out-of-fold score of one model a fold, the mean of the weights of its seeds.
    together : float
        That of the mean of the seeds' predictions, which takes a model a seed.
    alone : list of float
        That of each seed by itself.
    seeds : list of int
        Which they are.
    kept : bool
        Whether it was no worse than they together, or by less than .002.
    submission : Path or None
    """

    folder: Path
    metric: str
    soup: float
    together: float
    alone: list[float]
    seeds: list[int]
    kept: bool
    submission: Path | None

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a row a way to predict, with its score and the models that a row takes, a fold."""
        rows: list[dict[str, Any]] = [
            {"predicted by": "the soup", self.metric: self.soup, "models a fold": 1},
            {"predicted by": "all seeds together", self.metric: self.together, "models a fold": len(self.seeds)},
        ]
        for seed, score in zip(self.seeds, self.alone, strict=True):
            rows.append({"predicted by": f"seed {seed} alone", self.metric: score, "models a fold": 1})
        return {f"{self.folder.name}, out of fold, rules cross-fitted": pd.DataFrame(rows)}

    def remarks(self) -> list[str]:
        """Return whether the soup was kept, and why."""
        gap = self.soup - self.together
        if self.kept:
            return [
                f"Kept ({gap:+.4f} to all seeds together): {self.folder} predicts with one model a fold; "
                f"submission {self.submission}"
            ]
        left = f"only {ExperimentDir(self.folder).pseudo} was left" if self.folder.exists() else "nothing was left"
        return [
            f"Not kept: {-gap:.4f} less than all seeds together, whose predictions are averaged instead; {left} "
            "in runs/ and submissions/"
        ]


@telling("while a soup was made; the runs are as they were, and the same command makes it anew")
def soup(
    name: str,
    options: RunOptions | str | Path | None = None,
    *,
    output: str | Path | None = None,
    say: Say = ignore,
) -> SoupResult:
    """Average the weights of each fold's seeds, and keep the models where they are no worse out of fold.

    Batch norms are estimated anew on the fold's training images. Nothing is trained.

    Parameters
    ----------
    name : str
        An experiment in runs/ (the policy it began with), or EXPERIMENT/POLICY.
    options : RunOptions or path, optional
        Where runs/ is and images are decoded; a folder alone is the output folder.
    output : path, optional
        That folder, by its name.
    say : callable
        Takes lines about what happens.

    Raises
    ------
    KitError
        Where fewer than two seeds are finished in every fold, where models began from random weights, and where
        another experiment has the soup's name.

    References
    ----------
    Uniform soups: Wortsman and others 2022, "Model soups".
    """
    options = RunOptions.of(options, output)
    dirs = options.dirs
    member = member_of(name, dirs, "soup")
    config, seeds = _config(member)
    _need_same_views(member)
    folder = ExperimentDir(dirs.runs / config.name)
    _need_free(folder, dirs)
    loaded = LoadedExperiment.open(member.experiment, member.folder, dirs)
    score = lambda runs: decided(runs, loaded.competition, loaded.folds, config.scoring).oof  # noqa: E731
    of_seed = {seed: [run for run in member.runs if run.record.seed == seed] for seed in seeds}
    alone = [score(runs) for runs in of_seed.values()]
    together = score([run for runs in of_seed.values() for run in runs])
    folds = len(config.folds.chosen)
    say(f"{config.name}: the mean of the weights of seeds {some(seeds)} in each of {folds} folds")
    made = run(config, _options(options, member), say=say)
    outcome = made.policies[member.policy]
    kept = outcome.scores.oof >= together - TIE
    if not kept:
        _remove(folder)
        outcome.submission.unlink(missing_ok=True)
    submission = outcome.submission if kept else None
    return SoupResult(
        folder.path, config.scoring.title, outcome.scores.oof, together, alone, list(seeds), kept, submission
    )


def _remove(folder: ExperimentDir) -> None:
    """Remove a soup, but not labels that an earlier one of this name gave: trainings may refer to them."""
    for entry in folder.path.iterdir():
        if entry.is_file():
            entry.unlink()
        elif entry != folder.pseudo:
            shutil.rmtree(entry)
    if not any(folder.path.iterdir()):
        folder.path.rmdir()


def _config(member: BlendMember) -> tuple[ExperimentConfig, Sequence[int]]:
    """The soup's config and the seeds that every fold has; KitError where that cannot be."""
    experiment = member.experiment
    if experiment.features or experiment.soup:
        kind = "heads over features" if experiment.features else "a soup itself"
        raise KitError(f"soup: {member.title} is {kind}; name an experiment whose networks were trained")
    need_same_beginning(experiment, member.runs)
    there = {(record.seed, record.fold) for record in member.records}
    folds = sorted(member.folds)
    seeds = [seed for seed in experiment.seeds if all((seed, fold) in there for fold in folds)]
    if len(seeds) < 2:
        raise KitError(
            f"soup: {member.title} has {len(seeds)} seed{'s' * (len(seeds) != 1)} that is finished in every fold, "
            "and a mean takes two or more; train more: python -m kit run --set seeds=[0,1,2]"
        )
    run_folds = experiment.folds if len(folds) == experiment.folds.k else None
    changes = {
        "name": f"{member.title.replace('/', '-')}-soup",
        "policies": {member.policy: experiment.policies[member.policy]},
        "seeds": (seeds[0],),
        "compare": CompareConfig(),
        "budget": None,  # of trainings; a soup of some folds could not be set against all
        "folds": run_folds or experiment.folds.model_copy(update={"run": tuple(folds)}),
        "soup": SoupConfig(of=member.folder.path.name, seeds=tuple(seeds)),
    }
    return experiment.model_copy(update=changes), seeds


def _need_same_views(member: BlendMember) -> None:
    """Raise KitError where models predicted in other views than the soup will: scores would tell of these."""
    asked = asked_views(member.experiment)
    each = [views_of(run.record, member.experiment) for run in member.runs]
    if other := [str(views) for views in each if views != asked]:
        raise KitError(
            f"soup: {len(other)} of {len(each)} models of {member.title} predicted in {some(sorted(set(other)))}, "
            f"and a soup would in {asked}, so their scores could not be compared; python -m kit run predicts them "
            "anew"
        )


def _need_free(folder: ExperimentDir, dirs: OutputDirs) -> None:
    """Raise KitError where another experiment or file has the soup's name."""
    others = [run for run in folder.runs() if run.record.kind != SOUP]
    there = set(folder.path.iterdir()) - {folder.pseudo} if folder.path.exists() else ()
    if others or (there and not folder.config.exists()):
        raise KitError(f"soup: {folder.path} is no soup, and the soup would replace it; remove or rename it")
    if (file := dirs.submissions / f"{folder.path.name}.csv").exists() and not folder.config.exists():
        raise KitError(f"soup: {file} is there, and of no soup; remove or rename it")


def _options(options: RunOptions, member: BlendMember) -> RunOptions:
    return RunOptions(
        options.output, options.cache, folds=member.folder.folds, replace=True, threads=options.threads
    )
