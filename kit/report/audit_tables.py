"""The tables of an audit: classes, folds, pairs of images that are alike, sizes, kinds, broken files."""

from typing import Any

import numpy as np
import pandas as pd

from kit.competition.duplicates import components, labels_differ
from kit.competition.folds import FoldPlan
from kit.competition.load import Competition
from kit.data.hashes import ImageHashes


def pair_table(
    competition: Competition,
    plan: FoldPlan | None,
    train: ImageHashes,
    test: ImageHashes,
    inside: np.ndarray,
    across: np.ndarray,
) -> pd.DataFrame:
    """Return a row a pair of images that are alike, the most telling first.

    Parameters
    ----------
    competition : Competition
        Whose images these are.
    plan : FoldPlan or None
        The folds, where they could be made.
    train, test : ImageHashes
        Of all images.
    inside, across : ndarray
        int64 [pairs, 2]: rows of train and train, rows of train and test.

    Returns
    -------
    DataFrame
        As in `kit.report.audit.Audit.pairs`: those with different labels first, then train with train, then train
        with test.
    """
    labels = np.array(competition.label_format.decode(competition.targets), dtype=object)
    ids, test_ids = np.array(competition.ids, dtype=object), np.array(competition.test_ids, dtype=object)
    groups, parts = groups_of(competition, plan), []
    for pairs, other, other_ids, with_test in ((inside, train, ids, False), (across, test, test_ids, True)):
        first, second = pairs.T
        nowhere = np.zeros(len(pairs), dtype=bool)
        spans = nowhere if with_test or plan is None else plan.fold[first] != plan.fold[second]
        differ = nowhere if with_test else labels_differ(pairs, competition.targets)
        one = nowhere if with_test or groups is None else groups[first] == groups[second]
        table = {
            "first": ids[first],
            "second": other_ids[second],
            "first_label": labels[first],
            "second_label": "" if with_test else labels[second],
            "bits": np.bitwise_count(train.hashes[first] ^ other.hashes[second]).astype(np.int64),
            "same_pixels": train.digests[first] == other.digests[second],
            "with_test": with_test,
            "labels_differ": differ,
            "spans_folds": spans,
            "one_group": one,
            "first_row": first,
            "second_row": second,
        }
        parts.append(pd.DataFrame(table))
    return _most_telling_first(pd.concat(parts, ignore_index=True), len(ids), len(test_ids))


def groups_of(competition: Competition, plan: FoldPlan | None) -> np.ndarray | None:
    """Return the known row group of each training row, int64 [rows]; None where there are none."""
    if plan is not None and plan.groups is not None:
        return plan.groups
    return competition.observations.codes if competition.observations else None


def pair_kinds_table(pairs: pd.DataFrame, groups: np.ndarray | None) -> pd.DataFrame:
    """Return how many pairs there are of each kind: where, how near, pairs, other_label.

    Parameters
    ----------
    pairs : DataFrame
        As `pair_table` gives it.
    groups : ndarray or None
        The row groups of the training rows, where they have some.
    """
    grouped = groups is not None
    inside = "train, one group" if grouped else "train"
    where = np.where(
        pairs["with_test"],
        "train with test",
        np.where(pairs["one_group"] | (not grouped), inside, "train, two groups"),
    )
    how = np.where(pairs["same_pixels"], "same pixels", "near")
    kinds = pairs.assign(where=where, how_near=how, pairs=1, other_label=pairs["labels_differ"].astype(int))
    counted = kinds.groupby(["where", "how_near"], sort=True)[["pairs", "other_label"]].sum()
    return counted.reset_index().rename(columns={"how_near": "how near", "other_label": "other label"})


def _most_telling_first(pairs: pd.DataFrame, train_rows: int, test_rows: int) -> pd.DataFrame:
    """Return one pair of each group of duplicates, then a second one of each, and so on.

    Of a hundred copies one sees enough in one pair.
    """
    nodes = pairs[["first_row", "second_row"]].to_numpy(copy=True)
    nodes[pairs["with_test"], 1] += train_rows
    duplicate_group = components(train_rows + test_rows, nodes)[nodes[:, 0]]
    pairs = pairs.iloc[
        np.lexsort((pairs["bits"], ~pairs["same_pixels"], pairs["with_test"], ~pairs["labels_differ"]))
    ]
    turn = pairs.groupby([duplicate_group[pairs.index], "labels_differ", "with_test"]).cumcount()
    order = np.lexsort((turn, pairs["with_test"], ~pairs["labels_differ"]))
    return pairs.iloc[order].reset_index(drop=True)


def first_pairs(pairs: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the first so many pairs, a quarter of them with test images where there are so many."""
    with_test = pairs[pairs["with_test"]]
    inside = pairs[~pairs["with_test"]].head(most - min(len(with_test), most // 4))
    return pd.concat([inside, with_test.head(most - len(inside))])


def class_table(competition: Competition, plan: FoldPlan | None, k: int) -> pd.DataFrame:
    """Return a row a class: class, name, rows, groups (where there are), and its rows in each of k folds."""
    targets, count = competition.targets, len(competition.classes)
    has = targets if targets.ndim == 2 else targets[:, None] == np.arange(count)
    table: dict[str, Any] = {
        "class": competition.classes,
        "name": [competition.names.get(name, name) for name in competition.classes],
        "rows": has.sum(axis=0),
    }
    if plan is not None:
        if plan.groups is not None:
            table["groups"] = [len(np.unique(plan.groups[column])) for column in has.T]
        table |= {f"fold {fold}": has[plan.fold == fold].sum(axis=0) for fold in range(k)}
    return pd.DataFrame(table)


def fold_table(plan: FoldPlan | None, classes: pd.DataFrame) -> pd.DataFrame:
    """Return a row a fold: fold, rows, groups, fewest, most, without; none where the folds cannot be made."""
    if plan is None:
        return pd.DataFrame([])
    rows = []
    for fold in np.unique(plan.fold):
        members = plan.fold == fold
        row: dict[str, Any] = {"fold": str(fold) if fold >= 0 else "trains only", "rows": int(members.sum())}
        if plan.groups is not None:
            row["groups"] = len(np.unique(plan.groups[members]))
        if fold >= 0:
            counts = classes[f"fold {fold}"]
            row |= {"fewest": counts.min(), "most": counts.max(), "without": int((counts == 0).sum())}
        rows.append(row)
    return pd.DataFrame(rows)


def sizes_row(part: str, hashes: ImageHashes) -> dict[str, Any]:
    """Return how many images train or test has, their widths and heights, and how many cannot be compared."""
    known = hashes.readable
    row: dict[str, Any] = {"part": part, "images": len(hashes)}
    for name, values in (("width", hashes.width[known]), ("height", hashes.height[known])):
        row[name] = _smallest_median_largest(values)
    row["sizes"] = len(np.unique(np.stack([hashes.width[known], hashes.height[known]]), axis=1).T)
    row["flat"] = int((known & ~hashes.comparable).sum())
    row["unreadable"] = int((~known).sum())
    return row


def _smallest_median_largest(values: np.ndarray) -> str:
    if not len(values):
        return ""
    least, median, most = values.min(), np.median(values), values.max()
    return str(least) if least == most else f"{least} / {median:.0f} / {most}"


def kinds_table(part: str, hashes: ImageHashes) -> pd.DataFrame:
    """Return how many images of each format and mode train or test has, the most frequent first."""
    kinds, counts = np.unique(hashes.kinds[hashes.readable], return_counts=True)
    return pd.DataFrame({"part": part, "kind": kinds, "images": counts}).sort_values("images", ascending=False)


def broken_table(competition: Competition, train: ImageHashes, test: ImageHashes) -> pd.DataFrame:
    """Return part, id, file and reason of each image that cannot be read."""
    parts = (
        ("train", competition.ids, competition.train_images, train),
        ("test", competition.test_ids, competition.test_images, test),
    )
    rows = [
        (part, ids[row], str(images[row]), str(hashes.faults[row]))
        for part, ids, images, hashes in parts
        for row in np.flatnonzero(~hashes.readable)
    ]
    return pd.DataFrame(rows, columns=["part", "id", "file", "reason"])
