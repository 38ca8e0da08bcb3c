"""The `competition` and `folds` sections of the config."""

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from kit.competition.spelling import need_apart
from kit.core.named import OwnOptions
from kit.core.settings import ConfigSection, Text


def _a_slug(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9_-]*", text) or len(text) > 150:
        raise ValueError("expected the competition's name in its address on Kaggle, or owner/slug of a dataset")
    return text


Slug = Annotated[str, AfterValidator(_a_slug)]


def _a_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return text


class PixelsConfig(ConfigSection):
    """Images whose pixels stand in the table, a column each: grey levels 0 to 255, row after row.

    Attributes
    ----------
    columns
        Their names, as a pattern: `pixel*` is every column that begins so, in the table's order.
    height, width
        In pixels; left out: the square of so many.
    """

    columns: str = "pixel*"
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None


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


class TablesConfig(OwnOptions):
    """A reader of the user's own: a function of a table's path and of the options beside its name.

    It gives a pandas DataFrame, whose columns count and whose index does not; or it is a class that is made with
    the options and whose objects are such a function.
    """

    @cached_property
    def function(self) -> Callable[[Path], Any]:
        """What is called; KitError where it cannot be loaded or does not take its options."""
        return self.code.bind(self.options, ("path",))


def _kind_of_names(names: Any) -> str:
    from_a_table = isinstance(names, NamesConfig) or (isinstance(names, dict) and "table" in names)
    return "NamesConfig" if from_a_table else "mapping"


Names = Annotated[
    Annotated[NamesConfig, Tag("NamesConfig")] | Annotated[dict[Text, Text], Tag("mapping")],
    Discriminator(_kind_of_names),
]
Images = str | Annotated[tuple[str, ...], Field(min_length=1)] | PixelsConfig


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
        Tables (CSV). train: null takes the rows from the image files, whose template then names the label;
        test: null takes the test ids from the sample submission.
    sample_submission
        Tells the columns, ids and order of a submission.
    tables
        The user's own reader of the competition's tables (train, test, sample_submission, names), like
        "mine.py:read" or {name: "mine.py:read", sheet: 2}; left out: they are CSV files. Submissions are CSV.
    id
        Column of the tables; null: they have none, and rows count from 1.
    label
        Column of the train table; a list: a 0/1 column for each class.
    separator
        Between the labels of a cell, where a row may have several; left out: one label a row.
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
        in train/{class:0>5}/{id}.png. A list: a grey file for each channel. {columns: pixel*}: the pixels stand
        in the table.
    submission
        labels, columns (0/1, one for each class) or probabilities (one for each class; of the second class where
        there is one column); auto: what the sample submission has.
    submit_names
        Hand in the names of the classes.
    ordered
        Whether a submission has to keep the sample's order of rows.
    """

    # Of the test side nothing decides a training; its predictions are made again where it changes.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {
            *("slug", "path", "embedded", "test", "sample_submission", "test_images"),
            *("names", "submission", "submit_names", "ordered"),
        }
    )
    later: ClassVar[frozenset[str]] = frozenset({"tables", "classes_without_rows"})

    slug: Slug | None = None
    path: str = ""
    embedded: Literal["digits"] | None = None
    train: str | None = "train.csv"
    test: str | None = "test.csv"
    sample_submission: str = "sample_submission.csv"
    tables: TablesConfig | None = None
    id: Text | None = "id"
    label: Text | Annotated[tuple[Text, ...], Field(min_length=2)] = "label"
    separator: Annotated[str, Field(min_length=1)] | None = None
    classes: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    classes_without_rows: Literal["refused", "allowed"] = "refused"
    names: Names | None = None
    train_images: Images = "train/{id}"
    test_images: Images = "test/{id}"
    submission: Literal["auto", "labels", "columns", "probabilities"] = "auto"
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
        if self.train is None and (columns or not isinstance(self.train_images, str) or self.id is None):
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

    def record(self, exclude_defaults: bool = False) -> dict[str, Any]:
        """Return plain values for a file; own code in them is relative to where the command runs, as `path` is."""
        content = self.model_dump(mode="json", exclude_defaults=exclude_defaults)
        if self.tables:
            content["tables"] |= {"name": self.tables.code.seen_from(Path())}
        return content

    @property
    def id_column(self) -> str:
        """The column of ids: that of the tables, or the kit's own where they have none."""
        return self.id or "id"

    @property
    def multilabel(self) -> bool:
        """Whether a row may have several labels."""
        return isinstance(self.label, tuple) or self.separator is not None


class FoldsConfig(ConfigSection):
    """Which rows are held out when.

    Left as it is: stratified k-fold, by label, or by all labels where a row has several.

    Attributes
    ----------
    k
        Number of folds.
    seed
        Of the shuffle that deals rows to folds.
    run
        Which folds to train: `all`, or a list like [0, 2].
    stratify
        Deal the classes evenly to the folds.
    group
        Column of the train table; rows with the same text in it are a row group, which is in one fold.
    group_pattern
        Regular expression: what it finds in the column's text (its first group, if it has one) tells the row
        group.
    duplicates
        Images that are alike are in one fold: none, exact (the same pixels), or the largest Hamming distance of
        two perceptual hashes of 64 bits, 0 to 16. With time or column, row groups and images that are alike are
        not kept together, but refused where they span folds.
    time
        Column of the train table, numbers or dates: each fold is later than all it is trained on; the earliest
        rows only train.
    column
        Column of the train table that holds the folds.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"run"})

    k: Annotated[int, Field(ge=2, le=100)] = 5
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    run: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = "all"
    stratify: bool = True
    group: Text | None = None
    group_pattern: Annotated[str, AfterValidator(_a_pattern)] | None = None
    duplicates: Literal["none", "exact"] | Annotated[int, Field(ge=0, le=16)] = "none"
    time: Text | None = None
    column: Text | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.group_pattern and not self.group:
            raise ValueError("group_pattern is searched in the text of a column; name it in group")
        if self.time and self.column:
            raise ValueError("time and column tell the folds both; leave one of them out")
        return self

    @property
    def chosen(self) -> tuple[int, ...]:
        """The folds to train, ascending."""
        return tuple(range(self.k)) if self.run == "all" else tuple(sorted(set(self.run)))
