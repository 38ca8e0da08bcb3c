"""Reading a competition, checked whole before anything starts."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kit.competition.assemble import Rows, one_row_an_id, read_rows, with_joins
from kit.competition.config import CompetitionConfig, FirstConfig, Images, NamesConfig, templates_of
from kit.competition.evidence import need_no_lists, remarks_on_labels, remarks_on_sample
from kit.competition.headers import plainly_named
from kit.competition.image_files import first_folder, spelling_hint, unused_files, with_names_on_disk
from kit.competition.labels import (
    Labels,
    MultiLabel,
    SingleLabel,
    encode_columns,
    extended,
    label_counts,
    spelling_of,
)
from kit.competition.observations import KEY, Observations, need_one_label, observations_of
from kit.competition.spelling import respelt, stripped
from kit.competition.submission import (
    SubmissionFormat,
    id_column_of,
    labels_from_submission,
    submission_format,
)
from kit.competition.tables import need_columns, need_unique, read_table
from kit.competition.templates import rows_of_files
from kit.core.errors import KitError, some
from kit.core.paths import competition_folder, inside, mounted
from kit.data.sources import Source, files_of, missing_files
from kit.scoring.pooling import need_poolable

SEPARATORS = (" ", ",", ";", "|")  # what may stand between labels


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

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of targets and of columns of predictions."""
        return self.label_format.classes


@dataclass(frozen=True)
class TestSet:
    """What predicting needs of a competition.

    Attributes
    ----------
    folder
        The competition's files.
    ids
        In the order of the sample submission; with observations, of the test table.
    images
        Where the pixels come from, aligned with `ids`; not all files need to be there.
    sample
        The sample submission as text; where there is none, its columns with the ids and nothing else.
    sample_id
        Its column of ids.
    table
        The test rows as text, with what is joined to them, aligned with `ids`.
    observations
        Which rows make up one prediction, and so a row of the sample; None: each for itself.
    """

    __test__ = False  # no test, whatever pytest thinks of its name

    folder: Path
    ids: list[str]
    images: list[Source]
    sample: pd.DataFrame
    sample_id: str
    table: pd.DataFrame
    observations: Observations | None = None


class TrainLabels(NamedTuple):
    """What is known of the training rows without a look at the images; as in `Competition`."""

    label_format: Labels
    ids: list[str]
    targets: np.ndarray
    observations: Observations | None


def load_test(config: CompetitionConfig) -> TestSet:
    """Read the test side alone, as it is now: Kaggle replaces it when it reruns a kernel.

    Raises
    ------
    KitError
        Where test table and sample submission disagree.
    """
    return _test_set(_folder(config), config, [])


def load_competition(config: CompetitionConfig) -> Competition:
    """Read the tables and find every image.

    Raises
    ------
    KitError
        One line that says what to mend.
    """
    folder, remarks = _folder(config), list[str]()
    train, train_images = _train_side(folder, config, remarks)
    label_format, targets = _labels_of(train, config, folder, remarks)
    remarks += _check_classes(label_format, targets, config)
    observations = _observations_of(train, config, label_format, targets, _where(folder, config))
    _need_files(folder, train_images, config.train_images, "competition.train_images")
    test = _test_set(folder, config, remarks)
    _need_files(folder, test.images, config.test_images, "competition.test_images")
    remarks += unused_files(folder, config, train_images, test.images)
    names = class_names(folder, config, label_format.classes)
    submission = submission_format(config, test.sample, label_format, names)
    remarks += remarks_on_sample(config, test.sample, submission, label_format, names)
    return Competition(
        folder=folder,
        label_format=label_format,
        ids=train[config.id_column].tolist(),
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
    )


def load_labels(config: CompetitionConfig) -> TrainLabels | None:
    """Read what the train table says, without a look at the images; None where it is not there."""
    folder = _folder(config)
    tables = config.files("train")
    places = [first_folder(template) for template in templates_of(config.train_images)]
    if not (all if tables else any)((folder / name).exists() for name in tables or places):
        return None
    train, _ = _train_side(folder, config, [])
    label_format, targets = _labels_of(train, config, folder, [])
    observations = _observations_of(train, config, label_format, targets, _where(folder, config))
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


def class_names(folder: Path, config: CompetitionConfig, classes: tuple[str, ...]) -> dict[str, str]:
    """Return the name of each class for people: as the config says, else the class itself."""
    stated = config.names or {}
    if isinstance(stated, NamesConfig):
        path = inside(folder, stated.table, "competition.names.table")
        table = read_table(path, "competition.names.table", reader=config.tables)
        keys = {"competition.names.label": stated.label, "competition.names.name": stated.name}
        table, _ = plainly_named(table, list(keys.values()), str(path))
        need_columns(table, keys, path)
        need_unique(table[stated.label], f"competition.names: {path}")
        stated = dict(zip(table[stated.label], table[stated.name], strict=True))
    given = _names_given(stated, classes)
    names = {name: given.get(name, name) for name in classes}
    if config.submit_names:
        if nameless := [name for name in classes if not given.get(name)]:
            raise KitError(
                f"competition.names: no name for {some(nameless, 5)}, and submit_names wants one for each"
            )
        if len(set(names.values())) < len(names):
            raise KitError("competition.names: two classes have the same name, and submit_names wants them apart")
    return names


def _names_given(stated: Mapping[str, str], classes: tuple[str, ...]) -> dict[str, str]:
    """The name of each class that has one; KitError where one has several."""
    spelling, given = spelling_of(classes), dict[str, str]()
    key_of: dict[str, str] = {}
    for key, name in stated.items():
        if (place := spelling.place(key)) is None:
            continue
        label = classes[place]
        if given.setdefault(label, name) != name:
            raise KitError(
                f"competition.names: {key_of[label]!r} and {key!r} are one label, class {label!r}, with two "
                "names; leave one of them"
            )
        key_of.setdefault(label, key)
    return given


def _folder(config: CompetitionConfig) -> Path:
    """The competition's folder; the embedded competition is written where it is not there."""
    if config.embedded == "digits" and not (config.slug and mounted(config.slug)):
        from kit.competition.digits import write_digits

        write_digits(Path(config.path).expanduser())
    return competition_folder(config.path, config.slug)


def _where(folder: Path, config: CompetitionConfig) -> str:
    paths = [folder / name for name in config.files("train")]
    return some(paths, 3) if paths else f"{folder}: {config.train_images}"


def _train_side(folder: Path, config: CompetitionConfig, remarks: list[str]) -> tuple[pd.DataFrame, list[Source]]:
    """The train table, or what stands for it, and the images of its rows; `remarks` takes what is odd."""
    if config.train is None:
        return _rows_in_folders(folder, config, remarks)
    rows = read_rows(folder, config, "train", remarks)
    labels = config.label if isinstance(config.label, tuple) else (config.label,)
    need_columns(rows.table, {"competition.id": config.id_column} | {"competition.label": labels[0]}, rows.where)
    for label in labels[1:]:
        need_columns(rows.table, {"competition.label": label}, rows.where)
    if rows.table.empty:
        raise KitError(f"competition.train: {rows.where} has no rows")
    rows = _whole_rows(rows, config, labels[0])
    need_unique(rows.table[config.id_column], f"competition.train: {rows.where}", _long_form_hint(rows, config))
    images = rows.images(folder, config.train_images, "competition.train_images")
    return rows.table, with_names_on_disk(folder, images)


def _whole_rows(rows: Rows, config: CompetitionConfig, label: str | None) -> Rows:
    """The rows, of a long form a row an id."""
    if not config.long_form:
        return rows
    return replace(rows, table=one_row_an_id(rows.table, config.id_column, label))


def _long_form_hint(rows: Rows, config: CompetitionConfig) -> str:
    """What to set where it seems that a row of the table is one label of several."""
    if isinstance(config.label, tuple) or config.id is None:
        return ""
    repeated = rows.table[rows.table[config.id_column].duplicated(keep=False)]
    told = not repeated.duplicated([config.id_column, config.label]).any()
    return "; if each row is one label of several, set competition.long_form=true" if told else ""


def _rows_in_folders(
    folder: Path, config: CompetitionConfig, remarks: list[str]
) -> tuple[pd.DataFrame, list[Source]]:
    """A row for each image file, its id and label from the path.

    Where two files in two folders have the same id, the ids are label/id.
    """
    key = "competition.train_images"
    # The config refuses train: null with several label columns or another kind of images.
    assert isinstance(config.train_images, str | FirstConfig)
    assert isinstance(config.label, str)
    train, paths = rows_of_files(folder, config.train_images, key)
    shown = repr(str(config.train_images))
    for name, column in {"id": config.id_column, "label": config.label}.items():
        if column not in train.columns:
            raise KitError(
                f"{key}: {shown} has no {{{column}}}, the column that competition.{name} names; "
                f"with train: null it is read from the path, as in train/{{{config.label}}}/{{{config.id_column}}}"
            )
    if train[config.id_column].duplicated().any():
        train[config.id_column] = train[config.label] + "/" + train[config.id_column]
    need_unique(train[config.id_column], key)
    return with_joins(folder, train, config, "train", remarks), list(paths)


def _labels_of(
    train: pd.DataFrame, config: CompetitionConfig, folder: Path, remarks: list[str]
) -> tuple[Labels, np.ndarray]:
    """The label format, and the targets of the rows; `remarks` takes what there is to tell."""
    label_format, targets = _labels_in_table(train, config, _where(folder, config), remarks)
    if config.classes_without_rows == "allowed" and not config.submit_names:
        columns = list(_sample(folder, config).columns)
        classes = [name for name in columns if name != id_column_of(columns, config.submitted_id)]
        if len(classes) > 1:  # else it is no column of a class
            return extended(label_format, targets, label_format.unknown(classes))
    return label_format, targets


def _labels_in_table(
    train: pd.DataFrame, config: CompetitionConfig, where: str, remarks: list[str]
) -> tuple[Labels, np.ndarray]:
    if isinstance(config.label, tuple):
        targets = encode_columns(train, config.label, f"competition.label: {where}")
        return MultiLabel(config.label, may_be_empty=not targets.any(axis=1).all()), targets
    cells = train[config.label]
    need_no_lists(cells, config)
    separator = config.cell_separator
    if not separator and len(unlabelled := train.loc[cells.map(stripped) == "", config.id_column]):
        raise KitError(
            f"competition.train: {where}: no label in {len(unlabelled)} of {len(train)} rows "
            f"(id {some(unlabelled, 5)}); label them or remove the rows"
        )
    label_format = MultiLabel.of(cells, separator) if separator else SingleLabel.of(cells)
    if config.classes:
        label_format = label_format.with_classes(respelt(config.classes, label_counts(cells, label_format)))
    remarks += remarks_on_labels(cells, config, label_format)
    targets = label_format.encode(cells.tolist(), "competition.label")
    if isinstance(label_format, MultiLabel):
        label_format = replace(label_format, separator=config.separator or " ")
    return label_format, targets


def _observations_of(
    train: pd.DataFrame, config: CompetitionConfig, label_format: Labels, targets: np.ndarray, where: str
) -> Observations | None:
    """Which training rows make up one prediction, and so have one label; None: each for itself."""
    observations = observations_of(train, config, where)
    if observations:
        need_poolable(observations.pool, observations.exclusive, len(label_format.classes))
        need_one_label(observations, targets, label_format.decode(targets))
    return observations


def label_hints(config: CompetitionConfig, competition: Competition) -> list[str]:
    """Return lines about labels that look like several in a cell, or about a separator that is never used."""
    classes = set(competition.classes)
    lists = isinstance(competition.label_format, MultiLabel) and competition.label_format.style
    if config.long_form:
        return []
    if (
        config.separator
        and not lists
        and not competition.train[config.label].str.contains(config.separator, regex=False).any()
    ):
        return [f"competition.separator: {config.separator!r} stands in no cell of column {config.label!r}"]
    if competition.label_format.multilabel:
        return []
    for separator in SEPARATORS:
        joined = [name for name in classes if separator in name and set(name.split(separator)) <= classes]
        if joined:
            return [
                f"classes like {some(map(repr, sorted(joined)), 2)} are others joined by {separator!r}; if they "
                f"are several labels, set competition.separator={separator!r}"
            ]
    return []


def encode_labels(table: pd.DataFrame, config: CompetitionConfig, label_format: Labels, what: str) -> np.ndarray:
    """Return the targets of a table that has the config's label columns.

    Parameters
    ----------
    table : DataFrame
        Every cell as text.
    config : CompetitionConfig
        Names the label columns.
    label_format : SingleLabel or MultiLabel
        With the classes.
    what : str
        Where the labels stand, for messages.

    Returns
    -------
    ndarray
        Class indices, int64 [rows], or bool [rows, classes].

    Raises
    ------
    KitError
        For a label that is no class.
    """
    if isinstance(config.label, tuple):
        return encode_columns(table, config.label, what)
    if isinstance(label_format, MultiLabel):
        label_format = replace(label_format, separator=config.cell_separator or " ")
    return label_format.encode(table[config.label].tolist(), what)


def _check_classes(label_format: Labels, targets: np.ndarray, config: CompetitionConfig) -> list[str]:
    """Refuse classes that cannot be learned; return lines about those that are never predicted."""
    place = "competition.classes" if config.classes else "competition.label"
    counts = (
        targets.sum(axis=0)
        if label_format.multilabel
        else np.bincount(targets, minlength=len(label_format.classes))
    )
    if len(label_format.classes) < 2:
        held = f": {label_format.classes[0]!r}" if label_format.classes else ""
        raise KitError(f"competition.label: column {config.label!r} holds one class only{held}")
    without = [name for name, count in zip(label_format.classes, counts, strict=True) if not count]
    if without and config.classes_without_rows == "refused":
        raise KitError(
            f"{place}: no training row has {some(map(repr, without), 10)}; leave out what cannot be learned, or "
            "set competition.classes_without_rows=allowed: then it is never predicted"
        )
    if len(label_format.classes) - len(without) < 2:
        raise KitError(f"{place}: less than two classes have a training row; nothing can be learned")
    if not label_format.multilabel and len(label_format.classes) - len(without) == len(targets):
        raise KitError(
            f"competition.label: every row of column {config.label!r} has a class of its own; is it the label?"
        )
    if "id" in label_format.classes:
        raise KitError("competition.label: a class cannot be called 'id'; prediction files use that column name")
    return [f"{place}: no training row has {some(map(repr, without), 10)}: never predicted"] if without else []


def _test_set(folder: Path, config: CompetitionConfig, remarks: list[str]) -> TestSet:
    """The test rows in the order of the sample submission; without one, of the table or the files."""
    sample = _sample(folder, config)
    sample_id = id_column_of(list(sample.columns), config.submitted_id)
    wanted = None if config.stated_columns else sample[sample_id].tolist()
    rows, observations = _test_rows(folder, config, wanted, remarks)
    images = rows.images(folder, config.test_images, "competition.test_images")
    images, ids = with_names_on_disk(folder, images), rows.table[config.id_column].tolist()
    if wanted is None:
        submitted = observations.names if observations else ids
        sample = sample.reindex(range(len(submitted)), fill_value="").assign(**{sample_id: submitted})
    if wanted is None or observations:
        return TestSet(folder, ids, images, sample, sample_id, rows.table, observations)
    place = {name: at for at, name in enumerate(ids)}
    order = [place[name] for name in wanted]
    table = rows.table.iloc[order].reset_index(drop=True)
    return TestSet(folder, wanted, [images[at] for at in order], sample, sample_id, table)


def _test_rows(
    folder: Path, config: CompetitionConfig, wanted: list[str] | None, remarks: list[str]
) -> tuple[Rows, Observations | None]:
    """The test rows, and which make up one prediction: of the table, else the ids of the sample submission, else
    the image files."""
    if config.test is None:
        if wanted is not None and config.predict_by:
            raise KitError(f"{KEY}: which images an observation has stands in the test table; name it in test")
        ids = None if wanted is None else pd.DataFrame({config.id_column: wanted}, dtype=str)
        table = with_joins(folder, _test_files(folder, config) if ids is None else ids, config, "test", remarks)
        return Rows(table, (), str(folder)), observations_of(table, config, f"{folder}: {config.test_images}")
    lacking = [name for name in config.files("test") if not (folder / name).exists()]
    try:
        rows = read_rows(folder, config, "test", remarks)
    except KitError as error:
        if lacking and wanted is None:
            raise KitError(f"{error}; with test: null the rows are the files that fit test_images") from None
        raise
    need_columns(rows.table, {"competition.id": config.id_column}, rows.where)
    rows = _whole_rows(rows, config, None)
    need_unique(rows.table[config.id_column], f"competition.test: {rows.where}")
    observations = observations_of(rows.table, config, rows.where)
    if wanted is not None:
        there = observations.names if observations else rows.table[config.id_column].tolist()
        _need_same_ids(there, wanted, rows.where, config)
    return rows, observations


def _test_files(folder: Path, config: CompetitionConfig) -> pd.DataFrame:
    """A row for each file that fits the template of the test images, with the texts of its columns."""
    key, images = "competition.test_images", config.test_images
    template = images[0] if isinstance(images, tuple) else images
    # The config refuses pixels in a table without one.
    assert isinstance(template, str | FirstConfig)
    table, _ = rows_of_files(folder, template, key, may_be_none=True)
    if config.id_column not in table.columns:
        raise KitError(
            f"{key}: {str(template)!r} has no {{{config.id_column}}}, the column that competition.id names; "
            "without a test table and a sample submission it is read from the path, as in "
            f"test/{{{config.id_column}}}"
        )
    need_unique(table[config.id_column], key)
    return table


def _sample(folder: Path, config: CompetitionConfig) -> pd.DataFrame:
    """The sample submission as text; where there is none, the columns that the config tells, without rows."""
    if config.sample_submission is None:
        return pd.DataFrame(columns=list(config.stated_columns or ()), dtype=str)
    path = inside(folder, config.sample_submission, "competition.sample_submission")
    try:
        sample = read_table(path, "competition.sample_submission", reader=config.tables)
    except KitError as error:
        if path.exists():
            raise
        raise KitError(
            f"{error}; name the file that tells ids and columns, or where there is none set sample_submission: "
            "null and submission: {id: COLUMN, label: COLUMN}, the columns to hand in"
        ) from None
    sample_id = id_column_of(list(sample.columns), config.submitted_id)
    need_unique(sample[sample_id], f"competition.sample_submission: {path}")
    return sample


def _need_same_ids(given: list[str], wanted: list[str], where: str, config: CompetitionConfig) -> None:
    in_sample, in_test = set(wanted), set(given)
    extra = [name for name in given if name not in in_sample]
    lacking = [name for name in wanted if name not in in_test]
    if extra or lacking:
        said, what = [], "observations (competition.predict_by)" if config.predict_by else "ids"
        if extra:
            said.append(f"{len(extra)} {what} are only in the test table ({some(extra, 5)})")
        if lacking:
            said.append(f"{len(lacking)} only in the sample submission ({some(lacking, 5)})")
        forms = {unicodedata.normalize("NFC", name) for name in extra}
        same = forms == {unicodedata.normalize("NFC", name) for name in lacking}
        raise KitError(
            f"competition.test: {where} and {config.sample_submission} disagree: {', '.join(said)}; "
            + ("they differ in Unicode form only (NFC and NFD)" if same else "use the files of one download")
        )


def need_an_image(test: TestSet, config: CompetitionConfig) -> None:
    """Fail where not one of several test images is there: then the template is wrong, and not the images."""
    if len(test.images) > 3 and len(_incomplete(test.images)) == len(test.images):
        _need_files(test.folder, test.images, config.test_images, "competition.test_images")


def _need_files(folder: Path, images: list[Source], template: Images, key: str) -> None:
    """Fail unless the files of all images are there."""
    if not (incomplete := _incomplete(images)):
        return
    lacking = missing_files(images)
    hint = spelling_hint(folder, lacking)
    if len(incomplete) == len(images):
        bare = all(isinstance(file, Path) and file.with_suffix("").is_file() for file in lacking)
        shown = " and ".join(templates_of(template)) if isinstance(template, tuple) else str(template)
        hint += (
            "; without the ending they do: take it out of the template"
            if bare
            else f"; is {shown!r} the right template?"
        )
    raise KitError(f"{key}: {len(incomplete)} of {len(images)} images do not exist ({some(lacking, 5)}){hint}")


def _incomplete(images: list[Source]) -> list[Source]:
    """Those of which a file is not there."""
    gone = set(missing_files(images))
    return [image for image in images if gone.intersection(files_of(image))]
