"""The two sides of a competition: the train rows, the test rows in the order of the sample, and their images."""

import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kit.competition.assemble import Rows, one_row_an_id, read_rows, with_joins
from kit.competition.config import CompetitionConfig
from kit.competition.image_files import spelling_hint, with_names_on_disk
from kit.competition.images_config import FirstConfig, Images, templates_of
from kit.competition.observations import KEY, Observations, observations_of
from kit.competition.spelling import shown
from kit.competition.submission import (
    id_column_of,
)
from kit.competition.tables import need_columns, need_unique, read_table
from kit.competition.templates import rows_of_files
from kit.core.errors import KitError, some
from kit.core.paths import inside
from kit.data.sources import Source, files_of, missing_files


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


def train_place(folder: Path, config: CompetitionConfig) -> str:
    """Return what to call the train rows' table, or what stands for it, in a message."""
    paths = [folder / name for name in config.files("train")]
    return some(paths, 3) if paths else f"{folder}: {config.train_images}"


def train_side(folder: Path, config: CompetitionConfig, remarks: list[str]) -> tuple[pd.DataFrame, list[Source]]:
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
    told = not repeated.duplicated().any()
    return "; if a row is one label, or one box, of several, set competition.long_form=true" if told else ""


def test_side(folder: Path, config: CompetitionConfig, remarks: list[str]) -> TestSet:
    """The test rows in the order of the sample submission; without one, of the table or the files."""
    sample = sample_submission(folder, config)
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


def sample_submission(folder: Path, config: CompetitionConfig) -> pd.DataFrame:
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
            said.append(f"{len(extra)} {what} are only in the test table ({some(shown(extra), 5)})")
        if lacking:
            said.append(f"{len(lacking)} only in the sample submission ({some(shown(lacking), 5)})")
        forms = {unicodedata.normalize("NFC", name) for name in extra}
        same = forms == {unicodedata.normalize("NFC", name) for name in lacking}
        raise KitError(
            f"competition.test: {where} and {config.sample_submission} disagree: {', '.join(said)}; "
            + ("they differ in Unicode form only (NFC and NFD)" if same else "use the files of one download")
        )


def need_files(folder: Path, images: list[Source], template: Images, key: str) -> None:
    """Fail unless the files of all images are there."""
    if not (without := incomplete(images)):
        return
    lacking = missing_files(images)
    hint = spelling_hint(folder, lacking)
    if len(without) == len(images):
        bare = all(isinstance(file, Path) and file.with_suffix("").is_file() for file in lacking)
        shown = " and ".join(templates_of(template)) if isinstance(template, tuple) else str(template)
        hint += (
            "; without the ending they do: take it out of the template"
            if bare
            else f"; is {shown!r} the right template?"
        )
    raise KitError(f"{key}: {len(without)} of {len(images)} images do not exist ({some(lacking, 5)}){hint}")


def incomplete(images: list[Source]) -> list[Source]:
    """Return those of which a file is not there."""
    if not (gone := set(missing_files(images))):
        return []
    return [image for image in images if gone.intersection(files_of(image))]
