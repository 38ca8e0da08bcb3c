"""The command `audit`: what the data of a competition look like before one trains, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.competition.duplicates import NEAR, Setting, duplicate_pairs, duplicates_between
from kit.competition.find_groups import SuspectedGroups, suspected_groups
from kit.competition.folds import FoldPlan, check_folds, check_plan
from kit.competition.folds_config import FoldsConfig
from kit.competition.load import Competition, load_competition
from kit.core.errors import KitError
from kit.core.files import need_writable
from kit.core.notebook import ShownAsTables
from kit.core.paths import OutputDirs
from kit.core.progress import Progress
from kit.data.decode import open_image
from kit.data.hashes import ImageHashes, hash_images
from kit.data.levels import with_levels
from kit.data.reading import Reading
from kit.data.sources import Source
from kit.experiment.config import ExperimentConfig
from kit.experiment.fold_plan import new_plan
from kit.report.audit_advice import advice_on, one_value_advice
from kit.report.audit_tables import (
    broken_table,
    class_table,
    first_pairs,
    fold_table,
    groups_of,
    kinds_table,
    pair_kinds_table,
    pair_table,
    sizes_row,
)
from kit.report.pairs import MOST, PairPicture, draw_pairs

SHOWN_PAIRS = 15
LARGEST_DRAWN = 400  # pixels a side
FAULT = "nothing can be trained with these folds: "


@dataclass(frozen=True)
class Audit(ShownAsTables):
    """What was seen in the data of a competition.

    Attributes
    ----------
    name : str
        The experiment's name.
    rows, test_rows : int
        Of the train table and of the test table.
    k : int
        How many folds there are.
    setting : int or "exact"
        How near images have to be to be listed, as a number of bits.
    classes : DataFrame
        A row a class: class, name, rows, groups (where there are row groups), and its rows in `fold 0`, `fold 1` …
    folds : DataFrame
        A row a fold: fold, rows, groups, fewest and most (rows of a class in it), without (how many classes
        it lacks).
    rare : DataFrame
        The rows of `classes` with fewer rows, or row groups, than folds.
    pairs : DataFrame
        A row a pair of images that are alike, those with different labels first, then train with train, then train
        with test: first, second (ids), first_label, second_label, bits, same_pixels, with_test, labels_differ,
        spans_folds, one_group (of one row group), first_row, second_row.
    pair_kinds : DataFrame
        How many of them are of which kind: where (in train, there in one row group or in two, train with test),
        how near (same pixels or near), pairs, other label (those with different labels).
    suspects : list of SuspectedGroups
        Row groups that the table seems to hold.
    sizes : DataFrame
        A row each for train and test: part, images, width and height (smallest, median, largest), sizes (how many
        distinct ones), flat, unreadable.
    kinds : DataFrame
        part, kind, images: how many images have which format and mode.
    broken : DataFrame
        part, id, file, reason of each image that cannot be read.
    advice : list of str
        Lines that say what to do.
    picture : Path or None
        The picture of the pairs, where one was drawn.
    """

    name: str
    rows: int
    test_rows: int
    k: int
    setting: Setting
    classes: pd.DataFrame
    folds: pd.DataFrame
    rare: pd.DataFrame
    pairs: pd.DataFrame
    pair_kinds: pd.DataFrame
    suspects: list[SuspectedGroups]
    sizes: pd.DataFrame
    kinds: pd.DataFrame
    broken: pd.DataFrame
    advice: list[str]
    picture: Path | None

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return images, classes and folds, images that cannot be read, and the first pairs that are alike."""
        columns = ["first", "first_label", "second", "second_label", "bits", "labels_differ", "spans_folds"]
        return {
            "images": self.sizes,
            f"{self.rows} rows of {len(self.classes)} classes": self.classes,
            f"{self.k} folds": self.folds,
            "images that cannot be read": self.broken,
            "pairs of images that are alike": self.pair_kinds,
            f"{len(self.pairs)} pairs of images that are alike, the first of them": (
                first_pairs(self.pairs, SHOWN_PAIRS)[columns] if len(self.pairs) else self.pairs
            ),
        }

    def remarks(self) -> list[str]:
        """Return what to do."""
        return [f"What to do: {line}" for line in self.advice] or ["What to do: nothing; no fault was found."]


def audit(experiment: ExperimentConfig, output: str | Path = ".", picture: str | Path | None = None) -> Audit:
    """Look at the tables, and at every image once.

    What was seen of the images is kept in output/cache. Images that cannot be read and folds that cannot be made
    are reported, not raised.

    Parameters
    ----------
    experiment : ExperimentConfig
        Says where the data are, and what is set already.
    output : str or Path
        The folder that holds cache/.
    picture : str or Path, optional
        Where the pairs are drawn; left out: output/audit-NAME.png. None is drawn where there are no pairs.

    Returns
    -------
    Audit
        What was seen, and what to do.

    Raises
    ------
    KitError
        Where the tables cannot be used, or images do not exist.
    """
    dirs = OutputDirs.at(output)
    need_writable(dirs.cache)
    competition = load_competition(experiment.competition)
    experiment.scoring.check(competition.label_format.multilabel, len(competition.classes))
    reading = Reading.of(with_levels(experiment.data, competition.train_images, dirs.cache))
    train = _hashes(competition.train_images, "train", dirs, reading)
    test = _hashes(competition.test_images, "test", dirs, reading)
    k, (plan, advice) = experiment.folds.k, _plan(experiment, competition, dirs)
    setting, inside, across = _near_pairs(train, test, experiment, advice)
    pairs = pair_table(competition, plan, train, test, inside, across)
    classes = class_table(competition, plan, k)
    rare = classes[classes.get("groups", classes["rows"]) < k].reset_index(drop=True)
    suspects = _suspects(experiment, competition, inside, advice)
    broken = broken_table(competition, train, test)
    advice += [*competition.remarks, *one_value_advice("train", train), *one_value_advice("test", test)]
    advice += advice_on(experiment, train, pairs, setting, suspects, broken, rare)
    path = Path(picture).expanduser() if picture else dirs.root / f"audit-{experiment.name}.png"
    return Audit(
        name=experiment.name,
        rows=len(competition.ids),
        test_rows=len(competition.test_ids),
        k=k,
        setting=setting,
        classes=classes,
        folds=fold_table(plan, classes),
        rare=rare[[name for name in ("class", "name", "rows", "groups") if name in rare]],
        pairs=pairs,
        pair_kinds=pair_kinds_table(pairs, groups_of(competition, plan)),
        suspects=suspects,
        sizes=pd.DataFrame([sizes_row("train", train), sizes_row("test", test)]),
        kinds=pd.concat([kinds_table("train", train), kinds_table("test", test)], ignore_index=True),
        broken=broken,
        advice=advice,
        picture=_draw(experiment.name, competition, pairs, path, reading) if len(pairs) else None,
    )


def _hashes(images: Sequence[Source], part: str, dirs: OutputDirs, reading: Reading) -> ImageHashes:
    with Progress(f"Looking at {part} images", len(images), unit="image", images=1) as progress:
        return hash_images(images, dirs.cache, lambda done, total: progress.update(done), reading)


def _plan(
    experiment: ExperimentConfig, competition: Competition, dirs: OutputDirs
) -> tuple[FoldPlan | None, list[str]]:
    """Return the folds that the config asks for, None where they cannot be made; and what is wrong with them."""
    plan = None
    try:
        check_folds(experiment.folds, competition.classes, competition.targets)
        plan = new_plan(experiment, competition, dirs)
        observations = competition.observations
        check_plan(plan, experiment.folds, competition.train, observations.of if observations else None)
        return plan, []
    except KitError as error:
        return plan, [f"{FAULT}{error}"]


def _near_pairs(
    train: ImageHashes, test: ImageHashes, experiment: ExperimentConfig, advice: list[str]
) -> tuple[Setting, np.ndarray, np.ndarray]:
    """Return how near images have to be, the pairs inside train, and the pairs of train and test.

    Where there are too many near pairs, only exact ones are returned, and the advice says why.
    """
    stated = experiment.folds.duplicates
    setting: Setting = NEAR if isinstance(stated, str) else stated
    try:
        return setting, duplicate_pairs(train, setting), duplicates_between(train, test, setting)
    except KitError as error:
        _add_fault(error, advice)
        return "exact", duplicate_pairs(train, "exact"), duplicates_between(train, test, "exact")


def _suspects(
    experiment: ExperimentConfig, competition: Competition, pairs: np.ndarray, advice: list[str]
) -> list[SuspectedGroups]:
    """Return the row groups that the table seems to hold; a fault of those that are set is added to the advice."""
    config, folds = experiment.competition, experiment.folds
    labels = config.label if isinstance(config.label, tuple) else (config.label,)

    def suspected(folds: FoldsConfig) -> list[SuspectedGroups]:
        return suspected_groups(
            competition.ids,
            competition.train,
            competition.targets,
            folds,
            id_column=config.id_column,
            skip={*labels, *competition.classes},
            pairs=pairs,
            joined=competition.observations.codes if competition.observations else None,
        )

    try:
        return suspected(folds)
    except KitError as error:  # of the groups that the config names
        _add_fault(error, advice)
        return suspected(folds.model_copy(update={"group": None, "group_pattern": None}))


def _add_fault(error: KitError, advice: list[str]) -> None:
    """Add what is wrong to the advice, unless it stands there, as the folds failed of it already."""
    if not any(line.endswith(str(error)) for line in advice):
        advice.append(str(error))


def _draw(name: str, competition: Competition, pairs: pd.DataFrame, path: Path, reading: Reading) -> Path:
    """Draw the first pairs, and return the file."""
    shown = [_picture(competition, pair, reading) for pair in first_pairs(pairs, MOST).itertuples()]
    title = f"{name}: {len(shown)} of {len(pairs)} pairs of images that are alike"
    draw_pairs(shown, title, path)
    return path


def _picture(competition: Competition, pair: Any, reading: Reading) -> PairPicture:
    """Return the picture of a row of the table of pairs."""
    others = competition.test_images if pair.with_test else competition.train_images
    first, second = (
        _thumbnail(source, reading)
        for source in (competition.train_images[pair.first_row], others[pair.second_row])
    )
    how = "same pixels" if pair.same_pixels else f"{pair.bits} of 64 bits differ"
    part = "test" if pair.with_test else f"train, {competition.names.get(pair.second_label, pair.second_label)}"
    return PairPicture(
        first=first,
        second=second,
        first_text=f"{pair.first}\ntrain, {competition.names.get(pair.first_label, pair.first_label)}",
        second_text=f"{pair.second}\n{part}",
        below=how + (" · spans folds" if pair.spans_folds else ""),
        labels_differ=pair.labels_differ,
    )


def _thumbnail(source: Source, reading: Reading) -> np.ndarray:
    image = open_image(source, LARGEST_DRAWN, reading)
    image.thumbnail((LARGEST_DRAWN, LARGEST_DRAWN))
    return np.asarray(image)
