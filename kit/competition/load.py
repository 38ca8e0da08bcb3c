"""Reading a competition, checked whole before anything starts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.evidence import remarks_on_sample
from kit.competition.extra import ExtraRows, as_shares
from kit.competition.extra_tables import Side, extra_rows, weights_in
from kit.competition.image_files import first_folder, shared_images, unused_files
from kit.competition.images_config import templates_of
from kit.competition.labels import (
    Labels,
)
from kit.competition.observations import Observations
from kit.competition.sides import TestSet, incomplete, need_files, test_side, train_place, train_side
from kit.competition.submission import (
    SubmissionFormat,
    labels_from_submission,
    submission_format,
)
from kit.competition.tables import need_columns
from kit.competition.train_labels import (
    TrainLabels,
    check_classes,
    class_names,
    label_hints,
    train_labels,
    train_observations,
)
from kit.core.errors import some
from kit.core.paths import competition_folder, mounted
from kit.data.sources import Source


@dataclass(frozen=True)
class Competition:
    """What training and submitting need of a competition.

    Attributes
    ----------
    folder
        The competition's files.
    label_format
        What the labels are.
    ids
        Of the training rows.
    targets
        Of the training rows: class indices, int64 [rows]; where a row may have several labels, bool [rows,
        classes].
    train
        The train table as text, aligned with `ids`.
    train_images
        Where the pixels come from, aligned with `ids`.
    test_ids
        In the order of the sample submission; with observations, of the test table.
    test_images
        Where the pixels come from, aligned with `test_ids`.
    submission
        What a submission has to look like.
    names
        Class → name for people.
    remarks
        Lines about what is odd in the data and was taken as it seemed to be meant.
    observations, test_observations
        Which rows of each side make up one prediction; None: each row for itself.
    weights
        What each training row counts in the loss, float64 [rows], 0 or more; None: each counts alike.
    extra
        Rows that train and are never held out; None: there are none.
    """

    folder: Path
    label_format: Labels
    ids: list[str]
    targets: np.ndarray
    train: pd.DataFrame
    train_images: list[Source]
    test_ids: list[str]
    test_images: list[Source]
    submission: SubmissionFormat
    names: dict[str, str]
    remarks: tuple[str, ...] = ()
    observations: Observations | None = None
    test_observations: Observations | None = None
    weights: np.ndarray | None = None
    extra: ExtraRows | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of targets and of columns of predictions."""
        return self.label_format.classes

    @property
    def weighs(self) -> bool:
        """Whether some rows that train count otherwise than others."""
        return self.weights is not None or (self.extra is not None and bool((self.extra.weights != 1).any()))

    @property
    def without_rows(self) -> list[str]:
        """The classes that no training row has."""
        several = self.targets.ndim == 2
        counts = self.targets.sum(axis=0) if several else np.bincount(self.targets, minlength=len(self.classes))
        return [name for name, count in zip(self.classes, counts, strict=True) if not count]


def load_test(config: CompetitionConfig) -> TestSet:
    """Read the test side alone, as it is now: Kaggle replaces it when it reruns a kernel.

    Raises
    ------
    KitError
        Where test table and sample submission disagree.
    """
    return test_side(_folder(config), config, [])


def load_competition(config: CompetitionConfig, trains: bool = True) -> Competition:
    """Read the tables and find every image.

    Parameters
    ----------
    config : CompetitionConfig
    trains : bool
        Whether it is read to train on it; else extra rows are left out, which need not be there then.

    Raises
    ------
    KitError
        One line that says what to mend.
    """
    folder, remarks = _folder(config), list[str]()
    train, train_images = train_side(folder, config, remarks)
    label_format, targets = train_labels(train, config, folder, remarks)
    remarks += check_classes(label_format, targets, config)
    observations = train_observations(train, config, label_format, targets, train_place(folder, config))
    need_files(folder, train_images, config.train_images, "competition.train_images")
    test = test_side(folder, config, remarks)
    need_files(folder, test.images, config.test_images, "competition.test_images")
    ids, weights = train[config.id_column].tolist(), _weights(train, config, train_place(folder, config))
    sides = {"train": Side(train, ids, train_images), "test": Side(test.table, test.ids, test.images)}
    extra = extra_rows(config, folder, label_format, sides, remarks) if trains else None
    remarks += _never_predicted(extra, label_format, targets)
    remarks += unused_files(folder, config, train_images, [*test.images, *(extra.sources if extra else [])])
    remarks += shared_images(train_images, test.images)
    names = class_names(folder, config, label_format.classes)
    submission = submission_format(config, test.sample, label_format, names)
    remarks += remarks_on_sample(config, test.sample, submission, label_format, names)
    remarks += label_hints(config, train, label_format)
    return Competition(
        folder=folder,
        label_format=label_format,
        ids=ids,
        targets=targets,
        train=train,
        train_images=train_images,
        test_ids=test.ids,
        test_images=test.images,
        submission=submission,
        names=names,
        remarks=tuple(remarks),
        observations=observations,
        test_observations=test.observations,
        weights=weights,
        extra=extra,
    )


def _never_predicted(extra: ExtraRows | None, labels: Labels, targets: np.ndarray) -> list[str]:
    """Return a line where extra rows have a class that no training row has."""
    if extra is None:
        return []
    classes = labels.classes
    own, more = (as_shares(each, len(classes)).sum(axis=0) for each in (targets, extra.targets(len(classes))))
    names = [classes[place] for place in np.flatnonzero((more > 0) & (own == 0))]
    if not names:
        return []
    return [f"competition.extra: {some(map(repr, names), 10)}, which no training row has, is never predicted"]


def _weights(train: pd.DataFrame, config: CompetitionConfig, where: str) -> np.ndarray | None:
    """What each row counts in the loss, as `competition.weight` says."""
    if config.weight is None:
        return None
    need_columns(train, {"competition.weight": config.weight}, where)
    return weights_in(train[config.weight], f"competition.weight: {where}")


def load_labels(config: CompetitionConfig) -> TrainLabels | None:
    """Read what the train table says, without a look at the images; None where it is not there."""
    folder = _folder(config)
    tables = config.files("train")
    places = [first_folder(template) for template in templates_of(config.train_images)]
    if not (all if tables else any)((folder / name).exists() for name in tables or places):
        return None
    train, _ = train_side(folder, config, [])
    label_format, targets = train_labels(train, config, folder, [])
    observations = train_observations(train, config, label_format, targets, train_place(folder, config))
    return TrainLabels(label_format, train[config.id_column].tolist(), targets, observations)


def expected_submission(config: CompetitionConfig, submission: pd.DataFrame) -> SubmissionFormat:
    """Return the format that a submission of the test set is checked against.

    Without a train table it may hold whatever labels it says.

    Parameters
    ----------
    config : CompetitionConfig
        Of the competition.
    submission : DataFrame
        Every cell as text.
    """
    test, known = load_test(config), load_labels(config)
    labels = known.label_format if known else labels_from_submission(config, test.sample, submission)
    return submission_format(config, test.sample, labels, class_names(test.folder, config, labels.classes))


def need_an_image(test: TestSet, config: CompetitionConfig) -> None:
    """Fail where not one of several test images is there: then the template is wrong, and not the images."""
    if len(test.images) > 3 and len(incomplete(test.images)) == len(test.images):
        need_files(test.folder, test.images, config.test_images, "competition.test_images")


def _folder(config: CompetitionConfig) -> Path:
    """The competition's folder; the embedded competition is written where it is not there."""
    if config.embedded == "digits" and not (config.slug and mounted(config.slug)):
        from kit.competition.digits import write_digits

        write_digits(Path(config.path).expanduser())
    return competition_folder(config.path, config.slug)
