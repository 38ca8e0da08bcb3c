"""Pseudo-labels that stay fold-honest: fold f trains on what the models of fold f alone say of unlabelled images.

A mean over folds has seen the labels of every fold's rows, and what is trained on it scores too well out of fold.

runs/<experiment>/pseudo/<policy>-<test or folder>/
  <next round>.csv     id, fold, a share of each class, weight, the digest of the fold plan
  <next round>.json    by which runs, with which options, after which rounds
<experiment>-pseudo.yaml    the config of the next round, where the command runs
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.extra_tables import Side, extra_rows
from kit.core.errors import KitError, Say, ignore, some
from kit.core.files import need_writable, write_json, write_text
from kit.core.manifest import noting
from kit.core.notebook import ShownAsTables
from kit.core.paths import OutputDirs
from kit.core.runs import ExperimentDir, RunDir
from kit.core.stopping import telling
from kit.core.whole import digest, sealed
from kit.core.yaml import dump_yaml
from kit.experiment.config import ExperimentConfig, load_experiment, validate
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pseudo_labels import (
    DIGITS,
    Columns,
    FoldLabels,
    PseudoOptions,
    confidence,
    labelled,
    summary,
    table_of,
)
from kit.experiment.pseudo_predictions import of_folder, of_test, runs_of
from kit.experiment.pseudo_rounds import (
    follows_its_config,
    need_same_folds,
    next_config,
    next_name,
    place_of,
    rounds_of,
    stored_round,
)


@dataclass(frozen=True)
class PseudoResult(ShownAsTables):
    """What `pseudo` made.

    Attributes
    ----------
    table : Path
        The labels.
    config : Path
        Of the next round.
    experiment, policy : str
        Whose models labelled.
    images : str
        "test", or the folder.
    folds : list of FoldLabels
        What each fold's models labelled.
    rounds : list of str
        The experiments that labelled for one another up to this one, oldest first.
    next : list of str
        Commands: to train the next round, and to label with its models.
    """

    table: Path
    config: Path
    experiment: str
    policy: str
    images: str
    folds: list[FoldLabels]
    rounds: list[str]
    next: list[str]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return a row a fold: how many rows its models labelled, how sure they are, and the commonest classes."""
        rows = [
            {
                "fold": each.fold,
                "models": each.models,
                "rows": each.rows,
                "labelled": each.labelled,
                "share": each.labelled / each.rows if each.rows else 0.0,
                "confidence": each.confidence,
                "classes": classes_in_words(each),
            }
            for each in self.folds
        ]
        return {f"{self.images} labelled by {self.experiment}/{self.policy}": pd.DataFrame(rows)}

    def remarks(self) -> list[str]:
        """Return where the labels and the config are, and what to do next."""
        return [f"{self.table}; the next round: {self.config}", *self.next]


def classes_in_words(labels: FoldLabels, most: int = 5) -> str:
    """Return how many rows of a fold's labels have which class, the commonest first."""
    there = sorted((item for item in labels.classes.items() if item[1]), key=lambda item: (-item[1], item[0]))
    return some((f"{name} {count}" for name, count in there), most)


@telling("while images were labelled; the same command begins anew, with --replace where it had begun to write")
def pseudo(
    experiment: str,
    options: PseudoOptions | None = None,
    output: str | Path = ".",
    cache: str | Path | None = None,
    say: Say = ignore,
) -> PseudoResult:
    """Label the test rows, or a folder of images, with an experiment's models, fold by fold, for the next round.

    The labels of fold f are the mean over the seeds of fold f's models alone. They train fold f of the next round,
    whose config is written.

    Parameters
    ----------
    experiment : str
        In runs/, trained to the end.
    options : PseudoOptions, optional
    output, cache : path
        Hold runs/ and cache/; decoded images.
    say : callable
        Takes lines about what happens.

    Raises
    ------
    KitError
        For heads over features, where a fold is not trained, where what is there is not what the runs wrote or
        saw, where a round followed other folds, where no row is sure enough, and for files that are there already.
    """
    options, dirs = options or PseudoOptions(), OutputDirs.at(output, cache)
    rounds = rounds_of(experiment, options.after, dirs)
    plan = _Plan.of(rounds, options, dirs)
    loaded = LoadedExperiment.open(plan.config, ExperimentDir(dirs.runs / rounds[-1]), dirs, say=say)
    need_same_folds(rounds, loaded, dirs)
    runs = runs_of(loaded, plan.policy, say)
    if plan.folder is None:
        predicted = of_test(runs, loaded, say)
    else:
        predicted = of_folder(runs, loaded, plan.folder, dirs, say)
    multilabel = plan.config.competition.multilabel
    taken = {fold: labelled(frame, options, multilabel) for fold, frame in predicted.items()}
    folds = _told(runs, predicted, taken, multilabel)
    _need_labels(folds, predicted, options, multilabel, say)
    content = next_config(loaded, plan.name, plan.entry(list(loaded.competition.classes), dirs))
    validate(content, str(plan.next_config))  # before anything is written
    record = plan.about | {"rounds": rounds, "folds": loaded.folds.digest} | _record(runs, options, folds)
    _write(loaded, plan, table_of(taken, options.weight, loaded.folds.digest), record, content)
    _need_read_back(loaded, plan, taken)
    commands = _commands(plan.name, rounds, loaded, options, dirs)
    where = plan.about["images"]
    return PseudoResult(plan.table, plan.next_config, rounds[-1], plan.policy, where, folds, rounds, commands)


@dataclass(frozen=True)
class _Plan:
    """What is to be labelled by which policy, and the files that are to be written."""

    source: str
    config: ExperimentConfig
    policy: str
    name: str
    folder: Path | None
    table: Path

    @classmethod
    def of(cls, rounds: Sequence[str], options: PseudoOptions, dirs: OutputDirs) -> "_Plan":
        """Return the plan; KitError for a policy that is not there, and for files that would be written over."""
        source = rounds[-1]
        config = stored_round(source, dirs)
        if config.features:
            raise KitError(
                f"EXPERIMENT {source}: is of heads over features, which train on no extra rows, so that there is "
                "no next round; name an experiment whose networks were trained"
            )
        folder = None if options.folder is None else Path(options.folder).expanduser()
        policy = _policy(config, options)
        place = ExperimentDir(dirs.runs / source).pseudo / f"{policy}-{_name_of(folder)}"
        name = options.name or next_name(rounds)
        plan = cls(source, config, policy, name, folder, place / f"{name}.csv")
        _need_new(plan, rounds, options.replace)
        need_writable(dirs.runs)
        return plan

    @property
    def record(self) -> Path:
        return self.table.with_suffix(".json")

    @property
    def next_config(self) -> Path:
        return Path(f"{self.name}.yaml")

    @property
    def about(self) -> dict[str, Any]:
        """What the record begins with."""
        images = "test" if self.folder is None else self.folder.as_posix()
        return {"experiment": self.source, "policy": self.policy, "images": images}

    def entry(self, classes: Sequence[str], dirs: OutputDirs) -> dict[str, Any]:
        """Return what competition.extra of the next round says of the table."""
        columns = Columns.beside(classes)
        path, name, images = place_of(self.table, self.folder, dirs)
        where = {"table": name, "path": path, "images": images, "id": columns.id, "shares": True}
        return where | {"weight": columns.weight, "fold": columns.fold, "source": self.source}


def _policy(config: ExperimentConfig, options: PseudoOptions) -> str:
    policy = options.policy or next(iter(config.policies))
    if policy not in config.policies:
        raise KitError(f"--policy {policy}: {config.name} has no such policy; it has {some(config.policies)}")
    return policy


def _name_of(folder: Path | None) -> str:
    """What the images are called in the name of the table's folder."""
    if folder is None:
        return "test"
    if not folder.is_dir():
        raise KitError(f"--folder {folder}: is no folder")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(os.path.abspath(folder)).name).strip("-._")[:80] or "images"
    return f"{name}-folder" if name == "test" else name


def _need_new(plan: _Plan, rounds: Sequence[str], replace: bool) -> None:
    """Refuse a name that is no experiment's or that of a round that is there, and to write over files."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", plan.name):
        raise KitError(f"--name {plan.name}: letters, digits, dots, dashes and underscores only, 80 at most")
    if plan.name in rounds:
        raise KitError(f"--name {plan.name}: is a round that labelled; give the next one another name")
    if (there := [file for file in (plan.table, plan.next_config) if file.exists()]) and not replace:
        more = " are" if len(there) > 1 else " is"
        raise KitError(
            f"{some(there)}{more} there already; --replace labels anew, and --name NAME gives the next round "
            "another name"
        )


def _told(
    runs: Sequence[RunDir],
    predicted: Mapping[int, pd.DataFrame],
    taken: Mapping[int, pd.DataFrame],
    multilabel: bool,
) -> list[FoldLabels]:
    of = [run.record.fold for run in runs]
    return [summary(fold, of.count(fold), frame, taken[fold], multilabel) for fold, frame in predicted.items()]


def _need_labels(
    folds: Sequence[FoldLabels],
    predicted: Mapping[int, pd.DataFrame],
    options: PseudoOptions,
    multilabel: bool,
    say: Say,
) -> None:
    """Raise KitError where nothing was sure enough in any fold; tell where it was so in one."""
    empty = [each.fold for each in folds if not each.labelled]
    if len(empty) < len(folds):
        if empty:
            say(f"fold {some(empty)}: no row is sure enough, so these train without pseudo-labels")
        return
    surest = [float(confidence(frame.to_numpy(), multilabel).max(initial=0)) for frame in predicted.values()]
    raise KitError(
        f"--at-least {options.threshold}: no row of any fold is that sure, the surest {max(surest):.3f}; lower "
        "it, or take --share"
    )


def _record(runs: Sequence[RunDir], options: PseudoOptions, folds: Sequence[FoldLabels]) -> dict[str, Any]:
    """What is noted of the labels: how they were chosen, and the digests of what they were made from."""
    made_from = {
        run.record.key.place: {
            "fingerprint": run.record.fingerprint,
            "sha256": digest(run.test if options.folder is None else run.weights),
        }
        for run in runs
    }
    how = {"at_least": options.threshold, "share": options.share, "soft": options.soft, "weight": options.weight}
    return how | {"by_fold": [asdict(each) for each in folds], "runs": made_from}


def _write(
    loaded: LoadedExperiment, plan: _Plan, table: pd.DataFrame, record: dict[str, Any], content: dict[str, Any]
) -> None:
    """Write the labels, the record of them, and the config of the next round."""
    text = table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
    with noting(loaded.folder.path, plan.table, plan.record):
        write_text(plan.table, text)
        write_json(plan.record, sealed(record | {"sha256": digest(plan.table)}))
    write_text(plan.next_config, dump_yaml(content))


def _need_read_back(loaded: LoadedExperiment, plan: _Plan, taken: Mapping[int, pd.DataFrame]) -> None:
    """Read the labels as the next round will; KitError where that gives others, as an own reader may."""
    config, known = load_experiment(plan.next_config).competition, loaded.competition
    made = [
        each
        for each in config.extra or ()
        if each.source == plan.source and Path(each.table).name == plan.table.name
    ]
    sides = {
        "train": Side(known.train, known.ids, known.train_images),
        "test": Side(pd.DataFrame({config.id_column: known.test_ids}), known.test_ids, known.test_images),
    }
    config = config.model_copy(update={"extra": made[-1:]})
    read = extra_rows(config, known.folder, known.label_format, sides, [])
    assert read is not None, "the config names the table"
    (table,) = read.tables
    found = {
        (table.ids[image], fold): shares
        for image, fold, shares in zip(table.image, table.fold.tolist(), table.targets, strict=True)
    }
    meant = {
        (str(name), fold): shares
        for fold, frame in taken.items()
        for name, shares in zip(frame.index, frame.to_numpy(), strict=True)
    }
    if found.keys() != meant.keys() or any(np.abs(found[key] - meant[key]).max() > 1e-4 for key in meant):
        raise KitError(
            f"{plan.table}: does not read back as it was written; do ids and classes hold odd characters, or does "
            "competition.tables, which reads it, too, take no CSV?"
        )


def _commands(
    name: str, rounds: Sequence[str], loaded: LoadedExperiment, options: PseudoOptions, dirs: OutputDirs
) -> list[str]:
    """What to type to train the next round, and to label with its models."""
    output = [] if dirs.root == Path(".") else ["--output", str(dirs.root)]
    folds = [] if follows_its_config(loaded, dirs) else ["--folds", str(loaded.folder.folds)]
    of = [] if options.folder is None else ["--folder", str(options.folder)]
    after = [word for each in (*rounds[1:], name) for word in ("--after", each)]
    kit = ["python", "-m", "kit"]
    each = [*kit, "run", f"{name}.yaml", *folds, *output], [*kit, "pseudo", rounds[0], *after, *of, *output]
    return [shlex.join(words) for words in each]
