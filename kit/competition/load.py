"""Reading a competition, checked whole before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig, Images, NamesConfig
from kit.competition.evidence import need_no_lists, remarks_on_labels, remarks_on_sample
from kit.competition.headers import plainly_named
from kit.competition.labels import (
    Labels,
    MultiLabel,
    SingleLabel,
    encode_columns,
    extended,
    label_counts,
    spelling_of,
)
from kit.competition.spelling import respelt, stripped
from kit.competition.submission import (
    SubmissionFormat,
    id_column_of,
    labels_from_submission,
    submission_format,
)
from kit.competition.tables import need_columns, need_unique, read_table
from kit.competition.templates import fields_of, image_sources, pixel_columns, rows_of_files
from kit.core.errors import KitError, some
from kit.core.paths import competition_folder, inside, mounted
from kit.data.sources import Source, files_of, missing_files

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
        In the order of the sample submission.
    test_images
        Where the pixels come from, aligned with `test_ids`.
    submission
        What a submission has to look like.
    names
        Class → name for people.
    remarks
        Lines about what is odd in the data and was taken as it seemed to be meant.
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
        In the order of the sample submission.
    images
        Where the pixels come from, aligned with `ids`; not all files need to be there.
    sample
        The sample submission as text.
    sample_id
        Its column of ids.
    """

    __test__ = False  # no test, whatever pytest thinks of its name

    folder: Path
    ids: list[str]
    images: list[Source]
    sample: pd.DataFrame
    sample_id: str


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
    _need_files(train_images, config.train_images, "competition.train_images")
    test = _test_set(folder, config, remarks)
    _need_files(test.images, config.test_images, "competition.test_images")
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
    )


def load_labels(config: CompetitionConfig) -> tuple[Labels, list[str], np.ndarray] | None:
    """Read label format, ids and targets of the training rows, without a look at the images.

    Returns
    -------
    tuple or None
        As in `Competition`; None where the train table is not there.
    """
    folder = _folder(config)
    if not (folder / config.train if config.train else folder / _first_folder(config)).exists():
        return None
    train, _ = _train_side(folder, config, [])
    label_format, targets = _labels_of(train, config, folder, [])
    return label_format, train[config.id_column].tolist(), targets


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
    labels = known[0] if known else labels_from_submission(config, test.sample, submission)
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
    return str(folder / config.train) if config.train else f"{folder}: {config.train_images}"


def _train_side(folder: Path, config: CompetitionConfig, remarks: list[str]) -> tuple[pd.DataFrame, list[Source]]:
    """The train table, or what stands for it, and the images of its rows; `remarks` takes what is odd."""
    if config.train is None:
        return _rows_in_folders(folder, config)
    path = inside(folder, config.train, "competition.train")
    train = _named(_table(path, config, config.train_images, "competition.train"), config, path, remarks)
    labels = config.label if isinstance(config.label, tuple) else (config.label,)
    need_columns(train, {"competition.id": config.id_column} | {"competition.label": labels[0]}, path)
    for label in labels[1:]:
        need_columns(train, {"competition.label": label}, path)
    if train.empty:
        raise KitError(f"competition.train: {path} has no rows")
    need_unique(train[config.id_column], f"competition.train: {path}")
    return train, image_sources(folder, train, config.train_images, "competition.train_images", path)


def _rows_in_folders(folder: Path, config: CompetitionConfig) -> tuple[pd.DataFrame, list[Source]]:
    """A row for each image file, its id and label from the path.

    Where two files in two folders have the same id, the ids are label/id.
    """
    key = "competition.train_images"
    # The config refuses train: null with several label columns or another kind of images.
    assert isinstance(config.train_images, str)
    assert isinstance(config.label, str)
    train, paths = rows_of_files(folder, config.train_images, key)
    for name, column in {"id": config.id_column, "label": config.label}.items():
        if column not in train.columns:
            raise KitError(
                f"{key}: {config.train_images!r} has no {{{column}}}, the column that competition.{name} names; "
                f"with train: null it is read from the path, as in train/{{{config.label}}}/{{{config.id_column}}}"
            )
    if train[config.id_column].duplicated().any():
        train[config.id_column] = train[config.label] + "/" + train[config.id_column]
    need_unique(train[config.id_column], key)
    return train, list(paths)


def _first_folder(config: CompetitionConfig) -> str:
    return str(config.train_images).partition("/")[0].partition("{")[0]


def _table(path: Path, config: CompetitionConfig, images: Images, key: str) -> pd.DataFrame:
    """A table without its pixels, with row numbers as ids where it has no column of them."""
    pixels = pixel_columns(path, images, f"{key}_images") if path.is_file() else []
    # One column of pixels tells how many rows there are where nothing else does.
    table = read_table(path, key, pixels[1:], config.tables)
    if config.id is None:
        if config.id_column in table.columns:
            raise KitError(f"competition.id: is null, but {path} has a column {config.id_column!r}; name it")
        table.insert(0, config.id_column, [str(row + 1) for row in range(len(table))])
    return table


def _named(table: pd.DataFrame, config: CompetitionConfig, path: Path, remarks: list[str]) -> pd.DataFrame:
    """The table with its columns called as the config calls them."""
    labels = config.label if isinstance(config.label, tuple) else (config.label,)
    wanted = [config.id_column, *fields_of(config.train_images), *fields_of(config.test_images)]
    table, told = plainly_named(table, wanted, str(path), labels)
    remarks += told
    return table


def _labels_of(
    train: pd.DataFrame, config: CompetitionConfig, folder: Path, remarks: list[str]
) -> tuple[Labels, np.ndarray]:
    """The label format, and the targets of the rows; `remarks` takes what there is to tell."""
    label_format, targets = _labels_in_table(train, config, _where(folder, config), remarks)
    if config.classes_without_rows == "allowed" and not config.submit_names:
        columns = list(_sample(folder, config).columns)
        classes = [name for name in columns if name != id_column_of(columns, config.id)]
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
    if not config.separator and len(unlabelled := train.loc[cells.map(stripped) == "", config.id_column]):
        raise KitError(
            f"competition.train: {where}: no label in {len(unlabelled)} of {len(train)} rows "
            f"(id {some(unlabelled, 5)}); label them or remove the rows"
        )
    label_format = MultiLabel.of(cells, config.separator) if config.separator else SingleLabel.of(cells)
    if config.classes:
        label_format = label_format.with_classes(respelt(config.classes, label_counts(cells, label_format)))
    remarks += remarks_on_labels(cells, config, label_format)
    return label_format, label_format.encode(cells.tolist(), "competition.label")


def label_hints(config: CompetitionConfig, competition: Competition) -> list[str]:
    """Return lines about labels that look like several in a cell, or about a separator that is never used."""
    classes = set(competition.classes)
    lists = isinstance(competition.label_format, MultiLabel) and competition.label_format.style
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
    """The test rows in the order of the sample submission."""
    sample = _sample(folder, config)
    sample_id = id_column_of(list(sample.columns), config.id)
    wanted = sample[sample_id].tolist()
    path = None
    if config.test is None:
        table = pd.DataFrame({config.id_column: wanted}, dtype=str)
    else:
        path = inside(folder, config.test, "competition.test")
        table = _named(_table(path, config, config.test_images, "competition.test"), config, path, remarks)
        need_columns(table, {"competition.id": config.id_column}, path)
        need_unique(table[config.id_column], f"competition.test: {path}")
        _need_same_ids(table[config.id_column].tolist(), wanted, path, config)
    images = image_sources(folder, table, config.test_images, "competition.test_images", path)
    image_of = dict(zip(table[config.id_column], images, strict=True))
    return TestSet(folder, wanted, [image_of[name] for name in wanted], sample, sample_id)


def _sample(folder: Path, config: CompetitionConfig) -> pd.DataFrame:
    """The sample submission as text."""
    path = inside(folder, config.sample_submission, "competition.sample_submission")
    sample = read_table(path, "competition.sample_submission", reader=config.tables)
    need_unique(sample[id_column_of(list(sample.columns), config.id)], f"competition.sample_submission: {path}")
    return sample


def _need_same_ids(given: list[str], wanted: list[str], path: Path, config: CompetitionConfig) -> None:
    in_sample, in_test = set(wanted), set(given)
    extra = [name for name in given if name not in in_sample]
    lacking = [name for name in wanted if name not in in_test]
    if extra or lacking:
        said = []
        if extra:
            said.append(f"{len(extra)} ids are only in the test table ({some(extra, 5)})")
        if lacking:
            said.append(f"{len(lacking)} only in the sample submission ({some(lacking, 5)})")
        raise KitError(
            f"competition.test: {path} and {config.sample_submission} disagree: {', '.join(said)}; "
            "use the files of one download"
        )


def need_an_image(test: TestSet, config: CompetitionConfig) -> None:
    """Fail where not one of several test images is there: then the template is wrong, and not the images."""
    if len(test.images) > 3 and len(_incomplete(test.images)) == len(test.images):
        _need_files(test.images, config.test_images, "competition.test_images")


def _need_files(images: list[Source], template: Images, key: str) -> None:
    """Fail unless the files of all images are there."""
    if incomplete := _incomplete(images):
        hint = f"; is {template!r} the right template?" if len(incomplete) == len(images) else ""
        if hint and all(file.with_suffix("").is_file() for image in images for file in files_of(image)):
            hint = "; without the ending they do: take it out of the template"
        lacking = some(missing_files(images), 5)
        raise KitError(f"{key}: {len(incomplete)} of {len(images)} images do not exist ({lacking}){hint}")


def _incomplete(images: list[Source]) -> list[Source]:
    """Those of which a file is not there."""
    gone = set(missing_files(images))
    return [image for image in images if gone.intersection(files_of(image))]
