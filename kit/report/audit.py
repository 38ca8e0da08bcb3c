"""What the data of a competition look like before one trains: balance, duplicates, groups, sizes, broken files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.config import FoldsConfig
from kit.competition.duplicates import (
    Setting,
    components,
    duplicate_pairs,
    duplicates_advice,
    duplicates_between,
    labels_differ,
)
from kit.competition.find_groups import SuspectedGroups, suspected_groups
from kit.competition.folds import FoldPlan, check_folds, check_plan
from kit.competition.load import Competition, label_hints, load_competition
from kit.core.errors import KitError
from kit.core.files import need_writable
from kit.core.paths import OutputDirs
from kit.core.progress import Progress
from kit.data.decode import open_image
from kit.data.hashes import ImageHashes, hash_images
from kit.data.sources import Source
from kit.experiment.config import ExperimentConfig
from kit.experiment.fold_plan import new_plan
from kit.report.pairs import MOST, PairPicture, draw_pairs

NEAR = 6  # bits, where folds.duplicates states no number; docs/audit.md has the figures
LARGEST_DRAWN = 400  # pixels a side
FAULT = "nothing can be trained with these folds: "


@dataclass(frozen=True)
class Audit:
    """name      of the experiment
    rows      of the train table;  test_rows  of the test table;  k  folds
    setting   how near images have to be to be listed: a number of bits, or `exact`
    classes   a row a class: class, name, rows, groups (where there are), fold 0, fold 1 … (rows there)
    folds     a row a fold: fold, rows, groups, fewest and most (rows of a class there), without (classes)
    rare      those of `classes` with fewer rows, or groups, than folds
    pairs     a row a pair of images that are alike, those with different labels first, then train with train, then
              train with test: first, second (ids), first_label, second_label, bits, same_pixels, with_test,
              labels_differ, spans_folds, first_row, second_row
    suspects  groups that the table seems to hold
    sizes     a row each for train and test: part, images, width and height (smallest, median, largest), sizes
              (distinct ones), flat, unreadable
    kinds     part, kind, images: formats and modes
    broken    part, id, file, reason of each image that cannot be read
    advice    lines: what to do
    picture   of the pairs, where one was drawn
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
    suspects: list[SuspectedGroups]
    sizes: pd.DataFrame
    kinds: pd.DataFrame
    broken: pd.DataFrame
    advice: list[str]
    picture: Path | None


def audit(
    experiment: ExperimentConfig,
    output: str | Path = ".",
    picture: str | Path | None = None,
) -> Audit:
    """Looks at every image once (what was seen is kept in output/cache), and at the tables.

    picture  of the pairs; left out: output/audit-NAME.png. None is drawn where there are no pairs

    Images that cannot be read and folds that cannot be made are reported, not raised. Raises KitError where the
    tables cannot be used, or images do not exist.
    """
    dirs = OutputDirs(Path(output).expanduser())
    need_writable(dirs.cache)
    competition = load_competition(experiment.competition)
    experiment.scoring.check(competition.label_format.multilabel, len(competition.classes))
    looks = _look(competition.train_images, "train", dirs)
    test_looks = _look(competition.test_images, "test", dirs)
    plan, advice = _plan(experiment, competition, dirs)
    setting, inside, across = _alike(looks, test_looks, experiment, advice)
    pairs = _pair_table(competition, plan, looks, test_looks, inside, across)
    classes = _class_table(competition, plan, experiment.folds.k)
    rare = classes[classes.get("groups", classes["rows"]) < experiment.folds.k]
    suspects = _suspects(experiment, competition, inside, advice)
    broken = _broken(competition, looks, test_looks)
    advice += label_hints(experiment.competition, competition)
    advice += _advice(experiment, looks, pairs, setting, suspects, broken, rare)
    drawn = None
    if len(pairs):
        drawn = Path(picture).expanduser() if picture else dirs.root / f"audit-{experiment.name}.png"
        _draw(experiment.name, competition, pairs, drawn)
    return Audit(
        name=experiment.name,
        rows=len(competition.ids),
        test_rows=len(competition.test_ids),
        k=experiment.folds.k,
        setting=setting,
        classes=classes,
        folds=_fold_table(plan, classes),
        rare=rare[[name for name in ("class", "name", "rows", "groups") if name in rare]].reset_index(drop=True),
        pairs=pairs,
        suspects=suspects,
        sizes=pd.DataFrame([_sizes("train", looks), _sizes("test", test_looks)]),
        kinds=pd.concat([_kinds("train", looks), _kinds("test", test_looks)], ignore_index=True),
        broken=broken,
        advice=advice,
        picture=drawn,
    )


def _look(images: Sequence[Source], part: str, dirs: OutputDirs) -> ImageHashes:
    with Progress(f"Looking at {part} images", len(images), unit="image") as progress:
        return hash_images(images, dirs.cache, lambda done, total: progress.update(done))


def _plan(
    experiment: ExperimentConfig, competition: Competition, dirs: OutputDirs
) -> tuple[FoldPlan | None, list[str]]:
    """The folds that the config asks for, None where they cannot be made; and what is wrong with them."""
    plan = None
    try:
        check_folds(experiment.folds, competition.classes, competition.targets)
        plan = new_plan(experiment, competition, dirs)
        check_plan(plan, experiment.folds, competition.train)
        return plan, []
    except KitError as error:
        return plan, [f"{FAULT}{error}"]


def _alike(
    looks: ImageHashes, test_looks: ImageHashes, experiment: ExperimentConfig, advice: list[str]
) -> tuple[Setting, np.ndarray, np.ndarray]:
    """How near images have to be, pairs inside train, pairs of train and test; only exact ones where near ones
    are beyond number."""
    stated = experiment.folds.duplicates
    setting: Setting = NEAR if isinstance(stated, str) else stated
    try:
        return setting, duplicate_pairs(looks, setting), duplicates_between(looks, test_looks, setting)
    except KitError as error:
        _tell(error, advice)
        return "exact", duplicate_pairs(looks, "exact"), duplicates_between(looks, test_looks, "exact")


def _pair_table(
    competition: Competition,
    plan: FoldPlan | None,
    looks: ImageHashes,
    test_looks: ImageHashes,
    inside: np.ndarray,
    across: np.ndarray,
) -> pd.DataFrame:
    labels = np.array(competition.label_format.decode(competition.targets), dtype=object)
    ids, test_ids = np.array(competition.ids, dtype=object), np.array(competition.test_ids, dtype=object)
    parts = []
    for pairs, other, other_ids, with_test in ((inside, looks, ids, False), (across, test_looks, test_ids, True)):
        first, second = pairs.T
        spans = (
            np.zeros(len(pairs), dtype=bool)
            if with_test or plan is None
            else plan.fold[first] != plan.fold[second]
        )
        differ = np.zeros(len(pairs), dtype=bool) if with_test else labels_differ(pairs, competition.targets)
        table = {
            "first": ids[first],
            "second": other_ids[second],
            "first_label": labels[first],
            "second_label": "" if with_test else labels[second],
            "bits": np.bitwise_count(looks.hashes[first] ^ other.hashes[second]).astype(np.int64),
            "same_pixels": looks.digests[first] == other.digests[second],
            "with_test": with_test,
            "labels_differ": differ,
            "spans_folds": spans,
            "first_row": first,
            "second_row": second,
        }
        parts.append(pd.DataFrame(table))
    whole = pd.concat(parts, ignore_index=True)
    # One pair of each group of duplicates, then a second one: of a hundred copies one sees enough in one.
    nodes = whole[["first_row", "second_row"]].to_numpy(copy=True)
    nodes[whole["with_test"], 1] += len(ids)
    group = components(len(ids) + len(test_ids), nodes)[nodes[:, 0]]
    whole = whole.iloc[
        np.lexsort((whole["bits"], ~whole["same_pixels"], whole["with_test"], ~whole["labels_differ"]))
    ]
    turn = whole.groupby([group[whole.index], "labels_differ", "with_test"]).cumcount()
    order = np.lexsort((turn, whole["with_test"], ~whole["labels_differ"]))
    return whole.iloc[order].reset_index(drop=True)


def foremost(pairs: pd.DataFrame, most: int) -> pd.DataFrame:
    """The first so many pairs, a quarter of them with test images where there are so many."""
    with_test = pairs[pairs["with_test"]]
    inside = pairs[~pairs["with_test"]].head(most - min(len(with_test), most // 4))
    return pd.concat([inside, with_test.head(most - len(inside))])


def _class_table(competition: Competition, plan: FoldPlan | None, k: int) -> pd.DataFrame:
    targets, count = competition.targets, len(competition.classes)
    has = targets if targets.ndim == 2 else targets[:, None] == np.arange(count)
    table = {
        "class": competition.classes,
        "name": [competition.names.get(name, name) for name in competition.classes],
        "rows": has.sum(axis=0),
    }
    if plan is not None:
        if plan.groups is not None:
            table["groups"] = [len(np.unique(plan.groups[column])) for column in has.T]
        table |= {f"fold {fold}": has[plan.fold == fold].sum(axis=0) for fold in range(k)}
    return pd.DataFrame(table)


def _fold_table(plan: FoldPlan | None, classes: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for fold in () if plan is None else np.unique(plan.fold):
        members = plan.fold == fold
        row = {"fold": str(fold) if fold >= 0 else "trains only", "rows": int(members.sum())}
        if plan.groups is not None:
            row["groups"] = len(np.unique(plan.groups[members]))
        if fold >= 0:
            counts = classes[f"fold {fold}"]
            row |= {"fewest": counts.min(), "most": counts.max(), "without": int((counts == 0).sum())}
        rows.append(row)
    return pd.DataFrame(rows)


def _suspects(
    experiment: ExperimentConfig, competition: Competition, pairs: np.ndarray, advice: list[str]
) -> list[SuspectedGroups]:
    config, folds = experiment.competition, experiment.folds
    labels = config.label if isinstance(config.label, tuple) else (config.label,)

    def suspected(folds):
        return suspected_groups(
            competition.ids,
            competition.train,
            competition.targets,
            folds,
            id_column=config.id_column,
            skip={*labels, *competition.classes},
            pairs=pairs,
        )

    try:
        return suspected(folds)
    except KitError as error:  # of the groups that the config names
        _tell(error, advice)
        return suspected(folds.model_copy(update={"group": None, "group_pattern": None}))


def _tell(error: KitError, advice: list[str]) -> None:
    """Adds what is wrong, unless it stands there, as the folds failed of it already."""
    if not any(line.endswith(str(error)) for line in advice):
        advice.append(str(error))


def _sizes(part: str, looks: ImageHashes) -> dict:
    known = looks.readable
    row = {"part": part, "images": len(looks)}
    for name, values in (("width", looks.width[known]), ("height", looks.height[known])):
        row[name] = _range(values)
    row["sizes"] = len(np.unique(np.stack([looks.width[known], looks.height[known]]), axis=1).T)
    row["flat"] = int((known & ~looks.comparable).sum())
    row["unreadable"] = int((~known).sum())
    return row


def _range(values: np.ndarray) -> str:
    if not len(values):
        return ""
    least, median, most = values.min(), np.median(values), values.max()
    return str(least) if least == most else f"{least} / {median:.0f} / {most}"


def _kinds(part: str, looks: ImageHashes) -> pd.DataFrame:
    kinds, counts = np.unique(looks.kinds[looks.readable], return_counts=True)
    return pd.DataFrame({"part": part, "kind": kinds, "images": counts}).sort_values("images", ascending=False)


def _broken(competition: Competition, looks: ImageHashes, test_looks: ImageHashes) -> pd.DataFrame:
    parts = (
        ("train", competition.ids, competition.train_images, looks),
        ("test", competition.test_ids, competition.test_images, test_looks),
    )
    rows = [
        (part, ids[row], str(images[row]), str(looks.faults[row]))
        for part, ids, images, looks in parts
        for row in np.flatnonzero(~looks.readable)
    ]
    return pd.DataFrame(rows, columns=["part", "id", "file", "reason"])


def _advice(
    experiment: ExperimentConfig,
    looks: ImageHashes,
    pairs: pd.DataFrame,
    setting: Setting,
    suspects: list[SuspectedGroups],
    broken: pd.DataFrame,
    rare: pd.DataFrame,
) -> list[str]:
    lines = []
    for part, images in broken.groupby("part", sort=False):
        what = "mend or remove them and their rows" if part == "train" else "their rows get the prior"
        lines.append(f"{part} images that cannot be read: {len(images)}; {what}")
    if count := int(pairs["labels_differ"].sum()):
        what = "look at them: one of the two labels may be wrong"
        lines.append(f"pairs that are alike but have different labels: {count}; {what}")
    lines += _fold_advice(experiment.folds, looks, pairs, setting, suspects)
    if count := pairs.loc[pairs["with_test"], "second"].nunique():
        lines.append(f"test images that are like train images: {count}; they flatter the score on the leaderboard")
    if len(rare):
        what = "groups" if "groups" in rare else "rows"
        lines.append(f"classes with fewer {what} than folds: {len(rare)}; their scores rest on very little")
    return lines


def _fold_advice(
    folds: FoldsConfig, looks: ImageHashes, pairs: pd.DataFrame, setting: Setting, suspects: list[SuspectedGroups]
) -> list[str]:
    lines = []
    proposed = next((suspect.setting for suspect in suspects if suspect.setting), None)
    if proposed:
        lines.append(f"rows seem to come in groups; set {proposed}, so that no group spans folds")
    if count := int(pairs["spans_folds"].sum()):
        line = f"pairs that are alike and span folds: {count}; models are scored on what they have seen"
        lines.append(line if proposed else f"{line}; {_joining(folds, looks, setting)}")
    if folds.duplicates in ("exact", setting):
        groups = components(len(looks), duplicate_pairs(looks, folds.duplicates))
        lines += filter(None, [duplicates_advice(groups, folds.k, folds.duplicates)])
    return lines


def _joining(folds: FoldsConfig, looks: ImageHashes, setting: Setting) -> str:
    """What to set: the largest distance up to `setting` at which no group of duplicates outgrows a fold."""
    choices = [bits for bits in (16, 12, 8, NEAR, 4, 2, 0) if setting != "exact" and bits <= setting]
    fitting = (
        bits
        for bits in choices
        if not duplicates_advice(components(len(looks), duplicate_pairs(looks, bits)), folds.k, bits)
    )
    choice = next(fitting, "exact")
    return f"add duplicates: {choice} to folds" if folds.group else f"set folds: {{duplicates: {choice}}}"


def _draw(name: str, competition: Competition, pairs: pd.DataFrame, path: Path) -> None:
    shown = [_picture(competition, pair) for pair in foremost(pairs, MOST).itertuples()]
    title = f"{name}: {len(shown)} of {len(pairs)} pairs of images that are alike"
    draw_pairs(shown, title, path)


def _picture(competition: Competition, pair) -> PairPicture:
    others = competition.test_images if pair.with_test else competition.train_images
    first, second = (
        _small(source) for source in (competition.train_images[pair.first_row], others[pair.second_row])
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


def _small(source: Source) -> np.ndarray:
    image = open_image(source, reduce_to=LARGEST_DRAWN)
    image.thumbnail((LARGEST_DRAWN, LARGEST_DRAWN))
    return np.asarray(image)
