"""What an audit advises: what to mend in the data, and what to set in the config."""

import numpy as np
import pandas as pd

from kit.competition.duplicates import NEAR, Setting, components, duplicate_pairs, duplicates_advice
from kit.competition.find_groups import SuspectedGroups
from kit.competition.folds_config import FoldsConfig
from kit.competition.observations import gets_the_prior
from kit.data.hashes import ImageHashes
from kit.experiment.config import ExperimentConfig

OFTEN = 0.1  # share of images with a near one, from which on these come in series; docs/audit.md has figures


def advice_on(
    experiment: ExperimentConfig,
    hashes: ImageHashes,
    pairs: pd.DataFrame,
    setting: Setting,
    suspects: list[SuspectedGroups],
    broken: pd.DataFrame,
    rare: pd.DataFrame,
) -> list[str]:
    """Return a line for each thing that is to be done or borne in mind.

    Parameters
    ----------
    experiment : ExperimentConfig
        What is set already.
    hashes : ImageHashes
        Of the train images.
    pairs, suspects, broken, rare
        As in `kit.report.audit.Audit`.
    setting : int or "exact"
        How near the images of `pairs` are.
    """
    lines = []
    for part, images in broken.groupby("part", sort=False):
        rest = gets_the_prior(experiment.competition.predict_by is not None)
        what = "mend or remove them and their rows" if part == "train" else rest
        lines.append(f"{part} images that cannot be read: {len(images)}; {what}")
    lines += _label_advice(pairs, len(hashes))
    lines += _fold_advice(experiment.folds, hashes, pairs, setting, suspects)
    if count := pairs.loc[pairs["with_test"], "second"].nunique():
        lines.append(f"test images that are like train images: {count}; they flatter the score on the leaderboard")
    if len(rare):
        what = "groups" if "groups" in rare else "rows"
        lines.append(f"classes with fewer {what} than folds: {len(rare)}; their scores rest on very little")
    return lines


def _label_advice(pairs: pd.DataFrame, images: int) -> list[str]:
    """Return what to do about pairs with different labels: errors if the pixels are the same, else it depends."""
    inside = pairs[~pairs["with_test"]]
    same, near = inside[inside["same_pixels"]], inside[~inside["same_pixels"]]
    lines = []
    if count := int(same["labels_differ"].sum()):
        lines.append(
            f"pairs of the very same pixels but different labels: {count}; one of the two labels is wrong, or the "
            "image has both"
        )
    if count := int(near["labels_differ"].sum()):
        line = f"pairs that are near (not the same pixels) but have different labels: {count} of {len(near)}"
        with_one = len(np.unique(near[["first_row", "second_row"]])) / images
        lines.append(
            f"{line}; {with_one:.0%} of the train images have a near one, as frames, scans and tiles do, of which "
            "neighbours often have other labels: look at a few of them"
            if with_one >= OFTEN
            else f"{line}; look at them: one of the two labels may be wrong"
        )
    return lines


def one_value_advice(part: str, hashes: ImageHashes) -> list[str]:
    """Return a line where images are one value once decoded, black or white; `part` is train or test."""
    if not (count := int((hashes.readable & hashes.one_value).sum())):
        return []
    what = "look at them, and at data.background and data.levels"
    return [f"{count} of {len(hashes)} {part} images are one value once decoded: {what}"]


def _fold_advice(
    folds: FoldsConfig, hashes: ImageHashes, pairs: pd.DataFrame, setting: Setting, suspects: list[SuspectedGroups]
) -> list[str]:
    lines = []
    proposed = next((suspect.setting for suspect in suspects if suspect.setting), None)
    if proposed:
        lines.append(f"rows seem to come in groups; set {proposed}, so that no group spans folds")
    if count := int(pairs["spans_folds"].sum()):
        line = f"pairs that are alike and span folds: {count}; models are scored on what they have seen"
        lines.append(line if proposed else f"{line}; {_joining(folds, hashes, setting)}")
    if folds.duplicates in ("exact", setting):
        groups = components(len(hashes), duplicate_pairs(hashes, folds.duplicates))
        lines += filter(None, [duplicates_advice(groups, folds.k, folds.duplicates)])
    return lines


def _joining(folds: FoldsConfig, hashes: ImageHashes, setting: Setting) -> str:
    """Return what to set, so that duplicates are in one fold.

    It is the largest distance up to `setting` at which no group of duplicates outgrows a fold.
    """
    choices = [bits for bits in (16, 12, 8, NEAR, 4, 2, 0) if setting != "exact" and bits <= setting]
    fitting = (
        bits
        for bits in choices
        if not duplicates_advice(components(len(hashes), duplicate_pairs(hashes, bits)), folds.k, bits)
    )
    choice = next(fitting, "exact")
    return f"add duplicates: {choice} to folds" if folds.group else f"set folds: {{duplicates: {choice}}}"
