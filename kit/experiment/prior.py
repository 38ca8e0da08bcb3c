"""The submission of who has trained nothing: the most common class, or each class's share of the training rows."""

from pathlib import Path

import numpy as np

from kit.competition.load import Competition
from kit.competition.tables import read_submission
from kit.core.errors import KitError, Say
from kit.core.paths import OutputDirs
from kit.experiment.loaded import LoadedExperiment
from kit.experiment.pool import hand_in, submission_file
from kit.scoring.decide import plain_rule


def hand_in_prior(loaded: LoadedExperiment, dirs: OutputDirs, say: Say) -> Path | None:
    """Write the prior as the experiment's submission, unless that of its finished runs is there; say so.

    Returns
    -------
    Path or None
        The file, where it was written.
    """
    first = next(iter(loaded.config.policies))
    file = submission_file(loaded, first, dirs)
    competition, config = loaded.competition, loaded.config.scoring
    if _counts(file, loaded, first):
        return None
    prior = class_shares(competition)
    rule = plain_rule(prior[None], competition.label_format.multilabel, config)
    hand_in(competition.submission, rule, {}, config.transfer, file, prior=prior)
    say(f"budget: until a run is finished, {file} has the same for every row, what most training rows have")
    return file


def _counts(file: Path, loaded: LoadedExperiment, policy: str) -> bool:
    """Whether a submission is a valid one of finished runs that are not about to be thrown away."""
    if loaded.differs or not file.is_file() or not loaded.folder.finished(policy):
        return False
    try:
        loaded.competition.submission.validate(read_submission(file, str(file)), str(file))
    except KitError:
        return False
    return True


def class_shares(competition: Competition) -> np.ndarray:
    """Return the share of training rows that have each class, float64 [classes]."""
    targets = competition.targets
    if competition.label_format.multilabel:
        return targets.mean(axis=0, dtype=np.float64)
    return np.bincount(targets, minlength=len(competition.classes)) / max(1, len(targets))
