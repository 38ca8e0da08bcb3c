"""The `competition` and `folds` sections."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from kit.settings import Section


def _a_slug(text: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9_-]*", text) or len(text) > 150:
        raise ValueError("expected the competition's name in its address on Kaggle, or owner/slug of a dataset")
    return text


Slug = Annotated[str, AfterValidator(_a_slug)]


class CompetitionConfig(Section):
    """A folder in Kaggle's layout. File names are relative to `path`.

    slug               Kaggle's name of the competition, as in its address; owner/slug: the data is a dataset
                       of Kaggle's. Kernels find their data by it, and submissions go there
    path               the folder, relative to where the command runs; left out: data/ and the slug. Where
                       it is not there, as in a kernel, what Kaggle mounted for the slug
    embedded           `digits`: the kit writes this competition to `path` when it is not there
    train, test        tables (CSV); test: null takes the test ids from the sample submission
    sample_submission  tells the columns, ids and order of a submission
    id, label          columns of the train table
    train_images       template of an image's path; {column} is replaced by the row's text, and
    test_images        Python's format works on it: train/{class:0>5}/{id}.png
    """

    # Of the test side nothing decides a training; its predictions are made again where it changes.
    incidental: ClassVar[frozenset[str]] = frozenset(
        {"slug", "path", "embedded", "test", "sample_submission", "test_images"}
    )

    slug: Slug | None = None
    path: str = ""
    embedded: Literal["digits"] | None = None
    train: str = "train.csv"
    test: str | None = "test.csv"
    sample_submission: str = "sample_submission.csv"
    id: str = "id"
    label: str = "label"
    train_images: str = "train/{id}"
    test_images: str = "test/{id}"

    @model_validator(mode="before")
    @classmethod
    def _path_from_slug(cls, content: Any) -> Any:
        """Without a path, the folder into which `kit fetch-data` puts the competition."""
        if isinstance(content, dict) and not content.get("path"):
            if (slug := content.get("slug")) is None:
                raise ValueError("path is missing; give the competition's folder, or Kaggle's slug of it")
            return content | {"path": f"data/{str(slug).rpartition('/')[2]}"}
        return content


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
