"""The `competition` section of the config."""

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from kit.competition.images_config import FirstConfig, Images, PixelsConfig
from kit.competition.spelling import need_apart
from kit.core.named import OwnOptions
from kit.core.settings import ConfigSection, Text
from kit.scoring.pooling import Pool


def _a_slug(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9_-]*", text) or len(text) > 150:
        raise ValueError("expected the competition's name in its address on Kaggle, or owner/slug of a dataset")
    return text


Slug = Annotated[str, AfterValidator(_a_slug)]


class NamesConfig(ConfigSection):
    """A table that tells the name of each class.

    Attributes
    ----------
    table
        The CSV file.
    label, name
        Its columns with the class and with the class' name.
    """

    table: str
    label: Text
    name: Text


class PredictByConfig(ConfigSection):
    """What gets one prediction, where that is not a row of the tables but an observation of several.

    Attributes
    ----------
    rows
        The column of the train and test table that tells which rows belong together, or a template of columns
        like {patient_id}_{laterality}, as for images.
    pool
        How the predictions of rows become one: mean, max, or noisy-or (see `kit.scoring.pooling`).
    """

    rows: Annotated[Text, Field(min_length=1)]
    pool: Pool = "mean"

    @property
    def column(self) -> str | None:
        """The one column that tells the observation; None for a template."""
        return None if "{" in self.rows else self.rows


def _rows_alone(value: Any) -> Any:
    """Take a column or a template for the whole section."""
    alone = isinstance(value, str | int | float) and not isinstance(value, bool)
    return {"rows": value} if alone else value


class TablesConfig(OwnOptions):
    """A reader of the user's own: a function of a table's path and of the options beside its name.

    It gives a pandas DataFrame, whose columns count and whose index does not; or it is a class that is made with
    the options and whose objects are such a function.
    """

    @cached_property
    def function(self) -> Callable[[Path], Any]:
        """What is called; KitError where it cannot be loaded or does not take its options."""
        return self.code.bind(self.options, ("path",))


class JoinConfig(ConfigSection):
    """A second table, whose columns are joined to the rows of the train table, and of the test table.

    Attributes
    ----------
    table
        The file.
    on
        The column that both have; in `table` no two rows have the same in it.
    """

    table: str
    on: Text

    @model_validator(mode="before")
    @classmethod
    def _the_word_on(cls, content: Any) -> Any:
        """YAML 1.1 reads the key `on` as true."""
        if isinstance(content, dict) and True in content:
            return {"on" if key is True else key: value for key, value in content.items()}
        return content


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict | ConfigSection) else value


class SubmissionConfig(ConfigSection):
    """What is handed in where there is no sample submission.

    Attributes
    ----------
    id
        Name of the column of ids.
    label
        Name of the column of labels; a list: a column for each class.
    kind
        As `competition.submission`; left out: labels in one column, 0/1 in columns.
    """

    id: Text
    label: Text | Annotated[tuple[Text, ...], Field(min_length=2)]
    kind: Literal["labels", "columns", "probabilities"] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them, in their order."""
        return (self.id, *(self.label if isinstance(self.label, tuple) else (self.label,)))

    @model_validator(mode="after")
    def _columns_apart(self) -> Self:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("every column needs a name of its own")
        if isinstance(self.label, tuple) and self.kind == "labels":
            raise ValueError("labels stand in one column; name one in label")
        return self


def _kind_of_names(names: Any) -> str:
    from_a_table = isinstance(names, NamesConfig) or (isinstance(names, dict) and "table" in names)
    return "NamesConfig" if from_a_table else "mapping"


Names = Annotated[
    Annotated[NamesConfig, Tag("NamesConfig")] | Annotated[dict[Text, Text], Tag("mapping")],
    Discriminator(_kind_of_names),
]
BETWEEN = "\x1f"  # between the labels of a row in long form: ASCII's unit separator, which stands in no label
Files = str | Annotated[tuple[str, ...], Field(min_length=1)]


class ExtraConfig(ConfigSection):
    """A table of rows that train and are never held out: other data, or labels that models made.

    Attributes
    ----------
    table
        Its file, which is read as the competition's tables are.
    path
        The folder that `table` and `images` are relative to, itself relative to where the command runs; left out:
        with a slug data/ and its name, else the competition's folder.
    slug
        Kaggle's owner/slug of the dataset, or of the kernel, that holds it where `path` is not there.
    images
        As `train_images`; or `train` or `test`: the competition's own images of that side, by their id.
    id
        Column of ids; left out: `competition.id`.
    label
        Column of labels, or a list of 0/1 columns; left out: `competition.label`.
    shares
        In place of `label`: whether there is a column for each class with its share, 0 to 1. Where a row has one
        label they sum to 1 (to within 0.001).
    weight
        What each row counts in the loss: a column, or a number above 0.
    fold
        Column with the number of the fold whose models alone train on a row; left out: the models of all folds.
        An id may then stand there once for each fold. Where the table has a column `fold_plan` as well, that is
        the digest of the fold plan that the numbers are of, and another plan is refused.
    source
        Where the labels came from, like the experiment whose models made them; nothing is read of it.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"path", "slug", "source"})

    table: Annotated[str, Field(min_length=1)]
    path: Annotated[str, Field(min_length=1)] | None = None
    slug: Slug | None = None
    images: Images
    id: Text | None = None
    label: Text | Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    shares: bool = False
    weight: Annotated[float, Field(gt=0)] | Annotated[str, Field(min_length=1)] = 1.0
    fold: Text | None = None
    source: str | None = None

    @property
    def side(self) -> Literal["train", "test"] | None:
        """The side of the competition whose images these are; None: they have images of their own."""
        return "train" if self.images == "train" else "test" if self.images == "test" else None

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> Self:
        if self.shares and self.label is not None:
            raise ValueError("label and shares tell the labels both; leave one of them out")
        if self.slug and "/" not in self.slug:
            raise ValueError("slug is owner/slug of a dataset or a kernel")
        return self

    @model_validator(mode="before")
    @classmethod
    def _path_from_slug(cls, content: Any) -> Any:
        """Take, as for the competition, the folder below data/ that is called as its slug."""
        if isinstance(content, dict) and content.get("slug") and not content.get("path"):
            return content | {"path": f"data/{str(content['slug']).rpartition('/')[2]}"}
        return content


class CompetitionConfig(ConfigSection):
    """A folder in Kaggle's layout. File names are relative to `path`.

    Attributes
    ----------
    slug
        Kaggle's name of the competition, as in its address; owner/slug: the data is a dataset of Kaggle's.
        Kernels find their data by it, and submissions go there.
    path
        The folder, relative to where the command runs; left out: data/ and the slug. Where it is not there, as in
        a kernel, what Kaggle mounted for the slug.
    embedded
        `digits`: the kit writes this competition to `path` when it is not there.
    train, test
        Tables; a list: files with the same columns, whose rows follow one another. train: null takes the rows from
        the image files, whose template then names the label; test: null takes the test ids from the sample
        submission, and where there is none from the image files.
    sample_submission
        Tells the columns, ids and order of a submission; null: there is none, and `submission` tells the columns.
    tables
        The user's own reader of the competition's tables (train, test, join, sample_submission, names), like
        "mine.py:read" or {name: "mine.py:read", sheet: 2}; left out: they are CSV, parquet or JSON files.
        Submissions are CSV.
    join
        A further table, or several, whose columns are joined to the rows.
    long_form
        Whether a row of the train table is one label: those with one id make up one row with several labels.
    id
        Column of the tables; null: they have none, and rows count from 1.
    label
        Column of the train table; a list: a 0/1 column for each class.
    weight
        Column of the train table: what each row counts in the loss, 0 or more; a row of 0 does not train. Left
        out: each counts 1.
    separator
        Between the labels of a cell, where a row may have several; left out: one label a row. In a long form it
        stands in submissions alone (there a space, left out).
    classes
        All labels in their order; left out: those of the train table, in order.
    classes_without_rows
        refused, or allowed: a class of `classes`, of `label` or of the sample's columns that no training row has.
        It keeps its column of probabilities, which is 0, and is never predicted.
    names
        Another name of each class, {label: name} or {table:, label:, name:}: shown, and handed in where
        submit_names says so.
    train_images, test_images
        Template of an image's path: {column} is replaced by the row's text, and Python's format works on it, as
        in train/{class:0>5}/{id}.png. train/{id}.*: whatever ending the image has; images_*/{id}.png: the first
        such folder that has the file; train.zip/{id}.jpg: inside a zip. {first: [...]}: the first template whose
        file is there. A list: a grey file for each channel. {columns: pixel*}: the pixels stand in the table.
    extra
        A table of rows that train and are never held out, or several: see `ExtraConfig`.
    predict_by
        What gets one prediction, where it has several rows: a column, a template of columns, or {rows:, pool:}.
        The predictions of its rows are pooled before anything is decided, scored or handed in, and folds keep
        them together. Left out: each row for itself.
    submission
        labels, columns (0/1, one for each class) or probabilities (one for each class; of the second class where
        there is one column); auto: what the sample submission has. Without one {id:, label:, kind:} names the
        columns.
    submit_names
        Hand in the names of the classes.
    ordered
        Whether a submission has to keep the sample's order of rows.
    """

    # Of the test side nothing decides a training; its predictions are made again where it changes. How predictions
    # are pooled trains nothing; which rows it keeps together is in the fold plan.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {
            *("slug", "path", "embedded", "test", "sample_submission", "test_images"),
            *("names", "submission", "submit_names", "ordered", "predict_by"),
        }
    )
    later: ClassVar[frozenset[str]] = frozenset(
        {"tables", "join", "long_form", "classes_without_rows", "weight", "extra"}
    )

    slug: Slug | None = None
    path: str = ""
    embedded: Literal["digits"] | None = None
    train: Files | None = "train.csv"
    test: Files | None = "test.csv"
    sample_submission: str | None = "sample_submission.csv"
    tables: TablesConfig | None = None
    join: Annotated[tuple[JoinConfig, ...], Field(min_length=1), BeforeValidator(_as_list)] | None = None
    long_form: bool = False
    id: Text | None = "id"
    label: Text | Annotated[tuple[Text, ...], Field(min_length=2)] = "label"
    weight: Text | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None
    classes: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    classes_without_rows: Literal["refused", "allowed"] = "refused"
    names: Names | None = None
    train_images: Images = "train/{id}"
    test_images: Images = "test/{id}"
    extra: Annotated[tuple[ExtraConfig, ...], Field(min_length=1), BeforeValidator(_as_list)] | None = None
    predict_by: Annotated[PredictByConfig | None, BeforeValidator(_rows_alone)] = None
    submission: Literal["auto", "labels", "columns", "probabilities"] | SubmissionConfig = "auto"
    submit_names: bool = False
    ordered: bool = False

    @field_validator("label", "classes")
    @classmethod
    def _once_each(cls, values: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(values, tuple) and (twice := [value for value in values if values.count(value) > 1]):
            raise ValueError(f"{twice[0]} stands there twice")
        if isinstance(values, tuple):
            need_apart(values)
        return values

    @model_validator(mode="before")
    @classmethod
    def _path_from_slug(cls, content: Any) -> Any:
        """Take, where there is no path, the folder into which `kit fetch-data` puts the competition."""
        if isinstance(content, dict) and not content.get("path"):
            if (slug := content.get("slug")) is None:
                raise ValueError("path is missing; give the competition's folder, or Kaggle's slug of it")
            return content | {"path": f"data/{str(slug).rpartition('/')[2]}"}
        return content

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        columns = isinstance(self.label, tuple)
        if columns and self.separator:
            raise ValueError("separator is for one column of labels; label lists a column a class")
        if columns and self.classes and self.classes != self.label:
            raise ValueError("classes are the columns that label lists; leave classes out")
        if self.train is None and (
            columns or not isinstance(self.train_images, str | FirstConfig) or self.id is None
        ):
            raise ValueError(
                "train: null reads labels from a folder a class, so it needs an id, one label, and one template "
                "like train/{label}/{id}"
            )
        if self.tables and any(
            isinstance(images, PixelsConfig) for images in (self.train_images, self.test_images)
        ):
            raise ValueError("tables: images whose pixels stand in a table need CSV files; leave tables out")
        if self.submit_names and self.names is None:
            raise ValueError("submit_names: there are no names; give competition.names")
        return self

    @model_validator(mode="after")
    def _one_long_form(self) -> Self:
        if not self.long_form:
            return self
        if isinstance(self.label, tuple):
            raise ValueError("long_form has a label a row, in one column; label lists several")
        if self.train is None or self.id is None:
            raise ValueError("long_form puts the rows of one id together, so it needs a train table with ids")
        if PixelsConfig in (type(self.train_images), type(self.test_images)):
            raise ValueError("long_form: pixels in the table are an image a row; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _one_way_to_hand_in(self) -> Self:
        stated = self.submission if isinstance(self.submission, SubmissionConfig) else None
        if stated and self.sample_submission is not None:
            raise ValueError(
                "submission names the columns to hand in, and so does the sample submission; leave one out, as "
                "with sample_submission: null"
            )
        if self.sample_submission is None and stated is None:
            raise ValueError(
                "sample_submission: null: say what to hand in, as in submission: {id: filename, label: label}"
            )
        if stated and stated.id != self.id and self.id in stated.columns:
            raise ValueError(f"submission.label: {self.id} is the column of ids; call the ids so or the label not")
        if stated and self.test is None and isinstance(self.test_images, PixelsConfig):
            raise ValueError("test: null without a sample submission needs image files; pixels stand in a table")
        return self

    def record(self, exclude_defaults: bool = False) -> dict[str, Any]:
        """Return plain values for a file; own code in them is relative to where the command runs, as `path` is."""
        content = self.model_dump(mode="json", exclude_defaults=exclude_defaults)
        if self.tables:
            content["tables"] |= {"name": self.tables.code.seen_from(Path())}
        return content

    def canonical(self) -> dict[str, Any]:
        """Return what decides the result; of extra rows without where they lie."""
        values = super().canonical()
        if self.extra:
            values["extra"] = [each.canonical() for each in self.extra]
        return values

    @property
    def id_column(self) -> str:
        """The column of ids: that of the tables, or the kit's own where they have none."""
        return self.id or "id"

    @property
    def submitted_id(self) -> str | None:
        """The column by which a submission names what is predicted, where it has that column."""
        return (self.predict_by.column if self.predict_by else None) or self.id

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels."""
        return isinstance(self.label, tuple) or self.separator is not None or self.long_form

    @property
    def cell_separator(self) -> str | None:
        """What stands between the labels in a cell of the train table as it is read; None: a cell is one label."""
        return BETWEEN if self.long_form else self.separator

    @property
    def stated_columns(self) -> tuple[str, ...] | None:
        """The columns of a submission where the config tells them, and no sample does."""
        return self.submission.columns if isinstance(self.submission, SubmissionConfig) else None

    @property
    def submission_kind(self) -> Literal["auto", "labels", "columns", "probabilities"]:
        """What is handed in; auto: what the sample submission has."""
        if isinstance(self.submission, SubmissionConfig):
            return self.submission.kind or ("columns" if isinstance(self.submission.label, tuple) else "labels")
        return self.submission

    def files(self, side: Literal["train", "test"]) -> tuple[str, ...]:
        """Return the tables of the train or the test rows; none where there is no table."""
        named = self.train if side == "train" else self.test
        return () if named is None else (named,) if isinstance(named, str) else named

    @property
    def named_tables(self) -> list[str]:
        """The files of all tables that the config names."""
        names = [self.names.table] if isinstance(self.names, NamesConfig) else []
        sample = [] if self.sample_submission is None else [self.sample_submission]
        joined = [join.table for join in self.join or ()]
        return [*self.files("train"), *self.files("test"), *sample, *joined, *names]
