"""A competition, read and checked whole before anything starts."""

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition.config import CompetitionConfig
from kit.competition.labels import SingleLabel
from kit.competition.tables import need_columns, need_unique, read_table
from kit.errors import KitError, some
from kit.locate import competition_folder, inside, mounted


@dataclass(frozen=True)
class Competition:
    """What training and submitting need of a competition.

    ids, targets  of the training rows; targets are class indices, int64 [rows]
    test_ids      in the order of the sample submission
    sample        the sample submission as text, `sample_id` the name of its id column
    *_paths       of the images, aligned with the ids
    """

    folder: Path
    format: SingleLabel
    ids: list[str]
    targets: np.ndarray
    train_paths: list[Path]
    test_ids: list[str]
    test_paths: list[Path]
    sample: pd.DataFrame
    sample_id: str

    @property
    def classes(self) -> tuple[str, ...]:
        return self.format.classes


@dataclass(frozen=True)
class TestSet:
    """What predicting needs: ids in the order of the sample submission, paths of the images aligned with them
    (not all need to be there), the sample submission as text and the name of its id column."""

    __test__ = False  # no test, whatever pytest thinks of its name

    folder: Path
    ids: list[str]
    paths: list[Path]
    sample: pd.DataFrame
    sample_id: str


def load_test(config: CompetitionConfig) -> TestSet:
    """Reads the test side alone, as it is now: Kaggle replaces it when it reruns a kernel.

    Raises KitError where test table and sample submission disagree.
    """
    return _test_set(_folder(config), config)


def _test_set(folder: Path, config: CompetitionConfig) -> TestSet:
    sample = _sample(folder, config)
    test = _test_table(folder, config, sample)
    return TestSet(
        folder=folder,
        ids=test.index.tolist(),
        paths=image_paths(folder, test, config.test_images, "competition.test_images"),
        sample=sample,
        sample_id=sample_columns(sample, config.id)[0],
    )


def load_competition(config: CompetitionConfig) -> Competition:
    """Reads the tables and finds every image; raises KitError, one line that says what to mend."""
    folder = _folder(config)
    train = _train_table(folder, config)
    format = SingleLabel.of(train[config.label])
    _check_classes(format, train[config.label], config)
    train_paths = image_paths(folder, train, config.train_images, "competition.train_images")
    _need_files(train_paths, config.train_images, "competition.train_images")
    test = _test_set(folder, config)
    _need_files(test.paths, config.test_images, "competition.test_images")
    return Competition(
        folder=folder,
        format=format,
        ids=train[config.id].tolist(),
        targets=format.encode(train[config.label].tolist(), "competition.label"),
        train_paths=train_paths,
        test_ids=test.ids,
        test_paths=test.paths,
        sample=test.sample,
        sample_id=test.sample_id,
    )


def _folder(config: CompetitionConfig) -> Path:
    """The competition's folder; the embedded competition is written where it is not there."""
    if config.embedded == "digits" and not (config.slug and mounted(config.slug)):
        from kit.competition.digits import write_digits

        write_digits(Path(config.path).expanduser())
    return competition_folder(config.path, config.slug)


def sample_columns(sample: pd.DataFrame, id_column: str) -> tuple[str, str]:
    """Names of the id and the label column of a submission.

    Raises KitError where the sample is not one id and one label column.
    """
    if len(sample.columns) != 2:
        raise KitError(
            "competition.sample_submission: a submission of one label a row has two columns (id and label); "
            f"this one has {len(sample.columns)}: {some(sample.columns)}"
        )
    first, second = sample.columns
    return (second, first) if second == id_column and first != id_column else (first, second)


def submission_format(config: CompetitionConfig, test: TestSet, submission: pd.DataFrame) -> SingleLabel:
    """The label format that a submission is checked against: the classes of the train table; without one,
    whatever the submission says."""
    train = test.folder / config.train
    if train.is_file():
        table = read_table(train, "competition.train")
        need_columns(table, {"competition.label": config.label}, train)
        return SingleLabel.of(table[config.label])
    _, label = sample_columns(test.sample, config.id)
    return SingleLabel(tuple(submission[label].unique()) if label in submission else ())


def _train_table(folder: Path, config: CompetitionConfig) -> pd.DataFrame:
    path = inside(folder, config.train, "competition.train")
    train = read_table(path, "competition.train")
    need_columns(train, {"competition.id": config.id, "competition.label": config.label}, path)
    if train.empty:
        raise KitError(f"competition.train: {path} has no rows")
    need_unique(train[config.id], f"competition.train: {path}")
    unlabelled = train.loc[train[config.label] == "", config.id]
    if len(unlabelled):
        raise KitError(
            f"competition.train: {path}: no label in {len(unlabelled)} of {len(train)} rows "
            f"(id {some(unlabelled, 5)}); label them or remove the rows"
        )
    return train


def _check_classes(format: SingleLabel, labels: pd.Series, config: CompetitionConfig) -> None:
    if len(format.classes) < 2:
        raise KitError(f"competition.label: column {config.label!r} holds one class only: {format.classes[0]!r}")
    if len(format.classes) == len(labels) > 1:
        raise KitError(
            f"competition.label: every row of column {config.label!r} has a class of its own; is it the label?"
        )
    if "id" in format.classes:
        raise KitError("competition.label: a class cannot be called 'id'; prediction files use that column name")


def _sample(folder: Path, config: CompetitionConfig) -> pd.DataFrame:
    path = inside(folder, config.sample_submission, "competition.sample_submission")
    sample = read_table(path, "competition.sample_submission")
    id_column, _ = sample_columns(sample, config.id)
    need_unique(sample[id_column], f"competition.sample_submission: {path}")
    return sample


def _test_table(folder: Path, config: CompetitionConfig, sample: pd.DataFrame) -> pd.DataFrame:
    """The test rows, indexed by id, in the order of the sample submission."""
    id_column, _ = sample_columns(sample, config.id)
    wanted = sample[id_column]
    if config.test is None:
        return pd.DataFrame({config.id: wanted.to_numpy()}, index=wanted.to_numpy())
    path = inside(folder, config.test, "competition.test")
    test = read_table(path, "competition.test")
    need_columns(test, {"competition.id": config.id}, path)
    need_unique(test[config.id], f"competition.test: {path}")
    in_sample, in_test = set(wanted), set(test[config.id])
    extra = [name for name in test[config.id] if name not in in_sample]
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
    return test.set_index(test[config.id]).loc[wanted.tolist()]


def image_paths(folder: Path, table: pd.DataFrame, template: str, key: str) -> list[Path]:
    """One path a row, each inside the folder."""
    _check_template(template, table, key)
    try:
        filled = [_Template().vformat(template, (), row) for row in table.to_dict("records")]
    except ValueError as error:  # a format that only some texts refuse
        raise KitError(f"{key}: {template!r} is no template of text cells: {error}") from error
    return [inside(folder, relative, key) for relative in filled]


def need_an_image(test: TestSet, config: CompetitionConfig) -> None:
    """KitError where not one of several test images is there: then the template is wrong, and not the images."""
    if len(test.paths) > 3 and not any(map(_is_file, test.paths)):
        _need_files(test.paths, config.test_images, "competition.test_images")


def _need_files(paths: list[Path], template: str, key: str) -> None:
    missing = [path for path in paths if not _is_file(path)]
    if missing:
        hint = f"; is {template!r} the right template?" if len(missing) == len(paths) else ""
        raise KitError(f"{key}: {len(missing)} of {len(paths)} images do not exist ({some(missing, 5)}){hint}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False


class _Template(string.Formatter):
    """str.format whose fields are whole column names, `image.name` too."""

    def get_field(self, field_name, args, kwargs):
        return kwargs[field_name], field_name


def _check_template(template: str, table: pd.DataFrame, key: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        unknown = sorted(fields - set(table.columns))
        if not unknown:
            _Template().vformat(template, (), dict.fromkeys(fields, ""))
    except ValueError as error:
        raise KitError(f"{key}: {template!r} is no template of text cells: {error}") from error
    if unknown:
        raise KitError(
            f"{key}: {template!r} asks for the column {some(map(repr, unknown))}; the table has "
            f"{some(table.columns)}"
        )
    if not fields:
        raise KitError(f"{key}: {template!r} names no column, so every row would have one image; try train/{{id}}")
