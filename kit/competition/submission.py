"""Submissions: the sample's columns, ids and order; validated before they are written."""

from pathlib import Path

import pandas as pd

from kit.competition.labels import SingleLabel
from kit.competition.tables import need_unique
from kit.errors import KitError, some
from kit.files import write_text


def make_submission(labels: pd.Series, sample: pd.DataFrame, id_name: str) -> pd.DataFrame:
    """The sample submission with its label column replaced by `labels` (text, indexed by id)."""
    (label_name,) = [name for name in sample.columns if name != id_name]
    return sample.assign(**{label_name: labels.loc[sample[id_name].tolist()].tolist()})


def validate_submission(
    submission: pd.DataFrame, columns: list[str], id_name: str, ids: list[str], format: SingleLabel, what: str
) -> None:
    """Fails with the precise reason where Kaggle would refuse or misread the file.

    columns  the expected column names, in order
    ids      the expected ids, in any order
    what     the file's name, for the message
    """
    if list(submission.columns) != columns:
        raise KitError(f"{what}: the columns are {some(submission.columns)}; expected {some(columns)}")
    need_unique(submission[id_name], what)
    given, wanted = set(submission[id_name]), set(ids)
    if lacking := [name for name in ids if name not in given]:
        raise KitError(f"{what}: {len(lacking)} of {len(ids)} ids are missing ({some(lacking, 5)})")
    if extra := [name for name in submission[id_name] if name not in wanted]:
        raise KitError(f"{what}: {len(extra)} ids are not in the test set ({some(extra, 5)})")
    (label_name,) = [name for name in columns if name != id_name]
    empty = submission.loc[submission[label_name] == "", id_name]
    if len(empty):
        raise KitError(f"{what}: no label for {len(empty)} ids ({some(empty, 5)})")
    format.encode(submission[label_name].tolist(), what)


def write_submission(submission: pd.DataFrame, path: Path) -> None:
    write_text(path, submission.to_csv(index=False, lineterminator="\n"))
