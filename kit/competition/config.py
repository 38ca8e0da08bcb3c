"""The `competition` and `folds` sections."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kit.settings import Section


class CompetitionConfig(Section):
    """A folder in Kaggle's layout. File names are relative to `path`.

    path               the folder, relative to where the command runs
    embedded           `digits`: the kit writes this competition to `path` when it is not there
    train, test        tables (CSV); test: null takes the test ids from the sample submission
    sample_submission  tells the columns, ids and order of a submission
    id, label          columns of the train table
    train_images       template of an image's path; {column} is replaced by the row's text, and
    test_images        Python's format works on it: train/{class:0>5}/{id}.png
    """

    # Of the test side nothing decides a training; its predictions are made again where it changes.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {"path", "embedded", "test", "sample_submission", "test_images"}
    )

    path: str
    embedded: Literal["digits"] | None = None
    train: str = "train.csv"
    test: str | None = "test.csv"
    sample_submission: str = "sample_submission.csv"
    id: str = "id"
    label: str = "label"
    train_images: str = "train/{id}"
    test_images: str = "test/{id}"


class FoldsConfig(Section):
    """Stratified k-fold.

    k      number of folds
    seed   of the shuffle that deals rows to folds
    run    which folds to train: `all`, or a list like [0, 2]
    """

    incidental: ClassVar[frozenset[str]] = frozenset({"run"})

    k: Annotated[int, Field(ge=2, le=100)] = 5
    seed: int = 0
    run: Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...] = "all"

    @property
    def chosen(self) -> tuple[int, ...]:
        return tuple(range(self.k)) if self.run == "all" else tuple(sorted(set(self.run)))
